"""export: from a checkpoint to model files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from streamkws.evaluation.det import calibrate, evaluate_models
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


def export(run_folder: str | Path, out_folder: str | Path, corpus: str | Path | None = None) -> list[Path]:
    """Write the models of a run: <name>.f32.safetensors and one per pair of bits in the recipe; return their paths.

    run_folder: a run folder (its latest checkpoint is used) or a checkpoint in one.
    corpus: replaces the recipe's data.corpus, on whose validation part the thresholds are set.
    Prints the relative quantization error of every tensor, and the thresholds.
    """
    place = Path(run_folder)
    checkpoint = place / "checkpoint.pt" if place.is_dir() else place
    recipe = load_recipe(checkpoint.parent / "recipe.toml")
    network = load_network(checkpoint)
    weights = network.to_float_weights()
    settings = recipe.model.to_model_config(recipe.export.provenance)
    config = replace(network.config, smoother=settings.smoother, provenance=settings.provenance)
    full = Model.from_float(config, weights)
    models = [full, *(full.quantize(*pair) for pair in recipe.export.bits)]
    for index, tensor in enumerate(weights.weights):
        errors = "  ".join(
            f"{bits} bits {100 * quantization_error(tensor, bits):.2f} %"
            for bits in sorted({weight_bits for weight_bits, _ in recipe.export.bits}, reverse=True)
        )
        print(f"layer {index}  {'x'.join(str(size) for size in tensor.shape)}  error {errors}")
    if recipe.export.target_fa_per_h:
        root = Path(recipe.data.corpus if corpus is None else corpus)
        evaluations = evaluate_models(models, root / recipe.data.validation, snrs_db=(None,))
        for index, evaluation in enumerate(evaluations):
            calibrated = calibrate(evaluation, recipe.export.target_fa_per_h, recipe.export.threshold_margin)
            thresholds = {name: max(value, recipe.export.lowest_threshold) for name, value in calibrated.items()}
            models[index] = models[index].with_settings(thresholds=thresholds)
            print(models[index].config.bits, "  ".join(f"{name} {value:.4f}" for name, value in thresholds.items()))
    out = Path(out_folder)
    out.mkdir(parents=True, exist_ok=True)
    return [save_model(model, out / f"{recipe.name}.{model.config.bits}.safetensors") for model in models]
