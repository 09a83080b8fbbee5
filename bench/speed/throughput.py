"""How many times faster than real time `detect` goes through recordings, on one pinned core, start-up aside.

    python bench/speed/throughput.py --recordings DIR            print a row per shipped width
    python bench/speed/throughput.py --recordings DIR --write    also write the table in bench/README.md

The yardstick in the same run, on the same core and files, is decoding the files with soundfile and computing
python_speech_features' logfbank, the usual front end, alone.
"""

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np
import soundfile
from python_speech_features import logfbank

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.models import WIDTHS
from bench.report import markdown, write_section, written_by
from streamkws import detect, load_model

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")


def cpu_s(work, repeats: int = 3) -> float:
    """CPU seconds of the fastest of some runs of work()."""
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return min(seconds)


def features(paths) -> None:
    """Decode and compute logfbank, the yardstick."""
    for path in paths:
        samples, rate = soundfile.read(path, dtype="float32")
        logfbank(samples, rate, nfilt=40)


def figures(audio_s: float, spent_s: float) -> list[str]:
    """Times real time, and microseconds per 10 ms of audio."""
    return [f"{audio_s / spent_s:.0f}", f"{1e4 * spent_s / audio_s:.1f}"]


def main() -> None:
    """Measure, print, and write where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recordings", required=True, type=Path, help="folder of recordings, searched recursively")
    parser.add_argument("--model", default="wakewords", help="shipped name without widths (default: wakewords)")
    parser.add_argument("--write", action="store_true", help="write the table in bench/README.md")
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    paths = sorted(path for path in arguments.recordings.rglob("*") if path.suffix in SUFFIXES)
    if not paths:
        parser.error(f"no recordings in {arguments.recordings}")
    seconds = sum(soundfile.info(path).duration for path in paths)

    rows = []
    yardstick = cpu_s(lambda: features(paths))
    for bits in WIDTHS:
        model = load_model(f"{arguments.model}.{bits}")

        def run(model=model) -> None:
            for path in paths:
                list(detect(path, model))

        list(detect([np.zeros(16000, np.int16)], model))
        spent = cpu_s(run)
        rows.append([f"detect, {model.name}", *figures(seconds, spent), f"{spent / yardstick:.2f}"])
    rows.append(["yardstick: soundfile and logfbank alone", *figures(seconds, yardstick), "1"])
    text = (
        markdown(["path", "times real time", "CPU us per 10 ms", "against the yardstick"], rows)
        + f"\n\n{len(paths)} recordings, {seconds / 60:.1f} min of audio, opened, decoded and searched one after the "
        f"other, on one pinned core, start-up aside. {written_by()}"
    )
    print(text)
    if arguments.write:
        write_section("throughput", text)


if __name__ == "__main__":
    main()
