"""Long files that a scan cuts: the pieces give the detections of the whole file, bit for bit, wherever it is cut.

    python bench/robustness/cuts.py                  100 random cuts of each kind of file, at two thresholds
    python bench/robustness/cuts.py --cuts 1000
    python bench/robustness/cuts.py --write          also write the table in bench/README.md

The files are made of the demo, with gaps and levels that differ: five minutes each, cut at five random places at once.
Where a piece cannot show that it is exact, a scan hears the whole file; such cuts are counted apart.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.report import ROOT, markdown, publish
from bench.speed.archive import RATE, talk
from streamkws import Detector, detect, load_model
from streamkws.audio import as_int16, read_audio
from streamkws.scanning.hearing import Piece, hear, joined
from streamkws.scanning.listing import Recording

AT_ONCE, FILE_S = 5, 300.0
KINDS = {
    "WAV, 16 kHz": ("wav", RATE, 1, "PCM_16"),
    "FLAC, 16 kHz": ("flac", RATE, 1, "PCM_16"),
    "WAV, 8 kHz, stereo, u-law": ("wav", 8000, 2, "ULAW"),
    "WAV, 11.025 kHz, 8 bits": ("wav", 11_025, 1, "PCM_U8"),
    "WAV, 44.1 kHz, floats": ("wav", 44_100, 1, "FLOAT"),
    "FLAC, 48 kHz, stereo": ("flac", 48_000, 2, "PCM_24"),
}
"""Suffix, rate, channels and subtype."""


def takes() -> list[npt.NDArray[np.int16]]:
    """The demo in stretches of four seconds."""
    demo = as_int16(read_audio(ROOT / "streamkws" / "demo.flac"))
    return [demo[start : start + 4 * RATE] for start in range(0, demo.size, 4 * RATE)]


def write(path: Path, mono: npt.NDArray[np.int16], rate: int, channels: int, subtype: str) -> None:
    """Write 16 kHz samples as a file of another kind; a second channel is half as loud."""
    floats = mono.astype(np.float32) / 32768
    audio = floats if rate == RATE else soxr.resample(floats, RATE, rate)
    gains = np.array([1.0, 0.5], np.float32)[:channels]
    soundfile.write(path, audio[:, np.newaxis] * gains, rate, subtype=subtype)


def try_cuts(detector: Detector, path: Path, cuts: Sequence[int]) -> tuple[list[tuple[object, ...]], int]:
    """What is heard in pieces, and how many of them could not show that they are exact."""
    recording = Recording(path.name, str(path))
    pieces = [Piece(recording, *ends) for ends in zip([0, *cuts], [*cuts, None], strict=True)]
    heard = [hear(detector, piece) for piece in pieces]
    assert not any(one.error for one in heard), [one.error for one in heard]
    return [tuple(vars(hit).values()) for hit in joined(heard).hits], sum(not one.is_exact for one in heard)


def main() -> None:
    """Run, print, and write where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cuts", type=int, default=100, metavar="N", help="of each kind of file (100)")
    parser.add_argument("--json", metavar="FILE", help="write the figures; - is standard output, instead of the table")
    parser.add_argument("--write", action="store_true", help="write the table into bench/README.md")
    arguments = parser.parse_args()
    model, rng = load_model("wakewords"), np.random.default_rng(0)
    rows, results, n_other = [], [], 0
    with tempfile.TemporaryDirectory() as text:
        audio = talk(rng, takes(), FILE_S)
        for name, (suffix, *how) in KINDS.items():
            path = Path(text) / f"long.{suffix}"
            write(path, audio, *how)
            for threshold in (None, 0.02):
                wanted = [tuple(vars(hit).values()) for hit in detect(path, model, threshold)]
                detector = Detector(model, threshold, history_s=0)
                step, n_whole, other = model.config.step_samples, 0, 0
                for _ in range(max(1, arguments.cuts // AT_ONCE)):
                    places = rng.choice(int(FILE_S * RATE) // step - 1, AT_ONCE, replace=False) + 1
                    found, n_inexact = try_cuts(detector, path, sorted((places * step).tolist()))
                    n_whole += n_inexact
                    other += not n_inexact and found != wanted
                n_other += other
                at = "its own" if threshold is None else f"{threshold:g}"
                rows.append([name, at, f"{len(wanted)}", f"{arguments.cuts}", f"{n_whole}", f"{other}"])
                results.append({"file": name, "threshold": threshold, "whole": n_whole, "other": other})
    header = ["file", "threshold", "detections", "cuts", "not shown exact", "other detections"]
    publish(arguments, "cuts", markdown(header, rows, 2) + "\n\n", results)
    sys.exit(int(n_other > 0))


if __name__ == "__main__":
    main()
