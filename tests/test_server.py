"""The Wyoming server over real sockets, with the wyoming package's own client."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import types
import wave
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from test_cli import KEYWORDS, RATE, SLOW_START, pcm, tones, tones_model
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncClient
from wyoming.error import Error
from wyoming.event import Event, async_read_event, read_event, write_event
from wyoming.info import Describe, Info
from wyoming.ping import Ping, Pong
from wyoming.wake import Detect, Detection, NotDetected

from streamkws import ConfigError, Model, cli, detect, save_model, server
from streamkws.errors import MissingExtraError
from streamkws.server import Server, ServerConfig

ANSWER_S = 30.0
LOW, HIGH = KEYWORDS
FREE_PORT = "tcp://127.0.0.1:0"
CHUNK = {"rate": RATE, "width": 2, "channels": 1}


@pytest.fixture(scope="module")
def model() -> Model:
    return tones_model()


@asynccontextmanager
async def serving(model: Model, uri: str = FREE_PORT, **settings: Any) -> AsyncIterator[Server]:
    async with Server(model, ServerConfig(uri, **settings)) as running:
        yield running


def conversation(
    model: Model, talk: Callable[[AsyncClient], Awaitable[Any]], uri: str = FREE_PORT, **settings: Any
) -> Any:
    """What a client's talk with a server of its own gives."""

    async def both() -> Any:
        async with serving(model, uri, **settings) as running, AsyncClient.from_uri(running.uri) as client:
            return await asyncio.wait_for(talk(client), ANSWER_S)

    return asyncio.run(both())


async def say(client: AsyncClient, *messages: Any) -> None:
    for message in messages:
        await client.write_event(message.event())


async def answers(client: AsyncClient) -> list[Event]:
    """All that a server says until it has answered a ping, or has closed the connection."""
    events = []
    try:
        await say(client, Ping("done?"))
        while (event := await client.read_event()) is not None and not Pong.is_type(event.type):
            events.append(event)
    except ConnectionError:
        pass
    return events


def chunks(audio: bytes, n_bytes: int = 2048, **settings: Any) -> list[AudioChunk]:
    return [
        AudioChunk(**(CHUNK | settings), audio=audio[start : start + n_bytes])
        for start in range(0, len(audio), n_bytes)
    ]


def heard(events: list[Event]) -> list[tuple[str, int]]:
    """Keyword and timestamp of each detection; nothing else may have come."""
    assert {event.type for event in events} <= {"detection"}
    return [(event.data["name"], event.data["timestamp"]) for event in events]


def peaks(model: Model, audio: np.ndarray) -> list[tuple[str, int]]:
    """What streamkws.detect hears, as heard gives it."""
    return [(hit.keyword, round(1000 * hit.peak)) for hit in detect(audio, model)]


def error_of(events: list[Event]) -> Error:
    """The error that ended a conversation."""
    assert [event.type for event in events[-1:]] == ["error"]
    return Error.from_event(events[-1])


