"""The output of a scan: a folder of Parquet files in which each detection is once, whenever one looks.

    scan.json                           the model and the thresholds of all that is in it
    detections/<part>.parquet           what was heard
    detections/<part>-failed.parquet    what was heard in recordings before they failed
    errors/<part>.parquet               recordings that failed
    sources/<part>.parquet              recordings that were heard to their end
    summary.json                        hours, detections and times

A part's name says which recordings are in it. Its file in sources/ is its commit record: it is written last, and what
has none is removed before a scan goes on. Every file is written aside and renamed. One process writes at a time:
workers hand their results to the one that started the scan.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any

from streamkws.errors import ConfigError, MissingExtraError
from streamkws.model import Model
from streamkws.scanning.hearing import Heard
from streamkws.scanning.listing import INSTALL, Recording
from streamkws.scanning.progress import Summary
from streamkws.whole import PART, held, write_whole

FORMAT = 1
SETTINGS, SUMMARY, LOCK = "scan.json", "summary.json", "lock"
DETECTIONS, ERRORS, SOURCES = "detections", "errors", "sources"
FAILED = "-failed"
SUFFIX = ".parquet"
COLUMNS = {
    DETECTIONS: {
        "id": "string", "path": "string", "keyword": "string", "score": "float", "start": "double", "end": "double",
        "peak": "double", "model": "string", "thresholds": "string",
    },
    ERRORS: {
        "id": "string", "path": "string", "error": "string", "key": "string", "audio_s": "double",
        "decode_s": "double", "compute_s": "double",
    },
    SOURCES: {
        "id": "string", "path": "string", "offset": "double", "duration": "double", "key": "string",
        "audio_s": "double", "decode_s": "double", "compute_s": "double",
    },
}  # fmt: skip
"""The columns of each data set, and their types in Arrow's words."""


def model_digest(model: Model) -> str:
    """What tells a model's network and settings from every other's: 16 hexadecimal digits."""
    digest = hashlib.sha256(repr((model.config.layers, model.config.frontend, model.config.smoother)).encode())
    digest.update(repr((model.config.keywords, model.config.frame_stride, model.config.durations_s)).encode())
    for array in (model.filters, *model.network):
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]


