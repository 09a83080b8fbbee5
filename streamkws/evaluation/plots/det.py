"""The DET picture: curves of several models, and the scores below them."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from streamkws.evaluation.counting import ZERO_COUNT_BOUND
from streamkws.evaluation.curves import DetCurve, mean
from streamkws.evaluation.operating_points import CLEAN
from streamkws.evaluation.plots.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PALE,
    SCORE_LIMITS,
    VERMILLION,
    WIDTH_IN,
    picture_style,
    shortened,
)
from streamkws.evaluation.results import Evaluation

SCORE_TICKS = (0.1, 0.5, 0.9, 0.99, 0.999)
N_SCORE_BINS = 28

DET_COLUMNS = 3
HIGHEST_FA_PER_H = 100.0  # of the axis, where the hours do not ask for more
DET_STYLES = ((BLACK, 2.6, "o"), (ORANGE, 1.7, "s"), (BLUE, 0.9, "^"), (VERMILLION, 0.9, "D"), (GREEN, 0.9, "v"))
"""Colour, line width and marker of each model; the widths show curves that lie upon each other."""
CONDITION_STYLES = ("-", (0, (3, 1.2)), (0, (1, 1)), (0, (5, 1, 1, 1)))


def draw_det(evaluations: Sequence[Evaluation]) -> Figure:
    """Draw DET curves of several models on one corpus: their keywords' mean, and each keyword with its scores below.

    A curve says which miss rate the keyword has where at most so many false accepts are allowed; a mark, what the
    model's own thresholds do. Scores are those without noise.
    """
    with picture_style():
        keywords = list(dict.fromkeys(keyword for evaluation in evaluations for keyword in evaluation.keywords))
        many = len(keywords) > 1
        n_bands = math.ceil(len(keywords) / DET_COLUMNS)
        band = [1.55, 0.7, 0.85] if many else [0.7, 0.85]
        heights = [2.3, *band * n_bands]
        gaps = [0.55, *([0.42, 0.0, 0.62] if many else [0.0, 0.62]) * n_bands]
        top, left, right, between = 0.28, 0.55, 0.12, 0.2
        height = top + sum(heights) + sum(gaps) - 0.28
        width = (WIDTH_IN - left - right - between * (DET_COLUMNS - 1)) / DET_COLUMNS
        figure = Figure(figsize=(WIDTH_IN, height))

        def panel(row: int, column: int, n_columns: int = 1) -> Axes:
            above = top + sum(heights[:row]) + sum(gaps[:row])
            place = (
                (left + column * (width + between)) / WIDTH_IN,
                1 - (above + heights[row]) / height,
                (width * n_columns + between * (n_columns - 1)) / WIDTH_IN,
                heights[row] / height,
            )
            added: Axes = figure.add_axes(place, facecolor="none")
            if column > 0:  # its neighbours have the same axis
                added.tick_params(axis="y", labelleft=False)
                added.yaxis.label.set_visible(False)
            return added

        title = "mean of the keywords" if many else keywords[0]
        _draw_curves(panel(0, 0, DET_COLUMNS - 1), title, evaluations, keywords)
        _det_legend(panel(0, DET_COLUMNS - 1), evaluations)
        n_columns = 1 if many else DET_COLUMNS - 1
        for n, keyword in enumerate(keywords):
            row, column = 1 + n // DET_COLUMNS * len(band), n % DET_COLUMNS
            if many:
                _draw_curves(panel(row, column), keyword, evaluations, [keyword])
                row += 1
            _draw_scores(panel(row, column, n_columns), panel(row + 1, column, n_columns), evaluations, keyword)
        return figure


def _draw_curves(panel: Axes, title: str, evaluations: Sequence[Evaluation], keywords: Sequence[str]) -> None:
    """Draw the mean DET curve and operating point of some keywords, per model and noise condition.

    Both axes are logarithmic; none at all has a shaded place at the edge.
    """
    one_x = 1 / evaluations[0].hours / len(keywords)  # the lowest that is not 0
    n_recordings = max(n for evaluation in evaluations for n in evaluation.n_recordings.values())
    one_y = 100 / max(1, n_recordings) / len(keywords)
    zero_x, zero_y = one_x / 2.5, one_y / 2.2
    high_x = max(HIGHEST_FA_PER_H, 100 * one_x)
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xlim(zero_x / 1.6, high_x)
    panel.set_ylim(zero_y / 1.45, 110)
    panel.axvspan(zero_x / 1.6, math.sqrt(zero_x * one_x), color=PALE, linewidth=0, zorder=0)
    panel.axhspan(zero_y / 1.45, math.sqrt(zero_y * one_y), color=PALE, linewidth=0, zorder=0)
    decades = [10.0**power for power in range(-4, 6) if one_x <= 10.0**power <= high_x]
    panel.set_xticks([zero_x, *decades], ["0", *(f"{rate:g}" for rate in decades)])
    shares = [share for share in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if share >= one_y]
    panel.set_yticks([zero_y, *shares], ["0", *(f"{share:g}" for share in shares)])
    panel.minorticks_off()
    panel.grid()
    panel.set_title(shortened(title, 36), parse_math=False, pad=3)
    panel.set_xlabel("false accepts per hour", labelpad=1)
    panel.set_ylabel("miss (%)")

    conditions = _conditions(evaluations)
    for m, evaluation in enumerate(evaluations):
        colour, width, marker = _model_style(m)
        known = [keyword for keyword in keywords if keyword in evaluation.keywords]
        for condition in evaluation.conditions if known else ():
            points = _mean_curve([evaluation.curves[condition][keyword] for keyword in known], high_x)
            panel.plot(
                [rate or zero_x for rate, _ in points],
                [100 * miss or zero_y for _, miss in points],
                drawstyle="steps-post",
                color=colour,
                linewidth=width,
                linestyle=_condition_style(conditions.index(condition)),
            )
            own = [evaluation.at_own_thresholds[keyword].figures[condition] for keyword in known]
            miss = mean(figures.miss for figures in own)
            if miss is None:
                continue  # there are no recordings
            clean = condition == CLEAN
            panel.plot(
                [sum(figures.fa_per_h for figures in own) / len(own) or zero_x],
                [100 * miss or zero_y],
                marker=marker,
                markersize=4 + width,
                color=colour,
                markerfacecolor=colour if clean else "white",
                markeredgecolor="white" if clean else colour,
                markeredgewidth=0.5 if clean else 1.0,
                clip_on=False,
                zorder=5,
            )


def _mean_curve(curves: Sequence[DetCurve], high_fa_per_h: float) -> list[tuple[float, float]]:
    """Corners (FA/h, mean miss rate) of some keywords' mean DET curve, from 0 FA/h on; none without recordings."""
    points: list[tuple[float, float]] = []
    for rate in sorted({0.0, high_fa_per_h, *(rate for curve in curves for rate in curve.fa_per_h)}):
        miss = mean(curve.miss_at(rate) for curve in curves)
        if miss is not None and rate <= high_fa_per_h:
            if not points or miss != points[-1][1] or rate == high_fa_per_h:
                points.append((rate, miss))
    return points


