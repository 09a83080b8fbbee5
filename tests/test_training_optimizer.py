"""The learning rate, the average of the weights, and when quantization sets in."""

import pytest
import torch

from streamkws.frontend import FrontEndConfig
from streamkws.layers import LayerConfig
from streamkws.model import ModelConfig
from streamkws.training.network import KeywordNetwork
from streamkws.training.optimizer import ExponentialMovingAverage, adamw, learning_rate, optimizer_step, warmed_decay
from streamkws.training.recipe import TrainingConfig


def network():
    layers = (LayerConfig(12, 4, taps=2), LayerConfig(4, 2, activation="sigmoid"))
    return KeywordNetwork(ModelConfig(("a", "b"), layers, FrontEndConfig(n_mels=12)))


def test_the_average_keeps_its_decay_of_the_old_weights():
    learner = network()
    average = ExponentialMovingAverage(learner)
    before = {name: values.clone() for name, values in average.network.state_dict().items()}
    with torch.no_grad():
        for values in learner.state_dict().values():
            values.add_(1)
    average.update(0.9)
    for name, values in average.network.state_dict().items():
        if values.is_floating_point():
            torch.testing.assert_close(values, before[name] + 0.1)
    assert not average.network.training


def test_the_decay_grows_to_the_one_set():
    assert [warmed_decay(0.999, n) for n in (0, 1, 10)] == [0.1, 2 / 11, 11 / 20]
    assert warmed_decay(0.999, 100_000) == 0.999 and warmed_decay(0.05, 10) == 0.05


def test_the_learning_rate_rises_then_follows_a_cosine():
    settings = TrainingConfig(learning_rate=3e-3, learning_rate_end=1e-3, warmup_steps=4)
    assert [learning_rate(settings, step, 0.0) for step in range(5)] == pytest.approx(
        [0.75e-3, 1.5e-3, 2.25e-3, 3e-3, 3e-3]
    )
    assert [learning_rate(settings, 99, done) for done in (0.5, 1.0)] == pytest.approx([2e-3, 1e-3])


def test_a_step_limits_the_gradient_and_decays_matrices_alone():
    learner, settings = network(), TrainingConfig(weight_decay=0.5)
    optimizer = adamw(learner, settings)
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert all(decays[id(p)] == (0.5 if p.ndim > 1 else 0.0) for p in learner.parameters())
    loss = 1e3 * sum(parameter.sum() for parameter in learner.parameters())
    optimizer_step(learner, optimizer, loss, 0.25, 1.0)
    norm = torch.cat([p.grad.flatten() for p in learner.parameters()]).norm().item()
    assert norm == pytest.approx(1.0, abs=1e-3) and {group["lr"] for group in optimizer.param_groups} == {0.25}
