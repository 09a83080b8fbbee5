"""train: from a recipe to a checkpoint.

A process of its own makes examples (producer.produce) while this one trains. They go to a pool, from which each step
draws at random; every example is used `reuse` times on average, each time with a fresh time shift, gain and
SpecAugment. How far the pool has moved on is a function of the step, so that the batch of a step depends on the seed
and the step alone (with hard_share also on the losses before it, which a checkpoint keeps), also after a restart. What
a restart does not repeat bit for bit is the learning rate where max_minutes sets it, since that follows the clock.

With a [quantization] section the network computes in full precision at first, then quantized, then with batch
normalization frozen; which of these follows from how far training is, see Schedule.
"""

from __future__ import annotations

import copy
import json
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from queue import Empty
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from streamkws.errors import ConfigError, StreamKwsError
from streamkws.frontend import FrontEnd
from streamkws.model import ModelConfig
from streamkws.training.augment import F32, AugmentConfig, at_positions, mask_features, rhythm_positions
from streamkws.training.blocks import Block
from streamkws.training.data import keyword_parts, parts_of
from streamkws.training.ensemble import Ensemble, ensemble_loss
from streamkws.training.fake_quant import QuantizationConfig
from streamkws.training.network import (
    KeywordNetwork,
    config_from_json,
    config_to_json,
    latest_checkpoint,
    load_network,
)
from streamkws.training.producer import ProducerConfig, produce
from streamkws.training.recipe import Recipe, TrainingConfig
from streamkws.training.recipe_file import (
    HELD_OUT,
    RUNS,
    entries_text,
    load_recipe,
    read_entries,
    recipe_text,
    to_recipe,
    without_part,
)
from streamkws.training.recordings import auxiliary_labels, read_segments, read_wakewords
from streamkws.training.teacher import N_EMBEDDING, moments, teacher_loss

BLOCK = 32
"""Examples that travel from the producer at once."""
LEAST_HARDNESS = 0.02
START_EXAMPLES = 1024
"""Examples in the pool at the first step (fewer where the pool is smaller); the features are normalized by them."""


@dataclass(frozen=True)
class Losses:
    """The parts of the loss, averaged over a batch; total is what is minimized."""

    total: torch.Tensor
    present: torch.Tensor
    absent: torch.Tensor
    auxiliary: torch.Tensor
    teacher: torch.Tensor
    ensemble: torch.Tensor


LOSS_NAMES = tuple(one.name for one in fields(Losses))


def n_other_outputs(recipe: Recipe, part: Path) -> int:
    """Outputs of the network beside its keywords while it trains: auxiliary labels, then a teacher's embedding."""
    parts = parts_of(part, recipe.data)
    return len(auxiliary_labels(parts, recipe.data.auxiliary)) + (N_EMBEDDING if recipe.data.teacher else 0)


