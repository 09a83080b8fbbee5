"""The front end: samples in, log-mel frames out."""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from streamkws.kernels.compiling import FIRST, VECTORS, compiled
from streamkws.kernels.fft import power_spectrum
from streamkws.kernels.layout import F32, F64, MEL_BINS, FrontEndState, FrontEndTables
from streamkws.kernels.vectors import FUSED, INT32, INT64, V4F64


@compiled(fastmath={"contract"}, inline="always")
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
        total = cgutils.alloca_once_value(builder, ir.Constant(V4F64, [0.0] * 4))
        n_turns = builder.udiv(n, INT64(MEL_BINS))
        with cgutils.for_range(builder, n_turns, intp=INT64) as turn:
            place = builder.mul(turn.index, INT64(MEL_BINS))
            bins, factors = (
                builder.load(
                    builder.bitcast(builder.gep(array, [builder.add(start, place)]), V4F64.as_pointer()), align=8
                )
                for array, start in ((power, first), (weights, w))
            )
            product = builder.fmul(bins, factors, flags=FUSED)
            builder.store(builder.fadd(builder.load(total), product, flags=FUSED), total)
        sums = [builder.extract_element(builder.load(total), INT32(lane)) for lane in range(4)]
        return builder.fadd(builder.fadd(sums[0], sums[1]), builder.fadd(sums[2], sums[3]))

    return types.float64(power, first, weights, w, n), codegen


@compiled(fastmath={"contract"}, inline="always")
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


@compiled(fastmath={"contract"}, inline="always")
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
        cgutils.raw_memmove(builder, data.data, builder.gep(data.data, [args[1]]), n_bytes, INT64(1))
        return context.get_dummy_value()

    return types.void(array, n), codegen


@compiled(inline="always")
def move_down(array: F64, n: int) -> None:
    """array[i] = array[i + n] for all but the last n."""
    if VECTORS:
        _move_down(array, n)
    else:
        array[:-n] = array[n:].copy()


@compiled(inline="always")
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


@compiled()
def push_samples(tables: FrontEndTables, state: FrontEndState, samples: F32, frames: F32) -> int:
    """Feed samples and write the frames they complete. frames: (> T, F) float32, one row more. Returns T."""
    n_frames = 0
    start = next_frame(tables, state, samples, FIRST, frames[0])
    while start >= 0:
        n_frames += 1
        start = next_frame(tables, state, samples, start, frames[n_frames])
    return n_frames
