"""What the commands share: the parser, common options, and the model and detector these ask for."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from streamkws.cli.output import patience
from streamkws.errors import ConfigError, ModelFileError

if TYPE_CHECKING:
    from streamkws.detector import Detector
    from streamkws.model import Model

DEFAULT_MODEL = "wakewords"


class Parser(argparse.ArgumentParser):
    """A parser that complains in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


class Commands:
    """The commands of a parser."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._parsers: Any = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)

    def add(self, run: Callable[[argparse.Namespace], int], name: str, summary: str, *examples: str) -> Parser:
        """Add a command. run: does it and returns the exit code. examples: command lines shown by --help."""
        added: Parser = self._parsers.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            epilog="examples:\n" + "\n".join(f"  {example}" for example in examples),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(run=run)
        return added


def json_lines(added: Parser) -> None:
    """Add --json."""
    added.add_argument("--json", action="store_true", help="print JSON lines")


def choice(added: Parser) -> None:
    """Add the options that choose model, keywords and thresholds."""
    added.add_argument(
        "--model", default=DEFAULT_MODEL, metavar="NAME|PATH", help=f"a shipped model or a file ({DEFAULT_MODEL})"
    )
    added.add_argument(
        "--threshold",
        action="append",
        default=[],
        type=_threshold,
        metavar="X|KEYWORD=X",
        help="smoothed posterior that counts as heard, 0 to 1, for all keywords or one; may be repeated",
    )
    added.add_argument(
        "--keyword", action="append", metavar="KEYWORD", help="listen for this keyword only; may be repeated"
    )


def _threshold(text: str) -> tuple[str, float]:
    keyword, _, number = text.rpartition("=")
    try:
        return keyword, float(number)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number or KEYWORD=NUMBER, got {text!r}") from None


def out(added: Parser, default: str) -> None:
    """Add the options of a command that writes a model."""
    added.add_argument("--out", metavar="FILE", help=f"instead of {default} in the current folder")
    added.add_argument("--force", action="store_true", help="replace a file that exists")


def new_model_path(arguments: argparse.Namespace, name: str) -> Path:
    """The model file to write: --out, or one that is named for the model, in the current folder."""
    from streamkws.model_file import SUFFIX

    path = Path(arguments.out or re.sub(r"[^\w.+ -]", "_", name) + SUFFIX)  # a model's name is free text
    if path.is_dir():
        raise ConfigError(f"{path}: expected a file to write, got a folder")
    if path.exists() and not arguments.force:
        raise ConfigError(f"{path}: exists already; --force replaces it")
    return path


def load_model(name: str) -> Model:
    """Load a shipped model or a file; a name that is neither is wrong usage."""
    import streamkws

    try:
        return streamkws.load_model(name)
    except ModelFileError as error:
        if os.path.exists(name):
            raise
        raise ConfigError(str(error)) from None  # a name that is not known is wrong usage, not a bad file


def new_detector(arguments: argparse.Namespace) -> Detector:
    """Load the model and make the detector that the options ask for."""
    with patience("starting; the first start compiles the kernels, once per machine ..."):
        import streamkws

        model = load_model(arguments.model)
        return streamkws.Detector(model, thresholds(arguments, model), arguments.keyword)


def thresholds(arguments: argparse.Namespace, model: Model) -> dict[str, float] | None:
    """What --threshold sets for a model's keywords; None for nothing."""
    given: dict[str, float] = {}
    for keyword, value in sorted(arguments.threshold, key=lambda item: bool(item[0])):  # those for all come first
        given.update({keyword: value} if keyword else dict.fromkeys(model.keywords, value))
    return given or None
