"""Examples as arrays: one, and a block of many."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from streamkws.training.teacher import N_EMBEDDING

F32 = npt.NDArray[np.float32]

NO_EMBEDDINGS = np.zeros((0, N_EMBEDDING), np.float16)


@dataclass(frozen=True)
class Example:
    """A training example of T frames with a target for each of C outputs.

    features: (T, F) float32 log-mel.
    targets: (C,) int8: 1 present, 0 absent, -1 unknown.
    onset, first: (C,) int16 frames: a present word does not sound before onset; its output counts from first on.
    embeddings: (E, 96) float16, the teacher's, of the example before noise is added; E = 0 without a teacher.
    ends: (E,) int16, the frame with which each embedding ends.
    """

    features: F32
    targets: npt.NDArray[np.int8]
    onset: npt.NDArray[np.int16]
    first: npt.NDArray[np.int16]
    embeddings: npt.NDArray[np.float16] = field(default_factory=lambda: NO_EMBEDDINGS)
    ends: npt.NDArray[np.int16] = field(default_factory=lambda: np.zeros(0, np.int16))


EXAMPLE_ARRAYS = tuple(one.name for one in fields(Example))


class Block(NamedTuple):
    """A block of Examples, each array with a first axis of n.

    posteriors: (n, T, K) float16, what an ensemble says of them (training.ensemble); None without one.
    """

    features: F32
    targets: npt.NDArray[np.int8]
    onset: npt.NDArray[np.int16]
    first: npt.NDArray[np.int16]
    embeddings: npt.NDArray[np.float16]
    ends: npt.NDArray[np.int16]
    posteriors: npt.NDArray[np.float16] | None = None

    @classmethod
    def of(cls, examples: list[Example]) -> Block:
        """The block of some examples."""
        return cls(*(np.stack([getattr(example, name) for example in examples]) for name in EXAMPLE_ARRAYS))

    def take(self, rows: npt.NDArray[np.int64]) -> Block:
        """The examples in these rows."""
        arrays: list[Any] = [None if array is None else array[rows] for array in self]
        return Block(*arrays)
