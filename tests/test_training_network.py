"""The torch network is the runtime's network."""

import functools
from dataclasses import asdict, replace
from typing import NamedTuple

import naive
import numpy as np
import pytest
import torch
from conftest import speechlike
from torch import nn
from torch.func import functional_call

from streamkws import kernels
from streamkws.errors import ConfigError
from streamkws.frontend import FrontEnd, FrontEndConfig
from streamkws.layers import LayerConfig
from streamkws.model import Model, ModelConfig
from streamkws.quantization import Quantized, quantize, quantize_columns
from streamkws.smoother import SmootherConfig
from streamkws.training.checkpoint import config_to_text, load_network
from streamkws.training.fake_quant import QuantizationConfig, StaticRange, fake_quantize, fake_quantize_weights
from streamkws.training.network import CausalLayer, KeywordNetwork

FRONT_END = FrontEndConfig(n_mels=12, window="hann", energy_floor=1e-9)
WIDTHS = {
    "w8a8": [(8, 8)] * 4,
    "w4a8": [(4, 8)] * 4,
    "w4a4": [(4, 4)] * 4,
    "w3a8": [(3, 8)] * 4,
    "w2a8": [(2, 8)] * 4,
    "mixed": [(8, 8), (2, 5), (4, 4), (3, 6)],
    "first and last float32": [(32, 32), (4, 8), (5, 7), (32, 32)],
}


def make_config(frame_stride=2, first_taps=5, widths=((32, 32),) * 4, activation="sigmoid"):
    layers = (
        LayerConfig(12, 16, taps=first_taps),
        LayerConfig(16, 16, taps=3, dilation=2, residual=True),
        LayerConfig(16, 10, taps=2, dilation=3, activation="linear"),
        LayerConfig(10, 2 + (activation == "softmax"), activation=activation),
    )
    return ModelConfig(
        keywords=("alexa", "smart mirror"),
        layers=tuple(
            replace(layer, weight_bits=weights, activation_bits=activations)
            for layer, (weights, activations) in zip(layers, widths, strict=True)
        ),
        frontend=FRONT_END,
        smoother=SmootherConfig(4, 2, 30),
        frame_stride=frame_stride,
        durations_s={"alexa": 0.6},
        provenance={"name": "x"},
    )


def trained(config, n_auxiliary=3, seed=0, quantization=None):
    """A network whose batch normalization has seen data, in eval mode."""
    torch.manual_seed(seed)
    network = KeywordNetwork(config, n_auxiliary, quantization)
    n_mels = config.frontend.n_mels
    network.set_features(np.full(n_mels, -3, np.float32), np.full(n_mels, 0.4, np.float32))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
        for layer in network.causal_layers[:-1]:
            layer.norm.weight[::3] *= -1  # these columns are mirrored when folded
        for _ in range(20):
            network(torch.randn(4, 60, n_mels) * 2 - 3)
    return network.eval()


@pytest.fixture
def speech():
    return make_speech()


@functools.cache
def make_speech():
    """(198, 12) float32 log-mel, with the mean and scale that the networks of trained() have seen."""
    features = FrontEnd(FRONT_END).push(speechlike(32000))
    return ((features - features.mean()) / features.std() * 2 - 3).astype(np.float32)


