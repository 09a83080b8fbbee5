"""server.metrics and server.exposition: what is counted, asked for over HTTP; and the server's health."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import threading
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from test_server_framing import HOSTILE
from tones import KEYWORDS, RATE, pcm, tones, tones_model
from wyoming.audio import AudioStart, AudioStop
from wyoming.client import AsyncClient
from wyoming_talk import (
    ANSWER_S,
    CHUNK,
    FREE_PORT,
    HIGH,
    LOW,
    SILENT,
    answers,
    chunks,
    get,
    message,
    raw_exchange,
    say,
    serving,
)

from streamkws import Model
from streamkws.server import Server, ServerConfig
from streamkws.server import client as client_module
from streamkws.server import server as server_module
from streamkws.server.metrics import REASONS
from streamkws.server.stream import Stream

WATCHED = "127.0.0.1:0"


@pytest.fixture(scope="module")
def model() -> Model:
    return tones_model()


async def metrics_of(server: Server) -> dict[str, Any]:
    """The value of each metric, by its name without the project's; of one with labels, a value for each."""
    assert server.metrics_uri is not None
    status, body = await get(f"{server.metrics_uri}/metrics")
    assert status == 200
    values: dict[str, Any] = {}
    for family in text_string_to_metric_families(body):
        assert family.name.startswith("streamkws_") and family.documentation.endswith(".")
        for sample in family.samples:
            name = sample.name.removeprefix("streamkws_")
            if sample.labels:
                values.setdefault(name, {}).update({next(iter(sample.labels.values())): sample.value})
            else:
                values[name] = sample.value
    return values


async def health_of(server: Server) -> tuple[int, str]:
    assert server.metrics_uri is not None
    status, body = await get(f"{server.metrics_uri}/health")
    return status, json.loads(body)["status"]


