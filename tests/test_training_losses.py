"""Losses of clips, and how difficult an example is."""

import math

import numpy as np
import pytest
import torch

from streamkws.training.losses import LEAST_DIFFICULTY, clip_losses, difficulty
from streamkws.training.recipe import TrainingConfig


def losses(logits, targets, onset=0, first=0, **settings):
    """clip_losses of one example: logits (S, C), targets (C,); two keywords, the rest auxiliary."""
    n = len(targets)
    return clip_losses(
        torch.tensor(logits, dtype=torch.float32)[None],
        torch.tensor([targets], dtype=torch.int8),
        torch.full((1, n), onset),
        torch.full((1, n), first),
        2,
        TrainingConfig(**{"frame_weight": 0.0, "smoothing_steps": 2, **settings}),
    )


def softplus(x):
    return math.log1p(math.exp(x))


def test_the_loss_is_that_of_the_highest_smoothed_logit():
    logits = np.full((10, 3), -5.0)
    logits[4, 0], logits[5, 0], logits[7, 1] = 3.0, 5.0, 1.0
    result = losses(logits, [1, 0, -1])
    assert result.present.item() == pytest.approx(softplus(-4.0), rel=1e-4)
    assert result.absent.item() == pytest.approx(softplus(-2.0), rel=1e-4)
    assert result.auxiliary.item() == 0.0
    assert result.total.item() == pytest.approx(softplus(-4.0) + softplus(-2.0), rel=1e-4)


def test_a_keyword_counts_from_its_middle_on_only():
    logits = np.full((10, 2), -5.0)
    logits[2:4, 0] = 5.0
    assert losses(logits, [1, 0], first=3).present.item() == pytest.approx(softplus(-5.0), rel=1e-4)
    assert losses(logits, [1, 0], first=6).present.item() == pytest.approx(softplus(5.0), rel=1e-4)
    assert math.isfinite(losses(logits, [1, 0], first=50).present.item())


def test_frames_before_a_keyword_and_of_negatives_are_taught_silence():
    logits = torch.zeros(1, 10, 2, requires_grad=True)
    targets = torch.tensor([[1, 0]], dtype=torch.int8)
    config = TrainingConfig(frame_weight=0.1, smoothing_steps=1)
    clip_losses(logits, targets, torch.full((1, 2), 4), torch.full((1, 2), 6), 2, config).total.backward()
    gradient = logits.grad[0]
    assert (gradient[:4, 0] > 0).all() and (gradient[4:6, 0] == 0).all() and gradient[6:, 0].min() < 0
    assert (gradient[:, 1] > 0).all()


def test_each_kind_of_loss_has_its_weight():
    logits = np.full((10, 4), -2.0)
    plain = losses(logits, [1, 0, 1, 0], auxiliary_weight=1.0)
    weights = {"positive_weight": 3.0, "negative_weight": 0.25, "auxiliary_weight": 0.5}
    weighted = losses(logits, [1, 0, 1, 0], **weights)
    assert plain.present.item() == pytest.approx(softplus(2.0)) and plain.absent.item() == pytest.approx(softplus(-2.0))
    assert plain.auxiliary.item() == pytest.approx(softplus(2.0) + softplus(-2.0))
    for name, weight in zip(("present", "absent", "auxiliary"), weights.values(), strict=True):
        assert getattr(weighted, name).item() == pytest.approx(weight * getattr(plain, name).item())
    total = sum(getattr(weighted, name).item() for name in ("present", "absent", "auxiliary"))
    assert weighted.total.item() == pytest.approx(total)


def test_difficulty_is_the_loss_of_the_worst_absent_peak():
    logits = torch.full((3, 5, 3), -4.0)
    logits[0, 2, 0] = -9.0  # present and not heard
    logits[1, 4, 1] = 3.0  # absent and heard
    logits[2, 1, 2] = 9.0  # an auxiliary output
    targets = np.array([[1, 0, 0], [0, 0, 0], [1, 0, 0]], np.int8)
    expected = [math.log1p(math.exp(-4)), math.log1p(math.exp(3)), math.log1p(math.exp(-4))]
    np.testing.assert_allclose(difficulty(logits, targets, 2), np.array(expected) + LEAST_DIFFICULTY, rtol=1e-6)
