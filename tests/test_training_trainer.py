"""Loss, pool and the whole way from recordings to model files, on a synthesized corpus."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic_corpus import KEYWORDS, write_part

from streamkws.audio import read_audio
from streamkws.detector import detect
from streamkws.errors import ConfigError, MissingExtraError, StreamKwsError
from streamkws.model_file import load_model
from streamkws.training import trainer
from streamkws.training.augment import AugmentConfig
from streamkws.training.blocks import Block
from streamkws.training.export import export
from streamkws.training.network import load_network
from streamkws.training.recipe import TrainingConfig
from streamkws.training.trainer import BLOCK, Pool, Validation, clip_losses, train

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


def losses(logits, targets, onset=0, first=0, **settings):
    """clip_losses of one example: logits (S, C), targets (C,); two keywords, the rest auxiliary."""
    n = len(targets)
    return clip_losses(
        torch.tensor(logits, dtype=torch.float32)[None],
        torch.tensor([targets], dtype=torch.int8),
        torch.full((1, n), onset),
        torch.full((1, n), first),
        2,
        TrainingConfig(**{"frame_weight": 0.0, "smoothing_steps": 2, **settings}),
    )


def softplus(x):
    return math.log1p(math.exp(x))


def test_the_loss_is_that_of_the_highest_smoothed_logit():
    logits = np.full((10, 3), -5.0)
    logits[4, 0], logits[5, 0], logits[7, 1] = 3.0, 5.0, 1.0
    result = losses(logits, [1, 0, -1])
    assert result.present.item() == pytest.approx(softplus(-4.0), rel=1e-4)
    assert result.absent.item() == pytest.approx(softplus(-2.0), rel=1e-4)
    assert result.auxiliary.item() == 0.0
    assert result.total.item() == pytest.approx(softplus(-4.0) + softplus(-2.0), rel=1e-4)


def test_a_keyword_counts_from_its_middle_on_only():
    logits = np.full((10, 2), -5.0)
    logits[2:4, 0] = 5.0
    assert losses(logits, [1, 0], first=3).present.item() == pytest.approx(softplus(-5.0), rel=1e-4)
    assert losses(logits, [1, 0], first=6).present.item() == pytest.approx(softplus(5.0), rel=1e-4)
    assert math.isfinite(losses(logits, [1, 0], first=50).present.item())


def test_frames_before_a_keyword_and_of_negatives_are_taught_silence():
    logits = torch.zeros(1, 10, 2, requires_grad=True)
    targets = torch.tensor([[1, 0]], dtype=torch.int8)
    config = TrainingConfig(frame_weight=0.1, smoothing_steps=1)
    clip_losses(logits, targets, torch.full((1, 2), 4), torch.full((1, 2), 6), 2, config).total.backward()
    gradient = logits.grad[0]
    assert (gradient[:4, 0] > 0).all() and (gradient[4:6, 0] == 0).all() and gradient[6:, 0].min() < 0
    assert (gradient[:, 1] > 0).all()


def test_auxiliary_outputs_and_focal_emphasis():
    logits = np.full((10, 3), -2.0)
    assert losses(logits, [0, 0, 1], auxiliary_weight=0.5).auxiliary.item() == pytest.approx(0.5 * softplus(2.0))
    focal = losses(logits, [0, -1, -1], focal=2.0).total.item()
    assert focal == pytest.approx(softplus(-2.0) / (1 + math.exp(2.0)) ** 2, rel=1e-4)


def block(first, n_frames=28):
    """A block of examples whose features are their numbers."""
    numbers = np.arange(first, first + BLOCK)
    features = np.array(np.broadcast_to(numbers[:, None, None], (BLOCK, n_frames, 4)), dtype=np.float32)
    words = np.full((BLOCK, 2), 9, np.int16)
    embeddings, ends = np.zeros((BLOCK, 2, 96), np.float16), np.full((BLOCK, 2), 12, np.int16)
    return Block(features, np.ones((BLOCK, 2), np.int8), words, words + 5, embeddings, ends)


def filled_pool(step, config, augmentation):
    pool = Pool(config, augmentation)
    pool.n_made = pool.first(step)
    while pool.n_made < pool.needed(step):
        pool.add(block(pool.n_made))
    return pool


def test_a_batch_depends_on_the_step_alone():
    config = TrainingConfig(batch=16, pool=96, reuse=2.0)
    augmentation = AugmentConfig(n_time_masks=0, n_frequency_masks=0, gain_jitter_db=0.0)
    fill = np.zeros(4, np.float32)
    going = filled_pool(0, config, augmentation)
    for step in range(60):
        while going.n_made < going.needed(step):
            going.add(block(going.n_made))
        batch = going.batch(step, fill, -20.0)
        numbers = batch[0][:, 0, 0]
        assert going.first(step) <= numbers.min() and numbers.max() < going.needed(step)
    restarted = filled_pool(59, config, augmentation)
    for mine, theirs in zip(restarted.batch(59, fill, -20.0), batch, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert batch[0].shape == (16, 20, 4)


def test_a_batch_is_shifted_with_its_labels():
    config, augmentation = TrainingConfig(batch=64, pool=96), AugmentConfig(n_time_masks=0, n_frequency_masks=0)
    pool = filled_pool(0, config, augmentation)
    pool.arrays[0][:] = np.arange(28)[None, :, None]
    features, _, onset, first, _, ends, _ = pool.batch(0, np.zeros(4, np.float32), -20.0)
    shifts = 9 - onset[:, 0]
    np.testing.assert_array_equal(ends[:, 0], 12 - shifts)
    assert set(shifts) == set(range(9))
    np.testing.assert_array_equal(first, onset + 5)
    jitter = features[:, 0, 0] - shifts
    assert np.abs(jitter).max() <= 3 * math.log(10) / 10 + 1e-3 and jitter.std() > 0.2


class Numbers:
    """An ensemble whose posteriors are the examples' first band, over a hundred."""

    def posteriors(self, features, bfloat16):
        assert not bfloat16
        return np.repeat(features[:, :, :1] / 100, 2, axis=2).astype(np.float16)


