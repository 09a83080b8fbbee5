from dataclasses import replace

import naive
import numpy as np
import pytest
from conftest import KEYWORDS, random_model, speechlike

from streamkws import ConfigError, FloatWeights, FrontEndConfig, LayerConfig, Model, ModelConfig

PAPER = (LayerConfig(20, 32, taps=20), LayerConfig(32, 32), LayerConfig(32, 4, activation="softmax"))
WIDTHS = [(8, 8), (4, 8), (4, 4), (2, 8), (3, 8), (5, 6), (6, 5), (8, 2)]


@pytest.fixture(scope="module")
def frames():
    return random_model().new_front_end().push(speechlike(12000))


@pytest.mark.parametrize("widths", [None, *WIDTHS])
@pytest.mark.parametrize("network", ["dilated", "paper"])
def test_posteriors_equal_the_naive_network(network, widths, frames):
    if network == "dilated":
        model = random_model()
    else:
        model = random_model(layers=PAPER, activation="softmax", frame_stride=1)
    if widths:
        model = model.quantize(*widths)
    expected = naive.network(model, frames)
    result = model.new_state().push(frames)
    assert result.shape == expected.shape == (len(frames) // model.config.frame_stride, 3)
    # A code that falls on the other side of a tie moves an output by a step; such frames are rare.
    close = np.abs(result - expected).max(axis=1) < 1e-4
    assert close.mean() > (0.97 if widths is None or min(widths) > 4 else 0.9)
    assert np.abs(result - expected).max() < 0.2


def test_a_float_model_equals_the_naive_network_on_every_frame(frames):
    model = random_model()
    np.testing.assert_allclose(model.new_state().push(frames), naive.network(model, frames), atol=2e-5)


def test_layers_of_different_widths_work_together(frames):
    model = random_model()
    widths = [(8, 8), (4, 8), (4, 4), (8, 8)]
    configs = tuple(
        replace(layer.config, weight_bits=w, activation_bits=a)
        for layer, (w, a) in zip(model.layers, widths, strict=True)
    )
    layers = tuple(layer.quantize(c) for layer, c in zip(model.layers, configs, strict=True))
    mixed = Model(replace(model.config, layers=configs), layers, model.features, model.filters)
    assert mixed.config.bits == "w8a8+w4a8+w4a4"
    close = np.abs(mixed.new_state().push(frames) - naive.network(mixed, frames)).max(axis=1) < 1e-4
    assert close.mean() > 0.95


def test_sums_of_weight_codes_beyond_16_bits(frames):
    layers = (
        LayerConfig(20, 300, taps=2),
        LayerConfig(300, 6, activation="linear"),
        LayerConfig(6, 3, activation="sigmoid"),
    )
    model = random_model(layers=layers).quantize(8, 8)
    assert [bool(narrow) for narrow in model.network.layers.narrow_sums] == [True, False, True]
    assert model.network.weight_sums.size == 6 and model.network.weight_sums.max() > 2**15
    close = np.abs(model.new_state().push(frames) - naive.network(model, frames)).max(axis=1) < 1e-4
    assert close.mean() > 0.97


def test_more_bits_are_closer_to_float(frames):
    model = random_model()
    exact = model.new_state().push(frames)
    errors = [np.abs(model.quantize(b, 8).new_state().push(frames) - exact).mean() for b in (2, 4, 8)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.02


@pytest.mark.parametrize("model", [random_model(), random_model().quantize(4, 8)], ids=["f32", "w4a8"])
def test_any_cut_of_the_frames_gives_the_same_posteriors_bit_for_bit(model, frames):
    whole = model.new_state().push(frames)
    for lengths in ([1] * len(frames), [7, 0, 13, 2, 100], [3] * 30):
        state, parts, start = model.new_state(), [], 0
        for length in [*lengths, len(frames)]:
            parts.append(state.push(frames[start : start + length]))
            start += length
        assert np.array_equal(np.concatenate(parts), whole)


def test_reset_equals_a_new_state(model, frames):
    state = model.new_state()
    state.push(frames[:31])
    state.reset()
    assert np.array_equal(state.push(frames), model.new_state().push(frames))


def test_silence_and_constant_input_have_defined_posteriors(model):
    quiet = model.new_front_end().push(np.zeros(8000, np.int16))
    assert np.isfinite(model.new_state().push(quiet)).all()
    assert np.isfinite(model.new_state().push(np.full((50, 20), -8.0))).all()


def test_sizes_are_counted():
    model = random_model()
    quantized = model.quantize(4, 8)
    n_weights = 24 * 5 * 20 + 2 * 24 * 3 * 24 + 3 * 24
    n_outputs = 3 * 24 + 3
    assert model.n_parameters == n_weights + n_outputs
    assert model.float_bytes == model.stored_bytes == 4 * model.n_parameters
    assert quantized.stored_bytes == n_weights // 2 + 12 * n_outputs
    assert quantized.name == "random.w4a8"
    assert model.name == "random.f32"


def relative_rms(values, stored):
    return np.linalg.norm((stored - values).ravel()) / np.linalg.norm(values.ravel())


def test_quantizing_records_what_it_changed():
    model = random_model()
    quantized = model.quantize([8, 4, 32, 2], [8, 8, 32, 8])
    assert len(quantized.config.weight_errors) == len(model.layers)
    for before, after, errors in zip(model.layers, quantized.layers, quantized.config.weight_errors, strict=True):
        values = before.weights.astype(np.float64)
        stored = after.weights if after.config.is_float else after.weights.dequantize()
        columns = [relative_rms(v, s) for v, s in zip(values, stored, strict=True)]
        assert errors == pytest.approx((relative_rms(values, stored), max(columns)), abs=1e-6)
        assert errors == tuple(round(error, 6) for error in errors)
    assert quantized.config.weight_errors[2] == (0, 0)
    assert quantized.with_settings(thresholds={}).config.weight_errors == quantized.config.weight_errors


def test_a_float_model_records_no_errors():
    model = random_model()
    assert model.config.is_float and model.config.weight_errors == ()
    unchanged = model.quantize(32, 32).config
    assert unchanged.is_float and unchanged == model.config
    quantized = model.quantize(4, 8).config
    assert not quantized.is_float and not model.quantize([4, 32, 32, 32], [8, 32, 32, 32]).config.is_float
    weights = FloatWeights(*model.features, *zip(*((layer.weights, layer.bias) for layer in model.layers), strict=True))
    assert Model.from_float(quantized, weights).config == model.config


def test_constant_arrays_cannot_be_written(model):
    for array in model.network:
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def config(**changes):
    settings = {
        "keywords": ("a",),
        "layers": (LayerConfig(20, 1, activation="sigmoid"),),
        "frontend": FrontEndConfig(n_mels=20),
    }
    return ModelConfig(**{**settings, **changes})


def mismatched(model):
    return Model(model.config, model.quantize(4, 8).layers, model.features, model.filters)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: LayerConfig(0, 5), "expected 1 to 33000 inputs and outputs in a layer, got 0 and 5"),
        (lambda: LayerConfig(5, 5, taps=0), "expected taps and dilation of at least 1, got 0 and 1"),
        (lambda: LayerConfig(5, 5, activation="tanh"), "expected an activation of linear, relu, sigmoid, softmax"),
        (lambda: LayerConfig(5, 6, residual=True), "expected as many outputs as inputs in a residual layer, got 6"),
        (lambda: LayerConfig(5, 5, weight_bits=9, activation_bits=8), "expected weight_bits of 2 to 8 or 32, got 9"),
        (lambda: LayerConfig(5, 5, weight_bits=8, activation_bits=1), "expected activation_bits of 2 to 8 or 32"),
        (lambda: LayerConfig(5, 5, weight_bits=8), "expected weights and activations both in float32 or both quantize"),
        (lambda: config(keywords=()), "expected at least one keyword and no name twice"),
        (lambda: config(keywords=("a", "a")), "expected at least one keyword and no name twice"),
        (lambda: config(frame_stride=0), "expected frame_stride of 1 to 1000, got 0"),
        (lambda: config(layers=()), "expected at least one layer, got none"),
        (lambda: config(layers=(LayerConfig(7, 1, activation="sigmoid"),)), "expected 20 inputs in layer 0, got 7"),
        (
            lambda: config(layers=(LayerConfig(20, 1, activation="sigmoid"), LayerConfig(1, 1, activation="sigmoid"))),
            "expected sigmoid only on the last layer, got it on layer 0",
        ),
        (lambda: config(layers=(LayerConfig(20, 1),)), "expected the last layer to be sigmoid or softmax, got relu"),
        (
            lambda: config(layers=(LayerConfig(20, 1, activation="softmax"),)),
            "expected 2 outputs of the last layer for 1 keywords with softmax, got 1",
        ),
        (lambda: config(thresholds={"b": 0.5}), "unknown keyword 'b'; the model knows: a"),
        (lambda: random_model().quantize(4, 8).quantize(8, 8), "expected a float32 layer to quantize, got w4a8"),
        (lambda: random_model().quantize((4, 8, 8), 8), "expected weight_bits for 4 layers, got 3"),
        (lambda: random_model().quantize(4, (8,) * 5), "expected activation_bits for 4 layers, got 5"),
        (lambda: random_model().quantize(4, 8, "row"), "expected weight ranges of column, matrix, got 'row'"),
        (
            lambda: config(weight_errors=((0.1, 0.2), (0.1, 0.2))),
            r"expected two weight_errors for each of 1 layers, got \(\(0.1, 0.2\), \(0.1, 0.2\)\)",
        ),
        (
            lambda: config(weight_errors=((0.1,),)),
            r"expected two weight_errors for each of 1 layers, got \(\(0.1,\),\)",
        ),
        (lambda: config(weight_errors=((0.1, -0.2),)), r"expected finite weight_errors of at least 0, got .*-0.2"),
        (lambda: config(weight_errors=((np.nan, 0.2),)), "expected finite weight_errors of at least 0, got .*nan"),
        (lambda: random_model().layers[0].kernel_weights(), "expected a quantized layer, got float32"),
        (lambda: random_model().layers[0].stored_codes(), "expected a quantized layer, got float32"),
        (lambda: mismatched(random_model()), "expected the layers of the configuration, got other ones"),
        (lambda: random_model().new_state().push(np.zeros((3, 4))), r"of shape \(T, 20\), got \(3, 4\)"),
    ],
)
def test_what_does_not_fit_is_refused(make, text):
    with pytest.raises(ConfigError, match=text):
        make()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"weights": (np.zeros((1, 1, 19), np.float32),)}, r"expected weights of shape \(1, 1, 20\) \(O, taps, I\)"),
        ({"biases": (np.zeros(3, np.float32),)}, r"expected 1 biases, got shape \(3,\)"),
        ({"weights": ()}, "expected weights and biases of 1 layers, got 0 and 1"),
        ({"weights": (np.full((1, 1, 20), np.nan, np.float32),)}, "expected finite weights, got NaN or infinite ones"),
        ({"feature_mean": np.full(20, np.inf, np.float32)}, "expected finite feature and filter tables"),
        (
            {"feature_mean": np.zeros(3, np.float32), "feature_scale": np.zeros(3, np.float32)},
            r"expected features of shape \(2, 20\), got \(2, 3\)",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(changes, text):
    zeros = np.zeros(20, np.float32)
    weights = FloatWeights(zeros, zeros, (np.zeros((1, 1, 20), np.float32),), (np.zeros(1, np.float32),))
    with pytest.raises(ConfigError, match=text):
        Model.from_float(config(), replace(weights, **changes))


def test_settings_can_be_replaced():
    model = random_model().with_settings(thresholds={"alexa": 0.9}, provenance={"data": "none"})
    assert model.thresholds == {"alexa": 0.9}
    assert model.keywords == KEYWORDS
    assert model.config.provenance == {"name": "random", "data": "none"}
