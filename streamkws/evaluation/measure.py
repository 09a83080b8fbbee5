"""Measuring: models and a corpus in, evaluations out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from streamkws.corpus import read_corpus
from streamkws.errors import ConfigError
from streamkws.evaluation.counting import Counts, figures_at, sweep
from streamkws.evaluation.curves import HIGHEST, DetCurve, sweep_thresholds
from streamkws.evaluation.operating_points import CLEAN, TARGETS_FA_PER_H, OperatingPoint
from streamkws.evaluation.results import Evaluation, KeywordScores
from streamkws.evaluation.scoring import Progress, ScoredCorpus, score_corpus
from streamkws.model import Model
from streamkws.smoother import DEFAULT_THRESHOLD


def evaluate(
    model: Model,
    corpus: str | Path,
    snrs_db: Sequence[float | None] = (None, 10.0),
    progress: Progress | None = None,
    seed: int = 0,
) -> Evaluation:
    """Measure one model on a corpus; see evaluate_models."""
    return evaluate_models([model], corpus, snrs_db, progress, seed)[0]


def evaluate_models(
    models: Sequence[Model],
    corpus: str | Path,
    snrs_db: Sequence[float | None] = (None, 10.0),
    progress: Progress | None = None,
    seed: int = 0,
    left_out: Collection[str] = (),
) -> list[Evaluation]:
    """Measure several models on a corpus (evaluation.scoring says how it is laid out), each file decoded once.

    snrs_db: noise conditions as signal-to-noise ratios; None, which is without noise, has to be among them, since
        thresholds are chosen there.
    progress: called with (what is done, steps done, steps in all). left_out: sets of negatives that are not heard.
    Raises ConfigError for a corpus that cannot be used, and for a set to leave out that it does not have.
    """
    if None not in snrs_db:
        raise ConfigError(f"expected None (without noise) among the noise conditions, got {list(snrs_db)}")
    keywords = dict.fromkeys(keyword for model in models for keyword in model.keywords)
    read = read_corpus(corpus, keywords)
    if unknown := sorted(set(left_out) - {one.set_name for one in read.negatives}):
        raise ConfigError(f"expected a set of negatives of {corpus} to leave out, got {unknown[0]!r}")
    read = replace(read, negatives=tuple(one for one in read.negatives if one.set_name not in left_out))
    scored = score_corpus(models, read, snrs_db, seed, progress)
    return [evaluate_scores(model, scored, m, progress) for m, model in enumerate(models)]


def evaluate_scores(model: Model, scored: ScoredCorpus, m: int = 0, progress: Progress | None = None) -> Evaluation:
    """Measure a model by posteriors already made, scored.scores[m]: the sweep over thresholds and what follows."""
    own = {keyword: model.thresholds.get(keyword, DEFAULT_THRESHOLD) for keyword in model.keywords}
    thresholds = sweep_thresholds(own.values())
    conditions = tuple(CLEAN if snr_db is None else f"{snr_db:g} dB" for snr_db in scored.snrs_db)
    counts = {
        condition: sweep(model, scored, scores, thresholds, condition, progress)
        for condition, scores in zip(conditions, scored.scores[m], strict=True)
    }
    of_keyword = {k: np.array([r.keyword == k for r in scored.recordings], dtype=bool) for k in model.keywords}
    curves = {c: _curves(model, scored, counts[c], thresholds, c, of_keyword) for c in conditions}

    def point(k: int, i: int | None, target_fa_per_h: float | None) -> OperatingPoint:
        keyword = model.keywords[k]
        return OperatingPoint(
            keyword=keyword,
            threshold=HIGHEST if i is None else thresholds[i],
            target_fa_per_h=target_fa_per_h,
            resolvable=target_fa_per_h is None or 1 / scored.hours <= target_fa_per_h,
            reached=i is not None,
            figures={c: figures_at(scored, counts[c], k, i, of_keyword[keyword]) for c in conditions},
        )

    keywords = list(enumerate(model.keywords))
    return Evaluation(
        model=model.name,
        provenance=dict(model.config.provenance),
        keywords=tuple(model.keywords),
        corpus=str(scored.root),
        seed=scored.seed,
        conditions=conditions,
        n_recordings={keyword: int(mask.sum()) for keyword, mask in of_keyword.items()},
        hours=scored.hours,
        hours_by_set=scored.hours_by_set,
        curves=curves,
        operating_points={
            target: {keyword: point(k, curves[CLEAN][keyword].index_at(target), target) for k, keyword in keywords}
            for target in TARGETS_FA_PER_H
        },
        at_own_thresholds={keyword: point(k, thresholds.index(own[keyword]), None) for k, keyword in keywords},
        scores={c: _keyword_scores(model, counts[c], of_keyword) for c in conditions},
        skipped=scored.skipped,
        notes=scored.notes,
    )


def _curves(
    model: Model,
    scored: ScoredCorpus,
    counts: Counts,
    thresholds: Sequence[float],
    condition: str,
    of_keyword: Mapping[str, npt.NDArray[np.bool_]],
) -> dict[str, DetCurve]:
    """The DET curve of each keyword in one condition."""
    return {
        keyword: DetCurve(
            keyword=keyword,
            condition=condition,
            n_recordings=int(of_keyword[keyword].sum()),
            hours=scored.hours,
            thresholds=tuple(thresholds),
            misses=tuple((~counts.heard[:, of_keyword[keyword]]).sum(axis=1).tolist()),
            false_accepts=tuple(counts.false_accepts[:, k].tolist()),
        )
        for k, keyword in enumerate(model.keywords)
    }


def _keyword_scores(
    model: Model, counts: Counts, of_keyword: Mapping[str, npt.NDArray[np.bool_]]
) -> dict[str, KeywordScores]:
    """The scores of each keyword in one condition."""
    return {
        keyword: KeywordScores(
            recordings=tuple(counts.recording_scores[of_keyword[keyword], k].tolist()),
            negatives=tuple(counts.negative_scores[:, k].tolist()),
        )
        for k, keyword in enumerate(model.keywords)
    }
