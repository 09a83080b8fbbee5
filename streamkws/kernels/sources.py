"""What compiled kernels are stamped with: the source files they were compiled from."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path


@functools.cache
def sources_digest() -> str:
    """The sha256 of every source file of this package, in hexadecimal. Raises RuntimeError without any (in a zip)."""
    digest = hashlib.sha256()
    paths = sorted(Path(__file__).parent.glob("*.py"))
    if not paths:
        raise RuntimeError("expected the source files of the kernels, found none")
    for path in paths:
        digest.update(f"{path.name}\0".encode() + path.read_bytes())
    return digest.hexdigest()