@pytest.mark.parametrize(("frame_stride", "first_taps"), [(1, 5), (2, 5), (3, 4), (2, 1)])
def test_the_folded_network_runs_the_same_in_the_runtime(frame_stride, first_taps):
    config = make_config(frame_stride, first_taps)
    network = trained(config)
    features = (np.random.default_rng(1).standard_normal((101, 12)) * 2 - 3).astype(np.float32)
    with torch.no_grad():
        wanted = torch.sigmoid(network(torch.from_numpy(features)[None])[0, :, :2]).numpy()
    heard = Model.from_float(config, network.to_float_weights()).new_state().push(features)
    assert wanted.shape == heard.shape == (101 // frame_stride, 2)
    assert wanted.std() > 0.05
    np.testing.assert_allclose(heard, wanted, atol=1e-4)


ROUNDING = 2e-6
"""What float32 sums may differ by, relative to rounding_scale: a few times 2^-24, since the parts of equation (4) are
at most a few times as large and are added in another order than the convolution's."""


def rounding_scale(layer, x, steps):
    """(S, 1): a bound on the sum of absolute products in the layer's outputs at each step; errors are in proportion.

    x: (T, I) the layer's input vectors.
    """
    weights = layer.weights.dequantize() if isinstance(layer.weights, Quantized) else layer.weights
    loud = np.abs(x).max(axis=1)
    reach = (layer.config.taps - 1) * layer.config.dilation
    peaks = np.array([loud[max(0, t - reach) : t + 1].max() for t in steps])
    return np.abs(weights).sum(axis=(1, 2)).max() * peaks[:, None] + np.abs(layer.bias).max()


def layer_steps(config, index, n_frames):
    """The frames at which a layer gives an output vector."""
    return range(config.frame_stride - 1, n_frames, config.frame_stride) if index == 0 else range(n_frames)


CASES = [
    pytest.param(name, stride, activation, n_auxiliary, id=f"{name}-{stride}-{activation}-{n_auxiliary}")
    for index, name in enumerate(WIDTHS)
    for stride, activation, n_auxiliary in [
        (1 + index % 3, "sigmoid", 3 * (index % 2)),
        (1 + (index + 1) % 3, "softmax", 3 - 3 * (index % 2)),
    ]
]


@pytest.mark.parametrize(("name", "frame_stride", "activation", "n_auxiliary"), CASES)
def test_every_layer_computes_equation_4(name, frame_stride, activation, n_auxiliary, speech):
    network = trained(make_config(frame_stride, widths=WIDTHS[name], activation=activation), n_auxiliary)
    model = network.to_model()
    x = (speech - model.features[0]) * model.features[1]
    for index, (layer, twin) in enumerate(zip(model.layers, network.causal_layers, strict=True)):
        steps = layer_steps(model.config, index, len(x))
        expected = np.array(naive.run_layer(layer, list(x), steps))
        with torch.no_grad():
            outputs = twin(torch.from_numpy(x.T.copy())[None])[0, : layer.config.n_outputs].numpy().T
        assert outputs.shape == expected.shape
        assert (np.abs(outputs - expected) <= ROUNDING * rounding_scale(layer, x, steps)).all()
        x = expected


def runtime_outputs(model, features):
    """Each layer's output vectors, (S, O), before any sigmoid or softmax, from the runtime's kernels."""
    state = model.new_state().state
    outputs = [[] for _ in model.layers]
    for t, frame in enumerate(features, 1):
        kernels.push_features(model.network, state, frame)
        if t % model.config.frame_stride:
            continue
        for index, layer in enumerate(model.layers):
            if index > 0:
                kernels.push_vector(model.network, state, index)
            kernels.run_layer(model.network, state, index)
            outputs[index].append(state.values[: layer.config.n_outputs].copy())
    return [np.array(vectors) for vectors in outputs]


def torch_outputs(network, features):
    """Each layer's output vectors, (S, O), and the posteriors of one call of the network."""
    outputs = []

    def keep(layer, inputs, output):
        del inputs
        outputs.append(output[0, : layer.config.n_outputs].numpy().T.copy())

    hooks = [layer.register_forward_hook(keep) for layer in network.causal_layers]
    posteriors = network.posteriors(features)
    for hook in hooks:
        hook.remove()
    return outputs, posteriors


class Comparison(NamedTuple):
    """untouched, touched: largest difference of the posteriors of such steps. share_untouched: of the steps.
    flipped: share of the codes that differ, of those that could have been the same.
    """

    untouched: float
    touched: float
    share_untouched: float
    flipped: float


def compare(network, features):
    """Hold the network to the runtime code by code: every difference must begin with a code that was half-way.

    Both round the same sums in another order. Where all codes that a vector depends on are the same, the vector must
    agree to ROUNDING; one of its codes may then still differ, by one, where its value is as near the middle between two
    codes as that. All that depends on such a code is set apart as touched.
    """
    model = network.to_model()
    heard = model.new_state().push(features)
    ours, posteriors = torch_outputs(network, features)
    theirs = runtime_outputs(model, features)
    assert posteriors.shape == heard.shape and np.isfinite(posteriors).all()
    x = (features - model.features[0]) * model.features[1]
    same, n_flipped, n_codes = np.ones(len(x), bool), 0, 0
    for index, layer in enumerate(model.layers):
        c = layer.config
        steps = layer_steps(model.config, index, len(x))
        same = np.array([all(same[t - k * c.dilation] for k in range(c.taps) if t >= k * c.dilation) for t in steps])
        allowed = ROUNDING * (index + 1) * rounding_scale(layer, x, steps)  # the ranges of its inputs differ as well
        a, b = ours[index], theirs[index]
        assert (np.abs(a - b) <= allowed)[same].all()
        following = model.layers[min(index + 1, len(model.layers) - 1)].config
        if not following.is_float:
            mine, its = (quantize(vectors, following.activation_bits) for vectors in (a, b))
            flipped = (mine.codes != its.codes) & same[:, None]
            assert (np.abs(mine.codes.astype(int) - its.codes)[flipped] == 1).all()
            steps_of = np.where(its.step > 0, its.step, 1).astype(np.float64)[:, None]
            places = (b.astype(np.float64) - its.lo[:, None]) / steps_of
            from_half = np.abs(places - np.floor(places) - 0.5)
            assert (from_half <= 3 * allowed / steps_of)[flipped].all()  # the value, lo and step may each differ
            n_flipped, n_codes = n_flipped + flipped.sum(), n_codes + same.sum() * flipped.shape[1]
            same = same & ~flipped.any(axis=1)
        x = b
    difference = np.abs(posteriors - heard).max(axis=1)
    return Comparison(
        difference[same].max(initial=0),
        difference[~same].max(initial=0),
        same.mean(),
        n_flipped / max(n_codes, 1),
    )


@functools.cache
def compared(name):
    """For each of a few networks of a width: what compare measures, and the largest effect of quantization itself."""
    features = make_speech()
    measured = []
    for seed in range(4):
        activation, n_auxiliary = ("sigmoid", 3) if seed % 2 else ("softmax", 0)
        network = trained(make_config(1 + seed % 3, widths=WIDTHS[name], activation=activation), n_auxiliary, seed)
        comparison = compare(network, features)
        quantized = network.to_model().new_state().push(features)
        full = Model.from_float(network.config, network.to_float_weights()).new_state().push(features)
        measured.append((comparison, np.abs(quantized - full).max(), quantized.std()))
    return measured


@pytest.mark.parametrize("name", WIDTHS)
def test_posteriors_are_the_runtimes_up_to_codes_that_were_half_way(name):
    largest_effect = max(effect for _, effect, _ in compared(name))
    assert largest_effect > 0.005
    for comparison, _, spread in compared(name):
        assert spread > 0.03
        assert comparison.untouched <= 2e-5
        # A touched code is one rounding error turned round, where quantization makes one in every code.
        assert comparison.touched <= 0.5 * largest_effect
        assert comparison.flipped <= 2e-3


def test_nearly_all_steps_agree_with_the_runtime_to_rounding():
    """Of all these networks together; a single one may be touched more, since a flipped code is heard for long."""
    comparisons = [comparison for name in WIDTHS for comparison, _, _ in compared(name)]
    assert np.mean([comparison.share_untouched for comparison in comparisons]) >= 0.98
    assert min(comparison.share_untouched for comparison in comparisons) >= 0.85


def unusual_features():
    rng = np.random.default_rng(0)
    return {
        "constant": np.full((40, 12), -5.3, np.float32),
        "zero after normalization": np.full((40, 12), -3, np.float32),
        "tiny differences": np.nextafter(np.full((40, 12), -3, np.float32), rng.choice([-9, 9], (40, 12)).astype("f")),
        "subnormal": (1e-42 * rng.standard_normal((40, 12))).astype(np.float32),
        "huge": (1e30 * rng.standard_normal((40, 12))).astype(np.float32),
        "digital silence": FrontEnd(FRONT_END).push(np.zeros(8000, np.int16)),
        "silence, then a click": FrontEnd(FRONT_END).push(np.eye(1, 8000, 4000, dtype=np.float32)[0]),
    }


@pytest.mark.parametrize("name", ["w8a8", "w4a4", "mixed"])
@pytest.mark.parametrize("kind", unusual_features())
def test_unusual_features_give_the_runtimes_posteriors_too(kind, name):
    shares = []
    for seed in range(3):
        network = trained(make_config(1 + seed, widths=WIDTHS[name]), seed, seed)
        if kind in ("subnormal", "huge"):
            network.set_features(np.zeros(12, np.float32), np.ones(12, np.float32))
        comparison = compare(network, unusual_features()[kind])
        assert comparison.untouched <= 2e-5
        assert comparison.touched <= 0.05
        shares.append(comparison.share_untouched)
    assert max(shares) > 0.8  # where all frames are the same, one code is enough to touch all


@pytest.mark.parametrize("frame_stride", [1, 2, 3])
@pytest.mark.parametrize("first", [{"residual": True}, {"residual": True, "taps": 3, "dilation": 2}, {}])
def test_short_and_residual_first_layers_give_the_runtimes_posteriors(first, frame_stride, speech):
    quantized = {"weight_bits": 4, "activation_bits": 8}
    last = LayerConfig(12, 2, taps=3, activation="sigmoid", **quantized)
    layers = (LayerConfig(12, 12, **first, **quantized), last) if first else (last,)
    network = trained(replace(make_config(frame_stride), layers=layers), seed=frame_stride)
    comparison = compare(network, speech)
    assert comparison.untouched <= 2e-5
    assert comparison.touched <= 0.05
    assert comparison.share_untouched > 0.8
    for n_frames in (frame_stride, 7, 8, 9):
        assert compare(network, speech[:n_frames]).untouched <= 2e-5


def quantizing_network(name="w4a8", n_auxiliary=3, **settings):
    return trained(make_config(widths=WIDTHS[name]), n_auxiliary, quantization=QuantizationConfig(**settings))


@pytest.mark.parametrize("weight_ranges", ["column", "matrix"])
@pytest.mark.parametrize("name", ["w4a8", "mixed", "first and last float32"])
def test_the_model_of_weights_with_either_range_is_the_networks(name, weight_ranges, speech):
    network = quantizing_network(name, weight_ranges=weight_ranges)
    if weight_ranges == "matrix":
        for layer in network.to_model().layers:
            if isinstance(layer.weights, Quantized):
                assert len(set(layer.weights.lo.tolist())) == len(set(layer.weights.step.tolist())) == 1
    assert compare(network, speech).untouched <= 2e-5


@pytest.mark.parametrize("weight_ranges", ["column", "matrix"])
@pytest.mark.parametrize("name", ["w4a8", "mixed", "first and last float32"])
def test_frozen_training_is_evaluation_exactly(name, weight_ranges, speech):
    network = quantizing_network(name, weight_ranges=weight_ranges)
    features = torch.from_numpy(speech)[None]
    with torch.no_grad():
        evaluated = network(features)
    network.train()
    network.freeze()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    frozen = network(features)
    assert frozen.requires_grad
    assert torch.equal(frozen, evaluated)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_matrix_ranges_are_frozen_from_the_start_since_only_columns_keep_their_codes():
    frozen = {
        (ranges, name): [layer.frozen for layer in quantizing_network(name, weight_ranges=ranges).causal_layers]
        for ranges in ("column", "matrix")
        for name in ("w4a8", "first and last float32")
    }
    assert not any(frozen["column", "w4a8"] + frozen["column", "first and last float32"])
    assert all(frozen["matrix", "w4a8"] + frozen["matrix", "first and last float32"])
    in_float = KeywordNetwork(make_config(), quantization=QuantizationConfig(weight_ranges="matrix"))
    assert not any(layer.frozen for layer in in_float.causal_layers)


def test_statistics_change_in_training_until_they_are_frozen(speech):
    network = quantizing_network().train()
    features = torch.from_numpy(speech)[None]

    def statistics():
        return {key: value.clone() for key, value in network.state_dict().items() if "running" in key or "num" in key}

    before = statistics()
    network(features)
    assert len(before) == 9 and all(not torch.equal(value, before[key]) for key, value in statistics().items())
    network.freeze()
    before = statistics()
    network(features).sum().backward()
    assert all(torch.equal(value, before[key]) for key, value in statistics().items())
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("mode", ["eval", "train", "frozen"])
def test_without_quantizing_the_outputs_are_the_float32_networks(mode, speech):
    quantized = quantizing_network()
    plain = KeywordNetwork(make_config(), 3)
    plain.load_state_dict(quantized.state_dict())
    features = torch.from_numpy(speech)[None]
    for network in (quantized, plain):
        network.train(mode != "eval")
        if mode == "frozen":
            network.freeze()
    assert not torch.equal(quantized(features), plain(features))
    plain.load_state_dict(quantized.state_dict())
    quantized.quantize(False)
    assert torch.equal(quantized(features), plain(features))
    quantized.quantize(True)
    assert not torch.equal(quantized(features), plain(features))
    plain.quantize(True)  # it has no bits to quantize to
    assert not any(layer.quantizing for layer in plain.causal_layers)


@pytest.mark.parametrize("name", ["w4a8", "mixed", "first and last float32"])
@pytest.mark.parametrize("weight_ranges", ["column", "matrix"])
def test_exported_weights_are_the_ones_evaluation_computes_with_bit_for_bit(name, weight_ranges, speech, monkeypatch):
    used = []
    convolve = CausalLayer._convolve

    def recorded(self, x, weight, bias):
        n_outputs = self.config.n_outputs  # without auxiliary ones
        used.append((weight[:n_outputs].detach().permute(0, 2, 1).numpy(), bias[:n_outputs].detach().numpy()))
        return convolve(self, x, weight, bias)

    network = quantizing_network(name, weight_ranges=weight_ranges)
    monkeypatch.setattr(CausalLayer, "_convolve", recorded)
    exported = network.to_float_weights()
    assert np.array_equal(exported.feature_mean, network.feature_mean.numpy())
    assert np.array_equal(exported.feature_scale, network.feature_scale.numpy())
    for quantizing in (False, True):
        network.quantize(quantizing)
        used.clear()
        network.posteriors(speech)
        for layer, (weights, biases), weight, bias in zip(
            network.config.layers, used, exported.weights, exported.biases, strict=True
        ):
            if quantizing and not layer.is_float:
                weight = quantize_columns(weight, layer.weight_bits, weight_ranges).dequantize()
            assert np.array_equal(weights, weight)
            assert np.array_equal(biases, bias)
    for layer, weight, bias in zip(network.to_model().layers, exported.weights, exported.biases, strict=True):
        if isinstance(layer.weights, Quantized):
            weight = quantize_columns(weight, layer.config.weight_bits, weight_ranges).dequantize()
            assert np.array_equal(layer.weights.dequantize(), weight)
        else:
            assert np.array_equal(layer.weights, weight)
        assert np.array_equal(layer.bias, bias)


def test_auxiliary_outputs_do_not_change_how_the_keywords_are_quantized(speech):
    with_auxiliary = quantizing_network(weight_ranges="matrix")
    without = KeywordNetwork(with_auxiliary.config, 0, with_auxiliary.quantization).eval()
    state = with_auxiliary.state_dict()
    with torch.no_grad():
        for name in ("layers.3.conv.weight", "layers.3.conv.bias"):
            state[name][2:] *= 50
    without.load_state_dict({key: value[:2] if key.startswith("layers.3.") else value for key, value in state.items()})
    np.testing.assert_allclose(with_auxiliary.posteriors(speech), without.posteriors(speech), atol=1e-6)


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


def calibrated(name="w4a8", seed=0):
    network = trained(
        make_config(widths=WIDTHS[name]), seed=seed, quantization=QuantizationConfig(activation_ranges="static")
    )
    network.calibrate(torch.from_numpy(np.stack([make_speech()[:96], make_speech()[96:192]])))
    return network


def test_calibration_leaves_weights_and_statistics_alone(speech):
    network = trained(make_config(widths=WIDTHS["w4a8"]))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    model = network.to_model().new_state().push(speech)
    dynamic = network.posteriors(speech)
    network.calibrate(torch.from_numpy(speech)[None])
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert all(layer.quantizing for layer in network.causal_layers)
    assert np.array_equal(network.to_model().new_state().push(speech), model)  # the runtime has ranges per frame
    static = network.posteriors(speech)
    assert not np.array_equal(static, dynamic)
    full = Model.from_float(network.config, network.to_float_weights()).new_state().push(speech)
    assert 0 < np.abs(static - full).mean() < 0.1


def test_static_ranges_come_from_what_passes_in_full_precision():
    network = calibrated()
    features = torch.from_numpy(np.stack([make_speech()[:96], make_speech()[96:192]]))
    seen = []
    hooks = [
        layer.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0])) for layer in network.causal_layers
    ]
    network.quantize(False)
    with torch.no_grad():
        outputs = network(features)
    for hook in hooks:
        hook.remove()
    for layer, x in zip(network.causal_layers, seen, strict=True):
        assert layer.input_range == StaticRange.calibrated(x, 8)
    assert network.output_range == StaticRange.calibrated(outputs[:, :, :2], 8)  # the keywords', not the auxiliary ones


