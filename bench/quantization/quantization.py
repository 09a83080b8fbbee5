"""The paper's claims on real recordings: accuracy and bytes at every bit width, after training and quantization-aware.

    python bench/quantization/quantization.py --corpus DIR    train what is missing, print the tables (hours on 2 cores)
    python bench/quantization/quantization.py --corpus DIR --write    also bench/README.md, quantization.json and .svg
    python bench/quantization/quantization.py                 the tables of quantization.json

Every training is a job of its own, kept in runs/quantization; another call continues where the last one stopped.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.quantization.quantization_report import MEASURES, PLACES, Record, Results, draw, report
from bench.quantization.quantization_tasks import FRONT_END, TASKS, Cache, full_config, layers, make_cache, read_cache
from bench.report import ROOT, machine, write_section
from bench.research import cached_training
from streamkws import Model
from streamkws.model import ModelConfig
from streamkws.training.checkpoint import save_checkpoint
from streamkws.training.fake_quant import QuantizationConfig
from streamkws.training.network import KeywordNetwork
from streamkws.training.pool import perturbed
from streamkws.training.recipe import TrainingConfig

RUNS = Path("runs") / "quantization"
FIGURES = ROOT / "bench" / "quantization" / "quantization.json"
FULL = TrainingConfig(steps=3000, batch=64, learning_rate=3e-3, warmup_steps=150, average_decay=0.995)
LONG = replace(FULL, steps=20_000, warmup_steps=500, average_decay=0.999)
LONG_EXAMPLES = 230_400
"""Four times as many examples as in the other trainings."""
AWARE = TrainingConfig(steps=500, batch=64, learning_rate=5e-4, warmup_steps=25, average_decay=0.98)
SEEDS = (1, 2, 3)
CALIBRATION_EXAMPLES = 512
KEYS = ("task", "network", "size", "seed", "variant")
"""The entries that identify a record."""


@dataclass(frozen=True)
class Variant:
    """A way to quantize a network.

    weights, activations: bits; 32 for float32. weight_ranges, activation_ranges, gradient: as in QuantizationConfig.
    ends: whether the first and the last layer are w8a8, whatever the others are.
    own_output: with static ranges, whether the output vector keeps its own in every frame.
    gentle: whether the aware training has a fifth of the learning rate.
    training: "full" (full precision from the first step), "after" (quantized without retraining), "aware" (retrained
        from the full-precision network), "longer" (that network trained on as long as "aware", in full precision),
        "scratch" (aware from the first step), "long" (full precision, LONG), "after long" (quantized after that).
    """

    weights: int = 32
    activations: int = 32
    weight_ranges: str = "column"
    activation_ranges: str = "frame"
    training: str = "after"
    gradient: str = "identity"
    ends: bool = False
    gentle: bool = False
    own_output: bool = False

    @property
    def bits(self) -> str:
        """The widths: f32, w4a8, ..."""
        return "f32" if self.weights == 32 else f"w{self.weights}a{self.activations}"

    @property
    def name(self) -> str:
        """The variant as a file name."""
        options = ((self.weight_ranges, "column"), (self.activation_ranges, "frame"), (self.gradient, "identity"))
        parts = [self.bits, self.training.replace(" ", "-"), *(value for value, usual in options if value != usual)]
        flags = (("ends8", self.ends), ("gentle", self.gentle), ("output", self.own_output))
        parts += [name for name, wanted in flags if wanted]
        return "-".join(parts)

    @property
    def quantization(self) -> QuantizationConfig:
        """The variant as the trainer knows it; from a trained network, batch normalization is frozen all along."""
        return QuantizationConfig(
            self.weights,
            self.activations,
            freeze_share={"full": 1.0, "long": 1.0, "scratch": 0.5}.get(self.training, 0.0),
            weight_ranges=self.weight_ranges,
            activation_ranges=self.activation_ranges,
            gradient=self.gradient,
        )

    def widen(self, config: ModelConfig) -> ModelConfig:
        """A full-precision configuration in the variant's widths."""
        layers = list(self.quantization.apply(config.layers))
        if self.ends:
            for index in (0, -1):
                layers[index] = replace(layers[index], weight_bits=8, activation_bits=8)
        return replace(config, layers=tuple(layers))


