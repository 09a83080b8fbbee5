"""bench/accuracy/elsewhere.py: intervals, thresholds for few false accepts, sets left out, and cuts at the word."""

import numpy as np
import pytest
from toy_corpus import ToyModel, write, write_corpus

from streamkws.corpus import read_corpus
from streamkws.evaluation.scoring import score_corpus
from streamkws.training.recordings import Clip


@pytest.fixture
def elsewhere(bench_module):
    return bench_module("bench.accuracy.elsewhere")


@pytest.fixture
def judged(elsewhere, tmp_path):
    model = ToyModel()
    scored = score_corpus([model], read_corpus(write_corpus(tmp_path), model.keywords), (None,))
    return elsewhere.Judged(model, scored, [scored.scores[0][0]] * 3)


@pytest.mark.parametrize(
    ("n", "low", "high"), [(0, 0.0, 3.689), (1, 0.0253, 5.572), (5, 1.623, 11.668), (40, 28.58, 54.47)]
)
def test_the_interval_of_a_count_is_that_of_the_tables(elsewhere, n, low, high):
    assert elsewhere.rate_interval(n, 1.0) == pytest.approx((low, high), rel=1e-3, abs=1e-6)
    assert elsewhere.rate_interval(n, 2.0) == pytest.approx((low / 2, high / 2), rel=1e-3, abs=1e-6)


def test_the_mean_counts_keywords_alike_and_the_interval_is_of_speakers(elsewhere):
    rows = [("go", "a", True)] * 5 + [("go", "b", False)] * 15 + [("stop", "a", False)] * 4 + [("stop", "b", False)]
    mean, low, high = elsewhere.mean_miss(rows)
    assert mean == pytest.approx(0.125)  # 5 of 20, and none of 5
    assert (low, high) == (0.0, 0.5)  # both times speaker b, both times speaker a
    alone = elsewhere.mean_miss([("go", "a", False)] * 9)
    assert alone == (0.0, 0.0, 0.0)


def test_false_accepts_are_counted_by_set_and_keyword(judged):
    assert judged.false_accepts({"go": 0.5, "stop now": 0.1}) == {
        "talk": {"go": 1, "stop now": 1},
        "more": {"go": 2, "stop now": 0},
    }
    assert judged.false_accepts({"go": 0.6, "stop now": 0.6})["more"] == {"go": 1, "stop now": 0}


def test_misses_are_those_of_each_keyword_at_its_threshold(judged):
    rows = judged.misses({"go": 0.5, "stop now": 0.5}, judged.conditions[0])
    assert [row for row in rows if row[0] == "go"][:3] == [("go", "a", False), ("go", "a", False), ("go", "b", True)]
    assert [(speaker, missed) for keyword, speaker, missed in rows if keyword == "stop now"] == [
        ("a", False),
        ("c", True),
    ]


def test_few_false_accepts_are_few_and_the_thresholds_the_lowest(elsewhere, judged):
    hours = judged.scored.hours * 2
    for allowed in (0, 1, 2):
        thresholds = elsewhere.few_false_accepts(judged, (allowed + 0.01) / hours)
        found = judged.false_accepts(thresholds)
        assert sum(sum(counts.values()) for counts in found.values()) <= allowed
    none = elsewhere.few_false_accepts(judged, 0.0)
    assert none == pytest.approx({"go": 0.8, "stop now": 0.2}, abs=0.02)


def test_a_set_left_out_sets_no_threshold(elsewhere, tmp_path):
    rng = np.random.default_rng(1)

    def seconds(n):
        return [part for _ in range(n) for part in ((float(0.02 + 0.4 * rng.beta(1, 6)), 3), (0.0, 97))]

    for name, more in (("kind", []), ("wild", [(0.97, 3), (0.0, 97)] * 6)):
        write(tmp_path / name / "0.wav", *seconds(100), *more)
    write(tmp_path / "wakewords" / "go" / "a_0.wav", (0, 20), (0.9, 5), (0, 20))
    model = ToyModel()
    scored = score_corpus([model], read_corpus(tmp_path, model.keywords), (None,))
    rows = elsewhere.left_out_sets(elsewhere.Judged(model, scored, [scored.scores[0][0]] * 3))
    found = {row["set"]: row["false_accepts"] for row in rows}
    assert found == {"kind": 0, "wild": 6}


def test_recordings_are_cut_at_their_word(elsewhere):
    samples = np.arange(1, 32001, dtype=np.int16)
    clip = Clip(samples, 0, "a", 8000, 16000)
    cuts = {name: make(clip) for name, make in elsewhere.EDGES.items()}
    begins, ends, both = (cuts[name] for name in list(cuts)[1:4])
    assert begins[0] == 8000 - 320 + 1 and not begins[-8000:].any()
    assert ends[0] == 1 and ends[-1] == 16000 - 400
    assert (both[0], both[-1]) == (8000 - 320 + 1, 16000 + 800)
    quiet = [int(np.abs(cuts[name]).max()) for name in list(cuts)[4:]]
    assert quiet == [328, 104, 33]
    first, second = (make(clip) for make in elsewhere.HALVES.values())
    assert (first[8000], first[-8001]) == (8000 - 1600 + 1, 12000)
    assert (second[8000], second[-8001]) == (12001, 17600)
