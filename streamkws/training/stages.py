"""Stages: a recipe whose models lean on each other, in one file.

    name = "mine"
    [model]                            # what all stages share
    ...
    [[stages]]
    name = "speakers"
    kind = "voices"
    speakers = 200

    [[stages]]
    name = "labels"                    # of kind "train": it changes what is shared
    data.synthetic = "speakers"

    [[stages]]
    name = "longer"
    extends = "labels"                 # another stage's changes, and these on top
    training.start_from = "labels"

A stage of kind "train" trains a network, "fetch" fetches the teacher, "voices" synthesizes speakers, "mine" looks for
hard negatives. A stage names earlier stages where a recipe names folders: data.teacher, data.synthetic, data.aligner,
data.negatives, training.start_from, training.ensemble, and the models and sets of a miner. chain.py runs the stages.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamkws.errors import ConfigError
from streamkws.training.provenance import data_text, training_text
from streamkws.training.recipe import Recipe, valid_run_name
from streamkws.training.recipe_file import (
    HELD_OUT,
    RUNS,
    SECTIONS,
    build,
    laid_over,
    load_recipe,
    read_entries,
    to_recipe,
    without_part,
)

MODEL_FILE = "model.safetensors"
"""A trained stage's model, for the stages that listen with it."""
TRAIN = "train"
REFERENCES = (
    ("data", "teacher", "fetch"),
    ("data", "synthetic", "voices"),
    ("data", "aligner", TRAIN),
    ("data", "negatives", "mine"),
    ("training", "start_from", TRAIN),
    ("training", "ensemble", TRAIN),
    ("mine", "models", TRAIN),
    ("mine", "sets", "voices"),
)
"""Where a stage may name earlier ones: section, key, and their kind. Of a table the keys are names, of a list the
items."""
LISTENERS = (("data", "aligner"), ("mine", "models"))
"""References to a stage's model file, not its folder."""


@dataclass(frozen=True)
class FetchStage:
    """Entries of a stage of kind "fetch": none."""


@dataclass(frozen=True)
class VoicesStage:
    """Entries of a stage of kind "voices"; see voices.speakers.synthesize."""

    speakers: int
    accents: bool = False
    more: bool = False


@dataclass(frozen=True)
class MineStage:
    """Entries of a stage of kind "mine"; see voices.mining.mine.

    models: stages, or model files, that listen. sets: stages, or folders of sets, to go through.
    """

    models: tuple[str, ...]
    sets: tuple[str, ...] = ()
    hours: int = 30
    foreign_hours: int = 20


TOOLS: dict[str, type[Any]] = {"fetch": FetchStage, "voices": VoicesStage, "mine": MineStage}
KINDS = (TRAIN, *TOOLS)


@dataclass(frozen=True)
class Stage:
    """A stage.

    entries: all that it is made by, what it inherits included, as tables by section. A tool has one section, its kind;
        voices also the keywords.
    needs: the earlier stages that the entries name.
    """

    name: str
    kind: str
    entries: dict[str, Any]
    needs: tuple[str, ...]


