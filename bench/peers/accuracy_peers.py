"""Other wake-word engines on the corpus of accuracy.py: misses, false accepts, tables and the DET picture.

Every engine hears the very samples that streamkws hears, as int16: each recording of its keywords by itself, between
1 s of faint noise, clean and with noise at 10 dB, and each negative file by itself, without added noise. A detection
counts where the audio heard when it came lies between 0.2 s before the recording and 0.5 s after it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.peers.peers import I16, PEERS, Engine, Hit
from bench.report import markdown
from streamkws.audio import SAMPLE_RATE, read_audio
from streamkws.corpus import Corpus, Recording
from streamkws.evaluation.counting import AFTER_S, BEFORE_S, ZERO_COUNT_BOUND
from streamkws.evaluation.latency import as_int16
from streamkws.evaluation.operating_points import CLEAN
from streamkws.evaluation.results import Evaluation
from streamkws.mixing import PADDING_SAMPLES, NoiseBank

QUIET_S = 1.0
"""As in peer_workers/listen.py: an engine that only scores says a keyword again after this long below its threshold."""
NOISE = "10 dB"
CONDITIONS: Mapping[str, float | None] = {CLEAN: None, NOISE: 10.0}
SCORE_THRESHOLDS = tuple(round(float(1 / (1 + np.exp(-x))), 6) for x in np.linspace(-6, 9, 121))
OFFSETS = tuple(n / 10 for n in range(-90, 91))
"""What is added to streamkws' own thresholds on the logit axis."""
COLOURS = ("#000000", "#0072b2", "#d55e00", "#009e73", "#cc79a7")
MARKERS = ("o", "s", "^", "D", "v")
LINES = {CLEAN: "-", NOISE: (0, (3, 1.2))}

Say = Callable[[str], None]


@dataclass(frozen=True)
class Sweep:
    """How an engine's sensitivity is varied.

    option: the engine's own name for it. values: strictest last. marks: those that the table tells.
    scored: the engine gives a score per block, so that one run gives all thresholds.
    """

    option: str
    values: tuple[float, ...]
    marks: tuple[float, ...]
    scored: bool = False


SWEEPS = {
    "porcupine": Sweep("sensitivity", tuple(round(1 - 0.1 * n, 1) for n in range(10)), (0.9, 0.5)),
    "microwakeword": Sweep("threshold", tuple(sorted({*SCORE_THRESHOLDS, 0.9})), (0.9,), scored=True),
    "openwakeword": Sweep("threshold", tuple(sorted({*SCORE_THRESHOLDS, 0.5})), (0.5,), scored=True),
    "pocketsphinx": Sweep("threshold", (1e-20, 1e-10), (1e-20, 1e-10)),
}


@dataclass(frozen=True)
class Material:
    """What every engine hears.

    audio: [condition][recording], int16 samples with 1 s of padding on both sides. negatives: int16 samples.
    """

    recordings: tuple[Recording, ...]
    audio: dict[str, list[I16]]
    negatives: list[I16]

    @classmethod
    def read(cls, corpus: Corpus, seed: int = 0) -> Material:
        """Decode a corpus and mix the noise in as streamkws' own evaluation does."""
        bank = NoiseBank.read(corpus.negatives, seed)
        audio: dict[str, list[I16]] = {condition: [] for condition in CONDITIONS}
        for recording in corpus.recordings:
            samples = read_audio(recording.path)
            for condition, snr_db in CONDITIONS.items():
                audio[condition].append(as_int16(bank.over_recording(recording, samples, snr_db)))
        return cls(corpus.recordings, audio, [as_int16(read_audio(file.path)) for file in corpus.negatives])

    @property
    def hours(self) -> float:
        """Hours of negative audio."""
        return sum(samples.size for samples in self.negatives) / SAMPLE_RATE / 3600


@dataclass(frozen=True)
class Point:
    """What an engine did at one setting. false_accepts: by keyword. misses: [condition][keyword]."""

    setting: float
    false_accepts: dict[str, int]
    misses: dict[str, dict[str, int]]


@dataclass(frozen=True)
class Result:
    """What was measured of one engine.

    n_recordings: of each keyword it has. points: strictest last. marks: (label, point) of each operating point.
    """

    engine: str
    option: str
    n_recordings: dict[str, int]
    hours: float
    points: tuple[Point, ...]
    marks: tuple[tuple[str, Point], ...]

    def place(self, point: Point, keywords: Iterable[str], condition: str) -> tuple[float, float]:
        """Mean of some keywords' false accepts per hour, and of their miss rates, at a point."""
        rates = [point.false_accepts[keyword] / self.hours for keyword in keywords]
        misses = [point.misses[condition][keyword] / self.n_recordings[keyword] for keyword in keywords]
        return sum(rates) / len(rates), sum(misses) / len(misses)


