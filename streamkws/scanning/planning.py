"""How recordings become work: units, each a task of Dask's, and parts, each a commit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from streamkws.audio import SAMPLE_RATE, AudioFile
from streamkws.errors import AudioError
from streamkws.scanning.entries import even_cuts
from streamkws.scanning.hearing import Piece
from streamkws.scanning.listing import Recording, is_address


@dataclass(frozen=True)
class Sizes:
    """How large the work is cut.

    unit_bytes: of a unit's files, about: some seconds of work, against the millisecond that a task costs Dask.
    unit_recordings: most recordings of a unit. part_units: units of a part. shortest_s: no piece of a file is shorter.
    """

    unit_bytes: int = 128 << 20
    unit_recordings: int = 500
    part_units: int = 8
    shortest_s: float = 300.0

    def for_work(self, n_bytes: int, n_cores: int) -> Sizes:
        """Sizes for so much work on so many cores: each gets many units, so that none waits long at the end, and there
        are many parts, so that little is done twice when a scan ends early."""
        even = max(LEAST_BYTES, n_bytes // (UNITS_PER_CORE * n_cores))
        unit_bytes = min(self.unit_bytes, even)
        part_units = max(1, min(self.part_units, n_bytes // unit_bytes // FEW_PARTS))
        return replace(self, unit_bytes=unit_bytes, part_units=part_units)


LEAST_BYTES, UNITS_PER_CORE, FEW_PARTS = 2 << 20, 16, 32


@dataclass
class Part:
    """Recordings that are committed together, and the units in which they are heard."""

    recordings: list[Recording] = field(default_factory=list)
    units: list[list[Piece]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The same for the same recordings: 16 hexadecimal digits."""
        keys = "".join(recording.key for recording in self.recordings)
        return hashlib.sha256(keys.encode()).hexdigest()[:16]


def parts(recordings: Iterable[Recording], sizes: Sizes, step_samples: int) -> Iterator[Part]:
    """Divide recordings into parts, in their order. Long files are cut at multiples of step_samples."""
    part, n_bytes, is_full = Part(), 0, True  # the last unit's bytes, and whether it takes no more
    for recording in recordings:
        pieces = _pieces(recording, sizes, step_samples)
        part.recordings.append(recording)
        if len(pieces) > 1:
            part.units += [[piece] for piece in pieces]
            is_full = True
        else:
            if is_full:
                part.units.append([])
                n_bytes = 0
            part.units[-1] += pieces
            n_bytes += recording.n_bytes
            is_full = n_bytes >= sizes.unit_bytes or len(part.units[-1]) >= sizes.unit_recordings
        if is_full and len(part.units) >= sizes.part_units:
            yield part
            part = Part()
    if part.recordings:
        yield part


def _pieces(recording: Recording, sizes: Sizes, step_samples: int) -> list[Piece]:
    """The pieces of a recording: itself, unless it is long and can be cut without a difference."""
    n_pieces = -(-recording.n_bytes // sizes.unit_bytes)
    if n_pieces < 2 or is_address(recording.path):
        return [Piece(recording)]
    try:
        with AudioFile(recording.path) as audio:
            seconds = (audio.duration_s or 0) - (recording.offset_s or 0)
            seconds = min(seconds, recording.duration_s or seconds)
            n_pieces = min(n_pieces, int(seconds / sizes.shortest_s))
            cuts = even_cuts(audio, n_pieces, int(seconds * SAMPLE_RATE), step_samples)
    except AudioError:
        cuts = []  # whoever hears it says what is wrong
    return [Piece(recording, first, end) for first, end in zip([0, *cuts], [*cuts, None], strict=True)]
