"""bench/robustness/soak.py, in its short form: minutes through one detector, and some clients that die in every way."""

import asyncio

import pytest


@pytest.fixture
def soak(bench_module):
    return bench_module("bench.robustness.soak")


def test_every_round_is_heard_alike(soak):
    life = soak.long_life(0.2)
    assert life["hours"] >= 0.1 and life["detections"] >= 18 and life["grown_kb"] < 20_000


def test_a_round_that_is_heard_otherwise_is_told(soak, monkeypatch):
    real = soak.Detector.push
    counts = []

    def push(detector, samples):
        hits = real(detector, samples)
        counts.extend(hits)
        return hits if len(counts) != 15 else []

    monkeypatch.setattr(soak.Detector, "push", push)
    with pytest.raises(AssertionError, match="in the second round"):
        soak.long_life(0.2)


def test_clients_die_in_every_way_and_none_is_left(soak):
    crowd = asyncio.run(soak.crowd(90))
    assert crowd["clients"] == 90 and min(crowd["by_death"].values()) > 0
