"""streamkws train and evaluate: how a model is made from recordings, and how good it is on others."""

from __future__ import annotations

import argparse
import json

from streamkws.cli.arguments import Commands, load_model
from streamkws.cli.output import Bar
from streamkws.errors import ConfigError
from streamkws.whole import check_writable, write_whole


def add_to(commands: Commands) -> None:
    """Add the commands of this module."""
    train = commands.add(
        _train,
        "train",
        "train a model from a recipe",
        "streamkws train models/wakewords.toml --corpus corpus --export models/",
        "streamkws train models/wakewords.toml --list",
        "streamkws train models/wakewords.toml --corpus corpus --held-out dev --export held-out/",
    )
    train.add_argument("config", metavar="CONFIG.toml", help="the recipe, such as models/wakewords.toml")
    train.add_argument("--corpus", metavar="FOLDER", help="the folder with train/ and dev/ (default: the recipe's)")
    train.add_argument(
        "--fresh",
        action="store_true",
        help="start from the beginning, not from the last checkpoint; with --stage that stage alone",
    )
    train.add_argument(
        "--export", metavar="FOLDER", help="write the trained model into this folder, in every bit width"
    )
    train.add_argument(
        "--held-out",
        default="",
        metavar="PART",
        help="train without this part's recordings of the keywords, so that misses on it mean something; the run and "
        "the models get names of their own, <name>-held-out",
    )
    train.add_argument("--stage", default="", metavar="NAME", help="run this stage of the recipe, and what it needs")
    train.add_argument("--list", action="store_true", help="print the stages of the recipe, and train nothing")

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
    from streamkws.training.chain import run_chain, stage_table
    from streamkws.training.export import export
    from streamkws.training.loop import train
    from streamkws.training.stages import read_chain

    chain, recipe = read_chain(arguments.config, arguments.held_out), None
    if chain is None and (arguments.stage or arguments.list):
        raise ConfigError(f"expected a recipe with [[stages]], {arguments.config} has none")
    if chain is None:
        folder = train(arguments.config, arguments.corpus, arguments.fresh, arguments.held_out)
    elif arguments.list:
        print(stage_table(chain, arguments.stage))
        return 0
    else:
        stage = arguments.stage or chain.trained[-1]
        if arguments.export and stage not in chain.recipes:
            raise ConfigError(f"expected a stage with a network to export ({', '.join(chain.trained)}), got {stage!r}")
        run_chain(chain, arguments.corpus, arguments.fresh, arguments.stage)
        folder, recipe = chain.folder(stage), chain.recipes.get(stage)
    if arguments.export:
        for path in export(folder, arguments.export, arguments.corpus, recipe):
            print(path)
    return 0


def _evaluate(arguments: argparse.Namespace) -> int:
    from streamkws.evaluation.measure import evaluate_models
    from streamkws.evaluation.tables import format_table

    if arguments.plot:
        from streamkws.evaluation.plots import draw_det, picture_path, save

        picture_path(arguments.plot)
    if arguments.json not in (None, "-"):
        check_writable(arguments.json)  # fails now, not after the long run
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
        write_whole(arguments.json, lines.encode())
    return 0
