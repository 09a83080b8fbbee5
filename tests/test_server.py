"""Server: who is admitted, what it says of itself, how it ends."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pytest
from tones import KEYWORDS, RATE, other_model, pcm, tones, tones_model
from wyoming.client import AsyncClient
from wyoming.info import Describe, Info
from wyoming.wake import Detect
from wyoming_talk import (
    ANSWER_S,
    CHUNK,
    FREE_PORT,
    HIGH,
    LOW,
    SILENT,
    answers,
    chunks,
    conversation,
    heard,
    message,
    raw_exchange,
    say,
    serving,
)

from streamkws import ConfigError, Model
from streamkws.server import Server, ServerConfig
from streamkws.server import client as client_module


@pytest.fixture(scope="module")
def model() -> Model:
    return tones_model()


class TestInfo:
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


class TestSeveralModels:
    def test_each_wake_word_says_its_model(self, model: Model) -> None:
        async def talk(client: AsyncClient) -> Info:
            await say(client, Describe())
            return Info.from_event(await client.read_event())

        (program,) = conversation([model, other_model()], talk).wake
        versions = [(ww.name, ww.version) for ww in program.models]
        assert versions == [("low tone", "tones.f32"), ("high tone", "tones.f32"), ("bell", "other.w4a8")]

    def test_a_client_hears_both_or_what_it_names(self, model: Model) -> None:
        def asking(names: list[str]) -> Callable[[AsyncClient], Coroutine[Any, Any, list[str]]]:
            async def talk(client: AsyncClient) -> list[str]:
                await say(client, Detect(names=names))
                for chunk in chunks(pcm(tones("low tone", "high tone"))):
                    await say(client, chunk)
                return [keyword for keyword, _ in heard(await answers(client))]

            return talk

        both = [model, other_model()]
        assert conversation(both, asking([])) == ["low tone", "high tone", "bell"]
        assert conversation(both, asking(["bell", "low tone"])) == ["low tone", "bell"]
        with pytest.raises(ConfigError, match="unknown keyword 'x'; the models know: low tone, high tone, bell"):
            Server(both, ServerConfig(keywords=["x"]))


def test_server_checks_keywords_and_thresholds(model: Model) -> None:
    with pytest.raises(ConfigError, match="unknown keyword 'x'; the model knows: low tone, high tone"):
        Server(model, ServerConfig(keywords=["x"]))
    with pytest.raises(ConfigError, match="expected a threshold above 0"):
        Server(model, ServerConfig(thresholds=2.0))


class TestClients:
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
        monkeypatch.setattr(client_module, "LINGER_S", 0.3)

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

    def test_the_place_of_a_client_that_is_gone_is_free_at_once(self, model: Model) -> None:
        """Though its last audio still waits for a thread: 300 such clients within 2 s once were 200 too many."""
        audio = message("audio-chunk", pcm(tones(LOW)), **CHUNK)

        async def scenario() -> None:
            async with serving(model, max_clients=2, n_threads=1) as running:
                port = int(running.uri.rpartition(":")[2])
                blocked = threading.Event()
                running._pool._threads.submit(blocked.wait)
                for _ in range(6):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.write(audio)
                    await writer.drain()
                    writer.close()
                    while running.n_clients or not running._tasks:
                        await asyncio.sleep(0.01)
                assert len(running._tasks) == 6
                assert [event.type for event in await raw_exchange(running.uri, message("ping"))] == ["pong"]
                for _ in range(4):  # those who are gone and not yet answered are limited, too
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.write(audio)
                    writer.close()
                await asyncio.sleep(0.1)
                assert len(running._tasks) <= 4 * 2
                blocked.set()
                while running._tasks:
                    await asyncio.sleep(0.01)
                assert [event.type for event in await raw_exchange(running.uri, message("ping"))] == ["pong"]

        asyncio.run(scenario())

    def test_few_detectors_are_kept(self, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
        async def scenario() -> None:
            async with serving(model, max_clients=5) as running:
                monkeypatch.setitem(type(running._pool).take_back.__globals__, "MAX_SPARE", 2)
                port = int(running.uri.rpartition(":")[2])
                crowd = [await asyncio.open_connection("127.0.0.1", port) for _ in range(5)]
                for _, writer in crowd:
                    writer.write(message("audio-chunk", pcm(tones(LOW)), **CHUNK))
                for reader, _ in crowd:
                    await reader.readline()  # a detection
                for _, writer in crowd:
                    writer.close()
                while running._tasks:
                    await asyncio.sleep(0.01)
                assert len(running._pool._spare) == 2

        asyncio.run(scenario())

    def test_detectors_are_used_again(self, model: Model) -> None:
        """Clients one after the other share one, and hear nothing of each other."""
        half = pcm(tones(LOW)[: int(1.08 * RATE)])

        async def scenario() -> None:
            async with serving(model) as running:
                (spare,) = running._pool._spare
                for _ in range(3):
                    assert await raw_exchange(running.uri, message("audio-chunk", half, **CHUNK)) == []
                    assert running._pool._spare == [spare]
                assert [event.type for event in await raw_exchange(running.uri, SILENT + b"?\n")] == ["error"]
                while running._tasks:  # it waits for the client to read the error
                    await asyncio.sleep(0.01)
                assert running._pool._spare == [spare]

        asyncio.run(scenario())


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
        monkeypatch.setattr(client_module, "LINGER_S", 0.2)

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
