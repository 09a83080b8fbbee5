"""Checkpoints: the state of a training, written whole or not at all, and the networks read from them."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from streamkws.errors import ConfigError
from streamkws.model import ModelConfig
from streamkws.model_file import config_from_json
from streamkws.training.data import parts_of
from streamkws.training.fake_quant import QuantizationConfig
from streamkws.training.network import KeywordNetwork
from streamkws.training.recipe import Recipe
from streamkws.training.recordings import auxiliary_labels
from streamkws.training.teacher import N_EMBEDDING

CHECKPOINT, BEST = "checkpoint.pt", "best.pt"
"""Files in a run folder: the latest state, and the one with the lowest mean miss on validation."""


def config_to_text(config: ModelConfig) -> str:
    """A ModelConfig as text, for a checkpoint."""
    return json.dumps(asdict(config))


def config_from_text(text: str) -> ModelConfig:
    """The ModelConfig that config_to_text wrote."""
    return config_from_json(json.loads(text))


def save_checkpoint(entries: dict[str, Any], path: Path) -> None:
    """Write a checkpoint by way of a temporary file beside it, so that an interruption leaves the old one."""
    temporary = path.with_suffix(".tmp")
    torch.save(entries, temporary)
    os.replace(temporary, path)


def latest_checkpoint(place: str | Path) -> Path:
    """The latest checkpoint of a run folder; any other path is a checkpoint itself."""
    path = Path(place)
    return path / CHECKPOINT if path.is_dir() else path


def load_network(checkpoint: str | Path) -> KeywordNetwork:
    """The network of a checkpoint (its averaged weights), ready for use and quantizing where its layers have bits.

    Raises ConfigError where the file is missing, damaged or no checkpoint.
    """
    path = Path(checkpoint)
    if not path.is_file():
        raise ConfigError(f"expected a checkpoint, found no file {path}")
    try:
        entries = torch.load(path, map_location="cpu", weights_only=True)
        settings = entries.get("quantization")
        quantization = QuantizationConfig(**settings) if settings else None
        network = KeywordNetwork(config_from_text(entries["model_config"]), entries["n_auxiliary"], quantization)
        network.load_state_dict(entries["average"])
    except Exception as error:  # torch.load raises whatever pickle, zip and the tensors inside raise
        raise ConfigError(f"expected a checkpoint of this trainer, {path} is damaged or another file") from error
    return network.eval()


def n_other_outputs(recipe: Recipe, part: Path) -> int:
    """Outputs of the network beside its keywords while it trains: auxiliary labels, then a teacher's embedding."""
    parts = parts_of(part, recipe.data)
    return len(auxiliary_labels(parts, recipe.data.auxiliary)) + (N_EMBEDDING if recipe.data.teacher else 0)


def read_checkpoint(path: Path, recipe: Recipe, part: Path) -> dict[str, Any]:
    """The entries of a checkpoint that a recipe's training continues from. part: the corpus folder trained on.

    Raises ConfigError where the file is damaged, or its network is another than the recipe's.
    """
    try:
        entries: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        config = config_from_text(entries["model_config"])
        ranges = (entries.get("quantization") or {}).get("weight_ranges", "column")
    except Exception as error:  # torch.load raises whatever pickle, zip and the tensors inside raise
        raise ConfigError(f"cannot continue from {path}, a damaged or another file; --fresh starts anew") from error
    wanted = recipe.model.to_model_config({}, recipe.quantization)
    same = replace(config, durations_s={}, provenance={}, smoother=wanted.smoother) == wanted
    if not same or ranges != (recipe.quantization or QuantizationConfig()).weight_ranges:
        raise ConfigError(f"{path} holds another network than the recipe's; --fresh starts anew")
    if entries["n_auxiliary"] != n_other_outputs(recipe, part):
        raise ConfigError(f"{path} has other auxiliary outputs than the recipe's; --fresh starts anew")
    return entries


def read_start(recipe: Recipe, part: Path, folder: Path) -> KeywordNetwork | None:
    """The network that training.start_from names, None where it names none.

    Raises ConfigError where it is another than the recipe's; only the widths may differ.
    """
    if not recipe.training.start_from:
        return None
    path = latest_checkpoint(recipe.training.start_from)
    if path.resolve().parent == folder.resolve():
        raise ConfigError(f"expected training.start_from outside {folder}, which this run writes, got {path}")
    network = load_network(path)
    wanted = _properties(recipe.model.to_model_config({}, recipe.quantization), n_other_outputs(recipe, part))
    found = _properties(network.config, network.n_auxiliary)
    for name, value in wanted.items():
        if found[name] != value:
            raise ConfigError(f"cannot start from {path}: expected {name} to be {value!r}, got {found[name]!r}")
    return network


def _properties(config: ModelConfig, n_auxiliary: int) -> dict[str, Any]:
    """What two networks must have in common for the weights of one to be those of the other, by name."""
    properties = {
        "keywords": config.keywords,
        "the number of auxiliary outputs": n_auxiliary,
        "frame_stride": config.frame_stride,
        **asdict(config.frontend),
        "the number of layers": len(config.layers),
    }
    for index, layer in enumerate(config.layers):
        shape = {name: value for name, value in asdict(layer).items() if name not in ("weight_bits", "activation_bits")}
        properties |= {f"layer {index} {name}": value for name, value in shape.items()}
    return properties
