"""Detector: wires front end, network and smoother into one compiled call. BatchDetector: many streams in step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from streamkws import kernels
from streamkws.audio import MAX_ABS, Samples, valid_samples
from streamkws.errors import AudioError, ConfigError
from streamkws.model import Model
from streamkws.smoother import Detection, event_buffer, valid_keywords
from streamkws.sources import Source, open_source

F32 = npt.NDArray[np.float32]
I16 = npt.NDArray[np.int16]

CHUNK_SAMPLES = 16000
"""Longer blocks are fed in pieces of this size, so that the buffers have a fixed one."""

_DTYPES = (np.dtype(np.int16), np.dtype(np.float32))

TAIL_S = 0.7
"""Seconds of silence that the end of a stream is heard with: the network knows a keyword some 0.3 s after its end."""

MOST_LOST = 1 << 50
HISTORY_S = 4.0
MAX_HISTORY_S = 3600.0


class Detector:
    """Detects keywords in one stream. One thread at a time; any number of detectors may share a model.

    A copy (copy, deepcopy, pickle) is a detector of its own that has heard the same; copies share the model.

    thresholds: per keyword, or one number for all; those not given are the model's own.
    keywords: the keywords to listen for; None is all.
    history_s: seconds of audio that are kept for audio(), 0 for none; 32 kB each.
    near: where to begin with near misses, 0 to 1: peaks from here on that stay below the threshold are among what push
        and flush return, with Detection.near set. None for none.
    Raises ConfigError for what the model does not know or cannot be.
    """

    def __init__(
        self,
        model: Model,
        thresholds: Mapping[str, float] | float | None = None,
        keywords: Iterable[str] | None = None,
        history_s: float = HISTORY_S,
        near: float | None = None,
    ) -> None:
        if not 0 <= history_s <= MAX_HISTORY_S:
            raise ConfigError(f"expected history_s of 0 to {MAX_HISTORY_S:g}, got {history_s}")
        self.model = model
        self.front_end = model.new_front_end()
        self.network_state = model.new_state()
        self.smoother = model.new_smoother(self._by_keyword(thresholds), keywords, near)
        self._rate = model.config.frontend.sample_rate
        # a chunk of room, so that what audio() gives is not being written meanwhile
        self._history = np.zeros(round(history_s * self._rate) + CHUNK_SAMPLES if history_s else 0, np.int16)
        self._n_heard = np.zeros(1, np.int64)
        self._origin = 0  # the sample at which the stages began
        self._muted = self._leaving = False  # leaving: the next push is the first that is heard again
        self._native = self._native_arrays()
        self._warm_up()

    def _native_arrays(self) -> kernels.ByAddress:
        """What the compiled path touches, by one address; this detector alone owns it."""
        config = self.model.config
        n_keywords = len(config.keywords)
        events = event_buffer((CHUNK_SAMPLES // config.step_samples + 1) * n_keywords)
        self._events = events.view(kernels.EVENT, np.ndarray)  # which is read in a tenth of the time
        native = kernels.ByAddress(
            kernels.StreamArrays(
                front_end=self.front_end.tables,
                front_end_state=self.front_end.state,
                network=self.model.network,
                network_state=self.network_state.state,
                smoother=self.smoother.tables,
                smoother_state=self.smoother.state,
                frame_stride=np.array([config.frame_stride], np.int64),
                frame=np.zeros(config.frontend.n_mels, np.float32),
                posteriors=np.zeros(n_keywords, np.float32),
                events=events,
                limit=np.array([MAX_ABS], np.float32),
                block=np.zeros(CHUNK_SAMPLES, np.float32),
                history=self._history,
                n_heard=self._n_heard,
            ),
            kernels.STREAM_ARRAYS,
        )
        self._address = native.address
        return native

    @property
    def arrays(self) -> kernels.StreamArrays:
        """What the compiled path touches, as it is now: for those who run that path elsewhere."""
        arrays: kernels.StreamArrays = self._native.parts
        return arrays

    def __getstate__(self) -> dict[str, Any]:
        native = ("_native", "_address", "_events")
        return {name: value for name, value in self.__dict__.items() if name not in native}

    def __setstate__(self, saved: dict[str, Any]) -> None:
        self.__dict__.update(saved)
        self._native = self._native_arrays()

    def __copy__(self) -> Detector:
        return deepcopy(self)

    @property
    def thresholds(self) -> dict[str, float]:
        """The threshold of each keyword that is listened for."""
        return self.smoother.thresholds

    def reconfigure(
        self, thresholds: Mapping[str, float] | float | None = None, keywords: Iterable[str] | None = None
    ) -> None:
        """Decide by other thresholds, and for other keywords, from the next block on; what was heard stays heard.

        thresholds, keywords, Raises: as for Detector. Not while another thread pushes.
        """
        own = {**self.model.thresholds, **(self._by_keyword(thresholds) or {})}
        self.smoother.set_thresholds(own, keywords)
        self._native = self._native_arrays()

    def _by_keyword(self, thresholds: Mapping[str, float] | float | None) -> Mapping[str, float] | None:
        if isinstance(thresholds, Mapping) or thresholds is None:
            return thresholds
        return {keyword: float(thresholds) for keyword in self.model.keywords}

    def mute(self) -> None:
        """Give no detections until unmute, while the application itself speaks, say; from any thread.

        Audio is pushed as before: the clock and audio() go on.
        """
        self._muted = True

    def unmute(self) -> None:
        """Detect again what is said from the next block on; what came before it is forgotten. From any thread."""
        if self._muted:
            self._leaving = True
            self._muted = False

    def push(self, samples: npt.ArrayLike) -> list[Detection]:
        """Feed audio and return the detections it completed.

        samples: (n,) int16, or float32 in [-1, 1]; any n; mono, 16 kHz.
        Raises AudioError for another dtype, shape or a non-finite sample; the block is then not used at all.
        """
        if self._muted or self._leaving:
            return self._push_valid(valid_samples(samples))
        if isinstance(samples, np.ndarray) and samples.ndim == 1 and samples.size <= CHUNK_SAMPLES:
            if samples.dtype in _DTYPES and samples.flags.carray:  # what the kernel takes, and checks, itself
                n_events = self._detect(samples)
                if n_events >= 0:
                    return self._hits(n_events)
        return self._feed(valid_samples(samples))

    def _push_valid(self, block: Samples) -> list[Detection]:
        """push for samples that are known to be valid."""
        if not self._muted and self._leaving:
            self._leaving = False
            self._begin(int(self._n_heard[0]))
        hits = self._feed(block)
        return [] if self._muted else hits

    def _feed(self, block: Samples) -> list[Detection]:
        """Feed samples, muted or not."""
        pieces = range(0, block.size, CHUNK_SAMPLES)
        return [hit for start in pieces for hit in self._hits(self._detect(block[start : start + CHUNK_SAMPLES]))]

    def _detect(self, piece: npt.NDArray[Any]) -> int:
        if piece.dtype == _DTYPES[0]:
            return kernels.detect(self._address, piece, kernels.NO_FLOATS)
        return kernels.detect(self._address, kernels.NO_PCM, piece)

    def _hits(self, n_events: int) -> list[Detection]:
        if not n_events:
            return []
        return self._on_the_clock(self.smoother.detections(self._events[:n_events]))

    def _on_the_clock(self, hits: list[Detection]) -> list[Detection]:
        """Detections with the time since the stages began, as times since the stream's first sample."""
        begin = self._origin / self._rate
        if not begin:
            return hits
        return [replace(hit, start=hit.start + begin, end=hit.end + begin, peak=hit.peak + begin) for hit in hits]

    def flush(self) -> list[Detection]:
        """End the stream, and return the detections that its end completes; their times are at most the stream's.

        Its last sounds are heard as if TAIL_S of silence came. What is pushed afterwards begins a stream whose times go
        on.
        """
        n_heard = int(self._n_heard[0])
        if n_heard == self._origin:
            return []
        hits = self.end_stages()
        hits = [] if self._muted or self._leaving else self._on_the_clock(hits)
        self._begin(n_heard)
        return within(hits, n_heard / self._rate)

    def end_stages(self) -> list[Detection]:
        """What the stages still complete with TAIL_S of silence behind, in their own time, for whoever feeds them.

        Clock and history, at which other threads may look, are left alone.
        """
        frames = self.front_end.push(np.zeros(round(TAIL_S * self._rate), np.int16))
        return self.smoother.push(self.network_state.push(frames)) + self.smoother.flush()

    def lost(self, n_samples: int) -> list[Detection]:
        """Say that n_samples of audio were lost here, and return the detections that were still awaited.

        What was half heard is forgotten; the clock goes on by n_samples, which audio() gives as zeros.
        """
        if not isinstance(n_samples, (int, np.integer)) or not 0 <= n_samples < MOST_LOST:
            raise AudioError(f"expected a number of lost samples, got {n_samples}")
        hits = self.flush()
        n_heard, size = int(self._n_heard[0]), self._history.size
        if size:
            self._history[np.arange(n_heard, n_heard + min(n_samples, size)) % size] = 0
        self._begin(n_heard + n_samples)
        return hits

    def hear(self, source: Source) -> Iterator[Detection]:
        """Yield the detections in a source as they come. Between two of them, audio() returns the latest audio.

        source, Raises: as for detect. Samples that the source dropped count as lost.
        """
        n_lost = int(getattr(source, "dropped", 0))  # before this
        with open_source(source) as blocks:
            for block in blocks:
                n_dropped = int(getattr(source, "dropped", 0))
                if n_dropped > n_lost:
                    yield from self.lost(n_dropped - n_lost)
                    n_lost = n_dropped
                yield from self.push(block)
        yield from self.flush()

    def levels(self) -> F32:
        """The smoothed posterior of each keyword after the last network step, (K,) float32."""
        return self.smoother.state.smoothed.copy()

    @property
    def heard_s(self) -> float:
        """Seconds of audio since the stream's first sample."""
        return int(self._n_heard[0]) / self._rate

    def audio(self, start: float, end: float) -> I16:
        """A stretch of the last history_s seconds, such as audio(hit.start - 0.5, hit.end); from any thread.

        start, end: seconds from the stream's first sample; a start before it counts as 0.
        Returns a copy, (n,) int16, 16 kHz.
        Raises AudioError when the stretch is no longer, or not yet, there.
        """
        if not (math.isfinite(start) and math.isfinite(end)):
            raise AudioError(f"expected a stretch of audio in seconds, got {start} to {end}")
        first, stop = max(0, round(start * self._rate)), round(end * self._rate)
        n_heard = int(self._n_heard[0])
        oldest = max(0, n_heard - max(0, self._history.size - CHUNK_SAMPLES))
        if not oldest <= first <= stop <= n_heard:
            raise AudioError(
                f"expected a stretch within {oldest / self._rate:.2f} to {n_heard / self._rate:.2f} s, "
                f"got {start:.2f} to {end:.2f} (history_s says how much is kept)"
            )
        return self._history[np.arange(first, stop) % max(self._history.size, 1)]

    def reset(self) -> None:
        """Return to the state of a new Detector; the thresholds stay."""
        self._muted = self._leaving = False
        self._history.fill(0)
        self._begin(0)

    def _begin(self, origin: int) -> None:
        """Begin a stream at a sample of the clock."""
        self.front_end.reset()
        self.network_state.hear_silence()
        self.smoother.reset()
        self._n_heard[0] = self._origin = origin

    def _warm_up(self) -> None:
        """Compile (or load from the cache) every kernel of the path before live audio comes."""
        config = self.model.config
        self._feed(np.zeros(config.frontend.window_samples + config.step_samples, np.int16))
        self.flush()
        self.reset()


