"""bench/speed/archive.py and bench/robustness/archive.py: the archives that they make."""

import csv

import numpy as np
import pytest
import soundfile

pytest.importorskip("distributed")


def test_an_archive_is_a_list_of_files_that_differ(bench_module, tmp_path, monkeypatch):
    speed = bench_module("bench.speed.archive")
    monkeypatch.setattr(speed, "FILE_S", 10.0)
    monkeypatch.setattr(speed, "MADE_HOURS", 30 / 3600)
    takes = [np.full(16_000, 10_000, np.int16), np.full(8000, -10_000, np.int16)]
    listed = speed.make_archive(tmp_path, takes, 50 / 3600)
    with listed.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == ["00000.flac", "00001.flac", "00002.flac", "00000.flac", "00001.flac"]
    assert len({row["id"] for row in rows}) == 5
    made = [soundfile.read(tmp_path / name)[0] for name in ("00000.flac", "00001.flac")]
    assert all(audio.size == 160_000 for audio in made) and not np.array_equal(*made)


def test_units_of_a_simulated_cluster(bench_module):
    speed = bench_module("bench.speed.archive")
    made = [piece for part in speed.units(20, 0.5) for unit in part.units for piece in unit]
    assert len(made) == 20 and {piece.recording.offset_s for piece in made} == {0.5}
    assert len(speed.wait(None, None, [made[0], made[1]])) == 2


def test_some_of_the_archive_that_is_killed_are_damaged(bench_module, tmp_path, monkeypatch):
    robust = bench_module("bench.robustness.archive")
    monkeypatch.setattr(robust, "LONG_S", 2.0)
    sources = robust.make_archive(tmp_path, 40, 1.0)
    assert sources[0] == str(tmp_path)
    damaged = 0
    for path in tmp_path.glob("??/*.flac"):
        try:
            soundfile.read(path)
        except soundfile.LibsndfileError:
            damaged += 1
    assert 1 <= damaged <= 2