def test_layers_in_float32_have_no_static_range():
    network = calibrated("first and last float32")
    assert [layer.input_range is None for layer in network.causal_layers] == [True, False, False, True]
    assert network.output_range is None
    assert [layer.quantizing for layer in network.causal_layers] == [False, True, True, False]


def test_static_ranges_are_the_same_for_all_frames():
    network = calibrated()
    quiet, loud = torch.randn(1, 12, 7), 3 * torch.randn(1, 12, 7)
    layer = network.causal_layers[0]
    alone = layer.quantize_input(quiet)
    together = layer.quantize_input(torch.cat([loud, quiet], 2))[:, :, 7:]
    assert torch.equal(alone, together)
    static = layer.input_range
    for frames in (quiet, loud):
        grid = torch.arange(256) * static.step + static.lo
        values = layer.quantize_input(frames)
        assert (values[..., None] - grid).abs().amin(-1).max() < 1e-5
        assert torch.allclose(values, frames.clamp(grid[0], grid[-1]), atol=static.step * 0.501)
    moved = layer.quantize_input(0.5 * quiet)
    assert not torch.allclose(moved, 0.5 * alone, atol=1e-6)  # as frame-wise ranges would give
    layer.input_range = None
    assert torch.allclose(layer.quantize_input(0.5 * quiet), 0.5 * layer.quantize_input(quiet), atol=1e-6)


