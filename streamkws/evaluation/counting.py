"""Counting: misses, false accepts and confusions at every threshold, and the scores behind them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streamkws.audio import SAMPLE_RATE
from streamkws.evaluation.curves import ratio
from streamkws.evaluation.scoring import Posteriors, Progress, ScoredCorpus, Scores
from streamkws.evaluation.timeline import Timeline
from streamkws.mixing import PADDING_SAMPLES
from streamkws.model import Model

BEFORE_S, AFTER_S = 0.2, 0.5  # how far outside its recording a detection's peak may lie
ZERO_COUNT_BOUND = 3.0  # no event in h hours: below 3/h with 95 % confidence, as exp(-3) = 0.05
STRETCH_S = 1.0  # each stretch of negative audio of this length has a score


@dataclass(frozen=True)
class Figures:
    """What one keyword does at one threshold in one noise condition.

    confusions: detections of this keyword in recordings of the others, by the other keyword.
    speakers: (misses, recordings) by speaker, where speakers are labelled.
    """

    n_recordings: int
    misses: int
    hours: float
    false_accepts: int
    confusions: dict[str, int]
    speakers: dict[str, tuple[int, int]]

    @property
    def miss(self) -> float | None:
        """Miss rate; None without recordings."""
        return ratio(self.misses, self.n_recordings)

    @property
    def fa_per_h(self) -> float:
        """False accepts per hour of negative audio."""
        return self.false_accepts / self.hours

    @property
    def fa_per_h_bound(self) -> float | None:
        """95 % upper bound of the rate where no false accept was counted, else None."""
        return None if self.false_accepts else ZERO_COUNT_BOUND / self.hours


@dataclass(frozen=True)
class Counts:
    """What a sweep over G thresholds found in R recordings and n stretches of negative audio of one condition.

    heard: (G, R) whether a recording's own keyword was detected in it.
    false_accepts: (G, K).
    confusions: (G, K, R) detections of each keyword in recordings of another.
    recording_scores: (R, K) float32. negative_scores: (n, K) float32.
    """

    heard: npt.NDArray[np.bool_]
    false_accepts: npt.NDArray[np.int64]
    confusions: npt.NDArray[np.int64]
    recording_scores: Posteriors
    negative_scores: Posteriors


def sweep(
    model: Model,
    scored: ScoredCorpus,
    scores: Scores,
    thresholds: Sequence[float],
    condition: str,
    progress: Progress | None,
) -> Counts:
    n_keywords, n_recordings = len(model.keywords), len(scored.recordings)
    limits = counting_limits(scored.recording_samples)
    recordings, negatives = Timeline.of(model, scores.recordings), Timeline.of(model, scores.negatives)
    counts = Counts(
        heard=np.zeros((len(thresholds), n_recordings), dtype=np.bool_),
        false_accepts=np.zeros((len(thresholds), n_keywords), dtype=np.int64),
        confusions=np.zeros((len(thresholds), n_keywords, n_recordings), dtype=np.int64),
        recording_scores=recordings.highest_within(limits),
        negative_scores=negatives.highest_of_stretches(STRETCH_S),
    )
    for i, threshold in enumerate(thresholds):
        if progress is not None:
            progress(f"sweeping {model.name} {condition}", i, len(thresholds))
        for r, k, peak_s in recordings.detect(threshold):
            if model.keywords[k] != scored.recordings[r].keyword:
                counts.confusions[i, k, r] += 1
            elif limits[r][0] <= peak_s <= limits[r][1]:
                counts.heard[i, r] = True
        for _, k, _ in negatives.detect(threshold):
            counts.false_accepts[i, k] += 1
    if progress is not None:
        progress(f"sweeping {model.name} {condition}", len(thresholds), len(thresholds))
    return counts


def figures_at(
    scored: ScoredCorpus, counts: Counts, k: int, i: int | None, of_keyword: npt.NDArray[np.bool_]
) -> Figures:
    """Figures of keyword k at threshold i; at a threshold that nothing reaches for None."""
    heard = counts.heard[i] if i is not None else np.zeros(len(scored.recordings), dtype=np.bool_)
    confused = counts.confusions[i, k] if i is not None else np.zeros(len(scored.recordings), dtype=np.int64)
    confusions: dict[str, int] = {}
    by_speaker: dict[str, tuple[int, int]] = {}
    for r, recording in enumerate(scored.recordings):
        if confused[r]:
            confusions[recording.keyword] = confusions.get(recording.keyword, 0) + int(confused[r])
        if of_keyword[r] and recording.speaker:
            misses, n_recordings = by_speaker.get(recording.speaker, (0, 0))
            by_speaker[recording.speaker] = (misses + int(not heard[r]), n_recordings + 1)
    return Figures(
        n_recordings=int(of_keyword.sum()),
        misses=int((of_keyword & ~heard).sum()),
        hours=scored.hours,
        false_accepts=int(counts.false_accepts[i, k]) if i is not None else 0,
        confusions=confusions,
        speakers=by_speaker,
    )


def count_misses(
    model: Model, scored: ScoredCorpus, recordings: Sequence[Posteriors], thresholds: Mapping[str, float]
) -> dict[str, int]:
    """Misses of each keyword at its threshold.

    recordings: (S, K) posteriors of each of scored.recordings, in any condition.
    thresholds: by keyword; those of other keywords are not counted.
    """
    limits = counting_limits(scored.recording_samples)
    misses = {}
    for keyword, threshold in thresholds.items():
        own = [r for r, recording in enumerate(scored.recordings) if recording.keyword == keyword]
        timeline = Timeline.of(model, [recordings[r] for r in own])
        heard = {
            own[stream]
            for stream, k, peak_s in timeline.detect(threshold)
            if model.keywords[k] == keyword and limits[own[stream]][0] <= peak_s <= limits[own[stream]][1]
        }
        misses[keyword] = len(own) - len(heard)
    return misses


def counting_limits(recording_samples: Iterable[int]) -> list[tuple[float, float]]:
    """Seconds of each padded recording between which a detection counts."""
    padding_s = PADDING_SAMPLES / SAMPLE_RATE
    return [(padding_s - BEFORE_S, padding_s + n_samples / SAMPLE_RATE + AFTER_S) for n_samples in recording_samples]
