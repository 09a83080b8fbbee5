"""PosteriorSmoother: posteriors in, detections out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt

from streamkws import kernels
from streamkws.errors import ConfigError

DEFAULT_THRESHOLD, DEFAULT_DURATION_S = 0.5, 0.5
MAX_STEPS = 100_000


@dataclass(frozen=True)
class SmootherConfig:
    """Settings of the decision rule, counted in network steps (one step is ModelConfig.step_samples of audio).

    smoothing_steps: length of the moving average over the posteriors.
    patience_steps: a detection is emitted once the smoothed posterior has not risen for this many steps.
    refractory_steps: after a detection's peak the same keyword is not detected again for this many steps.
    """

    smoothing_steps: int = 5
    patience_steps: int = 3
    refractory_steps: int = 50

    def __post_init__(self) -> None:
        most = max(self.smoothing_steps, self.patience_steps, self.refractory_steps)
        if most > MAX_STEPS:
            raise ConfigError(f"expected at most {MAX_STEPS} steps in the smoother, got {most}")
        if self.smoothing_steps < 1 or self.patience_steps < 0 or self.refractory_steps < 0:
            raise ConfigError(
                "expected smoothing_steps >= 1, patience_steps >= 0 and refractory_steps >= 0, got "
                f"{self.smoothing_steps}, {self.patience_steps}, {self.refractory_steps}"
            )


@dataclass(frozen=True)
class Detection:
    """A keyword that was heard, or nearly; times are seconds from the stream's first sample.

    keyword: its name.
    score: peak of the smoothed posterior, 0..1.
    start, end: estimated limits of the spoken keyword: end is where the posteriors peaked, start lies the keyword's
        typical duration before it (the network marks only ends).
    peak: time of the audio that had been heard when the smoothed posterior peaked.
    stream: index of the stream in a BatchDetector, else 0.
    near: whether it is a near miss: the score stayed below the threshold. Only where near misses were asked for.
    """

    keyword: str
    score: float
    start: float
    end: float
    peak: float
    stream: int = 0
    near: bool = False


@dataclass(frozen=True)
class StepClock:
    """Turns network steps into seconds: step n has heard first_end_samples + n * step_samples samples."""

    first_end_samples: int
    step_samples: int
    sample_rate: int

    def end_samples(self, step: float) -> float:
        """Samples of audio that network step `step` has heard."""
        return self.first_end_samples + step * self.step_samples

    def end_s(self, step: float) -> float:
        """Seconds of audio that network step `step` has heard."""
        return self.end_samples(step) / self.sample_rate


def valid_keywords(wanted: Iterable[str], known: tuple[str, ...], who: str = "the model knows") -> tuple[str, ...]:
    """Return wanted as a tuple, or raise ConfigError that lists the known keywords when one is unknown.

    who: knows them, for the error.
    """
    if isinstance(wanted, str):
        wanted = (wanted,)
    names = tuple(wanted)
    for name in names:
        if name not in known:
            raise ConfigError(f"unknown keyword {name!r}; {who}: {', '.join(known)}")
    return names


def check_numbers(what: str, values: Mapping[str, Any], most: float) -> None:
    """Raise ConfigError for a keyword's value that is no number above 0 and at most so much."""
    for keyword, value in values.items():
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        if not is_number or not 0 < float(value) <= most:
            got = f"{float(value):g}" if is_number else repr(value)
            raise ConfigError(f"expected a {what} above 0 and at most {most:g} for {keyword!r}, got {got}")