@pytest.mark.parametrize("rhythm", [0.0, 0.2])
def test_an_ensembles_posteriors_move_with_the_features(rhythm):
    augmentation = AugmentConfig(n_time_masks=0, n_frequency_masks=0, gain_jitter_db=0.0, rhythm=rhythm)
    pool = Pool(TrainingConfig(batch=16, pool=96), augmentation, ensemble=Numbers())
    while pool.n_made < pool.needed(0):
        made = block(pool.n_made)
        made.features[:] = np.arange(28)[None, :, None]
        pool.add(made)
    batch = pool.batch(0, np.zeros(4, np.float32), -20.0)
    assert batch.posteriors.shape == (16, 20, 2) and len(set(batch.features[:, 0, 0])) > 3
    np.testing.assert_allclose(batch.posteriors[:, :, 1], batch.features[:, :, 0] / 100, atol=2e-4)


def test_hard_examples_are_drawn_more_often():
    config = TrainingConfig(batch=64, pool=96, hard_share=0.5)
    augmentation = AugmentConfig(n_time_masks=0, n_frequency_masks=0, gain_jitter_db=0.0)
    pool = filled_pool(0, config, augmentation)
    pool.hardness[:] = 0.001
    pool.hardness[40] = 1.0
    numbers = pool.batch(0, np.zeros(4, np.float32), -20.0)[0][:, 0, 0]
    assert 28 <= (numbers[:32] == 40).sum() <= 32 and (numbers[32:] == 40).sum() < 5
    np.testing.assert_array_equal(pool.slots, numbers)
    while pool.n_made <= pool.capacity + 40:
        pool.add(block(pool.n_made))
    assert pool.hardness[40] == 1.0 and pool.hardness[8] == 1.0  # new examples count as one


def test_hardness_is_the_loss_of_the_worst_absent_peak():
    logits = torch.full((3, 5, 3), -4.0)
    logits[0, 2, 0] = -9.0  # present and not heard
    logits[1, 4, 1] = 3.0  # absent and heard
    logits[2, 1, 2] = 9.0  # an auxiliary output
    targets = np.array([[1, 0, 0], [0, 0, 0], [1, 0, 0]], np.int8)
    expected = [math.log1p(math.exp(-4)), math.log1p(math.exp(3)), math.log1p(math.exp(-4))]
    np.testing.assert_allclose(trainer.hardness(logits, targets, 2), np.array(expected) + 0.02, rtol=1e-6)


