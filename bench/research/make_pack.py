"""Make the pack of features that `streamkws new` trains and judges with, from the train part of the corpus.

    python bench/research/make_pack.py ../shared/corpus

Windows of 4 s. Of the speakers for judging, at random; of the others, those that the backbone takes most for one of its
phrases, and a random third. No recording of a keyword is in it, nor "hey savant". Needs models/backbone.f32; some
minutes.
"""

from __future__ import annotations

import argparse
import sys
import zlib
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from streamkws.corpus import read_segments
from streamkws.frontend import FrontEnd
from streamkws.model import Model
from streamkws.model_file import load_model
from streamkws.training.data import matches
from streamkws.training.pack import BLOCK_FRAMES, Stretch, write_pack
from streamkws.training.recipe_file import read_entries

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "models" / "backbone.toml"
WINDOW = 51 * BLOCK_FRAMES
"""Frames of a window."""
MINUTES = {  # of each set: to train, to judge
    "accented_sentences": (24, 13),
    "librispeech": (11, 6),
    "spoken_commands": (14, 8),
    "read_english": (9, 0),
    "read_sentences": (4, 0),
    "speech_commands": (7, 2),
    "arabic_speech_commands": (8, 3),
    "community": (3, 1),
    "household_noise": (5, 3),
    "esc10_noise": (2, 1),
}
RANDOM_SHARE = 1 / 3
"""Of the windows to train on."""


class Window(NamedTuple):
    """A window of a set, and how much of a phrase the backbone takes it for."""

    features: npt.NDArray[np.float16]
    judges: bool
    score: float


def judges(speaker: str) -> bool:
    """Whether a speaker is one who judges: three of ten are."""
    return zlib.crc32(speaker.encode()) % 10 < 3


def windows(folder: Path, model: Model, excluded: tuple[str, ...]) -> list[Window]:
    """The windows of a set; each lies within the segments of one kind of speaker."""
    one = read_segments(folder)
    frontend, state, found = FrontEnd(model.config.frontend), model.new_state(), []
    segments = [s for s in one.segments if not matches(f"{one.name}/{s.label}", excluded)]
    runs: dict[tuple[int, bool], list[npt.NDArray[np.int16]]] = defaultdict(list)
    for number, segment in enumerate(segments):
        speaker = segment.speaker or f"{one.name}/{number // 10}"
        runs[segment.file, judges(speaker)].append(one.files[segment.file][segment.start : segment.end])
    for (_, judging), parts in runs.items():
        samples = np.concatenate(parts)
        frontend.reset()
        state.hear_silence()
        features = np.array(frontend.push(samples))
        scores = np.array(state.push(features)).max(1)
        per_window = WINDOW // model.config.frame_stride
        for index in range(len(features) // WINDOW):
            score = float(scores[index * per_window : (index + 1) * per_window].max())
            piece = features[index * WINDOW : (index + 1) * WINDOW].astype(np.float16)
            found.append(Window(piece, judging, score))
    return found


def chosen(all_windows: list[Window], n_train: int, n_judge: int, rng: np.random.Generator) -> list[Window]:
    """Windows to train on, the hardest and some at random, and windows to judge by, at random."""
    hard = sorted((one for one in all_windows if not one.judges), key=lambda one: -one.score)
    to_judge = [one for one in all_windows if one.judges]
    n_hard = min(len(hard), round(n_train * (1 - RANDOM_SHARE)))
    rest = hard[n_hard:]
    drawn = [rest[i] for i in rng.permutation(len(rest))[: n_train - n_hard]]
    return [*hard[:n_hard], *drawn, *(to_judge[i] for i in rng.permutation(len(to_judge))[:n_judge])]


def main() -> None:
    """Make the pack."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", type=Path, help="the folder with train/")
    parser.add_argument("--backbone", default="backbone.f32", help="who mines (backbone.f32)")
    parser.add_argument("--out", type=Path, default=ROOT / "models" / "backbone.pack", help="the file to write")
    arguments = parser.parse_args()
    entries = read_entries(RECIPE)
    model = load_model(arguments.backbone)
    rng, stretches, sources = np.random.default_rng(5), [], {}
    for name, minutes in MINUTES.items():
        found = windows(arguments.corpus / "train" / name, model, tuple(entries["data"]["exclude"]))
        per_minute = 6000 / WINDOW
        kept = chosen(found, *(round(one * per_minute) for one in minutes), rng)
        stretches += [Stretch(one.features, name, one.judges) for one in kept]
        source = entries["sources"][name]
        sources[name] = source if isinstance(source, str) else ", ".join(source)
        share = sum(one.score >= 0.5 for one in kept) / max(1, len(kept))
        print(f"{name}: {len(kept)} of {len(found)} windows, {100 * share:.0f} % taken for a phrase", file=sys.stderr)
    size = write_pack(arguments.out, stretches, model.config.frontend, sources)
    hours = [sum(one.judges == flag for one in stretches) * WINDOW / 360_000 for flag in (False, True)]
    print(f"{arguments.out}: {size:,} bytes, {hours[0]:.2f} h to train on, {hours[1]:.2f} h to judge by")


if __name__ == "__main__":
    main()
