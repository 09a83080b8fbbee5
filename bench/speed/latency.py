"""What each block of audio takes, from samples to decision, on one pinned core: median, tail, processor time, memory.

    python bench/speed/latency.py                     the shipped models at every width, blocks of 10, 32 and 80 ms
    python bench/speed/latency.py --peers             other wake-word engines too, in the same run
    python bench/speed/latency.py --peers --write     also write the table in bench/README.md and latency.svg
    python bench/speed/latency.py --json FILE         the figures; - is standard output
    python bench/speed/latency.py --against PYTHON --live 0    beside another version of streamkws, in the same run
    python bench/speed/latency.py --library FOLDER --live 0    a library of compiled kernels beside numba's, likewise

The audio is the demo recording, over and over: speech and keywords in noise. The engines take turns, each in a process
of its own on the same core; a peer is fed blocks of its own length. Peers are installed into runs/peers once. PYTHON is
the Python of an environment in which the other version is installed; each version hears with the model it ships.
FOLDER is what `python -m streamkws.native.build` wrote; with --write that comparison is a section of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import streamkws
from bench.models import WIDTHS
from bench.peers.peers import OWN, PEERS, Engine, Peer, PeerError
from bench.report import ROOT, markdown, publish
from bench.speed.speed import new_parser
from streamkws.audio import read_audio
from streamkws.evaluation.latency import SAMPLE_RATE, Timing, as_int16, join
from streamkws.native.library import FOLDER

BLOCKS = (160, 512, 1280)
WHOLE = 15_360
"""The recording is cut to a multiple of this: of every block, and of the two or three blocks between network steps."""
PICTURE = ROOT / "bench" / "speed" / "latency.svg"
COLOURS = ("#000000", "#0072b2", "#d55e00", "#009e73", "#cc79a7")
DASHES: Sequence[Any] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))


@dataclass
class Case:
    """An engine with a block length, and what was measured."""

    engine: Engine
    name: str
    block_samples: int
    rounds: list[Timing] = field(default_factory=list)
    live: Timing | None = None
    period: int = 1
    memory: dict[str, float | None] = field(default_factory=dict)

    def figures(self) -> dict[str, Any]:
        """The figures as JSON has them."""
        whole = join(self.rounds)
        typical = whole.typical_us(self.period)
        figures = {
            "engine": self.name,
            "keywords": self.engine.keywords,
            "block_samples": self.block_samples,
            "n_blocks": whole.ns.size,
            "typical_us_per_10ms": whole.typical_us_per_10ms(self.period),
            **whole.figures(),
            "typical_median_us": float(np.median(typical)),
            "typical_p99.9_us": float(np.percentile(typical, 99.9)),
            **self.memory,
        }
        if self.live is not None:
            figures["live"] = self.live.figures()
        return figures

    @property
    def us_per_10ms(self) -> Any:
        """Every block's microseconds per 10 ms of audio, (n,) float64."""
        return 1e-3 * join(self.rounds).ns * (SAMPLE_RATE / 100) / self.block_samples


