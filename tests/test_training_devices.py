"""What devices do to sound, measured on signals whose answer is known."""

import numpy as np
import pytest

from streamkws.training import devices


def tone(hz, n=32000, level=1.0):
    return (level * np.sin(2 * np.pi * hz * np.arange(n) / 16000)).astype(np.float32)


def db(samples):
    return 10 * np.log10(np.mean(samples.astype(np.float64) ** 2))


def test_resonances_are_peaks_and_dips_around_0_db():
    hz = np.linspace(0, 8000, 24001)
    octave = (hz >= 60) & (np.arange(hz.size) > 0)
    ranges = []
    for seed in range(50):
        gains = devices.resonances(np.random.default_rng(seed), hz.size)
        assert gains.shape == hz.shape and gains.dtype == np.float32
        gains_db = 20 * np.log10(gains)
        mean = np.average(gains_db[octave], weights=1 / hz[octave])
        assert mean == pytest.approx(0, abs=0.5)
        assert (gains[:100] == gains[0]).all()  # below 60 Hz
        ranges.append(np.ptp(gains_db))
    assert 10 < np.median(ranges) < 40 and np.max(ranges) < 90


def test_suppression_lowers_noise_and_leaves_what_sticks_out():
    rng = np.random.default_rng(0)
    noise = (0.01 * rng.standard_normal(32000)).astype(np.float32)
    word = np.where((np.arange(32000) // 8000) == 2, tone(1000.0, level=0.3), 0).astype(np.float32)
    heard = devices.suppressed(noise + word, 4.0, -20.0)
    assert heard.shape == noise.shape and heard.dtype == np.float32
    assert db(heard[:14000]) == pytest.approx(db(noise[:14000]) - 14, abs=6)
    assert db(heard[17000:23000]) == pytest.approx(db(word[17000:23000]), abs=0.3)
    weaker = devices.suppressed(noise + word, 4.0, -6.0)
    assert db(heard[:14000]) + 3 < db(weaker[:14000]) < db(noise[:14000]) - 3


@pytest.mark.parametrize("n", [1, 255, 256, 5000])
def test_no_suppression_changes_nothing(n):
    samples = tone(700.0, n) + np.float32(0.1)
    np.testing.assert_allclose(devices.suppressed(samples, 0.0, 0.0), samples, atol=1e-6)


def test_a_compressor_halves_differences_of_level_and_has_an_end():
    samples = tone(500.0)
    samples[16000:] *= np.float32(0.1)
    heard = devices.compressed(samples, 2.0)
    assert db(heard[2000:14000]) == pytest.approx(db(samples[2000:14000]), abs=0.1)
    assert db(heard[18000:30000]) == pytest.approx(db(heard[2000:14000]) - 10, abs=0.1)  # 20 dB before
    samples[16000:] *= np.float32(1e-4)
    heard = devices.compressed(samples, 3.0)
    assert db(heard[18000:30000]) == pytest.approx(db(samples[18000:30000]) + 25, abs=0.1)
    np.testing.assert_array_equal(devices.compressed(samples[:100], 2.0), samples[:100])


def test_saturation_keeps_the_peak_and_adds_odd_harmonics():
    samples = tone(1000.0, level=0.4)
    heard = devices.saturated(samples, 20.0)
    spectrum = np.abs(np.fft.rfft(heard)) / 16000
    assert np.abs(heard).max() == pytest.approx(0.4, rel=1e-3)
    assert spectrum[6000] > 0.05 > 1e-4 > spectrum[4000]  # 3 and 2 kHz
    np.testing.assert_allclose(devices.saturated(samples, -40.0), samples, atol=1e-4)
    np.testing.assert_array_equal(devices.saturated(np.zeros(5, np.float32), 10.0), np.zeros(5, np.float32))


def test_codecs_lose_something_but_neither_time_nor_level():
    samples = (tone(440.0, 20001) * 8000 + 300 * np.random.default_rng(1).standard_normal(20001)).astype(np.int16)
    seen = []
    for seed in range(4):
        heard = devices.coded(np.random.default_rng(seed), samples)
        assert heard.shape == samples.shape and heard.dtype == np.int16
        assert np.corrcoef(samples[2000:-2000], heard[2000:-2000])[0, 1] > 0.99
        assert np.abs(heard - samples.astype(int)).max() > 50
        np.testing.assert_array_equal(heard, devices.coded(np.random.default_rng(seed), samples))
        seen.append(heard.tobytes())
    assert len(set(seen)) == 4
