"""Native memory: how a kernel finds a stream's arrays by one number, and what a copy of a stream shares with it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NoReturn, TypeVar

import numpy as np
import numpy.typing as npt

from streamkws.kernels.cpu import COMPILED
from streamkws.kernels.layout import ArrayKind, Kind, ScalarKind

_Scalar = TypeVar("_Scalar", bound=np.generic)
_Tuple = TypeVar("_Tuple", bound=tuple[Any, ...])
_Stream = TypeVar("_Stream", bound="OneStream")

ALIGNMENT = 64
"""Bytes of a cache line, and of the widest register."""


def aligned(array: npt.NDArray[_Scalar]) -> npt.NDArray[_Scalar]:
    """A copy of an array that begins at a cache line."""
    memory = np.zeros(array.nbytes + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    result = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape).view(type(array))
    result[...] = array
    return result


def own_arrays(arrays: _Tuple) -> _Tuple:
    """A NamedTuple's arrays copied, each to a cache line of its own."""
    return type(arrays)(*(aligned(array) for array in arrays))


def constant_arrays(arrays: _Tuple) -> _Tuple:
    """own_arrays that nobody can write to."""
    copies = own_arrays(arrays)
    for array in copies:
        array.setflags(write=False)
    return copies


class OneStream:
    """A stage of one stream: its state changes with every block, and its tables never do.

    A copy has a state of its own, as far as the stream has come, and shares the tables. All zero is a new stream.
    """

    state: Any
    tables: Any = None

    def reset(self) -> None:
        """Return to the state of a new stream."""
        for array in self.state:
            array.fill(0)

    def __copy__(self: _Stream) -> _Stream:
        result = object.__new__(type(self))
        result.__dict__.update(self.__dict__, state=own_arrays(self.state))
        return result

    def __deepcopy__(self: _Stream, memo: dict[int, Any]) -> _Stream:
        return copy.copy(self)

    def __setstate__(self, saved: dict[str, Any]) -> None:
        self.__dict__.update(saved, state=own_arrays(saved["state"]))
        if self.tables is not None:
            self.tables = constant_arrays(self.tables)


def words_of(value: Any, kind: Kind) -> list[int]:
    """What compiled code reads to find a value of this kind: 64-bit words, as numba lays them out.

    An array is seven words or more: no owner whose references were to be counted, how many items of how many bytes,
    the address, the shape, the strides. It must outlive the words.
    """
    if isinstance(kind, ScalarKind):
        return [int(np.array([value, 0], kind.dtype).view(np.int64)[0])]
    if isinstance(kind, ArrayKind):
        fits = value.dtype == kind.dtype and value.ndim == kind.n_dimensions and value.flags.c_contiguous
        assert fits, f"expected {kind}, got {value.ndim} dimensions of {value.dtype}"
        return [0, 0, value.size, value.itemsize, value.ctypes.data, *value.shape, *value.strides]
    return [word for one, its in zip(value, kind.kinds, strict=True) for word in words_of(one, its)]


class ByAddress:
    """The one owner of a stream's native memory: arrays that a kernel finds by one number.

    Passing the arrays themselves would cost 20 us a call. They live as long as this object, which therefore cannot be
    copied or pickled: whoever owns it makes a new one for its copy.

    parts: a NamedTuple of arrays, or of NamedTuples of arrays. kind: its kind.
    address: what kernels take and load_at turns back.
    """

    def __init__(self, parts: tuple[Any, ...], kind: Kind) -> None:
        self.parts: Any = parts
        if not COMPILED:
            self.address: Any = parts
            return
        self._memory = np.array(words_of(parts, kind), np.int64)
        self.address = self._memory.ctypes.data

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("native memory can be neither copied nor pickled; copy the Detector that owns it")


def addresses(natives: Sequence[ByAddress]) -> Any:
    """Where they are, (n,) int64, for a kernel that loads one after the other."""
    found = [native.address for native in natives]
    return np.array(found, np.int64) if COMPILED else found
