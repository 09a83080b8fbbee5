"""Pictures: what a detector made of a recording, and DET curves with the scores below them; PNG or SVG.

Colours are Okabe and Ito's, which the colour-blind tell apart; what a colour says, a line style, a marker or a label
says, too, so that a grey print holds everything. The same figures give the same bytes.

Source: Okabe, Ito, "Color universal design", 2008.
"""

from __future__ import annotations

import io
import math
import os
import re
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from streamkws.errors import ConfigError, MissingExtraError
from streamkws.evaluation.det import CLEAN, ZERO_COUNT_BOUND, DetCurve, Evaluation, mean
from streamkws.evaluation.traces import Trace

try:
    import matplotlib.style
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, MultipleLocator, NullLocator
except ImportError:
    raise MissingExtraError('pictures need matplotlib: pip install "streamkws[plot]"') from None

SUFFIXES = (".png", ".svg")
WIDTH_IN = 7.5  # what a page holds
DPI = 144
BLACK, BLUE, VERMILLION, ORANGE, GREEN = "#000000", "#0072b2", "#d55e00", "#e69f00", "#009e73"
GREY, PALE = "#666666", "#ececec"
SETTINGS = {
    "axes.axisbelow": True,
    "axes.edgecolor": GREY,
    "axes.labelsize": 7.5,
    "axes.linewidth": 0.6,
    "axes.titlesize": 8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.sans-serif": ["DejaVu Sans", "Verdana"],
    "font.size": 7.5,
    "grid.color": "#d8d8d8",
    "grid.linewidth": 0.5,
    "image.composite_image": False,
    "legend.fontsize": 7.5,
    "lines.linewidth": 1.0,
    "savefig.dpi": DPI,
    "svg.fonttype": "none",
    "svg.hashsalt": "streamkws",
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
}

MOST_LANES = 12
"""Keywords that are drawn; of more, those whose posteriors come nearest to their thresholds."""

N_LOUDNESS_LEVELS = 24  # looks as 256 do, in a third of the bytes
LOUDNESS_PERCENTILES = (3, 99.8)  # of the spectrogram's values, between which its colours lie

SCORE_LIMITS = (0.01, 0.9999)  # of logit axes; what lies beyond is drawn there
HIGHEST_MARK = 0.9995  # a mark any higher would leave its panel
SCORE_TICKS = (0.1, 0.5, 0.9, 0.99, 0.999)
N_SCORE_BINS = 28

DET_COLUMNS = 3
HIGHEST_FA_PER_H = 100.0  # of the axis, where the hours do not ask for more
DET_STYLES = ((BLACK, 2.6, "o"), (ORANGE, 1.7, "s"), (BLUE, 0.9, "^"), (VERMILLION, 0.9, "D"), (GREEN, 0.9, "v"))
"""Colour, line width and marker of each model; the widths show curves that lie upon each other."""
CONDITION_STYLES = ("-", (0, (3, 1.2)), (0, (1, 1)), (0, (5, 1, 1, 1)))


def picture_path(name: str | os.PathLike[str]) -> Path:
    """Return the path of a picture to write.

    Raises ConfigError for a name that ends in neither .png nor .svg, or in a folder that does not exist.
    """
    path = Path(name)
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"{path}: expected the name of a picture, which ends in {' or '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise ConfigError(f"{path}: expected a folder that exists, {path.parent} does not")
    return path


def save(figure: Figure, name: str | os.PathLike[str]) -> Path:
    """Write a figure as PNG or SVG, as the name ends, and return its path.

    Raises ConfigError for another name, OSError when it cannot be written.
    """
    path = picture_path(name)
    with _style():
        if path.suffix.lower() == ".png":
            figure.savefig(path, format="png", metadata={"Software": "streamkws"})
        else:
            drawn = io.StringIO()
            figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": "streamkws"})
            # hundredths of a point, and no indentation: a third fewer bytes
            text = re.sub(r' d="[^"]+"', lambda match: re.sub(r"(\.\d\d)\d+", r"\1", match[0]), drawn.getvalue())
            path.write_text(re.sub(r"\n +", "\n", text), encoding="utf-8")
    return path


@contextmanager
def _style() -> Iterator[None]:
    """The pictures' own settings, whatever the user's are; a character that the font lacks becomes a box, silently."""
    with matplotlib.style.context(["default", SETTINGS]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        yield


def draw_trace(trace: Trace) -> Figure:
    """Draw waveform, log-mel spectrogram, and each keyword's posterior, threshold and detections, on one time axis.

    Keywords that are not listened for are left out; of more than MOST_LANES, those that came nearest.
    """
    with _style():
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
        title = f"{_short(os.path.basename(trace.name), 40)}, heard by {_short(trace.model, 24)}"
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
    _name(panel, _short(keyword, 16), f"threshold {threshold:.3f}")


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


def draw_det(evaluations: Sequence[Evaluation]) -> Figure:
    """Draw DET curves of several models on one corpus: their keywords' mean, and each keyword with its scores below.

    A curve says which miss rate the keyword has where at most so many false accepts are allowed; a mark, what the
    model's own thresholds do. Scores are those without noise.
    """
    with _style():
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
    panel.set_title(_short(title, 36), parse_math=False, pad=3)
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
            own = [evaluation.shipped[keyword].figures[condition] for keyword in known]
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
    """Fill a panel with what the lines and marks mean, and what they were counted on."""
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
            panel.axvline(evaluation.shipped[keyword].threshold, color=colour, linewidth=0.8 * width, linestyle=":")
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


def _short(text: str, n_characters: int) -> str:
    """A text of any origin as it can be drawn: without line ends and surrogates, its middle left out if it is long."""
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    if len(text) <= n_characters:
        return text
    return f"{text[: n_characters // 2]}…{text[-(n_characters // 2 - 1) :]}"
