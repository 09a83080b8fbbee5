"""Judging a model of new phrases: its thresholds, and what may be expected of it, by what it was not trained on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from streamkws.audio import read_audio
from streamkws.corpus import NegativeFile, read_corpus, read_recordings, read_segments
from streamkws.detector import detect
from streamkws.evaluation.counting import Figures
from streamkws.evaluation.measure import evaluate_scores
from streamkws.evaluation.operating_points import CLEAN
from streamkws.evaluation.results import Evaluation
from streamkws.evaluation.scoring import Progress, ScoredCorpus, Scores, score_corpus
from streamkws.evaluation.thresholds import calibrate
from streamkws.model import Model
from streamkws.training.pack import Pack

NOISY = "10 dB"
CONFIDENCE = 0.5
LOWEST = 0.4
"""No threshold is lower: an hour or two are too few to trust it."""
N_NEAREST = 5


@dataclass(frozen=True)
class Nearest:
    """Something that is nearly a phrase, and how often a model took it for one. keyword: the phrase."""

    text: str
    keyword: str
    fired: int
    said: int


@dataclass(frozen=True)
class Verdict:
    """What may be expected of a model.

    model: with its thresholds. evaluation: at these, on voices that were kept out, and on other sound, in quiet and
    with noise at 10 dB. nearest: what it took for a phrase most often, of what is near to them. n_near: how many such
    sounds it heard. own: misses and number of the user's kept-out takes, by phrase; empty without any.
    """

    model: Model
    evaluation: Evaluation
    nearest: tuple[Nearest, ...]
    n_near: int
    own: dict[str, tuple[int, int]]

    def figures(self, phrase: str, condition: str = CLEAN) -> Figures:
        """The figures of a phrase at its threshold."""
        return self.evaluation.at_own_thresholds[phrase].figures[condition]


def judge(
    models: Sequence[Model],
    part: Path,
    near: Path,
    own: Path | None,
    pack: Pack,
    target_fa_per_h: float,
    progress: Progress | None = None,
) -> list[Verdict]:
    """Set each model's thresholds, and say what may be expected of it.

    part: of a corpus that was not trained on. near: folder of a set of what is near to the phrases. own: folder of the
    user's kept-out takes, <phrase>/<file>, or None. pack: its stretches for judging count as negatives, too.
    target_fa_per_h: false accepts per hour for which thresholds are set, as sure as not (thresholds.py).
    """
    keywords = models[0].keywords
    scored = score_corpus(models, read_corpus(part, keywords), (None, 10.0), progress=progress)
    scored = _with_pack(scored, models, pack)
    verdicts = []
    for number, model in enumerate(models):
        evaluation = evaluate_scores(model, scored, number, progress)
        thresholds = calibrate(evaluation, target_fa_per_h, CONFIDENCE, LOWEST)
        model = model.with_settings(thresholds=thresholds)
        evaluation = evaluate_scores(model, scored, number, progress)
        nearest, n_near = _nearest(model, near)
        verdicts.append(Verdict(model, evaluation, nearest, n_near, heard_of(model, own) if own else {}))
    return verdicts


def _with_pack(scored: ScoredCorpus, models: Sequence[Model], pack: Pack) -> ScoredCorpus:
    """What was scored, with the stretches for judging of a pack among the negatives, a file for each of its sets."""
    by_set: dict[str, list[npt.NDArray[np.float16]]] = defaultdict(list)
    for one in pack.stretches:
        if one.judges:
            by_set[one.set_name].append(one.features)
    streams = {name: np.concatenate(several).astype(np.float32) for name, several in by_set.items()}
    files = tuple(NegativeFile(Path(name), f"pack/{name}", name) for name in streams)
    samples = tuple(len(one) * pack.frontend.hop_samples for one in streams.values())
    scores = []
    for model, by_condition in zip(models, scored.scores, strict=True):
        state, heard = model.new_state(), []
        for features in streams.values():
            state.hear_silence()
            heard.append(np.array(state.push(features), np.float32))
        scores.append(tuple(Scores(one.recordings, (*one.negatives, *heard)) for one in by_condition))
    return replace(
        scored,
        negatives=(*scored.negatives, *files),
        negative_samples=(*scored.negative_samples, *samples),
        scores=tuple(scores),
    )


def _nearest(model: Model, near: Path) -> tuple[tuple[Nearest, ...], int]:
    """What a model took for a phrase most often, of a set of what is near to them; and how much it heard of it."""
    one = read_segments(near)
    said: dict[str, int] = defaultdict(int)
    fired: dict[tuple[str, str], int] = defaultdict(int)
    for segment in one.segments:
        said[segment.label] += 1
        for keyword in {hit.keyword for hit in detect([one.files[segment.file][segment.start : segment.end]], model)}:
            fired[segment.label, keyword] += 1
    ranked = sorted(fired.items(), key=lambda item: (-item[1] / said[item[0][0]], -item[1], item[0]))
    found = (Nearest(text, keyword, n, said[text]) for (text, keyword), n in ranked)
    return tuple(found), len(one.segments)


def heard_of(model: Model, own: Path) -> dict[str, tuple[int, int]]:
    """Misses and number of recordings <phrase>/<file> in a folder, at a model's thresholds, by phrase."""
    counts: dict[str, tuple[int, int]] = {}
    for recording in read_recordings(own, model.keywords)[0]:
        heard = any(hit.keyword == recording.keyword for hit in detect([read_audio(recording.path)], model))
        misses, number = counts.get(recording.keyword, (0, 0))
        counts[recording.keyword] = (misses + (not heard), number + 1)
    return counts
