"""FrontEnd: audio samples in, log-mel frames out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from streamkws import kernels
from streamkws.audio import SAMPLE_RATE, as_float, valid_samples
from streamkws.errors import ConfigError

if TYPE_CHECKING:
    F32 = npt.NDArray[np.float32]

WINDOWS = ("rectangular", "hann")
MAX_FFT_SAMPLES, MAX_MELS, MAX_RATE = 65_536, 1024, 768_000
LEAST_FLOOR = 1e-37
"""Below it a float32 loses its digits, and then all of them."""


@dataclass(frozen=True)
class FrontEndConfig:
    """Settings of the log-mel front end; the defaults are python_speech_features' own.

    sample_rate: Hz.
    window_samples, hop_samples: length of a frame and distance between frames, in samples.
    fft_samples: length of the FFT; a power of two, at least window_samples.
    n_mels: number of mel bands, F.
    low_hz, high_hz: limits of the mel bands in Hz.
    preemphasis: y[n] = x[n] - preemphasis * x[n-1].
    window: "rectangular" or "hann".
    energy_floor: band energies below it are set to it, so that digital silence is log(energy_floor) exactly.
    """

    sample_rate: int = SAMPLE_RATE
    window_samples: int = 400
    hop_samples: int = 160
    fft_samples: int = 512
    n_mels: int = 26
    low_hz: float = 0.0
    high_hz: float = 8000.0
    preemphasis: float = 0.97
    window: str = "rectangular"
    energy_floor: float = float(np.finfo(np.float64).eps)

    def __post_init__(self) -> None:
        if not 1 <= self.hop_samples <= self.window_samples <= self.fft_samples:
            raise ConfigError(
                "expected 1 <= hop_samples <= window_samples <= fft_samples, got "
                f"{self.hop_samples}, {self.window_samples}, {self.fft_samples}"
            )
        if self.fft_samples < 4 or self.fft_samples & (self.fft_samples - 1):
            raise ConfigError(f"expected fft_samples to be a power of two of at least 4, got {self.fft_samples}")
        if self.fft_samples > MAX_FFT_SAMPLES:
            raise ConfigError(f"expected fft_samples of at most {MAX_FFT_SAMPLES}, got {self.fft_samples}")
        if not 1 <= self.n_mels <= MAX_MELS:
            raise ConfigError(f"expected 1 to {MAX_MELS} mel bands, got {self.n_mels}")
        if not 1 <= self.sample_rate <= MAX_RATE:
            raise ConfigError(f"expected a sample_rate of 1 to {MAX_RATE} Hz, got {self.sample_rate}")
        if not 0 <= self.low_hz < self.high_hz <= self.sample_rate / 2:
            raise ConfigError(
                f"expected 0 <= low_hz < high_hz <= {self.sample_rate / 2:g}, got {self.low_hz:g} and {self.high_hz:g}"
            )
        if self.window not in WINDOWS:
            raise ConfigError(f"expected a window of {', '.join(WINDOWS)}, got {self.window!r}")
        if not LEAST_FLOOR <= self.energy_floor <= 1:
            raise ConfigError(f"expected an energy_floor of {LEAST_FLOOR:g} to 1, got {self.energy_floor}")
        if not 0 <= self.preemphasis <= 1:
            raise ConfigError(f"expected preemphasis in 0..1, got {self.preemphasis}")


def mel_filters(config: FrontEndConfig) -> F32:
    """The mel filters that python_speech_features makes for config: (F, fft_samples // 2 + 1) float32."""
    from python_speech_features import get_filterbanks  # imports scipy, which a shipped model does not need

    filters: F32 = get_filterbanks(
        config.n_mels, config.fft_samples, config.sample_rate, config.low_hz, config.high_hz
    ).astype(np.float32)
    return filters


class FrontEnd(kernels.OneStream):
    """Turns a stream of samples into log-mel frames; one object per stream.

    filters: (F, fft_samples // 2 + 1) float32 mel filters; None makes them with python_speech_features.

    Frame t covers the samples from t * hop_samples on. With default settings the frames equal
    python_speech_features.logfbank's, apart from its last, zero-padded one.
    """

    state: kernels.FrontEndState
    tables: kernels.FrontEndTables

    def __init__(self, config: FrontEndConfig | None = None, filters: F32 | None = None) -> None:
        self.config = config = FrontEndConfig() if config is None else config
        filters = mel_filters(config) if filters is None else np.asarray(filters, np.float32)
        n_bins = config.fft_samples // 2 + 1
        if filters.shape != (config.n_mels, n_bins):
            raise ConfigError(f"expected mel filters of shape ({config.n_mels}, {n_bins}), got {filters.shape}")
        self.tables = _tables(config, filters)
        n_half = config.fft_samples // 2
        self.state = kernels.own_arrays(
            kernels.FrontEndState(
                samples=np.zeros(config.window_samples),
                previous=np.zeros(1),
                n_samples=np.zeros(1, np.int64),
                work=np.zeros(4 * n_half),
                power=np.zeros(n_half + kernels.MEL_BINS),
                energies=np.zeros(config.n_mels),
            )
        )

    def push(self, samples: npt.ArrayLike) -> F32:
        """Feed samples and return the frames they completed.

        samples: (n,) int16, or float32 in [-1, 1]; any n; mono, at the front end's rate.
        Returns (T, F) float32.
        Raises AudioError for another dtype, shape or a non-finite sample.
        """
        block = as_float(valid_samples(samples))
        n_samples = int(self.state.n_samples[0]) + block.size
        n_frames = max(0, (n_samples - self.config.window_samples) // self.config.hop_samples + 1)
        frames = np.empty((n_frames + 1, self.config.n_mels), np.float32)  # room for one more, so that all are taken
        kernels.push_samples(self.tables, self.state, block, frames)
        return frames[:n_frames]


def _tables(config: FrontEndConfig, filters: F32) -> kernels.FrontEndTables:
    n_half = config.fft_samples // 2
    padded = np.pad(filters.astype(np.float64), ((0, 0), (0, kernels.MEL_BINS)))
    limits = np.zeros((config.n_mels, 2), np.int64)
    for f, row in enumerate(filters):
        bins = np.flatnonzero(row)
        if bins.size:
            n_bins = -(-(bins[-1] + 1 - bins[0]) // kernels.MEL_BINS) * kernels.MEL_BINS
            limits[f] = bins[0], bins[0] + n_bins
    n = config.window_samples
    window = np.ones(n) if config.window == "rectangular" else 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / n)
    quarter = np.arange(max(1, n_half // 4)) / n_half
    return kernels.constant_arrays(
        kernels.FrontEndTables(
            window=window,
            twiddles=_unit_roots(np.arange(n_half) / config.fft_samples),
            roots=np.concatenate([_unit_roots(power * quarter) for power in (1, 2, 3)]),
            mel_limits=limits,
            mel_weights=np.concatenate([row[a:b] for row, (a, b) in zip(padded, limits, strict=True)]),
            scalars=np.array([config.preemphasis, config.energy_floor, np.log(config.energy_floor)]),
            hop_samples=np.array([config.hop_samples], np.int64),
        )
    )


def _unit_roots(turns: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """exp(-2 pi j turns), (n,), as (2 n,): real parts, then imaginary parts."""
    return np.concatenate([np.cos(2 * np.pi * turns), -np.sin(2 * np.pi * turns)])
