"""Networks that tests of training share, with statistics that have seen data."""

import functools
from dataclasses import replace

import numpy as np
import torch
from conftest import speechlike

from streamkws.frontend import FrontEnd, FrontEndConfig
from streamkws.layers import LayerConfig
from streamkws.model import ModelConfig
from streamkws.smoother import SmootherConfig
from streamkws.training.fake_quant import QuantizationConfig
from streamkws.training.network import KeywordNetwork

FRONT_END = FrontEndConfig(n_mels=12, window="hann", energy_floor=1e-9)
WIDTHS = {
    "w8a8": [(8, 8)] * 4,
    "w4a8": [(4, 8)] * 4,
    "w4a4": [(4, 4)] * 4,
    "w3a8": [(3, 8)] * 4,
    "w2a8": [(2, 8)] * 4,
    "mixed": [(8, 8), (2, 5), (4, 4), (3, 6)],
    "first and last float32": [(32, 32), (4, 8), (5, 7), (32, 32)],
}


def make_config(frame_stride=2, first_taps=5, widths=((32, 32),) * 4, activation="sigmoid"):
    layers = (
        LayerConfig(12, 16, taps=first_taps),
        LayerConfig(16, 16, taps=3, dilation=2, residual=True),
        LayerConfig(16, 10, taps=2, dilation=3, activation="linear"),
        LayerConfig(10, 2 + (activation == "softmax"), activation=activation),
    )
    return ModelConfig(
        keywords=("alexa", "smart mirror"),
        layers=tuple(
            replace(layer, weight_bits=weights, activation_bits=activations)
            for layer, (weights, activations) in zip(layers, widths, strict=True)
        ),
        frontend=FRONT_END,
        smoother=SmootherConfig(4, 2, 30),
        frame_stride=frame_stride,
        durations_s={"alexa": 0.6},
        provenance={"name": "x"},
    )


def trained(config, n_auxiliary=3, seed=0, quantization=None):
    """A network whose batch normalization has seen data, in eval mode."""
    torch.manual_seed(seed)
    network = KeywordNetwork(config, n_auxiliary, quantization)
    n_mels = config.frontend.n_mels
    network.set_features(np.full(n_mels, -3, np.float32), np.full(n_mels, 0.4, np.float32))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
        for layer in network.causal_layers[:-1]:
            layer.norm.weight[::3] *= -1  # these columns are mirrored when folded
        for _ in range(20):
            network(torch.randn(4, 60, n_mels) * 2 - 3)
    return network.eval()


@functools.cache
def make_speech():
    """(198, 12) float32 log-mel, with the mean and scale that the networks of trained() have seen."""
    features = FrontEnd(FRONT_END).push(speechlike(32000))
    return ((features - features.mean()) / features.std() * 2 - 3).astype(np.float32)


def quantizing_network(name="w4a8", n_auxiliary=3, **settings):
    return trained(make_config(widths=WIDTHS[name]), n_auxiliary, quantization=QuantizationConfig(**settings))
