"""How fast `streamkws scan` goes through an archive, against one core and a plain loop; and what a large cluster does.

    python bench/speed/archive.py --corpus DIR                 200 hours (DIR as `streamkws evaluate` takes it)
    python bench/speed/archive.py --corpus DIR --hours 5       fewer
    python bench/speed/archive.py --corpus DIR --write         also write the tables in bench/README.md

The archive is made of the corpus's recordings, over and over, with gaps and levels that differ: FLAC files of five
minutes. Ten hours of them are made; a list names them as often as the hours take, each time as another recording. All
ways hear the same list. Memory is what is resident, the most at a time.

The cluster of 8 workers waits instead of hearing: as long as a unit of the archive takes. So this machine can hold it,
and what is lost to Dask is seen. How many units a second are too many is found with units that take no time.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.report import markdown, publish
from streamkws import Detector, Model, detect, load_model
from streamkws.audio import as_int16, audio_files, read_audio
from streamkws.scanning.hearing import Heard, Listening, Piece, hear
from streamkws.scanning.listing import Recording, recordings
from streamkws.scanning.planning import Part, Sizes, parts
from streamkws.scanning.running import Work, local_client

I16 = npt.NDArray[np.int16]
RATE = 16_000
MADE_HOURS, FILE_S, POOL_S = 10.0, 300.0, 3600.0
FORMATS = {
    "FLAC, 16 kHz": ("flac", RATE, 1, "PCM_16"),
    "WAV, 16 kHz": ("wav", RATE, 1, "PCM_16"),
    "WAV, 8 kHz, u-law": ("wav", 8000, 1, "ULAW"),
    "MP3, 44.1 kHz": ("mp3", 44_100, 1, "MPEG_LAYER_III"),
    "FLAC, 48 kHz, stereo": ("flac", 48_000, 2, "PCM_16"),
}
"""Suffix, rate, channels and subtype of files whose decoding is timed apart."""
FAR_HOURS, FAR_CORES = 100_000, 100
N_SIMULATED = 8


def pool(folder: Path) -> list[I16]:
    """Recordings below a folder, in random order, an hour at most."""
    paths = audio_files(folder)
    np.random.default_rng(0).shuffle(paths)  # type: ignore[arg-type]
    found, n = [], 0
    for path in paths:
        found.append(as_int16(read_audio(path))[: 60 * RATE])
        n += found[-1].size
        if n >= POOL_S * RATE:
            break
    return found


def talk(rng: np.random.Generator, takes: Sequence[I16], seconds: float) -> I16:
    """So many seconds of recordings, one after the other: 0.2 to 3 s between them, levels from -30 to 0 dB."""
    made, n = [], 0
    while n < seconds * RATE:
        take = takes[rng.integers(len(takes))].astype(np.float32)
        quieter = take * np.float32(10 ** (rng.uniform(-30, 0) / 20))
        gap = rng.normal(0, 3, int(rng.uniform(0.2, 3) * RATE))
        made += [as_int16(quieter, 1), as_int16(gap, 1)]
        n += sum(part.size for part in made[-2:])
    return np.concatenate(made)[: round(seconds * RATE)]


def make_archive(folder: Path, takes: Sequence[I16], hours: float) -> Path:
    """Make an archive. Returns the list of its recordings."""
    rng = np.random.default_rng(1)
    n_made = max(1, round(min(hours, MADE_HOURS) * 3600 / FILE_S))
    for number in range(n_made):
        soundfile.write(folder / f"{number:05}.flac", talk(rng, takes, FILE_S), RATE)
    with open(folder / "list.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "id"])
        for number in range(max(1, round(hours * 3600 / FILE_S))):
            rows.writerow([f"{number % n_made:05}.flac", number])
    return folder / "list.csv"


class Watch:
    """The most memory, in MB, of a process and of its largest child, while it runs. number: of the process."""

    def __init__(self, number: int) -> None:
        import psutil

        self._process = psutil.Process(number)
        self._gone = psutil.Error
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.own_mb = self.worker_mb = 0.0

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(0.5):
            with suppress(self._gone):
                self.own_mb = max(self.own_mb, self._process.memory_info().rss / 1e6)
                for child in self._process.children(recursive=True):
                    self.worker_mb = max(self.worker_mb, child.memory_info().rss / 1e6)


def plain_loop(model: Model, paths: Sequence[str]) -> tuple[float, int]:
    """detect, file after file. Returns seconds, and detections."""
    started = time.perf_counter()
    n = sum(1 for path in paths for _ in detect(path, model))
    return time.perf_counter() - started, n


def scanned(model: str, listed: Path, workers: int) -> tuple[dict[str, Any], Watch]:
    """The summary of a scan with so many workers, and the memory that it took."""
    with tempfile.TemporaryDirectory() as out:
        options = ["--model", model, "--out", out, "--workers", str(workers), "--json"]
        command = [sys.executable, "-m", "streamkws", "scan", str(listed), *options]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process, Watch(process.pid) as watch:
            assert process.stdout is not None
            *_, last = process.stdout
    return json.loads(last), watch


def by_format(model: Model, folder: Path, takes: Sequence[I16]) -> dict[str, tuple[float, float]]:
    """Times real time on one core, and the share of decoding, of ten minutes in each of FORMATS."""
    import soxr

    audio = talk(np.random.default_rng(2), takes, 600)
    detector, found = Detector(model, history_s=0), {}
    for name, (suffix, rate, channels, subtype) in FORMATS.items():
        path = folder / f"format.{suffix}"
        mono = audio if rate == RATE else soxr.resample(audio.astype(np.float32) / 32768, RATE, rate)
        soundfile.write(path, np.stack([mono] * channels, axis=1), rate, subtype=subtype)
        runs = [hear(detector, Piece(Recording(name, str(path)))) for _ in range(3)]
        best = min(runs, key=lambda heard: heard.decode_s + heard.compute_s)
        spent = best.decode_s + best.compute_s
        found[name] = best.audio_s / spent, best.decode_s / spent
    return found


def wait(model: Model, listening: Listening, pieces: Sequence[Piece]) -> list[Heard]:
    """Instead of hearing: wait as many seconds as the first piece's offset says."""
    time.sleep(pieces[0].recording.offset_s or 0)
    return [Heard(audio_s=1.0) for _ in pieces]


