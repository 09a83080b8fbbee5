"""What a model made by several stages learned from, and how, as text for its file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from streamkws.training.data import DataConfig
from streamkws.training.recipe import TrainingConfig
from streamkws.training.recipe_file import build

TEACHER = "taught by Google's speech embedding (Apache-2.0)"
VOICES = "{speakers:,} speakers synthesized by Kokoro-82M (Apache-2.0)"
MADE = "negatives made by numpy and espeak-ng"


def data_text(stages: Sequence[tuple[str, dict[str, Any]]], sources: dict[str, tuple[str, ...]]) -> str:
    """Sources and licences of what stages learned from, each once.

    stages: kind and entries of each, in order. sources: sources with licences of each set of the corpus, by name.
    """
    sets: set[str] = set()
    others: dict[str, None] = {}
    for kind, entries in stages:
        if kind == "fetch":
            others[TEACHER] = None
        elif kind == "mine":
            others[MADE] = None
        elif kind == "voices":
            n_speakers = entries["voices"]["speakers"]
            others[VOICES.format(speakers=n_speakers)] = None
        else:
            data: DataConfig = build(DataConfig, entries.get("data", {}), "data")
            sets |= {data.wakewords, data.impulse_responses, *data.negatives, *data.noise, *data.auxiliary}
    named = dict.fromkeys(text for name, texts in sources.items() if name in sets for text in texts)
    return "; ".join([", ".join(named), *others] if named else [*others])


def training_text(stages: Sequence[tuple[str, str, dict[str, Any]]], held_out: str) -> str:
    """How the last of some stages was trained: the networks before it, and the others that it learned from.

    The first may be a file that training started from.

    stages: name, kind and entries of each, in order; those that do not train are passed over. held_out: the part of the
    corpus whose recordings of the keywords none of them trained on, "" for none.
    """
    training: dict[str, TrainingConfig] = {
        name: build(TrainingConfig, entries.get("training", {}), "training")
        for name, kind, entries in stages
        if kind == "train"
    }
    line = [next(reversed(training))]
    while (before := training[line[0]].start_from) in training:
        line.insert(0, before)
    told = [_told(name, training[name]) for name in line]
    text = ", then ".join([Path(before).name, *told] if before else told)
    others = [_told(name, settings) for name, settings in training.items() if name not in line]
    if others:
        text += f"; with the help of {', '.join(others)}"
    return text + (f"; without {held_out}'s recordings of the keywords" if held_out else "")


def _told(name: str, settings: TrainingConfig) -> str:
    """A stage in a few words."""
    ensemble = f", an ensemble of {len(settings.ensemble)}" if settings.ensemble else ""
    return f"{name} ({settings.steps:,} steps of {settings.batch} examples{ensemble}, seed {settings.seed})"