FULL_PRECISION = Variant(training="full")
LONG_VARIANTS = (Variant(training="long"), Variant(8, 8, training="after long"), Variant(4, 8, training="after long"))
AFTER = (
    *(Variant(bits, 8) for bits in (8, 7, 6, 5, 4, 3, 2)),
    Variant(8, 4),
    Variant(4, 4),
    *(
        Variant(weights, activations, weight_ranges, activation_ranges)
        for weights, activations in ((8, 8), (4, 8), (8, 4), (4, 4))
        for weight_ranges, activation_ranges in (("matrix", "frame"), ("column", "static"), ("matrix", "static"))
    ),
    *(Variant(weights, 4, activation_ranges="static", own_output=True) for weights in (8, 4)),
    *(Variant(weights, activations, ends=True) for weights, activations in ((4, 8), (3, 8), (2, 8), (4, 4))),
)
AWARE_ALL = Variant(4, 8, training="aware")
AWARE_100 = (
    Variant(training="longer"),
    Variant(3, 8, training="aware"),
    Variant(4, 4, training="aware"),
    Variant(2, 8, training="aware"),
)
AWARE_GENTLE = Variant(4, 8, training="aware", gentle=True)
AWARE_OPTIONS = (
    Variant(4, 8, training="aware", gradient="ranges"),
    Variant(2, 8, training="aware", gradient="ranges"),
    Variant(4, 8, weight_ranges="matrix", training="aware"),
    Variant(2, 8, training="aware", ends=True),
    Variant(4, 4, training="aware", ends=True),
)
"""For the dilated network, with one seed."""
SCRATCH = Variant(4, 8, training="scratch")


@dataclass(frozen=True)
class Job:
    """One training, and its variants. variants: [0] is trained (or "full"), the others derive from it."""

    task: str
    network: str
    size: int
    seed: int
    variants: tuple[Variant, ...]

    @property
    def folder(self) -> Path:
        """Where the results of a network and seed are kept."""
        return RUNS / self.task / f"{self.network.replace(' ', '-')}-{self.size}k-seed{self.seed}"

    @property
    def checkpoint(self) -> Path:
        """The trained weights."""
        return self.folder / f"{self.variants[0].name}.pt"

    @property
    def needs(self) -> Path | None:
        """The checkpoint that the training starts from, if any."""
        fresh = self.variants[0].training in ("full", "scratch", "long")
        return None if fresh else self.folder / f"{FULL_PRECISION.name}.pt"

    @property
    def examples(self) -> tuple[Path, int]:
        """The folder of the training examples, and their number."""
        if self.variants[0].training == "long":
            return RUNS / f"{self.task}-long", LONG_EXAMPLES
        return RUNS / self.task, TASKS[self.task].n_examples

    @property
    def done(self) -> bool:
        """Whether all has been trained and measured."""
        return all((self.folder / f"{variant.name}.json").exists() for variant in self.variants)


def jobs() -> list[Job]:
    """All jobs, the most important first."""
    places, dilated = PLACES, [place for place in PLACES if place[1] == "dilated"]
    queue = [Job(*place, 100, 1, (FULL_PRECISION, *AFTER)) for place in places]
    queue += [Job(*place, 100, 1, (AWARE_ALL,)) for place in places]
    queue += [Job(*place, 100, seed, (FULL_PRECISION, *AFTER)) for seed in SEEDS[1:] for place in places]
    queue += [Job(*place, 100, seed, (AWARE_ALL,)) for seed in SEEDS[1:] for place in places]
    queue += [Job(*place, 100, 1, (variant,)) for variant in AWARE_100 for place in places]
    queue += [Job(*place, 100, 1, (variant,)) for variant in AWARE_OPTIONS for place in dilated]
    queue += [
        Job(*place, size, 1, (FULL_PRECISION, Variant(8, 8), Variant(4, 8))) for size in (50, 250) for place in places
    ]
    queue += [Job(*place, size, 1, (AWARE_ALL,)) for size in (50, 250) for place in places]
    queue += [Job(*place, 100, seed, (variant,)) for variant in AWARE_100 for seed in SEEDS[1:] for place in places]
    queue += [Job(*place, 100, seed, (AWARE_GENTLE,)) for seed in SEEDS for place in places]
    queue += [Job(*place, 100, 1, (SCRATCH,)) for place in dilated]
    queue += [Job("commands", "dilated", 250, 1, LONG_VARIANTS)]
    return queue


def wanted(only: str) -> list[Job]:
    """The jobs whose checkpoint's path holds a text."""
    return [job for job in jobs() if only in str(job.checkpoint)]


