"""Every compiled loop: arrays in, arrays out, outputs last.

The arrays of each stage come as two NamedTuples, a constant one (tables, weights) and one of a stream's state, so that
the whole path from samples to detections is one compiled call without the GIL that allocates nothing. All kernels that
call each other stand in this one file: a cached caller stays stale when a helper in another file changes.

Shape letters: F mel bands, I inputs, O outputs, K keywords.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import logging
import pickle
import sys
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, TypeVar

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import cgutils, config, types
from numba.core.caching import FunctionCache
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
U16 = npt.NDArray[np.uint16]
FIRST: Any = np.int64(0)
"""An index that numba does not specialize on, as it would on the literal 0."""
Records = Any
"""A numpy.recarray of LAYER or EVENT."""

_log = logging.getLogger(__name__)
_Function = TypeVar("_Function", bound=Callable[..., Any])
_Scalar = TypeVar("_Scalar", bound=np.generic)


@functools.cache
def _warn_once(message: str) -> None:
    _log.warning(message)


class _Cache(FunctionCache):  # type: ignore[misc]
    """numba's cache of compiled code, but one that is damaged, or that another process changes, is only slow."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """What is cached for a signature; None if it is not, or not as it should be."""
        try:
            found = super().load_overload(sig, target_context)
        except Exception as error:
            _warn_once(f"a damaged cache of compiled code is made anew ({type(error).__name__})")
            with contextlib.suppress(OSError):
                self.flush()
            return None
        if found is not None and tuple(found.signature.args) != tuple(getattr(sig, "args", sig)):
            return None  # two processes compiled different ones at once, and took the same file
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        """Cache what was compiled, if that can be done."""
        try:
            super().save_overload(sig, data)
        except (OSError, EOFError, pickle.PickleError) as error:
            _warn_once(f"compiled code cannot be cached ({getattr(error, 'strerror', None) or type(error).__name__})")


def _compiled(**options: Any) -> Callable[[_Function], _Function]:
    """numba.njit without the GIL, cached on disk; uncached where no cache folder can be written.

    Without numba's run time (_nrt) nothing can be allocated and no references are counted: with it, counting those of
    the arrays took 4 of 10 us of a block of 160 samples. What is called once in the path of a frame is inlined, since
    to pass it its arrays takes longer than much of what it does.
    """

    def decorate(function: _Function) -> _Function:
        dispatcher = numba.njit(nogil=True, _nrt=False, **options)(function)
        if not config.DISABLE_JIT:
            with contextlib.suppress(RuntimeError):  # numba: "no locator available", no folder can be written
                dispatcher._cache = _Cache(function)
        return dispatcher

    return decorate


def _defer_scipy() -> None:
    """Keep numba from importing scipy before it needs it: with its first function it does, only to know of its BLAS.

    That takes 0.13 of 0.65 s and 13 of 164 MB until the first detection. Nothing else changes: numba's linear algebra
    imports scipy when it is compiled.
    """
    blas = "scipy.linalg.cython_blas"
    if blas in sys.modules or "numba.np.arraymath" in sys.modules or importlib.util.find_spec("scipy") is None:
        return
    sys.modules[blas] = None  # type: ignore[assignment]  # which makes its import fail at once
    try:
        from numba.np import arraymath

        arraymath._HAVE_BLAS = True
    except ImportError:  # a numba that is built otherwise may take its time
        pass
    finally:
        del sys.modules[blas]


_defer_scipy()


def _instructions() -> str:
    """The fastest way to multiply codes that the CPU which numba compiles for (not only the host) has."""
    if config.DISABLE_JIT:
        return "portable"
    features = config.CPU_FEATURES
    if features is None:
        features = get_host_cpu_features() if config.CPU_NAME in (None, "host") else ""
    names = features.split(",")
    if {"+avx512vnni", "+avx512vl", "+avx512bw"} <= set(names):
        return "vnni512"
    if "+avxvnni" in names:
        return "vnni256"
    if "+avx2" in names:
        return "avx2"
    return "udot" if "+dotprod" in names else "neon" if "+neon" in names else "portable"


INSTRUCTIONS = _instructions()
"""What the integer products are made of: vnni512, vnni256, avx2 (x86), udot, neon (ARM) or portable. All are exact."""

ALIGNMENT = 64
"""Bytes of a cache line, and of the widest register."""


def aligned(array: npt.NDArray[_Scalar]) -> npt.NDArray[_Scalar]:
    """A copy of an array that begins at a cache line."""
    memory = np.zeros(array.nbytes + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


# ---- codes: integer products ---------------------------------------------------------------------------------------

ROW_CODES = 8
"""The codes of an input vector and of a weight row are padded with zeros to a multiple of this."""

ROW_BLOCK = 8
"""Weight rows are padded with zeros to a multiple of this."""

LANES = {"vnni512": 16, "udot": 4, "neon": 4}.get(INSTRUCTIONS, 8)
"""Weight rows of a block: one for each 32-bit lane of a register. The last block may be one of ROW_BLOCK."""

DOT = INSTRUCTIONS in ("vnni512", "vnni256", "udot")
"""Whether one instruction adds four products to each lane."""

GROUP = 4 if DOT else 2
"""Inputs of a group of 8-bit weights."""

WEIGHT_OFFSET = 128 if INSTRUCTIONS.startswith("vnni") else 0
"""What 8-bit weight codes are lessened by, since x86 multiplies unsigned by signed bytes."""

# Weights are packed in blocks of LANES rows, a 32-bit lane of the accumulator for each: the input is broadcast, and no
# sum runs across a register. (With an accumulator per row, summed across at the end, 96x96 took twice as long at
# 4 bits, and as long at 8.)
#   8 bits: GROUP inputs a group; byte GROUP r + j of a group is the code of row r and input j.
#   4 bits: eight inputs a group; byte 4 r + j has input j in its low and input j + 4 in its high half.

_I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_V16I8, _V32I8 = ir.VectorType(_I8, 16), ir.VectorType(_I8, 32)
_V16I16, _V8I32 = ir.VectorType(_I16, 16), ir.VectorType(_I32, 8)
_V8I8, _V8I16, _V4I32 = ir.VectorType(_I8, 8), ir.VectorType(_I16, 8), ir.VectorType(_I32, 4)


def _call(builder, name, result, *arguments):
    function = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, function, name), arguments)


def _load(builder, pointer, offset, vector_type):
    pointer = builder.gep(pointer, [_I64(offset)])
    return builder.load(builder.bitcast(pointer, vector_type.as_pointer()), align=1)


def _repeat(builder, value, n):
    """The vector of n times value."""
    vector = ir.VectorType(value.type, n)
    nothing, zeros = ir.Constant(vector, ir.Undefined), ir.Constant(ir.VectorType(_I32, n), [0] * n)
    return builder.shuffle_vector(builder.insert_element(nothing, value, _I32(0)), nothing, zeros)


