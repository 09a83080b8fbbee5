"""The power spectrum of a real frame: Stockham's FFT in float64, radix 4."""

from __future__ import annotations

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from streamkws.kernels.compiling import VECTORS, compiled
from streamkws.kernels.layout import F64
from streamkws.kernels.vectors import DOUBLE, FUSED, INT32, INT64, V4F64, repeat


def _times(builder, a, b):
    """The product of two complex numbers, each a pair of vectors."""
    product = [builder.fmul(a[i], b[j], flags=FUSED) for i, j in ((0, 0), (1, 1), (0, 1), (1, 0))]
    return builder.fsub(product[0], product[1], flags=FUSED), builder.fadd(product[2], product[3], flags=FUSED)


def _add(builder, a, b):
    return tuple(builder.fadd(x, y) for x, y in zip(a, b, strict=True))


def _subtract(builder, a, b):
    return tuple(builder.fsub(x, y) for x, y in zip(a, b, strict=True))


def _transposed(builder, rows):
    """Four vectors of four as the four vectors of their columns."""

    def shuffle(a, b, *places):
        return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(INT32, 4), list(places)))

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
            start = builder.add(start, builder.mul(step, INT64(j)))
            parts = [builder.gep(work, [at]) for at in (start, builder.add(start, n))]
            return [builder.bitcast(part, V4F64.as_pointer()) for part in parts]

        def root(start):
            at = builder.gep(roots, [start])
            if first:
                return builder.load(builder.bitcast(at, V4F64.as_pointer()), align=8)
            return repeat(builder, builder.load(at), 4)

        a, b, c, d = [tuple(builder.load(part, align=8) for part in place(x, x_step, j)) for j in range(4)]
        rows = [root(builder.add(p, builder.mul(n_roots, INT64(row)))) for row in range(6)]
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


@compiled(fastmath={"contract"})
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
        mirrored_k = builder.sub(builder.sub(n, k), INT64(3))
        half = ir.Constant(V4F64, [0.5] * 4)
        scale = repeat(builder, builder.fdiv(ir.Constant(DOUBLE, 0.5), builder.sitofp(n, DOUBLE)), 4)

        def at(array, *places):
            for place in places:
                array = builder.gep(array, [place])
            return builder.bitcast(array, V4F64.as_pointer())

        def reverse(vector):
            return builder.shuffle_vector(vector, vector, ir.Constant(ir.VectorType(INT32, 4), [3, 2, 1, 0]))

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
            squares = [builder.fmul(part, part, flags=FUSED) for part in value]
            result = scaled(scale, builder.fadd(*squares, flags=FUSED))
            builder.store(result if place is k else reverse(result), at(power, place), align=8)
        return context.get_dummy_value()

    return types.void(work, n, z, twiddles, power, k), codegen


@compiled(fastmath={"contract"}, inline="always")
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


@compiled(fastmath={"contract"}, inline="always")
def power_spectrum(window: F64, twiddles: F64, roots: F64, samples: F64, work: F64, power: F64) -> None:
    """power[k] = |rfft(samples * window)[k]|^2 / fft_samples by one complex FFT of half the length.

    Stockham's autosort algorithm, radix 4 and at most one radix-2 pass last. roots, work: as in FrontEndTables and
    FrontEndState.
    """
    n = twiddles.size // 2
    even, odd = work[:n], work[n : 2 * n]
    for i in range(window.size // 2):
        even[i] = samples[2 * i] * window[2 * i]
        odd[i] = samples[2 * i + 1] * window[2 * i + 1]
    even[window.size // 2 :] = 0.0
    odd[window.size // 2 :] = 0.0
    if window.size % 2:
        even[window.size // 2] = samples[window.size - 1] * window[window.size - 1]
    a, b, stride = 0, 2 * n, 1
    while n >= 4 * stride:
        radix4_pass(work, n, a, b, stride, roots)
        a, b = b, a
        stride *= 4
    if n > stride:
        half = n // 2
        for part in range(2):
            x, y = work[a + part * n : a + part * n + n], work[b + part * n : b + part * n + n]
            for q in range(half):
                y[q] = x[q] + x[q + half]
            for q in range(half):
                y[q + half] = x[q] - x[q + half]
        a, b = b, a
    real_powers(work, n, a, twiddles, power)
    z_re, z_im, scale = work[a], work[a + n], 1.0 / (2 * n)
    power[0] = scale * (z_re + z_im) ** 2
    power[n] = scale * (z_re - z_im) ** 2