def test_another_rhythm_moves_the_labels_with_the_sound():
    config = TrainingConfig(batch=64, pool=96)
    augmentation = AugmentConfig(n_time_masks=0, n_frequency_masks=0, gain_jitter_db=0, shift_frames=0, rhythm=0.3)
    pool = filled_pool(0, config, augmentation)
    pool.arrays[0][:] = np.arange(28)[None, :, None]
    features, _, onset, first, _, ends, _ = pool.batch(0, np.zeros(4, np.float32), -20.0)
    frames = features[:, :, 0]  # which frame is heard when
    assert frames.std(0).max() > 0.5
    for labels, sounded in ((onset, 9), (first, 14), (ends, 12)):
        at = np.take_along_axis(frames, labels[:, :1].astype(int), 1)[:, 0]
        before = np.take_along_axis(frames, labels[:, :1].astype(int) - 1, 1)[:, 0]
        assert ((before < sounded) & (sounded <= at)).all()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("corpus")
    write_part(root / "train", 1)
    write_part(root / "dev", 2)
    return root


@pytest.fixture(scope="module")
def place(tmp_path_factory, corpus):
    """A folder with a finished run of 80 steps, made in two parts."""
    folder = tmp_path_factory.mktemp("run")
    recipe = folder / "chirps.toml"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for steps in (40, 80):
            recipe.write_text(RECIPE.replace("CORPUS", "nowhere").replace("STEPS", str(steps)))
            assert train(recipe, corpus=corpus).resolve() == folder / "runs" / "chirps"
    return folder


def test_training_learns_logs_and_continues(place):
    run = place / "runs" / "chirps"
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


def test_training_with_bfloat16_learns_in_float32_weights(place, corpus, monkeypatch):
    monkeypatch.chdir(place)
    text = RECIPE.replace("chirps", "half").replace("CORPUS", "nowhere").replace("STEPS", "40\nbfloat16 = true")
    (place / "half.toml").write_text(text)
    run = train(place / "half.toml", corpus=corpus)
    losses = [json.loads(line)["loss"] for line in (run / "log.jsonl").read_text().splitlines() if "loss" in line]
    assert losses[-1] < 0.95 * losses[0]
    assert all(one.dtype == torch.float32 for one in load_network(run / "checkpoint.pt").parameters())


def test_export_writes_models_that_load_and_agree(place, corpus, capsys):
    paths = export(place / "runs" / "chirps", place / "out", corpus)
    assert [path.name for path in paths] == [f"chirps.{bits}.safetensors" for bits in ("f32", "w8a8", "w4a8")]
    assert "layer 0  16x5x20  error 8 bits" in capsys.readouterr().out
    models = [load_model(path) for path in paths]
    network = load_network(place / "runs" / "chirps" / "checkpoint.pt")
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
        hits = detect(corpus / "dev" / "speech" / "0.flac", model)
        assert not list(hits)
    assert [model.config.provenance.get("rounding", "") for model in models] == [
        "", "", "codes chosen on 1,000 training examples"
    ]  # fmt: skip
    spoken = models[0].front_end().push(read_audio(corpus / "dev" / "speech" / "0.flac"))
    heard = [model.new_state().push(spoken) for model in (models[0], models[2], models[0].quantize(4, 8))]
    assert np.std(heard[1] - heard[0]) < np.std(heard[2] - heard[0])
    best = export(place / "runs" / "chirps" / "best.pt", place / "best", corpus)[0]
    recipe = place / "runs" / "chirps" / "recipe.toml"
    text = recipe.read_text()
    recipe.write_text(text.replace("[export.provenance]", "[export]\nearly_stopping = true\n[export.provenance]"))
    entries = read_checkpoint(place / "runs" / "chirps" / "checkpoint.pt")
    torch.save({**entries, "average": {}}, place / "runs" / "chirps" / "checkpoint.pt")  # which is not read
    stopped = export(place / "runs" / "chirps", place / "stopped", corpus)[0]
    assert stopped.read_bytes() == best.read_bytes()
    torch.save(entries, place / "runs" / "chirps" / "checkpoint.pt")
    recipe.write_text(text)


