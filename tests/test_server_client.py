"""server.client: a conversation, and clients that send too much, read too little or fall silent."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
from typing import Any

import numpy as np
import pytest
from tones import RATE, pcm, tones, tones_model
from wyoming.audio import AudioStart, AudioStop
from wyoming.client import AsyncClient
from wyoming.error import Error
from wyoming.event import Event
from wyoming.info import Describe, Info
from wyoming.ping import Ping, Pong
from wyoming.wake import Detect, Detection
from wyoming_talk import (
    ANSWER_S,
    CHUNK,
    HIGH,
    LOW,
    SILENT,
    answers,
    chunks,
    conversation,
    error_of,
    heard,
    message,
    peaks,
    raw_exchange,
    say,
    serving,
)

from streamkws import Model, detect
from streamkws.server import Server, inbox
from streamkws.server import client as client_module
from streamkws.server.stream import Stream


@pytest.fixture(scope="module")
def model() -> Model:
    return tones_model()


class TestProtocol:
    @pytest.mark.parametrize("n_bytes", [30, 320, 2046, 1 << 20])
    def test_detections_are_those_of_detect(self, model: Model, n_bytes: int) -> None:
        audio = tones(LOW, HIGH, HIGH, LOW)

        async def talk(client: AsyncClient) -> list[Event]:
            await say(client, AudioStart(RATE, 2, 1), *chunks(pcm(audio), n_bytes), AudioStop())
            return await answers(client)

        expected = peaks(model, np.frombuffer(pcm(audio), np.int16))
        assert [keyword for keyword, _ in expected] == [LOW, HIGH, HIGH, LOW]
        assert heard(conversation(model, talk)) == expected

    def test_a_clients_turn_is_a_quarter_of_a_second(self, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
        """However much it sends at once, so that the other clients are heard meanwhile."""
        turns: list[int] = []
        push = Stream.push

        def noted(stream: Stream, audio: Any) -> Any:
            turns.append(len(audio))
            return push(stream, audio)

        monkeypatch.setattr(Stream, "push", noted)
        audio = pcm(tones(LOW, HIGH))

        async def talk(client: AsyncClient) -> list[Event]:
            await say(client, AudioStart(RATE, 2, 1), *chunks(audio, 1 << 20), AudioStop())
            return await answers(client)

        assert [keyword for keyword, _ in heard(conversation(model, talk))] == [LOW, HIGH]
        assert max(turns) == RATE * 2 // 4 and sum(turns) == len(audio)

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

    def test_near_misses_are_logged_and_never_sent(self, model: Model, caplog: pytest.LogCaptureFixture) -> None:
        """Neither while the audio comes nor at its end; a stream with nothing else has not-detected."""
        tail = tones(LOW)[: int(1.08 * RATE)]

        async def talk(client: AsyncClient) -> list[str]:
            for audio in (tones(LOW, LOW), tail, tones(LOW, HIGH)):
                await say(client, AudioStart(RATE, 2, 1), *chunks(pcm(audio)), AudioStop())
            return [event.type for event in await answers(client)]

        caplog.set_level(logging.INFO)
        told = conversation(model, talk, thresholds={LOW: 1.0}, near=0.1)
        assert told == ["not-detected", "not-detected", "detection"]
        near = [line for line in caplog.messages if "nearly heard low tone at " in line]
        assert len(near) == 4 and all(re.search(r" at \d+ ms, score 0\.\d\d$", line) for line in near)

    def test_near_changes_no_detection(self, model: Model) -> None:
        audio = tones(LOW, HIGH, HIGH, LOW)

        async def talk(client: AsyncClient) -> list[Event]:
            await say(client, AudioStart(RATE, 2, 1), *chunks(pcm(audio)), AudioStop())
            return await answers(client)

        assert conversation(model, talk, near=0.05) == conversation(model, talk)

    def test_near_misses_only_of_names_asked_for(self, model: Model, caplog: pytest.LogCaptureFixture) -> None:
        async def talk(client: AsyncClient) -> list[Event]:
            await say(client, Detect([HIGH]), *chunks(pcm(tones(LOW))), AudioStop())
            return await answers(client)

        caplog.set_level(logging.INFO)
        assert [event.type for event in conversation(model, talk, thresholds=1.0, near=0.1)] == ["not-detected"]
        assert "nearly heard" not in caplog.text

    @pytest.mark.parametrize("n_bytes", [320, 2046, 1 << 20])
    @pytest.mark.parametrize("gain", [1.0, 0.25])
    def test_score_and_level(self, model: Model, n_bytes: int, gain: float) -> None:
        """Beside what Wyoming names, for whoever has several rooms; the same however the audio is cut."""
        audio = gain * tones(LOW, HIGH)
        samples = np.frombuffer(pcm(audio), np.int16)

        async def talk(client: AsyncClient) -> list[Event]:
            await say(client, *chunks(pcm(audio), n_bytes), AudioStop())
            return await answers(client)

        events = conversation(model, talk, thresholds=0.3)
        hits = list(detect(samples, model, 0.3))
        assert len(events) == len(hits) == 2
        for event, hit in zip(events, hits, strict=True):
            word = samples[round(hit.start * RATE) : round(hit.end * RATE)] / 32768
            assert event.data["score"] == round(hit.score, 4)
            assert event.data["level_db"] == round(10 * np.log10(np.mean(word**2)), 1)
            assert Detection.from_event(event) == Detection(hit.keyword, round(1000 * hit.peak))

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


class TestPace:
    def test_slow_reader_is_given_up(
        self, model: Model, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(client_module, "SEND_S", 0.2)
        monkeypatch.setattr(client_module, "LINGER_S", 0.2)

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
        push = Stream.push
        monkeypatch.setattr(Stream, "push", lambda *arguments: gate.wait(ANSWER_S) and push(*arguments))
        piece = message("audio-chunk", bytes(60_000), **CHUNK)
        most = inbox.INBOX_BYTES + 20_000_000  # what sockets hold on this machine is its own affair

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
                assert task._inbox._n_bytes < 2 * inbox.INBOX_BYTES
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

        monkeypatch.setattr(Stream, "push", fail)

        async def scenario() -> None:
            async with serving(model) as running, AsyncClient.from_uri(running.uri) as other:
                assert await raw_exchange(running.uri, SILENT) == []
                assert await answers(other) == []

        asyncio.run(scenario())
        assert "client 2 (127.0.0.1:" in caplog.text and "ended by a bug in the server" in caplog.text
        assert "ZeroDivisionError: a bug" in caplog.text


class TestIdle:
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
