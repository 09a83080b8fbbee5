"""What there is to hear: files, folders, patterns, lists (csv, jsonl, parquet) and addresses, as Recordings."""

from __future__ import annotations

import csv
import glob
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from io import TextIOWrapper
from typing import Any

from streamkws.audio import ALL_SUFFIXES
from streamkws.errors import ConfigError, MissingExtraError

LIST_SUFFIXES = (".csv", ".jsonl", ".parquet")
INSTALL = 'streamkws scan needs Dask: pip install "streamkws[scan]"'
BYTES_PER_S = 32_000
"""Of 16-bit audio at 16 kHz: the size of a recording of which only the duration is known."""
USUAL_BYTES = 8 << 20
"""The size of one of which nothing is known."""


@dataclass(frozen=True)
class Recording:
    """A file, or a stretch of one.

    id: a name of the user's for it, else the path. path: of the file, absolute, or its address (s3://...).
    offset_s, duration_s: the stretch in seconds, None for the file's beginning and end.
    n_bytes: its size, or an estimate: how much work it is.
    error: why it cannot be heard, where that is known already.
    """

    id: str
    path: str
    offset_s: float | None = None
    duration_s: float | None = None
    n_bytes: int = 0
    error: str = ""

    @cached_property
    def key(self) -> str:
        """What tells it from every other one: 32 hexadecimal digits."""
        text = json.dumps([self.id, self.path, self.offset_s, self.duration_s])
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def recordings(sources: Iterable[str | os.PathLike[str]]) -> Iterator[Recording]:
    """The recordings in some sources, one after the other, in an order that stays the same.

    sources: files, folders, patterns such as calls/**/*.wav, lists, and addresses of any of them, as fsspec knows them.
        A list is a csv, jsonl or parquet file with a column path, and id, offset and duration (seconds) if it likes;
        a relative path is one from the list's folder.
    What cannot be read is a Recording with an error.
    Raises ConfigError for a list that is none, MissingExtraError without the packages that a source needs.
    """
    for given in sources:
        source = os.fspath(given)
        if not is_address(source):
            source = os.path.abspath(source)  # a worker may be in another folder, and so may be who goes on
        if source.lower().endswith(LIST_SUFFIXES):
            yield from _listed(source)
        elif is_address(source):
            yield from _behind_address(source)
        elif os.path.isdir(source):
            yield from _in_folder(source)
        elif glob.has_magic(source) and not os.path.exists(source):
            yield from _matching(source)
        else:
            yield _file(source, source)


def is_address(path: str) -> bool:
    """Whether it is for fsspec: s3://bucket/call.wav."""
    return "://" in path


def unusable(path: str, error: str) -> Recording:
    """A Recording that stands for what cannot be heard."""
    return Recording(path, path, error=error)


def _file(path: str, name: str, offset_s: float | None = None, duration_s: float | None = None) -> Recording:
    """A file of this machine, or a stretch of it. name: its id."""
    try:
        n_bytes = os.stat(path).st_size
    except (OSError, ValueError) as error:
        return Recording(name, path, offset_s, duration_s, error=getattr(error, "strerror", None) or str(error))
    return Recording(name, path, offset_s, duration_s, _stretch_bytes(n_bytes, duration_s))


def _stretch_bytes(n_bytes: int, duration_s: float | None) -> int:
    return n_bytes if duration_s is None else min(n_bytes, round(duration_s * BYTES_PER_S))


def _is_wanted(name: str) -> bool:
    return name.lower().endswith(ALL_SUFFIXES) and not name.startswith(".")


def _in_folder(folder: str) -> Iterator[Recording]:
    """The files below a folder, and the folders that cannot be read. Names that start with a dot are left out."""
    complaints: list[OSError] = []
    n_found = 0
    for place, folders, files in os.walk(folder, onerror=complaints.append):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(filter(_is_wanted, files)):
            path = os.path.join(place, name)
            n_found += 1
            yield _file(path, path)
    for error in complaints:
        yield unusable(str(error.filename), error.strerror or str(error))
    if not n_found and not complaints:
        yield unusable(folder, f"expected audio files in this folder ({' '.join(ALL_SUFFIXES)}), found none")


def _matching(pattern: str) -> Iterator[Recording]:
    found = [path for path in sorted(glob.iglob(pattern, recursive=True)) if os.path.isfile(path)]
    yield from (_file(path, path) for path in found)
    if not found:
        yield unusable(pattern, "expected files of this pattern, found none")


