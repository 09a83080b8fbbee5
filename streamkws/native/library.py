"""The library of kernels compiled ahead of time: whether there is one for this version and this CPU.

A library is two files of a folder, the code and a description of it. It is used only where the description says that it
was compiled from the sources that are installed here, and the code is byte for byte what the description was written
for. Code for another CPU is in none: the library has each function for several kinds of CPU, and asks the CPU.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import logging
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamkws.kernels.sources import sources_digest

DESCRIPTION = "library.json"
FIELDS = ("file", "system", "kinds", "stamp", "sha256")
"""Of a description: the name of the code's file; the system, as platform names it; the kinds of CPU, in the order of
streamkws_cpu_kinds' bits, null for those left out; what it was compiled from; and the digest of the code."""
FOLDER = "STREAMKWS_LIBRARY"
"""The environment variable with another folder of a library than the package's own; empty is for none."""
OTHERWISE = ("NUMBA_DISABLE_JIT", "NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES")
"""Environment variables that say how numba is to compile; set, no library is used."""

COMPILED_BY = ("emit.py", "entries.py", "python_call.py", "signatures.py", "targets.py")
"""The files of this package that make machine code of the kernels."""

_log = logging.getLogger(__name__)


class UnfitLibrary(Exception):
    """Says why a library is not used."""


@dataclass(frozen=True)
class Library:
    """A library that belongs to this version and this CPU.

    instructions: what the functions for this CPU multiply codes with, see kernels.INSTRUCTIONS.
    """

    path: Path
    code: ctypes.CDLL
    instructions: str

    def function(self, name: str) -> Any:
        """A function of the library for this CPU, as ctypes has it."""
        return getattr(self.code, f"streamkws_{self.instructions}_{name}")


def stamp() -> str:
    """What a library is compiled from, in hexadecimal. Raises UnfitLibrary where the sources are not installed."""
    try:
        digest = hashlib.sha256(sources_digest().encode())
        for name in COMPILED_BY:
            digest.update(f"{name}\0".encode() + Path(__file__).with_name(name).read_bytes())
    except (OSError, RuntimeError):
        raise UnfitLibrary("there are no sources here to compare it with") from None
    return digest.hexdigest()


def find_library() -> Library | None:
    """The library that this process runs its kernels from; None where numba is to compile them.

    One that is there but does not belong here is never loaded, and the log says so.
    """
    folder = os.environ.get(FOLDER, os.path.dirname(__file__))
    if not folder or any(os.environ.get(name, "0") not in ("", "0") for name in OTHERWISE):
        return None
    try:
        return load_library(Path(folder))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except UnfitLibrary as error:
        _log.warning("the library of compiled kernels in %s is not used, numba compiles them: %s", folder, error)
        return None


def load_library(folder: Path) -> Library:
    """Load the library of a folder. Raises UnfitLibrary, or without one the system's own error."""
    try:
        fields = json.loads((folder / DESCRIPTION).read_bytes())
        file, system, kinds, stamped, digest = (fields[name] for name in FIELDS)
        path, kinds = folder / file, list(kinds)
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise UnfitLibrary(f"it cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError):
        raise UnfitLibrary(f"{DESCRIPTION} is not a description of a library") from None
    if stamped != stamp():
        raise UnfitLibrary("it was compiled from other sources")
    own_system = f"{platform.system()} {platform.machine()}"
    if system != own_system:
        raise UnfitLibrary(f"it is for {system}, this is {own_system}")
    try:
        if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            raise UnfitLibrary(f"{file} is not as it was written")
        code = ctypes.CDLL(str(path.resolve()))
        own_kinds = code.streamkws_cpu_kinds()
    except FileNotFoundError:
        raise UnfitLibrary(f"{file} is missing") from None
    except (OSError, AttributeError) as error:
        raise UnfitLibrary(f"it cannot be loaded ({error})") from None
    fitting = [kind for bit, kind in enumerate(kinds) if kind is not None and own_kinds >> bit & 1]
    if not fitting:
        raise UnfitLibrary("it has no code for this CPU")
    return Library(path, code, fitting[-1])
