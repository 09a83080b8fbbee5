"""What a maker of a keyword is told at the end: how often it is missed, how often it fires, what comes nearest."""

from __future__ import annotations

from typing import Any

from streamkws.evaluation.counting import Figures
from streamkws.evaluation.intervals import SURE, rate_interval, share_interval
from streamkws.new.judge import N_NEAREST, NOISY, Verdict

MANY_MISSES, MANY_FIRED = 0.1, 0.3
"""From these shares on something is to be done."""


def facts(verdict: Verdict) -> dict[str, Any]:
    """The figures of a model, for JSON."""
    evaluation, model = verdict.evaluation, verdict.model
    keywords = {}
    for phrase in model.keywords:
        quiet, noisy = verdict.figures(phrase), verdict.figures(phrase, NOISY)
        keywords[phrase] = {
            "threshold": model.thresholds[phrase],
            "recordings": quiet.n_recordings,
            "misses": quiet.misses,
            "misses_10_db": noisy.misses,
            "false_accepts": quiet.false_accepts,
            "fa_per_h": quiet.fa_per_h,
            "fa_per_h_interval": list(rate_interval(quiet.false_accepts, evaluation.hours)),
            "own_takes": dict(zip(("missed", "said"), verdict.own[phrase], strict=True))
            if phrase in verdict.own
            else None,
        }
    nearest = [{"text": n.text, "keyword": n.keyword, "fired": n.fired, "said": n.said} for n in verdict.nearest]
    return {
        "model": model.name,
        "bits": model.config.bits,
        "hours": evaluation.hours,
        "keywords": keywords,
        "nearest": nearest,
    }


def rows(verdict: Verdict) -> list[list[str]]:
    """A table's rows, one a phrase: phrase, threshold, misses in quiet and in noise, false accepts per hour."""
    return [
        [
            phrase,
            f"{verdict.model.thresholds[phrase]:.2f}",
            _misses(verdict.figures(phrase)),
            _misses(verdict.figures(phrase, NOISY)),
            _false_accepts(verdict.figures(phrase), verdict.evaluation.hours),
        ]
        for phrase in verdict.model.keywords
    ]


HEADER = ("phrase", "threshold", "missed", "missed at 10 dB", "false accepts per hour")


def remarks(verdict: Verdict, before: Verdict | None) -> list[str]:
    """What the figures mean, and what to do, in sentences."""
    hours = verdict.evaluation.hours
    fired = sum(one.fired for one in verdict.nearest)
    told = [
        f"Misses are of synthesized voices that it did not learn from; people are missed more often. False accepts are "
        f"in {hours:.1f} h of other speech, noise and music, which only the backbone has heard; "
        f"the interval is for {100 * SURE:.0f} %.",
        f"Of {verdict.n_near:,} sounds that are nearly a phrase, made to confuse it, {fired} were taken for one"
        + (": " + ", ".join(f"{n.text!r} {n.fired} of {n.said}" for n in verdict.nearest[:N_NEAREST]) if fired else "")
        + ".",
    ]
    for phrase, (missed, said) in verdict.own.items():
        gained = ""
        if before and phrase in before.own:
            gained = f", {before.own[phrase][0]} before it learned from the others"
        told.append(f"Of your own takes of {phrase!r} that were kept out it missed {missed} of {said}{gained}.")
    worst = max(verdict.figures(phrase).miss or 0.0 for phrase in verdict.model.keywords)
    if worst > MANY_MISSES:
        told.append("Many misses: record some takes (streamkws record), and give them by --recordings; or say more.")
    if verdict.n_near and fired > MANY_FIRED * verdict.n_near:
        told.append("It fires at much that only sounds alike: a longer phrase will do better.")
    if not verdict.own:
        told.append("No recording of a person judged it: say it yourself, and count (streamkws listen --model).")
    return told


def card(verdict: Verdict, before: Verdict | None) -> str:
    """The model card, Markdown."""
    model = verdict.model
    lines = [f"# {model.name}", "", f"Keyword spotting in a stream of 16 kHz audio: {', '.join(model.keywords)}.", ""]
    lines += [f"- **{name}:** {text}" for name, text in model.config.provenance.items()]
    lines += ["", f"| {' | '.join(HEADER)} |", "|---|---:|---|---|---|"]
    lines += [f"| {' | '.join(row)} |" for row in rows(verdict)]
    lines += ["", *(f"- {text}" for text in remarks(verdict, before))]
    return "\n".join(lines) + "\n"


def _misses(figures: Figures) -> str:
    low, high = share_interval(figures.misses, figures.n_recordings)
    share = 100 * figures.misses / figures.n_recordings
    return f"{share:.1f} % ({100 * low:.0f} to {100 * high:.0f}), {figures.misses} of {figures.n_recordings}"


def _false_accepts(figures: Figures, hours: float) -> str:
    low, high = rate_interval(figures.false_accepts, hours)
    return f"{figures.fa_per_h:.2g} ({low:.2g} to {high:.2g}), {figures.false_accepts} in {hours:.1f} h"
