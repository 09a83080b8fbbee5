"""Runs on a synthesized corpus that several test files look at, and the recipes they are of."""

from pathlib import Path

import pytest
from synthetic_corpus import write_part

from streamkws.errors import ConfigError

RECIPE = """
name = "chirps"
[model]
keywords = ["go up", "down"]
n_mels = 20
layers = [{ outputs = 16, taps = 5 }, { outputs = 16, taps = 3, dilation = 4, residual = true }]
[data]
corpus = "CORPUS"
impulse_responses = "rooms"
noise = ["hiss"]
auxiliary = ["words"]
negatives = { speech = 1, words = 1, hiss = 0.3 }
[training]
steps = STEPS
batch = 16
pool = 64
learning_rate = 1e-2
warmup_steps = 5
average_decay = 0.9
validate_steps = 40
log_steps = 20
[export.provenance]
name = "chirps"
"""
AWARE = (
    RECIPE.replace('"chirps"', '"aware"', 1)
    .replace("CORPUS", "nowhere")
    .replace("STEPS", "24\nreuse = 16\nhard_share = 0.5")
    .replace("validate_steps = 40", "validate_steps = 6")
    .replace("log_steps = 20", "log_steps = 8")
    .replace("batch = 16", "batch = 8")
)
"""A short training; [quantization] is to be added."""
FROM_SCRATCH = (
    AWARE.replace("taps = 5", "taps = 5, weight_bits = 8, activation_bits = 8")
    + """
[quantization]
weights = 4
activations = 6
last_weights = 32
last_activations = 32
start_share = 0.35
freeze_share = 0.6
"""
)
"""Of the 24 steps the ninth is the first that is quantized, the fifteenth the first with frozen normalization."""
FROM_CHIRPS = (
    AWARE.replace("learning_rate = 1e-2", 'learning_rate = 0\nstart_from = "runs/chirps"').replace("24", "2")
    + """
[quantization]
weight_ranges = "matrix"
"""
)
"""Nothing is learnt: what comes out is what training started from."""


@pytest.fixture(scope="session")
def training_corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("corpus")
    write_part(root / "train", 1)
    write_part(root / "dev", 2)
    return root


@pytest.fixture(scope="session")
def chirps_run(tmp_path_factory, training_corpus):
    """A folder with a finished run of 80 steps, made in two parts."""
    from streamkws.training.loop import train

    folder = tmp_path_factory.mktemp("run")
    recipe = folder / "chirps.toml"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for steps in (40, 80):
            recipe.write_text(RECIPE.replace("CORPUS", "nowhere").replace("STEPS", str(steps)))
            assert train(recipe, corpus=training_corpus).resolve() == folder / "runs" / "chirps"
    return folder


def measure_by_precision(validation, network):
    """In place of Validation.measure: quantization misses more, so that best.pt tells what it took."""
    return {"miss at 0 FA": 0.5 if network.causal_layers[0].quantizing else 0.0}


@pytest.fixture(scope="session")
def aware_run(training_corpus, tmp_path_factory):
    """A folder with a quantization-aware run from scratch, made in one go."""
    from streamkws.training.loop import train
    from streamkws.training.validation import Validation

    folder = tmp_path_factory.mktemp("aware")
    recipe = folder / "aware.toml"
    recipe.write_text(FROM_SCRATCH)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(Validation, "measure", measure_by_precision)
        train(recipe, corpus=training_corpus)
    return folder


def read_checkpoint(path):
    """The entries of a checkpoint."""
    import torch

    return torch.load(path, weights_only=True)


def check_refused(text, training_corpus, message, errors=ConfigError):
    """Whether a recipe, in the working directory, is refused before anything is written."""
    from streamkws.training.loop import train

    recipe = Path("new.toml")
    recipe.write_text(text.replace('"aware"', '"new"'))
    with pytest.raises(errors, match=message):
        train(recipe, corpus=training_corpus)
    assert not Path("runs/new").exists()
