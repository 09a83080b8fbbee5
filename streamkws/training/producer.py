"""The producer: a process of its own that makes examples without end."""

from __future__ import annotations

import multiprocessing
import signal
from dataclasses import dataclass
from multiprocessing.queues import Queue
from pathlib import Path
from queue import Empty, Full
from typing import Any

from streamkws.errors import StreamKwsError
from streamkws.frontend import FrontEndConfig
from streamkws.training.augment import AugmentConfig
from streamkws.training.blocks import Block
from streamkws.training.data import DataConfig
from streamkws.training.examples import ExampleMaker

BLOCK = 32
"""Examples in one message."""


@dataclass(frozen=True)
class ProducerConfig:
    """What the process that makes examples needs to know; see ExampleMaker.

    first: number of the first example. block: examples in one message.
    """

    part: str
    keywords: tuple[str, ...]
    data: DataConfig
    augmentation: AugmentConfig
    frontend: FrontEndConfig
    seed: int
    first: int
    block: int


def produce(config: ProducerConfig, queue: Queue[tuple[str, Any]]) -> None:
    """Put ("ready", (durations_s, unusable)), then ("block", Block) without end, from example number config.first on.

    Runs in a process of its own and ends with its parent. What goes wrong is put as ("error", text).
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    parent = multiprocessing.parent_process()

    def put(message: tuple[str, Any]) -> bool:
        while parent is None or parent.is_alive():
            try:
                queue.put(message, timeout=1.0)
                return True
            except Full:
                continue
        queue.cancel_join_thread()
        return False

    try:
        maker = ExampleMaker(
            Path(config.part), config.keywords, config.data, config.augmentation, config.frontend, config.seed
        )
        going = put(("ready", (maker.durations_s(), maker.unusable)))
        index = config.first
        while going:
            examples = [maker.make(index + offset) for offset in range(config.block)]
            block = Block.of(examples)
            going = put(("block", block))
            index += config.block
    except Exception as error:  # the parent reports it
        put(("error", f"{type(error).__name__}: {error}"))


class Producer:
    """The process that makes examples; a context manager that ends it."""

    def __init__(self, config: ProducerConfig) -> None:
        context = multiprocessing.get_context("spawn")
        self.queue = context.Queue(maxsize=6)
        self.process = context.Process(target=produce, args=(config, self.queue), daemon=True)
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
