"""The corpus: what recordings there are, and what is said in them. The one reader for training, evaluation and mining.

A part of a corpus is a folder of sets:

    wakewords/<keyword, _ for space>/<speaker>_<id>.*   recordings that hold the keyword once, one file each
    impulse_responses/                  rooms
    <any other name>/                   no keyword is spoken in it
    <any other name>/segments.csv       file,start,end,label,speaker,source,text of each part (in samples at 16 kHz);
                                        only the first three columns are needed
    <name>_noise/                       as before, and it serves as noise that is mixed with other audio
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from streamkws.audio import SAMPLE_RATE, as_int16, audio_files, read_audio
from streamkws.errors import AudioError, ConfigError

I16 = npt.NDArray[np.int16]

KEYWORD_SET = "wakewords"
ROOM_SET = "impulse_responses"
IGNORED_SETS = (ROOM_SET,)
NOISE_SUFFIX = "_noise"
SEGMENTS = "segments.csv"
WORD_SAMPLES = 26000
"""Segments up to this long are single words, longer ones running speech or noise."""
NO_LABEL = "noise"  # what a segment of noise is called that its table only names by its source


@dataclass(frozen=True)
class Recording:
    """A file that holds a keyword once.

    name: path below the corpus, with forward slashes.
    speaker: the file name up to its first "_"; "" where there is no label (no "_", or a name in p*).
    """

    path: Path
    name: str
    keyword: str
    speaker: str


@dataclass(frozen=True)
class NegativeFile:
    """A file in which no keyword is spoken.

    set_name: the folder of the corpus it belongs to.
    segments: (start, end) in samples of each separate recording in it; empty where the file is one recording.
    labels: what each segment holds, "" where the table does not say; the source's name where it is only "noise".
    """

    path: Path
    name: str
    set_name: str
    segments: tuple[tuple[int, int], ...] = ()
    labels: tuple[str, ...] = ()

    @property
    def is_noise(self) -> bool:
        """Whether it serves as noise (and then gets none itself)."""
        return self.set_name.endswith(NOISE_SUFFIX)


@dataclass(frozen=True)
class SegmentRow:
    """A row of segments.csv: file[start:end] in samples, and what the table says of it; "" where it does not."""

    file: str
    start: int
    end: int
    label: str = ""
    speaker: str = ""
    source: str = ""
    text: str = ""

    @property
    def sound(self) -> str:
        """What is heard: the label, or the source's name where the label only says that it is noise."""
        return Path(self.source).stem if self.label == NO_LABEL and self.source else self.label


@dataclass(frozen=True)
class Corpus:
    """The files of a corpus.

    notes: what was left out, and why, in sentences.
    """

    root: Path
    recordings: tuple[Recording, ...]
    negatives: tuple[NegativeFile, ...]
    notes: tuple[str, ...] = ()


def read_corpus(root: str | Path, keywords: Iterable[str]) -> Corpus:
    """List the files of a corpus; recordings of other keywords than these are left out with a note.

    Raises ConfigError for a folder that is missing, or has no recordings of these keywords, or no negative audio, and
    for a segments.csv that cannot be understood.
    """
    root, keywords = Path(root), tuple(keywords)
    if not root.is_dir():
        raise ConfigError(f"{root}: expected the folder of a corpus, got {'a file' if root.exists() else 'nothing'}")
    keyword_root = root / KEYWORD_SET
    if not keyword_root.is_dir():
        raise ConfigError(f"{root}: expected a folder {KEYWORD_SET}/<keyword>/ in the corpus, found {_listing(root)}")
    recordings, notes = read_recordings(keyword_root, keywords)
    negatives: list[NegativeFile] = []
    for folder in _folders(root):
        if folder.name == KEYWORD_SET or folder.name in IGNORED_SETS:
            continue
        segments: dict[str, list[SegmentRow]] = {}
        for row in read_segment_rows(folder) if (folder / SEGMENTS).is_file() else ():
            segments.setdefault(row.file, []).append(row)
        files = {path.relative_to(folder).as_posix(): path for path in audio_files(folder)}
        files |= {name: folder / name for name in segments if name not in files}
        for name, path in sorted(files.items()):
            parts = segments.get(name, [])
            negatives.append(
                NegativeFile(
                    path,
                    path.relative_to(root).as_posix(),
                    folder.name,
                    segments=tuple((row.start, row.end) for row in parts),
                    labels=tuple(row.sound for row in parts),
                )
            )
        if not files:
            notes.append(f"{folder.name} holds no audio")
    if not negatives:
        raise ConfigError(
            f"{root}: expected negative audio in folders beside {KEYWORD_SET}, found none; "
            "without it there are no false accepts to count"
        )
    return Corpus(root, tuple(recordings), tuple(negatives), tuple(notes))


