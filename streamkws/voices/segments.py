"""A set that grows: segments.csv with a row a segment, beside the FLAC files that it names."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from streamkws.audio import Samples, encode_flac
from streamkws.corpus import SEGMENTS, read_segment_rows
from streamkws.whole import whole_file, write_whole

COLUMNS = ("file", "start", "end", "label", "speaker", "source")


class SegmentTable:
    """The table of a set's folder, which is made if it is missing; a file is in it once its rows are.

    Raises ConfigError for a table that cannot be understood, OSError where the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / SEGMENTS
        folder.mkdir(parents=True, exist_ok=True)
        if not self._path.exists():
            write_whole(self._path, (",".join(COLUMNS) + "\n").encode())
        rows = read_segment_rows(folder)
        self.files = {row.file for row in rows}
        self.labels = {row.label for row in rows}

    def write(self, file: str, pieces: Iterable[tuple[str, Samples]], speaker: str, source: str) -> None:
        """Write a file of pieces, label and samples at 16 kHz, one after the other, and its rows."""
        kept = list(pieces)
        write_whole(self._path.parent / file, encode_flac(np.concatenate([samples for _, samples in kept])))
        ends = np.cumsum([len(samples) for _, samples in kept]).tolist()
        rows = [(label, end - len(samples), end) for (label, samples), end in zip(kept, ends, strict=True)]
        self.add(file, rows, speaker, source)

    def add(self, file: str, segments: Iterable[tuple[str, int, int]], speaker: str, source: str) -> None:
        """Add the rows of a file, all or none. segments: (label, start, end), in samples at 16 kHz."""
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerows([file, start, end, label, speaker, source] for label, start, end in segments)
        with whole_file(self._path) as out:
            before = self._path.read_bytes()
            end = b"" if before.endswith(b"\n") else b"\n"  # an editor need not end the last line
            out.write(before + end + text.getvalue().encode())
