"""export: from a checkpoint to model files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from streamkws.errors import ConfigError
from streamkws.model import Model
from streamkws.model_file import save_model
from streamkws.quantization import quantize
from streamkws.training.augment import F32
from streamkws.training.network import load_network
from streamkws.training.recipe import load_recipe


def quantization_error(weights: F32, bits: int) -> float:
    """Root mean square of what quantizing each unit's weights changes, relative to the weights' own.

    weights: (O, taps, I) float32.
    """
    columns = weights.reshape(weights.shape[0], -1)
    error = quantize(columns, bits).dequantize() - columns
    return float(np.sqrt(np.mean(error**2) / max(np.mean(columns.astype(np.float64) ** 2), 1e-30)))


def export(run_folder: str | Path, out_folder: str | Path) -> list[Path]:
    """Write the models of a run: <name>.f32.safetensors and one per pair of bits in the recipe; return their paths.

    run_folder: a run folder (its latest checkpoint is used) or a checkpoint in one.
    Prints the relative quantization error of every tensor.
    """
    place = Path(run_folder)
    checkpoint = place / "checkpoint.pt" if place.is_dir() else place
    recipe = load_recipe(checkpoint.parent / "recipe.toml")
    network = load_network(checkpoint)
    for pair in recipe.export.bits:
        if len(pair) != 2 or not all(2 <= bits <= 8 for bits in pair):
            raise ConfigError(f"expected export.bits to be pairs of 2 to 8 bits, got {list(pair)}")
    weights = network.to_float_weights()
    config = replace(network.config, provenance=recipe.export.provenance)
    full = Model.from_float(config, weights)
    out = Path(out_folder)
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / f"{recipe.name}.f32.safetensors"]
    save_model(full, paths[0])
    for weight_bits, activation_bits in recipe.export.bits:
        path = out / f"{recipe.name}.w{weight_bits}a{activation_bits}.safetensors"
        save_model(full.quantize(weight_bits, activation_bits), path)
        paths.append(path)
    for index, tensor in enumerate(weights.weights):
        errors = "  ".join(
            f"{bits} bits {100 * quantization_error(tensor, bits):.2f} %"
            for bits in sorted({weight_bits for weight_bits, _ in recipe.export.bits}, reverse=True)
        )
        print(f"layer {index}  {'x'.join(str(size) for size in tensor.shape)}  error {errors}")
    return paths
