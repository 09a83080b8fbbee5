"""What models take for keywords is kept, once, and without the keywords themselves."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import random_model

from streamkws import ConfigError, Detector, ModelFileError, cli, load_model, save_model
from streamkws.corpus import read_segment_rows, read_segments
from streamkws.voices import mining
from streamkws.voices.segments import SegmentTable

ROOT = Path(__file__).parent.parent
MODEL = ROOT / "models" / "wakewords.w4a8.safetensors"


class Inline:
    """A pool that works here."""

    def __init__(self, n_processes):
        assert n_processes == 1

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    imap_unordered = staticmethod(map)


def write_set(folder, rows):
    """A set that is the demo alone, with segments (start, end, label) in seconds."""
    folder.mkdir()
    samples, rate = soundfile.read(ROOT / "streamkws" / "demo.flac", dtype="int16")
    soundfile.write(folder / "a.flac", samples, rate)
    lines = [f"a.flac,{round(start * rate)},{round(end * rate)},{label},," for start, end, label in rows]
    (folder / "segments.csv").write_text("\n".join(["file,start,end,label,speaker,source", *lines]) + "\n")
    return samples


def detector(score):
    """Of the shipped model, with one threshold."""
    model = load_model(MODEL)
    return Detector(model.with_settings(thresholds=dict.fromkeys(model.keywords, score)))


def test_what_models_hear_is_kept_with_what_is_around_it(tmp_path):
    samples = write_set(tmp_path / "talk", [(0, 29.9, "other")])
    name, segments = mining.listen(mining.Job(tmp_path, tmp_path / "talk", (str(MODEL), str(MODEL)), 0.7))
    hits = detector(0.7).push(samples)
    assert name == "talk.flac" and [label for label, _, _ in segments] == [f"talk: {hit.keyword}" for hit in hits]
    kept, rate = soundfile.read(tmp_path / name, dtype="int16")
    assert rate == 16000 and kept.size == len(hits) * 64000 and len(hits) == 6
    for index, (hit, (_, start, end)) in enumerate(zip(hits, segments, strict=True)):
        heard_at = index * 64000 + 48000
        assert (start, end) == (heard_at - 21600, heard_at + 4800)
        around = np.pad(samples, (48000, 16000))[round(hit.peak * rate) :][:64000]
        np.testing.assert_allclose(kept[index * 64000 :][:64000], around, atol=1)


def test_keywords_are_not_mined(tmp_path):
    first, *others = detector(0.7).push(write_set(tmp_path / "talk", [(0, 29.9, "other")]))
    write_set(tmp_path / "words", [(0, 29.9, "other"), (first.peak - 1.2, first.peak + 0.2, first.keyword)])
    _, segments = mining.listen(mining.Job(tmp_path, tmp_path / "words", (str(MODEL),), 0.7))
    assert [label for label, _, _ in segments] == [f"words: {hit.keyword}" for hit in others]


def test_hours_are_mined_once_each(tmp_path, monkeypatch):
    demo, _ = soundfile.read(ROOT / "streamkws" / "demo.flac", dtype="float32")
    seeds, shown = [], []
    monkeypatch.setattr(mining, "pieces", lambda kind, n, seed: seeds.append((kind, n, seed)) or [demo])
    monkeypatch.setattr(mining, "MINUTES", {"music": 15})
    monkeypatch.setattr(mining, "require_espeak", lambda: None)
    monkeypatch.setattr(mining.multiprocessing, "Pool", Inline)
    options = {"models": [MODEL], "score": 0.7, "n_processes": 1, "foreign_hours": 0}
    for hours in (1, 2, 2):
        mining.mine(tmp_path / "mined", hours=hours, show=lambda *what: shown.append(what), **options)
    assert seeds == [("music", 30, mining.FIRST_SEED), ("music", 30, mining.FIRST_SEED + 1)]
    assert shown == [("mining", 1, 1)] * 2
    one = read_segments(tmp_path / "mined")
    assert len(one.files) == 2 and len(one.segments) == 12 and not one.single_words


def test_an_hour_of_numbers(monkeypatch):
    monkeypatch.setattr(mining, "foreign_languages", lambda: ["ar"])
    monkeypatch.setattr(mining, "numbers", lambda rng, languages: (rng.integers(1 << 40), languages))
    pieces = list(mining.sounds_of(Path("foreign0003"), ("snowboy",)))
    assert len(pieces) == 120 and {kind for kind, _ in pieces} == {"foreign"}
    assert len({number for _, (number, _) in pieces}) == 120


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"models": []}, r"^expected at least one model$"),
        ({"hours": -1}, r"^expected hours of 0 or more, at least one process, and a score between 0 and 1$"),
        ({"score": 1.0}, r"and a score between 0 and 1$"),
        ({"n_processes": -1}, r"at least one process"),
        ({"sets": ["none"]}, r"^expected a set of long files with none/segments\.csv, found no such file$"),
    ],
)
def test_settings_that_cannot_be(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        mining.mine(tmp_path / "mined", **{"models": [MODEL], "hours": 0, "foreign_hours": 0, **options})
    assert not (tmp_path / "mined").exists()


def test_models_must_be_there_and_have_the_same_keywords(tmp_path):
    with pytest.raises(ModelFileError):
        mining.mine(tmp_path / "mined", models=[tmp_path / "none"])
    other = save_model(random_model(), tmp_path / "other.safetensors")
    with pytest.raises(ConfigError, match=r"^expected models with the same keywords, got "):
        mining.mine(tmp_path / "mined", models=[MODEL, other])


def test_the_command_says_in_a_line_what_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")
    assert cli.main(["mine", str(tmp_path / "mined")]) == 1
    assert capsys.readouterr().err == "streamkws: made speech needs espeak-ng: apt install espeak-ng\n"
    assert cli.main(["mine", str(tmp_path / "mined"), "--score", "2"]) == 2


def test_sets_of_one_folder_name_are_refused(tmp_path):
    for part in ("train", "dev"):
        (tmp_path / part).mkdir()
        write_set(tmp_path / part / "talk", [(0, 29.9, "other")])
    sets = [tmp_path / "train" / "talk", tmp_path / "dev" / "talk"]
    with pytest.raises(ConfigError, match="expected sets in folders of different names"):
        mining.mine(tmp_path / "mined", models=[MODEL], sets=sets, hours=0, foreign_hours=0)
    assert not (tmp_path / "mined").exists()


@pytest.mark.parametrize("table", [b"a,b\n1,2\n", b"\xff\xff\n", b"file,start,end\nx.flac,one,2\n"])
def test_a_table_that_is_none_is_said_and_left_as_it_is(table, tmp_path):
    write_set(tmp_path / "talk", [(0, 29.9, "other")])
    (tmp_path / "mined").mkdir()
    (tmp_path / "mined" / "segments.csv").write_bytes(table)
    with pytest.raises(ConfigError, match=r"mined/segments\.csv"):
        mining.mine(tmp_path / "mined", models=[MODEL], sets=[tmp_path / "talk"], hours=0, foreign_hours=0)
    assert (tmp_path / "mined" / "segments.csv").read_bytes() == table


def test_a_table_gets_the_rows_of_a_file_all_or_none(tmp_path, monkeypatch):
    table = SegmentTable(tmp_path)
    table.add("a.flac", [("one", 0, 5)], "", "made")
    before = (tmp_path / "segments.csv").read_bytes()
    monkeypatch.setattr("os.fsync", lambda number: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match=r"No space left on device: .*segments.csv'"):
        table.add("b.flac", [("two", n, n + 5) for n in range(1000)], "", "made")
    monkeypatch.undo()
    assert (tmp_path / "segments.csv").read_bytes() == before
    (tmp_path / "segments.csv").write_bytes(before.rstrip(b"\n"))  # as an editor may leave it
    SegmentTable(tmp_path).add("b.flac", [("two", 5, 9)], "", "made")
    assert [row.file for row in read_segment_rows(tmp_path)] == ["a.flac", "b.flac"]
