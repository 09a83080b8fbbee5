"""Which checkpoints a training continues, starts or learns from."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import random_model
from training_runs import AWARE, FROM_CHIRPS, RECIPE, check_refused, read_checkpoint

from streamkws.errors import ConfigError, ModelFileError
from streamkws.model_file import save_model
from streamkws.training.checkpoint import (
    config_from_text,
    config_to_text,
    load_network,
    save_checkpoint,
)
from streamkws.training.ensemble import Ensemble
from streamkws.training.loop import train
from streamkws.training.network import KeywordNetwork


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "taps = 5",
            "taps = 4",
            "cannot start from runs/chirps/checkpoint.pt: expected layer 0 taps to be 4, got 5",
        ),
        ("layers = [", "layers = [{ outputs = 20 }, ", "expected the number of layers to be 4, got 3"),
        (
            '["go up", "down"]',
            '["down", "go up"]',
            r"expected keywords to be \('down', 'go up'\), got \('go up', 'down'\)",
        ),
        ("n_mels = 20", "n_mels = 24", "expected n_mels to be 24, got 20"),
        ("n_mels = 20", "n_mels = 20\nframe_stride = 3", "expected frame_stride to be 3, got 2"),
        ('["words"]', "[]", "expected the number of auxiliary outputs to be 0, got 3"),
        ("runs/chirps", "runs/none", "expected a checkpoint, found no file runs/none"),
        ("runs/chirps", "chirps.toml", "expected a checkpoint of this trainer, chirps.toml is damaged or another file"),
    ],
)
def test_training_does_not_start_from_another_network(chirps_run, training_corpus, monkeypatch, old, new, message):
    monkeypatch.chdir(chirps_run)
    check_refused(FROM_CHIRPS.replace(old, new), training_corpus, message)


def test_training_does_not_start_from_the_folder_that_it_writes(chirps_run, training_corpus, monkeypatch):
    monkeypatch.chdir(chirps_run)
    recipe = chirps_run / "own.toml"
    recipe.write_text(FROM_CHIRPS.replace('"aware"', '"chirps"'))
    with pytest.raises(
        ConfigError,
        match=r"expected training.start_from outside runs/chirps, which this run writes, got runs/chirps",
    ):
        train(recipe, corpus=training_corpus, fresh=True)
    assert (chirps_run / "runs" / "chirps" / "checkpoint.pt").exists()


FROM_MODEL = AWARE.replace("learning_rate = 1e-2", 'learning_rate = 0\nstart_from = "begun.f32.safetensors"').replace(
    "24", "2"
)


@pytest.fixture
def begun(chirps_run, tmp_path, monkeypatch):
    """A folder with the float32 model of a finished run."""
    monkeypatch.chdir(tmp_path)
    model = load_network(chirps_run / "runs" / "chirps" / "checkpoint.pt").to_model()
    save_model(model, tmp_path / "begun.f32.safetensors")
    save_model(model.quantize(8, 8), tmp_path / "begun.w8a8.safetensors")
    return model


def test_training_starts_from_a_model(begun, training_corpus, tmp_path):
    (tmp_path / "same.toml").write_text(FROM_MODEL)
    folder = train(tmp_path / "same.toml", corpus=training_corpus)
    frames = np.random.default_rng(1).normal(-8, 3, (200, 20)).astype(np.float32)
    network = load_network(folder / "checkpoint.pt")
    started = network.to_model().new_state().push(frames)
    np.testing.assert_allclose(started, begun.new_state().push(frames), atol=0.02)  # nothing was learnt in two steps

    features = np.random.default_rng(2).normal(-8, 3, (64, 208, 20)).astype(np.float32)
    fresh = KeywordNetwork(begun.config, n_auxiliary=3)
    fresh.take_over(begun, features)
    with torch.no_grad():
        trained, used = fresh.train()(torch.from_numpy(features)), fresh.eval()(torch.from_numpy(features))
    np.testing.assert_allclose(trained, used, atol=0.05)  # batch normalization changes nothing, in training either
    np.testing.assert_allclose(fresh.to_model().new_state().push(frames), begun.new_state().push(frames), atol=1e-4)


def test_a_model_can_be_among_an_ensemble(begun, chirps_run):
    features = np.random.default_rng(1).normal(-8, 3, (3, 200, 20)).astype(np.float32)
    run = str(chirps_run / "runs" / "chirps")
    of_model, of_run = (Ensemble.load([place], begun.config) for place in ("begun.f32.safetensors", run))
    np.testing.assert_allclose(of_model.posteriors(features), of_run.posteriors(features), atol=2e-3)
    both = Ensemble.load(["begun.f32.safetensors", run], begun.config)
    np.testing.assert_allclose(both.posteriors(features), of_run.posteriors(features), atol=2e-3)
    with pytest.raises(ConfigError, match=r"expected training.ensemble to be an f32 model, got chirps\.w8a8"):
        Ensemble.load(["begun.w8a8.safetensors"], begun.config)


def test_another_keyword_starts_from_a_models_layers_below_the_output(begun, training_corpus, tmp_path):
    recipe = FROM_MODEL.replace('["go up", "down"]', '["down"]')
    (tmp_path / "other.toml").write_text(recipe)
    network = load_network(train(tmp_path / "other.toml", corpus=training_corpus) / "checkpoint.pt")
    model = network.to_model()
    for own, layer in zip(model.layers[:-1], begun.layers[:-1], strict=True):
        # as they were, but for the statistics of batch normalization, which go on in training
        assert np.corrcoef(own.weights.ravel(), layer.weights.ravel())[0, 1] > 0.98
    assert model.layers[-1].weights.shape[0] == 1


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "taps = 5",
            "taps = 4",
            "cannot start from begun.f32.safetensors: expected layer 0 taps to be 4, got 5",
        ),
        ("outputs = 16, taps = 3", "outputs = 24, taps = 3, residual = false", "layer 1 n_outputs to be 24, got 16"),
        ("n_mels = 20", "n_mels = 24", "expected n_mels to be 24, got 20"),
        ("begun.f32", "begun.w8a8", "expected training.start_from to be an f32 model, got chirps.w8a8"),
        ("begun.f32", "none", "none.safetensors"),
    ],
)
def test_training_does_not_start_from_another_model(begun, training_corpus, old, new, message):
    recipe = FROM_MODEL.replace(old, new)
    if "residual = false" in new:
        recipe = recipe.replace("residual = false, dilation = 4, residual = true", "dilation = 4")
    check_refused(recipe, training_corpus, message, (ConfigError, ModelFileError))
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            '["go up", "down"]',
            '["down", "go up"]',
            r"cannot learn from runs/chirps/checkpoint.pt: expected keywords to be \('down', 'go up'\), got",
        ),
        ("n_mels = 20", "n_mels = 24", "expected frontend to be FrontEndConfig"),
        ("n_mels = 20", "n_mels = 20\nframe_stride = 3", "expected frame_stride to be 3, got 2"),
        ("runs/chirps", "runs/none", "expected a checkpoint, found no file runs/none"),
        ('["runs/chirps"]', "[3]", r"expected training.ensemble to be paths, got \[3\]"),
    ],
)
def test_training_does_not_learn_from_another_network(chirps_run, training_corpus, monkeypatch, old, new, message):
    monkeypatch.chdir(chirps_run)
    learning = AWARE.replace("[export", 'ensemble = ["runs/chirps"]\n[export')
    check_refused(learning.replace(old, new), training_corpus, message)


def test_a_checkpoint_from_before_quantization_loads(chirps_run, tmp_path):
    entries = read_checkpoint(chirps_run / "runs" / "chirps" / "checkpoint.pt")
    assert entries.pop("quantization") is None
    torch.save(entries, tmp_path / "old.pt")
    network = load_network(tmp_path / "old.pt")
    assert not any(layer.quantizing for layer in network.causal_layers)


def test_another_network_does_not_continue_a_run(chirps_run, training_corpus, monkeypatch):
    monkeypatch.chdir(chirps_run)
    recipe = chirps_run / "other.toml"
    text = RECIPE.replace("STEPS", "90")
    recipe.write_text(text.replace("outputs = 16, taps = 5", "outputs = 16, taps = 4"))
    with pytest.raises(ConfigError, match="holds another network than the recipe's; --fresh starts anew"):
        train(recipe, corpus=training_corpus)
    recipe.write_text(text.replace('["words"]', "[]"))
    with pytest.raises(ConfigError, match="has other auxiliary outputs than the recipe's; --fresh starts anew"):
        train(recipe, corpus=training_corpus)


def test_a_damaged_checkpoint_and_a_missing_corpus(tmp_path, training_corpus, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = tmp_path / "chirps.toml"
    recipe.write_text(RECIPE.replace("STEPS", "1"))
    with pytest.raises(ConfigError, match="expected a corpus folder CORPUS/train, found none"):
        train(recipe)
    (tmp_path / "runs" / "chirps").mkdir(parents=True)
    (tmp_path / "runs" / "chirps" / "checkpoint.pt").write_bytes(b"damaged")
    with pytest.raises(
        ConfigError, match=r"cannot continue from .*checkpoint.pt, a damaged or another file; --fresh starts anew"
    ):
        train(recipe, corpus=training_corpus)


def test_checkpoints_that_are_none(tmp_path):
    with pytest.raises(ConfigError, match=r"expected a checkpoint, found no file .*missing.pt"):
        load_network(tmp_path / "missing.pt")
    wrong = tmp_path / "wrong.pt"
    wrong.write_bytes(b"no checkpoint")
    with pytest.raises(
        ConfigError, match=r"expected a checkpoint of this trainer, .*wrong.pt is damaged or another file"
    ):
        load_network(wrong)


def test_a_configuration_survives_as_text():
    config = random_model().quantize(4, 8).config
    assert config.weight_errors and config_from_text(config_to_text(config)) == config


def test_an_interrupted_save_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint({"step": 1}, path)

    def interrupted(entries, temporary):
        temporary.write(b"half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint({"step": 2}, path)
    assert read_checkpoint(path) == {"step": 1}
