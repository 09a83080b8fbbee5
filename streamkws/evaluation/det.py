"""DET curves and operating points: posteriors in, misses and false accepts at every threshold out.

The definitions, which the printed tables repeat:

- miss: a keyword recording without a detection of its keyword whose peak lies between 0.2 s before the recording's
  start and 0.5 s after its end; the miss rate is misses over recordings.
- false accept: a detection in negative audio, counted per keyword and per hour. Without one in h hours, the rate is
  below 3/h with 95 % confidence, and no more is known.
- confusion: a detection of one keyword in a recording of another; reported beside the false accepts, not among them.
- in noise: the same, with noise mixed into the keyword recordings and into every negative set that is not noise.
- DET curve: misses and false accepts at some 200 thresholds, each found by running the decision rule itself.
- operating point: the lowest threshold from which on the *clean* negative audio gives at most the target rate. Where
  one false accept in all hours is already above the target, that means no false accept at all. The miss rate in noise
  is measured at the same threshold.
- DET area: the area under miss against false accepts per hour, over 0.1 to 10 per hour on a log axis, divided by
  log(100): a mean miss rate. Below the rate of one false accept, the miss rate at none counts.
- score: the highest smoothed posterior, of a keyword recording where a detection would count, of negative audio in each
  second of it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from streamkws.errors import ConfigError
from streamkws.evaluation.scoring import (
    PADDING_SAMPLES,
    SAMPLE_RATE,
    Posteriors,
    Progress,
    ScoredCorpus,
    Scores,
    read_corpus,
    score_corpus,
)
from streamkws.model import Model
from streamkws.smoother import DEFAULT_THRESHOLD, PosteriorSmoother, StepClock

BEFORE_S, AFTER_S = 0.2, 0.5  # how far outside its recording a detection's peak may lie
TARGETS_FA_PER_H = (0.1, 0.5, 1.0)
TABLE_TARGET_FA_PER_H = 0.5
AREA_FA_PER_H = (0.1, 10.0)
HIGHEST = 1.0  # ends the sweep: only a posterior that is rounded to 1 reaches it
N_THRESHOLDS, LOWEST_THRESHOLD, HIGHEST_THRESHOLD = 200, 0.02, 0.9999
ZERO_COUNT_BOUND = 3.0  # no event in h hours: below 3/h with 95 % confidence, as exp(-3) = 0.05
STRETCH_S = 1.0  # of negative audio, for each of which there is a score
CLEAN = "clean"


@dataclass(frozen=True)
class DetCurve:
    """Misses and false accepts of one keyword in one noise condition as the threshold moves.

    n_recordings: recordings of the keyword; hours: negative audio.
    thresholds: ascending; misses, false_accepts: counts at each.
    """

    keyword: str
    condition: str
    n_recordings: int
    hours: float
    thresholds: tuple[float, ...]
    misses: tuple[int, ...]
    false_accepts: tuple[int, ...]

    @property
    def miss(self) -> tuple[float | None, ...]:
        """Miss rate at each threshold; None without recordings."""
        return tuple(_ratio(misses, self.n_recordings) for misses in self.misses)

    @property
    def fa_per_h(self) -> tuple[float, ...]:
        """False accepts per hour at each threshold."""
        return tuple(count / self.hours for count in self.false_accepts)

    def index_at(self, target_fa_per_h: float) -> int | None:
        """Index of the lowest threshold from which on there are at most this many false accepts per hour."""
        lowest = None
        for i in range(len(self.thresholds) - 1, -1, -1):
            if self.false_accepts[i] / self.hours > target_fa_per_h:
                break
            lowest = i
        return lowest

    def miss_at(self, target_fa_per_h: float) -> float | None:
        """Miss rate at that threshold; 1 where there is none, None without recordings."""
        if not self.n_recordings:
            return None
        i = self.index_at(target_fa_per_h)
        return 1.0 if i is None else self.misses[i] / self.n_recordings

    @property
    def area(self) -> float | None:
        """DET area: mean miss rate over 0.1 to 10 false accepts per hour on a log axis; None without recordings."""
        low, high = AREA_FA_PER_H
        corners = sorted({low, high, *(rate for rate in self.fa_per_h if low < rate < high)})
        area = 0.0
        for left, right in itertools.pairwise(corners):
            miss = self.miss_at(left)  # constant up to the next rate that occurs
            if miss is None:
                return None
            area += miss * math.log(right / left)
        return area / math.log(high / low)


@dataclass(frozen=True)
class KeywordScores:
    """Scores of one keyword in one noise condition.

    recordings: of each recording of the keyword. negatives: of each second of negative audio.
    """

    recordings: tuple[float, ...]
    negatives: tuple[float, ...]


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
        return _ratio(self.misses, self.n_recordings)

    @property
    def fa_per_h(self) -> float:
        """False accepts per hour of negative audio."""
        return self.false_accepts / self.hours

    @property
    def fa_per_h_bound(self) -> float | None:
        """95 % upper bound of the rate where no false accept was counted, else None."""
        return None if self.false_accepts else ZERO_COUNT_BOUND / self.hours


@dataclass(frozen=True)
class OperatingPoint:
    """One keyword at one threshold, in every noise condition.

    target_fa_per_h: what the threshold was chosen for on clean negative audio; None for the model's own threshold.
    resolvable: whether a single false accept in all hours stays within the target; if not, the point has none.
    reached: whether a threshold met the target; if not, it is 1.0, every recording counts as missed, and
        nothing as accepted.
    figures: by noise condition.
    """

    keyword: str
    threshold: float
    target_fa_per_h: float | None
    resolvable: bool
    reached: bool
    figures: dict[str, Figures]


@dataclass(frozen=True)
class Evaluation:
    """All that was measured of one model on one corpus.

    conditions: "clean", "10 dB", ...
    hours: of negative audio, the same in every condition.
    curves: [condition][keyword].
    operating_points: [target in false accepts per hour][keyword].
    shipped: [keyword], at the model's own thresholds (0.5 where it has none).
    scores: [condition][keyword]; too many for to_json.
    skipped: files that could not be read, each with the reason. notes: what else was left out.
    """

    model: str
    provenance: dict[str, str]
    keywords: tuple[str, ...]
    corpus: str
    seed: int
    conditions: tuple[str, ...]
    n_recordings: dict[str, int]
    hours: float
    hours_by_set: dict[str, float]
    curves: dict[str, dict[str, DetCurve]]
    operating_points: dict[float, dict[str, OperatingPoint]]
    shipped: dict[str, OperatingPoint]
    scores: dict[str, dict[str, KeywordScores]] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return everything as dicts, lists, strings and numbers that json.dumps takes."""
        return {
            "model": self.model,
            "provenance": dict(self.provenance),
            "keywords": list(self.keywords),
            "corpus": self.corpus,
            "seed": self.seed,
            "conditions": list(self.conditions),
            "definitions": {
                "miss": "a keyword recording without a detection of its keyword whose peak lies from "
                f"{BEFORE_S} s before its start to {AFTER_S} s after its end",
                "fa_per_h": "detections in negative audio per hour, per keyword",
                "confusions": "detections of a keyword in recordings of the others; not among the false accepts",
                "operating_point": "lowest threshold from which on clean negative audio gives at most the target rate",
                "det_area": f"mean miss rate over {AREA_FA_PER_H[0]:g} to {AREA_FA_PER_H[1]:g} false accepts per hour, "
                "log axis",
                "fa_per_h_bound": f"95 % upper bound where none was counted: {ZERO_COUNT_BOUND:g} / hours",
            },
            "recordings": dict(self.n_recordings),
            "hours": self.hours,
            "hours_by_set": dict(self.hours_by_set),
            "shipped": self._points_to_json(self.shipped),
            "operating_points": [
                {"target_fa_per_h": target, **self._points_to_json(points)}
                for target, points in self.operating_points.items()
            ],
            "det_area": {
                condition: {
                    "keywords": {keyword: curve.area for keyword, curve in curves.items()},
                    "mean": mean(curve.area for curve in curves.values()),
                }
                for condition, curves in self.curves.items()
            },
            "det": {
                condition: {
                    keyword: {
                        "recordings": curve.n_recordings,
                        "threshold": list(curve.thresholds),
                        "misses": list(curve.misses),
                        "miss": list(curve.miss),
                        "false_accepts": list(curve.false_accepts),
                        "fa_per_h": list(curve.fa_per_h),
                    }
                    for keyword, curve in curves.items()
                }
                for condition, curves in self.curves.items()
            },
            "skipped": list(self.skipped),
            "notes": list(self.notes),
        }

    def _points_to_json(self, points: Mapping[str, OperatingPoint]) -> dict[str, Any]:
        return {
            "keywords": {
                keyword: {
                    "threshold": point.threshold,
                    "resolvable": point.resolvable,
                    "reached": point.reached,
                    "conditions": {
                        condition: {
                            "misses": figures.misses,
                            "recordings": figures.n_recordings,
                            "miss": figures.miss,
                            "false_accepts": figures.false_accepts,
                            "fa_per_h": figures.fa_per_h,
                            "fa_per_h_bound": figures.fa_per_h_bound,
                            "confusions": dict(figures.confusions),
                        }
                        for condition, figures in point.figures.items()
                    },
                }
                for keyword, point in points.items()
            },
            "mean_miss": {condition: mean_miss(points, condition) for condition in self.conditions},
            "speakers": {
                condition: {
                    speaker: {"misses": misses, "recordings": n_recordings, "miss": misses / n_recordings}
                    for speaker, (misses, n_recordings) in speakers(points, condition).items()
                }
                for condition in self.conditions
            },
        }


