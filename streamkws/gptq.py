"""GPTQ: the weight codes of a column chosen together, by what the layer puts out.

Quantization after training rounds every weight to the nearest value of its column. But a layer's inputs are correlated:
weights that are not yet rounded can undo what rounding one weight does to an output. Layer by layer, on examples of
what the model will hear:

1. Inputs: those of the network quantized so far, as the runtime has them. Target: the outputs of the full-precision
   network on the same example.
2. Fit weights and biases that give the target from those inputs: least squares, held to the trained weights by a ridge.
3. The exact min and max of each fitted column give lo and step, equation (1).
4. Input by input, the one of most variance first: each weight becomes the nearest value of its column, and the weights
   of later inputs take up its error as the inputs' covariance says.
5. The biases make up for what is left of the mean.

Steps of audio at which a keyword comes count most; otherwise silence and other speech would outweigh them.

Sources: step 4 is GPTQ (Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
Transformers", ICLR 2023), after the optimal brain surgeon (Hassibi and Stork 1993). Aiming for the full-precision
outputs from the quantized network's inputs is the asymmetric reconstruction of Nagel et al., "Up or Down? Adaptive
Rounding for Post-Training Quantization", ICML 2020.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streamkws.layers import Layer, LayerConfig
from streamkws.quantization import Quantized, quantize, quantize_columns

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

RIDGE = 0.01
"""How strongly the weights are held to the trained ones, as a share of the inputs' mean variance."""
FLOOR = 1e-9
"""The same as a share of the inputs' mean square, for inputs that never vary."""
EVERY_STEP = np.float32(0.1)
"""The weight of a step with no keyword; a step just before a keyword of posterior 1 has 1 more."""


@dataclass(frozen=True)
class CalibrationBatch:
    """One example at one layer.

    inputs: (T, I), the layer's input vectors in the network quantized so far.
    target: (T // stride, O), the sums of products and biases it should reach.
    weights: (T // stride,), how much each of these counts.
    """

    inputs: F32
    target: F32
    weights: F32


def round_layers(
    layers: Sequence[Layer],
    configs: Sequence[LayerConfig],
    examples: Sequence[F32],
    stride: int,
    weights: Sequence[F32],
) -> tuple[Layer, ...]:
    """These float32 layers in the widths of configs, each column's codes chosen together; its biases change, too.

    examples: (T, I) float32 each, finite: what the first layer takes in from the start of a stream on.
    stride: of the first layer.
    weights: (T // stride,) float32 each, above 0: how much each step of an example counts.
    """
    exact, quantized = list(examples), list(examples)  # inputs in the full-precision network, and in the quantized one
    rounded = []
    for index, (layer, config) in enumerate(zip(layers, configs, strict=True)):
        step = stride if index == 0 else 1
        quantized = [quantized_inputs(x, config) for x in quantized]
        sums = [_sums(layer, x, step) for x in exact]
        made = layer
        if not config.is_float:
            batches = [
                CalibrationBatch(inputs, target + (x - inputs)[step - 1 :: step] if config.residual else target, counts)
                for inputs, target, x, counts in zip(quantized, sums, exact, weights, strict=True)
            ]
            made = _fit(layer, config, batches, step)
        exact = [_outputs(config, y, x, step) for y, x in zip(sums, exact, strict=True)]
        quantized = [_outputs(config, _sums(made, x, step), x, step) for x in quantized]
        rounded.append(made)
    return tuple(rounded)


def step_weights(posteriors: F32, ahead: int) -> F32:
    """How much each step counts: more where the full-precision network soon hears a keyword.

    posteriors: (S, K). ahead: how many steps to look ahead. Returns (S,) float32.
    """
    best = posteriors.max(axis=1)
    padded = np.concatenate([best, np.repeat(best[-1:], ahead - 1)])
    weights: F32 = EVERY_STEP + np.lib.stride_tricks.sliding_window_view(padded, ahead).max(axis=1)
    return weights.astype(np.float32)


