"""Folds keep speakers together, and the tables of bench/accuracy/crossval.py say what its results hold."""

import json
import math

import numpy as np
import pytest
from synthetic_corpus import KEYWORDS, write_part

from streamkws.training.data import DataConfig
from streamkws.training.fake_quant import QuantizationConfig


@pytest.fixture
def bench(bench_module):
    return bench_module("bench.accuracy.crossval")


@pytest.fixture
def tables(bench_module):
    return bench_module("bench.accuracy.crossval_report")


def test_speakers_are_dealt_evenly_and_the_same_each_time(bench):
    rng = np.random.default_rng(0)
    counts = {str(speaker): rng.integers(0, 12, 3).tolist() for speaker in range(40)}
    folds = bench.deal(counts, 4)
    assert set(folds) == set(counts) and set(folds.values()) == {0, 1, 2, 3}
    sizes = [np.sum([counts[name] for name in counts if folds[name] == fold], axis=0) for fold in range(4)]
    assert np.ptp(sizes, axis=0).max() <= 0.1 * np.sum(sizes, axis=0).max()
    assert bench.deal(dict(reversed(counts.items())), 4) == folds


def test_an_example_has_keywords_of_its_own_fold_only(bench, tmp_path):
    write_part(tmp_path / "train", 1)
    write_part(tmp_path / "dev", 2)
    takes, clips = bench.read_takes(tmp_path, KEYWORDS, 2)
    assert len(takes) == len(clips) == 16
    assert {take.recording.path.stem.split("_")[0] for take in takes} == {"000", "001", "p001"}
    for take, clip in zip(takes, clips, strict=True):
        assert take.keyword == clip.keyword == KEYWORDS.index(take.recording.keyword)
        assert all(take.fold == other.fold for other in takes if other.speaker == take.speaker)
    data = DataConfig(negatives={"speech": 1.0}, impulse_responses="rooms")
    frontend = bench.FrontEndConfig(n_mels=20, window="hann", energy_floor=1e-9)
    maker = bench.FoldMaker(takes, clips, 2, tmp_path / "train", KEYWORDS, data, bench.AugmentConfig(), frontend, 1)
    speakers = {
        fold: {clip.speaker for groups in maker.by_fold[fold] for group in groups for clip in group} for fold in (0, 1)
    }
    assert not speakers[0] & speakers[1] and speakers[0] | speakers[1] == {"000", "001", "p0"}
    maker.make(3)
    assert maker.by_speaker is maker.by_fold[1]


def result(fold, takes):
    keywords = {
        name: {
            "thresholds": np.linspace(0.9, 0.2, 15).tolist(),
            "false_accepts": {"clean": 0, "10 dB": fold, "5 dB": 2},
        }
        for name in ("a", "b")
    }
    return {"variant": "v", "bits": "w4a8", "fold": fold, "hours": 2.0, "keywords": keywords, "takes": takes}


@pytest.fixture
def results():
    return [
        result(0, [["1", "x", "a", [0.95, 0.95, 0.5]], ["2", "x", "a", [0.87, 0.1, 0.1]]]),
        result(1, [["3", "y", "b", [0.95, 0.92, 0.89]], ["4", "p0", "b", [0.1, 0.1, 0.1]]]),
    ]


def test_misses_are_pooled_over_folds_and_averaged_over_keywords(tables, results):
    pool = tables.Pool.of(results)
    assert pool.names == ["1", "2", "3"]  # the fourth has no labelled speaker
    np.testing.assert_allclose(pool.mean(pool.missed), [0.25, 0.25, 1.0])
    np.testing.assert_allclose(pool.by_speaker(pool.missed), [0.25, 0.25, 1.0])
    assert pool.false_accepts == {"clean": 0, "10 dB": 2, "5 dB": 8}
    assert tables.Pool.of(results, labelled=False).missed.tolist() == [[1, 1, 1]]
    assert (pool.spread(pool.missed)[:2] > 0).all()


def test_a_common_threshold_counts_the_false_accepts_of_all_networks(tables, results):
    # 0.5 per hour in two times 2 h: two in all
    results[0]["keywords"]["a"]["thresholds"] = [0.99, 0.98, 0.5, *[0.1] * 12]
    results[1]["keywords"]["a"]["thresholds"] = [0.7, 0.6, *[0.1] * 13]
    common = tables.common_thresholds(results)
    assert common["a"] == 0.7  # at 0.6 there would be two and one
    assert common["b"] == pytest.approx(0.85)
    assert tables.Pool.of(results).common[:, 0].tolist() == [0, 0, 0]


def test_the_area_is_the_part_of_the_axis_where_a_take_is_missed(tables, results):
    weights = tables.area_weights(2.0)
    assert weights[0] == pytest.approx(math.log(0.5 / 0.1) / math.log(100))  # up to one false accept in two hours
    assert weights[1] == pytest.approx(math.log(2) / math.log(100))
    pool = tables.Pool.of(results)
    assert pool.area[0].tolist() == pytest.approx([0, 0, weights[:8].sum()])
    assert pool.area[1, 0] == pytest.approx(weights[0])
    assert pool.area[1, 1] == pytest.approx(weights.sum())


def test_the_report_compares_with_the_first_variant(tables, results):
    better = [{**one, "variant": "w", "takes": [[*take[:3], [0.99] * 3] for take in one["takes"]]} for one in results]
    text = tables.report([*results, *better], ["v", "w", "not done"], 2, False)
    assert "| v | w4a8 | 25.0 ±" in text and "| w | w4a8 | 0.0 ± 0.0" in text
    assert "| x (2) | 1 | 0 |" in text
    assert "1 clips without a speaker label" in text and "v 1, w 0." in text
    figures = json.loads(tables.report(results, ["v"], 2, True))
    assert figures[0]["conditions"]["clean"]["keywords"] == {"a": 0.5, "b": 0.0}
    assert tables.report(results[:1], ["v"], 2, False) == "nothing has been done in all folds"


