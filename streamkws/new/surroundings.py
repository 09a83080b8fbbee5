"""The rooms, noise and music in which a phrase is heard: made by NumPy, since a newcomer has no recordings of them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np

from streamkws.audio import SAMPLE_RATE, encode_flac
from streamkws.corpus import ROOM_SET
from streamkws.voices.segments import SegmentTable
from streamkws.voices.sounds import F32, pieces
from streamkws.whole import write_whole

SETS = {"made_noise": "noise", "made_music": "music"}
"""The sets of made sound, and the kind of each (voices/sounds.py)."""
N_ROOMS = 60
SEED = 77
"""Of what is trained on; what judges has the next one."""
SHORTEST_S, LONGEST_S = 0.12, 0.9
"""Reverberation times of the rooms."""
ROOM_S = 0.5
"""Length of an impulse response."""


def make_surroundings(part: Path, n_pieces: int, seed: int, show: Callable[[str, float, float], None]) -> None:
    """Write what is missing of the rooms, and of n_pieces of each kind of sound, into a part of a corpus.

    seed: of the sound. show: told of the progress. Raises OSError where the folder cannot be written.
    """
    rooms = part / ROOM_SET
    rooms.mkdir(parents=True, exist_ok=True)
    for number in range(N_ROOMS):
        path = rooms / f"room{number:02d}.flac"
        if not path.exists():
            write_whole(path, encode_flac(impulse_response(np.random.default_rng([seed, number]))))
    for done, (name, kind) in enumerate(SETS.items()):
        table = SegmentTable(part / name)
        show("making noise", done, len(SETS))
        file = f"{kind}.flac"
        if file in table.files:
            continue
        table.write(file, [(kind, samples) for samples in pieces(kind, n_pieces, seed)], "", "made")


def impulse_response(rng: np.random.Generator) -> F32:
    """The impulse response of a made room, (n,) float32, its greatest value 0.9.

    A direct path, some early reflections, and noise that decays, faster at high frequencies, as in Polack's model.
    """
    n = round(ROOM_S * SAMPLE_RATE)
    seconds = float(np.exp(rng.uniform(np.log(SHORTEST_S), np.log(LONGEST_S))))
    t = np.arange(n) / SAMPLE_RATE
    bands = np.fft.rfftfreq(n, 1 / SAMPLE_RATE)
    tail = np.zeros(n, np.float32)
    edges = [0, 250, 500, 1000, 2000, 4000, 8001]
    for low, high in pairwise(edges):
        spectrum = np.fft.rfft(rng.standard_normal(n)) * ((bands >= low) & (bands < high))
        faster = seconds * (1 - 0.5 * low / 8000) * rng.uniform(0.8, 1.2)
        tail += (np.fft.irfft(spectrum, n) * np.exp(-6.9 * t / faster)).astype(np.float32)
    start = round(rng.uniform(0.002, 0.02) * SAMPLE_RATE)
    tail[:start] = 0
    tail *= np.float32(10 ** (rng.uniform(-18, 3) / 20) / max(1e-9, float(np.sqrt(np.sum(tail**2)))))
    tail[0] += 1
    for _ in range(int(rng.integers(2, 9))):
        tail[int(rng.integers(10, 600))] += np.float32(rng.uniform(-0.5, 0.5))
    return tail * np.float32(0.9 / float(np.abs(tail).max()))
