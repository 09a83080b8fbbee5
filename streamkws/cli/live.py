"""streamkws listen and devices: the microphone."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Protocol

from streamkws.cli.arguments import (
    Commands,
    add_device_option,
    add_json_option,
    add_listening_options,
    add_models_option,
    add_near_option,
    new_detector,
)
from streamkws.cli.messages import only_our_messages
from streamkws.cli.output import Lines, json_line, print_error, table
from streamkws.cli.reactions import Reactions
from streamkws.cli.screen import Screen
from streamkws.errors import AudioError

if TYPE_CHECKING:
    import numpy.typing as npt

    from streamkws.detector import Detector
    from streamkws.smoother import Detection


NEAR = 0.3
"""From this score on a near miss is recorded, unless --near says otherwise."""


def add_to(commands: Commands) -> None:
    """Add the commands of this module."""
    listen = commands.add(
        _listen,
        "listen",
        "find keywords live in a microphone's audio, until Ctrl-C",
        "streamkws listen",
        "streamkws listen --device USB --threshold alexa=0.9",
        "streamkws listen --model wakewords --model robot.w4a8.safetensors",
        "streamkws listen --exec 'notify-send \"$STREAMKWS_KEYWORD\"'",
        "streamkws listen --json --record heard/ >> heard.jsonl",
    )
    add_device_option(listen)
    listen.add_argument("--record", metavar="DIR", help="save the audio around each detection in this folder, as FLAC")
    listen.add_argument(
        "--exec",
        metavar="COMMAND",
        help="a shell command to run at each detection; its environment has STREAMKWS_KEYWORD, STREAMKWS_SCORE, "
        "STREAMKWS_START and STREAMKWS_END; with --record it runs once the recording is saved, and STREAMKWS_AUDIO "
        "is its path",
    )
    listen.add_argument("--beep", action="store_true", help="ring the terminal's bell at each detection")
    listen.add_argument(
        "--record-near",
        metavar="DIR",
        help=f"save the audio around each near miss in this folder; --near says what is one (default: {NEAR:g})",
    )
    add_models_option(listen)
    add_listening_options(listen)
    add_near_option(listen)
    add_json_option(listen)

    devices = commands.add(_devices, "devices", "list the microphones and other audio inputs", "streamkws devices")
    add_json_option(devices)


class _Source(Protocol):
    """The part of a microphone that the listening loop uses.

    dropped: samples lost before the last block of the iteration.
    """

    dropped: int

    def __iter__(self) -> Iterator[npt.NDArray[Any]]: ...


def _listen(arguments: argparse.Namespace) -> int:
    from streamkws.sources import Microphone

    if arguments.record_near is not None and arguments.near is None:
        arguments.near = NEAR
    detector = new_detector(arguments)
    with only_our_messages(), Microphone(arguments.device) as microphone:
        _hear(microphone, detector, f"{microphone.name} heard by {detector.name}", arguments)
    return 0


def _hear(source: _Source, detector: Detector, title: str, arguments: argparse.Namespace) -> None:
    """Show detections and run the reactions to them, until the source ends or Ctrl-C is pressed."""
    import numpy as np

    lines = Lines(detector.thresholds, (), arguments.json)
    screen = Screen(detector, title) if sys.stdout.isatty() and not arguments.json else None
    reactions = Reactions(detector, arguments.record, arguments.exec, screen is not None, arguments.beep)
    near_reactions = Reactions(detector, arguments.record_near, None, screen is not None, False)
    both = ((reactions, False), (near_reactions, True))
    rate = detector.sample_rate
    nothing = np.zeros(0, np.int16)
    n_lost = 0

    def take(block: npt.NDArray[Any], hits: list[Detection]) -> None:
        if screen is not None:
            screen.show(block, hits, n_lost / rate)
        else:
            lines.show(hits)
        for one, are_near in both:
            one.start(hit for hit in hits if hit.near == are_near)
            one.go_on()

    with ExitStack() as stack:
        if screen is not None:
            stack.enter_context(screen)
        for one, _ in both:
            stack.callback(one.close)
        try:
            for block in source:
                if source.dropped > n_lost:
                    take(nothing, detector.flush())  # before lost moves the clock, and the audio that is kept
                    for one, _ in both:
                        one.cut()
                    detector.lost(source.dropped - n_lost)
                    n_lost = source.dropped
                take(block, detector.push(block))
        except KeyboardInterrupt:
            pass
        take(nothing, detector.flush())
    if n_lost:
        print_error(f"lost {n_lost / rate:.2f} s of audio in all")


def _devices(arguments: argparse.Namespace) -> int:
    from streamkws.sources import input_devices, open_rates

    with only_our_messages():
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