class Dataset:
    """A scan's output, to write to; a context manager that other processes keep out of.

    folder: is made where it is not there.
    model, thresholds: of all that is heard; thresholds of the keywords that are listened for.

    summary: of what is in it.
    Raises ConfigError for a folder with something else in it, for one of another model or other thresholds, and while
    another process writes to it; OSError for one that cannot be written.
    """

    def __init__(self, folder: str | os.PathLike[str], model: Model, thresholds: dict[str, float]) -> None:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError:
            raise MissingExtraError(INSTALL) from None
        self._arrow = pyarrow
        self.folder = Path(folder)
        self._model, self._thresholds = model.name, json.dumps(thresholds)
        self._schemas = {
            name: pyarrow.schema([(column, pyarrow.type_for_alias(kind)) for column, kind in columns.items()])
            for name, columns in COLUMNS.items()
        }
        self._stack = ExitStack()
        _check_ours(self.folder)
        for name in COLUMNS:
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        if not self._stack.enter_context(held(self.folder / LOCK)):
            raise ConfigError(f"{self.folder}: another scan is writing to it")
        try:
            digest = model_digest(model)
            self._check_settings({"format": FORMAT, "model": model.name, "network": digest, "thresholds": thresholds})
            self._remove_uncommitted()
            self._known: set[bytes] = set()
            self.summary = self._read_summary()
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> Dataset:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def has(self, recording: Recording) -> bool:
        """Whether a recording was heard, or failed, already."""
        return bytes.fromhex(recording.key) in self._known

    def is_new(self, recording: Recording) -> bool:
        """Whether a recording is not in it yet; it is remembered, so that one that is listed twice is new once."""
        key = bytes.fromhex(recording.key)
        if key in self._known:
            return False
        self._known.add(key)
        return True

    def forget_failed(self) -> None:
        """Forget the recordings that failed, and what was heard in them, so that they are new again."""
        for errors in self._files(ERRORS):
            failed = self._read(errors, ("key",))
            if not self._rows(self._path(SOURCES, errors.stem)):
                self._path(SOURCES, errors.stem).unlink()  # a part of this name may come again
            errors.unlink()  # from here on they count as never heard
            self._path(DETECTIONS, errors.stem + FAILED).unlink(missing_ok=True)
            self._known -= {bytes.fromhex(key) for key in failed["key"]}
        self.summary = self._read_summary()

    def commit(self, name: str, recordings: Sequence[Recording], heard: Sequence[Heard]) -> None:
        """Write a part: its recordings, and what was heard in each. Raises OSError where it cannot be written."""
        both = list(zip(recordings, heard, strict=True))
        well, failed = [[pair for pair in both if bool(pair[1].error) is fails] for fails in (False, True)]
        self._write(DETECTIONS, name, self._detection_rows(well))
        self._write(DETECTIONS, name + FAILED, self._detection_rows(failed))
        self._write(ERRORS, name, [_error_row(*pair) for pair in failed])
        self._write(SOURCES, name, [_source_row(*pair) for pair in well], even_empty=True)
        for _, one in both:
            self.summary.count(one)

    def write_summary(self) -> None:
        """Write the summary as it is."""
        text = json.dumps(self.summary.as_json(), indent=1)
        write_whole(self.folder / SUMMARY, text.encode() + b"\n")

    def _check_settings(self, ours: dict[str, Any]) -> None:
        path = self.folder / SETTINGS
        if not path.exists():
            write_whole(path, json.dumps(ours).encode() + b"\n")
            return
        try:
            found = json.loads(path.read_bytes())
            theirs = {name: found[name] for name in ours}
        except (ValueError, KeyError, TypeError):
            raise ConfigError(f"{path}: damaged, expected the settings of a scan") from None
        for name, what in (("format", "a format"), ("model", "a model"), ("network", "a network"),
                           ("thresholds", "thresholds")):  # fmt: skip
            if theirs[name] != ours[name]:
                raise ConfigError(
                    f"{self.folder}: was made with {what} {theirs[name]}, not {ours[name]}; choose another --out"
                )

    def _remove_uncommitted(self) -> None:
        """Remove what writers left that died before they committed it."""
        committed = {path.stem for path in self._files(SOURCES)}
        for name in COLUMNS:
            for left in (self.folder / name).glob(f"*{PART}"):
                left.unlink()
        for path in [*self._files(ERRORS), *self._files(DETECTIONS)]:
            name = path.stem.removesuffix(FAILED)
            is_of_failed = path.stem != name
            if name not in committed or (is_of_failed and not self._path(ERRORS, name).exists()):
                path.unlink()

    def _read_summary(self) -> Summary:
        """The summary of what was committed; fills what is known."""
        summary = Summary(keywords=tuple(json.loads(self._thresholds)))
        for path in self._files(SOURCES):
            rows = self._read(path, ("key", "audio_s", "decode_s", "compute_s"))
            self._known |= {bytes.fromhex(key) for key in rows.pop("key")}
            summary.count_rows(rows)
        for path in self._files(ERRORS):
            rows = self._read(path, ("key", "audio_s", "decode_s", "compute_s"))
            self._known |= {bytes.fromhex(key) for key in rows.pop("key")}
            summary.count_rows(rows, failed=True)
        for path in self._files(DETECTIONS):
            for keyword in self._read(path, ("keyword",))["keyword"]:
                summary.hits[keyword] += 1
        try:
            summary.wall_s = float(json.loads((self.folder / SUMMARY).read_bytes())["wall_s"])
        except (OSError, ValueError, KeyError, TypeError):
            summary.wall_s = 0.0  # none yet
        return summary

    def _path(self, kind: str, name: str) -> Path:
        return self.folder / kind / f"{name}{SUFFIX}"

    def _files(self, kind: str) -> list[Path]:
        return sorted((self.folder / kind).glob(f"*{SUFFIX}"))

    def _read(self, path: Path, columns: Sequence[str]) -> dict[str, list[Any]]:
        try:
            found: dict[str, list[Any]] = self._arrow.parquet.read_table(path, columns=list(columns)).to_pydict()
        except self._arrow.ArrowException as error:
            raise ConfigError(f"{path}: damaged ({error}); remove it and the part is heard again") from None
        return found

    def _rows(self, path: Path) -> int:
        return int(self._arrow.parquet.read_metadata(path).num_rows)

    def _write(self, kind: str, name: str, rows: Iterable[dict[str, Any]], even_empty: bool = False) -> None:
        table = self._arrow.Table.from_pylist(list(rows), schema=self._schemas[kind])
        path = self._path(kind, name)
        if not table.num_rows and not even_empty:
            path.unlink(missing_ok=True)
            return
        buffer = BytesIO()
        self._arrow.parquet.write_table(table, buffer, compression="zstd")
        write_whole(path, buffer.getvalue())

    def _detection_rows(self, heard: Iterable[tuple[Recording, Heard]]) -> Iterable[dict[str, Any]]:
        for recording, one in heard:
            for hit in one.hits:
                fields = asdict(hit)
                yield {
                    **_named(recording),
                    **{name: fields[name] for name in ("keyword", "score", "start", "end", "peak")},
                    "model": self._model,
                    "thresholds": self._thresholds,
                }


def _source_row(recording: Recording, heard: Heard) -> dict[str, Any]:
    stretch = {"offset": recording.offset_s, "duration": recording.duration_s}
    return {**_named(recording), **stretch, "key": recording.key, **_measured(heard)}


def _error_row(recording: Recording, heard: Heard) -> dict[str, Any]:
    return {**_named(recording), "error": _text(heard.error), "key": recording.key, **_measured(heard)}


def _named(recording: Recording) -> dict[str, Any]:
    return {"id": _text(recording.id), "path": _text(recording.path)}


def _text(name: str) -> str:
    """A name that need not be valid UTF-8 as one that is."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _measured(heard: Heard) -> dict[str, float]:
    return {"audio_s": heard.audio_s, "decode_s": heard.decode_s, "compute_s": heard.compute_s}


def _check_ours(folder: Path) -> None:
    """Raise ConfigError for a folder, or a file, that no scan wrote."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())) and not (folder / SETTINGS).is_file():
        left = {path.name for path in folder.iterdir()} if folder.is_dir() else {"a file"}
        if not left <= {*COLUMNS, LOCK, SETTINGS + PART}:
            raise ConfigError(f"{folder}: expected a folder that a scan wrote, or none")
