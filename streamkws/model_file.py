"""load_model, save_model: a model is one safetensors file, its whole configuration in the metadata.

Tensors: features (2, F) float32; frontend.mel_limits (F, 2) int32 and frontend.mel_weights (n,) float32, the filters'
non-zero stretches; per layer i: layers.i.bias (O,) float32 and either layers.i.weights (O, taps, I) float32, or
layers.i.codes (bytes,) uint8 (packed without gaps, see pack_codes), layers.i.lo and layers.i.step (O,) float32.
Metadata: one entry, "streamkws", a JSON object with the version and the configuration (safetensors writes several
entries in no fixed order; with one, the same model gives the same bytes). A configuration without weight_errors, as
the first files have, is one where they are unknown.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from streamkws.errors import ConfigError, ModelFileError
from streamkws.frontend import FrontEndConfig
from streamkws.layers import FLOAT_BITS, Layer, LayerConfig
from streamkws.model import Model, ModelConfig
from streamkws.quantization import Quantized, packed_size, unpack_codes
from streamkws.smoother import SmootherConfig
from streamkws.whole import write_whole

FORMAT = "streamkws"
VERSION = 1
SUFFIX = ".safetensors"
DEFAULT_BITS = "w4a8"

_Config = TypeVar("_Config", FrontEndConfig, LayerConfig, SmootherConfig, ModelConfig)


def save_model(model: Model, path: str | os.PathLike[str]) -> Path:
    """Write model to path, whole or not at all, and return the path.

    Raises OSError, naming path, when it cannot be written.
    """
    from safetensors.numpy import save

    path = Path(path)
    limits, mel_weights = _pack_filters(model.filters)
    tensors: dict[str, npt.NDArray[Any]] = {
        "features": model.features,
        "frontend.mel_limits": limits,
        "frontend.mel_weights": mel_weights,
    }
    for index, layer in enumerate(model.layers):
        name = f"layers.{index}"
        tensors[f"{name}.bias"] = layer.bias
        if isinstance(layer.weights, Quantized):
            tensors[f"{name}.codes"] = layer.stored_codes()
            tensors[f"{name}.lo"] = layer.weights.lo
            tensors[f"{name}.step"] = layer.weights.step
        else:
            tensors[f"{name}.weights"] = layer.weights
    header = json.dumps({"version": VERSION, "config": asdict(model.config)}, separators=(",", ":"))
    data = save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, {FORMAT: header})
    write_whole(path, data)
    return path


def load_model(name: str | os.PathLike[str]) -> Model:
    """Load a model by the name of a shipped one ("wakewords", "wakewords.w8a8"), or from a file.

    Without widths a shipped name means the w4a8 one.
    Raises ModelFileError for an unknown name and for a file that is missing, damaged, foreign, or of a newer version.
    """
    path = model_path(name)
    tensors, metadata = _read(path)
    if FORMAT not in metadata:
        raise ModelFileError(f"{path}: expected a streamkws model, got a safetensors file of another kind")
    try:
        header = json.loads(metadata[FORMAT])
        version = header.get("version") if isinstance(header, dict) else None
        if not isinstance(version, int):
            raise ConfigError(f"expected a version number, got {version!r}")
        if version > VERSION:
            raise ModelFileError(
                f"{path}: expected a model file of version {VERSION} or older, got version {version}: update streamkws"
            )
        return _model(config_from_json(header.get("config")), tensors)
    except RecursionError:
        raise ModelFileError(f"{path}: damaged model file: the configuration is nested too deeply") from None
    except ModelFileError:
        raise
    except ValueError as error:  # a ConfigError, or json's own: bad syntax, a number of too many digits
        raise ModelFileError(f"{path}: damaged model file: {error}") from None


def shipped_models() -> tuple[str, ...]:
    """The names of the models that come with the package, such as "wakewords.w4a8"."""
    return tuple(sorted(path.name.removesuffix(SUFFIX) for path in _models_folder().glob(f"*{SUFFIX}")))


def model_path(name: str | os.PathLike[str]) -> Path:
    """The file behind a shipped name or a path. Raises ModelFileError when there is none."""
    path = Path(name)
    if path.is_dir():
        raise ModelFileError(f"{path}: expected a model file, got a directory")
    if path.exists():
        return path
    if path.name == str(name) and path.suffix != SUFFIX:
        shipped = shipped_models()
        for candidate in (str(name), f"{name}.{DEFAULT_BITS}"):
            if candidate in shipped:
                return _models_folder() / f"{candidate}{SUFFIX}"
        known = ", ".join(shipped) or "none"
        raise ModelFileError(f"unknown model {str(name)!r}: neither a file nor a shipped model; shipped: {known}")
    raise ModelFileError(f"{path}: no such model file")


def _models_folder() -> Path:
    """models/ inside an installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "models"
    return inside if inside.is_dir() else package.parent / "models"


