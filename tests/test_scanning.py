"""streamkws scan and streamkws.scan, on a cluster of two processes that all of these tests share."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tones import RATE, hits, tones, tones_model

import streamkws as kws
from streamkws import scanning
from streamkws.cli.scan import _show_event
from streamkws.scanning.dataset import Dataset
from streamkws.scanning.hearing import Heard, Listening, hear_pieces
from streamkws.scanning.listing import Recording, recordings
from streamkws.scanning.planning import Sizes, parts
from streamkws.scanning.progress import Progress
from streamkws.scanning.running import Work, _outcome
from streamkws.smoother import Detection

distributed = pytest.importorskip("distributed")
parquet = pytest.importorskip("pyarrow.parquet")

pytestmark = pytest.mark.filterwarnings("default")  # Dask's own are its own affair
SMALL = Sizes(unit_bytes=200_000, unit_recordings=3, part_units=2, shortest_s=2.0)


@pytest.fixture(scope="module")
def client():
    import dask

    with dask.config.set({"distributed.scheduler.allowed-failures": 0}), scanning.local_client(2) as client:
        yield client


@pytest.fixture
def small(monkeypatch):
    """Units and parts so small that a few files make several."""
    monkeypatch.setattr(Sizes, "for_work", lambda *_: SMALL)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Ten short recordings, one of them damaged, one of them no audio, and a long one that is cut."""
    folder = tmp_path_factory.mktemp("archive")
    for number in range(10):
        soundfile.write(folder / f"{number}.wav", tones(*["low tone", "high tone"][: 1 + number % 2]), RATE)
    data = (folder / "3.wav").read_bytes()
    (folder / "3.wav").write_bytes(data[: len(data) - 20_000])
    (folder / "5.wav").write_text("no audio")
    soundfile.write(folder / "long.flac", tones(*["low tone", "high tone"] * 10), RATE)
    data = np.tile(tones("low tone"), 3)
    soundfile.write(folder / "long.wav", data, RATE)
    return folder


def rows(out, kind="detections"):
    """All rows of a data set, in a fixed order, without what was measured."""
    found = [
        row for path in sorted((Path(out) / kind).glob("*.parquet")) for row in parquet.read_table(path).to_pylist()
    ]
    for row in found:
        for name in ("decode_s", "compute_s"):
            row.pop(name, None)
    return sorted(found, key=lambda row: (row["path"], row.get("peak", 0), row.get("keyword", "")))


def heard_by_detect(folder, model):
    """What streamkws.detect hears, as rows."""
    found = []
    for path in sorted(folder.iterdir()):
        try:
            for hit in kws.detect(path, model):
                found.append((str(path), hit.keyword, hit.score, hit.start, hit.end, hit.peak))
        except kws.AudioError:
            pass
    return found


def as_tuples(found):
    return [tuple(row[name] for name in ("path", "keyword", "score", "start", "end", "peak")) for row in found]


def test_it_hears_what_detect_hears(archive, client, tmp_path, small):
    model, events = tones_model(), []
    summary = kws.scan(archive, model, out=tmp_path / "out", client=client, tell=events.append)
    wanted = heard_by_detect(archive, model)
    assert len(wanted) > 30
    assert as_tuples(rows(tmp_path / "out")) == sorted(wanted, key=lambda row: (row[0], row[5], row[1]))
    assert {row["model"] for row in rows(tmp_path / "out")} == {"tones.f32"}
    assert json.loads(rows(tmp_path / "out")[0]["thresholds"]) == {"low tone": 0.6, "high tone": 0.6}
    errors = rows(tmp_path / "out", "errors")
    assert [Path(row["path"]).name for row in errors] == ["3.wav", "5.wav"]
    assert errors[0]["error"].startswith("cut off: ") and errors[1]["error"].startswith("cannot be read as wav")
    assert (summary.recordings, summary.failed) == (10, 2)
    assert sum(summary.hits.values()) == len(wanted)
    assert summary.hours == pytest.approx(
        sum(row["audio_s"] for row in [*errors, *rows(tmp_path / "out", "sources")]) / 3600
    )
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == summary.as_json()
    assert events[0] == {"event": "start", "recordings": 12, "bytes": events[0]["bytes"], "done": 0}
    assert events[-1] == {"event": "end", **summary.as_json()}
    assert [event["path"] for event in events if event["event"] == "error"].count(str(archive / "3.wav")) == 1
    last = events[-2]
    assert (last["event"], last["recordings"], last["of"], last["errors"], last["done"]) == ("progress", 12, 12, 2, 1.0)
    assert last["hits"] == len(wanted) and last["left_s"] == 0


