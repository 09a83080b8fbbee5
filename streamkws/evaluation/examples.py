"""Recordings as examples of what a model will hear, for Model.quantize."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from streamkws.audio import AUDIO_SUFFIXES, AudioFile, as_float, audio_files
from streamkws.errors import AudioError, ConfigError
from streamkws.evaluation.scoring import Progress
from streamkws.model import Model

F32 = npt.NDArray[np.float32]

PIECE_S = 4.0
"""Longer recordings are cut into pieces, each the start of a stream."""
MOST_S, MOST_FILES = 600.0, 400
"""Of more files, so many evenly from the list of them; of each so much of the time, or a piece, from its beginning."""


@dataclass(frozen=True)
class Examples:
    """What was read.

    log_mels: (T, F) float32 each. seconds, n_files: that they are of.
    skipped: files that gave none, each with the reason.
    """

    log_mels: tuple[F32, ...]
    seconds: float
    n_files: int
    skipped: tuple[str, ...]


def read_examples(model: Model, places: Sequence[Path], progress: Progress | None = None) -> Examples:
    """Read audio files, and folders of them, as the model's front end hears them.

    progress: called with (what is done, steps done, steps in all).
    Raises ConfigError for a place that does not exist, a folder without audio, and when no file gives an example.
    """
    paths: list[Path] = []
    for place in places:
        if not place.exists():
            raise ConfigError(f"{place}: expected an audio file or a folder of them, got nothing")
        found = audio_files(place) if place.is_dir() else [place]
        if not found:
            raise ConfigError(f"{place}: expected audio files in this folder ({' '.join(AUDIO_SUFFIXES)}), found none")
        paths += found
    paths = paths[:: -(-len(paths) // MOST_FILES)]
    frontend, rate = model.new_front_end(), model.config.frontend.sample_rate
    share, piece = round(max(MOST_S / len(paths), PIECE_S) * rate), round(PIECE_S * rate)
    log_mels: list[F32] = []
    skipped: list[str] = []
    n_files = n_samples = 0
    for index, path in enumerate(paths):
        if progress is not None:
            progress("reading", index, len(paths))
        try:
            samples = _beginning(path, share)
        except AudioError as error:
            skipped.append(str(error))
            continue
        made = []
        for start in range(0, len(samples), piece):
            frontend.reset()
            frames = frontend.push(samples[start : start + piece])
            if len(frames) >= model.config.frame_stride:
                made.append(frames.copy())
        if made:
            log_mels += made
            n_files += 1
            n_samples += len(samples)
        else:
            skipped.append(f"{path}: expected more than {len(samples)} samples at {rate} Hz")
    if not log_mels:
        raise ConfigError(f"expected recordings to choose codes by, none could be used: {skipped[0]}")
    return Examples(tuple(log_mels), n_samples / rate, n_files, tuple(skipped))


def _beginning(path: Path, most: int) -> F32:
    """The first so many samples of a file, or all."""
    blocks, n_samples = [np.zeros(0, np.float32)], 0
    with AudioFile(path) as audio:
        for block in audio:
            blocks.append(as_float(block))
            n_samples += len(block)
            if n_samples >= most:
                break
    return np.concatenate(blocks)[:most]