def clip_losses(
    logits: torch.Tensor,
    targets: torch.Tensor,
    onset: torch.Tensor,
    first: torch.Tensor,
    n_keywords: int,
    config: TrainingConfig,
) -> Losses:
    """Binary cross-entropy of each output's highest smoothed logit: a clip's label is enough.

    logits: (B, S, C) float32. targets: (B, C): 1 present, 0 absent, -1 unknown. onset, first: (B, C) int64 steps; the
    maximum of a present word is taken from first on, and frames before onset are taught to be silent.
    """
    n_steps, smoothing = logits.shape[1], min(config.smoothing_steps, logits.shape[1])
    n_means = n_steps - smoothing + 1
    smooth = torch.stack([logits[:, tap : tap + n_means] for tap in range(smoothing)]).mean(0)
    step = torch.arange(smoothing - 1, n_steps)[None, :, None]
    late = step >= first.clamp(max=n_steps - 1)[:, None, :]
    peak_present = smooth.masked_fill(~late, -math.inf).amax(1)
    peak_absent = smooth.amax(1)

    present = torch.nn.functional.softplus(-peak_present)
    absent = torch.nn.functional.softplus(peak_absent)
    if config.focal > 0:
        present = present * torch.sigmoid(-peak_present).detach() ** config.focal
        absent = absent * torch.sigmoid(peak_absent).detach() ** config.focal
    if config.frame_weight > 0:
        quiet = torch.nn.functional.softplus(logits[:, :, :n_keywords])
        early = torch.arange(n_steps)[None, :, None] < onset[:, None, :n_keywords]
        padding = (0, logits.shape[2] - n_keywords)
        present = present + config.frame_weight * torch.nn.functional.pad((quiet * early).mean(1), padding)
        absent = absent + config.frame_weight * torch.nn.functional.pad(quiet.mean(1), padding)

    is_present, is_absent = (targets == 1).float(), (targets == 0).float()
    n_examples = logits.shape[0]
    by_present = (present * is_present).sum(0) / n_examples
    by_absent = (absent * is_absent).sum(0) / n_examples
    total_present = config.positive_weight * by_present[:n_keywords].sum()
    total_absent = config.negative_weight * by_absent[:n_keywords].sum()
    auxiliary = config.auxiliary_weight * (by_present[n_keywords:].sum() + by_absent[n_keywords:].sum())
    total = total_present + total_absent + auxiliary
    return Losses(total, total_present, total_absent, auxiliary, torch.zeros(()), torch.zeros(()))


