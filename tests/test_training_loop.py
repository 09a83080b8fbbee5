"""Training from recordings to checkpoints, on a synthesized corpus."""

import json

import numpy as np
import pytest
import torch
from synthetic_corpus import write_part
from training_runs import AWARE, RECIPE, measure_by_precision, read_checkpoint

from streamkws.errors import ConfigError, MissingExtraError, StreamKwsError
from streamkws.training import loop
from streamkws.training.checkpoint import load_network
from streamkws.training.export import export
from streamkws.training.loop import train
from streamkws.training.optimizer import ExponentialMovingAverage
from streamkws.training.progress import reporting
from streamkws.training.recipe_file import load_recipe
from streamkws.training.validation import Validation


def test_training_learns_logs_and_continues(chirps_run):
    run = chirps_run / "runs" / "chirps"
    entries = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    steps = [entry["step"] for entry in entries if "loss" in entry]
    assert steps == [20, 40, 60, 80]
    trained = [entry["loss"] for entry in entries if "loss" in entry]
    assert trained[-1] < 0.9 * trained[0]
    measured = [entry for entry in entries if "miss at 0 FA" in entry]
    assert [entry["step"] for entry in measured] == [40, 80]
    assert measured[-1].keys() >= {"miss go up", "miss down", "miss at 0 FA"}
    assert measured[-1]["miss at 2 FA"] <= 0.25
    assert sorted(path.name for path in run.iterdir()) == ["best.pt", "checkpoint.pt", "log.jsonl", "recipe.toml"]


def test_training_with_bfloat16_learns_in_float32_weights(chirps_run, training_corpus, monkeypatch):
    monkeypatch.chdir(chirps_run)
    text = RECIPE.replace("chirps", "half").replace("CORPUS", "nowhere").replace("STEPS", "40\nbfloat16 = true")
    (chirps_run / "half.toml").write_text(text)
    run = train(chirps_run / "half.toml", corpus=training_corpus)
    losses = [json.loads(line)["loss"] for line in (run / "log.jsonl").read_text().splitlines() if "loss" in line]
    assert losses[-1] < 0.95 * losses[0]
    assert all(one.dtype == torch.float32 for one in load_network(run / "checkpoint.pt").parameters())


def test_quantization_sets_in_and_only_then_a_checkpoint_can_be_the_best(aware_run):
    entries = [json.loads(line) for line in (aware_run / "runs" / "aware" / "log.jsonl").read_text().splitlines()]
    assert [(entry["step"], entry["miss at 0 FA"]) for entry in entries if "miss at 0 FA" in entry] == [
        (6, 0.0),
        (12, 0.5),
        (18, 0.5),
        (24, 0.5),
    ]
    best = read_checkpoint(aware_run / "runs" / "aware" / "best.pt")
    assert (best["step"], best["best"]) == (24, 0.5)
    assert best["network"]["layers.0.norm.num_batches_tracked"] == 15  # the steps before freeze_share


