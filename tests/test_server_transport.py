"""server.transport: TCP and unix sockets; pipes are in test_cli_serve."""

from __future__ import annotations

import asyncio
import socket
import stat
from pathlib import Path

import pytest
from tones import pcm, tones, tones_model
from wyoming.audio import AudioStop
from wyoming.client import AsyncClient
from wyoming.event import Event
from wyoming_talk import (
    HIGH,
    answers,
    chunks,
    conversation,
    heard,
    say,
    serving,
)

from streamkws import Model
from streamkws.server import Server, ServerConfig


@pytest.fixture(scope="module")
def model() -> Model:
    return tones_model()


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