class Stop(Exception):
    """Ends a scan in its middle."""


def test_it_goes_on_where_it_stopped(archive, client, tmp_path, small, monkeypatch):
    model = tones_model()
    whole = kws.scan(archive, model, out=tmp_path / "whole", client=client)
    write, n_written, stop = Dataset._write, 0, -1

    def dying(dataset, kind, *rest, **options):
        nonlocal n_written
        n_written += 1
        if n_written == stop:
            raise Stop
        return write(dataset, kind, *rest, **options)

    monkeypatch.setattr(Dataset, "_write", dying)
    for at in (1, 2, 6, 3):
        stop, n_written = at, 0
        with pytest.raises(Stop):
            kws.scan(archive, model, out=tmp_path / "out", client=client)
    stop = -1
    events = []
    summary = kws.scan([archive, archive / "0.wav"], model, out=tmp_path / "out", client=client, tell=events.append)
    assert events[0]["done"] > 0
    for kind in ("detections", "errors", "sources"):
        assert rows(tmp_path / "out", kind) == rows(tmp_path / "whole", kind)
    assert summary.hits == whole.hits and summary.recordings == whole.recordings
    again = kws.scan(archive, model, out=tmp_path / "out", client="tcp://nobody:1")  # no cluster for no work
    assert (again.recordings, again.failed, again.hits) == (summary.recordings, summary.failed, summary.hits)
    assert again.audio_s == pytest.approx(summary.audio_s) and again.decode_s == pytest.approx(summary.decode_s)


def test_what_failed_is_done_again_when_asked(archive, client, tmp_path, small):
    folder, model, out = tmp_path / "copy", tones_model(), tmp_path / "out"
    shutil.copytree(archive, folder)
    kws.scan(folder, model, out=out, client=client)
    for name in ("3.wav", "5.wav"):
        soundfile.write(folder / name, tones("low tone"), RATE)
    assert kws.scan(folder, model, out=out, client=client).failed == 2
    summary = kws.scan(folder, model, out=out, client=client, retry_failed=True)
    assert (summary.recordings, summary.failed) == (12, 0) and not rows(out, "errors")
    assert as_tuples(rows(out)) == sorted(heard_by_detect(folder, model), key=lambda row: (row[0], row[5], row[1]))


def test_it_does_not_mix(archive, client, tmp_path):
    model, out = tones_model(), tmp_path / "out"
    one = archive / "0.wav"
    kws.scan(one, model, out=out, client=client)
    message = r"^.*/out: was made with thresholds .*'low tone': 0\.6.*, not .*0\.3.*; choose another --out$"
    with pytest.raises(kws.ConfigError, match=message):
        kws.scan(one, model, out=out, thresholds=0.3, client=client)
    with pytest.raises(kws.ConfigError, match="was made with thresholds"):
        kws.scan(one, model, out=out, keywords=["low tone"], client=client)
    with pytest.raises(kws.ConfigError, match=r"was made with a model tones\.f32, not tones\.w8a8"):
        kws.scan(one, model.quantize(8, 8), out=out, client=client)
    with pytest.raises(kws.ConfigError, match="was made with a network "):
        kws.scan(one, model.with_settings(smoother=kws.SmootherConfig(9)), out=out, client=client)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").touch()
    for wrong in (tmp_path / "mine", tmp_path / "mine" / "letter.txt"):
        with pytest.raises(kws.ConfigError, match=r"expected a folder that a scan wrote, or none$"):
            kws.scan(one, model, out=wrong, client=client)
    with Dataset(out, model, model.thresholds), pytest.raises(kws.ConfigError, match=r"another scan is writing to it$"):
        kws.scan(one, model, out=out, client=client)