@pytest.mark.parametrize("weight_ranges", ["column", "matrix"])
def test_a_checkpoint_is_loaded_as_the_network_it_was(weight_ranges, tmp_path, speech):
    network = quantizing_network("mixed", weight_ranges=weight_ranges, gradient="ranges")
    entries = {
        "model_config": config_to_text(network.config),
        "n_auxiliary": 3,
        "quantization": asdict(network.quantization),
        "average": network.state_dict(),
    }
    torch.save(entries, tmp_path / "checkpoint.pt")
    loaded = load_network(tmp_path / "checkpoint.pt")
    assert loaded.quantization == network.quantization and not loaded.training
    assert np.array_equal(loaded.posteriors(speech), network.posteriors(speech))
    heard = [one.to_model().new_state().push(speech) for one in (loaded, network)]
    assert np.array_equal(*heard)
    full = KeywordNetwork(make_config(), 3)
    full.load_state_dict(network.state_dict())
    torch.save({**entries, "model_config": config_to_text(full.config), "quantization": None}, tmp_path / "full.pt")
    assert np.array_equal(load_network(tmp_path / "full.pt").posteriors(speech), full.eval().posteriors(speech))


LABELS = ("left", "right", "up")  # and, last, none of them
PATTERNS = np.random.default_rng(9).standard_normal((4, 16, 12))
INTERFERENCE = 5 * np.random.default_rng(10).standard_normal((3, 12))


