"""Misses of streamkws' models in every kind of noise and in rooms, at the same thresholds in all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench.report import markdown
from streamkws import Model
from streamkws.audio import audio_files
from streamkws.corpus import ROOM_SET, Corpus
from streamkws.evaluation.counting import count_misses
from streamkws.evaluation.operating_points import CLEAN
from streamkws.evaluation.results import Evaluation
from streamkws.evaluation.scoring import Condition, ScoredCorpus, score_recordings

SNRS_DB = (10.0, 5.0)
KINDS = {
    "water": ("rain", "sea_waves", "running_tap"),
    "machines": ("boiler", "chainsaw", "exercise_bike", "helicopter", "vacuum_cleaner", "washing_machine"),
    "clatter": ("clock_tick", "doing_the_dishes", "fire_crackling", "keyboard_typing"),
    "creatures": ("baby_cry", "dog_bark", "dude_miaowing", "person_sneeze", "rooster"),
    "hiss": ("pink_noise", "white_noise"),
}
"""Kinds of noise in the table, and the corpus' labels of each; all other labels are other noise."""
OTHER_NOISE = "other noise"
TARGETS_FA_PER_H = (0.0, 0.5, 1.0)
OWN = "own thresholds"


@dataclass(frozen=True)
class Point:
    """A way to set thresholds, and the misses at these. misses: [model][condition][keyword]."""

    name: str
    misses: list[list[dict[str, int]]]


@dataclass(frozen=True)
class Result:
    """What was measured of some models. noise: the labels of each kind, n_recordings: of each keyword."""

    models: list[str]
    conditions: list[str]
    noise: dict[str, tuple[str, ...]]
    n_recordings: dict[str, int]
    hours: float
    points: list[Point]

    def miss(self, point: Point, model: int, condition: int, keyword: str | None = None) -> float:
        """Miss rate of a keyword; the mean of all keywords for None."""
        misses = point.misses[model][condition]
        rates = [misses[k] / n for k, n in self.n_recordings.items() if keyword in (None, k)]
        return sum(rates) / len(rates)


def noise_kinds(corpus: Corpus) -> dict[str, tuple[str, ...]]:
    """The kinds of noise in a corpus, and the labels of each."""
    found = sorted({label for file in corpus.negatives if file.is_noise for label in file.labels if label})
    of_label = {label: kind for kind, labels in KINDS.items() for label in labels}
    kinds: dict[str, list[str]] = {kind: [] for kind in (*KINDS, OTHER_NOISE)}
    for label in found:
        kinds[of_label.get(label, OTHER_NOISE)].append(label)
    return {kind: tuple(labels) for kind, labels in kinds.items() if labels}


def conditions_of(corpus: Corpus) -> list[Condition]:
    """The conditions that a corpus allows: clean, each SNR in any noise and in each kind of noise, and rooms."""
    noisy = any(file.is_noise for file in corpus.negatives)
    conditions = [Condition(CLEAN)]
    for snr_db in SNRS_DB if noisy else ():
        conditions.append(Condition(f"{snr_db:g} dB", snr_db))
        conditions += [
            Condition(f"{snr_db:g} dB {kind}", snr_db, labels) for kind, labels in noise_kinds(corpus).items()
        ]
    if audio_files(corpus.root / ROOM_SET):
        conditions.append(Condition("in a room", in_room=True))
        if noisy:
            conditions.append(Condition(f"in a room, {SNRS_DB[0]:g} dB", SNRS_DB[0], in_room=True))
    return conditions


def thresholds_of(evaluation: Evaluation) -> dict[str, dict[str, float]]:
    """[name][keyword]: thresholds for so many false accepts per hour of clean negatives, and the model's own.

    A keyword that no threshold keeps to the target has none. Targets that the hours do not resolve are left out.
    """
    points: dict[str, dict[str, float]] = {}
    for target in TARGETS_FA_PER_H:
        if 0 < target * evaluation.hours < 1:
            continue
        name = f"at most {target:g} FA/h" if target else f"no false accept in {evaluation.hours:.2f} h"
        curves = evaluation.curves[CLEAN]
        indices = {keyword: curve.index_at(target) for keyword, curve in curves.items() if curve.n_recordings}
        points[name] = {keyword: curves[keyword].thresholds[i] for keyword, i in indices.items() if i is not None}
    own = evaluation.at_own_thresholds
    points[OWN] = {k: point.threshold for k, point in own.items() if evaluation.n_recordings[k]}
    return points


def measure(models: Sequence[Model], evaluations: Sequence[Evaluation], scored: ScoredCorpus, corpus: Corpus) -> Result:
    """Count the models' misses in every condition at the thresholds that their evaluations fix."""
    conditions = conditions_of(corpus)
    heard = score_recordings(models, replace(corpus, recordings=scored.recordings), conditions, scored.seed)
    n_recordings = {keyword: n for keyword, n in evaluations[0].n_recordings.items() if n}
    thresholds = [thresholds_of(evaluation) for evaluation in evaluations]

    def misses(m: int, name: str) -> list[dict[str, int]]:
        at = thresholds[m][name]
        return [n_recordings | count_misses(models[m], scored, one.recordings, at) for one in heard[m]]

    return Result(
        models=[model.name for model in models],
        conditions=[condition.name for condition in conditions],
        noise=noise_kinds(corpus),
        n_recordings=n_recordings,
        hours=scored.hours,
        points=[Point(name, [misses(m, name) for m in range(len(models))]) for name in thresholds[0]],
    )


def table(result: Result, point: Point) -> str:
    """Misses by condition and keyword as a Markdown table; a cell holds those of all models."""
    header = ["condition", *result.n_recordings, "mean"]
    rows = [
        [name, *(_cell(result, point, c, keyword) for keyword in (*result.n_recordings, None))]
        for c, name in enumerate(result.conditions)
    ]
    return markdown(header, rows)


def _cell(result: Result, point: Point, condition: int, keyword: str | None) -> str:
    return " / ".join(f"{100 * result.miss(point, m, condition, keyword):.1f}" for m in range(len(result.models)))


def report(result: Result) -> str:
    """A table for each way to set the thresholds, with notes."""
    parts = []
    for point in result.points:
        parts.append(f"Miss, %, {' / '.join(result.models)}; {point.name}:")
        parts.append(table(result, point))
    parts.append(_remarks(result.noise, result.n_recordings))
    return "\n\n".join(parts)


def _remarks(noise: Mapping[str, Sequence[str]], n_recordings: Mapping[str, int]) -> str:
    one = {keyword: 100 / n for keyword, n in n_recordings.items()}
    lines = [
        "The thresholds are those for the clean negatives, noise recordings among them, in all conditions. "
        f"One recording is {min(one.values()):.1f} to {max(one.values()):.1f} % of a keyword.",
        *([f"Noise: {'; '.join(f'{kind}: {_names(labels)}' for kind, labels in noise.items())}."] if noise else []),
    ]
    return "\n".join(f"- {line}" for line in lines)


def _names(labels: Sequence[str]) -> str:
    return ", ".join(label.replace("_", " ") for label in labels)


def to_json(result: Result) -> dict[str, Any]:
    """Counts as json.dumps takes them."""
    return {
        "models": result.models,
        "noise": {kind: list(labels) for kind, labels in result.noise.items()},
        "recordings": result.n_recordings,
        "hours": result.hours,
        "points": [
            {
                "thresholds": point.name,
                "misses": {
                    model: dict(zip(result.conditions, point.misses[m], strict=True))
                    for m, model in enumerate(result.models)
                },
            }
            for point in result.points
        ],
    }
