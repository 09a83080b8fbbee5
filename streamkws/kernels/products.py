"""The product of a weight matrix and an input vector of codes: one name per operation, the CPU's way behind it."""

from __future__ import annotations

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from streamkws.kernels.arm import NeonU4, NeonU8, Udot
from streamkws.kernels.cpu import INSTRUCTIONS
from streamkws.kernels.packing import ROW_CODES
from streamkws.kernels.vectors import INT32, INT64, repeat
from streamkws.kernels.x86 import Vnni, WideU4, WideU8


def products_of(instructions, bits, last=False):
    """How weights of 8 or 4 bits are multiplied. last: in a last block of ROW_BLOCK rows."""
    if instructions == "vnni512":
        return Vnni(bits, 8 if last else 16)
    if instructions == "vnni256":
        return Vnni(bits, 8)
    if instructions == "udot":
        return Udot(bits, 4)
    if instructions == "neon":
        return NeonU8 if bits == 8 else NeonU4
    return WideU8 if bits == 8 else WideU4


def write_product(builder, products, n_blocks, weights, block_bytes, codes, n_codes, first, out):
    """Write the loop over the inputs for n_blocks blocks of rows at once, which share each load of the input.

    weights, codes, out: pointers. first: int32 that the sums begin at (0 for a sum of several rows).
    """
    sums_type = ir.VectorType(INT32, products.lanes)
    blocks = [builder.gep(weights, [builder.mul(block_bytes, INT64(b))]) for b in range(n_blocks)]
    nothing = ir.Constant(sums_type, [0] * products.lanes)
    start = [repeat(builder, first, products.lanes), *[nothing] * (products.n_sums - 1)]
    sums = [[cgutils.alloca_once_value(builder, value) for value in start] for _ in blocks]

    def add(turn, n_inputs):
        inputs_start = builder.gep(codes, [builder.mul(turn, INT64(products.inputs))])
        inputs = products.load_inputs(builder, inputs_start, n_inputs)
        weights_start = builder.mul(turn, INT64(products.turn_bytes))
        for block, places in zip(blocks, sums, strict=True):
            values = [builder.load(place) for place in places]
            products.add(builder, builder.gep(block, [weights_start]), inputs, values)
            for place, value in zip(places, values, strict=True):
                builder.store(value, place)

    n_turns = builder.udiv(n_codes, INT64(products.inputs))
    with cgutils.for_range(builder, n_turns, intp=INT64) as turn:
        add(turn.index, products.inputs)
    if products.inputs > ROW_CODES:
        rest = builder.urem(n_codes, INT64(products.inputs))
        with builder.if_then(builder.icmp_unsigned("!=", rest, INT64(0))):
            add(n_turns, ROW_CODES)
    for b, places in enumerate(sums):
        total = products.finish(builder, [builder.load(place) for place in places])
        target = builder.gep(out, [INT64(products.lanes * b)])
        builder.store(total, builder.bitcast(target, sums_type.as_pointer()), align=4)


def _product_intrinsic(products, n_blocks):
    """write_product for a kernel."""

    def codegen(context, builder, signature, args):
        def place(index):
            data = context.make_array(signature.args[index])(context, builder, args[index]).data
            return builder.gep(data, [args[index + 1]])

        _, _, block_bytes, _, _, n_codes, first, _, _ = args
        write_product(builder, products, n_blocks, place(0), block_bytes, place(3), n_codes, first, place(7))
        return context.get_dummy_value()

    @intrinsic
    def product(typingctx, weights, w_start, block_bytes, codes, x_start, n_codes, first, out, out_start):
        return types.void(weights, w_start, block_bytes, codes, x_start, n_codes, first, out, out_start), codegen

    return product


def product_intrinsics(bits):
    """The kernels' products for four blocks of rows, two, one, and the last."""
    products = products_of(INSTRUCTIONS, bits)
    last = products_of(INSTRUCTIONS, bits, last=True)
    return *(_product_intrinsic(products, n_blocks) for n_blocks in (4, 2, 1)), _product_intrinsic(last, 1)
