"""What a server counts, for those who watch it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

LATE_S = 0.5
"""A chunk is late when its audio has been heard more than so many seconds after the whole message had come."""

REASONS = (
    "bad-message",
    "bad-audio",
    "cut",
    "too-large",
    "wrong-order",
    "unknown-name",
    "busy",
    "idle",
    "slow",
    "crowd",
)
"""Why clients are refused: the codes of errors; slow does not read its answers, crowd came while others were being sent
away."""


@dataclass
class Metrics:
    """Counts since the server was made. Plain numbers, changed where things happen, all in the server's event loop.

    n_clients: clients that were admitted.
    refused: clients that were turned away or disconnected, by reason.
    audio_s: seconds of audio that detectors have heard.
    n_chunks, n_late: audio-chunk messages that have been heard, and those of them that were late.
    detections, near: detections and near misses, by keyword.
    detecting_s: seconds that threads have worked for clients.
    n_errors: clients that a bug in the server has ended.
    """

    n_clients: int = 0
    refused: Counter[str] = field(default_factory=lambda: _zeros(REASONS))
    audio_s: float = 0.0
    n_chunks: int = 0
    n_late: int = 0
    detections: Counter[str] = field(default_factory=Counter)
    near: Counter[str] = field(default_factory=Counter)
    detecting_s: float = 0.0
    n_errors: int = 0

    @classmethod
    def of(cls, keywords: Iterable[str]) -> Metrics:
        """Metrics that have counted none of each keyword: a series that begins with its first event lacks it."""
        names = tuple(keywords)
        return cls(detections=_zeros(names), near=_zeros(names))


def _zeros(names: Iterable[str]) -> Counter[str]:
    return Counter(dict.fromkeys(names, 0))
