"""Examples from a pack of features: what can be done to sound when only its log-mel is left."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from streamkws.audio import SAMPLE_RATE
from streamkws.corpus import SegmentSet
from streamkws.errors import ConfigError
from streamkws.frontend import FrontEnd, FrontEndConfig
from streamkws.training.augment import F32, AugmentConfig
from streamkws.training.pack import Pack

NOISE_S, N_NOISES = 20, 40
"""Seconds of each stretch of noise whose features are kept, and how many of recorded noise at most."""
SHAPE_POINTS = 7
NATS_PER_DB = math.log(10) / 10


class PackedSpeech:
    """Stretches of a pack, each time at another level, with another spectral shape and other noise.

    noises, coloured: sets of noise, and stretches of synthesized noise in units of int16.
    Raises ConfigError for a pack of another front end.
    """

    def __init__(
        self,
        pack: Pack,
        augmentation: AugmentConfig,
        frontend: FrontEndConfig,
        noises: Sequence[SegmentSet],
        coloured: Sequence[F32],
    ) -> None:
        if pack.frontend != frontend:
            raise ConfigError("expected a pack of the recipe's own front end, got one of another")
        self.stretches = [one.features for one in pack.stretches if not one.judges]
        lengths = np.array([len(one) for one in self.stretches], np.float64)
        self.shares = np.cumsum(lengths / lengths.sum())
        self.augmentation, self.frontend = augmentation, FrontEnd(frontend)
        self.floor = math.log(frontend.energy_floor)
        places = np.linspace(0, SHAPE_POINTS - 1, frontend.n_mels)
        self.basis = np.maximum(0, 1 - np.abs(places - np.arange(SHAPE_POINTS)[:, None])).astype(np.float32)
        n_noise = NOISE_S * SAMPLE_RATE
        self.coloured = [self._features(one[:n_noise]) for one in coloured]
        files = [file for one in noises for file in one.files]
        step = max(1, sum(file.size for file in files) // N_NOISES)
        self.recorded = [
            self._features(file[first : first + n_noise].astype(np.float32))
            for file in files
            for first in range(0, max(1, file.size - n_noise), step)
        ]
        loud = 32767 * np.sin(2 * np.pi * 1000 * np.arange(SAMPLE_RATE) / SAMPLE_RATE)
        self.full_scale = float(_level(self._features(loud.astype(np.float32))).max())

    def _features(self, samples: F32) -> F32:
        """(n,) samples in units of int16 to (T, F) log-mel."""
        self.frontend.reset()
        return np.array(self.frontend.push((samples / 32768).astype(np.float32)))

    def draw(self, rng: np.random.Generator, n_frames: int) -> F32:
        """An example's features, (n_frames, F) float32."""
        config = self.augmentation
        one = self.stretches[int(np.searchsorted(self.shares, rng.random()))]
        start = int(rng.integers(max(1, len(one) - n_frames + 1)))
        features = np.full((n_frames, one.shape[1]), self.floor, np.float32)
        piece = one[start : start + n_frames].astype(np.float32)
        features[: len(piece)] = piece
        if rng.random() < config.equalizer_share:
            features += self._shape(rng, config.equalizer_db)
        loudest = float(_level(features).max())
        if rng.random() < config.noise_share:
            noise = self._noise(rng, n_frames)
            snr = rng.uniform(config.snr_min_db, config.snr_max_db) * NATS_PER_DB
            speech = float(np.log(np.mean(np.exp(_level(features)))))
            noise += np.float32(speech - float(np.log(np.mean(np.exp(_level(noise))))) - snr)
            features = np.logaddexp(features, noise)
        peak = rng.uniform(config.peak_min_db, config.peak_max_db) * NATS_PER_DB
        features += np.float32(self.full_scale + peak - loudest)
        return np.maximum(features, np.float32(self.floor))

    def _shape(self, rng: np.random.Generator, deviation_db: float) -> F32:
        """A smooth random spectral shape, (F,) float32 in nats of power."""
        points = rng.standard_normal(SHAPE_POINTS) * deviation_db * NATS_PER_DB
        shape: F32 = points.astype(np.float32) @ self.basis
        return shape

    def _noise(self, rng: np.random.Generator, n_frames: int) -> F32:
        """A stretch of noise, (n_frames, F) float32, of its own shape."""
        recorded = self.recorded and rng.random() < self.augmentation.recorded_share
        several = self.recorded if recorded else self.coloured
        one = several[int(rng.integers(len(several)))]
        start = int(rng.integers(max(1, len(one) - n_frames + 1)))
        noise = one[(start + np.arange(n_frames)) % len(one)]
        return noise + self._shape(rng, self.augmentation.equalizer_db)


def _level(features: F32) -> F32:
    """(T, F) log-mel to the logarithm of the power of each frame, (T,)."""
    level: F32 = np.logaddexp.reduce(features, axis=1)
    return level
