"""The decision: posteriors are smoothed, and a peak above its threshold is a detection; one near it is a near miss."""

from __future__ import annotations

import numpy as np

from streamkws.kernels.compiling import compiled
from streamkws.kernels.layout import ARMED, F32, RISING, WAITING, Records, SmootherState, SmootherTables


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
