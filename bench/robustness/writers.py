"""What is written is whole or absent: writers that are killed, and disks that are full.

    python bench/robustness/writers.py                      600 kills, every bad disk
    python bench/robustness/writers.py --kills 50 --only export --only record
    python bench/robustness/writers.py --write              also write the table in bench/README.md

Kills: a process that writes round after round is ended with SIGKILL at a random moment. Every file that is there must
then be readable and hold all it should; lost is a file that does not. What a killed writer left aside, the next one
must take over.

Disks: each command writes its files once; then the disk is full, may only be read, refuses to let a file grow, or the
folder is gone, and it runs again. It must print one line and fail, and the old files must be as they were. A full disk
and one to read are small ones in memory, which only root can mount; others see those rows left out.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.report import ROOT, markdown, publish
from streamkws import Detector, cli, load_model
from streamkws.audio import as_int16, read_audio
from streamkws.whole import PART

DEMO = ROOT / "streamkws" / "demo.flac"
RECIPE = """
name = "chirps"
[model]
keywords = ["go up", "down"]
n_mels = 20
layers = [{ outputs = 16, taps = 5 }, { outputs = 16, taps = 3, dilation = 4, residual = true }]
[data]
auxiliary = ["words"]
negatives = { speech = 1, words = 1 }
[training]
steps = 60
batch = 8
pool = 16
validate_steps = 5
log_steps = 5
checkpoint_minutes = 0
threads = 1
[export]
bits = [[8, 8], [4, 8]]
target_fa_per_h = 0
rounding_examples = 0
"""
RUN = Path("runs") / "chirps"
WIDTHS = ("--weights", "4", "--activations", "8")
Round = Callable[[Path], int]


class Place:
    """Material that the writers need, in a folder: a corpus, a finished training, sets with segments.csv."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        sys.path.insert(1, str(ROOT / "tests"))
        # imported before processes fork, which then write at once
        import matplotlib.figure  # noqa: F401
        import torch
        from synthetic_corpus import write_part

        import streamkws.evaluation.plots
        import streamkws.training.loop
        import streamkws.voices.mining  # noqa: F401

        torch.set_num_threads(1)
        Detector(load_model("wakewords")).push(np.zeros(16_000, np.int16))
        self.folder = folder
        self.corpus, self.recipe = folder / "corpus", folder / "chirps.toml"
        for seed, part in enumerate(("train", "dev")):
            write_part(self.corpus / part, seed)
        self.recipe.write_text(RECIPE)
        self.sets = [folder / f"set{number}" for number in range(4)]
        for one in self.sets:
            one.mkdir()
            shutil.copy(DEMO, one / "a.flac")
            (one / "segments.csv").write_text("file,start,end,label,speaker,source\na.flac,0,470000,other,,\n")
        self.demo = as_int16(read_audio(DEMO))
        for work in (self.train, self.export):
            if not {"train", "export", "evaluate"}.intersection(names):
                break  # nothing starts from it
            code, errors = quietly(partial(work, folder))
            assert code == 0, errors

    def train(self, out: Path) -> int:
        """Train in a folder, a checkpoint every step."""
        os.chdir(out)
        with contextlib.redirect_stderr(told := io.StringIO()):
            code = cli.main(["train", str(self.recipe), "--corpus", str(self.corpus)])
        sys.stderr.write("".join(line for line in told.getvalue().splitlines(True) if line.startswith("streamkws: ")))
        return code

    def export(self, out: Path) -> int:
        """Write the models of the finished training."""
        from streamkws.training.export import export

        export(self.folder / RUN, out / "models")
        return 0

    def quantize(self, out: Path) -> int:
        """Write a model in other widths."""
        return cli.main(["quantize", "wakewords.f32", *WIDTHS, "--out", str(out / "quantized.safetensors"), "--force"])

    def calibrate(self, out: Path) -> int:
        """Write a model with other thresholds."""
        negatives, path = self.corpus / "dev" / "hiss", out / "calibrated.safetensors"
        return cli.main(["calibrate", "wakewords", "--negatives", str(negatives), "--out", str(path), "--force"])

    def evaluate(self, out: Path) -> int:
        """Write the figures of a model, as JSON and as a picture."""
        model = str(self.folder / "models" / "chirps.w4a8.safetensors")
        names = ("--json", str(out / "figures.json"), "--plot", str(out / "figures.svg"))
        return cli.main(["evaluate", model, str(self.corpus / "dev"), "--snr", "10", *names])

    def plot(self, out: Path) -> int:
        """Write the picture of a recording."""
        return cli.main(["plot", str(DEMO), "--end", "3", "--out", str(out / "trace.png")])

    def mine(self, out: Path) -> int:
        """Write the hard negatives of one set more than there are."""
        folder = out / "mined"
        n_sets = min(len(self.sets), 1 + len(list(folder.glob("*.flac"))))
        sets = [word for one in self.sets[:n_sets] for word in ("--set", str(one))]
        if n_sets == len(self.sets):
            (folder / "segments.csv").unlink(missing_ok=True)  # first: it must name no file that is gone
            shutil.rmtree(folder)
        return cli.main(["mine", str(folder), "--hours", "0", "--foreign", "0", "--processes", "1", *sets])

    def record(self, out: Path) -> int:
        """Write recordings of what is detected, as listen --record does."""
        from streamkws.cli.reactions import Reactions

        detector = Detector(load_model("wakewords"))
        reactions = Reactions(detector, str(out / "heard"), None, True, False)
        for start in range(0, len(self.demo), 16_000):
            reactions.start(detector.push(self.demo[start : start + 16_000]))
            reactions.go_on()
        reactions.close()
        return 0


