"""server.config: settings and addresses."""

from __future__ import annotations

import re
import socket
from typing import Any

import pytest

from streamkws import ConfigError
from streamkws.server import ServerConfig
from streamkws.server.config import parse_host_port


class TestAddress:
    @pytest.mark.parametrize(
        "uri",
        [
            "",
            "127.0.0.1:10400",
            "tcp://",
            "tcp://:10400",
            "tcp://localhost",
            "tcp://localhost:x",
            "tcp://localhost:70000",
            "tcp://localhost:1/path",
            "tcp://user@localhost:1",
            "tcp://localhost:1?x",
            "tcp://[::1:1",
            f"tcp://{'a' * 64}:1",
            "http://localhost:1",
            "unix://",
            "unix:///",
            "unix://run/s.sock",
            "stdio://x",
        ],
    )
    def test_uri_that_is_none(self, uri: str) -> None:
        message = f"expected tcp://HOST:PORT, unix:///PATH or stdio://, got {uri!r}"
        with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
            ServerConfig(uri)

    def test_system_without_unix_sockets(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delattr(socket, "AF_UNIX")
        with pytest.raises(ConfigError, match="expected tcp://HOST:PORT on this system, which has no unix sockets"):
            ServerConfig("unix:///run/s.sock")


class TestHostPort:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("127.0.0.1:9400", ("127.0.0.1", 9400)),
            ("localhost:0", ("localhost", 0)),
            ("[::1]:9400", ("::1", 9400)),
        ],
    )
    def test_host_and_port(self, text: str, expected: tuple[str, int]) -> None:
        assert parse_host_port(text) == expected

    @pytest.mark.parametrize(
        "text",
        ["", "9400", ":9400", "localhost", "localhost:", "localhost:x", "localhost:70000", "localhost:1/x", "a@b:1",
         "http://localhost:1", "::1:9400", "a:1?x", f"{'a' * 64}:1"],
    )  # fmt: skip
    def test_text_that_is_none(self, text: str) -> None:
        with pytest.raises(ConfigError, match=f"^expected HOST:PORT for metrics, got {re.escape(repr(text))}$"):
            ServerConfig(metrics=text)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_clients": 0}, "expected max_clients of at least 1, got 0"),
        ({"max_payload_bytes": 0}, "expected max_payload_bytes of at least 1, got 0"),
        ({"n_threads": -1}, "expected n_threads of at least 1, got -1"),
        ({"idle_s": -1.0}, "expected idle_s of at least 0, got -1.0"),
        ({"idle_s": float("nan")}, "expected idle_s of at least 0, got nan"),
        ({"zeroconf": "x"}, "expected a tcp:// address that others can reach for zeroconf, got tcp://127.0.0.1:10400"),
        (
            {"zeroconf": "x", "uri": "unix:///s"},
            "expected a tcp:// address that others can reach for zeroconf, got unix:///s",
        ),
        ({"zeroconf": "", "uri": "tcp://0.0.0.0:1"}, "expected a zeroconf name of 1 to 63 bytes, got ''"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        ServerConfig(**settings)