def patterned(rng, n):
    """n examples: (n, 16, 12) float32 features and (n,) classes.

    Each class is a sequence of frames, heard under interference five times as strong. It lies in three directions of
    the feature space, to which weights must be orthogonal: easy to learn, and easily lost when weights are rounded.
    """
    classes = rng.integers(0, 4, n)
    interference = rng.standard_normal((n, 16, 3)) @ INTERFERENCE
    features = PATTERNS[classes] + 0.5 * rng.standard_normal((n, 16, 12)) + interference
    return features.astype(np.float32), classes


def pattern_network(seed, weight_bits=32, activation_bits=32, gradient="identity"):
    widths = {"weight_bits": weight_bits, "activation_bits": activation_bits}
    layers = (
        LayerConfig(12, 24, taps=4, **widths),
        LayerConfig(24, 24, taps=3, dilation=3, **widths),
        LayerConfig(24, 4, activation="softmax", **widths),
    )
    torch.manual_seed(seed)
    config = ModelConfig(LABELS, layers, FRONT_END)
    return KeywordNetwork(config, quantization=QuantizationConfig(gradient=gradient))


def learn_patterns(network, seed, freeze_step, n_steps=200):
    """Train on fresh examples; the statistics are frozen from a step on."""
    rng, optimizer = np.random.default_rng(seed), torch.optim.Adam(network.parameters())
    network.train()
    for step in range(n_steps):
        if step == freeze_step:
            network.freeze()
        features, classes = patterned(rng, 64)
        optimizer.param_groups[0]["lr"] = 1e-2 * min(1, 2 * (n_steps - step) / n_steps)
        loss = nn.functional.cross_entropy(network(torch.from_numpy(features))[:, -1], torch.from_numpy(classes))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


