"""Hostile files: mutated model files and recordings, each of which must be used or refused with one clear line.

    python bench/robustness/fuzz.py --count 20000             so many of each kind, on all cores
    python bench/robustness/fuzz.py --count 20000 --write     also write the table in bench/README.md
    python bench/robustness/fuzz.py --kind models --seed 7 --count 1    one mutation again, by its number

A mutation changes entries of a model file's configuration (to other numbers, types and names), of its table of tensors,
and bytes and floats of its tensors; or bytes of a recording, most of them in its header, or its length. Each depends on
the seed alone. A model that loads hears two seconds of noise, music and silence; its posteriors must be finite. Lost is
what raised another exception, answered NaN, or ended its process: a process works on 200 mutations at a time.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import struct
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.report import ROOT, markdown, publish
from streamkws import AudioError, Detector, ModelFileError, load_model
from streamkws.sources import open_source

MODELS = ("wakewords.f32", "wakewords.w8a8", "wakewords.w4a8")
BATCH = 200
MEMORY_BYTES = 6 << 30
USED, REFUSED = "used", "refused"
VALUES: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2, 3, 7, 1.5, 4096, 65536, 1_000_000, 2**31, 2**33, 2**63, 2**64, 10**30, 1e9, 1e308,
    -1e308, 1e-320, math.nan, math.inf, "", "x", "\x00", "../../x", "\x1b[2J", "\ud800", [], {}, [1], [[]], {"a": 1},
)  # fmt: skip
FLOATS = (math.nan, math.inf, 1e38, -1e38, 1e30, 1e-44)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of everything in a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inside in items:
        yield from places(inside, (*path, key))
    if path:
        yield path


def put(value: Any, path: tuple[Any, ...], new: Any) -> None:
    """Replace what is at a path."""
    for key in path[:-1]:
        value = value[key]
    value[path[-1]] = new


def mutated_model(rng: random.Random, content: bytes) -> bytes:
    """A model file with one to three changes."""
    n = int.from_bytes(content[:8], "little")
    table, body = json.loads(content[8 : 8 + n]), bytearray(content[8 + n :])
    header = json.loads(table["__metadata__"]["streamkws"])
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        kind = rng.random()
        if kind < 0.6:
            put(header, rng.choice(list(places(header))), rng.choice(VALUES))
        elif kind < 0.75:
            put(table, rng.choice([path for path in places(table) if path[0] != "__metadata__"]), rng.choice(VALUES))
        elif kind < 0.9:
            for _ in range(rng.choice((1, 10, 1000))):
                body[rng.randrange(len(body))] = rng.choice((0, 127, 128, 255, rng.randrange(256)))
        else:
            place = rng.randrange(len(body) // 4) * 4
            body[place : place + 4] = struct.pack("<f", rng.choice(FLOATS))
    table["__metadata__"]["streamkws"] = json.dumps(header)
    head = json.dumps(table).encode()
    return struct.pack("<Q", len(head)) + head + bytes(body)


def mutated_audio(rng: random.Random, content: bytes) -> bytes:
    """A recording with some of its bytes changed, cut, doubled or moved."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 5))):
        kind, reach = rng.random(), min(len(data), rng.choice((64, 64, 512, len(data))))
        place = rng.randrange(max(1, reach))
        if kind < 0.6 and data:
            for _ in range(rng.choice((1, 4))):
                data[min(len(data) - 1, place + rng.randrange(4))] = rng.choice((0, 255, 127, 128, rng.randrange(256)))
        elif kind < 0.75:
            del data[place : place + rng.choice((1, 4, 100, len(data)))]
        elif kind < 0.9:
            data[place:place] = data[place : place + rng.choice((1, 4, 100))]
        else:
            data = data[: rng.randrange(len(data) + 1)]
    return bytes(data)


def try_model(path: Path) -> str:
    """USED or REFUSED, or what went wrong."""
    try:
        model = load_model(path)
    except ModelFileError as error:
        return REFUSED if "\n" not in str(error) else f"an error of several lines: {error!r}"
    rng = np.random.default_rng(0)
    detector = Detector(model, history_s=0)
    for samples in (
        rng.standard_normal(12_000) * 3000,
        32_767 * np.sign(np.sin(np.arange(12_000) / 9)),
        np.zeros(8000),
    ):
        detector.push(samples.astype(np.int16))
        if not np.isfinite(detector.levels()).all():
            return "posteriors that are not finite"
    detector.flush()
    return USED


