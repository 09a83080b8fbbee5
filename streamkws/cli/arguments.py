"""The parser, and the options that several commands have, with the model and detector that they choose."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from streamkws.cli.output import STARTING, explain_if_slow
from streamkws.errors import ConfigError, ModelFileError

if TYPE_CHECKING:
    from streamkws.detector import Detector
    from streamkws.model import Model
    from streamkws.model_set import ModelSet

DEFAULT_MODEL = "wakewords"


class Parser(argparse.ArgumentParser):
    """A parser whose error message is one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


class Commands:
    """The commands of a parser."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._parsers: Any = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)

    def add(self, run: Callable[[argparse.Namespace], int], name: str, summary: str, *examples: str) -> Parser:
        """Add a command.

        run: called with the parsed arguments; returns the exit code.
        summary: a line for the list of commands. examples: command lines that --help shows.
        """
        added: Parser = self._parsers.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            epilog="examples:\n" + "\n".join(f"  {example}" for example in examples),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(run=run)
        return added


def add_json_option(added: Parser) -> None:
    """Add --json."""
    added.add_argument("--json", action="store_true", help="print JSON, one object per line")


def add_device_option(added: Parser) -> None:
    """Add --device, a microphone."""
    added.add_argument(
        "--device",
        type=device,
        metavar="D",
        help="the microphone's number or a part of its name, as streamkws devices lists them (default: the system's)",
    )


def device(text: str) -> int | str:
    """A sound device's number, or a part of its name."""
    return int(text) if text.isdecimal() else text


def add_model_option(added: Parser) -> None:
    """Add --model."""
    added.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        metavar="NAME|PATH",
        help=f"a shipped model's name, or a model file (default: {DEFAULT_MODEL})",
    )


def add_models_option(added: Parser) -> None:
    """Add --model, which may be repeated."""
    added.add_argument(
        "--model",
        action="append",
        metavar="NAME|PATH",
        help="a shipped model's name, or a model file; may be repeated: several models, without a keyword in common, "
        f"hear the same audio (default: {DEFAULT_MODEL})",
    )


def add_listening_options(added: Parser) -> None:
    """Add --threshold and --keyword."""
    added.add_argument(
        "--threshold",
        action="append",
        default=[],
        type=_threshold,
        metavar="X|KEYWORD=X",
        help="how sure the model must be, from 0 to 1: for all keywords, or for one, as alexa=0.9; may be repeated "
        "(default: the model's own thresholds)",
    )
    added.add_argument(
        "--keyword", action="append", metavar="KEYWORD", help="listen for this keyword only; may be repeated"
    )


def add_near_option(added: Parser, do: str = "print") -> None:
    """Add --near. do: what the command does with near misses, for --help."""
    added.add_argument(
        "--near",
        type=float,
        metavar="X",
        help=f"also {do} near misses: what came to a score of X or more, from 0 to 1, but not to the threshold",
    )


def _threshold(text: str) -> tuple[str, float]:
    keyword, _, number = text.rpartition("=")
    try:
        return keyword, float(number)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number or KEYWORD=NUMBER, got {text!r}") from None


def add_speaker_option(added: Parser) -> None:
    """Add --speaker."""
    added.add_argument(
        "--speaker",
        metavar="NAME",
        help="who speaks: letters, digits and hyphens, not beginning with p (default: p, which is an unknown speaker)",
    )


def add_output_options(added: Parser, default: str) -> None:
    """Add --out and --force, for a command that writes a model. default: the name of its file, for --help."""
    added.add_argument("--out", metavar="FILE", help=f"the file to write (default: {default} in the current folder)")
    added.add_argument("--force", action="store_true", help="replace the file if it exists")


def new_model_path(arguments: argparse.Namespace, name: str) -> Path:
    """Return the model file to write: --out, or one with the model's name in the current folder.

    Raises ConfigError for a folder, and for a file that exists, without --force.
    """
    from streamkws.model_file import SUFFIX

    path = Path(arguments.out or re.sub(r"[^\w.+ -]", "_", name) + SUFFIX)  # a model's name is free text
    if path.is_dir():
        raise ConfigError(f"{path}: expected a file to write, got a folder")
    if path.exists() and not arguments.force:
        raise ConfigError(f"{path}: exists already; --force replaces it")
    return path


def load_model(name: str) -> Model:
    """Load a shipped model or a file. Raises ConfigError for a name that is neither, ModelFileError for a bad file."""
    import streamkws

    try:
        return streamkws.load_model(name)
    except ModelFileError as error:
        if os.path.exists(name):
            raise
        raise ConfigError(str(error)) from None  # an unknown name is wrong usage, not a bad file


def load_models(names: str | Sequence[str] | None) -> ModelSet:
    """Load what --model names, the default model where it names none. Raises what load_model and ModelSet do."""
    from streamkws.model_set import ModelSet

    each = [names] if isinstance(names, str) else names or [DEFAULT_MODEL]
    return ModelSet([load_model(name) for name in each])


def new_detector(arguments: argparse.Namespace) -> Detector:
    """Return a detector of the models, thresholds and keywords that the options choose."""
    with explain_if_slow(STARTING):
        import streamkws

        models = load_models(arguments.model)
        near = getattr(arguments, "near", None)
        return streamkws.Detector(models, thresholds(arguments, models), arguments.keyword, near=near)


def thresholds(arguments: argparse.Namespace, models: ModelSet) -> dict[str, float] | None:
    """Return the thresholds that --threshold sets for the models' keywords; None if it sets none."""
    given: dict[str, float] = {}
    for keyword, value in sorted(arguments.threshold, key=lambda item: bool(item[0])):  # a keyword's own wins
        given.update({keyword: value} if keyword else dict.fromkeys(models.keywords, value))
    return given or None
