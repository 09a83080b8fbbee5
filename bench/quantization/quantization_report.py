"""Tables and the picture of quantization.py, from its records alone.

A record is what was measured of one variant of one trained network: see the keys in quantization.json.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.report import markdown

Record = dict[str, Any]

MEASURES = {"wakewords": ("det_area", "DET area"), "commands": ("error", "error rate")}
"""The figure of each task, a share of 1, lower is better."""
NETWORKS = ("dilated", "fully connected")
PLACES = [(task, network) for task in MEASURES for network in NETWORKS]


@dataclass(frozen=True)
class Results:
    """All records, and what is asked of them."""

    records: Sequence[Record]

    def of(self, task: str, network: str, variant: str, size: int = 100) -> list[Record]:
        """The records of a variant, in the order of the seeds."""
        found = [
            record
            for record in self.records
            if (record["task"], record["network"], record["size"], record["variant"]) == (task, network, size, variant)
        ]
        return sorted(found, key=lambda record: int(record["seed"]))

    def values(self, task: str, network: str, variant: str, size: int = 100) -> dict[int, float]:
        """The task's figure by seed, in percent."""
        key = MEASURES[task][0]
        return {record["seed"]: 100 * record[key] for record in self.of(task, network, variant, size)}

    def changes(self, task: str, network: str, variant: str, base: str = "f32-full", size: int = 100) -> list[float]:
        """By how much each seed's figure is above the same seed's base: percent of it, or for commands points."""
        values, bases = self.values(task, network, variant, size), self.values(task, network, base, size)
        both = [(values[seed], bases[seed]) for seed in values if seed in bases]
        return [100 * (value / before - 1) if task == "wakewords" else value - before for value, before in both]


def mean_and_spread(values: Sequence[float], digits: int = 2, sign: bool = False) -> str:
    """Mean ± standard deviation (of a sample), the number of values where it is one; "-" without any."""
    if not values:
        return "-"
    mean = f"{np.mean(values):{'+' if sign else ''}.{digits}f}"
    return f"{mean} ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else f"{mean} (1)"


def _headings() -> list[str]:
    units = {"wakewords": "DET area, %", "commands": "errors, %"}
    return [f"{task}, {network}: {units[task]}" for task, network in PLACES]


def _cells(results: Results, variant: str) -> list[str]:
    """A variant's figures, one cell for each task and network."""
    return [mean_and_spread(list(results.values(task, network, variant).values())) for task, network in PLACES]


def _first_seed(results: Results, task: str, network: str, variant: str, size: int = 100) -> str:
    """A variant's figure with seed 1; "-" without one."""
    value = results.values(task, network, variant, size).get(1)
    return "-" if value is None else f"{value:.2f}"


ROWS = [
    ("f32", "f32-full"),
    ("f32, trained on as long as the aware ones", "f32-longer"),
    ("w8a8, after training", "w8a8-after"),
    ("w4a8, after training", "w4a8-after"),
    ("w4a8, aware", "w4a8-aware"),
    ("w4a8, aware at a fifth of the learning rate", "w4a8-aware-gentle"),
    ("w3a8, after training", "w3a8-after"),
    ("w3a8, aware", "w3a8-aware"),
    ("w2a8, after training", "w2a8-after"),
    ("w2a8, aware", "w2a8-aware"),
    ("w4a4, after training", "w4a4-after"),
    ("w4a4, aware", "w4a4-aware"),
]


def widths_table(results: Results) -> str:
    """Figures at 100k parameters, every width, after training and aware."""
    return markdown(["100k parameters", *_headings()], [[label, *_cells(results, variant)] for label, variant in ROWS])


def changes_table(results: Results) -> str:
    """Changes against f32 of the same seed."""
    rows = [
        [
            label,
            *(
                mean_and_spread(results.changes(task, network, variant), 2 if task == "commands" else 1, sign=True)
                for task, network in PLACES
            ),
        ]
        for label, variant in ROWS[1:]
    ]
    units = {"wakewords": "% of f32's DET area", "commands": "points of error"}
    return markdown(["against f32", *(f"{task}, {network}: {units[task]}" for task, network in PLACES)], rows)


def parts_table(results: Results) -> str:
    """What columns and per-frame ranges are worth, after training."""
    ranges = [
        ("columns, per frame", ""),
        ("whole matrix, per frame", "-matrix"),
        ("columns, static", "-static"),
        ("whole matrix, static", "-matrix-static"),
    ]
    rows = []
    for bits in ("w8a8", "w4a8", "w8a4", "w4a4"):
        for label, suffix in ranges:
            rows.append([bits, label, *_cells(results, f"{bits}-after{suffix}")])
        if bits.endswith("a4"):
            own = _cells(results, f"{bits}-after-static-output")
            rows.append([bits, "columns, static but for the output vector", *own])
    return markdown(["after training", "ranges: weights, activations", *_headings()], rows, n_text=2)