def from_json(entries: Any) -> Result:
    """The Result whose dataclasses.asdict went through JSON."""
    points = tuple(Point(**point) for point in entries["points"])
    marks = tuple((label, Point(**point)) for label, point in entries["marks"])
    return Result(**{**entries, "points": points, "marks": marks})


def measure(name: str, material: Material, core: int | None, say: Say = lambda _: None) -> Result:
    """Let a peer hear everything at all its settings. Raises PeerError."""
    peer, sweep = PEERS[name], SWEEPS[name]
    points = []
    if sweep.scored:
        with peer.start(core) as engine:
            say(f"{peer.name} listens")
            n_recordings = count_recordings(material, engine.keywords)
            points = list(score_points(engine, material, sweep.values))
    else:
        for value in sweep.values:
            say(f"{peer.name} listens, {sweep.option} {value:g}")
            with peer.start(core, **{sweep.option: value}) as engine:
                n_recordings = count_recordings(material, engine.keywords)
                points.append(detection_point(engine, material, value))
    marks = tuple((f"{sweep.option} {p.setting:g}", p) for p in points if p.setting in sweep.marks)
    return Result(peer.name, sweep.option, n_recordings, material.hours, tuple(points), marks)


def count_recordings(material: Material, keywords: Iterable[str]) -> dict[str, int]:
    """Recordings of each keyword that has any."""
    counts = {keyword: sum(one.keyword == keyword for one in material.recordings) for keyword in keywords}
    return {keyword: count for keyword, count in counts.items() if count}


def detection_point(engine: Engine, material: Material, setting: float) -> Point:
    """Count what an engine detects."""
    of_engine = known(material, engine.keywords)
    heard = {
        condition: list(engine.detect([audio[r] for r in of_engine])) for condition, audio in material.audio.items()
    }
    return tally(material, engine.keywords, setting, heard, list(engine.detect(material.negatives)))


def score_points(engine: Engine, material: Material, thresholds: Iterable[float]) -> Iterator[Point]:
    """Count what an engine that only scores would detect at each threshold."""
    of_engine = known(material, engine.keywords)
    heard = {
        condition: list(engine.scores([audio[r] for r in of_engine])) for condition, audio in material.audio.items()
    }
    negatives = list(engine.scores(material.negatives))

    def hits(scores: Sequence[npt.NDArray[np.float32]], threshold: float) -> list[list[Hit]]:
        return [detections(one, engine.keywords, threshold, engine.block_samples) for one in scores]

    for threshold in thresholds:
        at_threshold = {condition: hits(scores, threshold) for condition, scores in heard.items()}
        yield tally(material, engine.keywords, threshold, at_threshold, hits(negatives, threshold))


def detections(
    scores: npt.NDArray[np.float32], keywords: Sequence[str], threshold: float, block_samples: int
) -> list[Hit]:
    """The blocks in which a keyword is said again: its score reaches the threshold after 1 s below it.

    scores: (n, K) of each block and keyword.
    """
    quiet_blocks = QUIET_S * SAMPLE_RATE / block_samples
    found = []
    for keyword, column in zip(keywords, scores.T, strict=True):
        above = np.flatnonzero(column >= threshold)
        new = above[np.diff(above, prepend=-np.inf) > quiet_blocks]
        found += [Hit(keyword, (int(n) + 1) * block_samples / SAMPLE_RATE, float(column[n])) for n in new]
    return sorted(found, key=lambda hit: hit.heard_s)


def known(material: Material, keywords: Iterable[str]) -> list[int]:
    """The recordings of these keywords, by number."""
    return [r for r, recording in enumerate(material.recordings) if recording.keyword in set(keywords)]


def tally(
    material: Material,
    keywords: Sequence[str],
    setting: float,
    heard: Mapping[str, Sequence[Sequence[Hit]]],
    negatives: Sequence[Sequence[Hit]],
) -> Point:
    """Count misses and false accepts.

    heard: [condition][recording of these keywords], in the order of known(). negatives: of each negative file.
    """
    misses = {condition: dict.fromkeys(keywords, 0) for condition in heard}
    padding_s = PADDING_SAMPLES / SAMPLE_RATE
    for condition, of_recordings in heard.items():
        for r, hits in zip(known(material, keywords), of_recordings, strict=True):
            keyword = material.recordings[r].keyword
            end_s = material.audio[condition][r].size / SAMPLE_RATE - padding_s
            inside = (hit.keyword == keyword and padding_s - BEFORE_S <= hit.heard_s <= end_s + AFTER_S for hit in hits)
            misses[condition][keyword] += not any(inside)
    accepts = {keyword: sum(hit.keyword == keyword for hits in negatives for hit in hits) for keyword in keywords}
    return Point(setting, accepts, misses)


