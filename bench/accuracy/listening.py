"""What a listener notices: what fires in an hour of made sound, and how soon a keyword is heard.

    python bench/accuracy/listening.py                  an hour of made sound, and silence; all shipped widths
    python bench/accuracy/listening.py --corpus DIR     also the delay from a dev keyword's end to its detection,
                                                        by the held-out models, which never heard dev (bench/models.py)
    python bench/accuracy/listening.py --corpus DIR --write    also write the table in bench/README.md

Thresholds are the models' own. The sounds are those of streamkws/voices/sounds.py: music, noise, babble and near words.
Babble is random words, none of them a keyword, said by espeak-ng's voices, one to six at a time. Near words are phrases
that resemble a keyword or hold a part of one; none of them is among the phrases that training may have heard from
synthesized speakers. The same voices say the keywords, too, since a model that is deaf to these voices fires at nothing
they say. The end of a keyword is where the loudest stretch of its recording falls silent (training's speech_region), so
a delay may be negative. A recording counts only if its keyword is heard within a second of that stretch.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.models import load_widths
from bench.report import markdown, publish
from streamkws import Detector, load_model
from streamkws.corpus import read_corpus
from streamkws.errors import MissingExtraError
from streamkws.model import Model
from streamkws.training.augment import speech_region
from streamkws.training.recordings import read_samples
from streamkws.voices.sounds import PIECE_S, RATE, pieces, require_espeak, spoken

MINUTES = {"music": 20, "noise": 15, "babble": 25, "near words": 20}
SILENCE_MINUTES = 10
N_TIMES = 24
"""How often each keyword is said by the voices of the near words."""
SEED = 7
MODELS = ("wakewords.f32", "wakewords.w8a8", "wakewords.w4a8")
BLOCK = RATE // 100


def alarms(models: list[Model], kind: str, minutes: float) -> dict[str, list[str]]:
    """The detections of each model in so many minutes of a kind of sound: keyword, time and score."""
    detectors = {model.name: Detector(model) for model in models}
    heard: dict[str, list[str]] = {name: [] for name in detectors}
    for piece in pieces(kind, round(minutes * 60 / PIECE_S), SEED):
        for name, detector in detectors.items():
            for hit in detector.push(piece):
                heard[name].append(f"{hit.keyword} at {hit.peak:.1f} s ({hit.score:.4f})")
    return heard


def heard_keywords(models: list[Model], n_times: int) -> dict[str, list[int]]:
    """How often each model heard each keyword that random voices said n_times."""
    rng = np.random.default_rng([SEED, len(MINUTES)])
    detectors = [Detector(model) for model in models]
    counts = {model.name: [0] * len(model.keywords) for model in models}
    for index, keyword in enumerate(models[0].keywords):
        for _ in range(n_times):
            sound = spoken(rng, keyword)
            gain = np.float32(0.5 / max(1e-9, float(np.abs(sound).max(initial=0.0))))
            sound = np.concatenate([sound * gain, np.zeros(RATE, np.float32)])
            for model, detector in zip(models, detectors, strict=True):
                counts[model.name][index] += any(hit.keyword == keyword for hit in detector.push(sound))
    return counts


def alarms_in_silence(model: Model, minutes: float) -> int:
    """Detections in digital silence and in the faintest dither, each for so many minutes."""
    n, rng = round(minutes * 60 * RATE), np.random.default_rng(SEED)
    silence, dither = np.zeros(n, np.int16), rng.integers(-1, 2, n).astype(np.int16)
    return sum(len(Detector(model).push(samples)) for samples in (silence, dither))


@dataclass(frozen=True)
class Delays:
    """A model's delays. seconds: from the end of each keyword that was heard to its detection. n: recordings."""

    seconds: list[float]
    n: int


def delays(model: Model, corpus: Path) -> Delays:
    """From the end of each of dev's keywords to the block of 10 ms that brought its detection."""
    detector, seconds = Detector(model), []
    recordings = read_corpus(corpus / "dev", model.keywords).recordings
    for recording in recordings:
        samples = read_samples(recording.path)
        start, end = speech_region(samples)
        samples = np.pad(samples, RATE)
        detector.reset()
        for first in range(0, samples.size, BLOCK):
            hits = [hit for hit in detector.push(samples[first : first + BLOCK]) if hit.keyword == recording.keyword]
            if hits:
                now = (min(first + BLOCK, samples.size)) / RATE - 1.0
                if start / RATE < now < end / RATE + 1.0:
                    seconds.append(now - end / RATE)
                break
    return Delays(seconds, len(recordings))


def report(results: dict[str, Any]) -> str:
    """The figures as a Markdown table, with notes."""
    rows, notes = [], []
    for kind, minutes in MINUTES.items():
        cells = [str(len(results["alarms"][kind][name])) for name in MODELS]
        rows.append([f"detections in {minutes:g} min of made {kind}", *cells])
    cells = [str(results["silence"][name]) for name in MODELS]
    rows.append([f"detections in {2 * SILENCE_MINUTES} min of silence and dither", *cells])
    cells = [f"{sum(results['keywords'][name]) / (len(results['keywords'][name]) * N_TIMES):.0%}" for name in MODELS]
    rows.append(["of the keywords said by the voices of the near words, heard", *cells])
    if "delays" in results:
        for label, q in (("median", 50), ("90th percentile", 90)):
            cells = [f"{1000 * np.percentile(results['delays'][name]['seconds'], q):.0f} ms" for name in MODELS]
            rows.append([f"from the end of a keyword to its detection, {label}", *cells])
        counts = results["delays"][MODELS[-1]]
        heard = f"{len(counts['seconds'])} of {counts['n']}"
        notes.append(f"Delays: {heard} clean recordings of dev, w4a8, the held-out model.")
    fired = []
    for kind, by_model in results["alarms"].items():
        for name, hits in by_model.items():
            counts = Counter(hit.split(" at ")[0] for hit in hits)
            if hits:
                fired.append(f"{name}, {kind}: " + ", ".join(f"{n} {keyword}" for keyword, n in counts.items()))
    if fired:
        notes.append("What fired: " + "; ".join(fired) + ".")
    return "\n\n".join([markdown(["", *(name.split(".")[-1] for name in MODELS)], rows), *notes])


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, help="corpus folder with dev/, for the delays")
    parser.add_argument("--json", metavar="FILE", help="write the figures; - is standard output, instead of the table")
    parser.add_argument("--write", action="store_true", help="write the table in bench/README.md")
    arguments = parser.parse_args()
    if arguments.corpus and not (arguments.corpus / "dev").is_dir():
        sys.exit(f"listening.py: expected a corpus folder with dev/, got {arguments.corpus}")
    try:
        require_espeak()
    except MissingExtraError as error:
        sys.exit(f"listening.py: {error}")
    models = [load_model(name) for name in MODELS]
    results: dict[str, Any] = {"alarms": {kind: alarms(models, kind, minutes) for kind, minutes in MINUTES.items()}}
    results["silence"] = {model.name: alarms_in_silence(model, SILENCE_MINUTES) for model in models}
    results["keywords"] = heard_keywords(models, N_TIMES)
    if arguments.corpus:
        found = [delays(model, arguments.corpus) for model in load_widths()]
        results["delays"] = {
            name: {"seconds": one.seconds, "n": one.n} for name, one in zip(MODELS, found, strict=True)
        }
    publish(arguments, "listening", report(results), results)


if __name__ == "__main__":
    main()
