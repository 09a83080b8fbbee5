"""Which checkpoints a training continues, starts or learns from."""

import pytest
import torch
from conftest import random_model
from training_runs import AWARE, FROM_CHIRPS, RECIPE, check_refused, read_checkpoint

from streamkws.errors import ConfigError
from streamkws.training.checkpoint import config_from_text, config_to_text, load_network, save_checkpoint
from streamkws.training.loop import train


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
        temporary.write_bytes(b"half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint({"step": 2}, path)
    assert read_checkpoint(path) == {"step": 1}