def evaluate(
    model: Model,
    corpus: str | Path,
    snrs_db: Sequence[float | None] = (None, 10.0),
    progress: Progress | None = None,
    seed: int = 0,
) -> Evaluation:
    """Measure one model on a corpus; see evaluate_models."""
    return evaluate_models([model], corpus, snrs_db, progress, seed)[0]


def evaluate_models(
    models: Sequence[Model],
    corpus: str | Path,
    snrs_db: Sequence[float | None] = (None, 10.0),
    progress: Progress | None = None,
    seed: int = 0,
) -> list[Evaluation]:
    """Measure several models on a corpus (evaluation.scoring says how it is laid out), each file decoded once.

    snrs_db: noise conditions as signal-to-noise ratios; None, which is without noise, has to be among them, since
        thresholds are chosen there.
    progress: called with (what is done, steps done, steps in all).
    Raises ConfigError for a corpus that cannot be used.
    """
    if None not in snrs_db:
        raise ConfigError(f"expected None (without noise) among the noise conditions, got {list(snrs_db)}")
    keywords = dict.fromkeys(keyword for model in models for keyword in model.keywords)
    scored = score_corpus(models, read_corpus(corpus, keywords), snrs_db, seed, progress)
    return [evaluate_scores(model, scored, m, progress) for m, model in enumerate(models)]


