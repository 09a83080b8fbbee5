"""The trace picture: what a detector made of a recording."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, MultipleLocator, NullLocator

from streamkws.evaluation.plots.style import (
    BLACK,
    BLUE,
    GREY,
    ORANGE,
    SCORE_LIMITS,
    VERMILLION,
    WIDTH_IN,
    picture_style,
    shortened,
)
from streamkws.evaluation.traces import Trace

MOST_LANES = 12
"""Keywords that are drawn; of more, those whose posteriors come nearest to their thresholds."""

N_LOUDNESS_LEVELS = 24  # looks as 256 do, in a third of the bytes
LOUDNESS_PERCENTILES = (3, 99.8)  # of the spectrogram's values, between which its colours lie
HIGHEST_MARK = 0.9995  # a mark any higher would leave its panel


def draw_trace(trace: Trace) -> Figure:
    """Draw waveform, log-mel spectrogram, and each keyword's posterior, threshold and detections, on one time axis.

    Keywords that are not listened for are left out; of more than MOST_LANES, those that came nearest.
    """
    with picture_style():
        lanes = _lanes(trace)
        heights = [0.62, 1.15, *[0.42] * len(lanes)]
        above, below, gap = 0.5, 0.42, 0.07
        height = above + sum(heights) + gap * (len(heights) - 1) + below
        figure = Figure(figsize=(WIDTH_IN, height))
        grid = figure.add_gridspec(
            len(heights),
            1,
            height_ratios=heights,
            left=0.95 / WIDTH_IN,
            right=1 - 0.55 / WIDTH_IN,
            top=1 - above / height,
            bottom=below / height,
            hspace=gap * len(heights) / sum(heights),
        )
        panels = [figure.add_subplot(grid[0])]
        panels += [figure.add_subplot(grid[row], sharex=panels[0]) for row in range(1, len(heights))]
        for panel in panels[:-1]:
            panel.tick_params(axis="x", labelbottom=False, length=2)
        _draw_wave(panels[0], trace)
        _draw_mel(panels[1], trace)
        for panel, keyword in zip(panels[2:], lanes, strict=True):
            _draw_lane(panel, trace, keyword)
        panels[0].set_xlim(trace.start_s, trace.end_s)
        _label_time(panels[-1], trace.end_s - trace.start_s)

        left = 0.1 / WIDTH_IN
        title = f"{shortened(os.path.basename(trace.name), 40)}, heard by {shortened(trace.model, 24)}"
        figure.text(left, 1 - 0.06 / height, title, va="top", fontsize=9, weight="bold", parse_math=False)
        figure.text(left, 1 - 0.27 / height, _trace_note(trace, lanes), va="top", color=GREY, parse_math=False)
        figure.legend(
            handles=[
                Line2D([], [], color=BLUE, label="smoothed posterior"),
                Line2D([], [], color=VERMILLION, linestyle="--", label="threshold"),
                Patch(facecolor=ORANGE, alpha=0.5, label="detection"),
                Line2D([], [], color=BLACK, marker="v", linestyle="", markersize=4, label="its peak and score"),
            ],
            loc="upper right",
            bbox_to_anchor=(1 - 0.5 / WIDTH_IN, 1 - 0.2 / height),
            ncols=4,
            frameon=False,
            borderpad=0,
            borderaxespad=0,
            columnspacing=1.2,
            handlelength=1.8,
            handletextpad=0.5,
        )
        return figure


def _lanes(trace: Trace) -> list[str]:
    """The keywords to draw, in the model's order."""
    highest = dict(zip(trace.keywords, trace.posteriors.max(axis=0).tolist(), strict=True))
    nearest = sorted(trace.thresholds, key=lambda keyword: trace.thresholds[keyword] - highest[keyword])[:MOST_LANES]
    heard = {hit.keyword for hit in trace.detections}
    return [keyword for keyword in trace.keywords if keyword in nearest or keyword in heard]


def _trace_note(trace: Trace, lanes: Sequence[str]) -> str:
    notes = []
    if not trace.detections:
        notes.append("no detection")
    n_left_out = len(trace.thresholds) - len(lanes)
    if n_left_out:
        notes.append(f"{n_left_out} keywords left out")
    if trace.trouble:
        notes.append("damaged")
    return "; ".join(notes)


def _draw_wave(panel: Axes, trace: Trace) -> None:
    panel.fill_between(trace.wave_s, trace.low, trace.high, color=BLACK, linewidth=0.4)
    highest = max(float(np.abs([trace.low, trace.high]).max()), 1e-4)
    panel.set_ylim(-1.08 * highest, 1.08 * highest)
    panel.set_yticks([-highest, 0, highest], [f"{-highest:.2g}", "0", f"{highest:.2g}"])
    panel.yaxis.tick_right()
    _name(panel, "waveform")
    for hit in trace.detections:
        panel.axvspan(hit.start, hit.end, color=ORANGE, alpha=0.4, linewidth=0)


