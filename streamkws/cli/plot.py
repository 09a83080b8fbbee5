"""streamkws plot: a picture of a recording, with a model's posteriors and detections."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from streamkws.cli.arguments import Commands, add_listening_options, add_model_option, new_detector
from streamkws.cli.output import Bar, print_error, printable
from streamkws.errors import ConfigError

LONG_FILE_S = 60.0
"""From this many seconds on there is a progress bar."""


def add_to(commands: Commands) -> None:
    """Add the commands of this module."""
    plot = commands.add(
        _plot,
        "plot",
        "draw a recording with the posteriors, thresholds and detections of its keywords",
        "streamkws plot kitchen.flac",
        "streamkws plot kitchen.flac --out kitchen.svg --keyword alexa --threshold 0.8",
        "streamkws plot night.ogg --start 3600 --end 3660",
    )
    plot.add_argument("file", metavar="FILE", help="an audio file, or - for raw 16 kHz mono int16")
    plot.add_argument(
        "--out",
        metavar="FILE",
        help="the picture to write, .png or .svg; an existing file is replaced (default: the name of FILE with .png in "
        "the current folder, if there is no such file yet)",
    )
    add_model_option(plot)
    add_listening_options(plot)
    plot.add_argument("--start", type=float, default=0.0, metavar="S", help="where to begin, in seconds (default: 0)")
    plot.add_argument("--end", type=float, metavar="S", help="where to end, in seconds (default: at the end)")


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
    print(printable(str(save(draw_trace(heard), path))))
    if heard.trouble:
        print_error(heard.trouble)
    return int(bool(heard.trouble))
