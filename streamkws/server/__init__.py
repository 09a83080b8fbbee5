"""A keyword spotter for others, over the Wyoming protocol, which Home Assistant and its satellites speak.

    async with Server(load_model("wakewords"), ServerConfig("tcp://127.0.0.1:10400")) as server:
        await server.serve()

config: ServerConfig, and the addresses that a server can listen on.
server: Server, which listens, admits clients and stops.
client: one connection: a task reads its messages into an inbox, another answers them in order.
inbox: messages that wait for their answers, bounded in bytes.
metrics: what a server counts. exposition: the same as Prometheus reads it. web: both over HTTP, with its health.
framing: reads messages from a connection, and refuses those that break the protocol or its limits.
stream: a client's audio from start to stop: its format, its detector, the client's clock.
detectors: the threads in which detectors run, and detectors that are free.
log: what the log's lines are about, for programs.
transport: sockets and pipes.
announce: the server's entry in the local network, where Home Assistant finds it.

Every client of a server uses the same model. Detectors run in a few threads beside the event loop. A thread gets short
pieces of audio, so that a client who sends much leaves room for the others. An error is the last message that a client
gets; it does not disturb other clients.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from streamkws.errors import MissingExtraError
from streamkws.server.config import DEFAULT_URI, ServerConfig

if TYPE_CHECKING:
    from streamkws.server.server import Server

__all__ = ["DEFAULT_URI", "Server", "ServerConfig"]

logging.getLogger(__name__).addHandler(logging.NullHandler())

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Import Server when it is first used: unlike ServerConfig, whose defaults --help shows, it needs wyoming."""
        if name != "Server":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        try:
            import wyoming  # noqa: F401  # to tell a missing extra from a bug further down
        except ImportError:
            raise MissingExtraError('the server needs wyoming: pip install "streamkws[server]"') from None
        from streamkws.server.server import Server

        return Server
