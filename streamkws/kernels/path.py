"""The whole path of one stream: from samples to decisions in one call."""

from __future__ import annotations

import numpy as np

from streamkws.kernels.compiling import FIRST, compiled
from streamkws.kernels.front_end import next_frame
from streamkws.kernels.layout import F32, I16, STREAM_ARRAYS, StreamArrays
from streamkws.kernels.network import push_frame
from streamkws.kernels.numba_types import load_at
from streamkws.kernels.smoother import decide, smooth

_load_arrays = load_at(STREAM_ARRAYS)


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

    address: of a Held arrays. pcm, floats: as for take_samples.
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
