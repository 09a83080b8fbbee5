"""Every fast path against NumPy: the SIMD kernels, the portable ones, and both as plain Python."""

import numpy as np
import pytest
from conftest import run_python
from hypothesis import given, settings
from hypothesis import strategies as st
from numba.core.codegen import get_host_cpu_features

from streamkws import FrontEnd, FrontEndConfig, kernels
from streamkws.kernels import pack_rows, padded
from streamkws.kernels.fft import power_spectrum
from streamkws.kernels.front_end import log_energies
from streamkws.kernels.network import exponential
from streamkws.layers import MAX_INPUTS
from streamkws.quantization import quantize

PRODUCTS = {8: kernels.matvec_u8_u8, 4: kernels.matvec_u8_u4}


def kernel_order(codes, bits):
    """(O, I) codes as the kernel of this width reads them, padded: flat uint8."""
    n_rows, n_codes = padded(codes.shape[0], kernels.ROW_BLOCK), padded(codes.shape[1], kernels.ROW_CODES)
    rows = np.zeros((n_rows, n_codes), np.uint8)
    rows[: codes.shape[0], : codes.shape[1]] = codes
    flat, block, group = [], 0, kernels.GROUP
    while block < n_rows:
        lanes = kernels.LANES if block + kernels.LANES <= n_rows else kernels.ROW_BLOCK
        if bits == 8:
            for i in range(0, n_codes, group):
                inputs = [(r, i + j) for r in range(block, block + lanes) for j in range(group)]
                flat += [(int(rows[place]) - kernels.WEIGHT_OFFSET) % 256 for place in inputs]
        else:
            for i in range(0, n_codes, 8):
                inputs = [(r, i + j) for r in range(block, block + lanes) for j in range(4)]
                flat += [rows[r, k] | rows[r, k + 4] << 4 for r, k in inputs]
        block += lanes
    assert np.array_equal(flat, pack_rows(rows, bits))
    return np.array(flat, np.uint8), n_rows, n_codes


def product(codes, x, bits):
    """codes (O, I) times x (I,) by the kernel, from the middle of larger arrays."""
    flat, n_rows, n_codes = kernel_order(codes, bits)
    weights = np.concatenate([np.full(5, 255, np.uint8), flat])
    vector = np.full(n_codes + 7, 255, np.uint8)
    vector[7:] = 0
    vector[7 : 7 + x.size] = x
    out = np.full(n_rows + 3, -1, np.int32)
    sums = (int(x.sum()),) if bits == 8 else ()
    PRODUCTS[bits](weights, 5, n_rows, vector, 7, n_codes, *sums, out)
    assert (out[n_rows:] == -1).all()
    return out[: len(codes)]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([4, 8]), st.integers(1, 70), st.integers(1, 200), st.integers(0, 2**32 - 1))
def test_products_of_codes_are_exact(bits, n_outputs, n_inputs, seed):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 2**bits, (n_outputs, n_inputs)).astype(np.uint8)
    x = rng.integers(0, 256, n_inputs).astype(np.uint8)
    assert np.array_equal(product(codes, x, bits), codes.astype(np.int64) @ x.astype(np.int64))


@pytest.mark.parametrize("bits", [4, 8])
def test_products_are_exact_with_all_extreme_codes_at_the_largest_size(bits):
    codes = np.full((4, MAX_INPUTS), 2**bits - 1, np.uint8)
    x = np.full(MAX_INPUTS, 255, np.uint8)
    expected = MAX_INPUTS * 255 * (2**bits - 1)
    assert expected < 2**31
    assert product(codes, x, bits).tolist() == [expected] * 4


@pytest.mark.parametrize("bits", [4, 8])
def test_the_plain_python_of_the_portable_path_gives_the_same(bits):
    rng = np.random.default_rng(bits)
    codes = rng.integers(0, 2**bits, (5, 40)).astype(np.uint8)
    x = rng.integers(0, 256, 40).astype(np.uint8)
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]);"
        "import numpy as np, test_kernels as t; from streamkws import kernels;"
        "assert kernels.INSTRUCTIONS == 'portable';"
        f"rng = np.random.default_rng({bits});"
        f"codes = rng.integers(0, {2**bits}, (5, 40)).astype(np.uint8);"
        "x = rng.integers(0, 256, 40).astype(np.uint8);"
        f"print(t.product(codes, x, {bits}).tolist())"
    )
    result = run_python(script, NUMBA_DISABLE_JIT="1")
    assert result == str((codes.astype(np.int64) @ x.astype(np.int64)).tolist())


