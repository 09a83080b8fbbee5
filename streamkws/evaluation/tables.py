"""Tables: evaluations of several models side by side, as text and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from streamkws.evaluation.counting import AFTER_S, BEFORE_S, ZERO_COUNT_BOUND, Figures
from streamkws.evaluation.curves import AREA_FA_PER_H, mean
from streamkws.evaluation.operating_points import TABLE_TARGET_FA_PER_H, OperatingPoint, mean_miss, speakers
from streamkws.evaluation.results import Evaluation


def format_table(evaluations: Sequence[Evaluation]) -> str:
    """Lay evaluations of several models side by side as text of aligned columns, with what the figures mean below."""
    rows = _rows(evaluations)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    lines.insert(2, "  ".join("-" * width for width in widths))
    return "\n".join([*lines, "", *_remarks(evaluations)])


def format_markdown(evaluations: Sequence[Evaluation]) -> str:
    """Lay evaluations of several models side by side as a Markdown table, with what the figures mean below."""
    groups, names, *rows = _rows(evaluations)
    headings, group = [], ""
    for column, name in enumerate(names):
        group = groups[column] or group
        headings.append(f"{group} {name}".strip())
    lines = ["| " + " | ".join(row) + " |" for row in (headings, *rows)]
    lines.insert(1, "|" + "|".join("---" if column < 2 else "---:" for column in range(len(names))) + "|")
    return "\n".join([*lines, "", *(f"- {remark}" for remark in _remarks(evaluations))])


def _rows(evaluations: Sequence[Evaluation]) -> list[list[str]]:
    """The table's cells, two rows of headings first: a group of rows per keyword, a row per model in each."""
    conditions = list(dict.fromkeys(condition for evaluation in evaluations for condition in evaluation.conditions))
    target = f"@{TABLE_TARGET_FA_PER_H:g} FA/h"
    misses = [f"miss {condition}" for condition in conditions]
    rates = [f"FA/h {condition}" for condition in conditions]
    headings = {"": ["keyword", "model"], target: ["threshold", *misses]}
    headings |= {"own": ["threshold", *misses, *rates], "DET area": conditions}
    rows = [
        [group if first else "" for group, names in headings.items() for first in (True, *[False] * (len(names) - 1))],
        [name for names in headings.values() for name in names],
    ]
    keywords = dict.fromkeys(keyword for evaluation in evaluations for keyword in evaluation.keywords)
    for keyword in keywords:
        for n, evaluation in enumerate(e for e in evaluations if keyword in e.keywords):
            at_target = evaluation.operating_points[TABLE_TARGET_FA_PER_H][keyword]
            shipped = evaluation.at_own_thresholds[keyword]
            rows.append(
                [
                    keyword if n == 0 else "",
                    evaluation.model,
                    _threshold(at_target),
                    *(_percent(_at(at_target.figures, condition)) for condition in conditions),
                    _threshold(shipped),
                    *(_percent(_at(shipped.figures, condition)) for condition in conditions),
                    *(_rate(shipped.figures.get(condition)) for condition in conditions),
                    *(_percent(_area(evaluation, condition, keyword)) for condition in conditions),
                ]
            )
    for n, evaluation in enumerate(evaluations):
        at_target_points = evaluation.operating_points[TABLE_TARGET_FA_PER_H]
        here = set(evaluation.conditions)
        rows.append(
            [
                "mean" if n == 0 else "",
                evaluation.model,
                "",
                *(_percent(mean_miss(at_target_points, c) if c in here else None) for c in conditions),
                "",
                *(_percent(mean_miss(evaluation.at_own_thresholds, c) if c in here else None) for c in conditions),
                *(_number(_mean_rate(evaluation, c) if c in here else None) for c in conditions),
                *(_percent(mean(_area(evaluation, c, k) for k in evaluation.keywords)) for c in conditions),
            ]
        )
    return rows


def _remarks(evaluations: Sequence[Evaluation]) -> list[str]:
    """What the table does not say by itself."""
    first = evaluations[0]
    sets = ", ".join(f"{name} {hours:.2f}" for name, hours in first.hours_by_set.items())
    one = 1 / first.hours
    remarks = [
        f"{first.corpus}: {sum(first.n_recordings.values())} keyword recordings, "
        f"{first.hours:.2f} h of negative audio ({sets}); noise seed {first.seed}.",
        f"Miss: no detection peaks from {BEFORE_S} s before the recording to {AFTER_S} s after it. FA/h: detections in "
        "negative audio per hour, at the model's own threshold.",
        f"No false accept in {first.hours:.2f} h shows only < {ZERO_COUNT_BOUND / first.hours:.2g} FA/h (95 %); "
        f"one is {one:.2g} FA/h.",
    ]
    if one > TABLE_TARGET_FA_PER_H:
        remarks.append(
            f"The hours do not resolve {TABLE_TARGET_FA_PER_H:g} FA/h: @{TABLE_TARGET_FA_PER_H:g} FA/h means the "
            "lowest threshold without any false accept on the clean negative audio."
        )
    else:
        remarks.append(
            f"@{TABLE_TARGET_FA_PER_H:g} FA/h: the lowest threshold from which on clean negative audio gives no more."
        )
    remarks.append(
        f"DET area: mean miss over {AREA_FA_PER_H[0]:g}-{AREA_FA_PER_H[1]:g} FA/h on a log axis, "
        "each condition on its own negative audio."
    )
    for evaluation in evaluations:
        points = evaluation.at_own_thresholds
        for condition in evaluation.conditions:
            remark = f"{evaluation.model}, {condition}, own thresholds: "
            by_speaker = speakers(points, condition)
            if by_speaker:
                name, (misses, n_recordings) = next(iter(by_speaker.items()))
                often = sum(misses / n > 0.5 for misses, n in by_speaker.values())
                remark += (
                    f"{often} of {len(by_speaker)} speakers missed more than half the time, "
                    f"the worst {name} ({misses} of {n_recordings}); "
                )
            confusions = [
                f"{keyword} for {other} {count}"
                for keyword, point in points.items()
                for other, count in point.figures[condition].confusions.items()
            ]
            remarks.append(remark + f"confusions: {', '.join(confusions) if confusions else 'none'}.")
        unreached = [k for k, p in evaluation.operating_points[TABLE_TARGET_FA_PER_H].items() if not p.reached]
        if unreached:
            remarks.append(
                f"{evaluation.model}: no threshold up to 1 brings {', '.join(unreached)} "
                f"to {TABLE_TARGET_FA_PER_H:g} FA/h; counted as missed throughout."
            )
    remarks += [f"Note: {note}." for note in first.notes]
    remarks += [f"Skipped {skipped}" for skipped in first.skipped]
    return remarks


def _mean_rate(evaluation: Evaluation, condition: str) -> float | None:
    return mean(point.figures[condition].fa_per_h for point in evaluation.at_own_thresholds.values())


def _at(figures: Mapping[str, Figures], condition: str) -> float | None:
    return figures[condition].miss if condition in figures else None


def _area(evaluation: Evaluation, condition: str, keyword: str) -> float | None:
    return evaluation.curves[condition][keyword].area if condition in evaluation.curves else None


def _threshold(point: OperatingPoint) -> str:
    return f"{point.threshold:.4f}" if point.reached else "-"


def _percent(ratio: float | None) -> str:
    return "-" if ratio is None else f"{100 * ratio:.1f} %"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _rate(figures: Figures | None) -> str:
    if figures is None:
        return "-"
    bound = figures.fa_per_h_bound
    return f"{figures.fa_per_h:.2f}" if bound is None else f"0 (<{bound:.2g})"
