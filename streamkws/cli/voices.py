"""streamkws voices, mine and fetch-teacher: what a recipe learns from beside recordings."""

from __future__ import annotations

import argparse

from streamkws.cli.arguments import Commands
from streamkws.cli.output import Bar


def add_to(commands: Commands) -> None:
    """Add the commands of this module."""
    voices = commands.add(
        _voices,
        "voices",
        "synthesize speakers of keywords to train on (needs pip and npm)",
        "streamkws voices runs/synthetic --speakers 400 --accents",
        'streamkws voices runs/robot --keyword "hey robot" --speakers 400',
    )
    voices.add_argument("folder", metavar="DIR", help="what is missing there is made; a recipe's data.synthetic")
    voices.add_argument("--speakers", type=int, default=400, metavar="N", help="how many (400); 8 s each on a core")
    voices.add_argument(
        "--keyword",
        action="append",
        metavar="KEYWORD",
        help="instead of the shipped model's six words, pronounced as by espeak-ng; may be repeated",
    )
    voices.add_argument("--accents", action="store_true", help="also a file of each: the keywords in an accent")
    voices.add_argument("--more", action="store_true", help="also a file of each: phrases without a keyword")
    _processes(voices)

    mine = commands.add(
        _mine,
        "mine",
        "find hard negatives: what models take for keywords in made sound (needs espeak-ng)",
        "streamkws mine runs/mined",
        "streamkws mine runs/mined --model mine.f32.safetensors --set runs/synthetic --hours 60",
    )
    mine.add_argument("folder", metavar="DIR", help="what is missing there is made; among a recipe's data.negatives")
    mine.add_argument(
        "--model",
        action="append",
        metavar="NAME|PATH",
        help="who listens (wakewords.f32 and wakewords.w4a8); may be repeated",
    )
    mine.add_argument("--set", action="append", default=[], metavar="DIR", help="a set to search, too; may be repeated")
    mine.add_argument("--hours", type=int, default=30, metavar="N", help="of made music, noise and babble (30)")
    mine.add_argument("--foreign", type=int, default=20, metavar="N", help="hours of numbers in other languages (20)")
    mine.add_argument("--score", type=float, default=0.3, metavar="X", help="smoothed posterior that is kept (0.3)")
    _processes(mine)

    fetch = commands.add(
        _fetch_teacher,
        "fetch-teacher",
        "download the speech embedding that training can learn from (needs pip)",
        "streamkws fetch-teacher runs/teacher",
    )
    fetch.add_argument("folder", metavar="DIR", help="where its two files are written, 2 MB; a recipe's data.teacher")


def _processes(added: argparse.ArgumentParser) -> None:
    added.add_argument("--processes", type=int, metavar="N", help="at once (one a core)")


def _voices(arguments: argparse.Namespace) -> int:
    from streamkws.voices.phrases import KEYWORDS
    from streamkws.voices.speakers import synthesize

    with Bar() as bar:
        synthesize(
            arguments.folder,
            n_speakers=arguments.speakers,
            accents=arguments.accents,
            more=arguments.more,
            keywords=arguments.keyword or KEYWORDS,
            n_processes=arguments.processes,
            show=bar.show,
        )
    return 0


def _mine(arguments: argparse.Namespace) -> int:
    from streamkws.voices.mining import MODELS, mine

    with Bar() as bar:
        mine(
            arguments.folder,
            models=arguments.model or MODELS,
            sets=arguments.set,
            hours=arguments.hours,
            foreign_hours=arguments.foreign,
            score=arguments.score,
            n_processes=arguments.processes,
            show=bar.show,
        )
    return 0


def _fetch_teacher(arguments: argparse.Namespace) -> int:
    from streamkws.voices.fetch import fetch_teacher

    fetch_teacher(arguments.folder)
    return 0