def _halves(builder, packed):
    """The codes in the low and in the high halves of bytes."""
    n = packed.type.count
    low = builder.and_(packed, ir.Constant(packed.type, [0x0F] * n))
    return low, builder.lshr(packed, ir.Constant(packed.type, [4] * n))


class _Sums:
    """One way to multiply: lanes rows at once; inputs and turn_bytes (of weights) a turn, into n_sums accumulators."""

    @staticmethod
    def finish(builder, sums):
        """The sums of the rows."""
        return functools.reduce(builder.add, sums)


class _WideU8(_Sums):
    """u8 weights times u8 inputs by AVX2: both are widened to 16 bits for pmadd.wd."""

    lanes, inputs, n_sums, turn_bytes = 8, 8, 1, 64

    @staticmethod
    def load_inputs(builder, pointer, n):
        pairs = [_load(builder, pointer, 2 * g, _I16) for g in range(n // 2)]
        return [builder.zext(builder.bitcast(_repeat(builder, pair, 8), _V16I8), _V16I16) for pair in pairs]

    @staticmethod
    def add(builder, pointer, inputs, sums):
        for g, x in enumerate(inputs):
            w = builder.zext(_load(builder, pointer, 16 * g, _V16I8), _V16I16)
            sums[0] = builder.add(sums[0], _call(builder, "llvm.x86.avx2.pmadd.wd", _V8I32, w, x))


class _WideU4(_Sums):
    """4-bit weights times u8 inputs by AVX2's pmadd.ub.sw, whose 16-bit sums reach at most 4*2*15*255 = 30,600."""

    lanes, inputs, n_sums, turn_bytes = 8, 16, 1, 64

    @staticmethod
    def load_inputs(builder, pointer, n):
        quads = [_load(builder, pointer, 4 * g, _I32) for g in range(n // 4)]
        return [builder.bitcast(_repeat(builder, quad, 8), _V32I8) for quad in quads]

    @staticmethod
    def add(builder, pointer, inputs, sums):
        total = None
        for g in range(len(inputs) // 2):
            halves = _halves(builder, _load(builder, pointer, 32 * g, _V32I8))
            for w, x in zip(halves, inputs[2 * g : 2 * g + 2], strict=True):
                products = _call(builder, "llvm.x86.avx2.pmadd.ub.sw", _V16I16, x, w)
                total = products if total is None else builder.add(total, products)
        added = _call(builder, "llvm.x86.avx2.pmadd.wd", _V8I32, total, ir.Constant(_V16I16, [1] * 16))
        sums[0] = builder.add(sums[0], added)


class _NeonU8(_Sums):
    """u8 weights times u8 inputs by ARM's umull and uadalp, which adds neighbours."""

    lanes, inputs, n_sums, turn_bytes = 4, 8, 1, 32

    @staticmethod
    def load_inputs(builder, pointer, n):
        pairs = [_load(builder, pointer, 2 * g, _I16) for g in range(n // 2)]
        return [builder.bitcast(_repeat(builder, pair, 4), _V8I8) for pair in pairs]

    @staticmethod
    def add(builder, pointer, inputs, sums):
        for g, x in enumerate(inputs):
            products = _call(builder, "llvm.aarch64.neon.umull.v8i16", _V8I16, _load(builder, pointer, 8 * g, _V8I8), x)
            pairs = _call(builder, "llvm.aarch64.neon.uaddlp.v4i32.v8i16", _V4I32, products)
            sums[0] = builder.add(sums[0], pairs)


class _NeonU4(_Sums):
    """4-bit weights times u8 inputs by umull; a sum is of two rows, two pairs of inputs each."""

    lanes, inputs, n_sums, turn_bytes = 4, 8, 2, 16

    @staticmethod
    def load_inputs(builder, pointer, n):
        quads = [_load(builder, pointer, 4 * g, _I32) for g in range(n // 4)]
        return [builder.bitcast(_repeat(builder, quad, 2), _V8I8) for quad in quads]

    @staticmethod
    def add(builder, pointer, inputs, sums):
        for rows in range(2):
            halves = _halves(builder, _load(builder, pointer, 8 * rows, _V8I8))
            products = [
                _call(builder, "llvm.aarch64.neon.umull.v8i16", _V8I16, w, x)
                for w, x in zip(halves, inputs, strict=True)
            ]
            pairs = _call(builder, "llvm.aarch64.neon.uaddlp.v4i32.v8i16", _V4I32, builder.add(*products))
            sums[rows] = builder.add(sums[rows], pairs)

    @staticmethod
    def finish(builder, sums):
        even, odd = (
            builder.shuffle_vector(*sums, ir.Constant(_V4I32, [first, first + 2, first + 4, first + 6]))
            for first in (0, 1)
        )
        return builder.add(even, odd)


class _Dot(_Sums):
    """Weights of 8 or 4 bits times u8 inputs by an instruction that adds four products to each lane."""

    inputs, n_sums = 8, 2

    def __init__(self, instructions, bits, lanes):
        self.instructions, self.bits, self.lanes = instructions, bits, lanes
        self.turn_bytes = bits * lanes

    def load_inputs(self, builder, pointer, n):
        return [_repeat(builder, _load(builder, pointer, 4 * g, _I32), self.lanes) for g in range(n // 4)]

    def add(self, builder, pointer, inputs, sums):
        codes = ir.VectorType(_I8, 4 * self.lanes)
        if self.bits == 4:
            weights = _halves(builder, _load(builder, pointer, 0, codes))
        else:
            weights = [_load(builder, pointer, 4 * self.lanes * g, codes) for g in range(2)]
        for g, (w, x) in enumerate(zip(weights, inputs, strict=True)):
            sums[g] = self._dot(builder, sums[g], x, w)

    def _dot(self, builder, total, x, w):
        if self.instructions == "udot":
            x = builder.bitcast(x, w.type)
            return _call(builder, "llvm.aarch64.neon.udot.v4i32.v16i8", total.type, total, w, x)
        w = builder.bitcast(w, total.type)
        return _call(builder, f"llvm.x86.avx512.vpdpbusd.{32 * self.lanes}", total.type, total, x, w)


def products_of(instructions, bits, last=False):
    """How weights of 8 or 4 bits are multiplied. last: in a last block of ROW_BLOCK rows."""
    if instructions in ("vnni512", "vnni256", "udot"):
        lanes = {"vnni512": 8 if last else 16, "vnni256": 8, "udot": 4}[instructions]
        return _Dot(instructions, bits, lanes)
    if instructions == "neon":
        return _NeonU8 if bits == 8 else _NeonU4
    return _WideU8 if bits == 8 else _WideU4


def write_product(builder, products, n_blocks, weights, block_bytes, codes, n_codes, first, out):
    """Write the loop over the inputs for n_blocks blocks of rows at once, which share each load of the input.

    weights, codes, out: pointers. first: int32, what the sums begin at (0 for a sum that is of several rows).
    """
    sums_type = ir.VectorType(_I32, products.lanes)
    blocks = [builder.gep(weights, [builder.mul(block_bytes, _I64(b))]) for b in range(n_blocks)]
    nothing = ir.Constant(sums_type, [0] * products.lanes)
    start = [_repeat(builder, first, products.lanes), *[nothing] * (products.n_sums - 1)]
    sums = [[cgutils.alloca_once_value(builder, value) for value in start] for _ in blocks]

    def add(turn, n_inputs):
        inputs = products.load_inputs(builder, builder.gep(codes, [builder.mul(turn, _I64(products.inputs))]), n_inputs)
        weights_start = builder.mul(turn, _I64(products.turn_bytes))
        for block, places in zip(blocks, sums, strict=True):
            values = [builder.load(place) for place in places]
            products.add(builder, builder.gep(block, [weights_start]), inputs, values)
            for place, value in zip(places, values, strict=True):
                builder.store(value, place)

    n_turns = builder.udiv(n_codes, _I64(products.inputs))
    with cgutils.for_range(builder, n_turns, intp=_I64) as turn:
        add(turn.index, products.inputs)
    if products.inputs > ROW_CODES:
        rest = builder.urem(n_codes, _I64(products.inputs))
        with builder.if_then(builder.icmp_unsigned("!=", rest, _I64(0))):
            add(n_turns, ROW_CODES)
    for b, places in enumerate(sums):
        total = products.finish(builder, [builder.load(place) for place in places])
        target = builder.gep(out, [_I64(products.lanes * b)])
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


def _product_intrinsics(bits):
    """The kernels' products for four blocks of rows, two, one, and the last."""
    products = products_of(INSTRUCTIONS, bits)
    last = products_of(INSTRUCTIONS, bits, last=True)
    return *(_product_intrinsic(products, n_blocks) for n_blocks in (4, 2, 1)), _product_intrinsic(last, 1)


_product_u8_u8_4, _product_u8_u8_2, _product_u8_u8_1, _product_u8_u8_last = _product_intrinsics(8)
_product_u8_u4_4, _product_u8_u4_2, _product_u8_u4_1, _product_u8_u4_last = _product_intrinsics(4)


@_compiled()
def matvec_u8_u8(
    weights: U8, w_start: int, n_rows: int, codes: U8, x_start: int, n_codes: int, codes_sum: int, out: I32
) -> None:
    """out[o] = sum over i of weights[o, i] * codes[i]; exact for n_codes <= 33,000.

    weights: (bytes,) uint8, packed as above, read from w_start on. n_rows: multiple of ROW_BLOCK.
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


@_compiled()
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


@_compiled(fastmath={"reassoc", "contract", "nsz"})
def add_matvec_f32(weights: F32, w_start: int, n_rows: int, x: F32, x_start: int, n_inputs: int, out: F32) -> None:
    """out[o] += sum over i of weights[o, i] * x[i], in float32; one fixed order of summation per n_inputs."""
    vector = x[x_start : x_start + n_inputs]
    for o in range(n_rows):
        row = weights[w_start + o * n_inputs : w_start + (o + 1) * n_inputs]
        acc = np.float32(0)
        for i in range(n_inputs):
            acc += row[i] * vector[i]
        out[o] += acc


@_compiled()
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


# ---- front end -----------------------------------------------------------------------------------------------------


class FrontEndTables(NamedTuple):
    """What a front end needs that does not change.

    window: (window_samples,) float64. twiddles: (2, n) float64 with n = fft_samples / 2, cos and -sin of
    2 pi k / fft_samples. roots: (6, n / 4) float64, w, w^2 and w^3 of w = exp(-2 pi j p / n), real and imaginary
    parts; one column at least.
    mel_limits: (F, 2) int64, the first FFT bin of each filter and the one after its last, MEL_BINS of them or a
    multiple. mel_weights: (m,) float64, the filters within these limits one after the other.
    scalars: (3,) float64: preemphasis, energy_floor and its logarithm. hop_samples: (1,) int64.
    """

    window: F64
    twiddles: F64
    roots: F64
    mel_limits: I64
    mel_weights: F64
    scalars: F64
    hop_samples: I64


class FrontEndState(NamedTuple):
    """One stream's front end.

    samples: (window_samples,) float64, pre-emphasized. previous: (1,) float64, the last raw sample.
    n_samples: (1,) int64, how many of samples are filled. work: (4, n) float64, the FFT's two buffers, each real parts
    and imaginary parts. power: (n + MEL_BINS,) float64, zero behind the n + 1 bins. energies: (F,) float64.
    """

    samples: F64
    previous: F64
    n_samples: I64
    work: F64
    power: F64
    energies: F64


MEL_BINS = 4
"""The bins of a mel filter are padded with zero weights to a multiple of this; as many sums run side by side."""

_V4F64 = ir.VectorType(ir.DoubleType(), 4)
_F64 = ir.DoubleType()
_FUSED = ("contract",)  # a product and a sum may become one rounded operation, where the CPU has it


def _times(builder, a, b):
    """The product of two complex numbers, each a pair of vectors."""
    product = [builder.fmul(a[i], b[j], flags=_FUSED) for i, j in ((0, 0), (1, 1), (0, 1), (1, 0))]
    return builder.fsub(product[0], product[1], flags=_FUSED), builder.fadd(product[2], product[3], flags=_FUSED)


def _add(builder, a, b):
    return tuple(builder.fadd(x, y) for x, y in zip(a, b, strict=True))


def _subtract(builder, a, b):
    return tuple(builder.fsub(x, y) for x, y in zip(a, b, strict=True))


def _transposed(builder, rows):
    """Four vectors of four as the four vectors of their columns."""

    def shuffle(a, b, *places):
        return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_I32, 4), list(places)))

    low = [shuffle(rows[i], rows[i + 1], 0, 4, 1, 5) for i in (0, 2)]
    high = [shuffle(rows[i], rows[i + 1], 2, 6, 3, 7) for i in (0, 2)]
    return [shuffle(*pair, *places) for pair in (low, high) for places in ((0, 1, 4, 5), (2, 3, 6, 7))]


def _butterflies(first):
    """Four radix-4 butterflies side by side; of the first pass, where the four have different roots, or of a later one.

    The inputs are four vectors of work at x, x + x_step, ...; the outputs go to y, y + y_step, ... The imaginary part
    of what is at i is at i + n. p: the root's place. Written as vectors, since LLVM does not find them in a loop that
    could overlap itself: that took 1.7 us for 512 samples where this takes 0.6.
    """

    def codegen(context, builder, signature, args):
        _, n, x, x_step, y, y_step, _, p, n_roots = args
        work, roots = (context.make_array(signature.args[i])(context, builder, args[i]).data for i in (0, 6))

        def place(start, step, j):
            start = builder.add(start, builder.mul(step, _I64(j)))
            parts = [builder.gep(work, [at]) for at in (start, builder.add(start, n))]
            return [builder.bitcast(part, _V4F64.as_pointer()) for part in parts]

        def root(start):
            at = builder.gep(roots, [start])
            if first:
                return builder.load(builder.bitcast(at, _V4F64.as_pointer()), align=8)
            return _repeat(builder, builder.load(at), 4)

        a, b, c, d = [tuple(builder.load(part, align=8) for part in place(x, x_step, j)) for j in range(4)]
        rows = [root(builder.add(p, builder.mul(n_roots, _I64(row)))) for row in range(6)]
        w1, w2, w3 = zip(rows[::2], rows[1::2], strict=True)
        a_plus_c, a_minus_c = _add(builder, a, c), _subtract(builder, a, c)
        b_plus_d, b_minus_d = _add(builder, b, d), _subtract(builder, b, d)
        turned = builder.fneg(b_minus_d[1]), b_minus_d[0]  # j (b - d)
        outputs = [
            _add(builder, a_plus_c, b_plus_d),
            _times(builder, w1, _subtract(builder, a_minus_c, turned)),
            _times(builder, w2, _subtract(builder, a_plus_c, b_plus_d)),
            _times(builder, w3, _add(builder, a_minus_c, turned)),
        ]
        if first:
            columns = [_transposed(builder, [output[part] for output in outputs]) for part in (0, 1)]
            outputs = list(zip(*columns, strict=True))
        for j, output in enumerate(outputs):
            for part, target in zip(output, place(y, y_step, j), strict=True):
                builder.store(part, target, align=8)
        return context.get_dummy_value()

    @intrinsic
    def butterflies(typingctx, work, n, x, x_step, y, y_step, roots, p, n_roots):
        return types.void(work, n, x, x_step, y, y_step, roots, p, n_roots), codegen

    return butterflies


_first_butterflies, _later_butterflies = _butterflies(first=True), _butterflies(first=False)
VECTORS = not config.DISABLE_JIT


@_compiled(fastmath={"contract"})
def radix4_pass(work: F64, n: int, x: int, y: int, stride: int, roots: F64) -> None:
    """One pass of power_spectrum's FFT from the buffer at x of work, (4 n,), to the one at y."""
    quarter, n_roots = n // stride // 4, roots.size // 6
    if VECTORS and stride == 1 and quarter >= 4:
        for p in range(0, quarter, 4):
            _first_butterflies(work, n, x + p, quarter, y + 4 * p, 4, roots, p, n_roots)
    elif VECTORS and stride >= 4:
        for p in range(quarter):
            for q in range(0, stride, 4):
                x_start, y_start = x + stride * p + q, y + stride * 4 * p + q
                _later_butterflies(work, n, x_start, stride * quarter, y_start, stride, roots, p * stride, n_roots)
    else:
        for p in range(quarter):
            w = roots[p * stride :: n_roots]
            w1_re, w1_im, w2_re, w2_im, w3_re, w3_im = w[0], w[1], w[2], w[3], w[4], w[5]
            for q in range(stride):
                i, o, step = x + stride * p + q, y + stride * 4 * p + q, stride * quarter
                a_re, b_re, c_re, d_re = work[i], work[i + step], work[i + 2 * step], work[i + 3 * step]
                i += n
                a_im, b_im, c_im, d_im = work[i], work[i + step], work[i + 2 * step], work[i + 3 * step]
                t_re, t_im = d_im - b_im, b_re - d_re  # j (b - d)
                work[o], work[o + n] = a_re + c_re + (b_re + d_re), a_im + c_im + (b_im + d_im)
                u_re, u_im = a_re - c_re - t_re, a_im - c_im - t_im
                o += stride
                work[o], work[o + n] = w1_re * u_re - w1_im * u_im, w1_re * u_im + w1_im * u_re
                u_re, u_im = a_re + c_re - (b_re + d_re), a_im + c_im - (b_im + d_im)
                o += stride
                work[o], work[o + n] = w2_re * u_re - w2_im * u_im, w2_re * u_im + w2_im * u_re
                u_re, u_im = a_re - c_re + t_re, a_im - c_im + t_im
                o += stride
                work[o], work[o + n] = w3_re * u_re - w3_im * u_im, w3_re * u_im + w3_im * u_re


@intrinsic
def _powers(typingctx, work, n, z, twiddles, power, k):
    """real_powers for the four bins from k on, and the four that mirror them."""

    def codegen(context, builder, signature, args):
        _, n, z, _, _, k = args
        work, twiddles, power = (
            context.make_array(signature.args[i])(context, builder, args[i]).data for i in (0, 3, 4)
        )
        mirrored_k = builder.sub(builder.sub(n, k), _I64(3))
        half = ir.Constant(_V4F64, [0.5] * 4)
        scale = _repeat(builder, builder.fdiv(ir.Constant(_F64, 0.5), builder.sitofp(n, _F64)), 4)

        def at(array, *places):
            for place in places:
                array = builder.gep(array, [place])
            return builder.bitcast(array, _V4F64.as_pointer())

        def reverse(vector):
            return builder.shuffle_vector(vector, vector, ir.Constant(ir.VectorType(_I32, 4), [3, 2, 1, 0]))

        def scaled(factor, vector):
            return builder.fmul(factor, vector)

        re, im = (builder.load(at(work, z, k, *part), align=8) for part in ((), (n,)))
        mirrored_re, mirrored_im = (
            reverse(builder.load(at(work, z, mirrored_k, *part), align=8)) for part in ((), (n,))
        )
        even = scaled(half, builder.fadd(re, mirrored_re)), scaled(half, builder.fsub(im, mirrored_im))
        odd = scaled(half, builder.fadd(im, mirrored_im)), scaled(half, builder.fsub(mirrored_re, re))
        turned = _times(builder, [builder.load(at(twiddles, k, *part), align=8) for part in ((), (n,))], odd)
        for place, value in ((k, _add(builder, even, turned)), (mirrored_k, _subtract(builder, even, turned))):
            squares = [builder.fmul(part, part, flags=_FUSED) for part in value]
            result = scaled(scale, builder.fadd(*squares, flags=_FUSED))
            builder.store(result if place is k else reverse(result), at(power, place), align=8)
        return context.get_dummy_value()

    return types.void(work, n, z, twiddles, power, k), codegen


@_compiled(fastmath={"contract"}, inline="always")
def real_powers(work: F64, n: int, z: int, twiddles: F64, power: F64) -> None:
    """power[k], 0 < k < n, of a real frame from the spectrum of its even samples (real part) and odd ones (imaginary).

    work: (4 n,), with the spectrum's real parts from z on, its imaginary parts from z + n on. twiddles: (2 n,).
    """
    if VECTORS and n >= 8:
        for k in range(1, n // 2 + 1, 4):
            _powers(work, n, z, twiddles, power, k)
    else:
        scale = 1.0 / (2 * n)
        for k in range(1, n):
            re, im, mirrored_re, mirrored_im = work[z + k], work[z + n + k], work[z + n - k], work[z + 2 * n - k]
            even_re, even_im = 0.5 * (re + mirrored_re), 0.5 * (im - mirrored_im)
            odd_re, odd_im = 0.5 * (im + mirrored_im), 0.5 * (mirrored_re - re)
            re = even_re + (twiddles[k] * odd_re - twiddles[n + k] * odd_im)
            im = even_im + (twiddles[k] * odd_im + twiddles[n + k] * odd_re)
            power[k] = scale * (re * re + im * im)


@_compiled(fastmath={"contract"}, inline="always")
def power_spectrum(window: F64, twiddles: F64, roots: F64, samples: F64, work: F64, power: F64) -> None:
    """power[k] = |rfft(samples * window)[k]|^2 / fft_samples by one complex FFT of half the length.

    Stockham's autosort algorithm, radix 4 and at most one radix-2 pass last. roots, work: as in FrontEndTables and
    FrontEndState.
    """
    n = twiddles.shape[1]
    even, odd = work[0], work[1]
    for i in range(window.size // 2):
        even[i] = samples[2 * i] * window[2 * i]
        odd[i] = samples[2 * i + 1] * window[2 * i + 1]
    even[window.size // 2 :] = 0.0
    odd[window.size // 2 :] = 0.0
    if window.size % 2:
        even[window.size // 2] = samples[window.size - 1] * window[window.size - 1]
    flat, flat_roots = work.reshape(work.size), roots.reshape(roots.size)
    a, b, stride = 0, 2, 1
    while n >= 4 * stride:
        radix4_pass(flat, n, a * n, b * n, stride, flat_roots)
        a, b = b, a
        stride *= 4
    if n > stride:
        half = n // 2
        for part in range(2):
            x, y = work[a + part], work[b + part]
            for q in range(half):
                y[q] = x[q] + x[q + half]
            for q in range(half):
                y[q + half] = x[q] - x[q + half]
        a, b = b, a
    real_powers(flat, n, a * n, twiddles.reshape(2 * n), power)
    z_re, z_im, scale = work[a], work[a + 1], 1.0 / (2 * n)
    power[0] = scale * (z_re[0] + z_im[0]) ** 2
    power[n] = scale * (z_re[0] - z_im[0]) ** 2


@_compiled(fastmath={"contract"}, inline="always")
def log_energies(energies: F64, floor: float, log_floor: float, frame: F32) -> None:
    """frame[f] = log(max(energies[f], floor)), off by at most 1e-11 before it is rounded to float32.

    energies: (F,) float64, at least 0; they are lost. frame: (F,) float32.

    With x = 2^e m and 3/4 <= m < 3/2, log(x) = e log(2) + 2 atanh(s), s = (m - 1) / (m + 1): |s| <= 1/5.
    """
    bits = energies.view(np.int64)
    for f in range(frame.size):
        above = energies[f] > floor
        x = bits[f]
        exponent = (x - 0x3FE8000000000000) >> 52
        bits[f] = x - (exponent << 52)
        s = (energies[f] - 1.0) / (energies[f] + 1.0)
        t = s * s
        series = 1 + t * (1 / 3 + t * (1 / 5 + t * (1 / 7 + t * (1 / 9 + t * (1 / 11 + t * (1 / 13))))))
        logarithm = np.float64(exponent) * 0.6931471805599453 + 2 * s * series
        frame[f] = np.float32(logarithm if above else log_floor)


@intrinsic
def _filtered(typingctx, power, first, weights, w, n):
    """filtered as a loop over vectors."""

    def codegen(context, builder, signature, args):
        _, first, _, w, n = args
        power, weights = (context.make_array(signature.args[i])(context, builder, args[i]).data for i in (0, 2))
        total = cgutils.alloca_once_value(builder, ir.Constant(_V4F64, [0.0] * 4))
        n_turns = builder.udiv(n, _I64(MEL_BINS))
        with cgutils.for_range(builder, n_turns, intp=_I64) as turn:
            place = builder.mul(turn.index, _I64(MEL_BINS))
            bins, factors = (
                builder.load(
                    builder.bitcast(builder.gep(array, [builder.add(start, place)]), _V4F64.as_pointer()), align=8
                )
                for array, start in ((power, first), (weights, w))
            )
            product = builder.fmul(bins, factors, flags=_FUSED)
            builder.store(builder.fadd(builder.load(total), product, flags=_FUSED), total)
        sums = [builder.extract_element(builder.load(total), _I32(lane)) for lane in range(4)]
        return builder.fadd(builder.fadd(sums[0], sums[1]), builder.fadd(sums[2], sums[3]))

    return types.float64(power, first, weights, w, n), codegen


@_compiled(fastmath={"contract"}, inline="always")
def filtered(power: F64, first: int, weights: F64, w: int, n: int) -> float:
    """The sum of power from first on times weights from w on, n of each, a multiple of MEL_BINS."""
    if VECTORS:
        return _filtered(power, first, weights, w, n)
    e0 = e1 = e2 = e3 = 0.0
    for i in range(0, n, MEL_BINS):
        e0 += power[first + i] * weights[w + i]
        e1 += power[first + i + 1] * weights[w + i + 1]
        e2 += power[first + i + 2] * weights[w + i + 2]
        e3 += power[first + i + 3] * weights[w + i + 3]
    return (e0 + e1) + (e2 + e3)


@_compiled(fastmath={"contract"}, inline="always")
def log_mel_frame(tables: FrontEndTables, state: FrontEndState, frame: F32) -> None:
    """The log-mel energies of the window in state.samples. frame: (F,) float32."""
    power = state.power
    power_spectrum(tables.window, tables.twiddles, tables.roots, state.samples, state.work, power)
    w = 0
    for f in range(frame.size):
        first, end = tables.mel_limits[f, 0], tables.mel_limits[f, 1]
        state.energies[f] = filtered(power, first, tables.mel_weights, w, end - first)
        w += end - first
    log_energies(state.energies, tables.scalars[1], tables.scalars[2], frame)


@intrinsic
def _move_down(typingctx, array, n):
    """move_down by LLVM's own function."""

    def codegen(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0])
        n_bytes = builder.mul(builder.sub(data.nitems, args[1]), data.itemsize)
        cgutils.raw_memmove(builder, data.data, builder.gep(data.data, [args[1]]), n_bytes, _I64(1))
        return context.get_dummy_value()

    return types.void(array, n), codegen


@_compiled(inline="always")
def move_down(array: F64, n: int) -> None:
    """array[i] = array[i + n] for all but the last n."""
    if VECTORS:
        _move_down(array, n)
    else:
        array[:-n] = array[n:].copy()


@_compiled(inline="always")
def next_frame(tables: FrontEndTables, state: FrontEndState, samples: F32, start: int, frame: F32) -> int:
    """Take samples from start on until a frame is complete. Returns the index of the first sample not taken, or -1 when
    the samples ran out before the frame was complete.

    samples: (n,) float32. frame: (F,) float32.
    """
    n = state.n_samples[0]
    window_samples = state.samples.size
    take = min(window_samples - n, samples.size - start)
    preemphasis = tables.scalars[0]
    if take:
        new, x = state.samples[n : n + take], samples[start : start + take]
        new[0] = np.float64(x[0]) - preemphasis * state.previous[0]
        for i in range(1, take):
            new[i] = np.float64(x[i]) - preemphasis * np.float64(x[i - 1])
        state.previous[0] = np.float64(x[take - 1])
    n += take
    if n < window_samples:
        state.n_samples[0] = n
        return -1
    log_mel_frame(tables, state, frame)
    hop_samples = tables.hop_samples[0]
    move_down(state.samples, hop_samples)
    state.n_samples[0] = window_samples - hop_samples
    return start + take


@_compiled()
def push_samples(tables: FrontEndTables, state: FrontEndState, samples: F32, frames: F32) -> int:
    """Feed samples and write the frames they complete. frames: (> T, F) float32, one row more. Returns T."""
    n_frames = 0
    start = next_frame(tables, state, samples, FIRST, frames[0])
    while start >= 0:
        n_frames += 1
        start = next_frame(tables, state, samples, start, frames[n_frames])
    return n_frames


# ---- network -------------------------------------------------------------------------------------------------------

LINEAR, RELU, SIGMOID, SOFTMAX = 0, 1, 2, 3

LAYER = np.dtype(
    [
        (name, np.int64)
        for name in (
            "n_inputs",  # I
            "n_outputs",  # O
            "n_rows",  # O padded to a multiple of ROW_BLOCK
            "n_codes",  # I padded to a multiple of ROW_CODES
            "taps",
            "dilation",
            "activation",  # LINEAR, RELU, ...
            "residual",  # 0 or 1
            "weight_bits",  # 2..8, or 32
            "weights",  # where the layer's weights begin: bytes of Network.weights, or floats of float_weights
            "tap_size",  # distance between the weights of two taps, in the same unit
            "columns",  # where its columns begin in Network.columns
            "narrow_sums",  # 1 where its sums of weight codes are in Network.narrow_sums
            "weight_sums",  # where its (taps, O) sums of weight codes begin in Network.weight_sums or .narrow_sums
            "ring",  # where its ring begins in NetworkState.codes, or in .floats
            "slots",  # where its ring's slots begin in NetworkState.ranges and .sums
            "n_slots",  # length of its ring in frames: (taps - 1) * dilation + 1
        )
    ]
)
"""One layer of a Network; every field is an int64."""


class Network(NamedTuple):
    """The constant part of a model.

    layers: (L,) records of LAYER. weights: (bytes,) uint8 packed codes. float_weights: (n,) float32.
    columns: (3, n) float32: lo, step and bias per output unit.
    weight_sums, narrow_sums: (n,) float32 and uint16, S(qw[o]) per tap; the narrow ones are of the layers whose sums
        cannot exceed 65,535.
    levels: (L + 1,) float32: 2^bits - 1 of each layer's input, and of the output; 0 is float32.
    features: (2, F) float32: mean and scale of the log-mel input.
    """

    layers: Records
    weights: U8
    float_weights: F32
    columns: F32
    weight_sums: F32
    narrow_sums: U16
    levels: F32
    features: F32


class NetworkState(NamedTuple):
    """One stream's network: a ring of quantized (or float) input frames per layer, and scratch.

    codes: (bytes,) uint8. floats: (n,) float32. ranges: (slots, 2) float32: (lo, step). sums: (slots,) int32.
    newest: (L,) int64: the slot of the newest frame in each layer's ring.
    n_frames: (1,) int64: frames since the last network step.
    values: (longest vector,) float32. products: (most rows,) int32.
    output_codes, output_range, output_sum: as codes, ranges and sums, for the last layer's output vector.
    """

    codes: U8
    floats: F32
    ranges: F32
    sums: I32
    newest: I64
    n_frames: I64
    values: F32
    products: I32
    output_codes: U8
    output_range: F32
    output_sum: I32


@_compiled(inline="always")
def push_vector(network: Network, state: NetworkState, index: int) -> None:
    """Quantize state.values into the next slot of layer index's ring (or store it, when the layer is float32)."""
    layer = network.layers[index]
    slot = state.newest[index] + 1
    if slot == layer.n_slots:
        slot = 0
    state.newest[index] = slot
    if layer.weight_bits == 32:
        start = layer.ring + slot * layer.n_inputs
        x = state.floats[start : start + layer.n_inputs]
        for i in range(layer.n_inputs):
            x[i] = state.values[i]
    else:
        start = layer.ring + slot * layer.n_codes
        codes = state.codes[start : start + layer.n_inputs]
        values = state.values[: layer.n_inputs]
        quantize_vector(values, network.levels[index], codes, state.ranges, state.sums, layer.slots + slot)


@_compiled(inline="always")
def run_layer(network: Network, state: NetworkState, index: int) -> None:
    """One output vector of layer index from its ring, into state.values. Equation (4), summed over the taps.

    With A[o] = sum over taps of step_x * S(qw*qx)[o] + lo_x * S(qw[o]) and
    B = sum over taps of step_x * S(qx) + I * lo_x, an output is step_w[o] * A[o] + lo_w[o] * B + bias[o].
    """
    layer = network.layers[index]
    newest = state.newest[index]
    n_inputs, n_outputs = layer.n_inputs, layer.n_outputs
    values = state.values[:n_outputs]
    for o in range(n_outputs):
        values[o] = 0
    offset = np.float32(0)
    for tap in range(layer.taps):
        slot = newest - (layer.taps - 1 - tap) * layer.dilation
        if slot < 0:
            slot += layer.n_slots
        w_start = layer.weights + tap * layer.tap_size
        if layer.weight_bits == 32:
            x_start = layer.ring + slot * n_inputs
            add_matvec_f32(network.float_weights, w_start, n_outputs, state.floats, x_start, n_inputs, values)
            continue
        x_start, codes_sum = layer.ring + slot * layer.n_codes, state.sums[layer.slots + slot]
        if layer.weight_bits <= 4:
            matvec_u8_u4(network.weights, w_start, layer.n_rows, state.codes, x_start, layer.n_codes, state.products)
        else:
            matvec_u8_u8(
                network.weights, w_start, layer.n_rows, state.codes, x_start, layer.n_codes, codes_sum, state.products
            )
        lo, step = state.ranges[layer.slots + slot, 0], state.ranges[layer.slots + slot, 1]
        offset += step * np.float32(codes_sum) + np.float32(n_inputs) * lo
        sums_start = layer.weight_sums + tap * n_outputs
        if lo == 0:  # as after most rectified layers
            for o in range(n_outputs):
                values[o] += step * np.float32(state.products[o])
        elif layer.narrow_sums:
            narrow_sums = network.narrow_sums[sums_start : sums_start + n_outputs]
            for o in range(n_outputs):
                values[o] += step * np.float32(state.products[o]) + lo * np.float32(narrow_sums[o])
        else:
            weight_sums = network.weight_sums[sums_start : sums_start + n_outputs]
            for o in range(n_outputs):
                values[o] += step * np.float32(state.products[o]) + lo * weight_sums[o]
    first, end = layer.columns, layer.columns + n_outputs
    lo_w, step_w, bias = network.columns[0][first:end], network.columns[1][first:end], network.columns[2][first:end]
    for o in range(n_outputs):
        values[o] = step_w[o] * values[o] + lo_w[o] * offset + bias[o]
    if layer.residual:
        if layer.weight_bits == 32:
            start = layer.ring + newest * n_inputs
            x = state.floats[start : start + n_outputs]
            for o in range(n_outputs):
                values[o] += x[o]
        else:
            start = layer.ring + newest * layer.n_codes
            codes = state.codes[start : start + n_outputs]
            lo, step = state.ranges[layer.slots + newest, 0], state.ranges[layer.slots + newest, 1]
            for o in range(n_outputs):
                values[o] += lo + step * np.float32(codes[o])
    if layer.activation == RELU:
        for o in range(n_outputs):
            values[o] = max(values[o], np.float32(0))


@_compiled(inline="always")
def push_features(network: Network, state: NetworkState, frame: F32) -> None:
    """Normalize a log-mel frame and put it into the first layer's ring. frame: (F,) float32."""
    for f in range(frame.size):
        state.values[f] = (frame[f] - network.features[0, f]) * network.features[1, f]
    push_vector(network, state, FIRST)


@_compiled(inline="always")
def run_network(network: Network, state: NetworkState, posteriors: F32) -> None:
    """One network step: every layer's output vector is quantized once and goes into the next layer's ring.

    posteriors: (K,) float32; the last layer's output vector is quantized too, before its sigmoid or softmax.
    """
    n_layers = len(network.layers)
    for index in range(n_layers):
        if index > 0:
            push_vector(network, state, index)
        run_layer(network, state, index)
    last = network.layers[n_layers - 1]
    values, n = state.values, last.n_outputs
    if last.weight_bits != 32:
        levels = network.levels[n_layers]
        quantize_vector(values[:n], levels, state.output_codes, state.output_range, state.output_sum, FIRST)
        for o in range(n):
            values[o] = state.output_range[0, 0] + state.output_range[0, 1] * np.float32(state.output_codes[o])
    if last.activation == SIGMOID:
        for o in range(n):
            values[o] = np.float32(1) / (np.float32(1) + np.exp(-values[o]))
    elif last.activation == SOFTMAX:
        highest = values[0]
        for o in range(1, n):
            highest = max(highest, values[o])
        total = np.float32(0)
        for o in range(n):
            values[o] = np.exp(values[o] - highest)
            total += values[o]
        for o in range(n):
            values[o] /= total
    for k in range(posteriors.size):
        posteriors[k] = values[k]


@_compiled(inline="always")
def push_frame(network: Network, state: NetworkState, frame_stride: int, frame: F32, posteriors: F32) -> bool:
    """Feed a log-mel frame; every frame_stride-th one runs the network. Returns whether posteriors were written."""
    push_features(network, state, frame)
    state.n_frames[0] += 1
    if state.n_frames[0] < frame_stride:
        return False
    state.n_frames[0] = 0
    run_network(network, state, posteriors)
    return True


@_compiled()
def push_frames(network: Network, state: NetworkState, frame_stride: int, frames: F32, posteriors: F32) -> int:
    """Feed log-mel frames, (T, F) float32, and write posteriors, (S, K) float32. Returns how many rows."""
    n = 0
    for t in range(len(frames)):
        if n < len(posteriors):
            n += push_frame(network, state, frame_stride, frames[t], posteriors[n])
        else:
            push_features(network, state, frames[t])
            state.n_frames[0] += 1
    return n


# ---- decision ------------------------------------------------------------------------------------------------------

EVENT = np.dtype([("keyword", np.int64), ("peak_step", np.int64), ("step", np.int64), ("score", np.float32)])
"""A detection as the smoother writes it: index of the keyword, network step of the peak and of the decision, score."""

ARMED, RISING, WAITING = 0, 1, 2


class SmootherTables(NamedTuple):
    """thresholds: (K,) float32. settings: (3,) int64: smoothing_steps, patience_steps, refractory_steps."""

    thresholds: F32
    settings: I64


class SmootherState(NamedTuple):
    """One stream's smoother.

    posteriors: (smoothing_steps, K) float32, a ring. smoothed: (K,) float32. peaks: (K,) float32.
    phases, peak_steps, ready_steps: (K,) int64. n_steps: (1,) int64.
    """

    posteriors: F32
    smoothed: F32
    peaks: F32
    phases: I64
    peak_steps: I64
    ready_steps: I64
    n_steps: I64


@_compiled(inline="always")
def smooth(state: SmootherState, posteriors: F32) -> int:
    """Moving average over the last posteriors, summed oldest first; returns the number of this step.

    Before smoothing_steps posteriors have come, the average is over those that have.
    """
    step = state.n_steps[0]
    state.n_steps[0] = step + 1
    length = len(state.posteriors)
    n = min(step + 1, length)
    for k in range(posteriors.size):
        state.posteriors[step % length, k] = posteriors[k]
        total = np.float32(0)
        for i in range(step + 1 - n, step + 1):
            total += state.posteriors[i % length, k]
        state.smoothed[k] = total / np.float32(n)
    return step


@_compiled(inline="always")
def emit(tables: SmootherTables, state: SmootherState, keyword: int, step: int, event: Records) -> None:
    """Write keyword's peak as a detection and start its refractory period. event: (1,) of EVENT."""
    event[0].keyword = keyword
    event[0].peak_step = state.peak_steps[keyword]
    event[0].step = step
    event[0].score = state.peaks[keyword]
    state.phases[keyword] = WAITING
    state.ready_steps[keyword] = state.peak_steps[keyword] + tables.settings[2]


@_compiled(inline="always")
def decide(tables: SmootherTables, state: SmootherState, step: int, events: Records) -> int:
    """The decision rule for one step of smoothed posteriors; writes at most K events and returns how many.

    ARMED -> RISING when the smoothed posterior reaches its threshold; RISING -> a detection once it has not risen for
    patience_steps; WAITING -> ARMED when it is below its threshold again and the refractory period is over.
    """
    n = 0
    for k in range(tables.thresholds.size):
        score = state.smoothed[k]
        if state.phases[k] == WAITING and step >= state.ready_steps[k] and score < tables.thresholds[k]:
            state.phases[k] = ARMED
        if state.phases[k] == ARMED and score >= tables.thresholds[k]:
            state.phases[k] = RISING
            state.peaks[k] = score
            state.peak_steps[k] = step
        elif state.phases[k] == RISING and score > state.peaks[k]:
            state.peaks[k] = score
            state.peak_steps[k] = step
        if state.phases[k] == RISING and step - state.peak_steps[k] >= tables.settings[1]:
            emit(tables, state, k, step, events[n : n + 1])
            n += 1
    return n


@_compiled()
def push_posteriors(
    tables: SmootherTables, state: SmootherState, posteriors: F32, events: Records, smoothed: F32
) -> int:
    """Feed posteriors, (S, K) float32; write events, (>= S * K,) of EVENT, and smoothed, (S, K). Returns n events."""
    n = 0
    for s in range(len(posteriors)):
        step = smooth(state, posteriors[s])
        n += decide(tables, state, step, events[n:])
        for k in range(posteriors.shape[1]):
            smoothed[s, k] = state.smoothed[k]
    return n


@_compiled()
def flush_smoother(tables: SmootherTables, state: SmootherState, events: Records) -> int:
    """At the end of a stream: what is still rising is a detection. Returns how many events were written."""
    n = 0
    for k in range(tables.thresholds.size):
        if state.phases[k] == RISING:
            emit(tables, state, k, state.n_steps[0] - 1, events[n : n + 1])
            n += 1
    return n


# ---- the whole path ------------------------------------------------------------------------------------------------

NO_PCM, NO_FLOATS = np.zeros(0, np.int16), np.zeros(0, np.float32)
"""What a kernel that takes samples of either kind gets for the other one."""


class Path(NamedTuple):
    """Everything that one stream's path from samples to decisions touches.

    frame_stride: (1,) int64. frame: (F,), posteriors: (K,) float32 scratch. events: EVENT, room for K per network step
    of a push. limit: (1,) float32, the largest amplitude there may be. block: (n,) float32, the samples of a push.
    history: (n,) int16, a ring of the last samples. n_heard: (1,) int64, samples since the start.
    """

    front_end: FrontEndTables
    front_end_state: FrontEndState
    network: Network
    network_state: NetworkState
    smoother: SmootherTables
    smoother_state: SmootherState
    frame_stride: I64
    frame: F32
    posteriors: F32
    events: Records
    limit: F32
    block: F32
    history: npt.NDArray[np.int16]
    n_heard: I64


class Held:
    """A NamedTuple of arrays, or of such, for kernels that take it as one number: its arrays would cost 20 us a call.

    address: what these kernels take, and a reader turns back. The arrays live as long as this object.
    """

    kinds: ClassVar[dict[type, Any]] = {}
    """numba's type of every class of tuples that has been held."""

    def __init__(self, parts: tuple[Any, ...]) -> None:
        self._parts = parts
        if config.DISABLE_JIT:
            self.address: Any = parts
            return
        kind = numba.typeof(parts)
        assert self.kinds.setdefault(type(parts), kind) == kind, "a class has arrays of the same types always"
        arrays = [array for part in parts for array in (part if isinstance(part, tuple) else (part,))]
        # as numba lays out an array, with no owner whose references were to be counted
        words = [[0, 0, a.size, a.itemsize, a.ctypes.data, *a.shape, *a.strides] for a in arrays]
        self._memory = np.array([word for of_array in words for word in of_array], np.int64)
        self.address = self._memory.ctypes.data


def reader(cls: type) -> Any:
    """A function for kernels: the tuple of a class that is Held at an address."""
    if config.DISABLE_JIT:
        return lambda address: address

    def codegen(context, builder, signature, args):
        kind = context.get_value_type(signature.return_type)
        return builder.load(builder.inttoptr(args[0], kind.as_pointer()))

    @intrinsic
    def read(typingctx, address):
        return Held.kinds[cls](address), codegen

    return read


_read_path = reader(Path)


@_compiled(inline="always")
def take_samples(path: Path, pcm: npt.NDArray[np.int16], floats: F32) -> int:
    """Put samples as float32 into path.block, and as int16 into the history. Returns how many, or -1 for unusable ones.

    pcm: (n,) int16. floats: (n,) float32, taken where pcm is empty. n at most the size of path.block.
    """
    block, history = path.block, path.history
    n = pcm.size + floats.size
    if pcm.size:
        for i in range(n):
            block[i] = np.float32(pcm[i]) * np.float32(1 / 32768)
    else:
        bits, highest = floats.view(np.int32), np.int32(0)
        for i in range(n):  # without their signs floats order like these integers, NaN above all
            highest = max(highest, bits[i] & np.int32(0x7FFFFFFF))
            block[i] = floats[i]
        if highest > path.limit.view(np.int32)[0]:
            return -1
    size = history.size
    first = max(FIRST, n - size)
    place = (path.n_heard[0] + first) % size if size else 0
    for i in range(first, n):
        scaled = np.rint(block[i] * np.float32(32768))
        history[place] = np.int16(min(max(scaled, np.float32(-32768)), np.float32(32767)))
        place += 1
        if place == size:
            place = 0
    path.n_heard[0] += n
    return n


@_compiled()
def detect(address: int, pcm: npt.NDArray[np.int16], floats: F32) -> int:
    """From samples to decisions in one call. Returns how many of path.events it wrote, or -1 for unusable samples.

    address: of a Held path. pcm, floats: as for take_samples.
    """
    path = _read_path(address)
    n = take_samples(path, pcm, floats)
    if n < 0:
        return -1
    n_events, start = 0, FIRST
    samples, frame, posteriors, smoother_state = path.block[:n], path.frame, path.posteriors, path.smoother_state
    while True:
        start = next_frame(path.front_end, path.front_end_state, samples, start, frame)
        if start < 0:
            return n_events
        if push_frame(path.network, path.network_state, path.frame_stride[0], frame, posteriors):
            step = smooth(smoother_state, posteriors)
            n_events += decide(path.smoother, smoother_state, step, path.events[n_events:])
