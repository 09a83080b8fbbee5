"""The kernels that a library has, each as a function of numbers alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from streamkws.kernels.codes import add_matvec_f32, matvec_u8_u4, matvec_u8_u8, quantize_vector
from streamkws.kernels.compiling import compiled
from streamkws.kernels.front_end import push_samples
from streamkws.kernels.layout import Kind, TupleKind
from streamkws.kernels.network import push_frames
from streamkws.kernels.numba_types import array_at, load_at
from streamkws.kernels.path import detect, detect_together
from streamkws.kernels.smoother import flush_smoother, push_posteriors
from streamkws.native.signatures import N_PATH_ARGUMENTS, SIGNATURES

_pcm_at, _floats_at = array_at(np.int16), array_at(np.float32)


@compiled()
def detect_at(address: int, pcm: int, n_pcm: int, floats: int, n_floats: int) -> int:
    """path.detect of samples at addresses."""
    return detect(address, _pcm_at(pcm, n_pcm), _floats_at(floats, n_floats))


@compiled()
def detect_together_at(address: int, pcm: int, n_pcm: int, floats: int, n_floats: int) -> int:
    """path.detect_together of samples at addresses."""
    return detect_together(address, _pcm_at(pcm, n_pcm), _floats_at(floats, n_floats))


def _by_address(kernel: Callable[..., Any], kinds: tuple[Kind, ...]) -> Callable[[int], int]:
    """A kernel as a function of its arguments' address. It returns what the kernel does, or 0 where that is nothing."""
    load = load_at(TupleKind(tuple, kinds))

    @compiled()
    def counting(address: int) -> int:
        n: int = kernel(*load(address))
        return n

    @compiled()
    def silent(address: int) -> int:
        kernel(*load(address))
        return 0

    return counting if kernel in (push_samples, push_frames, push_posteriors, flush_smoother) else silent


_KERNELS = (
    push_samples,
    push_frames,
    push_posteriors,
    flush_smoother,
    matvec_u8_u8,
    matvec_u8_u4,
    add_matvec_f32,
    quantize_vector,
)
ENTRIES: dict[str, tuple[Any, int]] = {
    "detect": (detect_at, N_PATH_ARGUMENTS),
    "detect_together": (detect_together_at, N_PATH_ARGUMENTS),
    **{kernel.__name__: (_by_address(kernel, SIGNATURES[kernel.__name__]), 1) for kernel in _KERNELS},
}
"""Each function of a library and how many int64 it takes; it returns an int64."""
