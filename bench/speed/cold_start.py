"""From starting Python to the first detection: seconds and memory of each stage, the first time ever and later.

    python bench/speed/cold_start.py                    with numba, and with a library that is built before
    python bench/speed/cold_start.py --library FOLDER   with that one, which `python -m streamkws.native.build` wrote
    python bench/speed/cold_start.py --write            also write the table in bench/README.md
    python bench/speed/cold_start.py --json FILE        the figures; - is standard output

Every start is a process of its own on one pinned core; medians of several. With numba the first ever compiles the
kernels into an empty cache, where later ones find them. With a library the first ever reads a copy of it that no
process has read, and the package's files from the disk; it ends with an error where it loads numba all the same. What
`import numba` alone takes stands beside it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import streamkws
from bench.report import ROOT, markdown, publish
from bench.speed.speed import new_parser
from streamkws.audio import read_audio
from streamkws.evaluation.latency import as_int16, cut
from streamkws.native.build import build_library
from streamkws.native.library import FOLDER

WORKER = ROOT / "bench" / "peers" / "peer_workers" / "cold.py"
PACKAGE = Path(streamkws.__file__).parent
BLOCK_SAMPLES = 160
WARM_LIBRARY, FIRST_LIBRARY, WARM_NUMBA, FIRST_NUMBA = COLUMNS = (
    "library",
    "first ever",
    "numba",
    "first ever, which compiles",
)
STAGES = {
    "python": "Python starts",
    "numpy": "`import numpy`",
    "import": "`import streamkws`",
    "load": "`load_model`",
    "detector": "`Detector`",
    "detection": "`push` until the first detection",
}
Stages = dict[str, dict[str, float]]
"""By name: "s", seconds from the start of the process to the end of the stage, "cpu_s", those of them on the processor,
and "mb", megabytes resident then."""


def start(model: str, samples: Path, cache: Path, core: int | None, library: Path | None = None) -> Stages:
    """Start Python once. model: "numba" imports that alone. samples: blocks of audio. cache: of kernels that numba
    compiled. library: the folder of those compiled ahead of time, instead."""
    command = [sys.executable, str(WORKER), repr(time.time()), "-" if core is None else str(core), model, str(samples)]
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache), FOLDER: "" if library is None else str(library)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"cold_start.py: {(done.stderr.strip() or f'exit code {done.returncode}').splitlines()[-1]}")
    stages: Stages = json.loads(done.stdout)
    return stages


def medians(runs: Sequence[Stages]) -> Stages:
    """Each stage's median of several starts."""
    return {
        name: {unit: median(run[name][unit] for run in runs) for unit in runs[0][name]}
        for name in (runs[0] if runs else ())
    }


def leave_the_memory(folder: Path) -> None:
    """Have the files of a folder read from the disk the next time, where the system can forget them."""
    for path in folder.rglob("*"):
        if path.is_file() and hasattr(os, "posix_fadvise"):
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def table(columns: dict[str, Stages], numba: Stages) -> str:
    """The stages as a markdown table, two columns for each kind of start. numba: a start that imports it alone."""
    header = ["s since the start, and MB resident", *(cell for name in columns for cell in (name, "MB"))]

    def cells(stage: dict[str, float]) -> list[str]:
        return [f"{stage['s']:.3f}", f"{stage['mb']:.0f}"]

    rows = []
    for name, what in STAGES.items():
        rows.append([what, *(cell for stages in columns.values() for cell in cells(stages[name]))])
        if name == "numpy":
            rows.append(["(`import numba` instead)", *cells(numba["numba"]), *[""] * (2 * len(columns) - 2)])
    return markdown(header, rows)


def main() -> None:
    """Measure, print, and write where asked to."""
    parser = new_parser(__doc__)
    parser.add_argument("--model", default="wakewords", help="a shipped name or a file (wakewords)")
    parser.add_argument("--first", type=int, default=3, metavar="N", help="starts for the first time, of each (3)")
    parser.add_argument("--warm", type=int, default=15, metavar="N", help="later starts, of each (15)")
    parser.add_argument("--library", metavar="FOLDER", help="of a library of compiled kernels, instead of building one")
    arguments = parser.parse_args()
    if arguments.first < 1 or arguments.warm < 1:
        parser.error("expected at least one start of each kind")
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        samples, library = folder / "samples.npy", folder / "library"
        if arguments.library is None:
            print("building a library", file=sys.stderr)
            build_library(library)
        else:
            shutil.copytree(arguments.library, library)
        recording = as_int16(read_audio(PACKAGE / "demo.flac"))
        np.save(samples, np.stack(cut(recording, BLOCK_SAMPLES)))
        runs: dict[str, list[Stages]] = {name: [] for name in (*COLUMNS, "import")}

        def add(name: str, model: str, *rest: Any) -> None:
            runs[name].append(start(model, samples, *rest))

        for number in range(arguments.first):
            print(f"first start {number + 1} of {arguments.first}", file=sys.stderr)
            add(FIRST_NUMBA, arguments.model, folder / f"cache-{number}", arguments.core)
            copy = Path(shutil.copytree(library, folder / f"library-{number}"))
            for used in (copy, PACKAGE):
                leave_the_memory(used)
            add(FIRST_LIBRARY, arguments.model, folder / "none", arguments.core, copy)
        cache = folder / "cache-0"
        for _ in range(arguments.warm):
            add(WARM_NUMBA, arguments.model, cache, arguments.core)
            add(WARM_LIBRARY, arguments.model, folder / "none", arguments.core, library)
            add("import", "numba", cache, arguments.core)
        library_kb = sum(path.stat().st_size for path in library.iterdir()) / 1e3
    results = {name: medians(stages) for name, stages in runs.items()}
    numba = results.pop("import")
    whole = {name: stages["detection"]["s"] - stages["python"]["s"] for name, stages in results.items()}
    on_cpu = {name: stages["detection"]["cpu_s"] for name, stages in results.items()}
    held = {name: stages["detection"]["mb"] for name, stages in results.items()}
    counts = f"Medians of {arguments.warm} warm and {arguments.first} first starts of each on one pinned core."
    text = (
        f"{table(results, numba)}\n\n"
        f"Import, load and first detection together: {whole[WARM_LIBRARY]:.2f} s with the library, "
        f"{whole[FIRST_LIBRARY]:.2f} s the first time ever; {whole[WARM_NUMBA]:.2f} s with numba and a warm cache. "
        f"Of the processor all three take, Python's own start included, {on_cpu[WARM_LIBRARY]:.2f}, "
        f"{on_cpu[FIRST_LIBRARY]:.2f} and {on_cpu[WARM_NUMBA]:.2f} s. "
        f"{held[WARM_LIBRARY]:.0f} and {held[WARM_NUMBA]:.0f} MB are resident then. The library, for every kind of "
        f"CPU, takes {library_kb:.0f} kB. {counts}"
    )
    publish(arguments, "cold-start", text, {**results, "import": numba})


if __name__ == "__main__":
    main()