class Chain:
    """The stages of a recipe, in order.

    name: of the recipe. held_out: the part whose recordings of the keywords no stage trains on, "" for none.
    sources: where each set of the corpus is from, and its licence, by name.
    original: the same recipe with nothing held out; None where nothing is.
    """

    def __init__(self, path: Path, entries: dict[str, Any], held_out: str = "") -> None:
        self.path, self.held_out = path, held_out
        self.original = Chain(path, entries) if held_out else None
        entries = without_part(entries, held_out) if held_out else dict(entries)
        self.name = valid_run_name(entries.pop("name", path.stem), "a recipe's name") + (HELD_OUT if held_out else "")
        self.sources = _read_sources(entries.pop("sources", {}), path)
        listed = entries.pop("stages")
        if not isinstance(listed, list) or not listed or not all(isinstance(one, dict) for one in listed):
            raise ConfigError(f"expected [[stages]] in {path}")
        self.stages: dict[str, Stage] = {}
        self._fingerprints: dict[str, str] = {}
        changes: dict[str, dict[str, Any]] = {}
        for one in listed:
            stage = self._read_stage(dict(one), entries, changes)
            self.stages[stage.name] = stage
        if not any(stage.kind == TRAIN for stage in self.stages.values()):
            raise ConfigError(f'expected a stage of kind "{TRAIN}" in {path}, found none')
        self.recipes = {name: self._recipe(name) for name, stage in self.stages.items() if stage.kind == TRAIN}
        last = self.trained[-1]
        if self.original and self.fingerprint(last) == self.original.fingerprint(last):
            raise ConfigError(f"expected stage {last!r} to train on {held_out}, which is to be held out; it does not")

    @property
    def trained(self) -> list[str]:
        """Names of the stages of kind "train"."""
        return [name for name, stage in self.stages.items() if stage.kind == TRAIN]

    def _read_stage(self, own: dict[str, Any], shared: dict[str, Any], changes: dict[str, dict[str, Any]]) -> Stage:
        """A stage from its table.

        shared: the recipe's sections. changes: what each stage so far changes of them; this one's are added.
        """
        name, kind, extends = own.pop("name", None), own.pop("kind", TRAIN), own.pop("extends", None)
        if name is not None:
            valid_run_name(name, "a stage's name")
        if name is None or name in self.stages:
            raise ConfigError(f"expected every stage of {self.path} to have a name of its own, got {name!r}")
        if kind not in KINDS:
            raise ConfigError(f"expected stage {name!r} to be of kind {', '.join(KINDS)}, got {kind!r}")
        if extends is not None:
            if kind != TRAIN or not isinstance(extends, str) or extends not in changes:
                raise ConfigError(f"expected stage {name!r} to extend an earlier stage that trains, got {extends!r}")
            own = laid_over(changes[extends], own)
        if kind == TRAIN:
            unknown = sorted(set(own) - set(SECTIONS))
            if unknown:
                raise ConfigError(
                    f"unknown key {unknown[0]!r} in stage {name!r}; known: name, kind, extends, {', '.join(SECTIONS)}"
                )
            changes[name] = own
            entries = laid_over(shared, own)
        else:
            build(TOOLS[kind], own, f"stage {name!r}")
            entries = {kind: own}
            if kind == "voices":
                model = shared.get("model")
                entries["keywords"] = model.get("keywords") if isinstance(model, dict) else None
        needs: list[str] = []

        def note(value: str, where: str, wanted: str) -> str:
            needs.extend([value] if self._is_stage(value, name, where, wanted) else [])
            return value

        _renamed(entries, note)
        return Stage(name, kind, entries, tuple(dict.fromkeys(needs)))

    def _is_stage(self, value: str, name: str, where: str, wanted: str) -> bool:
        """Whether a reference of a stage is to an earlier stage, else it is a path. Raises ConfigError for neither."""
        if value in self.stages:
            found = self.stages[value].kind
            if found != wanted:
                raise ConfigError(
                    f"stage {name!r}: expected {where} to name a stage of kind {wanted!r}, {value!r} is of {found!r}"
                )
            return True
        if not value or "/" in value or where.startswith("data.negatives"):
            return False
        known = ", ".join(key for key, stage in self.stages.items() if stage.kind == wanted) or "none"
        raise ConfigError(
            f"stage {name!r}: expected {where} to name an earlier stage ({known}) or a path, got {value!r}"
        )

    def needed_by(self, name: str) -> list[str]:
        """The stages that a stage needs, directly or not, in order, and itself. Raises ConfigError for no stage."""
        if name not in self.stages:
            raise ConfigError(f"expected a stage of {', '.join(self.stages)}, got {name!r}")
        needed = {name}
        for one in reversed(self.stages.values()):
            if one.name in needed:
                needed.update(one.needs)
        return [one for one in self.stages if one in needed]

    def inputs(self, name: str) -> dict[str, str]:
        """Fingerprints of the stages that a stage names."""
        return {need: self.fingerprint(need) for need in self.stages[name].needs}

    def paths(self, name: str) -> list[tuple[str, str]]:
        """The paths that a stage names where it might name a stage: where, and the path."""
        found: list[tuple[str, str]] = []

        def note(value: str, where: str, wanted: str) -> str:
            if "/" in value and value not in self.stages:
                found.append((where, value))
            return value

        _renamed(self.stages[name].entries, note)
        return found

    def settings(self, name: str) -> dict[str, Any]:
        """The entries of a stage that affect its result. [export] and the path of the corpus do not."""
        entries = {key: value for key, value in self.stages[name].entries.items() if key != "export"}
        if "data" in entries:
            entries["data"] = {key: value for key, value in entries["data"].items() if key != "corpus"}
        return entries

    def fingerprint(self, name: str) -> str:
        """A text that differs where the settings of a stage or of one that it needs do."""
        if name in self._fingerprints:
            return self._fingerprints[name]
        inputs = self.inputs(name)
        settings = _renamed(self.settings(name), lambda value, where, kind: inputs.get(value, value))
        text = json.dumps([self.stages[name].kind, settings], sort_keys=True)
        self._fingerprints[name] = hashlib.sha256(text.encode()).hexdigest()[:16]
        return self._fingerprints[name]

    def folder(self, name: str) -> Path:
        """The run folder of a stage.

        Stages with the same fingerprint share the folder of the first, also with the original recipe: a stage that
        holding out does not change is not trained twice.
        """
        wanted = self.fingerprint(name)
        for chain in (self.original, self):
            for other in chain.stages if chain else ():
                if chain and chain.fingerprint(other) == wanted:
                    return RUNS / chain.name / other
        raise AssertionError(name)

    def resolved(self, name: str) -> dict[str, Any]:
        """The entries of a stage, the names of stages replaced by paths."""
        needs = self.stages[name].needs

        def path(value: str, where: str, kind: str) -> str:
            if value not in needs:
                return value
            folder = self.folder(value)
            listens = tuple(where.split(".")[:2]) in LISTENERS
            return (folder / MODEL_FILE if listens else folder).as_posix()

        return _renamed(self.stages[name].entries, path)

    def _recipe(self, name: str) -> Recipe:
        try:
            return to_recipe(self.flat_entries(name), self.path)
        except ConfigError as error:
            raise ConfigError(f"stage {name!r}: {error}") from None

    def flat_entries(self, name: str) -> dict[str, Any]:
        """The entries of a stage of kind "train" as a recipe without stages, with the provenance of its model."""
        entries = self.resolved(name)
        full_name = self.name if name == self.trained[-1] else f"{self.name}-{name}"
        own = entries.get("export", {})
        if not isinstance(own, dict) or not isinstance(own.get("provenance", {}), dict):
            return {**entries, "name": full_name}  # to_recipe says what is wrong
        needed = [self.stages[one] for one in self.needed_by(name)]
        generated = {
            "name": full_name,
            "recipe": self.path.name,
            "data": data_text([(one.kind, one.entries) for one in needed], self.sources),
            "training": training_text([(one.name, one.kind, one.entries) for one in needed], self.held_out),
        }
        export = {**own, "provenance": {**generated, **own.get("provenance", {})}}
        return {**entries, "name": full_name, "export": export}


