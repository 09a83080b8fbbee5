"""bench/accuracy/accuracy.py: what counts as a peer's detection, the conditions, the tables and the picture."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from streamkws.corpus import Corpus, NegativeFile, Recording
from streamkws.evaluation.curves import DetCurve

ROOT = Path(__file__).parent.parent
WORKERS = ROOT / "bench" / "peers" / "peer_workers"


@pytest.fixture(autouse=True)
def bench_modules(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.syspath_prepend(str(WORKERS))


def recording(keyword, number=0):
    return Recording(Path(), f"{keyword}/{number}", keyword, "")


def material(*recordings, seconds=1.0, negative_s=1800):
    """Recordings of this length, padded, in both conditions, and two negative files."""
    from bench.peers.accuracy_peers import CONDITIONS, Material

    audio = [np.zeros(int((2 + seconds) * 16000), np.int16) for _ in recordings]
    return Material(recordings, dict.fromkeys(CONDITIONS, audio), [np.zeros(negative_s * 16000, np.int16)] * 2)


def point(setting, accepts, clean, noisy):
    from bench.peers.accuracy_peers import Point

    return Point(setting, accepts, {"clean": clean, "10 dB": noisy})


@pytest.fixture
def result():
    """10 recordings of each of two words, 2 hours, three settings."""
    from bench.peers.accuracy_peers import Result

    points = (
        point(0.9, {"alexa": 8, "jarvis": 4}, {"alexa": 0, "jarvis": 1}, {"alexa": 1, "jarvis": 2}),
        point(0.5, {"alexa": 2, "jarvis": 4}, {"alexa": 1, "jarvis": 1}, {"alexa": 2, "jarvis": 3}),
        point(0.1, {"alexa": 0, "jarvis": 0}, {"alexa": 4, "jarvis": 2}, {"alexa": 5, "jarvis": 5}),
    )
    marks = (("sensitivity 0.5", points[1]), ("sensitivity 0.1", points[2]))
    return Result("Theirs", "sensitivity", {"alexa": 10, "jarvis": 10}, 2.0, points, marks)


@pytest.fixture
def single(result):
    """An engine that has one of the words."""
    from bench.peers.accuracy_peers import Result

    one = point(0.5, {"alexa": 1}, {"alexa": 1}, {"alexa": 3})
    return Result("Single", "threshold", {"alexa": 10}, 2.0, (one,), (("threshold 0.5", one),))


class TestDetections:
    def test_thresholds_on_scores_say_what_the_worker_says(self):
        from listen import QUIET_S as WORKERS_QUIET_S
        from listen import Once

        from bench.peers.accuracy_peers import QUIET_S, detections

        assert QUIET_S == WORKERS_QUIET_S
        rng, block_samples = np.random.default_rng(0), 1600
        scores = rng.random((400, 2)).astype(np.float32) ** 8
        scores[rng.random((400, 2)) < 0.3] = np.nan
        for threshold in (0.05, 0.3, 0.9):
            once, expected = Once(block_samples), []
            for n, row in enumerate(scores, start=1):
                known = {name: score for name, score in zip("ab", row, strict=True) if not np.isnan(score)}
                said = once.hits(known, dict.fromkeys("ab", threshold))
                expected += [(name, n * block_samples / 16000, score) for name, score in said]
            assert detections(scores, "ab", threshold, block_samples) == expected
            assert expected

    def test_the_decision_window_is_that_of_the_evaluation(self):
        from bench.peers.accuracy_peers import tally
        from bench.peers.peers import Hit

        at_s = {0.79: 1, 0.81: 0, 1.5: 0, 2.49: 0, 2.51: 1}  # the recording lies between 1 and 2 s
        for heard_s, misses in at_s.items():
            heard = {"clean": [[Hit("alexa", heard_s, None)]], "10 dB": [[Hit("jarvis", 1.5, None)]]}
            found = tally(material(recording("alexa")), ["alexa", "jarvis"], 0.5, heard, [[], []])
            assert found.misses == {"clean": {"alexa": misses, "jarvis": 0}, "10 dB": {"alexa": 1, "jarvis": 0}}

    def test_false_accepts_are_counted_by_keyword(self):
        from bench.peers.accuracy_peers import tally
        from bench.peers.peers import Hit

        negatives = [[Hit("alexa", 1.0, None), Hit("alexa", 9.0, None)], [Hit("jarvis", 1.0, None)]]
        found = tally(material(), ["alexa", "jarvis"], 0.5, {}, negatives)
        assert found.false_accepts == {"alexa": 2, "jarvis": 1}

    def test_an_engine_hears_its_own_keywords_only(self):
        from bench.peers.accuracy_peers import count_recordings, known

        heard = material(recording("alexa"), recording("jarvis"), recording("jarvis", 1))
        assert known(heard, ["jarvis"]) == [1, 2]
        assert count_recordings(heard, ["jarvis", "computer"]) == {"jarvis": 2}
        assert heard.hours == 1

    @pytest.mark.parametrize("scored", [False, True])
    def test_an_engine_is_measured_at_all_its_settings(self, monkeypatch, scored):
        from bench.peers import accuracy_peers
        from bench.peers.peers import Hit

        class Loud:
            """Hears alexa in every recording and thrice in each negative; the last time only at low thresholds."""

            name, block_samples, keywords = "Loud", 16000, ["alexa"]

            def __init__(self, threshold):
                self.threshold = threshold

            def __enter__(self):
                return self

            def __exit__(self, *_):
                pass

            def scores(self, recordings):
                for samples in recordings:
                    values = np.zeros((samples.size // 16000, 1), np.float32)
                    values[1] = 0.8
                    if len(values) > 9:
                        values[[4, 9], 0] = 0.8, 0.4
                    yield values

            def detect(self, recordings):
                for values in self.scores(recordings):
                    above = np.flatnonzero(values[:, 0] >= self.threshold)
                    yield [Hit("alexa", float(n + 1), None) for n in above]

        peer = SimpleNamespace(name="Loud", start=lambda core, threshold=None: Loud(threshold))
        sweep = accuracy_peers.Sweep("threshold", (0.3, 0.5, 0.9), marks=(0.5,), scored=scored)
        monkeypatch.setitem(accuracy_peers.PEERS, "loud", peer)
        monkeypatch.setitem(accuracy_peers.SWEEPS, "loud", sweep)
        heard = material(recording("alexa"), recording("jarvis"))
        found = accuracy_peers.measure("loud", heard, core=None)
        assert [p.false_accepts["alexa"] for p in found.points] == [6, 4, 0]
        assert [p.misses["10 dB"]["alexa"] for p in found.points] == [0, 0, 1]
        assert found.n_recordings == {"alexa": 1}
        assert found.marks == (("threshold 0.5", found.points[1]),)


class TestPeerTables:
    def test_rows(self, result, single):
        from bench.peers.accuracy_peers import table

        rows = table([result, single], ["alexa", "jarvis"]).splitlines()[2:]
        assert rows == [
            "| Theirs | sensitivity 0.5 | 10.0 / 20.0 | 10.0 / 30.0 | 10.0 / 25.0 | 6 | 1.50 |",
            "|  | sensitivity 0.1 | 40.0 / 50.0 | 20.0 / 50.0 | 30.0 / 50.0 | 0 | 0 (<0.75) |",
            "| Single | threshold 0.5 | 10.0 / 30.0 | - | 10.0 / 30.0 | 1 | 0.50 |",
        ]

    def test_report_says_what_it_rests_on(self, result):
        from bench.peers.accuracy_peers import report

        text = report([result], ["Gone: no such file"])
        assert "2.00 h of negative audio" in text
        assert text.endswith("- Left out: Gone: no such file.")
        assert "Left out" not in report([result], [])

    def test_a_curve_moves_all_keywords_together(self, result, single):
        from bench.peers.accuracy_peers import det_curve

        both = det_curve(result, ["alexa", "jarvis"], "clean")
        assert np.array(both) == pytest.approx(np.array([(0.0, 0.3), (1.5, 0.1), (3.0, 0.05)]))
        assert det_curve(result, ["jarvis"], "clean") == [(0.0, 0.2), (2.0, 0.1)]  # the same rate at two settings
        assert det_curve(single, ["alexa"], "10 dB") == [(0.5, 0.3)]
        merged = point(0.95, {"alexa": 10, "jarvis": 4}, {"alexa": 3, "jarvis": 1}, {"alexa": 3, "jarvis": 1})
        more = replace(result, points=(merged, *result.points))
        assert det_curve(more, ["alexa"], "clean") == [(0.0, 0.4), (1.0, 0.1), (4.0, 0.0), (5.0, 0.0)]

    def test_streamkws_is_told_as_its_evaluation_counts(self):
        from bench.peers.accuracy_peers import own_result

        def curves(misses):
            accepts = {"alexa": (3, 1, 0), "jarvis": (2, 0, 0)}
            return {
                k: DetCurve(k, "any", n, 2.0, (0.2, 0.5, 0.9), misses, accepts.get(k, (0, 0, 0)))
                for k, n in (("alexa", 10), ("jarvis", 10), ("computer", 0))
            }

        shipped = {k: SimpleNamespace(threshold=0.5) for k in ("alexa", "jarvis", "computer")}
        evaluation = SimpleNamespace(
            model="ours", hours=2.0, at_own_thresholds=shipped, n_recordings={"alexa": 10, "jarvis": 10, "computer": 0},
            curves={"clean": curves((0, 1, 4)), "10 dB": curves((1, 2, 5))},
        )  # fmt: skip
        own = own_result(evaluation)
        assert own.n_recordings == {"alexa": 10, "jarvis": 10}
        labels = dict(own.marks)
        assert labels["own thresholds"] in own.points
        assert labels["own thresholds"].false_accepts == {"alexa": 1, "jarvis": 0}
        assert [own.points[n].false_accepts["alexa"] for n in (0, -1)] == [3, 0]
        lowest = labels["lowest without a false accept"]
        assert lowest.false_accepts == {"alexa": 0, "jarvis": 0}
        assert lowest.misses == {"clean": {"alexa": 4, "jarvis": 1}, "10 dB": {"alexa": 5, "jarvis": 2}}

    def test_curves_are_drawn(self, result, single, tmp_path):
        pytest.importorskip("matplotlib")
        from bench.peers.accuracy_peers import draw

        draw([result, single], tmp_path / "peers.svg")
        text = (tmp_path / "peers.svg").read_text()
        for name in ("Theirs", "Single", "mean of 2 keywords", "alexa", "with noise at 10 dB"):
            assert f">{name}<" in text
        draw([result], tmp_path / "again.svg")
        assert ">alexa<" not in (tmp_path / "again.svg").read_text()  # the mean of the two says it


class TestConditions:
    def corpus(self, tmp_path, labels):
        file = NegativeFile(Path(), "hum_noise/0.wav", "hum_noise", ((0, 1),) * len(labels), labels)
        talk = NegativeFile(Path(), "talk/0.wav", "talk", ((0, 1),), ("rain",))
        return Corpus(tmp_path, (), (talk, file) if labels else (talk,))

    def test_noise_is_sorted_into_kinds(self, tmp_path):
        from bench.accuracy.accuracy_conditions import noise_kinds

        found = noise_kinds(self.corpus(tmp_path, ("rooster", "rain", "", "running_tap", "gong", "rain")))
        assert found == {"water": ("rain", "running_tap"), "creatures": ("rooster",), "other noise": ("gong",)}

    def test_conditions_are_those_that_the_corpus_can_make(self, tmp_path):
        from bench.accuracy.accuracy_conditions import conditions_of

        assert [one.name for one in conditions_of(self.corpus(tmp_path, ()))] == ["clean"]
        (tmp_path / "impulse_responses").mkdir()
        soundfile.write(tmp_path / "impulse_responses" / "hall.wav", np.ones(9), 16000)
        found = conditions_of(self.corpus(tmp_path, ("rain",)))
        names = ["clean", "10 dB", "10 dB water", "5 dB", "5 dB water", "in a room", "in a room, 10 dB"]
        assert [one.name for one in found] == names
        assert (found[4].snr_db, found[4].noise, found[4].in_room) == (5.0, ("rain",), False)
        assert (found[6].snr_db, found[6].noise, found[6].in_room) == (10.0, (), True)

    def test_targets_that_the_hours_do_not_resolve_are_left_out(self):
        from bench.accuracy.accuracy_conditions import thresholds_of

        def evaluation(hours):
            curve = DetCurve("alexa", "clean", 5, hours, (0.2, 0.5, 0.9), (0, 1, 2), (4, 1, 0))
            loud = DetCurve("jarvis", "clean", 5, hours, (0.2, 0.5, 0.9), (0, 1, 2), (90, 9, 9))
            shipped = {k: SimpleNamespace(threshold=0.7) for k in ("alexa", "jarvis", "computer")}
            silent = DetCurve("computer", "clean", 0, hours, (0.2,), (0,), (0,))
            return SimpleNamespace(
                hours=hours, curves={"clean": {"alexa": curve, "jarvis": loud, "computer": silent}},
                at_own_thresholds=shipped, n_recordings={"alexa": 5, "jarvis": 5, "computer": 0},
            )  # fmt: skip

        assert thresholds_of(evaluation(1.5)) == {
            "no false accept in 1.50 h": {"alexa": 0.9},  # no threshold does it for jarvis
            "at most 1 FA/h": {"alexa": 0.5},
            "own thresholds": {"alexa": 0.7, "jarvis": 0.7},
        }
        assert thresholds_of(evaluation(8.0))["at most 0.5 FA/h"] == {"alexa": 0.2}

    def test_report(self):
        from bench.accuracy.accuracy_conditions import Point, Result, report, to_json

        misses = [[{"alexa": 1, "jarvis": 0}, {"alexa": 2, "jarvis": 1}], [{"alexa": 0, "jarvis": 0}] * 2]
        noise = {"water": ("rain", "running_tap")}
        names = ["m.f32", "m.w4a8"], ["clean", "10 dB water"]
        result = Result(*names, noise, {"alexa": 10, "jarvis": 5}, 2.0, [Point("own thresholds", misses)])
        text = report(result)
        assert text.startswith("Miss, %, m.f32 / m.w4a8; own thresholds:\n")
        assert "| 10 dB water | 20.0 / 0.0 | 20.0 / 0.0 | 20.0 / 0.0 |" in text
        assert "- Noise: water: rain, running tap." in text
        assert "One recording is 10.0 to 20.0 % of a keyword." in text
        (told,) = json.loads(json.dumps(to_json(result)))["points"]
        assert told["misses"]["m.f32"]["10 dB water"] == {"alexa": 2, "jarvis": 1}


class TestCommand:
    @pytest.mark.parametrize(("given", "names"), [([], 0), (["--peers"], 4), (["--peers", "porcupine"], 1)])
    def test_peers_are_named_or_all(self, monkeypatch, given, names):
        from bench.accuracy.accuracy import parse_arguments

        monkeypatch.setattr("sys.argv", ["accuracy.py", "--corpus", "dev", *given])
        assert len(parse_arguments().peers) == names

    def test_an_unknown_peer_is_wrong_usage(self, monkeypatch, capsys):
        from bench.accuracy.accuracy import parse_arguments

        monkeypatch.setattr("sys.argv", ["accuracy.py", "--corpus", "dev", "--peers", "snowboy"])
        with pytest.raises(SystemExit):
            parse_arguments()
        assert "no such peer: snowboy; there are porcupine, " in capsys.readouterr().err

    def test_other_models_than_those_held_out(self, tmp_path):
        from bench.models import WIDTHS, load_widths

        models = load_widths(ROOT / "models" / "wakewords")
        assert [model.config.bits for model in models] == list(WIDTHS)
        with pytest.raises(SystemExit, match=r"other\.f32\.safetensors"):
            load_widths(tmp_path / "other")

    def test_the_held_out_models_are_the_shipped_network(self):
        from bench.models import load_widths

        for held_out, model in zip(load_widths(), load_widths(ROOT / "models" / "wakewords"), strict=True):
            assert (held_out.keywords, held_out.n_parameters) == (model.keywords, model.n_parameters)
            assert (held_out.config.smoother, held_out.config.bits) == (model.config.smoother, model.config.bits)
            assert held_out.name.startswith("wakewords-held-out.") and held_out.thresholds != model.thresholds

    def test_a_peer_that_does_not_run_is_told(self, monkeypatch, capsys):
        from bench.accuracy import accuracy
        from bench.peers.peers import PeerError

        def gone(*_):
            raise PeerError("Gone: no such file")

        monkeypatch.setattr(accuracy.accuracy_peers, "measure", gone)
        monkeypatch.setattr(accuracy.accuracy_peers.Material, "read", lambda corpus: None)
        assert accuracy.measure_peers(["porcupine"], None, None) == ([], ["Gone: no such file"])
        assert capsys.readouterr().err == "Gone: no such file\n"

    def test_peers_that_were_not_asked_for_stay(self, monkeypatch, tmp_path):
        from bench.accuracy import accuracy

        monkeypatch.setattr(accuracy, "FIGURES", tmp_path / "accuracy.json")
        monkeypatch.setattr("bench.report.README", tmp_path / "README.md")
        (tmp_path / "accuracy.json").write_text('{"date": "old", "peers": [1]}')
        (tmp_path / "README.md").write_text("a\n<!-- accuracy -->\nold\n<!-- /accuracy -->\nb\n")
        accuracy.write("dev", [], [], {"accuracy": "new"}, {"date": "today", "machine": "m", "models": []})
        assert json.loads((tmp_path / "accuracy.json").read_text()) == {
            "date": "today", "machine": "m", "models": [], "peers": [1],
        }  # fmt: skip
        command = "python bench/accuracy/accuracy.py --corpus <corpus>/dev --write"
        assert (tmp_path / "README.md").read_text() == (
            f"a\n<!-- accuracy -->\nnew\n\nWritten by `{command}` on today (m).\n<!-- /accuracy -->\nb\n"
        )
