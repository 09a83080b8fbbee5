"""How training gets on: a bar or lines for a person, log.jsonl for programs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Follow = Callable[[dict[str, Any], float], None]
"""Told of each entry of the log, and how far training is, 0..1."""


class Report:
    """Progress for a person (a bar in a terminal, else lines, on standard error), and log.jsonl, a line per entry.

    follow: is told instead of the person, to whom nothing is said then.
    """

    def __init__(self, path: Path, fresh: bool, follow: Follow | None = None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        if not fresh and path.exists():  # a line that a full disk has cut is no entry
            os.truncate(path, path.read_bytes().rfind(b"\n") + 1)
        self.file = path.open("w" if fresh else "a", encoding="utf-8")
        self.follow = follow
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.1f} %"))
        self.progress = (
            Progress(*columns, TimeElapsedColumn(), console=console) if console.is_terminal and not follow else None
        )
        if self.progress:
            self.progress.start()
            self.task = self.progress.add_task("reading the corpus", total=1.0)

    def say(self, text: str) -> None:
        """A line for the person."""
        if self.follow:
            return
        if self.progress:
            self.progress.console.print(text, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def log(self, entry: dict[str, Any], completed: float) -> None:
        """Log an entry, a figure by name; completed: 0..1, how far training is."""
        self.file.write(json.dumps(entry) + "\n")
        self.file.flush()
        if self.follow:
            self.follow(entry, completed)
            return
        text = "  ".join(f"{key} {value:.4g}" for key, value in entry.items() if not key.startswith("miss "))
        misses = "  ".join(f"{key[5:]} {100 * value:.1f} %" for key, value in entry.items() if key.startswith("miss "))
        if misses:
            self.say(f"{text}  miss: {misses}")
        elif self.progress:
            self.progress.update(
                self.task, completed=completed, description=f"step {entry['step']} loss {entry['loss']:.3f}"
            )
        else:
            self.say(text)

    def close(self) -> None:
        """End the bar and the file."""
        if self.progress:
            self.progress.stop()
        self.file.close()


@contextmanager
def reporting(path: Path, fresh: bool, follow: Follow | None = None) -> Iterator[Report]:
    """A Report that is closed at the end. path: of the log. fresh: whether an old log is overwritten."""
    report = Report(path, fresh, follow)
    try:
        yield report
    finally:
        report.close()
