"""The kinds of layout as numba's types, and how a kernel makes arrays of numbers: of an address."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from numba.core import cgutils, types
from numba.core.config import DISABLE_JIT
from numba.extending import intrinsic
from numba.np.arrayobj import make_array, populate_array

from streamkws.kernels.layout import ArrayKind, Kind, ScalarKind


def numba_type(kind: Kind) -> types.Type:
    """numba's type of what a kind describes."""
    if isinstance(kind, ScalarKind):
        return numba.from_dtype(kind.dtype)
    if isinstance(kind, ArrayKind):
        return types.Array(numba.from_dtype(kind.dtype), kind.n_dimensions, "C", readonly=kind.constant)
    return types.BaseTuple.from_types([numba_type(one) for one in kind.kinds], kind.cls)  # type: ignore[attr-defined]


def load_at(kind: Kind) -> Callable[[Any], Any]:
    """A function for kernels: the tuple of this kind whose words memory.ByAddress keeps at an address."""
    if DISABLE_JIT:
        return lambda address: address
    result = numba_type(kind)

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        pointer = context.get_value_type(signature.return_type).as_pointer()
        return builder.load(builder.inttoptr(args[0], pointer))

    @intrinsic
    def load(typingctx, address):  # type: ignore[no-untyped-def]
        return result(address), codegen

    return load


def array_at(dtype: npt.DTypeLike) -> Callable[[Any, Any], Any]:
    """A function for kernels: the array of n numbers of this dtype that begins at an address, (n,)."""
    array = types.Array(numba.from_dtype(np.dtype(dtype)), 1, "C")

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        address, n = args
        result = make_array(array)(context, builder)
        item_bytes = context.get_constant(types.intp, array.dtype.bitwidth // 8)
        data = builder.inttoptr(address, result.data.type)
        populate_array(result, data, cgutils.pack_array(builder, [n]), [item_bytes], item_bytes, None)
        return result._getvalue()

    @intrinsic
    def at(typingctx, address, n):  # type: ignore[no-untyped-def]
        return array(address, n), codegen

    return at
