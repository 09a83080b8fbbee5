"""Gradients through fake quantization: those of a plain layer at the quantized values."""

import numpy as np
import pytest
import torch
from networks import make_speech
from torch import nn
from torch.func import functional_call

from streamkws.layers import LayerConfig
from streamkws.training.fake_quant import QuantizationConfig, fake_quantize, fake_quantize_weights
from streamkws.training.network import CausalLayer


@pytest.fixture
def speech():
    return make_speech()


def make_layer(config, stride=1, seed=0, **settings):
    """A layer whose normalization is nothing near the identity, with some negative scales."""
    torch.manual_seed(seed)
    layer = CausalLayer(config, QuantizationConfig(**settings), stride)
    n = config.n_outputs
    with torch.no_grad():
        layer.norm.weight.copy_(torch.rand(n) + 0.5)
        layer.norm.weight[::2] *= -1
        layer.norm.bias.copy_(torch.randn(n))
        layer.norm.running_mean.copy_(torch.randn(n))
        layer.norm.running_var.copy_(torch.rand(n) + 0.5)
    return layer


PARAMETERS = ("conv.weight", "norm.weight", "norm.bias")


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("activation", ["relu", "linear"])
def test_training_gradients_in_full_precision_are_the_finite_differences(stride, activation):
    layer = make_layer(LayerConfig(4, 4, taps=3, dilation=2, residual=True, activation=activation), stride).double()
    parameters = tuple(layer.get_parameter(name).detach().clone().requires_grad_() for name in PARAMETERS)
    x = torch.randn(2, 4, 9, dtype=torch.float64, requires_grad=True)

    def outputs(x, *parameters):
        return functional_call(layer, dict(zip(PARAMETERS, parameters, strict=True)), (x,))

    assert outputs(x, *parameters).shape == (2, 4, 9 // stride)
    assert torch.autograd.gradcheck(outputs, (x, *parameters))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("activation", ["relu", "linear"])
def test_frozen_gradients_in_full_precision_are_the_finite_differences(stride, activation):
    """Of normalization applied after the convolution, in double precision: folding it in must change nothing.

    The layer folds into float32 weights, hence the tolerance.
    """
    config = LayerConfig(4, 4, taps=3, dilation=2, residual=True, activation=activation)
    layer = make_layer(config, stride)
    layer.train()
    layer.frozen = True
    x = torch.randn(2, 4, 9, requires_grad=True)
    mean, var, eps = layer.norm.running_mean.double(), layer.norm.running_var.double(), layer.norm.eps

    def naive_outputs(x, weight, scale, shift):
        padded = nn.functional.pad(x, (4 - (stride - 1), 0))
        y = nn.functional.conv1d(padded, weight, stride=stride, dilation=2)
        y = nn.functional.batch_norm(y, mean, var, scale, shift, False, 0.0, eps)
        y = y + x[:, :, stride - 1 :: stride]
        return y.relu() if activation == "relu" else y

    arguments = [x, *(layer.get_parameter(name) for name in PARAMETERS)]
    doubles = [argument.detach().double().requires_grad_() for argument in arguments]
    outputs = layer(x)
    np.testing.assert_allclose(outputs.detach(), naive_outputs(*doubles).detach(), atol=1e-5)
    assert torch.autograd.gradcheck(naive_outputs, doubles)
    upstream = torch.randn_like(outputs)
    gradients = torch.autograd.grad(outputs, arguments, upstream)
    for index, (gradient, double) in enumerate(zip(gradients, doubles, strict=True)):
        flat, width = double.detach().reshape(-1), 1e-6
        wanted = torch.zeros_like(flat)
        for place in range(len(flat)):
            moved = [flat.clone(), flat.clone()]
            moved[0][place] -= width
            moved[1][place] += width
            low, high = (
                (naive_outputs(*doubles[:index], one.reshape(double.shape), *doubles[index + 1 :]) * upstream).sum()
                for one in moved
            )
            wanted[place] = (high - low).detach() / (2 * width)
        np.testing.assert_allclose(gradient.reshape(-1), wanted, atol=1e-5 * float(wanted.abs().max()))


@pytest.mark.parametrize("mode", ["training", "frozen"])
def test_quantized_gradients_are_those_of_a_plain_layer_at_the_quantized_values(mode):
    """Straight through: the convolution sees weights and inputs as quantized, and passes gradients to the real ones."""
    layer = make_layer(LayerConfig(6, 5, taps=3, weight_bits=3, activation_bits=4), 2)
    layer.train()
    layer.frozen = mode == "frozen"
    norm = layer.norm
    x = torch.randn(2, 6, 11, requires_grad=True)
    outputs = layer(x)
    upstream = torch.randn_like(outputs)
    gradients = torch.autograd.grad(outputs, [x, layer.conv.weight, norm.weight, norm.bias], upstream)

    inner_x = fake_quantize(x.detach(), 4, 1).requires_grad_()
    scale = norm.weight.detach() / torch.sqrt(norm.running_var + norm.eps)
    weights = layer.conv.weight.detach()
    inner_weights = fake_quantize_weights(weights * scale[:, None, None] if layer.frozen else weights, 3)
    inner_weights.requires_grad_()
    y = nn.functional.conv1d(nn.functional.pad(inner_x, (1, 0)), inner_weights, stride=2)
    if layer.frozen:
        bias = (norm.bias - scale * norm.running_mean).detach().requires_grad_()
        plain = torch.relu(y + bias[:, None])
        by_x, by_weights, by_bias = torch.autograd.grad(plain, [inner_x, inner_weights, bias], upstream)
        by_scale = (by_weights * weights).sum((1, 2)) - by_bias * norm.running_mean
        wanted = [
            by_x,
            by_weights * scale[:, None, None],
            by_scale / torch.sqrt(norm.running_var + norm.eps),
            by_bias,
        ]
    else:
        plain = torch.relu(nn.functional.batch_norm(y, None, None, norm.weight, norm.bias, True))
        wanted = torch.autograd.grad(plain, [inner_x, inner_weights, norm.weight, norm.bias], upstream)
    np.testing.assert_allclose(outputs.detach(), plain.detach(), atol=1e-5)
    for gradient, expected in zip(gradients, wanted, strict=True):
        np.testing.assert_allclose(gradient, expected, atol=2e-5 * float(expected.abs().max()))


@pytest.mark.parametrize(("weight_bits", "activation_bits"), [(8, 8), (4, 8), (2, 4)])
def test_training_computes_what_evaluation_does_where_the_statistics_are_the_batchs(weight_bits, activation_bits):
    """Columns quantized raw and normalized after, in training; folded first, and then quantized, in evaluation."""
    layer = make_layer(LayerConfig(10, 12, taps=3, weight_bits=weight_bits, activation_bits=activation_bits))
    x = torch.randn(3, 10, 40)
    with torch.no_grad():
        padded = nn.functional.pad(layer.quantize_input(x), (2, 0))
        y = nn.functional.conv1d(padded, layer.quantize_weights(layer.conv.weight))
        layer.norm.running_mean.copy_(y.mean((0, 2)))
        layer.norm.running_var.copy_(y.var((0, 2), unbiased=False))
        evaluated = layer.eval()(x)
        normalized = layer.train()(x)
        layer.quantizing = False
        in_full = layer.eval()(x)
    np.testing.assert_allclose(normalized, evaluated, atol=2e-5)
    assert float((in_full - evaluated).abs().max()) > 1e-3


def test_ranges_gradients_reach_the_inputs_and_the_weights_of_a_layer():
    layer = make_layer(LayerConfig(6, 5, taps=3, weight_bits=3, activation_bits=4), gradient="ranges").train()
    x = torch.randn(2, 6, 11, requires_grad=True)
    inputs, weights = layer.quantize_input(x), layer.quantize_weights(layer.conv.weight)
    for quantized, value, bits, dim in ((inputs, x, 4, 1), (weights, layer.conv.weight, 3, None)):
        upstream = torch.randn_like(quantized)
        (gradient,) = torch.autograd.grad(quantized, value, upstream)
        twin = value.detach().clone().requires_grad_()
        expected = (
            fake_quantize(twin, bits, dim, "ranges") if dim else fake_quantize_weights(twin, bits, gradient="ranges")
        )
        assert torch.equal(gradient, torch.autograd.grad(expected, twin, upstream)[0])
        assert not torch.equal(gradient, upstream)
