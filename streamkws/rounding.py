"""Rounding with compensation: weight codes chosen by what a layer puts out, not each by its own weight.

Quantization after training rounds every weight to the nearest of its column's values. The inputs of a layer are
correlated, so that what rounding one weight does to an output the weights not yet rounded can undo. Layer by layer, on
examples of what the model will hear, in which steps at which a keyword comes count most (else silence and other speech
would outweigh them):

1. Inputs: those of the network that is quantized up to here, as the runtime has them. Wanted: what the network in full
   precision puts out, in its own course.
2. The weights and biases that give it best from those inputs: least squares, held to the trained weights by a ridge.
3. Their columns' exact min and max give lo and step, equation (1).
4. Input by input, the one of most variance first, each weight becomes the nearest value of its column, and the weights
   of the inputs after it take up its error as the inputs' covariance says.
5. The biases make up for what is left of the mean.

Sources: step 4 is GPTQ (Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
Transformers", ICLR 2023), after the optimal brain surgeon (Hassibi and Stork 1993). Wanting the full-precision outputs
from the quantized network's inputs is the asymmetric reconstruction of Nagel et al., "Up or Down? Adaptive Rounding for
Post-Training Quantization", ICML 2020.
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
"""Of the inputs' mean variance: how strongly the weights are held to the trained ones."""
FLOOR = 1e-9
"""Of their mean square, besides: inputs that never vary are no measure."""
EVERY_STEP = np.float32(0.1)
"""What a step counts in which no keyword comes; one before a keyword heard for certain counts 1 more."""


@dataclass(frozen=True)
class Course:
    """An example at a layer.

    inputs: (T, I) as the layer has them in the network that is quantized so far.
    wanted: (T // stride, O), what its products with their biases should come to.
    weights: (T // stride,), how much each of these counts.
    """

    inputs: F32
    wanted: F32
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
    exact, quantized = list(examples), list(examples)  # the inputs in full precision, and quantized so far
    rounded = []
    for index, (layer, config) in enumerate(zip(layers, configs, strict=True)):
        step = stride if index == 0 else 1
        quantized = [heard(x, config) for x in quantized]
        sums = [_sums(layer, x, step) for x in exact]
        made = layer
        if not config.is_float:
            courses = [
                Course(inputs, wanted + (x - inputs)[step - 1 :: step] if config.residual else wanted, counts)
                for inputs, wanted, x, counts in zip(quantized, sums, exact, weights, strict=True)
            ]
            made = _fit(layer, config, courses, step)
        exact = [_outputs(config, y, x, step) for y, x in zip(sums, exact, strict=True)]
        quantized = [_outputs(config, _sums(made, x, step), x, step) for x in quantized]
        rounded.append(made)
    return tuple(rounded)


def step_weights(posteriors: F32, ahead: int) -> F32:
    """How much each step counts: the more, the more like a keyword the full-precision network finds what comes.

    posteriors: (S, K). ahead: steps that are looked at. Returns (S,) float32.
    """
    best = posteriors.max(axis=1)
    padded = np.concatenate([best, np.repeat(best[-1:], ahead - 1)])
    weights: F32 = EVERY_STEP + np.lib.stride_tricks.sliding_window_view(padded, ahead).max(axis=1)
    return weights.astype(np.float32)


def windows(x: F32, config: LayerConfig, stride: int) -> F32:
    """(T, I) input vectors to what each output vector is made of, (T // stride, taps * I), the oldest tap first."""
    padded = np.concatenate([np.zeros((config.n_slots - 1, config.n_inputs), np.float32), x])
    newest = np.arange(stride - 1, len(x), stride)
    seen: F32 = padded[newest[:, None] + config.dilation * np.arange(config.taps)]
    return seen.reshape(len(newest), config.taps * config.n_inputs)


def heard(x: F32, config: LayerConfig) -> F32:
    """Input vectors as the layer has them: each quantized by itself, unless the layer is in float32."""
    return x if config.is_float else quantize(x, config.activation_bits).dequantize()


def _sums(layer: Layer, x: F32, stride: int) -> F32:
    """(T, I) input vectors, as the layer has them, to its products with their biases, (T // stride, O)."""
    weights = layer.weights.dequantize() if isinstance(layer.weights, Quantized) else layer.weights
    return windows(x, layer.config, stride) @ weights.reshape(len(weights), -1).T + layer.bias


def _outputs(config: LayerConfig, sums: F32, x: F32, stride: int) -> F32:
    """The output vectors of these sums of (T, I) input vectors, before a sigmoid or softmax."""
    y = sums + x[stride - 1 :: stride] if config.residual else sums
    return np.maximum(y, 0) if config.activation == "relu" else y


def _fit(layer: Layer, config: LayerConfig, courses: Sequence[Course], stride: int) -> Layer:
    """Steps 1 to 5 for one layer."""
    trained = layer.float_weights().reshape(config.n_outputs, -1)
    total, n_inputs = 0.0, trained.shape[1]
    input_sum, wanted_sum = np.zeros(n_inputs), np.zeros(config.n_outputs)
    squares, products = np.zeros((n_inputs, n_inputs)), np.zeros((config.n_outputs, n_inputs))
    for course in courses:
        inputs = windows(course.inputs, config, stride).astype(
            np.float64
        )  # of their squares the mean's is subtracted below
        weighted = course.weights[:, None] * inputs
        total += float(course.weights.sum())
        input_sum += weighted.sum(0)
        wanted_sum += course.weights @ course.wanted
        squares += weighted.T @ inputs
        products += course.wanted.T @ weighted
    input_mean, wanted_mean = input_sum / total, wanted_sum / total
    covariance = squares / total - np.outer(input_mean, input_mean)
    ridge = (RIDGE * np.trace(covariance) + FLOOR * np.trace(squares) / total) / n_inputs or 1.0
    covariance += ridge * np.eye(n_inputs)
    with_wanted = products / total - np.outer(wanted_mean, input_mean)
    fitted: F64 = np.linalg.solve(covariance, (with_wanted + ridge * trained).T).T.astype(np.float64)
    columns = fitted.astype(np.float32).reshape(config.n_outputs, config.taps, config.n_inputs)
    nearest = quantize_columns(columns, config.weight_bits)
    codes = _compensated(fitted, covariance, nearest).reshape(columns.shape)
    weights = Quantized(codes, nearest.lo, nearest.step, config.weight_bits)
    bias = wanted_mean - weights.dequantize().reshape(config.n_outputs, -1) @ input_mean
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