def units(n: int, seconds: float) -> Iterator[Part]:
    """Parts of so many units in all, of one recording each, that take so long."""
    made = (Recording(str(number), f"/{number}", seconds, n_bytes=1) for number in range(n))
    return parts(made, Sizes(unit_bytes=1), 320)


@contextmanager
def simulated(n_workers: int) -> Iterator[Callable[[int, float], tuple[float, float]]]:
    """A cluster that waits. Gives a function of the number of units and their seconds: wall and CPU seconds of all."""
    with local_client(n_workers) as client:

        def run(n: int, seconds: float) -> tuple[float, float]:
            work = Work(client, load_model("wakewords"), Listening(), lambda *_: None, lambda *_: None, wait)
            wall, cpu = time.perf_counter(), time.process_time()
            work.run(units(n, seconds))
            return time.perf_counter() - wall, time.process_time() - cpu

        run(4 * n_workers, 0.0)
        yield run


def report(arguments: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """The tables, and what is in them."""
    model, n_cores = load_model(arguments.model), len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        takes = pool(arguments.corpus)
        print(f"making {min(arguments.hours, MADE_HOURS):g} hours ...", file=sys.stderr)
        listed = make_archive(folder, takes, arguments.hours)
        paths = [one.path for one in recordings([listed])]
        list(detect(paths[0], model))
        n_bytes = sum(os.path.getsize(path) for path in paths)
        print("plain loop ...", file=sys.stderr)
        loop_s, n_loop = plain_loop(model, paths)
        print("one worker ...", file=sys.stderr)
        one, one_watch = scanned(arguments.model, listed, 1)
        print("all workers ...", file=sys.stderr)
        every, every_watch = scanned(arguments.model, listed, n_cores)
        formats = by_format(model, folder, takes)
    assert sum(one["hits"].values()) == sum(every["hits"].values()) == n_loop, (one, every, n_loop)
    audio_s, one_speed = every["hours"] * 3600, one["times_real_time"]

    def row(name: str, summary: dict[str, Any], watch: Watch) -> list[str]:
        speed, share = summary["times_real_time"], summary["decode_s"] / (summary["decode_s"] + summary["compute_s"])
        memory = [f"{watch.own_mb:.0f}", f"{watch.worker_mb:.0f}"]
        return [name, f"{speed:.0f}", f"{speed / one_speed:.2f}", f"{100 * share:.0f} %", *memory]

    loop_speed = audio_s / loop_s
    rows = [
        ["`detect` in a loop, one process", f"{loop_speed:.0f}", f"{loop_speed / one_speed:.2f}", "", "", ""],
        row("scan, 1 worker", one, one_watch),
        row(f"scan, {n_cores} workers", every, every_watch),
    ]
    header = ["way", "times real time", "of one worker's", "decoding's share", "client, MB", "largest worker, MB"]
    lines = [
        f"{audio_s / 3600:.1f} h in {len(paths):,} files, {n_loop:,} detections in each way, start-up and writing "
        "included:",
        "",
        markdown(header, rows),
        "",
        markdown(
            ["format, heard on one core", "times real time", "decoding's share"],
            [[name, f"{speed:.0f}", f"{100 * share:.0f} %"] for name, (speed, share) in formats.items()],
        ),
        "",
    ]
    core_speed = audio_s / (every["decode_s"] + every["compute_s"])
    unit_s = Sizes().unit_bytes / n_bytes * audio_s / core_speed
    print("simulated cluster ...", file=sys.stderr)
    with simulated(N_SIMULATED) as run:
        n_units = arguments.rounds * N_SIMULATED
        busy_s, _ = run(n_units, unit_s)
        n_fast = 250 * arguments.rounds
        fast_s, fast_cpu_s = run(n_fast, 0.0)
    used = n_units * unit_s / N_SIMULATED / busy_s
    far_h = FAR_HOURS / (FAR_CORES * core_speed * used)
    n_far = math.ceil(FAR_HOURS * 3600 / audio_s * n_bytes / Sizes().unit_bytes)
    rows = [
        [f"{N_SIMULATED} workers that wait, {n_units} units of {unit_s:.1f} s", f"{100 * used:.1f} % of the time used"],
        ["units that take no time", f"{n_fast / fast_s:.0f} a second"],
        ["scheduler and client", f"{1e3 * fast_cpu_s / n_fast:.2f} ms of CPU for a unit"],
        [f"on paper: {FAR_HOURS:,} h, {FAR_CORES} cores like these", f"{far_h:.2f} h, {n_far:,} units"],
        ["the scheduler then sees", f"{FAR_CORES * used / unit_s:.0f} units a second"],
    ]
    lines.append(markdown(["a larger cluster", ""], rows))
    results = {
        "loop": loop_speed,
        "one": one,
        "all": every,
        "workers": n_cores,
        "formats": formats,
        "unit_s": unit_s,
        "used": used,
        "units_per_s": n_fast / fast_s,
        "far_h": far_h,
    }
    return "\n".join(lines), results


def main() -> None:
    """Measure, print, and write where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", required=True, type=Path, help="corpus folder, such as corpus/dev")
    parser.add_argument("--model", default="wakewords", help="a shipped model's name, or a file (default: wakewords)")
    parser.add_argument("--hours", type=float, default=200.0, metavar="N", help="of the archive (200)")
    parser.add_argument("--rounds", type=int, default=8, metavar="N", help="units for each simulated worker (8)")
    parser.add_argument("--json", metavar="FILE", help="write the figures; - is standard output, instead of the tables")
    parser.add_argument("--write", action="store_true", help="write the tables into bench/README.md")
    arguments = parser.parse_args()
    text, results = report(arguments)
    publish(arguments, "archive", f"{text}\n\n", results)


if __name__ == "__main__":
    main()
