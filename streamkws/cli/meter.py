"""The live level of a microphone that records, as a bar in a terminal; nothing in a pipe."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

from streamkws.audio import Samples
from streamkws.cli.screen import CLIPPING, MAX_METER_COLUMNS, METER_FLOOR_DB, MIN_METER_COLUMNS, SCREENS_PER_SECOND
from streamkws.takes import SILENCE_DB, peak_db

if TYPE_CHECKING:
    from rich.live import Live
    from rich.text import Text


class Meter:
    """A line with the sound level and what is to be done. Lines that are printed meanwhile appear above it.

    It is drawn in a thread of its own, and is gone at the end.

    is_live: whether there is a terminal that shows it.
    """

    def __init__(self) -> None:
        self._says = ""
        self._level_db = SILENCE_DB  # highest since the last picture
        self._lock = threading.Lock()
        self._live: Live | None = None
        self.is_live = sys.stdout.isatty()
        if not self.is_live:
            return
        from rich.console import Console
        from rich.live import Live

        self._console = Console(highlight=False)
        self._live = Live(
            console=self._console,
            get_renderable=self.picture,
            refresh_per_second=SCREENS_PER_SECOND,
            transient=True,
            redirect_stderr=sys.stderr is not None and sys.stderr.isatty(),
        )

    def __enter__(self) -> Meter:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, block: Samples, says: str) -> None:
        """Take the next block, and what is to be done."""
        with self._lock:
            self._says = says
            self._level_db = max(self._level_db, peak_db(block))

    def picture(self) -> Text:
        """Draw the line of now."""
        from rich.text import Text

        with self._lock:
            level_db, self._level_db = self._level_db, SILENCE_DB
        n_columns = min(max(self._console.width - len(self._says) - 14, MIN_METER_COLUMNS), MAX_METER_COLUMNS)
        n_full = round(min(max(1 - level_db / METER_FLOOR_DB, 0), 1) * n_columns)
        picture = Text(no_wrap=True, overflow="crop")
        picture.append("█" * n_full, "red" if 10 ** (level_db / 20) > CLIPPING else "cyan")
        picture.append("·" * (n_columns - n_full), "dim")
        return picture.append(f" {max(level_db, METER_FLOOR_DB):4.0f} dB  {self._says}")
