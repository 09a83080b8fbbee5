"""The layers a model is built of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streamkws import kernels
from streamkws.errors import ConfigError
from streamkws.quantization import (
    MAX_BITS,
    MIN_BITS,
    Quantized,
    column_errors,
    pack_codes,
    packed_size,
    quantize_columns,
    relative_error,
)

F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]

ACTIVATIONS = {
    "linear": kernels.LINEAR,
    "relu": kernels.RELU,
    "sigmoid": kernels.SIGMOID,
    "softmax": kernels.SOFTMAX,
}
FLOAT_BITS = 32
MAX_INPUTS = 33_000
"""255 * 255 * 33,000 still fits the kernels' int32 sums."""
MAX_SLOTS = 65_536


@dataclass(frozen=True)
class LayerConfig:
    """One causal layer: y[t] = activation(bias + sum over taps k of W[:, k] @ x[t - (taps-1-k)*dilation] (+ x[t])).

    taps = 1 is a fully connected layer, dilation = 1 with many taps the paper's stacked window, dilation > 1 a
    dilated causal convolution. Frames before the start of the stream are zero vectors.

    n_inputs, n_outputs: I, O.
    residual: add the newest input vector before the activation (needs n_inputs == n_outputs).
    activation: "relu", "linear", "sigmoid" or "softmax" (the last two only on the last layer).
    weight_bits: 2..8, or 32 for float32.
    activation_bits: bits of the layer's input vectors: 2..8, or 32 for float32 (32 exactly when weight_bits is).
    """

    n_inputs: int
    n_outputs: int
    taps: int = 1
    dilation: int = 1
    activation: str = "relu"
    residual: bool = False
    weight_bits: int = FLOAT_BITS
    activation_bits: int = FLOAT_BITS

    def __post_init__(self) -> None:
        if not (1 <= self.n_inputs <= MAX_INPUTS and 1 <= self.n_outputs <= MAX_INPUTS):
            raise ConfigError(
                f"expected 1 to {MAX_INPUTS} inputs and outputs in a layer, got {self.n_inputs} and {self.n_outputs}"
            )
        if self.taps < 1 or self.dilation < 1:
            raise ConfigError(f"expected taps and dilation of at least 1, got {self.taps} and {self.dilation}")
        if max(self.n_slots, self.dilation) > MAX_SLOTS:
            held = max(self.n_slots, self.dilation)
            raise ConfigError(f"expected a layer that holds at most {MAX_SLOTS} frames, got {held}")
        if self.activation not in ACTIVATIONS:
            raise ConfigError(f"expected an activation of {', '.join(ACTIVATIONS)}, got {self.activation!r}")
        if self.residual and self.n_inputs != self.n_outputs:
            raise ConfigError(
                f"expected as many outputs as inputs in a residual layer, got {self.n_outputs} and {self.n_inputs}"
            )
        for name, bits in (("weight_bits", self.weight_bits), ("activation_bits", self.activation_bits)):
            if bits != FLOAT_BITS and not MIN_BITS <= bits <= MAX_BITS:
                raise ConfigError(f"expected {name} of {MIN_BITS} to {MAX_BITS} or {FLOAT_BITS}, got {bits}")
        if (self.weight_bits == FLOAT_BITS) != (self.activation_bits == FLOAT_BITS):
            raise ConfigError(
                "expected weights and activations both in float32 or both quantized, got "
                f"weight_bits {self.weight_bits} and activation_bits {self.activation_bits}"
            )

    @property
    def is_float(self) -> bool:
        """Whether the layer computes in float32."""
        return self.weight_bits == FLOAT_BITS

    @property
    def bits(self) -> str:
        """The layer's widths as a name: "f32", "w4a8", ..."""
        return "f32" if self.is_float else f"w{self.weight_bits}a{self.activation_bits}"

    @property
    def n_slots(self) -> int:
        """Frames the layer's ring holds."""
        return (self.taps - 1) * self.dilation + 1

    @property
    def n_weights(self) -> int:
        """Weights without biases: O * taps * I."""
        return self.n_outputs * self.taps * self.n_inputs

    @property
    def stored_bytes(self) -> int:
        """Bytes of the layer in a model file: codes, and lo, step, bias per column; or float32 weights and biases."""
        if self.is_float:
            return 4 * (self.n_weights + self.n_outputs)
        return packed_size(self.n_weights, self.weight_bits) + 12 * self.n_outputs


