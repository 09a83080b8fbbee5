"""Detectors for clients, and the threads that they run in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from streamkws.detector import Detector
from streamkws.model import Model
from streamkws.server.config import LEVEL_S, ServerConfig
from streamkws.smoother import valid_keywords

MAX_SPARE = 16
"""Detectors that are kept for clients to come; each takes some 250 kB, and some milliseconds to make."""

_Result = TypeVar("_Result")


class DetectorPool:
    """Detectors of one model that are lent to clients, and the threads that run them.

    Raises ConfigError for a keyword that the model does not know, and for a threshold or near that cannot be.

    keywords: those that clients may ask for.
    """

    def __init__(self, model: Model, config: ServerConfig) -> None:
        self._model = model
        self._thresholds = config.thresholds
        self._near = config.near
        self.keywords = model.keywords if config.keywords is None else valid_keywords(config.keywords, model.keywords)
        self._spare = [self._new_detector()]  # compiles the kernels if they are not compiled yet, checks the thresholds
        self._threads = ThreadPoolExecutor(config.n_threads, "streamkws-server")

    async def run(self, work: Callable[..., _Result], *arguments: Any) -> _Result:
        """Call work in one of the threads and return its result."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

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
        return Detector(self._model, self._thresholds, self.keywords, LEVEL_S, self._near)
