"""Detectors for clients, and the threads that they run in."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from streamkws.detector import Detector
from streamkws.model_set import ModelSet
from streamkws.server.config import LEVEL_S, ServerConfig
from streamkws.server.metrics import Metrics

MAX_SPARE = 16
"""Detectors that are kept for clients to come; each takes some 250 kB, and some milliseconds to make."""

_Result = TypeVar("_Result")


class DetectorPool:
    """Detectors of a server's models that are lent to clients, and the threads that run them.

    Raises ConfigError for a keyword that no model knows, and for a threshold or near that cannot be.

    keywords: those that clients may ask for.
    metrics: what the server counts.
    """

    def __init__(self, models: ModelSet, config: ServerConfig) -> None:
        self._models = models
        self._thresholds = config.thresholds
        self._near = config.near
        self.keywords = models.keywords if config.keywords is None else models.valid(config.keywords)
        self.metrics = Metrics.of(self.keywords)
        self._spare = [self._new_detector()]  # compiles the kernels if they are not compiled yet, checks the thresholds
        self._threads = ThreadPoolExecutor(config.n_threads, "streamkws-server")
        self._n_jobs = 0  # that wait or run
        self._moved_s = 0.0  # when one of them ended last, or the first of them came

    async def run(self, work: Callable[..., _Result], *arguments: Any) -> _Result:
        """Call work in one of the threads and return its result; the time it takes there is counted."""
        loop = asyncio.get_running_loop()
        if not self._n_jobs:
            self._moved_s = loop.time()
        self._n_jobs += 1
        try:
            result, seconds = await loop.run_in_executor(self._threads, _timed, work, arguments)
        finally:
            self._n_jobs -= 1
            self._moved_s = loop.time()
        self.metrics.detecting_s += seconds
        return result

    @property
    def stuck_s(self) -> float:
        """Seconds for which work has waited and none has ended; 0 while there is none."""
        return asyncio.get_running_loop().time() - self._moved_s if self._n_jobs else 0.0

    async def lend(self) -> Detector:
        """Return a detector for one client: a spare one, or a new one, which takes some milliseconds to make."""
        return self._spare.pop() if self._spare else await self.run(self._new_detector)

    def take_back(self, detector: Detector) -> None:
        """Keep a detector for the next client, if few are kept. No thread may still use it."""
        if len(self._spare) < MAX_SPARE:
            self._spare.append(detector)

    def close(self) -> None:
        """End the threads, without waiting for work that is under way."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _new_detector(self) -> Detector:
        return Detector(self._models, self._thresholds, self.keywords, LEVEL_S, self._near)


def _timed(work: Callable[..., _Result], arguments: Iterable[Any]) -> tuple[_Result, float]:
    start_s = time.perf_counter()
    return work(*arguments), time.perf_counter() - start_s
