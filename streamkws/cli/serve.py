"""streamkws serve: keywords for Home Assistant and other clients of the Wyoming protocol."""

from __future__ import annotations

import argparse
from contextlib import suppress
from typing import TYPE_CHECKING

from streamkws.cli.arguments import Commands, choice, load_model, thresholds
from streamkws.cli.output import complain, patience

if TYPE_CHECKING:
    from streamkws.server import Server

DEFAULT_URI = "tcp://127.0.0.1:10400"


def add_to(commands: Commands) -> None:
    """Add the commands of this module."""
    serve = commands.add(
        _serve,
        "serve",
        "hear keywords for Home Assistant and other Wyoming clients, until Ctrl-C",
        "streamkws serve",
        "streamkws serve --uri tcp://0.0.0.0:10400 --zeroconf --threshold alexa=0.9",
        "streamkws serve --uri unix:///run/streamkws/wyoming.sock --clients 4",
    )
    serve.add_argument(
        "--uri",
        default=DEFAULT_URI,
        metavar="URI",
        help=f"tcp://HOST:PORT, unix:///PATH or stdio:// ({DEFAULT_URI}, which only this machine reaches; "
        "tcp://0.0.0.0:10400 is for the whole network: whoever reaches it may connect, there are no passwords)",
    )
    serve.add_argument(
        "--clients", type=int, default=100, metavar="N", help="most clients at once; others get an error (100)"
    )
    serve.add_argument(
        "--idle",
        type=float,
        default=300.0,
        metavar="S",
        help="seconds without a message after which a client is sent away, 0 for never (300)",
    )
    serve.add_argument("--threads", type=int, default=2, metavar="N", help="threads that hear (2)")
    serve.add_argument(
        "--zeroconf",
        nargs="?",
        const="",
        metavar="NAME",
        help="let Home Assistant find this server, under this name (streamkws on ..., with the machine's name)",
    )
    serve.add_argument("--verbose", action="store_true", help="a line for every client and detection, too")
    choice(serve)


def _serve(arguments: argparse.Namespace) -> int:
    import asyncio
    import logging
    import socket

    from streamkws.server import Server, ServerConfig

    name = f"streamkws on {socket.gethostname():.40}" if arguments.zeroconf == "" else arguments.zeroconf
    with patience("starting; the first start compiles the kernels, once per machine ..."):
        model = load_model(arguments.model)
        config = ServerConfig(
            uri=arguments.uri,
            thresholds=thresholds(arguments, model),
            keywords=arguments.keyword,
            max_clients=arguments.clients,
            idle_s=arguments.idle,
            n_threads=arguments.threads,
            zeroconf=name,
        )
        server = Server(model, config)
    log = logging.getLogger("streamkws")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("streamkws: %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO if arguments.verbose else logging.WARNING)
    try:
        return asyncio.run(_until_told(server))
    finally:
        log.removeHandler(handler)


async def _until_told(server: Server) -> int:
    """Serve until SIGTERM, which is how a server ends, or Ctrl-C; return the exit code."""
    import asyncio
    import signal

    code = 0

    def interrupt() -> None:
        nonlocal code
        code = 130
        server.end()

    loop = asyncio.get_running_loop()
    with suppress(NotImplementedError):  # Windows: Ctrl-C raises KeyboardInterrupt
        loop.add_signal_handler(signal.SIGTERM, server.end)
        loop.add_signal_handler(signal.SIGINT, interrupt)
    async with server:
        complain(f"{server.model.name} listens on {server.uri} for {', '.join(server.keywords)}; Ctrl-C ends")
        await server.serve()
    return code
