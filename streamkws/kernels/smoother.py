"""The decision: posteriors are smoothed, and a peak above its threshold is a detection; one near it is a near miss."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from streamkws.kernels.compiling import F32, I64, Records, compiled
from streamkws.kernels.memory import array_type, tuple_type

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


SMOOTHER_TABLES = tuple_type(
    SmootherTables,
    thresholds=array_type(np.float32, constant=True),
    nears=array_type(np.float32, constant=True),
    settings=array_type(np.int64, constant=True),
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


SMOOTHER_STATE = tuple_type(
    SmootherState,
    posteriors=array_type(np.float32, 2),
    smoothed=array_type(np.float32),
    peaks=array_type(np.float32),
    phases=array_type(np.int64),
    peak_steps=array_type(np.int64),
    ready_steps=array_type(np.int64),
    n_steps=array_type(np.int64),
    near_peaks=array_type(np.float32),
    near_steps=array_type(np.int64),
)


@compiled(inline="always")
def smooth(state: SmootherState, posteriors: F32) -> int:
    """Moving average over the last posteriors, summed oldest first; returns the number of this step.

    Before smoothing_steps posteriors have come, the average is over those that have.
    """
    step = state.n_steps[0]
    state.n_steps[0] = step + 1
    length = len(state.posteriors)
    n = min(step + 1, length)
    for k in range(posteriors.size):
        state.posteriors[step % length, k] = posteriors[k]
        total = np.float32(0)
        for i in range(step + 1 - n, step + 1):
            total += state.posteriors[i % length, k]
        state.smoothed[k] = total / np.float32(n)
    return step


@compiled(inline="always")
def emit(tables: SmootherTables, state: SmootherState, keyword: int, step: int, event: Records) -> None:
    """Write keyword's peak as a detection and start its refractory period. event: (1,) of EVENT."""
    event[0].keyword = keyword
    event[0].peak_step = state.peak_steps[keyword]
    event[0].step = step
    event[0].score = state.peaks[keyword]
    event[0].near = 0
    state.phases[keyword] = WAITING
    state.ready_steps[keyword] = state.peak_steps[keyword] + tables.settings[2]


@compiled(inline="always")
def emit_near(tables: SmootherTables, state: SmootherState, keyword: int, step: int, event: Records) -> int:
    """Write keyword's peak as a near miss if it is one; it is then over. Returns how many events. event: (1,) of EVENT.

    It is none while a detection's refractory period lasts.
    """
    peak = state.near_peaks[keyword]
    state.near_peaks[keyword] = 0
    if peak == 0 or peak >= tables.thresholds[keyword] or state.phases[keyword] != ARMED:
        return 0
    event[0].keyword = keyword
    event[0].peak_step = state.near_steps[keyword]
    event[0].step = step
    event[0].score = peak
    event[0].near = 1
    return 1


@compiled(inline="always")
def decide(tables: SmootherTables, state: SmootherState, step: int, events: Records) -> int:
    """The decision rule for one step of smoothed posteriors; writes at most K events and returns how many.

    ARMED -> RISING when the smoothed posterior reaches its threshold; RISING -> a detection once it has not risen for
    patience_steps; WAITING -> ARMED when it is below its threshold again and the refractory period is over. A near miss
    is written once the smoothed posterior has fallen below nears again.
    """
    n = 0
    for k in range(tables.thresholds.size):
        score = state.smoothed[k]
        if state.phases[k] == WAITING and step >= state.ready_steps[k] and score < tables.thresholds[k]:
            state.phases[k] = ARMED
        if state.phases[k] == ARMED and score >= tables.thresholds[k]:
            state.phases[k] = RISING
            state.peaks[k] = score
            state.peak_steps[k] = step
        elif state.phases[k] == RISING and score > state.peaks[k]:
            state.peaks[k] = score
            state.peak_steps[k] = step
        if state.phases[k] == RISING and step - state.peak_steps[k] >= tables.settings[1]:
            emit(tables, state, k, step, events[n : n + 1])
            n += 1
        if score >= tables.nears[k]:
            if score > state.near_peaks[k]:
                state.near_peaks[k] = score
                state.near_steps[k] = step
        elif state.near_peaks[k] > 0:
            n += emit_near(tables, state, k, step, events[n : n + 1])
    return n


@compiled()
def push_posteriors(
    tables: SmootherTables, state: SmootherState, posteriors: F32, events: Records, smoothed: F32
) -> int:
    """Feed posteriors, (S, K) float32; write events, (>= S * K,) of EVENT, and smoothed, (S, K). Returns n events."""
    n = 0
    for s in range(len(posteriors)):
        step = smooth(state, posteriors[s])
        n += decide(tables, state, step, events[n:])
        for k in range(posteriors.shape[1]):
            smoothed[s, k] = state.smoothed[k]
    return n


@compiled()
def flush_smoother(tables: SmootherTables, state: SmootherState, events: Records) -> int:
    """At the end of a stream: what is still rising is a detection, or a near miss. Returns how many events."""
    n = 0
    for k in range(tables.thresholds.size):
        if state.phases[k] == RISING:
            emit(tables, state, k, state.n_steps[0] - 1, events[n : n + 1])
            n += 1
        n += emit_near(tables, state, k, state.n_steps[0] - 1, events[n : n + 1])
    return n
