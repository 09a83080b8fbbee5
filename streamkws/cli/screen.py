"""The live picture of streamkws listen."""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from streamkws.audio import as_float

if TYPE_CHECKING:
    import numpy.typing as npt
    from rich.text import Text

    from streamkws.detector import Detector
    from streamkws.smoother import Detection

MIN_METER_COLUMNS, MAX_METER_COLUMNS = 4, 50
METER_FLOOR_DB = -60.0
CLIPPING = 0.99  # amplitude from which the level turns red
FALL_PER_S = 0.5  # how fast a keyword's bar falls: a posterior is high for a moment only
HEARD_SHOWN_S = 1.0  # how long a bar stays green
N_HITS = 5  # detections shown
NO_AUDIO_S = 1.0  # after this time without a block the picture says so
LOAD_S, LOAD_WEIGHT = 1.0, 0.3  # how often the load is measured, and what a new measurement weighs
SCREENS_PER_SECOND = 10


class Screen:
    """A picture of the sound level, every keyword's posterior and its threshold, and the last detections.

    It is drawn in a thread of its own, so that it changes also while no audio comes. Lines that are printed meanwhile
    appear above it. The last picture stays on the screen.

    title: the first line: the microphone and the models.
    """

    def __init__(self, detector: Detector, title: str) -> None:
        from rich.console import Console
        from rich.live import Live

        self._detector = detector
        self._title = title
        self._thresholds = detector.thresholds
        self._name_columns = max(len("level"), *map(len, self._thresholds))
        self._console = Console(highlight=False)
        self._level = 0.0  # largest amplitude since the last picture
        self._posteriors = dict.fromkeys(self._thresholds, 0.0)  # largest recent ones, falling
        self._drawn_s = time.monotonic()
        self._heard_s = dict.fromkeys(self._thresholds, float("-inf"))
        self._hits: deque[tuple[datetime, Detection]] = deque(maxlen=N_HITS)
        self._lost_s = 0.0
        self._came_s = time.monotonic()
        self._load = _Load()
        self._live = Live(
            console=self._console,
            get_renderable=self.picture,
            refresh_per_second=SCREENS_PER_SECOND,
            vertical_overflow="crop",
            redirect_stderr=sys.stderr is not None and sys.stderr.isatty(),
        )

    def __enter__(self) -> Screen:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, block: npt.NDArray[Any], hits: Iterable[Detection], lost_s: float) -> None:
        """Take the next block, the detections in it, and the seconds of audio lost so far."""
        self._came_s = time.monotonic()
        self._lost_s = lost_s
        if len(block):
            self._level = max(self._level, float(abs(as_float(block)).max()))
        for keyword, posterior in zip(self._detector.keywords, self._detector.levels(), strict=True):
            if keyword in self._posteriors:
                self._posteriors[keyword] = max(self._posteriors[keyword], float(posterior))
        for hit in hits:
            if not hit.near:
                self._heard_s[hit.keyword] = self._came_s
            self._hits.appendleft((datetime.now(), hit))

    def picture(self) -> Text:
        """Draw the picture of now."""
        from rich.text import Text

        now_s = time.monotonic()
        level, self._level = self._level, 0.0
        posteriors = dict(self._posteriors)
        fall = FALL_PER_S * (now_s - self._drawn_s)
        self._posteriors = {keyword: max(0.0, posterior - fall) for keyword, posterior in posteriors.items()}
        self._drawn_s = now_s
        minutes, seconds = divmod(int(self._detector.heard_s), 60)
        picture = Text(no_wrap=True, overflow="crop", end="")
        picture.append(f"{self._title}, {minutes}:{seconds:02d}; Ctrl-C ends\n", "dim")
        level_db = max(20 * math.log10(max(level, 1e-9)), METER_FLOOR_DB)
        picture.append_text(
            self._bar("level", 1 - level_db / METER_FLOOR_DB, None, "red" if level > CLIPPING else "cyan")
        )
        if now_s - self._came_s > NO_AUDIO_S:
            picture.append(f" none, {now_s - self._came_s:.0f} s\n", "red")
        else:
            picture.append(f" {level_db:5.0f} dB\n")
        for keyword, threshold in self._thresholds.items():
            posterior = posteriors[keyword]
            style = "green" if now_s - self._heard_s[keyword] < HEARD_SHOWN_S or posterior >= threshold else "yellow"
            picture.append_text(self._bar(keyword, posterior, threshold, style))
            picture.append(f" {posterior:5.2f} of {threshold:.2f}\n")
        picture.append(f"\n  lost {self._lost_s:.2f} s of audio", "red" if self._lost_s else "dim")
        picture.append(f", {self._load.share():.1%} of a core\n\n", "dim")
        for when, hit in tuple(self._hits):
            line = f"  {when:%H:%M:%S}  {hit.keyword:<{self._name_columns}}  {hit.score:.2f}"
            picture.append(f"{line}  near\n" if hit.near else f"{line}\n", "dim" if hit.near else "")
        if not self._hits:
            picture.append("  nothing heard yet\n", "dim")
        picture.right_crop(1)
        return picture

    def _bar(self, name: str, value: float, mark: float | None, style: str) -> Text:
        """Draw one bar, value and mark from 0 to 1."""
        from rich.text import Text

        frame = len("    ") + self._name_columns + len(" 0.00 of 0.00 ")
        n_columns = min(max(self._console.width - frame, MIN_METER_COLUMNS), MAX_METER_COLUMNS)
        n_full = round(min(max(value, 0.0), 1.0) * n_columns)
        bar = "█" * n_full + "·" * (n_columns - n_full)
        text = Text(f"  {name:<{self._name_columns}}  ").append(bar[:n_full], style).append(bar[n_full:], "dim")
        if mark is not None:
            column = 4 + self._name_columns + min(round(mark * n_columns), n_columns - 1)
            text = text[:column].append("│", "bold").append_text(text[column + 1 :])
        return text


class _Load:
    """How much of a core this process uses, smoothed over some seconds."""

    def __init__(self) -> None:
        self._share = 0.0
        self._weight = 1.0  # of the next measurement
        self._wall_s, self._cpu_s = time.monotonic(), time.process_time()

    def share(self) -> float:
        """CPU time over wall time; 1 is a whole core."""
        wall_s, cpu_s = time.monotonic(), time.process_time()
        if wall_s - self._wall_s >= LOAD_S:
            share = (cpu_s - self._cpu_s) / (wall_s - self._wall_s)
            self._share += self._weight * (share - self._share)
            self._weight = LOAD_WEIGHT
            self._wall_s, self._cpu_s = wall_s, cpu_s
        return self._share