def count_misses(
    model: Model, scored: ScoredCorpus, recordings: Sequence[Posteriors], thresholds: Mapping[str, float]
) -> dict[str, int]:
    """Misses of each keyword at its threshold.

    recordings: (S, K) posteriors of each of scored.recordings, in any condition.
    thresholds: by keyword; those of other keywords are not counted.
    """
    limits = _limits(scored.recording_samples)
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


def calibrate(
    evaluation: Evaluation,
    target_fa_per_h: float,
    margin: float = 0.0,
    lowest: float = 0.0,
    noisy_targets: Mapping[str, float] | None = None,
    highest: float = 1.0,
) -> dict[str, float]:
    """Choose each keyword's threshold: the lowest with at most this many false accepts per hour.

    noisy_targets: by condition of the evaluation, such as "10 dB": how many there may be in that one, besides.
    margin: raises each threshold by this much on the logit axis (at 0.5, a threshold of 0.90 becomes 0.937), against
        the chance that the hours the threshold was chosen on were kinder than those to come.
    lowest: no threshold is set below it.
    highest: none is set above it, however many false accepts that makes: a threshold that shuts out one sound that all
        but is the keyword shuts out people, too.
    Raises ConfigError as valid_target does, and for a highest threshold that is below the lowest, or none.
    """
    if not lowest <= highest <= 1:
        raise ConfigError(f"expected a highest threshold of {lowest:g} (the lowest) to 1, got {highest}")
    targets = {CLEAN: target_fa_per_h, **(noisy_targets or {})}
    for target in targets.values():
        valid_target(target, margin, lowest)
    thresholds: dict[str, float] = {}
    for keyword in evaluation.curves[CLEAN]:
        curves = [evaluation.curves[name][keyword] for name in targets]
        indices = [curve.index_at(target) for curve, target in zip(curves, targets.values(), strict=True)]
        threshold = max(HIGHEST if i is None else curve.thresholds[i] for curve, i in zip(curves, indices, strict=True))
        if 0 < threshold < 1 and margin:
            threshold = round(1 / (1 + math.exp(-margin) * (1 - threshold) / threshold), 6)
        thresholds[keyword] = min(max(threshold, lowest), highest)
    return thresholds


