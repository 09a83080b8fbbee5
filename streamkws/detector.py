"""Detector: wires the stages of its models into one compiled call. BatchDetector: many streams in step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import replace
from operator import attrgetter, itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from streamkws import kernels
from streamkws.audio import Samples, as_float, valid_samples
from streamkws.errors import AudioError, ConfigError
from streamkws.frontend import FrontEnd
from streamkws.model import Model
from streamkws.model_set import Models, ModelSet
from streamkws.smoother import Detection
from streamkws.sources import Source, open_source
from streamkws.stages import Stages, new_front_ends

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

    Several models hear the stream as a detector of each would, and their detections come in the order in which they
    were decided. Models with the same front end, settings and filters, share it.

    model: a Model, the name of a shipped model or the path of a model file; or several of these, without a keyword in
        common.
    thresholds: per keyword, or one number for all; those not given are the models' own.
    keywords: the keywords to listen for; None is all.
    history_s: seconds of audio that are kept for audio(), 0 for none; 32 kB each.
    near: where to begin with near misses, 0 to 1: peaks from here on that stay below the threshold are among what push
        and flush return, with Detection.near set. None for none.
    Raises ConfigError for what no model knows or cannot be, and for models that cannot hear one stream; what load_model
    raises for a file.

    models: those that hear the stream. stages: what each keeps of it.
    """

    def __init__(
        self,
        model: Models,
        thresholds: Mapping[str, float] | float | None = None,
        keywords: Iterable[str] | None = None,
        history_s: float = HISTORY_S,
        near: float | None = None,
    ) -> None:
        if not 0 <= history_s <= MAX_HISTORY_S:
            raise ConfigError(f"expected history_s of 0 to {MAX_HISTORY_S:g}, got {history_s}")
        self._set = ModelSet(model)
        self.models = self._set.models
        self.stages = tuple(
            Stages(model, front_end, model.new_state(), model.new_smoother(chosen.thresholds, chosen.keywords, near))
            for model, front_end, chosen in zip(
                self.models, new_front_ends(self.models), self._set.settings(thresholds, keywords), strict=True
            )
        )
        self._rate = self._set.sample_rate
        # a chunk of room, so that what audio() gives is not being written meanwhile
        self._history = np.zeros(round(history_s * self._rate) + CHUNK_SAMPLES if history_s else 0, np.int16)
        self._n_heard = np.zeros(1, np.int64)
        self._origin = 0  # the sample at which the stages began
        self._muted = self._leaving = False  # leaving: the next push is the first that is heard again
        self._bind()
        self._warm_up()

    def _bind(self) -> None:
        """Make what the compiled path touches, by one address; this detector alone owns it."""
        block = np.zeros(CHUNK_SAMPLES, np.float32)
        self._events = [stages.new_events(CHUNK_SAMPLES) for stages in self.stages]
        self._native = [
            kernels.ByAddress(stages.arrays(events, block, self._history, self._n_heard), kernels.STREAM_ARRAYS)
            for stages, events in zip(self.stages, self._events, strict=True)
        ]
        if len(self._native) == 1:
            self._path, self._address = kernels.detect, self._native[0].address
            return
        front_ends = [stages.front_end for stages in self.stages]
        n_values = max((CHUNK_SAMPLES // one.config.hop_samples + 2) * one.config.n_mels for one in front_ends)
        together = kernels.TogetherArrays(
            streams=kernels.addresses(self._native),
            leaders=np.array([front_ends.index(front_end) for front_end in front_ends], np.int64),
            n_events=np.zeros(len(front_ends), np.int64),
            frames=np.zeros(n_values, np.float32),
        )
        self._n_events = together.n_events
        self._native.append(kernels.ByAddress(together, kernels.TOGETHER_ARRAYS))
        self._path, self._address = kernels.detect_together, self._native[-1].address

    @property
    def arrays(self) -> tuple[kernels.StreamArrays, ...]:
        """What the compiled path touches for each model, as it is now: for those who run that path elsewhere."""
        return tuple(native.parts for native in self._native[: len(self.stages)])

    def __getstate__(self) -> dict[str, Any]:
        native = ("_native", "_path", "_address", "_events", "_n_events")
        return {name: value for name, value in self.__dict__.items() if name not in native}

    def __setstate__(self, saved: dict[str, Any]) -> None:
        self.__dict__.update(saved)
        self._bind()

    def __copy__(self) -> Detector:
        return deepcopy(self)

    @property
    def model(self) -> Model:
        """The model of a detector that has one. Raises ConfigError if it has several."""
        if len(self.models) > 1:
            raise ConfigError(f"expected a detector of one model, got {len(self.models)}: {self.name}")
        return self.models[0]

    @property
    def name(self) -> str:
        """The names of the models: "wakewords.w4a8 + hey_robot.w4a8"."""
        return self._set.name

    @property
    def keywords(self) -> tuple[str, ...]:
        """The keywords of all models, (K,), in the order of levels()."""
        return self._set.keywords

    @property
    def sample_rate(self) -> int:
        """Samples per second of what push takes."""
        return self._rate

    @property
    def thresholds(self) -> dict[str, float]:
        """The threshold of each keyword that is listened for."""
        return {keyword: level for stages in self.stages for keyword, level in stages.smoother.thresholds.items()}

    def reconfigure(
        self, thresholds: Mapping[str, float] | float | None = None, keywords: Iterable[str] | None = None
    ) -> None:
        """Decide by other thresholds, and for other keywords, from the next block on; what was heard stays heard.

        thresholds, keywords, Raises: as for Detector. Not while another thread pushes.
        """
        for stages, chosen in zip(self.stages, self._set.settings(thresholds, keywords), strict=True):
            stages.smoother.set_thresholds({**stages.model.thresholds, **chosen.thresholds}, chosen.keywords)
        self._bind()

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
            return self._path(self._address, piece, kernels.NO_FLOATS)
        return self._path(self._address, kernels.NO_PCM, piece)

    def _hits(self, n_events: int) -> list[Detection]:
        if not n_events:
            return []
        if len(self.stages) == 1:
            return self._on_the_clock(self.stages[0].smoother.detections(self._events[0][:n_events]))
        decided: list[tuple[float, Detection]] = []
        for stages, events, n in zip(self.stages, self._events, self._n_events.tolist(), strict=True):
            clock, steps = stages.model.config.clock, events["step"][:n].tolist()
            decided += zip(map(clock.end_samples, steps), stages.smoother.detections(events[:n]), strict=True)
        return self._on_the_clock([hit for _, hit in sorted(decided, key=itemgetter(0))])

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
        silence = np.zeros(round(TAIL_S * self._rate), np.int16)
        frames = {front_end: front_end.push(silence) for front_end in self._front_ends()}
        hits = [hit for stages in self.stages for hit in stages.end(frames[stages.front_end])]
        return hits if len(self.stages) == 1 else sorted(hits, key=attrgetter("peak"))

    def _front_ends(self) -> Iterable[FrontEnd]:
        """Each front end once."""
        return dict.fromkeys(stages.front_end for stages in self.stages)

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
        return np.concatenate([stages.smoother.state.smoothed for stages in self.stages])

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

    def join(self, before: npt.ArrayLike, n_heard: int) -> bool:
        """Go on in the middle of a stream, with the clock at n_heard samples. Returns whether that is provably exact.

        before: (n,) int16 or float32, the stream's samples up to there; it begins with one of the stream's network
            steps: n_heard - n is a multiple of model.config.step_samples.
        It is exact where what is pushed next gives the detections of a detector that heard the whole stream: where
        before is so long that front end, network and average know nothing older, and then each keyword's average stays
        below its threshold until nothing can still rise, or wait for its refractory period to be over. Quiet audio of
        memory_samples is long enough.
        Raises AudioError as push does, ConfigError for a detector of several models.
        """
        samples, config = as_float(valid_samples(before)), self.model.config
        stages, smoother = self.stages[0], self.stages[0].smoother
        n_before = n_heard - samples.size
        if n_before < 0 or n_before % config.step_samples:
            raise AudioError(f"expected samples from a multiple of {config.step_samples} on, got {n_before}")
        self.reset()
        smoother.state.n_steps[0] = n_before // config.step_samples
        smoothed = smoother.smooth(stages.network_state.push(stages.front_end.push(samples)))
        self._n_heard[0] = n_heard
        if n_before == 0:
            return True
        low = smoothed[self._n_blurred :] < np.minimum(smoother.tables.thresholds, smoother.tables.nears)
        if len(low) < self._n_quiet:
            return False
        stretches = np.lib.stride_tricks.sliding_window_view(low, self._n_quiet, axis=0)  # (n, K, n_quiet)
        return bool(stretches.all(axis=-1).any(axis=0).all())

    @property
    def _n_blurred(self) -> int:
        """Network steps after which a stream that is joined has the smoothed posteriors of the whole."""
        config = self.model.config
        n_frames = config.memory_frames + -(-config.frontend.window_samples // config.frontend.hop_samples)
        return -(-n_frames // config.frame_stride) + config.smoother.smoothing_steps

    @property
    def _n_quiet(self) -> int:
        """Network steps below its threshold after which a keyword is neither rising nor waiting."""
        return max(self.model.config.smoother.refractory_steps, self.model.config.smoother.patience_steps + 1) + 1

    @property
    def memory_samples(self) -> int:
        """Samples of audio, quiet at the end, after which nothing that came before makes a difference."""
        config = self.model.config
        return (self._n_blurred + self._n_quiet) * config.step_samples + config.frontend.window_samples

    def reset(self) -> None:
        """Return to the state of a new Detector; the thresholds stay."""
        self._muted = self._leaving = False
        self._history.fill(0)
        self._begin(0)

    def _begin(self, origin: int) -> None:
        """Begin a stream at a sample of the clock."""
        for front_end in self._front_ends():
            front_end.reset()
        for stages in self.stages:
            stages.begin()
        self._n_heard[0] = self._origin = origin

    def _warm_up(self) -> None:
        """Compile (or load from the cache) every kernel of the path before live audio comes."""
        n_samples = max(one.config.frontend.window_samples + one.config.step_samples for one in self.models)
        self._feed(np.zeros(n_samples, np.int16))
        self.flush()
        self.reset()


class BatchDetector:
    """Detects keywords in several streams that come in step; each hears exactly what a Detector of its own would.

    model, thresholds, keywords, near: as for Detector. n_streams: N.
    """

    def __init__(
        self,
        model: Models,
        n_streams: int,
        thresholds: Mapping[str, float] | float | None = None,
        keywords: Iterable[str] | None = None,
        near: float | None = None,
    ) -> None:
        if n_streams < 1:
            raise ConfigError(f"expected at least 1 stream, got {n_streams}")
        models = ModelSet(model)
        wanted = None if keywords is None else models.valid(keywords)
        self.detectors = tuple(Detector(models, thresholds, wanted, history_s=0, near=near) for _ in range(n_streams))

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
    model: Models,
    thresholds: Mapping[str, float] | float | None = None,
    keywords: Iterable[str] | None = None,
    near: float | None = None,
) -> Iterator[Detection]:
    """Detections in a source, as they come.

    source: a path, "-" for raw 16 kHz int16 on standard input, or an iterable of blocks, (n,) int16 or float32.
    model, thresholds, keywords, near: as for Detector.
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
