"""streamkws calibrate: a model's thresholds, set by the false accepts in the user's own audio."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamkws.cli.arguments import Commands, add_output_options, load_model, new_model_path
from streamkws.cli.output import Bar, print_error, printable, table

if TYPE_CHECKING:
    from streamkws.evaluation.calibration import Calibration


def add_to(commands: Commands) -> None:
    """Add the commands of this module."""
    calibrate = commands.add(
        _calibrate,
        "calibrate",
        "set a model's thresholds by its false accepts in audio without keywords",
        "streamkws calibrate wakewords --negatives office/ --target-fa 0.1",
        "streamkws calibrate mine.w4a8.safetensors --negatives tv/ --negatives talk.ogg --recordings words/",
    )
    calibrate.add_argument("model", metavar="MODEL", help="a shipped model's name, or a model file")
    calibrate.add_argument(
        "--negatives",
        action="append",
        required=True,
        metavar="DIR|FILE",
        help="audio in which no keyword is spoken, such as talk, television and noise: the more hours, the better; may "
        "be repeated",
    )
    calibrate.add_argument(
        "--target-fa",
        type=float,
        default=0.1,
        metavar="X",
        help="false accepts per hour that each keyword may have in this audio (default: 0.1)",
    )
    calibrate.add_argument(
        "--confidence",
        type=float,
        default=0.0,
        metavar="X",
        help="how sure the rate is to hold in other audio of this kind, such as 0.9; without it, the rate here",
    )
    calibrate.add_argument(
        "--lowest", type=float, default=0.0, metavar="X", help="set no threshold below this (default: 0)"
    )
    calibrate.add_argument(
        "--recordings",
        metavar="DIR",
        help="also count misses: DIR/<keyword>/ has one keyword per file (smart_mirror/ for smart mirror)",
    )
    add_output_options(calibrate, "<name>.<widths>.calibrated.safetensors")
    calibrate.add_argument("--json", action="store_true", help="print a JSON object")


def _calibrate(arguments: argparse.Namespace) -> int:
    from streamkws.evaluation.calibration import calibrate_model
    from streamkws.model_file import save_model

    model = load_model(arguments.model)
    path = new_model_path(arguments, f"{model.name}.calibrated")
    with Bar() as bar:
        calibration = calibrate_model(
            model,
            [Path(place) for place in arguments.negatives],
            arguments.target_fa,
            arguments.confidence,
            arguments.lowest,
            Path(arguments.recordings) if arguments.recordings else None,
            bar.show,
        )
    for trouble in (*calibration.notes, *(f"skipped {skipped}" for skipped in calibration.skipped)):
        print_error(trouble)
    if calibration.unreached:
        print_error(
            f"no threshold up to 1 brings {', '.join(calibration.unreached)} to {arguments.target_fa:g} false accepts "
            f"per hour in this audio, so no model was written: is it spoken there?"
        )
        return 1
    save_model(calibration.model, path)
    if arguments.json:
        print(json.dumps({"path": str(path)} | _facts(calibration)))
        return 0
    told = calibration.model.config.provenance["calibration"]
    print(printable(f"{path}: {calibration.model.name}, {told}") + "\n")
    print(_table(calibration))
    print("\n" + "\n".join(calibration.remarks))
    return 0


def _table(calibration: Calibration) -> str:
    """Draw each keyword's threshold, false accepts and misses, now and before."""
    figures = _facts(calibration)["keywords"]
    header = ["keyword", "threshold", "before", "false accepts", "before"]
    with_misses = any(facts["recordings"] for facts in figures.values())
    if with_misses:
        header += ["miss", "before"]
    rows: list[Sequence[object]] = []
    for keyword, facts in figures.items():
        row: list[object] = [keyword, f"{facts['threshold']:.4f}", f"{facts['threshold_before']:.4f}"]
        row += [facts["false_accepts"], facts["false_accepts_before"]]
        if with_misses:
            for miss in (facts["miss"], facts["miss_before"]):
                row.append("-" if miss is None else f"{100 * miss:.1f} %")
        rows.append(row)
    return table(header, rows)


def _facts(calibration: Calibration) -> dict[str, Any]:
    """Return the figures of a calibration for json.dumps."""
    keywords: dict[str, dict[str, Any]] = {}
    for keyword in calibration.after:
        facts = keywords[keyword] = {}
        for name, points in (("", calibration.after), ("_before", calibration.before)):
            figures = points[keyword].figures["clean"]
            facts[f"threshold{name}"] = points[keyword].threshold
            facts[f"false_accepts{name}"] = figures.false_accepts
            facts[f"miss{name}"] = figures.miss
        facts["recordings"] = figures.n_recordings
    return {
        "name": calibration.model.name,
        "target_fa_per_h": calibration.target_fa_per_h,
        "hours": calibration.hours,
        "files": calibration.n_files,
        "false_accepts_allowed": calibration.n_allowed,
        "keywords": keywords,
    }