class BatchDetector:
    """Detects keywords in several streams that come in step; each hears exactly what a Detector of its own would.

    model, thresholds, keywords, near: as for Detector. n_streams: N.
    """

    def __init__(
        self,
        model: Model,
        n_streams: int,
        thresholds: Mapping[str, float] | float | None = None,
        keywords: Iterable[str] | None = None,
        near: float | None = None,
    ) -> None:
        if n_streams < 1:
            raise ConfigError(f"expected at least 1 stream, got {n_streams}")
        wanted = None if keywords is None else valid_keywords(keywords, model.keywords)
        self.detectors = tuple(Detector(model, thresholds, wanted, history_s=0, near=near) for _ in range(n_streams))

    def __copy__(self) -> BatchDetector:
        return deepcopy(self)

    def push(self, blocks: npt.ArrayLike) -> list[Detection]:
        """Feed a block of every stream and return the detections they completed, by stream.

        blocks: (N, n) int16, or float32 in [-1, 1]; any n; mono, 16 kHz.
        Raises AudioError for another dtype, shape or a non-finite sample; no stream is then fed.
        """
        rows = np.asarray(blocks)
        if rows.ndim != 2 or len(rows) != len(self.detectors):
            raise AudioError(f"expected blocks of shape ({len(self.detectors)}, n), got {rows.shape}")
        checked = [valid_samples(row) for row in rows]
        return [
            replace(hit, stream=stream)
            for stream, (detector, row) in enumerate(zip(self.detectors, checked, strict=True))
            for hit in detector._push_valid(row)
        ]

    def flush(self) -> list[Detection]:
        """The detections that the end of the streams completes."""
        return [
            replace(hit, stream=stream) for stream, detector in enumerate(self.detectors) for hit in detector.flush()
        ]

    def reset(self) -> None:
        """Return every stream to the state of a new one."""
        for detector in self.detectors:
            detector.reset()


