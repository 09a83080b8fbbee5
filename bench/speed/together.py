"""Two models on one stream: one detector of both against a detector of each, on one pinned core.

    python bench/speed/together.py             two networks of every shipped width, blocks of 10 and 80 ms
    python bench/speed/together.py --write     also write the table in bench/README.md
    python bench/speed/together.py --json FILE the figures; - is standard output

The second model is the shipped one again with other keywords: a network as large, with weights of its own and an equal
front end. The audio is the demo recording, over and over. One model, two detectors and one detector of both take turns.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import streamkws
from bench.report import markdown, publish
from bench.speed.latency import WHOLE
from bench.speed.speed import new_parser
from streamkws import Detector, Model, load_model
from streamkws.audio import read_audio
from streamkws.evaluation.latency import Timing, as_int16, cut, join, measure

PAIRS = (("f32", "f32"), ("w8a8", "w8a8"), ("w4a8", "w4a8"), ("w4a8", "f32"))
BLOCKS = (160, 1280)
ONE, TWO, BOTH = "one model", "two detectors", "one detector of both"


def renamed(model: Model) -> Model:
    """The model again, with other keywords."""
    names = {keyword: f"my {keyword}" for keyword in model.keywords}
    thresholds = {names[keyword]: value for keyword, value in model.thresholds.items()}
    durations = {names[keyword]: value for keyword, value in model.config.durations_s.items()}
    config = replace(model.config, keywords=tuple(names.values()), thresholds=thresholds, durations_s=durations)
    return Model(config, model.layers, model.features, model.filters)


def pushes(first: Model, second: Model) -> dict[str, Callable[[Any], object]]:
    """What takes a block, by what it is called."""
    a, b = Detector(first), Detector(second)

    def each(block: Any) -> None:
        a.push(block)
        b.push(block)

    return {ONE: Detector(first).push, TWO: each, BOTH: Detector([first, second]).push}


def in_turns(
    called: dict[str, Callable[[Any], object]], blocks: list[Any], block_samples: int, n_rounds: int
) -> dict[str, float]:
    """Microseconds per 10 ms of audio of each, measured in turns, every other time backwards."""
    timings: dict[str, list[Timing]] = {name: [] for name in called}
    for number in range(n_rounds):
        for name in list(called) if number % 2 == 0 else reversed(called):
            timings[name].append(measure(called[name], blocks, block_samples, len(blocks)))
    return {name: join(of_one[1:]).typical_us_per_10ms(len(blocks)) for name, of_one in timings.items()}


def table(results: list[dict[str, Any]]) -> str:
    """The figures as a markdown table."""
    header = ["models", "block, ms", ONE, TWO, BOTH, "of two detectors", "the second model's share"]
    rows = []
    for one in results:
        us = [one[name] for name in (ONE, TWO, BOTH)]
        cells = [one["models"], f"{one['block_samples'] / 16:g}", *(f"{value:.2f}" for value in us)]
        rows.append([*cells, f"{us[2] / us[1]:.2f}", f"{us[2] / us[0] - 1:.2f}"])
    return markdown(header, rows)


def main() -> None:
    """Measure, print, and write where asked to."""
    parser = new_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="turns through the recording, and one to warm up (20)")
    arguments = parser.parse_args()
    if arguments.core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {arguments.core})
    samples = as_int16(read_audio(Path(streamkws.__file__).parent / "demo.flac"))
    samples = samples[: samples.size // WHOLE * WHOLE]
    results = []
    for first, second in PAIRS:
        called = pushes(load_model(f"wakewords.{first}"), renamed(load_model(f"wakewords.{second}")))
        for block_samples in BLOCKS:
            us = in_turns(called, cut(samples, block_samples), block_samples, arguments.rounds + 1)
            results.append({"models": f"{first} + {second}", "block_samples": block_samples, **us})
            print(f"{first} + {second}, blocks of {block_samples}", file=sys.stderr)
    text = (
        f"{table(results)}\n\nMicroseconds per 10 ms of audio on one pinned core: each block at the median of "
        f"{arguments.rounds} turns, averaged over the {samples.size / 16_000:.0f} s of the recording."
    )
    publish(arguments, "together", text, results)


if __name__ == "__main__":
    main()
