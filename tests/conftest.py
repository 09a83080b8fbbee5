import importlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import settings
from tones import RATE, other_model, tones, tones_model
from training_runs import aware_run, chirps_run, training_corpus  # noqa: F401, fixtures of several files

from streamkws import (
    AudioError,
    Detector,
    FloatWeights,
    FrontEndConfig,
    LayerConfig,
    Model,
    ModelConfig,
    SmootherConfig,
    cli,
    kernels,
    save_model,
)
from streamkws.native import build

ROOT = Path(__file__).parent.parent
DEMO = ROOT / "streamkws" / "demo.flac"

settings.register_profile("ci", derandomize=True)  # a change is judged by the same examples each time
if os.environ.get("CI"):
    settings.load_profile("ci")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # a shell without job control starts background work so, and the commands that are tested would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

KEYWORDS = ("alexa", "smart mirror", "snowboy")


def random_model(seed=0, layers=None, activation="sigmoid", frame_stride=2, keywords=KEYWORDS):
    """A small f32 model with random weights, whose posteriors move over the whole of 0..1."""
    rng = np.random.default_rng(seed)
    n_out = len(keywords) + (activation == "softmax")
    layers = layers or (
        LayerConfig(20, 24, taps=5),
        LayerConfig(24, 24, taps=3, dilation=2, residual=True),
        LayerConfig(24, 24, taps=3, dilation=4, residual=True),
        LayerConfig(24, n_out, activation=activation),
    )
    config = ModelConfig(
        keywords=keywords,
        layers=tuple(layers),
        frontend=FrontEndConfig(n_mels=layers[0].n_inputs, window="hann", energy_floor=1e-9),
        smoother=SmootherConfig(smoothing_steps=3, patience_steps=2, refractory_steps=10),
        frame_stride=frame_stride,
        thresholds={k: 0.6 for k in keywords},
        durations_s={k: 0.5 for k in keywords},
        provenance={"name": "random"},
    )
    shapes = [(c.n_outputs, c.taps, c.n_inputs) for c in layers]
    weights = [(rng.standard_normal(s) * np.sqrt(2 / (s[1] * s[2]))).astype(np.float32) for s in shapes]
    weights[-1] *= 2
    biases = [(rng.standard_normal(s[0]) * 0.1).astype(np.float32) for s in shapes]
    n = config.frontend.n_mels
    features = np.full(n, -8, np.float32), np.full(n, 0.3, np.float32)
    return Model.from_float(config, FloatWeights(*features, tuple(weights), tuple(biases)))


@pytest.fixture(scope="session")
def model():
    """A small random w4a8 model."""
    return random_model().quantize(4, 8)


def speechlike(n_samples, seed=0):
    """(n,) float32: noise bursts and tones with pauses, so that the features move as in speech."""
    rng = np.random.default_rng(seed)
    t = np.arange(n_samples) / 16000
    envelope = np.clip(np.sin(2 * np.pi * 3 * t + rng.uniform(0, 6)) + 0.3, 0, None)
    tone = np.sin(2 * np.pi * np.cumsum(200 + 400 * (1 + np.sin(2 * np.pi * 1.3 * t))) / 16000)
    x = envelope * (0.3 * tone + 0.1 * rng.standard_normal(n_samples)) + 1e-3 * rng.standard_normal(n_samples)
    return (0.5 * x / np.abs(x).max()).astype(np.float32)


def refused(make):
    """Return the text of the AudioError that a call raises."""
    with pytest.raises(AudioError) as error:
        make()
    return str(error.value)


def run_python(script, **environment):
    """What the script, which finds the tests folder in sys.argv[1], prints in a Python of its own."""
    result = subprocess.run(
        [sys.executable, "-c", script, os.path.dirname(__file__)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.fixture(scope="session")
def native_library(tmp_path_factory):
    """The folder of a library of compiled kernels, for this kind of CPU alone."""
    folder = tmp_path_factory.mktemp("library")
    try:
        build.build_library(folder, only=[kernels.INSTRUCTIONS])
    except build.BuildError as error:
        if "to link" in str(error):
            pytest.skip(str(error))
        raise
    return folder


@pytest.fixture
def bench_module(monkeypatch):
    """Imports a module by its name, those of bench/ too: "bench.speed.latency"."""
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module


@pytest.fixture(scope="session")
def model_path(tmp_path_factory):
    """tones_model's file."""
    path = tmp_path_factory.mktemp("model") / "tones.f32.safetensors"
    model = tones_model()
    save_model(model, path)
    Detector(model)  # compiles the kernels, if nobody has yet
    return str(path)


@pytest.fixture
def other_path(tmp_path):
    """The file of a model with the same front end as tones_model's and one other keyword, which it hears in both."""
    path = tmp_path / "other.w4a8.safetensors"
    save_model(other_model(), path)
    return str(path)


@pytest.fixture
def audio(tmp_path):
    """Write the tones of keywords into a file and return its path."""

    def write(name, *keywords):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, tones(*keywords), RATE)
        return str(path)

    return write


@pytest.fixture
def run(capsys, monkeypatch):
    """Run a command in this process; return its exit code, standard output and standard error."""
    monkeypatch.setattr(cli.output, "SLOW_START_S", 600.0)  # a busy machine adds no line to standard error

    def call(*arguments):
        capsys.readouterr()
        code = cli.main(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def start():
    """Start a command in a process of its own."""
    processes = []

    def popen(*arguments):
        command = [sys.executable, "-m", "streamkws", *arguments]
        pipe = subprocess.PIPE
        processes.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe))
        return processes[-1]

    yield popen
    for process in processes:
        process.kill()
        process.communicate()
