"""streamkws export: a model for programs that are not Python."""

from __future__ import annotations

import argparse
from pathlib import Path

from streamkws.cli.arguments import Commands, add_model_option, load_model


def add_to(commands: Commands) -> None:
    """Add the command of this module."""
    export = commands.add(
        _export,
        "export",
        "write what a program in C needs to hear a model's keywords: library, header, example and the model",
        "streamkws export --c heard-in-c/",
    )
    add_model_option(export)
    export.add_argument("--c", type=Path, required=True, metavar="DIR", help="the folder to write to")


def _export(arguments: argparse.Namespace) -> int:
    from streamkws.c_export import export_c

    export_c(load_model(arguments.model), arguments.c)
    return 0
