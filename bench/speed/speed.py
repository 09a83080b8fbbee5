"""The options that the speed benches have in common."""

from __future__ import annotations

import argparse
import os


def new_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with --core, --json and --write."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--core", type=int, default=last_core(), help="the core to use (default: the last)")
    parser.add_argument("--json", metavar="FILE", help="write the figures; - is standard output, instead of the table")
    parser.add_argument("--write", action="store_true", help="write the table in bench/README.md")
    return parser


def last_core() -> int | None:
    """The last core that this process may use; None where the system cannot pin."""
    return max(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
