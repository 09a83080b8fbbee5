"""Two tones as keywords, a model that detects them, and how to read what the commands print."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np

from streamkws.frontend import FrontEndConfig
from streamkws.layers import LayerConfig
from streamkws.model import FloatWeights, Model, ModelConfig

RATE = 16000
KEYWORDS = ("low tone", "high tone")
SLOW_START = "streamkws: starting; the first start compiles the kernels, once per machine ..."
TONES_HZ = {"low tone": 300.0, "high tone": 3000.0}


def tones(*keywords: str) -> np.ndarray:
    """Each keyword as 0.4 s of its tone, with 1 s of silence around each; (n,) float32."""
    time_s = np.arange(int(0.4 * RATE)) / RATE
    silence = np.zeros(RATE)
    pieces = [silence]
    for keyword in keywords:
        pieces += [0.5 * np.sin(2 * np.pi * TONES_HZ[keyword] * time_s), silence]
    return np.concatenate(pieces).astype(np.float32)


def other_model() -> Model:
    """A w4a8 model with the front end of tones_model, whose one keyword, "bell", is the high tone again."""
    tones = tones_model()
    config = replace(
        tones.config,
        keywords=("bell",),
        layers=(replace(tones.config.layers[0], n_outputs=1),),
        thresholds={"bell": 0.5},
        durations_s={},
        provenance={"name": "other"},
    )
    layer = tones.layers[0]
    weights = FloatWeights(*tones.features, (layer.weights[1:],), (layer.bias[1:],))
    return Model.from_float(config, weights).quantize(4, 8)


def pcm(samples: np.ndarray) -> bytes:
    return (samples * 32767).astype("<i2").tobytes()


def tones_model(n_copies: int = 0) -> Model:
    """A model that hears a tone as a keyword: its last layer compares low with high mel bands.

    n_copies: layers before it that only copy their input.
    """
    n_mels = 26
    copy = LayerConfig(n_mels, n_mels, activation="linear")
    config = ModelConfig(
        keywords=KEYWORDS,
        layers=(*[copy] * n_copies, LayerConfig(n_mels, 2, activation="sigmoid")),
        frontend=FrontEndConfig(n_mels=n_mels, window="hann"),
        thresholds={"low tone": 0.6, "high tone": 0.6},
        durations_s={"low tone": 0.3, "high tone": 0.3},
        provenance={"name": "tones", "data": "none; made by hand"},
    )
    low = 0.5 * np.where(np.arange(n_mels) < 8, 1 / 8, -1 / (n_mels - 8))
    high = np.where(np.arange(n_mels) < 14, -1 / 14, 1 / (n_mels - 14))
    weights = FloatWeights(
        feature_mean=np.zeros(n_mels, np.float32),
        feature_scale=np.ones(n_mels, np.float32),
        weights=(
            *[np.eye(n_mels, dtype=np.float32)[:, np.newaxis]] * n_copies,
            np.stack([low, high])[:, np.newaxis].astype(np.float32),
        ),
        biases=(*[np.zeros(n_mels, np.float32)] * n_copies, np.full(2, -3, np.float32)),
    )
    return Model.from_float(config, weights)


def messages(err: bytes) -> list[str]:
    """What a process wrote to standard error, but that it started slowly."""
    return [line for line in err.decode().splitlines() if line != SLOW_START]


def hits(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]
