"""streamkws detect: keywords in audio files, in folders, and in raw audio on standard input."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable

from streamkws.cli.arguments import (
    Commands,
    add_json_option,
    add_listening_options,
    add_models_option,
    add_near_option,
    new_detector,
)
from streamkws.cli.output import Bar, Lines, print_error
from streamkws.errors import AudioError

LONG_FILE_S, MANY_FILES = 60.0, 20
"""From this many seconds in a file, or this many files, on there is a progress bar."""


def add_to(commands: Commands) -> None:
    """Add the commands of this module."""
    detect = commands.add(
        _detect,
        "detect",
        "find keywords in audio files",
        "streamkws detect kitchen.flac",
        "streamkws detect --json --keyword alexa --threshold 0.8 recordings/",
        "streamkws detect --model wakewords --model robot.w4a8.safetensors kitchen.flac",
        "arecord -q -r 16000 -f S16_LE -c 1 -t raw | streamkws detect -",
    )
    detect.add_argument(
        "files", nargs="+", metavar="FILE", help="audio files, folders of audio files, or - for raw 16 kHz mono int16"
    )
    add_models_option(detect)
    add_listening_options(detect)
    add_near_option(detect)
    add_json_option(detect)


def _detect(arguments: argparse.Namespace) -> int:
    from streamkws.sources import RawSource, open_source

    paths, complaints = _audio_files(arguments.files)
    for complaint in complaints:
        print_error(complaint)
    if not paths:
        return 1
    failed = bool(complaints)
    detector = new_detector(arguments)
    lines = Lines(detector.thresholds, paths, arguments.json)
    with Bar() as bar:
        for n_done, path in enumerate(paths):
            detector.reset()
            n_samples = 0
            try:
                with open_source(path) as source:
                    for block in source:
                        lines.show(detector.push(block), path)
                        n_samples += len(block)
                        if source.duration_s and (len(paths) >= MANY_FILES or source.duration_s >= LONG_FILE_S):
                            part = min(1.0, n_samples / source.sample_rate / source.duration_s)
                            bar.show(os.path.basename(path), n_done + part, len(paths))
                    lines.show(detector.flush(), path)
                    if isinstance(source, RawSource) and source.trailing_bytes:
                        print_error(f"{source.name}: ended in the middle of a sample, expected int16")
            except AudioError as error:
                print_error(error)
                failed = True
    return int(failed)


def _audio_files(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the files to search, with folders replaced by their audio files, and messages about unusable folders."""
    from streamkws.audio import ALL_SUFFIXES, audio_files

    paths: list[str] = []
    complaints: list[str] = []
    for name in names:
        if name == "-" or not os.path.isdir(name):
            paths.append(name)
            continue
        unreadable: list[OSError] = []
        found = [
            os.path.join(name, path.relative_to(name)) for path in audio_files(name, unreadable.append, ALL_SUFFIXES)
        ]
        complaints += [f"{error.filename}: {error.strerror}" for error in unreadable]
        if not found and not unreadable:
            complaints.append(f"{name}: expected audio files in this folder ({' '.join(ALL_SUFFIXES)}), found none")
        paths += sorted(found)
    return paths, complaints