def bad(model, listening, pieces):
    """Hears pieces, but for some that end the process, or raise."""
    for piece in pieces:
        if piece.recording.path.endswith("1.wav"):
            os._exit(1)
        if piece.recording.path.endswith("2.wav"):
            raise RuntimeError("a\nbug")
    return hear_pieces(model, listening, pieces)


def test_a_recording_that_ends_its_worker_is_an_error_of_its_own(archive, client):
    came = {}
    work = Work(
        client,
        tones_model(),
        Listening(),
        lambda part, heard: came.update(zip((one.path for one in part.recordings), heard, strict=True)),
        lambda *_: None,
        bad,
    )
    work.run(parts(list(recordings([archive]))[:4], SMALL, 160))
    names = {Path(path).name: heard for path, heard in came.items()}
    assert names["1.wav"].error == "hearing it ended the process, several times"
    assert names["2.wav"].error == "RuntimeError: a bug"
    assert [hit.keyword for hit in names["0.wav"].hits] == ["low tone"]


def test_a_cluster_that_does_not_answer_is_one_line(tmp_path, archive, monkeypatch):
    monkeypatch.setattr("streamkws.scanning.running.CONNECT_S", 0.5)
    with pytest.raises(kws.ClusterError, match=r"^tcp://127\.0\.0\.1:1: no scheduler of Dask's answers \("):
        kws.scan(archive, tones_model(), out=tmp_path / "out", client="tcp://127.0.0.1:1")


def test_a_cluster_that_is_lost_is_one_line(client):
    future = client.submit(time.sleep, 0.5, pure=False)
    future.cancel()
    with pytest.raises(kws.ClusterError, match=r"^the cluster was lost; the same command goes on where"):
        _outcome(future)


def test_the_command(archive, client, tmp_path, model_path, run, small):
    address, out = client.scheduler.address, str(tmp_path / "out")
    shared = ("--out", out, "--scheduler", address, "--model", model_path)
    code, text, err = run("scan", str(archive / "0.wav"), str(archive / "1.wav"), *shared)
    assert code == 0 and err == ""
    header, *lines, last = text.splitlines()
    assert header.split() == ["keyword", "hits"]
    assert [line.split() for line in lines] == [["low", "tone", "2"], ["high", "tone", "1"]]
    assert last.startswith("2 recordings, 0.00 h, at ") and last.endswith(" % of the work was reading and decoding")
    code, text, err = run("scan", str(archive), *shared, "--json")
    assert code == 1 and err == f"streamkws: 2 of 12 recordings failed: {out}/errors says why\n"
    events = hits(text)
    assert [event["event"] for event in events][:1] == ["start"] and events[0]["done"] == 2
    assert events[-1]["recordings"] == 10 and events[-1]["hits"] == Counter(
        row[1] for row in heard_by_detect(archive, tones_model())
    )
    assert run("scan", str(archive), *shared, "--threshold", "0.5")[0] == 2
    for wrong in (("--workers", "0"), ("--workers", "2")):
        code, text, err = run("scan", str(archive), *shared, *wrong)
        assert code == 2 and text == "" and err.count("\n") == 1


def test_a_full_disk_is_one_line_and_nothing_is_lost(archive, client, tmp_path, model_path, run, small, monkeypatch):
    out = tmp_path / "out"
    shared = ("--out", str(out), "--scheduler", client.scheduler.address, "--model", model_path)
    replace, n = os.replace, 0

    def full(source, target):
        nonlocal n
        n += 1
        if n == 8:
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    code, _, err = run("scan", str(archive), *shared)
    assert code == 1 and err.count("\n") == 1 and err.endswith(": No space left on device\n")
    monkeypatch.undo()
    run("scan", str(archive), *shared)
    whole = tmp_path / "whole"
    run("scan", str(archive), "--out", str(whole), *shared[2:])
    assert rows(out) == rows(whole) and rows(out, "errors") == rows(whole, "errors")


def test_a_cluster_of_its_own(archive, tmp_path, model_path, run):
    code, text, _ = run(
        "scan", str(archive / "0.wav"), "--out", str(tmp_path / "o"), "--workers", "1", "--model", model_path
    )
    assert code == 0 and "1 recordings" in text


