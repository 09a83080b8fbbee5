"""Start streamkws once for bench/speed/cold_start.py, and print seconds and memory up to the end of each stage.

python cold.py STARTED CORE MODEL SAMPLES     MODEL "numba" imports that alone; CORE "-" is any
"""

import os
import sys
import time

started, core, model_name, samples = float(sys.argv[1]), *sys.argv[2:]
if core != "-":
    os.sched_setaffinity(0, {int(core)})
stages = {}


def stage(name):
    """The end of a stage: seconds since the process was started, of these on the processor, and megabytes held."""
    seconds, held = time.time() - started, 0
    if os.path.exists("/proc/self/status"):
        with open("/proc/self/status", encoding="ascii") as lines:
            held = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
    stages[name] = {"s": seconds, "cpu_s": time.process_time(), "mb": held * 1024 / 1e6}


stage("python")
import numpy  # noqa: E402

stage("numpy")
if model_name == "numba":
    import numba  # noqa: F401

    stage("numba")
else:
    import streamkws

    stage("import")
    model = streamkws.load_model(model_name)
    stage("load")
    detector = streamkws.Detector(model)
    stage("detector")
    blocks = numpy.load(samples)
    if not any(detector.push(block) for block in blocks):
        sys.exit("expected a detection in the recording, got none")
    stage("detection")
    if os.environ.get("STREAMKWS_LIBRARY") and {"numba", "llvmlite"} & set(sys.modules):
        sys.exit("expected no compiler beside a library of compiled kernels")

import json  # noqa: E402

print(json.dumps(stages))
