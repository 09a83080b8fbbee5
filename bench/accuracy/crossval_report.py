"""Tables of bench/accuracy/crossval.py, from its results alone.

A result is what one network did on one fold: for each keyword the lowest thresholds that gave at most 0, 1, 2, ...
false accepts on the clean negatives, and for each take its highest score in every condition. A take is missed at a
threshold that its score does not reach.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.report import markdown

Result = dict[str, Any]

WIDTHS = ("f32", *(f"w{bits}a8" for bits in range(8, 1, -1)))
CONDITIONS = ("clean", "10 dB", "5 dB")
N_FALSE_ACCEPTS = 15
AREA_FA_PER_H = (0.1, 10.0)
COMMON_FA_PER_H = 0.5
N_BOOTSTRAP = 2000
NOTHING = "nothing has been done in all folds"


@dataclass(frozen=True)
class Pool:
    """The takes of all folds in one variant and width, of labelled speakers or of the others.

    names, speakers, keywords: (n,).
    missed: (n, conditions), at no false accept.
    common: (n, conditions), missed at the one threshold at which the networks of all folds have COMMON_FA_PER_H.
    area: (n, conditions), each take's share of the DET area: the part of 0.1 to 10 false accepts per hour (log axis) at
        which it is missed, thresholds set on clean negatives for all conditions.
    false_accepts: by condition, at those thresholds, in all folds and keywords together. hours: heard by each network.
    """

    names: list[str]
    speakers: npt.NDArray[np.str_]
    keywords: npt.NDArray[np.str_]
    missed: npt.NDArray[np.float64]
    common: npt.NDArray[np.float64]
    area: npt.NDArray[np.float64]
    false_accepts: dict[str, int]
    hours: float

    @classmethod
    def of(cls, results: Sequence[Result], labelled: bool = True) -> Pool:
        """Pool the results of all folds."""
        rows, missed, common, area = [], [], [], []
        shared = common_thresholds(results)
        false_accepts: dict[str, int] = defaultdict(int)
        for result in results:
            weights = area_weights(result["hours"])
            for one in result["keywords"].values():
                for condition, count in one["false_accepts"].items():
                    false_accepts[condition] += count
            for name, speaker, keyword, scores in result["takes"]:
                if speaker.startswith("p") == labelled:
                    continue
                thresholds = np.array(result["keywords"][keyword]["thresholds"])
                below = np.array(scores)[None, :] < thresholds[:, None]  # (false accepts, conditions)
                rows.append((name, speaker, keyword))
                missed.append(below[0])
                common.append(np.array(scores) < shared[keyword])
                area.append(weights @ below)
        names, speakers, keywords = zip(*rows, strict=True) if rows else ((), (), ())
        shape = len(rows), len(CONDITIONS)
        return cls(
            list(names), np.array(speakers, str), np.array(keywords, str), np.reshape(missed, shape).astype(float),
            np.reshape(common, shape).astype(float), np.reshape(area, shape), dict(false_accepts), results[0]["hours"],
        )  # fmt: skip

    def mean(self, values: npt.NDArray[np.float64], weights: npt.NDArray[np.float64] | None = None) -> Any:
        """Mean over keywords of the takes' mean, (conditions,). weights: (n,) of the takes."""
        weights = np.ones(len(values)) if weights is None else weights
        by_keyword = []
        for keyword in sorted(set(self.keywords.tolist())):
            of_keyword = weights * (self.keywords == keyword)
            if of_keyword.sum() > 0:
                by_keyword.append(of_keyword @ values / of_keyword.sum())
        return np.mean(by_keyword, axis=0)

    def by_speaker(self, values: npt.NDArray[np.float64]) -> Any:
        """Mean over speakers of the mean of their takes, (conditions,)."""
        return np.mean([values[self.speakers == one].mean(0) for one in np.unique(self.speakers)], axis=0)

    def spread(self, values: npt.NDArray[np.float64]) -> Any:
        """Standard deviation of that mean over resampled speakers (bootstrap), (conditions,)."""
        names, index = np.unique(self.speakers, return_inverse=True)
        rng = np.random.default_rng(0)
        draws = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), N_BOOTSTRAP)
        # the same as mean, for all draws at once
        means = []
        for keyword in sorted(set(self.keywords.tolist())):
            own = self.keywords == keyword
            totals = np.zeros((len(names), values.shape[1]))
            np.add.at(totals, index[own], values[own])
            counts = np.bincount(index[own], minlength=len(names))
            means.append((draws @ totals) / np.maximum(draws @ counts, 1)[:, None])
        return np.mean(means, axis=0).std(axis=0)


