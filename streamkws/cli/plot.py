"""streamkws plot: a picture of what a model makes of a recording."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from streamkws.cli.arguments import Commands, choice, new_detector
from streamkws.cli.output import Bar, complain
from streamkws.errors import ConfigError

LONG_FILE_S = 60.0  # a file that gets a progress bar


def add_to(commands: Commands) -> None:
    """Add the commands of this module."""
    plot = commands.add(
        _plot,
        "plot",
        "draw waveform, spectrogram, posteriors, thresholds and detections of a recording",
        "streamkws plot kitchen.flac",
        "streamkws plot kitchen.flac --out kitchen.svg --keyword alexa --threshold 0.8",
        "streamkws plot night.ogg --start 3600 --end 3660",
    )
    plot.add_argument("file", metavar="FILE", help="audio file, or - for raw 16 kHz mono int16")
    plot.add_argument(
        "--out",
        metavar="FILE",
        help="picture to write, replaced if it exists: .png or .svg (<name of FILE>.png in the current folder, "
        "if there is none yet)",
    )
    choice(plot)
    plot.add_argument("--start", type=float, default=0.0, metavar="S", help="draw from this second on (0)")
    plot.add_argument("--end", type=float, metavar="S", help="draw up to this second (the end)")


def _plot(arguments: argparse.Namespace) -> int:
    from streamkws.evaluation.plots import draw_trace, picture_path, save
    from streamkws.evaluation.traces import trace

    name = "standard input" if arguments.file == "-" else os.path.basename(arguments.file)
    path = picture_path(arguments.out or Path(name).stem + ".png")
    if not arguments.out and path.exists():
        raise ConfigError(f"{path}: exists already; --out {path} replaces it")
    detector = new_detector(arguments)
    with Bar() as bar:

        def show(heard_s: float, duration_s: float | None) -> None:
            whole_s = min(duration_s or 0.0, arguments.end or duration_s or 0.0)
            if whole_s >= LONG_FILE_S:
                bar.show(name, min(heard_s, whole_s), whole_s)

        heard = trace(arguments.file, detector, arguments.start, arguments.end, show)
    print(save(draw_trace(heard), path))
    if heard.trouble:
        complain(heard.trouble)
    return int(bool(heard.trouble))
