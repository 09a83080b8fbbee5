"""What the speed benchmarks share: their options, and where their figures go."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from accuracy import ROOT, machine, replace_section

OUTPUTS = ("--json", "--picture")
"""Options that name files of one's own, which a README does not tell."""


def new_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options that all have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--core", type=int, default=last_core(), help="the core to use (default: the last)")
    parser.add_argument("--json", metavar="FILE", help="write the figures; - is standard output, instead of the table")
    parser.add_argument("--write", action="store_true", help="write README.md's table")
    return parser


def last_core() -> int | None:
    """The last core that this process may use; None where the system cannot pin."""
    return max(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def without(words: Sequence[str], options: Sequence[str]) -> list[str]:
    """A command line without some options and their values."""
    kept, skip = [], False
    for word in words:
        if not skip and word.split("=")[0] not in options:
            kept.append(word)
        skip = word in options
    return kept


def written_by() -> str:
    """The sentence that says by which command, when and where a section of README.md was written."""
    given = [shlex.quote(word) for word in without(sys.argv[1:], OUTPUTS) if word != "--write"]
    command = " ".join(["python", f"bench/{Path(sys.argv[0]).name}", *given, "--write"])
    return f"Written by `{command}` on {date.today().isoformat()} ({machine()})."


def publish(arguments: argparse.Namespace, section: str, text: str, results: Any, missing: Sequence[str] = ()) -> None:
    """Print the text, and write what the options ask for.

    section: README.md's, that --write replaces. missing: peers that were left out, a line each.
    """
    today = date.today().isoformat()
    text += f" {written_by()}"
    if missing:
        text += "\n\nLeft out: " + "; ".join(missing) + "."
    figures = {"date": today, "machine": machine(), "results": results, "missing": list(missing)}
    if arguments.json == "-":
        print(json.dumps(figures))
    else:
        print(text)
        if arguments.json:
            Path(arguments.json).write_text(json.dumps(figures) + "\n", encoding="utf-8")
    if arguments.write:
        replace_section(ROOT / "README.md", section, text)
