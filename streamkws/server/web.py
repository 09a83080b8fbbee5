"""A few pages over HTTP, in the server's event loop: what monitoring asks for, and no more of HTTP than that takes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import NamedTuple

from streamkws.server.transport import reason

MAX_REQUESTS = 16
"""Connections at the same time; one more takes the place of the one that has been silent for longest."""

MAX_REQUEST_BYTES = 1 << 13
REQUEST_S = 5.0
"""Most bytes of a request, and seconds that a connection may take in all."""


class Page(NamedTuple):
    """What a request gets. status: HTTP's number."""

    status: int
    content_type: str
    body: bytes

    @classmethod
    def plain(cls, status: int) -> Page:
        """A page that only says its status."""
        return cls(status, "text/plain; charset=utf-8", f"{HTTPStatus(status).phrase}\n".encode())


class Web:
    """Answers each HTTP request with a page and the end of the connection.

    pages: what makes the page of each path; called in the event loop, so it must be quick.

    uri: where it listens, with the port that was taken.
    """

    def __init__(self, pages: Mapping[str, Callable[[], Page]]) -> None:
        self.uri = ""
        self._pages = pages
        self._listening: asyncio.Server | None = None
        self._tasks: dict[asyncio.Task[None], None] = {}  # the oldest first

    async def start(self, host: str, port: int) -> None:
        """Begin to listen. Raises OSError for an address that cannot be listened on."""
        shown = f"[{host}]" if ":" in host else host
        try:
            self._listening = await asyncio.start_server(self._accept, host, port, limit=MAX_REQUEST_BYTES)
        except OSError as error:
            raise OSError(error.errno, f"cannot listen on {shown}:{port} for metrics: {reason(error)}") from None
        self.uri = f"http://{shown}:{self._listening.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        """Stop listening and close every connection."""
        if self._listening is None:
            return
        self._listening.close()
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._listening.wait_closed()
        self._listening = None

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._listening is None or not self._listening.is_serving():
            writer.transport.abort()
            return
        if len(self._tasks) >= MAX_REQUESTS:  # an answer takes no time, so that the oldest one has asked nothing yet
            oldest = next(iter(self._tasks))
            del self._tasks[oldest]
            oldest.cancel()
        task = asyncio.get_running_loop().create_task(self._attend(reader, writer))
        self._tasks[task] = None
        task.add_done_callback(lambda done: self._tasks.pop(done, None))
        task.add_done_callback(lambda _: writer.transport.abort())  # also of one that was cancelled before it ran

    async def _attend(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.TimeoutError):  # gone, or too slow
            await asyncio.wait_for(self._answer(reader, writer), REQUEST_S)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return
        except asyncio.LimitOverrunError:
            head = b""
        method, page = self._page(head)
        writer.write(
            f"HTTP/1.1 {page.status} {HTTPStatus(page.status).phrase}\r\n"
            f"Content-Type: {page.content_type}\r\n"
            f"Content-Length: {len(page.body)}\r\n"
            "Cache-Control: no-store\r\n"
            "Connection: close\r\n\r\n".encode()
        )
        if method != b"HEAD":
            writer.write(page.body)
        writer.close()
        await writer.wait_closed()

    def _page(self, head: bytes) -> tuple[bytes, Page]:
        """Return the method that a request's head names, and the page it gets."""
        words = head.split(b"\r\n")[0].split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            return b"", Page.plain(HTTPStatus.BAD_REQUEST)
        method, target, _ = words
        if (absolute := target.partition(b"://"))[0].lower() in (b"http", b"https"):  # as through a proxy
            target = b"/" + absolute[2].partition(b"/")[2]
        if method not in (b"GET", b"HEAD"):
            return method, Page.plain(HTTPStatus.METHOD_NOT_ALLOWED)
        make = self._pages.get(target.split(b"?")[0].decode("latin-1"))
        return method, Page.plain(HTTPStatus.NOT_FOUND) if make is None else make()