def measure_by_precision(validation, network):
    """In place of Validation.measure: quantization misses more, so that best.pt tells what it took."""
    return {"miss at 0 FA": 0.5 if network.causal_layers[0].quantizing else 0.0}


@pytest.fixture(scope="module")
def aware(corpus, tmp_path_factory):
    """A folder with a quantization-aware run from scratch, made in one go."""
    folder = tmp_path_factory.mktemp("aware")
    recipe = folder / "aware.toml"
    recipe.write_text(FROM_SCRATCH)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(Validation, "measure", measure_by_precision)
        train(recipe, corpus=corpus)
    return folder


def read_checkpoint(path):
    return torch.load(path, weights_only=True)


def test_quantization_sets_in_and_only_then_a_checkpoint_can_be_the_best(aware):
    entries = [json.loads(line) for line in (aware / "runs" / "aware" / "log.jsonl").read_text().splitlines()]
    assert [(entry["step"], entry["miss at 0 FA"]) for entry in entries if "miss at 0 FA" in entry] == [
        (6, 0.0),
        (12, 0.5),
        (18, 0.5),
        (24, 0.5),
    ]
    best = read_checkpoint(aware / "runs" / "aware" / "best.pt")
    assert (best["step"], best["best"]) == (24, 0.5)
    assert best["network"]["layers.0.norm.num_batches_tracked"] == 15  # the steps before freeze_share


