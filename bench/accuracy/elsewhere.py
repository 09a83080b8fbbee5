"""What carries over: rates with their intervals, sets that set no threshold, and words at the edges of a recording.

    python bench/accuracy/elsewhere.py --corpus DIR            print the tables (DIR as `streamkws evaluate` takes it)
    python bench/accuracy/elsewhere.py --corpus DIR --write    also write them into bench/README.md
    python bench/accuracy/elsewhere.py --corpus DIR --model PATH    of another model than the held-out w4a8

- Misses: a mean over keywords, clean, with noise at 10 dB and in rooms; the interval is a bootstrap over speakers (2.5
  to 97.5 % of 2,000 draws). At the model's own thresholds, and at the lowest with at most 0.1 false accepts per hour
  and keyword over all keyword-hours together.
- False accepts: of all keywords together, by set of negatives; the interval is exact for a count (Garwood 1936, 95 %).
- Thresholds set without a set: each set in turn is left out, thresholds are set on the others as the recipe does, and
  the false accepts are counted in the set left out.
- Edges: the same recordings, cut at the word and fed with nothing before or behind; quiet; and halves of words alone.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.models import load_widths
from bench.report import markdown, publish
from streamkws import Detector, Model, load_model
from streamkws.corpus import read_corpus
from streamkws.evaluation.counting import STRETCH_S, counting_limits
from streamkws.evaluation.curves import sweep_thresholds
from streamkws.evaluation.intervals import rate_interval
from streamkws.evaluation.scoring import Condition, Posteriors, ScoredCorpus, Scores, score_corpus, score_recordings
from streamkws.evaluation.thresholds import confident_threshold
from streamkws.evaluation.timeline import Timeline
from streamkws.smoother import DEFAULT_THRESHOLD
from streamkws.training.recordings import Clip, aligned, read_wakewords

I16 = npt.NDArray[np.int16]
RATE = 16_000
TARGET_FA_PER_H, CONFIDENCE = 0.2, 0.9
"""What thresholds are set for without a set."""
CONDITIONS = (Condition("clean"), Condition("10 dB", 10.0), Condition("rooms", in_room=True))
N_DRAWS = 2000
SILENCE = np.zeros(RATE // 2, np.int16)


@dataclass(frozen=True)
class Judged:
    """A model that heard a corpus. conditions: its scores of the recordings in each of CONDITIONS."""

    model: Model
    scored: ScoredCorpus
    conditions: list[Scores]

    @cached_property
    def negatives(self) -> Timeline:
        """The negatives, in which false accepts are counted again and again."""
        return Timeline.of(self.model, self.scored.scores[0][0].negatives)

    @property
    def own_thresholds(self) -> dict[str, float]:
        """Those of the model, as evaluate takes them."""
        return {keyword: self.model.thresholds.get(keyword, DEFAULT_THRESHOLD) for keyword in self.model.keywords}

    def rate(self, n: int, hours: float) -> str:
        """So many false accepts in hours as a rate per hour and keyword, with its interval."""
        keyword_hours = hours * len(self.model.keywords)
        low, high = rate_interval(n, keyword_hours)
        return f"{n / keyword_hours:.2f} ({low:.2f} to {high:.2f})"

    @property
    def hours(self) -> dict[str, float]:
        """Hours of each set of negatives."""
        return self.scored.hours_by_set

    def false_accepts(self, thresholds: Mapping[str, float]) -> dict[str, dict[str, int]]:
        """False accepts by set and keyword, each keyword at its threshold."""
        found = {name: dict.fromkeys(self.model.keywords, 0) for name in self.hours}
        for threshold in set(thresholds.values()):
            for stream, k, _ in self.negatives.detect(threshold):
                keyword = self.model.keywords[k]
                if thresholds[keyword] == threshold:
                    found[self.scored.negatives[stream].set_name][keyword] += 1
        return found

    def misses(self, thresholds: Mapping[str, float], scores: Scores) -> list[tuple[str, str, bool]]:
        """Keyword, speaker, and whether it was missed, of each recording."""
        limits = counting_limits(self.scored.recording_samples)
        timeline = Timeline.of(self.model, scores.recordings)
        heard: set[int] = set()
        for threshold in set(thresholds.values()):
            for stream, k, peak_s in timeline.detect(threshold):
                keyword = self.model.keywords[k]
                own = keyword == self.scored.recordings[stream].keyword and thresholds[keyword] == threshold
                if own and limits[stream][0] <= peak_s <= limits[stream][1]:
                    heard.add(stream)
        return [
            (one.keyword, one.speaker or f"unknown {r}", r not in heard) for r, one in enumerate(self.scored.recordings)
        ]


def judge(model: Model, folder: Path) -> Judged:
    """Let a model hear a corpus."""
    corpus = read_corpus(folder, model.keywords)
    scored = score_corpus([model], corpus, (None,))
    return Judged(model, scored, score_recordings([model], corpus, CONDITIONS)[0])


def mean_miss(misses: Sequence[tuple[str, str, bool]]) -> tuple[float, float, float]:
    """The mean miss rate over keywords, and its interval by a bootstrap over speakers."""
    keywords, speakers = sorted({row[0] for row in misses}), sorted({row[1] for row in misses})
    missed, heard = (np.zeros((len(speakers), len(keywords))) for _ in range(2))
    for keyword, speaker, miss in misses:
        (missed if miss else heard)[speakers.index(speaker), keywords.index(keyword)] += 1
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(len(speakers), np.full(len(speakers), 1 / len(speakers)), N_DRAWS)
    rates = np.nanmean((drawn @ missed) / np.maximum(drawn @ (missed + heard), 1e-9), axis=1)
    mean = float((missed.sum(0) / (missed + heard).sum(0)).mean())
    return mean, float(np.quantile(rates, 0.025)), float(np.quantile(rates, 0.975))


def few_false_accepts(judged: Judged, per_h: float = 0.1) -> dict[str, float]:
    """The lowest thresholds with so few false accepts over all keyword-hours, each keyword having as many at most.

    Counts are whole: where all may have fewer than one each, the keywords that gain most hearing from one have it.
    """
    keywords = judged.model.keywords
    allowed = int(per_h * judged.scored.hours * len(keywords))
    grid = sweep_thresholds(())
    counts = {threshold: judged.false_accepts(dict.fromkeys(keywords, threshold)) for threshold in grid}
    total = {
        keyword: [sum(by_set[keyword] for by_set in counts[threshold].values()) for threshold in grid]
        for keyword in keywords
    }

    def lowest(keyword: str, n: int) -> float:
        above = [i for i, count in enumerate(total[keyword]) if count > n]
        return grid[min(len(grid) - 1, max(above) + 1)] if above else grid[0]

    each = dict.fromkeys(keywords, allowed // len(keywords))
    for _ in range(allowed - sum(each.values())):

        def gain(keyword: str) -> float:
            now, then = (lowest(keyword, each[keyword] + more) for more in (0, 1))
            return math.log(now / (1.0001 - now)) - math.log(then / (1.0001 - then))

        each[max(keywords, key=gain)] += 1
    return {keyword: lowest(keyword, n) for keyword, n in each.items()}


def left_out_sets(judged: Judged) -> list[dict[str, Any]]:
    """The false accepts in each set, at thresholds that the other sets set."""
    negatives = judged.scored.scores[0][0].negatives
    seconds = [Timeline.of(judged.model, [one]).highest_of_stretches(STRETCH_S) for one in negatives]
    rows = []
    for name, hours in judged.hours.items():
        others = [one for one, file in zip(seconds, judged.scored.negatives, strict=True) if file.set_name != name]
        scores: Posteriors = np.concatenate(others)
        thresholds = {
            keyword: confident_threshold(scores[:, k], judged.scored.hours - hours, TARGET_FA_PER_H, CONFIDENCE)
            for k, keyword in enumerate(judged.model.keywords)
        }
        n = sum(judged.false_accepts(thresholds)[name].values())
        low, high = rate_interval(n, hours * len(thresholds))
        rows.append({"set": name, "hours": hours, "false_accepts": n, "low": low, "high": high})
    return rows


def levelled(samples: I16, peak_db: float) -> I16:
    """Samples brought to a peak in dB of full scale."""
    peak = max(1.0, float(np.abs(samples.astype(np.float32)).max(initial=0.0)))
    return np.rint(samples * (32767 * 10 ** (peak_db / 20) / peak)).astype(np.int16)


def piece(clip: Clip, before_s: float, behind_s: float) -> I16:
    """A recording from before_s ahead of its word to behind_s after it."""
    return clip.samples[max(0, clip.start - round(before_s * RATE)) : clip.end + round(behind_s * RATE)]


def half(clip: Clip, second: bool) -> I16:
    """Half of a recording's word, between silence."""
    middle = (clip.start + clip.end) // 2
    ends = (middle, clip.end + 1600) if second else (max(0, clip.start - 1600), middle)
    return np.concatenate([SILENCE, clip.samples[slice(*ends)], SILENCE])