def test_a_resumed_run_continues_like_the_uninterrupted_one(aware_run, training_corpus, tmp_path, monkeypatch, capsys):
    step, n_steps = loop.optimizer_step, 0

    def interrupted(*arguments):
        nonlocal n_steps
        n_steps += 1
        if n_steps == 19:
            raise KeyboardInterrupt
        step(*arguments)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Validation, "measure", measure_by_precision)
    monkeypatch.setattr(loop, "optimizer_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(aware_run / "aware.toml", corpus=training_corpus)
    said = capsys.readouterr().err
    assert "step 9: quantized from here on: w8a8+w4a6+f32\n" in said
    assert "step 15: batch normalization keeps its statistics from here on\n" in said
    checkpoint = tmp_path / "runs" / "aware" / "checkpoint.pt"
    assert read_checkpoint(checkpoint)["step"] == 18
    train(aware_run / "aware.toml", corpus=training_corpus)
    resumed, whole = read_checkpoint(checkpoint), read_checkpoint(aware_run / "runs" / "aware" / "checkpoint.pt")
    for part in ("network", "average"):
        assert resumed[part].keys() == whole[part].keys()
        for name, values in whole[part].items():
            assert torch.equal(resumed[part][name], values), f"{part} {name}"


def test_the_average_has_the_decay_of_the_recipe(training_corpus, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    decays = []
    update = ExponentialMovingAverage.update
    monkeypatch.setattr(
        ExponentialMovingAverage, "update", lambda self, decay: (decays.append(decay), update(self, decay))
    )
    text = RECIPE.replace("CORPUS", "nowhere").replace("validate_steps = 40", "validate_steps = 0")
    text = text.replace("STEPS", "12").replace("average_decay = 0.9", "average_decay = 0.3")
    (tmp_path / "chirps.toml").write_text(text)
    train(tmp_path / "chirps.toml", corpus=training_corpus)
    assert decays == [min(0.3, (1 + step) / (10 + step)) for step in range(1, 13)]
    assert decays[0] < 0.2 and decays[-1] == 0.3


def test_a_part_can_be_held_out_of_a_recipe_without_stages(training_corpus, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = RECIPE.replace("STEPS", "1").replace("validate_steps = 40", "validate_steps = 0")
    (tmp_path / "chirps.toml").write_text(text.replace("[data]", '[data]\nalso_keywords = ["dev"]'))
    run = train("chirps.toml", corpus=training_corpus, held_out="dev")
    assert str(run) == "runs/chirps-held-out" and load_recipe(run / "recipe.toml").data.also_keywords == ()
    (path, *_) = export(run, "out", training_corpus)
    assert path.name == "chirps-held-out.f32.safetensors"
    with pytest.raises(ConfigError, match=r"expected chirps.toml to train on train, which is to be held out"):
        train("chirps.toml", corpus=training_corpus, held_out="train")


def test_training_learns_from_an_ensemble(chirps_run, training_corpus, monkeypatch):
    """Labels left out, what comes nearer to the ensemble has learned from it alone."""
    monkeypatch.chdir(chirps_run)
    recipe = chirps_run / "distilled.toml"
    learning = AWARE.replace('"aware"', '"distilled"').replace(
        "hard_share = 0.5", "positive_weight = 0\nnegative_weight = 0\nauxiliary_weight = 0"
    )
    learning = learning.replace("steps = 24", "steps = 120")
    recipe.write_text(learning.replace("[export", 'ensemble = ["runs/chirps", "runs/chirps/checkpoint.pt"]\n[export'))
    run = train(recipe, corpus=training_corpus)
    entries = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    distances = [entry["ensemble"] for entry in entries if "ensemble" in entry]
    assert len(distances) == 15 and 0 < np.mean(distances[-4:]) < 0.75 * np.mean(distances[:4])
    assert not any(entry.get("present") for entry in entries)


def test_a_failing_producer_ends_training(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_part(tmp_path / "corpus" / "train", 1)
    (tmp_path / "corpus" / "dev").mkdir()
    (tmp_path / "corpus" / "train" / "speech" / "0.flac").write_bytes(b"fLaC damaged")
    recipe = tmp_path / "chirps.toml"
    recipe.write_text(RECIPE.replace("STEPS", "5").replace("validate_steps = 40", "validate_steps = 0"))
    with pytest.raises(StreamKwsError, match=r"making examples failed: AudioError: .*0.flac: cannot be read as wav"):
        train(recipe, corpus=tmp_path / "corpus")


def test_without_torch_the_install_command_is_named(monkeypatch):
    import importlib
    import importlib.util

    import streamkws.training

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r'training needs PyTorch: pip install "streamkws\[train\]"'):
        importlib.reload(streamkws.training)
    monkeypatch.undo()
    importlib.reload(streamkws.training)


def test_a_line_that_a_full_disk_has_cut_is_left_out_of_the_log(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n{"st')
    with reporting(path, fresh=False) as report:
        report.log({"step": 2, "loss": 0.5}, 0.5)
    assert path.read_text() == '{"step": 1}\n{"step": 2, "loss": 0.5}\n'