def valid_target(target_fa_per_h: float, margin: float = 0.0, lowest: float = 0.0) -> None:
    """Raise ConfigError for a negative target or margin, or a lowest threshold that is none."""
    if target_fa_per_h < 0 or not math.isfinite(target_fa_per_h):
        raise ConfigError(f"expected a target of 0 or more false accepts per hour, got {target_fa_per_h}")
    if margin < 0 or not math.isfinite(margin):
        raise ConfigError(f"expected a margin of 0 or more, got {margin}")
    if not 0 <= lowest <= 1:
        raise ConfigError(f"expected a lowest threshold of 0 to 1, got {lowest}")


def mean_miss(points: Mapping[str, OperatingPoint], condition: str) -> float | None:
    """Mean of the keywords' miss rates; None without recordings."""
    return mean(point.figures[condition].miss for point in points.values())


def speakers(points: Mapping[str, OperatingPoint], condition: str) -> dict[str, tuple[int, int]]:
    """(misses, recordings) of every labelled speaker over all keywords, the most often missed first."""
    totals: dict[str, tuple[int, int]] = {}
    for point in points.values():
        for speaker, (misses, n_recordings) in point.figures[condition].speakers.items():
            total = totals.get(speaker, (0, 0))
            totals[speaker] = (total[0] + misses, total[1] + n_recordings)
    return dict(sorted(totals.items(), key=lambda item: (-item[1][0] / item[1][1], -item[1][0], item[0])))


def format_table(evaluations: Sequence[Evaluation]) -> str:
    """Lay evaluations of several models side by side as text of aligned columns, with what the figures mean below."""
    rows = _rows(evaluations)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    lines.insert(2, "  ".join("-" * width for width in widths))
    return "\n".join([*lines, "", *_remarks(evaluations)])


def format_markdown(evaluations: Sequence[Evaluation]) -> str:
    """Lay evaluations of several models side by side as a Markdown table, with what the figures mean below."""
    groups, names, *rows = _rows(evaluations)
    headings, group = [], ""
    for column, name in enumerate(names):
        group = groups[column] or group
        headings.append(f"{group} {name}".strip())
    lines = ["| " + " | ".join(row) + " |" for row in (headings, *rows)]
    lines.insert(1, "|" + "|".join("---" if column < 2 else "---:" for column in range(len(names))) + "|")
    return "\n".join([*lines, "", *(f"- {remark}" for remark in _remarks(evaluations))])