def windows(x: F32, config: LayerConfig, stride: int) -> F32:
    """The inputs of each output vector: (T, I) to (T // stride, taps * I), the oldest tap first."""
    padded = np.concatenate([np.zeros((config.n_slots - 1, config.n_inputs), np.float32), x])
    newest = np.arange(stride - 1, len(x), stride)
    seen: F32 = padded[newest[:, None] + config.dilation * np.arange(config.taps)]
    return seen.reshape(len(newest), config.taps * config.n_inputs)


def quantized_inputs(x: F32, config: LayerConfig) -> F32:
    """Input vectors as the runtime has them: each quantized by itself, unless the layer is in float32."""
    return x if config.is_float else quantize(x, config.activation_bits).dequantize()


def _sums(layer: Layer, x: F32, stride: int) -> F32:
    """The layer's products plus biases: (T, I) input vectors, as the runtime has them, to (T // stride, O)."""
    weights = layer.weights.dequantize() if isinstance(layer.weights, Quantized) else layer.weights
    return windows(x, layer.config, stride) @ weights.reshape(len(weights), -1).T + layer.bias


def _outputs(config: LayerConfig, sums: F32, x: F32, stride: int) -> F32:
    """The layer's output vectors from these sums and its inputs (T, I), before a sigmoid or softmax."""
    y = sums + x[stride - 1 :: stride] if config.residual else sums
    return np.maximum(y, 0) if config.activation == "relu" else y


def _fit(layer: Layer, config: LayerConfig, batches: Sequence[CalibrationBatch], stride: int) -> Layer:
    """Steps 1 to 5 for one layer."""
    trained = layer.float_weights().reshape(config.n_outputs, -1)
    total, n_inputs = 0.0, trained.shape[1]
    input_sum, target_sum = np.zeros(n_inputs), np.zeros(config.n_outputs)
    squares, products = np.zeros((n_inputs, n_inputs)), np.zeros((config.n_outputs, n_inputs))
    for batch in batches:
        inputs = windows(batch.inputs, config, stride).astype(
            np.float64
        )  # since the square of the mean is subtracted from the mean square below
        weighted = batch.weights[:, None] * inputs
        total += float(batch.weights.sum())
        input_sum += weighted.sum(0)
        target_sum += batch.weights @ batch.target
        squares += weighted.T @ inputs
        products += batch.target.T @ weighted
    input_mean, target_mean = input_sum / total, target_sum / total
    covariance = squares / total - np.outer(input_mean, input_mean)
    ridge = (RIDGE * np.trace(covariance) + FLOOR * np.trace(squares) / total) / n_inputs or 1.0
    covariance += ridge * np.eye(n_inputs)
    with_target = products / total - np.outer(target_mean, input_mean)
    fitted: F64 = np.linalg.solve(covariance, (with_target + ridge * trained).T).T.astype(np.float64)
    columns = fitted.astype(np.float32).reshape(config.n_outputs, config.taps, config.n_inputs)
    nearest = quantize_columns(columns, config.weight_bits)
    codes = _compensated(fitted, covariance, nearest).reshape(columns.shape)
    weights = Quantized(codes, nearest.lo, nearest.step, config.weight_bits)
    bias = target_mean - weights.dequantize().reshape(config.n_outputs, -1) @ input_mean
    return Layer(config, weights, bias.astype(np.float32))


def _compensated(weights: F64, covariance: F64, grid: Quantized) -> npt.NDArray[np.uint8]:
    """Step 4: codes (O, n) for weights (O, n) on the columns' values, given the inputs' covariance (n, n)."""
    order = np.argsort(-np.diag(covariance), kind="stable")
    left = weights[:, order]
    factor = np.linalg.cholesky(np.linalg.inv(covariance[np.ix_(order, order)])).T
    lo, step = grid.lo.astype(np.float64), grid.step.astype(np.float64)
    divisor = np.where(step > 0, step, 1.0)
    levels = np.where(step > 0, 2**grid.bits - 1, 0)
    codes = np.zeros(weights.shape, np.uint8)
    for place, column in enumerate(order):
        code = np.clip(np.rint((left[:, place] - lo) / divisor), 0, levels)
        codes[:, column] = code
        error = (left[:, place] - (lo + step * code)) / factor[place, place]
        left[:, place + 1 :] -= np.outer(error, factor[place, place + 1 :])
    return codes
