"""Fake quantization: equations (1)-(3) of quantization.py in torch, with straight-through gradients.

The forward pass gives the values that the runtime's codes stand for, bit for bit, so that training sees the very errors
of quantization. The codes themselves have no useful derivative; the straight-through estimator (Bengio, Leonard,
Courville 2013) lets gradients pass as if rounding were not there.

With the exact min and max of each group nothing is ever clipped, and a value moves its own v' one to one. What remains
is that the smallest and the largest value of a group move the step of all others: v' = v + step * r, where r is the
rounding error in steps, at most one half. GRADIENTS "identity" leaves that out, "ranges" keeps it. Ranges that were
fixed beforehand (StaticRange) do clip; there the gradient is 0 outside, as in Jacob et al. 2018.

Source: Mishchenko et al., ICMLA 2019; the estimator is this project's choice, since the public abstract names none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from streamkws.errors import ConfigError
from streamkws.layers import FLOAT_BITS, LayerConfig
from streamkws.quantization import MAX_BITS, MIN_BITS, WEIGHT_RANGES, valid_bits

ACTIVATION_RANGES = ("frame", "static")
GRADIENTS = ("identity", "ranges")


@dataclass(frozen=True)
class QuantizationConfig:
    """The [quantization] section: bit widths, and how training gets used to them.

    weights, activations: bits of every layer whose entry in model.layers gives none; 32 (both) for float32.
    last_weights, last_activations: bits of the output layer; 0: as the others.
    start_share: part of the training that passes in full precision before quantization sets in.
    freeze_share: part of the training after which batch normalization keeps its statistics, so that training sees the
        network exactly as the runtime has it, normalization folded into the weights.
    weight_ranges: "column", or "matrix" (one range for all of a layer's weights), a baseline to compare with.
    activation_ranges: "frame", or "static" (calibrated beforehand), a baseline that the runtime does not have.
    gradient: "identity" or "ranges", see fake_quant.py.
    """

    weights: int = 4
    activations: int = 8
    last_weights: int = 0
    last_activations: int = 0
    start_share: float = 0.0
    freeze_share: float = 0.5
    weight_ranges: str = "column"
    activation_ranges: str = "frame"
    gradient: str = "identity"

    def __post_init__(self) -> None:
        valid_widths(self.weights, self.activations, ("quantization.weights", "quantization.activations"))
        last = self.last_weights or self.weights, self.last_activations or self.activations
        valid_widths(*last, ("quantization.last_weights", "quantization.last_activations"))
        for name in ("start_share", "freeze_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"expected quantization.{name} in 0..1, got {getattr(self, name)}")
        for name, known in (
            ("weight_ranges", WEIGHT_RANGES),
            ("activation_ranges", ACTIVATION_RANGES),
            ("gradient", GRADIENTS),
        ):
            if getattr(self, name) not in known:
                raise ConfigError(f"expected quantization.{name} of {', '.join(known)}, got {getattr(self, name)!r}")

    def apply(self, layers: Sequence[LayerConfig]) -> tuple[LayerConfig, ...]:
        """The layers in these widths; those that have widths of their own keep them."""
        widths = [(self.weights, self.activations)] * len(layers)
        widths[-1] = (self.last_weights or self.weights, self.last_activations or self.activations)
        return tuple(
            layer if not layer.is_float else replace(layer, weight_bits=weights, activation_bits=activations)
            for layer, (weights, activations) in zip(layers, widths, strict=True)
        )


def valid_widths(weights: int, activations: int, names: tuple[str, str]) -> None:
    """Raise ConfigError, by these names, unless both are 2..8 bits or both 32, which is float32."""
    for name, bits in zip(names, (weights, activations), strict=True):
        if bits != FLOAT_BITS and not MIN_BITS <= bits <= MAX_BITS:
            raise ConfigError(f"expected {name} of {MIN_BITS} to {MAX_BITS} or {FLOAT_BITS} bits, got {bits}")
    if (weights == FLOAT_BITS) != (activations == FLOAT_BITS):
        raise ConfigError(
            f"expected {names[0]} and {names[1]} both {FLOAT_BITS} or neither, got {weights} and {activations}"
        )


class _StraightThrough(torch.autograd.Function):
    """values in the forward pass, the gradient of v in the backward pass."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, values: Tensor) -> Tensor:
        del ctx, v
        return values

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        del ctx
        return gradient, None


def quantize(v: Tensor, bits: int, dim: int = -1) -> tuple[Tensor, Tensor, Tensor]:
    """Equations (1) and (2) for every group along dim: codes, lo and step, all in v's floating-point type.

    v: float32 of any shape, finite. Returns codes in v's shape, lo and step with size 1 at dim.
    """
    levels = float(2 ** valid_bits(bits) - 1)
    lo, hi = v.amin(dim, keepdim=True), v.amax(dim, keepdim=True)
    step = (hi - lo) / levels
    divisor = torch.where(step > 0, step, 1.0)  # a step of 0, also an underflown one, leaves v - lo below one half
    return (v - lo).div_(divisor).round_().clamp_(0, levels), lo, step


def fake_quantize(v: Tensor, bits: int, dim: int = -1, gradient: str = "identity") -> Tensor:
    """v' of equation (3) for every group along dim, each with its own exact min and max; straight-through backward.

    v: float32 of any shape, finite. bits: 2..8. gradient: one of GRADIENTS.
    """
    if gradient not in GRADIENTS:
        raise ConfigError(f"expected a gradient of {', '.join(GRADIENTS)}, got {gradient!r}")
    with torch.no_grad():
        codes, lo, step = quantize(v, bits, dim)
        rounding = codes - (v - lo) / torch.where(step > 0, step, 1.0) if gradient == "ranges" else None
        values = codes.mul_(step).add_(lo)
    if rounding is not None and v.requires_grad:
        v = v + (v.amax(dim, keepdim=True) - v.amin(dim, keepdim=True)) / (2**bits - 1) * rounding
    result: Tensor = _StraightThrough.apply(v, values)  # type: ignore[no-untyped-call]
    return result


def fake_quantize_weights(weights: Tensor, bits: int, ranges: str = "column", gradient: str = "identity") -> Tensor:
    """v' of a weight tensor (O, ...): a range for each output unit ("column"), or one for all ("matrix")."""
    if ranges not in WEIGHT_RANGES:
        raise ConfigError(f"expected weight ranges of {', '.join(WEIGHT_RANGES)}, got {ranges!r}")
    groups = weights.reshape(len(weights) if ranges == "column" else 1, -1)
    return fake_quantize(groups, bits, 1, gradient).reshape(weights.shape)


@dataclass(frozen=True)
class StaticRange:
    """A range fixed beforehand for every vector at one place of the network: the baseline to per-frame ranges.

    lo, step: as in equation (3), the same for all frames. bits: 2..8.
    """

    lo: float
    step: float
    bits: int

    COVERAGES = (1.0, 0.9999, 0.999, 0.99)

    def fake_quantize(self, v: Tensor) -> Tensor:
        """v' with values outside the range clipped (by more than rounding does); their gradient is 0."""
        with torch.no_grad():
            rounded = ((v - self.lo) / (self.step or 1.0)).round_()
            codes = rounded.clamp(0, float(2**self.bits - 1) if self.step > 0 else 0.0)
            inside = codes == rounded
            values = codes.mul_(self.step).add_(self.lo)
        result: Tensor = _StraightThrough.apply(v * inside, values)  # type: ignore[no-untyped-call]
        return result

    @classmethod
    def calibrated(cls, values: Tensor, bits: int) -> StaticRange:
        """The range, of those that cover 100, 99.99, 99.9 or 99 % of the values, with the least mean square error.

        values: (n,) float32, what was seen at this place of the network on calibration data.
        """
        ordered = values.flatten().sort().values
        best, least = cls(0.0, 0.0, bits), float("inf")
        for coverage in cls.COVERAGES:
            cut = round((len(ordered) - 1) * (1 - coverage) / 2)
            lo, hi = float(ordered[cut]), float(ordered[len(ordered) - 1 - cut])
            candidate = cls(lo, (hi - lo) / (2**bits - 1), bits)
            error = float(((candidate.fake_quantize(ordered) - ordered) ** 2).mean())
            if error < least:
                best, least = candidate, error
        return best