class TestProtocol:
    def test_info_holds_what_home_assistant_reads(self, model: Model) -> None:
        async def talk(client: AsyncClient) -> Info:
            await say(client, Describe())
            return Info.from_event(await client.read_event())

        info = conversation(model, talk)
        (program,) = info.wake
        assert (program.name, program.installed) == ("streamkws", True)
        assert program.description and program.version and program.attribution.name
        assert [ww.name for ww in program.models] == list(KEYWORDS)
        for ww in program.models:
            assert ww.installed
            assert (ww.phrase, ww.description, ww.version, ww.languages) == (ww.name, ww.name, "tones.f32", [])
            assert ww.attribution.name and ww.attribution.url
        assert not (info.asr or info.tts or info.satellite)

    @pytest.mark.parametrize("n_bytes", [30, 320, 2046, 1 << 20])
    def test_detections_are_those_of_detect(self, model: Model, n_bytes: int) -> None:
        audio = tones(LOW, HIGH, HIGH, LOW)

        async def talk(client: AsyncClient) -> list[Event]:
            await say(client, AudioStart(RATE, 2, 1), *chunks(pcm(audio), n_bytes), AudioStop())
            return await answers(client)

        expected = peaks(model, np.frombuffer(pcm(audio), np.int16))
        assert [keyword for keyword, _ in expected] == [LOW, HIGH, HIGH, LOW]
        assert heard(conversation(model, talk)) == expected

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

    def test_names_restrict(self, model: Model) -> None:
        async def talk(client: AsyncClient) -> list[list[Event]]:
            given = []
            for names in ([HIGH], [LOW, HIGH], [], None):
                await say(client, Detect(names), AudioStart(RATE, 2, 1), *chunks(pcm(tones(LOW, HIGH))), AudioStop())
                given.append(await answers(client))
            return given

        words = [[keyword for keyword, _ in heard(events)] for events in conversation(model, talk)]
        assert words == [[HIGH], [LOW, HIGH], [LOW, HIGH], [LOW, HIGH]]

    def test_unknown_name_is_refused(self, model: Model) -> None:
        async def talk(client: AsyncClient) -> list[Event]:
            await say(client, Detect([LOW, "okay nabu"]), *chunks(pcm(tones(LOW))), AudioStop())
            return await answers(client)

        (event,) = conversation(model, talk)
        error = error_of([event])
        assert error.code == "unknown-name"
        assert error.text == "unknown wake word 'okay nabu'; this server knows: low tone, high tone"

    def test_keyword_that_the_server_does_not_offer(self, model: Model) -> None:
        async def talk(client: AsyncClient) -> tuple[Info, list[Event], list[Event]]:
            await say(client, Describe())
            info = Info.from_event(await client.read_event())
            await say(client, *chunks(pcm(tones(LOW, HIGH))), AudioStop())
            before = await answers(client)
            await say(client, Detect([LOW]))
            return info, before, await answers(client)

        info, before, after = conversation(model, talk, keywords=[HIGH])
        assert [ww.name for ww in info.wake[0].models] == [HIGH]
        assert [keyword for keyword, _ in heard(before)] == [HIGH]
        assert error_of(after).text == "unknown wake word 'low tone'; this server knows: high tone"

    def test_thresholds(self, model: Model) -> None:
        async def talk(client: AsyncClient) -> list[Event]:
            await say(client, *chunks(pcm(tones(LOW, HIGH))), AudioStop())
            return await answers(client)

        hits = heard(conversation(model, talk, thresholds={LOW: 1.0}))
        assert [keyword for keyword, _ in hits] == [HIGH]

    def test_not_detected(self, model: Model) -> None:
        async def talk(client: AsyncClient) -> list[str]:
            silence = chunks(bytes(32000))
            await say(client, Detect([LOW]), AudioStart(RATE, 2, 1), *silence, AudioStop())
            await say(client, AudioStart(RATE, 2, 1), *chunks(pcm(tones(LOW))), AudioStop())
            await say(client, AudioStart(RATE, 2, 1), AudioStop())
            return [event.type for event in await answers(client)]

        assert conversation(model, talk) == ["not-detected", "detection", "not-detected"]

    def test_stop_completes_an_awaited_peak(self, model: Model) -> None:
        """The audio ends within the tone, whose peak is then still awaited."""
        audio = tones(LOW)[: int(1.08 * RATE)]

        async def talk(client: AsyncClient) -> tuple[list[Event], list[Event]]:
            await say(client, *chunks(pcm(audio)))
            before = await answers(client)
            await say(client, AudioStop())
            return before, await answers(client)

        before, after = conversation(model, talk)
        assert before == []
        assert heard(after) == peaks(model, np.frombuffer(pcm(audio), np.int16))
        assert len(after) == 1

    @pytest.mark.parametrize("message", [AudioStart(RATE, 2, 1), Detect()])
    def test_start_and_detect_begin_anew(self, model: Model, message: Any) -> None:
        """Half a tone, and the same tone whole after a new beginning, on a clock that starts there."""
        audio = pcm(tones(LOW))

        async def talk(client: AsyncClient) -> list[Event]:
            await say(client, AudioStart(RATE, 2, 1), *chunks(audio[: int(1.08 * RATE) * 2]))
            await say(client, message, *chunks(audio), AudioStop())
            return await answers(client)

        assert heard(conversation(model, talk)) == peaks(model, np.frombuffer(audio, np.int16))

    def test_detect_after_start_keeps_its_format_and_time(self, model: Model) -> None:
        audio = pcm(tones(LOW))

        async def talk(client: AsyncClient) -> list[Event]:
            await say(client, AudioStart(RATE, 2, 1, timestamp=5000), Detect([LOW]), *chunks(audio))
            return await answers(client)

        ((_, expected),) = peaks(model, np.frombuffer(audio, np.int16))
        assert heard(conversation(model, talk)) == [(LOW, 5000 + expected)]

    def test_ping_and_strangers(self, model: Model) -> None:
        async def talk(client: AsyncClient) -> list[Any]:
            await client.write_event(Event("transcribe", {"language": "en"}))
            await client.write_event(Event("user-event"))
            await say(client, Ping("é"), Ping())
            return [Pong.from_event(await client.read_event()).text for _ in range(2)]

        assert conversation(model, talk) == ["é", None]

    def test_data_in_the_first_line_and_after_it(self, model: Model) -> None:
        sent = b'{"type": "ping", "data": {"text": "here"}}\n'
        sent += b'{"type": "ping", "data": {"text": "no"}, "data_length": 17}\n{"text": "there"}'
        assert [event.data["text"] for event in exchange(model, sent)] == ["here", "there"]


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