EDGES: dict[str, Callable[[Clip], I16]] = {
    "as recorded, between 0.5 s of silence": lambda clip: np.concatenate([SILENCE, clip.samples, SILENCE]),
    "begins 20 ms before the word": lambda clip: np.concatenate([piece(clip, 0.02, 9), SILENCE]),
    "ends 25 ms before the word's end": lambda clip: piece(clip, 9, -0.025),
    "begins 20 ms before the word, ends 50 ms after": lambda clip: piece(clip, 0.02, 0.05),
    "peak at -40 dB of full scale": lambda clip: np.concatenate([SILENCE, levelled(clip.samples, -40), SILENCE]),
    "peak at -50 dB": lambda clip: np.concatenate([SILENCE, levelled(clip.samples, -50), SILENCE]),
    "peak at -60 dB": lambda clip: np.concatenate([SILENCE, levelled(clip.samples, -60), SILENCE]),
}
HALVES: dict[str, Callable[[Clip], I16]] = {
    "first half alone": lambda clip: half(clip, False),
    "second half alone": lambda clip: half(clip, True),
}


def edges(model: Model, folder: Path) -> dict[str, dict[str, float]]:
    """How often each keyword is heard, 0..1, in each of EDGES and HALVES, at the model's own thresholds."""
    clips, _ = read_wakewords(folder / "wakewords", model.keywords, ())
    clips = aligned(clips, model.keywords, load_model("wakewords.f32"))
    detector = Detector(model, history_s=0)
    found = {}
    for name, make in {**EDGES, **HALVES}.items():
        heard: dict[str, list[bool]] = {keyword: [] for keyword in model.keywords}
        for clip in clips:
            keyword = model.keywords[clip.keyword]
            detector.reset()
            hits = detector.push(make(clip)) + detector.flush()
            heard[keyword].append(any(hit.keyword == keyword for hit in hits))
        found[name] = {keyword: float(np.mean(times)) for keyword, times in heard.items()}
    return found


