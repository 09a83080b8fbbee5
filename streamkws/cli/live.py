"""streamkws listen and devices: the microphone."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Protocol

from streamkws.cli.arguments import Commands, choice, json_lines, new_detector
from streamkws.cli.output import Lines, complain, json_line, table
from streamkws.errors import AudioError

if TYPE_CHECKING:
    import numpy.typing as npt
    from rich.text import Text

    from streamkws.detector import Detector
    from streamkws.smoother import Detection

METER_COLUMNS = 40
METER_FLOOR_DB = -60.0
CLIPPING = 0.99  # amplitude from which the level turns red
HEARD_SHOWN_S = 1.0  # how long a keyword's bar stays green
SCREENS_PER_SECOND = 15


def add_to(commands: Commands) -> None:
    """Add the commands of this module."""
    listen = commands.add(
        _listen,
        "listen",
        "hear keywords in the microphone, until Ctrl-C",
        "streamkws listen",
        "streamkws listen --device USB --threshold alexa=0.9",
        'streamkws listen --json | while read -r hit; do notify-send "$hit"; done',
    )
    listen.add_argument("--device", type=_device, metavar="D", help="number or part of the name, see streamkws devices")
    choice(listen)
    json_lines(listen)

    devices = commands.add(_devices, "devices", "list the audio inputs", "streamkws devices")
    json_lines(devices)


class _Source(Protocol):
    """What the listening loop needs of a microphone.

    dropped: samples lost so far.
    """

    dropped: int

    def __iter__(self) -> Iterator[npt.NDArray[Any]]: ...


def _listen(arguments: argparse.Namespace) -> int:
    from streamkws.sources import Microphone

    detector = new_detector(arguments)
    with Microphone(arguments.device) as microphone:
        _hear(microphone, detector, f"{microphone.name} heard by {detector.model.name}", arguments.json)
    return 0


def _hear(source: _Source, detector: Detector, title: str, as_json: bool) -> None:
    """Show what is heard until the source ends or Ctrl-C is pressed."""
    lines = Lines(detector.thresholds, (), as_json)
    n_dropped = 0
    with _Meter(detector, title) if sys.stdout.isatty() and not as_json else nullcontext() as meter:
        try:
            for block in source:
                hits = detector.push(block)
                if meter is not None:
                    meter.show(block, hits)
                lines.show(hits)
                if source.dropped > n_dropped:
                    complain(f"lost {source.dropped - n_dropped} samples of audio, {source.dropped} so far")
                    n_dropped = source.dropped
            lines.show(detector.flush())
        except KeyboardInterrupt:
            pass


class _Meter:
    """A live picture of the sound level and of every keyword's posterior, below the lines that are printed meanwhile.

    title: what is listened to.
    """

    def __init__(self, detector: Detector, title: str) -> None:
        from rich.console import Console
        from rich.live import Live

        self._detector = detector
        self._title = title
        self._thresholds = detector.thresholds
        self._columns = max(len("level"), *map(len, self._thresholds))
        self._live = Live(console=Console(highlight=False), auto_refresh=False, transient=True)
        self._n_samples = 0
        self._level = 0.0  # amplitude; the largest since the last picture
        self._posteriors = dict.fromkeys(self._thresholds, 0.0)  # the largest since the last picture
        self._heard_s = dict.fromkeys(self._thresholds, float("-inf"))
        self._drawn_s = float("-inf")

    def __enter__(self) -> _Meter:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, block: npt.NDArray[Any], hits: Iterable[Detection]) -> None:
        """Take in a block that the detector has heard, and draw the picture if it is time to."""
        now_s = time.monotonic()
        self._n_samples += len(block)
        if len(block):
            full_scale = 32768.0 if block.dtype.kind == "i" else 1.0
            self._level = max(self._level, float(abs(block.astype("f8")).max()) / full_scale)
        for keyword, posterior in zip(self._detector.model.keywords, self._detector.levels(), strict=True):
            if keyword in self._posteriors:
                self._posteriors[keyword] = max(self._posteriors[keyword], float(posterior))
        for hit in hits:
            self._heard_s[hit.keyword] = now_s
        if now_s - self._drawn_s >= 1 / SCREENS_PER_SECOND:
            self._drawn_s = now_s
            self._live.update(self._picture(now_s), refresh=True)
            self._level = 0.0
            self._posteriors = dict.fromkeys(self._thresholds, 0.0)

    def _picture(self, now_s: float) -> Text:
        from rich.text import Text

        level_db = 20 * math.log10(max(self._level, 10 ** (METER_FLOOR_DB / 20)))
        minutes, seconds = divmod(self._n_samples // self._detector.model.config.frontend.sample_rate, 60)
        picture = Text(no_wrap=True, overflow="crop")
        picture.append(f"{self._title}, {minutes}:{seconds:02d}; Ctrl-C ends\n", "dim")
        style = "red" if self._level > CLIPPING else "cyan"
        picture.append_text(self._bar("level", 1 - level_db / METER_FLOOR_DB, None, style))
        picture.append(f" {level_db:5.0f} dB\n")
        for keyword, threshold in self._thresholds.items():
            posterior = self._posteriors[keyword]
            style = "green" if now_s - self._heard_s[keyword] < HEARD_SHOWN_S or posterior >= threshold else "yellow"
            picture.append_text(self._bar(keyword, posterior, threshold, style))
            picture.append(f" {posterior:5.2f} of {threshold:.2f}\n")
        picture.right_crop(1)
        return picture

    def _bar(self, name: str, value: float, mark: float | None, style: str) -> Text:
        """Draw one bar, value and mark from 0 to 1."""
        from rich.text import Text

        n_full = round(min(max(value, 0.0), 1.0) * METER_COLUMNS)
        bar = "█" * n_full + "·" * (METER_COLUMNS - n_full)
        text = Text(f"  {name:<{self._columns}}  ").append(bar[:n_full], style).append(bar[n_full:], "dim")
        if mark is not None:
            column = 4 + self._columns + min(round(mark * METER_COLUMNS), METER_COLUMNS - 1)
            text = text[:column].append("│", "bold").append_text(text[column + 1 :])
        return text


def _devices(arguments: argparse.Namespace) -> int:
    from streamkws.sources import input_devices

    devices = input_devices()
    if arguments.json:
        for device in devices:
            print(json_line(asdict(device)))
    elif devices:
        rows = [
            (d.index, d.name, d.host_api, d.n_channels, d.sample_rate, "default" if d.is_default else "")
            for d in devices
        ]
        print(table(("device", "name", "sound system", "channels", "Hz", ""), rows))
    else:
        raise AudioError("expected an audio input, found none on this machine")
    return 0


def _device(text: str) -> int | str:
    return int(text) if text.isdecimal() else text
