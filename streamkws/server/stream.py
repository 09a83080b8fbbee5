"""A client's audio: its format, the detector that gets it, and the client's clock."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from streamkws.audio import MAX_RATE, MIN_RATE, SAMPLE_RATE, Resampler, Samples
from streamkws.detector import Detector
from streamkws.server.config import LEVEL_S
from streamkws.server.framing import Refusal, get_integer
from streamkws.smoother import Detection

MAX_CHANNELS = 64

LOWEST_DB = -100.0
"""The level of digital silence."""


class AudioFormat(NamedTuple):
    """Raw audio as a client sends it. rate: Hz. width: bytes of a sample. n_channels: samples of a frame."""

    rate: int
    width: int
    n_channels: int

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> AudioFormat:
        """Return the format that a message states. Raises Refusal for one that is not accepted."""
        audio_format = cls(get_integer(data, "rate"), get_integer(data, "width"), get_integer(data, "channels"))
        if not MIN_RATE <= audio_format.rate <= MAX_RATE:
            raise Refusal("bad-audio", f"expected a rate of {MIN_RATE} to {MAX_RATE} Hz, got {audio_format.rate}")
        if not 1 <= audio_format.width <= 4:
            raise Refusal("bad-audio", f"expected a width of 1 to 4 bytes, got {audio_format.width}")
        if not 1 <= audio_format.n_channels <= MAX_CHANNELS:
            raise Refusal("bad-audio", f"expected 1 to {MAX_CHANNELS} channels, got {audio_format.n_channels}")
        return audio_format

    @property
    def frame_bytes(self) -> int:
        return self.width * self.n_channels

    def bytes_in(self, seconds: float) -> int:
        """Return the bytes of the whole frames in so many seconds, of at least one frame."""
        return max(1, int(seconds * self.rate)) * self.frame_bytes

    def seconds_in(self, n_bytes: int) -> float:
        """Return how long so many bytes last."""
        return n_bytes / self.frame_bytes / self.rate

    def samples(self, audio: bytes | memoryview) -> Samples:
        """Return whole frames as (n, n_channels) samples: int16 up to a width of 2 bytes, else float32.

        Samples of one byte are unsigned, as in wav files; all others are signed, little endian.
        """
        flat: Samples
        if self.width == 1:
            flat = (np.frombuffer(audio, np.uint8).astype(np.int16) - np.int16(128)) * np.int16(256)
        elif self.width == 2:
            flat = np.frombuffer(audio, "<i2").astype(np.int16)
        else:
            flat = _wide_samples(audio, self.width)
        return flat.reshape(-1, self.n_channels)

    def __str__(self) -> str:
        return f"{self.rate} Hz, {self.width} bytes, {self.n_channels} channels"


def _wide_samples(audio: bytes | memoryview, width: int) -> npt.NDArray[np.float32]:
    """Return samples of 3 or 4 bytes as (n,) float32 in [-1, 1]."""
    narrow = np.frombuffer(audio, np.uint8).reshape(-1, width)
    wide = np.zeros((len(narrow), 4), np.uint8)
    wide[:, 4 - width :] = narrow
    return wide.view("<i4")[:, 0].astype(np.float32) * np.float32(2**-31)


class Hit(NamedTuple):
    """A detection, or a near miss, at a time of the client's clock.

    level_db: how loud the keyword was: its RMS, in dB below full scale; None if its audio is not kept any more.
    near: whether it is a near miss, which is no detection.
    """

    keyword: str
    timestamp_ms: int
    score: float
    level_db: float | None
    near: bool

    @property
    def strength(self) -> dict[str, float]:
        """How sure and how loud it was, for messages and logs."""
        strength = {"score": round(self.score, 4)}
        return strength if self.level_db is None else strength | {"level_db": round(self.level_db, 1)}


class Stream:
    """A client's audio from its start to its stop; used by one thread at a time.

    detector: keeps LEVEL_S of audio; is reset, and belongs to the stream from here on.
    start_ms: the client's time of the first sample.
    wanted: the keywords to report.

    n_detections: hits so far, without near misses.
    """

    def __init__(self, detector: Detector, audio_format: AudioFormat, start_ms: int, wanted: frozenset[str]) -> None:
        detector.reset()
        self.format = audio_format
        self.n_detections = 0
        self._detector = detector
        self._wanted = wanted
        self._clock = ClientClock(start_ms)
        self._n_frames = 0
        self._resampler: Resampler | None = None
        if (audio_format.rate, audio_format.n_channels) != (SAMPLE_RATE, 1):
            self._resampler = Resampler(audio_format.rate, audio_format.n_channels)
        configs = [model.config for model in detector.models]
        reach = max((config.smoother.patience_steps + 1) * config.step_samples for config in configs)
        self._reach_s = reach / SAMPLE_RATE

    def add(self, audio_format: AudioFormat, audio: bytes, timestamp_ms: int | None) -> bytes:
        """Check the next chunk, note its time, and return its audio for push.

        Raises Refusal for a format other than the stream's, and for a part of a frame.
        """
        if audio_format != self.format:
            raise Refusal("bad-audio", f"expected audio of {self.format}, as it began, got {audio_format}")
        n_frames, rest = divmod(len(audio), audio_format.frame_bytes)
        if rest:
            raise Refusal(
                "bad-audio",
                f"expected whole frames of {audio_format.frame_bytes} bytes, got a payload of {len(audio)} bytes",
            )
        if timestamp_ms is not None:
            self._clock.set(self._n_frames / audio_format.rate, timestamp_ms)
        self._n_frames += n_frames
        return audio

    def push(self, audio: bytes | memoryview) -> list[Hit]:
        """Feed whole frames to the detector and return the hits they completed.

        The time of a near miss that was long awaited is right while the client's clock does not jump.
        """
        samples = self.format.samples(audio)
        mono = np.ravel(samples) if self._resampler is None else self._resampler.push(samples)
        hits = self._report(self._detector.push(mono))
        self._clock.forget(self._detector.heard_s - self._reach_s)
        return hits

    def finish(self) -> list[Hit]:
        """Return the hits that the end of the stream completes."""
        rest = np.zeros(0, np.float32) if self._resampler is None else self._resampler.flush()
        return self._report(self._detector.push(rest) + self._detector.flush())

    def _report(self, hits: list[Detection]) -> list[Hit]:
        wanted = [
            Hit(hit.keyword, self._clock.at(hit.peak), hit.score, self._level_db(hit), hit.near)
            for hit in hits
            if hit.keyword in self._wanted
        ]
        self.n_detections += sum(not hit.near for hit in wanted)
        return wanted

    def _level_db(self, hit: Detection) -> float | None:
        oldest_s = self._detector.heard_s - LEVEL_S
        samples = self._detector.audio(max(hit.start, oldest_s), max(hit.end, oldest_s)) / 32768
        if not samples.size:
            return None
        return max(LOWEST_DB, 10 * math.log10(np.mean(samples**2) + 1e-12))


class ClientClock:
    """Turns seconds of a stream into the client's milliseconds, which may jump from chunk to chunk.

    start_ms: the client's time of the first sample; the clock runs on from there until set is called.
    """

    def __init__(self, start_ms: int) -> None:
        self._marks = deque([(0.0, start_ms)])  # seconds of the stream, and the client's time there

    def set(self, time_s: float, timestamp_ms: int) -> None:
        """Set the client's time of the sample at time_s, which must not be less than at the last call."""
        if self._marks[-1][0] == time_s:
            self._marks.pop()
        self._marks.append((time_s, timestamp_ms))

    def at(self, time_s: float) -> int:
        """Return the client's time of the sample that ends at time_s."""
        mark_s, mark_ms = next((mark for mark in reversed(self._marks) if mark[0] < time_s), self._marks[0])
        return mark_ms + round(1000 * (time_s - mark_s))

    def forget(self, time_s: float) -> None:
        """Drop what only times before time_s need."""
        while len(self._marks) > 1 and self._marks[1][0] < time_s:
            self._marks.popleft()
