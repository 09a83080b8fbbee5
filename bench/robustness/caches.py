"""Many processes that start at once and share one folder for compiled code, in whatever state that is.

    python bench/robustness/caches.py                       24 processes
    python bench/robustness/caches.py --processes 4 --state damaged
    python bench/robustness/caches.py --library FOLDER      also with a library of compiled kernels and no cache
    python bench/robustness/caches.py --write               also write the table in bench/README.md

All must find what the demo says. Damaged is a cache with each file cut, of random bytes, or with a byte changed, but
for those of the three kernels that take seconds to compile, unless --all is given. Where each process has to compile
everything, 13 s on a core, a quarter of them start. A full disk and one to read are small ones in memory, which only
root can mount; others see those rows left out. With a library, which `python -m streamkws.native.build FOLDER` writes,
a process that compiles anything counts as lost. From a folder that cannot be written numba turns to the one beside the
sources, or to the user's.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.report import ROOT, markdown, publish
from bench.robustness.writers import DEMO, files_in, fill, small_disk
from streamkws.native.library import FOLDER

CACHES = {
    "library": "none, and a library of compiled kernels instead",
    "empty": "empty",
    "damaged": "files cut, of random bytes, or with a byte changed",
    "read-only": "on a disk that may only be read",
    "full": "on a full disk",
}
LONG_BYTES = 100_000
"""Kernels with more compiled code take seconds to compile."""
COMPILING = ("empty", "full")
"""States in which every process compiles everything."""
DETECT = (sys.executable, "-m", "streamkws", "detect", "--json", str(DEMO))


def start_at_once(cache: Path, n_processes: int, library: str = "") -> tuple[list[tuple[int, str, str]], float]:
    """What so many processes that share a cache say: exit code, standard output and error. And the seconds taken."""
    environment, began = {**os.environ, "NUMBA_CACHE_DIR": str(cache), FOLDER: library}, time.monotonic()
    pipe = subprocess.PIPE
    processes = [
        subprocess.Popen(DETECT, env=environment, cwd=ROOT, stdout=pipe, stderr=pipe, text=True)
        for _ in range(n_processes)
    ]
    said = [process.communicate() for process in processes]
    told = [(process.returncode, *texts) for process, texts in zip(processes, said, strict=True)]
    return told, time.monotonic() - began


def kernel_of(path: Path) -> str:
    """The kernel that a file of a cache is of."""
    return path.name.partition("-")[0]


def damage(cache: Path, rng: random.Random, with_long: bool) -> int:
    """Damage each file of a cache in one of three ways. Returns how many."""
    files = [path for path in files_in(cache) if path.suffix in (".nbi", ".nbc")]
    long = {kernel_of(path) for path in files if path.stat().st_size > LONG_BYTES}
    if not with_long:
        files = [path for path in files if kernel_of(path) not in long]
    for path in files:
        content, kind = bytearray(path.read_bytes()), rng.randrange(3)
        if kind == 0:
            content = content[: rng.randrange(len(content))]
        elif kind == 1:
            content = bytearray(rng.randbytes(len(content)))
        else:
            content[rng.randrange(len(content))] ^= 1 + rng.randrange(255)
        path.write_bytes(content)
    return len(files)


def caches(
    folder: Path,
    n_processes: int,
    states: tuple[str, ...],
    rng: random.Random,
    with_long: bool = False,
    library: str = "",
) -> dict[str, dict[str, Any]]:
    """Processes that share a cache in each state: how many, how many were lost, and the seconds that they took.

    library: the folder of the library that those of the state "library" run.
    """
    found = {}
    warm = folder / "cache"
    expected = start_at_once(warm, 1)[0][0][1]
    assert expected.count("\n") == 6, expected
    for state in states:
        cache, n = folder / "of" / state, max(1, n_processes // 4) if state in COMPILING else n_processes
        with contextlib.ExitStack() as stack:
            if state == "damaged":
                shutil.copytree(warm, cache)
                damage(cache, rng, with_long)
            elif state not in ("empty", "library"):
                disk = stack.enter_context(small_disk(folder))
                if disk is None:
                    continue
                cache = disk
                if state == "full":
                    fill(disk)
                else:
                    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
            told, seconds = start_at_once(cache, n, *([library] if state == "library" else []))
        if state == "library" and cache.exists():
            told = [(1, "", f"{len(files_in(cache))} files of compiled code were written")] * n
        lost = [one for one in told if one[0] or one[1] != expected or "Traceback" in one[2]]
        for code, _, errors in lost:
            print(f"cache {state}: exit code {code}: {errors[-300:]}", file=sys.stderr)
        found[state] = {"processes": n, "lost": len(lost), "seconds": round(seconds)}
    return found


def main() -> None:
    """Try, print, and write where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=24, metavar="N", help="that share a cache (24)")
    parser.add_argument("--state", action="append", choices=tuple(CACHES), help="only in this one; may be repeated")
    parser.add_argument("--all", action="store_true", help="also damage the kernels that take long to compile")
    parser.add_argument("--library", metavar="FOLDER", help="of a library of compiled kernels, for one state more")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the damage (0)")
    parser.add_argument("--json", metavar="FILE", help="write the figures; - is standard output, instead of the table")
    parser.add_argument("--write", action="store_true", help="write the table into bench/README.md")
    arguments = parser.parse_args()
    states, rng = tuple(arguments.state or CACHES), random.Random(arguments.seed)
    library = "" if arguments.library is None else str(Path(arguments.library).resolve())
    if not library:
        states = tuple(state for state in states if state != "library")
    with tempfile.TemporaryDirectory() as text:
        results = caches(Path(text), arguments.processes, states, rng, arguments.all, library)
    rows = [
        [CACHES[state], str(one["processes"]), f"{one['seconds']} s", str(one["lost"])]
        for state, one in results.items()
    ]
    text = markdown(["the cache", "processes at once", "until the last", "lost"], rows) + "\n\n"
    publish(arguments, "caches", text, results)
    sys.exit(int(any(one["lost"] for one in results.values())))


if __name__ == "__main__":
    main()
