"""What a scan finds: files, folders, patterns, lists and addresses."""

import json
import os
from pathlib import Path

import pytest

from streamkws import ConfigError, MissingExtraError
from streamkws.scanning.listing import BYTES_PER_S, Recording, recordings


@pytest.fixture
def archive(tmp_path):
    for name in ("b.wav", "a.FLAC", "c/d.mp3", "c/film.mp4", "c/notes.txt", ".hidden.wav", ".git/x.wav"):
        path = tmp_path / "archive" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 100)
    return tmp_path / "archive"


def names(found, root):
    return [os.path.relpath(recording.path, root) for recording in found]


def test_files_folders_and_patterns(archive, monkeypatch):
    found = list(recordings([archive]))
    assert names(found, archive) == ["a.FLAC", "b.wav", "c/d.mp3", "c/film.mp4"]
    assert all(one.id == one.path and one.n_bytes == 100 and not one.error for one in found)
    assert names(recordings([f"{archive}/**/*.mp*"]), archive) == ["c/d.mp3", "c/film.mp4"]
    monkeypatch.chdir(archive)
    assert [one.path for one in recordings(["b.wav"])] == [str(archive / "b.wav")]
    assert [one.key for one in recordings(["b.wav"])] == [one.key for one in recordings([archive / "b.wav"])]
    (archive / "[1].wav").touch()
    assert names(recordings(["[1].wav"]), archive) == ["[1].wav"]


def test_what_is_not_there_is_a_recording_with_an_error(archive, tmp_path):
    (tmp_path / "bare").mkdir()
    (missing, bare, nothing, list_) = recordings(
        [archive / "missing.wav", tmp_path / "bare", f"{archive}/*.ogg", tmp_path / "none.csv"]
    )
    assert missing.error == "No such file or directory" and missing.path.endswith("missing.wav")
    assert bare.error.startswith("expected audio files in this folder (.flac ")
    assert nothing.error == "expected files of this pattern, found none"
    assert list_.error == "No such file or directory"


@pytest.mark.skipif(os.geteuid() == 0 if hasattr(os, "geteuid") else True, reason="root may read everything")
def test_a_folder_that_cannot_be_read(archive):
    (archive / "c").chmod(0)
    try:
        *good, bad = recordings([archive])
    finally:
        (archive / "c").chmod(0o755)
    assert names(good, archive) == ["a.FLAC", "b.wav"]
    assert bad == Recording(str(archive / "c"), str(archive / "c"), error="Permission denied")


def write_list(path, rows):
    if path.suffix == ".csv":
        columns = ("path", "id", "offset", "duration")
        lines = [",".join(columns), *(",".join(str(row.get(c) or "") for c in columns) for row in rows)]
        path.write_text("\n".join(lines) + "\n")
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        parquet = pytest.importorskip("pyarrow.parquet")
        import pyarrow

        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_lists(archive, suffix):
    rows = [
        {"path": "b.wav", "id": "call 1", "offset": 1.5, "duration": 0.001},
        {"path": str(archive / "a.FLAC"), "id": None, "offset": None, "duration": None},
        {"path": "gone.wav", "id": None, "offset": None, "duration": None},
        {"path": "b.wav", "id": None, "offset": -1.0, "duration": None},
        {"path": None, "id": "x", "offset": None, "duration": None},
    ]
    path = write_list(archive / f"list{suffix}", rows)
    first, second, gone, wrong, none = recordings([path])
    assert first == Recording("call 1", str(archive / "b.wav"), 1.5, 0.001, round(0.001 * BYTES_PER_S))
    assert second == Recording(str(archive / "a.FLAC"), str(archive / "a.FLAC"), None, None, 100)
    assert gone.error == "No such file or directory"
    assert wrong.error.startswith("expected offset in seconds, got ") and wrong.error.endswith(": row 4)")
    assert none.error == "expected a path, got none"
    assert len({one.key for one in (first, second, gone, wrong, none)}) == 5


def test_a_list_that_is_none(archive):
    (archive / "list.csv").write_text("file,seconds\nb.wav,3\n")
    (archive / "list.jsonl").write_text('{"path": "b.wav"}\n3\n')
    with pytest.raises(ConfigError, match=r"list\.csv: expected a column path, got file, seconds$"):
        list(recordings([archive / "list.csv"]))
    with pytest.raises(ConfigError, match=r"list\.jsonl: expected a column path, got none$"):
        list(recordings([archive / "list.jsonl"]))
    (archive / "list.jsonl").write_text('{"path": "b.wav"}\n{"pa\n')
    good, bad = recordings([archive / "list.jsonl"])
    assert not good.error and bad.error.startswith("JSONDecodeError: ")


def test_addresses(archive):
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    memory.pipe({"/calls/a.wav": b"12345", "/calls/b/c.mp3": b"123", "/calls/notes.txt": b"1"})
    memory.pipe("/lists/all.csv", b"path,id\n../calls/a.wav,1\nmemory://calls/b/c.mp3,\n")
    try:
        found = list(recordings(["memory://calls"]))
        assert [(one.path, one.n_bytes) for one in found] == [
            ("memory:///calls/a.wav", 5),
            ("memory:///calls/b/c.mp3", 3),
        ]
        assert [one.path for one in recordings(["memory://calls/*.wav"])] == ["memory:///calls/a.wav"]
        assert [one.path for one in recordings(["memory://calls/notes.txt"])] == ["memory:///calls/notes.txt"]
        first, second = recordings(["memory://lists/all.csv"])
        assert (first.id, first.path) == ("1", "memory://lists/../calls/a.wav")
        assert second.path == "memory://calls/b/c.mp3"
        (nothing,) = recordings(["memory://nowhere"])
        assert nothing.error == "expected audio files at this address, found none"
    finally:
        memory.rm("/calls", recursive=True)
        memory.rm("/lists", recursive=True)
    with pytest.raises(ConfigError, match=r"^nonsense://a: Protocol not known: nonsense"):
        list(recordings(["nonsense://a"]))


def test_without_fsspec_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "fsspec", None)
    with pytest.raises(MissingExtraError, match=r'^streamkws scan needs Dask: pip install "streamkws\[scan\]"$'):
        list(recordings(["memory://a.wav"]))


def test_it_is_lazy():
    assert next(recordings([Path(__file__)])).path == __file__