def measure_cases(cases: list[Case], samples: Any, frames: int, n_rounds: int, live_s: float) -> Iterator[str]:
    """Measure the cases in turn, in rounds, and say what is being done."""
    yield "warming up"
    for case in cases:
        _, case.period = case.engine.time_blocks(samples, samples.size // case.block_samples, case.block_samples)
        case.memory = case.engine.memory()
    per_round = -(-frames * SAMPLE_RATE // 100 // n_rounds // samples.size) * samples.size
    for number in range(n_rounds):
        yield f"turn {number + 1} of {n_rounds}"
        for case in cases if number % 2 == 0 else cases[::-1]:
            n_blocks = per_round // case.block_samples
            timing, _ = case.engine.time_blocks(samples, n_blocks, case.block_samples)
            case.rounds.append(timing)
    if live_s > 0:
        yield "at the pace of speech"
        for case in cases:
            n_blocks = max(1, round(live_s * SAMPLE_RATE / case.block_samples))
            case.live, _ = case.engine.time_blocks(samples, n_blocks, case.block_samples, live=True)


def table(results: list[dict[str, Any]], yardstick: str) -> str:
    """The figures as a markdown table. yardstick: the engine that the others are compared with, if it was measured."""
    base = next((one["typical_us_per_10ms"] for one in results if one["engine"] == yardstick), None)
    header = ["engine", "keywords", "block, ms", "us per 10 ms"]
    header += [] if base is None else [f"of {yardstick}"]
    header += ["CPU us per 10 ms", "live CPU us per 10 ms", "block: median, us", "p99", "p99.9", "max"]
    header += ["p99.9 / median", "the same of typical blocks", "resident, MB", "of it the engine"]
    rows = []
    for one in results:
        cells = [one["engine"], str(len(one["keywords"])), f"{1000 * one['block_samples'] / SAMPLE_RATE:g}"]
        cells.append(f"{one['typical_us_per_10ms']:.1f}")
        cells += [] if base is None else [f"{one['typical_us_per_10ms'] / base:.2f}"]
        cells += [f"{one['cpu_us_per_10ms']:.1f}", f"{one['live']['cpu_us_per_10ms']:.0f}" if "live" in one else "-"]
        cells += [f"{one[name]:.1f}" for name in ("median_us", "p99_us", "p99.9_us")]
        cells += [f"{one['max_us']:.0f}", f"{one['p99.9_us'] / one['median_us']:.1f}"]
        cells.append(f"{one['typical_p99.9_us'] / one['typical_median_us']:.1f}")
        held, bare = one["resident_mb"], one["bare_mb"]
        cells += ["-", "-"] if held is None or bare is None else [f"{held:.0f}", f"{held - bare:.0f}"]
        rows.append(cells)
    return markdown(header, rows)


def comparison(pairs: list[tuple[Case, Case]]) -> str:
    """What blocks take here and in the other version, as a markdown table. pairs: (here, there) of each model."""
    header = ["model", "block, ms", "here: us per 10 ms", "there", "here / there", "by turns"]
    rows = []
    for here, there in pairs:
        ours, theirs = (join(case.rounds).typical_us_per_10ms(case.period) for case in (here, there))
        turns = [
            mine.typical_us_per_10ms(here.period) / other.typical_us_per_10ms(there.period)
            for mine, other in zip(here.rounds, there.rounds, strict=True)
        ]
        block_ms = f"{1000 * here.block_samples / SAMPLE_RATE:g}"
        spread = f"{min(turns):.3f} to {max(turns):.3f}"
        rows.append([here.name, block_ms, f"{ours:.2f}", f"{theirs:.2f}", f"{ours / theirs:.3f}", spread])
    return markdown(header, rows)


def draw(cases: list[Case], path: Path) -> None:
    """Share of the blocks by what they took per 10 ms of audio, both axes logarithmic."""
    import matplotlib

    matplotlib.rcParams["svg.hashsalt"] = "streamkws"
    matplotlib.rcParams["svg.fonttype"] = "none"
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    panel = figure.subplots()
    values = [case.us_per_10ms for case in cases]
    low, high = min(v.min() for v in values), max(v.max() for v in values)
    bins = np.geomspace(0.9 * low, 1.1 * high, 101)
    for case, taken, colour, dashes in zip(cases, values, COLOURS, DASHES, strict=False):
        counts, _ = np.histogram(taken, bins)
        label = f"{case.name}, blocks of {1000 * case.block_samples / SAMPLE_RATE:g} ms"
        panel.stairs(
            np.where(counts, counts / taken.size, np.nan), bins, color=colour, linestyle=dashes, linewidth=1.4,
            label=label, baseline=None,
        )  # fmt: skip
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    panel.set_xlabel("microseconds per 10 ms of audio")
    panel.set_ylabel("share of the blocks")
    panel.grid(alpha=0.3)
    figure.legend(fontsize=8, loc="outside upper center", ncols=2)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=150)


def main() -> None:
    """Measure, print, and write where asked to."""
    parser = new_parser(__doc__)
    parser.add_argument("--model", default="wakewords", help="shipped name without widths (default: wakewords)")
    parser.add_argument("--frames", type=int, default=200_000, help="10 ms frames of audio per engine (200000)")
    parser.add_argument("--rounds", type=int, default=5, help="turns that the frames are shared out to (5)")
    parser.add_argument(
        "--live", type=float, default=5.0, metavar="S", help="seconds at the pace of speech (5; 0: none)"
    )
    parser.add_argument("--peers", nargs="?", const=",".join(PEERS), default="", metavar="NAME,...",
                        help=f"other engines: {', '.join(PEERS)}, or without names all")  # fmt: skip
    parser.add_argument("--against", metavar="PYTHON", help="compare with the streamkws of this Python's environment")
    parser.add_argument("--library", metavar="FOLDER", help="compare the library of compiled kernels there with numba")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw the histogram; --write: latency.svg")
    arguments = parser.parse_args()
    if arguments.against and (arguments.write or arguments.library):
        parser.error("--against is neither for --write nor for --library")
    mine, other = OWN, None
    if arguments.against:
        other = Peer("streamkws, there", OWN.engine, interpreter=arguments.against)
    elif arguments.library:
        mine = replace(OWN, variables=((FOLDER, str(Path(arguments.library).resolve())),))
        other = replace(OWN, name="streamkws, numba", variables=((FOLDER, ""),))
    names = [name for name in arguments.peers.split(",") if name]
    unknown = sorted(set(names) - set(PEERS))
    if unknown:
        parser.error(f"no such peer: {', '.join(unknown)}; there are {', '.join(PEERS)}")

    samples = as_int16(read_audio(Path(streamkws.__file__).parent / "demo.flac"))
    samples = samples[: samples.size // WHOLE * WHOLE]
    with ExitStack() as stack:
        cases, pairs, missing = [], [], []
        for bits in WIDTHS:
            model = f"{arguments.model}.{bits}"
            engine = stack.enter_context(mine.start(arguments.core, model=model))
            own = [Case(engine, model, length) for length in BLOCKS]
            cases += own
            if other:
                engine = stack.enter_context(other.start(arguments.core, model=model))
                others = [Case(engine, f"{model}, there", length) for length in BLOCKS]
                cases += others
                pairs += zip(own, others, strict=True)
        for name in names:
            try:
                engine = stack.enter_context(PEERS[name].start(arguments.core))
            except PeerError as error:
                missing.append(str(error))
                print(error, file=sys.stderr)
                continue
            cases.append(Case(engine, engine.name, engine.block_samples))
        for doing in measure_cases(cases, samples, arguments.frames, arguments.rounds, arguments.live):
            print(doing, file=sys.stderr)
    results = [case.figures() for case in cases]
    text = table(results, PEERS["porcupine"].name) + (
        f"\n\n{round(100 * results[0]['audio_s']):,} frames of 10 ms per row, on one pinned core, in "
        f"{arguments.rounds} turns."
    )
    if arguments.library:
        turns = f"{arguments.rounds} turns, here from a library of compiled kernels, there compiled by numba."
        publish(arguments, "library", f"{comparison(pairs)}\n\nThe same blocks on one pinned core in {turns}", results)
        return
    if pairs:
        text = f"{comparison(pairs)}\n\n{text}"
    publish(arguments, "latency", text, results, missing)
    picture = arguments.picture or (PICTURE if arguments.write else None)
    if picture:
        own = [case for case in cases if case.name.endswith(WIDTHS[-1]) and case.block_samples == BLOCKS[0]]
        draw([*own, *(case for case in cases if case.engine.name != OWN.name)], picture)


if __name__ == "__main__":
    try:
        main()
    except PeerError as error:
        sys.exit(str(error))
