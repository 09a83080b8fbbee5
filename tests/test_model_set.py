from dataclasses import replace

import pytest
from conftest import random_model

from streamkws import ConfigError, Detector, FrontEndConfig, Model, ModelFileError
from streamkws.model_set import ModelSet


def test_models_that_cannot_hear_one_stream_are_refused():
    model = random_model()
    twice = (
        r"^expected each keyword in one model, got 'alexa' in model 1 \(random\.f32\) and in model 3 \(random\.w4a8\)$"
    )
    with pytest.raises(ConfigError, match=twice):
        Detector([model, random_model(keywords=("stop",)), model.quantize(4, 8)])
    with pytest.raises(ConfigError, match=r"^expected at least one model, got none$"):
        Detector([])
    with pytest.raises(ModelFileError, match=r"^unknown model 'hal': neither a file nor a shipped model; shipped: "):
        Detector(["wakewords", "hal"])


def test_different_sample_rates_are_refused():
    model = random_model(keywords=("stop",))
    frontend = FrontEndConfig(sample_rate=8000, high_hz=4000, n_mels=20, window="hann")
    slow = Model(replace(model.config, frontend=frontend), model.layers, model.features, model.filters)
    text = r"^expected models of one sample rate, got 16000 Hz in model 1 \(random\.f32\) and 8000 Hz in model 2 \("
    with pytest.raises(ConfigError, match=text):
        ModelSet([random_model(), slow])


def test_it_knows_whose_a_keyword_is():
    first, second = random_model(), random_model(keywords=("stop",)).quantize(8, 8)
    both = ModelSet(iter([first, second]))
    assert both.model_of("stop") is second and both.model_of("alexa") is first
    assert (both.name, both.sample_rate) == ("random.f32 + random.w8a8", 16000)