def work(corpus: Path, only: str) -> None:
    """Do jobs until none is left, beside other processes that do the same."""
    torch.set_num_threads(1)
    tasks = {name: make(corpus) for name, make in TASKS.items()}
    while True:
        pending = [job for job in wanted(only) if not job.done]
        ready = [job for job in pending if job.needs is None or job.needs.exists()]
        job = next((job for job in ready if claim(job)), None)
        if job is None:
            if not any(locked(job) for job in pending):
                return
            time.sleep(2.0)
            continue
        try:
            run(job, tasks[job.task])
        finally:
            lock(job).unlink()


def lock(job: Job) -> Path:
    """The file that says which process does a job."""
    return job.checkpoint.with_suffix(".lock")


def locked(job: Job) -> bool:
    """Whether a process that still lives does this job."""
    try:
        os.kill(int(lock(job).read_text()), 0)
    except (OSError, ValueError):
        return False
    return True


def claim(job: Job) -> bool:
    """Take a job, unless another process has it."""
    job.folder.mkdir(parents=True, exist_ok=True)
    if lock(job).exists() and not locked(job):
        lock(job).unlink(missing_ok=True)
    try:
        with lock(job).open("x") as file:
            file.write(str(os.getpid()))
    except FileExistsError:
        return False
    return True


def run(job: Job, task: Any) -> None:
    """Train a job's network, unless it is there, and measure what has not been measured."""
    cache = read_cache(job.examples[0])
    first = job.variants[0]
    if not job.checkpoint.exists():
        began = time.monotonic()
        network = new_network(job, task, cache)
        settings = replace(AWARE if job.needs else LONG if first.training == "long" else FULL, seed=job.seed)
        if first.gentle:
            settings = replace(settings, learning_rate=settings.learning_rate / 5)
        unfinished = job.checkpoint.with_suffix(".unfinished")
        with (job.folder / f"{first.name}.log").open("a") as log:
            trained = train(task, network, cache, settings, unfinished, lambda text: print(text, file=log, flush=True))
        entries = {
            "state": trained.state_dict(),
            "training": {
                "steps": settings.steps,
                "minutes": round((time.monotonic() - began) / 60, 2),
                "date": date.today().isoformat(),
            },
        }
        save_checkpoint(entries, job.checkpoint)
        unfinished.unlink(missing_ok=True)
    entries = torch.load(job.checkpoint, map_location="cpu", weights_only=True)
    for variant in job.variants:
        path = job.folder / f"{variant.name}.json"
        if path.exists():
            continue
        network = quantized_network(job, task, cache, variant, entries["state"])
        model = network.to_model()
        listen = network.posteriors if variant.activation_ranges == "static" else runtime(model)
        figures = {
            "task": job.task,
            "network": job.network,
            "size": job.size,
            "seed": job.seed,
            "variant": variant.name,
            "bits": variant.bits,
            **task.measure(model, listen),
            "training": entries["training"],
        }
        key, what = MEASURES[job.task]
        cached_training.write(path, json.dumps(figures))
        print(
            f"{job.folder.parent.name}/{job.folder.name} {variant.name} {what} {figures[key]:.4f}",
            file=sys.stderr,
            flush=True,
        )


def quantized_network(
    job: Job, task: Any, cache: Cache, variant: Variant, state: dict[str, torch.Tensor]
) -> KeywordNetwork:
    """A trained network in a variant's widths, ready for use; static ranges are calibrated on training examples."""
    config = full_config(task, job.network, job.size, {"name": f"{job.task}-{job.size}k"})
    network = KeywordNetwork(variant.widen(config), cache.n_outputs - task.n_outputs, variant.quantization)
    network.load_state_dict(state)
    network.eval()
    if variant.activation_ranges == "static":
        features = torch.from_numpy(cache.block(np.random.default_rng(0), CALIBRATION_EXAMPLES)[0])
        network.calibrate(features, output=not variant.own_output)
    return network


def new_network(job: Job, task: Any, cache: Cache) -> KeywordNetwork:
    """The network that a job's training starts from."""
    variant = job.variants[0]
    torch.manual_seed(job.seed)
    if job.needs:
        state = torch.load(job.needs, map_location="cpu", weights_only=True)["state"]
        return quantized_network(job, task, cache, variant, state)
    config = full_config(task, job.network, job.size, {})
    network = KeywordNetwork(variant.widen(config), cache.n_outputs - task.n_outputs, variant.quantization)
    network.normalize_by(cache.block(np.random.default_rng(0), 2048)[0])
    return network


def runtime(model: Model) -> Any:
    """A function from the features of a recording to the posteriors that the runtime's kernels give."""
    state = model.new_state()

    def listen(features: np.ndarray) -> np.ndarray:
        state.reset()
        return state.push(features)

    return listen


