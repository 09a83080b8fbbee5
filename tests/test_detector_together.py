"""A Detector of several models hears what a detector of each would."""

import copy
import gc
import pickle
from dataclasses import replace

import numpy as np
import pytest
from conftest import random_model, run_python, speechlike
from hypothesis import given, settings
from hypothesis import strategies as st

from streamkws import AudioError, BatchDetector, ConfigError, Detector, LayerConfig, detect, load_model, save_model
from streamkws.audio import read_audio
from streamkws.cli.demo import PACKAGE

OTHERS = ("hey robot", "lights on")
HIGHER = LayerConfig(24, 16, taps=4), LayerConfig(16, 1, activation="sigmoid")


def mixed_models():
    """w4a8 and f32 with one front end, at two strides; w8a8 with another front end, and one keyword."""
    first = random_model().quantize(4, 8)
    second = random_model(1, frame_stride=3, keywords=OTHERS)
    third = random_model(2, HIGHER, keywords=("stop",))
    return first, second, third.quantize(8, 8)


@pytest.fixture(scope="module")
def models():
    return mixed_models()


@pytest.fixture(scope="module")
def samples():
    return speechlike(60000)


def hits_of(detector, samples, lengths=()):
    """Detections of samples fed in blocks of these lengths, then the rest at once."""
    hits, start = [], 0
    for length in lengths:
        hits += detector.push(samples[start : start + length])
        start += length
    return hits + detector.push(samples[start:]) + detector.flush()


def separately(models, samples, **options):
    """What detectors of one model each say, sample by sample, so that they say it in the order of the audio."""
    detectors = [Detector(model, **options) for model in models]
    hits = [hit for sample in samples for one in detectors for hit in one.push(sample[np.newaxis])]
    return hits + sorted((hit for one in detectors for hit in one.flush()), key=lambda hit: hit.peak)


@pytest.fixture(scope="module")
def expected(models, samples):
    return separately(models, samples)


def test_it_hears_what_a_detector_of_each_would_in_the_order_of_the_audio(models, samples, expected):
    detector = Detector(models)
    assert hits_of(detector, samples) == expected
    assert all({hit.keyword for hit in expected} & set(model.keywords) for model in models)
    assert detector.keywords == models[0].keywords + OTHERS + ("stop",)
    assert detector.name == "random.w4a8 + random.f32 + random.w8a8"


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 5000), max_size=40), st.integers(0, 5), st.booleans())
def test_any_cut_of_the_samples_gives_the_same_bit_for_bit(lengths, order, is_pcm):
    models = [mixed_models()[index] for index in ((0, 1, 2), (0, 2, 1), (2, 0, 1), (1, 0), (2, 1), (0,))[order]]
    samples = speechlike(60000, seed=order)
    if is_pcm:
        samples = (samples * 32767).astype(np.int16)
    hits = hits_of(Detector(models), samples, lengths)
    assert hits == hits_of(Detector(models), samples)
    for model in models:
        own = [hit for hit in hits if hit.keyword in model.keywords]
        assert own == hits_of(Detector(model), samples)
    assert hits


@pytest.mark.parametrize("n_samples", [0, 1, 399, 400, 560, 720, 16000, 40000])
def test_clock_and_history_are_those_of_one(models, samples, n_samples):
    together, alone = Detector(models), Detector(models[0])
    for detector in (together, alone):
        detector.push(samples[:n_samples])
    assert together.heard_s == alone.heard_s == n_samples / 16000
    start = max(0.0, alone.heard_s - 2)
    assert np.array_equal(together.audio(start, together.heard_s), alone.audio(start, alone.heard_s))
    each = [Detector(model) for model in models]
    for detector in each:
        detector.push(samples[:n_samples])
    assert np.array_equal(together.levels(), np.concatenate([detector.levels() for detector in each]))


def test_equal_front_ends_are_one_and_others_are_not(models):
    first, second, third = (stages.front_end for stages in Detector(models).stages)
    assert first is second is not third
    filters = models[1].filters * np.float32(1.5)
    other = type(models[1])(models[1].config, models[1].layers, models[1].features, filters)
    first, second = (stages.front_end for stages in Detector([models[0], other]).stages)
    assert first is not second


def test_shipped_models_of_several_widths_hear_together():
    quantized, full = load_model("wakewords.w4a8"), load_model("wakewords.f32")
    renamed = replace(
        full.config,
        keywords=tuple(f"my {keyword}" for keyword in full.keywords),
        thresholds={f"my {keyword}": value for keyword, value in full.thresholds.items()},
        durations_s={},
    )
    other = type(full)(renamed, full.layers, full.features, full.filters)
    detector = Detector([quantized, other])
    assert len({id(stages.front_end) for stages in detector.stages}) == 1
    audio = read_audio(PACKAGE / "demo.flac")
    hits = hits_of(detector, audio, [1280] * 300)
    for model in (quantized, other):
        own = [hit for hit in hits if hit.keyword in model.keywords]
        assert len(own) >= 4 and own == hits_of(Detector(model), audio)


def test_the_same_code_as_plain_python_gives_the_same(models, samples):
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]);"
        "from conftest import *; from test_detector_together import *;"
        "hits = hits_of(Detector(mixed_models()), speechlike(12000), [777]);"
        "print([(hit.keyword, hit.peak, round(hit.score, 4)) for hit in hits])"
    )
    hits = hits_of(Detector(models), speechlike(12000))
    assert hits
    assert run_python(script, NUMBA_DISABLE_JIT="1") == str(
        [(hit.keyword, hit.peak, round(hit.score, 4)) for hit in hits]
    )


COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda detector: pickle.loads(pickle.dumps(detector)),
}


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_a_copy_goes_on_by_itself(copied, models, samples, expected):
    half = len(samples) // 2 + 77
    original = Detector(models)
    before = original.push(samples[:half])
    other = copied(original)
    assert other.stages[0].front_end is other.stages[1].front_end is not original.stages[0].front_end
    other.push(speechlike(30000, seed=5))  # which the original must not hear
    assert before + original.push(samples[half:]) + original.flush() == expected
    original.reset()
    original.push(samples[:half])
    other = copied(original)
    del original
    gc.collect()
    assert before + other.push(samples[half:]) + other.flush() == expected


def test_after_reset_flush_and_loss_it_hears_like_a_new_one(models, samples, expected):
    detector = Detector(models)
    detector.push(samples[:34567])
    detector.reset()
    assert hits_of(detector, samples) == expected
    assert detector.flush() == []
    fresh = [(hit.keyword, hit.score) for hit in expected]
    assert [(hit.keyword, hit.score) for hit in hits_of(detector, samples)] == fresh
    before = Detector(models)
    lost = before.push(samples[:20000]) + before.lost(8000)
    assert lost == hits_of(Detector(models), samples[:20000])
    after = hits_of(before, samples[20000:])
    assert [(hit.keyword, hit.score) for hit in after] == [
        (hit.keyword, hit.score) for hit in hits_of(Detector(models), samples[20000:])
    ]
    assert before.heard_s == 68000 / 16000


def test_muted_it_gives_nothing(models, samples):
    detector = Detector(models)
    detector.mute()
    assert detector.push(samples[:30000]) == []
    detector.unmute()
    later = hits_of(detector, samples[30000:])
    fresh = hits_of(Detector(models), samples[30000:])
    assert [(hit.keyword, hit.score) for hit in later] == [(hit.keyword, hit.score) for hit in fresh]


def test_a_refused_block_changes_nothing(models, samples, expected):
    detector = Detector(models)
    before = detector.push(samples[:20000])
    with pytest.raises(AudioError, match="NaN"):
        detector.push(np.full(160, np.nan, np.float32))
    assert before + hits_of(detector, samples[20000:]) == expected


def test_thresholds_keywords_and_near_misses_are_of_all(models, samples):
    options = {"thresholds": {"snowboy": 0.9999, "lights on": 0.9999}, "near": 0.3}
    detector = Detector(models, **options)
    assert detector.thresholds == {
        "alexa": 0.6, "smart mirror": 0.6, "snowboy": 0.9999, "hey robot": 0.6, "lights on": 0.9999, "stop": 0.6,
    }  # fmt: skip
    hits = hits_of(detector, samples)
    for model in models:
        chosen = {keyword: value for keyword, value in options["thresholds"].items() if keyword in model.keywords}
        own = [hit for hit in hits if hit.keyword in model.keywords]
        assert own == hits_of(Detector(model, chosen, near=0.3), samples)
    assert {hit.near for hit in hits} == {True, False}
    wanted = Detector(models, 0.5, ["lights on", "snowboy"])
    assert wanted.thresholds == {"snowboy": 0.5, "lights on": 0.5}
    assert {hit.keyword for hit in hits_of(wanted, samples)} == {"lights on", "snowboy"}
    none = Detector(models, 0.5, ["stop"])  # of a model without a wanted keyword, nothing
    assert {hit.keyword for hit in hits_of(none, samples)} == {"stop"}


def test_reconfigured_it_goes_on_and_what_is_refused_changes_no_model(models, samples):
    detector = Detector(models)
    detector.push(samples[:30000])
    detector.reconfigure(0.3, ["snowboy", "hey robot"])
    assert detector.thresholds == {"snowboy": 0.3, "hey robot": 0.3}
    assert {hit.keyword for hit in hits_of(detector, samples[30000:])} == {"snowboy", "hey robot"}
    for wrong in ({"alexa": 0.5, "hal": 0.5}, {"alexa": 0.5, "hey robot": 0.0}, 2.0):
        with pytest.raises(ConfigError):
            detector.reconfigure(wrong)
    with pytest.raises(ConfigError, match="unknown keyword 'hal'; the models know: alexa, smart mirror, snowboy, hey"):
        detector.reconfigure(keywords=["alexa", "hal"])
    assert detector.thresholds == {"snowboy": 0.3, "hey robot": 0.3}


def test_a_batch_equals_as_many_detectors(models):
    streams = np.stack([speechlike(40000, seed) for seed in range(2)])
    batch = BatchDetector(models, n_streams=2)
    hits = batch.push(streams[:, :777]) + batch.push(streams[:, 777:]) + batch.flush()
    for index, stream in enumerate(streams):
        mine = [replace(hit, stream=0) for hit in hits if hit.stream == index]
        assert mine and mine == hits_of(Detector(models), stream)


def test_names_and_files_are_loaded(models, samples, tmp_path):
    path = save_model(models[1], tmp_path / "robot.safetensors")
    detector = Detector(["wakewords", path])
    assert [model.name for model in detector.models] == ["wakewords.w4a8", "random.f32"]
    assert Detector(str(path)).model.keywords == OTHERS
    assert list(detect([samples], [models[0], str(path)])) == hits_of(Detector(models[:2]), samples)


def test_there_is_no_such_thing_as_the_model_of_several(models):
    with pytest.raises(ConfigError, match=r"^expected a detector of one model, got 2: random\.w4a8 \+ random\.f32$"):
        _ = Detector(models[:2]).model
    assert Detector(models[:1]).model is models[0]
