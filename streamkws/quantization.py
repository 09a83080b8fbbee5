"""Equations (1)-(4): dynamic min/max quantization of vectors and weight columns, in NumPy.

For a group v of real numbers (a weight column, or one vector of one frame) and b bits:

    lo = min(v), hi = max(v), step = (hi - lo) / (2^b - 1)                          (1)
    q  = clip(round_half_even((v - lo) / step), 0, 2^b - 1)   (step = 0: q = 0)     (2)
    v' = lo + step * q                                                              (3)

A column is the weights that feed one output unit. With weight codes qw[o, i] and (lo_w, step_w)[o], input codes qx[i]
and (lo_x, step_x), one output of a matrix product is exactly

    y[o] = step_w[o] * step_x * S(qw * qx)  +  lo_w[o] * step_x * S(qx)
         + lo_x * (step_w[o] * S(qw[o]) + I * lo_w[o])                              (4)

where S sums over the I inputs. This file is the reference: the kernels and the training network give the same codes bit
for bit, and the same outputs to float32 rounding. Everything is float32, as in the kernels; the equations hold while
hi - lo is finite in float32.

Source: Mishchenko et al., "Low-Bit Quantization and Quantization-Aware Training for Small-Footprint Keyword Spotting",
ICMLA 2019; the equations are this project's reading of its abstract.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streamkws.errors import ConfigError

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]

MIN_BITS, MAX_BITS = 2, 8
WEIGHT_RANGES = ("column", "matrix")
"""What weights share a range: those of an output unit, or, to compare with, all of a layer."""


@dataclass(frozen=True)
class Quantized:
    """Codes with the zero offset and step of their group.

    codes: (groups..., n...) uint8.
    lo, step: (groups...) float32; a value is lo + step * code, equation (3).
    bits: 2..8.
    """

    codes: U8
    lo: F32
    step: F32
    bits: int

    def dequantize(self) -> F32:
        """The values the codes stand for, in the shape of codes, float32: equation (3)."""
        ranges = self.lo.shape + (1,) * (self.codes.ndim - self.lo.ndim)
        values: F32 = self.lo.reshape(ranges) + self.step.reshape(ranges) * self.codes.astype(np.float32)
        return values


def valid_bits(bits: int) -> int:
    """Return bits, or raise ConfigError unless it is a width the kernels have: 2..8."""
    if not MIN_BITS <= bits <= MAX_BITS:
        raise ConfigError(f"expected {MIN_BITS} to {MAX_BITS} bits, got {bits}")
    return bits


def quantize(values: npt.ArrayLike, bits: int) -> Quantized:
    """Quantize every row of values with the row's own exact min and max: equations (1) and (2).

    values: (..., n) float32, n >= 1, finite.
    """
    levels = np.float32(2 ** valid_bits(bits) - 1)
    v = np.asarray(values, np.float32)
    lo, hi = v.min(axis=-1), v.max(axis=-1)
    step = np.asarray((hi - lo) / levels, np.float32)
    divisor = np.where(step > 0, step, np.float32(1))
    q = np.clip(np.rint((v - lo[..., None]) / divisor[..., None]), 0, levels)
    q[step == 0] = 0
    return Quantized(q.astype(np.uint8), np.asarray(lo, np.float32), step, bits)


def quantize_columns(weights: npt.ArrayLike, bits: int, ranges: str = "column") -> Quantized:
    """Quantize a weight tensor column by column: one (lo, step) for all weights that feed an output unit.

    weights: (O, taps, I) float32. Returns codes (O, taps, I), lo and step (O,).
    ranges: "matrix" gives all columns the same (lo, step), from the whole tensor's min and max: the usual way, which
        the paper's is compared with.
    """
    if ranges not in WEIGHT_RANGES:
        raise ConfigError(f"expected weight ranges of {', '.join(WEIGHT_RANGES)}, got {ranges!r}")
    w = np.asarray(weights, np.float32)
    flat = quantize(w.reshape(len(w) if ranges == "column" else 1, -1), bits)
    lo, step = (np.broadcast_to(table, len(w)).copy() for table in (flat.lo, flat.step))
    return Quantized(flat.codes.reshape(w.shape), lo, step, bits)


def relative_error(values: npt.ArrayLike, quantized: Quantized) -> float:
    """Root mean square of what quantization changed, relative to the values' own root mean square; 0 where all are 0.

    values: of the shape of quantized.codes.
    """
    return float(_relative_rms(values, quantized, None))


def column_errors(weights: npt.ArrayLike, quantized: Quantized) -> npt.NDArray[np.float64]:
    """The relative_error of every weight column by itself.

    weights: (O, taps, I), the shape of quantized.codes. Returns (O,) float64.
    """
    return _relative_rms(weights, quantized, (1, 2))


def _relative_rms(values: npt.ArrayLike, quantized: Quantized, axes: tuple[int, ...] | None) -> npt.NDArray[np.float64]:
    v = np.asarray(values, np.float64)
    own = np.asarray(np.sqrt(np.mean(v**2, axis=axes)))
    changed = np.sqrt(np.mean((quantized.dequantize() - v) ** 2, axis=axes))
    errors = np.zeros_like(own)
    np.divide(changed, own, out=errors, where=own > 0)
    return errors


def matrix_product(weights: Quantized, x: Quantized) -> F32:
    """The product of a quantized matrix and a quantized vector from their codes: equation (4).

    weights: codes (O, I), lo and step (O,). x: codes (I,), lo and step ().
    Returns (O,) float32.
    """
    products = weights.codes.astype(np.int32) @ x.codes.astype(np.int32)
    weight_sums = weights.codes.sum(axis=-1, dtype=np.int32)
    x_sum = x.codes.sum(dtype=np.int32)
    n_inputs = x.codes.shape[-1]
    y = (
        weights.step * x.step * products
        + weights.lo * x.step * x_sum
        + x.lo * (weights.step * weight_sums + n_inputs * weights.lo)
    )
    return np.asarray(y, np.float32)


def pack_codes(codes: U8, bits: int) -> U8:
    """Pack codes without gaps, each one's lowest bit first: two 4-bit codes to a byte, eight 3-bit ones to three.

    codes: (n,) uint8, each below 2^bits. Returns (ceil(n * bits / 8),) uint8.
    """
    each = np.unpackbits(codes[:, None], axis=1, count=valid_bits(bits), bitorder="little")
    return np.packbits(each, bitorder="little")


def unpack_codes(packed: U8, bits: int, n: int) -> U8:
    """Undo pack_codes: (n,) uint8 codes from packed bytes."""
    each = np.unpackbits(packed, count=n * valid_bits(bits), bitorder="little").reshape(n, bits)
    return np.packbits(each, axis=1, bitorder="little")[:, 0]


def packed_size(n: int, bits: int) -> int:
    """Bytes that n codes take when packed."""
    return -(-n * valid_bits(bits) // 8)
