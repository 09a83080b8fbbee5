"""streamkws train and evaluate: how a model is made from recordings, and how good it is on others."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from streamkws.cli.arguments import Commands, load_model
from streamkws.cli.output import Bar


def add_to(commands: Commands) -> None:
    """Add the commands of this module."""
    train = commands.add(
        _train,
        "train",
        "train a model from a recipe",
        "streamkws train models/wakewords.toml --corpus corpus --export models/",
    )
    train.add_argument("config", metavar="CONFIG.toml", help="the recipe, such as models/wakewords.toml")
    train.add_argument("--corpus", metavar="FOLDER", help="the folder with train/ and dev/ (default: the recipe's)")
    train.add_argument("--fresh", action="store_true", help="start from the beginning, not from the last checkpoint")
    train.add_argument(
        "--export", metavar="FOLDER", help="write the trained model into this folder, in every bit width"
    )

    evaluate = commands.add(
        _evaluate,
        "evaluate",
        "count misses and false accepts of models on a corpus",
        "streamkws evaluate wakewords corpus/dev",
        "streamkws evaluate wakewords.f32 wakewords.w4a8 corpus/dev --snr 10 --json figures.json",
        "streamkws evaluate wakewords.f32 wakewords.w4a8 corpus/dev --plot det.svg",
    )
    evaluate.add_argument("models", nargs="+", metavar="MODEL", help="shipped models' names, or model files")
    evaluate.add_argument(
        "corpus",
        metavar="CORPUS",
        help="a folder of recordings, such as corpus/dev: in wakewords/<keyword>/ one keyword per file (smart_mirror/ "
        "for smart mirror), in other folders audio to count false accepts in; *_noise is also mixed with the keywords",
    )
    evaluate.add_argument(
        "--snr",
        action="append",
        type=float,
        metavar="DB",
        help="also count in noise, at this signal-to-noise ratio; may be repeated (default: 10)",
    )
    evaluate.add_argument(
        "--plot",
        metavar="FILE",
        help="draw DET curves and score histograms, .png or .svg; an existing file is replaced",
    )
    evaluate.add_argument(
        "--json", metavar="FILE|-", help="write all figures as JSON, one line per model; - is standard output"
    )


def _train(arguments: argparse.Namespace) -> int:
    from streamkws.training.export import export
    from streamkws.training.trainer import train

    run_folder = train(arguments.config, corpus=arguments.corpus, fresh=arguments.fresh)
    if arguments.export:
        for path in export(run_folder, arguments.export, corpus=arguments.corpus):
            print(path)
    return 0


def _evaluate(arguments: argparse.Namespace) -> int:
    from streamkws.evaluation.measure import evaluate_models
    from streamkws.evaluation.tables import format_table

    if arguments.plot:
        from streamkws.evaluation.plots import draw_det, picture_path, save

        picture_path(arguments.plot)
    if arguments.json not in (None, "-"):
        Path(arguments.json).open("a").close()  # a path that cannot be written fails now, not after the long run
    models = [load_model(name) for name in arguments.models]
    with Bar() as bar:
        evaluations = evaluate_models(models, arguments.corpus, (None, *(arguments.snr or (10.0,))), bar.show)
    if arguments.plot:
        save(draw_det(evaluations), arguments.plot)
    lines = "".join(json.dumps(evaluation.to_json()) + "\n" for evaluation in evaluations)
    if arguments.json == "-":
        print(lines, end="")
        return 0
    print(format_table(evaluations))
    if arguments.json:
        Path(arguments.json).write_text(lines, encoding="utf-8")
    return 0
