"""Fake quantization is the runtime's quantization bit for bit, and its gradients are the ones its file names."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from streamkws import kernels
from streamkws.errors import ConfigError
from streamkws.layers import LayerConfig
from streamkws.quantization import quantize as numpy_quantize
from streamkws.quantization import quantize_columns
from streamkws.training.fake_quant import (
    QuantizationConfig,
    StaticRange,
    fake_quantize,
    fake_quantize_weights,
    quantize,
)

BITS = range(2, 9)
bits = st.sampled_from(BITS)
lengths = st.integers(1, 70)
moderate = st.floats(-1e6, 1e6, width=32)


def vectors(elements):
    return arrays(np.float32, lengths, elements=elements)


def spread(length, seed, exponent):
    """Normal values around a random offset, of any order of magnitude."""
    rng = np.random.default_rng(seed)
    values = (rng.standard_normal(length) + rng.uniform(-3, 3)) * 2.0**exponent
    return values.astype(np.float32)


VALUES = st.one_of(
    st.builds(spread, lengths, st.integers(0, 2**32 - 1), st.integers(-140, 120)),
    vectors(moderate),
    st.builds(lambda n, value: np.full(n, value, np.float32), lengths, moderate),
    vectors(st.just(0.0)),
    vectors(st.integers(-300, 300).map(lambda n: float(np.float32(n * 2.0**-149)))),  # steps of 0, or subnormal
    vectors(st.sampled_from([-1e37, -2e36, 0.0, 3e36, 1e37])),
    vectors(st.sampled_from([-2.5, -1.0, -0.0, 0.0, 0.5, 1.0])),
)


def same_bits(a, b):
    """Whether two float32 arrays are equal in every bit, the sign of a zero included."""
    return a.dtype == b.dtype == np.float32 and np.array_equal(a.view(np.int32), b.view(np.int32))


@settings(deadline=None)
@given(VALUES, bits)
def test_torch_numpy_and_the_kernel_give_the_same_codes_ranges_and_values(values, bits):
    expected = numpy_quantize(values, bits)
    kernel_codes, ranges, sums = np.full(values.size, 77, np.uint8), np.zeros((1, 2), np.float32), np.zeros(1, np.int32)
    kernels.quantize_vector(values, np.float32(2**bits - 1), kernel_codes, ranges, sums, 0)
    assert np.array_equal(kernel_codes, expected.codes)
    assert ranges[0].tolist() == [expected.lo, expected.step]

    v = torch.from_numpy(values)
    codes, lo, step = quantize(v, bits)
    assert np.array_equal(codes.numpy(), expected.codes)
    assert (lo.item(), step.item()) == (expected.lo, expected.step)
    # Of -0.0 and 0.0, each may take another one as the smallest; the values show no difference.
    assert same_bits(fake_quantize(v, bits).numpy(), expected.dequantize())
    assert same_bits(ranges[0, 0] + ranges[0, 1] * kernel_codes.astype(np.float32), expected.dequantize())


@settings(deadline=None)
@given(bits, st.lists(st.integers(0, 254), max_size=40), st.integers(-120, 110), st.integers(-8, 8))
def test_half_way_values_round_to_the_even_code_everywhere(bits, lower_codes, exponent, offset):
    levels = 2**bits - 1
    places = [0.0, float(levels), *(code % levels + 0.5 for code in lower_codes)]
    values = np.array([offset + place for place in places], np.float32) * np.float32(2.0**exponent)
    expected = [round(place) for place in places]  # Python rounds half to even
    codes, _, step = quantize(torch.from_numpy(values), bits)
    assert step.item() == 2.0**exponent
    assert codes.tolist() == numpy_quantize(values, bits).codes.tolist() == expected
    kernel_codes = np.zeros(values.size, np.uint8)
    kernels.quantize_vector(
        values, np.float32(levels), kernel_codes, np.zeros((1, 2), np.float32), np.zeros(1, np.int32), 0
    )
    assert kernel_codes.tolist() == expected


@settings(deadline=None)
@given(arrays(np.float32, array_shapes(min_dims=3, max_dims=3, max_side=9), elements=moderate), bits, st.data())
def test_every_group_along_any_dimension_has_its_own_range(values, bits, data):
    dim = data.draw(st.integers(-3, 2))
    order = data.draw(st.permutations(range(3)))
    v = torch.from_numpy(values).permute(*order)  # the network's frames are a transposed view, too
    groups = np.moveaxis(v.numpy(), dim, -1)
    expected = numpy_quantize(groups, bits)
    codes, lo, step = (np.moveaxis(part.numpy(), dim, -1) for part in quantize(v, bits, dim))
    assert np.array_equal(codes, expected.codes)
    assert np.array_equal(lo[..., 0], expected.lo)
    assert np.array_equal(step[..., 0], expected.step)
    fake = np.ascontiguousarray(np.moveaxis(fake_quantize(v, bits, dim).numpy(), dim, -1))
    assert same_bits(fake, expected.dequantize())


@settings(deadline=None)
@given(
    st.tuples(st.integers(1, 9), st.integers(1, 6), st.integers(1, 12)),
    st.one_of(moderate, st.sampled_from([-1.0, 0.0, 1.0])),
    bits,
    st.sampled_from(["column", "matrix"]),
    st.integers(0, 2**32 - 1),
)
def test_weights_are_quantized_as_the_model_does_per_column_and_per_matrix(shape, scale, bits, ranges, seed):
    weights = (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)  # (O, taps, I)
    weights[0] = scale  # a constant column, too
    expected = quantize_columns(weights, bits, ranges)
    fake = fake_quantize_weights(torch.from_numpy(weights).permute(0, 2, 1), bits, ranges)  # conv1d's (O, I, taps)
    assert fake.shape == (shape[0], shape[2], shape[1])
    assert same_bits(np.ascontiguousarray(fake.permute(0, 2, 1).numpy()), expected.dequantize())


@settings(deadline=None)
@given(st.integers(1, 40), bits, st.integers(-60, 60), st.sampled_from([1.0, -1.0]), st.integers(0, 2**32 - 1))
def test_a_power_of_two_scales_a_column_without_changing_its_codes(n, bits, exponent, sign, seed):
    raw = np.random.default_rng(seed).standard_normal((3, n, 2)).astype(np.float32)
    scale = np.float32(sign * 2.0**exponent)
    before, after = quantize_columns(raw, bits), quantize_columns(raw * scale, bits)
    assert np.array_equal(after.step, before.step * abs(scale))
    if sign > 0:
        assert np.array_equal(after.codes, before.codes)
        assert same_bits(after.dequantize(), before.dequantize() * scale)
    else:  # mirrored, and a value near the middle between two codes may go to the other
        difference = after.codes.astype(int) - (2**bits - 1 - before.codes.astype(int))
        assert np.abs(difference).max() <= 1
        assert (half_way_distance(raw, before)[difference != 0] < 1e-3).all()


def half_way_distance(values, quantized):
    """How far each value is from the middle between two codes, in steps, computed in double precision."""
    ranges = (-1,) + (1,) * (values.ndim - 1)
    lo, step = (table.astype(np.float64).reshape(ranges) for table in (quantized.lo, quantized.step))
    places = (values.astype(np.float64) - lo) / np.where(step > 0, step, 1)
    return np.abs(places - np.floor(places) - 0.5)


@settings(deadline=None)
@given(
    st.integers(1, 40),
    bits,
    st.floats(1e-3, 1e3).flatmap(lambda scale: st.sampled_from([scale, -scale])),
    st.floats(-3, 3),
    st.integers(0, 2**32 - 1),
)
def test_quantizing_raw_weights_and_scaling_equals_quantizing_folded_weights(n, bits, scale, offset, seed):
    """Normalization scales a column: lo, hi and step scale with it (and swap ends), and codes stay (or are mirrored).

    Exactly so in real numbers. In float32 the folded column, its ends and its step are rounded once or twice, which is
    at most `slack` of the largest weight: values agree to that, except that a weight that lies as near the middle
    between two codes may take the other of the two.
    """
    raw = (np.random.default_rng(seed).standard_normal((4, n, 3)) + offset).astype(np.float32)
    folded = (raw.astype(np.float64) * scale).astype(np.float32)
    before, after = quantize_columns(raw, bits), quantize_columns(folded, bits)
    levels = 2**bits - 1
    slack = 8 * 2.0**-24 * np.abs(folded).max(axis=(1, 2))
    np.testing.assert_array_less(np.abs(after.step - abs(scale) * before.step), slack)
    mirrored = before.codes if scale > 0 else levels - before.codes
    moved = after.codes != mirrored
    assert np.abs(after.codes.astype(int) - mirrored).max() <= 1
    in_steps = np.broadcast_to((slack / after.step)[:, None, None], moved.shape)
    assert (half_way_distance(folded, after) <= 2 * in_steps)[moved].all()
    difference = np.abs(after.dequantize() - scale * before.dequantize().astype(np.float64))
    assert (difference <= 2 * slack[:, None, None] + moved * after.step[:, None, None]).all()


def test_an_exact_tie_goes_to_the_other_code_under_a_negative_scale():
    column = np.array([[[0.0, 15.0, 6.5, 7.5]]], np.float32)  # steps of 1 at 4 bits
    assert quantize_columns(column, 4).codes.ravel().tolist() == [0, 15, 6, 8]
    assert quantize_columns(-column, 4).codes.ravel().tolist() == [15, 0, 8, 8]  # not 9 and 7, the mirrored ones
    assert quantize_columns(-column, 4).dequantize().ravel().tolist() == [0, -15, -7, -7]


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("dim", [0, 1, 2])
def test_identity_gradients_pass_unchanged(bits, dim):
    torch.manual_seed(bits)
    v = torch.randn(4, 5, 6)
    v[1, 2, 3] = 10.0
    v[0], v[:, 0], v[:, :, 0] = 1.5, 1.5, 1.5  # constant groups whatever the dimension
    v.requires_grad_()
    upstream = torch.randn(4, 5, 6)
    fake_quantize(v, bits, dim).backward(upstream)
    assert torch.equal(v.grad, upstream)


@pytest.mark.parametrize("bits", BITS)
def test_ranges_gradients_of_a_constant_vector_are_the_identitys(bits):
    v = torch.full((2, 7), -0.3, requires_grad=True)
    upstream = torch.randn(2, 7)
    fake_quantize(v, bits, gradient="ranges").backward(upstream)
    assert torch.equal(v.grad, upstream)


@settings(deadline=None)
@given(VALUES, bits)
def test_the_choice_of_gradient_leaves_the_forward_pass_alone(values, bits):
    v = torch.from_numpy(values)
    with_ranges = fake_quantize(v.clone().requires_grad_(), bits, gradient="ranges").detach()
    assert same_bits(with_ranges.numpy(), fake_quantize(v, bits).numpy())


def unique_ends(n, seed):
    """(n,) double-precision values whose least and greatest are alone by a margin."""
    v = np.random.default_rng(seed).uniform(-1, 1, n)
    v[seed % n], v[(seed + 1) % n] = -1.7, 2.1
    return v


def finite_differences(function, v, width=1e-6):
    """The Jacobian of function, (outputs, inputs), by central differences."""
    steps = width * np.eye(v.size)
    return np.stack([(function(v + step) - function(v - step)) / (2 * width) for step in steps], axis=1)


def jacobian(v, bits, gradient):
    return torch.autograd.functional.jacobian(
        lambda x: fake_quantize(x, bits, gradient=gradient), torch.from_numpy(v)
    ).numpy()


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("n", [2, 3, 11])
def test_ranges_gradients_are_the_derivative_with_the_rounding_errors_frozen(bits, n):
    v = unique_ends(n, bits)
    levels = 2**bits - 1

    def step(x):
        return (x.max() - x.min()) / levels

    codes = np.rint((v - v.min()) / step(v))
    rounding = codes - (v - v.min()) / step(v)
    np.testing.assert_allclose(fake_quantize(torch.from_numpy(v), bits).numpy(), v + step(v) * rounding, atol=1e-15)
    wanted = finite_differences(lambda x: x + step(x) * rounding, v)
    np.testing.assert_allclose(jacobian(v, bits, "ranges"), wanted, atol=1e-8)


@pytest.mark.parametrize("bits", BITS)
def test_how_the_gradients_relate_to_the_derivative_with_frozen_codes(bits):
    """By hand: with codes q frozen, v' = lo + (hi - lo) q / L has d v'/d lo = 1 - q / L and d v'/d hi = q / L.

    That derivative sends all gradient to the two ends and none to the values between, since frozen codes do not follow
    their values. Without rounding, codes would be p = (v - lo) / step, and the same formula with p is how much of v is
    the ends'. "ranges" is the identity plus the difference of the two: what rounding alone adds. So it is the frozen
    derivative exactly for the two ends themselves, and for a value that lies on a code (q = p) it is the identity.
    """
    v = unique_ends(9, bits)
    levels = 2**bits - 1
    lo, hi = v.argmin(), v.argmax()
    p = (v - v[lo]) / ((v[hi] - v[lo]) / levels)
    q = np.rint(p)

    def by_hand(place):
        derivative = np.zeros((v.size, v.size))
        derivative[:, lo] += 1 - place / levels
        derivative[:, hi] += place / levels
        return derivative

    frozen_codes = finite_differences(lambda x: x.min() + (x.max() - x.min()) / levels * q, v)
    np.testing.assert_allclose(by_hand(q), frozen_codes, atol=1e-8)
    ranges, identity = jacobian(v, bits, "ranges"), jacobian(v, bits, "identity")
    np.testing.assert_array_equal(identity, np.eye(v.size))
    np.testing.assert_allclose(ranges, identity + by_hand(q) - by_hand(p), atol=1e-12)
    np.testing.assert_allclose(ranges[[lo, hi]], by_hand(q)[[lo, hi]], atol=1e-12)
    for derivative in (identity, ranges, by_hand(q)):  # moving all values moves all v' as far
        np.testing.assert_allclose(derivative.sum(axis=1), 1, atol=1e-12)


@pytest.mark.parametrize("ranges", ["column", "matrix"])
def test_weights_ranges_gradients_are_those_of_their_groups(ranges):
    torch.manual_seed(0)
    weights, upstream = torch.randn(5, 4, 3), torch.randn(5, 4, 3)
    grouped = weights.reshape(5 if ranges == "column" else 1, -1).clone().requires_grad_()
    fake_quantize(grouped, 3, gradient="ranges").backward(upstream.reshape(grouped.shape))
    weights.requires_grad_()
    fake_quantize_weights(weights, 3, ranges, "ranges").backward(upstream)
    assert torch.equal(weights.grad, grouped.grad.reshape(weights.shape))
    assert not torch.equal(weights.grad, upstream)


@pytest.mark.parametrize("bits", BITS)
def test_a_static_range_clips_and_passes_gradients_to_what_is_not_clipped(bits):
    static = StaticRange(-1.0, 0.5, bits)
    top = -1.0 + 0.5 * (2**bits - 1)
    # a value up to half a step outside is rounded to the end, not clipped
    v = torch.tensor([-9.0, -1.26, -1.24, 0.1, 0.249, top + 0.24, top + 0.26, 1e6]).requires_grad_()
    values = static.fake_quantize(v)
    values.backward(torch.arange(1.0, 9.0))
    assert values.tolist() == [-1, -1, -1, 0, 0, top, top, top]
    assert v.grad.tolist() == [0, 0, 3, 4, 5, 6, 0, 0]


def test_a_static_range_without_width_passes_gradients_only_at_its_value():
    v = torch.tensor([1.0, 2.0, -1.0]).requires_grad_()
    values = StaticRange(1.0, 0.0, 4).fake_quantize(v)
    values.sum().backward()
    assert values.tolist() == [1, 1, 1] and v.grad.tolist() == [1, 0, 0]


def test_a_static_ranges_own_ends_are_not_clipped():
    for seed in range(200):
        v = torch.from_numpy(np.random.default_rng(seed).standard_normal(9).astype(np.float32)).requires_grad_()
        static = StaticRange(v.min().item(), ((v.max() - v.min()) / 15).item(), 4)
        static.fake_quantize(v).sum().backward()
        assert v.grad.tolist() == [1] * 9


def test_options_that_are_none():
    with pytest.raises(ConfigError, match="expected a gradient of identity, ranges, got 'nonsense'"):
        fake_quantize(torch.ones(3), 4, gradient="nonsense")
    with pytest.raises(ConfigError, match="expected weight ranges of column, matrix, got 'colum'"):
        fake_quantize_weights(torch.ones(3, 2), 4, "colum")


@pytest.mark.parametrize("bits", BITS)
def test_a_static_range_over_a_vectors_own_ends_gives_the_vectors_own_values(bits):
    v = torch.from_numpy(spread(50, bits, 0))
    static = StaticRange(v.min().item(), ((v.max() - v.min()) / (2**bits - 1)).item(), bits)
    assert same_bits(static.fake_quantize(v).numpy(), fake_quantize(v, bits).numpy())


def error_of_coverage(values, bits, coverage):
    """Mean square error with the range that cuts (1 - coverage) / 2 of the values at each end, in NumPy."""
    ordered = np.sort(values.astype(np.float64))
    cut = round((values.size - 1) * (1 - coverage) / 2)
    lo, hi = ordered[cut], ordered[values.size - 1 - cut]
    step = (hi - lo) / (2**bits - 1)
    codes = np.clip(np.rint((ordered - lo) / step), 0, 2**bits - 1)
    return ((lo + step * codes - ordered) ** 2).mean()


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("outlier", [1.0, 8.0, 60.0])
def test_a_calibrated_range_has_the_least_error_of_its_coverages(bits, outlier):
    rng = np.random.default_rng(bits)
    values = rng.standard_normal(20000).astype(np.float32)
    values[:15] *= np.float32(outlier)
    static = StaticRange.calibrated(torch.from_numpy(values).reshape(100, 200), bits)
    errors = {coverage: error_of_coverage(values, bits, coverage) for coverage in (1.0, 0.9999, 0.999, 0.99)}
    own = ((static.fake_quantize(torch.from_numpy(values)).numpy().astype(np.float64) - values) ** 2).mean()
    assert own == pytest.approx(min(errors.values()), rel=1e-3)
    assert max(errors.values()) > 1.1 * min(errors.values())  # there was a choice


def test_outliers_are_cut_at_few_bits_and_kept_at_many():
    values = torch.cat([torch.linspace(-1, 1, 5001), torch.tensor([40.0])])
    assert StaticRange.calibrated(values, 2).step < 1
    assert StaticRange.calibrated(values, 8) == StaticRange(-1.0, 41 / 255, 8)


def test_calibration_on_one_value_keeps_it():
    static = StaticRange.calibrated(torch.full((9,), 2.5), 4)
    assert static.fake_quantize(torch.tensor([2.5, 2.5])).tolist() == [2.5, 2.5]


def test_widths_are_put_on_the_layers_that_have_none():
    layers = (
        LayerConfig(8, 8),
        LayerConfig(8, 8, weight_bits=3, activation_bits=5),
        LayerConfig(8, 2),
        LayerConfig(2, 1),
    )
    assert [layer.bits for layer in QuantizationConfig().apply(layers)] == ["w4a8", "w3a5", "w4a8", "w4a8"]
    apart = QuantizationConfig(2, 4, last_weights=8, last_activations=6)
    assert [layer.bits for layer in apart.apply(layers)] == ["w2a4", "w3a5", "w2a4", "w8a6"]
    assert [layer.bits for layer in QuantizationConfig(2, 4, last_weights=8).apply(layers)][-1] == "w8a4"
    float_but_the_last = QuantizationConfig(32, 32, last_weights=8, last_activations=8)
    assert [layer.bits for layer in float_but_the_last.apply(layers)] == ["f32", "w3a5", "f32", "w8a8"]


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"weights": 1}, "expected quantization.weights of 2 to 8 or 32 bits, got 1"),
        ({"weights": 0}, "expected quantization.weights of 2 to 8 or 32 bits, got 0"),
        ({"activations": 9}, "expected quantization.activations of 2 to 8 or 32 bits, got 9"),
        ({"last_weights": 16}, "expected quantization.last_weights of 2 to 8 or 32 bits, got 16"),
        ({"last_activations": 1}, "expected quantization.last_activations of 2 to 8 or 32 bits, got 1"),
        (
            {"weights": 32},
            "expected quantization.weights and quantization.activations both 32 or neither, got 32 and 8",
        ),
        (
            {"last_weights": 32},
            "expected quantization.last_weights and quantization.last_activations both 32 or neither, got 32 and 8",
        ),
        ({"start_share": -0.1}, r"expected quantization.start_share in 0..1, got -0.1"),
        ({"freeze_share": 1.5}, r"expected quantization.freeze_share in 0..1, got 1.5"),
        ({"freeze_share": float("nan")}, r"expected quantization.freeze_share in 0..1, got nan"),
        ({"weight_ranges": "row"}, "expected quantization.weight_ranges of column, matrix, got 'row'"),
        ({"activation_ranges": "clip"}, "expected quantization.activation_ranges of frame, static, got 'clip'"),
        ({"gradient": "none"}, "expected quantization.gradient of identity, ranges, got 'none'"),
    ],
)
def test_settings_that_are_refused(settings, text):
    with pytest.raises(ConfigError, match=text):
        QuantizationConfig(**settings)


@pytest.mark.parametrize("bits", [1, 9, 32])
def test_other_widths_are_refused(bits):
    for function in (quantize, fake_quantize):
        with pytest.raises(ConfigError, match=f"expected 2 to 8 bits, got {bits}"):
            function(torch.zeros(3), bits)
    with pytest.raises(ConfigError, match=f"expected 2 to 8 bits, got {bits}"):
        fake_quantize_weights(torch.zeros(3, 2, 1), bits)
