"""bench/robustness/fuzz.py: hostile files are used or refused, and what is lost is told."""

import json
import random
from contextlib import nullcontext

import pytest

from streamkws import ModelFileError


@pytest.fixture
def fuzz(bench_module):
    return bench_module("bench.robustness.fuzz")


@pytest.mark.parametrize("kind", ["models", "recordings", "talks"])
def test_no_mutation_is_lost(fuzz, kind, capsys):
    """The short form of the suite: in this process, which a crash would end."""
    fuzz.work(kind, range(1_000_000, 1_000_150))
    outcomes = dict(json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert list(outcomes) == list(range(1_000_000, 1_000_150))
    assert {seed: outcome for seed, outcome in outcomes.items() if outcome not in (fuzz.USED, fuzz.REFUSED)} == {}
    assert {fuzz.USED, fuzz.REFUSED} == set(outcomes.values())  # the mutations are neither too strong nor too weak


def test_a_mutation_depends_on_its_seed_alone(fuzz):
    for name, kind in fuzz.KINDS.items():
        content = kind.originals()[0]
        once, again, other = (kind.mutate(random.Random(f"{name} {seed}"), content) for seed in (1, 1, 2))
        assert once == again != other and once != content


def test_a_value_that_is_put_in_is_a_copy(bench_module):
    """A change inside a value reached the list of values, and all later mutations of the process."""
    mutations = bench_module("bench.robustness.mutations")
    values, tree = repr(mutations.VALUES), {"a": [0, 1]}
    for value in mutations.VALUES:
        mutations.put(tree, ("a",), value)
        for path in list(mutations.places(tree))[:-1]:
            mutations.put(tree, path, tree)
    assert repr(mutations.VALUES) == values
    json.dumps(tree)


def test_what_is_lost_is_told(fuzz, monkeypatch, tmp_path):
    def broken(path):
        raise RecursionError("one\ntwo")

    monkeypatch.setitem(fuzz.KINDS, "models", fuzz.KINDS["models"]._replace(hearing=lambda: nullcontext(broken)))
    told = []
    monkeypatch.setattr("builtins.print", lambda *values, **options: told.append(values[0]))
    fuzz.work("models", range(3, 5))
    assert [json.loads(line) for line in told] == [[3, "RecursionError: one two"], [4, "RecursionError: one two"]]

    monkeypatch.setattr(fuzz, "load_model", lambda path: (_ for _ in ()).throw(ModelFileError("one\ntwo")))
    assert fuzz.try_model(tmp_path / "m").startswith("an error of several lines")


def test_a_process_that_ends_loses_one_mutation(fuzz, monkeypatch):
    class Done:
        returncode, stderr = -11, "Segmentation fault"

        def __init__(self, first, stop):
            self.stdout = "".join(f'[{seed}, "used"]\n' for seed in range(first, min(stop, 7)))
            if first > 7:
                self.stdout, self.returncode = "".join(f'[{seed}, "used"]\n' for seed in range(first, stop)), 0

    monkeypatch.setattr(fuzz.subprocess, "run", lambda command, **_: Done(int(command[-2]), int(command[-1])))
    outcomes = fuzz.in_a_process("models", range(4, 12))
    assert list(outcomes) == list(range(4, 12))
    assert [seed for seed, outcome in outcomes.items() if outcome != "used"] == [7]
    assert "ended with -11" in outcomes[7]


def test_a_run_goes_on_where_it_was_ended(fuzz, monkeypatch, tmp_path):
    tried = []

    def attempt(kind, seeds):
        tried.append((kind, seeds))
        return dict.fromkeys(seeds, fuzz.USED) | {seeds.start: fuzz.REFUSED, seeds.stop - 1: "it fell over"}

    monkeypatch.setattr(fuzz, "in_a_process", attempt)
    path = tmp_path / "runs" / "fuzz.jsonl"
    first = fuzz.try_batch("models", fuzz.Log(path), range(0, 10))
    assert first == {
        "kind": "models", "first": 0, "stop": 10, "used": 8, "refused": 1, "lost": {"9": "it fell over"},
    }  # fmt: skip
    path.write_text(path.read_text() + '{"kind": "mod')  # the run is ended while it writes
    again = fuzz.Log(path)
    assert fuzz.try_batch("models", again, range(0, 10)) == first and len(tried) == 1
    for kind, seeds in (("talks", range(0, 10)), ("models", range(10, 20))):
        assert fuzz.try_batch(kind, again, seeds)["used"] == 8
    assert tried[1:] == [("talks", range(0, 10)), ("models", range(10, 20))]


class TestTalks:
    @pytest.fixture
    def judged(self, bench_module):
        """What answers are judged to be."""
        module = bench_module("bench.robustness.talks")
        talks = object.__new__(module.Talks)
        talks._used, talks._refused = "used", "refused"
        return talks._judged

    def test_answers_are_looked_at(self, judged):
        error = b'{"type": "error", "data": {"text": "expected a, got b", "code": "bad"}}\n'
        assert judged(b"") == "used" and judged(b'{"type": "pong", "data_length": 2}\n{}') == "used"
        assert judged(b'{"type": "not-detected"}\n' + error) == "refused"
        assert judged(error + error).startswith("answers that do not end as they should")
        assert judged(error.replace(b"got b", b"got\\n")).startswith("an error that is no clear line")
        assert judged(b'{"type": "hello"}\n') == "an answer of type 'hello'"
        assert judged(b'{"type": "pong", "data_length": 9}\n{}'[:-1] + b"}").startswith("answers that do not end")

    def test_a_whole_talk_is_heard_and_trouble_is_told(self, bench_module, monkeypatch):
        module = bench_module("bench.robustness.talks")
        with module.Talks("used", "refused") as talks:
            for content in module.talks():
                talk = [(header, bytes.fromhex(payload)) for header, payload in json.loads(content)]
                assert talks.attempt(module.packed(talk, False)) == talks.attempt(module.packed(talk, True)) == "used"
            assert talks.attempt(b"nonsense\n") == "refused"
            monkeypatch.setattr("streamkws.server.client.get_text", lambda *_: 1 / 0)
            assert "ended by a bug in the server" in talks.attempt(b'{"type": "ping"}\n')
