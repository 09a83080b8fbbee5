"""train: from a recipe to a checkpoint.

A process of its own makes examples (producer.produce) while this one trains. They go to a pool, from which each step
draws at random; every example is used `reuse` times on average, each time with another time shift, gain and
SpecAugment. How far the pool has moved on is a function of the step, so that the batch of a step depends on the seed
and the step alone (with hard_share also on the losses before it, which a checkpoint keeps), also after a restart. What
a restart does not repeat bit for bit is the learning rate where max_minutes sets it, since that follows the clock.

With a [quantization] section the network computes in full precision at first, then quantized, then with batch
normalization frozen; which of these follows from how far training is, see QuantizationSchedule.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from streamkws.errors import ConfigError, StreamKwsError
from streamkws.model import Model
from streamkws.training.checkpoint import (
    BEST,
    CHECKPOINT,
    config_to_text,
    n_other_outputs,
    read_checkpoint,
    read_start,
    save_checkpoint,
)
from streamkws.training.data import keyword_parts
from streamkws.training.ensemble import Ensemble
from streamkws.training.losses import LOSS_NAMES, Losses, block_losses, difficulty, moments
from streamkws.training.network import KeywordNetwork
from streamkws.training.optimizer import (
    ExponentialMovingAverage,
    QuantizationSchedule,
    adamw,
    learning_rate,
    optimizer_step,
    warmed_decay,
)
from streamkws.training.pool import Pool
from streamkws.training.producer import BLOCK, Producer, ProducerConfig
from streamkws.training.progress import Follow, Report, reporting
from streamkws.training.recipe import Recipe
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
from streamkws.training.validation import Validation
from streamkws.whole import write_whole

N_TAKEN_OVER = 512
"""Examples by which batch normalization is set where training starts from a model."""


def train(config_path: str | Path, corpus: str | Path | None = None, fresh: bool = False, held_out: str = "") -> Path:
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
    recipe: Recipe,
    folder: Path,
    text: str,
    corpus: str | Path | None = None,
    fresh: bool = False,
    follow: Follow | None = None,
) -> None:
    """Train the network of a recipe in a run folder, or continue from the folder's checkpoint.

    text: of the recipe, kept there. corpus: replaces the recipe's data.corpus. fresh: start from the beginning, even if
    there is a checkpoint. follow: is told how training gets on, instead of the person. The folder holds recipe.toml,
    log.jsonl, checkpoint.pt (the latest) and best.pt (the lowest mean miss on validation; of the quantized network
    where there is a [quantization] section).
    Raises ConfigError for a corpus or checkpoint that does not fit, AudioError for an unreadable recording.
    """
    root = Path(recipe.data.corpus if corpus is None else corpus)
    part, validation_part = root / recipe.data.train, root / recipe.data.validation
    for place in (*keyword_parts(part, recipe.data), validation_part):
        if not place.is_dir():
            raise ConfigError(f"expected a corpus folder {place}, found none")
    checkpoint = folder / CHECKPOINT
    resumed = None if fresh or not checkpoint.exists() else read_checkpoint(checkpoint, recipe, part)
    start = None if resumed else read_start(recipe, part, folder)
    ensemble = None
    if recipe.training.ensemble:
        ensemble = Ensemble.load(recipe.training.ensemble, recipe.model.to_model_config({}))
    folder.mkdir(parents=True, exist_ok=True)
    if fresh:
        for old in (checkpoint, folder / BEST):
            old.unlink(missing_ok=True)
    write_whole(folder / "recipe.toml", text.encode())
    inputs = Inputs(part, validation_part, resumed, start, ensemble)
    torch.set_num_threads(recipe.training.threads)
    torch.manual_seed(recipe.training.seed)
    with reporting(folder / "log.jsonl", resumed is None, follow) as report:
        pool = Pool(recipe.training, recipe.augment, ensemble=ensemble)
        pool.n_made = pool.first(resumed["step"] if resumed else 0)
        with Producer(producer_config(recipe, part, pool.n_made)) as producer:
            training = Training(recipe, inputs, pool, producer, report)
            try:
                training.run(folder)
            finally:
                training.save(folder / CHECKPOINT)


def producer_config(recipe: Recipe, part: Path, first: int) -> ProducerConfig:
    """What the producer of a recipe's examples needs to know. part: of the corpus. first: number of an example."""
    frontend = recipe.model.to_model_config({}).frontend
    return ProducerConfig(
        str(part), recipe.model.keywords, recipe.data, recipe.augment, frontend, recipe.training.seed, first, BLOCK
    )


