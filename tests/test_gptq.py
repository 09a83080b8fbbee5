from dataclasses import replace

import naive
import numpy as np
import pytest
from conftest import random_model, speechlike

from streamkws import ConfigError, LayerConfig, load_model
from streamkws.gptq import round_layers, step_weights, windows
from streamkws.layers import Layer
from streamkws.model_file import save_model
from streamkws.quantization import quantize_columns


def counts(inputs, weighted):
    return np.ones(len(inputs), np.float32) if weighted is None else weighted


def one_layer(weights, inputs, bits=4, bias=0.0, weighted=None):
    """A float32 layer with weights (O, I), its configuration in `bits`, and what it is rounded to on these inputs."""
    weights = np.asarray(weights, np.float32)
    config = LayerConfig(weights.shape[1], len(weights), activation="linear")
    layer = Layer(config, weights[:, None], np.full(len(weights), bias, np.float32))
    widths = replace(config, weight_bits=bits, activation_bits=8)
    (rounded,) = round_layers([layer], [widths], [np.asarray(inputs, np.float32)], 1, [counts(inputs, weighted)])
    return layer, widths, rounded


def correlated(n, n_inputs, seed):
    """(n, n_inputs) vectors of a few common causes, as a network's are."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).standard_normal((4, n_inputs))
    return (rng.standard_normal((n, 4)) @ mixing + 0.3 * rng.standard_normal((n, n_inputs))).astype(np.float32)


def output_error(layer, inputs, weights, bias):
    """RMS of the difference in a fully connected layer's outputs."""
    exact = inputs @ layer.weights[:, 0].T + layer.bias
    return float(np.sqrt(np.mean((inputs @ weights[:, 0].T + bias - exact) ** 2)))


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_outputs_change_less_than_by_rounding_each_weight_also_on_other_inputs(bits):
    weights = np.random.default_rng(0).standard_normal((16, 64))
    layer, widths, rounded = one_layer(weights, correlated(800, 64, 1), bits)
    other = correlated(800, 64, 2)
    nearest = layer.quantize(widths)
    mine = output_error(layer, other, rounded.weights.dequantize(), rounded.bias)
    theirs = output_error(layer, other, nearest.weights.dequantize(), nearest.bias)
    assert mine < 0.4 * theirs
    assert layer.weight_error(rounded) > layer.weight_error(nearest)  # more of the weights change for it


def test_what_one_weight_loses_another_takes_up():
    # two inputs that are always equal: only the sum of their weights counts, 0.92 on values 0.2 apart
    x = np.random.default_rng(0).standard_normal(500)
    weights = np.array([[-1.0, 2.0, 0.46, 0.46]])
    inputs = np.stack([np.zeros(500), np.ones(500), x, x], 1)
    layer, widths, rounded = one_layer(weights, inputs, bits=4)
    values, nearest = (one.weights.dequantize()[0, 0] for one in (rounded, layer.quantize(widths)))
    np.testing.assert_allclose(sorted(nearest[2:]), [0.4, 0.4], atol=1e-3)
    np.testing.assert_allclose(sorted(values[2:]), [0.4, 0.6], atol=1e-3)


def test_steps_that_count_more_change_less():
    often, seldom = correlated(500, 24, 5), np.random.default_rng(6).standard_normal((500, 24)).astype(np.float32)
    inputs, weights = np.concatenate([often, seldom]), np.random.default_rng(7).standard_normal((12, 24))
    errors = []
    for count in (0.01, 1.0, 100.0):
        weighted = np.repeat(np.array([1.0, count], np.float32), 500)
        layer, _, rounded = one_layer(weights, inputs, bits=3, weighted=weighted)
        errors.append(output_error(layer, seldom, rounded.weights.dequantize(), rounded.bias))
    assert errors[0] > errors[1] > errors[2]


def test_steps_before_a_keyword_count():
    posteriors = np.zeros((8, 2), np.float32)
    posteriors[4] = 0.25, 0.75
    assert step_weights(posteriors, 3).tolist() == pytest.approx([0.1, 0.1, 0.85, 0.85, 0.85, 0.1, 0.1, 0.1])
    assert step_weights(posteriors[4:5], 25).tolist() == pytest.approx([0.85])


def test_the_mean_output_is_kept():
    inputs = correlated(600, 32, 3) + 5
    layer, _, rounded = one_layer(np.random.default_rng(1).standard_normal((8, 32)), inputs, bits=2, bias=1.5)
    # the inputs as the layer has them, each vector in 8 bits
    heard = quantize_columns(inputs[:, None], 8).dequantize()[:, 0]
    exact = (inputs @ layer.weights[:, 0].T + layer.bias).mean(0)
    np.testing.assert_allclose((heard @ rounded.weights.dequantize()[:, 0].T + rounded.bias).mean(0), exact, atol=1e-3)


def test_codes_use_their_columns_range():
    _, widths, rounded = one_layer(np.random.default_rng(2).standard_normal((8, 48)), correlated(400, 48, 4), bits=3)
    codes = rounded.weights.codes
    assert codes.shape == (8, 1, 48) and codes.max() == 7 and codes.min() == 0
    assert rounded.config == widths and rounded.weights.lo.dtype == rounded.bias.dtype == np.float32


