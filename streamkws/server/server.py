"""Server: listens, admits clients, and stops."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from itertools import count
from types import TracebackType
from typing import Any

from wyoming.info import Attribution, Info, WakeModel, WakeProgram

from streamkws.errors import MissingExtraError
from streamkws.model_set import Models, ModelSet
from streamkws.server.announce import Announcement
from streamkws.server.client import Client
from streamkws.server.config import Address, ServerConfig, is_loopback, parse_host_port
from streamkws.server.detectors import DetectorPool
from streamkws.server.framing import MAX_HEADER_BYTES, Refusal
from streamkws.server.log import about
from streamkws.server.transport import peer, reason, remove_stale_socket, standard_streams
from streamkws.server.web import Page, Web

MAX_TASKS = 4
"""Connections for each that may be served, with those that are gone and not yet answered, and those sent away."""

STUCK_S = 5.0
"""After so many seconds in which audio waited and no thread has heard a piece of it, a server is not healthy."""

_log = logging.getLogger(__package__)


class Server:
    """Spots keywords for many clients at once with shared models. All its methods belong to one event loop.

    model: as for Detector, one or several; shared by all clients. config: the settings; None is ServerConfig().
    Raises ConfigError for a threshold or keyword that no model knows, and for models that cannot hear one stream.

    models: those that hear. keywords: those that clients may ask for.
    uri: where it listens, with the port that was taken.
    metrics_uri: where its metrics are, http://HOST:PORT with the port that was taken; None for nowhere.
    metrics: what it has counted.
    info: the answer to a describe message.
    """

    def __init__(self, model: Models, config: ServerConfig | None = None) -> None:
        self.models = ModelSet(model)
        self.config = ServerConfig() if config is None else config
        self._pool = DetectorPool(self.models, self.config)
        self.keywords = self._pool.keywords
        self.uri = self.config.uri
        self.metrics_uri: str | None = None
        self.metrics = self._pool.metrics
        self.info = _info(self.models, self.keywords).event()
        self._listening: asyncio.AbstractServer | None = None
        self._socket_file: tuple[str, int] | None = None  # path and inode
        self._announcement: Announcement | None = None
        self._web: Web | None = None
        self._clients: set[Client] = set()
        self._tasks: dict[asyncio.Task[None], Client] = {}  # of all connections, also of refused clients
        self._numbers = count(1)
        self._ended = asyncio.Event()
        self._started = self._stopped = False

    @property
    def n_clients(self) -> int:
        """Clients that are being served and not gone."""
        return len(self._clients)

    @property
    def n_waiting(self) -> int:
        """Messages that came and are not answered yet, of all clients."""
        return sum(client.n_waiting for client in self._tasks.values())

    async def start(self) -> None:
        """Begin to listen.

        Raises OSError for an address that cannot be listened on, MissingExtraError if it is to be announced and
        zeroconf is not installed, or to have metrics and prometheus-client is not.
        """
        try:
            if self.config.metrics is not None:
                await self._show_metrics(*parse_host_port(self.config.metrics))
            await self._listen()
            self._started = True
        except BaseException:
            await self.stop()
            raise

    async def serve(self) -> None:
        """Wait until end or stop is called; a server on stdio:// also ends with its client."""
        await self._ended.wait()

    def end(self) -> None:
        """Make serve return; a signal handler can call it."""
        self._ended.set()

    async def stop(self) -> None:
        """Stop listening and close every connection."""
        self.end()
        self._stopped = True
        if self._announcement is not None:
            await self._announcement.withdraw()
            self._announcement = None
        if self._listening is not None:
            self._listening.close()
        tasks = dict(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for client in tasks.values():
            client.abort()  # a task that was cancelled before it ran has closed nothing
        if self._listening is not None:
            await self._listening.wait_closed()
            self._listening = None
        if self._socket_file is not None:
            path, inode = self._socket_file
            with suppress(OSError):
                if os.stat(path).st_ino == inode:  # else it belongs to another server by now
                    os.unlink(path)
            self._socket_file = None
        if self._web is not None:  # which says until here that the server is closing
            await self._web.stop()
            self._web = None
        self._pool.close()

    async def __aenter__(self) -> Server:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _show_metrics(self, host: str, port: int) -> None:
        try:
            import prometheus_client  # noqa: F401  # to tell a missing extra from a bug further down
        except ImportError:
            raise MissingExtraError('metrics need prometheus-client: pip install "streamkws[metrics]"') from None
        from streamkws.server.exposition import CONTENT_TYPE, Exposition

        exposition = Exposition(self.metrics, lambda: self.n_clients, lambda: self.n_waiting)
        pages = {"/metrics": lambda: Page(HTTPStatus.OK, CONTENT_TYPE, exposition.text()), "/health": self._health}
        self._web = Web(pages)
        await self._web.start(host, port)
        self.metrics_uri = self._web.uri
        if not is_loopback(host):
            extra = about("open-address", uri=self.metrics_uri)
            _log.warning("%s: whoever reaches this address may read the metrics", self.metrics_uri, extra=extra)

    def _health(self) -> Page:
        """Whether the server accepts clients and hears them."""
        if self._ended.is_set():
            state = "closing"
        elif not self._started:
            state = "starting"
        elif self._pool.stuck_s > STUCK_S:
            state = "stuck"
        else:
            state = "ok"
        body = json.dumps({"status": state, "clients": self.n_clients})
        status = HTTPStatus.OK if state == "ok" else HTTPStatus.SERVICE_UNAVAILABLE
        return Page(status, "application/json", f"{body}\n".encode())

    async def _listen(self) -> None:
        address = Address.parse(self.config.uri)
        if address.scheme == "stdio":
            task = self._admit(*await standard_streams(MAX_HEADER_BYTES))
            task.add_done_callback(lambda _: self.end())
            return
        try:
            if address.scheme == "unix":
                remove_stale_socket(address.path)
                self._listening = await asyncio.start_unix_server(self._accept, address.path, limit=MAX_HEADER_BYTES)
                self._socket_file = address.path, os.stat(address.path).st_ino
                return
            self._listening = await asyncio.start_server(
                self._accept, address.host, address.port, limit=MAX_HEADER_BYTES
            )
        except OSError as error:
            raise OSError(error.errno, f"cannot listen on {self.config.uri}: {reason(error)}") from None
        hosts = {bound.getsockname()[0] for bound in self._listening.sockets}
        port = self._listening.sockets[0].getsockname()[1]
        self.uri = f"tcp://{f'[{address.host}]' if ':' in address.host else address.host}:{port}"
        if not all(map(is_loopback, hosts)):
            extra = about("open-address", uri=self.uri)
            _log.warning(
                "%s: whoever reaches this address may connect; Wyoming knows no passwords", self.uri, extra=extra
            )
        if self.config.zeroconf is not None:
            self._announcement = await Announcement.make(self.config.zeroconf, min(hosts), port)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._stopped:
            writer.transport.abort()  # asyncio was still making this connection when the server stopped listening
        else:
            self._admit(reader, writer)

    def _admit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> asyncio.Task[None]:
        """Serve a client in a task of its own, or refuse it if there are too many."""
        name = f"client {next(self._numbers)}{peer(writer)}"
        client = Client(name, reader, writer, self.config, self._pool, self.info, self._clients.discard)
        limit = self.config.max_clients
        if len(self._clients) < limit and len(self._tasks) < MAX_TASKS * limit:
            self._clients.add(client)
            self.metrics.n_clients += 1
            work = client.serve
        elif len(self._tasks) < 2 * limit:
            work = partial(client.refuse, Refusal("busy", f"expected at most {limit} clients, got one more"))
        else:
            work = partial(client.drop, "crowd", "others are being sent away already")
        task = asyncio.get_running_loop().create_task(self._attend(client, work))
        self._tasks[task] = client
        task.add_done_callback(self._tasks.pop)
        return task

    async def _attend(self, client: Client, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do the work for a client, and close its connection."""
        try:
            await work()
        except Exception:
            self.metrics.n_errors += 1
            extra = about("bug", client=client.name)
            _log.exception("%s: ended by a bug in the server", client.name, extra=extra)
        finally:
            self._clients.discard(client)
            await client.close()


def _info(models: ModelSet, keywords: Iterable[str]) -> Info:
    """Return what Home Assistant shows of the server: a wake word model for each keyword."""
    from streamkws import __version__

    attribution = Attribution(name="streamkws", url="https://doi.org/10.1109/ICMLA.2019.00127")
    wake_words = [
        WakeModel(
            name=keyword,
            description=keyword,
            phrase=keyword,
            attribution=attribution,
            installed=True,
            version=models.model_of(keyword).name,
            languages=[],
        )
        for keyword in keywords
    ]
    program = WakeProgram(
        name="streamkws",
        description="Streaming keyword spotting with low-bit integer kernels",
        attribution=attribution,
        installed=True,
        version=__version__,
        models=wake_words,
    )
    return Info(wake=[program])
