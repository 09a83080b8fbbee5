"""Dense layers and a network, float vector in to float vector out: the kernels of every width against other libraries.

    python bench/speed/kernels.py                print two tables: called from Python, and from compiled code
    python bench/speed/kernels.py --write        also write them in bench/README.md
    python bench/speed/kernels.py --json FILE    the figures; - is standard output

Called from Python, each quantizes its input in the call, allocates only its result, and has one thread on
one pinned core, in turns. From compiled code the kernels are held to a floor of this very core: the larger of the time
its fastest 8-bit multiply-add needs for the products, and of the time it needs to read as many bytes as the weights
have. The other libraries are installed into runs/peers once.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.peers.peers import LAYERS, OWN_LAYERS, PeerError, Worker
from bench.report import markdown, publish
from bench.speed.speed import new_parser

NETWORKS: dict[str, tuple[tuple[int, int], ...]] = {
    "128x620": ((128, 620),),
    "128x128": ((128, 128),),
    "256x640": ((256, 640),),
    "512x512": ((512, 512),),
    "1024x1024": ((1024, 1024),),
    "620-4x128-12": ((128, 620), (128, 128), (128, 128), (128, 128), (12, 128)),
}
"""(O, I) of the layers."""
PEER_ENGINES = {"numpy": "NumPy f32", "onnxruntime": "onnxruntime int8", "litert": "LiteRT int8"}
OWN_ENGINES = {"f32": 32, "w8a8": 8, "w4a8": 4}
BATCH_US = 500.0
"""Calls are timed in batches of about this length, so that most batches are not interrupted."""
L1_BYTES = 16_384
"""What is smaller is read as fast as this; reading it alone would measure the loop around it."""


def make_networks(path: Path) -> dict[str, Any]:
    """Write matrices and inputs as the workers read them; returns the float32 outputs by network."""
    rng = np.random.default_rng(1)
    arrays, outputs = {}, {}
    for name, shapes in NETWORKS.items():
        x = y = rng.standard_normal(shapes[0][1]).astype(np.float32)
        for index, (n_outputs, n_inputs) in enumerate(shapes):
            w = (rng.standard_normal((n_outputs, n_inputs)) * np.sqrt(2 / n_inputs)).astype(np.float32)
            y = w @ (np.maximum(y, 0) if index else y)
            arrays[f"{name}.{index}"] = w
        arrays[f"{name}.x"], outputs[name] = x, y
    np.savez(path, **arrays)
    return outputs


def relative_error(y: Any, expected: Any) -> float:
    """Root mean square of the difference, relative to what was expected."""
    return float(np.sqrt(np.mean((np.asarray(y) - expected) ** 2) / np.mean(expected**2)))


def in_turns(calls: dict[Any, Callable[[int], float]], n_rounds: int) -> dict[Any, float]:
    """The median of some batches' microseconds per call, the batches in turns.

    calls: by any key, what times so many calls and returns microseconds per call.
    """
    for time_calls in calls.values():
        time_calls(20)  # compiles what is compiled at its first call
    n_calls = {key: max(1, round(BATCH_US / time_calls(20))) for key, time_calls in calls.items()}
    taken: dict[Any, list[float]] = {key: [] for key in calls}
    for _ in range(n_rounds):
        for key, time_calls in calls.items():
            taken[key].append(time_calls(n_calls[key]))
    return {key: float(np.median(values)) for key, values in taken.items()}


def floors(worker: Worker) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What this core can do, and the floor of each network and width."""
    machine = worker.ask("machine")
    found = []
    for name, shapes in NETWORKS.items():
        for bits in (8, 4):
            n_products = sum(o * i for o, i in shapes)
            n_bytes = n_products * bits // 8
            read = max(n_bytes, L1_BYTES)
            read_us = worker.ask("read_us", n_bytes=read) * n_bytes / read
            rate = machine["multiply_adds_per_s"]
            multiply_us = 1e6 * n_products / rate if rate else 0.0
            found.append(
                {
                    "network": name,
                    "engine": f"w{bits}a8",
                    "weight_bytes": n_bytes,
                    "multiply_us": multiply_us,
                    "read_us": read_us,
                    "floor_us": max(multiply_us, read_us),
                }
            )
    return machine, found


