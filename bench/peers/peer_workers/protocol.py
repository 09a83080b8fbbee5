"""What all workers share: requests and answers as lines of JSON, memory, and the package's own measuring loop.

A worker runs in an engine's own environment, which has NumPy, but neither numba nor streamkws.
"""

import importlib.util
import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def load_latency():
    """The module streamkws/evaluation/latency.py, without the package around it."""
    path = ROOT / "streamkws" / "evaluation" / "latency.py"
    spec = importlib.util.spec_from_file_location("streamkws_latency", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def resident_mb():
    """Megabytes of memory that this process holds; None where the system does not say."""
    try:
        with open("/proc/self/status", encoding="ascii") as lines:
            fields = dict(line.split(":", 1) for line in lines)
        return int(fields["VmRSS"].split()[0]) * 1024 / 1e6
    except (OSError, KeyError):
        return None


def pin(core):
    """Keep this process on one core; None, or a system that cannot, leaves it free."""
    if core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})


def serve(commands):
    """Answer requests until there are no more.

    commands: functions by name. A request {"do": name, ...} calls one with the other entries; the answer is
    {"answer": what it returned} or {"error": a line}.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # an engine's own prints must not come between the answers
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"answer": commands[request.pop("do")](**request)}
        except Exception as error:  # whatever an engine raises, the bench says it in one line
            answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
        print(json.dumps(answer), file=answers, flush=True)
