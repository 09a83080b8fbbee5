"""export: from a checkpoint to model files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from streamkws.evaluation.measure import evaluate_models
from streamkws.evaluation.operating_points import CLEAN
from streamkws.evaluation.thresholds import calibrate
from streamkws.model import ROUNDING, Model
from streamkws.model_file import save_model
from streamkws.quantization import MAX_BITS
from streamkws.training.checkpoint import BEST, CHECKPOINT, load_network
from streamkws.training.examples import ExampleMaker
from streamkws.training.recipe import Recipe
from streamkws.training.recipe_file import load_recipe


def export(
    run_folder: str | Path, out_folder: str | Path, corpus: str | Path | None = None, recipe: Recipe | None = None
) -> list[Path]:
    """Write the models of a run and return their paths.

    Those are <name>.f32.safetensors and one per pair of export.bits; or, of a run with [quantization], the one model in
    the widths it was trained for, <name>.<bits>.safetensors.

    run_folder: a run folder (its latest checkpoint is used, or as export.early_stopping says) or a checkpoint in one.
    corpus: replaces the recipe's data.corpus. Its validation part sets the thresholds; the export.rounding_examples are
        made from its train part.
    recipe: the run's, with the [export] section that holds now; None: the one in the run folder.
    Prints the relative quantization error of every tensor, and the thresholds.
    """
    place = Path(run_folder)
    if recipe is None:
        recipe = load_recipe((place if place.is_dir() else place.parent) / "recipe.toml")
    root = Path(recipe.data.corpus if corpus is None else corpus)
    models = models_of(place, recipe, root)
    _print_errors(models)
    if recipe.export.target_fa_per_h:
        models = _with_thresholds(models, recipe, root)
    out = Path(out_folder)
    out.mkdir(parents=True, exist_ok=True)
    return [save_model(model, out / f"{recipe.name}.{model.config.bits}.safetensors") for model in models]


def models_of(place: Path, recipe: Recipe, root: Path) -> list[Model]:
    """The models of a run, without thresholds: in float32 and in each pair of export.bits, or as it was trained.

    place: its folder, or a checkpoint. root: of the corpus.
    """
    chosen = BEST if recipe.export.early_stopping else CHECKPOINT
    trained = trained_model(place / chosen if place.is_dir() else place, recipe)
    return _quantized(trained, recipe, root) if trained.config.is_float else [trained]


def trained_model(checkpoint: Path, recipe: Recipe) -> Model:
    """The model of a checkpoint, in the widths it was trained for, with the recipe's smoother and provenance."""
    network = load_network(checkpoint)
    settings = recipe.model.to_model_config(recipe.export.provenance)
    network.config = replace(network.config, smoother=settings.smoother, provenance=settings.provenance)
    if network.config.is_float:
        return Model.from_float(network.config, network.to_float_weights())
    return network.to_model()


def _quantized(full: Model, recipe: Recipe, root: Path) -> list[Model]:
    """A float32 model, then one for each pair of export.bits."""
    few = [pair for pair in recipe.export.bits if pair[0] < MAX_BITS]
    examples = _examples(recipe, root, full) if few else []
    text = f"codes chosen on {len(examples):,} training examples"
    models = [full]
    for pair in recipe.export.bits:
        if pair in few and examples:
            models.append(full.quantize(*pair, examples=examples).with_settings(provenance={ROUNDING: text}))
        else:
            models.append(full.quantize(*pair))
    return models


def _print_errors(models: list[Model]) -> None:
    """Print a line for each layer: its shape, and the relative error of its weights in each width."""
    for index, layer in enumerate(models[0].config.layers):
        by_bits = {
            model.config.layers[index].weight_bits: model.config.weight_errors[index][0]
            for model in models
            if not model.config.layers[index].is_float
        }
        errors = "  ".join(f"{bits} bits {100 * by_bits[bits]:.2f} %" for bits in sorted(by_bits, reverse=True))
        shape = f"{layer.n_outputs}x{layer.taps}x{layer.n_inputs}"
        print(f"layer {index}  {shape}  {'error ' + errors if errors else 'float32'}")


def _with_thresholds(models: list[Model], recipe: Recipe, root: Path) -> list[Model]:
    """The models with the thresholds that [export] asks for, set on the validation part; prints them."""
    wanted, calibrated = recipe.export, []
    part, snrs_db = root / recipe.data.validation, (None, *wanted.noise_snrs_db)
    evaluations = evaluate_models(models, part, snrs_db, left_out=wanted.left_out)
    for model, evaluation in zip(models, evaluations, strict=True):
        thresholds = calibrate(
            evaluation,
            wanted.target_fa_per_h,
            wanted.threshold_confidence,
            wanted.lowest_threshold,
            {name: wanted.noise_target_fa_per_h for name in evaluation.curves if name != CLEAN},
        )
        calibrated.append(model.with_settings(thresholds=thresholds))
        print(model.config.bits, "  ".join(f"{name} {value:.4f}" for name, value in thresholds.items()))
    return calibrated


def _examples(recipe: Recipe, root: Path, model: Model) -> list[npt.NDArray[np.float32]]:
    """The first export.rounding_examples of the recipe's training examples, as log-mel."""
    n_examples = recipe.export.rounding_examples
    if not n_examples:
        return []
    maker = ExampleMaker(
        root / recipe.data.train,
        model.keywords,
        replace(recipe.data, teacher=""),
        recipe.augment,
        model.config.frontend,
        recipe.training.seed,
    )
    return [maker.make(index).features for index in range(n_examples)]
