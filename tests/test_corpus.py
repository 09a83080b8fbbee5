"""The one reader of a corpus: what it lists, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
from toy_corpus import ToyModel, add_noise, write, write_corpus

from streamkws.corpus import Segment, SegmentSet, read_corpus, read_segment_rows
from streamkws.errors import ConfigError
from streamkws.evaluation.measure import evaluate


@pytest.fixture
def corpus(tmp_path):
    return write_corpus(tmp_path)


@pytest.fixture
def noisy_corpus(corpus):
    return add_noise(corpus)


def test_corpora_that_cannot_be_used(tmp_path):
    model = ToyModel()

    def expect(text: str) -> None:
        with pytest.raises(ConfigError, match=text):
            evaluate(model, tmp_path / "corpus", snrs_db=(None,))

    expect(r"corpus: expected the folder of a corpus, got nothing")
    (tmp_path / "corpus").write_text("")
    expect(r"corpus: expected the folder of a corpus, got a file")
    (tmp_path / "corpus").unlink()
    (tmp_path / "corpus").mkdir()
    expect(r"expected a folder wakewords/<keyword>/ in the corpus, found no folder")
    (tmp_path / "corpus" / "talk").mkdir()
    expect(r"expected a folder wakewords/<keyword>/ in the corpus, found talk")
    (tmp_path / "corpus" / "wakewords" / "alexa").mkdir(parents=True)
    expect(r"wakewords: expected recordings of go, stop now, found alexa")
    write(tmp_path / "corpus" / "wakewords" / "go" / "a_0.wav", (0, 50))
    expect(r"expected negative audio in folders beside wakewords, found none")
    (tmp_path / "corpus" / "talk" / "0.wav").write_text("text")
    expect(r"expected at least one negative file that can be read; the first was talk/0.wav: ")


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ("path,from,to\n", r"segments.csv: expected the columns file, start and end, found \['path', 'from', 'to'\]"),
        ("file,start,end\n000.wav,a,5\n", r"segments.csv, line 2: expected 0 <= start <= end in samples, got a and 5"),
        ("file,start,end\n000.wav,0,5\n000.wav,9,5\n", r"segments.csv, line 3: expected 0 <= start <= end"),
        ("file,start,end\n000.wav,0\n", r"segments.csv, line 2: expected 0 <= start <= end in samples, got 0 and None"),
    ],
)
def test_segments_that_cannot_be_understood(corpus, table, text):
    (corpus / "talk" / "segments.csv").write_text(table)
    with pytest.raises(ConfigError, match=text):
        evaluate(ToyModel(), corpus)


def test_training_and_evaluation_read_the_same_files(tmp_path):
    """Files below folders, in every format; speakers by name; what the table says of each segment."""
    files = {"go/a_0.wav": "WAV", "go/far/b_0.oga": "OGG", "go/p1_2.flac": "FLAC", "go/.hidden.wav": "WAV"}
    for name, kind in files.items():
        (tmp_path / "wakewords" / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / "wakewords" / name, np.full(16000, 0.1), 16000, format=kind)
    write(tmp_path / "talk" / "0.wav", (0, 50))
    table = "file,start,end,label,speaker,source,text\n0.wav,0,100,noise,s,rain.wav,hello there\n0.wav,100,200,,,,\n"
    (tmp_path / "talk" / "segments.csv").write_text(table, encoding="utf-8-sig")  # as spreadsheets write it
    listed = read_corpus(tmp_path, ["go"])
    found = [(one.path.name, one.speaker) for one in listed.recordings]
    assert found == [("a_0.wav", "a"), ("b_0.oga", "b"), ("p1_2.flac", "")]
    first, second = read_segment_rows(tmp_path / "talk")
    assert (first.sound, first.speaker, first.text) == ("rain", "s", "hello there")
    assert (second.sound, second.speaker, second.text) == ("", "", "")
    pytest.importorskip("torch")
    from streamkws.training.recordings import read_wakewords

    clips, unusable = read_wakewords(tmp_path / "wakewords", ("go",))
    assert [clip.speaker for clip in clips] == ["a", "b", "p0"] and not unusable


def test_one_long_segment_does_not_make_words_running_speech():
    lengths = [8000, 8000, 9000, 400_000]
    words = SegmentSet("words", (), tuple(Segment(0, 0, length, "x") for length in lengths))
    assert words.single_words and not SegmentSet("talk", (), words.segments[-1:]).single_words