def block_losses(
    logits: torch.Tensor,
    block: Block,
    stride: int,
    n_keywords: int,
    config: TrainingConfig,
    teacher: tuple[torch.Tensor, torch.Tensor] | None,
) -> Losses:
    """clip_losses of a block, what the last outputs differ from a teacher's embeddings by, and the keywords' from an
    ensemble's posteriors, where there are such.

    logits: (B, S, C) float32, S steps of stride frames; with a teacher (B, S, C + 96).
    teacher: mean and scale of its embeddings, (96,) float32 each; None without one.
    """
    frames = (block.onset, block.first, block.ends)
    onset, first, ends = (torch.from_numpy(part.astype(np.int64)) // stride for part in frames)
    n_outputs = block.targets.shape[1]
    losses = clip_losses(logits[:, :, :n_outputs], torch.from_numpy(block.targets), onset, first, n_keywords, config)
    if block.posteriors is not None:
        posteriors = torch.from_numpy(block.posteriors[:, stride - 1 :: stride].astype(np.float32))
        labels, heard = torch.from_numpy(block.targets[:, :n_keywords]), posteriors.amax(1) >= config.ensemble_heard
        right = (labels == heard) | (labels == -1) if config.ensemble_heard else torch.ones_like(heard)
        distilled = config.ensemble_weight * ensemble_loss(logits[:, :, :n_keywords], posteriors, right)
        losses = replace(losses, total=losses.total + distilled, ensemble=distilled)
    if teacher is None:
        return losses
    mean, scale = teacher
    embeddings = (torch.from_numpy(block.embeddings.astype(np.float32)) - mean) * scale
    taught = config.teacher_weight * teacher_loss(logits[:, :, n_outputs:], embeddings, ends)
    return replace(losses, total=losses.total + taught, teacher=taught)


def hardness(logits: torch.Tensor, targets: npt.NDArray[np.int8], n_keywords: int) -> npt.NDArray[np.float64]:
    """How hard each example is, (B,): the loss of the highest peak of a keyword that is absent, and a little.

    A keyword that is there but drowned in noise counts for nothing: drawn often, it would teach noise.

    logits: (B, S, C) float32. targets: (B, C), as in Example.
    """
    peaks = logits.detach()[:, :, :n_keywords].amax(1).double().numpy()
    absent = np.where(targets[:, :n_keywords] == 0, np.logaddexp(0.0, peaks), 0.0)
    worst: npt.NDArray[np.float64] = absent.max(1)
    return worst + LEAST_HARDNESS


def drawn_by_hardness(
    rng: np.random.Generator, hardness: npt.NDArray[np.float64], n: int, share: float
) -> npt.NDArray[np.int64]:
    """n indices, the first of them, a share, drawn in proportion to hardness, the others all alike."""
    drawn: npt.NDArray[np.int64] = rng.integers(0, len(hardness), n)
    n_hard = round(share * n)
    if n_hard:
        cumulative = np.cumsum(hardness)
        places = np.searchsorted(cumulative, rng.random(n_hard) * cumulative[-1], side="right")
        drawn[:n_hard] = np.minimum(places, len(hardness) - 1)
    return drawn


class Pool:
    """The latest examples, and the batches drawn from them.

    needed(step) is how many examples must have been made before the step; the batch is drawn from the last
    config.pool of those.

    hardness: of each slot's example when it was last used; 1 before that.
    ensemble: what hears each example as it comes in; None without one.
    """

    def __init__(
        self, config: TrainingConfig, augmentation: AugmentConfig, first: int = 0, ensemble: Ensemble | None = None
    ) -> None:
        self.config, self.augmentation, self.ensemble = config, augmentation, ensemble
        self.n_made = first
        self.capacity = config.pool + BLOCK
        self.slotted: Block | None = None
        self.hardness = np.ones(self.capacity)
        self.slots = np.zeros(0, np.int64)

    def needed(self, step: int) -> int:
        """Number of the example after the last that the step may use."""
        return min(self.config.pool, START_EXAMPLES) + int(step * self.config.batch / self.config.reuse)

    def first(self, step: int) -> int:
        """Number of the first example that the step may use."""
        return max(0, self.needed(step) - self.config.pool)

    def add(self, block: Block) -> None:
        """Take the next examples."""
        if self.ensemble:
            block = block._replace(posteriors=self.ensemble.posteriors(block.features, self.config.bfloat16))
        if self.slotted is None:
            self.slotted = block.take(np.zeros(self.capacity, np.int64))
        slots = np.arange(self.n_made, self.n_made + len(block[0])) % self.capacity
        array: Any
        for array, part in zip(self.slotted, block, strict=True):
            if array is not None:
                array[slots] = part
        self.hardness[slots] = 1.0
        self.n_made += len(block[0])

    def at_hand(self, step: int) -> npt.NDArray[np.int64]:
        """The slots of all examples that the step may use."""
        slots: npt.NDArray[np.int64] = np.arange(self.first(step), self.needed(step)) % self.capacity
        return slots

    @property
    def arrays(self) -> Block:
        """What the slots hold."""
        assert self.slotted is not None
        return self.slotted

    def features(self, step: int) -> F32:
        """All features that the step may use, (n, T, F) float32."""
        features: F32 = self.arrays.features[self.at_hand(step)]
        return features

    def embeddings(self, step: int) -> npt.NDArray[np.float16]:
        """A teacher's embeddings of all examples that the step may use, (n, E, 96) float16."""
        embeddings: npt.NDArray[np.float16] = self.arrays.embeddings[self.at_hand(step)]
        return embeddings

    def batch(self, step: int, fill: F32, floor: float) -> Block:
        """The batch of a step, with its time shifts, gains and masks; onset, first and ends in frames.

        fill: (F,), what masks are filled with. floor: the lowest log-mel there is.
        """
        rng = np.random.default_rng([self.config.seed, 2, step])
        candidates = self.at_hand(step)
        drawn = drawn_by_hardness(rng, self.hardness[candidates], self.config.batch, self.config.hard_share)
        self.slots = candidates[drawn]
        return perturbed(rng, self.arrays.take(self.slots), self.augmentation, fill, floor)


def perturbed(rng: np.random.Generator, block: Block, augmentation: AugmentConfig, fill: F32, floor: float) -> Block:
    """Examples as they are used once: each cut to a time shift of its own, with a rhythm, a gain and SpecAugment.

    fill: (F,), what masks are filled with. floor: the lowest log-mel there is.
    """
    features, targets, onset, first, embeddings, ends, posteriors = block
    n_examples = len(features)
    shifts = rng.integers(0, augmentation.shift_frames + 1, n_examples)
    frames = shifts[:, None] + np.arange(features.shape[1] - augmentation.shift_frames)
    features = features[np.arange(n_examples)[:, None], frames]
    if posteriors is not None:
        posteriors = posteriors[np.arange(n_examples)[:, None], frames]
    shift = shifts[:, None].astype(np.int16)
    onset, first, ends = np.maximum(onset - shift, 0), np.maximum(first - shift, 0), ends - shift
    if augmentation.rhythm > 0:
        positions = rhythm_positions(rng, n_examples, features.shape[1], augmentation.rhythm)
        features = at_positions(features, positions)
        if posteriors is not None:
            posteriors = at_positions(posteriors.astype(np.float32), positions).astype(np.float16)
        onset, first, ends = (
            np.stack([np.searchsorted(*pair) for pair in zip(positions, part, strict=True)]).astype(np.int16)
            for part in (onset, first, ends)
        )
    jitter = augmentation.gain_jitter_db * math.log(10) / 10
    features += rng.uniform(-jitter, jitter, (n_examples, 1, 1)).astype(np.float32)
    np.maximum(features, np.float32(floor), out=features)
    mask_features(rng, features, fill, augmentation)
    return Block(features, targets, onset, first, embeddings, ends, posteriors)


def adamw(network: KeywordNetwork, settings: TrainingConfig) -> torch.optim.AdamW:
    """The optimizer; weight decay is for matrices only."""
    return torch.optim.AdamW(
        [
            {"params": [p for p in network.parameters() if p.ndim > 1], "weight_decay": settings.weight_decay},
            {"params": [p for p in network.parameters() if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=settings.learning_rate,
    )


def learn(
    network: KeywordNetwork, optimizer: torch.optim.AdamW, loss: torch.Tensor, rate: float, gradient_clip: float
) -> None:
    """One step of gradient descent at a learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(network.parameters(), gradient_clip)
    optimizer.step()


def learning_rate(settings: TrainingConfig, step: int, completed: float) -> float:
    """Warmed up linearly, then a cosine down to learning_rate_end. completed: 0..1, how far training is."""
    warmed = min(1.0, (step + 1) / max(1, settings.warmup_steps))
    share = 0.5 * (1 + math.cos(math.pi * completed))
    return warmed * (settings.learning_rate_end + (settings.learning_rate - settings.learning_rate_end) * share)


class Validation:
    """A part of the corpus as features, and the miss rate on it at few false accepts."""

    def __init__(self, recipe: Recipe, part: Path, config: ModelConfig) -> None:
        frontend = FrontEnd(config.frontend)
        self.smoothing = config.smoother.smoothing_steps
        self.window = max(1, 2 * config.frontend.sample_rate // config.step_samples)  # steps in 2 s
        self.keywords = config.keywords

        def features(samples: npt.NDArray[np.int16]) -> torch.Tensor:
            frontend.reset()
            return torch.from_numpy(frontend.push(samples))

        clips, _ = read_wakewords(part / recipe.data.wakewords, config.keywords, recipe.data.exclude)
        tail = np.zeros(config.frontend.sample_rate // 2, np.int16)
        self.clips = [(clip.keyword, features(np.concatenate([clip.samples, tail]))) for clip in clips]
        names = [name for name in recipe.data.negatives if (part / name / "segments.csv").is_file()]
        files = [file for name in names for file in read_segments(part / name).files]
        self.negatives = [features(file) for file in files]
        self.hours = sum(file.size for file in files) / config.frontend.sample_rate / 3600

    def _posteriors(self, network: KeywordNetwork, features: torch.Tensor) -> torch.Tensor:
        """(T, F) to (K, S) smoothed posteriors."""
        logits = network(features[None])[0, :, : len(self.keywords)]
        return torch.nn.functional.avg_pool1d(torch.sigmoid(logits).T, self.smoothing, stride=1)

    def measure(self, network: KeywordNetwork) -> dict[str, float]:
        """Miss rate of each keyword without a false accept, and the means at 0, 2 and 8 false accepts."""
        with torch.no_grad():
            peaks = [(keyword, float(self._posteriors(network, one)[keyword].amax())) for keyword, one in self.clips]
            worst = []
            for one in self.negatives:
                scores = self._posteriors(network, one)
                scores = torch.nn.functional.pad(scores, (0, -scores.shape[1] % self.window))
                worst.append(scores.reshape(scores.shape[0], -1, self.window).amax(2))
        highest = torch.cat(worst, 1).sort(1, descending=True).values if worst else torch.zeros(len(self.keywords), 1)
        figures, means = {}, {}
        for n_false in (0, 2, 8):
            misses = []
            for index, name in enumerate(self.keywords):
                threshold = float(highest[index, min(n_false, highest.shape[1] - 1)])
                missed = float(np.mean([peak <= threshold for keyword, peak in peaks if keyword == index]))
                misses.append(missed)
                if n_false == 0:
                    figures[f"miss {name}"] = missed
            means[f"miss at {n_false} FA"] = float(np.mean(misses))
        return {**means, **figures}


class Average:
    """Exponential moving average of a network's weights and batch-normalization statistics."""

    def __init__(self, network: KeywordNetwork) -> None:
        self.network = copy.deepcopy(network).eval()
        pairs = zip(self.network.state_dict().values(), network.state_dict().values(), strict=True)
        self.pairs = [(mine, theirs) for mine, theirs in pairs if mine.is_floating_point()]

    def update(self, decay: float) -> None:
        """Move by 1 - decay towards the network."""
        with torch.no_grad():
            torch._foreach_lerp_([mine for mine, _ in self.pairs], [theirs for _, theirs in self.pairs], 1 - decay)


class Schedule:
    """What [quantization] does to networks as training goes on; without that section, nothing.

    The state follows from how far training is alone, so that a resumed run goes on as the uninterrupted one.
    final: whether the networks compute as the model that will be written.
    """

    def __init__(self, quantization: QuantizationConfig | None, networks: tuple[KeywordNetwork, ...]) -> None:
        self.quantization, self.networks = quantization, networks
        self.final, self.frozen = quantization is None, False
        if quantization is not None:
            for network in networks:
                network.quantize(False)

    def follow(self, completed: float) -> list[str]:
        """Bring the networks to where training is, completed of 0..1; returns a line for a person per change."""
        lines: list[str] = []
        if self.quantization is None:
            return lines
        if not self.final and completed >= self.quantization.start_share:
            for network in self.networks:
                network.quantize(True)
            self.final = True
            lines.append(f"quantized from here on: {self.networks[0].config.bits}")
        if not self.frozen and completed >= self.quantization.freeze_share:
            for network in self.networks:
                network.freeze()
            self.frozen = True
            lines.append("batch normalization keeps its statistics from here on")
        return lines


class Producer:
    """The process that makes examples, from number first on; a context manager."""

    def __init__(self, recipe: Recipe, part: Path, config: ModelConfig, first: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.queue = context.Queue(maxsize=6)
        producer = ProducerConfig(
            str(part), config.keywords, recipe.data, recipe.augment, config.frontend, recipe.training.seed, first, BLOCK
        )
        self.process = context.Process(target=produce, args=(producer, self.queue), daemon=True)
        self.process.start()

    def get(self, kind: str) -> Any:
        """The next message, of this kind. Raises StreamKwsError where the process failed."""
        while True:
            try:
                name, value = self.queue.get(timeout=2.0)
            except Empty:
                if not self.process.is_alive():
                    raise StreamKwsError(f"the process that makes examples ended ({self.process.exitcode})") from None
                continue
            if name == "error":
                raise StreamKwsError(f"making examples failed: {value}")
            assert name == kind
            return value

    def __enter__(self) -> Producer:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.join()
        self.queue.cancel_join_thread()
        self.queue.close()


class Report:
    """Progress for a person (a bar in a terminal, else lines, on standard error), and log.jsonl, a line per entry."""

    def __init__(self, path: Path, fresh: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self.file = path.open("w" if fresh else "a", encoding="utf-8")
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.1f} %"))
        self.progress = Progress(*columns, TimeElapsedColumn(), console=console) if console.is_terminal else None
        if self.progress:
            self.progress.start()
            self.task = self.progress.add_task("reading the corpus", total=1.0)

    def say(self, text: str) -> None:
        """A line for the person."""
        if self.progress:
            self.progress.console.print(text, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def log(self, entry: dict[str, Any], completed: float) -> None:
        """Log an entry, a figure by name; completed: 0..1, how far training is."""
        self.file.write(json.dumps(entry) + "\n")
        self.file.flush()
        text = "  ".join(f"{key} {value:.4g}" for key, value in entry.items() if not key.startswith("miss "))
        misses = "  ".join(f"{key[5:]} {100 * value:.1f} %" for key, value in entry.items() if key.startswith("miss "))
        if misses:
            self.say(f"{text}  miss: {misses}")
        elif self.progress:
            self.progress.update(
                self.task, completed=completed, description=f"step {entry['step']} loss {entry['loss']:.3f}"
            )
        else:
            self.say(text)

    def close(self) -> None:
        """End the bar and the file."""
        if self.progress:
            self.progress.stop()
        self.file.close()


@contextmanager
def _reporting(path: Path, fresh: bool) -> Iterator[Report]:
    report = Report(path, fresh)
    try:
        yield report
    finally:
        report.close()


def train(
    config_path: str | Path, corpus: str | Path | None = None, fresh: bool = False, held_out: str = ""
) -> Path:
    """Train the model of a recipe without stages in its run folder, runs/<name>, and return that folder.

    corpus, fresh: see train_network. held_out: a part of the corpus whose recordings of the keywords are left out,
    though the recipe trains on them; the run's name then ends with -held-out. "" for none.
    """
    path = Path(config_path)
    if held_out:
        entries = read_entries(path)
        left = without_part(entries, held_out)
        if left == entries:
            raise ConfigError(f"expected {path} to train on {held_out}, which is to be held out; it does not")
        left["name"] = f"{entries.get('name', path.stem)}{HELD_OUT}"
        recipe = to_recipe(left, path)
        text = entries_text(left, f"{path} without {held_out}'s recordings of the keywords")
    else:
        recipe, text = load_recipe(path), recipe_text(path)
    folder = RUNS / recipe.name
    train_network(recipe, folder, text, corpus, fresh)
    return folder


def train_network(
    recipe: Recipe, folder: Path, text: str, corpus: str | Path | None = None, fresh: bool = False
) -> None:
    """Train the network of a recipe in a run folder, or continue where that folder stands.

    text: of the recipe, kept there. corpus: replaces the recipe's data.corpus. fresh: start anew, even where there is a
    checkpoint. The folder holds recipe.toml, log.jsonl, checkpoint.pt (the latest) and best.pt (lowest mean miss on
    validation; of the quantized network where there is a [quantization] section).
    Raises ConfigError for a corpus or checkpoint that does not fit, AudioError for an unreadable recording.
    """
    root = Path(recipe.data.corpus if corpus is None else corpus)
    part, validation_part = root / recipe.data.train, root / recipe.data.validation
    for place in (*keyword_parts(part, recipe.data), validation_part):
        if not place.is_dir():
            raise ConfigError(f"expected a corpus folder {place}, found none")
    checkpoint = folder / "checkpoint.pt"
    resumed = None if fresh or not checkpoint.exists() else _read_checkpoint(checkpoint, recipe, part)
    start = None if resumed else _read_start(recipe, part, folder)
    ensemble = None
    if recipe.training.ensemble:
        ensemble = Ensemble.load(recipe.training.ensemble, recipe.model.to_model_config({}))
    folder.mkdir(parents=True, exist_ok=True)
    if fresh:
        for old in (checkpoint, folder / "best.pt"):
            old.unlink(missing_ok=True)
    (folder / "recipe.toml").write_text(text, encoding="utf-8")
    with _reporting(folder / "log.jsonl", resumed is None) as report:
        _run(recipe, part, validation_part, folder, resumed, start, ensemble, report)


def _read_checkpoint(path: Path, recipe: Recipe, part: Path) -> dict[str, Any]:
    try:
        entries: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        config = config_from_json(entries["model_config"])
        ranges = (entries.get("quantization") or {}).get("weight_ranges", "column")
    except Exception as error:  # torch.load raises whatever pickle, zip and the tensors inside raise
        raise ConfigError(f"cannot continue from {path}, a damaged or another file; --fresh starts anew") from error
    wanted = recipe.model.to_model_config({}, recipe.quantization)
    same = replace(config, durations_s={}, provenance={}, smoother=wanted.smoother) == wanted
    if not same or ranges != (recipe.quantization or QuantizationConfig()).weight_ranges:
        raise ConfigError(f"{path} holds another network than the recipe's; --fresh starts anew")
    if entries["n_auxiliary"] != n_other_outputs(recipe, part):
        raise ConfigError(f"{path} has other auxiliary outputs than the recipe's; --fresh starts anew")
    return entries


def _read_start(recipe: Recipe, part: Path, folder: Path) -> KeywordNetwork | None:
    """The network that training.start_from names, None where it names none.

    Raises ConfigError where it is another than the recipe's; only the widths may differ.
    """
    if not recipe.training.start_from:
        return None
    path = latest_checkpoint(recipe.training.start_from)
    if path.resolve().parent == folder.resolve():
        raise ConfigError(f"expected training.start_from outside {folder}, which this run writes, got {path}")
    network = load_network(path)
    wanted = _properties(recipe.model.to_model_config({}, recipe.quantization), n_other_outputs(recipe, part))
    found = _properties(network.config, network.n_auxiliary)
    for name, value in wanted.items():
        if found[name] != value:
            raise ConfigError(f"cannot start from {path}: expected {name} to be {value!r}, got {found[name]!r}")
    return network


def _properties(config: ModelConfig, n_auxiliary: int) -> dict[str, Any]:
    """What two networks must have in common for the weights of one to be those of the other, by name."""
    properties = {
        "keywords": config.keywords,
        "the number of auxiliary outputs": n_auxiliary,
        "frame_stride": config.frame_stride,
        **asdict(config.frontend),
        "the number of layers": len(config.layers),
    }
    for index, layer in enumerate(config.layers):
        shape = {name: value for name, value in asdict(layer).items() if name not in ("weight_bits", "activation_bits")}
        properties |= {f"layer {index} {name}": value for name, value in shape.items()}
    return properties


def _run(
    recipe: Recipe,
    part: Path,
    validation_part: Path,
    folder: Path,
    resumed: dict[str, Any] | None,
    start: KeywordNetwork | None,
    ensemble: Ensemble | None,
    report: Report,
) -> None:
    settings = recipe.training
    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    config = recipe.model.to_model_config(recipe.export.provenance, recipe.quantization)
    n_keywords, stride = len(config.keywords), config.frame_stride
    step, elapsed_before, best = 0, 0.0, math.inf
    if resumed:
        step, elapsed_before, best = resumed["step"], resumed["elapsed_s"], resumed["best"]
        report.say(f"continuing from step {step}")
    pool = Pool(settings, recipe.augment, ensemble=ensemble)
    pool.n_made = pool.first(step)
    with Producer(recipe, part, config, pool.n_made) as producer:
        validation = Validation(recipe, validation_part, config) if settings.validate_steps else None
        durations_s, unusable = producer.get("ready")
        config = replace(config, durations_s=durations_s)
        for line in unusable:
            report.say(f"left out {line}")
        n_auxiliary = n_other_outputs(recipe, part)
        while pool.n_made < pool.needed(step):
            pool.add(producer.get("block"))
        if resumed and len(resumed.get("hardness", ())) == pool.capacity:
            pool.hardness = resumed["hardness"].numpy()

        network = KeywordNetwork(config, n_auxiliary, recipe.quantization)
        network.drop(settings.dropout)
        optimizer = adamw(network, settings)
        if resumed:
            network.load_state_dict(resumed["network"])
            optimizer.load_state_dict(resumed["optimizer"])
        elif start is not None:
            network.load_state_dict(start.state_dict())
        else:
            network.normalize_by(pool.features(0))
        teacher = None
        if recipe.data.teacher:
            teacher = resumed["teacher"] if resumed else moments(pool.embeddings(0))
        average = Average(network)
        if resumed:
            average.network.load_state_dict(resumed["average"])
        schedule = Schedule(recipe.quantization, (network, average.network))
        fill, floor = network.feature_mean.numpy().copy(), math.log(config.frontend.energy_floor)
        n_weights = sum(parameter.numel() for parameter in network.parameters())
        report.say(f"{n_weights} weights, {n_keywords} keywords and {n_auxiliary} auxiliary outputs")

        began = saved = logged = time.monotonic()
        sums, waited, logged_step = np.zeros(len(LOSS_NAMES)), 0.0, step

        def elapsed_s() -> float:
            return elapsed_before + time.monotonic() - began

        def completed() -> float:
            share = elapsed_s() / 60 / settings.max_minutes if settings.max_minutes else 0.0
            return min(1.0, max(step / settings.steps, share))

        def follow() -> None:
            for line in schedule.follow(completed()):
                report.say(f"step {step}: {line}")

        def save(path: Path) -> None:
            temporary = path.with_suffix(".tmp")
            entries = {
                "step": step,
                "elapsed_s": elapsed_s(),
                "best": best,
                "model_config": config_to_json(config),
                "n_auxiliary": n_auxiliary,
                "quantization": asdict(recipe.quantization) if recipe.quantization else None,
                "network": network.state_dict(),
                "average": average.network.state_dict(),
                "optimizer": optimizer.state_dict(),
                "hardness": torch.from_numpy(pool.hardness),
                "teacher": teacher,
            }
            torch.save(entries, temporary)
            os.replace(temporary, path)

        follow()
        try:
            while completed() < 1:
                waiting = time.monotonic()
                while pool.n_made < pool.needed(step):
                    pool.add(producer.get("block"))
                waited += time.monotonic() - waiting

                rate = learning_rate(settings, step, completed())
                block = pool.batch(step, fill, floor)
                torch.manual_seed(settings.seed + 1000 * step)  # what is dropped depends on the step alone, too
                with torch.autocast("cpu", torch.bfloat16, enabled=settings.bfloat16 and not network.quantizing):
                    logits = network(torch.from_numpy(block.features)).float()
                losses = block_losses(logits, block, stride, n_keywords, settings, teacher)
                if not math.isfinite(losses.total.item()):
                    raise StreamKwsError(f"the loss became {losses.total.item()} at step {step}; lower learning_rate")
                learn(network, optimizer, losses.total, rate, settings.gradient_clip)
                if settings.hard_share:
                    pool.hardness[pool.slots] = hardness(logits, block.targets, n_keywords)
                step += 1
                average.update(min(settings.average_decay, (1 + step) / (10 + step)))
                sums += [getattr(losses, name).item() for name in LOSS_NAMES]
                follow()

                now = time.monotonic()
                if step - logged_step >= settings.log_steps:
                    means = sums / (step - logged_step)
                    report.log(
                        {
                            "step": step,
                            "minutes": round(elapsed_s() / 60, 2),
                            "loss": round(means[0], 5),
                            **{name: round(mean, 5) for name, mean in zip(LOSS_NAMES[1:], means[1:], strict=True)},
                            "learning_rate": rate,
                            "steps_per_s": round((step - logged_step) / (now - logged), 2),
                            "waited": round(waited / (now - logged), 3),
                        },
                        completed(),
                    )
                    sums, waited, logged, logged_step = np.zeros(len(LOSS_NAMES)), 0.0, now, step
                if validation and (step % settings.validate_steps == 0 or completed() >= 1):
                    figures = validation.measure(average.network)
                    report.log({"step": step, "minutes": round(elapsed_s() / 60, 2), **figures}, completed())
                    if schedule.final and figures["miss at 0 FA"] <= best:
                        best = figures["miss at 0 FA"]
                        save(folder / "best.pt")
                if now - saved > settings.checkpoint_minutes * 60:
                    save(folder / "checkpoint.pt")
                    saved = now
        finally:
            save(folder / "checkpoint.pt")
