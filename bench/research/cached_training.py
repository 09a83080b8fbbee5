"""The training loop of the benches that train on cached examples."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from streamkws.training.checkpoint import save_checkpoint
from streamkws.training.network import KeywordNetwork
from streamkws.training.optimizer import (
    ExponentialMovingAverage,
    adamw,
    learning_rate,
    optimizer_step,
    warmed_decay,
)
from streamkws.training.recipe import TrainingConfig

SAVE_STEPS = 1000


def write(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    path.with_suffix(".tmp").write_text(text + "\n", encoding="utf-8")
    os.replace(path.with_suffix(".tmp"), path)


def train(
    network: KeywordNetwork,
    settings: TrainingConfig,
    loss_of: Callable[[np.random.Generator], torch.Tensor],
    unfinished: Path,
    say: Callable[[str], None],
    freeze_step: int | None = None,
    kept: Mapping[str, torch.Tensor] | None = None,
) -> KeywordNetwork:
    """Train; returns the network of averaged weights.

    loss_of: the loss of a batch that it draws by the generator, which depends on the step alone.
    unfinished: where the state is kept every SAVE_STEPS steps; an interrupted training continues from there.
    say: called with a line on how it goes. freeze_step: when batch normalization is frozen, None for never.
    kept: what loss_of changes from step to step; saved, and put back in place, with the state.
    """
    optimizer, average, kept = adamw(network, settings), ExponentialMovingAverage(network), kept or {}
    parts: dict[str, Any] = {"network": network, "optimizer": optimizer, "average": average.network}
    first_step = 0
    if unfinished.exists():
        state = torch.load(unfinished, map_location="cpu", weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(state[name])
        for name, tensor in kept.items():
            tensor.copy_(state[name])
        first_step = state["step"]
    began, losses = time.monotonic(), []
    network.train()
    if freeze_step is not None and first_step > freeze_step:
        network.freeze()
    for step in range(first_step, settings.steps):
        if step == freeze_step:
            network.freeze()
        loss = loss_of(np.random.default_rng([settings.seed, 2, step]))
        losses.append(loss.item())
        rate = learning_rate(settings, step, step / settings.steps)
        optimizer_step(network, optimizer, loss, rate, settings.gradient_clip)
        average.update(warmed_decay(settings.average_decay, step))
        if (step + 1) % 200 == 0:
            pace = (step + 1 - first_step) / (time.monotonic() - began)
            say(f"step {step + 1}  loss {np.mean(losses[-200:]):.4f}  {pace:.1f} steps/s")
        if (step + 1) % SAVE_STEPS == 0 and step + 1 < settings.steps:
            states = {name: part.state_dict() for name, part in parts.items()}
            save_checkpoint({**states, **kept, "step": step + 1}, unfinished)
    return average.network
