"""LLVM's vectors in the words of a kernel's author, and what one way to multiply codes consists of."""

from __future__ import annotations

import functools

from llvmlite import ir
from numba.core import cgutils

DOUBLE = ir.DoubleType()
INT8, INT16, INT32, INT64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
V16I8, V32I8 = ir.VectorType(INT8, 16), ir.VectorType(INT8, 32)
V16I16, V8I32 = ir.VectorType(INT16, 16), ir.VectorType(INT32, 8)
V8I8, V8I16, V4I32 = ir.VectorType(INT8, 8), ir.VectorType(INT16, 8), ir.VectorType(INT32, 4)
V4F64 = ir.VectorType(DOUBLE, 4)

FUSED = ("contract",)
"""A product and a sum may become one rounded operation, where the CPU has it."""


def call(builder, name, result, *arguments):
    """Call one of LLVM's own functions by its name."""
    function = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, function, name), arguments)


def load(builder, pointer, offset, vector_type):
    """The vector that begins offset elements behind a pointer."""
    pointer = builder.gep(pointer, [INT64(offset)])
    return builder.load(builder.bitcast(pointer, vector_type.as_pointer()), align=1)


def repeat(builder, value, n):
    """The vector of n times value."""
    vector = ir.VectorType(value.type, n)
    nothing, zeros = ir.Constant(vector, ir.Undefined), ir.Constant(ir.VectorType(INT32, n), [0] * n)
    return builder.shuffle_vector(builder.insert_element(nothing, value, INT32(0)), nothing, zeros)


def broadcast_groups(builder, pointer, n, group, lanes):
    """The n codes at a pointer, each group of neighbours in every lane: n / group vectors of lanes integers."""
    integer = ir.IntType(8 * group)
    groups = [load(builder, pointer, group * g, integer) for g in range(n // group)]
    return [repeat(builder, one, lanes) for one in groups]


def nibbles(builder, packed):
    """The codes in the low and in the high halves of bytes."""
    n = packed.type.count
    low = builder.and_(packed, ir.Constant(packed.type, [0x0F] * n))
    return low, builder.lshr(packed, ir.Constant(packed.type, [4] * n))


class Products:
    """One way to multiply: lanes rows at once; inputs and turn_bytes (of weights) a turn, into n_sums accumulators."""

    @staticmethod
    def finish(builder, sums):
        """The sums of the rows."""
        return functools.reduce(builder.add, sums)


class DotProducts(Products):
    """Weights of 8 or 4 bits times u8 inputs by an instruction that adds four products to each lane (dot)."""

    inputs, n_sums = 8, 2

    def __init__(self, bits, lanes):
        self.bits, self.lanes = bits, lanes
        self.turn_bytes = bits * lanes

    def dot(self, builder, total, x, w):
        """total plus the products of inputs x and weights w, four a lane."""
        raise NotImplementedError

    def load_inputs(self, builder, pointer, n):
        """Every four inputs, in all lanes."""
        return broadcast_groups(builder, pointer, n, 4, self.lanes)

    def add(self, builder, pointer, inputs, sums):
        """Add the products of a turn to the sums."""
        codes = ir.VectorType(INT8, 4 * self.lanes)
        if self.bits == 4:
            weights = nibbles(builder, load(builder, pointer, 0, codes))
        else:
            weights = [load(builder, pointer, 4 * self.lanes * g, codes) for g in range(2)]
        for g, (w, x) in enumerate(zip(weights, inputs, strict=True)):
            sums[g] = self.dot(builder, sums[g], x, w)