@dataclass(frozen=True)
class Inputs:
    """What a training reads beside its recipe.

    part, validation_part: folders of the corpus. resumed: entries of the checkpoint that it continues from, or None.
    start: the network, or the model, whose weights it starts from, or None. ensemble: what it learns from, or None.
    """

    part: Path
    validation_part: Path
    resumed: dict[str, Any] | None
    start: KeywordNetwork | Model | None
    ensemble: Ensemble | None


class Clock:
    """How far training is.

    elapsed_before_s: of the calls before this one.
    """

    def __init__(self, recipe: Recipe, step: int, elapsed_before_s: float) -> None:
        self.settings = recipe.training
        self.step, self.elapsed_before_s, self.began = step, elapsed_before_s, time.monotonic()

    def elapsed_s(self) -> float:
        """Seconds of training, those of earlier calls included."""
        return self.elapsed_before_s + time.monotonic() - self.began

    def completed(self) -> float:
        """0..1, by the steps or by the minutes, whichever is further."""
        minutes = self.settings.max_minutes
        share = self.elapsed_s() / 60 / minutes if minutes else 0.0
        return min(1.0, max(self.step / self.settings.steps, share))


class StepLog:
    """Means of the losses over the steps between two entries of the log, and the time waited for examples."""

    def __init__(self, step: int) -> None:
        self.restart(step)

    def restart(self, step: int) -> None:
        """Begin the next entry after this step."""
        self.sums, self.waited_s, self.began, self.step = np.zeros(len(LOSS_NAMES)), 0.0, time.monotonic(), step

    def add(self, losses: Losses) -> None:
        """Add the losses of a step."""
        self.sums += [getattr(losses, name).item() for name in LOSS_NAMES]

    def entry(self, clock: Clock, rate: float) -> dict[str, Any]:
        """The entry of the steps so far. rate: the learning rate of the last."""
        n_steps, seconds = clock.step - self.step, time.monotonic() - self.began
        means = self.sums / n_steps
        return {
            "step": clock.step,
            "minutes": round(clock.elapsed_s() / 60, 2),
            "loss": round(means[0], 5),
            **{name: round(mean, 5) for name, mean in zip(LOSS_NAMES[1:], means[1:], strict=True)},
            "learning_rate": rate,
            "steps_per_s": round(n_steps / seconds, 2),
            "waited": round(self.waited_s / seconds, 3),
        }


