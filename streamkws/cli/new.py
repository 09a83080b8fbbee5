"""streamkws new: a model of a phrase of your own, from its words alone."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from streamkws.cli.arguments import Commands
from streamkws.cli.output import Bar, print_error, printable, table
from streamkws.errors import ConfigError
from streamkws.whole import write_whole

if TYPE_CHECKING:
    from streamkws.new.making import Order
    from streamkws.new.phones import Dictionary
    from streamkws.new.phrase import Phrase


def add_to(commands: Commands) -> None:
    """Add the command of this module."""
    new = commands.add(
        _new,
        "new",
        "make a model of a phrase of your own, from its words alone",
        'streamkws new "hey robot"',
        'streamkws new "hey robot" "lights on" --quick',
        'streamkws new "hey robot" --recordings words --negatives wrong --out models/robot.safetensors',
        'streamkws new "hey siobhan" --pronounce "hey siobhan=hey shivawn" --plan',
    )
    new.add_argument("phrases", nargs="+", metavar="PHRASE", help="what is said, in English letters")
    new.add_argument(
        "--pronounce",
        action="append",
        default=[],
        metavar="PHRASE=HOW",
        help="how a phrase is said: another spelling, or IPA between slashes; may be repeated",
    )
    new.add_argument(
        "--recordings",
        type=Path,
        metavar="DIR",
        help="takes of the phrases, DIR/<phrase>/<speaker>_<name>, as streamkws record and review file them",
    )
    new.add_argument(
        "--negatives",
        action="append",
        type=Path,
        default=[],
        metavar="PATH",
        help="sound without the phrases, a file or a folder, as record --ambient and review file it; may be repeated",
    )
    new.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="name of the models, which get their widths before the suffix (default: that of the phrase)",
    )
    new.add_argument(
        "--target-fa",
        type=float,
        default=0.5,
        metavar="X",
        help="false accepts per hour that the thresholds are set for (default: 0.5)",
    )
    new.add_argument(
        "--quick", action="store_true", help="fewer voices and less training: 11 minutes, and far more misses"
    )
    new.add_argument("--anyway", action="store_true", help="go on with a phrase that is too short or too long")
    new.add_argument("--plan", action="store_true", help="say how it is pronounced and what it takes, and do nothing")
    new.add_argument("--plot", type=Path, metavar="FILE", help="draw misses against false accepts, .png or .svg")
    new.add_argument("--json", action="store_true", help="print the figures as JSON, a line for each model")


def _new(arguments: argparse.Namespace) -> int:
    from streamkws.new.making import dictionary_of, make, understand
    from streamkws.new.report import HEADER, card, facts, remarks, rows

    order = _order(arguments)
    out = Path(arguments.out or f"{order.name}.safetensors")
    if arguments.plot:
        from streamkws.evaluation.plots import draw_det, picture_path, save

        picture_path(arguments.plot)
    dictionary = dictionary_of()
    _check_first(order, dictionary, arguments.anyway)
    _say_needs(order)
    phrases = understand(order, dictionary)
    if not _advised(phrases, dictionary, arguments.anyway):
        return 2
    if arguments.plan:
        return 0
    with Bar() as bar:
        outcome = make(order, phrases, dictionary, out, bar.show)
    for line in outcome.skipped:
        print_error(f"left out: {line}")
    if arguments.plot:
        save(draw_det([one.evaluation for one in outcome.verdicts]), arguments.plot)
    best = outcome.verdicts[-1]
    card_path = outcome.paths[-1].with_suffix(".md")
    write_whole(card_path, card(best, outcome.before).encode())
    if arguments.json:
        for path, verdict in zip(outcome.paths, outcome.verdicts, strict=True):
            print(json.dumps({"path": str(path)} | facts(verdict)))
        return 0
    print(printable(", ".join(map(str, (*outcome.paths, card_path)))) + "\n")
    print(f"{best.model.config.bits}, the one to use:")
    print(table(HEADER, rows(best)) + "\n")
    print("\n".join(remarks(best, outcome.before)))
    print(printable(f"\nTry it: streamkws listen --model {outcome.paths[-1]}"))
    return 0


def _order(arguments: argparse.Namespace) -> Order:
    """What is wanted. Raises ConfigError for phrases or pronunciations that are none, and for missing places."""
    from streamkws.new.making import Order
    from streamkws.new.phrase import read_phrase
    from streamkws.new.scripts import FULL, QUICK

    spoken = {}
    for text in arguments.pronounce:
        phrase, equals, how = text.partition("=")
        if not equals or not how.strip():
            raise ConfigError(f"expected --pronounce PHRASE=HOW, such as 'hey siobhan=hey shivawn', got {text!r}")
        spoken[read_phrase(phrase)] = how.strip() if how.strip().startswith("/") else read_phrase(how)
    for place in (arguments.recordings, *arguments.negatives):
        if place is not None and not place.exists():
            raise ConfigError(f"{place}: expected recordings, found nothing")
    if not arguments.target_fa > 0:
        raise ConfigError(f"expected --target-fa above 0, got {arguments.target_fa:g}")
    return Order(
        tuple(read_phrase(phrase) for phrase in arguments.phrases),
        spoken,
        arguments.recordings,
        tuple(arguments.negatives),
        QUICK if arguments.quick else FULL,
        arguments.quick,
        arguments.target_fa,
    )


def _check_first(order: Order, dictionary: Dictionary, anyway: bool) -> None:
    """Refuse a phrase that the dictionary shows to be unfit before anything large is fetched."""
    from streamkws.new.phrase import advice, known

    for phrase in known([text for text in order.phrases if text not in order.spoken], dictionary):
        for one in advice(phrase, dictionary):
            if one.refused and not anyway:
                raise ConfigError(f"{phrase.text!r} is {one.text} (--anyway goes on)")


def _advised(phrases: list[Phrase], dictionary: Dictionary, anyway: bool) -> bool:
    """Say how the phrases are pronounced, and what speaks against them; whether to go on."""
    from streamkws.new.phrase import advice

    fit = True
    for phrase in phrases:
        said = f", said as {phrase.spoken!r}" if phrase.spoken not in (phrase.text, f"/{phrase.ipa}/") else ""
        print(f"{phrase.text}: /{phrase.ipa}/{said} (--pronounce changes it)", file=sys.stderr)
        for one in advice(phrase, dictionary):
            print(f"  {one.text}", file=sys.stderr)
            fit = fit and (anyway or not one.refused)
    if not fit:
        print_error("not made; --anyway goes on all the same")
    return fit


def _say_needs(order: Order) -> None:
    """Say what is fetched, and what space and time it takes."""
    from streamkws.new.making import needs

    print("\n".join(needs(order, os.cpu_count() or 1)), file=sys.stderr)