def test_a_resumed_run_goes_on_as_the_uninterrupted_one(aware, corpus, tmp_path, monkeypatch, capsys):
    learn, n_steps = trainer.learn, 0

    def interrupted(*arguments):
        nonlocal n_steps
        n_steps += 1
        if n_steps == 19:
            raise KeyboardInterrupt
        learn(*arguments)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Validation, "measure", measure_by_precision)
    monkeypatch.setattr(trainer, "learn", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(aware / "aware.toml", corpus=corpus)
    said = capsys.readouterr().err
    assert "step 9: quantized from here on: w8a8+w4a6+f32\n" in said
    assert "step 15: batch normalization keeps its statistics from here on\n" in said
    checkpoint = tmp_path / "runs" / "aware" / "checkpoint.pt"
    assert read_checkpoint(checkpoint)["step"] == 18
    train(aware / "aware.toml", corpus=corpus)
    resumed, whole = read_checkpoint(checkpoint), read_checkpoint(aware / "runs" / "aware" / "checkpoint.pt")
    for part in ("network", "average"):
        assert resumed[part].keys() == whole[part].keys()
        for name, values in whole[part].items():
            assert torch.equal(resumed[part][name], values), f"{part} {name}"


def check_model(path, checkpoint):
    """Whether an exported model is the checkpoint's network; returns both."""
    model, network = load_model(path), load_network(checkpoint)
    frames = (np.random.default_rng(1).standard_normal((300, 20)) * 3 - 10).astype(np.float32)
    wanted, heard = network.posteriors(frames), model.new_state().push(frames)
    assert wanted.std() > 0.02
    difference = np.abs(heard - wanted)
    assert np.mean(difference > 1e-3) < 0.02 and difference.max() < 0.1  # sums that differ in the last bit flip codes
    return model, network


def check_refused(text, corpus, message):
    """Whether a recipe, in the working directory, is refused before anything is written."""
    recipe = Path("new.toml")
    recipe.write_text(text.replace('"aware"', '"new"'))
    with pytest.raises(ConfigError, match=message):
        train(recipe, corpus=corpus)
    assert not Path("runs/new").exists()


def test_export_writes_the_one_model_that_was_trained_for(aware, corpus, capsys):
    run = aware / "runs" / "aware"
    paths = export(run, aware / "out", corpus)
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


def test_training_starts_from_another_run(place, corpus, monkeypatch, capsys):
    monkeypatch.chdir(place)
    recipe = place / "aware.toml"
    recipe.write_text(FROM_CHIRPS)
    run = train(recipe, corpus=corpus)
    assert "step 0: quantized from here on: w4a8\n" in capsys.readouterr().err
    started = read_checkpoint(place / "runs" / "chirps" / "checkpoint.pt")["average"]
    ended = read_checkpoint(run / "checkpoint.pt")["average"]
    for name, values in started.items():
        assert torch.equal(ended[name], values), name
    paths = export(run, place / "aware", corpus)
    assert [path.name for path in paths] == ["aware.w4a8.safetensors"]
    model, network = check_model(paths[0], run / "checkpoint.pt")
    assert network.quantization.weight_ranges == "matrix"
    assert all(np.ptp(layer.weights.step) == 0 for layer in model.layers)
    recipe.write_text(FROM_CHIRPS.replace('weight_ranges = "matrix"', ""))
    with pytest.raises(ConfigError, match="holds another network than the recipe's; --fresh starts anew"):
        train(recipe, corpus=corpus)


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
def test_training_does_not_start_from_another_network(place, corpus, monkeypatch, old, new, message):
    monkeypatch.chdir(place)
    check_refused(FROM_CHIRPS.replace(old, new), corpus, message)


def test_training_does_not_start_from_the_folder_that_it_writes(place, corpus, monkeypatch):
    monkeypatch.chdir(place)
    recipe = place / "own.toml"
    recipe.write_text(FROM_CHIRPS.replace('"aware"', '"chirps"'))
    with pytest.raises(
        ConfigError,
        match=r"expected training.start_from outside runs/chirps, which this run writes, got runs/chirps",
    ):
        train(recipe, corpus=corpus, fresh=True)
    assert (place / "runs" / "chirps" / "checkpoint.pt").exists()


def test_training_learns_from_an_ensemble(place, corpus, monkeypatch):
    """Labels left out, what comes nearer to the ensemble has learned from it alone."""
    monkeypatch.chdir(place)
    recipe = place / "distilled.toml"
    learning = AWARE.replace('"aware"', '"distilled"').replace(
        "hard_share = 0.5", "positive_weight = 0\nnegative_weight = 0\nauxiliary_weight = 0"
    )
    learning = learning.replace("steps = 24", "steps = 120")
    recipe.write_text(learning.replace("[export", 'ensemble = ["runs/chirps", "runs/chirps/checkpoint.pt"]\n[export'))
    run = train(recipe, corpus=corpus)
    entries = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    distances = [entry["ensemble"] for entry in entries if "ensemble" in entry]
    assert len(distances) == 15 and 0 < np.mean(distances[-4:]) < 0.75 * np.mean(distances[:4])
    assert not any(entry.get("present") for entry in entries)


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
def test_training_does_not_learn_from_another_network(place, corpus, monkeypatch, old, new, message):
    monkeypatch.chdir(place)
    learning = AWARE.replace("[export", 'ensemble = ["runs/chirps"]\n[export')
    check_refused(learning.replace(old, new), corpus, message)


def test_a_checkpoint_from_before_quantization_loads(place, tmp_path):
    entries = read_checkpoint(place / "runs" / "chirps" / "checkpoint.pt")
    assert entries.pop("quantization") is None
    torch.save(entries, tmp_path / "old.pt")
    network = load_network(tmp_path / "old.pt")
    assert not any(layer.quantizing for layer in network.causal_layers)


def test_another_network_does_not_continue_a_run(place, corpus, monkeypatch):
    monkeypatch.chdir(place)
    recipe = place / "other.toml"
    text = RECIPE.replace("STEPS", "90")
    recipe.write_text(text.replace("outputs = 16, taps = 5", "outputs = 16, taps = 4"))
    with pytest.raises(ConfigError, match="holds another network than the recipe's; --fresh starts anew"):
        train(recipe, corpus=corpus)
    recipe.write_text(text.replace('["words"]', "[]"))
    with pytest.raises(ConfigError, match="has other auxiliary outputs than the recipe's; --fresh starts anew"):
        train(recipe, corpus=corpus)


def test_a_damaged_checkpoint_and_a_missing_corpus(tmp_path, corpus, monkeypatch):
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
        train(recipe, corpus=corpus)


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
