"""Sounds that hold no keyword: made music, noise and babble, numbers in other languages, words near to keywords.

Music and noise are made by NumPy, speech by espeak-ng. With the same seed, and the same espeak-ng, they are the same on
every machine. `streamkws mine` looks for hard negatives in them, bench/accuracy/listening.py counts what fires.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from streamkws.audio import read_audio
from streamkws.errors import MissingExtraError
from streamkws.mixing import coloured_noise

F32 = npt.NDArray[np.float32]
RATE = 16_000
PIECE_S = 30
"""Length of a piece of sound."""
VOICES = ("en-us", "en-gb", "en-gb-scotland", "en-029", "en-gb-x-rp", "en-gb-x-gbclan", "en-us-nyc")
VARIANTS = ("", *(f"+{one}" for one in "m1 m2 m3 m4 m5 m6 m7 f1 f2 f3 f4 f5 croak whisper".split()))
WORDS = """
about above across after again against almost along already also always among animal another answer anyone anything
apple around arrive autumn away baby back bad ball bank basket beach beautiful because become bed before begin behind
believe below best better between bicycle big bird black blue book both bottle bottom box branch bread break breakfast
bridge bright bring brother brown build bus butter buy cake call can capital car card careful carry castle cat catch
centre chair change cheap cheese child choose church circle city class clean clear climb clock close cloud coat coffee
cold colour come common cook corner cotton could country cow cream cross cry cup cut daily dance dark daughter day deep
dinner doctor dog door down dream dress drink drive dry early earth east easy eat egg eight empty end engine evening
every example eye face fall family famous farm fast father feel field fight fill find finger finish fire first fish
five floor flower fly follow food foot forest forget four free fresh friday friend from front fruit full funny garden
gate get girl give go gold good grandmother grass great green ground group grow hair half hand happy hard hat have head
hear heart heavy help here high hill history hold holiday home horse hospital hot hour house how hundred hungry ice idea
inside island jacket job join journey juice jump june just keep key kick kind king kitchen knife know lady lake language
large last late laugh leaf learn leave left leg lemon letter library light like lion listen little live long look lose
loud love low lucky lunch machine make man many map march market maybe meat meet metal middle milk minute mistake monday
money monkey month moon morning mother mountain mouth move music must name near neck need never new news next nice night
nine noise north nose nothing number ocean of office often oil old once onion only open orange other outside over page
paint paper parent park part party pass past pay pencil people person phone picture piece pig pilot place plane plant
plate play please pocket point police poor post potato pretty problem promise pull push put queen question quick quiet
rabbit radio rain reach read ready really red rest rice rich ride right ring river road rock room round run sad safe
salt same sand saturday save say school sea season second see sell send seven shade shake share sharp sheep ship shirt
shoe shop short should shoulder show shut sick side silver simple sing sister sit six size skin sleep slow small smell
smile so soap soft some son song soon sorry soup south space speak spend spoon sport spring square stand star start
station stay still stone stop story straight strange street strong student study sugar summer sun sure sweet swim table
take talk tall tea teach team tell ten test thank then there thick thin thing think third thousand three through throw
thursday ticket tiger time tired today together tomorrow tonight tooth top touch towards town train travel tree true
try tuesday turn twelve twenty two umbrella uncle under until use usually very village visit voice wait wake walk wall
want warm wash watch water way wear weather wednesday week well west wet what wheel when where which white who whole why
wide wife wild win wind window wine winter wish with without woman wonderful wood word work world worry write wrong
yellow yes yesterday yet young zebra zero
""".split()

NEAR = (
    "Alec says", "a lecturer", "elects him", "a lexical one", "all extra", "Alexei", "lacks a", "the lexer", "Olympics",
    "compared to", "commuters", "competing", "complete a tour", "come pick her", "amputate her", "compact",
    "a computation", "cute her", "looted her",
    "Jarvie", "starvation", "harvesting", "Jervis Bay", "a jar of fish", "car service", "charmless", "varnish",
    "large fist", "chart is", "jars of rice",
    "smart moves", "smart Marie", "smirk", "smartest", "start mirroring", "chart mirror", "smart mill",
    "dark mirror", "spot mirror", "smart near", "swart miller", "mirror mirror", "smart smart",
    "snow buoyant", "snowing", "snow white", "so annoying", "slow boil", "go boy", "stow buoys", "snob", "sober boy",
    "know Troy", "choirboy", "snow snow", "boy boy", "show toy", "snore boy",
    "view glaciers", "few glances", "you grasp", "view class room", "blew glass", "view, alas", "beautiful grass",
    "feel glass", "fuse glass", "view view", "glass glass", "stew glass", "view last", "viewed gas", "the new glasses",
)  # fmt: skip


def music(rng: np.random.Generator, n: int) -> F32:
    """A tune over chords and drums, with a tempo, a scale and instruments of its own, (n,) float32."""
    samples = np.zeros(n, np.float32)
    beat = round(RATE * 60 / rng.uniform(70, 160))
    scale = np.array([0, 2, 4, 5, 7, 9, 11] if rng.random() < 0.5 else [0, 2, 3, 5, 7, 8, 10])
    root = 110 * 2 ** (rng.integers(0, 12) / 12)
    timbres = rng.dirichlet(np.full(8, 0.7), 3) * rng.uniform(0.5, 2, (3, 8))
    vibrato = rng.uniform(0, 0.012)

    def note(degree: int, length: int, timbre: npt.NDArray[np.float64], decay: float) -> F32:
        hz = root * 2 ** ((scale[degree % 7] + 12 * (degree // 7)) / 12)
        t = np.arange(length) / RATE
        phase = 2 * np.pi * hz * (t + vibrato / 30 * np.sin(2 * np.pi * 5 * t))
        wave = sum(a * np.sin(k * phase) for k, a in enumerate(timbre, 1) if k * hz < 7500)
        envelope = np.minimum(1, t * 60) * np.exp(-t * decay) * np.minimum(1, (t[-1] - t) * 60)
        return np.asarray(wave * envelope, np.float32)

    degree, sung = 7, rng.random() < 0.5
    for count, position in enumerate(range(0, n - 2 * beat, beat)):
        if count % 4 == 0:
            base = int(rng.choice([0, 3, 4, 5]))
            for step in (0, 2, 4):
                _add(samples, note(base + step, min(4 * beat, n - position), timbres[0], 1.0), position, 0.25)
        for half in (0, beat // 2):
            if rng.random() < 0.7:
                degree = int(np.clip(degree + rng.integers(-3, 4), 3, 17))
                _add(samples, note(degree, beat, timbres[1], 1.5 if sung else 5.0), position + half, 0.5)
        drum = rng.standard_normal(beat // 2) * np.exp(-np.arange(beat // 2) / (RATE * 0.03))
        _add(samples, drum, position, 0.6 if count % 2 else 0.2)
        kick = np.sin(2 * np.pi * 60 * np.sqrt(np.arange(beat) / RATE)) * np.exp(-np.arange(beat) / (RATE * 0.08))
        _add(samples, kick, position, 0.7 * (1 - count % 2))
    return samples


def noise(rng: np.random.Generator, n: int) -> F32:
    """Coloured noise that swells, with beeps, clicks, a hum, sweeps or bursts through a resonance, (n,) float32."""
    samples = np.array(coloured_noise(rng, n, float(rng.uniform(0, 2))), np.float32)
    samples *= np.float32(0.3 / max(1e-9, float(np.sqrt(np.mean(samples**2)))))
    t = np.arange(n) / RATE
    samples *= (0.6 + 0.4 * np.sin(2 * np.pi * rng.uniform(0.05, 3) * t)).astype(np.float32)
    kind = int(rng.integers(5))
    for _ in range(int(rng.integers(10, 60))):
        length = int(rng.uniform(0.02, 0.8) * RATE)
        position = int(rng.integers(0, n - length))
        s = np.arange(length) / RATE
        hz = rng.uniform(200, 5000)
        if kind == 0:
            sound = np.sin(2 * np.pi * hz * s)
        elif kind == 1:
            sound = rng.standard_normal(length) * np.exp(-s * rng.uniform(20, 300))
        elif kind == 2:
            sound = np.sign(np.sin(2 * np.pi * rng.uniform(40, 200) * s)) * 0.5
        elif kind == 3:
            sound = np.sin(2 * np.pi * (hz * s + rng.uniform(-3000, 3000) * s**2))
        else:
            ringing = np.exp(-s[:800] * 200) * np.sin(2 * np.pi * hz * s[:800])
            sound = np.convolve(rng.standard_normal(length) * (rng.random(length) < 0.02), ringing)[:length] * 3
        _add(samples, sound * np.hanning(length), position, float(rng.uniform(0.3, 2)))
    return samples


def babble(rng: np.random.Generator, n: int) -> F32:
    """One to six voices saying random words, (n,) float32."""
    samples = np.zeros(n, np.float32)
    for _ in range(int(rng.choice([1, 1, 2, 3, 6]))):
        words = " ".join(str(word) + ("." if rng.random() < 0.12 else "") for word in rng.choice(WORDS, 140))
        _add(samples, spoken(rng, words), -RATE // 2, float(rng.uniform(0.3, 1)))
    return samples


def near_words(rng: np.random.Generator, n: int) -> F32:
    """Parts of keywords and phrases that resemble them, each by another voice, (n,) float32."""
    samples, position = np.zeros(n, np.float32), RATE // 2
    while position < n:
        sound = spoken(rng, str(rng.choice(NEAR)))
        _add(samples, sound, position, float(rng.uniform(0.3, 1)))
        position += sound.size + int(rng.uniform(0.1, 1) * RATE)
    return samples


def spoken(rng: np.random.Generator, text: str, language: str = "") -> F32:
    """A text in a random voice, tempo and pitch of espeak-ng, (n,) float32; in English unless a language is given.

    Raises CalledProcessError where espeak-ng fails on the text.
    """
    voice = f"{language or rng.choice(VOICES)}{rng.choice(VARIANTS)}"
    speed, pitch = str(int(rng.integers(120, 240))), str(int(rng.integers(20, 80)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        command = ["espeak-ng", "-v", voice, "-s", speed, "-p", pitch, "-w", str(path), text]
        subprocess.run(command, check=True, capture_output=True)
        return np.asarray(read_audio(path))


def numbers(rng: np.random.Generator, languages: Sequence[str]) -> F32:
    """PIECE_S seconds of numbers that voices of several languages read, at a random level; (n,) float32.

    languages: espeak-ng's names, each as likely as the others.
    """
    samples, position = np.zeros(PIECE_S * RATE, np.float32), 0
    while position < samples.size:
        values = (10 ** rng.uniform(0, 4, 8)).astype(int)
        try:
            sound = spoken(rng, " ".join(map(str, values)), str(rng.choice(languages)))[: samples.size - position]
        except subprocess.CalledProcessError:  # a few of its languages have no voice here, or crash it
            continue
        samples[position : position + sound.size] = sound * np.float32(rng.uniform(0.3, 1))
        position += sound.size
    return levelled(rng, samples)


def require_espeak() -> None:
    """Raise MissingExtraError where espeak-ng does not run."""
    try:
        subprocess.run(["espeak-ng", "--version"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        raise MissingExtraError("made speech needs espeak-ng: apt install espeak-ng") from None


def foreign_languages() -> list[str]:
    """espeak-ng's languages other than English."""
    rows = subprocess.run(["espeak-ng", "--voices"], check=True, capture_output=True, text=True).stdout.splitlines()[1:]
    return sorted({name for name in (row.split()[1] for row in rows) if not name.startswith("en")})


def _add(samples: F32, sound: npt.NDArray[Any], position: int, gain: float) -> None:
    """Add a sound at a position; what lies outside is dropped."""
    first, last = max(0, position), min(samples.size, position + sound.size)
    if first < last:
        samples[first:last] += (sound[first - position : last - position] * gain).astype(np.float32)


MAKERS: dict[str, Callable[[np.random.Generator, int], F32]] = {
    "music": music,
    "noise": noise,
    "babble": babble,
    "near words": near_words,
}
"""The kinds of sound; the order is part of the seed."""


def pieces(kind: str, n_pieces: int, seed: int) -> Iterator[F32]:
    """Pieces of PIECE_S seconds of a kind of sound in MAKERS, each at a random level; (n,) float32."""
    for number in range(n_pieces):
        rng = np.random.default_rng([seed, list(MAKERS).index(kind), number])
        yield levelled(rng, MAKERS[kind](rng, PIECE_S * RATE))


def levelled(rng: np.random.Generator, samples: F32) -> F32:
    """Samples at a random level of -40 to -3 dB of full scale."""
    peak = float(np.abs(samples).max(initial=1e-9))
    return samples * np.float32(10 ** (rng.uniform(-40, -3) / 20) / peak)