def _conditions(evaluations: Sequence[Evaluation]) -> list[str]:
    return list(dict.fromkeys(condition for evaluation in evaluations for condition in evaluation.conditions))


def _model_style(m: int) -> tuple[str, float, str]:
    return DET_STYLES[m % len(DET_STYLES)]


def _condition_style(n: int) -> Any:
    return CONDITION_STYLES[n % len(CONDITION_STYLES)]


def _det_legend(panel: Axes, evaluations: Sequence[Evaluation]) -> None:
    """Fill a panel with the legend of lines and marks, and the size of the corpus."""
    panel.set_axis_off()
    lines = []
    for m, evaluation in enumerate(evaluations):
        colour, width, marker = _model_style(m)
        lines.append(
            Line2D([], [], color=colour, linewidth=width, marker=marker, markersize=4 + width, label=evaluation.model)
        )
    for n, condition in enumerate(_conditions(evaluations)):
        name = "without noise" if condition == CLEAN else f"with noise at {condition}"
        style = {"linestyle": _condition_style(n), "markerfacecolor": GREY if condition == CLEAN else "white"}
        lines.append(Line2D([], [], color=GREY, marker="o", markersize=5, label=name, **style))
    panel.legend(
        handles=lines, loc="upper left", bbox_to_anchor=(-0.06, 1.03), frameon=False, handlelength=3, borderaxespad=0
    )
    first = evaluations[0]
    text = [
        f"{Path(first.corpus).name}: {sum(first.n_recordings.values())} keyword recordings, "
        f"{first.hours:.2f} h of other audio. One false accept in it is {1 / first.hours:.2g} per hour; none shows "
        f"only < {ZERO_COUNT_BOUND / first.hours:.2g} (95 %).",
        "Marks: the models' own thresholds. Shaded: none at all. Scores, without noise: keyword recordings above, "
        "seconds of other audio below, thresholds dashed.",
    ]
    panel.text(
        -0.02,
        0,
        "\n".join(line for part in text for line in textwrap.wrap(part, 43)),
        va="bottom",
        fontsize=6.5,
        color=GREY,
        parse_math=False,
    )


def _draw_scores(above: Axes, below: Axes, evaluations: Sequence[Evaluation], keyword: str) -> None:
    """Draw histograms of a keyword's scores: recordings upward, and seconds of negative audio downward."""
    low, high = (math.log(p / (1 - p)) for p in SCORE_LIMITS)
    edges = 1 / (1 + np.exp(-np.linspace(low, high, N_SCORE_BINS + 1)))
    edges[[0, -1]] = SCORE_LIMITS  # to the last bit, so that what lies beyond them is counted
    for m, evaluation in enumerate(evaluations):
        if keyword not in evaluation.keywords:
            continue
        colour, width, _ = _model_style(m)
        scores = evaluation.scores[CLEAN][keyword]
        for panel, values in ((above, scores.recordings), (below, scores.negatives)):
            counts, _ = np.histogram(np.clip(values, *SCORE_LIMITS), edges)
            if m == 0:
                panel.stairs(counts, edges, baseline=0.1, fill=True, color=PALE)
            panel.stairs(counts, edges, baseline=0.1, color=colour, linewidth=0.8 * width)
            own = evaluation.at_own_thresholds[keyword].threshold
            panel.axvline(own, color=colour, linewidth=0.8 * width, linestyle=":")
    for panel in (above, below):
        panel.set_xscale("logit")
        panel.set_xlim(*SCORE_LIMITS)
        panel.set_xticks(SCORE_TICKS, [f"{tick:g}" for tick in SCORE_TICKS])
        panel.set_yscale("log")
    n_recordings = max(evaluations[0].n_recordings.values())
    n_seconds = math.ceil(evaluations[0].hours * 3600)
    above.set_ylim(0.5, 2 * max(10, n_recordings))
    below.set_ylim(2 * max(10, n_seconds), 0.5)
    for panel, n in ((above, n_recordings), (below, n_seconds)):
        decades = [10**power for power in range(8) if 10**power <= max(10, n)]
        shown = decades[:: 1 + len(decades) // 4]
        panel.set_yticks(shown, [f"{count:g}" for count in shown])
        panel.minorticks_off()
    above.tick_params(axis="x", labelbottom=False, length=0)
    above.set_ylabel("recordings")
    below.set_ylabel("seconds")
    below.set_xlabel("score", labelpad=1)
