"""Detector: wires front end, network and smoother into one compiled call. BatchDetector: many streams in step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import cast

import numpy as np
import numpy.typing as npt

from streamkws import kernels
from streamkws.audio import valid_samples
from streamkws.errors import AudioError, ConfigError
from streamkws.model import Model
from streamkws.smoother import Detection, event_buffer, valid_keywords
from streamkws.sources import Source, open_source

F32 = npt.NDArray[np.float32]
I16 = npt.NDArray[np.int16]

CHUNK_SAMPLES = 16000
"""Longer blocks are fed in pieces of this size, so that the buffers have a fixed one."""


class Detector:
    """Detects keywords in one stream. One thread at a time; any number of detectors may share a model.

    thresholds: per keyword, or one number for all; those not given are the model's own.
    keywords: the keywords to listen for; None is all.
    """

    def __init__(
        self,
        model: Model,
        thresholds: Mapping[str, float] | float | None = None,
        keywords: Iterable[str] | None = None,
    ) -> None:
        if isinstance(thresholds, (int, float)):
            thresholds = {keyword: float(thresholds) for keyword in model.keywords}
        self.model = model
        self.front_end = model.front_end()
        self.network_state = model.new_state()
        self.smoother = model.smoother(thresholds, keywords)
        config = model.config
        n_keywords = len(config.keywords)
        self._floats = np.zeros(CHUNK_SAMPLES, np.float32)
        self._events = event_buffer((CHUNK_SAMPLES // config.step_samples + 1) * n_keywords)
        self._path = kernels.hold(
            kernels.Path(
                front_end=self.front_end.tables,
                front_end_state=self.front_end.state,
                network=model.network,
                network_state=self.network_state.state,
                smoother=self.smoother.tables,
                smoother_state=self.smoother.state,
                frame_stride=np.array([config.frame_stride], np.int64),
                frame=np.zeros(config.frontend.n_mels, np.float32),
                posteriors=np.zeros(n_keywords, np.float32),
                events=self._events,
            )
        )
        self._warm_up()

    @property
    def thresholds(self) -> dict[str, float]:
        """The threshold of each keyword that is listened for."""
        return self.smoother.thresholds

    def push(self, samples: npt.ArrayLike) -> list[Detection]:
        """Feed audio and return the detections it completed.

        samples: (n,) int16, or float32 in [-1, 1]; any n; mono, 16 kHz.
        Raises AudioError for another dtype, shape or a non-finite sample; the block is then not used at all.
        """
        return self._feed(valid_samples(samples))

    def _feed(self, block: I16 | F32) -> list[Detection]:
        """push for samples that are known to be valid."""
        hits = []
        for start in range(0, block.size, CHUNK_SAMPLES):
            hits += self._feed_chunk(block[start : start + CHUNK_SAMPLES])
        return hits

    def _feed_chunk(self, block: I16 | F32) -> list[Detection]:
        floats = cast(F32, block)
        if block.dtype == np.int16:
            floats = self._floats[: block.size]
            kernels.int16_to_float(cast(I16, block), floats)
        n_events = kernels.detect(self._path, floats)
        return self.smoother.detections(self._events[:n_events]) if n_events else []

    def flush(self) -> list[Detection]:
        """The detections that the end of the stream completes: peaks that were still awaited."""
        return self.smoother.flush()

    def levels(self) -> F32:
        """The smoothed posterior of each keyword after the last network step, (K,) float32."""
        return self.smoother.state.smoothed.copy()

    def reset(self) -> None:
        """Return to the state of a new Detector."""
        self.front_end.reset()
        self.network_state.reset()
        self.smoother.reset()

    def _warm_up(self) -> None:
        """Compile (or load from the cache) every kernel of the path before live audio comes."""
        config = self.model.config
        self._feed(np.zeros(config.frontend.window_samples + config.step_samples, np.int16))
        self.flush()
        self.reset()


class BatchDetector:
    """Detects keywords in several streams that come in step; each hears exactly what a Detector of its own would.

    model, thresholds, keywords: as for Detector. n_streams: N.
    """

    def __init__(
        self,
        model: Model,
        n_streams: int,
        thresholds: Mapping[str, float] | float | None = None,
        keywords: Iterable[str] | None = None,
    ) -> None:
        if n_streams < 1:
            raise ConfigError(f"expected at least 1 stream, got {n_streams}")
        wanted = None if keywords is None else valid_keywords(keywords, model.keywords)
        self.detectors = tuple(Detector(model, thresholds, wanted) for _ in range(n_streams))

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
            for hit in detector._feed(row)
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
) -> Iterator[Detection]:
    """Detections in a source, as they come.

    source: a path, "-" for raw 16 kHz int16 on standard input, or an iterable of blocks, (n,) int16 or float32.
    thresholds, keywords: as for Detector.
    Raises AudioError when the source cannot be read; what was heard before has been given by then.
    """
    detector = Detector(model, thresholds, keywords)
    with open_source(source) as blocks:
        for block in blocks:
            yield from detector.push(block)
    yield from detector.flush()


def posteriors(samples: npt.ArrayLike, model: Model) -> F32:
    """Smoothed posterior per network step and keyword, (S, K) float32.

    samples: (n,) int16, or float32 in [-1, 1]; mono, 16 kHz. Row s has heard model.config.clock.end_s(s) seconds.
    """
    frames = model.front_end().push(samples)
    return model.smoother().smooth(model.new_state().push(frames))
