"""Recordings in memory: what is read, what is refused, and where the word in a recording is."""

from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from synthetic_corpus import KEYWORDS

from streamkws.errors import AudioError, ConfigError
from streamkws.training import recordings


def test_a_word_heard_elsewhere_is_where_it_is_heard(monkeypatch):
    clock = SimpleNamespace(end_s=lambda step: step / 100)
    model = SimpleNamespace(name="ears", keywords=("x", *KEYWORDS), config=SimpleNamespace(clock=clock))
    samples = np.zeros(48000, np.int16)
    clips = [recordings.Clip(samples, keyword, "s", 8000, 16000) for keyword in (0, 1, 1, 1)]
    heard = iter([(1, 95, 0.9), (2, 250, 0.9), (2, 250, 0.4), (2, 30, 0.9)])  # column, hundredths of a second, score

    def posteriors(samples, model):
        assert samples.size == 48000 + 8000
        scores = np.zeros((350, 3), np.float32)
        column, step, score = next(heard)
        scores[step, column] = score
        return scores

    monkeypatch.setattr(recordings, "posteriors", posteriors)
    placed = recordings.aligned(clips, KEYWORDS, model)
    assert [(clip.start, clip.end) for clip in placed] == [(8000, 16000), (32000, 40000), (8000, 16000), (0, 4800)]
    with pytest.raises(ConfigError, match=r"expected data.aligner to know 'down', ears knows go up"):
        recordings.aligned(clips, KEYWORDS, SimpleNamespace(name="ears", keywords=("go up",)))


def test_unusable_files_are_named(tmp_path):
    wrong = tmp_path / "stereo.wav"
    soundfile.write(wrong, np.zeros((100, 2)), 44100)
    assert abs(recordings.read_samples(wrong).size - 100 * 16000 / 44100) <= 2
    (tmp_path / "up").mkdir()
    text = tmp_path / "up" / "0_a.wav"
    text.write_text("no audio")
    assert recordings.read_wakewords(tmp_path, ("up",))[0] == []
    with pytest.raises(ConfigError, match=r"expected recordings of 'up' in .*, found none"):
        recordings.require_speech([], ("up",), [tmp_path])
    soundfile.write(tmp_path / "up" / "0_b.wav", np.zeros(16000), 16000)
    clips, unusable = recordings.read_wakewords(tmp_path, ("up",))
    assert len(clips) == len(unusable) == 1
    assert unusable[0].startswith(f"{text}: cannot be read as wav")
    with pytest.raises(ConfigError, match=r"expected a set of long files with .*segments.csv, found no such file"):
        recordings.read_segments(tmp_path)


def test_segments_beyond_their_file(tmp_path):
    soundfile.write(tmp_path / "a.flac", np.zeros(1000), 16000)
    (tmp_path / "segments.csv").write_text("file,start,end,label,speaker,source\na.flac,0,5000,x,,\n")
    with pytest.raises(AudioError, match=r"expected segment 0\.\.5000 inside .*a.flac, which has 1000 samples"):
        recordings.read_segments(tmp_path)
