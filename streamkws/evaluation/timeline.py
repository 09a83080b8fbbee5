"""Timeline: the decision rule over many streams at once, which a sweep over thresholds runs again and again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from streamkws.evaluation.scoring import Posteriors
from streamkws.model import Model
from streamkws.smoother import PosteriorSmoother, StepClock


@dataclass(frozen=True)
class Timeline:
    """The smoothed posteriors of several streams, one after the other, with silence between them.

    The decision rule depends on the smoothed posteriors alone. The silence is long enough to complete every pending
    detection and to bring the rule back to its initial state. One run over a timeline therefore gives the same result
    as a fresh smoother on each stream. Steps in which the rule can only rest need not be run.

    smoothed: (S, K) float32. highest: (S,) float32, the highest of each step.
    streams, steps: (S,) int64, the stream each step is of (-1: silence), and its number there.
    rest_steps: steps below the threshold that bring the rule back to its initial state.
    """

    model: Model
    smoothed: Posteriors
    highest: Posteriors
    streams: npt.NDArray[np.int64]
    steps: npt.NDArray[np.int64]
    rest_steps: int

    @classmethod
    def of(cls, model: Model, posteriors: Sequence[Posteriors]) -> Timeline:
        """Smooth each stream's (S, K) float32 posteriors and line them up."""
        settings = model.config.smoother
        rest_steps = settings.patience_steps + settings.refractory_steps + 1
        smoother = PosteriorSmoother(settings, model.keywords, model.config.clock)
        silence = np.zeros((rest_steps, len(model.keywords)), dtype=np.float32)
        rows, streams, steps = [silence[:0]], [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for stream, raw in enumerate(posteriors):
            smoother.reset()
            rows += [smoother.smooth(raw), silence]
            streams += [np.full(len(raw), stream), np.full(rest_steps, -1)]
            steps += [np.arange(len(raw)), np.arange(rest_steps)]
        smoothed = np.concatenate(rows)
        return cls(model, smoothed, smoothed.max(axis=1), np.concatenate(streams), np.concatenate(steps), rest_steps)

    def detect(self, threshold: float) -> list[tuple[int, int, float]]:
        """Run the decision rule with one threshold for all keywords.

        Returns (stream, keyword, peak in seconds of its stream) of each detection.
        """
        config = self.model.config
        reached = np.flatnonzero(self.highest >= np.float32(threshold))
        wake = np.zeros(len(self.smoothed) + self.rest_steps + 1, dtype=np.int64)
        wake[reached] += 1
        wake[reached + self.rest_steps + 1] -= 1
        awake = np.flatnonzero(np.cumsum(wake[: len(self.smoothed)]))

        smoother = PosteriorSmoother(
            replace(config.smoother, smoothing_steps=1),
            self.model.keywords,
            StepClock(first_end_samples=0, step_samples=1, sample_rate=1),  # a detection's peak is a number of steps
            dict.fromkeys(self.model.keywords, threshold),
        )
        index = {keyword: k for k, keyword in enumerate(self.model.keywords)}
        clock = config.clock
        found = []
        for detection in [*smoother.push(self.smoothed[awake]), *smoother.flush()]:
            i = awake[int(detection.peak)]
            found.append((int(self.streams[i]), index[detection.keyword], clock.end_s(int(self.steps[i]))))
        return found

    def highest_within(self, limits: Sequence[tuple[float, float]]) -> Posteriors:
        """Highest smoothed posterior of each stream between its two limits in seconds, (N, K) float32; 0 for none."""
        clock = self.model.config.clock
        highest = np.zeros((len(limits), self.smoothed.shape[1]), dtype=np.float32)
        for stream, (start_s, end_s) in enumerate(limits):
            rows = self.smoothed[self.streams == stream]
            inside = [start_s <= clock.end_s(step) <= end_s for step in range(len(rows))]
            highest[stream] = rows[np.array(inside, dtype=np.bool_)].max(axis=0, initial=0)
        return highest

    def highest_of_stretches(self, stretch_s: float) -> Posteriors:
        """Highest smoothed posterior of each stretch of this many seconds of each stream, (n, K) float32."""
        clock = self.model.config.clock
        per_stretch = max(1, round(stretch_s * clock.sample_rate / clock.step_samples))
        first = np.flatnonzero((self.streams >= 0) & (self.steps % per_stretch == 0))
        if not len(first):
            return np.zeros((0, self.smoothed.shape[1]), dtype=np.float32)
        return np.maximum.reduceat(self.smoothed, first)  # the silence behind a stream is no higher than its end
