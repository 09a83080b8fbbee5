"""streamkws bench: how much of this machine one or more models take."""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING

from streamkws.cli.arguments import Commands, add_json_option, add_models_option, load_models
from streamkws.cli.output import STARTING, explain_if_slow, json_line, printable
from streamkws.errors import ConfigError

if TYPE_CHECKING:
    from streamkws.evaluation.latency import Timing

DEMO = Path(__file__).parent.parent / "demo.flac"
MAX_BLOCK_SAMPLES = 16_000


def add_to(commands: Commands) -> None:
    """Add the commands of this module."""
    bench = commands.add(
        _bench,
        "bench",
        "measure how much of a core live listening takes on this machine",
        "streamkws bench",
        "streamkws bench --model wakewords --model mine.w4a8.safetensors",
        "streamkws bench --model mine.w4a8.safetensors --block 1280 --json",
    )
    add_models_option(bench)
    bench.add_argument(
        "--seconds",
        type=float,
        default=5.0,
        metavar="S",
        help="seconds to measure for, first live and then as fast as possible (default: 5)",
    )
    bench.add_argument(
        "--block", type=int, default=160, metavar="N", help="samples in a block (default: 160, which is 10 ms)"
    )
    add_json_option(bench)


def _bench(arguments: argparse.Namespace) -> int:
    block_samples = arguments.block
    if not 1 <= block_samples <= MAX_BLOCK_SAMPLES:
        raise ConfigError(f"expected a block of 1 to {MAX_BLOCK_SAMPLES} samples, got {block_samples}")
    if not (arguments.seconds > 0 and math.isfinite(arguments.seconds)):
        raise ConfigError(f"expected to measure for more than 0 seconds, got {arguments.seconds:g}")
    with explain_if_slow(STARTING):
        from streamkws.audio import SAMPLE_RATE, as_int16, read_audio
        from streamkws.detector import Detector
        from streamkws.evaluation.latency import cut, join, measure

        detector = Detector(load_models(arguments.model))
    blocks = cut(as_int16(read_audio(DEMO)), block_samples)
    measure(detector.push, blocks, block_samples, len(blocks))  # warms up the caches and the clock
    end_s = time.perf_counter() + arguments.seconds
    passes = [measure(detector.push, blocks, block_samples, len(blocks))]
    while time.perf_counter() < end_s:
        passes.append(measure(detector.push, blocks, block_samples, len(blocks)))
    fast = join(passes)
    n_live = max(1, round(arguments.seconds * SAMPLE_RATE / block_samples))
    live = measure(detector.push, blocks, block_samples, n_live, live=True)
    model = detector.name
    if arguments.json:
        for pace, timing in (("live", live), ("fast", fast)):
            print(json_line({"model": model, "block_samples": block_samples, "pace": pace, **timing.figures()}))
        return 0
    every = f"a block of {block_samples} samples every {1000 * block_samples / SAMPLE_RATE:g} ms"
    print(printable(f"{model}, live, {every} for {live.audio_s:.0f} s:"))
    print(f"  listening takes {100 * live.core_share:.2f} % of a core, waking for each block included")
    print(_block_line(live))
    print(f"As fast as it goes, {fast.audio_s:.0f} s of audio:")
    print(f"  {fast.cpu_us_per_10ms:.1f} us of a core per 10 ms of audio, {fast.realtime_factor:.0f} times real time")
    print(_block_line(fast))
    return 0


def _block_line(timing: Timing) -> str:
    median, p99, p999, longest = (timing.percentile_us(percent) for percent in (50, 99, 99.9, 100))
    return f"  a block takes {median:.1f} us in the median; p99 {p99:.1f}, p99.9 {p999:.1f}, the slowest {longest:.1f}"
