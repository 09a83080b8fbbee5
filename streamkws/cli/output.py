"""What the commands print: lines, tables, JSON, a progress bar."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from streamkws.kernels import LIBRARY

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from streamkws.smoother import Detection

RESULTS = ("keyword", "score", "start", "end", "peak")
"""The fields of a Detection that JSON lines have; that of a near miss also has "near", true."""

SLOW_START_S = 2.0
"""Seconds after which explain_if_slow prints its reason."""

STARTING = "starting ..." if LIBRARY else "starting; the first start compiles the kernels, once per machine ..."
"""The reason of a slow start."""


def printable(text: str) -> str:
    """Foreign text (the name of a file, what a model file says) as it may be printed: a line feed as \\n, and so on.

    Bytes of a name that are no UTF-8 stay as they are.
    """
    return "".join(
        char if char.isprintable() or "\ud800" <= char <= "\udfff" else char.encode("unicode_escape").decode()
        for char in text
    )


def print_error(message: object) -> None:
    """Print one line to standard error."""
    if sys.stderr is None:
        return  # print would write to standard output
    print("streamkws:", printable(" ".join(str(message).split())), file=sys.stderr, flush=True)


def json_line(values: Mapping[str, object]) -> str:
    """Return a JSON object, its numbers rounded to 6 digits after the point."""
    return json.dumps({name: round(value, 6) if isinstance(value, float) else value for name, value in values.items()})


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return aligned columns. A column of numbers, percentages and "-" is aligned to the right."""
    cells = [header, *([printable(str(value)) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    right = [
        all(isinstance(row[column], int | float) or f" {row[column]}".endswith((" %", " -")) for row in rows)
        for column in range(len(header))
    ]
    return "\n".join(
        "  ".join(
            f"{cell:{'>' if r else '<'}{width}}" for cell, width, r in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in cells
    )


@contextmanager
def explain_if_slow(reason: str, tell: Callable[[str], object] = print_error) -> Iterator[None]:
    """Print the reason to standard error if the body of the with statement takes longer than SLOW_START_S.

    tell: is called with the reason instead.
    """
    timer = threading.Timer(SLOW_START_S, tell, [reason])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class Lines:
    """Detections as lines of text or of JSON.

    keywords, paths: those that may come, for the width of the columns. No paths: live audio, and no column of files.
    """

    def __init__(self, keywords: Iterable[str], paths: Iterable[str], as_json: bool) -> None:
        self._keyword_columns = max(map(len, keywords))
        self._path_columns = max((len(printable(path)) + 1 for path in paths), default=0)
        self._as_json = as_json

    def show(self, hits: Iterable[Detection], path: str = "") -> None:
        """Print detections; a reader of the pipe gets each at once."""
        for hit in hits:
            if self._as_json:
                values = {"file": path} if path else {}
                values |= {name: getattr(hit, name) for name in RESULTS}
                print(json_line(values | ({"near": True} if hit.near else {})), flush=True)
            else:
                keyword = f"{hit.keyword:<{self._keyword_columns}}"
                print(
                    f"{printable(path):<{self._path_columns}}{hit.start:9.2f} s  {keyword}  {hit.score:.2f}"
                    + "  near" * hit.near,
                    flush=True,
                )


class Bar:
    """A progress bar on standard error; it appears at the first call of show, and only in a terminal."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def show(self, what: str, done: float, total: float) -> None:
        """Set the bar to done of total steps."""
        if self._progress is None or self._task is None:
            if not sys.stderr.isatty():
                return
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            self._progress = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TextColumn("{task.percentage:3.0f} %"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
                redirect_stdout=sys.stdout.isatty(),
            )
            self._task = self._progress.add_task(what, total=total)
            self._progress.start()
        self._progress.update(self._task, description=what, completed=done, total=total)
