"""From starting Python to the first detection: seconds and memory of each stage, the first time ever and later.

    python bench/speed/cold_start.py                print the table
    python bench/speed/cold_start.py --write        also write it in bench/README.md
    python bench/speed/cold_start.py --json FILE    the figures; - is standard output

Every start is a process of its own on one pinned core; medians of several. The first ever compiles the kernels into an
empty cache, where later ones find them. What `import numba` alone takes stands beside it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import streamkws
from bench.report import ROOT, markdown, publish
from bench.speed.speed import new_parser
from streamkws.audio import read_audio
from streamkws.evaluation.latency import as_int16, cut

WORKER = ROOT / "bench" / "peers" / "peer_workers" / "cold.py"
BLOCK_SAMPLES = 160
STAGES = {
    "python": "Python starts",
    "numpy": "`import numpy`",
    "import": "`import streamkws`",
    "load": "`load_model`",
    "detector": "`Detector`",
    "detection": "`push` until the first detection",
}
Stages = dict[str, dict[str, float]]
"""By name: "s", seconds from the start of the process to the end of the stage, and "mb", megabytes resident then."""


def start(model: str, samples: Path, cache: Path, core: int | None) -> Stages:
    """Start Python once. model: "numba" imports that alone. samples: blocks of audio. cache: of compiled kernels."""
    command = [sys.executable, str(WORKER), repr(time.time()), "-" if core is None else str(core), model, str(samples)]
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"cold_start.py: {(done.stderr.strip() or f'exit code {done.returncode}').splitlines()[-1]}")
    stages: Stages = json.loads(done.stdout)
    return stages


def medians(runs: Sequence[Stages]) -> Stages:
    """Each stage's median of several starts."""
    return {
        name: {unit: median(run[name][unit] for run in runs) for unit in ("s", "mb")}
        for name in (runs[0] if runs else ())
    }


def table(first: Stages, warm: Stages, numba: Stages) -> str:
    """The stages as a markdown table. numba: a start that imports it and nothing else."""
    header = ["stage", "warm: s", "s since the start", "resident, MB", "first ever: s", "s since the start"]
    header.append("resident, MB")
    rows, before = [], [0.0, 0.0]
    for name, what in STAGES.items():
        row = [what]
        for index, stages in enumerate((warm, first)):
            end, held = stages[name]["s"], stages[name]["mb"]
            row += [f"{end - before[index]:.3f}", f"{end:.2f}", f"{held:.0f}"]
            before[index] = end
        rows.append(row)
        if name == "numpy":
            end, held = numba["numba"]["s"], numba["numba"]["mb"]
            seconds = end - numba["numpy"]["s"]
            rows.append(["(`import numba` instead)", f"{seconds:.3f}", f"{end:.2f}", f"{held:.0f}", "", "", ""])
    return markdown(header, rows)


def main() -> None:
    """Measure, print, and write where asked to."""
    parser = new_parser(__doc__)
    parser.add_argument("--model", default="wakewords", help="a shipped name or a file (wakewords)")
    parser.add_argument("--first", type=int, default=3, metavar="N", help="starts with an empty cache (3)")
    parser.add_argument("--warm", type=int, default=15, metavar="N", help="starts with a warm cache (15)")
    arguments = parser.parse_args()
    if arguments.first < 1 or arguments.warm < 1:
        parser.error("expected at least one start of each kind")
    with tempfile.TemporaryDirectory() as folder:
        samples, cache = Path(folder) / "samples.npy", Path(folder) / "cache"
        recording = as_int16(read_audio(Path(streamkws.__file__).parent / "demo.flac"))
        np.save(samples, np.stack(cut(recording, BLOCK_SAMPLES)))
        first_runs, warm_runs, numba_runs = [], [], []
        for number in range(arguments.first):
            print(f"first start {number + 1} of {arguments.first}: compiling", file=sys.stderr)
            first_runs.append(start(arguments.model, samples, Path(f"{cache}-{number}"), arguments.core))
        cache = Path(f"{cache}-0")
        for _ in range(arguments.warm):
            warm_runs.append(start(arguments.model, samples, cache, arguments.core))
            numba_runs.append(start("numba", samples, cache, arguments.core))
        cache_mb = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file()) / 1e6
    first, warm, numba = (medians(runs) for runs in (first_runs, warm_runs, numba_runs))
    whole_s = warm["detection"]["s"] - warm["python"]["s"]
    numba_mb = numba["numba"]["mb"] - numba["numpy"]["mb"]
    counts = f"Medians of {arguments.warm} warm and {arguments.first} first starts on one pinned core."
    text = (
        f"{table(first, warm, numba)}\n\n"
        f"Import, load and first detection together, with a warm cache: {whole_s:.2f} s. {warm['detection']['mb']:.0f} "
        f"MB are resident then; of these {numba_mb:.0f} MB are what `import numba` alone adds to NumPy. The cache "
        f"holds {cache_mb:.1f} MB. {counts}"
    )
    results = {"first": first, "warm": warm, "numba": numba, "cache_mb": cache_mb}
    publish(arguments, "cold-start", text, results)


if __name__ == "__main__":
    main()
