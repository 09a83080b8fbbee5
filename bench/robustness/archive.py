"""A scan that is killed in every way: after it has gone on, its output is that of an undisturbed one, row by row.

    python bench/robustness/archive.py                 2,000 files
    python bench/robustness/archive.py --files 300
    python bench/robustness/archive.py --write         also write the table in bench/README.md

The archive is made of the demo, with gaps and levels that differ. 5 % of its files are damaged: cut, with bytes
changed, or empty. One folder of it cannot be read; for root, who may read everything, a link to itself stands for it.
One file is long, and is cut into pieces.

The disturbed scan goes through kills (SIGKILL) of two workers, of the client, of client and workers at once, of a
cluster that runs apart, and through a full disk. A full disk is a small one in memory, which only root can mount.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.report import ROOT, markdown, publish
from bench.robustness.writers import fill, small_disk
from bench.speed.archive import RATE, talk
from streamkws.audio import as_int16, encode_flac, read_audio

DAMAGED, LONG_S = 0.05, 3600.0
KINDS = ("detections", "errors", "sources")
MEASURED = ("decode_s", "compute_s")


def make_archive(folder: Path, n_files: int, seconds: float) -> list[str]:
    """Make an archive. Returns what is to be scanned."""
    rng, take = np.random.default_rng(0), as_int16(read_audio(ROOT / "streamkws" / "demo.flac"))
    takes = [take[start : start + 4 * RATE] for start in range(0, take.size, 4 * RATE)]
    damaged = set(rng.choice(n_files, round(DAMAGED * n_files), replace=False).tolist())
    for number in range(n_files):
        data = bytearray(encode_flac(talk(rng, takes, rng.uniform(0.5, 1.5) * seconds)))
        if number in damaged:
            where, kind = len(data) // 3, int(rng.integers(3))
            data = (data[:where], data[:where] + bytes(3000) + data[where + 3000 :], bytearray())[kind]
        path = folder / f"{number % 20:02}" / f"{number:05}.flac"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    soundfile.write(folder / "long.wav", talk(rng, takes, LONG_S), RATE)
    if os.geteuid():
        (folder / "locked").mkdir()
        (folder / "locked" / "a.flac").touch()
        (folder / "locked").chmod(0)
        return [str(folder)]
    (folder / "loop").symlink_to(folder / "loop")
    return [str(folder), str(folder / "loop")]


Act = Callable[["subprocess.Popen[str]"], object]


def scan(sources: list[str], out: Path, *options: str, acts: dict[float, Act] | None = None) -> tuple[int, list[str]]:
    """Scan, and do something when so much of it is done, 0..1. Returns the exit code, and the lines of its errors."""
    command = [sys.executable, "-m", "streamkws", "scan", *sources, "--out", str(out), "--json", *options]
    pipe, waiting = subprocess.PIPE, dict(sorted((acts or {}).items()))
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(command, stdout=pipe, stderr=errors, text=True, start_new_session=True) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            event = json.loads(line)
            if event["event"] == "progress" and waiting and event["done"] >= next(iter(waiting)):
                waiting.pop(next(iter(waiting)))(process)
        process.wait()
        errors.seek(0)
        return process.returncode, errors.read().splitlines()


def workers_of(process: subprocess.Popen[str]) -> list[Any]:
    """The workers of a scan, as psutil's processes."""
    import psutil

    found = []
    for child in psutil.Process(process.pid).children():
        with contextlib.suppress(psutil.Error):  # it may have ended
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child)
    return found


def kill_worker(process: subprocess.Popen[str]) -> None:
    """Kill a worker; Dask starts another one."""
    random.choice(workers_of(process)).kill()


def kill_client(process: subprocess.Popen[str]) -> None:
    """Kill the process that was started; its workers must end by themselves."""
    import psutil

    workers = workers_of(process)
    process.kill()
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive, f"workers live on: {alive}"


