"""Hostile bytes: mutated model files, recordings and talks with the server, each used or refused with one clear line.

    python bench/robustness/fuzz.py --count 20000             so many of each kind, on all cores
    python bench/robustness/fuzz.py --count 20000 --write     also write the table in bench/README.md
    python bench/robustness/fuzz.py --count 1000000 --log runs/fuzz.jsonl    goes on where it was ended
    python bench/robustness/fuzz.py --kind models --seed 7 --count 1    one mutation again, by its number

A mutation changes entries of a model file's configuration (to other numbers, types and names), of its table of tensors,
and bytes and floats of its tensors; or bytes of a recording, most of them in its header, or its length; a talk is as
talks.py says. Each depends on the seed alone. A model that loads hears two seconds of noise, music and silence; its
posteriors must be finite. Lost is what raised another exception, answered NaN, or ended its process: a process works on
some thousand mutations, and is begun again behind one that ended it.
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
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.report import ROOT, markdown, publish
from bench.robustness.mutations import VALUES, changed_bytes, places, put
from bench.robustness.talks import Talks, mutated_talk, talks
from streamkws import AudioError, Detector, ModelFileError, load_model
from streamkws.sources import open_source

MODELS = ("wakewords.f32", "wakewords.w8a8", "wakewords.w4a8")
BATCH = 2000
MEMORY_BYTES = 6 << 30
MEMORY = Path("/dev/shm")
"""Files here are on no disk: to open one for writing took 2.4 ms elsewhere, more than the mutation in it."""
USED, REFUSED = "used", "refused"
FLOATS = (math.nan, math.inf, 1e38, -1e38, 1e30, 1e-44)


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


def try_audio(detector: Detector, path: Path) -> str:
    """USED or REFUSED, or what went wrong."""
    detector.reset()
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


@contextmanager
def hearing_recordings() -> Iterator[Callable[[Path], str]]:
    """try_audio with one detector for all."""
    yield partial(try_audio, Detector(load_model("wakewords.w4a8"), history_s=0))


@contextmanager
def hearing_talks() -> Iterator[Callable[[Path], str]]:
    """Talks with one server for all."""
    with Talks(USED, REFUSED) as heard:
        yield lambda path: heard.attempt(path.read_bytes())


class Kind(NamedTuple):
    """What is mutated.

    originals: its files. mutate: makes another file of one of them, by random numbers. suffix: of its name.
    hearing: gives a function of a file that returns USED, REFUSED, or what went wrong.
    """

    originals: Callable[[], list[bytes]]
    mutate: Callable[[random.Random, bytes], bytes]
    suffix: str
    hearing: Callable[[], AbstractContextManager[Callable[[Path], str]]]


KINDS = {
    "models": Kind(models, mutated_model, ".safetensors", lambda: nullcontext(try_model)),
    "recordings": Kind(recordings, changed_bytes, ".wav", hearing_recordings),
    "talks": Kind(talks, mutated_talk, ".talk", hearing_talks),
}


def work(kind: str, seeds: range) -> None:
    """Try the mutations of some seeds, and print a line of JSON for each before the next one begins."""
    contents, mutate = KINDS[kind].originals(), KINDS[kind].mutate
    with (
        tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder,
        KINDS[kind].hearing() as attempt,
    ):
        path = Path(folder, f"mutated{KINDS[kind].suffix}")
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


class Log:
    """Finished batches, a line of JSON each, so that a run goes on where it was ended.

    path: None for none.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._found: dict[tuple[str, int, int], dict[str, Any]] = {}
        if path is not None and path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                with suppress(ValueError):  # of a line that was being written when the run was ended
                    one = json.loads(line)
                    self._found[one["kind"], one["first"], one["stop"]] = one

    def get(self, kind: str, seeds: range) -> dict[str, Any] | None:
        """What was found of a batch in an earlier run."""
        return self._found.get((kind, seeds.start, seeds.stop))

    def put(self, found: dict[str, Any]) -> None:
        """Note what was found of a batch."""
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(found) + "\n")


def try_batch(kind: str, log: Log, seeds: range) -> dict[str, Any]:
    """Try a batch, unless the log has it: how many were used and refused, and what of each that was lost."""
    if (known := log.get(kind, seeds)) is not None:
        return known
    outcomes = in_a_process(kind, seeds)
    counts = Counter(outcomes.values())
    lost = {str(seed): outcome for seed, outcome in outcomes.items() if outcome not in (USED, REFUSED)}
    found = {"kind": kind, "first": seeds.start, "stop": seeds.stop, USED: counts[USED], REFUSED: counts[REFUSED]}
    log.put(found := found | {"lost": lost})
    return found


def main() -> None:
    """Try, print, and write where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000, metavar="N", help="mutations of each kind (2000)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="number of the first (0)")
    parser.add_argument("--kind", choices=tuple(KINDS), help="only these")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), metavar="N", help="at once (one a core)")
    parser.add_argument("--log", type=Path, metavar="FILE", help="note what is done here, and go on behind it")
    parser.add_argument("--json", metavar="FILE", help="write the figures; - is standard output, instead of the table")
    parser.add_argument("--write", action="store_true", help="write the table into bench/README.md")
    parser.add_argument("--worker", type=int, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.kind, range(*arguments.worker))
        return
    rows, results, log = [], {}, Log(arguments.log)
    last = arguments.seed + arguments.count
    batches = [range(first, min(first + BATCH, last)) for first in range(arguments.seed, last, BATCH)]
    for kind in [arguments.kind] if arguments.kind else KINDS:
        counts: Counter[str] = Counter()
        with ThreadPoolExecutor(arguments.processes) as pool:
            for seeds, found in zip(batches, pool.map(partial(try_batch, kind, log), batches), strict=True):
                counts += Counter({USED: found[USED], REFUSED: found[REFUSED], "lost": len(found["lost"])})
                for seed, outcome in found["lost"].items():
                    print(f"{kind} {seed}: {outcome}", file=sys.stderr)
                print(f"{kind}: {seeds.stop - arguments.seed:,} of {arguments.count:,}", file=sys.stderr)
        rows.append([kind, *(f"{counts[name]:,}" for name in (USED, REFUSED, "lost"))])
        results[kind] = {name: counts[name] for name in (USED, REFUSED, "lost")}
    text = markdown(["mutated", "used", "refused in one line", "lost"], rows) + "\n\n"
    publish(arguments, "fuzz", text, results)
    sys.exit(int(any(counts["lost"] for counts in results.values())))


if __name__ == "__main__":
    main()
