"""Operating points: what a keyword does at one threshold, in every noise condition."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from streamkws.evaluation.counting import Figures
from streamkws.evaluation.curves import mean

TARGETS_FA_PER_H = (0.1, 0.5, 1.0)
TABLE_TARGET_FA_PER_H = 0.5
CLEAN = "clean"
"""The name of the condition without added noise, in which thresholds are chosen."""


@dataclass(frozen=True)
class OperatingPoint:
    """One keyword at one threshold, in every noise condition.

    target_fa_per_h: what the threshold was chosen for on clean negative audio; None for the model's own threshold.
    resolvable: whether a single false accept in all hours stays within the target; if not, the point has none.
    reached: whether a threshold met the target. Otherwise the threshold is 1.0: every recording is a miss, and nothing
        is accepted.
    figures: by noise condition.
    """

    keyword: str
    threshold: float
    target_fa_per_h: float | None
    resolvable: bool
    reached: bool
    figures: dict[str, Figures]


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
