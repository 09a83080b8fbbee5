"""Speakers mixed of Kokoro-82M's voices. Runs as a script in the synthesizer's own environment, which lacks streamkws.

voices/speakers.py starts it and writes one line of JSON to its standard input: the network and the voices, the phrases,
the files to make. For each file that it has written it prints a line of JSON: number, kind and segments. Where a file
has lines of its own to read, these are read; where there are only texts, their pronunciations are the one line printed.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import random
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

SAMPLE_RATE = 16_000
PAUSE_S = 0.3
SEED = 1
ENGLISH = "ab"
"""First letters of the names of English voices: American and British."""
KEPT_OUT = (
    "af_nova", "af_sky", "am_michael", "am_onyx", "bf_emma", "bm_fable", "ef_dora", "hm_omega", "im_nicola", "jf_alpha",
    "zf_xiaoni", "zm_yunxi",
)  # fmt: skip
"""Voices that no reader is mixed of but those who judge."""
KINDS = ("", "more", "accent")
"""The kinds of files of a speaker; the place in this list is part of the seed."""
SOUNDS: tuple[tuple[float, tuple[dict[str, str], ...]], ...] = (
    # t and d: retroflex, or voiceless ones voiced, or voiced ones voiceless
    (0.6, ({"t(?!ʃ)": "ʈ", "d(?!ʒ)": "ɖ"}, {"t(?!ʃ)": "d", "p": "b"}, {"b": "p", "ɡ": "k"})),
    # r: tapped, trilled, or silent after vowels
    (0.7, ({"ɚ": "əɾ", "ɹ": "ɾ"}, {"ɚ": "eɹ", "ɹ": "r"}, {"ɚ": "a", "ɑːɹ": "ɑː", "ɹ": "ɾ"})),
    # short and long vowels alike, no diphthongs; the neutral one as it is spelled
    (
        0.6,
        tuple(
            {"oʊ|əʊ": "o", "ɔɪ": "oj", "æ": "a", "ɪ": "i", "ɛ": "e", "ɐ": "a", "uː": "u", "ɑː": "a", "ə": neutral}
            for neutral in ("a", "o", "e")
        ),
    ),
    (0.5, ({"v": "ʋ"}, {"v": "w"}, {"v": "b"}, {"v": "f"})),
    (0.4, ({"dʒ": "tʃ"}, {"dʒ": "ʒ"}, {"dʒ": "z"})),
    (0.2, ({"(^| )s(?=[mn])": r"\1es"}, {"(^| )s(?=[mn])": r"\1sə", "ɡl": "ɡəl"})),
)
"""How likely an accent is to replace some of English's sounds, and by which: one of several ways, of (pattern,
replacement). A word that none of them changes is said as it is."""


def accent(rng: Any) -> list[dict[str, str]]:
    """The changes of a random accent, at least one, in the order they apply."""
    while True:
        drawn = [ways[int(rng.integers(len(ways)))] for share, ways in SOUNDS if rng.random() < share]
        if drawn:
            return drawn


def accented(phonemes: str, changes: list[dict[str, str]]) -> str:
    """English phonemes (IPA, as espeak-ng gives them) in an accent."""
    phonemes = phonemes.replace("ɾ", "t")  # the t that Americans tap
    for change in changes:
        for pattern, replacement in change.items():
            phonemes = re.sub(pattern, replacement, phonemes)
    return phonemes


def some(rng: Any, phrases: Sequence[str], n: int) -> list[str]:
    """n different phrases drawn at random; all where there are not more."""
    return [phrases[i] for i in rng.choice(len(phrases), min(n, len(phrases)), replace=False)]


class Synthesizer:
    """Kokoro, and speakers mixed of its voices. request: as main reads it."""

    def __init__(self, request: dict[str, Any]) -> None:
        import onnxruntime
        from kokoro_onnx import Kokoro
        from wonderwords import RandomSentence

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(request["network"], options, providers=["CPUExecutionProvider"])
        self.kokoro = Kokoro.from_session(session, request["styles"])
        self.voices = dict(np.load(request["styles"]))
        self.names = tuple(self.voices)
        self.sentence = RandomSentence()
        self.keywords: list[str] = request["keywords"]
        self.confusable: list[str] = request.get("confusable", [])
        self.more_confusable: list[str] = request.get("more_confusable", [])
        self.alone: list[str] = request.get("alone", [])

    def mixture(self, rng: Any, english_share: float, names: tuple[str, ...] = ()) -> Any:
        """A random weighted mean of one to three voices, (510, 1, 256) float32. names: of the voices, () for all."""
        n_voices = int(rng.integers(1, 4))
        names = names or self.names
        if rng.random() < english_share:
            names = tuple(name for name in names if name[0] in ENGLISH)
        chosen = rng.choice(len(names), n_voices, replace=False)
        weights = rng.dirichlet(np.full(n_voices, 1.5))
        return sum(self.voices[names[i]] * np.float32(weight) for i, weight in zip(chosen, weights, strict=True))

    def voice(self, rng: Any, deviation: float, names: tuple[str, ...] = ()) -> tuple[Any, str, float]:
        """A random speaker: style, language and tempo. deviation: of the tempo's logarithm. names: as in mixture."""
        style = self.mixture(rng, 0.6, names).copy()
        if rng.random() < 0.5:
            style[:, :, 128:] = self.mixture(rng, 0.9, names)[:, :, 128:]
        language = "en-us" if rng.random() < 0.7 else "en-gb"
        return style, language, float(np.exp(rng.normal(0, deviation)))

    def speaker(self, number: int, kind: str = "") -> tuple[Any, list[tuple[str, int, int]]]:
        """What a speaker says: samples (n,) int16 at 16 kHz, and (label, start, end) in samples of each utterance.

        number: of the speaker. kind: "" for the keywords and a little more, "more" for other phrases without a keyword,
        "accent" for the keywords in an accent.
        """
        from wonderwords import RandomWord

        rng = np.random.default_rng([SEED, number])
        sentences = int(rng.integers(1 << 30))
        voice = self.voice(rng, 0.12)
        if kind:
            rng = np.random.default_rng([SEED, number, KINDS.index(kind)])
            sentences = int(rng.integers(1 << 30))
        random.seed(sentences)  # of articles
        self.random = random.Random(sentences)
        self.sentence.gen = self.words = RandomWord(rng=self.random)
        phrases: list[tuple[str, str]] = []
        if kind == "more":
            phrases += [("other", phrase) for phrase in some(rng, self.more_confusable, 6)]
            phrases += [("other", self.drawn(self.pair)) for _ in range(4)]
            phrases += [("other", self.drawn(self.sentence.sentence)) for _ in range(2)]
            phrases += [("other", word) for word in some(rng, self.alone, 3)]
            phrases += [("other", self.drawn(self.word)) for _ in range(3)]
        else:
            phrases += [(word, word) for word in self.keywords]
        if not kind:
            phrases += [("other", phrase) for phrase in some(rng, self.confusable, 2)]
            phrases += [("other", self.drawn(self.sentence.sentence))]
        return self.say(rng, phrases, *voice, accent(rng) if kind == "accent" else [])

    def reader(self, number: int, script: dict[str, Any]) -> tuple[Any, list[tuple[str, int, int]]]:
        """What a speaker reads: samples and segments, as by speaker.

        script: lines, each a label and a text (IPA between slashes); sentences: how many random ones follow; accent:
        whether in one; kept_out: whether the voices are those of KEPT_OUT, or the others.
        """
        from wonderwords import RandomWord

        kept_out = script["kept_out"]
        rng = np.random.default_rng([SEED, number, len(KINDS)])
        random.seed(int(rng.integers(1 << 30)))
        self.random = random.Random(int(rng.integers(1 << 30)))
        self.sentence.gen = RandomWord(rng=self.random)
        names = tuple(name for name in self.names if (name in KEPT_OUT) == kept_out)
        voice = self.voice(rng, 0.15, names)
        sentences = [("other", self.drawn(self.sentence.sentence)) for _ in range(script["sentences"])]
        lines = [(label, text) for label, text in script["lines"]]
        return self.say(rng, lines + sentences, *voice, accent(rng) if script["accent"] else [])

    def pronunciations(self, texts: list[str]) -> list[str]:
        """What is said for texts, in IPA."""
        return [self.kokoro.tokenizer.phonemize(text, "en-us") for text in texts]

    def word(self) -> str:
        """A random word."""
        kind = self.random.choice(["adjective", "noun", "verb"])
        return str(self.words.word(include_categories=[kind], regex="[a-z]{5,}"))

    def pair(self) -> str:
        """Two random words."""
        kinds = self.random.choice([("adjective", "noun"), ("noun", "noun"), ("verb", "noun")])
        return " ".join(self.words.word(include_categories=[kind], regex="[a-z]+") for kind in kinds)

    def drawn(self, draw: Callable[[], str]) -> str:
        """A text without a keyword."""
        text = draw()
        while any(keyword in text.lower() for keyword in self.keywords):
            text = draw()
        return text

    def say(
        self,
        rng: Any,
        phrases: list[tuple[str, str]],
        style: Any,
        language: str,
        tempo: float,
        changes: list[dict[str, str]],
    ) -> tuple[Any, list[tuple[str, int, int]]]:
        """Say (label, text) one after the other, in an accent if there are changes. Returns what speaker does.

        A text between slashes is IPA.
        """
        from scipy.signal import resample_poly

        pieces, segments, n_samples = [], [], 0
        pause = np.zeros(round(PAUSE_S * SAMPLE_RATE), np.float32)
        for label, text in phrases:
            speed = float(np.clip(tempo * np.exp(rng.normal(0, 0.1)), 0.65, 1.5))
            if changes or text.startswith("/"):
                phonemes = text.strip("/") if text.startswith("/") else self.kokoro.tokenizer.phonemize(text, language)
                phonemes = accented(phonemes, changes) if changes else phonemes
                spoken, rate = self.kokoro.create(phonemes, voice=style, speed=speed, lang=language, is_phonemes=True)
            else:
                spoken, rate = self.kokoro.create(text, voice=style, speed=speed, lang=language)
            spoken = resample_poly(spoken, SAMPLE_RATE, rate).astype(np.float32)
            peak = float(np.abs(spoken).max()) if spoken.size else 0.0
            if not np.isfinite(peak) or peak < 0.01:
                continue
            start = n_samples + pause.size
            pieces += [pause, spoken * np.float32(0.7 / peak)]
            n_samples = start + spoken.size
            segments.append((label, start, n_samples))
        samples = np.concatenate([*pieces, pause])
        return np.rint(samples * 32767).astype(np.int16), segments


