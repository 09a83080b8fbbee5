"""Other voices have another pitch and other formants, and say the same at the same time."""

import sys

import numpy as np
import pytest

from streamkws.errors import MissingExtraError
from streamkws.training import voices


@pytest.fixture
def world():
    try:
        return voices.vocoder()
    except MissingExtraError:
        pytest.skip("needs pyworld")


def vowel(pitch_hz, formant_hz=700.0, seconds=0.8):
    """Pulses through one resonance, between two pauses."""
    n = int(16000 * seconds)
    pulses = np.zeros(n)
    pulses[np.arange(0.2 * n, 0.8 * n, 16000 / pitch_hz).astype(int)] = 1.0
    t = np.arange(400) / 16000
    ringing = np.exp(-t * 300) * np.sin(2 * np.pi * formant_hz * t)
    return (8000 * np.convolve(pulses, ringing)[:n]).astype(np.float32)


def test_a_voice_takes_the_pitch_it_is_given_and_keeps_time_and_level(world):
    samples = vowel(110.0)
    voice = voices.in_another_voice(np.random.default_rng(0), samples, 220, 220)
    assert voice.shape == samples.shape and voice.dtype == np.float32
    assert np.abs(voice).max() == pytest.approx(np.abs(samples).max(), rel=1e-3)
    pitch, _ = world.dio(voice.astype(np.float64), 16000)
    assert np.median(pitch[pitch > 0]) == pytest.approx(220, rel=0.03)
    assert np.abs(voice[:1600]).max() < 0.1 * np.abs(voice).max()  # the pause before the word
    assert np.abs(voice[4000:8000]).max() > 0.5 * np.abs(voice).max()


def test_a_sound_without_a_voice_stays_as_it_is(world):
    for samples in (np.zeros(8000, np.int16), (1000 * np.random.default_rng(0).standard_normal(8000)).astype(np.int16)):
        np.testing.assert_array_equal(voices.in_another_voice(np.random.default_rng(0), samples, 90, 330), samples)


def test_spectra_move_up_by_the_factor():
    spectra = np.zeros((2, 100))
    spectra[:, 40] = 1.0
    assert voices.moved_up(spectra, 1.25).argmax(1).tolist() == [50, 50]
    assert voices.moved_up(spectra, 0.8).argmax(1).tolist() == [32, 32]
    np.testing.assert_array_equal(voices.moved_up(spectra, 1.0), spectra)


def test_without_pyworld_the_install_command_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyworld", None)
    with pytest.raises(MissingExtraError, match=r'other voices need pyworld: pip install "streamkws\[voices\]"'):
        voices.vocoder()
