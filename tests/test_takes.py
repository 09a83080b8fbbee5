"""TakeCutter, on noise and tones."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamkws import takes
from streamkws.audio import SAMPLE_RATE
from streamkws.takes import Take, TakeCutter, peak_db

F32 = npt.NDArray[np.float32]


def room(seconds: float, level: float = 1e-3, seed: int = 0) -> F32:
    """Noise."""
    return (np.random.default_rng(seed).standard_normal(round(seconds * SAMPLE_RATE)) * level).astype(np.float32)


def word(seconds: float, level: float = 0.2) -> F32:
    """A tone in the room."""
    time_s = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return (level * np.sin(2 * np.pi * 440 * time_s)).astype(np.float32) + room(seconds)


def cut(*pieces: F32) -> tuple[list[Take], TakeCutter]:
    cutter = TakeCutter()
    return cutter.push(np.concatenate(pieces)), cutter


def test_takes_are_cut_with_what_is_around_them() -> None:
    found, cutter = cut(room(2), word(0.7), room(1.5), word(0.4), room(1.5))
    assert [take.fault for take in found] == ["", ""]
    assert [len(take.samples) / SAMPLE_RATE for take in found] == pytest.approx([1.7, 1.4], abs=0.05)
    assert found[0].peak_db == pytest.approx(-14, abs=0.5)
    assert found[0].noise_db == pytest.approx(-60, abs=1)
    assert found[0].speech_db == pytest.approx(-17, abs=0.5)
    loud = np.flatnonzero(np.abs(found[0].samples) > 3000)
    assert loud[0] / SAMPLE_RATE == pytest.approx(0.5, abs=0.025)
    assert not cutter.is_speaking and not cutter.is_measuring


@pytest.mark.parametrize(
    ("pieces", "fault"),
    [
        ((room(1), word(0.7), room(1)), takes.CUT_OFF),
        ((room(2), word(0.7, 1.2).clip(-1, 1), room(1)), takes.CLIPPED),
        ((room(2, 2e-4), word(0.7, 0.005), room(1, 2e-4)), takes.TOO_QUIET),
        ((room(2, 0.02), word(0.7, 0.09), room(1, 0.02)), takes.TOO_NOISY),
        ((room(2), word(4.5), room(1)), takes.TOO_LONG),
    ],
)
def test_faults(pieces: tuple[F32, ...], fault: str) -> None:
    (take,) = cut(*pieces)[0]
    assert take.fault == fault


def test_a_click_is_no_take() -> None:
    found, cutter = cut(room(2), word(0.05), room(2))
    assert found == [] and not cutter.is_speaking
    assert cutter.waited_s > 2.5, "and the wait goes on"


def test_a_pause_within_a_keyword() -> None:
    (take,) = cut(room(2), word(0.3), room(0.6), word(0.3), room(1))[0]
    assert take.fault == "" and len(take.samples) / SAMPLE_RATE == pytest.approx(2.2, abs=0.05)


def test_a_room_that_becomes_louder_is_measured_anew() -> None:
    found, cutter = cut(room(2), room(6, 0.05))
    assert [take.fault for take in found] == [takes.TOO_LONG]
    assert cutter.noise_db == pytest.approx(-26, abs=1)
    assert [take.fault for take in cutter.push(np.concatenate([word(0.6, 0.8), room(1, 0.05)]))] == [""]


def test_a_room_that_becomes_quieter() -> None:
    found, cutter = cut(room(1, 0.05), room(4), word(0.5, 0.02), room(1))
    assert cutter.noise_db == pytest.approx(-60, abs=1)
    assert [take.fault for take in found] == [""]


def test_digital_silence_is_a_room() -> None:
    zeros = np.zeros(2 * SAMPLE_RATE, np.float32)
    (take,) = cut(zeros, word(0.5), zeros)[0]
    assert take.fault == "" and take.noise_db == takes.LOWEST_NOISE_DB


def test_restart_forgets_the_audio_and_keeps_the_room() -> None:
    _, cutter = cut(room(2), word(0.4))
    assert cutter.is_speaking
    cutter.restart()
    assert not cutter.is_speaking and not cutter.is_measuring
    (take,) = cutter.push(np.concatenate([room(0.2), word(0.4), room(1)]))
    assert take.fault == "" and len(take.samples) / SAMPLE_RATE == pytest.approx(0.2 + 0.4 + 0.5, abs=0.05)


def test_memory_is_bounded() -> None:
    cutter = TakeCutter()
    for _ in range(20):
        cutter.push(word(1))
        assert len(cutter._take) * takes.HOP_SAMPLES <= 6 * SAMPLE_RATE


STREAM = np.concatenate([room(1.3), word(0.5), room(1), word(0.05), room(0.9), word(0.4, 1.5), room(1), word(4.2)])


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_chunking(cuts: list[int]) -> None:
    whole, cutter = TakeCutter().push(STREAM), TakeCutter()
    parts = [take for block in np.split(STREAM, sorted(cuts)) for take in cutter.push(block)]
    assert len(whole) == len(parts) == 3
    for one, other in zip(whole, parts, strict=True):
        assert np.array_equal(one.samples, other.samples)
        assert (one.fault, one.noise_db, one.speech_db) == (other.fault, other.noise_db, other.speech_db)


def test_peak_level() -> None:
    assert peak_db(np.array([0, -16384], np.int16)) == pytest.approx(-6.02, abs=0.01)
    assert peak_db(np.zeros(3, np.float32)) == peak_db(np.zeros(0, np.float32)) == takes.SILENCE_DB