def quietly(work: Callable[[], int]) -> tuple[int, str]:
    """The exit code of work done in a process of its own, and what it says on standard error."""
    outlet, inlet = os.pipe()
    child = fork(work, inlet)
    os.close(inlet)
    with open(outlet, encoding="utf-8", errors="replace") as errors:
        said = errors.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said


def fork(work: Callable[[], int], errors: int | None = None) -> int:
    """Begin work in a process of its own, without output; return its number."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        os.setpgid(0, 0)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere if errors is None else errors, 2)
        # the old ones go on to think that they write files, where a pipe is
        sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))
        code = work()
    except BaseException as error:
        with contextlib.suppress(BaseException):
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def again_and_again(work: Round, out: Path) -> int:
    """Work without end."""
    while True:
        if code := work(out):
            return code


def broken(path: Path) -> str:
    """What is wrong with a file; "" where it is whole."""
    try:
        if path.suffix == ".safetensors":
            load_model(path)
        elif path.suffix == ".pt":
            import torch

            torch.load(path, weights_only=True)
        elif path.suffix == ".flac":
            if not read_audio(path).size and path.parent.name != "mined":
                return "empty"
        elif path.suffix == ".csv":
            return broken_table(path)
        elif path.suffix in (".json", ".jsonl"):
            lines = path.read_text().splitlines(True)
            if not all(line.endswith("\n") and json.loads(line) for line in lines):
                return "half a line"
        elif path.suffix == ".toml":
            from streamkws.training.recipe_file import load_recipe

            load_recipe(path)
        elif path.suffix == ".svg":
            if not path.read_text().endswith("</svg>\n"):
                return "no end"
        elif path.suffix == ".png":
            if not path.read_bytes().endswith(b"IEND\xaeB`\x82"):
                return "no end"
        else:
            return "a file of no known kind"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def broken_table(path: Path) -> str:
    """What is wrong with a table of mined segments: of each file all rows must be there."""
    from streamkws.corpus import read_segment_rows, read_segments

    rows = read_segment_rows(path.parent)
    if not rows:
        return ""
    read_segments(path.parent)
    counts = {row.file: sum(other.file == row.file for other in rows) for row in rows}
    sizes = {name: read_audio(path.parent / name).size for name in counts}
    wrong = [name for name, count in counts.items() if sizes[name] != count * 64_000]
    return f"some rows are missing of {', '.join(wrong)}" if wrong else ""


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def kills(place: Place, name: str, n_kills: int, rng: random.Random) -> dict[str, int]:
    """Kill a writer so often. Returns how often, the files that were looked at, those left aside, and those lost."""
    work: Round = getattr(place, name)
    found = {"kills": 0, "files": 0, "aside": 0, "lost": 0}
    with tempfile.TemporaryDirectory(dir=place.folder) as text:
        out = Path(text)
        began = time.monotonic()
        code, errors = quietly(partial(work, out))
        assert code == 0, f"{name}: {errors}"
        round_s = time.monotonic() - began
        for _ in range(n_kills):
            child = fork(partial(again_and_again, work, out))
            time.sleep(rng.uniform(0, 1.5 * round_s))
            os.kill(child, signal.SIGKILL)
            with contextlib.suppress(OSError):
                os.killpg(child, signal.SIGKILL)  # and the processes that it started
            found["kills"] += os.WIFSIGNALED(os.waitpid(child, 0)[1])
            for path in files_in(out):
                if path.suffix == PART:
                    found["aside"] += 1
                    continue
                found["files"] += 1
                if wrong := broken(path):
                    found["lost"] += 1
                    print(f"{name}: {path.relative_to(out)}: {wrong}", file=sys.stderr)
            if name == "record":
                shutil.rmtree(out / "heard", ignore_errors=True)
        code, errors = quietly(partial(work, out))
        left = [path for path in files_in(out) if path.suffix == PART]
        if code or left:
            found["lost"] += 1
            print(f"{name}: after the kills: {code} {errors} {left}", file=sys.stderr)
    return found


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path | None]:
    """A disk of 8 MB in memory; None where it cannot be mounted."""
    place = folder / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)]
    try:
        is_mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except OSError:
        is_mounted = False
    try:
        yield place if is_mounted else None
    finally:
        if is_mounted:
            subprocess.run(["umount", "-l", str(place)], check=True)
        shutil.rmtree(place, ignore_errors=True)


def fill(disk: Path) -> None:
    """Leave no room on a disk."""
    with contextlib.suppress(OSError), open(disk / "filler", "wb", buffering=0) as file:
        while file.write(bytes(1 << 12)):
            pass


def limited(work: Round, out: Path) -> int:
    """Work where no file may grow, as on a disk without room."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    return work(out)


