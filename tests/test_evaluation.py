"""evaluation: a toy model whose posteriors are written into the audio, so that every count is known beforehand."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from streamkws.detector import detect
from streamkws.errors import ConfigError
from streamkws.evaluation import scoring
from streamkws.evaluation.counting import Figures, count_misses
from streamkws.evaluation.curves import DetCurve
from streamkws.evaluation.measure import evaluate, evaluate_models
from streamkws.evaluation.operating_points import TARGETS_FA_PER_H, mean_miss, speakers
from streamkws.evaluation.scoring import (
    Condition,
    NoiseBank,
    RoomBank,
    in_room,
    max_frame_energy,
    mix,
    read_corpus,
    score_corpus,
    score_recordings,
)
from streamkws.evaluation.tables import format_markdown, format_table
from streamkws.evaluation.thresholds import calibrate
from streamkws.evaluation.timeline import Timeline
from streamkws.frontend import FrontEndConfig
from streamkws.layers import LayerConfig
from streamkws.model import FloatWeights, Model, ModelConfig
from streamkws.smoother import PosteriorSmoother, SmootherConfig

STEP = 320


class ToyFrontEnd:
    """A frame is the mean of 320 samples."""

    n_pushes = 0

    def reset(self) -> None:
        pass

    def push(self, samples):
        ToyFrontEnd.n_pushes += 1
        n = len(samples) // STEP
        return samples[: n * STEP].reshape(n, STEP).mean(axis=1, keepdims=True)


@dataclass
class ToyState:
    """Positive frames are posteriors of the first keyword, negative ones of the second, delay_steps later."""

    delay_steps: int

    def reset(self) -> None:
        pass

    def push(self, frames):
        late = np.concatenate([np.zeros((self.delay_steps, 1), dtype=np.float32), frames])[: len(frames)]
        return np.clip(np.concatenate([late, -late], axis=1), 0, 1)


@dataclass
class ToyModel:
    thresholds: dict[str, float] = field(default_factory=lambda: {"go": 0.5, "stop now": 0.5})
    keywords: tuple[str, ...] = ("go", "stop now")
    name: str = "toy.f32"
    delay_steps: int = 0
    n_front_ends: int = 0
    frontend: FrontEndConfig = field(default_factory=FrontEndConfig)
    settings: ModelConfig | None = None

    @property
    def config(self) -> ModelConfig:
        if self.settings is not None:
            return self.settings
        layer = LayerConfig(self.frontend.n_mels, len(self.keywords), activation="sigmoid")
        return ModelConfig(
            self.keywords, (layer,), self.frontend, SmootherConfig(1, 3, 50), 2, provenance={"data": "none"}
        )

    def front_end(self):
        self.n_front_ends += 1
        return ToyFrontEnd()

    def new_state(self):
        return ToyState(self.delay_steps)


def write(path: Path, *parts: tuple[float, int]) -> None:
    """Write a file whose posteriors are these values for these numbers of steps."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.concatenate([np.full(n_steps * STEP, value, dtype=np.float32) for value, n_steps in parts])
    soundfile.write(path, samples, 16000, subtype="FLOAT")


@pytest.fixture
def corpus(tmp_path):
    """Four recordings of "go", two of "stop now"; 36 s of negatives, so that one false accept is 100 per hour."""
    words = tmp_path / "wakewords"
    write(words / "go" / "a_0.wav", (0, 20), (0.9, 5), (0, 20))
    write(words / "go" / "a_1.wav", (0, 20), (0.6, 5), (0, 20))
    write(words / "go" / "b_0.wav", (0, 20), (0.3, 5), (0, 20))
    write(words / "go" / "p0_1.wav", (0, 20), (0.95, 5), (0, 20))
    write(words / "stop_now" / "a_2.wav", (0, 20), (-0.8, 5), (0, 20))
    write(words / "stop_now" / "c_0.wav", (0, 20), (-0.4, 5), (0, 10), (0.7, 5))
    write(tmp_path / "talk" / "000.wav", (0, 300), (0.8, 5), (0, 295), (-0.2, 5), (0, 295))
    write(tmp_path / "more" / "deep" / "x.wav", (0, 300), (0.55, 5), (0, 590), (0.7, 5))
    write(tmp_path / "impulse_responses" / "room.wav", (1, 100))
    return tmp_path


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
    assert len(go.negatives) == len(stop.negatives) == 36  # seconds
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


