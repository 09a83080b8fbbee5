"""A set that grows: segments.csv with a row a segment, beside the FLAC files that it names."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

from streamkws.corpus import SEGMENTS, read_segment_rows

COLUMNS = ("file", "start", "end", "label", "speaker", "source")


class SegmentTable:
    """The table of a set's folder, which is made if it is missing; a file is in it once its rows are.

    Raises ConfigError for a table that cannot be understood, OSError where the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / SEGMENTS
        folder.mkdir(parents=True, exist_ok=True)
        if not self._path.exists():
            self._path.write_text(",".join(COLUMNS) + "\n", encoding="utf-8")
        rows = read_segment_rows(folder)
        self.files = {row.file for row in rows}
        self.labels = {row.label for row in rows}

    def add(self, file: str, segments: Iterable[tuple[str, int, int]], speaker: str, source: str) -> None:
        """Add the rows of a file. segments: (label, start, end), in samples at 16 kHz."""
        with self._path.open("a", newline="", encoding="utf-8") as out:
            rows = csv.writer(out, lineterminator="\n")
            rows.writerows([file, start, end, label, speaker, source] for label, start, end in segments)