COMMANDS = ("quantize", "calibrate", "evaluate", "plot", "mine", "train", "record")
MADE_ANEW = ("mine", "train", "record")
"""Those that make their folder where it is gone."""
GOES_ON = ("record",)
"""What tells of each file and goes on, as listening does."""


def refused(place: Place, name: str, out: Path, trouble: str) -> str:
    """What is wrong with how a command meets trouble; "" where it prints a line, fails and leaves the old files."""
    work: Round = getattr(place, name)
    if name == "record":
        (out / "heard").mkdir(parents=True)
    else:
        code, errors = quietly(partial(work, out))
        if code:
            return f"it fails before: {errors}"
    before = {path: path.read_bytes() for path in files_in(out)}
    if trouble == "full":
        fill(out)
    elif trouble == "read-only":
        subprocess.run(["mount", "-o", "remount,ro", str(out)], check=True)
    if trouble == "gone":
        out.rename(out.with_name("elsewhere"))
    code, errors = quietly(partial(limited, work, out) if trouble == "limit" else partial(work, out))
    if trouble == "read-only":
        subprocess.run(["mount", "-o", "remount,rw", str(out)], check=True)
    if trouble == "gone":
        out.with_name("elsewhere").rename(out)
    (out / "filler").unlink(missing_ok=True)
    lines = errors.splitlines()
    if (code == 0) != (name in GOES_ON) or code not in (0, 1, 2):
        return f"exit code {code}: {errors}"
    if not lines or any(not line.startswith("streamkws: ") for line in lines) or (len(lines) > 1 and code):
        return f"not one line: {errors!r}"
    after = {path: path.read_bytes() for path in files_in(out)}
    if before != after:
        changed = [str(path) for path in {**before, **after} if before.get(path) != after.get(path)]
        return f"other files than before: {', '.join(changed)}"
    return ""


TROUBLES = {
    "full": "a full disk",
    "read-only": "a disk that may only be read",
    "limit": "no file may grow",
    "gone": "the folder is gone",
}


def disks(place: Place, names: Sequence[str]) -> dict[str, dict[str, int]]:
    """Each command on each bad disk: how many there were, and how many were lost."""
    found: dict[str, dict[str, int]] = {}
    for trouble in TROUBLES:
        for name in names:
            if name not in COMMANDS or (trouble == "gone" and name in MADE_ANEW):
                continue
            with tempfile.TemporaryDirectory(dir=place.folder) as text, contextlib.ExitStack() as stack:
                out: Path | None = Path(text) / "out"
                if trouble in ("full", "read-only"):
                    out = stack.enter_context(small_disk(Path(text)))
                else:
                    (Path(text) / "out").mkdir()
                if out is None:
                    break
                counts = found.setdefault(trouble, {"commands": 0, "lost": 0})
                counts["commands"] += 1
                if wrong := refused(place, name, out, trouble):
                    counts["lost"] += 1
                    print(f"{name}, {TROUBLES[trouble]}: {wrong}", file=sys.stderr)
    return found


KILLED = {
    "export": "export", "quantize": "quantize", "calibrate": "calibrate", "record": "listen --record",
    "mine": "mine", "train": "train", "evaluate": "evaluate --json --plot",
}  # fmt: skip
SLOWER = {"train": 10, "evaluate": 10}
"""Writers whose rounds take seconds have the nth part of the kills."""
WRITERS = tuple(dict.fromkeys([*KILLED, *COMMANDS]))


def main() -> None:
    """Try, print, and write where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=600, metavar="N", help="of all writers together (600)")
    parser.add_argument("--only", action="append", choices=WRITERS, help="this writer; may be repeated")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the moments (0)")
    parser.add_argument("--json", metavar="FILE", help="write the figures; - is standard output, instead of the table")
    parser.add_argument("--write", action="store_true", help="write the table into bench/README.md")
    arguments = parser.parse_args()
    rng, chosen = random.Random(arguments.seed), arguments.only or WRITERS
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as text:
        place = Place(Path(text), chosen)
        share = arguments.kills // len([name for name in KILLED if name in chosen and name not in SLOWER] or KILLED)
        results["kills"] = {
            name: kills(place, name, share // SLOWER.get(name, 1), rng) for name in KILLED if name in chosen
        }
        results["disks"] = disks(place, chosen)
    rows = [
        [
            f"`{KILLED[name]}` killed",
            f"{one['kills']:,} times",
            f"{one['files']:,} files whole, {one['aside']:,} writes cut",
            str(one["lost"]),
        ]
        for name, one in results["kills"].items()
    ]
    rows += [
        [TROUBLES[name], f"{one['commands']} commands", "one line, the old files as they were", str(one["lost"])]
        for name, one in results["disks"].items()
    ]
    publish(arguments, "writers", markdown(["tried", "how often", "expected", "lost"], rows, 3) + "\n\n", results)
    sys.exit(int(any(one["lost"] for part in results.values() for one in part.values())))


if __name__ == "__main__":
    main()
