"""calibration: at the new thresholds a detector gives no more false accepts than asked, one step lower it does."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import date

import numpy as np
import pytest
import soundfile
from conftest import KEYWORDS

from streamkws import cli
from streamkws.audio import audio_files
from streamkws.corpus import Corpus, read_recordings
from streamkws.detector import Detector, detect
from streamkws.errors import ConfigError
from streamkws.evaluation import scoring
from streamkws.evaluation.calibration import calibrate_model
from streamkws.evaluation.curves import DetCurve, sweep_thresholds
from streamkws.evaluation.results import Evaluation, KeywordScores
from streamkws.evaluation.thresholds import calibrate, confident_threshold
from streamkws.frontend import FrontEndConfig
from streamkws.layers import LayerConfig
from streamkws.mixing import NoiseBank
from streamkws.model import FloatWeights, Model, ModelConfig
from streamkws.model_file import load_model, save_model

SECONDS = (20, 30, 10)
HOURS = sum(SECONDS) / 3600
N_ALLOWED = 3
TARGET = (N_ALLOWED + 0.5) / HOURS


def bursts(seconds, seed):
    """Noise whose loudness changes every 0.1 s, (n,) float64."""
    random = np.random.default_rng(seed)
    loudness = np.repeat(random.uniform(-80, 0, seconds * 10), 1600)
    return 0.3 * 10 ** (loudness / 20) * random.uniform(-1, 1, seconds * 16000)


@pytest.fixture(scope="module")
def model():
    """A w4a8 model with random weights, whose scores come near 1 but do not reach it, and are low in silence."""
    random = np.random.default_rng(3)
    layer = LayerConfig(26, 3, taps=5, activation="sigmoid")
    weights = FloatWeights(
        feature_mean=np.full(26, -8, np.float32),
        feature_scale=np.full(26, 0.3, np.float32),
        weights=(random.normal(0, 0.1, (3, 5, 26)).astype(np.float32),),
        biases=(np.full(3, -1, np.float32),),
    )
    thresholds = dict.fromkeys(KEYWORDS, 0.3)
    config = ModelConfig(
        KEYWORDS, (layer,), FrontEndConfig(), frame_stride=2, thresholds=thresholds, provenance={"name": "random"}
    )
    return Model.from_float(config, weights).quantize(4, 8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A minute of negative audio in three files, in folders, and what is no audio."""
    root = tmp_path_factory.mktemp("negatives")
    (root / "deep" / "er").mkdir(parents=True)
    for n, (name, seconds) in enumerate(zip(("a.wav", "deep/b.flac", "deep/er/c.wav"), SECONDS, strict=True)):
        soundfile.write(root / name, bursts(seconds, seed=n), 16000)
    (root / "notes.txt").write_text("no audio")
    (root / ".hidden.wav").write_text("no audio")
    return root


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Two recordings of the first keyword and one of the second, which no model was trained on."""
    root = tmp_path_factory.mktemp("recordings")
    for n, name in enumerate(("alexa/a_1.wav", "alexa/b_1.wav", "smart_mirror/a_2.wav", "hello/a_3.wav")):
        (root / name).parent.mkdir(exist_ok=True)
        soundfile.write(root / name, bursts(1, seed=10 + n), 16000)
    return root


@pytest.fixture(scope="module")
def calibration(model, folder, recordings):
    return calibrate_model(model, [folder], TARGET, recordings=recordings)


def count(model, folder, thresholds):
    """False accepts of each keyword, by fresh detectors."""
    hits = [hit.keyword for path in audio_files(folder) for hit in detect(path, model, thresholds)]
    return {keyword: hits.count(keyword) for keyword in model.keywords}


def test_a_detector_gives_no_more_false_accepts_than_asked_and_one_step_lower_more(model, folder, calibration):
    thresholds = calibration.model.thresholds
    grid = sweep_thresholds(())
    lower = {keyword: grid[grid.index(threshold) - 1] for keyword, threshold in thresholds.items()}
    at, below = count(calibration.model, folder, None), count(model, folder, lower)
    assert Detector(calibration.model).thresholds == pytest.approx(thresholds)
    for keyword in KEYWORDS:
        assert 0.02 < thresholds[keyword] < 1
        assert at[keyword] <= N_ALLOWED < below[keyword]
        assert calibration.after[keyword].figures["clean"].false_accepts == at[keyword]
    assert calibration.n_allowed == N_ALLOWED
    assert (calibration.hours, calibration.n_files) == (pytest.approx(HOURS), 3)


def test_before_is_what_the_model_does_at_its_own_thresholds(model, folder, calibration):
    assert {k: point.threshold for k, point in calibration.before.items()} == dict.fromkeys(KEYWORDS, 0.3)
    counted = {k: point.figures["clean"].false_accepts for k, point in calibration.before.items()}
    assert counted == count(model, folder, None)
    assert min(counted.values()) > N_ALLOWED


def test_misses_are_counted_where_there_are_recordings(model, folder, recordings, calibration):
    corpus = Corpus(recordings, tuple(read_recordings(recordings, KEYWORDS)[0]), ())
    heard = {}
    for recording in corpus.recordings:
        samples = soundfile.read(recording.path, dtype="float32")[0]
        padded = NoiseBank(()).over_recording(recording, samples, None)
        detector = Detector(calibration.model)
        hits = [hit for hit in (*detector.push(padded), *detector.flush()) if hit.keyword == recording.keyword]
        inside = [0.8 <= hit.peak <= 1 + len(samples) / 16000 + 0.5 for hit in hits]
        heard.setdefault(recording.keyword, []).append(any(inside))
    figures = {keyword: point.figures["clean"] for keyword, point in calibration.after.items()}
    assert [figures[keyword].n_recordings for keyword in KEYWORDS] == [2, 1, 0]
    assert [figures[keyword].misses for keyword in KEYWORDS[:2]] == [heard[k].count(False) for k in KEYWORDS[:2]]
    assert calibration.notes == (
        f"{recordings.name}/hello was left out: no model knows the keyword 'hello'",
        "the corpus has no recording of 'snowboy'",
    )


def test_confidence_raises_thresholds(model, tmp_path):
    soundfile.write(tmp_path / "long.wav", bursts(300, seed=7), 16000)
    some, more = (calibrate_model(model, [tmp_path], 60.0, confidence=one).model for one in (0.5, 0.9))
    for keyword in KEYWORDS:
        assert 0 < some.thresholds[keyword] < more.thresholds[keyword] < 1
    assert ", confidence 0.9, set on" in more.config.provenance["calibration"]
    (first, *_) = calibrate_model(model, [tmp_path], 60.0, confidence=0.9).remarks
    assert first == (
        "The thresholds are for at most 60 false accepts per hour in other audio of this kind, 90 % sure, by the "
        "highest scores in 0.08 h."
    )


def test_lowest_raises_thresholds(model, folder, calibration):
    plain = calibration.model.thresholds
    middle = sorted(plain.values())[1]
    held = calibrate_model(model, [folder], TARGET, lowest=middle)
    assert held.model.thresholds == {keyword: max(threshold, middle) for keyword, threshold in plain.items()}
    assert f", lowest {middle:g}, set on" in held.model.config.provenance["calibration"]


def test_a_file_is_heard_alike_in_blocks_of_any_length(model, folder, calibration, monkeypatch):
    monkeypatch.setattr(scoring, "BLOCK_SAMPLES", 1000)
    assert calibrate_model(model, [folder], TARGET).model.thresholds == calibration.model.thresholds


def test_files_and_several_folders(model, folder, calibration):
    places = [folder / "a.wav", folder / "deep"]
    assert calibrate_model(model, places, TARGET).model.thresholds == calibration.model.thresholds


def test_provenance_says_on_what_but_not_where(calibration, folder):
    text = calibration.model.config.provenance["calibration"]
    assert text == (
        f"thresholds for at most {TARGET:g} false accepts per hour and keyword, set on 0.02 h of other audio in "
        f"3 files, {date.today().isoformat()}"
    )
    assert folder.name not in json.dumps(calibration.model.config.provenance)
    assert calibration.model.config.provenance["name"] == "random"


def test_remarks_say_what_the_hours_show(model, folder, calibration):
    assert calibration.remarks[0] == (
        f"In 0.02 h of negative audio, at most {TARGET:g} per hour allows each keyword {N_ALLOWED} false accepts."
    )
    strict = calibrate_model(model, [folder], 0.1)
    assert strict.n_allowed == 0
    assert strict.remarks[:3] == [
        "In 0.02 h of negative audio, one false accept is 60 per hour, more than the 0.1 asked for: the thresholds are "
        "the lowest without any.",
        "None in 0.02 h shows only < 1.8e+02 per hour (95 %).",
        "30 h without one would show < 0.1.",
    ]
    assert count(strict.model, folder, None) == dict.fromkeys(KEYWORDS, 0)


def test_lowered_thresholds_are_named(model, folder):
    high = model.with_settings(thresholds=dict.fromkeys(KEYWORDS, 0.9999) | {"alexa": 0.02})
    remarks = calibrate_model(high, [folder], TARGET).remarks
    assert "Those of smart mirror, snowboy are lower than before" in remarks[-1]


@pytest.mark.parametrize(
    ("target", "hours", "n"), [(0.1, 30, 3), (0.1, 29.9, 2), (0.29, 100, 29), (0, 5, 0), (2, 1.4, 2)]
)
def test_false_accepts_that_are_allowed(calibration, target, hours, n):
    assert replace(calibration, target_fa_per_h=target, hours=hours).n_allowed == n


def test_what_is_no_negative_audio_of_a_corpus_is_left_out(model, folder, tmp_path):
    for name in ("wakewords/alexa/a_1.wav", "impulse_responses/room.wav", "talk/0.wav"):
        (tmp_path / name).parent.mkdir(parents=True)
        soundfile.write(tmp_path / name, bursts(1, seed=0), 16000)
    (tmp_path / "talk" / "bad.wav").write_text("no audio")
    calibration = calibrate_model(model, [tmp_path], 0)
    assert calibration.n_files == 1
    assert calibration.notes == (
        f"{tmp_path.name}/wakewords was left out: it is no negative audio",
        f"{tmp_path.name}/impulse_responses was left out: it is no negative audio",
    )
    assert [skipped.split(":")[0] for skipped in calibration.skipped] == ["talk/bad.wav"]


def test_arguments_that_cannot_be_used(model, folder, tmp_path):
    def expect(text, *arguments, **settings):
        with pytest.raises(ConfigError, match=text):
            calibrate_model(model, *arguments, **settings)

    expect("expected a target of 0 or more false accepts per hour, got -1", [folder], -1)
    for wrong in (-1, 0.4, 1.0, math.nan):
        text = f"expected a confidence of 0.5 to 0.999, or 0 for none, got {wrong}"
        expect(text, [folder], 1, confidence=wrong)
    expect("expected a lowest threshold of 0 to 1, got 1.5", [folder], 1, lowest=1.5)
    expect("none: expected a folder of audio without keywords, got nothing", [tmp_path / "none"], 1)
    expect(r"expected audio files in this folder \(.flac .mp3 .*\), found none", [tmp_path], 1)
    expect("none: expected a folder of keyword recordings, got nothing", [folder], 1, recordings=tmp_path / "none")
    expect("expected recordings of alexa, smart mirror, snowboy, found deep", [folder], 1, recordings=folder)
    (tmp_path / "bad.wav").write_text("no audio")
    expect("expected at least one negative file that can be read; the first was bad.wav: ", [tmp_path], 1)


class TestCommand:
    @pytest.fixture
    def run(self, model, capsys, monkeypatch, tmp_path):
        """Run `streamkws calibrate` on a model file in the current folder."""
        monkeypatch.chdir(tmp_path)
        save_model(model, "mine.safetensors")

        def call(*arguments):
            capsys.readouterr()
            code = cli.main(["calibrate", "mine.safetensors", *map(str, arguments)])
            captured = capsys.readouterr()
            return code, captured.out, captured.err

        return call

    def test_model_table_and_remarks(self, run, folder, recordings, calibration):
        code, out, err = run("--negatives", folder, "--target-fa", TARGET, "--recordings", recordings)
        assert code == 0
        assert [line.split(": ")[0] for line in err.splitlines()] == ["streamkws"] * len(calibration.notes)
        head, _, header, *rows, _, first, _ = out.splitlines()
        assert head.startswith("random.w4a8.calibrated.safetensors: random.w4a8, thresholds for at most ")
        assert header.split() == ["keyword", "threshold", "before", "false", "accepts", "before", "miss", "before"]
        for row, keyword in zip(rows, KEYWORDS, strict=True):
            figures = calibration.after[keyword].figures["clean"]
            assert row.startswith(keyword)
            columns = row.removeprefix(keyword).replace(" %", "").split()
            assert columns[:2] == [f"{calibration.model.thresholds[keyword]:.4f}", "0.3000"]
            assert int(columns[2]) == figures.false_accepts
            assert columns[4] == ("-" if figures.miss is None else f"{100 * figures.miss:.1f}")
        assert first == calibration.remarks[0]
        written = load_model("random.w4a8.calibrated.safetensors")
        assert written.thresholds == calibration.model.thresholds
        assert written.config.provenance == calibration.model.config.provenance
        assert written.keywords == KEYWORDS

    def test_json(self, run, folder, calibration):
        code, out, err = run("--negatives", folder, "--target-fa", TARGET, "--json", "--out", "x.safetensors")
        assert (code, err) == (0, "")
        facts = json.loads(out)
        assert (facts["path"], facts["name"], facts["false_accepts_allowed"]) == ("x.safetensors", "random.w4a8", 3)
        assert facts["hours"] == pytest.approx(HOURS)
        for keyword, point in calibration.after.items():
            assert facts["keywords"][keyword]["threshold"] == point.threshold
            assert facts["keywords"][keyword]["false_accepts"] == point.figures["clean"].false_accepts
        assert load_model("x.safetensors").thresholds == calibration.model.thresholds

    def test_file_that_exists(self, run, folder, tmp_path):
        code, out, err = run("--negatives", folder, "--out", "mine.safetensors")
        assert (code, out) == (2, "")
        assert err == "streamkws: mine.safetensors: exists already; --force replaces it\n"
        assert load_model("mine.safetensors").thresholds == dict.fromkeys(KEYWORDS, 0.3)
        assert run("--negatives", folder, "--out", "mine.safetensors", "--force")[0] == 0
        assert load_model("mine.safetensors").thresholds != dict.fromkeys(KEYWORDS, 0.3)

    def test_wrong_usage_is_one_line(self, run, folder):
        for arguments, text in (
            ((), "the following arguments are required: --negatives"),
            (("--negatives", "nowhere"), "nowhere: expected a folder of audio without keywords, got nothing"),
            (("--negatives", folder, "--target-fa", "-1"), "expected a target of 0 or more false accepts per hour"),
            (("--negatives", folder, "--target-fa", "few"), "invalid float value: 'few'"),
        ):
            code, out, err = run(*arguments)
            assert (code, out, err.count("\n")) == (2, "", 1)
            assert text in err

    def test_a_target_that_no_threshold_reaches_writes_no_model(self, run, folder, tmp_path, monkeypatch):
        monkeypatch.setattr(DetCurve, "index_at", lambda curve, target: None if curve.keyword == "alexa" else 0)
        code, out, err = run("--negatives", folder)
        assert (code, out) == (1, "")
        assert err == (
            "streamkws: no threshold up to 1 brings alexa to 0.1 false accepts per hour in this audio, "
            "so no model was written: is it spoken there?\n"
        )
        assert [path.name for path in tmp_path.glob("*.safetensors")] == ["mine.safetensors"]


def test_export_and_calibrate_choose_alike(calibration):
    """thresholds.calibrate, which export calls, takes the same thresholds from an evaluation."""
    curve = DetCurve("go", "clean", 0, 10.0, (0.1, 0.4, 0.6), misses=(0, 0, 0), false_accepts=(9, 1, 0))
    evaluation = Evaluation("m", {}, ("go",), "", 0, ("clean",), {}, 10.0, {}, {"clean": {"go": curve}}, {}, {})
    assert calibrate(evaluation, 0.1) == {"go": 0.4}
    assert calibrate(evaluation, 0.1, lowest=0.5) == {"go": 0.5}
    assert calibrate(evaluation, 0.1, lowest=0.3) == {"go": 0.4}
    assert np.isclose(calibrate(evaluation, 0.09)["go"], 0.6)


def seconds(rng, hours, per_h=400, spread=1.3, height=-6.0):
    """The scores of a negative audio whose peaks are exponential on the logit axis, (n,) float64."""
    scores = np.full(round(hours * 3600), 1e-6)
    places = rng.choice(len(scores) // 2, round(per_h * hours), replace=False) * 2
    scores[places] = 1 / (1 + np.exp(-(height + rng.exponential(spread, len(places)))))
    return scores


def test_a_confident_threshold_keeps_its_promise_in_other_hours():
    """The true rate at the threshold is known: it is above the target as often as the confidence allows."""
    rng, broken = np.random.default_rng(3), {0.5: 0, 0.9: 0}
    for _ in range(400):
        scores = seconds(rng, 3.0)
        for confidence in broken:
            threshold = confident_threshold(scores, 3.0, 0.1, confidence)
            rate = 400 * math.exp(-(math.log(threshold / (1 - threshold)) + 6.0) / 1.3)
            broken[confidence] += rate > 0.1
    assert 0.4 < broken[0.5] / 400 < 0.6
    assert 0.05 < broken[0.9] / 400 < 0.15


def test_one_sound_that_is_nearly_the_keyword_moves_a_confident_threshold_little():
    scores = seconds(np.random.default_rng(4), 3.0)
    before = confident_threshold(scores, 3.0, 0.1, 0.9)
    scores[100:102] = 0.99995, 0.9999  # across two seconds: one sound
    after = confident_threshold(scores, 3.0, 0.1, 0.9)
    assert before < after < 1 - (1 - before) / 5 < 0.99995


def test_without_audio_to_go_by_there_is_no_confidence():
    with pytest.raises(ConfigError, match=r"expected at least 200 s of negative audio for a confidence, got 36 s"):
        confident_threshold(seconds(np.random.default_rng(5), 0.01), 0.01, 0.1, 0.9)
    assert confident_threshold(seconds(np.random.default_rng(5), 3.0), 3.0, 0.0, 0.9) == 1.0
    assert confident_threshold(np.zeros(7200), 2.0, 0.1, 0.9) < 1e-3  # a keyword that nothing resembles


def evaluation_of(scores, false_accepts):
    """An evaluation of an hour and more whose scores and curve are these, by condition."""
    hours = len(scores) / 3600
    thresholds = (*np.linspace(0.05, 0.95, 19).tolist(), 1.0)
    counts = tuple(int(np.sum(false_accepts >= t)) for t in thresholds)
    curve = DetCurve("go", "clean", 0, hours, thresholds, misses=(0,) * 20, false_accepts=counts)
    found = {"clean": {"go": KeywordScores((), tuple(scores))}}
    return Evaluation(
        "m", {}, ("go",), "", 0, ("clean",), {}, hours, {}, {"clean": {"go": curve}}, {}, {}, scores=found
    )


def test_a_confident_threshold_also_holds_where_it_was_set_but_for_one_sound():
    """Sounds that come again and again do not thin out; the line through them once ended below them."""
    again = np.tile([0.9, *[1e-6] * 9], 360)
    assert calibrate(evaluation_of(again, np.full(360, 0.9)), 0.1, 0.9)["go"] >= 0.95
    once = seconds(np.random.default_rng(1), 2.0)
    once[77] = 0.99999
    evaluation = evaluation_of(once, np.append(once[once < 0.9], 0.99999))
    assert calibrate(evaluation, 0.1)["go"] == 1.0  # counted, nothing is above it
    assert calibrate(evaluation, 0.1, 0.9)["go"] == confident_threshold(once, 2.0, 0.1, 0.9) < 1


def test_many_false_accepts_are_counted_and_need_no_confidence():
    scores = seconds(np.random.default_rng(2), 3.0)
    evaluation = evaluation_of(scores, scores)
    counted = calibrate(evaluation, 30.0)["go"]
    assert confident_threshold(scores, 3.0, 30.0, 0.9) == 0.0
    assert calibrate(evaluation, 30.0, 0.9)["go"] <= counted


def test_a_noisy_target_counts_beside_the_clean_one():
    rng = np.random.default_rng(6)
    clean, noisy = seconds(rng, 3.0), seconds(rng, 3.0, spread=2.0)
    curve = DetCurve("go", "clean", 0, 3.0, (0.1, 0.4, 0.6), misses=(0, 0, 0), false_accepts=(0, 0, 0))
    scores = {name: {"go": KeywordScores((), tuple(one))} for name, one in (("clean", clean), ("10 dB", noisy))}
    curves = {name: {"go": curve} for name in scores}
    evaluation = Evaluation("m", {}, ("go",), "", 0, tuple(scores), {}, 3.0, {}, curves, {}, {}, scores=scores)
    alone = calibrate(evaluation, 0.1, 0.9)["go"]
    assert alone == confident_threshold(clean, 3.0, 0.1, 0.9)
    both = calibrate(evaluation, 0.1, 0.9, noisy_targets={"10 dB": 1.0})["go"]
    assert both == confident_threshold(noisy, 3.0, 1.0, 0.9) > alone
    assert calibrate(evaluation, 0.1, 0.9, lowest=0.99999)["go"] == 0.99999
