"""streamkws new: from a phrase to models, with made-up voices instead of the synthesizer, and very little training."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tiny_teacher import write_teacher

from streamkws import ConfigError, cli, load_model
from streamkws.audio import encode_flac
from streamkws.corpus import read_segments
from streamkws.new import own, report, scripts, surroundings
from streamkws.new import training as new_training
from streamkws.new.scripts import Amounts
from streamkws.voices import fetch, speakers

LITTLE = Amounts(speakers=3, kept_out=2, near=2, sentences=1, pieces=4, steps=8)
LINES = """hey HH EY1
hay HH EY1
day D EY1
robot R OW1 B AA2 T
rowboat R OW1 B OW2 T
roebuck R OW1 B AH2 K
warning W AO1 R N IH0 NG
cat K AE1 T
no N OW1
"""


def voice(text, number):
    """Half a second of tones that depend on the text, and a little on the speaker."""
    rng = np.random.default_rng([sum(map(ord, text)), 5])
    t = np.arange(8000) / 16000
    tones = [np.sin(2 * np.pi * hz * (1 + 0.01 * (number % 7)) * t) for hz in rng.uniform(200, 3000, 3)]
    return (6000 * np.mean(tones, axis=0) * np.hanning(t.size)).astype(np.int16)


class Voices:
    """Answers as the synthesizer would, and counts; it is stopped by Ctrl-C after so many files."""

    def __init__(self):
        self.most, self.made = 10_000, 0

    def __call__(self, request):
        if "texts" in request:
            yield ["hˈeɪ ɹˈoʊbɑːt" if text == "hey robot" else "kˈæt" for text in request["texts"]]
            return
        for name, number, kind in request["files"]:
            if self.made == self.most:
                raise KeyboardInterrupt
            self.made += 1
            script, pieces, segments, position = request["scripts"][name], [], [], 0
            lines = [*script["lines"], *[("other", "a sentence")] * script["sentences"]]
            for label, text in lines:
                pieces += [np.zeros(4000, np.int16), voice(text, number)]
                segments.append((label, position + 4000, position + 12000))
                position += 12000
            samples = np.concatenate([*pieces, np.zeros(4000, np.int16)])
            soundfile.write(f"{request['folder']}/{name}", samples, 16000, format="FLAC")
            yield number, kind, segments


@pytest.fixture
def voices(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one = Voices()
    monkeypatch.setattr(speakers, "answers", one)
    (tmp_path / "runs" / "dictionary").mkdir(parents=True)
    (tmp_path / "runs" / "teacher").mkdir()
    write_teacher(tmp_path / "runs" / "teacher")
    (tmp_path / "runs" / "dictionary" / fetch.DICTIONARY).write_text(LINES, encoding="utf-8")
    monkeypatch.setattr(scripts, "FULL", LITTLE)
    monkeypatch.setattr(surroundings, "N_ROOMS", 2)
    entries = new_training.read_entries(new_training.TEMPLATE)
    entries["training"] |= {"batch": 8, "pool": 32, "warmup_steps": 2, "reuse": 2}
    entries["export"] |= {"rounding_examples": 16}
    monkeypatch.setattr(new_training, "read_entries", lambda path: json.loads(json.dumps(entries)))
    return one


def test_a_phrase_becomes_models_and_goes_on_where_it_stopped(voices, capfd):
    voices.most = 4
    assert cli.main(["new", "hey robot"]) == 130
    voices.most = 10_000
    assert cli.main(["new", "Hey  Robot", "--json"]) == 0
    out, told = capfd.readouterr()
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["bits"] for line in lines] == ["f32", "w8a8", "w4a8"]
    assert "hey robot: /hˈeɪ ɹˈoʊbɑːt/" in told and "245 MB" in told
    figures = lines[-1]["keywords"]["hey robot"]
    assert figures["recordings"] == 2 * 3 and 0.4 <= figures["threshold"] <= 1 and figures["own_takes"] is None
    assert lines[-1]["hours"] > 0.5  # the pack's
    model = load_model("hey_robot.w4a8.safetensors")
    assert model.keywords == ("hey robot",) and model.thresholds["hey robot"] == figures["threshold"]
    assert "Kokoro-82M" in model.config.provenance["data"] and "LibriSpeech" in model.config.provenance["data"]
    card = Path("hey_robot.w4a8.md").read_text(encoding="utf-8")
    assert "false accepts per hour" in card and "people are missed more often" in card
    files = 2 * (LITTLE.speakers + LITTLE.kept_out)
    assert voices.made == files  # none twice
    assert cli.main(["new", "hey robot", "--quick", "--plan"]) == 0
    assert voices.made == files
    (folder,) = Path("runs").glob("new-*")
    (network,) = folder.glob("network-*")
    before = (network / "checkpoint.pt").stat().st_mtime_ns

    takes = Path("words/hey_robot")
    takes.mkdir(parents=True)
    for number in range(5):
        (takes / f"anna_{number}.flac").write_bytes(encode_flac(np.pad(voice("hey robot", 3), 8000)))
    Path("wrong").mkdir()
    rng = np.random.default_rng(0)
    Path("wrong/fan.flac").write_bytes(encode_flac((500 * rng.standard_normal(16000 * 45)).astype(np.int16)))
    Path("wrong/text.wav").write_text("no sound")
    assert cli.main(["new", "hey robot", "--recordings", "words", "--negatives", "wrong", "--out", "mine/r"]) == 0
    out, told = capfd.readouterr()
    assert "Of your own takes of 'hey robot' that were kept out it missed" in out and "before it learned" in out
    assert "left out:" in told and "text.wav" in told
    assert (network / "checkpoint.pt").stat().st_mtime_ns == before  # the first training was not done again
    assert load_model("mine/r.w8a8.safetensors").keywords == ("hey robot",)
    assert "the user's own takes" in load_model("mine/r.f32.safetensors").config.provenance["data"]


def test_wrong_input_is_told_in_a_line(voices, capfd):
    for arguments, told in (
        (["hey"], "too short"),
        (["hey robot", "hey robot"], "each once"),
        (["route 66"], "English letters"),
        (["hey robot", "--pronounce", "hey robot"], "PHRASE=HOW"),
        (["hey robot", "--pronounce", "day=hey robot"], "pronunciations of hey robot"),
        (["hey robot", "--recordings", "nowhere"], "nowhere"),
        (["hey robot", "--negatives", "nowhere"], "nowhere"),
        (["hey robot", "--target-fa", "0"], "above 0"),
        (["hey robot", "--plot", "x.txt"], ".png"),
    ):
        assert cli.main(["new", *arguments]) == 2, arguments
        out, error = capfd.readouterr()
        assert told in error and "Traceback" not in error and not out
    assert voices.made == 0


def test_takes_that_are_none_are_told(tmp_path):
    train, judge = tmp_path / "train", tmp_path / "judge"
    with pytest.raises(ConfigError, match="expected a folder of recordings"):
        own.take_recordings(tmp_path / "none", ["hey robot"], train, judge)
    (tmp_path / "words" / "hey_robot").mkdir(parents=True)
    with pytest.raises(ConfigError, match="found none"):
        own.take_recordings(tmp_path / "words", ["hey robot"], train, judge)
    (tmp_path / "words" / "hey_robot" / "a_1.wav").write_bytes(b"RIFF")
    with pytest.raises(ConfigError, match=r"the first is unusable: .*a_1\.wav"):
        own.take_recordings(tmp_path / "words", ["hey robot"], train, judge)
    with pytest.raises(ConfigError, match="expected a recording, or a folder of them"):
        own.take_negatives([tmp_path / "train"], train, judge)


def test_every_fifth_take_of_a_speaker_is_kept_out(tmp_path):
    place = tmp_path / "words" / "hey_robot"
    place.mkdir(parents=True)
    for speaker, n in (("anna", 5), ("otto", 11), ("p", 2)):
        for number in range(n):
            (place / f"{speaker}_{number:02d}.flac").write_bytes(encode_flac(voice("x", number)))
    takes = own.take_recordings(tmp_path / "words", ["hey robot"], tmp_path / "train", tmp_path / "judge")
    assert takes.learned == {"hey robot": 4 + 9 + 2} and takes.kept_out == {"hey robot": 3}
    kept = sorted(path.name for path in (tmp_path / "judge").rglob("*.flac"))
    assert kept == ["anna_04.flac", "otto_04.flac", "otto_09.flac"]


def test_own_sound_is_split_without_overlap(tmp_path):
    samples = np.arange(16000 * 45, dtype=np.int64).astype(np.int16)
    (tmp_path / "fan.flac").write_bytes(encode_flac(samples))
    assert own.take_negatives([tmp_path / "fan.flac"], tmp_path / "train", tmp_path / "judge") == []
    train, judge = (read_segments(tmp_path / name / own.OWN_NEGATIVES) for name in ("train", "judge"))
    second = 16000
    assert np.array_equal(train.files[0], np.concatenate([samples[: 30 * second], samples[40 * second :]]))
    assert np.array_equal(judge.files[0], samples[30 * second : 40 * second])


def test_kept_out_voices_are_not_among_those_that_are_learned_from():
    from streamkws.new.near import Near
    from streamkws.new.phrase import Phrase

    phrase = Phrase("hey robot", "hey robot", "", (("HH", "EY"), ("R", "OW")))
    near = {
        "hey robot": {
            "words": [Near(f"near {n}", 1.0 + n) for n in range(50)],
            "replaced": [],
            "parts": [],
            "halves": [],
        }
    }
    learned, kept = (scripts.scripts([phrase], near, LITTLE, kept_out) for kept_out in (False, True))
    assert not set(learned) & set(kept)
    assert all(not one.kept_out for one in learned.values()) and all(one.kept_out for one in kept.values())
    assert learned == scripts.scripts([phrase], near, LITTLE, False)
    for files, labels in ((learned, {"hey robot", "other"}), (kept, None)):
        assert sum(one.accent for one in files.values()) == len(files) / 2
        said = [line for one in files.values() for line in one.lines]
        assert sum(label == "hey robot" for label, _ in said) == len(files) / 2 * 3
        assert labels is None or {label for label, _ in said} == labels


def test_rooms_differ_and_begin_with_the_direct_sound():
    rooms = [surroundings.impulse_response(np.random.default_rng([1, n])) for n in range(20)]
    assert all(np.abs(room).max() == pytest.approx(0.9) for room in rooms)
    late = [float(np.sum(room[1600:] ** 2) / np.sum(room**2)) for room in rooms]
    assert min(late) < 0.05 and max(late) > 5 * min(late)


def test_intervals_are_exact():
    from streamkws.evaluation.intervals import rate_interval, share_interval

    assert rate_interval(0, 2.0) == (0.0, pytest.approx(3.689 / 2, abs=1e-3))
    assert rate_interval(10, 1.0) == (pytest.approx(4.795, abs=1e-3), pytest.approx(18.39, abs=1e-2))
    assert share_interval(0, 10) == (0.0, pytest.approx(0.3085, abs=1e-4))
    assert share_interval(10, 10) == (pytest.approx(0.6915, abs=1e-4), 1.0)
    assert report.HEADER[0] == "phrase"
