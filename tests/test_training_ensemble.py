"""An ensemble's posteriors, and the loss of a network that learns them."""

import numpy as np
import pytest
import torch
from synthetic_corpus import KEYWORDS

from streamkws.errors import ConfigError
from streamkws.frontend import FrontEndConfig
from streamkws.layers import LayerConfig
from streamkws.model import ModelConfig
from streamkws.training.blocks import Block
from streamkws.training.ensemble import Ensemble, ensemble_loss
from streamkws.training.losses import block_losses
from streamkws.training.network import KeywordNetwork
from streamkws.training.recipe import TrainingConfig


def network(seed, stride=2, n_hidden=8, n_auxiliary=3):
    torch.manual_seed(seed)
    config = ModelConfig(
        keywords=KEYWORDS,
        layers=(
            LayerConfig(20, n_hidden, taps=3),
            LayerConfig(n_hidden, len(KEYWORDS), activation="sigmoid"),
        ),
        frontend=FrontEndConfig(n_mels=20),
        frame_stride=stride,
    )
    return KeywordNetwork(config, n_auxiliary)


def noise(n_examples=3, n_frames=31):
    return np.random.default_rng(5).standard_normal((n_examples, n_frames, 20)).astype(np.float32)


def test_posteriors_are_the_mean_of_the_networks():
    members, features = [network(1), network(2, n_hidden=12, n_auxiliary=0)], noise()
    given = Ensemble(members).posteriors(features)
    assert given.shape == (3, 31, len(KEYWORDS)) and given.dtype == np.float16
    for example, posteriors in zip(features, given, strict=True):
        wanted = np.mean([member.posteriors(example) for member in members], axis=0)
        assert wanted.std() > 0.01
        np.testing.assert_allclose(posteriors[1::2], wanted, atol=1e-3)


def test_posteriors_are_interpolated_between_steps():
    given = Ensemble([network(1, stride=3)]).posteriors(noise())
    steps = given[:, 2::3].astype(np.float32)
    np.testing.assert_allclose(given[:, 3:-1:3], (2 * steps[:, :-1] + steps[:, 1:]) / 3, atol=1e-3)
    np.testing.assert_array_equal(given[:, 0], given[:, 2])
    np.testing.assert_array_equal(given[:, -1], steps[:, -1].astype(np.float16))


def test_bfloat16_is_nearly_the_same():
    ensemble, features = Ensemble([network(1), network(2)]), noise()
    full, short = ensemble.posteriors(features), ensemble.posteriors(features, bfloat16=True)
    assert 0 < np.abs(full - short).max() < 0.03


def test_members_learn_no_more():
    member = network(1).train()
    Ensemble([member])
    assert not member.training and not any(parameter.requires_grad for parameter in member.parameters())


def test_the_loss_is_the_divergence():
    posteriors, both = torch.tensor([[[0.2, 1.0], [0.5, 0.0]]]), torch.tensor([[True, True]])
    assert ensemble_loss(torch.logit(posteriors, 1e-6), posteriors, both).item() == pytest.approx(0.0, abs=1e-4)
    logits = torch.zeros(1, 2, 2)
    by_hand = 0.2 * np.log(0.2 / 0.5) + 0.8 * np.log(0.8 / 0.5) + 2 * np.log(2)
    assert ensemble_loss(logits, posteriors, both).item() == pytest.approx(by_hand / 2, rel=1e-5)
    one = ensemble_loss(logits, posteriors, torch.tensor([[False, True]])).item()
    assert one == pytest.approx(np.log(2), rel=1e-5)


def test_the_gradient_leads_to_the_posteriors():
    logits = torch.tensor([[[3.0, -3.0]]], requires_grad=True)
    ensemble_loss(logits, torch.tensor([[[0.1, 0.6]]]), torch.tensor([[True, True]])).backward()
    assert logits.grad is not None and logits.grad[0, 0, 0] > 0 > logits.grad[0, 0, 1]


def test_an_ensemble_has_members():
    with pytest.raises(ConfigError, match="expected an ensemble of at least one network, got none"):
        Ensemble([])


def test_an_ensemble_does_not_teach_where_it_errs():
    logits = torch.zeros(3, 4, len(KEYWORDS))
    said = np.full((3, 8, len(KEYWORDS)), 0.1, np.float16)
    said[1, 5, 0] = 0.9  # heard, at one step
    targets = np.array([[1, 0], [1, 0], [-1, 0]], np.int8)
    frames, none = np.zeros((3, 2), np.int16), np.zeros((3, 0), np.int16)
    block = Block(np.zeros((3, 8, 20), np.float32), targets, frames, frames, np.zeros((3, 0, 96)), none, said)

    def divergence(least):
        settings = TrainingConfig(ensemble_weight=1.0, ensemble_heard=least)
        return block_losses(logits, block, 2, 2, settings, None).ensemble.item()

    apart = 0.1 * np.log(0.2) + 0.9 * np.log(1.8)  # the same at 0.1 and 0.9
    assert divergence(0.0) == pytest.approx(6 * apart / 3, rel=1e-3)
    assert divergence(0.5) == pytest.approx(5 * apart / 3, rel=1e-3)
    assert divergence(0.95) == pytest.approx(4 * apart / 3, rel=1e-3)
    targets[1, 0] = 0  # absent, and heard at 0.9
    assert divergence(0.0) == pytest.approx(6 * apart / 3, rel=1e-3)
    assert divergence(0.5) == pytest.approx(4 * apart / 3, rel=1e-3)
    targets[1, 0] = -1  # who knows
    assert divergence(0.5) == pytest.approx(5 * apart / 3, rel=1e-3)