@dataclass(frozen=True)
class _Counts:
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


def evaluate_scores(model: Model, scored: ScoredCorpus, m: int = 0, progress: Progress | None = None) -> Evaluation:
    """Measure a model by posteriors already made, scored.scores[m]: the sweep over thresholds and what follows."""
    own = {keyword: model.thresholds.get(keyword, DEFAULT_THRESHOLD) for keyword in model.keywords}
    thresholds = _thresholds(own.values())
    conditions = tuple(CLEAN if snr_db is None else f"{snr_db:g} dB" for snr_db in scored.snrs_db)
    counts = {
        condition: _sweep(model, scored, scores, thresholds, condition, progress)
        for condition, scores in zip(conditions, scored.scores[m], strict=True)
    }

    of_keyword = {k: np.array([r.keyword == k for r in scored.recordings], dtype=bool) for k in model.keywords}
    n_recordings = {keyword: int(mask.sum()) for keyword, mask in of_keyword.items()}
    curves: dict[str, dict[str, DetCurve]] = {}
    for condition in conditions:
        curves[condition] = {}
        for k, keyword in enumerate(model.keywords):
            misses = (~counts[condition].heard[:, of_keyword[keyword]]).sum(axis=1)
            curves[condition][keyword] = DetCurve(
                keyword=keyword,
                condition=condition,
                n_recordings=n_recordings[keyword],
                hours=scored.hours,
                thresholds=tuple(thresholds),
                misses=tuple(misses.tolist()),
                false_accepts=tuple(counts[condition].false_accepts[:, k].tolist()),
            )

    scores = {
        condition: {
            keyword: KeywordScores(
                recordings=tuple(counts[condition].recording_scores[of_keyword[keyword], k].tolist()),
                negatives=tuple(counts[condition].negative_scores[:, k].tolist()),
            )
            for k, keyword in enumerate(model.keywords)
        }
        for condition in conditions
    }

    def point(k: int, i: int | None, target_fa_per_h: float | None) -> OperatingPoint:
        keyword = model.keywords[k]
        return OperatingPoint(
            keyword=keyword,
            threshold=HIGHEST if i is None else thresholds[i],
            target_fa_per_h=target_fa_per_h,
            resolvable=target_fa_per_h is None or 1 / scored.hours <= target_fa_per_h,
            reached=i is not None,
            figures={
                condition: _figures(scored, counts[condition], k, i, of_keyword[keyword]) for condition in conditions
            },
        )

    return Evaluation(
        model=model.name,
        provenance=dict(model.config.provenance),
        keywords=tuple(model.keywords),
        corpus=str(scored.root),
        seed=scored.seed,
        conditions=conditions,
        n_recordings=n_recordings,
        hours=scored.hours,
        hours_by_set=scored.hours_by_set,
        curves=curves,
        operating_points={
            target: {
                keyword: point(k, curves[CLEAN][keyword].index_at(target), target)
                for k, keyword in enumerate(model.keywords)
            }
            for target in TARGETS_FA_PER_H
        },
        shipped={keyword: point(k, thresholds.index(own[keyword]), None) for k, keyword in enumerate(model.keywords)},
        scores=scores,
        skipped=scored.skipped,
        notes=scored.notes,
    )


def _thresholds(also: Iterable[float]) -> list[float]:
    """The sweep's thresholds, ascending: evenly spaced on the logit axis, 1, and these."""
    low, high = (math.log(p / (1 - p)) for p in (LOWEST_THRESHOLD, HIGHEST_THRESHOLD))
    grid = 1 / (1 + np.exp(-np.linspace(low, high, N_THRESHOLDS)))
    return sorted({*np.round(grid, 6).tolist(), HIGHEST, *also})