def _draw_mel(panel: Axes, trace: Trace) -> None:
    low, high = np.percentile(trace.frames, LOUDNESS_PERCENTILES)
    panel.imshow(
        trace.frames.T,
        aspect="auto",
        origin="lower",
        extent=(*trace.mel_s, -0.5, len(trace.mel_hz) - 0.5),
        cmap=matplotlib.colormaps["cividis"].resampled(N_LOUDNESS_LEVELS),
        vmin=low,
        vmax=high if high > low else low + 1,  # digital silence
        interpolation="none",
    )
    bands = np.arange(len(trace.mel_hz))
    ticks_hz = [hz for hz in (250, 1000, 4000) if trace.mel_hz.min() <= hz <= trace.mel_hz.max()]
    names = [f"{hz} Hz" if hz < 1000 else f"{hz // 1000} kHz" for hz in ticks_hz]
    panel.set_yticks(np.interp(ticks_hz, trace.mel_hz, bands), names)
    panel.yaxis.tick_right()
    _name(panel, "log-mel", f"{len(bands)} bands")


def _draw_lane(panel: Axes, trace: Trace, keyword: str) -> None:
    """Draw one keyword's posteriors on a logit axis, which spreads what lies near 1, where thresholds are."""
    posteriors = trace.posteriors[:, trace.keywords.index(keyword)]
    threshold = trace.thresholds[keyword]
    panel.set_yscale("logit")
    panel.set_ylim(*SCORE_LIMITS)
    hits = [hit for hit in trace.detections if hit.keyword == keyword]
    for hit in hits:
        panel.axvspan(hit.start, hit.end, color=ORANGE, alpha=0.5, linewidth=0)
    shown = np.clip(posteriors, *SCORE_LIMITS)
    raised = shown > SCORE_LIMITS[0]
    raised[:-1] |= raised[1:]  # with the way up to it
    panel.fill_between(trace.steps_s, SCORE_LIMITS[0], shown, where=raised, color=BLUE, alpha=0.25, linewidth=0)
    panel.plot(trace.steps_s, shown, color=BLUE, linewidth=0.9)
    panel.axhline(threshold, color=VERMILLION, linestyle="--", linewidth=0.9)
    marks = np.clip([hit.score for hit in hits], SCORE_LIMITS[0], HIGHEST_MARK)
    panel.plot([hit.peak for hit in hits], marks, color=BLACK, marker="v", markersize=3.5, linestyle="")
    room_s = 0.07 * (trace.end_s - trace.start_s)  # what a label takes
    peaks_s = [-math.inf, *(hit.peak for hit in hits), math.inf]
    for hit, before_s, after_s in zip(hits, peaks_s, peaks_s[2:], strict=False):
        if min(hit.peak - before_s, after_s - hit.peak) < 2 * room_s:
            continue
        at_left = hit.start - trace.start_s > room_s
        panel.annotate(
            f"{hit.score:.3f}" if hit.score < 0.9995 else ">0.999",
            (hit.start if at_left else max(hit.end, hit.peak), 0.5),
            xycoords=("data", "axes fraction"),
            xytext=(-3 if at_left else 4, 0),
            textcoords="offset points",
            ha="right" if at_left else "left",
            va="center",
            fontsize=7,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.6},
        )
    panel.yaxis.set_major_locator(FixedLocator([0.1, 0.9, 0.999]))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.yaxis.set_minor_locator(NullLocator())
    panel.tick_params(axis="y", labelsize=5.5)
    panel.yaxis.tick_right()
    panel.grid(axis="y")
    _name(panel, shortened(keyword, 16), f"threshold {threshold:.3f}")


def _name(panel: Axes, name: str, more: str = "") -> None:
    """Write a panel's name, and something below it, left of it."""
    at: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "ha": "right"}
    panel.annotate(name, (0, 0.5), xytext=(-5, 1 if more else -3), **at, parse_math=False)
    if more:
        panel.annotate(more, (0, 0.5), xytext=(-5, -8), **at, fontsize=6.5, color=GREY)


def _label_time(panel: Axes, span_s: float) -> None:
    """Label the time axis in seconds; from two minutes on, in minutes and seconds."""
    if span_s <= 120:
        panel.xaxis.set_major_locator(MaxNLocator(10, steps=[1, 2, 5, 10]))
        panel.set_xlabel("time (s)")
        return
    ways_s = (15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)
    way_s = next((way for way in ways_s if span_s / way <= 12), ways_s[-1])

    def clock(seconds: float, _: object) -> str:
        minutes, rest = divmod(round(seconds), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02}:{rest:02}" if span_s > 3600 or hours else f"{minutes}:{rest:02}"

    panel.xaxis.set_major_locator(MultipleLocator(way_s))
    panel.xaxis.set_major_formatter(FuncFormatter(clock))
    panel.set_xlabel("time (h:min:s)" if span_s > 3600 else "time (min:s)")