def detect(
    source: Source,
    model: Model,
    thresholds: Mapping[str, float] | float | None = None,
    keywords: Iterable[str] | None = None,
    near: float | None = None,
) -> Iterator[Detection]:
    """Detections in a source, as they come.

    source: a path, "-" for raw 16 kHz int16 on standard input, or an iterable of blocks, (n,) int16 or float32.
    thresholds, keywords, near: as for Detector.
    Raises AudioError when the source cannot be read; what was heard before has been given by then.
    """
    yield from Detector(model, thresholds, keywords, history_s=0, near=near).hear(source)


def within(hits: list[Detection], end_s: float) -> list[Detection]:
    """Detections whose times are at most the stream's end: what silence behind it completed lies before it."""
    return [
        replace(hit, start=min(hit.start, end_s), end=min(hit.end, end_s), peak=min(hit.peak, end_s)) for hit in hits
    ]


def posteriors(samples: npt.ArrayLike, model: Model) -> F32:
    """Smoothed posterior per network step and keyword, (S, K) float32.

    samples: (n,) int16, or float32 in [-1, 1]; mono, 16 kHz. Row s has heard model.config.clock.end_s(s) seconds.
    """
    frames = model.new_front_end().push(samples)
    state = model.new_state()
    state.hear_silence()
    return model.new_smoother().smooth(state.push(frames))