def _behind_address(address: str) -> Iterator[Recording]:
    """What fsspec finds at an address: a file, a folder's files, or those of a pattern."""
    try:
        system, path = _file_system(address)
        if glob.has_magic(path):
            found = system.glob(path, detail=True)
        else:
            found = system.find(path, detail=True)
            if list(found) != [path]:
                found = {name: info for name, info in found.items() if _is_wanted(os.path.basename(name))}
    except (MissingExtraError, ConfigError):
        raise
    except Exception as error:  # each file system has its own kind
        yield unusable(address, one_line(error))
        return
    for name, info in sorted(found.items()):
        if info.get("type") != "directory":
            full = system.unstrip_protocol(name)
            yield Recording(full, full, n_bytes=int(info.get("size") or USUAL_BYTES))
    if not found:
        yield unusable(address, "expected audio files at this address, found none")


def _file_system(address: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it."""
    try:
        import fsspec
    except ImportError:
        raise MissingExtraError(INSTALL) from None
    try:
        system, path = fsspec.core.url_to_fs(address)
    except ValueError as error:
        raise ConfigError(f"{address}: {error}") from None
    except ImportError as error:  # s3 needs s3fs, and so on
        raise MissingExtraError(f"{address}: {error}") from None
    return system, str(path)


def open_bytes(path: str) -> Any:
    """Open a file or an address to read bytes."""
    if not is_address(path):
        return open(path, "rb")
    system, place = _file_system(path)
    return system.open(place, "rb")


def _listed(source: str) -> Iterator[Recording]:
    """The recordings of a list."""
    read = {".csv": _csv_rows, ".jsonl": _jsonl_rows, ".parquet": _parquet_rows}[os.path.splitext(source)[1].lower()]
    folder = source.rpartition("/")[0] if is_address(source) else os.path.dirname(source)
    try:
        with open_bytes(source) as file:
            for number, row in enumerate(read(file, source), 1):
                yield _of_row(row, folder, f"{source}: row {number}")
    except (MissingExtraError, ConfigError):
        raise
    except Exception as error:  # no such file, bad UTF-8, a damaged Parquet file, or what a file system raises
        yield unusable(source, one_line(error))


def _csv_rows(file: Any, name: str) -> Iterator[Mapping[str, Any]]:
    with TextIOWrapper(file, "utf-8-sig", newline="") as text:
        rows = csv.DictReader(text)
        _check_columns(rows.fieldnames or (), name)
        yield from rows


def _jsonl_rows(file: Any, name: str) -> Iterator[Mapping[str, Any]]:
    for line in file:
        if line.strip():
            row = json.loads(line)
            _check_columns(row if isinstance(row, dict) else (), name)
            yield row


def _parquet_rows(file: Any, name: str) -> Iterator[Mapping[str, Any]]:
    try:
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingExtraError(INSTALL) from None
    table = pq.ParquetFile(file)
    _check_columns(table.schema_arrow.names, name)
    wanted = [column for column in ("path", "id", "offset", "duration") if column in table.schema_arrow.names]
    for batch in table.iter_batches(columns=wanted):
        yield from batch.to_pylist()


def _check_columns(columns: Iterable[str], name: str) -> None:
    if "path" not in columns:
        raise ConfigError(f"{name}: expected a column path, got {', '.join(columns) or 'none'}")


def _of_row(row: Mapping[str, Any], folder: str, where: str) -> Recording:
    """The recording of a list's row. where: the row, for messages."""
    path = str(row["path"] or "")
    if not path:
        return unusable(where, "expected a path, got none")
    if folder and not is_address(path) and not os.path.isabs(path):
        path = f"{folder}/{path}" if is_address(folder) else os.path.join(folder, path)
    name = row.get("id")
    name = path if name in (None, "") else str(name)
    seconds = []
    for column, least in (("offset", 0.0), ("duration", 1e-3)):
        given = row.get(column)
        try:
            value = None if given in (None, "") else float(str(given))
        except ValueError:
            value = -1.0
        if value is not None and not least <= value < 1e9:
            return Recording(name, path, error=f"expected {column} in seconds, got {given!r} ({where})")
        seconds.append(value)
    offset_s, duration_s = seconds
    if is_address(path):
        n_bytes = USUAL_BYTES if duration_s is None else round(duration_s * BYTES_PER_S)
        return Recording(name, path, offset_s, duration_s, n_bytes)
    return _file(path, name, offset_s, duration_s)


def one_line(error: BaseException) -> str:
    """An exception as one line: its message, and its kind where that says more."""
    text = getattr(error, "strerror", None) or " ".join(str(error).split())
    return text if text and isinstance(error, OSError) else f"{type(error).__name__}: {text}".rstrip(": ")