def percent(*rates: float) -> str:
    """A rate in percent, and its interval where there is one."""
    first, *interval = (f"{100 * rate:.1f}" for rate in rates)
    return f"{first} % ({' to '.join(interval)})" if interval else f"{first} %"


def report(model: Model, folder: Path) -> tuple[str, dict[str, Any]]:
    """The tables, and what is in them."""
    judged = judge(model, folder)
    own_thresholds, results = judged.own_thresholds, {}
    lines: list[str] = []
    rows = []
    points = {"its own": own_thresholds, "at most 0.1 FA/h": few_false_accepts(judged)}
    for name, thresholds in points.items():
        by_set = judged.false_accepts(thresholds)
        n = sum(sum(counts.values()) for counts in by_set.values())
        rates = {
            condition.name: mean_miss(judged.misses(thresholds, scores))
            for condition, scores in zip(CONDITIONS, judged.conditions, strict=True)
        }
        rows.append([name, *(percent(*rate) for rate in rates.values()), judged.rate(n, judged.scored.hours)])
        results[name] = {"thresholds": thresholds, "misses": rates, "false_accepts": by_set}
    header = ["thresholds", *(f"miss {condition.name}" for condition in CONDITIONS), "FA/h per keyword"]
    lines += [f"**{model.name}**, mean over keywords, 95 % intervals:", "", markdown(header, rows), ""]

    own, rows = judged.false_accepts(own_thresholds), []
    for name, hours in judged.hours.items():
        n = sum(own[name].values())
        which = ", ".join(f"{keyword} {count}" for keyword, count in own[name].items() if count)
        rows.append([name, which, f"{hours:.2f}", str(n), judged.rate(n, hours)])
    lines += [markdown(["set", "at its own thresholds", "hours", "false accepts", "FA/h per keyword"], rows, 2), ""]

    left_out = left_out_sets(judged)
    rows = [
        [
            row["set"],
            f"{row['hours']:.2f}",
            str(row["false_accepts"]),
            judged.rate(row["false_accepts"], row["hours"]),
            "yes" if row["low"] <= TARGET_FA_PER_H else "no",
        ]
        for row in left_out
    ]
    n = sum(row["false_accepts"] for row in left_out)
    rows.append(["together", f"{judged.scored.hours:.2f}", str(n), judged.rate(n, judged.scored.hours), ""])
    header = ["set left out", "hours", "false accepts", "FA/h per keyword", f"{TARGET_FA_PER_H:g} or less possible"]
    lines += [markdown(header, rows), ""]

    at_edges = edges(model, folder)
    rows = [[name, *(percent(1 - at_edges[name][k]) for k in model.keywords)] for name in EDGES]
    for row, name in zip(rows, EDGES, strict=True):
        row.append(percent(1 - float(np.mean(list(at_edges[name].values())))))
    rows += [[f"{name}: fires", *(percent(at_edges[name][k]) for k in model.keywords), ""] for name in HALVES]
    lines += [markdown(["missed, at its own thresholds", *model.keywords, "mean"], rows)]
    return "\n".join(lines), {**results, "left_out": left_out, "edges": at_edges}


def main() -> None:
    """Measure, print, and write where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", required=True, type=Path, help="corpus folder, such as corpus/dev")
    parser.add_argument("--model", help="a shipped model's name, or a file (default: the held-out w4a8)")
    parser.add_argument("--json", metavar="FILE", help="write the figures; - is standard output, instead of the tables")
    parser.add_argument("--write", action="store_true", help="write the tables into bench/README.md")
    arguments = parser.parse_args()
    model = load_model(arguments.model) if arguments.model else load_widths()[-1]
    text, results = report(model, arguments.corpus)
    publish(arguments, "elsewhere", f"{text}\n\n", results)


if __name__ == "__main__":
    main()
