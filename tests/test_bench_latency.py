"""What the speed benchmarks make of their measurements, their tables, the talk with peers, and `streamkws bench`."""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import random_model

from streamkws import cli, save_model
from streamkws.evaluation.latency import Timing, as_int16, cut, join, measure

ROOT = Path(__file__).parent.parent
WORKERS = ROOT / "bench" / "peers" / "peer_workers"
BEEPER = f"""
import sys
sys.path.insert(0, {str(WORKERS)!r})
import listen


class Beeper:
    '''Says beep for every block that is loud.'''

    block_samples = 100

    def __init__(self, keywords, level=1000):
        print("an engine may print what it likes")
        self.keywords, self.level = keywords[:1], level
        self.prepare = lambda block: block

    def push(self, block):
        return int(block.max())

    def hits(self, result):
        return [(self.keywords[0], None)] if result > self.level else []

    def reset(self):
        pass


class Broken:
    def __init__(self, keywords):
        raise FileNotFoundError("no model here\\nsecond line")


listen.ENGINES.update(beeper=Beeper, broken=Broken)
listen.main()
"""


@pytest.fixture(autouse=True)
def bench_modules(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.syspath_prepend(str(WORKERS))


@pytest.fixture
def beeper(tmp_path):
    """The path of a worker that has two engines of its own."""
    path = tmp_path / "beeper.py"
    path.write_text(BEEPER)
    return str(path)


def timing(us, block_samples=160, cpu_s=0.0):
    return Timing(np.asarray(us, np.int64) * 1000, cpu_s, block_samples)


class TestTiming:
    def test_typical_counts_light_and_heavy_blocks_alike_and_no_interruptions(self):
        us = np.tile([2, 10], 50)
        us[[7, 30, 31]] = 5000
        assert timing(us).percentile_us(50) in (2, 10)
        assert timing(us).typical_us_per_10ms(period=2) == 6
        assert timing(us, block_samples=320).typical_us_per_10ms(period=2) == 3

    def test_typical_of_less_than_a_period_is_the_mean(self):
        assert timing([1, 2, 6]).typical_us_per_10ms(period=4) == 3

    def test_shares(self):
        one = timing([100] * 100, block_samples=1600, cpu_s=0.02)  # 10 s of audio
        assert one.core_share == pytest.approx(0.002)
        assert one.cpu_us_per_10ms == pytest.approx(20)
        assert one.realtime_factor == pytest.approx(1000)
        assert one.figures()["max_us"] == 100

    def test_join(self):
        both = join([timing([1, 2], cpu_s=0.1), timing([3], cpu_s=0.2)])
        assert both.ns.tolist() == [1000, 2000, 3000]
        assert both.cpu_s == pytest.approx(0.3)

    def test_measure_repeats_the_blocks_and_reads_the_clock_around_each(self):
        seen, now = [], iter(range(1000))
        one = measure(seen.append, ["a", "b"], 160, 5, clock=lambda: next(now) ** 2)
        assert seen == ["a", "b", "a", "b", "a"]
        assert one.ns.tolist() == [1, 5, 9, 13, 17]

    def test_live_waits_for_each_block(self, monkeypatch):
        slept = []
        monkeypatch.setattr("time.sleep", slept.append)
        measure(lambda _: None, [None], 16_000, 3, live=True)
        assert slept == pytest.approx([1, 2, 3], abs=0.5)

    def test_blocks_are_the_recording(self):
        samples = np.array([-32768, -1, 0, 1, 32767], np.int16)
        assert as_int16(samples.astype(np.float32) / 32768).tolist() == samples.tolist()
        assert [block.tolist() for block in cut(samples, 2)] == [[-32768, -1], [0, 1]]


class TestPeers:
    def test_an_engine_is_timed_and_heard_over_its_pipe(self, beeper):
        from bench.peers.peers import Peer

        samples = np.zeros(1050, np.int16)
        samples[250] = 2000
        with Peer("Beeper", "beeper", worker=beeper).start(level=1500) as engine:
            assert (engine.block_samples, engine.keywords) == (100, ["alexa"])
            one, period = engine.time_blocks(samples, 25)
            assert (one.ns.size, one.block_samples, period) == (25, 100, 10)
            assert (one.ns > 0).all()
            one, period = engine.time_blocks(samples, 3, block_samples=50)
            assert (one.block_samples, period) == (50, 21)
            (quiet, loud) = engine.detect([np.zeros(10, np.int16), samples])
            assert quiet == []
            assert loud == [("alexa", 0.01875, None)]  # at the end of the third block
            assert set(engine.memory()) == {"bare_mb", "resident_mb"}

    def test_an_engine_that_does_not_start_is_one_line(self, beeper):
        from bench.peers.peers import Peer, PeerError

        with pytest.raises(PeerError, match=r"^Broken: FileNotFoundError: no model here$"):
            Peer("Broken", "broken", worker=beeper).start()

    def test_a_worker_that_ends_is_one_line(self, tmp_path):
        from bench.peers.peers import PeerError, Worker

        script = tmp_path / "ends.py"
        script.write_text("raise SystemExit(3)")
        worker = Worker("Gone", Path(sys.executable), str(script), None)
        with pytest.raises(PeerError, match=r"^Gone: the worker ended, exit code 3$"):
            worker.ask("open")
        worker.close()

    def test_a_peer_that_cannot_be_installed_is_one_line(self, monkeypatch, tmp_path):
        from bench.peers import peers

        (tmp_path / "peers").touch()  # a file where the folder of environments should be
        monkeypatch.setattr(peers, "ENVIRONMENTS", tmp_path / "peers")
        with pytest.raises(peers.PeerError, match=r"^Some cannot be installed: .*$"):
            peers.Peer("Some", "some", ("some",)).python()

    def test_an_environment_that_is_there_is_used(self, beeper, tmp_path):
        from bench.peers.peers import Peer, PeerError

        python = tmp_path / "python"
        python.symlink_to(sys.executable)
        with Peer("Other", "beeper", worker=beeper, interpreter=str(python)).start() as engine:
            assert engine.keywords == ["alexa"]
        with pytest.raises(PeerError, match=r"^Gone does not start: No such file or directory: .*none$"):
            Peer("Gone", "beeper", worker=beeper, interpreter=str(tmp_path / "none")).start()

    def test_scores_say_a_keyword_once(self):
        from listen import Once

        once = Once(block_samples=8000)  # half a second: two blocks of quiet
        scores = [0.1, 0.6, 0.9, 0.2, 0.7, 0.1, 0.1, 0.8]
        said = [once.hits({"alexa": score}, {"alexa": 0.5}) for score in scores]
        assert said == [[], [("alexa", 0.6)], [], [], [], [], [], [("alexa", 0.8)]]

    def test_layers_agree_with_each_other(self):
        from layers import NumPy

        rng = np.random.default_rng(0)
        first, second = rng.standard_normal((5, 7)), rng.standard_normal((3, 5))
        network = NumPy([first.astype(np.float32), second.astype(np.float32)])
        network.x[:] = rng.standard_normal(7)
        network.call()
        assert network.y() == pytest.approx(second @ np.maximum(first @ network.x, 0), rel=1e-4)


class TestTables:
    def figures(self, engine, typical, **more):
        one = timing([10] * 100, cpu_s=0.001)
        blocks = {"typical_median_us": 10, "typical_p99.9_us": 20}
        memory = {"resident_mb": 100.0, "bare_mb": 30.0}
        named = {"engine": engine, "keywords": ["alexa"], "block_samples": 160, "typical_us_per_10ms": typical}
        return {**named, **one.figures(), **blocks, **memory, **more}

    def test_latency_is_compared_with_the_yardstick(self):
        from bench.speed.latency import table

        live = {"live": {"cpu_us_per_10ms": 55.0}}
        rows = table([self.figures("ours", 5.0, **live), self.figures("theirs", 20.0)], "theirs").splitlines()
        assert "of theirs" in rows[0]
        assert rows[2] == "| ours | 1 | 10 | 5.0 | 0.25 | 10.0 | 55 | 10.0 | 10.0 | 10.0 | 10 | 1.0 | 2.0 | 100 | 70 |"
        assert rows[3].startswith("| theirs | 1 | 10 | 20.0 | 1.00 | 10.0 | - |")

    def test_latency_without_the_yardstick_or_memory(self):
        from bench.speed.latency import table

        unknown = {"resident_mb": None, "bare_mb": None}
        rows = table([self.figures("ours", 5.0, **unknown)], "theirs").splitlines()
        assert "theirs" not in rows[0]
        assert rows[2].endswith("| - | - |")

    def test_two_versions_are_compared_turn_by_turn(self):
        from bench.speed.latency import Case, comparison, measure_cases

        here = Case(None, "ours", 160, rounds=[timing([4, 4]), timing([6, 6])])
        there = Case(None, "ours, there", 160, rounds=[timing([4, 4]), timing([4, 4])])
        row = comparison([(here, there)]).splitlines()[2]
        assert row == "| ours | 10 | 5.00 | 4.00 | 1.250 | 1.000 to 1.500 |"

        order = []

        class Engine:
            def __init__(self, name):
                self.name = name

            def time_blocks(self, *_, **__):
                order.append(self.name)
                return timing([1]), 1

            def memory(self):
                return {}

        list(measure_cases([Case(Engine(name), name, 160) for name in "ab"], np.zeros(160, np.int16), 2, 2, 0.0))
        assert "".join(order) == "ababba"  # warming up, then turns, of which every other goes backwards

    def test_two_models_together(self, model):
        from bench.speed.together import BOTH, ONE, TWO, in_turns, pushes, renamed, table

        called = pushes(model, renamed(model))
        samples = (np.random.default_rng(0).standard_normal(3200) * 3000).astype(np.int16)
        us = in_turns(called, [samples[:1600], samples[1600:]], 1600, 2)
        assert list(us) == [ONE, TWO, BOTH] and min(us.values()) > 0
        both, one = called[BOTH].__self__, called[ONE].__self__
        assert both.heard_s == one.heard_s == 0.4 and len(both.keywords) == 2 * len(one.keywords)
        row = table([{"models": "a + b", "block_samples": 160, ONE: 2.0, TWO: 5.0, BOTH: 3.0}]).splitlines()[2]
        assert row == "| a + b | 10 | 2.00 | 5.00 | 3.00 | 0.60 | 0.50 |"

    def test_latency_is_drawn(self, tmp_path):
        pytest.importorskip("matplotlib")
        from bench.speed.latency import Case, draw

        case = Case(None, "ours", 160, rounds=[timing([5, 6, 7, 500])])
        draw([case], tmp_path / "latency.svg")
        assert "ours, blocks of 10 ms" in (tmp_path / "latency.svg").read_text()

    def test_kernels_are_compared_with_the_best_other(self):
        from bench.speed.kernels import NETWORKS, OWN_ENGINES, python_table

        called = {(engine, network): 2.0 for engine in OWN_ENGINES for network in NETWORKS}
        called |= {(engine, network): us for engine, us in (("numpy", 9.0), ("litert", 4.0)) for network in NETWORKS}
        row = python_table(called).splitlines()[2]
        assert row == "| 128x620 | 9.00 | 4.00 | 2.00 | 2.00 | 2.00 | 2.0 | 2.0 |"

    def test_kernels_alone(self):
        from bench.speed.kernels import NETWORKS, OWN_ENGINES, python_table

        called = {(engine, network): 2.0 for engine in OWN_ENGINES for network in NETWORKS}
        assert python_table(called).splitlines()[2] == "| 128x620 | 2.00 | 2.00 | 2.00 |"

    def test_kernels_against_the_floor(self):
        from bench.speed.kernels import floor_table

        one = {"network": "128x128", "engine": "w8a8", "multiply_us": 0.25, "read_us": 0.5, "floor_us": 0.5}
        row = floor_table([{**one, "given_us": 0.75, "whole_us": 1.0}]).splitlines()[2]
        assert row == "| 128x128 | w8a8 | 0.25 | 0.50 | 0.75 | 1.5 | 1.00 | 2.0 |"

    def test_batches_are_taken_in_turns_and_their_median_shown(self):
        from bench.speed.kernels import in_turns

        calls, us = [], {"a": iter([1e6, 50.0, 50.0, 70.0, 900.0]), "b": iter([1.0] * 5)}
        timed = {key: lambda n, k=key: (calls.append((k, n)), next(us[k]))[1] for key in us}
        assert in_turns(timed, 3) == {"a": 70.0, "b": 1.0}
        assert calls == [*[("a", 20), ("b", 20)] * 2, *[("a", 10), ("b", 500)] * 3]

    def test_error_is_relative(self):
        from bench.speed.kernels import relative_error

        assert relative_error([3.0, 4.0], np.array([3.0, 5.0])) == pytest.approx(1 / np.sqrt(34))

    def test_cold_start(self):
        from bench.speed.cold_start import STAGES, medians, table

        runs = [{name: {"s": 0.1 * (n + 1) * late, "mb": 10.0} for n, name in enumerate(STAGES)} for late in (1, 9, 1)]
        warm = medians(runs)
        numba = {"numpy": {"s": 0.2, "mb": 10.0}, "numba": {"s": 0.5, "mb": 90.0}}
        rows = table({"one": warm, "other": warm}, numba).splitlines()
        assert rows[0] == "| s since the start, and MB resident | one | MB | other | MB |"
        assert rows[2] == "| Python starts | 0.100 | 10 | 0.100 | 10 |"
        assert rows[4] == "| (`import numba` instead) | 0.500 | 90 |  |  |"
        assert rows[-1] == "| `push` until the first detection | 0.600 | 10 | 0.600 | 10 |"

    def test_figures_go_where_they_are_asked_to(self, tmp_path, capsys, monkeypatch):
        from bench.report import publish

        monkeypatch.setattr(sys, "argv", [str(ROOT / "bench" / "some.py"), "--json", "m", "--rounds", "3", "--json=x"])
        file = tmp_path / "figures.json"
        publish(argparse.Namespace(json=str(file), write=False), "some", "table.", [1], ["X: gone"])
        out = capsys.readouterr().out
        assert out.startswith("table. Written by `python bench/some.py --rounds 3 --write` on ")
        assert out.endswith("\n\nLeft out: X: gone.\n")
        assert json.loads(file.read_text())["results"] == [1]
        publish(argparse.Namespace(json="-", write=False), "some", "table.", [1])
        assert json.loads(capsys.readouterr().out)["missing"] == []


class TestBenchCommand:
    @pytest.fixture
    def path(self, model, tmp_path):
        return str(save_model(model, tmp_path / "m.safetensors"))

    def test_lines(self, path, capsys):
        assert cli.main(["bench", "--model", path, "--seconds", "0.05", "--block", "1280"]) == 0
        head, share, block, fast, speed, _ = capsys.readouterr().out.splitlines()
        assert head.startswith("random.w4a8, live, a block of 1280 samples every 80 ms for ")
        assert "listening takes " in share and " % of a core" in share
        assert "us in the median; p99 " in block
        assert fast.startswith("As fast as it goes, ")
        assert " us of a core per 10 ms of audio, " in speed

    def test_several_models(self, path, tmp_path, capsys):
        other = str(save_model(random_model(keywords=("stop",)), tmp_path / "o.safetensors"))
        assert cli.main(["bench", "--model", path, "--model", other, "--seconds", "0.05", "--json"]) == 0
        models = [json.loads(line)["model"] for line in capsys.readouterr().out.splitlines()]
        assert models == ["random.w4a8 + random.f32"] * 2

    def test_json(self, path, capsys):
        assert cli.main(["bench", "--model", path, "--seconds", "0.05", "--json"]) == 0
        live, fast = (json.loads(line) for line in capsys.readouterr().out.splitlines())
        assert (live["pace"], fast["pace"]) == ("live", "fast")
        for figures in (live, fast):
            assert (figures["model"], figures["block_samples"]) == ("random.w4a8", 160)
            assert 0 < figures["median_us"] <= figures["p99_us"] <= figures["p99.9_us"] <= figures["max_us"]
            assert figures["core_share"] == pytest.approx(figures["cpu_us_per_10ms"] / 1e4, rel=0.01)
        assert live["audio_s"] == pytest.approx(0.05)

    @pytest.mark.parametrize(
        ("option", "value", "message"),
        [
            ("--block", "0", "expected a block of 1 to 16000 samples, got 0"),
            ("--block", "16001", "expected a block of 1 to 16000 samples, got 16001"),
            ("--seconds", "0", "expected to measure for more than 0 seconds, got 0"),
            ("--seconds", "inf", "expected to measure for more than 0 seconds, got inf"),
        ],
    )
    def test_wrong_usage(self, path, capsys, option, value, message):
        assert cli.main(["bench", "--model", path, option, value]) == 2
        assert capsys.readouterr().err == f"streamkws: {message}\n"
