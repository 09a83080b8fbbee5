"""Reading a recipe's TOML file; an unknown key or a value of another type is an error."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

from streamkws.errors import ConfigError
from streamkws.training.augment import AugmentConfig
from streamkws.training.data import DataConfig
from streamkws.training.fake_quant import QuantizationConfig
from streamkws.training.recipe import ExportConfig, HiddenLayer, NetworkConfig, Recipe, TrainingConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SECTIONS = ("model", "data", "augment", "training", "quantization", "export")
RUNS = Path("runs")
"""Folder of all runs, in the working directory."""
HELD_OUT = "-held-out"
"""Ending of the names of recipes without a part's recordings of the keywords."""
AFTER_TRAINING = ("bits", "rounding_examples")
"""Entries of [export] that are not for what was trained quantized."""


def read_entries(path: str | Path) -> dict[str, Any]:
    """The entries of a recipe's file, laid over those of the recipe that its `extends` names, relative to its folder.

    See laid_over. Raises ConfigError for a file that cannot be read, or extends itself.
    """
    return _read_entries(Path(path), ())


def _read_entries(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in above:
        raise ConfigError(f"expected recipes that end somewhere, {path} extends itself")
    try:
        with path.open("rb") as file:
            entries = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"cannot read recipe {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"expected a recipe in TOML, {path} is not: {error}") from error
    extends = entries.pop("extends", None)
    if extends is None:
        return entries
    if not isinstance(extends, str):
        raise ConfigError(f"expected extends to be the path of a recipe, got {extends!r}")
    entries.setdefault("name", path.stem)
    return laid_over(_read_entries(path.parent / extends, (*above, path.resolve())), entries)


def laid_over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """The entries below, changed by those above: a value replaces the one below; tables are merged, lists are not.

    Where a [quantization] section comes on top, export.bits and export.rounding_examples from below are left out.
    """
    if "quantization" in above and isinstance(below.get("export"), dict):
        export = {key: value for key, value in below["export"].items() if key not in AFTER_TRAINING}
        below = {**below, "export": export}
    return _merged(below, above)


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        tables = isinstance(value, dict) and isinstance(below.get(key), dict)
        merged[key] = _merged(below[key], value) if tables else value
    return merged


def recipe_text(path: str | Path) -> str:
    """The text of a recipe; of one that extends another with everything it takes from there, without comments."""
    text = Path(path).read_text(encoding="utf-8")
    if "extends" in tomllib.loads(text):
        return entries_text(read_entries(path), f"{path}, with what it extends")
    return text


def entries_text(entries: dict[str, Any], source: str) -> str:
    """Entries as the text of a recipe, under a comment that says where they are from."""
    import tomli_w

    return f"# {source}.\n\n{tomli_w.dumps(entries)}"


def without_part(entries: dict[str, Any], part: str) -> dict[str, Any]:
    """The entries of a recipe, a part of the corpus left out of data.also_train and data.also_keywords everywhere."""

    def left(section: Any) -> Any:
        if not isinstance(section, dict):
            return section
        changed = dict(section)
        for key in ("also_train", "also_keywords"):
            if isinstance(section.get(key), list):
                changed[key] = [one for one in section[key] if one != part]
        return changed

    changed = dict(entries)
    if "data" in entries:
        changed["data"] = left(entries["data"])
    if isinstance(entries.get("stages"), list):
        changed["stages"] = [
            {**one, "data": left(one["data"])} if isinstance(one, dict) and "data" in one else one
            for one in entries["stages"]
        ]
    return changed


def load_recipe(path: str | Path) -> Recipe:
    """Read a recipe without stages. Raises ConfigError where the file, a key or a value is not as expected."""
    path = Path(path)
    entries = read_entries(path)
    if "stages" in entries:
        raise ConfigError(f"expected a recipe without stages, {path} has some (streamkws/training/stages.py reads it)")
    return to_recipe(entries, path)


def to_recipe(entries: dict[str, Any], path: Path) -> Recipe:
    """The Recipe of the entries of a file. Raises ConfigError where a key or a value is not as expected."""
    unknown = sorted(set(entries) - {"name", *SECTIONS})
    if unknown:
        known = ", ".join(("name", "extends", "stages", *SECTIONS))
        raise ConfigError(f"unknown key {unknown[0]!r} in {path}; known: {known}")
    model = dict(_section(entries, "model"))
    layers = model.get("layers", [])
    if not isinstance(layers, list):
        raise ConfigError("expected model.layers to be a list")
    model["layers"] = tuple(build(HiddenLayer, layer, f"model.layers[{index}]") for index, layer in enumerate(layers))
    quantization = None
    if "quantization" in entries:
        quantization = build(QuantizationConfig, _section(entries, "quantization"), "quantization")
        for key in AFTER_TRAINING:
            if key in _section(entries, "export"):
                raise ConfigError(
                    f"expected no export.{key} beside [quantization], whose model is written in the widths it was "
                    "trained for"
                )
    return Recipe(
        name=str(entries.get("name", path.stem)),
        model=build(NetworkConfig, model, "model"),
        data=build(DataConfig, _section(entries, "data"), "data"),
        augment=build(AugmentConfig, _section(entries, "augment"), "augment"),
        training=build(TrainingConfig, _section(entries, "training"), "training"),
        export=build(ExportConfig, _section(entries, "export"), "export"),
        quantization=quantization,
    )


def _section(entries: dict[str, Any], name: str) -> dict[str, Any]:
    section = entries.get(name, {})
    if not isinstance(section, dict):
        raise ConfigError(f"expected [{name}] to be a section")
    return section


def build(kind: type[Any], entries: Any, where: str) -> Any:
    """An object of a frozen dataclass from a table's entries; types are checked against its fields' annotations."""
    if not isinstance(entries, dict):
        raise ConfigError(f"expected {where} to be a table, got {entries!r}")
    fields = {one.name: one for one in dataclasses.fields(kind)}
    values = {}
    for key, value in entries.items():
        if key not in fields:
            raise ConfigError(f"unknown key {where}.{key}; known: {', '.join(fields)}")
        values[key] = _checked(value, str(fields[key].type), f"{where}.{key}")
    missing = [
        name
        for name, one in fields.items()
        if one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING and name not in values
    ]
    if missing:
        raise ConfigError(f"expected {where}.{missing[0]}, found none")
    return kind(**values)


def _checked(value: Any, annotation: str, where: str) -> Any:
    if annotation.startswith("tuple"):
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"expected {where} to be a list, got {value!r}")
        return tuple(tuple(item) if isinstance(item, list) else item for item in value)
    if annotation == "float" and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    expected = {"float": float, "int": int, "bool": bool, "str": str}.get(annotation, dict)
    if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
        raise ConfigError(f"expected {where} to be {annotation}, got {value!r}")
    return value
