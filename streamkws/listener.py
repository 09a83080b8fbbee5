"""listen: detections in a source, found in a thread of its own, for applications that have their own loop."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from types import TracebackType

from streamkws.audio import Samples
from streamkws.detector import HISTORY_S, I16, Detector
from streamkws.errors import ConfigError
from streamkws.model_set import Models
from streamkws.smoother import Detection
from streamkws.sources import AudioSource, Source, open_source

CLOSE_S = 2.0
"""Seconds that close waits for the listening thread at most; the thread ends when the source gives the next block."""

_log = logging.getLogger(__name__)


class Listener:
    """Finds keywords in a source, in a thread of its own; detections go to a callback, or to `async for`.

        with kws.listen(mic, model, print):
            ...  # the application's own work

        async for hit in kws.listen(mic, model):
            ...

    The callback is called in the listening thread, for one detection after the other, and listening waits for it. An
    exception of the callback is logged, and listening goes on. An exception of the source is raised at the end of the
    with statement, or by async for. A listener listens once. audio and close may be called from any thread.

    source, model, thresholds, keywords, history_s, near: as for Detector.hear and Detector; the source is not closed.
    on_detection: called with each Detection; None for async for.
    """

    def __init__(
        self,
        source: Source,
        model: Models,
        on_detection: Callable[[Detection], object] | None = None,
        thresholds: Mapping[str, float] | float | None = None,
        keywords: Iterable[str] | None = None,
        history_s: float = HISTORY_S,
        near: float | None = None,
    ) -> None:
        self._detector = Detector(model, thresholds, keywords, history_s, near)
        self._source = _Stoppable(source)
        self._on_detection = on_detection
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def audio(self, start: float, end: float) -> I16:
        """Return the audio from start to end, seconds of the stream, as Detector.audio does."""
        return self._detector.audio(start, end)

    def mute(self) -> None:
        """Hear nothing until unmute, as Detector.mute; from any thread, a callback's, too."""
        self._detector.mute()

    def unmute(self) -> None:
        """Hear again what is said from now on, as Detector.unmute."""
        self._detector.unmute()

    def __enter__(self) -> Listener:
        if self._on_detection is None:
            raise ConfigError("expected on_detection, the function to call, for a listener in a with statement")
        self._start(self._call, lambda: None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if kind is None:
            self._raise()

    def join(self) -> None:
        """Wait until the source ends. Raises the exception of the source, if there was one."""
        if self._thread is not None:
            self._thread.join()
        self._raise()

    def close(self) -> None:
        """Stop listening; a callback that runs ends first."""
        self._source.close()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(CLOSE_S)

    async def __aiter__(self) -> AsyncIterator[Detection]:
        if self._on_detection is not None:
            raise ConfigError("expected async for or on_detection, got both")
        import asyncio  # takes 15 ms to import

        loop = asyncio.get_running_loop()
        hits: asyncio.Queue[Detection | None] = asyncio.Queue()

        def put(hit: Detection | None) -> None:
            try:
                loop.call_soon_threadsafe(hits.put_nowait, hit)
            except RuntimeError:  # the loop was closed before the listener
                self._source.close()

        self._start(put, lambda: put(None))
        try:
            while (hit := await hits.get()) is not None:
                yield hit
        finally:
            self._source.close()
        self._raise()

    def _start(self, take: Callable[[Detection], object], end: Callable[[], object]) -> None:
        if self._thread is not None:
            raise ConfigError("expected a new listener, got one that has listened already")
        self._thread = threading.Thread(target=self._run, args=(take, end), name="streamkws listener", daemon=True)
        self._thread.start()

    def _run(self, take: Callable[[Detection], object], end: Callable[[], object]) -> None:
        try:
            for hit in self._detector.hear(self._source):
                take(hit)
        except Exception as error:
            self._error = error
        finally:
            end()

    def _call(self, hit: Detection) -> None:
        try:
            assert self._on_detection is not None
            self._on_detection(hit)
        except Exception:
            _log.exception("on_detection failed for %s at %.2f s", hit.keyword, hit.peak)

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error


class _Stoppable(AudioSource):
    """A source around another; after close it ends at the next block, and the other stays open."""

    def __init__(self, source: Source) -> None:
        self._inside = source
        self._closed = threading.Event()
        self.name = str(getattr(source, "name", "source"))

    @property
    def dropped(self) -> int:
        """Samples lost so far."""
        return int(getattr(self._inside, "dropped", 0))

    def __iter__(self) -> Iterator[Samples]:
        with open_source(self._inside) as blocks:
            for block in blocks:
                if self._closed.is_set():
                    return
                yield block

    def close(self) -> None:
        """End the iteration at the next block."""
        self._closed.set()


listen = Listener
"""Another name of Listener, for `async for hit in listen(mic, model)`."""
