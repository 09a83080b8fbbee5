from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from streamkws.errors import ConfigError
from streamkws.quantization import (
    column_errors,
    matrix_product,
    pack_codes,
    packed_size,
    quantize,
    quantize_columns,
    relative_error,
    unpack_codes,
)

BITS = (2, 3, 4, 5, 6, 8)
finite = st.floats(-1e6, 1e6, width=32)


def test_the_ends_of_the_range_are_exact_codes():
    q = quantize(np.array([-1.0, 0.0, 2.0], np.float32), 4)
    assert q.codes.tolist() == [0, 5, 15]
    assert q.lo == -1
    assert q.step == np.float32(3 / 15)


def test_ties_round_to_even():
    q = quantize(np.array([0, 0.5, 1.5, 2.5, 15], np.float32), 4)
    assert q.step == 1
    assert q.codes.tolist() == [0, 0, 2, 2, 15]


@pytest.mark.parametrize("bits", BITS)
def test_a_constant_vector_is_all_zero_codes_and_comes_back_exactly(bits):
    q = quantize(np.full(7, -3.25, np.float32), bits)
    assert not q.codes.any()
    assert q.dequantize().tolist() == [-3.25] * 7


@given(arrays(np.float32, array_shapes(min_dims=1, max_dims=3, max_side=9), elements=finite), st.sampled_from(BITS))
def test_the_error_is_at_most_half_a_step(values, bits):
    q = quantize(values, bits)
    assert q.codes.max(initial=0) <= 2**bits - 1
    rounding = 1e-5 * np.abs(values).max(axis=-1, keepdims=True) + 1e-42  # below it, float32 steps become coarse
    assert (np.abs(q.dequantize() - values) <= 0.5001 * q.step[..., None] + rounding).all()


@pytest.mark.parametrize("values", [np.array([0, 1e-44, 5e-45]), np.array([-1e37, 1e37, 3e36])])
def test_tiny_and_huge_values_stay_in_range(values):
    q = quantize(values.astype(np.float32), 8)
    assert np.isfinite(q.dequantize()).all()


def test_columns_have_their_own_range_over_all_taps():
    weights = np.zeros((2, 3, 4), np.float32)
    weights[0, 2, 1], weights[1, 0, 3] = 1.0, -4.0
    q = quantize_columns(weights, 4)
    assert q.codes.shape == weights.shape
    assert q.lo.tolist() == [0, -4]
    assert q.step.tolist() == pytest.approx([1 / 15, 4 / 15])
    np.testing.assert_allclose(q.dequantize(), weights, atol=1e-6)


def test_columns_can_share_the_range_of_the_matrix():
    weights = np.array([[[0, 1]], [[-4, 11]]], np.float32)
    q = quantize_columns(weights, 4, "matrix")
    assert q.codes.tolist() == [[[4, 5]], [[0, 15]]]
    assert (q.lo.tolist(), q.step.tolist()) == ([-4, -4], [1, 1])


def test_other_weight_ranges_are_refused():
    with pytest.raises(ConfigError, match="expected weight ranges of column, matrix, got 'row'"):
        quantize_columns(np.zeros((1, 1, 2)), 4, "row")


def test_errors_are_relative_to_the_values():
    weights = np.array([[[0, 0.5, 3]], [[0, 0.2, 3]], [[0, 1, 3]], [[0, 0, 0]]], np.float32)
    q = quantize_columns(weights, 2)  # steps of 1: 0.5 becomes 0, and 0.2, too
    expected = [0.5 / np.sqrt(9.25), 0.2 / np.sqrt(9.04), 0, 0]
    np.testing.assert_allclose(column_errors(weights, q), expected, rtol=1e-6)
    assert relative_error(weights, q) == pytest.approx(np.sqrt(0.29 / 28.29), rel=1e-6)


@given(arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 5)), elements=finite))
def test_a_column_by_itself_has_the_column_error(weights):
    q = quantize_columns(weights, 4, "matrix")
    columns = [replace(q, codes=q.codes[o], lo=q.lo[o], step=q.step[o]) for o in range(len(weights))]
    alone = [relative_error(values, column) for values, column in zip(weights, columns, strict=True)]
    np.testing.assert_allclose(column_errors(weights, q), alone, rtol=1e-12)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("x_bits", [4, 8])
def test_equation_4_is_the_product_of_the_dequantized_values(bits, x_bits):
    rng = np.random.default_rng(bits)
    weights = quantize(rng.standard_normal((9, 50)), bits)
    x = quantize(rng.standard_normal(50) + 1, x_bits)
    exact = weights.dequantize().astype(np.float64) @ x.dequantize().astype(np.float64)
    np.testing.assert_allclose(matrix_product(weights, x), exact, rtol=2e-5, atol=2e-5)


@given(st.integers(0, 33), st.sampled_from(BITS), st.integers(0, 2**32 - 1))
def test_packing_is_undone_by_unpacking(n, bits, seed):
    codes = np.random.default_rng(seed).integers(0, 2**bits, n).astype(np.uint8)
    packed = pack_codes(codes, bits)
    assert packed.nbytes == packed_size(n, bits)
    assert np.array_equal(unpack_codes(packed, bits, n), codes)


def test_4_bit_codes_take_half_a_byte_the_even_one_low():
    assert pack_codes(np.array([1, 2, 3], np.uint8), 4).tolist() == [0x21, 0x03]
    assert pack_codes(np.array([1, 2, 3, 0, 1], np.uint8), 2).tolist() == [0b00111001, 0b01]
    assert pack_codes(np.arange(8, dtype=np.uint8), 3).tolist() == [0b10001000, 0b11000110, 0b11111010]
    assert pack_codes(np.array([7, 200], np.uint8), 8).tolist() == [7, 200]


@pytest.mark.parametrize("bits", [1, 9])
def test_other_widths_are_refused(bits):
    with pytest.raises(ConfigError, match=f"expected 2 to 8 bits, got {bits}"):
        quantize(np.zeros(3), bits)