class PosteriorSmoother(kernels.OneStream):
    """Smooths posteriors and decides; one object per stream.

    The posteriors of each keyword are averaged over the last smoothing_steps. When the average reaches the keyword's
    threshold, its peak is awaited: the detection is emitted as soon as the average has not risen for patience_steps.
    The same keyword is then not detected again before refractory_steps have passed and its average has fallen below
    the threshold. Near misses, where they are asked for, change nothing in that: they are peaks below the threshold,
    given once the average has fallen below near again, and none in the refractory period.

    thresholds: per keyword, 0..1; keywords without one get 0.5.
    durations_s: typical duration of each keyword in seconds, 0.5 where it is missing.
    keywords wanted: those that may be detected; None is all.
    near: peaks from here on, 0..1, and below the threshold are given, too, as near misses; None for none.

    Source: the smoothing of Chen, Parada, Heigold, "Small-footprint keyword spotting using deep neural networks",
    ICASSP 2014, section 2.3, for keywords of one label each; waiting for the peak is this project's.
    """

    state: kernels.SmootherState
    tables: kernels.SmootherTables

    def __init__(
        self,
        config: SmootherConfig,
        keywords: tuple[str, ...],
        clock: StepClock,
        thresholds: Mapping[str, float] | None = None,
        durations_s: Mapping[str, float] | None = None,
        wanted: Iterable[str] | None = None,
        near: float | None = None,
    ) -> None:
        if near is not None:
            check_numbers("score", {"near": near}, 1.0)
        self.near = near
        self.config = config
        self.keywords = keywords
        self.clock = clock
        durations_s = {} if durations_s is None else durations_s
        n = len(keywords)
        self.state = kernels.own_arrays(
            kernels.SmootherState(
                posteriors=np.zeros((config.smoothing_steps, n), np.float32),
                smoothed=np.zeros(n, np.float32),
                peaks=np.zeros(n, np.float32),
                phases=np.zeros(n, np.int64),
                peak_steps=np.zeros(n, np.int64),
                ready_steps=np.zeros(n, np.int64),
                n_steps=np.zeros(1, np.int64),
                near_peaks=np.zeros(n, np.float32),
                near_steps=np.zeros(n, np.int64),
            )
        )
        self.set_thresholds({} if thresholds is None else thresholds, wanted)
        self._durations_s = tuple(durations_s.get(k, DEFAULT_DURATION_S) for k in keywords)
        self._delay_steps = (config.smoothing_steps - 1) / 2

    def set_thresholds(self, thresholds: Mapping[str, float], wanted: Iterable[str] | None = None) -> None:
        """Decide by these from the next step on: what was rising and does not reach them is forgotten.

        thresholds, wanted: as for the class.
        """
        valid_keywords(thresholds, self.keywords)
        check_numbers("threshold", thresholds, 1.0)
        names = self.keywords if wanted is None else valid_keywords(wanted, self.keywords)
        levels = [thresholds.get(k, DEFAULT_THRESHOLD) if k in names else np.inf for k in self.keywords]
        settings = (self.config.smoothing_steps, self.config.patience_steps, self.config.refractory_steps)
        near = np.inf if self.near is None else self.near
        nears = [near if near < level < np.inf else np.inf for level in levels]
        self.tables = kernels.constant_arrays(
            kernels.SmootherTables(
                np.array(levels, np.float32), np.array(nears, np.float32), np.array(settings, np.int64)
            )
        )
        low = (self.state.phases == kernels.RISING) & (self.state.peaks < self.tables.thresholds)
        self.state.phases[low] = kernels.ARMED
        self.state.near_peaks[np.isinf(self.tables.nears)] = 0

    @property
    def thresholds(self) -> dict[str, float]:
        """The threshold of each keyword that may be detected."""
        pairs = zip(self.keywords, self.tables.thresholds.tolist(), strict=True)
        return {keyword: round(level, 6) for keyword, level in pairs if np.isfinite(level)}

    def push(self, posteriors: npt.NDArray[np.float32]) -> list[Detection]:
        """Feed posteriors, (S, K) float32 of one row per network step, and return the detections they completed."""
        return self._push(posteriors)[0]

    def smooth(self, posteriors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Feed posteriors, (S, K) float32, and return the smoothed ones, (S, K) float32."""
        return self._push(posteriors)[1]

    def _push(self, posteriors: npt.NDArray[np.float32]) -> tuple[list[Detection], npt.NDArray[np.float32]]:
        rows = np.ascontiguousarray(posteriors, np.float32)
        if rows.ndim != 2 or rows.shape[1] != len(self.keywords):
            raise ConfigError(f"expected posteriors of shape (S, {len(self.keywords)}), got {rows.shape}")
        events = event_buffer(rows.size)
        smoothed = np.empty_like(rows)
        n = kernels.push_posteriors(self.tables, self.state, rows, events, smoothed)
        return self.detections(events[:n]), smoothed

    def flush(self) -> list[Detection]:
        """The detections that the end of the stream completes: peaks that were still awaited."""
        events = event_buffer(len(self.keywords))
        return self.detections(events[: kernels.flush_smoother(self.tables, self.state, events)])

    def detections(self, events: npt.NDArray[Any]) -> list[Detection]:
        """The Detections that a kernel wrote as events, (n,) of kernels.EVENT."""
        hits = []
        for keyword, peak_step, _, score, near in events.tolist():  # much faster than the fields of a recarray
            end = self.clock.end_s(peak_step - self._delay_steps)
            hits.append(
                Detection(
                    keyword=self.keywords[keyword],
                    score=score,
                    start=max(0.0, end - self._durations_s[keyword]),
                    end=max(0.0, end),
                    peak=self.clock.end_s(peak_step),
                    near=bool(near),
                )
            )
        return hits


def event_buffer(n: int) -> npt.NDArray[Any]:
    """Room for n events as the kernels write them: (max(n, 1),) of kernels.EVENT."""
    return np.zeros(max(n, 1), kernels.EVENT).view(np.recarray)
