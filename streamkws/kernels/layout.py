"""The arrays that kernels work on, stage by stage, and how a kernel finds them in memory. Needs no compiler.

Each stage has two NamedTuples, a constant one (tables, weights) and one of a stream's state. Beside each stands its
kind: the dtype and the dimensions of every array, which the compiler turns into its types.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I16 = npt.NDArray[np.int16]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
U16 = npt.NDArray[np.uint16]
Records = Any
"""A numpy.recarray of LAYER or EVENT."""


@dataclass(frozen=True)
class ScalarKind:
    """A number that is passed by value."""

    dtype: np.dtype[Any]


@dataclass(frozen=True)
class ArrayKind:
    """A contiguous array. constant: it cannot be written to."""

    dtype: np.dtype[Any]
    n_dimensions: int
    constant: bool


@dataclass(frozen=True)
class TupleKind:
    """A NamedTuple of what these kinds describe, field by field."""

    cls: type
    kinds: tuple[Kind, ...]


Kind: TypeAlias = "ScalarKind | ArrayKind | TupleKind"


def scalar_kind(dtype: npt.DTypeLike) -> ScalarKind:
    """The kind of a number."""
    return ScalarKind(np.dtype(dtype))


def array_kind(dtype: npt.DTypeLike, n_dimensions: int = 1, constant: bool = False) -> ArrayKind:
    """The kind of a contiguous array."""
    return ArrayKind(np.dtype(dtype), n_dimensions, constant)


def tuple_kind(cls: type, **fields: Kind) -> TupleKind:
    """The kind of a NamedTuple, given the kinds of its fields."""
    return TupleKind(cls, tuple(fields[name] for name in cls._fields))  # type: ignore[attr-defined]


MEL_BINS = 4
"""The bins of a mel filter are padded with zero weights to a multiple of this; as many sums run side by side."""


class FrontEndTables(NamedTuple):
    """What a front end needs that does not change.

    window: (window_samples,) float64. twiddles: (2 n,) float64 with n = fft_samples / 2, first cos, then -sin of
    2 pi k / fft_samples. roots: (6 n / 4,) float64, w, w^2 and w^3 of w = exp(-2 pi j p / n), of each the real and then
    the imaginary parts; one of each at least.
    mel_limits: (F, 2) int64, the first FFT bin of each filter and the one after its last, MEL_BINS of them or a
    multiple. mel_weights: (m,) float64, the filters within these limits one after the other.
    scalars: (3,) float64: preemphasis, energy_floor and its logarithm. hop_samples: (1,) int64.
    """

    window: F64
    twiddles: F64
    roots: F64
    mel_limits: I64
    mel_weights: F64
    scalars: F64
    hop_samples: I64


_CONSTANT_F64, _CONSTANT_I64 = array_kind(np.float64, constant=True), array_kind(np.int64, constant=True)
FRONT_END_TABLES = tuple_kind(
    FrontEndTables,
    window=_CONSTANT_F64,
    twiddles=_CONSTANT_F64,
    roots=_CONSTANT_F64,
    mel_limits=array_kind(np.int64, 2, constant=True),
    mel_weights=_CONSTANT_F64,
    scalars=_CONSTANT_F64,
    hop_samples=_CONSTANT_I64,
)


class FrontEndState(NamedTuple):
    """One stream's front end.

    samples: (window_samples,) float64, pre-emphasized. previous: (1,) float64, the last raw sample.
    n_samples: (1,) int64, how many of samples are filled. work: (4 n,) float64, the FFT's two buffers, each real parts
    and imaginary parts. power: (n + MEL_BINS,) float64, zero behind the n + 1 bins. energies: (F,) float64.
    """

    samples: F64
    previous: F64
    n_samples: I64
    work: F64
    power: F64
    energies: F64


FRONT_END_STATE = tuple_kind(
    FrontEndState,
    samples=array_kind(np.float64),
    previous=array_kind(np.float64),
    n_samples=array_kind(np.int64),
    work=array_kind(np.float64),
    power=array_kind(np.float64),
    energies=array_kind(np.float64),
)

LINEAR, RELU, SIGMOID, SOFTMAX = 0, 1, 2, 3

LAYER = np.dtype(
    [
        (name, np.int64)
        for name in (
            "n_inputs",  # I
            "n_outputs",  # O
            "n_rows",  # O padded to a multiple of ROW_BLOCK
            "n_codes",  # I padded to a multiple of ROW_CODES
            "taps",
            "dilation",
            "activation",  # LINEAR, RELU, ...
            "residual",  # 0 or 1
            "weight_bits",  # 2..8, or 32
            "weights",  # where the layer's weights begin: bytes of Network.weights, or floats of float_weights
            "tap_size",  # distance between the weights of two taps, in the same unit
            "columns",  # where its columns begin in Network.columns
            "narrow_sums",  # 1 where its sums of weight codes are in Network.narrow_sums
            "weight_sums",  # where its (taps, O) sums of weight codes begin in Network.weight_sums or .narrow_sums
            "ring",  # where its ring begins in NetworkState.codes, or in .floats
            "slots",  # where its ring's slots begin in NetworkState.ranges and .sums
            "n_slots",  # length of its ring in frames: (taps - 1) * dilation + 1
        )
    ]
)
"""One layer of a Network; every field is an int64."""


class Network(NamedTuple):
    """The constant part of a model.

    layers: (L,) records of LAYER. weights: (bytes,) uint8 packed codes. float_weights: (n,) float32.
    columns: (3, n) float32: lo, step and bias per output unit.
    weight_sums, narrow_sums: (n,) float32 and uint16, S(qw[o]) per tap; the narrow ones are of the layers whose sums
        cannot exceed 65,535.
    levels: (L + 1,) float32: 2^bits - 1 of each layer's input, and of the output; 0 is float32.
    features: (2, F) float32: mean and scale of the log-mel input.
    """

    layers: Records
    weights: U8
    float_weights: F32
    columns: F32
    weight_sums: F32
    narrow_sums: U16
    levels: F32
    features: F32


_CONSTANT_F32 = array_kind(np.float32, constant=True)
_CONSTANT_F32_2D = array_kind(np.float32, 2, constant=True)
NETWORK = tuple_kind(
    Network,
    layers=array_kind(LAYER, constant=True),
    weights=array_kind(np.uint8, constant=True),
    float_weights=_CONSTANT_F32,
    columns=_CONSTANT_F32_2D,
    weight_sums=_CONSTANT_F32,
    narrow_sums=array_kind(np.uint16, constant=True),
    levels=_CONSTANT_F32,
    features=_CONSTANT_F32_2D,
)


class NetworkState(NamedTuple):
    """One stream's network: a ring of quantized (or float) input frames per layer, and scratch.

    codes: (bytes,) uint8. floats: (n,) float32. ranges: (slots, 2) float32: (lo, step). sums: (slots,) int32.
    newest: (L,) int64: the slot of the newest frame in each layer's ring.
    n_frames: (1,) int64: frames since the last network step.
    values: (longest vector,) float32. products: (most rows,) int32.
    output_codes, output_range, output_sum: as codes, ranges and sums, for the last layer's output vector.
    """

    codes: U8
    floats: F32
    ranges: F32
    sums: I32
    newest: I64
    n_frames: I64
    values: F32
    products: I32
    output_codes: U8
    output_range: F32
    output_sum: I32


NETWORK_STATE = tuple_kind(
    NetworkState,
    codes=array_kind(np.uint8),
    floats=array_kind(np.float32),
    ranges=array_kind(np.float32, 2),
    sums=array_kind(np.int32),
    newest=array_kind(np.int64),
    n_frames=array_kind(np.int64),
    values=array_kind(np.float32),
    products=array_kind(np.int32),
    output_codes=array_kind(np.uint8),
    output_range=array_kind(np.float32, 2),
    output_sum=array_kind(np.int32),
)


EVENT = np.dtype(
    [("keyword", np.int64), ("peak_step", np.int64), ("step", np.int64), ("score", np.float32), ("near", np.int32)]
)
"""A detection as the smoother writes it: index of the keyword, network step of the peak and of the decision, score;
near is 1 for a near miss, else 0."""

ARMED, RISING, WAITING = 0, 1, 2


class SmootherTables(NamedTuple):
    """thresholds, nears: (K,) float32; a peak from nears on and below thresholds is a near miss, infinity is for none.
    settings: (3,) int64: smoothing_steps, patience_steps, refractory_steps."""

    thresholds: F32
    nears: F32
    settings: I64


SMOOTHER_TABLES = tuple_kind(
    SmootherTables,
    thresholds=_CONSTANT_F32,
    nears=_CONSTANT_F32,
    settings=_CONSTANT_I64,
)


class SmootherState(NamedTuple):
    """One stream's smoother.

    posteriors: (smoothing_steps, K) float32, a ring. smoothed: (K,) float32. peaks: (K,) float32.
    phases, peak_steps, ready_steps: (K,) int64. n_steps: (1,) int64. near_peaks: (K,) float32, near_steps: (K,) int64:
    the peak since the smoothed posterior rose to nears, 0 while it is below.
    """

    posteriors: F32
    smoothed: F32
    peaks: F32
    phases: I64
    peak_steps: I64
    ready_steps: I64
    n_steps: I64
    near_peaks: F32
    near_steps: I64


SMOOTHER_STATE = tuple_kind(
    SmootherState,
    posteriors=array_kind(np.float32, 2),
    smoothed=array_kind(np.float32),
    peaks=array_kind(np.float32),
    phases=array_kind(np.int64),
    peak_steps=array_kind(np.int64),
    ready_steps=array_kind(np.int64),
    n_steps=array_kind(np.int64),
    near_peaks=array_kind(np.float32),
    near_steps=array_kind(np.int64),
)


NO_PCM, NO_FLOATS = np.zeros(0, np.int16), np.zeros(0, np.float32)
"""A kernel that takes samples of either kind gets this for the other one."""


class StreamArrays(NamedTuple):
    """Everything that one stream's path from samples to decisions touches.

    frame_stride: (1,) int64. frame: (F,), posteriors: (K,) float32 scratch. events: EVENT, room for K per network step
    of a push. limit: (1,) float32, the largest amplitude there may be. block: (n,) float32, the samples of a push.
    history: (n,) int16, a ring of the last samples. n_heard: (1,) int64, samples since the start.
    """

    front_end: FrontEndTables
    front_end_state: FrontEndState
    network: Network
    network_state: NetworkState
    smoother: SmootherTables
    smoother_state: SmootherState
    frame_stride: I64
    frame: F32
    posteriors: F32
    events: Records
    limit: F32
    block: F32
    history: I16
    n_heard: I64


STREAM_ARRAYS = tuple_kind(
    StreamArrays,
    front_end=FRONT_END_TABLES,
    front_end_state=FRONT_END_STATE,
    network=NETWORK,
    network_state=NETWORK_STATE,
    smoother=SMOOTHER_TABLES,
    smoother_state=SMOOTHER_STATE,
    frame_stride=array_kind(np.int64),
    frame=array_kind(np.float32),
    posteriors=array_kind(np.float32),
    events=array_kind(EVENT),
    limit=array_kind(np.float32),
    block=array_kind(np.float32),
    history=array_kind(np.int16),
    n_heard=array_kind(np.int64),
)


class TogetherArrays(NamedTuple):
    """Several models that hear one stream.

    streams: (n,) int64, the addresses of their StreamArrays, which have block, history and n_heard in common.
    leaders: (n,) int64, for each the first of those that have its front end in common; a leader's own is itself.
    n_events: (n,) int64, how many events a push wrote for each.
    frames: (m,) float32, room for the log-mel frames of a push, those of one front end at a time.
    """

    streams: I64
    leaders: I64
    n_events: I64
    frames: F32


TOGETHER_ARRAYS = tuple_kind(
    TogetherArrays,
    streams=array_kind(np.int64),
    leaders=array_kind(np.int64),
    n_events=array_kind(np.int64),
    frames=array_kind(np.float32),
)