def train(
    task: Any,
    network: KeywordNetwork,
    cache: Cache,
    settings: TrainingConfig,
    unfinished: Path,
    say: Callable[[str], None],
) -> KeywordNetwork:
    """Train on a task's cached examples; unfinished, say, the result: as for cached_training.train."""
    fill, floor = network.feature_mean.numpy().copy(), float(np.log(FRONT_END.energy_floor))

    def loss_of(rng: np.random.Generator) -> torch.Tensor:
        block = perturbed(rng, cache.block(rng, settings.batch), task.augmentation, fill, floor)
        features, targets, onset, first = (torch.from_numpy(part) for part in block[:4])
        return task.loss(network(features), targets, onset.long(), first.long()).total

    freeze_step = round(network.quantization.freeze_share * settings.steps)
    return cached_training.train(network, settings, loss_of, unfinished, say, freeze_step)


@functools.cache
def sizes(task: str, network: str, size: int, variant: Variant) -> dict[str, int]:
    """Parameters and bytes of a variant, as this checkout stores and holds them."""
    n_outputs = TASKS[task].n_outputs
    config = ModelConfig(
        keywords=tuple(str(k) for k in range(n_outputs - (TASKS[task].activation == "softmax"))),
        layers=layers(network, size, n_outputs, TASKS[task].activation),
        frontend=FRONT_END,
    )
    model = KeywordNetwork(variant.widen(config)).to_model()
    return {
        "parameters": model.n_parameters,
        "stored_bytes": model.stored_bytes,
        "resident_bytes": model.resident_bytes,
        "float_bytes": model.float_bytes,
    }


def read_records() -> list[Record]:
    """Everything measured so far, in runs/ here or earlier (quantization.json), with the sizes."""
    kept = json.loads(FIGURES.read_text(encoding="utf-8"))["records"] if FIGURES.exists() else []
    before = {tuple(record[key] for key in KEYS): record for record in kept}
    records = {}
    for job in jobs():
        for variant in job.variants:
            key = (job.task, job.network, job.size, job.seed, variant.name)
            path = job.folder / f"{variant.name}.json"
            record = json.loads(path.read_text()) if path.exists() else before.get(key)
            if record and key not in records:
                records[key] = record | sizes(job.task, job.network, job.size, variant)
    return list(records.values())


def write(results: Results) -> None:
    """Write quantization.json, the picture, and the tables in bench/README.md."""
    kept = {
        "date": date.today().isoformat(),
        "machine": machine(),
        "settings": {"full": asdict(FULL), "aware": asdict(AWARE), "long": asdict(LONG)},
        "records": results.records,
    }
    lines = ",\n".join(json.dumps(record) for record in results.records)
    text = json.dumps({**kept, "records": []}).replace('"records": []', f'"records": [\n{lines}\n]')
    FIGURES.write_text(text + "\n", encoding="utf-8")
    draw(results, FIGURES.with_suffix(".svg"))
    known = {tuple(record[key] for key in KEYS) for record in results.records}
    missing = [
        job
        for job in jobs()
        if any((job.task, job.network, job.size, job.seed, one.name) not in known for one in job.variants)
    ]
    command = "python bench/quantization/quantization.py --corpus <corpus> --write"
    note = f"Written by `{command}` on {kept['date']} ({machine()})."
    if missing:
        note += f" {len(missing)} of {len(jobs())} trainings are still to be done."
    write_section("quantization", f"{report(results)}\n\n{note}")


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, help="corpus folder with train/ and dev/; without it nothing is trained")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one per core)")
    parser.add_argument("--write", action="store_true", help="write bench/README.md, quantization.json and .svg")
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="train only what has this in its path: f32-long.pt, ..."
    )
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments.corpus, arguments.only)
        return
    if arguments.corpus:
        for name in ("train", "dev"):
            if not (arguments.corpus / name).is_dir():
                sys.exit(f"quantization.py: expected a corpus folder with train/ and dev/, got {arguments.corpus}")
        pending = [job for job in wanted(arguments.only) if not job.done]
        for folder, n_examples, task in sorted({(*job.examples, job.task) for job in pending}):
            make_cache(folder, TASKS[task](arguments.corpus).maker(), n_examples)
        command = [sys.executable, __file__, "--corpus", str(arguments.corpus), "--only", arguments.only, "--work"]
        workers = [subprocess.Popen(command) for _ in range(arguments.workers)]
        if any([worker.wait() for worker in workers]):
            sys.exit("quantization.py: a worker failed; what is done is kept")
    results = Results(read_records())
    print(report(results))
    if arguments.write:
        write(results)


if __name__ == "__main__":
    main()