def own_result(evaluation: Evaluation) -> Result:
    """The results of streamkws' own evaluation in the form of the peers' results.

    The points are the model's own thresholds moved together on the logit axis, a setting being how far.
    """
    keywords = {keyword: count for keyword, count in evaluation.n_recordings.items() if count}
    clean = evaluation.curves[CLEAN]
    thresholds = next(iter(clean.values())).thresholds

    def point(setting: float, index: Mapping[str, int]) -> Point:
        accepts = {keyword: clean[keyword].false_accepts[index[keyword]] for keyword in keywords}
        misses = {
            condition: {keyword: evaluation.curves[condition][keyword].misses[index[keyword]] for keyword in keywords}
            for condition in CONDITIONS
        }
        return Point(setting, accepts, misses)

    def moved(keyword: str, offset: float) -> int:
        threshold = evaluation.at_own_thresholds[keyword].threshold
        if offset and 0 < threshold < 1:
            threshold = 1 / (1 + math.exp(-offset) * (1 - threshold) / threshold)
        return min(int(np.searchsorted(thresholds, threshold)), len(thresholds) - 1)

    points = tuple(point(offset, {keyword: moved(keyword, offset) for keyword in keywords}) for offset in OFFSETS)
    marks = [("own thresholds", points[OFFSETS.index(0.0)])]
    none = {keyword: index for keyword in keywords if (index := clean[keyword].index_at(0.0)) is not None}
    if len(none) == len(keywords):
        marks.append(("lowest without a false accept", point(math.nan, none)))
    return Result(evaluation.model, "threshold offset", keywords, evaluation.hours, points, tuple(marks))


def table(results: Sequence[Result], keywords: Sequence[str]) -> str:
    """Misses without and with noise, and false accepts, of every engine's operating points, as a Markdown table."""
    header = ["engine", "setting", *keywords, "mean", "false accepts", "FA/h per keyword"]
    rows = []
    for result in results:
        for n, (label, point) in enumerate(result.marks):
            cells = [result.engine if n == 0 else "", label]
            for keyword in keywords:
                if keyword in result.n_recordings:
                    cells.append(_pair(result.place(point, [keyword], condition)[1] for condition in CONDITIONS))
                else:
                    cells.append("-")
            places = [result.place(point, result.n_recordings, condition) for condition in CONDITIONS]
            count = sum(point.false_accepts[keyword] for keyword in result.n_recordings)
            bound = ZERO_COUNT_BOUND / (result.hours * len(result.n_recordings))
            cells += [_pair(miss for _, miss in places), str(count)]
            cells.append(f"{places[0][0]:.2f}" if count else f"0 (<{bound:.2g})")
            rows.append(cells)
    return markdown(header, rows, n_text=2)


def report(results: Sequence[Result], missing: Sequence[str]) -> str:
    """The table of all engines, and what it means. missing: a line for each engine that does not run here."""
    keywords = list(results[0].n_recordings)
    hours = results[0].hours
    conditions = " / ".join("clean" if condition == CLEAN else condition for condition in CONDITIONS)
    lines = [
        f"Miss, %, {conditions}. False accepts: detections in {hours:.2f} h of negative audio without added noise, of "
        "all the keywords that the engine has. Every engine heard the same samples, and the same rule counted: heard "
        f"from {BEFORE_S} s before the recording to {AFTER_S} s after it.",
        "Own thresholds: as the model ships. Lowest without a false accept: set on this very negative audio.",
        *([f"Left out: {'; '.join(missing)}."] if missing else []),
    ]
    return "\n".join([table(results, keywords), "", *(f"- {line}" for line in lines)])


def _pair(misses: Iterable[float]) -> str:
    return " / ".join(f"{100 * miss:.1f}" for miss in misses)


def det_curve(result: Result, keywords: Sequence[str], condition: str) -> list[tuple[float, float]]:
    """Corners (FA/h, miss rate) of some keywords' mean curve, their settings moved together, from the strictest on.

    A setting that lets more through and yet misses more, because detections merge, does not raise the curve.
    """
    corners: list[tuple[float, float]] = []
    highest = 0.0
    for point in reversed(result.points):
        rate, miss = result.place(point, keywords, condition)
        highest = max(highest, rate)
        if corners:
            miss = min(miss, corners[-1][1])
        if corners and corners[-1][0] == highest:
            corners.pop()
        corners.append((highest, miss))
    return corners