def options_table(results: Results) -> str:
    """What wider ends, gradients through the ranges and whole-matrix ranges do in aware training; seed 1."""
    names = [
        ("w4a8 aware", "w4a8-aware"),
        ("w4a8 aware, gradients through min and max", "w4a8-aware-ranges"),
        ("w4a8 aware, whole-matrix ranges", "w4a8-aware-matrix"),
        ("w4a8 aware from scratch", "w4a8-scratch"),
        ("w3a8 aware", "w3a8-aware"),
        ("w2a8 aware", "w2a8-aware"),
        ("w2a8 aware, gradients through min and max", "w2a8-aware-ranges"),
        ("w2a8 aware, first and last layer w8a8", "w2a8-aware-ends8"),
        ("w4a4 aware", "w4a4-aware"),
        ("w4a4 aware, first and last layer w8a8", "w4a4-aware-ends8"),
    ]
    rows = []
    for label, variant in names:
        cells = [_first_seed(results, task, network, variant) for task, network in PLACES]
        n_bytes = [
            f"{found[0]['stored_bytes']:,}" if (found := results.of("commands", network, variant)) else "-"
            for network in NETWORKS
        ]
        if cells != ["-"] * len(cells):
            rows.append([label, *cells, *n_bytes])
    return markdown(["seed 1", *_headings(), *(f"commands, {network}: bytes" for network in NETWORKS)], rows)


def sizes_table(results: Results) -> str:
    """Figures by network size, seed 1."""
    rows = []
    for task, network in PLACES:
        for size in (50, 100, 250):
            full = [record for record in results.of(task, network, "f32-full", size) if record["seed"] == 1]
            if not full:
                continue
            variants = ("f32-full", "w8a8-after", "w4a8-after", "w4a8-aware")
            cells = [_first_seed(results, task, network, variant, size) for variant in variants]
            rows.append([f"{task}, {network}", f"{full[0]['parameters']:,}", *cells])
    header = ["task: DET area or errors, %", "parameters", "f32", "w8a8 after", "w4a8 after", "w4a8 aware"]
    return markdown(header, rows)


def long_remark(results: Results) -> str:
    """How the largest network does on the commands when trained for long, against what is published."""
    found = results.of("commands", "dilated", "f32-long", size=250)
    if not found:
        return "The long training of the largest network is still to be done."
    full = found[0]
    quantized = [
        f"{bits} {_first_seed(results, 'commands', 'dilated', f'{bits}-after-long', size=250)} %"
        for bits in ("w8a8", "w4a8")
    ]
    return (
        f"Trained for {full['training']['steps']:,} steps ({full['training']['minutes']:.0f} min on one core) on four "
        f"times as many perturbed takes, the dilated network of {full['parameters']:,} parameters errs on "
        f"{100 * full['error']:.2f} % of the {full['clips']:,.0f} command clips of dev ({', '.join(quantized)} "
        f"without retraining; one seed): {100 * (1 - full['error']):.1f} % right. The best published is 99.59 % "
        "(AraSpot, 2023), by a far larger network that also learned from synthetic speech, on the data set's test "
        "part, which is not here."
    )


def memory_table(results: Results) -> str:
    """Bytes of weights and tables against f32, stored and as held in memory."""
    rows = []
    for network in NETWORKS:
        base = results.of("commands", network, "f32-full")
        for bits in ("f32", "w8a8", "w4a8", "w3a8", "w2a8"):
            found = results.of("commands", network, "f32-full" if bits == "f32" else f"{bits}-after")
            if not found or not base:
                continue
            stored, resident = found[0]["stored_bytes"], found[0]["resident_bytes"]
            cells = []
            for n_bytes, key in ((stored, "stored_bytes"), (resident, "resident_bytes")):
                cells += [f"{n_bytes:,}", f"{100 * (1 - n_bytes / base[0][key]):.1f} %"]
            rows.append([f"commands, {network}", bits, *cells])
    return markdown(
        ["100k parameters", "widths", "stored, bytes", "saved", "in memory, bytes", "saved"], rows, n_text=2
    )


def remarks(results: Results) -> str:
    """What the issue asked, answered in sentences made of the figures."""
    lines = []
    for task, network in PLACES:
        after, aware = (results.changes(task, network, f"w4a8-{how}") for how in ("after", "aware"))
        eight = results.changes(task, network, "w8a8-after")
        if len(after) < 2 or not (aware and eight):
            continue
        unit = "%" if task == "wakewords" else "points"
        lost, left = float(np.mean(after)), float(np.mean(aware))
        if lost > 2 * np.std(after, ddof=1) / np.sqrt(len(after)):
            verdict = f"aware training won back {100 * (1 - left / lost):.0f} % of the loss"
        else:
            verdict = "after training, no loss beyond two standard errors"
        fair = results.changes(task, network, "w4a8-aware", base="f32-longer")
        if fair:
            verdict += f"; against f32 trained on as long, aware is at {mean_and_spread(fair, sign=True)}"
        gentle = results.changes(task, network, "w4a8-aware-gentle")
        if gentle:
            verdict += f"; aware at a fifth of the learning rate {mean_and_spread(gentle, sign=True)} against f32"
        lines.append(
            f"- {task}, {network}: w8a8 {mean_and_spread(eight, sign=True)} {unit} against f32; w4a8 "
            f"{mean_and_spread(after, sign=True)} after training, {mean_and_spread(aware, sign=True)} aware: {verdict}."
        )
    return "\n".join(lines)


