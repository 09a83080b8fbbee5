"""Perturbations of training audio and features: pure functions of arrays and a random generator.

One forward and one inverse FFT do the room, the equalizer and the change of speed at once: the spectrum is multiplied
by room and equalizer, and a spectrum of n samples that is inverted at m samples is the same sound resampled by m / n
(speed and pitch together, as with tape).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streamkws.audio import SAMPLE_RATE
from streamkws.errors import ConfigError
from streamkws.mixing import from_direct_path

F32 = npt.NDArray[np.float32]
C64 = npt.NDArray[np.complex64]

TEMPO_FRAMES = 20
"""Frames over which a changed tempo stays the same."""
ROOM_SAMPLES = 7440
"""Room responses are cut to this many samples, 0.465 s at 16 kHz."""


@dataclass(frozen=True)
class AugmentConfig:
    """How strongly training audio is perturbed; a share is the part of the examples that a perturbation is applied to.

    speed_share, speed_min, speed_max: speed and pitch factor (1.1 = faster and higher).
    n_vtlp, vtlp_min, vtlp_max: number and range of the vocal-tract-length factors (1 is always among them).
    room_share: room responses, at a random wet level.
    equalizer_share, equalizer_db: a smooth random spectral shape, its standard deviation in dB.
    bandlimit_share: a low-pass at 3.4 to 7 kHz.
    noise_share, snr_min_db, snr_max_db: noise; recorded_share, babble_share: kinds of noise, the rest is synthesized.
    floor_share, floor_min_db, floor_max_db: a microphone's steady noise, so far below the loudest: recordings
        that a noise gate has emptied get what others have, and no word is known by its microphone.
    resonance_share, suppression_share, compressor_share, saturation_share, codec_share: what devices do (devices.py): a
        slope with peaks and dips; noise suppression of 1 to 4 times the noise down to -25 dB; a compressor of 1.3 to 3;
        saturation by 3 to 20 dB; MP3 or Vorbis.
    peak_min_db, peak_max_db: peak level in dB of full scale; overdrive_share: clipped by 3 to 12 dB.
    context_share: other speech right before or after a keyword.
    cut_share: the audio begins with the word, ends with it, or both: digital silence before or after.
    shift_frames, gain_jitter_db: time shift and gain, drawn again each time an example is used.
    n_time_masks, time_mask_frames, n_frequency_masks, frequency_mask_bands: SpecAugment, number and greatest width.
    tempo_jitter: standard deviation of the logarithm of the tempo, drawn for each fifth of a second at each use.
    """

    speed_share: float = 0.8
    speed_min: float = 0.85
    speed_max: float = 1.18
    n_vtlp: int = 9
    vtlp_min: float = 0.85
    vtlp_max: float = 1.15
    room_share: float = 0.5
    equalizer_share: float = 0.6
    equalizer_db: float = 5.0
    bandlimit_share: float = 0.08
    noise_share: float = 0.75
    snr_min_db: float = -2.0
    snr_max_db: float = 25.0
    recorded_share: float = 0.5
    babble_share: float = 0.25
    floor_share: float = 0.0
    floor_min_db: float = 25.0
    floor_max_db: float = 60.0
    resonance_share: float = 0.0
    suppression_share: float = 0.0
    compressor_share: float = 0.0
    saturation_share: float = 0.0
    codec_share: float = 0.0
    peak_min_db: float = -35.0
    peak_max_db: float = 0.0
    overdrive_share: float = 0.04
    context_share: float = 0.2
    cut_share: float = 0.0
    shift_frames: int = 8
    gain_jitter_db: float = 3.0
    n_time_masks: int = 2
    time_mask_frames: int = 12
    n_frequency_masks: int = 2
    frequency_mask_bands: int = 6
    tempo_jitter: float = 0.0

    def __post_init__(self) -> None:
        for name in (
            "speed_share", "room_share", "equalizer_share", "bandlimit_share", "noise_share", "recorded_share",
            "babble_share", "floor_share", "overdrive_share", "context_share", "cut_share", "suppression_share",
            "compressor_share", "saturation_share", "codec_share", "resonance_share",
        ):  # fmt: skip
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"expected augment.{name} in 0..1, got {getattr(self, name)}")
        if self.recorded_share + self.babble_share > 1:
            raise ConfigError("expected augment.recorded_share + augment.babble_share of at most 1")
        if not 0.5 <= self.speed_min <= 1 <= self.speed_max <= 1.25:
            raise ConfigError(
                f"expected 0.5 <= speed_min <= 1 <= speed_max <= 1.25, got {self.speed_min}, {self.speed_max}"
            )
        if not 0.5 <= self.vtlp_min <= 1 <= self.vtlp_max <= 2 or self.n_vtlp < 1:
            raise ConfigError("expected 0.5 <= vtlp_min <= 1 <= vtlp_max <= 2 and n_vtlp >= 1")
        for low, high in (
            ("snr_min_db", "snr_max_db"), ("floor_min_db", "floor_max_db"), ("peak_min_db", "peak_max_db"),
        ):  # fmt: skip
            if getattr(self, low) > getattr(self, high):
                raise ConfigError(f"expected augment.{low} <= augment.{high}")
        for name in (
            "shift_frames", "n_time_masks", "time_mask_frames", "n_frequency_masks", "frequency_mask_bands",
            "gain_jitter_db", "equalizer_db", "tempo_jitter",
        ):  # fmt: skip
            if getattr(self, name) < 0:
                raise ConfigError(f"expected augment.{name} >= 0, got {getattr(self, name)}")


def warped_filters(filters: F32, factor: float, sample_rate: int = SAMPLE_RATE, limit_hz: float = 4800.0) -> F32:
    """Mel filters that hear a vocal tract of another length (Jaitly and Hinton 2013).

    filters: (F, bins) float32, the front end's own.
    factor: formants move up by it, up to limit_hz; from there a straight line leads to the upper end unmoved.
    Returns (F, bins) float32; factor 1 gives the filters themselves.
    """
    n_bins = filters.shape[1]
    nyquist = sample_rate / 2
    knee = limit_hz * min(factor, 1.0) / factor
    hz = np.linspace(0.0, nyquist, n_bins)
    warped = np.where(hz <= knee, hz * factor, nyquist - (nyquist - knee * factor) / (nyquist - knee) * (nyquist - hz))
    position = warped / nyquist * (n_bins - 1)
    bins = np.arange(n_bins)
    return np.stack([np.interp(position, bins, row) for row in filters]).astype(np.float32)


def vtlp_factors(config: AugmentConfig) -> tuple[float, ...]:
    """The vocal-tract-length factors, evenly spaced, the middle one exactly 1."""
    if config.n_vtlp == 1:
        return (1.0,)
    factors = np.linspace(config.vtlp_min, config.vtlp_max, config.n_vtlp)
    factors[np.argmin(np.abs(factors - 1.0))] = 1.0
    return tuple(float(factor) for factor in factors)


def speed_lengths(n_samples: int, slowest: float, fastest: float) -> npt.NDArray[np.int64]:
    """Even lengths without prime factors above 5 (fast to transform) that change the speed within slowest..fastest."""
    lengths = []
    for length in range(int(n_samples / fastest) // 2 * 2, int(n_samples / slowest) + 1, 2):
        rest = length
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1 and slowest <= n_samples / length <= fastest:
            lengths.append(length)
    return np.array(lengths, np.int64)


def room_spectrum(response: F32, n_samples: int) -> C64:
    """Spectrum of a room's reverberation after the direct path, the direct path itself left out.

    response: (n,) float32 impulse response; its greatest value is taken for the direct path and moved to time 0.
    Returns (n_samples // 2 + 1,) complex64 of unit energy: direct + wet * spectrum is a room at that wet level.
    """
    tail = from_direct_path(response)[:ROOM_SAMPLES].astype(np.float32)
    tail = tail * np.sign(tail[0] if tail[0] else 1.0)
    direct = 24  # 1.5 ms around the peak belong to the direct path
    tail[:direct] = 0.0
    tail[-160:] *= np.linspace(1.0, 0.0, tail[-160:].size, dtype=np.float32)
    energy = float(np.sqrt(np.sum(tail.astype(np.float64) ** 2)))
    if energy > 0:
        tail = (tail / energy).astype(np.float32)
    return np.fft.rfft(tail, n_samples).astype(np.complex64)


def equalizer_basis(n_bins: int, n_points: int = 7, nyquist_hz: float = 8000.0) -> F32:
    """(n_points, n_bins) float32: piecewise linear hats, evenly spaced on the logarithm of frequency from 60 Hz."""
    hz = np.linspace(0.0, nyquist_hz, n_bins)
    place = np.log(np.maximum(hz, 60.0) / 60.0) / np.log(nyquist_hz / 60.0) * (n_points - 1)
    hats: F32 = np.maximum(0.0, 1.0 - np.abs(place[None, :] - np.arange(n_points)[:, None])).astype(np.float32)
    return hats


def filter_and_resample(samples: F32, gains: C64 | F32 | None, n_fft: int, n_out: int) -> F32:
    """Multiply the spectrum by gains and play it n_fft / n_out times as fast.

    samples: (n,) float32, n <= n_fft; what a filter adds beyond n_fft wraps around.
    gains: (n_fft // 2 + 1,) or None. Returns (n_out,) float32.
    """
    spectrum = np.fft.rfft(samples, n_fft)
    if gains is not None:
        spectrum = spectrum * gains
    resampled = np.fft.irfft(spectrum[: n_out // 2 + 1], n_out) * (n_out / n_fft)
    return np.asarray(resampled, dtype=np.float32)


def mask_features(rng: np.random.Generator, features: F32, fill: F32, config: AugmentConfig) -> None:
    """SpecAugment (Park et al. 2019), in place: bands and stretches of time are set to fill.

    features: (B, T, F) float32. fill: (F,) float32, the mean of each band.
    """
    n_examples, n_frames, n_mels = features.shape
    for index in range(n_examples):
        for _ in range(config.n_time_masks):
            width = int(rng.integers(0, config.time_mask_frames + 1))
            start = int(rng.integers(0, max(1, n_frames - width)))
            features[index, start : start + width] = fill
        for _ in range(config.n_frequency_masks):
            width = int(rng.integers(0, config.frequency_mask_bands + 1))
            start = int(rng.integers(0, max(1, n_mels - width)))
            features[index, :, start : start + width] = fill[start : start + width]


def tempo_positions(rng: np.random.Generator, n_examples: int, n_frames: int, deviation: float) -> F32:
    """(B, T) float32: which frame of an example, in fractions, is heard at each frame when its tempo varies.

    Rises from 0 to T - 1 in each example; the slope is constant over TEMPO_FRAMES frames, its logarithm normal.
    """
    n_parts = -(-n_frames // TEMPO_FRAMES)
    slopes = np.exp(deviation * rng.standard_normal((n_examples, n_parts)))
    positions = np.cumsum(np.repeat(slopes, TEMPO_FRAMES, axis=1)[:, :n_frames], axis=1)
    positions -= positions[:, :1]
    positions *= (n_frames - 1) / np.maximum(positions[:, -1:], 1e-9)
    return positions.astype(np.float32)


def at_positions(features: F32, positions: F32) -> F32:
    """Features (B, T, F) read at fractional frames (B, T), linearly interpolated."""
    examples = np.arange(len(features))[:, None]
    before = np.minimum(positions.astype(np.int64), features.shape[1] - 2)
    share = (positions - before)[:, :, None].astype(np.float32)
    read: F32 = features[examples, before] * (1 - share) + features[examples, before + 1] * share
    return read


def speech_region(samples: npt.NDArray[np.int16] | F32, sample_rate: int = SAMPLE_RATE) -> tuple[int, int]:
    """Start and end (samples) of the main stretch of sound of a clip: the word that a clip was recorded for.

    samples: (n,) int16 or float32. The threshold lies between the clip's noise floor (10th percentile of the level of
    10 ms frames) and its highest level; gaps below 0.2 s belong to the word; it is raised while the stretch is longer
    than 1.4 s. A clip shorter than 50 ms or without contrast is one stretch.
    """
    hop = sample_rate // 100
    n_frames = samples.size // hop
    if n_frames < 5:
        return 0, int(samples.size)
    frames = samples[: n_frames * hop].reshape(n_frames, hop).astype(np.float32)
    frames = frames - frames.mean(axis=1, keepdims=True)
    power = np.convolve(np.mean(frames**2, axis=1), np.full(5, 0.2), mode="same")
    level = 10 * np.log10(power + (1.0 if samples.dtype == np.int16 else 1e-9))
    floor, top = float(np.percentile(level, 10)), float(level.max())
    if top - floor < 3:
        return 0, int(samples.size)
    best = (0, n_frames)
    for fraction in (0.4, 0.5, 0.6, 0.7, 0.8):
        active = np.flatnonzero(level > max(floor + fraction * (top - floor), top - 40))
        cuts = np.flatnonzero(np.diff(active) > 20)
        starts, ends = active[np.r_[0, cuts + 1]], active[np.r_[cuts, active.size - 1]] + 1
        energies = [float(power[a:b].sum()) for a, b in zip(starts, ends, strict=True)]
        main = int(np.argmax(energies))
        best = (int(starts[main]), int(ends[main]))
        if best[1] - best[0] <= 140:
            break
    return max(0, best[0] - 3) * hop, min(n_frames, best[1] + 3) * hop


def faded(samples: npt.NDArray[np.int16] | F32, n_fade: int = 80) -> F32:
    """A copy of samples whose first and last n_fade samples rise and fall, so that a cut makes no click."""
    copy: F32 = samples.astype(np.float32, copy=True)
    n_fade = min(n_fade, copy.size // 2)
    if n_fade:
        ramp = np.linspace(0.0, 1.0, n_fade, endpoint=False, dtype=np.float32)
        copy[:n_fade] *= ramp
        copy[-n_fade:] *= ramp[::-1]
    return copy


def pick(rng: np.random.Generator, shares: Sequence[float]) -> int:
    """Index drawn with probability proportional to shares."""
    cumulative = np.cumsum(shares)
    return int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))
