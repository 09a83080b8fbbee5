"""How far a scan is, and what came of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from streamkws.scanning.hearing import Heard


@dataclass
class Summary:
    """What is in a scan's output.

    keywords: those that were listened for. recordings: heard to their end. failed: those that were not.
    audio_s: seconds of audio. hits: detections of each keyword. decode_s, compute_s: seconds of all cores together that
    reading and decoding, and detecting, took. wall_s: seconds that scanning took, pauses not counted.
    """

    keywords: tuple[str, ...]
    recordings: int = 0
    failed: int = 0
    audio_s: float = 0.0
    decode_s: float = 0.0
    compute_s: float = 0.0
    wall_s: float = 0.0
    hits: Counter[str] = field(default_factory=Counter)

    def count(self, heard: Heard) -> None:
        """Add a recording."""
        self.count_rows(
            {"audio_s": [heard.audio_s], "decode_s": [heard.decode_s], "compute_s": [heard.compute_s]},
            failed=bool(heard.error),
        )
        self.hits.update(hit.keyword for hit in heard.hits)

    def count_rows(self, rows: Mapping[str, Sequence[float]], failed: bool = False) -> None:
        """Add recordings: lists of audio_s, decode_s and compute_s."""
        n = len(rows["audio_s"])
        self.recordings += 0 if failed else n
        self.failed += n if failed else 0
        self.audio_s += sum(rows["audio_s"])
        self.decode_s += sum(rows["decode_s"])
        self.compute_s += sum(rows["compute_s"])

    @property
    def hours(self) -> float:
        """Hours of audio."""
        return self.audio_s / 3600

    @property
    def times_real_time(self) -> float:
        """Seconds of audio in a second of scanning; 0 before there was any."""
        return self.audio_s / self.wall_s if self.wall_s else 0.0

    def as_json(self) -> dict[str, Any]:
        """It as a JSON object."""
        return {
            "recordings": self.recordings,
            "failed": self.failed,
            "hours": round(self.hours, 6),
            "hits": {keyword: self.hits[keyword] for keyword in self.keywords},
            "times_real_time": round(self.times_real_time, 2),
            "wall_s": round(self.wall_s, 3),
            "decode_s": round(self.decode_s, 3),
            "compute_s": round(self.compute_s, 3),
        }


@dataclass
class Progress:
    """How far this run of a scan is; what earlier runs heard is not in it.

    total, total_bytes: recordings that are to be heard, and their sizes.
    done, done_bytes: those heard, or failed. audio_s: seconds of audio. failed, hits: of these.
    """

    total: int = 0
    total_bytes: int = 0
    done: int = 0
    done_bytes: int = 0
    audio_s: float = 0.0
    failed: int = 0
    hits: int = 0
    started: float = field(default_factory=perf_counter)

    def expect(self, n_bytes: int) -> None:
        """Add a recording that is to be heard."""
        self.total += 1
        self.total_bytes += n_bytes

    def count(self, heard: Heard, n_bytes: int, is_last: bool) -> None:
        """Add what was heard of a recording. is_last: whether that was the last of it."""
        self.done += is_last
        self.done_bytes += n_bytes
        self.audio_s += heard.audio_s
        self.failed += is_last and bool(heard.error)
        self.hits += len(heard.hits)

    @property
    def wall_s(self) -> float:
        """Seconds since the run began."""
        return perf_counter() - self.started

    @property
    def part(self) -> float:
        """How much of the work is done, from 0 to 1, by the sizes of the files."""
        return min(1.0, self.done_bytes / self.total_bytes) if self.total_bytes else 1.0

    @property
    def left_s(self) -> float | None:
        """Seconds that it may still take; None before anything was heard."""
        return self.wall_s * (1 - self.part) / self.part if self.part else None

    def event(self) -> dict[str, Any]:
        """It as an event."""
        return {
            "event": "progress",
            "recordings": self.done,
            "of": self.total,
            "done": self.part,
            "hours": self.audio_s / 3600,
            "times_real_time": self.audio_s / self.wall_s,
            "left_s": self.left_s,
            "hits": self.hits,
            "errors": self.failed,
        }