@dataclass(frozen=True)
class Timeline:
    """The smoothed posteriors of several streams, one after the other, with silence between them.

    The decision rule of a stream depends on its smoothed posteriors alone, and the silence is long enough for it to
    complete what the end of the stream completes and to be as new when the next begins. One run over a timeline so
    gives what a fresh smoother gives on each stream, and the steps where the rule can only rest need not be run.

    smoothed: (S, K) float32. highest: (S,) float32, the highest of each step.
    streams, steps: (S,) int64, the stream each step is of (-1: silence), and its number there.
    rest_steps: steps below the threshold after which the rule is as new.
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


def _limits(recording_samples: Iterable[int]) -> list[tuple[float, float]]:
    """Seconds of each padded recording between which a detection counts."""
    padding_s = PADDING_SAMPLES / SAMPLE_RATE
    return [(padding_s - BEFORE_S, padding_s + n_samples / SAMPLE_RATE + AFTER_S) for n_samples in recording_samples]


def _sweep(
    model: Model,
    scored: ScoredCorpus,
    scores: Scores,
    thresholds: Sequence[float],
    condition: str,
    progress: Progress | None,
) -> _Counts:
    n_keywords, n_recordings = len(model.keywords), len(scored.recordings)
    limits = _limits(scored.recording_samples)
    recordings, negatives = Timeline.of(model, scores.recordings), Timeline.of(model, scores.negatives)
    counts = _Counts(
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


def _figures(
    scored: ScoredCorpus, counts: _Counts, k: int, i: int | None, of_keyword: npt.NDArray[np.bool_]
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


def _rows(evaluations: Sequence[Evaluation]) -> list[list[str]]:
    """The table's cells, two rows of headings first: a group of rows per keyword, a row per model in each."""
    conditions = list(dict.fromkeys(condition for evaluation in evaluations for condition in evaluation.conditions))
    target = f"@{TABLE_TARGET_FA_PER_H:g} FA/h"
    misses = [f"miss {condition}" for condition in conditions]
    rates = [f"FA/h {condition}" for condition in conditions]
    headings = {"": ["keyword", "model"], target: ["threshold", *misses]}
    headings |= {"own": ["threshold", *misses, *rates], "DET area": conditions}
    rows = [
        [group if first else "" for group, names in headings.items() for first in (True, *[False] * (len(names) - 1))],
        [name for names in headings.values() for name in names],
    ]
    keywords = dict.fromkeys(keyword for evaluation in evaluations for keyword in evaluation.keywords)
    for keyword in keywords:
        for n, evaluation in enumerate(e for e in evaluations if keyword in e.keywords):
            at_target = evaluation.operating_points[TABLE_TARGET_FA_PER_H][keyword]
            shipped = evaluation.shipped[keyword]
            rows.append(
                [
                    keyword if n == 0 else "",
                    evaluation.model,
                    _threshold(at_target),
                    *(_percent(_at(at_target.figures, condition)) for condition in conditions),
                    _threshold(shipped),
                    *(_percent(_at(shipped.figures, condition)) for condition in conditions),
                    *(_rate(shipped.figures.get(condition)) for condition in conditions),
                    *(_percent(_area(evaluation, condition, keyword)) for condition in conditions),
                ]
            )
    for n, evaluation in enumerate(evaluations):
        at_target_points = evaluation.operating_points[TABLE_TARGET_FA_PER_H]
        here = set(evaluation.conditions)
        rows.append(
            [
                "mean" if n == 0 else "",
                evaluation.model,
                "",
                *(_percent(mean_miss(at_target_points, c) if c in here else None) for c in conditions),
                "",
                *(_percent(mean_miss(evaluation.shipped, c) if c in here else None) for c in conditions),
                *(
                    _number(mean(p.figures[c].fa_per_h for p in evaluation.shipped.values()) if c in here else None)
                    for c in conditions
                ),
                *(_percent(mean(_area(evaluation, c, k) for k in evaluation.keywords)) for c in conditions),
            ]
        )
    return rows


