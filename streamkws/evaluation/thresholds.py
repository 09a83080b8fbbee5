"""Thresholds: chosen for how many false accepts per hour there may be."""

from __future__ import annotations

import math
from collections.abc import Mapping

from streamkws.errors import ConfigError
from streamkws.evaluation.curves import HIGHEST
from streamkws.evaluation.operating_points import CLEAN
from streamkws.evaluation.results import Evaluation


def calibrate(
    evaluation: Evaluation,
    target_fa_per_h: float,
    margin: float = 0.0,
    lowest: float = 0.0,
    noisy_targets: Mapping[str, float] | None = None,
    highest: float = 1.0,
) -> dict[str, float]:
    """Choose each keyword's threshold: the lowest with at most this many false accepts per hour.

    noisy_targets: further targets by condition of the evaluation, such as "10 dB".
    margin: raises each threshold by this much on the logit axis (at 0.5, a threshold of 0.90 becomes 0.937), in case
        the hours it was chosen on were kinder than those to come.
    lowest: no threshold is set below it.
    highest: none is set above it, however many false accepts that makes. A threshold high enough to shut out one sound
        that is almost the keyword shuts out people, too.
    Raises ConfigError as valid_target does, and for a highest threshold that is below the lowest, or none.
    """
    if not lowest <= highest <= 1:
        raise ConfigError(f"expected a highest threshold of {lowest:g} (the lowest) to 1, got {highest}")
    targets = {CLEAN: target_fa_per_h, **(noisy_targets or {})}
    for target in targets.values():
        valid_target(target, margin, lowest)
    thresholds: dict[str, float] = {}
    for keyword in evaluation.curves[CLEAN]:
        curves = [evaluation.curves[name][keyword] for name in targets]
        indices = [curve.index_at(target) for curve, target in zip(curves, targets.values(), strict=True)]
        threshold = max(HIGHEST if i is None else curve.thresholds[i] for curve, i in zip(curves, indices, strict=True))
        if 0 < threshold < 1 and margin:
            threshold = round(1 / (1 + math.exp(-margin) * (1 - threshold) / threshold), 6)
        thresholds[keyword] = min(max(threshold, lowest), highest)
    return thresholds


def valid_target(target_fa_per_h: float, margin: float = 0.0, lowest: float = 0.0) -> None:
    """Raise ConfigError for a negative target or margin, or a lowest threshold outside 0..1."""
    if target_fa_per_h < 0 or not math.isfinite(target_fa_per_h):
        raise ConfigError(f"expected a target of 0 or more false accepts per hour, got {target_fa_per_h}")
    if margin < 0 or not math.isfinite(margin):
        raise ConfigError(f"expected a margin of 0 or more, got {margin}")
    if not 0 <= lowest <= 1:
        raise ConfigError(f"expected a lowest threshold of 0 to 1, got {lowest}")
