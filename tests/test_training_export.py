"""From a checkpoint to model files."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from synthetic_corpus import KEYWORDS
from training_runs import FROM_CHIRPS, read_checkpoint

from streamkws.audio import read_audio
from streamkws.detector import detect
from streamkws.errors import ConfigError
from streamkws.model_file import load_model
from streamkws.training.checkpoint import load_network
from streamkws.training.export import export
from streamkws.training.loop import train
from streamkws.training.recipe_file import load_recipe


def check_model(path, checkpoint):
    """Whether an exported model is the checkpoint's network; returns both."""
    model, network = load_model(path), load_network(checkpoint)
    frames = (np.random.default_rng(1).standard_normal((300, 20)) * 3 - 10).astype(np.float32)
    wanted, heard = network.posteriors(frames), model.new_state().push(frames)
    assert wanted.std() > 0.02
    difference = np.abs(heard - wanted)
    assert np.mean(difference > 1e-3) < 0.02 and difference.max() < 0.1  # sums that differ in the last bit flip codes
    return model, network


def test_export_writes_models_that_load_and_agree(chirps_run, training_corpus, capsys):
    paths = export(chirps_run / "runs" / "chirps", chirps_run / "out", training_corpus)
    assert [path.name for path in paths] == [f"chirps.{bits}.safetensors" for bits in ("f32", "w8a8", "w4a8")]
    assert "layer 0  16x5x20  error 8 bits" in capsys.readouterr().out
    models = [load_model(path) for path in paths]
    network = load_network(chirps_run / "runs" / "chirps" / "checkpoint.pt")
    frames = (np.random.default_rng(1).standard_normal((60, 20)) * 3 - 10).astype(np.float32)
    with torch.no_grad():
        wanted = torch.sigmoid(network(torch.from_numpy(frames)[None])[0, :, :2]).numpy()
    np.testing.assert_allclose(models[0].new_state().push(frames), wanted, atol=1e-4)
    np.testing.assert_allclose(models[1].new_state().push(frames), wanted, atol=0.1)
    assert models[0].keywords == KEYWORDS
    assert models[0].config.durations_s.keys() == set(KEYWORDS)
    assert models[0].config.provenance["name"] == "chirps"
    for model in models:  # at these thresholds nothing in dev's negatives is taken for a keyword
        assert model.thresholds.keys() == set(KEYWORDS)
        hits = detect(training_corpus / "dev" / "speech" / "0.flac", model)
        assert not list(hits)
    assert [model.config.provenance.get("rounding", "") for model in models] == [
        "", "", "codes chosen on 1,000 training examples"
    ]  # fmt: skip
    spoken = models[0].new_front_end().push(read_audio(training_corpus / "dev" / "speech" / "0.flac"))
    heard = [model.new_state().push(spoken) for model in (models[0], models[2], models[0].quantize(4, 8))]
    assert np.std(heard[1] - heard[0]) < np.std(heard[2] - heard[0])
    recipe = load_recipe(chirps_run / "runs" / "chirps" / "recipe.toml")
    none = replace(recipe, export=replace(recipe.export, bits=(), left_out=("chat",)))
    with pytest.raises(ConfigError, match=r"a set of negatives of .* to leave out, got 'chat'"):
        export(chirps_run / "runs" / "chirps", chirps_run / "none", training_corpus, none)
    best = export(chirps_run / "runs" / "chirps" / "best.pt", chirps_run / "best", training_corpus)[0]
    recipe = chirps_run / "runs" / "chirps" / "recipe.toml"
    text = recipe.read_text()
    recipe.write_text(text.replace("[export.provenance]", "[export]\nearly_stopping = true\n[export.provenance]"))
    entries = read_checkpoint(chirps_run / "runs" / "chirps" / "checkpoint.pt")
    torch.save({**entries, "average": {}}, chirps_run / "runs" / "chirps" / "checkpoint.pt")  # which is not read
    stopped = export(chirps_run / "runs" / "chirps", chirps_run / "stopped", training_corpus)[0]
    assert stopped.read_bytes() == best.read_bytes()
    torch.save(entries, chirps_run / "runs" / "chirps" / "checkpoint.pt")
    recipe.write_text(text)


def test_export_writes_the_one_model_that_was_trained_for(aware_run, training_corpus, capsys):
    run = aware_run / "runs" / "aware"
    paths = export(run, aware_run / "out", training_corpus)
    assert [path.name for path in paths] == ["aware.w8a8+w4a6+f32.safetensors"]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("layer 0  16x5x20  error 8 bits 0.")
    assert lines[1].startswith("layer 1  16x3x16  error 4 bits ")
    assert lines[2] == "layer 2  2x1x16  float32"
    assert lines[3].startswith("w8a8+w4a6+f32 go up ")
    model, network = check_model(paths[0], run / "checkpoint.pt")
    assert network.quantization.start_share == 0.35
    assert model.config.durations_s.keys() == model.thresholds.keys() == set(KEYWORDS)
    assert model.config.provenance["name"] == "chirps"


def test_training_starts_from_another_run(chirps_run, training_corpus, monkeypatch, capsys):
    monkeypatch.chdir(chirps_run)
    recipe = chirps_run / "aware.toml"
    recipe.write_text(FROM_CHIRPS)
    run = train(recipe, corpus=training_corpus)
    assert "step 0: quantized from here on: w4a8\n" in capsys.readouterr().err
    started = read_checkpoint(chirps_run / "runs" / "chirps" / "checkpoint.pt")["average"]
    ended = read_checkpoint(run / "checkpoint.pt")["average"]
    for name, values in started.items():
        assert torch.equal(ended[name], values), name
    paths = export(run, chirps_run / "aware", training_corpus)
    assert [path.name for path in paths] == ["aware.w4a8.safetensors"]
    model, network = check_model(paths[0], run / "checkpoint.pt")
    assert network.quantization.weight_ranges == "matrix"
    assert all(np.ptp(layer.weights.step) == 0 for layer in model.layers)
    recipe.write_text(FROM_CHIRPS.replace('weight_ranges = "matrix"', ""))
    with pytest.raises(ConfigError, match="holds another network than the recipe's; --fresh starts anew"):
        train(recipe, corpus=training_corpus)
