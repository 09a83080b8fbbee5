"""Where a long file may be entered in its middle with the very samples that decoding it from its beginning gives.

Three things remember. A codec may; files of formats that do are not entered (AudioFile.seeks_exactly). soxr computes in
blocks, so its results depend in their last bits on where it began; begun a whole number of periods later it gives the
same bits. The choice of how channels are mixed is made at fixed distances, and looks one choice back
(AudioFile.is_settled).
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from streamkws.audio import MIX_S, SAMPLE_RATE, AudioFile, Resampler

PERIODS = {
    8_000: 830,
    11_025: 361_620,
    12_000: 2490,
    22_050: 109_368,
    24_000: 2202,
    32_000: 1660,
    44_100: 218_736,
    48_000: 4404,
    96_000: 20_928,
    192_000: 13_872,
}
"""Of soxr's resampling to 16 kHz, in frames of each rate; found by trying every start, and checked by entry_period."""

SETTLING_SAMPLES = 8000
"""After so much of its output a resampler no longer knows how it began, at 16 kHz: many times its filter's length."""

MOST_PERIOD_S = 60.0
"""A file that can be entered at rarer places only is not entered."""


@cache
def entry_period(rate: int, n_channels: int) -> int:
    """Frames between two places at which a file of this rate may be entered; 0 for a file that may not.

    A rate's period is tried on noise first: another soxr may have another one, and then gives 0.
    """
    period = 1 if rate == SAMPLE_RATE else PERIODS.get(rate, 0)
    if rate != SAMPLE_RATE and period and not _is_period(rate, period):
        return 0
    if n_channels > 1:
        period = math.lcm(period, round(MIX_S * rate))
    return period if period <= MOST_PERIOD_S * rate else 0


def _is_period(rate: int, period: int) -> bool:
    noise = np.random.default_rng(0).standard_normal(period + 3 * rate, np.float32) / np.float32(8)
    whole, part = Resampler(rate).push(noise), Resampler(rate).push(noise[period:])
    first = period * SAMPLE_RATE // rate
    same = whole[first : first + part.size] == part[: whole.size - first]
    return period * SAMPLE_RATE % rate == 0 and bool(same[SETTLING_SAMPLES:].all())


def entry_before(audio: AudioFile, sample: int) -> tuple[int, int]:
    """The last place at or before a sample where a stream may be entered: its frame, and its sample at 16 kHz.

    Frames and samples count from the stream's beginning, which need not be the file's.
    """
    period = entry_period(audio.rate, audio.n_channels)
    n = max(0, sample) * audio.rate // (SAMPLE_RATE * period)
    return n * period, n * period * SAMPLE_RATE // audio.rate


def even_cuts(audio: AudioFile, n_pieces: int, n_samples: int, step: int) -> list[int]:
    """The samples at which to cut a stream into about n_pieces of the same length; none where it cannot be entered.

    n_samples: of the stream, at 16 kHz. step: cuts are multiples of it.
    """
    if n_pieces < 2 or not audio.seeks_exactly or not entry_period(audio.rate, audio.n_channels):
        return []
    cuts = {n_samples * n // n_pieces // step * step for n in range(1, n_pieces)}
    return sorted(cuts - {0})
