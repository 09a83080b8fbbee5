"""Recordings as files: names that say the speaker and the time, and writing and moving that never overwrites."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from streamkws.corpus import speaker_of
from streamkws.errors import ConfigError
from streamkws.whole import flush_folder, numbered

UNKNOWN = "p"
"""The speaker in a recording's name where nobody said who speaks: in a corpus, p* is an unknown one."""

TIME = "%Y-%m-%d_%H-%M-%S"


def checked_speaker(text: str | None) -> str:
    """Return the speaker for a recording's name. Raises ConfigError for one that a corpus would not read so."""
    if text is None:
        return UNKNOWN
    if not re.fullmatch(r"[^\W_]([^\W_]|-)*", text) or speaker_of(Path(f"{text}_1")) != text:
        raise ConfigError(
            f"expected a speaker of letters, digits and hyphens that does not begin with p (unknown), got {text!r}"
        )
    return text


def stamp() -> str:
    """Now, as it stands in the names of recordings."""
    return datetime.now().strftime(TIME)


@contextmanager
def aside(path: Path) -> Iterator[Path]:
    """A new file beside a path, to be written before it gets that name; what is left of it at the end is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
    finally:
        part.unlink(missing_ok=True)


def write_new(path: Path, content: bytes) -> Path:
    """Write a new file and return its path; a number is appended to a name that is taken."""
    with aside(path) as part:
        with open(part, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        return rename_new(part, path)


def rename_new(source: Path, path: Path) -> Path:
    """Rename a file within a filesystem, and return its new path; a number is appended to a name that is taken.

    An empty file takes the name first, so that nobody else's file is replaced.
    """
    for target in numbered(path):
        with suppress(FileExistsError):
            open(target, "xb").close()
            break
    try:
        os.replace(source, target)
    except BaseException:  # Ctrl-C may come just after the rename: what is not empty stays
        with suppress(OSError):
            if target.stat().st_size == 0:
                target.unlink()
        raise
    return target


def move_new(source: Path, path: Path) -> Path:
    """Move a file, also to another filesystem, and return its new path; a number is appended to a name that is taken.

    The file is always there under one of its names: a copy is on the disk before the original is deleted.
    Raises OSError where it cannot be moved; the file is then where it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return rename_new(source, path)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    with aside(path) as part:
        with open(source, "rb") as file, open(part, "xb") as copy:
            shutil.copyfileobj(file, copy)
            copy.flush()
            os.fsync(copy.fileno())
        with suppress(OSError):
            shutil.copystat(source, part)
        target = rename_new(part, path)
    flush_folder(target.parent)  # the new name, too, before the old one goes
    try:
        source.unlink()
    except OSError:
        target.unlink()
        raise
    return target
