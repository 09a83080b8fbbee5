"""Made sounds are the same each time, and hold no keyword."""

import subprocess

import numpy as np
import pytest

from streamkws import load_model
from streamkws.errors import MissingExtraError
from streamkws.voices import sounds
from streamkws.voices.phrases import MORE_CONFUSABLE

KEYWORDS = load_model("wakewords").keywords


def test_made_sounds_are_the_same_each_time_and_differ():
    for kind in ("music", "noise"):
        first, second = sounds.pieces(kind, 2, 7)
        again = next(sounds.pieces(kind, 1, 7))
        assert first.shape == (30 * 16000,) and first.dtype == np.float32
        np.testing.assert_array_equal(first, again)
        assert 0.009 < np.abs(first).max() < 0.71 and np.abs(first - second).max() > 0.01
        other = next(sounds.pieces(kind, 1, 8))
        assert np.abs(first - other).max() > 0.01


def test_near_words_and_babble_hold_no_keyword():
    phrases = [phrase.lower() for phrase in sounds.NEAR]
    assert len(set(phrases)) == len(phrases) and not {*phrases} & {one.lower() for one in MORE_CONFUSABLE}
    assert not any(keyword in phrase for keyword in KEYWORDS for phrase in phrases)
    assert not {word for keyword in KEYWORDS for word in keyword.split()} & set(sounds.WORDS)


def test_numbers_in_other_languages_fill_their_piece(monkeypatch):
    said = []

    def spoken(rng, text, language):
        said.append((text, language))
        if language == "kl":
            raise subprocess.CalledProcessError(-11, "espeak-ng")
        return np.full(100_000, 0.5, np.float32)

    monkeypatch.setattr(sounds, "spoken", spoken)
    for seed in range(20):
        piece = sounds.numbers(np.random.default_rng(seed), ["ar", "kl"])
        assert piece.shape == (30 * 16000,) and piece.min() > 0 and 0.009 < piece.max() < 0.71
    assert {language for _, language in said} == {"ar", "kl"}
    assert all(0 < int(number) < 10_000 for text, _ in said for number in text.split())


def test_foreign_languages_are_not_english(monkeypatch):
    rows = "Pty Language Age/Gender VoiceName\n 5 ar --/M a\n 5 en-gb --/M b\n 5 de --/M c\n 5 de --/M d\n"
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, rows))
    assert sounds.foreign_languages() == ["ar", "de"]


def test_without_espeak_the_way_to_install_it_is_told(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MissingExtraError, match=r"^made speech needs espeak-ng: apt install espeak-ng$"):
        sounds.require_espeak()
