"""The functions that a library has, and what they take. Needs no compiler.

Those of WHOLE_PATHS are called for every block of live audio. They take numbers: the address that memory.ByAddress
gives, and of the samples in int16, then in float32, the address and how many. Every other function takes the address of
its arguments, laid out one after the other by memory.words_of.
"""

from __future__ import annotations

import numpy as np

from streamkws.kernels.layout import (
    EVENT,
    FRONT_END_STATE,
    FRONT_END_TABLES,
    NETWORK,
    NETWORK_STATE,
    SMOOTHER_STATE,
    SMOOTHER_TABLES,
    Kind,
    array_kind,
    scalar_kind,
)

WHOLE_PATHS = ("detect", "detect_together")
"""The whole path, for one model and for several. Each is also there for CPython to call, see python_call."""
N_PATH_ARGUMENTS = 5

_INT, _F32, _F32_2D = scalar_kind(np.int64), array_kind(np.float32), array_kind(np.float32, 2)
_U8, _I32, _EVENTS = array_kind(np.uint8), array_kind(np.int32), array_kind(EVENT)
SIGNATURES: dict[str, tuple[Kind, ...]] = {
    "push_samples": (FRONT_END_TABLES, FRONT_END_STATE, _F32, _F32_2D),
    "push_frames": (NETWORK, NETWORK_STATE, _INT, _F32_2D, _F32_2D),
    "push_posteriors": (SMOOTHER_TABLES, SMOOTHER_STATE, _F32_2D, _EVENTS, _F32_2D),
    "flush_smoother": (SMOOTHER_TABLES, SMOOTHER_STATE, _EVENTS),
    "matvec_u8_u8": (_U8, _INT, _INT, _U8, _INT, _INT, _INT, _I32),
    "matvec_u8_u4": (_U8, _INT, _INT, _U8, _INT, _INT, _I32),
    "add_matvec_f32": (_F32, _INT, _INT, _F32, _INT, _INT, _F32),
    "quantize_vector": (_F32, scalar_kind(np.float32), _U8, _F32_2D, _I32, _INT),
}
"""The kinds of every other function's arguments."""

PYTHON_FUNCTIONS = (
    "PyLong_AsLongLong",
    "PyLong_FromLongLong",
    "PyObject_GetBuffer",
    "PyBuffer_Release",
    "PyEval_SaveThread",
    "PyEval_RestoreThread",
    "PyErr_BadArgument",
)
"""What python_call calls of CPython. The library is not linked with it: whoever loads the library says where they are,
in the array of this order that it exports as streamkws_python."""