def kill_all(process: subprocess.Popen[str]) -> None:
    """Kill client and workers at once."""
    os.killpg(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[tuple[str, Act]]:
    """A cluster of two workers that runs apart: its scheduler's address, and what kills all of it."""
    file, quiet = folder / "scheduler.json", {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    dask = [sys.executable, "-m", "dask"]
    shared = ["--scheduler-file", str(file), "--no-dashboard"]
    started = [
        subprocess.Popen([*dask, *words, *shared], cwd=folder, start_new_session=True, **quiet)  # type: ignore[call-overload]
        for words in (
            ["scheduler", "--host", "127.0.0.1", "--port", "0"],
            ["worker", "--nworkers", "2", "--nthreads", "1"],
        )
    ]

    def kill(_: object = None) -> None:
        for process in started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    try:
        while not file.exists() or not file.read_text().strip():
            time.sleep(0.1)
        yield json.loads(file.read_text())["address"], kill
    finally:
        kill()


def rows(out: Path, kind: str) -> list[tuple[tuple[str, Any], ...]]:
    """The rows of a data set, sorted, without the seconds that were measured."""
    import pyarrow.parquet as pq

    found = [row for path in (out / kind).glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    kept = [tuple((name, value) for name, value in row.items() if name not in MEASURED) for row in found]
    return sorted(kept, key=repr)


def disturb(sources: list[str], out: Path, folder: Path, is_small_disk: bool) -> list[list[str]]:
    """A scan with all that happens to it. Returns what happened, and what the scan did."""
    told = []

    def expect_killed(what: str, code: int) -> None:
        assert code == -signal.SIGKILL, f"{what}: exit code {code}"
        told.append([what, "ended"])

    def expect_line(what: str, code: int, errors: list[str]) -> None:
        assert (code, len(errors)) == (1, 1), f"{what}: exit code {code}, {errors}"
        told.append([what, errors[0].replace(str(out), "hits.parquet")])

    code, _ = scan(sources, out, acts={0.1: kill_worker, 0.25: kill_worker, 0.4: kill_client})
    told.append(["two workers killed", "went on"])
    expect_killed("the client killed", code)
    code, _ = scan(sources, out, acts={0.3: kill_all})
    expect_killed("client and workers killed", code)
    with cluster(folder) as (address, kill):
        code, errors = scan(sources, out, "--scheduler", address, acts={0.3: kill})
    expect_line("a cluster killed", code, errors)
    if is_small_disk:
        code, errors = scan(sources, out, acts={0.3: lambda _: fill(out.parent)})
        (out.parent / "filler").unlink()
        expect_line("the disk full", code, errors)
    code, errors = scan(sources, out)
    expect_line("nothing more", code, errors)
    return told


def main() -> None:
    """Run, print, and write where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=2000, metavar="N", help="of the archive (2,000)")
    parser.add_argument("--seconds", type=float, default=30.0, metavar="S", help="of a file, in the mean (30)")
    parser.add_argument("--json", metavar="FILE", help="write the figures; - is standard output, instead of the table")
    parser.add_argument("--write", action="store_true", help="write the table into bench/README.md")
    arguments = parser.parse_args()
    random.seed(0)
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        (folder / "archive").mkdir()
        sources = make_archive(folder / "archive", arguments.files, arguments.seconds)
        with small_disk(folder) as disk:
            out = (disk or folder) / "disturbed"
            told = disturb(sources, out, folder, disk is not None)
            code, errors = scan(sources, folder / "whole")
            assert code == 1, errors
            both = {kind: (rows(out, kind), rows(folder / "whole", kind)) for kind in KINDS}
        if os.geteuid():
            (folder / "archive" / "locked").chmod(0o755)
    lost = {kind: found != wanted for kind, (found, wanted) in both.items()}
    table = [
        *told,
        *(
            [f"{kind}: {len(wanted):,} rows undisturbed, {len(found):,} disturbed", "other" if lost[kind] else "equal"]
            for kind, (found, wanted) in both.items()
        ),
    ]
    text = markdown(["what happened", "what the scan did"], table, 2) + f"\n\n{arguments.files:,} files."
    publish(arguments, "archive-kills", text, {"told": told, "rows": {kind: len(both[kind][0]) for kind in KINDS}})
    sys.exit(int(any(lost.values())))


if __name__ == "__main__":
    main()