def runtime_accuracy(model):
    """The share of fresh examples whose class has the highest posterior at the last frame, in the runtime."""
    features, classes = patterned(np.random.default_rng(1234), 500)
    state, n_right = model.new_state(), 0
    for frames, wanted in zip(features, classes, strict=True):
        state.reset()
        posteriors = state.push(frames)[-1]
        n_right += int(np.argmax([*posteriors, 1 - posteriors.sum()])) == wanted
    return n_right / len(classes)


@pytest.fixture(scope="module")
def full_precision():
    """A network that has learned the patterns in float32, and its accuracy with 2-bit weights put on afterwards."""
    network = learn_patterns(pattern_network(0), 0, freeze_step=None)
    assert runtime_accuracy(network.to_model()) >= 0.99
    return network, runtime_accuracy(network.to_model().quantize(2, 8))


@pytest.mark.parametrize(
    ("start", "gradient"), [("scratch", "identity"), ("full precision", "identity"), ("full precision", "ranges")]
)
def test_training_with_2_bit_weights_learns_what_rounding_afterwards_loses(start, gradient, full_precision):
    """Over 17 seeds: at least 99.2 % trained so, at most 86.6 % rounded afterwards, always 100 % in float32."""
    full, accuracy_after = full_precision
    network = pattern_network(1, 2, 8, gradient)
    if start == "scratch":
        learn_patterns(network, 1, freeze_step=100)
    else:
        network.load_state_dict(full.state_dict())
        learn_patterns(network, 1, freeze_step=0, n_steps=300)
    accuracy = runtime_accuracy(network.to_model())
    assert accuracy >= 0.97
    assert accuracy_after <= accuracy - 0.08


