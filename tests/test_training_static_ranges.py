"""Static ranges: calibrated in full precision, the same for all frames."""

import numpy as np
import pytest
import torch
from networks import WIDTHS, make_config, make_speech, trained

from streamkws.model import Model
from streamkws.training.fake_quant import QuantizationConfig, StaticRange


@pytest.fixture
def speech():
    return make_speech()


def calibrated(name="w4a8", seed=0):
    network = trained(
        make_config(widths=WIDTHS[name]), seed=seed, quantization=QuantizationConfig(activation_ranges="static")
    )
    network.calibrate(torch.from_numpy(np.stack([make_speech()[:96], make_speech()[96:192]])))
    return network


def test_calibration_leaves_weights_and_statistics_alone(speech):
    network = trained(make_config(widths=WIDTHS["w4a8"]))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    model = network.to_model().new_state().push(speech)
    dynamic = network.posteriors(speech)
    network.calibrate(torch.from_numpy(speech)[None])
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert all(layer.quantizing for layer in network.causal_layers)
    assert np.array_equal(network.to_model().new_state().push(speech), model)  # the runtime has ranges per frame
    static = network.posteriors(speech)
    assert not np.array_equal(static, dynamic)
    full = Model.from_float(network.config, network.to_float_weights()).new_state().push(speech)
    assert 0 < np.abs(static - full).mean() < 0.1


def test_static_ranges_come_from_what_passes_in_full_precision():
    network = calibrated()
    features = torch.from_numpy(np.stack([make_speech()[:96], make_speech()[96:192]]))
    seen = []
    hooks = [
        layer.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0])) for layer in network.causal_layers
    ]
    network.quantize(False)
    with torch.no_grad():
        outputs = network(features)
    for hook in hooks:
        hook.remove()
    for layer, x in zip(network.causal_layers, seen, strict=True):
        assert layer.input_range == StaticRange.calibrated(x, 8)
    assert network.output_range == StaticRange.calibrated(outputs[:, :, :2], 8)  # the keywords', not the auxiliary ones


def test_layers_in_float32_have_no_static_range():
    network = calibrated("first and last float32")
    assert [layer.input_range is None for layer in network.causal_layers] == [True, False, False, True]
    assert network.output_range is None
    assert [layer.quantizing for layer in network.causal_layers] == [False, True, True, False]


def test_static_ranges_are_the_same_for_all_frames():
    network = calibrated()
    quiet, loud = torch.randn(1, 12, 7), 3 * torch.randn(1, 12, 7)
    layer = network.causal_layers[0]
    alone = layer.quantize_input(quiet)
    together = layer.quantize_input(torch.cat([loud, quiet], 2))[:, :, 7:]
    assert torch.equal(alone, together)
    static = layer.input_range
    for frames in (quiet, loud):
        grid = torch.arange(256) * static.step + static.lo
        values = layer.quantize_input(frames)
        assert (values[..., None] - grid).abs().amin(-1).max() < 1e-5
        assert torch.allclose(values, frames.clamp(grid[0], grid[-1]), atol=static.step * 0.501)
    moved = layer.quantize_input(0.5 * quiet)
    assert not torch.allclose(moved, 0.5 * alone, atol=1e-6)  # as frame-wise ranges would give
    layer.input_range = None
    assert torch.allclose(layer.quantize_input(0.5 * quiet), 0.5 * layer.quantize_input(quiet), atol=1e-6)