def test_variants_have_names_of_their_own_and_members_that_exist(bench):
    names = [variant.name for variant in bench.VARIANTS]
    assert len(set(names)) == len(names)
    for variant in bench.VARIANTS:
        for named in (variant.members, variant.ensemble, (variant.start_from,) if variant.start_from else ()):
            assert [name for name in names if name in named] == list(named)


def test_what_a_variant_learns_from_is_trained_first(bench, monkeypatch, tmp_path):
    trained = []

    def train(self, job):
        for names in (job.variant.ensemble, (job.variant.start_from,)):
            self.load_all(job, names)
        trained.append(job.variant.name)
        job.checkpoint.touch()

    monkeypatch.setattr(bench.Bench, "train", train)
    monkeypatch.setattr(bench.Bench, "load", lambda self, job: job.variant.name)
    own = bench.Bench.__new__(bench.Bench)
    twice = next(one for one in bench.VARIANTS if one.name == "distilled-twice")
    job = bench.Job(twice, 2, tmp_path)
    assert own.load_all(job, twice.ensemble) == list(twice.ensemble)
    assert trained == ["baseline", "baseline-seed2", "before", "distilled"]
    assert own.load_all(job, twice.ensemble) == list(twice.ensemble) and len(trained) == 4


RECIPE = """
name = "chirps"
[model]
keywords = ["go up", "down"]
layers = [{ outputs = 8, taps = 5 }]
[data]
impulse_responses = "rooms"
noise = ["hiss_noise"]
auxiliary = ["words"]
negatives = { speech = 1, words = 1, hiss_noise = 0.3 }
[training]
batch = 8
hard_share = 0.5
"""


@pytest.fixture
def call(monkeypatch, tmp_path):
    """The command line, in a folder with a corpus and a recipe."""
    for seed, part in ((1, "train"), (2, "dev")):
        write_part(tmp_path / part, seed)
        (tmp_path / part / "hiss").rename(tmp_path / part / "hiss_noise")
    (tmp_path / "chirps.toml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    return ["crossval.py", "--corpus", ".", "--recipe", "chirps.toml", "--folds", "2", "--steps", "5"]


def test_all_folds_are_trained_judged_and_pooled_once(bench, call, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(bench, "N_EXAMPLES", 64)
    monkeypatch.setattr(bench.cached_training, "SAVE_STEPS", 3)
    for network in ("proxy", "recipe"):
        monkeypatch.setattr("sys.argv", [*call, "--network", network, "--only", "baseline"])
        bench.main()
        assert "| baseline | w4a8 |" in capsys.readouterr().out
        (folder,) = (tmp_path / "runs" / "crossval").glob(f"chirps-{network}-*")
        assert sorted(path.name for path in folder.iterdir()) == [
            f"baseline-fold{fold}.{end}" for fold in (0, 1) for end in ("f32.json", "log", "pt", "w4a8.json")
        ]
    results = [json.loads((folder / f"baseline-fold{fold}.f32.json").read_text()) for fold in (0, 1)]
    names = [take[0] for one in results for take in one["takes"]]
    assert len(names) == len(set(names)) == 16  # every recording once
    assert not {take[1] for take in results[0]["takes"]} & {take[1] for take in results[1]["takes"]}
    monkeypatch.setattr(bench.Bench, "train", None)  # nothing is left to be done
    bench.main()
    monkeypatch.setattr("sys.argv", [*call, "--only", "basline"])
    with pytest.raises(SystemExit, match=r"crossval.py: no such variant: basline; there are baseline, "):
        bench.main()


def test_a_variant_learns_quantization_aware_from_an_ensemble_on_examples_of_its_own(
    bench, call, monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(bench, "N_EXAMPLES", 32)
    aware = bench.Variant(
        "aware",
        training={"steps": 3, "learning_rate": 1e-3},
        ensemble=("baseline",),
        start_from="baseline",
        quantization=QuantizationConfig(weights=4, activations=8, freeze_share=0.0),
        examples=64,
    )
    monkeypatch.setattr(bench, "VARIANTS", (bench.Variant("baseline"), aware))
    for network in ("proxy", "recipe"):
        monkeypatch.setattr("sys.argv", [*call, "--network", network, "--only", "aware"])
        bench.main()
        out = capsys.readouterr().out
        assert "| aware | w4a8 |" in out and "f32" not in out
        (folder,) = (tmp_path / "runs" / "crossval").glob(f"chirps-{network}-*")
        trained = [bench.torch.load(folder / f"{name}-fold0.pt")["state"] for name in ("baseline", "aware")]
        assert trained[0].keys() == trained[1].keys()
        statistics = [name for name in trained[0] if name.endswith("running_mean")]
        assert statistics and all(bench.torch.equal(trained[0][name], trained[1][name]) for name in statistics)
        assert not any(bench.torch.equal(trained[0][name], trained[1][name]) for name in trained[0] if "conv.w" in name)
    examples = (tmp_path / "runs" / "crossval").glob("examples-*/done.json")
    assert sorted(json.loads(path.read_text())["examples"] for path in examples) == [32, 64]
    kept = sorted((tmp_path / "runs" / "crossval").glob("examples-*/posteriors-*.pt"))
    assert len(kept) == 4 and {tuple(bench.torch.load(path)["posteriors"].shape) for path in kept} == {(32, 208, 2)}
