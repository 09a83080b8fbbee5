"""The process that makes examples, as the process that trains on them sees it."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from queue import Empty
from typing import Any

from streamkws.errors import StreamKwsError
from streamkws.training.producer import ProducerConfig, produce
from streamkws.training.recipe import Recipe

BLOCK = 32
"""Examples in one message."""


class Producer:
    """The process that makes examples, from number first on; a context manager that ends it."""

    def __init__(self, recipe: Recipe, part: Path, first: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.queue = context.Queue(maxsize=6)
        keywords, frontend = recipe.model.keywords, recipe.model.to_model_config({}).frontend
        producer = ProducerConfig(
            str(part), keywords, recipe.data, recipe.augment, frontend, recipe.training.seed, first, BLOCK
        )
        self.process = context.Process(target=produce, args=(producer, self.queue), daemon=True)
        self.process.start()

    def get(self, kind: str) -> Any:
        """The next message, of this kind. Raises StreamKwsError where the process failed."""
        while True:
            try:
                name, value = self.queue.get(timeout=2.0)
            except Empty:
                if not self.process.is_alive():
                    raise StreamKwsError(f"the process that makes examples ended ({self.process.exitcode})") from None
                continue
            if name == "error":
                raise StreamKwsError(f"making examples failed: {value}")
            assert name == kind
            return value

    def __enter__(self) -> Producer:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.join()
        self.queue.cancel_join_thread()
        self.queue.close()
