"""The torch network is the runtime's network."""

import numpy as np
import pytest
import torch

from streamkws.errors import ConfigError
from streamkws.frontend import FrontEndConfig
from streamkws.layers import LayerConfig
from streamkws.model import Model, ModelConfig
from streamkws.smoother import SmootherConfig
from streamkws.training.network import KeywordNetwork, config_from_json, config_to_json, load_network


def make_config(frame_stride=2, first_taps=5):
    return ModelConfig(
        keywords=("alexa", "smart mirror"),
        layers=(
            LayerConfig(12, 16, taps=first_taps),
            LayerConfig(16, 16, taps=3, dilation=2, residual=True),
            LayerConfig(16, 10, taps=2, dilation=3, activation="linear"),
            LayerConfig(10, 2, activation="sigmoid"),
        ),
        frontend=FrontEndConfig(n_mels=12, window="hann", energy_floor=1e-9),
        smoother=SmootherConfig(4, 2, 30),
        frame_stride=frame_stride,
        durations_s={"alexa": 0.6},
        provenance={"name": "x"},
    )


def trained(config, n_auxiliary=3, seed=0):
    """A network whose batch normalization has seen data, in eval mode."""
    torch.manual_seed(seed)
    network = KeywordNetwork(config, n_auxiliary)
    network.set_features(np.full(12, -3, np.float32), np.full(12, 0.4, np.float32))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
        for _ in range(20):
            network(torch.randn(4, 60, 12) * 2 - 3)
    return network.eval()


@pytest.mark.parametrize(("frame_stride", "first_taps"), [(1, 5), (2, 5), (3, 4), (2, 1)])
def test_the_folded_network_runs_the_same_in_the_runtime(frame_stride, first_taps):
    config = make_config(frame_stride, first_taps)
    network = trained(config)
    features = (np.random.default_rng(1).standard_normal((101, 12)) * 2 - 3).astype(np.float32)
    with torch.no_grad():
        wanted = torch.sigmoid(network(torch.from_numpy(features)[None])[0, :, :2]).numpy()
    heard = Model.from_float(config, network.to_float_weights()).new_state().push(features)
    assert wanted.shape == heard.shape == (101 // frame_stride, 2)
    assert wanted.std() > 0.05
    np.testing.assert_allclose(heard, wanted, atol=1e-4)


def test_float_weights_have_the_runtimes_shapes():
    weights = trained(make_config()).to_float_weights()
    assert [w.shape for w in weights.weights] == [(16, 5, 12), (16, 3, 16), (10, 2, 16), (2, 1, 10)]
    assert [b.shape for b in weights.biases] == [(16,), (16,), (10,), (2,)]
    assert all(array.dtype == np.float32 for array in (*weights.weights, *weights.biases, weights.feature_mean))


def test_it_is_causal():
    network = trained(make_config())
    features = torch.randn(1, 80, 12)
    changed = features.clone()
    changed[:, 41:] += 5
    with torch.no_grad():
        difference = (network(features) - network(changed)).abs().amax((0, 2))
    assert difference[:20].max() == 0 and difference[20] > 0  # step 20 ends with frame 41


def test_a_configuration_survives_as_text():
    config = make_config()
    assert config_from_json(config_to_json(config)) == config


@pytest.mark.parametrize(
    ("layers", "text"),
    [
        ((LayerConfig(12, 3, activation="softmax"),), "expected a last layer with a sigmoid output per keyword"),
        ((LayerConfig(12, 2, taps=2), LayerConfig(2, 2, activation="sigmoid", residual=True)), "is not residual"),
    ],
)
def test_networks_that_cannot_be_trained(layers, text):
    config = ModelConfig(("a", "b"), layers, FrontEndConfig(n_mels=12))
    with pytest.raises(ConfigError, match=text):
        KeywordNetwork(config)


def test_checkpoints_that_are_none(tmp_path):
    with pytest.raises(ConfigError, match=r"expected a checkpoint, found no file .*missing.pt"):
        load_network(tmp_path / "missing.pt")
    wrong = tmp_path / "wrong.pt"
    wrong.write_bytes(b"no checkpoint")
    with pytest.raises(
        ConfigError, match=r"expected a checkpoint of this trainer, .*wrong.pt is damaged or another file"
    ):
        load_network(wrong)