def area_weights(hours: float) -> npt.NDArray[np.float64]:
    """The share of the DET area's axis that each number of false accepts stands for; they sum to 1 at most."""
    low, high = AREA_FA_PER_H
    edges = np.array([low, *((n + 1) / hours for n in range(N_FALSE_ACCEPTS))])
    edges = np.clip(edges, low, high)
    weights: npt.NDArray[np.float64] = np.log(edges[1:] / edges[:-1]) / math.log(high / low)
    return weights


def common_thresholds(results: Sequence[Result]) -> dict[str, float]:
    """Each keyword's lowest threshold at which all networks together have at most COMMON_FA_PER_H."""
    allowed = math.floor(COMMON_FA_PER_H * sum(result["hours"] for result in results))
    common = {}
    for keyword in results[0]["keywords"]:
        lists = [result["keywords"][keyword]["thresholds"] for result in results]
        candidates = sorted({threshold for thresholds in lists for threshold in thresholds})
        # the false accepts of a network at a threshold: how many of its list lie above it
        counts = [sum(sum(one > threshold for one in thresholds) for thresholds in lists) for threshold in candidates]
        common[keyword] = next(t for t, count in zip(candidates, counts, strict=True) if count <= allowed)
    return common


def report(results: Sequence[Result], order: Sequence[str], n_folds: int, as_json: bool) -> str:
    """The tables, or all pooled figures as JSON."""
    groups: dict[tuple[str, str], list[Result]] = defaultdict(list)
    for result in results:
        groups[result["variant"], result["bits"]].append(result)
    pools = {
        (name, bits): Pool.of(groups[name, bits])
        for name in order
        for bits in WIDTHS
        if len(groups[name, bits]) == n_folds
    }
    if not pools:
        return NOTHING
    if as_json:
        return json.dumps([figures(name, bits, pool) for (name, bits), pool in pools.items()])
    unlabelled = {name: Pool.of(groups[name, bits], labelled=False) for name, bits in pools if bits == "w4a8"}
    parts = [
        compared(pools),
        by_keyword(pools),
        by_speaker(pools),
        remarks(next(iter(pools.values())), unlabelled, n_folds),
    ]
    return "\n\n".join(parts)


def figures(name: str, bits: str, pool: Pool) -> dict[str, Any]:
    """One variant's pooled figures."""
    miss, common, area = pool.mean(pool.missed), pool.mean(pool.common), pool.mean(pool.area)
    spread, area_spread = pool.spread(pool.missed), pool.spread(pool.area)
    keywords = sorted(set(pool.keywords.tolist()))
    return {
        "variant": name,
        "bits": bits,
        "takes": len(pool.names),
        "hours": pool.hours,
        "miss_of_a_speaker": pool.by_speaker(pool.missed)[0],
        "conditions": {
            condition: {
                "miss": miss[c],
                "miss_spread": spread[c],
                "common": common[c],
                "area": area[c],
                "area_spread": area_spread[c],
                "false_accepts": pool.false_accepts[condition],
                "keywords": {one: pool.missed[pool.keywords == one, c].mean() for one in keywords},
            }
            for c, condition in enumerate(CONDITIONS)
        },
        "speakers": {
            speaker: [int(pool.missed[pool.speakers == speaker, 0].sum()), int((pool.speakers == speaker).sum())]
            for speaker in sorted(set(pool.speakers.tolist()))
        },
    }