@pytest.mark.parametrize(
    ("instructions", "cpu", "features"), [("portable", "generic", ""), ("avx2", "haswell", "+avx,+avx2,+fma,+sse4.2")]
)
def test_the_paths_of_lesser_cpus_give_the_same(instructions, cpu, features, tmp_path):
    if instructions == "avx2" and "+avx2" not in get_host_cpu_features().split(","):
        pytest.skip("needs a CPU with AVX2")
    rng = np.random.default_rng(3)
    codes8 = rng.integers(0, 256, (77, 97)).astype(np.uint8)
    x = rng.integers(0, 256, 97).astype(np.uint8)
    np.savez(tmp_path / "codes.npz", codes8=codes8, x=x)
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]);"
        "import numpy as np, test_kernels as t; from streamkws import kernels;"
        f"assert kernels.INSTRUCTIONS == {instructions!r};"
        f"a = np.load({str(tmp_path / 'codes.npz')!r});"
        "print([t.product(a['codes8'] & np.uint8(2**b - 1), a['x'], b).tolist() for b in (4, 8)])"
    )
    result = run_python(script, NUMBA_CPU_NAME=cpu, NUMBA_CPU_FEATURES=features, NUMBA_CACHE_DIR=str(tmp_path))
    wide = x.astype(np.int64)
    assert result == str([((codes8 & np.uint8(2**b - 1)).astype(np.int64) @ wide).tolist() for b in (4, 8)])


finite = st.floats(-(2.0**123), 2.0**123, width=32)


@settings(deadline=None)
@given(
    st.one_of(
        st.lists(finite, min_size=1, max_size=80),
        st.lists(st.sampled_from([-0.0, 0.0, 0.5, 1.0, -2.5, 1e-44]), min_size=1, max_size=40),
    ),
    st.sampled_from([2, 3, 4, 5, 6, 8]),
)
def test_quantize_vector_gives_numpys_codes_bit_for_bit(values, bits):
    v = np.array(values, np.float32)
    codes, ranges, sums = np.full(v.size, 77, np.uint8), np.zeros((3, 2), np.float32), np.zeros(3, np.int32)
    kernels.quantize_vector(v, np.float32(2**bits - 1), codes, ranges, sums, 1)
    expected = quantize(v, bits)
    assert np.array_equal(codes, expected.codes)
    assert ranges[1].tolist() == [expected.lo, expected.step]
    assert sums.tolist() == [0, expected.codes.sum(), 0]


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 70), st.integers(1, 130), st.integers(0, 2**32 - 1))
def test_float_products_equal_numpys(n_outputs, n_inputs, seed):
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal((n_outputs, n_inputs)).astype(np.float32)
    x = rng.standard_normal(n_inputs).astype(np.float32)
    start = rng.standard_normal(n_outputs).astype(np.float32)
    out = start.copy()
    kernels.add_matvec_f32(weights.ravel(), 0, n_outputs, x, 0, n_inputs, out)
    np.testing.assert_allclose(out, start + weights @ x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("fft_samples", [4, 8, 16, 64, 128, 256, 512, 1024, 2048])
def test_power_spectrum_equals_numpys(fft_samples):
    rng = np.random.default_rng(fft_samples)
    n = fft_samples - fft_samples // 5
    samples, window = rng.standard_normal(n), rng.uniform(0.1, 1, n)
    config = FrontEndConfig(window_samples=n, hop_samples=n, fft_samples=fft_samples, n_mels=1, window="rectangular")
    front_end = FrontEnd(config, np.zeros((1, fft_samples // 2 + 1), np.float32))
    state, tables = front_end.state, front_end.tables
    state.work.fill(1)
    power_spectrum(window, tables.twiddles, tables.roots, samples, state.work, state.power)
    power = state.power[: fft_samples // 2 + 1]
    expected = np.abs(np.fft.rfft(samples * window, fft_samples)) ** 2 / fft_samples
    np.testing.assert_allclose(power, expected, rtol=1e-9, atol=1e-12)


def test_logarithms_equal_numpys():
    rng = np.random.default_rng(0)
    energies = np.concatenate([np.exp(rng.uniform(-60, 60, 5000)), [1.0, 0.75, 1.5, np.nextafter(1.5, 0), 1e-30, 0.0]])
    for floor in (1e-9, 2.2e-16):
        frame = np.empty(energies.size, np.float32)
        log_energies(energies.copy(), floor, np.log(floor), frame)
        np.testing.assert_array_max_ulp(frame, np.log(np.maximum(energies, floor)).astype(np.float32), 1)


def test_exponentials_are_numpys_rounded_once():
    x = np.concatenate([np.linspace(-110, 95, 20_001), [0.0, -0.0, 1e-30, -87.4, 88.722]]).astype(np.float32)
    found = np.array([exponential(value) for value in x], np.float32)
    expected = np.exp(np.clip(x.astype(np.float64), -104, 88.722)).astype(np.float32)
    np.testing.assert_array_equal(found, expected)
