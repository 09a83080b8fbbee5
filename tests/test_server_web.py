"""server.web: requests over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from wyoming_talk import ANSWER_S, get

from streamkws.server import web as web_module
from streamkws.server.web import Page, Web


@asynccontextmanager
async def listening() -> AsyncIterator[Web]:
    web = Web({"/a": lambda: Page(200, "text/plain", b"here\n"), "/down": lambda: Page.plain(503)})
    await web.start("127.0.0.1", 0)
    try:
        yield web
    finally:
        await asyncio.wait_for(web.stop(), ANSWER_S)


async def connect(web: Web) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", int(web.uri.rpartition(":")[2]))


def exchange(sent: bytes) -> bytes:
    """All that comes back for raw bytes."""

    async def scenario() -> bytes:
        async with listening() as web:
            reader, writer = await connect(web)
            writer.write(sent)
            answer = await asyncio.wait_for(reader.read(), ANSWER_S)
            writer.close()
            return answer

    return asyncio.run(scenario())


def test_page() -> None:
    head, body = exchange(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n").split(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n")
    assert b"\r\nConnection: close" in head and body == b"here\n"


def test_head_has_no_body() -> None:
    answer = exchange(b"HEAD /a HTTP/1.0\r\n\r\n")
    assert b"Content-Length: 5\r\n" in answer and answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /a?x=1 HTTP/1.1\r\n\r\n", b"200 OK"),
        (b"GET http://localhost:9400/a HTTP/1.1\r\n\r\n", b"200 OK"),
        (b"GET HTTP://[::1]/a?x=http://y HTTP/1.1\r\n\r\n", b"200 OK"),
        (b"GET http://localhost HTTP/1.1\r\n\r\n", b"404 Not Found"),
        (b"GET ftp://localhost/a HTTP/1.1\r\n\r\n", b"404 Not Found"),
        (b"GET /down HTTP/1.1\r\n\r\n", b"503 Service Unavailable"),
        (b"GET / HTTP/1.1\r\n\r\n", b"404 Not Found"),
        (b"GET /\xff HTTP/1.1\r\n\r\n", b"404 Not Found"),
        (b"POST /a HTTP/1.1\r\n\r\n", b"405 Method Not Allowed"),
        (b"\r\n\r\n", b"400 Bad Request"),
        (b"GET /a\r\n\r\n", b"400 Bad Request"),
        (b'{"type": "describe"}\n\r\n\r\n', b"400 Bad Request"),
        (b"GET /a HTTP/1.1\r\nX: " + b"x" * web_module.MAX_REQUEST_BYTES + b"\r\n\r\n", b"400 Bad Request"),
    ],
)
def test_status(sent: bytes, status: bytes) -> None:
    assert exchange(sent).startswith(b"HTTP/1.1 " + status + b"\r\n")


def test_one_that_asks_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_module, "REQUEST_S", 0.2)
    assert exchange(b"GET /a HTTP/1.1\r\n") == b""


def test_silent_connections_hold_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """While as many were silent as there may be, /health was refused: monitoring took the server for dead."""
    monkeypatch.setattr(web_module, "MAX_REQUESTS", 2)

    async def scenario() -> None:
        async with listening() as web:
            silent = []
            for _ in range(2):
                silent.append(await connect(web))
                while len(web._tasks) < len(silent):
                    await asyncio.sleep(0.01)
            for _ in range(3):
                assert await get(f"{web.uri}/a") == (200, "here\n")
            assert await asyncio.wait_for(silent[0][0].read(), ANSWER_S) == b""  # the one that came first is gone
            silent[1][1].write(b"GET /a HTTP/1.1\r\n\r\n")  # the other may still ask
            assert (await asyncio.wait_for(silent[1][0].read(), ANSWER_S)).endswith(b"here\n")
            many = [await connect(web) for _ in range(20)]
            assert await get(f"{web.uri}/a") == (200, "here\n")
            assert len(web._tasks) <= 2
            for _, writer in [*silent, *many]:
                writer.close()

    asyncio.run(scenario())


def test_stop_does_not_wait_for_those_that_ask_nothing() -> None:
    async def scenario() -> None:
        async with listening() as web:
            reader, writer = await connect(web)
            while not web._tasks:
                await asyncio.sleep(0.01)
        assert await asyncio.wait_for(reader.read(), ANSWER_S) == b""
        writer.close()

    asyncio.run(scenario())


def test_port_in_use() -> None:
    async def scenario() -> None:
        async with listening() as web:
            where = web.uri.removeprefix("http://")
            other = Web({})
            with pytest.raises(OSError, match=f"^.*cannot listen on {where} for metrics: Address already in use$"):
                await other.start("127.0.0.1", int(where.rpartition(":")[2]))
            await other.stop()

    asyncio.run(scenario())
