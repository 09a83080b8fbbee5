"""The torch network is the runtime's network."""

import functools
from dataclasses import asdict, replace
from typing import NamedTuple

import naive
import numpy as np
import pytest
import torch
from networks import FRONT_END, WIDTHS, make_config, make_speech, quantizing_network, trained

from streamkws.errors import ConfigError
from streamkws.frontend import FrontEnd, FrontEndConfig
from streamkws.kernels.network import push_features, push_vector, run_layer
from streamkws.layers import LayerConfig
from streamkws.model import Model, ModelConfig
from streamkws.quantization import Quantized, quantize, quantize_columns
from streamkws.training.checkpoint import config_to_text, load_network
from streamkws.training.fake_quant import QuantizationConfig
from streamkws.training.network import CausalLayer, KeywordNetwork


@pytest.fixture
def speech():
    return make_speech()


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
        push_features(model.network, state, frame)
        if t % model.config.frame_stride:
            continue
        for index, layer in enumerate(model.layers):
            if index > 0:
                push_vector(model.network, state, index)
            run_layer(model.network, state, index)
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
