"""server.framing: messages that break the protocol or its limits, and what clients are told about them."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from tones import pcm, tones, tones_model
from wyoming.client import AsyncClient
from wyoming.error import Error
from wyoming.event import Event
from wyoming_talk import (
    CHUNK,
    HIGH,
    LOW,
    SILENT,
    answers,
    chunks,
    exchange,
    heard,
    message,
    peaks,
    raw_exchange,
    serving,
)

from streamkws import Model


@pytest.fixture(scope="module")
def model() -> Model:
    return tones_model()


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


class TestData:
    def test_data_in_the_first_line_and_after_it(self, model: Model) -> None:
        sent = b'{"type": "ping", "data": {"text": "here"}}\n'
        sent += b'{"type": "ping", "data": {"text": "no"}, "data_length": 17}\n{"text": "there"}'
        assert [event.data["text"] for event in exchange(model, sent)] == ["here", "there"]


class TestLimit:
    def test_payload_limit_is_a_setting(self, model: Model) -> None:
        assert exchange(model, message("audio-chunk", bytes(100), **CHUNK), max_payload_bytes=100) == []
        (event,) = exchange(model, message("audio-chunk", bytes(102), **CHUNK), max_payload_bytes=100)
        assert event.data["text"] == "expected payload_length of at most 100, got 102"
