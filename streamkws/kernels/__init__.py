"""Every compiled loop: arrays in, arrays out, outputs last.

The arrays of each stage come as two NamedTuples, a constant one (tables, weights) and one of a stream's state, so that
the whole path from samples to detections is one compiled call without the GIL that allocates nothing.

What a process calls is a library that was compiled ahead of time, where one belongs to this version and this CPU
(streamkws.native), and numba's compilation of the same functions otherwise. Without a compiler:

    layout      the arrays of each stage, and how a kernel finds them
    memory      native memory and its one owner; what copies of a stream share
    cpu         library or numba, and which instructions the CPU has
    packing     how weight codes lie in memory
    sources     the stamp of these files

With numba, which nothing imports where a library serves:

    compiling   numba's options, and a cache that is stamped with all files of this package
    numba_types the arrays of layout in numba's terms
    vectors     LLVM's vectors in a kernel author's words
    x86, arm    products of codes, a way to multiply for each kind of CPU
    products    the one product that the network calls, by this CPU's way
    codes       matrix-vector products, and the quantization of a vector
    fft         the power spectrum of a frame
    front_end   samples to log-mel frames
    network     frames to posteriors
    smoother    posteriors to decisions
    path        all of it in one call, for one model or several

Shape letters: F mel bands, I inputs, O outputs, K keywords.
"""

from typing import TYPE_CHECKING, Any

from streamkws.errors import MissingExtraError
from streamkws.kernels.cpu import INSTRUCTIONS, IS_MISSING, LIBRARY
from streamkws.kernels.layout import (
    ARMED,
    EVENT,
    LAYER,
    LINEAR,
    MEL_BINS,
    NO_FLOATS,
    NO_PCM,
    RELU,
    RISING,
    SIGMOID,
    SOFTMAX,
    STREAM_ARRAYS,
    TOGETHER_ARRAYS,
    FrontEndState,
    FrontEndTables,
    Network,
    NetworkState,
    SmootherState,
    SmootherTables,
    StreamArrays,
    TogetherArrays,
)
from streamkws.kernels.memory import ByAddress, OneStream, addresses, constant_arrays, own_arrays
from streamkws.kernels.packing import (
    GROUP,
    LANES,
    PACKING,
    ROW_BLOCK,
    ROW_CODES,
    WEIGHT_OFFSET,
    Packing,
    pack_blocks,
    pack_rows,
    packing_of,
    padded,
)

if TYPE_CHECKING or (LIBRARY is None and not IS_MISSING):
    from streamkws.kernels.codes import add_matvec_f32, matvec_u8_u4, matvec_u8_u8, quantize_vector
    from streamkws.kernels.front_end import push_samples
    from streamkws.kernels.network import push_frames
    from streamkws.kernels.path import detect, detect_together
    from streamkws.kernels.smoother import flush_smoother, push_posteriors
elif IS_MISSING:

    def _missing(*_: Any) -> Any:
        raise MissingExtraError(
            "there are no compiled kernels for this machine here (a checkout itself has none): "
            'pip install "streamkws[jit]"'
        )

    add_matvec_f32 = matvec_u8_u4 = matvec_u8_u8 = quantize_vector = _missing
    push_samples = push_frames = push_posteriors = flush_smoother = detect = detect_together = _missing
else:
    from streamkws.native.calls import library_calls

    _calls = library_calls(LIBRARY)
    add_matvec_f32, matvec_u8_u4, matvec_u8_u8 = _calls.add_matvec_f32, _calls.matvec_u8_u4, _calls.matvec_u8_u8
    quantize_vector, push_samples, push_frames = _calls.quantize_vector, _calls.push_samples, _calls.push_frames
    push_posteriors, flush_smoother = _calls.push_posteriors, _calls.flush_smoother
    detect, detect_together = _calls.detect, _calls.detect_together

__all__ = [
    "ARMED",
    "EVENT",
    "GROUP",
    "INSTRUCTIONS",
    "LANES",
    "LAYER",
    "LIBRARY",
    "LINEAR",
    "MEL_BINS",
    "NO_FLOATS",
    "NO_PCM",
    "PACKING",
    "RELU",
    "RISING",
    "ROW_BLOCK",
    "ROW_CODES",
    "SIGMOID",
    "SOFTMAX",
    "STREAM_ARRAYS",
    "TOGETHER_ARRAYS",
    "WEIGHT_OFFSET",
    "ByAddress",
    "FrontEndState",
    "FrontEndTables",
    "Network",
    "NetworkState",
    "OneStream",
    "Packing",
    "SmootherState",
    "SmootherTables",
    "StreamArrays",
    "TogetherArrays",
    "add_matvec_f32",
    "addresses",
    "constant_arrays",
    "detect",
    "detect_together",
    "flush_smoother",
    "matvec_u8_u4",
    "matvec_u8_u8",
    "own_arrays",
    "pack_blocks",
    "pack_rows",
    "packing_of",
    "padded",
    "push_frames",
    "push_posteriors",
    "push_samples",
    "quantize_vector",
]
