"""Native memory: how a kernel finds a stream's arrays by one number, and what a copy of a stream shares with it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NoReturn, TypeVar

import numba
import numpy as np
import numpy.typing as npt
from numba.core import config, types
from numba.extending import intrinsic

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


def array_type(dtype: Any, n_dimensions: int = 1, constant: bool = False) -> types.Type:
    """numba's type of a contiguous array. constant: of one that cannot be written to."""
    return types.Array(numba.from_dtype(np.dtype(dtype)), n_dimensions, "C", readonly=constant)


def tuple_type(cls: type, **fields: types.Type) -> types.Type:
    """numba's type of a NamedTuple, given the types of its fields."""
    return types.BaseTuple.from_types([fields[name] for name in cls._fields], cls)  # type: ignore[attr-defined]


class ByAddress:
    """The one owner of a stream's native memory: arrays that a kernel finds by one number.

    Passing the arrays themselves would cost 20 us a call. They live as long as this object, which therefore cannot be
    copied or pickled: whoever owns it makes a new one for its copy.

    parts: a NamedTuple of arrays, or of NamedTuples of arrays. kind: its tuple_type.
    address: what kernels take and load_at turns back.
    """

    def __init__(self, parts: tuple[Any, ...], kind: types.Type) -> None:
        self._parts = parts
        if config.DISABLE_JIT:
            self.address: Any = parts
            return
        assert numba.typeof(parts) == kind, f"expected {kind}, got {numba.typeof(parts)}"
        arrays = [array for part in parts for array in (part if isinstance(part, tuple) else (part,))]
        # as numba lays out an array, with no owner whose references were to be counted
        words = [[0, 0, a.size, a.itemsize, a.ctypes.data, *a.shape, *a.strides] for a in arrays]
        self._memory = np.array([word for of_array in words for word in of_array], np.int64)
        self.address = self._memory.ctypes.data

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("native memory can be neither copied nor pickled; copy the Detector that owns it")


def addresses(natives: Sequence[ByAddress]) -> Any:
    """Where they are, (n,) int64, for a kernel that loads one after the other."""
    found = [native.address for native in natives]
    return found if config.DISABLE_JIT else np.array(found, np.int64)


def load_at(kind: types.Type) -> Any:
    """A function for kernels: the tuple of this type that ByAddress keeps at an address."""
    if config.DISABLE_JIT:
        return lambda address: address

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        pointer = context.get_value_type(signature.return_type).as_pointer()
        return builder.load(builder.inttoptr(args[0], pointer))

    @intrinsic
    def load(typingctx, address):  # type: ignore[no-untyped-def]
        return kind(address), codegen

    return load
