"""Products of codes on ARM: umull for weights of 8 and 4 bits, and the dot product udot for both."""

from __future__ import annotations

from llvmlite import ir

from streamkws.kernels.vectors import (
    V4I32,
    V8I8,
    V8I16,
    DotProducts,
    Products,
    broadcast_groups,
    call,
    load,
    nibbles,
)


class NeonU8(Products):
    """u8 weights times u8 inputs by ARM's umull and uadalp, which adds neighbours."""

    lanes, inputs, n_sums, turn_bytes = 4, 8, 1, 32

    @staticmethod
    def load_inputs(builder, pointer, n):
        return [builder.bitcast(pairs, V8I8) for pairs in broadcast_groups(builder, pointer, n, 2, 4)]

    @staticmethod
    def add(builder, pointer, inputs, sums):
        for g, x in enumerate(inputs):
            products = call(builder, "llvm.aarch64.neon.umull.v8i16", V8I16, load(builder, pointer, 8 * g, V8I8), x)
            pairs = call(builder, "llvm.aarch64.neon.uaddlp.v4i32.v8i16", V4I32, products)
            sums[0] = builder.add(sums[0], pairs)


class NeonU4(Products):
    """4-bit weights times u8 inputs by umull; a sum is of two rows, two pairs of inputs each."""

    lanes, inputs, n_sums, turn_bytes = 4, 8, 2, 16

    @staticmethod
    def load_inputs(builder, pointer, n):
        return [builder.bitcast(quads, V8I8) for quads in broadcast_groups(builder, pointer, n, 4, 2)]

    @staticmethod
    def add(builder, pointer, inputs, sums):
        for rows in range(2):
            weights = nibbles(builder, load(builder, pointer, 8 * rows, V8I8))
            products = [
                call(builder, "llvm.aarch64.neon.umull.v8i16", V8I16, w, x)
                for w, x in zip(weights, inputs, strict=True)
            ]
            pairs = call(builder, "llvm.aarch64.neon.uaddlp.v4i32.v8i16", V4I32, builder.add(*products))
            sums[rows] = builder.add(sums[rows], pairs)

    @staticmethod
    def finish(builder, sums):
        even, odd = (
            builder.shuffle_vector(*sums, ir.Constant(V4I32, [first, first + 2, first + 4, first + 6]))
            for first in (0, 1)
        )
        return builder.add(even, odd)


class Udot(DotProducts):
    """udot, unsigned inputs times unsigned weights."""

    def dot(self, builder, total, x, w):
        x = builder.bitcast(x, w.type)
        return call(builder, "llvm.aarch64.neon.udot.v4i32.v16i8", total.type, total, w, x)
