"""streamkws serve: a server for Home Assistant and other clients of the Wyoming protocol."""

from __future__ import annotations

import argparse
from contextlib import suppress
from typing import TYPE_CHECKING

from streamkws.cli.arguments import Commands, add_model_options, add_near_option, load_model, thresholds
from streamkws.cli.output import STARTING, explain_if_slow, print_error
from streamkws.server.config import DEFAULT_URI, ServerConfig

if TYPE_CHECKING:
    from streamkws.server import Server


def add_to(commands: Commands) -> None:
    """Add the commands of this module."""
    serve = commands.add(
        _serve,
        "serve",
        "find keywords for Home Assistant and other Wyoming clients, until Ctrl-C",
        "streamkws serve",
        "streamkws serve --uri tcp://0.0.0.0:10400 --zeroconf --threshold alexa=0.9",
        "streamkws serve --uri unix:///run/streamkws/wyoming.sock --clients 4",
    )
    serve.add_argument(
        "--uri",
        default=DEFAULT_URI,
        metavar="URI",
        help=f"where to listen: tcp://HOST:PORT, unix:///PATH or stdio:// (default: {DEFAULT_URI}, which only this "
        "machine reaches); tcp://0.0.0.0:10400 opens the server to the whole network, without a password",
    )
    serve.add_argument(
        "--clients",
        type=int,
        default=ServerConfig.max_clients,
        metavar="N",
        help=f"most clients at the same time; more get an error (default: {ServerConfig.max_clients})",
    )
    serve.add_argument(
        "--idle",
        type=float,
        default=ServerConfig.idle_s,
        metavar="S",
        help="disconnect a client after so many seconds without a message; 0 for never "
        f"(default: {ServerConfig.idle_s:g})",
    )
    serve.add_argument(
        "--threads",
        type=int,
        default=ServerConfig.n_threads,
        metavar="N",
        help=f"threads that run detectors (default: {ServerConfig.n_threads})",
    )
    serve.add_argument(
        "--zeroconf",
        nargs="?",
        const="",
        metavar="NAME",
        help="announce the server in the local network, so that Home Assistant finds it, under this name "
        "(default: streamkws on <name of this machine>)",
    )
    serve.add_argument("--verbose", action="store_true", help="print a line for each client and detection")
    add_model_options(serve)
    add_near_option(serve, "count and log (--verbose), but never send to clients,")


def _serve(arguments: argparse.Namespace) -> int:
    import asyncio
    import logging
    import socket

    from streamkws.server import Server

    name = f"streamkws on {socket.gethostname():.40}" if arguments.zeroconf == "" else arguments.zeroconf
    with explain_if_slow(STARTING):
        model = load_model(arguments.model)
        config = ServerConfig(
            uri=arguments.uri,
            thresholds=thresholds(arguments, model),
            keywords=arguments.keyword,
            near=arguments.near,
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
    """Serve until SIGTERM or Ctrl-C; return the exit code."""
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
        print_error(f"{server.model.name} listens on {server.uri} for {', '.join(server.keywords)}; Ctrl-C ends")
        await server.serve()
    return code
