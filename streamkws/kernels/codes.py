"""Codes: matrix-vector products with them, and the quantization of a vector."""

from __future__ import annotations

import numpy as np

from streamkws.kernels.compiling import compiled
from streamkws.kernels.cpu import INSTRUCTIONS
from streamkws.kernels.layout import F32, I32, U8
from streamkws.kernels.packing import LANES, ROW_BLOCK, WEIGHT_OFFSET
from streamkws.kernels.products import product_intrinsics

_product_u8_u8_4, _product_u8_u8_2, _product_u8_u8_1, _product_u8_u8_last = product_intrinsics(8)
_product_u8_u4_4, _product_u8_u4_2, _product_u8_u4_1, _product_u8_u4_last = product_intrinsics(4)


@compiled()
def matvec_u8_u8(
    weights: U8, w_start: int, n_rows: int, codes: U8, x_start: int, n_codes: int, codes_sum: int, out: I32
) -> None:
    """out[o] = sum over i of weights[o, i] * codes[i]; exact for n_codes <= 33,000.

    weights: (bytes,) uint8, packed by pack_rows, read from w_start on. n_rows: multiple of ROW_BLOCK.
    codes: (n,) uint8, read from x_start on. n_codes: multiple of ROW_CODES. codes_sum: int32, the sum of these codes.
    out: (>= n_rows,) int32.
    """
    block_bytes = LANES * n_codes
    o, w, first = 0, w_start, np.int32(WEIGHT_OFFSET) * np.int32(codes_sum)
    if INSTRUCTIONS != "portable":
        while o + 4 * LANES <= n_rows:
            _product_u8_u8_4(weights, w, block_bytes, codes, x_start, n_codes, np.int32(first), out, o)
            o += 4 * LANES
            w += 4 * block_bytes
        if o + 2 * LANES <= n_rows:
            _product_u8_u8_2(weights, w, block_bytes, codes, x_start, n_codes, np.int32(first), out, o)
            o += 2 * LANES
            w += 2 * block_bytes
        if o + LANES <= n_rows:
            _product_u8_u8_1(weights, w, block_bytes, codes, x_start, n_codes, np.int32(first), out, o)
            o += LANES
            w += block_bytes
        if o < n_rows:
            _product_u8_u8_last(weights, w, block_bytes, codes, x_start, n_codes, np.int32(first), out, o)
    else:
        out[:n_rows].fill(0)
        while o < n_rows:
            for group in range(n_codes // 2):
                codes_of_group = weights[w + 16 * group : w + 16 * group + 16]
                x0, x1 = np.int32(codes[x_start + 2 * group]), np.int32(codes[x_start + 2 * group + 1])
                for r in range(ROW_BLOCK):  # the casts keep numba from widening the sums to 64 bits
                    products = np.int32(codes_of_group[2 * r]) * x0 + np.int32(codes_of_group[2 * r + 1]) * x1
                    out[o + r] = np.int32(out[o + r] + products)
            o += ROW_BLOCK
            w += block_bytes


@compiled()
def matvec_u8_u4(weights: U8, w_start: int, n_rows: int, codes: U8, x_start: int, n_codes: int, out: I32) -> None:
    """matvec_u8_u8 with 4-bit weights."""
    block_bytes = LANES * n_codes // 2
    o, w, first = 0, w_start, np.int32(0)
    if INSTRUCTIONS != "portable":
        while o + 4 * LANES <= n_rows:
            _product_u8_u4_4(weights, w, block_bytes, codes, x_start, n_codes, first, out, o)
            o += 4 * LANES
            w += 4 * block_bytes
        if o + 2 * LANES <= n_rows:
            _product_u8_u4_2(weights, w, block_bytes, codes, x_start, n_codes, first, out, o)
            o += 2 * LANES
            w += 2 * block_bytes
        if o + LANES <= n_rows:
            _product_u8_u4_1(weights, w, block_bytes, codes, x_start, n_codes, first, out, o)
            o += LANES
            w += block_bytes
        if o < n_rows:
            _product_u8_u4_last(weights, w, block_bytes, codes, x_start, n_codes, first, out, o)
    else:
        out[:n_rows].fill(0)
        while o < n_rows:
            for group in range(n_codes // 8):
                packed = weights[w + 32 * group : w + 32 * group + 32]
                x = codes[x_start + 8 * group : x_start + 8 * group + 8]
                for r in range(ROW_BLOCK):
                    total = out[o + r]
                    for j in range(4):
                        byte = packed[4 * r + j]
                        total = np.int32(total + np.int32(byte & 15) * np.int32(x[j]))
                        total = np.int32(total + np.int32(byte >> 4) * np.int32(x[j + 4]))
                    out[o + r] = total
            o += ROW_BLOCK
            w += block_bytes


@compiled(fastmath={"reassoc", "contract", "nsz"})
def add_matvec_f32(weights: F32, w_start: int, n_rows: int, x: F32, x_start: int, n_inputs: int, out: F32) -> None:
    """out[o] += sum over i of weights[o, i] * x[i], in float32; one fixed order of summation per n_inputs."""
    vector = x[x_start : x_start + n_inputs]
    for o in range(n_rows):
        row = weights[w_start + o * n_inputs : w_start + (o + 1) * n_inputs]
        acc = np.float32(0)
        for i in range(n_inputs):
            acc += row[i] * vector[i]
        out[o] += acc


@compiled()
def quantize_vector(values: F32, levels: float, codes: U8, ranges: F32, sums: I32, slot: int) -> None:
    """Equations (1) and (2).

    values: (n,) float32, finite. levels: float32 2^b - 1. codes: (n,) uint8.
    ranges: (slots, 2) float32, gets (lo, step) at slot. sums: (slots,) int32, gets the sum of the codes there.
    """
    # Floats order like these integers, and an integer minimum vectorizes without the fastmath flags that assume no NaN.
    n = values.size
    bits = values.view(np.int32)
    lowest, highest = np.int32(0x7FFFFFFF), np.int32(-0x80000000)
    for i in range(n):
        key = bits[i] ^ ((bits[i] >> np.int32(31)) & np.int32(0x7FFFFFFF))
        lowest = min(lowest, key)
        highest = max(highest, key)
    ends = ranges[slot].view(np.int32)
    ends[0] = lowest ^ ((lowest >> np.int32(31)) & np.int32(0x7FFFFFFF))
    ends[1] = highest ^ ((highest >> np.int32(31)) & np.int32(0x7FFFFFFF))
    lo, hi = ranges[slot, 0], ranges[slot, 1]
    step = (hi - lo) / levels
    ranges[slot, 1] = step
    total = np.int32(0)
    if step > 0:
        for i in range(n):
            q = np.int32(min(max(np.rint((values[i] - lo) / step), np.float32(0)), levels))
            codes[i] = np.uint8(q)
            total = np.int32(total + q)
    else:
        for i in range(n):
            codes[i] = 0
    sums[slot] = total
