"""streamkws demo: find the keywords in a short recording that comes with the package."""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from streamkws.cli.arguments import Commands, add_json_option, add_listening_options, add_models_option, new_detector
from streamkws.cli.output import RESULTS, json_line, printable

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from streamkws.detector import Detector
    from streamkws.smoother import Detection

TIMELINE_COLUMNS = 48
DEMO_BLOCK_SAMPLES = 1280
PACKAGE = Path(__file__).parent.parent


def add_to(commands: Commands) -> None:
    """Add the commands of this module."""
    demo = commands.add(
        _demo,
        "demo",
        "find the keywords in a short recording that comes with the package",
        "streamkws demo",
        "streamkws demo --realtime",
    )
    demo.add_argument("--realtime", action="store_true", help="take as long as the recording lasts")
    add_models_option(demo)
    add_listening_options(demo)
    add_json_option(demo)


@dataclass
class _Expected:
    """A keyword of the demo recording; times in seconds."""

    keyword: str
    start: float
    end: float
    heard: bool = False

    def matches(self, hit: Detection) -> bool:
        """Return whether a detection is of this keyword, and its peak is not too far from it."""
        from streamkws.evaluation.counting import AFTER_S, BEFORE_S

        return hit.keyword == self.keyword and self.start - BEFORE_S <= hit.peak <= self.end + AFTER_S


class _Report:
    """Prints the detections as they come, as lines with a timeline or as JSON, and counts them.

    expected: the keywords that are spoken. duration_s: of the recording.
    """

    def __init__(self, detector: Detector, expected: list[_Expected], duration_s: float, as_json: bool) -> None:
        from rich.console import Console

        self._expected = expected
        self._duration_s = duration_s
        self._as_json = as_json
        self._width = max(map(len, detector.thresholds))
        self._console = Console(highlight=False, soft_wrap=True)
        self._n_false = 0

    def begin(self, model_name: str, samples: npt.NDArray[np.float32]) -> None:
        """Print what the recording is, and its level along the timeline."""
        if not self._as_json:
            print(printable(f"{self._duration_s:.0f} s of synthesized speech in noise, heard by {model_name}:") + "\n")
            self._print(f"  [cyan]{_skyline(samples)}[/]")

    def show(self, hits: Iterable[Detection]) -> None:
        """Print detections, and whether each was expected."""
        for hit in hits:
            match = next((item for item in self._expected if item.matches(hit) and not item.heard), None)
            if match is None:
                self._n_false += 1
            else:
                match.heard = True
            if self._as_json:
                line = {name: getattr(hit, name) for name in RESULTS} | {"expected": match is not None}
                print(json_line(line), flush=True)
            else:
                bar = _at(hit.start, hit.end, self._duration_s)
                verdict = "[green]✓[/]" if match else "[red]false[/]"
                self._print(f"  {bar} {hit.start:6.2f} s  {hit.keyword:<{self._width}}  {hit.score:.2f} {verdict}")

    def end(self, elapsed_s: float, is_realtime: bool) -> None:
        """Print the keywords that were missed, and the counts."""
        n_heard, n_expected = sum(item.heard for item in self._expected), len(self._expected)
        if self._as_json:
            counts = {"heard": n_heard, "expected": n_expected, "false": self._n_false, "audio_s": self._duration_s}
            print(json_line(counts | {"elapsed_s": elapsed_s}))
            return
        for item in self._expected:
            if not item.heard:
                bar = _at(item.start, item.end, self._duration_s)
                self._print(f"  [dim]{bar}[/] {item.start:6.2f} s  {item.keyword:<{self._width}}  [red]missed[/]")
        speed = "" if is_realtime else f", in {elapsed_s:.2f} s: {self._duration_s / elapsed_s:.0f}x real time"
        print(f"\n{n_heard} of {n_expected} keywords heard, {self._n_false} false{speed}")

    def _print(self, line: str) -> None:
        """Print a line of rich markup, with print: a closed pipe then ends the command as in the other commands."""
        with self._console.capture() as capture:
            self._console.print(line)
        print(capture.get(), end="", flush=True)


def _demo(arguments: argparse.Namespace) -> int:
    from streamkws.audio import read_audio

    truth = json.loads((PACKAGE / "demo.json").read_text(encoding="utf-8"))
    detector = new_detector(arguments)
    expected = [_Expected(**item) for item in truth["keywords"] if item["keyword"] in detector.thresholds]
    samples = read_audio(PACKAGE / "demo.flac")
    rate = detector.sample_rate
    report = _Report(detector, expected, len(samples) / rate, arguments.json)
    report.begin(detector.name, samples)
    start_s = time.perf_counter()
    for start in range(0, len(samples), DEMO_BLOCK_SAMPLES):
        block = samples[start : start + DEMO_BLOCK_SAMPLES]
        if arguments.realtime:
            time.sleep(max(0.0, (start + len(block)) / rate - (time.perf_counter() - start_s)))
        report.show(detector.push(block))
    report.show(detector.flush())
    report.end(time.perf_counter() - start_s, arguments.realtime)
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
