"""streamkws serve: a server for Home Assistant and other clients of the Wyoming protocol."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from streamkws.cli.arguments import (
    Commands,
    add_listening_options,
    add_models_option,
    add_near_option,
    load_models,
    thresholds,
)
from streamkws.cli.output import STARTING, explain_if_slow, printable
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
        "streamkws serve --metrics 127.0.0.1:9400 --near 0.3 --verbose --log-format json",
        "streamkws serve --model wakewords --model robot.w4a8.safetensors",
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
    serve.add_argument(
        "--metrics",
        metavar="HOST:PORT",
        help="serve /metrics, for Prometheus, and /health over HTTP, as 127.0.0.1:9400",
    )
    serve.add_argument("--verbose", action="store_true", help="print a line for each client and detection")
    serve.add_argument(
        "--log-format",
        choices=("text", "json"),
        default="text",
        help="lines of text, or a JSON object for each line (default: text)",
    )
    add_models_option(serve)
    add_listening_options(serve)
    add_near_option(serve, "count and log (--verbose), but never send to clients,")


def _serve(arguments: argparse.Namespace) -> int:
    import asyncio

    with _logging(arguments):
        return asyncio.run(_until_told(_new_server(arguments)))


def _new_server(arguments: argparse.Namespace) -> Server:
    import socket

    from streamkws.server import Server

    name = f"streamkws on {socket.gethostname():.40}" if arguments.zeroconf == "" else arguments.zeroconf
    with explain_if_slow(STARTING, lambda reason: _say(reason, "starting")):
        models = load_models(arguments.model)
        config = ServerConfig(
            uri=arguments.uri,
            thresholds=thresholds(arguments, models),
            keywords=arguments.keyword,
            near=arguments.near,
            max_clients=arguments.clients,
            idle_s=arguments.idle,
            n_threads=arguments.threads,
            metrics=arguments.metrics,
            zeroconf=name,
        )
        return Server(models, config)


@contextmanager
def _logging(arguments: argparse.Namespace) -> Iterator[None]:
    """Log to standard error as --verbose and --log-format say."""
    import logging

    from streamkws.server.log import JsonFormatter

    log, own = logging.getLogger("streamkws"), logging.getLogger(__name__)
    handler = logging.StreamHandler()
    text = logging.Formatter("streamkws: %(message)s")
    handler.setFormatter(JsonFormatter() if arguments.log_format == "json" else text)
    level, own_level = log.level, own.level
    log.addHandler(handler)
    log.setLevel(logging.INFO if arguments.verbose else logging.WARNING)
    own.setLevel(logging.INFO)  # the command's own lines come in any case
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        own.setLevel(own_level)


def _say(message: str, event: str, **values: object) -> None:
    """Log a line of the command's own."""
    import logging

    from streamkws.server.log import about

    logging.getLogger(__name__).info("%s", printable(message), extra=about(event, **values))


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
        name, keywords = server.models.name, server.keywords
        listening = f"{name} listens on {server.uri} for {', '.join(keywords)}; Ctrl-C ends"
        _say(listening, "listening", uri=server.uri, model=name, keywords=keywords)
        if server.metrics_uri is not None:
            watched = f"metrics at {server.metrics_uri}/metrics, health at {server.metrics_uri}/health"
            _say(watched, "metrics", uri=server.metrics_uri)
        await server.serve()
    return code