def test_calibrate_takes_the_operating_point_and_a_margin(corpus):
    evaluation = evaluate(ToyModel(), corpus, snrs_db=(None,))
    plain = calibrate(evaluation, 0.5)
    assert plain == {keyword: point.threshold for keyword, point in evaluation.operating_points[0.5].items()}
    assert calibrate(evaluation, 250)["go"] == pytest.approx(0.55, abs=0.02)
    safe = calibrate(evaluation, 0.5, margin=0.5)
    for keyword, threshold in plain.items():
        moved = math.log(safe[keyword] / (1 - safe[keyword])) - math.log(threshold / (1 - threshold))
        assert moved == pytest.approx(0.5, abs=1e-4)
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
    with pytest.raises(ConfigError, match=r"expected a margin of 0 or more, got nan"):
        calibrate(evaluation, 1, margin=math.nan)
    with pytest.raises(ConfigError, match=r"expected a lowest threshold of 0 to 1, got -0.1"):
        calibrate(evaluation, 1, lowest=-0.1)
    with pytest.raises(ConfigError, match=r"expected a highest threshold of 0.5 \(the lowest\) to 1, got 0.4"):
        calibrate(evaluation, 1, lowest=0.5, highest=0.4)
    with pytest.raises(ConfigError, match=r"expected a highest threshold of 0 \(the lowest\) to 1, got nan"):
        calibrate(evaluation, 1, highest=math.nan)
    assert calibrate(evaluation, 0.5, lowest=0.5) == {"go": plain["go"], "stop now": 0.5}


def naive_max_frame_energy(samples):
    frames = [samples[i : i + 2048] for i in range(0, len(samples) - 2047, 2048)] or [samples]
    return max(sum(float(x) ** 2 for x in frame) for frame in frames)


@pytest.mark.parametrize("n_samples", [1, 2047, 2048, 5000])
@pytest.mark.parametrize("snr_db", [-5.0, 0.0, 10.0])
def test_mix_holds_the_ratio(n_samples, snr_db):
    random = np.random.default_rng(n_samples)
    speech = (0.05 * random.standard_normal(n_samples)).astype(np.float32)
    noise = (0.3 * random.standard_normal(n_samples)).astype(np.float32)
    added = mix(speech, noise, snr_db).astype(np.float64) - speech
    ratio = naive_max_frame_energy(speech) / naive_max_frame_energy(added)
    assert 10 * math.log10(ratio) == pytest.approx(snr_db, abs=1e-3)
    assert max_frame_energy(speech) == pytest.approx(naive_max_frame_energy(speech))


def test_mix_scales_down_what_would_clip():
    speech = np.ones(4096, dtype=np.float32)
    noise = np.where(np.arange(4096) % 2, 0.1, -0.1).astype(np.float32)
    mixed = mix(speech, noise, 0.0)
    assert mixed.dtype == np.float32
    assert np.array_equal(np.unique(mixed), [0, 1])  # 1 + 1 and 1 - 1, halved


def test_mix_leaves_silence_alone():
    speech, silence = np.full(3000, 0.5, dtype=np.float32), np.zeros(3000, dtype=np.float32)
    assert np.array_equal(mix(speech, silence, 10.0), speech)
    assert np.array_equal(mix(silence, speech, 10.0), silence)


@pytest.fixture
def noisy_corpus(corpus):
    """The corpus with two noise sets, and a negative set of two segments and a rest."""
    random = np.random.default_rng(1)
    for name, n_samples in (("hiss_noise/0.wav", 16000), ("hum_noise/0.wav", 80000)):
        (corpus / name).parent.mkdir()
        soundfile.write(corpus / name, 0.1 * random.standard_normal(n_samples), 16000, subtype="FLOAT")
    (corpus / "hum_noise" / "segments.csv").write_text("file,start,end\n0.wav,0,30000\n0.wav,30000,80000\n")
    table = "file,start,end,label,speaker,source\n000.wav,0,96000,,,\n000.wav,96000,250000,,,\n"
    (corpus / "talk" / "segments.csv").write_text(table)
    return corpus