def read_chain(path: str | Path, held_out: str = "") -> Chain | None:
    """The stages of a recipe, None of one without any. Raises ConfigError where the recipe is not as expected.

    held_out: the part of the corpus whose recordings of the keywords no stage trains on, "" for none.
    """
    entries = read_entries(path)
    return Chain(Path(path), entries, held_out) if "stages" in entries else None


def load_stage(path: str | Path, stage: str) -> Recipe:
    """The Recipe of a stage, seen as one without stages; of a recipe without any, that itself."""
    chain = read_chain(path)
    if chain is None:
        return load_recipe(path)
    if stage not in chain.recipes:
        raise ConfigError(f"expected a stage of {', '.join(chain.recipes)}, got {stage!r}")
    return chain.recipes[stage]


def _read_sources(table: Any, path: Path) -> dict[str, tuple[str, ...]]:
    sources = {}
    for name, texts in table.items() if isinstance(table, dict) else [("", None)]:
        texts = [texts] if isinstance(texts, str) else texts
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise ConfigError(f"expected [sources] of {path} to give each set a text, or a list of texts")
        sources[name] = tuple(texts)
    return sources


def _renamed(entries: dict[str, Any], rename: Callable[[str, str, str], str]) -> dict[str, Any]:
    """Entries with every reference replaced by rename(value, where it stands, kind of stage it may name)."""
    renamed = dict(entries)
    for section, key, kind in REFERENCES:
        table = renamed.get(section)
        if not isinstance(table, dict) or key not in table:
            continue
        value, where = table[key], f"{section}.{key}"
        if isinstance(value, dict):
            value = {rename(name, where, kind): share for name, share in value.items()}
        elif isinstance(value, list):
            value = [rename(name, where, kind) if isinstance(name, str) else name for name in value]
        elif isinstance(value, str):
            value = rename(value, where, kind)
        renamed[section] = {**table, key: value}
    return renamed
