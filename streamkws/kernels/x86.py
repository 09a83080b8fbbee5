"""Products of codes on x86: AVX2 for weights of 8 and 4 bits, and the dot product of VNNI for both."""

from __future__ import annotations

from llvmlite import ir

from streamkws.kernels.vectors import (
    V8I32,
    V16I8,
    V16I16,
    V32I8,
    DotProducts,
    Products,
    broadcast_groups,
    call,
    load,
    nibbles,
)


class WideU8(Products):
    """u8 weights times u8 inputs by AVX2: both are widened to 16 bits for pmadd.wd."""

    lanes, inputs, n_sums, turn_bytes = 8, 8, 1, 64

    @staticmethod
    def load_inputs(builder, pointer, n):
        vectors = broadcast_groups(builder, pointer, n, 2, 8)
        return [builder.zext(builder.bitcast(pairs, V16I8), V16I16) for pairs in vectors]

    @staticmethod
    def add(builder, pointer, inputs, sums):
        for g, x in enumerate(inputs):
            w = builder.zext(load(builder, pointer, 16 * g, V16I8), V16I16)
            sums[0] = builder.add(sums[0], call(builder, "llvm.x86.avx2.pmadd.wd", V8I32, w, x))


class WideU4(Products):
    """4-bit weights times u8 inputs by AVX2's pmadd.ub.sw, whose 16-bit sums reach at most 4*2*15*255 = 30,600."""

    lanes, inputs, n_sums, turn_bytes = 8, 16, 1, 64

    @staticmethod
    def load_inputs(builder, pointer, n):
        return [builder.bitcast(quads, V32I8) for quads in broadcast_groups(builder, pointer, n, 4, 8)]

    @staticmethod
    def add(builder, pointer, inputs, sums):
        total = None
        for g in range(len(inputs) // 2):
            weights = nibbles(builder, load(builder, pointer, 32 * g, V32I8))
            for w, x in zip(weights, inputs[2 * g : 2 * g + 2], strict=True):
                products = call(builder, "llvm.x86.avx2.pmadd.ub.sw", V16I16, x, w)
                total = products if total is None else builder.add(total, products)
        added = call(builder, "llvm.x86.avx2.pmadd.wd", V8I32, total, ir.Constant(V16I16, [1] * 16))
        sums[0] = builder.add(sums[0], added)


class Vnni(DotProducts):
    """AVX-512 VNNI and AVX-VNNI: vpdpbusd, unsigned inputs times signed weights."""

    def dot(self, builder, total, x, w):
        w = builder.bitcast(w, total.type)
        return call(builder, f"llvm.x86.avx512.vpdpbusd.{32 * self.lanes}", total.type, total, x, w)
