"""Every compiled loop: arrays in, arrays out, outputs last.

The arrays of each stage come as two NamedTuples, a constant one (tables, weights) and one of a stream's state, so that
the whole path from samples to detections is one compiled call without the GIL that allocates nothing.

    compiling   numba's options, and a cache that is stamped with all files of this package
    memory      native memory and its one owner; what copies of a stream share
    cpu         which instructions the CPU has
    packing     how weight codes lie in memory
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

from streamkws.kernels.codes import add_matvec_f32, matvec_u8_u4, matvec_u8_u8, quantize_vector
from streamkws.kernels.cpu import INSTRUCTIONS
from streamkws.kernels.fft import power_spectrum
from streamkws.kernels.front_end import MEL_BINS, FrontEndState, FrontEndTables, log_energies, push_samples
from streamkws.kernels.memory import ByAddress, OneStream, addresses, constant_arrays, load_at, own_arrays, tuple_type
from streamkws.kernels.network import (
    LAYER,
    LINEAR,
    NETWORK,
    NETWORK_STATE,
    RELU,
    SIGMOID,
    SOFTMAX,
    Network,
    NetworkState,
    push_features,
    push_frames,
    push_vector,
    run_layer,
)
from streamkws.kernels.packing import GROUP, LANES, ROW_BLOCK, ROW_CODES, WEIGHT_OFFSET, pack_blocks, pack_rows, padded
from streamkws.kernels.path import (
    NO_FLOATS,
    NO_PCM,
    STREAM_ARRAYS,
    TOGETHER_ARRAYS,
    StreamArrays,
    TogetherArrays,
    detect,
    detect_together,
)
from streamkws.kernels.products import products_of, write_product
from streamkws.kernels.smoother import (
    ARMED,
    EVENT,
    RISING,
    SmootherState,
    SmootherTables,
    flush_smoother,
    push_posteriors,
)

__all__ = [
    "ARMED",
    "EVENT",
    "GROUP",
    "INSTRUCTIONS",
    "LANES",
    "LAYER",
    "LINEAR",
    "MEL_BINS",
    "NETWORK",
    "NETWORK_STATE",
    "NO_FLOATS",
    "NO_PCM",
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
    "load_at",
    "log_energies",
    "matvec_u8_u4",
    "matvec_u8_u8",
    "own_arrays",
    "pack_blocks",
    "pack_rows",
    "padded",
    "power_spectrum",
    "products_of",
    "push_features",
    "push_frames",
    "push_posteriors",
    "push_samples",
    "push_vector",
    "quantize_vector",
    "run_layer",
    "tuple_type",
    "write_product",
]
