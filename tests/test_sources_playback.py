"""Playback, on a fake PortAudio."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from conftest import refused
from fake_portaudio import FakePortAudio, installed

from streamkws.sources import Playback, playback


@pytest.fixture
def portaudio(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakePortAudio]:
    yield from installed(monkeypatch)


SAMPLES = np.linspace(-0.5, 0.5, 1000, dtype=np.float32)


def test_samples_are_played_whole(portaudio: FakePortAudio) -> None:
    with Playback(SAMPLES) as playing:
        playing.wait()
        assert playing.is_done
    (stream,) = portaudio.played
    assert stream.closed
    assert stream.samplerate == 16000
    assert np.array_equal(stream.played, np.append(SAMPLES, np.zeros(24)))


def test_an_output_that_refuses_16_khz_gets_its_own_rate(portaudio: FakePortAudio) -> None:
    portaudio.outputs = {48000}
    with Playback((SAMPLES * 32768).astype(np.int16), device="Speakers") as playing:
        playing.wait()
    (stream,) = portaudio.played
    assert stream.samplerate == 48000
    assert 3000 <= len(stream.played) < 3000 + 512


def test_closing_ends_it(portaudio: FakePortAudio) -> None:
    playing = Playback(np.zeros(16000 * 3600, np.int16))
    playing.close()
    assert portaudio.played[0].closed
    assert len(portaudio.played[0].played) < 16000 * 3600


def test_what_fails_is_said(portaudio: FakePortAudio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(playback, "ENDING_S", 0.05)
    assert refused(lambda: Playback(SAMPLES, "x")) == (
        "expected an audio output that fits 'x': No output device matching 'x'"
    )
    portaudio.output_stops = 1
    with Playback(SAMPLES) as playing:
        assert refused(playing.wait) == "Speakers: expected to play 0.1 s, but the output stopped"
    portaudio.output_stalls = True
    with Playback(SAMPLES) as playing:
        assert refused(playing.wait) == "Speakers: expected to play 0.1 s, but the output stalls"
    portaudio.play_error = "busy"
    assert refused(lambda: Playback(SAMPLES)) == "Speakers: cannot be played: busy"
    assert all(stream.closed for stream in portaudio.played)
    portaudio.outputs = set()
    assert refused(lambda: Playback(SAMPLES)) == (
        "Speakers: cannot be opened, neither at 16000 nor at its own 48000 Hz: Invalid sample rate [PaErrorCode -9997]"
    )
    portaudio.has_output = False
    assert refused(lambda: Playback(SAMPLES)) == "expected an audio output: Error querying device -1"


def test_an_output_that_hangs_is_left_behind(portaudio: FakePortAudio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(playback, "ENDING_S", 0.05)
    portaudio.hangs.clear()
    with Playback(SAMPLES) as playing:
        playing.wait()
    portaudio.hangs.set()
