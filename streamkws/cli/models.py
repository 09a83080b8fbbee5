"""streamkws info and quantize: what a model consists of, and how to make it smaller."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from streamkws.cli.arguments import Commands, add_json_option, add_output_options, load_model, new_model_path
from streamkws.cli.output import Bar, print_error, printable, table
from streamkws.errors import ConfigError

if TYPE_CHECKING:
    from streamkws.model import Model

FEW_S = 60.0
"""Seconds of recordings below which quantize warns that they are few."""

INFO_BITS = (8, 4)
"""Bit widths for which info shows the weight quantization error of an f32 model."""


def add_to(commands: Commands) -> None:
    """Add the commands of this module."""
    info = commands.add(
        _info,
        "info",
        "show a model's size, keywords, thresholds and layers",
        "streamkws info",
        "streamkws info wakewords --json",
    )
    info.add_argument(
        "model",
        nargs="?",
        metavar="MODEL",
        help="a shipped model's name, or a model file; without it, list the shipped ones",
    )
    add_json_option(info)

    quantize = commands.add(
        _quantize,
        "quantize",
        "make a float32 model smaller: quantize it to integer codes, without training",
        "streamkws quantize wakewords.f32 --weights 4 --activations 8",
        "streamkws quantize wakewords.f32 --weights 2 --activations 8 --recordings words/ --recordings office.ogg",
        "streamkws quantize mine.f32.safetensors --weights 8,4,4,8 --activations 8 --out small.safetensors",
        "streamkws quantize mine.f32.safetensors --weights 32,4,4,32 --activations 32,8,8,32",
    )
    quantize.add_argument("model", metavar="MODEL", help="a shipped model's name, or a model file, in float32")
    for name, what in (("--weights", "weights"), ("--activations", "the layers' input vectors")):
        quantize.add_argument(
            name,
            required=True,
            type=_widths,
            metavar="BITS",
            help=f"bits of {what}, 2 to 8, or 32 for float32: one number for all layers, or one for each, as 8,4,4,8",
        )
    quantize.add_argument(
        "--recordings",
        action="append",
        default=[],
        metavar="DIR|FILE",
        help="a minute or more of audio: the keywords, said by several people, and other sounds; quantize chooses the "
        "codes that change the network's output on it least; may be repeated (default: each weight is rounded by "
        "itself, which costs more accuracy below 8 bits)",
    )
    add_output_options(quantize, "<name>.<widths>.safetensors")
    quantize.add_argument("--json", action="store_true", help="print a JSON object")


def _info(arguments: argparse.Namespace) -> int:
    if arguments.model is None:
        return _shipped(arguments.json)
    model = load_model(arguments.model)
    config = model.config
    thresholds = model.new_smoother().thresholds
    facts = {
        "name": model.name,
        "parameters": model.n_parameters,
        "stored_bytes": model.stored_bytes,
        "resident_bytes": model.resident_bytes,
        "float_bytes": model.float_bytes,
    }
    if arguments.json:
        print(json.dumps(facts | {"thresholds": thresholds, "layers": _layer_facts(model), "config": asdict(config)}))
        return 0
    front_end, smoother = config.frontend, config.smoother
    step_ms = 1000 * config.step_samples / front_end.sample_rate
    print(printable(f"{model.name}: {model.n_parameters:,} parameters"))
    for what, n_bytes in (("stored", model.stored_bytes), ("in memory", model.resident_bytes)):
        print(f"  {what:<9}  {n_bytes:>9,} bytes, {100 * n_bytes / model.float_bytes:.0f} % of float32")
    print()
    rows: list[Sequence[object]] = [
        (keyword, f"{threshold:.3f}", f"{config.durations_s.get(keyword, 0):.2f} s")
        for keyword, threshold in thresholds.items()
    ]
    print(table(("keyword", "threshold", "length"), rows))
    print(
        f"\nfront end: {front_end.n_mels} mel bands, {front_end.low_hz:g} to {front_end.high_hz:g} Hz, "
        f"{front_end.window} window of {front_end.window_samples} samples every {front_end.hop_samples}, "
        f"{front_end.sample_rate} Hz"
    )
    print(
        f"decision: a step of {step_ms:g} ms, smoothed over {smoother.smoothing_steps}, patience "
        f"{smoother.patience_steps}, refractory {smoother.refractory_steps} steps\n"
    )
    print(_layer_table(model))
    if config.provenance:
        print()
        for name, text in config.provenance.items():
            print(printable(f"{name}: {text}"))
    return 0


def _weight_errors(model: Model) -> dict[int | None, Sequence[tuple[float, float] | tuple[None, None]]]:
    """Return each layer's weight quantization error and that of its worst column; None where unknown.

    The key is None for the errors that the model records; for an f32 model it is the bit width they would occur at.
    """
    if model.config.is_float:
        return {bits: model.quantize(bits, bits).config.weight_errors for bits in INFO_BITS}
    return {None: model.config.weight_errors or [(None, None)] * len(model.layers)}


def _layer_table(model: Model) -> str:
    """Draw the layers with their shapes, sizes and weight quantization errors."""
    from streamkws.model import ROUNDING

    errors = _weight_errors(model)
    header = ["layer", "taps", "dilation", "activation", "bits", "bytes"]
    for bits in errors:
        header += ["error" if bits is None else f"{bits}-bit error", "worst"]
    rows = [
        (
            f"{layer.n_inputs} -> {layer.n_outputs}",
            layer.taps,
            layer.dilation,
            layer.activation + (" + input" if layer.residual else ""),
            layer.bits,
            layer.stored_bytes,
            *("-" if error is None else f"{100 * error:.2f} %" for pair in pairs for error in pair),
        )
        for layer, *pairs in zip(model.config.layers, *errors.values(), strict=True)
    ]
    lines = [
        table(header, rows),
        "error: RMS change of the weights by quantization, relative to their RMS; worst: of the worst column",
    ]
    if (None, None) in [pair for pairs in errors.values() for pair in pairs]:
        lines.append("-: not recorded in the model file")
    if ROUNDING in model.config.provenance:
        lines.append(
            "the codes were chosen for the layers' outputs, which change less than by rounding; the weights change more"
        )
    return "\n".join(lines)


def _layer_facts(model: Model) -> list[dict[str, object]]:
    """Return the contents of _layer_table for JSON; errors as fractions."""
    facts: list[dict[str, object]] = [
        {
            "n_inputs": layer.n_inputs,
            "n_outputs": layer.n_outputs,
            "taps": layer.taps,
            "dilation": layer.dilation,
            "bits": layer.bits,
            "stored_bytes": layer.stored_bytes,
        }
        for layer in model.config.layers
    ]
    for bits, pairs in _weight_errors(model).items():
        at = "" if bits is None else f"_at_{bits}_bits"
        for layer_facts, (error, worst) in zip(facts, pairs, strict=True):
            layer_facts |= {f"weight_error{at}": error, f"worst_column_error{at}": worst}
    return facts


def _quantize(arguments: argparse.Namespace) -> int:
    from streamkws.model import ROUNDING
    from streamkws.model_file import model_path, save_model

    full = load_model(arguments.model)
    if not full.config.is_float:
        raise ConfigError(
            f"expected a float32 model, got {full.config.bits}: quantize the f32 model {arguments.model} was made from"
        )
    if arguments.recordings:
        model = _quantize_on(full, arguments)
    else:
        model = full.quantize(arguments.weights, arguments.activations)
    if model.config.is_float:
        raise ConfigError("expected at least one layer of 2 to 8 bits, got 32 for all")
    path = new_model_path(arguments, model.name)
    n_full_bytes = model_path(arguments.model).stat().st_size
    n_bytes = save_model(model, path).stat().st_size
    if model.thresholds:
        print_error(f"the thresholds are those calibrated for {full.name}; streamkws evaluate shows how they do")
    if arguments.json:
        facts = {"path": str(path), "name": model.name, "file_bytes": n_bytes, "float_file_bytes": n_full_bytes}
        facts |= {"rounding": model.config.provenance[ROUNDING]} if arguments.recordings else {}
        print(json.dumps(facts | {"layers": _layer_facts(model)}))
        return 0
    share = 100 * n_bytes / n_full_bytes
    print(printable(f"{path}: {n_bytes:,} bytes, {share:.0f} % of {full.name}'s {n_full_bytes:,}") + "\n")
    if arguments.recordings:
        print(f"{model.config.provenance[ROUNDING]}\n")
    print(_layer_table(model))
    return 0


def _quantize_on(full: Model, arguments: argparse.Namespace) -> Model:
    """Return the model with its codes chosen on recordings; its provenance says so."""
    from streamkws.evaluation.examples import read_examples
    from streamkws.model import ROUNDING

    model = full.quantize(arguments.weights, arguments.activations)  # refuses wrong widths before audio is read
    with Bar() as bar:
        examples = read_examples(model, [Path(place) for place in arguments.recordings], bar.show)
    for line in examples.skipped:
        print_error(f"skipped {line}")
    if examples.seconds < FEW_S:
        print_error(
            f"{examples.seconds:.0f} s of audio are few to choose codes by; {FEW_S:.0f} s with the keywords will do"
        )
    model = full.quantize(arguments.weights, arguments.activations, examples=examples.log_mels)
    files = "1 file" if examples.n_files == 1 else f"{examples.n_files} files"
    text = f"codes chosen on {examples.seconds:.0f} s of audio in {files}, {date.today().isoformat()}"
    return model.with_settings(provenance={ROUNDING: text})


def _shipped(as_json: bool) -> int:
    """List the shipped models."""
    import streamkws

    rows: list[Sequence[object]] = []
    for name in streamkws.shipped_models():
        model = load_model(name)
        if as_json:
            print(json.dumps({"name": name, "keywords": model.keywords, "stored_bytes": model.stored_bytes}))
        rows.append((name, model.n_parameters, model.stored_bytes, ", ".join(model.keywords)))
    if not as_json:
        print(table(("model", "parameters", "bytes", "keywords"), rows))
        print("\nstreamkws info MODEL shows one in detail")
    return 0


def _widths(text: str) -> int | tuple[int, ...]:
    try:
        bits = tuple(int(number) for number in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected a number, or one for each layer with commas between, got {text!r}"
        ) from None
    return bits if len(bits) > 1 else bits[0]