def python_table(called: dict[tuple[str, str], float]) -> str:
    """Microseconds per call from Python, and how many times as fast as the best other one.

    called: by engine and network.
    """
    others = [engine for engine in PEER_ENGINES if any(engine == key[0] for key in called)]
    header = [
        "us per call",
        *(PEER_ENGINES[engine] for engine in others),
        *(f"streamkws {engine}" for engine in OWN_ENGINES),
    ]
    quantized = [engine for engine, bits in OWN_ENGINES.items() if bits != 32]
    header += [f"{engine}: times as fast as the best other" for engine in quantized] if others else []
    rows = []
    for network in NETWORKS:
        row = [network, *(f"{called[engine, network]:.2f}" for engine in (*others, *OWN_ENGINES))]
        if others:
            best = min(called[engine, network] for engine in others)
            row += [f"{best / called[engine, network]:.1f}" for engine in quantized]
        rows.append(row)
    return markdown(header, rows)


def floor_table(found: list[dict[str, Any]]) -> str:
    """The kernels from compiled code against their floor."""
    header = ["from compiled code, us", "widths", "floor: multiply-adds", "floor: reading the weights"]
    header += ["quantized input given", "times the floor", "input quantized too", "times the floor"]
    rows = []
    for one in found:
        row = [one["network"], one["engine"], f"{one['multiply_us']:.2f}", f"{one['read_us']:.2f}"]
        for name in ("given_us", "whole_us"):
            row += [f"{one[name]:.2f}", f"{one[name] / one['floor_us']:.1f}"]
        rows.append(row)
    return markdown(header, rows, n_text=2)


def time_called(stack: ExitStack, core: int | None, n_rounds: int) -> tuple[Worker, list[dict[str, Any]], list[str]]:
    """Time every network in every engine from Python; returns streamkws' worker, the figures, and what is missing."""
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    path = Path(folder) / "networks.npz"
    expected = make_networks(path)
    own = stack.enter_context(OWN_LAYERS.worker_process(core))
    own.ask("open", networks=str(path))
    workers, missing = dict.fromkeys(OWN_ENGINES, own), []
    try:
        others = stack.enter_context(LAYERS.worker_process(core))
        failed = others.ask("open", networks=str(path))
        workers.update({engine: others for engine in PEER_ENGINES if engine not in failed})
        missing += [f"{PEER_ENGINES[engine]}: {reason}" for engine, reason in failed.items()]
    except PeerError as error:
        missing.append(str(error))
    timed: dict[Any, Callable[[int], float]] = {
        (engine, network): lambda n, e=engine, k=network: workers[e].ask("time", engine=e, network=k, n_calls=n)
        for engine in workers
        for network in NETWORKS
    }
    results = []
    for (engine, network), us in in_turns(timed, n_rounds).items():
        y = workers[engine].ask("output", engine=engine, network=network)
        error = relative_error(y, expected[network])
        results.append({"engine": engine, "network": network, "us": us, "error": error})
    return own, results, missing


def time_compiled(own: Worker, found: list[dict[str, Any]], n_rounds: int) -> None:
    """Add to what floors found the microseconds per call from compiled code."""
    timed: dict[Any, Callable[[int], float]] = {
        (index, quantizing): lambda n, o=one, q=quantizing: own.ask(
            "compiled", engine=o["engine"], network=o["network"], n_calls=n, quantizing=q
        )
        for index, one in enumerate(found)
        for quantizing in (False, True)
    }
    for (index, quantizing), us in in_turns(timed, n_rounds).items():
        found[index]["whole_us" if quantizing else "given_us"] = us


def main() -> None:
    """Measure, print, and write where asked to."""
    parser = new_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=200, help="turns; the median of as many batches is shown (200)")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        own, results, missing = time_called(stack, arguments.core, arguments.rounds)
        cpu, found = floors(own)
        time_compiled(own, found, arguments.rounds)
    rates = sorted(1e-3 * one["weight_bytes"] / one["read_us"] for one in found)
    per_cycle = (cpu["multiply_adds_per_s"] or 0) / cpu["cycles_per_s"]
    worst = max(one["error"] for one in results if one["engine"] != "w4a8")
    text = (
        f"{python_table({(one['engine'], one['network']): one['us'] for one in results})}\n\n{floor_table(found)}\n\n"
        f"Medians of {arguments.rounds} batches on one pinned core at {1e-9 * cpu['cycles_per_s']:.2f} GHz. It does "
        f"{per_cycle:.0f} 8-bit multiply-adds per cycle ({cpu['instruction'] or 'by no instruction known here'}) and "
        f"reads {rates[0]:.0f} to {rates[-1]:.0f} GB/s, by the size of what it reads. The outputs of all but the 4-bit "
        f"weights are within {100 * worst:.1f} % (RMS) of float32's."
    )
    publish(arguments, "kernels", text, {"python": results, "compiled": found, "machine": cpu}, missing)


if __name__ == "__main__":
    try:
        main()
    except PeerError as error:
        sys.exit(str(error))
