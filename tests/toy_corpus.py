"""A model whose posteriors are its samples, and a small corpus for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile

from streamkws.frontend import FrontEndConfig
from streamkws.layers import LayerConfig
from streamkws.model import ModelConfig
from streamkws.smoother import SmootherConfig

STEP = 320


class ToyFrontEnd:
    """A frame is the mean of 320 samples."""

    n_pushes = 0

    def reset(self) -> None:
        pass

    def push(self, samples):
        ToyFrontEnd.n_pushes += 1
        n = len(samples) // STEP
        return samples[: n * STEP].reshape(n, STEP).mean(axis=1, keepdims=True)


@dataclass
class ToyState:
    """Positive frames are posteriors of the first keyword, negative ones of the second, delay_steps later."""

    delay_steps: int

    def hear_silence(self) -> None:
        pass

    def push(self, frames):
        late = np.concatenate([np.zeros((self.delay_steps, 1), dtype=np.float32), frames])[: len(frames)]
        return np.clip(np.concatenate([late, -late], axis=1), 0, 1)


@dataclass
class ToyModel:
    thresholds: dict[str, float] = field(default_factory=lambda: {"go": 0.5, "stop now": 0.5})
    keywords: tuple[str, ...] = ("go", "stop now")
    name: str = "toy.f32"
    delay_steps: int = 0
    n_front_ends: int = 0
    frontend: FrontEndConfig = field(default_factory=FrontEndConfig)
    settings: ModelConfig | None = None

    @property
    def config(self) -> ModelConfig:
        if self.settings is not None:
            return self.settings
        layer = LayerConfig(self.frontend.n_mels, len(self.keywords), activation="sigmoid")
        return ModelConfig(
            self.keywords, (layer,), self.frontend, SmootherConfig(1, 3, 50), 2, provenance={"data": "none"}
        )

    def new_front_end(self):
        self.n_front_ends += 1
        return ToyFrontEnd()

    def new_state(self):
        return ToyState(self.delay_steps)


def write(path: Path, *parts: tuple[float, int]) -> None:
    """Write a file whose posteriors are these values for these numbers of steps."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.concatenate([np.full(n_steps * STEP, value, dtype=np.float32) for value, n_steps in parts])
    soundfile.write(path, samples, 16000, subtype="FLOAT")


def write_corpus(root: Path) -> Path:
    """Four recordings of "go", two of "stop now"; 36 s of negatives, so that one false accept is 100 per hour."""
    words = root / "wakewords"
    write(words / "go" / "a_0.wav", (0, 20), (0.9, 5), (0, 20))
    write(words / "go" / "a_1.wav", (0, 20), (0.6, 5), (0, 20))
    write(words / "go" / "b_0.wav", (0, 20), (0.3, 5), (0, 20))
    write(words / "go" / "p0_1.wav", (0, 20), (0.95, 5), (0, 20))
    write(words / "stop_now" / "a_2.wav", (0, 20), (-0.8, 5), (0, 20))
    write(words / "stop_now" / "c_0.wav", (0, 20), (-0.4, 5), (0, 10), (0.7, 5))
    write(root / "talk" / "000.wav", (0, 300), (0.8, 5), (0, 295), (-0.2, 5), (0, 295))
    write(root / "more" / "deep" / "x.wav", (0, 300), (0.55, 5), (0, 590), (0.7, 5))
    write(root / "impulse_responses" / "room.wav", (1, 100))
    return root


def add_noise(corpus: Path) -> Path:
    """The corpus with two noise sets, and a negative set of two segments and a rest."""
    random = np.random.default_rng(1)
    for name, n_samples in (("hiss_noise/0.wav", 16000), ("hum_noise/0.wav", 80000)):
        (corpus / name).parent.mkdir()
        soundfile.write(corpus / name, 0.1 * random.standard_normal(n_samples), 16000, subtype="FLOAT")
    (corpus / "hum_noise" / "segments.csv").write_text("file,start,end\n0.wav,0,30000\n0.wav,30000,80000\n")
    table = "file,start,end,label,speaker,source\n000.wav,0,96000,,,\n000.wav,96000,250000,,,\n"
    (corpus / "talk" / "segments.csv").write_text(table)
    return corpus