@dataclass(frozen=True)
class Layer:
    """A layer with its weights.

    weights: (O, taps, I) float32, or codes of that shape with lo and step (O,); tap taps-1 is the newest frame.
    bias: (O,) float32.
    """

    config: LayerConfig
    weights: F32 | Quantized
    bias: F32

    def __post_init__(self) -> None:
        c = self.config
        array = self.weights.codes if isinstance(self.weights, Quantized) else self.weights
        if array.shape != (c.n_outputs, c.taps, c.n_inputs):
            raise ConfigError(
                f"expected weights of shape {(c.n_outputs, c.taps, c.n_inputs)} (O, taps, I), got {array.shape}"
            )
        if self.bias.shape != (c.n_outputs,):
            raise ConfigError(f"expected {c.n_outputs} biases, got shape {self.bias.shape}")
        tables = (self.weights.lo, self.weights.step) if isinstance(self.weights, Quantized) else (self.weights,)
        if not all(np.isfinite(table).all() for table in (*tables, self.bias)):
            raise ConfigError("expected finite weights, got NaN or infinite ones")

    def bounds(self, highest_input: float) -> tuple[float, float]:
        """What no output exceeds, and no term on the way to one, where no input exceeds highest_input; all absolute."""
        with np.errstate(over="ignore", invalid="ignore"):
            weights = self.weights.dequantize() if isinstance(self.weights, Quantized) else self.weights
        biases = np.abs(self.bias.astype(np.float64))
        sums = np.abs(weights).sum((1, 2), dtype=np.float64) * highest_input + biases
        highest = float(sums.max()) + (highest_input if self.config.residual else 0.0)
        if not isinstance(self.weights, Quantized):
            return highest, highest
        lo, step = (np.abs(table.astype(np.float64)) for table in (self.weights.lo, self.weights.step))
        n_inputs = self.config.taps * self.config.n_inputs
        return highest, float((n_inputs * (lo + step * (2**self.weights.bits - 1)) * highest_input + biases).max())

    def quantize(self, config: LayerConfig, ranges: str = "column") -> Layer:
        """This float32 layer in the widths of config, its columns quantized by equations (1) and (2).

        ranges: "matrix" for one range of all weights instead, see quantize_columns.
        """
        weights = self.float_weights()
        if config.is_float:
            return Layer(config, weights, self.bias)
        return Layer(config, quantize_columns(weights, config.weight_bits, ranges), self.bias)

    def weight_error(self, quantized: Layer) -> tuple[float, float]:
        """What quantize changed in this layer's weights: their relative RMS error, and that of the worst column.

        Both as fractions, rounded to 6 digits; 0 where the weights are still float32.
        """
        if not isinstance(quantized.weights, Quantized):
            return 0.0, 0.0
        weights = self.float_weights()
        worst = float(column_errors(weights, quantized.weights).max())
        return round(relative_error(weights, quantized.weights), 6), round(worst, 6)

    def float_weights(self) -> F32:
        """The (O, taps, I) float32 weights; raises ConfigError for a quantized layer."""
        if isinstance(self.weights, Quantized):
            raise ConfigError(f"expected a float32 layer to quantize, got {self.config.bits}")
        return self.weights

    def kernel_weights(self, packing: kernels.Packing = kernels.PACKING) -> U8:
        """The codes as the matrix kernels read them (kernels.packing says how): (taps, bytes) uint8, zero-padded."""
        if not isinstance(self.weights, Quantized):
            raise ConfigError("expected a quantized layer, got float32")
        c = self.config
        n_rows = kernels.padded(c.n_outputs, kernels.ROW_BLOCK)
        n_codes = kernels.padded(c.n_inputs, kernels.ROW_CODES)
        codes = np.zeros((c.taps, n_rows, n_codes), np.uint8)
        codes[:, : c.n_outputs, : c.n_inputs] = self.weights.codes.transpose(1, 0, 2)
        return np.stack([kernels.pack_rows(tap, c.weight_bits, packing) for tap in codes])

    def stored_codes(self) -> U8:
        """The codes as a model file holds them: flat, in (O, taps, I) order, packed without gaps."""
        if not isinstance(self.weights, Quantized):
            raise ConfigError("expected a quantized layer, got float32")
        return pack_codes(self.weights.codes.ravel(), self.config.weight_bits)
