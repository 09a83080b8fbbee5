"""The functions of a library, to be called as the kernels of the same names are."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from streamkws.kernels.layout import Kind
from streamkws.kernels.memory import words_of
from streamkws.native.library import Library
from streamkws.native.signatures import PYTHON_FUNCTIONS, SIGNATURES, WHOLE_PATHS

METH_FASTCALL = 0x80


class _Method(ctypes.Structure):
    """CPython's PyMethodDef."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


_new_function = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.POINTER(_Method), ctypes.c_void_p, ctypes.c_void_p)(
    ("PyCFunction_NewEx", ctypes.pythonapi)
)
_methods: list[_Method] = []
"""What CPython's functions point at, for as long as the process lives."""


class _Call:
    """A function that takes the address of its arguments, which are laid out anew for each call; without the GIL."""

    def __init__(self, function: Any, kinds: tuple[Kind, ...]) -> None:
        function.argtypes, function.restype = [ctypes.c_int64], ctypes.c_int64
        self._function = function
        self._kinds = kinds

    def __call__(self, *arguments: Any) -> int:
        pairs = zip(arguments, self._kinds, strict=True)
        words = np.array([word for value, kind in pairs for word in words_of(value, kind)], np.int64)
        n: int = self._function(words.ctypes.data)
        return n


def python_function(library: Library, name: str) -> Callable[..., int]:
    """A function of the library that is written against CPython, as a built-in function.

    One of a real extension module would be no faster, but such a module has to be linked with CPython on each system.
    A call with no samples takes 0.16 us, where numba's own takes 0.25 and ctypes, given addresses of arrays, 1.6.
    """
    places = (ctypes.c_void_p * len(PYTHON_FUNCTIONS)).in_dll(library.code, "streamkws_python")
    for index, function in enumerate(PYTHON_FUNCTIONS):
        places[index] = ctypes.cast(getattr(ctypes.pythonapi, function), ctypes.c_void_p).value
    address = ctypes.cast(library.function(f"{name}_python"), ctypes.c_void_p)
    _methods.append(_Method(name.encode(), address, METH_FASTCALL, None))
    return _new_function(ctypes.byref(_methods[-1]), None, None)  # type: ignore[no-any-return]


def library_calls(library: Library) -> SimpleNamespace:
    """Every function of signatures by its name; WHOLE_PATHS take what the kernels do, an address and two arrays."""
    calls = {name: _Call(library.function(name), kinds) for name, kinds in SIGNATURES.items()}
    return SimpleNamespace(**calls, **{name: python_function(library, name) for name in WHOLE_PATHS})