# The output, without a cluster


def heard(*keywords, error=""):
    return Heard([Detection(keyword, 0.9, 1.0, 1.5, 1.6) for keyword in keywords], error, audio_s=3.0)


def test_what_was_not_committed_is_removed(tmp_path):
    model = tones_model()
    first, second, third = (Recording(name, f"/{name}.wav") for name in "abc")
    with Dataset(tmp_path, model, model.thresholds) as dataset:
        assert dataset.is_new(first) and not dataset.is_new(first)
        dataset.commit("p", [first, second], [heard("low tone"), heard("high tone", error="cut off")])
        dataset.commit("q", [third], [heard("low tone", error="gone")])
        assert dataset.summary.hits == {"low tone": 2, "high tone": 1}
    (tmp_path / "sources" / "q.parquet").unlink()  # as if its writer had died before it wrote that
    (tmp_path / "errors" / "x.parquet.part").touch()
    with Dataset(tmp_path, model, model.thresholds) as dataset:
        assert sorted(path.name for path in tmp_path.glob("*/*")) == [
            "p-failed.parquet",
            "p.parquet",
            "p.parquet",
            "p.parquet",
        ]
        assert dataset.has(first) and dataset.has(second) and not dataset.has(third)
        assert (dataset.summary.recordings, dataset.summary.failed) == (1, 1)
        dataset.forget_failed()
        assert not dataset.has(second) and dataset.summary.hits == {"low tone": 1}
        assert sorted(path.name for path in tmp_path.glob("*/*")) == ["p.parquet", "p.parquet"]


def test_a_damaged_output_is_one_line(tmp_path):
    model = tones_model()
    with Dataset(tmp_path, model, model.thresholds) as dataset:
        dataset.commit("p", [Recording("a", "/a\udcff.wav")], [heard("low tone")])
    assert rows(tmp_path)[0]["path"] == "/a\\xff.wav"
    path = tmp_path / "detections" / "p.parquet"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(kws.ConfigError, match=r"p\.parquet: damaged \("):
        Dataset(tmp_path, model, model.thresholds)
    (tmp_path / "scan.json").write_text("{")
    with pytest.raises(kws.ConfigError, match=r"scan\.json: damaged, expected the settings of a scan$"):
        Dataset(tmp_path, model, model.thresholds)


def test_parts_are_named_by_what_is_in_them():
    many = [Recording(str(n), f"/{n}.wav", n_bytes=150_000) for n in range(20)]
    made = list(parts(many, SMALL, 320))
    assert [one for part in made for one in part.recordings] == many
    assert [[len(unit) for unit in part.units] for part in made] == [[2, 2]] * 5
    assert [part.name for part in parts(iter(many), SMALL, 320)] == [part.name for part in made]
    assert len({part.name for part in made}) == 5
    tiny = [Recording(str(n), f"/{n}.wav", n_bytes=1) for n in range(8)]
    assert [[len(unit) for unit in part.units] for part in parts(tiny, SMALL, 320)] == [[3, 3], [2]]


def test_sizes_follow_the_work():
    assert Sizes().for_work(100 << 40, 100) == Sizes()
    few = Sizes().for_work(160 << 20, 2)
    assert few == replace(Sizes(), unit_bytes=5 << 20, part_units=1)
    assert Sizes().for_work(100, 64) == replace(Sizes(), unit_bytes=2 << 20, part_units=1)


def test_progress_on_a_screen():
    class Screen:
        def show(self, *what):
            self.shown = what

    screen, progress = Screen(), Progress()
    for _ in range(4):
        progress.expect(100)
    assert progress.left_s is None
    progress.count(heard("low tone"), 100, True)
    progress.count(heard(error="gone"), 100, True)
    progress.started -= 10
    assert progress.left_s == pytest.approx(10, abs=1)
    _show_event(screen, {"event": "error", "path": "a", "error": "gone"})
    _show_event(screen, progress.event())
    assert screen.shown == ("2 of 4 recordings, 0.0 h, 1 times real time, 1 hits, 1 errors", 0.5, 1.0)
