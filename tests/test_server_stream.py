"""server.stream: formats, and the client's clock."""

from __future__ import annotations

import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from tones import RATE, pcm, tones, tones_model
from wyoming.audio import AudioStart, AudioStop
from wyoming.client import AsyncClient
from wyoming.event import Event
from wyoming_talk import (
    HIGH,
    LOW,
    answers,
    chunks,
    conversation,
    heard,
    peaks,
    say,
)

from streamkws import Model, detect
from streamkws.model_set import ModelSet
from streamkws.server import ServerConfig
from streamkws.server.config import LEVEL_S
from streamkws.server.detectors import DetectorPool
from streamkws.server.stream import LOWEST_DB, AudioFormat, Stream
from streamkws.smoother import Detection


@pytest.fixture(scope="module")
def model() -> Model:
    return tones_model()


class TestFormats:
    @pytest.mark.parametrize("rate", [8000, 16000, 44100, 96000])
    @pytest.mark.parametrize(("width", "n_channels"), [(1, 1), (2, 1), (2, 2), (3, 1), (3, 2), (4, 1), (4, 6)])
    def test_formats(self, model: Model, tmp_path: Path, rate: int, width: int, n_channels: int) -> None:
        """The same detections as those in a file of the same samples."""
        time_s = np.arange(rate // 2) / rate
        silence = np.zeros(rate)
        mono = np.concatenate([silence, 0.5 * np.sin(2 * np.pi * 300 * time_s), silence])
        channels = np.outer(mono, np.linspace(1, 0.5, n_channels))
        path = tmp_path / "a.wav"
        soundfile.write(path, channels, rate, {1: "PCM_U8", 2: "PCM_16", 3: "PCM_24", 4: "PCM_32"}[width])
        with wave.open(str(path)) as file:
            raw = file.readframes(file.getnframes())
        assert len(raw) == len(mono) * width * n_channels

        async def talk(client: AsyncClient) -> list[Event]:
            form = {"rate": rate, "width": width, "channels": n_channels}
            await say(client, AudioStart(**form), *chunks(raw, 1000 * width * n_channels, **form), AudioStop())
            return await answers(client)

        expected = [(hit.keyword, round(1000 * hit.peak)) for hit in detect(path, model, 0.1)]
        assert LOW in [keyword for keyword, _ in expected]
        assert heard(conversation(model, talk, thresholds=0.1)) == expected


class TestTimestamps:
    """Detections carry the time of the peak on the client's own clock."""

    def at(self, model: Model, *messages: Any) -> list[tuple[str, int]]:
        async def talk(client: AsyncClient) -> list[Event]:
            await say(client, *messages, AudioStop())
            return await answers(client)

        return heard(conversation(model, talk))

    def test_none_count_from_the_start(self, model: Model) -> None:
        audio = pcm(tones(LOW))
        expected = peaks(model, np.frombuffer(audio, np.int16))
        assert self.at(model, AudioStart(RATE, 2, 1), *chunks(audio)) == expected
        assert self.at(model, *chunks(audio)) == expected  # as wyoming-satellite, which sends no audio-start

    def test_start_has_one(self, model: Model) -> None:
        audio = pcm(tones(LOW))
        ((_, expected),) = peaks(model, np.frombuffer(audio, np.int16))
        assert self.at(model, AudioStart(RATE, 2, 1, timestamp=-700), *chunks(audio)) == [(LOW, expected - 700)]

    @pytest.mark.parametrize("n_bytes", [320, 2048, 64000])
    def test_chunks_have_them(self, model: Model, n_bytes: int) -> None:
        audio = pcm(tones(LOW, HIGH))
        timed = chunks(audio, n_bytes)
        for index, chunk in enumerate(timed):
            chunk.timestamp = 10**15 + index * n_bytes // 32
        expected = [(keyword, 10**15 + ms) for keyword, ms in peaks(model, np.frombuffer(audio, np.int16))]
        assert self.at(model, AudioStart(RATE, 2, 1, timestamp=3), *timed) == expected

    def test_clock_jumps(self, model: Model) -> None:
        """A peak is reported when a later chunk has come, on the clock of the chunk that holds it."""
        audio = pcm(tones(LOW))
        ((_, expected),) = peaks(model, np.frombuffer(audio, np.int16))
        timed = chunks(audio, 320)
        for index, chunk in enumerate(timed):
            chunk.timestamp = 1000 * index  # each is 10 ms long
        index, offset = divmod(expected, 10)
        (found,) = self.at(model, *timed)
        assert found in [(LOW, 1000 * index + offset), (LOW, 1000 * (index - 1) + 10 + offset)]

    def test_another_rate(self, model: Model) -> None:
        rate = 48000
        time_s = np.arange(rate) / rate
        samples = np.concatenate([np.zeros(rate), 0.5 * np.sin(2 * np.pi * 300 * time_s), np.zeros(rate)])
        timed = chunks(pcm(samples), 9600, rate=rate)
        for index, chunk in enumerate(timed):
            chunk.timestamp = 5000 + 100 * index
        ((_, time_ms),) = self.at(model, *timed)
        assert 6000 < time_ms < 7200

    def test_floating_point(self, model: Model) -> None:
        audio = pcm(tones(LOW))
        ((_, expected),) = peaks(model, np.frombuffer(audio, np.int16))
        found = self.at(model, AudioStart(RATE, 2, 1, timestamp=1000.4), *chunks(audio))  # type: ignore[arg-type]
        assert found == [(LOW, 1000 + expected)]


class TestLevel:
    def stream(self, model: Model, near: float | None = None) -> Stream:
        pool = DetectorPool(ModelSet(model), ServerConfig(near=near, thresholds=1.0 if near else None))
        return Stream(pool._new_detector(), AudioFormat(RATE, 2, 1), 0, frozenset(model.keywords))

    def test_audio_that_is_not_kept_any_more_has_none(self, model: Model) -> None:
        """A near miss waits for its score to fall; here all of the audio is one push."""
        audio = np.concatenate([tones(LOW), np.zeros(int(LEVEL_S * RATE), np.float32)])
        (late,) = self.stream(model, near=0.1).push(pcm(audio))
        assert late.near and late.level_db is None
        (early,) = self.stream(model, near=0.1).push(pcm(tones(LOW)))
        assert early.near and early.level_db is not None and -20 < early.level_db < -6

    def test_silence_has_a_level(self, model: Model) -> None:
        stream = self.stream(model)
        stream.push(bytes(2 * RATE))
        assert stream._level_db(Detection(LOW, 1.0, 0.25, 0.5, 0.5)) == LOWEST_DB


class TestClock:
    def test_clock_keeps_no_more_than_it_needs(self, model: Model) -> None:
        stream = Stream(
            DetectorPool(ModelSet(model), ServerConfig())._new_detector(), AudioFormat(RATE, 2, 1), 0, frozenset()
        )
        for index in range(5000):
            stream.push(stream.add(stream.format, bytes(32), index))
        assert len(stream._clock._marks) < 100