def test_noise_runs_from_end_to_end_and_is_the_same_every_time(noisy_corpus):
    listed = read_corpus(noisy_corpus, ["go"])
    bank = NoiseBank.read(listed.negatives, seed=0)
    assert sorted(len(stretch) for stretch in bank.stretches) == [16000, 30000, 50000]
    recording = listed.recordings[0]
    samples = soundfile.read(recording.path, dtype="float32")[0] * np.float32(0.1)
    clean, noisy = (bank.over_recording(recording, samples, snr_db) for snr_db in (None, 10.0))
    assert np.array_equal(clean[16000:-16000], samples)
    for padding in (clean[:16000], clean[-16000:]):
        assert 20 * math.log10(np.sqrt(np.mean(padding.astype(np.float64) ** 2))) == pytest.approx(-70, abs=0.2)
    added = noisy.astype(np.float64) - clean
    assert np.sqrt(np.mean(added[:16000] ** 2)) > 10 * scoring.PADDING_RMS
    assert max_frame_energy(clean) / max_frame_energy(added.astype(np.float32)) == pytest.approx(10, rel=1e-3)

    again = NoiseBank(bank.stretches, seed=0)
    assert np.array_equal(again.over_recording(recording, samples, 10.0), noisy)
    other_seed = NoiseBank(bank.stretches, seed=1)
    assert not np.array_equal(other_seed.over_recording(recording, samples, 10.0), noisy)
    other = listed.recordings[1]
    assert not np.array_equal(bank.over_recording(other, samples, 10.0), noisy)


def test_each_segment_gets_noise_of_its_own(noisy_corpus):
    listed = read_corpus(noisy_corpus, ["go"])
    bank = NoiseBank.read(listed.negatives, seed=0)
    talk = next(negative for negative in listed.negatives if negative.set_name == "talk")
    assert talk.segments == ((0, 96000), (96000, 250000))
    samples = np.random.default_rng(2).uniform(-0.1, 0.1, 300000).astype(np.float32)
    samples[96000:] *= 0.1
    noisy = bank.over_negative(talk, samples, 10.0)
    for start, end in talk.segments:
        added = (noisy[start:end].astype(np.float64) - samples[start:end]).astype(np.float32)
        assert max_frame_energy(samples[start:end]) / max_frame_energy(added) == pytest.approx(10, rel=1e-3)
    assert np.array_equal(noisy[250000:], samples[250000:])
    assert np.array_equal(bank.over_negative(talk, samples, None), samples)


def test_digital_silence_among_the_noise_is_not_drawn(noisy_corpus):
    recording = read_corpus(noisy_corpus, ["go"]).recordings[0]
    silence, hiss = np.zeros(50000, dtype=np.float32), np.full(50000, 0.1, dtype=np.float32)
    speech = np.full(4800, 0.5, dtype=np.float32)
    for seed in range(10):
        noisy = NoiseBank((silence, hiss), seed).over_recording(recording, speech, 10.0)
        assert noisy[8000] > 0.05


def test_noise_conditions_share_hours_and_thresholds(noisy_corpus):
    evaluation = evaluate(ToyModel(), noisy_corpus, snrs_db=(None, 10.0, 0.0))
    assert evaluation.conditions == ("clean", "10 dB", "0 dB")
    point = evaluation.operating_points[0.5]["go"]
    assert set(point.figures) == {"clean", "10 dB", "0 dB"}
    curve = evaluation.curves["10 dB"]["go"]
    assert point.figures["10 dB"].misses == curve.misses[curve.thresholds.index(point.threshold)]
    assert point.figures["10 dB"].hours == evaluation.hours
    assert evaluation.notes == ()


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


def test_noise_is_known_by_its_label_or_by_its_source(noisy_corpus):
    table = "file,start,end,label,speaker,source\n0.wav,0,30000,rain,,1.wav\n0.wav,30000,80000,noise,,running_tap.wav\n"
    (noisy_corpus / "hum_noise" / "segments.csv").write_text(table)
    bank = NoiseBank.read(read_corpus(noisy_corpus, ["go"]).negatives, seed=0)
    lengths = {label: len(stretch) for label, stretch in zip(bank.labels, bank.stretches, strict=True)}
    assert lengths == {"": 16000, "rain": 30000, "running_tap": 50000}
    rain = bank.only(["rain", "hail"])
    assert (rain.labels, [len(stretch) for stretch in rain.stretches], rain.seed) == (("rain",), [30000], 0)


