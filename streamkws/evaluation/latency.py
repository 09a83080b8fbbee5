"""How long each block of audio takes, from samples to decision.

Needs NumPy alone and nothing of the package: bench/ runs this very file inside other engines' environments too, so that
all are timed by one loop.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

SAMPLE_RATE = 16_000
PERCENTS = {"median_us": 50.0, "p99_us": 99.0, "p99.9_us": 99.9, "max_us": 100.0}


@dataclass(frozen=True)
class Timing:
    """What the blocks of a stream took.

    ns: (n,) int64, each block.
    cpu_s: processor time of all of them, the measuring loop's own included.
    block_samples: samples in a block.
    """

    ns: npt.NDArray[np.int64]
    cpu_s: float
    block_samples: int

    @property
    def audio_s(self) -> float:
        """Seconds of audio in all blocks."""
        return self.ns.size * self.block_samples / SAMPLE_RATE

    @property
    def cpu_us_per_10ms(self) -> float:
        """Microseconds of processor time per 10 ms of audio."""
        return 1e6 * self.cpu_s / (100 * self.audio_s)

    @property
    def core_share(self) -> float:
        """Processor time over audio time: the share of a core that live audio takes."""
        return self.cpu_s / self.audio_s

    @property
    def realtime_factor(self) -> float:
        """How many times faster than live audio comes."""
        return self.audio_s / (1e-9 * float(self.ns.sum()))

    def percentile_us(self, percent: float) -> float:
        """Microseconds that percent of the blocks stay within; 100 is the slowest block."""
        return 1e-3 * float(np.percentile(self.ns, percent))

    def figures(self) -> dict[str, float]:
        """The figures as JSON has them."""
        return {
            "audio_s": self.audio_s,
            "core_share": self.core_share,
            "cpu_us_per_10ms": self.cpu_us_per_10ms,
            "realtime_factor": self.realtime_factor,
            **{name: self.percentile_us(percent) for name, percent in PERCENTS.items()},
        }

    def typical_us(self, period: int) -> npt.NDArray[np.float64]:
        """Microseconds of each block of the audio at the median of its repetitions: without what others took.

        period: after how many blocks the audio repeats.
        """
        n_whole = self.ns.size // period * period
        rows = self.ns[:n_whole].reshape(-1, period) if n_whole else self.ns[np.newaxis]
        typical: npt.NDArray[np.float64] = 1e-3 * np.median(rows, axis=0)
        return typical

    def typical_us_per_10ms(self, period: int) -> float:
        """Microseconds per 10 ms of audio: the mean of typical_us.

        Blocks do not all have the same work (a network may run on every second frame), so that the median over all
        blocks is no cost per second.
        """
        return float(self.typical_us(period).mean()) * (SAMPLE_RATE / 100) / self.block_samples


def measure(
    push: Callable[[Any], object],
    blocks: Sequence[Any],
    block_samples: int,
    n_blocks: int,
    live: bool = False,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> Timing:
    """Push n_blocks, over and over through blocks, and time each.

    push: what takes a block. blocks: what push takes, of block_samples each.
    live: wait for each block as a microphone would. What other processes leave in the caches meanwhile then counts, and
        so does the processor time of falling asleep and waking, but not in the time of a block.
    clock: read before and after each block, in nanoseconds.
    """
    ns = np.empty(n_blocks, np.int64)
    block_ns = 1_000_000_000 * block_samples // SAMPLE_RATE
    cpu_start, due = time.process_time(), time.perf_counter_ns()
    for index, block in zip(range(n_blocks), itertools.cycle(blocks), strict=False):
        if live:
            due += block_ns
            time.sleep(max(0, due - time.perf_counter_ns()) * 1e-9)
        start = clock()
        push(block)
        ns[index] = clock() - start
    return Timing(ns, time.process_time() - cpu_start, block_samples)


def join(timings: Sequence[Timing]) -> Timing:
    """Several runs over blocks of one length as one."""
    (block_samples,) = {timing.block_samples for timing in timings}
    ns = np.concatenate([timing.ns for timing in timings])
    return Timing(ns, sum(timing.cpu_s for timing in timings), block_samples)


def as_int16(samples: npt.NDArray[np.float32]) -> npt.NDArray[np.int16]:
    """The int16 samples that float32 ones in [-1, 1) were made of."""
    return np.clip(np.rint(samples * 32768), -32768, 32767).astype(np.int16)


def cut(samples: npt.NDArray[np.int16], block_samples: int) -> list[npt.NDArray[np.int16]]:
    """Whole blocks of samples, each an array of its own; what is left over is dropped."""
    n_whole = samples.size // block_samples * block_samples
    return [block.copy() for block in samples[:n_whole].reshape(-1, block_samples)]
