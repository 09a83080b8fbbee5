"""The voices that ExampleMaker made for clips, kept in a file, since making them takes minutes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from streamkws.training.dataset import Clip

Voices = dict[tuple[int, int], Clip]
"""Clips by number of the original and number of the voice."""


def write_voices(path: Path, voices: Voices) -> None:
    """Write a file, whole or not at all."""
    takes = list(voices.values())
    with path.with_suffix(".tmp").open("wb") as file:
        np.savez(
            file,
            samples=np.concatenate([take.samples for take in takes]),
            sizes=[take.samples.size for take in takes],
            places=[(take.start, take.end) for take in takes],
            keys=list(voices),
        )
    path.with_suffix(".tmp").replace(path)


def read_voices(path: Path, clips: list[Clip]) -> Voices:
    """The voices of a file, of these clips; none where there is no file."""
    if not path.exists():
        return {}
    with np.load(path) as kept:
        samples, sizes, places, keys = (kept[name] for name in ("samples", "sizes", "places", "keys"))
    pieces = np.split(samples, np.cumsum(sizes)[:-1])
    return {
        (int(number), int(voice)): replace(clips[number], samples=piece, start=int(start), end=int(end))
        for (number, voice), piece, (start, end) in zip(keys, pieces, places, strict=True)
    }
