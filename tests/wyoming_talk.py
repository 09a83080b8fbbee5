"""What the tests say to a Wyoming server over real sockets, with the wyoming package's own client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from tones import KEYWORDS, RATE
from wyoming.audio import AudioChunk
from wyoming.client import AsyncClient
from wyoming.error import Error
from wyoming.event import Event, async_read_event
from wyoming.ping import Ping, Pong

from streamkws import Model, detect
from streamkws.model_set import Models
from streamkws.server import Server, ServerConfig

ANSWER_S = 30.0
LOW, HIGH = KEYWORDS
FREE_PORT = "tcp://127.0.0.1:0"
CHUNK = {"rate": RATE, "width": 2, "channels": 1}


@asynccontextmanager
async def serving(model: Models, uri: str = FREE_PORT, **settings: Any) -> AsyncIterator[Server]:
    async with Server(model, ServerConfig(uri, **settings)) as running:
        yield running


def conversation(
    model: Models, talk: Callable[[AsyncClient], Awaitable[Any]], uri: str = FREE_PORT, **settings: Any
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


async def get(url: str) -> tuple[int, str]:
    """Status and body of a page over HTTP."""
    where, _, path = url.removeprefix("http://").partition("/")
    host, _, port = where.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(f"GET /{path} HTTP/1.1\r\nHost: {where}\r\n\r\n".encode())
        answer = await asyncio.wait_for(reader.read(), ANSWER_S)
    finally:
        writer.close()
    if not answer:
        raise ConnectionResetError(f"no answer from {url}")
    head, _, body = answer.decode().partition("\r\n\r\n")
    return int(head.split()[1]), body


def message(kind: str, payload: bytes = b"", **data: Any) -> bytes:
    """A message's bytes, with all of its data in the first line."""
    return json.dumps({"type": kind, "data": data, "payload_length": len(payload)}).encode() + b"\n" + payload


SILENT = message("audio-chunk", bytes(64), **CHUNK)