class Training:
    """A training in progress: the networks, their optimizer, the pool, and how far it is.

    Made where the producer is ready and the pool holds what the first step needs.
    """

    def __init__(self, recipe: Recipe, inputs: Inputs, pool: Pool, producer: Producer, report: Report) -> None:
        self.recipe, self.settings = recipe, recipe.training
        self.pool, self.producer, self.report = pool, producer, report
        resumed = inputs.resumed
        step, elapsed_s, self.best, self.best_step = 0, 0.0, math.inf, 0
        if resumed:
            step, elapsed_s, self.best = resumed["step"], resumed["elapsed_s"], resumed["best"]
            self.best_step = resumed.get("best_step", 0)
            report.say(f"continuing from step {step}")
        config = recipe.model.to_model_config(recipe.export.provenance, recipe.quantization)
        self.validation = None
        if self.settings.validate_steps:
            self.validation = Validation(recipe, inputs.validation_part, config)
        durations_s, unusable = producer.get("ready")
        self.config = replace(config, durations_s=durations_s)
        for line in unusable:
            report.say(f"left out {line}")
        self._fill_pool(step)
        self.n_auxiliary = n_other_outputs(recipe, inputs.part)
        self.network = KeywordNetwork(self.config, self.n_auxiliary, recipe.quantization)
        self.optimizer = adamw(self.network, self.settings)
        if resumed is None:
            self._begin(inputs.start)
        self.teacher = moments(pool.embeddings(0)) if recipe.data.teacher and not resumed else None
        self.average = ExponentialMovingAverage(self.network)
        if resumed:
            self._restore(resumed)
        self.schedule = QuantizationSchedule(recipe.quantization, (self.network, self.average.network))
        self.fill = self.network.feature_mean.numpy().copy()
        self.floor = math.log(config.frontend.energy_floor)
        n_weights = sum(parameter.numel() for parameter in self.network.parameters())
        report.say(f"{n_weights} weights, {len(config.keywords)} keywords and {self.n_auxiliary} auxiliary outputs")
        self.clock = Clock(recipe, step, elapsed_s)

    def _begin(self, start: KeywordNetwork | Model | None) -> None:
        """Set the network to what training starts from."""
        if isinstance(start, Model):
            self.network.take_over(start, self.pool.features(0)[:N_TAKEN_OVER])
        elif start is not None:
            self.network.load_state_dict(start.state_dict())
        else:
            self.network.normalize_by(self.pool.features(0))

    def _restore(self, entries: dict[str, Any]) -> None:
        """Set the state to that of a checkpoint."""
        if len(entries.get("difficulty", ())) == self.pool.capacity:
            self.pool.difficulty = entries["difficulty"].numpy()
        self.network.load_state_dict(entries["network"])
        self.average.network.load_state_dict(entries["average"])
        self.optimizer.load_state_dict(entries["optimizer"])
        self.teacher = entries["teacher"]

    def save(self, path: Path) -> None:
        """Write a checkpoint."""
        quantization = self.recipe.quantization
        entries = {
            "step": self.clock.step,
            "elapsed_s": self.clock.elapsed_s(),
            "best": self.best,
            "best_step": self.best_step,
            "model_config": config_to_text(self.config),
            "n_auxiliary": self.n_auxiliary,
            "quantization": asdict(quantization) if quantization else None,
            "network": self.network.state_dict(),
            "average": self.average.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "difficulty": torch.from_numpy(self.pool.difficulty),
            "teacher": self.teacher,
        }
        save_checkpoint(entries, path)

    def run(self, folder: Path) -> None:
        """Train to the end; checkpoints go to a run folder from time to time."""
        clock, settings = self.clock, self.settings
        log, saved = StepLog(clock.step), time.monotonic()
        self._follow_schedule()
        while clock.completed() < 1 and not self.gains_no_more():
            began = time.monotonic()
            self._fill_pool(clock.step)
            log.waited_s += time.monotonic() - began
            rate = learning_rate(settings, clock.step, clock.completed())
            log.add(self._step(rate))
            self._follow_schedule()
            if clock.step - log.step >= settings.log_steps:
                self.report.log(log.entry(clock, rate), clock.completed())
                log.restart(clock.step)
            self._validate(folder)
            if time.monotonic() - saved > settings.checkpoint_minutes * 60:
                self.save(folder / CHECKPOINT)
                saved = time.monotonic()

    def gains_no_more(self) -> bool:
        """Whether the last validations, as many as training.patience, were no better than one before."""
        patience = self.settings.patience * self.settings.validate_steps
        return patience > 0 and self.clock.step - self.best_step >= patience

    def _fill_pool(self, step: int) -> None:
        while self.pool.n_made < self.pool.needed(step):
            self.pool.add(self.producer.get("block"))

    def _step(self, rate: float) -> Losses:
        """Train on the next batch at a learning rate."""
        settings, n_keywords = self.settings, len(self.config.keywords)
        block = self.pool.batch(self.clock.step, self.fill, self.floor)
        with torch.autocast("cpu", torch.bfloat16, enabled=settings.bfloat16 and not self.network.quantizing):
            logits = self.network(torch.from_numpy(block.features)).float()
        losses = block_losses(logits, block, self.config.frame_stride, n_keywords, settings, self.teacher)
        if not math.isfinite(losses.total.item()):
            raise StreamKwsError(
                f"the loss became {losses.total.item()} at step {self.clock.step}; lower learning_rate"
            )
        optimizer_step(self.network, self.optimizer, losses.total, rate, settings.gradient_clip)
        if settings.hard_share:
            self.pool.difficulty[self.pool.slots] = difficulty(logits, block.targets, n_keywords)
        self.clock.step += 1
        self.average.update(warmed_decay(settings.average_decay, self.clock.step))
        return losses

    def _follow_schedule(self) -> None:
        for line in self.schedule.follow(self.clock.completed()):
            self.report.say(f"step {self.clock.step}: {line}")

    def _validate(self, folder: Path) -> None:
        """Where it is time to: log the averaged network's misses, and keep it where it is the best so far."""
        clock, completed = self.clock, self.clock.completed()
        if self.validation is None or (clock.step % self.settings.validate_steps and completed < 1):
            return
        figures = self.validation.measure(self.average.network)
        self.report.log({"step": clock.step, "minutes": round(clock.elapsed_s() / 60, 2), **figures}, completed)
        if self.schedule.final and figures["miss at 0 FA"] <= self.best:
            self.best, self.best_step = figures["miss at 0 FA"], clock.step
            self.save(folder / BEST)
