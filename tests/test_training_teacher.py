"""A teacher's embeddings come with their frames, and a network learns to predict them; synthesized speakers."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from synthetic_corpus import KEYWORDS, chirp, write_part, write_set
from test_training_examples import DATA, PLAIN, maker
from tiny_teacher import write_teacher
from training_runs import RECIPE, read_checkpoint

from streamkws.errors import ConfigError, MissingExtraError
from streamkws.training.blocks import EXAMPLE_ARRAYS, Block
from streamkws.training.export import export
from streamkws.training.loop import train
from streamkws.training.losses import moments, teacher_loss
from streamkws.training.pool import Pool
from streamkws.training.recordings import read_synthetic
from streamkws.training.teacher import SpeechEmbedding


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """The folder of a tiny teacher."""
    folder = tmp_path_factory.mktemp("teacher")
    write_teacher(folder)
    return folder


def test_an_embedding_is_that_of_the_frames_it_ends_with(teacher):
    samples = np.zeros(32000, np.float32)
    samples[20080:] = 4000.0
    embeddings = SpeechEmbedding(teacher).embed(samples)
    ends = SpeechEmbedding.ends(len(embeddings))
    assert embeddings.shape == (16, 96) and embeddings.dtype == np.float32
    assert ends.tolist() == list(range(75, 196, 8))
    loud = 8000.0 * (ends * 160 >= 20080)  # at the peak that the teacher is given
    np.testing.assert_allclose(embeddings, (loud / 10 + 2)[:, None] * np.arange(96) / 100, rtol=1e-3)
    np.testing.assert_array_equal(SpeechEmbedding(teacher).embed(samples * 2), embeddings)
    assert np.isfinite(SpeechEmbedding(teacher).embed(np.zeros(32000, np.float32))).all()


def test_only_embeddings_inside_of_the_example_count():
    predicted = torch.zeros(1, 10, 96)
    predicted[0, 4], predicted[0, 9] = 1.0, 3.0
    embeddings = torch.zeros(1, 4, 96)
    ends = torch.tensor([[-1, 4, 9, 10]])
    assert teacher_loss(predicted, embeddings, ends).item() == pytest.approx((1 + 9) / 2)
    embeddings[0, 2] = 3.0
    assert teacher_loss(predicted, embeddings, ends).item() == pytest.approx(1 / 2)


def test_embeddings_are_normalized_by_their_moments():
    embeddings = np.random.default_rng(0).standard_normal((50, 7, 96)) * np.arange(96) + 5
    mean, scale = moments(embeddings)
    normal = (torch.from_numpy(embeddings).float() - mean) * scale
    flat = normal.reshape(-1, 96)
    assert flat.mean(0).abs().max() < 1e-4
    np.testing.assert_allclose(flat[:, 1:].std(0), 1.0, atol=0.01)
    assert flat[:, 0].abs().max() < 1e-3


def test_examples_bring_what_the_teacher_hears_before_noise_is_added(teacher, tmp_path):
    write_part(tmp_path / "train", 1)
    plain = maker(tmp_path / "train", augmentation=PLAIN).make(3)
    taught = maker(tmp_path / "train", data=replace(DATA, teacher=str(teacher)), augmentation=PLAIN).make(3)
    np.testing.assert_array_equal(plain.features, taught.features)
    assert plain.embeddings.shape == (0, 96) and plain.ends.shape == (0,)
    assert taught.embeddings.shape == (17, 96) and taught.embeddings.dtype == np.float16
    np.testing.assert_array_equal(taught.ends, SpeechEmbedding.ends(17))
    noisy = replace(PLAIN, noise_share=1.0, snr_min_db=-5, snr_max_db=-5)
    loud = maker(tmp_path / "train", data=replace(DATA, teacher=str(teacher)), augmentation=noisy).make(3)
    assert np.abs(loud.features - taught.features).mean() > 0.1
    np.testing.assert_array_equal(loud.embeddings, taught.embeddings)


def test_a_teacher_hears_the_equalizer_unless_it_hears_the_clean_recording(teacher, tmp_path):
    write_part(tmp_path / "train", 1)
    dull = replace(PLAIN, resonance_share=1.0)

    def embeddings(clean, augmentation):
        data = replace(DATA, teacher=str(teacher), teacher_clean=clean)
        return maker(tmp_path / "train", data=data, augmentation=augmentation).make(3).embeddings

    plain = embeddings(False, PLAIN)
    assert np.abs(embeddings(False, dull) - plain).max() > 0.01
    np.testing.assert_array_equal(embeddings(True, dull), plain)


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
    """Two speakers who say each keyword, far lower than those of the corpus, and a hum."""
    folder = tmp_path_factory.mktemp("made") / "synthetic"
    names, parts, labels = [], [], []
    for speaker in ("k0000.flac", "k0001.flac"):
        for label, sound in (("go up", chirp(100, 150)), ("down", chirp(150, 100)), ("other", 0.3 * np.ones(9000))):
            names += [speaker] * 2
            parts += [np.zeros(4000), sound]
            labels += ["pause", label]
    write_set(folder, names, parts, labels)
    return folder


def test_synthesized_speakers_say_keywords_and_negatives(synthetic, tmp_path):
    clips, negatives = read_synthetic(synthetic, KEYWORDS)
    assert [clip.keyword for clip in clips] == [0, 1, 0, 1] and {clip.speaker for clip in clips} == {"s"}
    for clip in clips:
        assert 9600 <= clip.samples.size <= 9600 + 3200 and clip.end - clip.start > 6000
    assert negatives.name == "synthetic" and [len(file) for file in negatives.files].count(9000) == 2
    write_part(tmp_path / "train", 1)
    shares = {**DATA.negatives, "synthetic": 0.0}
    for share, low in ((0.0, False), (1.0, True)):
        data = replace(DATA, synthetic=str(synthetic), synthetic_share=share, negatives=shares, keyword_share=0.9)
        one = maker(tmp_path / "train", data=data, augmentation=PLAIN)
        bands = []
        for index in range(30):
            example = one.make(index)
            if example.targets[:2].max() == 1:
                bands.append(int(example.features[example.first.max() :][:25].max(0).argmax()))
        assert (np.median(bands) < 3) == low


def test_what_is_wrong_with_a_teacher_or_a_set_is_said(teacher, synthetic, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"data\.teacher to be a folder with melspectrogram\.onnx"):
        SpeechEmbedding(tmp_path)
    (tmp_path / "melspectrogram.onnx").write_bytes(b"nothing")
    with pytest.raises(ConfigError, match="cannot read the teacher"):
        SpeechEmbedding(tmp_path)
    with pytest.raises(ConfigError, match=r"segments\.csv"):
        read_synthetic(tmp_path, KEYWORDS)
    with pytest.raises(ConfigError, match="to hold keywords and other speech"):
        read_synthetic(synthetic, ("alexa",))
    with pytest.raises(ConfigError, match=r"data\.synthetic to name a folder"):
        replace(DATA, negatives={"speech": 1.0, "synthetic": 1.0})
    with pytest.raises(ConfigError, match=r"data\.synthetic_share in 0\.\.1"):
        replace(DATA, synthetic_share=1.5)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r'pip install "streamkws\[teacher\]"'):
        SpeechEmbedding(teacher)


def test_training_learns_from_a_teacher_and_exports_none_of_it(teacher, synthetic, tmp_path, monkeypatch):
    write_part(tmp_path / "corpus" / "train", 1)
    write_part(tmp_path / "corpus" / "dev", 2)
    monkeypatch.chdir(tmp_path)
    added = f'negatives = {{ synthetic = 0.5, speech = 1, words = 1, hiss = 0.3 }}\nteacher = "{teacher}"\n'
    text = RECIPE.replace("negatives = { speech = 1, words = 1, hiss = 0.3 }", added + f'synthetic = "{synthetic}"')
    text = text.replace("CORPUS", str(tmp_path / "corpus")).replace("learning_rate = 1e-2", "learning_rate = 3e-2")
    recipe, whole = tmp_path / "chirps.toml", tmp_path / "whole.toml"
    recipe.write_text(text.replace("STEPS", "60"))
    whole.write_text(text.replace("STEPS", "60").replace('name = "chirps"', 'name = "whole"', 1))
    batch = Pool.batch

    def interrupted(self, step, *arguments):
        if step == 30:
            raise KeyboardInterrupt
        return batch(self, step, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Pool, "batch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(recipe)
    run = train(recipe)
    entries = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    taught = [entry["teacher"] for entry in entries if "loss" in entry]
    assert 0 < taught[-1] < 0.9 * taught[0]
    resumed, uninterrupted = (read_checkpoint(one / "checkpoint.pt") for one in (run, train(whole)))
    for name, values in uninterrupted["network"].items():
        assert torch.equal(resumed["network"][name], values), name
    assert resumed["network"]["layers.2.conv.weight"].shape[0] == 2 + 3 + 96
    (path, *_) = export(run, tmp_path / "out", tmp_path / "corpus")
    assert path.stat().st_size < 16000  # of two outputs


def test_a_block_takes_its_examples_apart(teacher, tmp_path):
    write_part(tmp_path / "train", 1)
    one = maker(tmp_path / "train", data=replace(DATA, teacher=str(teacher)))
    examples = [one.make(index) for index in range(3)]
    block = Block.of(examples)
    assert block.embeddings.shape == (3, 17, 96) and block.ends.shape == (3, 17)
    for index, example in enumerate(examples):
        for name in EXAMPLE_ARRAYS:
            np.testing.assert_array_equal(getattr(block, name)[index], getattr(example, name))