def parts_remarks(results: Results) -> str:
    """What leaving out columns or per-frame ranges costs, seed by seed."""
    lines = []
    for task, network in PLACES:
        cells = []
        for what, variant, base in (
            ("whole matrix instead of columns: w8a8", "w8a8-after-matrix", "w8a8-after"),
            ("w4a8", "w4a8-after-matrix", "w4a8-after"),
            ("static instead of per-frame ranges: w8a8", "w8a8-after-static", "w8a8-after"),
            ("w8a4", "w8a4-after-static", "w8a4-after"),
            ("of it without the output vector's", "w8a4-after-static-output", "w8a4-after"),
        ):
            changes = results.changes(task, network, variant, base)
            if changes:
                cells.append(f"{what} {mean_and_spread(changes, 1 if task == 'wakewords' else 2, sign=True)}")
        if cells:
            unit = "% of DET area" if task == "wakewords" else "points of error"
            lines.append(f"- {task}, {network} ({unit}): {', '.join(cells)}.")
    return "\n".join(lines)


def report(results: Results) -> str:
    """All tables, with what they show."""
    return "\n\n".join(
        [
            widths_table(results),
            "The same as changes against the full-precision network of the same seed:",
            changes_table(results),
            remarks(results),
            "What each part of the method is worth. Static ranges, the output vector's included, are calibrated on 512 "
            "training examples, each the one of least square error among those that cover 100, 99.99, 99.9 or 99 % of "
            "the values. On the wake words a static 4-bit output is most of the loss: keywords are rare, and its 16 "
            "levels go to the logits of silence and other speech (in the one network looked at, the highest posterior "
            "left was a third); hence the rows without it.",
            parts_table(results),
            parts_remarks(results),
            "Options of the aware training (seed 1):",
            options_table(results),
            "By size (seed 1):",
            sizes_table(results),
            long_remark(results),
            "Memory, weights and tables:",
            memory_table(results),
        ]
    )


def draw(results: Results, path: Path) -> None:
    """Figure against bytes stored: 2 to 8 bits and f32, after training and aware; a panel per task and network."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "streamkws"
    matplotlib.rcParams["svg.fonttype"] = "none"
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(2, 2, figsize=(9, 6.6), layout="constrained")
    series = [
        ("after training", [f"w{bits}a8-after" for bits in range(2, 9)], "#0072b2", "o-"),
        ("quantization-aware", [f"w{bits}a8-aware" for bits in (2, 3, 4)], "#d55e00", "s--"),
        ("full precision", ["f32-full"], "#000000", "D"),
    ]
    for panel, (task, network) in zip(panels.ravel(), PLACES, strict=True):
        for label, variants, colour, style in series:
            points = []
            for variant in variants:
                values = list(results.values(task, network, variant).values())
                if values:
                    n_bytes = results.of(task, network, variant)[0]["stored_bytes"]
                    spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
                    name = variant.split("-")[0].removeprefix("w").removesuffix("a8")
                    points.append((n_bytes / 1000, float(np.mean(values)), spread, name))
            if not points:
                continue
            x, y, spreads, names = zip(*points, strict=True)
            panel.errorbar(x, y, yerr=spreads, fmt=style, color=colour, capsize=3, markersize=5, label=label)
            aware = label == "quantization-aware"
            for x_value, y_value, name in zip(x, y, names, strict=True):
                panel.annotate(
                    name, (x_value, y_value), textcoords="offset points", xytext=(-5, -9) if aware else (5, 4),
                    ha="right" if aware else "left", fontsize=8, color=colour,
                )  # fmt: skip
            if label == "full precision":
                panel.axhline(y[0], color=colour, linewidth=0.7, linestyle=":")
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.set_xlim(20, 520)
        panel.set_xticks([25, 50, 100, 200, 400], ["25", "50", "100", "200", "400"])
        panel.minorticks_off()
        panel.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        panel.yaxis.set_minor_formatter(lambda value, _: f"{value:g}")
        low, high = panel.get_ylim()
        ticks = [t for t in (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100) if low <= t <= high]
        panel.set_yticks(ticks)
        panel.set_title(f"{task}, {network} network", fontsize=10)
        panel.set_xlabel("weights and tables, stored (kB)")
        panel.set_ylabel(f"{MEASURES[task][1]} on dev (%)")
        panel.grid(alpha=0.3, which="both")
    panels[0, 0].legend(fontsize=8)
    figure.suptitle("Weights of 2 to 8 bits (numbers) with 8-bit activations, 100k parameters, 3 seeds", fontsize=11)
    figure.savefig(path, format="svg", metadata={"Date": None})
    plt.close(figure)
