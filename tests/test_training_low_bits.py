"""Training with 2-bit weights learns what rounding afterwards loses."""

import numpy as np
import pytest
import torch
from networks import FRONT_END, make_speech
from torch import nn

from streamkws.layers import LayerConfig
from streamkws.model import ModelConfig
from streamkws.training.fake_quant import QuantizationConfig
from streamkws.training.network import KeywordNetwork


@pytest.fixture
def speech():
    return make_speech()


LABELS = ("left", "right", "up")  # and, last, none of them
PATTERNS = np.random.default_rng(9).standard_normal((4, 16, 12))
INTERFERENCE = 5 * np.random.default_rng(10).standard_normal((3, 12))


def patterned(rng, n):
    """n examples: (n, 16, 12) float32 features and (n,) classes.

    Each class is a sequence of frames, heard under interference five times as strong. It lies in three directions of
    the feature space, to which weights must be orthogonal: easy to learn, and easily lost when weights are rounded.
    """
    classes = rng.integers(0, 4, n)
    interference = rng.standard_normal((n, 16, 3)) @ INTERFERENCE
    features = PATTERNS[classes] + 0.5 * rng.standard_normal((n, 16, 12)) + interference
    return features.astype(np.float32), classes


def pattern_network(seed, weight_bits=32, activation_bits=32, gradient="identity"):
    widths = {"weight_bits": weight_bits, "activation_bits": activation_bits}
    layers = (
        LayerConfig(12, 24, taps=4, **widths),
        LayerConfig(24, 24, taps=3, dilation=3, **widths),
        LayerConfig(24, 4, activation="softmax", **widths),
    )
    torch.manual_seed(seed)
    config = ModelConfig(LABELS, layers, FRONT_END)
    return KeywordNetwork(config, quantization=QuantizationConfig(gradient=gradient))


def learn_patterns(network, seed, freeze_step, n_steps=200):
    """Train on fresh examples; the statistics are frozen from a step on."""
    rng, optimizer = np.random.default_rng(seed), torch.optim.Adam(network.parameters())
    network.train()
    for step in range(n_steps):
        if step == freeze_step:
            network.freeze()
        features, classes = patterned(rng, 64)
        optimizer.param_groups[0]["lr"] = 1e-2 * min(1, 2 * (n_steps - step) / n_steps)
        loss = nn.functional.cross_entropy(network(torch.from_numpy(features))[:, -1], torch.from_numpy(classes))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


def runtime_accuracy(model):
    """The share of fresh examples whose class has the highest posterior at the last frame, in the runtime."""
    features, classes = patterned(np.random.default_rng(1234), 500)
    state, n_right = model.new_state(), 0
    for frames, wanted in zip(features, classes, strict=True):
        state.reset()
        posteriors = state.push(frames)[-1]
        n_right += int(np.argmax([*posteriors, 1 - posteriors.sum()])) == wanted
    return n_right / len(classes)


@pytest.fixture(scope="module")
def full_precision():
    """A network that has learned the patterns in float32, and its accuracy with 2-bit weights put on afterwards."""
    network = learn_patterns(pattern_network(0), 0, freeze_step=None)
    assert runtime_accuracy(network.to_model()) >= 0.99
    return network, runtime_accuracy(network.to_model().quantize(2, 8))


@pytest.mark.parametrize(
    ("start", "gradient"), [("scratch", "identity"), ("full precision", "identity"), ("full precision", "ranges")]
)
def test_training_with_2_bit_weights_learns_what_rounding_afterwards_loses(start, gradient, full_precision):
    """Over 17 seeds: at least 99.2 % trained so, at most 86.6 % rounded afterwards, always 100 % in float32."""
    full, accuracy_after = full_precision
    network = pattern_network(1, 2, 8, gradient)
    if start == "scratch":
        learn_patterns(network, 1, freeze_step=100)
    else:
        network.load_state_dict(full.state_dict())
        learn_patterns(network, 1, freeze_step=0, n_steps=300)
    accuracy = runtime_accuracy(network.to_model())
    assert accuracy >= 0.97
    assert accuracy_after <= accuracy - 0.08
