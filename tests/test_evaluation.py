"""Misses and false accepts of a toy model on a toy corpus, counted by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from toy_corpus import ToyModel, add_noise, write, write_corpus

from streamkws.corpus import read_corpus
from streamkws.detector import detect
from streamkws.errors import ConfigError
from streamkws.evaluation.counting import Figures, count_misses, counting_limits
from streamkws.evaluation.curves import DetCurve
from streamkws.evaluation.measure import evaluate, evaluate_models
from streamkws.evaluation.operating_points import TARGETS_FA_PER_H, mean_miss, speakers
from streamkws.evaluation.scoring import Condition, score_corpus, score_recordings
from streamkws.evaluation.tables import format_markdown, format_table
from streamkws.evaluation.thresholds import calibrate
from streamkws.evaluation.timeline import Timeline
from streamkws.frontend import FrontEndConfig
from streamkws.layers import LayerConfig
from streamkws.model import FloatWeights, Model, ModelConfig
from streamkws.smoother import PosteriorSmoother, SmootherConfig


@pytest.fixture
def corpus(tmp_path):
    return write_corpus(tmp_path)


@pytest.fixture
def noisy_corpus(corpus):
    return add_noise(corpus)


def test_counts_at_the_models_own_thresholds(corpus):
    evaluation = evaluate(ToyModel(), corpus, snrs_db=(None,))
    go, stop = (evaluation.at_own_thresholds[keyword].figures["clean"] for keyword in ("go", "stop now"))
    assert evaluation.hours == pytest.approx(0.01)
    assert evaluation.hours_by_set == pytest.approx({"more": 0.005, "talk": 0.005})
    assert (go.n_recordings, go.misses, go.miss) == (4, 1, 0.25)
    assert (stop.n_recordings, stop.misses, stop.miss) == (2, 1, 0.5)
    assert (go.false_accepts, stop.false_accepts) == (3, 0)  # the third is completed by the end of its file
    assert go.fa_per_h == pytest.approx(300)
    assert go.fa_per_h_bound is None
    assert stop.fa_per_h_bound == pytest.approx(300)
    assert (go.confusions, stop.confusions) == ({"stop now": 1}, {})
    assert go.speakers == {"a": (0, 2), "b": (1, 1)}  # p0 is no speaker
    assert mean_miss(evaluation.at_own_thresholds, "clean") == 0.375
    assert speakers(evaluation.at_own_thresholds, "clean") == {"b": (1, 1), "c": (1, 1), "a": (0, 3)}


def test_operating_points_are_the_lowest_thresholds_without_a_false_accept(corpus):
    evaluation = evaluate(ToyModel(), corpus, snrs_db=(None,))
    for target in TARGETS_FA_PER_H:
        go, stop = (evaluation.operating_points[target][keyword] for keyword in ("go", "stop now"))
        assert not go.resolvable  # one false accept is 100 per hour
        assert 0.8 < go.threshold < 0.81
        assert 0.2 < stop.threshold < 0.22
        assert (go.figures["clean"].misses, stop.figures["clean"].misses) == (2, 0)
        assert go.figures["clean"].false_accepts == stop.figures["clean"].false_accepts == 0


def test_the_curve_agrees_with_the_audio_at_every_threshold(corpus):
    model = ToyModel({"go": 0.123, "stop now": 0.5})
    curve = evaluate(model, corpus, snrs_db=(None,)).curves["clean"]["go"]
    assert {0.123, 0.5} <= set(curve.thresholds)
    assert len(curve.thresholds) == 203
    assert (curve.thresholds[0], *curve.thresholds[-2:]) == (0.02, 0.9999, 1.0)
    for threshold, misses, false_accepts in zip(curve.thresholds, curve.misses, curve.false_accepts, strict=True):
        assert misses == sum(peak < threshold for peak in (0.9, 0.6, 0.3, 0.95))
        assert false_accepts == sum(peak >= threshold for peak in (0.8, 0.55, 0.7))


@pytest.mark.parametrize("smoother", [SmootherConfig(), SmootherConfig(1, 0, 0), SmootherConfig(7, 9, 3)])
def test_one_run_over_a_timeline_equals_a_fresh_smoother_on_each_stream(smoother):
    random = np.random.default_rng(0)
    layer = LayerConfig(26, 2, activation="sigmoid")
    model = ToyModel(settings=ModelConfig(("go", "stop now"), (layer,), smoother=smoother, frame_stride=2))
    streams = []
    for n_steps in (0, 1, 2, 30, 700, 5, 2000, 60):
        walk = np.cumsum(random.normal(0, 0.7, (n_steps, 2)), axis=0) - 2
        streams.append((1 / (1 + np.exp(-walk))).astype(np.float32))
    streams.append(np.ones((3, 2), dtype=np.float32))  # still rising at its end
    timeline = Timeline.of(model, streams)
    n_found = 0
    for threshold in (0.02, 0.2, 0.5, 0.9, 0.99, 0.9999, 1.0):
        expected = []
        for s, posteriors in enumerate(streams):
            fresh = PosteriorSmoother(
                smoother, model.keywords, model.config.clock, dict.fromkeys(model.keywords, threshold)
            )
            hits = [*fresh.push(posteriors), *fresh.flush()]
            expected += [(s, model.keywords.index(hit.keyword), hit.peak) for hit in hits]
        assert sorted(timeline.detect(threshold)) == sorted(expected)
        n_found += len(expected)
    assert n_found > 50


def test_a_detection_counts_from_a_fifth_of_a_second_before_its_recording_to_half_a_second_after_it():
    ((start_s, end_s),) = counting_limits([16000])  # behind one second of padding
    assert (start_s, end_s) == (pytest.approx(0.8), pytest.approx(2.5))


@pytest.mark.parametrize(("delay_steps", "misses"), [(24, 0), (25, 1)])
def test_a_detection_may_peak_until_half_a_second_after_the_recording(tmp_path, delay_steps, misses):
    write(tmp_path / "wakewords" / "go" / "a_0.wav", (0, 49), (0.9, 1))
    write(tmp_path / "talk" / "0.wav", (0, 50))
    evaluation = evaluate(ToyModel(delay_steps=delay_steps), tmp_path, snrs_db=(None,))
    assert evaluation.at_own_thresholds["go"].figures["clean"].misses == misses


def test_scores_are_the_highest_posteriors(corpus):
    evaluation = evaluate(ToyModel(), corpus, snrs_db=(None,))
    go, stop = (evaluation.scores["clean"][keyword] for keyword in ("go", "stop now"))
    assert go.recordings == pytest.approx((0.9, 0.6, 0.3, 0.95))
    assert stop.recordings == pytest.approx((0.8, 0.4))
    assert len(go.negatives) == len(stop.negatives) == 38  # seconds, and the silence behind each of two files
    assert sorted(score for score in go.negatives if score) == pytest.approx([0.55, 0.7, 0.8])
    assert sorted(score for score in stop.negatives if score) == pytest.approx([0.2])
    curve = evaluation.curves["clean"]["go"]
    for threshold, misses in zip(curve.thresholds, curve.misses, strict=True):
        assert misses == sum(score < np.float32(threshold) for score in go.recordings)


def test_a_score_counts_only_where_a_detection_would(tmp_path):
    write(tmp_path / "wakewords" / "go" / "a_0.wav", (0, 49), (0.9, 1))
    write(tmp_path / "talk" / "0.wav", (0, 50))
    for delay_steps, score in ((24, 0.9), (25, 0.0)):
        evaluation = evaluate(ToyModel(delay_steps=delay_steps), tmp_path, snrs_db=(None,))
        assert evaluation.scores["clean"]["go"].recordings == pytest.approx((score,), abs=1e-3)


def test_det_area_of_a_known_curve():
    curve = DetCurve("go", "clean", 4, 1.0, (0.2, 0.4, 0.6), misses=(0, 1, 2), false_accepts=(5, 1, 0))
    expected = (0.5 * math.log(10) + 0.25 * math.log(5)) / math.log(100)
    assert curve.area == pytest.approx(expected)
    assert [curve.miss_at(rate) for rate in (0, 0.99, 1, 4.9, 5, 100)] == [0.5, 0.5, 0.25, 0.25, 0, 0]


def test_det_area_is_the_miss_rate_where_nothing_changes_and_1_where_nothing_is_reached():
    assert DetCurve("go", "clean", 4, 1.0, (0.5,), (1,), (0,)).area == pytest.approx(0.25)
    assert DetCurve("go", "clean", 4, 1.0, (0.5,), (1,), (50,)).area == pytest.approx(1)
    assert DetCurve("go", "clean", 0, 1.0, (0.5,), (0,), (0,)).area is None


def test_a_low_threshold_that_merges_false_accepts_is_no_operating_point():
    curve = DetCurve("go", "clean", 4, 1.0, (0.1, 0.2, 0.4, 0.6), misses=(0, 0, 1, 2), false_accepts=(1, 5, 1, 0))
    assert curve.index_at(1) == 2
    assert curve.index_at(5) == 0
    assert curve.index_at(0.5) == 3


def test_a_target_that_no_threshold_reaches_counts_as_missed(tmp_path):
    write(tmp_path / "wakewords" / "go" / "a_0.wav", (0, 20), (1, 5), (0, 20))
    write(tmp_path / "talk" / "0.wav", (0, 20), (1, 5), (0, 20))
    evaluation = evaluate(ToyModel(), tmp_path, snrs_db=(None,))
    point = evaluation.operating_points[0.5]["go"]
    assert (point.reached, point.threshold, point.figures["clean"].miss) == (False, 1.0, 1.0)
    assert calibrate(evaluation, 0.5)["go"] == 1.0
    assert "no threshold up to 1 brings go to 0.5 FA/h" in format_table([evaluation])


def test_zero_false_accepts_state_the_bound():
    assert Figures(1, 0, 1.5, 0, {}, {}).fa_per_h_bound == pytest.approx(2)
    assert Figures(1, 0, 1.5, 1, {}, {}).fa_per_h_bound is None


def test_calibrate_takes_the_operating_point(corpus):
    evaluation = evaluate(ToyModel(), corpus, snrs_db=(None,))
    plain = calibrate(evaluation, 0.5)
    assert plain == {keyword: point.threshold for keyword, point in evaluation.operating_points[0.5].items()}
    assert calibrate(evaluation, 250)["go"] == pytest.approx(0.55, abs=0.02)
    curves = {
        keyword: replace(
            curve,
            false_accepts=tuple(n + (t < 0.8) for n, t in zip(curve.false_accepts, curve.thresholds, strict=True)),
        )
        for keyword, curve in evaluation.curves["clean"].items()
    }
    noisy = replace(evaluation, curves={**evaluation.curves, "10 dB": curves})
    assert calibrate(noisy, 0.5) == plain
    some = calibrate(noisy, 0.5, noisy_targets={"10 dB": 1e6})
    assert some == plain
    both = calibrate(noisy, 0.5, noisy_targets={"10 dB": 0.5})
    assert both == pytest.approx({keyword: max(threshold, 0.8) for keyword, threshold in plain.items()}, abs=0.02)
    with pytest.raises(ConfigError, match=r"expected a target of 0 or more false accepts per hour, got -1"):
        calibrate(evaluation, -1)
    with pytest.raises(ConfigError, match=r"expected a target of 0 or more false accepts per hour, got -2"):
        calibrate(noisy, 0.5, noisy_targets={"10 dB": -2})
    with pytest.raises(ConfigError, match=r"expected a lowest threshold of 0 to 1, got -0.1"):
        calibrate(evaluation, 1, lowest=-0.1)
    assert calibrate(evaluation, 0.5, lowest=0.5) == {"go": plain["go"], "stop now": 0.5}


def test_recordings_are_missed_as_the_evaluation_counts(noisy_corpus):
    model = ToyModel({"go": 0.5, "stop now": 0.7})
    corpus = read_corpus(noisy_corpus, model.keywords)
    scored = score_corpus([model], corpus)
    conditions = [Condition("clean"), Condition("10 dB", 10.0), Condition("room", in_room=True)]
    ((clean, noisy, room),) = score_recordings([model], corpus, conditions)
    assert not room.negatives
    for condition, whole in zip((clean, noisy), scored.scores[0], strict=True):
        for one, other in zip(condition.recordings, whole.recordings, strict=True):
            assert np.array_equal(one, other)
    (evaluation,) = evaluate_models([model], noisy_corpus)
    for name, condition in (("clean", clean), ("10 dB", noisy)):
        misses = {keyword: point.figures[name].misses for keyword, point in evaluation.at_own_thresholds.items()}
        assert count_misses(model, scored, condition.recordings, model.thresholds) == misses
    assert count_misses(model, scored, clean.recordings, {"go": 0.92}) == {"go": 3}
    assert any(not np.array_equal(a, b) for a, b in zip(clean.recordings, room.recordings, strict=True))


def test_sets_can_be_left_out(noisy_corpus):
    (whole,), (rest,) = (evaluate_models([ToyModel()], noisy_corpus, left_out=sets) for sets in ((), ("talk",)))
    assert "talk" in whole.hours_by_set and rest.hours_by_set.keys() == whole.hours_by_set.keys() - {"talk"}
    assert rest.hours == pytest.approx(whole.hours - whole.hours_by_set["talk"])
    assert rest.n_recordings == whole.n_recordings
    with pytest.raises(ConfigError, match=r"expected a set of negatives of .* to leave out, got 'chat'"):
        evaluate_models([ToyModel()], noisy_corpus, left_out=("talk", "chat"))


def test_to_json_can_be_written_and_holds_everything(noisy_corpus):
    (noisy_corpus / "talk" / "bad.wav").write_text("not audio")
    evaluation = evaluate(ToyModel(), noisy_corpus, seed=3)
    figures = json.loads(json.dumps(evaluation.to_json(), allow_nan=False))
    assert (figures["model"], figures["provenance"], figures["seed"]) == ("toy.f32", {"data": "none"}, 3)
    assert figures["shipped"]["keywords"]["go"]["conditions"]["clean"]["misses"] == 1
    assert figures["shipped"]["mean_miss"]["clean"] == 0.375
    assert figures["shipped"]["speakers"]["clean"]["b"] == {"misses": 1, "recordings": 1, "miss": 1.0}
    assert [point["target_fa_per_h"] for point in figures["operating_points"]] == [0.1, 0.5, 1.0]
    curve = figures["det"]["10 dB"]["go"]
    lengths = {len(curve[column]) for column in ("threshold", "misses", "miss", "false_accepts", "fa_per_h")}
    assert lengths == {202}
    assert figures["det_area"]["clean"]["keywords"]["go"] == 0.5
    assert len(figures["skipped"]) == 1


def test_tables_name_every_model_figure_and_caveat(noisy_corpus):
    (noisy_corpus / "wakewords" / "alexa").mkdir()
    models = [ToyModel(), ToyModel(name="toy.w4a8")]
    evaluations = evaluate_models(models, noisy_corpus)
    table, markdown = format_table(evaluations), format_markdown(evaluations)
    lines = table.splitlines()
    assert len({line.find("toy.") for line in lines[3:9]}) == 1
    assert sum(line.startswith("go ") for line in lines) == 1
    assert sum(" toy.w4a8 " in line for line in lines[3:9]) == 3
    assert f" {3 / evaluations[0].hours:.2f} " in table
    assert "0 (<" in table
    for text in (table, markdown):
        assert "FA/h means the lowest threshold without any false accept" in text
        assert "no model knows the keyword 'alexa'" in text
        assert "go for stop now 1" in text
        assert "25.0 %" in text
    assert "@0.5 FA/h threshold | @0.5 FA/h miss clean | @0.5 FA/h miss 10 dB | own threshold |" in markdown
    assert markdown.splitlines()[1].startswith("|---|---|---:|")
    assert len({line.count("|") for line in markdown.splitlines()[:8]}) == 1


def test_a_model_without_thresholds_or_recordings_of_a_keyword(corpus):
    model = ToyModel(thresholds={}, keywords=("go", "never said"))
    evaluation = evaluate(model, corpus, snrs_db=(None,))
    assert evaluation.at_own_thresholds["go"].threshold == evaluation.at_own_thresholds["never said"].threshold == 0.5
    assert evaluation.at_own_thresholds["never said"].figures["clean"].miss is None
    assert evaluation.curves["clean"]["never said"].area is None
    assert "the corpus has no recording of 'never said'" in evaluation.notes
    assert json.dumps(evaluation.to_json(), allow_nan=False)
    assert "never said" in format_table([evaluation])


def test_arguments_that_cannot_be_used(corpus):
    with pytest.raises(ConfigError, match=r"expected None \(without noise\) among the noise conditions, got \[10.0\]"):
        evaluate(ToyModel(), corpus, snrs_db=(10.0,))
    listed = read_corpus(corpus, ["go"])
    with pytest.raises(ConfigError, match="expected at least one model to evaluate, got none"):
        score_corpus([], listed)
    with pytest.raises(ConfigError, match=r"expected different noise conditions, got \[None, None\]"):
        score_corpus([ToyModel()], listed, (None, None))
    with pytest.raises(ConfigError, match=r"expected folders \*_noise with the noise to mix in, found none"):
        score_corpus([ToyModel()], listed, (10.0,))
    with pytest.raises(ConfigError, match=r"toy\.f32: expected a front end at 16000 Hz, got 8000 Hz"):
        evaluate(ToyModel(frontend=FrontEndConfig(sample_rate=8000, high_hz=4000)), corpus)


def test_a_real_model_is_counted_as_the_detector_hears_it(tmp_path):
    random = np.random.default_rng(5)
    layers = (LayerConfig(26, 16, taps=3, dilation=2), LayerConfig(16, 2, activation="sigmoid"))
    weights = FloatWeights(
        feature_mean=np.full(26, -8, dtype=np.float32),
        feature_scale=np.full(26, 0.3, dtype=np.float32),
        weights=tuple(random.normal(0, 0.5, (c.n_outputs, c.taps, c.n_inputs)).astype(np.float32) for c in layers),
        biases=tuple(np.zeros(c.n_outputs, dtype=np.float32) for c in layers),
    )
    config = ModelConfig(("go", "stop now"), layers, frame_stride=2, thresholds={"go": 0.6, "stop now": 0.7})
    models = [model := Model.from_float(config, weights), model.quantize(4, 8)]

    def write_bursts(path: Path, seconds: int) -> None:
        loudness = np.repeat(random.uniform(-80, 0, seconds * 10), 1600)
        samples = 0.3 * 10 ** (loudness / 20) * random.uniform(-1, 1, seconds * 16000)
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, samples, 16000)

    write_bursts(tmp_path / "wakewords" / "go" / "a_0.wav", 2)
    files = [tmp_path / "talk" / name for name in ("0.wav", "1.flac")]
    for path in files:
        write_bursts(path, 30)

    for model, evaluation in zip(models, evaluate_models(models, tmp_path), strict=True):
        hits = [hit.keyword for path in files for hit in detect(path, model)]
        own = evaluation.at_own_thresholds
        counted = {keyword: point.figures["clean"].false_accepts for keyword, point in own.items()}
        assert counted == {keyword: hits.count(keyword) for keyword in model.keywords}
        assert len(hits) > 10
        assert evaluation.at_own_thresholds["go"].threshold == 0.6
        assert evaluation.model == model.name
