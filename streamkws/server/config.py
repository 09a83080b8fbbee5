"""The settings of a server, and the addresses that it can listen on."""

from __future__ import annotations

import ipaddress
import math
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from streamkws.errors import ConfigError

DEFAULT_URI = "tcp://127.0.0.1:10400"
"""Where a server listens unless told otherwise; only this machine reaches it."""

LEVEL_S = 2.0
"""Seconds of a client's audio that are kept, to tell how loud a keyword was; 32 kB each."""


@dataclass(frozen=True)
class ServerConfig:
    """Where a server listens, for which keywords, and its limits.

    uri: tcp://HOST:PORT (port 0 takes a free one), unix:///PATH, or stdio:// for one client on standard input and
        output. Everyone who can connect may use the server: Wyoming has no passwords.
    thresholds, keywords: as for Detector.
    near: as for Detector; near misses are logged, and never sent to a client.
    max_clients: clients at the same time; a client beyond that gets an error.
    max_payload_bytes: the most audio of one message.
    idle_s: seconds without a whole message after which a client is disconnected; 0 for never.
    n_threads: threads that run detectors.
    metrics: HOST:PORT where /metrics, for Prometheus, and /health are served over HTTP; None for nowhere.
    zeroconf: the name under which the server is announced in the local network; None for no announcement.
    Raises ConfigError for a setting out of its range.
    """

    uri: str = DEFAULT_URI
    thresholds: Mapping[str, float] | float | None = None
    keywords: Iterable[str] | None = None
    near: float | None = None
    max_clients: int = 100
    max_payload_bytes: int = 1 << 20
    idle_s: float = 300.0
    n_threads: int = 2
    metrics: str | None = None
    zeroconf: str | None = None

    def __post_init__(self) -> None:
        address = Address.parse(self.uri)
        for name in ("max_clients", "max_payload_bytes", "n_threads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"expected {name} of at least 1, got {getattr(self, name)}")
        if not (self.idle_s >= 0 and math.isfinite(self.idle_s)):
            raise ConfigError(f"expected idle_s of at least 0, got {self.idle_s}")
        if self.metrics is not None:
            parse_host_port(self.metrics)
        if self.zeroconf is not None and (address.scheme != "tcp" or is_loopback(address.host)):
            raise ConfigError(f"expected a tcp:// address that others can reach for zeroconf, got {self.uri}")
        if self.zeroconf is not None and not 0 < len(self.zeroconf.encode()) <= 63:
            raise ConfigError(f"expected a zeroconf name of 1 to 63 bytes, got {self.zeroconf!r}")


class Address(NamedTuple):
    """The parts of a URI. scheme: tcp, unix or stdio. host, port: of tcp. path: of unix."""

    scheme: str
    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def parse(cls, uri: str) -> Address:
        """Take a URI apart. Raises ConfigError for a URI of no such scheme."""
        parts, port = _split(uri)
        plain = not (parts.query or parts.fragment or parts.username is not None)
        if plain and parts.scheme == "tcp" and parts.hostname and port is not None and parts.path in ("", "/"):
            return cls("tcp", parts.hostname, port)
        if plain and parts.scheme == "unix" and not parts.netloc and len(parts.path) > 1:
            if not hasattr(socket, "AF_UNIX"):
                raise ConfigError(f"expected tcp://HOST:PORT on this system, which has no unix sockets, got {uri}")
            return cls("unix", path=parts.path)
        if plain and parts.scheme == "stdio" and not (parts.netloc or parts.path):
            return cls("stdio")
        raise ConfigError(f"expected tcp://HOST:PORT, unix:///PATH or stdio://, got {uri!r}")


def parse_host_port(text: str) -> tuple[str, int]:
    """Return the host and port of HOST:PORT, or [IPV6]:PORT. Raises ConfigError for other text."""
    parts, port = _split(f"//{text}")
    if not parts.hostname or port is None or parts.netloc != text or parts.username is not None:
        raise ConfigError(f"expected HOST:PORT for metrics, got {text!r}")
    return parts.hostname, port


def _split(uri: str) -> tuple[SplitResult, int | None]:
    """Return the parts of a URI, those of an empty one where it is none, and its port."""
    try:
        parts = urlsplit(uri)
        (parts.hostname or "").encode("idna")  # as asyncio will; it raises a ValueError
        return parts, parts.port
    except ValueError:
        return urlsplit(""), None


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a host name or IP address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
