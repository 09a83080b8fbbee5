"""Posteriors of every file in every condition: shared, skipped and noted as said."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
from toy_corpus import ToyFrontEnd, ToyModel, add_noise, write_corpus

from streamkws.corpus import read_corpus
from streamkws.errors import ConfigError
from streamkws.evaluation.measure import evaluate, evaluate_models
from streamkws.evaluation.scoring import Condition, score_corpus, score_recordings
from streamkws.evaluation.tables import format_table
from streamkws.frontend import FrontEndConfig


@pytest.fixture
def corpus(tmp_path):
    return write_corpus(tmp_path)


@pytest.fixture
def noisy_corpus(corpus):
    return add_noise(corpus)


def test_noise_files_get_no_noise_themselves(noisy_corpus):
    models = [ToyModel()]
    scored = score_corpus(models, read_corpus(noisy_corpus, models[0].keywords))
    clean, noisy = scored.scores[0]
    assert scored.snrs_db == (None, 10.0)
    for negative, without, within in zip(scored.negatives, clean.negatives, noisy.negatives, strict=True):
        assert np.array_equal(without, within) == negative.is_noise or negative.set_name == "more"
    again = score_corpus(models, read_corpus(noisy_corpus, models[0].keywords))
    for one, other in zip(noisy.recordings, again.scores[0][1].recordings, strict=True):
        assert np.array_equal(one, other)


def test_conditions_that_the_corpus_cannot_make(corpus, noisy_corpus):
    listed = read_corpus(noisy_corpus, ["go"])
    with pytest.raises(ConfigError, match=r": expected rain or hail for wet$"):
        score_recordings([ToyModel()], listed, [Condition("wet", 10.0, ("rain", "hail"))])
    (corpus / "impulse_responses" / "room.wav").unlink()
    with pytest.raises(ConfigError, match=r": expected impulse responses in impulse_responses for hall$"):
        score_recordings([ToyModel()], listed, [Condition("hall", in_room=True)])


def test_models_with_the_same_front_end_share_it(corpus):
    models = [ToyModel(), ToyModel(name="toy.w8a8"), ToyModel(frontend=FrontEndConfig(n_mels=40))]
    ToyFrontEnd.n_pushes = 0
    evaluations = evaluate_models(models, corpus, snrs_db=(None,))
    assert [model.n_front_ends for model in models] == [1, 0, 1]
    assert ToyFrontEnd.n_pushes == 2 * 8 * 2  # each file, and the silence behind it
    assert [evaluation.model for evaluation in evaluations] == ["toy.f32", "toy.w8a8", "toy.f32"]
    assert evaluations[0].at_own_thresholds == evaluations[1].at_own_thresholds == evaluations[2].at_own_thresholds


def test_damaged_files_are_skipped_and_listed(corpus):
    (corpus / "wakewords" / "go" / "d_0.flac").write_bytes(b"fLaC nonsense")
    (corpus / "talk" / "text.wav").write_text("not audio at all")
    (corpus / "talk" / "segments.csv").write_text("file,start,end\ngone.wav,0,1\n")
    soundfile.write(corpus / "talk" / "empty.wav", np.zeros(0), 16000)
    evaluation = evaluate(ToyModel(), corpus, snrs_db=(None,))
    assert evaluation.n_recordings["go"] == 4
    names = [skipped.split(":")[0] for skipped in evaluation.skipped]
    assert names == ["wakewords/go/d_0.flac", "talk/empty.wav", "talk/gone.wav", "talk/text.wav"]
    assert all(skipped in format_table([evaluation]) for skipped in evaluation.skipped)
    assert evaluation.hours == pytest.approx(0.01)


def test_noise_without_noise_sets_is_left_out_with_a_note(corpus):
    evaluation = evaluate(ToyModel(), corpus)
    assert evaluation.conditions == ("clean",)
    assert evaluation.notes == ("no noise conditions: the corpus has no folder *_noise with audio",)


def test_progress_ends_at_the_total(corpus):
    calls: dict[str, list[tuple[int, int]]] = {}
    evaluate(ToyModel(), corpus, (None,), lambda what, done, total: calls.setdefault(what, []).append((done, total)))
    assert list(calls) == ["listening", "sweeping toy.f32 clean"]
    for steps in calls.values():
        assert [done for done, _ in steps] == list(range(steps[-1][1] + 1))


def test_noise_conditions_share_hours_and_thresholds(noisy_corpus):
    evaluation = evaluate(ToyModel(), noisy_corpus, snrs_db=(None, 10.0, 0.0))
    assert evaluation.conditions == ("clean", "10 dB", "0 dB")
    point = evaluation.operating_points[0.5]["go"]
    assert set(point.figures) == {"clean", "10 dB", "0 dB"}
    curve = evaluation.curves["10 dB"]["go"]
    assert point.figures["10 dB"].misses == curve.misses[curve.thresholds.index(point.threshold)]
    assert point.figures["10 dB"].hours == evaluation.hours
    assert evaluation.notes == ()
