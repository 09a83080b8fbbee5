import numpy as np
import pytest
from conftest import speechlike
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import log_mel
from python_speech_features import logfbank

from streamkws import ConfigError, FrontEnd, FrontEndConfig
from streamkws.frontend import mel_filters


def test_default_frames_equal_logfbanks():
    for samples in (speechlike(16000), np.sin(np.arange(8000) * 0.2).astype(np.float32) * 0.5):
        frames = FrontEnd().push(samples)
        expected = logfbank(samples)[:-1]  # its last frame is zero-padded
        assert frames.shape == expected.shape
        assert frames.dtype == np.float32
        np.testing.assert_allclose(frames, expected, atol=1e-4)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 900), max_size=20), st.integers(0, 100))
def test_blocks_of_any_length_give_the_same_frames_bit_for_bit(lengths, seed):
    samples = speechlike(5000, seed)
    whole = FrontEnd().push(samples)
    front_end, parts, start = FrontEnd(), [], 0
    for length in [*lengths, samples.size]:
        parts.append(front_end.push(samples[start : start + length]))
        start += length
    assert np.array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize(
    "config",
    [
        FrontEndConfig(n_mels=40, window="hann", low_hz=60, high_hz=7600, energy_floor=1e-9),
        FrontEndConfig(window_samples=320, hop_samples=320, n_mels=20),
        FrontEndConfig(sample_rate=8000, window_samples=201, hop_samples=80, fft_samples=256, high_hz=4000),
        FrontEndConfig(window_samples=1024, fft_samples=1024, n_mels=80, preemphasis=0),
    ],
)
def test_other_settings_equal_the_naive_front_end(config):
    samples = speechlike(7000)
    np.testing.assert_allclose(FrontEnd(config).push(samples), log_mel(samples, config, mel_filters(config)), atol=1e-4)


def test_int16_and_float_samples_give_the_same_frames():
    samples = (speechlike(4000) * 20000).astype(np.int16)
    as_float = samples.astype(np.float32) / 32768
    assert np.array_equal(FrontEnd().push(samples), FrontEnd().push(as_float))


def test_digital_silence_is_the_log_of_the_floor_exactly():
    config = FrontEndConfig(energy_floor=1e-9)
    frames = FrontEnd(config).push(np.zeros(1000, np.int16))
    assert (frames == np.float32(np.log(1e-9))).all()


def test_reset_equals_a_new_front_end():
    front_end = FrontEnd()
    front_end.push(speechlike(3333))
    front_end.reset()
    samples = speechlike(4000, seed=1)
    assert np.array_equal(front_end.push(samples), FrontEnd().push(samples))


def test_fewer_samples_than_a_window_give_no_frame():
    front_end = FrontEnd()
    assert front_end.push(np.zeros(0, np.float32)).shape == (0, 26)
    assert front_end.push(np.zeros(399, np.float32)).shape == (0, 26)
    assert front_end.push(np.zeros(1, np.float32)).shape == (1, 26)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"hop_samples": 0}, "expected 1 <= hop_samples <= window_samples <= fft_samples, got 0, 400, 512"),
        ({"window_samples": 600}, "expected 1 <= hop_samples <= window_samples <= fft_samples, got 160, 600, 512"),
        ({"fft_samples": 500}, "expected fft_samples to be a power of two of at least 4, got 500"),
        ({"n_mels": 0}, "expected 1 to 1024 mel bands, got 0"),
        ({"high_hz": 9000}, "expected 0 <= low_hz < high_hz <= 8000, got 0 and 9000"),
        ({"window": "hamming"}, "expected a window of rectangular, hann, got 'hamming'"),
        ({"energy_floor": 0.0}, "expected an energy_floor of 1e-37 to 1, got 0.0"),
        ({"energy_floor": 1e-320}, "expected an energy_floor of 1e-37 to 1, got 1e-320"),
        ({"fft_samples": 1 << 31}, "expected fft_samples of at most 65536, got 2147483648"),
        ({"n_mels": 1 << 40}, "expected 1 to 1024 mel bands, got 1099511627776"),
        ({"sample_rate": 10**30, "high_hz": 8000.0}, "expected a sample_rate of 1 to 768000 Hz, got 10"),
        ({"preemphasis": 1.5}, r"expected preemphasis in 0\.\.1, got 1.5"),
    ],
)
def test_settings_out_of_range_are_refused(settings, text):
    with pytest.raises(ConfigError, match=text):
        FrontEndConfig(**settings)


def test_filters_of_another_shape_are_refused():
    with pytest.raises(ConfigError, match=r"expected mel filters of shape \(26, 257\), got \(26, 100\)"):
        FrontEnd(filters=np.zeros((26, 100), np.float32))