def draw(results: Sequence[Result], path: Path) -> None:
    """DET curves of all engines: the mean of all keywords for those that have them all, and each that not all have.

    Both axes are logarithmic; none at all has a place of its own at their edge.
    """
    import matplotlib

    matplotlib.rcParams["svg.hashsalt"] = "streamkws"
    matplotlib.rcParams["svg.fonttype"] = "none"
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    everything = list(results[0].n_recordings)
    shared = [keyword for keyword in everything if all(keyword in result.n_recordings for result in results)]
    groups = [(f"mean of {len(everything)} keywords", everything)] if len(everything) > 1 else []
    groups += [(keyword, [keyword]) for keyword in shared if len(shared) < len(everything) or not groups]
    figure = Figure(figsize=(4.2 * len(groups), 4.2), layout="constrained")
    panels = figure.subplots(1, len(groups), squeeze=False, sharey=True)[0]
    for panel, (title, keywords) in zip(panels, groups, strict=True):
        _draw_panel(panel, title, results, keywords)
    panels[0].set_ylabel("miss (%)")
    handles: list[Any] = [
        Line2D([], [], color=colour, marker=marker, markersize=5, label=result.engine)
        for result, colour, marker in zip(results, COLOURS, MARKERS, strict=False)
    ]
    for condition, name in ((CLEAN, "without noise"), (NOISE, "with noise at 10 dB")):
        face, size = ("#666666", 5) if condition == CLEAN else ("none", 9)
        style = {"marker": "o", "markerfacecolor": face, "markersize": size, "linestyle": LINES[condition]}
        handles.append(Line2D([], [], color="#666666", label=name, **style))
    figure.legend(handles=handles, fontsize=8, loc="outside upper center", ncols=4, frameon=False)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=150)


def _draw_panel(panel: Any, title: str, results: Sequence[Result], keywords: Sequence[str]) -> None:
    """Draw the mean curve of some keywords and the operating points of each engine that has them all."""
    shown = [(n, result) for n, result in enumerate(results) if set(keywords) <= set(result.n_recordings)]
    one_x = 1 / results[0].hours / len(keywords)
    zero_x, high_x = one_x / 2.5, 300.0
    zero_y = 100 / max(results[0].n_recordings.values()) / len(results[0].n_recordings) / 2.2
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xlim(zero_x / 1.5, high_x)
    panel.set_ylim(zero_y / 1.4, 110)
    panel.axvspan(zero_x / 1.5, zero_x * 1.58, color="#ececec", linewidth=0, zorder=0)
    panel.axhspan(zero_y / 1.4, zero_y * 1.48, color="#ececec", linewidth=0, zorder=0)
    rates = [rate for rate in (0.1, 1, 10, 100) if rate >= one_x]
    panel.set_xticks([zero_x, *rates], ["0", *(f"{rate:g}" for rate in rates)])
    shares = [share for share in (0.5, 1, 2, 5, 10, 20, 50, 100) if share > 1.6 * zero_y]
    panel.set_yticks([zero_y, *shares], ["0", *(f"{share:g}" for share in shares)])
    panel.minorticks_off()
    panel.grid(alpha=0.3)
    panel.set_title(title, fontsize=10)
    panel.set_xlabel("false accepts per hour and keyword, without noise")
    for n, result in shown:
        for condition in CONDITIONS:
            style = {"color": COLOURS[n % len(COLOURS)], "linewidth": 1.3, "linestyle": LINES[condition]}
            corners = [(rate, miss) for rate, miss in det_curve(result, keywords, condition) if rate <= high_x]
            if corners:
                corners.append((high_x, corners[-1][1]))
                x, y = [rate or zero_x for rate, _ in corners], [100 * miss or zero_y for _, miss in corners]
                panel.plot(x, y, drawstyle="steps-post", **style)
            for point in (point for _, point in result.marks if point in result.points):
                rate, miss = result.place(point, keywords, condition)
                panel.plot(
                    [min(rate, high_x) or zero_x], [100 * miss or zero_y],
                    marker=MARKERS[n % len(MARKERS)], markersize=5 if condition == CLEAN else 9, zorder=5,
                    color=style["color"], markerfacecolor=style["color"] if condition == CLEAN else "none",
                    linestyle="none", clip_on=False,
                )  # fmt: skip
