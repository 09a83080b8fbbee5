"""Checkpoints: the state of a training, written whole or not at all, and the networks read from them."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from streamkws.errors import ConfigError
from streamkws.layers import LayerConfig
from streamkws.model import Model, ModelConfig
from streamkws.model_file import SUFFIX, config_from_json, load_model, shipped_models
from streamkws.training.data import parts_of
from streamkws.training.fake_quant import QuantizationConfig
from streamkws.training.network import KeywordNetwork
from streamkws.training.recipe import Recipe
from streamkws.training.recordings import auxiliary_labels
from streamkws.training.teacher import N_EMBEDDING
from streamkws.whole import write_whole

CHECKPOINT, BEST = "checkpoint.pt", "best.pt"
"""Files in a run folder: the latest state, and the one with the lowest mean miss on validation."""


def config_to_text(config: ModelConfig) -> str:
    """A ModelConfig as text, for a checkpoint."""
    return json.dumps(asdict(config))


def config_from_text(text: str) -> ModelConfig:
    """The ModelConfig that config_to_text wrote."""
    return config_from_json(json.loads(text))


def save_checkpoint(entries: dict[str, Any], path: Path) -> None:
    """Write a checkpoint, so that an interruption or a full disk leaves the old one."""
    content = io.BytesIO()  # torch, which writes in C++, makes no OSError of a full disk
    torch.save(entries, content)
    write_whole(path, content.getvalue())


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


def is_model(name: str) -> bool:
    """Whether a name that a recipe gives is a model's, a shipped one's or a file's, and not a checkpoint's."""
    return name.endswith(SUFFIX) or name in shipped_models()


def read_f32(name: str, what: str) -> Model:
    """An f32 model by name or file. what: it is for, as a recipe calls it.

    Raises ConfigError for a model in other widths, ModelFileError for a file that cannot be read.
    """
    model = load_model(name)
    if not model.config.is_float:
        raise ConfigError(f"expected {what} to be an f32 model, got {model.name}")
    return model


def network_of(model: Model) -> KeywordNetwork:
    """A float32 model as a network that is not to be trained."""
    network = KeywordNetwork(model.config)
    network.take_over(model)
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


def read_start(recipe: Recipe, part: Path, folder: Path) -> KeywordNetwork | Model | None:
    """The network, or the model, that training.start_from names; None where it names none.

    Raises ConfigError where a network is another than the recipe's; only the widths may differ.
    """
    name = recipe.training.start_from
    if not name:
        return None
    config = recipe.model.to_model_config({}, recipe.quantization)
    if is_model(name):
        model = read_f32(name, "training.start_from")
        _check_same(name, _below_output(config), _below_output(model.config))
        return model
    path = latest_checkpoint(name)
    if path.resolve().parent == folder.resolve():
        raise ConfigError(f"expected training.start_from outside {folder}, which this run writes, got {path}")
    network = load_network(path)
    wanted, found = (
        {"keywords": one.keywords, "the number of auxiliary outputs": n, **_properties(one, one.layers)}
        for one, n in ((config, n_other_outputs(recipe, part)), (network.config, network.n_auxiliary))
    )
    _check_same(path, wanted, found)
    return network


def _check_same(place: str | Path, wanted: dict[str, Any], found: dict[str, Any]) -> None:
    """Raise ConfigError for the first property of a place to start from that is another than wanted."""
    for name, value in wanted.items():
        if found.get(name) != value:
            raise ConfigError(f"cannot start from {place}: expected {name} to be {value!r}, got {found.get(name)!r}")


def _below_output(config: ModelConfig) -> dict[str, Any]:
    """The properties of a network but for its output."""
    return _properties(config, config.layers[:-1])


def _properties(config: ModelConfig, layers: tuple[LayerConfig, ...]) -> dict[str, Any]:
    """What two networks must have in common for the weights of some layers to be each other's, by name."""
    properties: dict[str, Any] = {
        "frame_stride": config.frame_stride,
        **asdict(config.frontend),
        "the number of layers": len(config.layers),
    }
    for index, layer in enumerate(layers):
        shape = {name: value for name, value in asdict(layer).items() if name not in ("weight_bits", "activation_bits")}
        properties |= {f"layer {index} {name}": value for name, value in shape.items()}
    return properties