def try_audio(path: Path) -> str:
    """USED or REFUSED, or what went wrong."""
    detector = Detector(load_model("wakewords.w4a8"), history_s=0)
    n_samples = 0
    try:
        with open_source(path) as blocks:
            for block in blocks:
                n_samples += len(block)
                detector.push(block)
                if n_samples > 1 << 26:
                    return "more than an hour of audio from a small file"
    except AudioError as error:
        return REFUSED if "\n" not in str(error) else f"an error of several lines: {error!r}"
    return USED


def recordings() -> list[bytes]:
    """The demo as wav, flac, ogg and mp3, and in stereo at 44.1 kHz."""
    import soundfile

    samples, rate = soundfile.read(ROOT / "streamkws" / "demo.flac", dtype="int16", frames=32_000)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for name, audio, hz in (
            ("a.wav", samples, rate), ("a.flac", samples, rate), ("a.ogg", samples, rate), ("a.mp3", samples, rate),
            ("b.wav", np.stack([samples, samples], 1), 44_100), ("c.aiff", samples, 8000),
        ):  # fmt: skip
            path = Path(folder, name)
            soundfile.write(path, audio, hz)
            found.append(path.read_bytes())
    return found


def models() -> list[bytes]:
    """The shipped model files."""
    return [(ROOT / "models" / f"{name}.safetensors").read_bytes() for name in MODELS]


KINDS: dict[
    str, tuple[Callable[[], list[bytes]], Callable[[random.Random, bytes], bytes], Callable[[Path], str], str]
] = {
    "models": (models, mutated_model, try_model, ".safetensors"),
    "recordings": (recordings, mutated_audio, try_audio, ".wav"),
}


def work(kind: str, seeds: range) -> None:
    """Try the mutations of some seeds, and print a line of JSON for each before the next one begins."""
    originals, mutate, attempt, suffix = KINDS[kind]
    contents = originals()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"mutated{suffix}")
        for seed in seeds:
            rng = random.Random(f"{kind} {seed}")
            path.write_bytes(mutate(rng, rng.choice(contents)))
            try:
                outcome = attempt(path)
            except BaseException as error:
                outcome = f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"
            print(json.dumps([seed, outcome]), flush=True)


def in_a_process(kind: str, seeds: range) -> dict[int, str]:
    """The outcome of each seed, tried in a process of its own, which is begun again behind one that ended it."""
    outcomes: dict[int, str] = {}
    while len(outcomes) < len(seeds):
        rest = range(seeds.start + len(outcomes), seeds.stop)
        command = [sys.executable, __file__, "--kind", kind, "--worker", str(rest.start), str(rest.stop)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=_limit_memory)
        for line in done.stdout.splitlines():
            seed, outcome = json.loads(line)
            outcomes[seed] = outcome
        if done.returncode and len(outcomes) < len(seeds):
            outcomes[seeds.start + len(outcomes)] = f"the process ended with {done.returncode}: {done.stderr[-150:]}"
    return outcomes


def _limit_memory() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


def main() -> None:
    """Try, print, and write where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000, metavar="N", help="mutations of each kind (2000)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="number of the first (0)")
    parser.add_argument("--kind", choices=tuple(KINDS), help="only these")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), metavar="N", help="at once (one a core)")
    parser.add_argument("--json", metavar="FILE", help="write the figures; - is standard output, instead of the table")
    parser.add_argument("--write", action="store_true", help="write the table into bench/README.md")
    parser.add_argument("--worker", type=int, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.kind, range(*arguments.worker))
        return
    rows, results, n_lost = [], {}, 0
    for kind in [arguments.kind] if arguments.kind else KINDS:
        last = arguments.seed + arguments.count
        batches = [range(first, min(first + BATCH, last)) for first in range(arguments.seed, last, BATCH)]
        with ThreadPoolExecutor(arguments.processes) as pool:
            parts = list(pool.map(partial(in_a_process, kind), batches))
        found = {seed: outcome for part in parts for seed, outcome in part.items()}
        counts = Counter(outcome if outcome in (USED, REFUSED) else "lost" for outcome in found.values())
        for seed, outcome in found.items():
            if outcome not in (USED, REFUSED):
                print(f"{kind} {seed}: {outcome}", file=sys.stderr)
        n_lost += counts["lost"]
        rows.append([kind, *(f"{counts[name]:,}" for name in (USED, REFUSED, "lost"))])
        results[kind] = dict(counts)
    text = markdown(["mutated", "used", "refused in one line", "lost"], rows) + "\n\n"
    publish(arguments, "fuzz", text, results)
    sys.exit(int(n_lost > 0))


if __name__ == "__main__":
    main()
