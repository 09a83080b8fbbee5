"""streamkws listen and devices: the microphone."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Protocol

from streamkws.cli.arguments import Commands, choice, json_lines, new_detector
from streamkws.cli.output import Lines, complain, json_line, table
from streamkws.cli.reactions import Reactions
from streamkws.cli.screen import Screen
from streamkws.errors import AudioError

if TYPE_CHECKING:
    import numpy.typing as npt

    from streamkws.detector import Detector
    from streamkws.smoother import Detection


def add_to(commands: Commands) -> None:
    """Add the commands of this module."""
    listen = commands.add(
        _listen,
        "listen",
        "hear keywords in the microphone, until Ctrl-C",
        "streamkws listen",
        "streamkws listen --device USB --threshold alexa=0.9",
        "streamkws listen --exec 'notify-send \"$STREAMKWS_KEYWORD\"'",
        "streamkws listen --json --record heard/ >> heard.jsonl",
    )
    listen.add_argument("--device", type=_device, metavar="D", help="number or part of the name, see streamkws devices")
    listen.add_argument("--record", metavar="DIR", help="keep the audio around each detection in this folder, as FLAC")
    listen.add_argument(
        "--exec",
        metavar="COMMAND",
        help="shell command to run at each detection, with STREAMKWS_KEYWORD, STREAMKWS_SCORE, STREAMKWS_START, "
        "STREAMKWS_END and, with --record, once the file is there, STREAMKWS_AUDIO in its environment",
    )
    listen.add_argument("--beep", action="store_true", help="ring the terminal's bell at each detection")
    choice(listen)
    json_lines(listen)

    devices = commands.add(_devices, "devices", "list the audio inputs", "streamkws devices")
    json_lines(devices)


class _Source(Protocol):
    """What the listening loop needs of a microphone.

    dropped: samples lost before the block that the iteration last gave.
    """

    dropped: int

    def __iter__(self) -> Iterator[npt.NDArray[Any]]: ...


def _listen(arguments: argparse.Namespace) -> int:
    from streamkws.sources import Microphone

    detector = new_detector(arguments)
    with _only_our_messages(), Microphone(arguments.device) as microphone:
        _hear(microphone, detector, f"{microphone.name} heard by {detector.model.name}", arguments)
    return 0


def _hear(source: _Source, detector: Detector, title: str, arguments: argparse.Namespace) -> None:
    """Show what is heard, and do what it is to set off, until the source ends or Ctrl-C is pressed."""
    import numpy as np

    lines = Lines(detector.thresholds, (), arguments.json)
    screen = Screen(detector, title) if sys.stdout.isatty() and not arguments.json else None
    reactions = Reactions(detector, arguments.record, arguments.exec, screen is not None, arguments.beep)
    rate = detector.model.config.frontend.sample_rate
    nothing = np.zeros(0, np.int16)
    n_lost = 0

    def take(block: npt.NDArray[Any], hits: list[Detection]) -> None:
        if screen is not None:
            screen.show(block, hits, n_lost / rate)
        else:
            lines.show(hits)
        reactions.start(hits)
        reactions.go_on()

    with ExitStack() as stack:
        if screen is not None:
            stack.enter_context(screen)
        stack.callback(reactions.close)
        try:
            for block in source:
                if source.dropped > n_lost:
                    take(nothing, detector.flush())  # before the clock goes on, and with it what audio is kept
                    reactions.cut()
                    detector.lost(source.dropped - n_lost)
                    n_lost = source.dropped
                take(block, detector.push(block))
        except KeyboardInterrupt:
            pass
        take(nothing, detector.flush())
    if n_lost:
        complain(f"lost {n_lost / rate:.2f} s of audio in all")


class _OneLineEach(logging.Handler):
    """Shows what the library logs as a command shows everything else it has to say."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one line to standard error."""
        complain(record.getMessage())


@contextmanager
def _only_our_messages() -> Iterator[None]:
    """Show what the library logs, and nothing that C libraries print.

    ALSA and PortAudio write to descriptor 2 whenever a device comes or goes, several lines each time.
    """
    handler = _OneLineEach()
    logger = logging.getLogger("streamkws")
    logger.addHandler(handler)
    try:
        with _silent_descriptor():
            yield
    finally:
        logger.removeHandler(handler)


@contextmanager
def _silent_descriptor() -> Iterator[None]:
    """Send what is written to descriptor 2 nowhere; sys.stderr stays where it is."""
    stderr = sys.stderr
    try:
        is_there = stderr.fileno() == 2
    except (AttributeError, OSError, ValueError):
        is_there = False
    if not is_there:
        yield
        return
    stderr.flush()
    with (
        open(os.dup(2), "w", buffering=1, encoding=stderr.encoding, errors=stderr.errors) as ours,
        open(os.devnull, "w") as nowhere,
    ):
        os.dup2(nowhere.fileno(), 2)
        sys.stderr = ours
        try:
            yield
        finally:
            sys.stderr = stderr
            os.dup2(ours.fileno(), 2)


def _devices(arguments: argparse.Namespace) -> int:
    from streamkws.sources import input_devices, open_rates

    with _only_our_messages():
        found = [(device, open_rates(device)) for device in input_devices()]
    if arguments.json:
        for device, rates in found:
            print(json_line(asdict(device) | {"open_rates": rates}))
    elif found:
        rows = [
            (
                d.index,
                d.name,
                d.host_api,
                d.n_channels,
                d.sample_rate,
                " ".join(map(str, rates)) or "none now",
                "default" if d.is_default else "",
            )
            for d, rates in found
        ]
        print(table(("device", "name", "sound system", "channels", "Hz", "opens at", ""), rows))
    else:
        raise AudioError("expected an audio input, found none on this machine")
    return 0


def _device(text: str) -> int | str:
    return int(text) if text.isdecimal() else text