def read_recordings(root: Path, keywords: Iterable[str]) -> tuple[list[Recording], list[str]]:
    """List the recordings in a folder of folders that are named for their keyword, and say what is left out.

    Raises ConfigError for a folder without recordings of these keywords.
    """
    if not root.is_dir():
        raise ConfigError(
            f"{root}: expected a folder of keyword recordings, got {'a file' if root.exists() else 'nothing'}"
        )
    keywords = tuple(keywords)
    notes: list[str] = []
    recordings: list[Recording] = []
    for folder in _folders(root):
        keyword = folder.name.replace("_", " ")
        if keyword not in keywords:
            notes.append(f"{root.name}/{folder.name} was left out: no model knows the keyword {keyword!r}")
            continue
        for path in audio_files(folder):
            recordings.append(Recording(path, path.relative_to(root.parent).as_posix(), keyword, speaker_of(path)))
    found = {recording.keyword for recording in recordings}
    if not found:
        raise ConfigError(f"{root}: expected recordings of {', '.join(keywords)}, found {_listing(root)}")
    notes += [f"the corpus has no recording of {keyword!r}" for keyword in keywords if keyword not in found]
    return recordings, notes


def read_segment_rows(folder: Path) -> list[SegmentRow]:
    """The rows of a set's segments.csv. Raises ConfigError where there is none, or one that cannot be understood."""
    table = folder / SEGMENTS
    if not table.is_file():
        raise ConfigError(f"expected a set of long files with {table}, found no such file")
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets write a mark in front
            return list(_rows(table, csv.DictReader(file)))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{table}: cannot be read: {error}") from error


def _rows(table: Path, rows: csv.DictReader[str]) -> Iterator[SegmentRow]:
    missing = {"file", "start", "end"} - set(rows.fieldnames or ())
    if missing:
        raise ConfigError(f"{table}: expected the columns file, start and end, found {rows.fieldnames}")
    for row in rows:
        try:
            start, end = int(row["start"]), int(row["end"])
        except (TypeError, ValueError):
            start, end = -1, -1
        if not 0 <= start <= end:
            raise ConfigError(
                f"{table}, line {rows.line_num}: expected 0 <= start <= end in samples, "
                f"got {row['start']} and {row['end']}"
            )
        told = {name: row.get(name) or "" for name in ("label", "speaker", "source", "text")}
        yield SegmentRow(row["file"], start, end, **told)


def keyword_folder(root: Path, keyword: str) -> Path:
    """The folder of a keyword's recordings."""
    return root / keyword.replace(" ", "_")


def speaker_of(path: Path) -> str:
    """The speaker that a recording's name tells; "" where it tells none (no "_", or a name in p*)."""
    speaker, underscore, _ = path.stem.partition("_")
    return speaker if underscore and not speaker.startswith("p") else ""


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _listing(folder: Path) -> str:
    names = [path.name for path in _folders(folder)]
    return ", ".join(names) if names else "no folder"


@dataclass(frozen=True)
class Segment:
    """A part of a long file: samples[start:end], with its label and who speaks."""

    file: int
    start: int
    end: int
    label: str
    speaker: str = ""


@dataclass(frozen=True)
class SegmentSet:
    """A set of long files. files: (n,) int16 each."""

    name: str
    files: tuple[I16, ...]
    segments: tuple[Segment, ...]

    @property
    def single_words(self) -> bool:
        """Whether the segments are words, by their median length."""
        return float(np.median([segment.end - segment.start for segment in self.segments])) <= WORD_SAMPLES


def read_samples(path: Path) -> I16:
    """A recording of any rate and channel count as (n,) int16, 16 kHz mono; half the memory of float32."""
    return as_int16(read_audio(path))


def read_segments(folder: Path) -> SegmentSet:
    """A set of long files with its segments."""
    rows = read_segment_rows(folder)
    names = sorted({row.file for row in rows})
    files = tuple(read_samples(folder / name) for name in names)
    segments = tuple(Segment(names.index(row.file), row.start, row.end, row.label, row.speaker) for row in rows)
    for segment in segments:
        if not 0 <= segment.start < segment.end <= files[segment.file].size + SAMPLE_RATE // 100:
            raise AudioError(
                f"expected segment {segment.start}..{segment.end} inside {folder / names[segment.file]}, "
                f"which has {files[segment.file].size} samples"
            )
    return SegmentSet(folder.name, files, segments)