_synthesizer: Synthesizer | None = None


def start(request: dict[str, Any]) -> None:
    """Make the synthesizer of this process."""
    global _synthesizer
    _synthesizer = Synthesizer(request)


def speak(job: tuple[str, int, str, dict[str, Any] | None]) -> tuple[int, str, list[tuple[str, int, int]]]:
    """Write a file. job: its path, the speaker's number, the kind, and what is read or None for what the kind says.

    Returns number, kind and segments.
    """
    import soundfile

    assert _synthesizer is not None
    path, number, kind, script = job
    samples, segments = _synthesizer.reader(number, script) if script else _synthesizer.speaker(number, kind)
    part = f"{path}.part"  # whole or absent, as by streamkws.whole
    with open(part, "wb") as file:
        encoded = io.BytesIO()
        soundfile.write(encoded, samples, SAMPLE_RATE, format="FLAC")
        file.write(encoded.getvalue())
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
    return number, kind, segments


def main() -> None:
    """Read the request and make its files."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the libraries print must not come between the answers
    request = json.loads(sys.stdin.readline())
    if "texts" in request:
        print(json.dumps(Synthesizer(request).pronunciations(request["texts"])), file=answers, flush=True)
        return
    folder, scripts = Path(request["folder"]), request.get("scripts", {})
    jobs = [(str(folder / name), number, kind, scripts.get(name)) for name, number, kind in request["files"]]
    with multiprocessing.Pool(request["n_processes"], start, (request,)) as pool:
        for result in pool.imap_unordered(speak, jobs):
            print(json.dumps(result), file=answers, flush=True)


if __name__ == "__main__":
    main()
