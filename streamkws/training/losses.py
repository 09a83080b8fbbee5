"""What training minimizes: losses of clips that are labelled as a whole, of a teacher and of an ensemble."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt
import torch

from streamkws.training.blocks import Block
from streamkws.training.ensemble import ensemble_loss
from streamkws.training.recipe import TrainingConfig
from streamkws.training.teacher import N_EMBEDDING

LEAST_DIFFICULTY = 0.02
"""Difficulty of an example without any loss, so that it is still drawn now and then."""


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
    """clip_losses of a block, plus the teacher's loss of the last outputs and the ensemble's loss of the keywords.

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


def teacher_loss(predicted: torch.Tensor, embeddings: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """Mean squared error of predicted embeddings.

    predicted: (B, S, 96) float32. embeddings: (B, E, 96) float32, normalized. ends: (B, E) int64, the step of
    each; those outside of the example do not count.
    """
    inside = (ends >= 0) & (ends < predicted.shape[1])
    steps = ends.clamp(0, predicted.shape[1] - 1)
    rows = torch.arange(len(predicted))[:, None]
    errors = ((predicted[rows, steps] - embeddings) ** 2).mean(2)
    return (errors * inside).sum() / inside.sum().clamp(min=1)


def moments(embeddings: npt.NDArray[np.floating]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and inverse deviation of embeddings (..., 96), (96,) float32 each, to normalize them by.

    Those that are 0 throughout are none (of a pack's features) and do not count.
    """
    flat = embeddings.reshape(-1, N_EMBEDDING).astype(np.float64)
    flat = flat[flat.any(axis=1)]
    mean, scale = flat.mean(0), 1 / np.maximum(flat.std(0), 1e-3)
    return torch.from_numpy(mean.astype(np.float32)), torch.from_numpy(scale.astype(np.float32))


def difficulty(logits: torch.Tensor, targets: npt.NDArray[np.int8], n_keywords: int) -> npt.NDArray[np.float64]:
    """How difficult each example is, (B,): LEAST_DIFFICULTY plus the loss of the highest peak of an absent keyword.

    A keyword that is present but drowned in noise counts for nothing: drawn often, it would teach noise.

    logits: (B, S, C) float32. targets: (B, C), as in Example.
    """
    peaks = logits.detach()[:, :, :n_keywords].amax(1).double().numpy()
    absent = np.where(targets[:, :n_keywords] == 0, np.logaddexp(0.0, peaks), 0.0)
    worst: npt.NDArray[np.float64] = absent.max(1)
    return worst + LEAST_DIFFICULTY