def test_float_weights_have_the_runtimes_shapes():
    weights = trained(make_config()).to_float_weights()
    assert [w.shape for w in weights.weights] == [(16, 5, 12), (16, 3, 16), (10, 2, 16), (2, 1, 10)]
    assert [b.shape for b in weights.biases] == [(16,), (16,), (10,), (2,)]
    assert all(array.dtype == np.float32 for array in (*weights.weights, *weights.biases, weights.feature_mean))


def test_it_is_causal():
    network = trained(make_config())
    features = torch.randn(1, 80, 12)
    changed = features.clone()
    changed[:, 41:] += 5
    with torch.no_grad():
        difference = (network(features) - network(changed)).abs().amax((0, 2))
    assert difference[:20].max() == 0 and difference[20] > 0  # step 20 ends with frame 41


def test_a_network_that_cannot_be_trained():
    layers = (LayerConfig(12, 2, taps=2), LayerConfig(2, 2, activation="sigmoid", residual=True))
    with pytest.raises(ConfigError, match="expected a last layer that is not residual"):
        KeywordNetwork(ModelConfig(("a", "b"), layers, FrontEndConfig(n_mels=12)))


def test_too_few_frames_for_a_step_give_no_posteriors():
    network = trained(make_config(frame_stride=3))
    assert network.posteriors(np.zeros((2, 12), np.float32)).shape == (0, 2)
    assert network.to_model().new_state().push(np.zeros((2, 12), np.float32)).shape == (0, 2)


def test_calibrating_leaves_the_statistics_of_a_training_network_alone(speech):
    network = trained(make_config(widths=WIDTHS["w4a8"]), quantization=QuantizationConfig(activation_ranges="static"))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.train()
    network.calibrate(torch.from_numpy(speech)[None])
    assert not network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
