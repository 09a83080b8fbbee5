"""How numba compiles kernels, and caches them.

A kernel takes arrays and writes to arrays, outputs last. It allocates nothing and checks nothing.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import logging
import pickle
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np
from numba.core import config
from numba.core.caching import FunctionCache, IndexDataCacheFile

from streamkws.kernels.sources import sources_digest

FIRST: Any = np.int64(0)
"""An index that numba does not specialize on, as it would on the literal 0."""

VECTORS = not config.DISABLE_JIT
"""Whether kernels are compiled, and so may use LLVM's vectors; otherwise they run as plain Python."""

_log = logging.getLogger(__name__)
_Function = TypeVar("_Function", bound=Callable[..., Any])


class _CacheFile(IndexDataCacheFile):  # type: ignore[misc]
    """numba's files of compiled code, with a digest before the code: machine code that is damaged must not run."""

    def save(self, key: Any, data: Any) -> None:
        """Write the code of a signature."""
        code = self._dump(data)
        super().save(key, (hashlib.sha256(code).digest(), code))

    def load(self, key: Any) -> Any:
        """Return the code of a signature, None if there is none. Raises ValueError, or what pickle does, for damage."""
        found = super().load(key)
        if found is None:
            return None
        digest, code = found
        if hashlib.sha256(code).digest() != digest:
            raise ValueError("the code is not as it was written")
        return pickle.loads(code)


class KernelCache(FunctionCache):  # type: ignore[misc]
    """numba's cache of compiled code, stamped with all files of this package.

    numba stamps what it caches with the kernel's own file. A kernel whose helper changed in another file would then go
    on with the old helper. A cache that is damaged, or that another process changes, costs time but does no harm.
    """

    is_used = True
    """False where code is emitted for other machines: then nothing is kept."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self._cache_file = _CacheFile(self._cache_path, self._impl.filename_base, sources_digest())

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return what is cached for a signature; None if nothing usable is."""
        if not self.is_used:
            return None
        try:
            found = super().load_overload(sig, target_context)
        except Exception as error:
            _warn_once(f"a damaged cache of compiled code is rebuilt ({type(error).__name__})")
            with contextlib.suppress(OSError):
                self.flush()
            return None
        if found is not None and tuple(found.signature.args) != tuple(getattr(sig, "args", sig)):
            return None  # two processes compiled different ones at once, and took the same file
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        """Cache compiled code where that is possible."""
        if not self.is_used:
            return
        try:
            super().save_overload(sig, data)
        except (OSError, EOFError, pickle.PickleError) as error:
            _warn_once(f"compiled code cannot be cached ({getattr(error, 'strerror', None) or type(error).__name__})")


@functools.cache
def _warn_once(message: str) -> None:
    _log.warning(message)


def compiled(**options: Any) -> Callable[[_Function], _Function]:
    """numba.njit without the GIL, cached on disk; uncached where no cache folder can be written.

    Without numba's run time (_nrt) nothing can be allocated and no references are counted. Counting those of the
    arrays took 4 of 10 us of a block of 160 samples. What is called once in the path of a frame is inlined, because
    passing its arrays takes longer than much of what it does.
    """

    def decorate(function: _Function) -> _Function:
        dispatcher = numba.njit(nogil=True, _nrt=False, **options)(function)
        if not config.DISABLE_JIT:
            with contextlib.suppress(RuntimeError):  # no folder can be written, or there are no source files to stamp
                dispatcher._cache = KernelCache(function)
        return dispatcher

    return decorate


def _defer_scipy() -> None:
    """Keep numba from importing scipy when it compiles its first function, only to find scipy's BLAS.

    That import takes 0.13 of 0.65 s and 13 of 164 MB until the first detection. Nothing else changes: numba's linear
    algebra imports scipy when it is compiled.
    """
    blas = "scipy.linalg.cython_blas"
    if blas in sys.modules or "numba.np.arraymath" in sys.modules or importlib.util.find_spec("scipy") is None:
        return
    sys.modules[blas] = None  # type: ignore[assignment]  # which makes its import fail at once
    try:
        from numba.np import arraymath

        arraymath._HAVE_BLAS = True
    except ImportError:  # a numba that is built otherwise may take its time
        pass
    finally:
        del sys.modules[blas]


_defer_scipy()
