"""The whole path of one stream: from samples to decisions in one call."""

from __future__ import annotations

import numpy as np

from streamkws.kernels.compiling import FIRST, compiled
from streamkws.kernels.front_end import next_frame
from streamkws.kernels.layout import F32, I16, STREAM_ARRAYS, TOGETHER_ARRAYS, StreamArrays
from streamkws.kernels.network import push_frame
from streamkws.kernels.numba_types import load_at
from streamkws.kernels.smoother import decide, smooth

_load_arrays = load_at(STREAM_ARRAYS)
_load_together = load_at(TOGETHER_ARRAYS)


@compiled(inline="always")
def take_samples(arrays: StreamArrays, pcm: I16, floats: F32) -> int:
    """Put samples as float32 into the block, and as int16 into the history. Returns how many, or -1 for unusable ones.

    pcm: (n,) int16. floats: (n,) float32, taken where pcm is empty. n at most the size of arrays.block.
    """
    block, history = arrays.block, arrays.history
    n = pcm.size + floats.size
    if pcm.size:
        for i in range(n):
            block[i] = np.float32(pcm[i]) * np.float32(1 / 32768)
    else:
        bits, highest = floats.view(np.int32), np.int32(0)
        for i in range(n):  # without their signs floats order like these integers, NaN above all
            highest = max(highest, bits[i] & np.int32(0x7FFFFFFF))
            block[i] = floats[i]
        if highest > arrays.limit.view(np.int32)[0]:
            return -1
    size = history.size
    first = max(FIRST, n - size)
    place = (arrays.n_heard[0] + first) % size if size else 0
    for i in range(first, n):
        scaled = np.rint(block[i] * np.float32(32768))
        history[place] = np.int16(min(max(scaled, np.float32(-32768)), np.float32(32767)))
        place += 1
        if place == size:
            place = 0
    arrays.n_heard[0] += n
    return n


@compiled()
def detect(address: int, pcm: I16, floats: F32) -> int:
    """From samples to decisions in one call. Returns how many of arrays.events it wrote, or -1 for unusable samples.

    address: of a ByAddress of StreamArrays. pcm, floats: as for take_samples.
    """
    arrays = _load_arrays(address)
    n = take_samples(arrays, pcm, floats)
    if n < 0:
        return -1
    n_events, start = 0, FIRST
    samples, frame, posteriors = arrays.block[:n], arrays.frame, arrays.posteriors
    smoother_state = arrays.smoother_state
    while True:
        start = next_frame(arrays.front_end, arrays.front_end_state, samples, start, frame)
        if start < 0:
            return n_events
        if push_frame(arrays.network, arrays.network_state, arrays.frame_stride[0], frame, posteriors):
            step = smooth(smoother_state, posteriors)
            n_events += decide(arrays.smoother, smoother_state, step, arrays.events[n_events:])


@compiled()
def detect_together(address: int, pcm: I16, floats: F32) -> int:
    """detect for several models, each frame of a front end made once. Returns how many events it wrote in all, or -1.

    address: of a ByAddress of TogetherArrays. pcm, floats: as for take_samples.

    A model hears all frames of a push before the next one does: frame by frame, two f32 networks pushed each other out
    of the cache, and took longer in blocks of 80 ms than two detectors.
    """
    together = _load_together(address)
    first = _load_arrays(together.streams[0])
    n = take_samples(first, pcm, floats)
    if n < 0:
        return -1
    samples, n_models, n_all = first.block[:n], together.leaders.size, 0
    for i in range(n_models):
        if together.leaders[i] != i:
            continue
        leader, start, stop = _load_arrays(together.streams[i]), FIRST, FIRST
        n_mels = leader.frame.size
        while True:
            start = next_frame(
                leader.front_end, leader.front_end_state, samples, start, together.frames[stop : stop + n_mels]
            )
            if start < 0:
                break
            stop += n_mels
        for j in range(i, n_models):
            if together.leaders[j] != i:
                continue
            arrays, n_events = _load_arrays(together.streams[j]), FIRST
            for place in range(0, stop, n_mels):
                frame = together.frames[place : place + n_mels]
                if push_frame(arrays.network, arrays.network_state, arrays.frame_stride[0], frame, arrays.posteriors):
                    step = smooth(arrays.smoother_state, arrays.posteriors)
                    n_events += decide(arrays.smoother, arrays.smoother_state, step, arrays.events[n_events:])
            together.n_events[j] = n_events
            n_all += n_events
    return n_all
