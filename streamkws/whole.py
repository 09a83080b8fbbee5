"""Files that are whole or absent: written aside, flushed to the disk, then renamed.

The file aside has the name of the file and ".part". Who writes it holds a lock on it, which ends with the process; so
two writers of a file wait for each other, and the next one takes over what a killed one left behind.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows, where nothing is locked
    fcntl = None  # type: ignore[assignment]

PART = ".part"


class _Discarded(Exception):
    """Ends the writing of a file that is not to be kept."""


@contextmanager
def whole_file(path: str | os.PathLike[str], is_new: bool = False) -> Iterator[BinaryIO]:
    """Give a file to write, which takes the place of path when the with statement ends, and never if it raises.

    A link is followed; a pipe or a device is written as it is. is_new: refuse to replace a file.
    Raises OSError, naming path, where that fails, and then leaves the old file as it was.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            with path.open("wb") as file:
                yield file
            return
        target = Path(os.path.realpath(path))
        part = target.with_name(target.name + PART)
        with _locked(part) as file:
            try:
                if target.exists():
                    if is_new:
                        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
                    os.chmod(part, target.stat().st_mode)  # what only its owner may read stays so
                yield file
                file.flush()
                os.fsync(file.fileno())
                if fcntl is None:
                    file.close()  # Windows renames no open file
                os.replace(part, target)
            except BaseException:
                with suppress(OSError):
                    part.unlink()
                raise
        flush_folder(target.parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from None


def write_whole(path: str | os.PathLike[str], data: bytes, is_new: bool = False) -> None:
    """Write a file whole or not at all. is_new, and what is raised: see whole_file."""
    with whole_file(path, is_new) as file:
        file.write(data)


def numbered(path: Path) -> Iterator[Path]:
    """The names for a new file, in the order they are tried: path, then with _2, _3 and so on before the suffix."""
    yield path
    for number in count(2):
        yield path.with_name(f"{path.stem}_{number}{path.suffix}")


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise OSError, naming path, where it could not be written; nothing is left behind."""
    with suppress(_Discarded), whole_file(path):
        raise _Discarded


def _locked(part: Path) -> BinaryIO:
    """Open an empty file to write that no other writer has; waits for one that has it."""
    while True:
        file = open(os.open(part, os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666), "wb")
        try:
            if fcntl is not None:
                with suppress(OSError):  # a network's file system need not know locks
                    fcntl.flock(file, fcntl.LOCK_EX)
            if fcntl is None or _is_at(file, part):
                file.truncate(0)
                return file
        except BaseException:
            file.close()
            raise
        file.close()  # who had it has renamed it meanwhile


def _is_at(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def flush_folder(folder: Path) -> None:
    """Have a folder's new names on the disk, where the system can."""
    with suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


@contextmanager
def held(path: str | os.PathLike[str]) -> Iterator[bool]:
    """Hold a lock file, which is made where it is not there; False where another process holds it.

    The lock ends with the process; the file stays. Where a file system knows no locks, nothing is locked.
    """
    with open(path, "ab") as file:
        is_ours = True
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                is_ours = False
            except OSError:
                pass  # a network's file system need not know locks
        yield is_ours