def test_a_room_keeps_the_level_and_delays_nothing():
    samples = np.zeros(16000, dtype=np.float32)
    samples[4000:4100] = 0.5
    response = np.zeros(3000, dtype=np.float32)
    response[[200, 1000]] = -0.8, 0.4
    heard = in_room(samples, response)
    assert max_frame_energy(heard) == pytest.approx(max_frame_energy(samples), rel=1e-5)
    reference = np.convolve(samples, response[200:])[:16000]
    assert heard == pytest.approx(reference * heard[4000] / reference[4000], abs=1e-6)
    assert np.flatnonzero(np.abs(heard) > 1e-3)[0] == 4000


def test_a_room_does_not_clip():
    samples = np.full(4096, 0.9, dtype=np.float32)
    response = np.array([1.0, -0.99], dtype=np.float32)  # all but the first sample nearly vanishes
    heard = in_room(samples, response)
    assert heard[0] == np.abs(heard).max() == 1
    assert not in_room(np.zeros(10, dtype=np.float32), response).any()


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


def test_a_recording_always_has_the_same_room(corpus):
    listed = read_corpus(corpus, ["go"])
    bank = RoomBank(tuple(np.full(1, n, dtype=np.float32) for n in range(1, 9)))
    drawn = [int(bank.draw(recording)[0]) for recording in listed.recordings]
    assert drawn == [int(bank.draw(recording)[0]) for recording in listed.recordings]
    assert len(set(drawn)) > 1
    assert len(RoomBank.read(corpus, 0).responses) == 1


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
    assert ToyFrontEnd.n_pushes == 2 * 8
    assert [evaluation.model for evaluation in evaluations] == ["toy.f32", "toy.w8a8", "toy.f32"]
    assert evaluations[0].at_own_thresholds == evaluations[1].at_own_thresholds == evaluations[2].at_own_thresholds


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


def test_corpora_that_cannot_be_used(tmp_path):
    model = ToyModel()

    def expect(text: str) -> None:
        with pytest.raises(ConfigError, match=text):
            evaluate(model, tmp_path / "corpus", snrs_db=(None,))

    expect(r"corpus: expected the folder of a corpus, got nothing")
    (tmp_path / "corpus").write_text("")
    expect(r"corpus: expected the folder of a corpus, got a file")
    (tmp_path / "corpus").unlink()
    (tmp_path / "corpus").mkdir()
    expect(r"expected a folder wakewords/<keyword>/ in the corpus, found no folder")
    (tmp_path / "corpus" / "talk").mkdir()
    expect(r"expected a folder wakewords/<keyword>/ in the corpus, found talk")
    (tmp_path / "corpus" / "wakewords" / "alexa").mkdir(parents=True)
    expect(r"wakewords: expected recordings of go, stop now, found alexa")
    write(tmp_path / "corpus" / "wakewords" / "go" / "a_0.wav", (0, 50))
    expect(r"expected negative audio in folders beside wakewords, found none")
    (tmp_path / "corpus" / "talk" / "0.wav").write_text("text")
    expect(r"expected at least one negative file that can be read; the first was talk/0.wav: ")


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ("path,from,to\n", r"segments.csv: expected the columns file, start and end, found \['path', 'from', 'to'\]"),
        ("file,start,end\n000.wav,a,5\n", r"segments.csv, line 2: expected 0 <= start <= end in samples, got a and 5"),
        ("file,start,end\n000.wav,0,5\n000.wav,9,5\n", r"segments.csv, line 3: expected 0 <= start <= end"),
        ("file,start,end\n000.wav,0\n", r"segments.csv, line 2: expected 0 <= start <= end in samples, got 0 and None"),
    ],
)
def test_segments_that_cannot_be_understood(corpus, table, text):
    (corpus / "talk" / "segments.csv").write_text(table)
    with pytest.raises(ConfigError, match=text):
        evaluate(ToyModel(), corpus)


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
