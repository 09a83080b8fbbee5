"""Traces: what a detector makes of a recording, thinned to what a picture can show, however long the recording is."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from streamkws.audio import as_float
from streamkws.detector import Detector, within
from streamkws.errors import AudioError, ConfigError
from streamkws.smoother import Detection, StepClock
from streamkws.sources import Source, open_source

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

N_COLUMNS = 400
"""A series that does not fit into twice as many columns is thinned to this many or more."""

BEHIND_S = 1.0
"""How much further is heard than shown, for the peaks that are still awaited there."""


@dataclass(frozen=True)
class Trace:
    """What a detector made of the audio between two times; all times are seconds from the recording's first sample.

    name: of the recording. model: its name.
    start_s, end_s: limits of what is shown.
    wave_s, low, high: (n,) middle of each column of the waveform, its lowest and its highest sample.
    mel_s: its limits. frames: (n, F) log-mel spectrogram, the highest value of each column.
    mel_hz: (F,) the frequency each mel band hears most.
    steps_s: (n,) time of each column of posteriors. posteriors: (n, K) smoothed, the highest of each column.
    keywords: K names. thresholds: of those that were listened for.
    detections: those whose peak lies between the limits.
    trouble: why the recording could not be read to its end; "" where it could.
    """

    name: str
    model: str
    start_s: float
    end_s: float
    wave_s: F64
    low: F32
    high: F32
    mel_s: tuple[float, float]
    frames: F32
    mel_hz: F64
    steps_s: F64
    posteriors: F32
    keywords: tuple[str, ...]
    thresholds: dict[str, float]
    detections: tuple[Detection, ...]
    trouble: str = ""


def trace(
    source: Source,
    detector: Detector,
    start_s: float = 0.0,
    end_s: float | None = None,
    progress: Callable[[float, float | None], None] | None = None,
) -> Trace:
    """Let a new detector hear a recording from its beginning, and keep what is shown between two times.

    source: as for detect. end_s: None is the recording's end.
    progress: called with the seconds that were heard, and how many there are, None where that is not known.
    Raises ConfigError for limits without a posterior between them, AudioError for a recording that cannot be read or
    is too short for the network. What was heard before a damaged place is kept.
    """
    last_s = math.inf if end_s is None else end_s
    if not 0 <= start_s < last_s:
        raise ConfigError(f"expected 0 <= start < end in seconds, got {start_s:g} and {last_s:g}")
    model, config, stages = detector.model, detector.model.config, detector.stages[0]
    rate, hop, clock = config.frontend.sample_rate, config.frontend.hop_samples, config.clock
    first, last = start_s * rate, last_s * rate
    steps = [(sample - clock.first_end_samples) / clock.step_samples for sample in (first, last)]
    low, high = _Columns(np.minimum, first, last), _Columns(np.maximum, first, last)
    mel, levels = _Columns(np.maximum, first / hop, last / hop), _Columns(np.maximum, *steps)
    smoother = model.new_smoother()
    detections: list[Detection] = []
    trouble = ""
    with open_source(source) as blocks:
        try:
            for block in blocks:
                samples = as_float(block)
                frames = stages.front_end.push(samples)
                posteriors = stages.network_state.push(frames)
                detections += stages.smoother.push(posteriors)
                low.push(samples)
                high.push(samples)
                mel.push(frames)
                levels.push(smoother.smooth(posteriors))
                if progress is not None:
                    progress(low.n_rows / rate, blocks.duration_s)
                if low.n_rows >= last + BEHIND_S * rate:
                    break
        except AudioError as error:
            if not levels.n_rows:
                raise
            trouble = str(error)
    heard_s, n_steps = low.n_rows / rate, levels.n_rows
    detections = within(detections + detector.end_stages(), heard_s)
    _check_steps(blocks.name, clock, heard_s, n_steps, (start_s, last_s) if not len(levels.columns()) else None)
    return Trace(
        name=blocks.name,
        model=model.name,
        start_s=start_s,
        end_s=min(last_s, heard_s),
        wave_s=low.middles() / rate,
        low=low.columns(),
        high=high.columns(),
        mel_s=(mel.first * hop / rate, (mel.first + len(mel.columns()) * mel.rows_per_column) * hop / rate),
        frames=mel.columns(),
        mel_hz=model.filters.argmax(axis=1) * rate / config.frontend.fft_samples,
        steps_s=np.array([clock.end_s(step) for step in levels.middles()]),
        posteriors=levels.columns(),
        keywords=model.keywords,
        thresholds=detector.thresholds,
        detections=tuple(hit for hit in detections if start_s <= hit.peak <= last_s),
        trouble=trouble,
    )


def _check_steps(
    name: str, clock: StepClock, heard_s: float, n_steps: int, empty_s: tuple[float, float] | None
) -> None:
    """Refuse a recording too short for a posterior, and limits without a posterior between them (empty_s)."""
    if not n_steps:
        raise AudioError(
            f"{name}: expected at least {clock.end_s(0):.3f} s of audio, which the first posterior needs, "
            f"got {heard_s:.3f} s"
        )
    if empty_s is not None:
        raise ConfigError(
            f"{name}: expected a start and an end with posteriors between them, which come every "
            f"{clock.step_samples / clock.sample_rate:g} s up to {clock.end_s(n_steps - 1):.2f} s, "
            f"got {empty_s[0]:g} and {empty_s[1]:g} s"
        )


class _Columns:
    """The rows of a series whose numbers lie from first up to last, neighbours merged whenever there are too many.

    merge: np.minimum or np.maximum.
    first: number of the first row that is kept.
    n_rows: that have come. rows_per_column: that are merged into one.
    """

    def __init__(self, merge: np.ufunc, first: float, last: float) -> None:
        self.first = max(0, math.ceil(first))
        self.n_rows = 0
        self.rows_per_column = 1
        self._merge, self._last = merge, last
        self._full: F32 | None = None  # columns of rows_per_column rows
        self._rest: F32 | None = None  # the rows behind them, fewer than that
        self._n_kept = 0

    def push(self, rows: F32) -> None:
        """Feed rows, (n,) or (n, width) float32."""
        start = max(0, self.first - self.n_rows)
        stop = max(0, math.ceil(min(self.n_rows + len(rows), self._last)) - self.n_rows)
        self.n_rows += len(rows)
        rows = rows[start:stop]
        self._n_kept += len(rows)
        if self._full is None or self._rest is None:
            self._full, self._rest = rows[:0], rows[:0]
        rest, full = np.concatenate([self._rest, rows]), self._full
        while True:
            n_new = min(len(rest) // self.rows_per_column, 2 * N_COLUMNS - len(full))
            n_taken = n_new * self.rows_per_column
            full = np.concatenate([full, self._merged(rest[:n_taken], self.rows_per_column)])
            rest = rest[n_taken:]
            if len(full) < 2 * N_COLUMNS:
                break
            full = self._merged(full, 2)
            self.rows_per_column *= 2
        self._full, self._rest = full, rest

    def columns(self) -> F32:
        """The columns so far, (n,) or (n, width); the last one may be of fewer rows."""
        if self._full is None or self._rest is None:
            return np.zeros(0, np.float32)
        last = [self._merged(self._rest, len(self._rest))] if len(self._rest) else []
        return np.concatenate([self._full, *last])

    def middles(self) -> F64:
        """Number of the row in the middle of each column."""
        starts = np.arange(0, self._n_kept, self.rows_per_column)
        ends = np.minimum(starts + self.rows_per_column, self._n_kept) - 1
        middles: F64 = self.first + (starts + ends) / 2
        return middles

    def _merged(self, rows: F32, n: int) -> F32:
        merged: npt.NDArray[Any] = self._merge.reduce(rows.reshape(-1, n, *rows.shape[1:]), axis=1)
        return merged
