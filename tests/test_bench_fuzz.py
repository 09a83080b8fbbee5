"""bench/robustness/fuzz.py: hostile files are used or refused, and what is lost is told."""

import json
import random

import pytest

from streamkws import ModelFileError


@pytest.fixture
def fuzz(bench_module):
    return bench_module("bench.robustness.fuzz")


@pytest.mark.parametrize("kind", ["models", "recordings"])
def test_no_mutation_is_lost(fuzz, kind, capsys):
    """The short form of the suite: in this process, which a crash would end."""
    fuzz.work(kind, range(1_000_000, 1_000_150))
    outcomes = dict(json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert list(outcomes) == list(range(1_000_000, 1_000_150))
    assert {seed: outcome for seed, outcome in outcomes.items() if outcome not in (fuzz.USED, fuzz.REFUSED)} == {}
    assert {fuzz.USED, fuzz.REFUSED} == set(outcomes.values())  # the mutations are neither too strong nor too weak


def test_a_mutation_depends_on_its_seed_alone(fuzz):
    for kind, (originals, mutate, _, _) in fuzz.KINDS.items():
        content = originals()[0]
        once, again, other = (mutate(random.Random(f"{kind} {seed}"), content) for seed in (1, 1, 2))
        assert once == again != other and once != content


def test_what_is_lost_is_told(fuzz, monkeypatch, tmp_path):
    def broken(path):
        raise RecursionError("one\ntwo")

    monkeypatch.setitem(fuzz.KINDS, "models", (*fuzz.KINDS["models"][:2], broken, ".safetensors"))
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