class TestTransports:
    def test_unix(self, model: Model, tmp_path: Path) -> None:
        path = tmp_path / "s.sock"

        async def talk(client: AsyncClient) -> list[Event]:
            assert stat.S_ISSOCK(path.stat().st_mode)
            await say(client, *chunks(pcm(tones(HIGH))), AudioStop())
            return await answers(client)

        assert [keyword for keyword, _ in heard(conversation(model, talk, f"unix://{path}"))] == [HIGH]
        assert not path.exists()

    def test_unix_socket_of_a_killed_server_is_replaced(self, model: Model, tmp_path: Path) -> None:
        path = tmp_path / "s.sock"
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
        assert conversation(model, answers, f"unix://{path}") == []

    def test_unix_socket_of_a_living_server_is_not(self, model: Model, tmp_path: Path) -> None:
        uri = f"unix://{tmp_path / 's.sock'}"

        async def talk(client: AsyncClient) -> list[Event]:
            with pytest.raises(OSError, match=f"cannot listen on {uri}: Address already in use"):
                await Server(model, ServerConfig(uri)).start()
            return await answers(client)

        assert conversation(model, talk, uri) == []

    def test_unix_path_that_is_a_file(self, model: Model, tmp_path: Path) -> None:
        path = tmp_path / "mine.txt"
        path.write_text("mine")
        with pytest.raises(OSError, match=f"cannot listen on unix://{path}: File exists"):
            asyncio.run(Server(model, ServerConfig(f"unix://{path}")).start())
        assert path.read_text() == "mine"

    def test_socket_file_that_another_server_has_taken_stays(self, model: Model, tmp_path: Path) -> None:
        path = tmp_path / "s.sock"

        async def scenario() -> None:
            async with serving(model, f"unix://{path}"):
                path.unlink()
                path.write_text("another")

        asyncio.run(scenario())
        assert path.read_text() == "another"

    def test_port_in_use(self, model: Model) -> None:
        async def scenario() -> None:
            async with serving(model) as first:
                with pytest.raises(OSError, match=f"^.*cannot listen on {first.uri}: Address already in use$"):
                    await Server(model, ServerConfig(first.uri)).start()

        asyncio.run(scenario())

    def test_host_that_is_none(self, model: Model) -> None:
        with pytest.raises(OSError, match=r"cannot listen on tcp://no\.such\.host\.invalid:0: "):
            asyncio.run(Server(model, ServerConfig("tcp://no.such.host.invalid:0")).start())

    def test_only_loopback_goes_without_a_warning(self, model: Model, caplog: pytest.LogCaptureFixture) -> None:
        assert ServerConfig().uri == "tcp://127.0.0.1:10400"
        conversation(model, answers)
        assert caplog.text == ""

        async def scenario() -> None:
            async with serving(model, "tcp://0.0.0.0:0"):
                pass

        asyncio.run(scenario())
        assert "whoever reaches this address may connect" in caplog.text

    @pytest.mark.parametrize(
        "uri",
        [
            "",
            "127.0.0.1:10400",
            "tcp://",
            "tcp://:10400",
            "tcp://localhost",
            "tcp://localhost:x",
            "tcp://localhost:70000",
            "tcp://localhost:1/path",
            "tcp://user@localhost:1",
            "tcp://localhost:1?x",
            "tcp://[::1:1",
            "http://localhost:1",
            "unix://",
            "unix:///",
            "unix://run/s.sock",
            "stdio://x",
        ],
    )
    def test_uri_that_is_none(self, uri: str) -> None:
        message = f"expected tcp://HOST:PORT, unix:///PATH or stdio://, got {uri!r}"
        with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
            ServerConfig(uri)

    def test_system_without_unix_sockets(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delattr(asyncio, "start_unix_server")
        with pytest.raises(ConfigError, match="expected tcp://HOST:PORT on this system, which has no unix sockets"):
            ServerConfig("unix:///run/s.sock")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_clients": 0}, "expected max_clients of at least 1, got 0"),
        ({"max_payload_bytes": 0}, "expected max_payload_bytes of at least 1, got 0"),
        ({"n_threads": -1}, "expected n_threads of at least 1, got -1"),
        ({"idle_s": -1.0}, "expected idle_s of at least 0, got -1.0"),
        ({"idle_s": float("nan")}, "expected idle_s of at least 0, got nan"),
        ({"zeroconf": "x"}, "expected a tcp:// address that others can reach for zeroconf, got tcp://127.0.0.1:10400"),
        (
            {"zeroconf": "x", "uri": "unix:///s"},
            "expected a tcp:// address that others can reach for zeroconf, got unix:///s",
        ),
        ({"zeroconf": "", "uri": "tcp://0.0.0.0:1"}, "expected a zeroconf name of 1 to 63 bytes, got ''"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        ServerConfig(**settings)


def test_server_checks_keywords_and_thresholds(model: Model) -> None:
    with pytest.raises(ConfigError, match="unknown keyword 'x'; the model knows: low tone, high tone"):
        Server(model, ServerConfig(keywords=["x"]))
    with pytest.raises(ConfigError, match="expected a threshold above 0"):
        Server(model, ServerConfig(thresholds=2.0))


def exchange(model: Model, sent: bytes, **settings: Any) -> list[Event]:
    """All that a server says to raw bytes, after which the client has no more to say."""

    async def both() -> list[Event]:
        async with serving(model, **settings) as running:
            return await asyncio.wait_for(raw_exchange(running.uri, sent), ANSWER_S)

    return asyncio.run(both())


async def raw_exchange(uri: str, sent: bytes) -> list[Event]:
    host, _, port = uri.removeprefix("tcp://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    events = []
    try:
        writer.write(sent)
        writer.write_eof()
        while (event := await async_read_event(reader)) is not None:
            events.append(event)
    finally:
        writer.close()
        await writer.wait_closed()
    return events


def message(kind: str, payload: bytes = b"", **data: Any) -> bytes:
    """A message's bytes, with all of its data in the first line."""
    return json.dumps({"type": kind, "data": data, "payload_length": len(payload)}).encode() + b"\n" + payload


SILENT = message("audio-chunk", bytes(64), **CHUNK)
HOSTILE = {
    "not JSON": (b"GET / HTTP/1.1\r\n\r\n", "bad-message", "first line to be a JSON object"),
    "empty line": (b"\n", "bad-message", "first line to be a JSON object"),
    "JSON that is no object": (b"[1]\n", "bad-message", "first line to be a JSON object"),
    "bytes that are no text": (b"\xff\xfe\x00\n", "bad-message", "first line to be a JSON object"),
    "deep JSON": (b"[" * 60000 + b"\n", "bad-message", "first line to be a JSON object"),
    "huge number": (b'{"type": "ping", "data_length": ' + b"9" * 5000 + b"}\n", "bad-message", "a JSON object"),
    "long number": (b'{"type": "ping", "data_length": ' + b"9" * 4000 + b"}\n", "too-large", "a number of 13288 bits"),
    "no type": (b'{"data": {}}\n', "bad-message", "expected a type, got None"),
    "type that is no text": (b'{"type": 5}\n', "bad-message", "expected a type, got 5"),
    "data that is no object": (b'{"type": "x", "data": [1]}\n', "bad-message", "expected data to be an object"),
    "data that is no JSON": (b'{"type": "x", "data_length": 3}\nabc', "bad-message", "expected data to be a JSON"),
    "negative length": (b'{"type": "x", "data_length": -1}\n', "bad-message", "data_length of at least 0, got -1"),
    "length that is text": (b'{"type": "x", "payload_length": "9"}\n', "bad-message", "payload_length to be a whole"),
    "length that is a fraction": (b'{"type": "x", "payload_length": 1.5}\n', "bad-message", "whole number, got 1.5"),
    "length that is true": (b'{"type": "x", "payload_length": true}\n', "bad-message", "whole number, got True"),
    "gigantic payload": (b'{"type": "audio-chunk", "payload_length": 1000000000000}\n', "too-large", "at most 1048576"),
    "gigantic data": (b'{"type": "detect", "data_length": 1000000000}\n', "too-large", "at most 65536"),
    "endless first line": (b'{"type": "' + b"x" * 300_000, "too-large", "first line of at most 65536 bytes"),
    "cut first line": (b'{"type": "pi', "cut", "got 12 bytes of its first line"),
    "cut data": (b'{"type": "x", "data_length": 10}\n{}', "cut", "lacks 8 bytes"),
    "cut payload": (b'{"type": "x", "payload_length": 10}\n{}', "cut", "lacks 8 bytes"),
    "stop without audio": (message("audio-stop"), "wrong-order", "expected audio-start or audio-chunk before"),
    "second stop": (SILENT + 2 * message("audio-stop"), "wrong-order", "expected audio-start or audio-chunk before"),
    "chunk without format": (message("audio-chunk", b"ab"), "bad-message", "rate to be a whole number, got None"),
    "rate that is text": (message("audio-start", **CHUNK | {"rate": "16k"}), "bad-message", "whole number, got '16k'"),
    "rate of 0": (message("audio-start", **CHUNK | {"rate": 0}), "bad-audio", "1000 to 1000000 Hz, got 0"),
    "width of 5": (message("audio-start", **CHUNK | {"width": 5}), "bad-audio", "1 to 4 bytes, got 5"),
    "no channels": (message("audio-start", **CHUNK | {"channels": 0}), "bad-audio", "1 to 64 channels, got 0"),
    "many channels": (message("audio-chunk", **CHUNK | {"channels": 10**9}), "bad-audio", "1 to 64 channels"),
    "part of a frame": (
        message("audio-chunk", bytes(7), **CHUNK),
        "bad-audio",
        "frames of 2 bytes, got a payload of 7",
    ),
    "format that changes": (
        SILENT + message("audio-chunk", bytes(64), **CHUNK | {"rate": 8000}),
        "bad-audio",
        "expected audio of 16000 Hz, 2 bytes, 1 channels, as it began, got 8000 Hz",
    ),
    "timestamp that is text": (message("audio-chunk", **CHUNK, timestamp="now"), "bad-message", "timestamp to be"),
    "infinite timestamp": (message("audio-chunk", **CHUNK, timestamp=float("inf")), "bad-message", "timestamp to be"),
    "gigantic timestamp": (message("audio-chunk", **CHUNK, timestamp=10**30), "bad-message", "timestamp to be"),
    "names that are no list": (message("detect", names="low tone"), "bad-message", "names to be a list"),
    "names that are no text": (message("detect", names=[["low tone"]]), "unknown-name", "unknown wake word"),
    "half a character": (b'{"type": "ping", "data": {"text": "\\ud800"}}\n', "bad-message", "text to be text"),
    "half a character as a name": (b'{"type": "detect", "data": {"names": ["\\ud800"]}}\n', "unknown-name", "ud800"),
    "long name": (message("detect", names=["x" * 60000]), "unknown-name", "x..."),
}


class TestHostile:
    @pytest.mark.parametrize("name", HOSTILE)
    def test_gets_an_error_and_is_sent_away(self, model: Model, name: str) -> None:
        sent, code, text = HOSTILE[name]
        (event,) = [event for event in exchange(model, sent) if event.type != "not-detected"]
        error = Error.from_event(event)
        assert (error.code, error.text.isascii(), len(error.text) < 300) == (code, True, True)
        assert text in error.text

    def test_what_came_before_is_answered(self, model: Model) -> None:
        audio = message("audio-chunk", pcm(tones(LOW)), **CHUNK)
        events = exchange(model, message("ping", text="a") + audio + b"?\n" + message("ping", text="b"))
        assert [event.type for event in events] == ["pong", "detection", "error"]

    def test_chunk_before_a_bad_one_is_heard(self, model: Model) -> None:
        audio = message("audio-chunk", pcm(tones(LOW)), **CHUNK)
        events = exchange(model, audio + message("audio-chunk", b"x", **CHUNK))
        assert [event.type for event in events] == ["detection", "error"]

    def test_error_arrives_although_much_was_sent_after_it(self, model: Model) -> None:
        """Closed over unread bytes, a socket is reset, and the error lost."""
        (event,) = exchange(model, b"?\n" + SILENT * 10_000)
        assert event.type == "error"

    def test_others_do_not_notice(self, model: Model) -> None:
        """One client streams while every kind of hostile one comes, some many times, and some leave without a word."""
        audio = tones(LOW, HIGH, LOW, HIGH)

        async def leave(uri: str, sent: bytes) -> None:
            _, writer = await asyncio.open_connection("127.0.0.1", int(uri.rpartition(":")[2]))
            writer.write(sent)
            writer.transport.abort()

        async def scenario() -> list[Event]:
            async with serving(model) as running, AsyncClient.from_uri(running.uri) as client:
                pieces = chunks(pcm(audio))
                hostile = [sent for sent, *_ in HOSTILE.values()]
                for index, piece in enumerate(pieces):
                    sent = hostile[index % len(hostile)]
                    both = raw_exchange(running.uri, sent), leave(running.uri, sent), leave(running.uri, SILENT * 9)
                    await asyncio.gather(client.write_event(piece.event()), *both)
                while running.n_clients > 1:
                    await asyncio.sleep(0.01)
                return await answers(client)

        assert heard(asyncio.run(scenario())) == peaks(model, np.frombuffer(pcm(audio), np.int16))

    def test_slow_reader_is_given_up(
        self, model: Model, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(server, "SEND_S", 0.2)
        monkeypatch.setattr(server, "LINGER_S", 0.2)

        async def scenario() -> list[Event]:
            async with serving(model) as running, AsyncClient.from_uri(running.uri) as other:
                _, writer = await asyncio.open_connection("127.0.0.1", int(running.uri.rpartition(":")[2]))
                with pytest.raises(ConnectionError):
                    while True:
                        writer.write(message("ping", text="x" * 60_000))
                        await asyncio.wait_for(writer.drain(), ANSWER_S)
                writer.close()
                await say(other, *chunks(pcm(tones(LOW))))
                events = await answers(other)
                assert running.n_clients == 1
                return events

        assert [keyword for keyword, _ in heard(asyncio.run(scenario()))] == [LOW]
        assert "has not read its messages for 0.2 s" in caplog.text

    def test_fast_sender_has_to_wait(self, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
        """While its audio is not heard, a client can send but so much; when it is, nothing of it is missing."""
        gate = threading.Event()
        push = server._Stream.push
        monkeypatch.setattr(server._Stream, "push", lambda *arguments: gate.wait(ANSWER_S) and push(*arguments))
        piece = message("audio-chunk", bytes(60_000), **CHUNK)
        most = server.INBOX_BYTES + 20_000_000  # what sockets hold on this machine is its own affair

        async def scenario() -> list[Event]:
            async with serving(model) as running, AsyncClient.from_uri(running.uri) as client:
                assert client._writer is not None
                client._writer.write(message("audio-start", **CHUNK) + message("audio-chunk", pcm(tones(LOW)), **CHUNK))
                n_sent = 0
                with pytest.raises(asyncio.TimeoutError):
                    while n_sent < most:
                        client._writer.write(piece)
                        await asyncio.wait_for(client._writer.drain(), 0.5)
                        n_sent += len(piece)
                (task,) = running._clients
                assert task._inbox._n_bytes < 2 * server.INBOX_BYTES
                gate.set()
                return await asyncio.wait_for(answers(client), 30)

        assert [keyword for keyword, _ in heard(asyncio.run(scenario()))] == [LOW]

    def test_much_audio_of_one_leaves_room_for_others(self, model: Model) -> None:
        """With one thread, another client's second of audio is answered long before a client's quarter of an hour."""

        async def scenario() -> list[str]:
            done: list[str] = []

            async def hear(running: Server, name: str, payload: bytes) -> None:
                async with AsyncClient.from_uri(running.uri) as client:
                    await say(client, *chunks(payload, 1 << 20, rate=1000, width=1), AudioStop())
                    assert [event.type for event in await answers(client)] == ["not-detected"]
                    done.append(name)

            async with serving(model, n_threads=1) as running:
                long = asyncio.create_task(hear(running, "long", bytes([128]) * (900 * 1000)))
                await asyncio.sleep(0.05)
                await hear(running, "short", bytes([128]) * 1000)
                await long
            return done

        assert asyncio.run(scenario()) == ["short", "long"]

    def test_bug_ends_one_client(
        self, model: Model, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(stream: Any, audio: bytes) -> list[Any]:
            raise ZeroDivisionError("a bug")

        monkeypatch.setattr(server._Stream, "push", fail)

        async def scenario() -> None:
            async with serving(model) as running, AsyncClient.from_uri(running.uri) as other:
                assert await raw_exchange(running.uri, SILENT) == []
                assert await answers(other) == []

        asyncio.run(scenario())
        assert "client 2 (127.0.0.1:" in caplog.text and "ended by a bug in the server" in caplog.text
        assert "ZeroDivisionError: a bug" in caplog.text


class TestLimits:
    def test_many_clients_hear_their_own(self, model: Model) -> None:
        rng = np.random.default_rng(1)
        spoken = [[KEYWORDS[i] for i in rng.integers(0, 2, rng.integers(0, 5))] for _ in range(40)]

        async def scenario() -> list[list[str]]:
            async with serving(model) as running:

                async def one(words: list[str], n_bytes: int) -> list[str]:
                    async with AsyncClient.from_uri(running.uri) as client:
                        for chunk in chunks(pcm(tones(*words)), n_bytes):
                            await say(client, chunk)
                        return [keyword for keyword, _ in heard(await answers(client))]

                sizes = 2 * rng.integers(100, 4000, len(spoken))
                return await asyncio.gather(*(one(words, int(n)) for words, n in zip(spoken, sizes, strict=True)))

        assert asyncio.run(scenario()) == spoken

    def test_one_client_too_many(self, model: Model) -> None:
        async def scenario() -> None:
            async with serving(model, max_clients=2) as running:
                async with AsyncClient.from_uri(running.uri) as first, AsyncClient.from_uri(running.uri) as second:
                    assert await answers(first) == await answers(second) == []
                    (event,) = await raw_exchange(running.uri, SILENT * 100)
                    assert (event.data["code"], event.data["text"]) == (
                        "busy",
                        "expected at most 2 clients, got one more",
                    )
                    assert await answers(first) == await answers(second) == []
                while running.n_clients:
                    await asyncio.sleep(0.01)
                assert [event.type for event in await raw_exchange(running.uri, message("ping"))] == ["pong"]

        asyncio.run(scenario())

    def test_crowd_is_dropped(
        self, model: Model, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Those who are being sent away are limited, too."""
        monkeypatch.setattr(server, "LINGER_S", 0.3)

        async def scenario() -> None:
            async with serving(model, max_clients=1) as running:
                port = int(running.uri.rpartition(":")[2])
                crowd = await asyncio.gather(*(asyncio.open_connection("127.0.0.1", port) for _ in range(10)))
                with caplog.at_level(logging.WARNING):
                    while caplog.text.count("dropped: others are being sent away already") < 8:
                        await asyncio.sleep(0.01)
                assert running.n_clients == 1
                for _, writer in crowd:
                    writer.close()

        asyncio.run(scenario())

    @pytest.mark.parametrize("sent", [b"", b'{"type"', SILENT, SILENT[:-1]])
    def test_idle_client_is_sent_away(self, model: Model, sent: bytes) -> None:
        async def talk(client: AsyncClient) -> Error:
            assert client._writer is not None
            client._writer.write(sent)
            return error_of([await client.read_event()])  # type: ignore[list-item]

        error = conversation(model, talk, idle_s=0.2)
        assert (error.code, error.text) == ("idle", "expected a message within 0.2 s, got none")

    def test_one_that_sends_a_byte_now_and_then_is_idle(self, model: Model) -> None:
        async def talk(client: AsyncClient) -> int:
            assert client._writer is not None
            answer = asyncio.create_task(client.read_event())
            n_sent = 0
            while not answer.done():
                client._writer.write(b"x")
                await asyncio.sleep(0.02)
                n_sent += 1
            assert error_of([await answer]).code == "idle"  # type: ignore[list-item]
            return n_sent

        assert 1 < conversation(model, talk, idle_s=0.3) < 100

    def test_one_that_streams_is_not_idle(self, model: Model) -> None:
        async def talk(client: AsyncClient) -> list[Event]:
            for chunk in chunks(bytes(6000), 200):
                await say(client, chunk)
                await asyncio.sleep(0.02)
            return await answers(client)

        assert conversation(model, talk, idle_s=0.3) == []

    def test_detectors_are_used_again(self, model: Model) -> None:
        """Clients one after the other share one, and hear nothing of each other."""
        half = pcm(tones(LOW)[: int(1.08 * RATE)])

        async def scenario() -> None:
            async with serving(model) as running:
                (spare,) = running._spare
                for _ in range(3):
                    assert await raw_exchange(running.uri, message("audio-chunk", half, **CHUNK)) == []
                    assert running._spare == [spare]
                assert [event.type for event in await raw_exchange(running.uri, SILENT + b"?\n")] == ["error"]
                while running.n_clients:  # it waits for the client to read the error
                    await asyncio.sleep(0.01)
                assert running._spare == [spare]

        asyncio.run(scenario())

    def test_payload_limit_is_a_setting(self, model: Model) -> None:
        assert exchange(model, message("audio-chunk", bytes(100), **CHUNK), max_payload_bytes=100) == []
        (event,) = exchange(model, message("audio-chunk", bytes(102), **CHUNK), max_payload_bytes=100)
        assert event.data["text"] == "expected payload_length of at most 100, got 102"

    def test_clock_keeps_no_more_than_it_needs(self, model: Model) -> None:
        stream = server._Stream(Server(model)._new_detector(), server._AudioFormat(RATE, 2, 1), 0, frozenset())
        for index in range(5000):
            stream.push(stream.add(stream.format, bytes(32), index))
        assert len(stream._clock._marks) < 100


class TestEnd:
    def test_stop_closes_every_connection(self, model: Model) -> None:
        async def scenario() -> None:
            async with serving(model) as running:
                client = AsyncClient.from_uri(running.uri)
                await client.connect()
                assert await answers(client) == []
                serve = asyncio.create_task(running.serve())
                await running.stop()
                await asyncio.wait_for(serve, ANSWER_S)
                assert await client.read_event() is None
                await client.disconnect()
                with pytest.raises(ConnectionError):
                    await AsyncClient.from_uri(running.uri).connect()

        asyncio.run(scenario())

    def test_stop_does_not_wait_for_one_that_does_not_read(self, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(server, "LINGER_S", 0.2)

        async def scenario() -> None:
            async with serving(model) as running:
                _, writer = await asyncio.open_connection("127.0.0.1", int(running.uri.rpartition(":")[2]))
                with pytest.raises(asyncio.TimeoutError):
                    while True:
                        writer.write(message("ping", text="x" * 60_000))
                        await asyncio.wait_for(writer.drain(), 0.3)
                await asyncio.wait_for(running.stop(), ANSWER_S)
                writer.close()

        asyncio.run(scenario())

    def test_connection_that_comes_while_it_stops(self, model: Model) -> None:
        """asyncio may still be making one."""

        async def scenario() -> None:
            async with serving(model) as other:
                running = Server(model, ServerConfig(FREE_PORT))
                await running.start()
                await running.stop()
                reader, writer = await asyncio.open_connection("127.0.0.1", int(other.uri.rpartition(":")[2]))
                running._accept(reader, writer)
                assert writer.is_closing()
                assert running.n_clients == 0
                assert await reader.read() == b""

        asyncio.run(scenario())

    def test_two_servers_in_one_program(self, model: Model) -> None:
        async def scenario() -> None:
            async with serving(model) as first, serving(model, keywords=[HIGH]) as second:
                for running, keywords in ((first, KEYWORDS), (second, (HIGH,))):
                    (info,) = await raw_exchange(running.uri, message("describe"))
                    assert tuple(ww["name"] for ww in info.data["wake"][0]["models"]) == keywords

        asyncio.run(scenario())


class FakeZeroconf(types.ModuleType):
    """Stands in for zeroconf.asyncio, which needs a network; notes what it is told."""

    def __init__(self) -> None:
        super().__init__("zeroconf.asyncio")
        told = self.told = []
        self.failure: Exception | None = None
        fake = self

        class AsyncServiceInfo:
            def __init__(self, kind: str, name: str, port: int, parsed_addresses: list[str]) -> None:
                self.name = name
                told.append(("service", kind, name, port, parsed_addresses))

        class AsyncZeroconf:
            def __init__(self, interfaces: list[str]) -> None:
                told.append(("interfaces", interfaces))

            async def async_register_service(self, service: Any, allow_name_change: bool) -> Awaitable[None]:
                told.append(("register", service.name, allow_name_change))
                if fake.failure is not None:
                    raise fake.failure
                return asyncio.sleep(0)

            async def async_unregister_service(self, service: Any) -> Awaitable[None]:
                told.append(("unregister", service.name))
                return asyncio.sleep(0)

            async def async_close(self) -> None:
                told.append(("close",))

        self.AsyncServiceInfo, self.AsyncZeroconf = AsyncServiceInfo, AsyncZeroconf


class TestZeroconf:
    def install(self, fake: FakeZeroconf, monkeypatch: pytest.MonkeyPatch) -> None:
        package = types.ModuleType("zeroconf")
        package.Error = ArithmeticError  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "zeroconf", package)
        monkeypatch.setitem(sys.modules, "zeroconf.asyncio", fake)
        monkeypatch.setattr(server, "_own_address", lambda: "192.0.2.7")

    def test_comes_and_goes_with_the_server(self, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
        fake = FakeZeroconf()
        self.install(fake, monkeypatch)

        async def scenario() -> int:
            async with serving(model, "tcp://0.0.0.0:0", zeroconf="kitchen") as running:
                return int(running.uri.rpartition(":")[2])

        port = asyncio.run(scenario())
        kind, name = "_wyoming._tcp.local.", "kitchen._wyoming._tcp.local."
        assert fake.told == [
            ("service", kind, name, port, ["192.0.2.7"]),
            ("interfaces", ["192.0.2.7"]),
            ("register", name, True),
            ("unregister", name),
            ("close",),
        ]

    def test_name_that_cannot_be(self, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
        fake = FakeZeroconf()
        fake.failure = ArithmeticError("no control characters")
        self.install(fake, monkeypatch)
        with pytest.raises(OSError, match="cannot be announced by zeroconf as 'x': no control characters"):
            asyncio.run(Server(model, ServerConfig("tcp://0.0.0.0:0", zeroconf="x")).start())
        assert fake.told[-1] == ("close",)

    def test_no_network(self, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail() -> str:
            raise OSError(errno.ENETUNREACH, "x")

        self.install(FakeZeroconf(), monkeypatch)
        monkeypatch.setattr(server, "_own_address", fail)
        with pytest.raises(OSError, match="cannot be announced by zeroconf as 'x': Network is unreachable"):
            asyncio.run(Server(model, ServerConfig("tcp://0.0.0.0:0", zeroconf="x")).start())

    def test_is_missing(self, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "zeroconf.asyncio", None)
        monkeypatch.setitem(sys.modules, "zeroconf", None)
        with pytest.raises(MissingExtraError, match=r'being found needs zeroconf: pip install "streamkws\[zeroconf\]"'):
            asyncio.run(Server(model, ServerConfig("tcp://0.0.0.0:0", zeroconf="kitchen")).start())


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory, model: Model) -> str:
    Server(model)  # compiles the kernels, if nobody has yet
    return str(save_model(model, tmp_path_factory.mktemp("model") / "tones.f32.safetensors"))


class TestCommand:
    @pytest.fixture
    def start(self, model_path: str) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
        """Start the command in a process of its own, with pipes."""
        processes = []

        def popen(*arguments: str) -> subprocess.Popen[bytes]:
            command = [sys.executable, "-m", "streamkws", "serve", "--model", model_path, *arguments]
            pipe = subprocess.PIPE
            processes.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe))
            return processes[-1]

        yield popen
        for process in processes:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                pipe.close()

    def uri_of(self, process: subprocess.Popen[bytes]) -> str:
        """Where a started server says that it listens."""
        assert process.stderr is not None
        line = process.stderr.readline().decode()
        if line.strip() == SLOW_START:
            line = process.stderr.readline().decode()
        found = re.fullmatch(r"streamkws: tones.f32 listens on (\S+) for low tone, high tone; Ctrl-C ends\n", line)
        assert found is not None, line
        return found[1]

    @pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
    def test_signals_end_it(self, start: Any, number: int, code: int) -> None:
        process = start("--uri", FREE_PORT)
        uri = self.uri_of(process)

        async def scenario() -> None:
            async with AsyncClient.from_uri(uri) as client:
                assert await answers(client) == []
                process.send_signal(number)
                assert await client.read_event() is None

        asyncio.run(scenario())
        out, err = process.communicate(timeout=ANSWER_S)
        assert (process.returncode, out, err) == (code, b"", b"")

    def test_verbose(self, start: Any) -> None:
        process = start("--uri", FREE_PORT, "--verbose", "--keyword", LOW, "--keyword", HIGH, "--threshold", "0.6")
        uri = self.uri_of(process)
        asyncio.run(raw_exchange(uri, message("audio-chunk", pcm(tones(LOW)), **CHUNK) + b"?\n"))
        process.terminate()
        lines = process.communicate(timeout=ANSWER_S)[1].decode().splitlines()
        name = r"streamkws: client 1 \(127\.0\.0\.1:\d+\): "
        wanted = ["connected", r"heard low tone at 1\d\d\d ms, score 0\.\d\d", "expected the first line to be .*"]
        assert len(lines) == len(wanted)
        assert all(re.fullmatch(name + text, line) for text, line in zip(wanted, lines, strict=True)), lines

    def test_stdio(self, start: Any) -> None:
        process = start("--uri", "stdio://")
        assert self.uri_of(process) == "stdio://"
        write_event(Describe().event(), process.stdin)
        info = Info.from_event(read_event(process.stdout))
        assert [ww.name for ww in info.wake[0].models] == list(KEYWORDS)
        for chunk in chunks(pcm(tones(HIGH))):
            write_event(chunk.event(), process.stdin)
        assert Detection.from_event(read_event(process.stdout)).name == HIGH
        write_event(AudioStart(RATE, 2, 1).event(), process.stdin)
        write_event(AudioStop().event(), process.stdin)
        assert NotDetected.is_type(read_event(process.stdout).type)
        process.stdin.close()
        assert process.wait(ANSWER_S) == 0
        assert (process.stdout.read(), process.stderr.read()) == (b"", b"")

    def test_stdio_error(self, start: Any) -> None:
        process = start("--uri", "stdio://")
        self.uri_of(process)
        out, err = process.communicate(b"?\n", timeout=ANSWER_S)
        assert process.returncode == 0
        assert b'"code": "bad-message"' in out
        assert err.startswith(b"streamkws: client 1: expected the first line")

    def test_stdio_without_pipes(self, model_path: str) -> None:
        command = [sys.executable, "-m", "streamkws", "serve", "--model", model_path, "--uri", "stdio://"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        lines = [line for line in done.stderr.decode().splitlines() if line != SLOW_START]
        reason = "streamkws: cannot listen on stdio://: expected pipes as standard input and output"
        assert (done.returncode, done.stdout, lines) == (1, b"", [reason])

    @pytest.mark.parametrize(
        ("arguments", "code", "message"),
        [
            (["--uri", "http://x"], 2, "expected tcp://HOST:PORT, unix:///PATH or stdio://, got 'http://x'"),
            (["--clients", "0"], 2, "expected max_clients of at least 1, got 0"),
            (["--idle", "-1"], 2, "expected idle_s of at least 0, got -1.0"),
            (["--threads", "0"], 2, "expected n_threads of at least 1, got 0"),
            (["--keyword", "x"], 2, "unknown keyword 'x'; the model knows: low tone, high tone"),
            (["--threshold", "x=0.5"], 2, "unknown keyword 'x'; the model knows: low tone, high tone"),
            (
                ["--zeroconf"],
                2,
                "expected a tcp:// address that others can reach for zeroconf, got tcp://127.0.0.1:10400",
            ),
        ],
    )
    def test_wrong_usage(
        self, model_path: str, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
    ) -> None:
        assert cli.main(["serve", "--model", model_path, *arguments]) == code
        captured = capsys.readouterr()
        assert (captured.out, captured.err) == ("", f"streamkws: {message}\n")

    def test_port_in_use(self, model_path: str, capsys: pytest.CaptureFixture[str]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            uri = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
            assert cli.main(["serve", "--model", model_path, "--uri", uri]) == 1
        captured = capsys.readouterr()
        assert (captured.out, captured.err) == ("", f"streamkws: cannot listen on {uri}: Address already in use\n")
        assert not logging.getLogger("streamkws").handlers

    def test_defaults_are_those_of_the_library(self) -> None:
        arguments, config = cli.parser().parse_args(["serve"]), ServerConfig()
        told = (arguments.uri, arguments.clients, arguments.idle, arguments.threads, arguments.zeroconf)
        assert told == (config.uri, config.max_clients, config.idle_s, config.n_threads, config.zeroconf)

    def test_wyoming_is_missing(
        self, model_path: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delitem(sys.modules, "streamkws.server")
        monkeypatch.setitem(sys.modules, "wyoming", None)
        assert cli.main(["serve", "--model", model_path]) == 1
        error = 'streamkws: the server needs wyoming: pip install "streamkws[server]"\n'
        assert capsys.readouterr() == ("", error)


SATELLITE = os.environ.get("WYOMING_SATELLITE_PYTHON")
"""A Python that has wyoming-satellite, which cannot be installed beside the wyoming that the server needs."""


@pytest.mark.skipif(not SATELLITE, reason="WYOMING_SATELLITE_PYTHON names no Python that has wyoming-satellite")
class TestSatellite:
    """wyoming-satellite, a client that nobody here wrote; its microphone is a script that plays tones in real time."""

    @pytest.fixture
    def satellite(self, tmp_path: Path) -> Iterator[Callable[..., str]]:
        """Start a satellite of a server, and return its own URI."""
        (tmp_path / "tones.raw").write_bytes(pcm(tones(LOW, HIGH, LOW, HIGH, LOW, HIGH)))
        (tmp_path / "mic.py").write_text(
            "import sys, time\n"
            "data = open(sys.argv[1], 'rb').read()\n"
            "for start in range(0, len(data), 2048):\n"
            "    sys.stdout.buffer.write(data[start : start + 2048])\n"
            "    sys.stdout.buffer.flush()\n"
            "    time.sleep(0.064)\n"
        )
        processes = []

        def start(server_uri: str, *wake_words: str) -> str:
            with socket.create_server(("127.0.0.1", 0)) as free:
                uri = f"tcp://127.0.0.1:{free.getsockname()[1]}"
            mic = f"{sys.executable} {tmp_path}/mic.py {tmp_path}/tones.raw"
            command = [SATELLITE, "-m", "wyoming_satellite", "--no-zeroconf", "--name", "x", "--uri", uri]
            command += ["--mic-command", mic, "--snd-command", "cat", "--wake-uri", server_uri]
            for word in wake_words:
                command += ["--wake-word-name", word]
            with open(tmp_path / "satellite.log", "wb") as log:
                processes.append(subprocess.Popen(command, stdout=log, stderr=log))
            return uri

        yield start
        for process in processes:
            process.terminate()
            process.wait()

    def test_hears_its_wake_word_again_and_again(self, model: Model, satellite: Any) -> None:
        """As home, run the satellite, and end each voice command a second after its wake word has begun it."""

        async def commands(home: AsyncClient) -> int:
            await home.write_event(Event("run-satellite"))
            n_commands = 0
            while n_commands < 2:
                event = await home.read_event()
                assert event is not None
                if event.type == "run-pipeline":
                    n_commands += 1
                    await asyncio.sleep(1.0)
                    await home.write_event(Event("transcript", {"text": "x"}))
            return n_commands

        async def scenario() -> int:
            async with serving(model) as running:
                home = AsyncClient.from_uri(satellite(running.uri, HIGH))
                for _ in range(200):
                    with suppress(ConnectionError):
                        await home.connect()
                        break
                    await asyncio.sleep(0.1)
                try:
                    return await asyncio.wait_for(commands(home), ANSWER_S)
                finally:
                    await home.disconnect()

        assert asyncio.run(scenario()) == 2