def compared(pools: dict[tuple[str, str], Pool]) -> str:
    """A row per variant and width: misses at no false accept and DET area, and their change against the first."""
    header = ["variant", "widths"]
    header += [f"miss {condition}" for condition in CONDITIONS]
    header += [f"common {condition}" for condition in CONDITIONS[:2]]
    header += [f"area {condition}" for condition in CONDITIONS]
    header += ["miss of a speaker, clean", "area against the first, clean", "10 dB"]
    rows, first = [], {}
    for (name, bits), pool in pools.items():
        base = first.setdefault(bits, pool)
        row = [name, bits]
        for values in (pool.missed, pool.common[:, :2], pool.area):
            row += [
                f"{100 * mean:.1f} ± {100 * spread:.1f}"
                for mean, spread in zip(pool.mean(values), pool.spread(values), strict=True)
            ]
        row.append(f"{100 * pool.by_speaker(pool.missed)[0]:.1f}")
        if base is pool or base.names != pool.names:
            row += ["", ""]
        else:
            change = pool.area - base.area
            row += [
                f"{100 * mean:+.1f} ± {100 * spread:.1f}"
                for mean, spread in zip(pool.mean(change)[:2], pool.spread(change)[:2], strict=True)
            ]
        rows.append(row)
    return markdown(header, rows, 2)


def by_keyword(pools: dict[tuple[str, str], Pool]) -> str:
    """Misses at no false accept of each keyword, clean / 10 dB, in w4a8."""
    keywords = sorted({str(one) for pool in pools.values() for one in pool.keywords})
    rows = []
    for (name, bits), pool in pools.items():
        if bits == "w4a8":
            misses = [pool.missed[pool.keywords == one].mean(0) for one in keywords]
            rows.append([name, *(f"{100 * miss[0]:.1f} / {100 * miss[1]:.1f}" for miss in misses)])
    return markdown(["miss clean / 10 dB, w4a8", *keywords], rows)


def by_speaker(pools: dict[tuple[str, str], Pool], n_speakers: int = 12) -> str:
    """The speakers that the first variant (w4a8, clean) misses most often in sum, and how the others do on them."""
    chosen = {name: pool for (name, bits), pool in pools.items() if bits == "w4a8"}
    first = next(iter(chosen.values()))
    speakers = sorted(
        set(first.speakers.tolist()), key=lambda one: (-first.missed[first.speakers == one, 0].sum(), one)
    )
    rows = [
        [
            f"{speaker} ({int((first.speakers == speaker).sum())})",
            *(str(int(pool.missed[pool.speakers == speaker, 0].sum())) for pool in chosen.values()),
        ]
        for speaker in speakers[:n_speakers]
    ]
    return markdown(["speaker (takes): misses, w4a8, clean", *chosen], rows)


def remarks(pool: Pool, unlabelled: dict[str, Pool], n_folds: int) -> str:
    """What the figures mean."""
    lines = [
        f"{len(pool.names)} recordings of {len(set(pool.speakers.tolist()))} labelled speakers in {n_folds} folds; "
        "mean over the keywords; ± is the standard deviation over speakers drawn anew (bootstrap).",
        f"Miss: at the lowest threshold without a false accept in {pool.hours:.2f} h of clean negatives, set for each "
        f"network and kept in noise. One false accept would be {1 / pool.hours:.2f} per hour: 0.1 is not resolved.",
        f"Common: miss at one threshold for the networks of all folds, at which they have {COMMON_FA_PER_H:g} false "
        f"accepts per hour on average ({math.floor(COMMON_FA_PER_H * pool.hours * n_folds)} in "
        f"{pool.hours * n_folds:.1f} h, the same negatives heard by {n_folds} networks).",
        "Miss of a speaker: mean over the speakers, however many recordings each has.",
        "Area: mean miss over 0.1 to 10 false accepts per hour on a log axis, thresholds set on clean negatives.",
    ]
    misses = [f"{name} {int(one.missed[:, 0].sum())}" for name, one in unlabelled.items() if one.names]
    if misses:
        n_takes = len(next(iter(unlabelled.values())).names)
        lines.append(
            f"Not among them: {n_takes} clips without a speaker label, dealt into the folds in tens; of these were "
            f"missed (w4a8, clean): {', '.join(misses)}."
        )
    return "\n".join(f"- {line}" for line in lines)
