"""Thresholds: chosen for how many false accepts per hour there may be."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from streamkws.errors import ConfigError
from streamkws.evaluation.curves import HIGHEST
from streamkws.evaluation.operating_points import CLEAN
from streamkws.evaluation.results import Evaluation

PEAKS_PER_H, LEAST_PEAKS, MOST_PEAKS, SECONDS_PER_PEAK = 14, 20, 200, 10
"""How many of the highest peaks in an hour of negative audio a confident threshold is drawn from, at least and at most,
and of how much audio each must be."""
LEAST_POSTERIOR = 1e-7


def calibrate(
    evaluation: Evaluation,
    target_fa_per_h: float,
    confidence: float = 0.0,
    lowest: float = 0.0,
    noisy_targets: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Choose each keyword's threshold for at most this many false accepts per hour.

    confidence: 0 takes the lowest threshold with so few false accepts in the evaluation's audio, and so promises
        nothing elsewhere. Above 0: how sure the rate is to hold in audio of the same kind; see confident_threshold.
        Then one false accept more than that is let pass in the audio itself: one sound that is nearly the keyword.
    noisy_targets: further targets by condition of the evaluation, such as "10 dB".
    lowest: no threshold is set below it.
    Raises ConfigError as valid_target and confident_threshold do.
    """
    targets = {CLEAN: target_fa_per_h, **(noisy_targets or {})}
    for target in targets.values():
        valid_target(target, confidence, lowest)
    thresholds: dict[str, float] = {}
    for keyword in evaluation.curves[CLEAN]:
        chosen = [lowest]
        for condition, target in targets.items():
            if confidence:
                scores = np.array(evaluation.scores[condition][keyword].negatives)
                chosen.append(confident_threshold(scores, evaluation.hours, target, confidence))
                target = (int(target * evaluation.hours) + 1) / evaluation.hours
            curve = evaluation.curves[condition][keyword]
            i = curve.index_at(target)
            chosen.append(HIGHEST if i is None else curve.thresholds[i])
        thresholds[keyword] = max(chosen)
    return thresholds


def confident_threshold(
    scores: npt.NDArray[np.floating], hours: float, target_fa_per_h: float, confidence: float
) -> float:
    """The threshold with at most this many false accepts per hour of audio of the same kind, so sure.

    The highest peaks in negative audio thin out exponentially on the logit axis; the line through the highest n of them
    goes on to rates that the hours are too few to count, and one sound that is nearly the keyword does not move it far.
    Its slope is known as well as n peaks tell (a chi-squared distribution of 2n degrees).

    scores: (n,) the highest smoothed posterior of each second of negative audio, in order. hours: of that audio.
    Returns a threshold of six digits: HIGHEST for a target of 0, and 0 where the target allows n peaks and more, which
    can be counted.
    Raises ConfigError for less audio than has so many peaks.

    Source: exceedances over a high threshold, with exponential excesses: Coles, "An Introduction to Statistical
    Modeling of Extreme Values", 2001, chapter 4.
    """
    n = min(MOST_PEAKS, max(LEAST_PEAKS, round(PEAKS_PER_H * hours)))
    if len(scores) < SECONDS_PER_PEAK * n:
        raise ConfigError(
            f"expected at least {SECONDS_PER_PEAK * n} s of negative audio for a confidence, got {len(scores)} s"
        )
    if target_fa_per_h <= 0:
        return HIGHEST
    if target_fa_per_h * hours >= n:
        return 0.0
    peaks = np.sort(np.concatenate([_peaks(scores), _logits(np.zeros(n + 1))]))[::-1]  # a keyword may have fewer
    excess = float(np.mean(peaks[:n]) - peaks[n])
    spread = 1 / (9 * n)
    least = (1 - spread + NormalDist().inv_cdf(1 - confidence) * math.sqrt(spread)) ** 3  # Wilson and Hilferty 1931
    logit = float(peaks[n]) + excess / least * math.log(n / hours / target_fa_per_h)
    return max(1e-6, min(HIGHEST, round(1 / (1 + math.exp(-logit)), 6)))


def _peaks(scores: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """The logits of the seconds that are higher than both neighbours: a sound across two seconds is one peak."""
    around = np.concatenate([[-1.0], scores, [-1.0]])
    tops = scores[(around[1:-1] > around[:-2]) & (around[1:-1] >= around[2:])].astype(np.float64)
    return _logits(tops)


def _logits(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    clipped = np.clip(scores, LEAST_POSTERIOR, 1 - LEAST_POSTERIOR)
    logits: npt.NDArray[np.float64] = np.log(clipped / (1 - clipped))
    return logits


def valid_target(target_fa_per_h: float, confidence: float = 0.0, lowest: float = 0.0) -> None:
    """Raise ConfigError for a negative target, a confidence outside 0..0.999, or a lowest threshold outside 0..1."""
    if target_fa_per_h < 0 or not math.isfinite(target_fa_per_h):
        raise ConfigError(f"expected a target of 0 or more false accepts per hour, got {target_fa_per_h}")
    if confidence and not 0.5 <= confidence <= 0.999:
        raise ConfigError(f"expected a confidence of 0.5 to 0.999, or 0 for none, got {confidence}")
    if not 0 <= lowest <= 1:
        raise ConfigError(f"expected a lowest threshold of 0 to 1, got {lowest}")