class TestCounts:
    def test_nothing_yet(self, model: Model) -> None:
        async def scenario() -> dict[str, Any]:
            async with serving(model, metrics=WATCHED) as running:
                return await metrics_of(running)

        none = dict.fromkeys(KEYWORDS, 0)
        assert asyncio.run(scenario()) == {
            "clients": 0,
            "waiting_messages": 0,
            "admitted_clients_total": 0,
            "refused_clients_total": dict.fromkeys(REASONS, 0),
            "audio_seconds_total": 0,
            "audio_chunks_total": 0,
            "late_audio_chunks_total": 0,
            "detections_total": none,
            "near_misses_total": none,
            "detecting_seconds_total": 0,
            "errors_total": 0,
        }

    def test_docs_name_every_metric(self, model: Model) -> None:
        async def scenario() -> dict[str, Any]:
            async with serving(model, metrics=WATCHED) as running:
                return await metrics_of(running)

        page = (Path(__file__).parent.parent / "docs" / "home-assistant.md").read_text(encoding="utf-8")
        assert set(re.findall(r"^\| `streamkws_(\w+)` \|", page, re.MULTILINE)) == set(asyncio.run(scenario()))

    def test_a_conversation(self, model: Model) -> None:
        low, both = pcm(tones(LOW)), pcm(tones(LOW, HIGH))
        n_chunks = len(chunks(low)) + len(chunks(both)) + 1

        async def scenario() -> tuple[dict[str, Any], dict[str, Any]]:
            settings: dict[str, Any] = {"metrics": WATCHED, "thresholds": {LOW: 1.0}, "near": 0.1}
            async with serving(model, **settings) as running:
                async with AsyncClient.from_uri(running.uri) as client:
                    for audio in (low, both):
                        await say(client, AudioStart(RATE, 2, 1), *chunks(audio), *chunks(b""), AudioStop())
                    await client.write_event(chunks(bytes(2))[0].event())
                    await answers(client)
                    during = await metrics_of(running)
                while running._tasks:
                    await asyncio.sleep(0.01)
                return during, await metrics_of(running)

        during, after = asyncio.run(scenario())
        assert (during["clients"], after["clients"]) == (1, 0)
        for values in (during, after):
            assert values["admitted_clients_total"] == 1
            assert values["waiting_messages"] == 0
            assert values["audio_chunks_total"] == n_chunks
            assert values["audio_seconds_total"] == pytest.approx((len(low) + len(both) + 2) / 2 / RATE)
            assert values["detections_total"] == {LOW: 0, HIGH: 1}
            assert values["near_misses_total"] == {LOW: 2, HIGH: 0}
            assert 0 < values["detecting_seconds_total"] < ANSWER_S
            assert set(values["refused_clients_total"].values()) == {0}
            assert (values["late_audio_chunks_total"], values["errors_total"]) == (0, 0)

    def test_another_format_lasts_as_long(self, model: Model) -> None:
        form = {"rate": 8000, "width": 4, "channels": 3}

        async def scenario() -> float:
            async with serving(model, metrics=WATCHED) as running:
                await raw_exchange(running.uri, message("audio-chunk", bytes(8000 * 4 * 3), **form))
                return float((await metrics_of(running))["audio_seconds_total"])

        assert asyncio.run(scenario()) == pytest.approx(1.0)

    def test_refused_by_reason(self, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each code that an error has is counted under it, and REASONS knows it."""
        monkeypatch.setattr(client_module, "LINGER_S", 0.1)
        expected = dict.fromkeys(REASONS, 0)

        async def scenario() -> dict[str, float]:
            async with serving(model, metrics=WATCHED, idle_s=0.3, max_clients=1) as running:
                for sent, code, _ in HOSTILE.values():
                    await raw_exchange(running.uri, sent)
                    expected[code] += 1
                    while running._tasks:
                        await asyncio.sleep(0.005)
                port = int(running.uri.rpartition(":")[2])
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                while running.n_clients < 1:
                    await asyncio.sleep(0.005)
                await raw_exchange(running.uri, SILENT)  # one too many
                while running.n_clients:
                    await asyncio.sleep(0.01)
                writer.close()
                expected.update(busy=1, idle=1)
                refused: dict[str, float] = (await metrics_of(running))["refused_clients_total"]
                return refused

        assert asyncio.run(scenario()) == expected

    def test_clients_that_are_gone_in_the_middle(self, model: Model) -> None:
        piece = message("audio-chunk", bytes(2048), **CHUNK)

        async def scenario() -> dict[str, Any]:
            async with serving(model, metrics=WATCHED) as running:
                for sent in (piece * 3, piece * 3 + piece[:500]):
                    _, writer = await asyncio.open_connection("127.0.0.1", int(running.uri.rpartition(":")[2]))
                    writer.write(sent)
                    await writer.drain()
                    writer.close()
                while running.metrics.n_clients < 2 or running._tasks:
                    await asyncio.sleep(0.01)
                return await metrics_of(running)

        values = asyncio.run(scenario())
        assert (values["clients"], values["admitted_clients_total"], values["waiting_messages"]) == (0, 2, 0)
        assert values["audio_chunks_total"] == 6
        assert values["refused_clients_total"]["cut"] == 1
        assert values["errors_total"] == 0

    def test_bug(self, model: Model, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
        def fail(stream: Any, audio: bytes) -> list[Any]:
            raise ZeroDivisionError("a bug")

        monkeypatch.setattr(Stream, "push", fail)

        async def scenario() -> dict[str, Any]:
            async with serving(model, metrics=WATCHED) as running:
                await raw_exchange(running.uri, SILENT)
                return await metrics_of(running)

        values = asyncio.run(scenario())
        assert (values["errors_total"], values["audio_seconds_total"]) == (1, 0)
        assert [record.levelno for record in caplog.records] == [logging.ERROR]

    def test_late_chunks_and_those_that_wait(self, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
        """The first chunk is not let through for longer than LATE_S, the rest waits behind it; then nothing is late."""
        monkeypatch.setattr(client_module, "LATE_S", 0.2)
        gate = threading.Event()
        push = Stream.push
        monkeypatch.setattr(Stream, "push", lambda *arguments: gate.wait(ANSWER_S) and push(*arguments))
        piece = message("audio-chunk", bytes(64), **CHUNK)

        async def scenario() -> None:
            async with serving(model, metrics=WATCHED) as running, AsyncClient.from_uri(running.uri) as client:
                assert client._writer is not None
                client._writer.write(piece)
                await asyncio.sleep(0.1)
                client._writer.write(4 * piece + message("ping"))
                while (await metrics_of(running))["waiting_messages"] < 6:
                    await asyncio.sleep(0.01)
                await asyncio.sleep(0.3)
                gate.set()
                assert (await client.read_event()).type == "pong"
                for n_chunks in (5, 8):
                    values = await metrics_of(running)
                    assert (values["audio_chunks_total"], values["late_audio_chunks_total"]) == (n_chunks, 5)
                    assert values["waiting_messages"] == 0
                    client._writer.write(3 * piece)
                    await answers(client)

        asyncio.run(asyncio.wait_for(scenario(), ANSWER_S))

    def test_two_servers_count_for_themselves(self, model: Model) -> None:
        async def scenario() -> None:
            async with serving(model, metrics=WATCHED) as first, serving(model, metrics=WATCHED) as second:
                await raw_exchange(first.uri, SILENT)
                assert (await metrics_of(first))["audio_chunks_total"] == 1
                assert (await metrics_of(second))["audio_chunks_total"] == 0

        asyncio.run(scenario())


class TestHealth:
    def test_ok_then_closing(self, model: Model) -> None:
        async def scenario() -> None:
            async with serving(model, metrics=WATCHED) as running:
                assert await health_of(running) == (200, "ok")
                running.end()
                assert await health_of(running) == (503, "closing")
            assert running.metrics_uri is not None
            with pytest.raises(ConnectionError):
                await get(f"{running.metrics_uri}/health")

        asyncio.run(scenario())

    def test_closing_while_clients_are_sent_away(self, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
        """The endpoint answers until all else has ended."""

        async def scenario() -> None:
            running = Server(model, ServerConfig(FREE_PORT, metrics=WATCHED))
            await running.start()
            held = asyncio.Event()
            closing = client_module.Client.close

            async def close(client: Any) -> None:
                await held.wait()
                await closing(client)

            monkeypatch.setattr(client_module.Client, "close", close)
            async with AsyncClient.from_uri(running.uri) as client:
                await answers(client)
                stopping = asyncio.create_task(running.stop())
                await asyncio.sleep(0.05)
                assert await health_of(running) == (503, "closing")
                held.set()
                await asyncio.wait_for(stopping, ANSWER_S)

        asyncio.run(scenario())

    def test_stuck(self, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
        """A thread that does not come back; when it does, the server is well again."""
        monkeypatch.setattr(server_module, "STUCK_S", 0.2)
        gate = threading.Event()
        push = Stream.push
        monkeypatch.setattr(Stream, "push", lambda *arguments: gate.wait(ANSWER_S) and push(*arguments))

        async def scenario() -> None:
            async with serving(model, metrics=WATCHED) as running, AsyncClient.from_uri(running.uri) as client:
                await asyncio.sleep(0.3)  # without audio it waits for nothing
                assert await health_of(running) == (200, "ok")
                await say(client, *chunks(bytes(2000)))
                while await health_of(running) == (200, "ok"):
                    await asyncio.sleep(0.05)
                assert await health_of(running) == (503, "stuck")
                gate.set()
                assert await answers(client) == []
                assert await health_of(running) == (200, "ok")

        asyncio.run(asyncio.wait_for(scenario(), ANSWER_S))

    def test_others_may_read_it(self, model: Model, caplog: pytest.LogCaptureFixture) -> None:
        async def scenario(metrics: str) -> None:
            async with serving(model, metrics=metrics):
                pass

        asyncio.run(scenario(WATCHED))
        assert caplog.text == ""
        asyncio.run(scenario("0.0.0.0:0"))
        assert "whoever reaches this address may read the metrics" in caplog.text
