"""DET curves: misses and false accepts of a keyword as its threshold moves."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

AREA_FA_PER_H = (0.1, 10.0)
HIGHEST = 1.0  # ends the sweep: only a posterior that is rounded to 1 reaches it
N_THRESHOLDS, LOWEST_THRESHOLD, HIGHEST_THRESHOLD = 200, 0.02, 0.9999


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
        return tuple(ratio(misses, self.n_recordings) for misses in self.misses)

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


def sweep_thresholds(also: Iterable[float]) -> list[float]:
    """The sweep's thresholds, ascending: evenly spaced on the logit axis, 1, and these."""
    low, high = (math.log(p / (1 - p)) for p in (LOWEST_THRESHOLD, HIGHEST_THRESHOLD))
    grid = 1 / (1 + np.exp(-np.linspace(low, high, N_THRESHOLDS)))
    return sorted({*np.round(grid, 6).tolist(), HIGHEST, *also})


def ratio(count: int, total: int) -> float | None:
    """count / total; None of nothing."""
    return count / total if total else None


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of the known values; None when there is none."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