def _read(path: Path) -> tuple[dict[str, npt.NDArray[Any]], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}
    except PermissionError:
        raise ModelFileError(f"{path}: no permission to read the model file") from None
    except (SafetensorError, OSError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise ModelFileError(f"{path}: damaged, truncated or not a safetensors file ({error})") from None


def _model(config: ModelConfig, tensors: dict[str, npt.NDArray[Any]]) -> Model:
    n_mels, n_bins = config.frontend.n_mels, config.frontend.fft_samples // 2 + 1

    def take(name: str, shape: tuple[int, ...], dtype: type[np.generic]) -> npt.NDArray[Any]:
        tensor = tensors.get(name)
        if tensor is None:
            raise ConfigError(f"expected a tensor {name}, got {', '.join(sorted(tensors))}")
        if tensor.dtype != dtype or (shape != (-1,) and tensor.shape != shape) or tensor.ndim != len(shape):
            raise ConfigError(f"expected {name} of shape {shape} {np.dtype(dtype)}, got {tensor.shape} {tensor.dtype}")
        return tensor

    layers = []
    for index, c in enumerate(config.layers):
        name = f"layers.{index}"
        if c.weight_bits == FLOAT_BITS:
            weights: Quantized | npt.NDArray[np.float32] = take(
                f"{name}.weights", (c.n_outputs, c.taps, c.n_inputs), np.float32
            )
        else:
            packed = take(f"{name}.codes", (packed_size(c.n_weights, c.weight_bits),), np.uint8)
            codes = unpack_codes(packed, c.weight_bits, c.n_weights)
            lo, step = (take(f"{name}.{part}", (c.n_outputs,), np.float32) for part in ("lo", "step"))
            weights = Quantized(codes.reshape(c.n_outputs, c.taps, c.n_inputs), lo, step, c.weight_bits)
        layers.append(Layer(c, weights, take(f"{name}.bias", (c.n_outputs,), np.float32)))
    features = take("features", (2, n_mels), np.float32)
    limits = take("frontend.mel_limits", (n_mels, 2), np.int32)
    mel_weights = take("frontend.mel_weights", (-1,), np.float32)
    return Model(config, tuple(layers), features, _unpack_filters(limits, mel_weights, n_bins))


def _pack_filters(filters: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    limits = np.zeros((len(filters), 2), np.int32)
    for row, limit in zip(filters, limits, strict=True):
        bins = np.flatnonzero(row)
        if bins.size:
            limit[:] = bins[0], bins[-1] + 1
    return limits, np.concatenate([row[a:b] for row, (a, b) in zip(filters, limits, strict=True)])


def _unpack_filters(
    limits: npt.NDArray[np.int32], weights: npt.NDArray[np.float32], n_bins: int
) -> npt.NDArray[np.float32]:
    lengths = limits[:, 1] - limits[:, 0]
    if (limits < 0).any() or (limits > n_bins).any() or (lengths < 0).any() or lengths.sum() != weights.size:
        raise ConfigError("expected mel filters within the spectrum and as many weights as their limits say")
    filters = np.zeros((len(limits), n_bins), np.float32)
    start = 0
    for row, (first, end) in zip(filters, limits, strict=True):
        row[first:end] = weights[start : start + end - first]
        start += end - first
    return filters


def config_from_json(values: Any) -> ModelConfig:
    """A ModelConfig from its JSON object, as asdict gives it. Raises ConfigError for any other object."""
    if not isinstance(values, dict):
        raise ConfigError(f"expected a configuration object, got {type(values).__name__}")
    values = dict(values)
    layers = values.get("layers")
    if not isinstance(layers, list):
        raise ConfigError("expected a list of layers in the configuration")
    values["layers"] = tuple(_config(LayerConfig, layer) for layer in layers)
    values["frontend"] = _config(FrontEndConfig, values.get("frontend"))
    values["smoother"] = _config(SmootherConfig, values.get("smoother"))
    values["keywords"] = _keywords(values.get("keywords"))
    if not isinstance(values.get("provenance"), dict):
        raise ConfigError(f"expected an object of provenance in the configuration, got {values.get('provenance')!r}")
    values["weight_errors"] = _weight_errors(values.get("weight_errors", []))
    return _config(ModelConfig, values)


def _keywords(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ConfigError(f"expected a list of keywords, got {values!r}")
    return tuple(values)


def _weight_errors(values: Any) -> tuple[tuple[float, ...], ...]:
    if not isinstance(values, list) or not all(
        isinstance(errors, list) and all(isinstance(error, int | float) for error in errors) for errors in values
    ):
        raise ConfigError(f"expected a list of weight_errors, two numbers a layer, got {values!r}")
    return tuple(tuple(errors) for errors in values)


def _config(kind: type[_Config], values: Any) -> _Config:
    known = {field.name for field in fields(kind)}
    if not isinstance(values, dict) or set(values) != known:
        got = sorted(values) if isinstance(values, dict) else type(values).__name__
        raise ConfigError(f"expected the settings {', '.join(sorted(known))} in {kind.__name__}, got {got}")
    for field in fields(kind):
        if not _is_of_type(values[field.name], str(field.type)):
            raise ConfigError(f"expected {field.type} for {field.name} in {kind.__name__}, got {values[field.name]!r}")
    try:
        return kind(**values)
    except TypeError as error:
        raise ConfigError(f"wrong type of a setting in {kind.__name__}: {error}") from None


def _is_of_type(value: Any, annotation: str) -> bool:
    """Whether a JSON value is of a setting's annotated type, exactly: kernels index by what these numbers say."""
    if annotation == "float":
        return type(value) in (int, float) and math.isfinite(value)
    wanted = {"int": int, "bool": bool, "str": str, "dict": dict}.get(annotation.split("[")[0])
    return wanted is None or type(value) is wanted
