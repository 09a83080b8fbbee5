"""Synthesize streamkws/demo.flac, the recording behind `streamkws demo`, and demo.json with its true times.

    python bench/make_demo.py              write the two files
    python bench/make_demo.py --try MODEL  print which synthesizer voices MODEL hears, to choose LINES by

Needs espeak-ng and flite. Every keyword is spoken inside running speech; pink noise and babble lie under all of it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

Samples = npt.NDArray[np.float64]

SAMPLE_RATE = 16000
SNR_DB = 15.0  # speech over noise, both measured over the time that somebody speaks
SPEECH_RMS = 0.06
PAUSE_S = 0.25  # between a keyword and the words around it
GAP_S = 0.5  # between two lines
SEED = 2019


@dataclass(frozen=True)
class Voice:
    """One synthesizer voice.

    engine: "espeak-ng" or "flite".
    name: the engine's name for it, for example "en-us+f2" or "slt".
    speed: words per minute for espeak-ng, duration stretch for flite.
    """

    engine: str
    name: str
    speed: float

    def __str__(self) -> str:
        return f"{self.engine} {self.name} {self.speed:g}"


@dataclass(frozen=True)
class Line:
    """A sentence with a keyword in it, or none (keyword is empty)."""

    voice: Voice
    before: str
    keyword: str
    after: str


LINES = (
    Line(Voice("flite", "slt", 1.0), "could somebody please ask", "alexa", "what the weather is today"),
    Line(Voice("espeak-ng", "en-us+m6", 160), "good morning", "computer", "switch on the light in the kitchen"),
    Line(Voice("espeak-ng", "en-us+m3", 150), "we talked about the garden and the rain for a long time", "", ""),
    Line(Voice("flite", "awb", 1.2), "and then", "jarvis", "play some music"),
    Line(Voice("flite", "awb", 1.0), "now", "smart mirror", "show me the news of the day"),
    Line(Voice("flite", "kal16", 1.0), "the train to the coast leaves at half past nine", "", ""),
    Line(Voice("flite", "rms", 0.95), "listen", "snowboy", "it is nearly eight"),
    Line(Voice("espeak-ng", "en-us+f1", 130), "thank you", "view glass", "turn the page"),
)
BABBLE = (
    (Voice("espeak-ng", "en-us+m1", 170), "she had never been to the market on a sunday before and wanted to see it"),
    (Voice("espeak-ng", "en-us+f4", 160), "the price of bread went up again while nobody in the house was looking"),
    (Voice("flite", "kal16", 1.0), "put the red boxes under the table and the blue ones next to the window"),
    (Voice("flite", "awb", 1.1), "he told us the story of the old ship for the third time this evening"),
)
TRIED = (
    *(Voice("espeak-ng", f"en-us+{v}", s) for v in "m1 m2 m3 m4 m5 m6 m7 f1 f2 f3 f4 f5".split() for s in (130, 160)),
    *(Voice("flite", v, s) for v in "slt rms awb kal16".split() for s in (0.9, 1.0, 1.2)),
)


def speak(voice: Voice, text: str) -> Samples:
    """Return the synthesized text at 16 kHz and SPEECH_RMS, without the silence around it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        if voice.engine == "espeak-ng":
            command = ["espeak-ng", "-v", voice.name, "-s", f"{voice.speed:g}", "-w", str(path), text]
        else:
            stretch = ["--setf", f"duration_stretch={voice.speed:g}"]
            command = ["flite", "-voice", voice.name, *stretch, "-t", text, "-o", str(path)]
        subprocess.run(command, check=True)
        samples, rate = soundfile.read(path)
    samples = soxr.resample(samples, rate, SAMPLE_RATE)
    loud = np.flatnonzero(np.abs(samples) > 0.02 * np.abs(samples).max())
    samples = samples[loud[0] : loud[-1] + 1]
    return np.asarray(samples * (SPEECH_RMS / np.sqrt(np.mean(samples**2))))


def pink_noise(n_samples: int, rng: np.random.Generator) -> Samples:
    """Return noise whose power falls by 3 dB an octave, at RMS 1."""
    spectrum = np.fft.rfft(rng.standard_normal(n_samples))
    noise = np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 1)), n_samples)
    return np.asarray(noise / noise.std())


