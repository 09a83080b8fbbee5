"""Training of new phrases: from the backbone, in two steps: from made voices, then with what the user brings."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from streamkws.corpus import KEYWORD_SET, SEGMENTS
from streamkws.model_file import model_path
from streamkws.new.own import OWN_NEGATIVES
from streamkws.new.scripts import Amounts
from streamkws.training.recipe import Recipe
from streamkws.training.recipe_file import RUNS, entries_text, read_entries, to_recipe

TEMPLATE = Path(__file__).with_name("recipe.toml")
BACKBONE = "backbone.f32"
PACK_SUFFIX = ".pack"
TEACHER = RUNS / "teacher"
"""Where the speech embedding is kept that the training also learns from."""
VALIDATIONS, PATIENCE = 8, 3
"""How often a training is judged on the way, and after how many times without a gain it ends."""
ADAPTING = {"learning_rate": 5e-4, "learning_rate_end": 2e-5, "warmup_steps": 50}
ADAPTING_SHARE = 0.25
"""Steps of the second step, as a share of the first."""
OWN_SHARE = 2.0
"""Share of the user's sound among the negatives."""


def pack_path() -> Path:
    """The shipped pack of features. Raises ModelFileError where there is no backbone beside it."""
    return model_path(BACKBONE).with_name(f"backbone{PACK_SUFFIX}")


def recipe_of(
    name: str, phrases: tuple[str, ...], folder: Path, amounts: Amounts, source: str, *, start: Path | None = None
) -> tuple[Recipe, str]:
    """The recipe of a training, and its text.

    folder: with voices/ and corpus/. source: what the text says it is from. start: the run folder of the first step,
    for the second, which also learns from the user's takes and negatives; None for the first.
    """
    entries: dict[str, Any] = read_entries(TEMPLATE)
    model, data, training = entries["model"], entries["data"], entries["training"]
    model["keywords"] = list(phrases)
    data |= {"corpus": (folder / "corpus").as_posix(), "synthetic": (folder / "voices").as_posix()}
    data |= {"pack": pack_path().as_posix(), "teacher": TEACHER.as_posix()}
    steps = amounts.steps
    if start is not None:
        steps = round(steps * ADAPTING_SHARE)
        training |= {**ADAPTING, "start_from": start.as_posix()}
        if (folder / "corpus" / "own" / OWN_NEGATIVES / SEGMENTS).is_file():
            data["negatives"][(folder / "corpus" / "own" / OWN_NEGATIVES).as_posix()] = OWN_SHARE
        if (folder / "corpus" / "own" / KEYWORD_SET).is_dir():
            data["also_keywords"] = ["own"]
    training |= {"steps": steps, "validate_steps": max(1, steps // VALIDATIONS), "patience": PATIENCE}
    entries["name"] = name
    return to_recipe(entries, TEMPLATE), entries_text(entries, source)


def fingerprint(recipe_text: str, folder: Path) -> str:
    """A text that differs where a recipe differs, or what the user brings in a folder."""
    files = sorted((path.relative_to(folder).as_posix(), path.stat().st_size) for path in folder.rglob("*.flac"))
    return hashlib.sha256(json.dumps([recipe_text, files]).encode()).hexdigest()[:8]
