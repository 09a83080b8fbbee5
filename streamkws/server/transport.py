"""Sockets and pipes: what asyncio leaves to do."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat


async def standard_streams(limit: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Return standard input and output as streams. They belong to the caller and stay open.

    limit: the longest line that the reader returns, in bytes.
    Raises OSError unless both are pipes, sockets or terminals.
    """
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=limit)
    if not (_can_be_awaited(0) and _can_be_awaited(1)):
        raise OSError(errno.ENOTSUP, "cannot listen on stdio://: expected pipes as standard input and output")
    source, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(os.dup(0), "rb", 0)
    )
    # the writer needs a protocol with flow control, and only the one for readers has it
    sink, protocol = await loop.connect_write_pipe(
        lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader()), os.fdopen(os.dup(1), "wb", 0)
    )
    return reader, _PipeWriter(sink, protocol, source, loop)


def _can_be_awaited(descriptor: int) -> bool:
    """Return whether a descriptor is open and an event loop can wait for it; it cannot for a file or /dev/null."""
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(descriptor)


class _PipeWriter(asyncio.StreamWriter):
    """A writer to one pipe; it also closes the pipe that is read from."""

    def __init__(
        self,
        transport: asyncio.WriteTransport,
        protocol: asyncio.BaseProtocol,
        source: asyncio.ReadTransport,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(transport, protocol, None, loop)
        self._source = source

    def close(self) -> None:
        self._source.close()
        super().close()


def remove_stale_socket(path: str) -> None:
    """Remove the unix socket of a server that was killed. asyncio alone would also remove that of a running server.

    Raises OSError for a socket that a server listens on, and for a file that is no socket.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def peer(writer: asyncio.StreamWriter) -> str:
    """Return " (ADDRESS:PORT)" of the other end of a connection; "" where it has none."""
    name = writer.get_extra_info("peername")
    return f" ({name[0]}:{name[1]})" if isinstance(name, tuple) else ""


def keep_alive(writer: asyncio.StreamWriter) -> None:
    """Let the operating system find out when the machine at the other end is gone."""
    connection = writer.get_extra_info("socket")
    if connection is not None and connection.family in (socket.AF_INET, socket.AF_INET6):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def reason(error: OSError) -> str:
    """Return why an address cannot be used, without the address, which asyncio's own text repeats."""
    if isinstance(error, socket.gaierror) or not error.errno:
        return str(error.strerror or error)
    return os.strerror(error.errno)
