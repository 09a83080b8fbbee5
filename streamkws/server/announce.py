"""Zeroconf (mDNS): how Home Assistant finds a server in the local network."""

from __future__ import annotations

import errno
import ipaddress
import logging
import socket
from typing import Any

from streamkws.errors import MissingExtraError
from streamkws.server.log import about
from streamkws.server.transport import reason

_SERVICE = "_wyoming._tcp.local."  # the type of service that Home Assistant looks for
_log = logging.getLogger(__package__)


class Announcement:
    """A server's entry in the local network's zeroconf."""

    def __init__(self, zeroconf: Any, service: Any) -> None:
        self._zeroconf = zeroconf
        self._service = service

    @classmethod
    async def make(cls, name: str, host: str, port: int) -> Announcement:
        """Announce a server.

        name: the name it gets there. host: its IP address, or one such as 0.0.0.0 for all addresses of this machine.
        Raises MissingExtraError without zeroconf, OSError where it cannot be announced.
        """
        try:
            from zeroconf import Error as ZeroconfError
            from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf
        except ImportError:
            raise MissingExtraError('being found needs zeroconf: pip install "streamkws[zeroconf]"') from None
        zeroconf: Any = None
        try:
            address = own_address() if ipaddress.ip_address(host).is_unspecified else host
            service = AsyncServiceInfo(_SERVICE, f"{name}.{_SERVICE}", port, parsed_addresses=[address])
            zeroconf = AsyncZeroconf(interfaces=[address])
            await (await zeroconf.async_register_service(service, allow_name_change=True))
        except (OSError, ZeroconfError) as error:
            if zeroconf is not None:
                await zeroconf.async_close()
            code, why = (error.errno, reason(error)) if isinstance(error, OSError) else (errno.EINVAL, str(error))
            raise OSError(code, f"cannot be announced by zeroconf as {name!r}: {why}") from None
        extra = about("announced", name=service.name, address=address, port=port)
        _log.info("announced as %s at %s:%d", service.name, address, port, extra=extra)
        return cls(zeroconf, service)

    async def withdraw(self) -> None:
        """Remove the entry."""
        await (await self._zeroconf.async_unregister_service(self._service))
        await self._zeroconf.async_close()


def own_address() -> str:
    """Return this machine's IP address in the local network; nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("224.0.0.251", 5353))
        address: str = probe.getsockname()[0]
    return address