def babble_noise(n_samples: int, rng: np.random.Generator) -> Samples:
    """Return the BABBLE voices all talking at once, at RMS 1."""
    noise = np.zeros(n_samples)
    for voice, text in BABBLE:
        speech = speak(voice, text)
        loop = np.resize(np.concatenate([speech, np.zeros(SAMPLE_RATE // 4)]), n_samples)
        noise += np.roll(loop, rng.integers(n_samples))
    return np.asarray(noise / noise.std())


def add_noise(speech: Samples, rng: np.random.Generator) -> Samples:
    """Return speech with pink noise and babble of equal power at SNR_DB."""
    noise = (pink_noise(len(speech), rng) + babble_noise(len(speech), rng)) / np.sqrt(2)
    return np.asarray(speech + noise * SPEECH_RMS * 10 ** (-SNR_DB / 20))


def compose() -> tuple[Samples, list[dict[str, str | float]]]:
    """Return the clean recording and, per keyword in it, its name, start and end in seconds."""
    pieces = [np.zeros(SAMPLE_RATE)]
    truth: list[dict[str, str | float]] = []

    def now() -> float:
        return round(sum(map(len, pieces)) / SAMPLE_RATE, 3)

    pause, gap = (np.zeros(int(seconds * SAMPLE_RATE)) for seconds in (PAUSE_S, GAP_S))
    for line in LINES:
        pieces.append(speak(line.voice, line.before))
        if line.keyword:
            pieces.append(pause)
            start = now()
            pieces.append(speak(line.voice, line.keyword))
            truth.append({"keyword": line.keyword, "start": start, "end": now()})
            pieces += [pause, speak(line.voice, line.after)]
        pieces.append(gap)
    return np.concatenate([*pieces, np.zeros(SAMPLE_RATE // 2)]), truth


def write_demo(folder: Path) -> None:
    """Write demo.flac and demo.json into folder."""
    rng = np.random.default_rng(SEED)
    speech, truth = compose()
    mixed = add_noise(speech, rng)
    path = folder / "demo.flac"
    soundfile.write(path, mixed * min(1.0, 0.7 / np.abs(mixed).max()), SAMPLE_RATE, subtype="PCM_16")
    items = ",\n".join("    " + json.dumps(item) for item in truth)
    (folder / "demo.json").write_text(f'{{\n  "keywords": [\n{items}\n  ]\n}}\n', encoding="utf-8")
    print(f"{path}: {len(mixed) / SAMPLE_RATE:.1f} s, {path.stat().st_size / 1e6:.2f} MB, {len(truth)} keywords")


def try_voices(model_name: str) -> None:
    """Print, per keyword and voice, the highest smoothed posterior in noise at SNR_DB, best voices first."""
    import streamkws

    model = streamkws.load_model(model_name)
    detector = streamkws.Detector(model)
    hop = model.config.frontend.hop_samples
    quiet = np.zeros(SAMPLE_RATE)
    background = add_noise(np.zeros(5 * SAMPLE_RATE), np.random.default_rng(SEED))
    for k, keyword in enumerate(model.keywords):
        scores = {}
        for voice in TRIED:
            clip = np.concatenate([quiet, speak(voice, keyword), quiet])
            clip = (clip + background[: len(clip)]).astype(np.float32)
            detector.reset()
            peak = 0.0
            for start in range(0, len(clip), hop):
                detector.push(clip[start : start + hop])
                peak = max(peak, float(detector.levels()[k]))
            scores[voice] = peak
        threshold = model.thresholds[keyword]
        heard = sum(score >= threshold for score in scores.values())
        print(f"{keyword}: {heard} of {len(scores)} voices heard at the threshold of {threshold:.2f}")
        for voice, score in sorted(scores.items(), key=lambda item: -item[1]):
            print(f"  {'heard' if score >= threshold else '     '}  {score:.3f}  {voice}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--try", dest="model", metavar="MODEL", help="print which voices this model hears")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "streamkws", metavar="FOLDER")
    arguments = parser.parse_args()
    if arguments.model:
        try_voices(arguments.model)
    else:
        write_demo(arguments.out)


if __name__ == "__main__":
    main()