def _remarks(evaluations: Sequence[Evaluation]) -> list[str]:
    """What the table does not say by itself."""
    first = evaluations[0]
    sets = ", ".join(f"{name} {hours:.2f}" for name, hours in first.hours_by_set.items())
    one = 1 / first.hours
    remarks = [
        f"{first.corpus}: {sum(first.n_recordings.values())} keyword recordings, "
        f"{first.hours:.2f} h of negative audio ({sets}); noise seed {first.seed}.",
        f"Miss: no detection peaks from {BEFORE_S} s before the recording to {AFTER_S} s after it. FA/h: detections in "
        "negative audio per hour, at the model's own threshold.",
        f"No false accept in {first.hours:.2f} h shows only < {ZERO_COUNT_BOUND / first.hours:.2g} FA/h (95 %); "
        f"one is {one:.2g} FA/h.",
    ]
    if one > TABLE_TARGET_FA_PER_H:
        remarks.append(
            f"The hours do not resolve {TABLE_TARGET_FA_PER_H:g} FA/h: @{TABLE_TARGET_FA_PER_H:g} FA/h means the "
            "lowest threshold without any false accept on the clean negative audio."
        )
    else:
        remarks.append(
            f"@{TABLE_TARGET_FA_PER_H:g} FA/h: the lowest threshold from which on clean negative audio gives no more."
        )
    remarks.append(
        f"DET area: mean miss over {AREA_FA_PER_H[0]:g}-{AREA_FA_PER_H[1]:g} FA/h on a log axis, "
        "each condition on its own negative audio."
    )
    for evaluation in evaluations:
        points = evaluation.shipped
        for condition in evaluation.conditions:
            remark = f"{evaluation.model}, {condition}, own thresholds: "
            by_speaker = speakers(points, condition)
            if by_speaker:
                name, (misses, n_recordings) = next(iter(by_speaker.items()))
                often = sum(misses / n > 0.5 for misses, n in by_speaker.values())
                remark += (
                    f"{often} of {len(by_speaker)} speakers missed more than half the time, "
                    f"the worst {name} ({misses} of {n_recordings}); "
                )
            confusions = [
                f"{keyword} for {other} {count}"
                for keyword, point in points.items()
                for other, count in point.figures[condition].confusions.items()
            ]
            remarks.append(remark + f"confusions: {', '.join(confusions) if confusions else 'none'}.")
        unreached = [k for k, p in evaluation.operating_points[TABLE_TARGET_FA_PER_H].items() if not p.reached]
        if unreached:
            remarks.append(
                f"{evaluation.model}: no threshold up to 1 brings {', '.join(unreached)} "
                f"to {TABLE_TARGET_FA_PER_H:g} FA/h; counted as missed throughout."
            )
    remarks += [f"Note: {note}." for note in first.notes]
    remarks += [f"Skipped {skipped}" for skipped in first.skipped]
    return remarks


def _at(figures: Mapping[str, Figures], condition: str) -> float | None:
    return figures[condition].miss if condition in figures else None


def _area(evaluation: Evaluation, condition: str, keyword: str) -> float | None:
    return evaluation.curves[condition][keyword].area if condition in evaluation.curves else None


def _threshold(point: OperatingPoint) -> str:
    return f"{point.threshold:.4f}" if point.reached else "-"


def _percent(ratio: float | None) -> str:
    return "-" if ratio is None else f"{100 * ratio:.1f} %"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _rate(figures: Figures | None) -> str:
    if figures is None:
        return "-"
    bound = figures.fa_per_h_bound
    return f"{figures.fa_per_h:.2f}" if bound is None else f"0 (<{bound:.2g})"


def _ratio(count: int, total: int) -> float | None:
    return count / total if total else None


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of the values that are known; None where none is."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
