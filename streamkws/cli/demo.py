"""streamkws demo: the keywords in a short recording that comes with the package."""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from streamkws.cli.arguments import Commands, add_json_option, add_model_options, new_detector
from streamkws.cli.output import RESULTS, json_line

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from streamkws.smoother import Detection

EARLY_S, LATE_S = 0.2, 0.5  # how far from the spoken keyword a detection still counts (DESIGN.md, section 5)
TIMELINE_COLUMNS = 48
DEMO_BLOCK_SAMPLES = 1280
PACKAGE = Path(__file__).parent.parent


def add_to(commands: Commands) -> None:
    """Add the commands of this module."""
    demo = commands.add(
        _demo,
        "demo",
        "hear the keywords in a short recording that comes with the package",
        "streamkws demo",
        "streamkws demo --realtime",
    )
    demo.add_argument("--realtime", action="store_true", help="at the speed of speech")
    add_model_options(demo)
    add_json_option(demo)


@dataclass
class _Expected:
    """A keyword of the demo recording; times in seconds."""

    keyword: str
    start: float
    end: float
    heard: bool = False

    def matches(self, hit: Detection) -> bool:
        """Whether a detection belongs to it."""
        return hit.keyword == self.keyword and self.start - EARLY_S <= hit.peak <= self.end + LATE_S


def _demo(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from streamkws.audio import read_audio

    truth = json.loads((PACKAGE / "demo.json").read_text(encoding="utf-8"))
    detector = new_detector(arguments)
    keywords = detector.thresholds
    expected = [_Expected(**item) for item in truth["keywords"] if item["keyword"] in keywords]
    samples = read_audio(PACKAGE / "demo.flac")
    rate = detector.model.config.frontend.sample_rate
    duration_s = len(samples) / rate
    console = Console(highlight=False, soft_wrap=True)
    width = max(map(len, keywords))

    def styled(line: str) -> None:
        """Print a line of rich markup; by print, since rich has its own way to end on a closed pipe."""
        with console.capture() as capture:
            console.print(line)
        print(capture.get(), end="", flush=True)

    def show(hits: Iterable[Detection]) -> int:
        """Print detections and return how many of them were not expected."""
        n_false = 0
        for hit in hits:
            match = next((item for item in expected if item.matches(hit) and not item.heard), None)
            if match is None:
                n_false += 1
            else:
                match.heard = True
            if arguments.json:
                line = {name: getattr(hit, name) for name in RESULTS} | {"expected": match is not None}
                print(json_line(line), flush=True)
            else:
                bar = _at(hit.start, hit.end, duration_s)
                verdict = "[green]✓[/]" if match else "[red]false[/]"
                styled(f"  {bar} {hit.start:6.2f} s  {hit.keyword:<{width}}  {hit.score:.2f} {verdict}")
        return n_false

    if not arguments.json:
        print(f"{duration_s:.0f} s of synthesized speech in noise, heard by {detector.model.name}:\n")
        styled(f"  [cyan]{_skyline(samples)}[/]")
    n_false = 0
    start_s = time.perf_counter()
    for start in range(0, len(samples), DEMO_BLOCK_SAMPLES):
        block = samples[start : start + DEMO_BLOCK_SAMPLES]
        if arguments.realtime:
            time.sleep(max(0.0, (start + len(block)) / rate - (time.perf_counter() - start_s)))
        n_false += show(detector.push(block))
    n_false += show(detector.flush())
    elapsed_s = time.perf_counter() - start_s
    n_heard = sum(item.heard for item in expected)
    if arguments.json:
        summary = {"heard": n_heard, "expected": len(expected), "false": n_false, "audio_s": duration_s}
        print(json_line(summary | {"elapsed_s": elapsed_s}))
        return 0
    for item in expected:
        if not item.heard:
            bar = _at(item.start, item.end, duration_s)
            styled(f"  [dim]{bar}[/] {item.start:6.2f} s  {item.keyword:<{width}}  [red]missed[/]")
    speed = "" if arguments.realtime else f", in {elapsed_s:.2f} s: {duration_s / elapsed_s:.0f}x real time"
    print(f"\n{n_heard} of {len(expected)} keywords heard, {n_false} false{speed}")
    return 0


def _at(start_s: float, end_s: float, duration_s: float) -> str:
    """Draw a stretch of the timeline."""
    first = min(int(start_s / duration_s * TIMELINE_COLUMNS), TIMELINE_COLUMNS - 1)
    n = max(1, round((end_s - start_s) / duration_s * TIMELINE_COLUMNS))
    return ("·" * first + "█" * n).ljust(TIMELINE_COLUMNS, "·")[:TIMELINE_COLUMNS]


def _skyline(samples: npt.NDArray[np.float32]) -> str:
    """Draw the level of a recording along the timeline, 5 dB a step."""
    import numpy as np

    parts = np.array_split(samples.astype(np.float64), TIMELINE_COLUMNS)
    level_db = [10 * math.log10(float(np.mean(part**2)) + 1e-12) for part in parts]
    return "".join("▁▂▃▄▅▆▇█"[round(min(max(7 + (db - max(level_db)) / 5, 0), 7))] for db in level_db)
