"""The latest examples, and the batches that are drawn from them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from streamkws.training.augment import F32, AugmentConfig, at_positions, mask_features, tempo_positions
from streamkws.training.blocks import Block
from streamkws.training.ensemble import Ensemble
from streamkws.training.producer import BLOCK
from streamkws.training.recipe import TrainingConfig

START_EXAMPLES = 1024
"""Examples in the pool at the first step (fewer where the pool is smaller); the features are normalized by them."""


def drawn_by_difficulty(
    rng: np.random.Generator, difficulty: npt.NDArray[np.float64], n: int, share: float
) -> npt.NDArray[np.int64]:
    """n indices: the first round(share * n) drawn in proportion to difficulty, the others uniformly."""
    drawn: npt.NDArray[np.int64] = rng.integers(0, len(difficulty), n)
    n_hard = round(share * n)
    if n_hard:
        cumulative = np.cumsum(difficulty)
        places = np.searchsorted(cumulative, rng.random(n_hard) * cumulative[-1], side="right")
        drawn[:n_hard] = np.minimum(places, len(difficulty) - 1)
    return drawn


class Pool:
    """The latest examples, and the batches drawn from them.

    needed(step) is how many examples must have been made before the step; the batch is drawn from the last
    config.pool of those.

    difficulty: of each slot's example when it was last used; 1 before that.
    ensemble: gives posteriors for each example as it comes in; None without one.
    slots: of the latest batch, (B,).
    """

    def __init__(
        self, config: TrainingConfig, augmentation: AugmentConfig, first: int = 0, ensemble: Ensemble | None = None
    ) -> None:
        self.config, self.augmentation, self.ensemble = config, augmentation, ensemble
        self.n_made = first
        self.capacity = config.pool + BLOCK
        self.slotted: Block | None = None
        self.difficulty = np.ones(self.capacity)
        self.slots = np.zeros(0, np.int64)

    def needed(self, step: int) -> int:
        """Number of the example after the last that the step may use."""
        return min(self.config.pool, START_EXAMPLES) + int(step * self.config.batch / self.config.reuse)

    def first(self, step: int) -> int:
        """Number of the first example that the step may use."""
        return max(0, self.needed(step) - self.config.pool)

    def add(self, block: Block) -> None:
        """Take the next examples."""
        if self.ensemble:
            block = block._replace(posteriors=self.ensemble.posteriors(block.features, self.config.bfloat16))
        if self.slotted is None:
            self.slotted = block.take(np.zeros(self.capacity, np.int64))
        slots = np.arange(self.n_made, self.n_made + len(block[0])) % self.capacity
        array: Any
        for array, part in zip(self.slotted, block, strict=True):
            if array is not None:
                array[slots] = part
        self.difficulty[slots] = 1.0
        self.n_made += len(block[0])

    def at_hand(self, step: int) -> npt.NDArray[np.int64]:
        """The slots of all examples that the step may use."""
        slots: npt.NDArray[np.int64] = np.arange(self.first(step), self.needed(step)) % self.capacity
        return slots

    @property
    def arrays(self) -> Block:
        """What the slots hold."""
        assert self.slotted is not None
        return self.slotted

    def features(self, step: int) -> F32:
        """All features that the step may use, (n, T, F) float32."""
        features: F32 = self.arrays.features[self.at_hand(step)]
        return features

    def embeddings(self, step: int) -> npt.NDArray[np.float16]:
        """A teacher's embeddings of all examples that the step may use, (n, E, 96) float16."""
        embeddings: npt.NDArray[np.float16] = self.arrays.embeddings[self.at_hand(step)]
        return embeddings

    def batch(self, step: int, fill: F32, floor: float) -> Block:
        """The batch of a step, with its time shifts, gains and masks; onset, first and ends in frames.

        fill: (F,), what masks are filled with. floor: the lowest log-mel there is.
        """
        rng = np.random.default_rng([self.config.seed, 2, step])
        candidates = self.at_hand(step)
        drawn = drawn_by_difficulty(rng, self.difficulty[candidates], self.config.batch, self.config.hard_share)
        self.slots = candidates[drawn]
        return perturbed(rng, self.arrays.take(self.slots), self.augmentation, fill, floor)


def perturbed(rng: np.random.Generator, block: Block, augmentation: AugmentConfig, fill: F32, floor: float) -> Block:
    """Examples with a time shift, a tempo jitter, a gain and SpecAugment masks, each with its own.

    fill: (F,), what masks are filled with. floor: the lowest log-mel there is.
    """
    features, targets, onset, first, embeddings, ends, posteriors = block
    n_examples = len(features)
    shifts = rng.integers(0, augmentation.shift_frames + 1, n_examples)
    frames = shifts[:, None] + np.arange(features.shape[1] - augmentation.shift_frames)
    features = features[np.arange(n_examples)[:, None], frames]
    if posteriors is not None:
        posteriors = posteriors[np.arange(n_examples)[:, None], frames]
    shift = shifts[:, None].astype(np.int16)
    onset, first, ends = np.maximum(onset - shift, 0), np.maximum(first - shift, 0), ends - shift
    if augmentation.tempo_jitter > 0:
        positions = tempo_positions(rng, n_examples, features.shape[1], augmentation.tempo_jitter)
        features = at_positions(features, positions)
        if posteriors is not None:
            posteriors = at_positions(posteriors.astype(np.float32), positions).astype(np.float16)
        onset, first, ends = (
            np.stack([np.searchsorted(*pair) for pair in zip(positions, part, strict=True)]).astype(np.int16)
            for part in (onset, first, ends)
        )
    jitter = augmentation.gain_jitter_db * math.log(10) / 10
    features += rng.uniform(-jitter, jitter, (n_examples, 1, 1)).astype(np.float32)
    np.maximum(features, np.float32(floor), out=features)
    mask_features(rng, features, fill, augmentation)
    return Block(features, targets, onset, first, embeddings, ends, posteriors)
