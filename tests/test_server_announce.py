"""server.announce: the entry in the local network, in a fake zeroconf."""

from __future__ import annotations

import asyncio
import errno
import sys
import types
from collections.abc import Awaitable
from typing import Any

import pytest
from tones import tones_model
from wyoming_talk import (
    serving,
)

from streamkws import Model
from streamkws.errors import MissingExtraError
from streamkws.server import Server, ServerConfig, announce


@pytest.fixture(scope="module")
def model() -> Model:
    return tones_model()


class FakeZeroconf(types.ModuleType):
    """Stands in for zeroconf.asyncio, which needs a network; notes what it is told."""

    def __init__(self) -> None:
        super().__init__("zeroconf.asyncio")
        told = self.told = []
        self.failure: Exception | None = None
        fake = self

        class AsyncServiceInfo:
            def __init__(self, kind: str, name: str, port: int, parsed_addresses: list[str]) -> None:
                self.name = name
                told.append(("service", kind, name, port, parsed_addresses))

        class AsyncZeroconf:
            def __init__(self, interfaces: list[str]) -> None:
                told.append(("interfaces", interfaces))

            async def async_register_service(self, service: Any, allow_name_change: bool) -> Awaitable[None]:
                told.append(("register", service.name, allow_name_change))
                if fake.failure is not None:
                    raise fake.failure
                return asyncio.sleep(0)

            async def async_unregister_service(self, service: Any) -> Awaitable[None]:
                told.append(("unregister", service.name))
                return asyncio.sleep(0)

            async def async_close(self) -> None:
                told.append(("close",))

        self.AsyncServiceInfo, self.AsyncZeroconf = AsyncServiceInfo, AsyncZeroconf


class TestZeroconf:
    def install(self, fake: FakeZeroconf, monkeypatch: pytest.MonkeyPatch) -> None:
        package = types.ModuleType("zeroconf")
        package.Error = ArithmeticError  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "zeroconf", package)
        monkeypatch.setitem(sys.modules, "zeroconf.asyncio", fake)
        monkeypatch.setattr(announce, "own_address", lambda: "192.0.2.7")

    def test_comes_and_goes_with_the_server(self, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
        fake = FakeZeroconf()
        self.install(fake, monkeypatch)

        async def scenario() -> int:
            async with serving(model, "tcp://0.0.0.0:0", zeroconf="kitchen") as running:
                return int(running.uri.rpartition(":")[2])

        port = asyncio.run(scenario())
        kind, name = "_wyoming._tcp.local.", "kitchen._wyoming._tcp.local."
        assert fake.told == [
            ("service", kind, name, port, ["192.0.2.7"]),
            ("interfaces", ["192.0.2.7"]),
            ("register", name, True),
            ("unregister", name),
            ("close",),
        ]

    def test_name_that_cannot_be(self, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
        fake = FakeZeroconf()
        fake.failure = ArithmeticError("no control characters")
        self.install(fake, monkeypatch)
        with pytest.raises(OSError, match="cannot be announced by zeroconf as 'x': no control characters"):
            asyncio.run(Server(model, ServerConfig("tcp://0.0.0.0:0", zeroconf="x")).start())
        assert fake.told[-1] == ("close",)

    def test_no_network(self, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail() -> str:
            raise OSError(errno.ENETUNREACH, "x")

        self.install(FakeZeroconf(), monkeypatch)
        monkeypatch.setattr(announce, "own_address", fail)
        with pytest.raises(OSError, match="cannot be announced by zeroconf as 'x': Network is unreachable"):
            asyncio.run(Server(model, ServerConfig("tcp://0.0.0.0:0", zeroconf="x")).start())

    def test_is_missing(self, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "zeroconf.asyncio", None)
        monkeypatch.setitem(sys.modules, "zeroconf", None)
        with pytest.raises(MissingExtraError, match=r'being found needs zeroconf: pip install "streamkws\[zeroconf\]"'):
            asyncio.run(Server(model, ServerConfig("tcp://0.0.0.0:0", zeroconf="kitchen")).start())
