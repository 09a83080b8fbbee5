"""Telephone speech: misses and false accepts at 8 kHz, with the channel's band and its u-law codes, too.

    python bench/accuracy/telephone.py --corpus DIR            print the table (DIR as `streamkws evaluate` takes it)
    python bench/accuracy/telephone.py --corpus DIR --write    also write it in bench/README.md

Recordings are brought to 8 kHz and then heard as a file of that rate is. Each keyword recording stands between half a
second of silence; a miss is one in which its keyword is not heard. Thresholds are the model's own, and half of them.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.models import load_widths
from bench.report import markdown, publish
from streamkws import Detector, Model, Resampler
from streamkws.audio import read_audio
from streamkws.corpus import read_corpus

F32 = npt.NDArray[np.float32]
RATE, PHONE_RATE = 16_000, 8000
BAND_HZ = (300.0, 3400.0)
SILENCE = np.zeros(RATE // 2, np.float32)


def to_8_khz(samples: F32) -> F32:
    """16 kHz samples at 8 kHz."""
    import soxr

    resampled: F32 = soxr.resample(samples, RATE, PHONE_RATE)
    return resampled


def heard(samples: F32) -> F32:
    """8 kHz samples as AudioFile gives them."""
    resampler = Resampler(PHONE_RATE)
    return np.concatenate([resampler.push(samples), resampler.flush()])


def call(samples: F32) -> F32:
    """8 kHz samples after a telephone line: 300 to 3,400 Hz, and u-law."""
    import soundfile
    from scipy.signal import butter, sosfilt

    band = butter(4, BAND_HZ, "bandpass", fs=PHONE_RATE, output="sos")
    file = io.BytesIO()
    soundfile.write(file, sosfilt(band, samples).astype(np.float32), PHONE_RATE, subtype="ULAW", format="WAV")
    file.seek(0)
    decoded: F32 = soundfile.read(file, dtype="float32")[0]
    return decoded


CONDITIONS: dict[str, Callable[[F32], F32]] = {
    "16 kHz, as recorded": lambda samples: samples,
    "8 kHz": lambda samples: heard(to_8_khz(samples)),
    "8 kHz, 300 to 3,400 Hz, u-law": lambda samples: heard(call(to_8_khz(samples))),
}


def measure(model: Model, folder: Path, share: float) -> dict[str, dict[str, Any]]:
    """Misses by keyword, 0..1, and false accepts per hour and keyword, of each condition. share: of own thresholds."""
    corpus = read_corpus(folder, model.keywords)
    thresholds = {keyword: share * level for keyword, level in Detector(model).thresholds.items()}
    detector, found = Detector(model, thresholds, history_s=0), {}
    for name, change in CONDITIONS.items():
        missed: dict[str, list[bool]] = {keyword: [] for keyword in model.keywords}
        for one in corpus.recordings:
            detector.reset()
            hits = detector.push(change(np.concatenate([SILENCE, read_audio(one.path), SILENCE]))) + detector.flush()
            missed[one.keyword].append(all(hit.keyword != one.keyword for hit in hits))
        n_false, n_samples = 0, 0
        for file in corpus.negatives:
            detector.reset()
            samples = change(read_audio(file.path))
            n_false += len(detector.push(samples)) + len(detector.flush())
            n_samples += samples.size
        hours = n_samples / RATE / 3600
        found[name] = {
            "misses": {keyword: float(np.mean(each)) for keyword, each in missed.items()},
            "recordings": sum(map(len, missed.values())),
            "false_accepts": n_false / hours / len(model.keywords),
            "hours": hours,
        }
    return found


def main() -> None:
    """Measure, print, and write where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", required=True, type=Path, help="corpus folder, such as corpus/dev")
    parser.add_argument("--json", metavar="FILE", help="write the figures; - is standard output, instead of the table")
    parser.add_argument("--write", action="store_true", help="write the table into bench/README.md")
    arguments = parser.parse_args()
    model = load_widths()[-1]
    rows, results = [], {}
    for share, suffix in ((1.0, ""), (0.5, ", half thresholds")):
        results[suffix] = found = measure(model, arguments.corpus, share)
        for name, one in found.items():
            rates = [*one["misses"].values()]
            percents = [f"{100 * rate:.1f} %" for rate in (*rates, np.mean(rates))]
            rows.append([name + suffix, *percents, f"{one['false_accepts']:.2f}"])
    first = next(iter(found.values()))
    text = (
        markdown(["heard at", *model.keywords, "mean missed", "FA/h per keyword"], rows)
        + f"\n\n{model.name}: {first['recordings']} keyword recordings, {first['hours']:.2f} h without a keyword."
    )
    publish(arguments, "telephone", text, results)


if __name__ == "__main__":
    main()
