"""What a worker does: hear recordings, or pieces of long ones, with the detections of streamkws detect.

A piece of a long file begins in its middle and still gives exactly the detections that the whole file has there. Its
samples are those of the whole: see entries.py. It first hears what lies before it, until nothing older can make a
difference, and gives none of that: see Detector.join. Where that cannot be shown, the file is heard as a whole.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from time import perf_counter

import numpy as np

from streamkws.audio import BLOCK_SAMPLES, SAMPLE_RATE, AudioFile, Samples
from streamkws.detector import Detector
from streamkws.errors import AudioError, MissingExtraError
from streamkws.model import Model
from streamkws.scanning.entries import SETTLING_SAMPLES, entry_before
from streamkws.scanning.listing import Recording, is_address, one_line, open_bytes
from streamkws.smoother import Detection

LOOK_BACK = (1, 4, 16, 64)
"""How far before a piece its hearing begins: times what is usually remembered."""


@dataclass(frozen=True)
class Piece:
    """The samples from first on to before end of a recording, at 16 kHz; end is None for the rest of it.

    first, end: multiples of ModelConfig.step_samples.
    """

    recording: Recording
    first: int = 0
    end: int | None = None

    @property
    def is_whole(self) -> bool:
        """Whether it is the recording itself."""
        return self.first == 0 and self.end is None


@dataclass
class Heard:
    """What came of a piece.

    hits: its detections; times are those of the file. error: why it was not heard to its end, "" if it was.
    is_exact: False where it must be heard together with what lies before it; there are no hits then.
    audio_s: seconds of audio, of the piece alone. decode_s, compute_s: seconds spent.
    """

    hits: list[Detection] = field(default_factory=list)
    error: str = ""
    is_exact: bool = True
    audio_s: float = 0.0
    decode_s: float = 0.0
    compute_s: float = 0.0

    def add(self, hits: list[Detection], recording: Recording) -> None:
        """Add detections of a recording's own time."""
        offset = recording.offset_s
        if offset:
            hits = [
                replace(hit, start=hit.start + offset, end=hit.end + offset, peak=hit.peak + offset) for hit in hits
            ]
        self.hits += hits


def joined(pieces: Sequence[Heard]) -> Heard:
    """What was heard in a recording, from what was heard in its pieces, in their order."""
    whole = Heard()
    for piece in pieces:
        whole.hits += piece.hits
        whole.audio_s += piece.audio_s
        whole.decode_s += piece.decode_s
        whole.compute_s += piece.compute_s
    return whole


@dataclass(frozen=True)
class Listening:
    """What is listened for: thresholds and keywords as for Detector."""

    thresholds: Mapping[str, float] | float | None = None
    keywords: Sequence[str] | None = None


def hear_pieces(model: Model, listening: Listening, pieces: Sequence[Piece]) -> list[Heard]:
    """Hear pieces, one after the other; a task of Dask's."""
    detector = Detector(model, listening.thresholds, listening.keywords, history_s=0)
    return [hear(detector, piece) for piece in pieces]


def hear(detector: Detector, piece: Piece) -> Heard:
    """Hear a piece with a detector of one's own; what it heard before is forgotten."""
    heard, recording = Heard(), piece.recording
    if recording.error:
        heard.error = recording.error
        return heard
    start = perf_counter()
    try:
        with _local(recording.path) as path:
            heard.decode_s += perf_counter() - start
            try:
                _hear(detector, path, piece, heard)
            except AudioError as error:
                heard.error = str(error).removeprefix(f"{path}: ")
    except MissingExtraError:
        raise  # no recording can be heard
    except Exception as error:  # fetching it failed, and each file system has its own kind of exception
        heard.error = one_line(error)
    return heard


def _hear(detector: Detector, path: str, piece: Piece, heard: Heard) -> None:
    """Hear a piece of a file of this machine, and add to heard what came of it."""
    for times in LOOK_BACK:
        with AudioFile(path) as audio:
            begin_frame = round((piece.recording.offset_s or 0) * audio.rate)
            if not piece.first:
                detector.reset()
                audio.first_frame = begin_frame
                _push(detector, _timed(audio, heard), piece, heard)
                return
            ahead = times * detector.memory_samples + SETTLING_SAMPLES + BLOCK_SAMPLES
            frame, sample = entry_before(audio, piece.first - ahead)
            audio.first_frame = begin_frame + frame
            blocks = _timed(audio, heard)
            rest = _join(detector, audio, blocks, sample, piece.first, heard)
            if rest is not None:
                _push(detector, chain([rest], blocks), piece, heard)
                return
    heard.is_exact = False


def _timed(audio: AudioFile, heard: Heard) -> Iterator[Samples]:
    """A file's blocks; the time that they take is added to what was heard."""
    blocks = iter(audio)
    while True:
        start = perf_counter()
        block = next(blocks, None)
        heard.decode_s += perf_counter() - start
        if block is None:
            return
        yield block


def _join(
    detector: Detector, audio: AudioFile, blocks: Iterator[Samples], sample: int, first: int, heard: Heard
) -> Samples | None:
    """Hear what lies before a piece. Returns the samples of the piece that came with it, None where it is not exact.

    sample: the number of the blocks' first one. first: that of the piece.
    """
    parts: list[Samples] = []
    n, settled = sample, 0 if sample == 0 else first
    while n < first and (block := next(blocks, None)) is not None:
        parts.append(block)
        n += len(block)
        if audio.is_settled:
            settled = min(settled, n + SETTLING_SAMPLES)
    step = detector.model.config.step_samples
    begin = -(-settled // step) * step
    if n < first or begin >= first:
        return None
    samples: Samples = np.concatenate(parts)  # type: ignore[assignment]  # all of one type
    start = perf_counter()
    is_exact = detector.join(samples[begin - sample : first - sample], first)
    heard.compute_s += perf_counter() - start
    return samples[first - sample :] if is_exact else None


def _push(detector: Detector, blocks: Iterable[Samples], piece: Piece, heard: Heard) -> None:
    """Hear the blocks from the piece's first sample on, up to its end."""
    recording, n = piece.recording, piece.first
    stop = piece.end
    if stop is None and recording.duration_s is not None:
        stop = max(piece.first, round(recording.duration_s * SAMPLE_RATE))
    for block in blocks:
        samples = block if stop is None else block[: stop - n]
        start = perf_counter()
        heard.add(detector.push(samples), recording)
        heard.compute_s += perf_counter() - start
        n += len(samples)
        heard.audio_s += len(samples) / SAMPLE_RATE
        if n == stop:
            break
    if piece.end is None:
        heard.add(detector.flush(), recording)
        if n == 0 and recording.offset_s:
            heard.error = f"expected audio from {recording.offset_s:g} s on, got none"


@contextmanager
def _local(path: str) -> Iterator[str]:
    """A file of this machine for a path or an address: what is behind an address is copied, and removed afterwards."""
    if not is_address(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="streamkws-") as folder:
        copy = os.path.join(folder, "recording")
        with open_bytes(path) as source, open(copy, "wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
        yield copy