@pytest.mark.parametrize("n_frames", [1, 3, 50])
def test_silence_and_few_frames_leave_the_nearest_codes_or_better(n_frames):
    weights = np.random.default_rng(3).standard_normal((5, 12)).astype(np.float32)
    layer, widths, rounded = one_layer(weights, np.full((n_frames, 12), -2.5), bits=4)
    assert np.array_equal(rounded.weights.codes, layer.quantize(widths).weights.codes)  # nothing to tell inputs by
    assert np.isfinite(rounded.bias).all()
    constant = np.full((2, 12), 0.25, np.float32)
    _, _, flat = one_layer(constant, correlated(50, 12, 1), bits=4)
    assert np.isfinite(flat.weights.dequantize()).all() and np.isfinite(flat.bias).all()


@pytest.mark.parametrize("sound", ["silence", "clipped", "one tone"])
def test_sound_that_says_little(full, sound):
    t = np.arange(48000)
    samples = {"silence": 0 * t, "clipped": np.sign(np.sin(t / 20)), "one tone": 0.1 * np.sin(t / 7)}[sound]
    example = full.new_front_end().push(samples.astype(np.float32))
    other = full.new_front_end().push(speechlike(48000, 5))
    posteriors = full.quantize(4, 8, examples=[example]).new_state().push(other)
    near, exact = (model.new_state().push(other) for model in (full.quantize(4, 8), full))
    assert np.std(posteriors - exact) < 4 * np.std(near - exact)  # nothing is learned, and little is lost


@pytest.mark.parametrize(("taps", "dilation", "stride"), [(1, 1, 1), (5, 1, 2), (3, 4, 1), (3, 2, 3)])
def test_windows_are_what_the_layer_sees(taps, dilation, stride):
    rng = np.random.default_rng(0)
    config = LayerConfig(6, 4, taps=taps, dilation=dilation, activation="linear")
    layer = Layer(config, rng.standard_normal((4, taps, 6)).astype(np.float32), np.zeros(4, np.float32))
    for n in (1, 2, 7, 30):
        x = rng.standard_normal((n, 6)).astype(np.float32)
        expected = naive.run_layer(layer, list(x), range(stride - 1, n, stride))
        result = windows(x, config, stride) @ layer.weights.reshape(4, -1).T
        np.testing.assert_allclose(result, np.reshape(expected, (-1, 4)), atol=1e-5)


@pytest.fixture(scope="module")
def full():
    return random_model(4)


@pytest.fixture(scope="module")
def examples(full):
    return [full.new_front_end().push(speechlike(24000, seed)) for seed in range(12)]


class TestModel:
    def test_posteriors_stay_closer_on_other_audio(self, full, examples):
        other = full.new_front_end().push(speechlike(48000, 77))
        exact = full.new_state().push(other)
        for bits in (2, 3, 4):
            near, chosen = (
                np.sqrt(np.mean((model.new_state().push(other) - exact) ** 2))
                for model in (full.quantize(bits, 8), full.quantize(bits, 8, examples=examples))
            )
            assert chosen < 0.6 * near

    def test_it_is_a_model_like_others(self, full, examples, tmp_path):
        model = full.quantize([4, 32, 2, 8], [8, 32, 8, 8], examples=examples)
        assert model.config.bits == "w4a8+f32+w2a8+w8a8"
        assert model.layers[1] is full.layers[1]
        assert [errors == (0, 0) for errors in model.config.weight_errors] == [False, True, False, False]
        frames = examples[0]
        close = np.abs(model.new_state().push(frames) - naive.network(model, frames)).max(axis=1) < 1e-4
        assert close.mean() > 0.9
        again = load_model(save_model(model, tmp_path / "m.safetensors"))
        assert np.array_equal(again.new_state().push(frames), model.new_state().push(frames))

    def test_the_same_examples_give_the_same_codes(self, full, examples):
        first, second = (full.quantize(4, 8, examples=one) for one in (examples, [one.copy() for one in examples]))
        for left, right in zip(first.layers, second.layers, strict=True):
            assert np.array_equal(left.weights.codes, right.weights.codes) and np.array_equal(left.bias, right.bias)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda one: one[:, :7], r"expected examples of shape \(T, 20\), T >= 2, got \(\d+, 7\)"),
            (lambda one: one[0], r"expected examples of shape \(T, 20\), T >= 2, got \(20,\)"),
            (lambda one: one[:1], r"expected examples of shape \(T, 20\), T >= 2, got \(1, 20\)"),
            (
                lambda one: np.where(one == one[3, 4], np.nan, one),
                "expected finite examples, got NaN or infinite values",
            ),
        ],
    )
    def test_examples_that_are_none(self, full, examples, change, message):
        with pytest.raises(ConfigError, match=message):
            full.quantize(4, 8, examples=[examples[0], change(examples[1])])

    def test_one_range_for_all_columns_is_not_for_examples(self, full, examples):
        with pytest.raises(ConfigError, match="expected ranges \"column\" with examples, got 'matrix'"):
            full.quantize(4, 8, "matrix", examples)

    def test_a_quantized_model_is_not_quantized_again(self, full, examples):
        with pytest.raises(ConfigError, match="expected a float32 layer to quantize, got w8a8"):
            full.quantize(8, 8).quantize(4, 8, examples=examples)
