"""Messages of one client that wait for their answers."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from wyoming.event import Event

INBOX_BYTES = 1 << 18
"""When so many bytes wait, the connection is not read any more; the sender's socket then fills up."""

EVENT_BYTES = 1 << 10
"""What a message counts beside its payload, so that many small messages are bounded as well."""


class Message(NamedTuple):
    """A message. came_s: when all of it had been read, on the loop's clock."""

    event: Event
    came_s: float


class Inbox:
    """Messages that wait for their answers, bounded in bytes."""

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._n_bytes = 0
        self._has_ended = False
        self._error: Exception | None = None
        self._ready = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    def __len__(self) -> int:
        return len(self._messages)

    async def put(self, event: Event) -> None:
        """Add a message, and wait until there is room for another."""
        self._messages.append(Message(event, asyncio.get_running_loop().time()))
        self._n_bytes += EVENT_BYTES + len(event.payload or b"")
        self._ready.set()
        if self._n_bytes >= INBOX_BYTES:
            self._room.clear()
        await self._room.wait()

    def end(self, error: Exception | None) -> None:
        """Note that no more messages come. error: the reason; None if the client just left."""
        self._has_ended = True
        self._error = error
        self._ready.set()

    async def take(self) -> list[Message]:
        """Wait for messages and return all that came, in order.

        At the end, return an empty list, or raise the error that was the reason.
        """
        await self._ready.wait()
        messages, self._messages = self._messages, []
        self._n_bytes = 0
        self._room.set()
        if not self._has_ended:
            self._ready.clear()
        elif not messages and self._error is not None:
            raise self._error
        return messages
