"""Evaluation: all that was measured of one model on one corpus, and the same as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from streamkws.evaluation.counting import AFTER_S, BEFORE_S, ZERO_COUNT_BOUND
from streamkws.evaluation.curves import AREA_FA_PER_H, DetCurve, mean
from streamkws.evaluation.operating_points import OperatingPoint, mean_miss, speakers


@dataclass(frozen=True)
class KeywordScores:
    """Scores of one keyword in one noise condition.

    recordings: of each recording of the keyword. negatives: of each second of negative audio.
    """

    recordings: tuple[float, ...]
    negatives: tuple[float, ...]


@dataclass(frozen=True)
class Evaluation:
    """All that was measured of one model on one corpus.

    conditions: "clean", "10 dB", ...
    hours: of negative audio, the same in every condition.
    curves: [condition][keyword].
    operating_points: [target in false accepts per hour][keyword].
    at_own_thresholds: [keyword], at the model's own thresholds (0.5 where it has none).
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
    at_own_thresholds: dict[str, OperatingPoint]
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
            "shipped": self._points_to_json(self.at_own_thresholds),
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
