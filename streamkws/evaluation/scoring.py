"""Scoring: a corpus and some models in, the posteriors of every recording in every noise condition out.

A corpus is a folder:

    wakewords/<keyword, _ for space>/*.flac   recordings that hold the keyword once, one file each
    impulse_responses/                        not judged: the rooms that recordings may be put into
    <any other name>/                         negative audio: no keyword is spoken in it
    <any other name>/segments.csv             optional: file,start,end,label,speaker,source of each part (samples)
    <name>_noise/                             negative audio that also serves as noise for the noise conditions

Everything random is drawn from a generator seeded with the seed and the recording's name, so that a recording always
gets the same noise, whatever else the corpus holds and whichever model listens.
"""

from __future__ import annotations

import csv
import math
import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from streamkws.audio import AUDIO_SUFFIXES, AudioFile, as_float, read_audio
from streamkws.errors import AudioError, ConfigError
from streamkws.frontend import FrontEnd
from streamkws.model import Model, ModelState

SAMPLE_RATE = 16000
KEYWORD_SET = "wakewords"
ROOM_SET = "impulse_responses"
IGNORED_SETS = (ROOM_SET,)
NOISE_SUFFIX = "_noise"
PADDING_SAMPLES = SAMPLE_RATE  # before and after a keyword recording
PADDING_RMS = 10 ** (-70 / 20)  # -70 dBFS
ENERGY_FRAME_SAMPLES = 2048
BLOCK_SAMPLES = 60 * SAMPLE_RATE  # what is held of a file that gets no noise
NO_LABEL = "noise"  # what a segment of noise is called that its table only names by its source
NOISE_DRAWS = 20  # stretches tried before a recording is left without noise because all were digital silence

Samples = npt.NDArray[np.float32]
Posteriors = npt.NDArray[np.float32]
Progress = Callable[[str, int, int], None]  # (what, done, total)


@dataclass(frozen=True)
class Recording:
    """A file that holds a keyword once.

    name: path below the corpus, with forward slashes.
    speaker: the file name up to its first "_"; "" where there is no label (no "_", or a name in p*).
    """

    path: Path
    name: str
    keyword: str
    speaker: str


@dataclass(frozen=True)
class NegativeFile:
    """A file in which no keyword is spoken.

    set_name: the folder of the corpus it belongs to.
    segments: (start, end) in samples of each separate recording in it; empty where the file is one recording.
    labels: what each segment holds, "" where the table does not say; the source's name where it is only "noise".
    """

    path: Path
    name: str
    set_name: str
    segments: tuple[tuple[int, int], ...] = ()
    labels: tuple[str, ...] = ()

    @property
    def is_noise(self) -> bool:
        """Whether it serves as noise (and then gets none itself)."""
        return self.set_name.endswith(NOISE_SUFFIX)


@dataclass(frozen=True)
class Condition:
    """What is done to a keyword recording before it is heard.

    snr_db: signal-to-noise ratio as `mix` defines it; None is without noise.
    noise: labels of the noise that is mixed in; none is any.
    in_room: whether it is heard through an impulse response, by which the noise is left alone.
    """

    name: str
    snr_db: float | None = None
    noise: tuple[str, ...] = ()
    in_room: bool = False


@dataclass(frozen=True)
class Corpus:
    """The files of a corpus.

    notes: what was left out, and why, in sentences.
    """

    root: Path
    recordings: tuple[Recording, ...]
    negatives: tuple[NegativeFile, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scores:
    """The posteriors of one model in one noise condition.

    recordings: (S, K) per keyword recording, in the order of ScoredCorpus.recordings.
    negatives: (S, K) per negative file, in the order of ScoredCorpus.negatives.
    """

    recordings: tuple[Posteriors, ...]
    negatives: tuple[Posteriors, ...]


@dataclass(frozen=True)
class ScoredCorpus:
    """The posteriors of several models over a corpus.

    recordings, negatives: the files that could be read.
    recording_samples, negative_samples: their lengths, without padding.
    snrs_db: the noise conditions; None is without noise.
    scores: [model][condition].
    skipped: the files that could not be read, each with the reason.
    """

    root: Path
    seed: int
    recordings: tuple[Recording, ...]
    negatives: tuple[NegativeFile, ...]
    recording_samples: tuple[int, ...]
    negative_samples: tuple[int, ...]
    snrs_db: tuple[float | None, ...]
    scores: tuple[tuple[Scores, ...], ...]
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def hours(self) -> float:
        """Hours of negative audio."""
        return sum(self.negative_samples) / SAMPLE_RATE / 3600

    @property
    def hours_by_set(self) -> dict[str, float]:
        """Hours of negative audio per set."""
        hours: dict[str, float] = {}
        for negative, n_samples in zip(self.negatives, self.negative_samples, strict=True):
            hours[negative.set_name] = hours.get(negative.set_name, 0.0) + n_samples / SAMPLE_RATE / 3600
        return hours


def read_corpus(root: str | Path, keywords: Iterable[str]) -> Corpus:
    """List the files of a corpus; recordings of other keywords than these are left out with a note.

    Raises ConfigError for a folder that is missing, or has no recordings of these keywords, or no negative audio, and
    for a segments.csv that cannot be understood.
    """
    root, keywords = Path(root), tuple(keywords)
    if not root.is_dir():
        raise ConfigError(f"{root}: expected the folder of a corpus, got {'a file' if root.exists() else 'nothing'}")
    keyword_root = root / KEYWORD_SET
    if not keyword_root.is_dir():
        raise ConfigError(f"{root}: expected a folder {KEYWORD_SET}/<keyword>/ in the corpus, found {_listing(root)}")
    recordings, notes = read_recordings(keyword_root, keywords)
    negatives: list[NegativeFile] = []
    for folder in _folders(root):
        if folder.name == KEYWORD_SET or folder.name in IGNORED_SETS:
            continue
        table = folder / "segments.csv"
        segments = _read_segments(table) if table.is_file() else {}
        files = {path.relative_to(folder).as_posix(): path for path in audio_files(folder)}
        files |= {name: folder / name for name in segments if name not in files}
        for name, path in sorted(files.items()):
            parts = segments.get(name, [])
            negatives.append(
                NegativeFile(
                    path,
                    path.relative_to(root).as_posix(),
                    folder.name,
                    segments=tuple((start, end) for start, end, _ in parts),
                    labels=tuple(label for _, _, label in parts),
                )
            )
        if not files:
            notes.append(f"{folder.name} holds no audio")
    if not negatives:
        raise ConfigError(
            f"{root}: expected negative audio in folders beside {KEYWORD_SET}, found none; "
            "without it there are no false accepts to count"
        )
    return Corpus(root, tuple(recordings), tuple(negatives), tuple(notes))


def read_recordings(root: Path, keywords: Iterable[str]) -> tuple[list[Recording], list[str]]:
    """List the recordings in a folder of folders that are named for their keyword, and say what is left out.

    Raises ConfigError for a folder without recordings of these keywords.
    """
    if not root.is_dir():
        raise ConfigError(
            f"{root}: expected a folder of keyword recordings, got {'a file' if root.exists() else 'nothing'}"
        )
    keywords = tuple(keywords)
    notes: list[str] = []
    recordings: list[Recording] = []
    for folder in _folders(root):
        keyword = folder.name.replace("_", " ")
        if keyword not in keywords:
            notes.append(f"{root.name}/{folder.name} was left out: no model knows the keyword {keyword!r}")
            continue
        for path in audio_files(folder):
            recordings.append(Recording(path, path.relative_to(root.parent).as_posix(), keyword, _speaker(path)))
    found = {recording.keyword for recording in recordings}
    if not found:
        raise ConfigError(f"{root}: expected recordings of {', '.join(keywords)}, found {_listing(root)}")
    notes += [f"the corpus has no recording of {keyword!r}" for keyword in keywords if keyword not in found]
    return recordings, notes


def score_corpus(
    models: Sequence[Model],
    corpus: Corpus,
    snrs_db: Sequence[float | None] = (None, 10.0),
    seed: int = 0,
    progress: Progress | None = None,
) -> ScoredCorpus:
    """Let every model listen to every file of a corpus, once per noise condition.

    Each recording is heard by a fresh stream, between 1 s of faint noise (white, -70 dBFS) on either side; each
    negative file by a fresh stream, whole. In a noise condition a recording gets one stretch of noise from end to end,
    padding included, and each segment of a negative file its own; the noise files stay as they are. Files are decoded
    once, and the models share the features where they have the same front end. A file that gets noise is held in memory
    whole; any other is heard while it is decoded.

    snrs_db: signal-to-noise ratios as `mix` defines them; None is without noise.
    progress: called with ("listening", files done, files in all).
    Raises ConfigError for no model, no condition, a front end that is not at 16 kHz, or no readable recording or
    negative file.
    """
    if not models:
        raise ConfigError("expected at least one model to evaluate, got none")
    if not snrs_db or len(set(snrs_db)) != len(snrs_db):
        raise ConfigError(f"expected different noise conditions, got {list(snrs_db)}")
    for model in models:
        if model.config.frontend.sample_rate != SAMPLE_RATE:
            raise ConfigError(
                f"{model.name}: expected a front end at {SAMPLE_RATE} Hz, got {model.config.frontend.sample_rate} Hz"
            )

    skipped: list[str] = []
    notes = list(corpus.notes)
    if any(snr_db is not None for snr_db in snrs_db):
        noise = NoiseBank.read(corpus.negatives, seed)
        if not noise.stretches:
            notes.append(f"no noise conditions: the corpus has no folder *{NOISE_SUFFIX} with audio")
            snrs_db = [snr_db for snr_db in snrs_db if snr_db is None]
            if not snrs_db:
                raise ConfigError(
                    f"{corpus.root}: expected folders *{NOISE_SUFFIX} with the noise to mix in, found none"
                )
    else:
        noise = NoiseBank((), seed)

    ears = _Ears(models)
    heard_recordings: list[tuple[Recording, int, list[list[Posteriors]]]] = []
    heard_negatives: list[tuple[NegativeFile, int, list[list[Posteriors]]]] = []
    files: list[Recording | NegativeFile] = [*corpus.recordings, *corpus.negatives]
    for n_done, file in enumerate(files):
        if progress is not None:
            progress("listening", n_done, len(files))
        try:
            if isinstance(file, Recording):
                samples = read_audio(file.path)
                n_samples = len(samples)
                by_snr = [ears.listen([noise.over_recording(file, samples, snr_db)])[0] for snr_db in snrs_db]
            elif file.is_noise or all(snr_db is None for snr_db in snrs_db):
                with AudioFile(file.path, BLOCK_SAMPLES) as blocks:
                    clean, n_samples = ears.listen(as_float(block) for block in blocks)
                by_snr = [clean] * len(snrs_db)
            else:
                samples = read_audio(file.path)
                n_samples = len(samples)
                by_snr = [ears.listen([noise.over_negative(file, samples, snr_db)])[0] for snr_db in snrs_db]
        except (AudioError, OSError) as error:
            skipped.append(_reason(file.name, file.path, error))
            continue
        if not n_samples:
            skipped.append(f"{file.name}: no samples")
        elif isinstance(file, Recording):
            heard_recordings.append((file, n_samples, by_snr))
        else:
            heard_negatives.append((file, n_samples, by_snr))
    if progress is not None:
        progress("listening", len(files), len(files))
    if (corpus.recordings and not heard_recordings) or not heard_negatives:
        what = "negative file" if heard_recordings or not corpus.recordings else "keyword recording"
        raise ConfigError(f"{corpus.root}: expected at least one {what} that can be read; the first was {skipped[0]}")

    return ScoredCorpus(
        root=corpus.root,
        seed=seed,
        recordings=tuple(file for file, _, _ in heard_recordings),
        negatives=tuple(file for file, _, _ in heard_negatives),
        recording_samples=tuple(n_samples for _, n_samples, _ in heard_recordings),
        negative_samples=tuple(n_samples for _, n_samples, _ in heard_negatives),
        snrs_db=tuple(snrs_db),
        scores=tuple(
            tuple(
                Scores(
                    tuple(by_snr[c][m] for _, _, by_snr in heard_recordings),
                    tuple(by_snr[c][m] for _, _, by_snr in heard_negatives),
                )
                for c in range(len(snrs_db))
            )
            for m in range(len(models))
        ),
        skipped=tuple(skipped),
        notes=tuple(notes),
    )


def score_recordings(
    models: Sequence[Model],
    corpus: Corpus,
    conditions: Sequence[Condition],
    seed: int = 0,
    progress: Progress | None = None,
) -> list[list[Scores]]:
    """Let every model listen to every keyword recording of a corpus, once per condition, as score_corpus does.

    progress: called with ("listening", recordings done, recordings in all).
    Returns [model][condition], without negatives.
    Raises ConfigError for a condition whose noise or rooms the corpus does not have, AudioError or OSError for a
    recording or an impulse response that cannot be read.
    """
    noise, rooms = NoiseBank.read(corpus.negatives, seed), RoomBank.read(corpus.root, seed)
    banks = [noise.only(condition.noise) if condition.noise else noise for condition in conditions]
    for condition, bank in zip(conditions, banks, strict=True):
        if condition.snr_db is not None and not bank.stretches:
            raise ConfigError(f"{corpus.root}: expected {' or '.join(condition.noise) or 'noise'} for {condition.name}")
        if condition.in_room and not rooms.responses:
            raise ConfigError(f"{corpus.root}: expected impulse responses in {ROOM_SET} for {condition.name}")
    ears = _Ears(models)
    heard: list[list[list[Posteriors]]] = []  # [recording][condition][model]
    for n_done, recording in enumerate(corpus.recordings):
        if progress is not None:
            progress("listening", n_done, len(corpus.recordings))
        samples = read_audio(recording.path)
        response = rooms.draw(recording) if rooms.responses else None
        heard.append(
            [
                ears.listen([bank.over_recording(recording, samples, one.snr_db, response if one.in_room else None)])[0]
                for one, bank in zip(conditions, banks, strict=True)
            ]
        )
    return [
        [Scores(tuple(by_condition[c][m] for by_condition in heard), ()) for c in range(len(conditions))]
        for m in range(len(models))
    ]


@dataclass(frozen=True)
class NoiseBank:
    """Noise recordings, from which each file to be judged gets its own, always the same stretch.

    stretches: (n,) float32 each, 16 kHz. labels: what each is, where it is known.
    """

    stretches: tuple[Samples, ...]
    seed: int = 0
    labels: tuple[str, ...] = ()

    @classmethod
    def read(cls, negatives: Iterable[NegativeFile], seed: int) -> NoiseBank:
        """Collect the segments of the noise files; files that cannot be read are left to score_corpus to report."""
        stretches: list[Samples] = []
        labels: list[str] = []
        for negative in negatives:
            if not negative.is_noise:
                continue
            try:
                samples = read_audio(negative.path)
            except (AudioError, OSError):
                continue
            segments = negative.segments or ((0, len(samples)),)
            for (start, end), label in zip(segments, negative.labels or [""] * len(segments), strict=True):
                piece = samples[start:end]
                if len(piece):
                    stretches.append(piece)
                    labels.append(label)
        return cls(tuple(stretches), seed, tuple(labels))

    def only(self, labels: Iterable[str]) -> NoiseBank:
        """The stretches with these labels."""
        wanted = set(labels)
        kept = [n for n, label in enumerate(self.labels) if label in wanted]
        return NoiseBank(tuple(self.stretches[n] for n in kept), self.seed, tuple(self.labels[n] for n in kept))

    def over_recording(
        self, recording: Recording, samples: Samples, snr_db: float | None, response: Samples | None = None
    ) -> Samples:
        """Pad a keyword recording on both sides and, unless snr_db is None, lay noise over all of it.

        response: (n,) float32 impulse response of a room that the recording is heard in, the noise not.
        """
        random = self._random(recording.name)
        padding = (PADDING_RMS * random.standard_normal((2, PADDING_SAMPLES))).astype(np.float32)
        padded = np.concatenate([padding[0], samples, padding[1]])
        if response is not None:
            padded = in_room(padded, response)
        if snr_db is None:
            return padded
        return mix(padded, self._draw(random, len(padded)), snr_db)

    def over_negative(self, negative: NegativeFile, samples: Samples, snr_db: float | None) -> Samples:
        """Lay noise over each segment of a negative file, unless snr_db is None."""
        if snr_db is None:
            return samples
        noisy = samples.copy()
        for start, end in negative.segments or ((0, len(samples)),):
            segment = samples[start:end]
            if len(segment):
                noise = self._draw(self._random(f"{negative.name}#{start}"), len(segment))
                noisy[start:end] = mix(segment, noise, snr_db)
        return noisy

    def _random(self, name: str) -> np.random.Generator:
        return _generator(self.seed, name)

    def _draw(self, random: np.random.Generator, n_samples: int) -> Samples:
        """Cut n_samples from a noise recording, repeating one that is too short; zeros if only silence was drawn."""
        for _ in range(NOISE_DRAWS):
            source = self.stretches[random.integers(len(self.stretches))]
            start = int(random.integers(max(1, len(source) - n_samples + 1)))
            noise: Samples = np.resize(source[start : start + n_samples], n_samples)
            if max_frame_energy(noise) > 0:
                return noise
        return np.zeros(n_samples, dtype=np.float32)


@dataclass(frozen=True)
class RoomBank:
    """Impulse responses of rooms, from which each keyword recording gets one, always the same.

    responses: (n,) float32 each, 16 kHz.
    """

    responses: tuple[Samples, ...]
    seed: int = 0

    @classmethod
    def read(cls, root: Path, seed: int) -> RoomBank:
        """Read a corpus' impulse responses but those that are digital silence.

        Raises AudioError or OSError for a file that cannot be read.
        """
        responses = [read_audio(path) for path in audio_files(root / ROOM_SET)]
        return cls(tuple(response for response in responses if response.any()), seed)

    def draw(self, recording: Recording) -> Samples:
        """The impulse response of a recording."""
        random = _generator(self.seed, f"{recording.name}#room")
        return self.responses[random.integers(len(self.responses))]


def in_room(samples: Samples, response: Samples) -> Samples:
    """Hear samples through an impulse response, whose greatest value is the direct path and comes without delay.

    As many samples come back, their loudest frame as loud as before, and less loud only where they would clip.

    samples, response: (n,) float32; the response is not digital silence.
    """
    response = response[int(np.argmax(np.abs(response))) :]
    n_fft = 1 << (len(samples) + len(response) - 2).bit_length()
    spectrum = np.fft.rfft(samples.astype(np.float64), n_fft) * np.fft.rfft(response.astype(np.float64), n_fft)
    heard = np.fft.irfft(spectrum, n_fft)[: len(samples)]
    energy = max_frame_energy(heard.astype(np.float32))
    if energy > 0:
        heard *= math.sqrt(max_frame_energy(samples) / energy)
    heard /= max(1.0, float(np.abs(heard).max(initial=0.0)))
    return heard.astype(np.float32)


def max_frame_energy(samples: Samples) -> float:
    """Energy of the loudest whole frame of 2048 samples; of all samples where they are fewer.

    samples: (n,) float32.
    """
    n_frames = len(samples) // ENERGY_FRAME_SAMPLES
    frames = samples[: n_frames * ENERGY_FRAME_SAMPLES].reshape(n_frames, -1) if n_frames else samples[np.newaxis]
    return float((frames.astype(np.float64) ** 2).sum(axis=1).max(initial=0.0))


def mix(speech: Samples, noise: Samples, snr_db: float) -> Samples:
    """Add noise, scaled so that max_frame_energy(speech) / max_frame_energy(noise) is 10^(snr_db / 10).

    A sum that leaves [-1, 1] is scaled down as a whole, so that nothing clips and the ratio holds. Silence on either
    side leaves the speech as it is.

    speech, noise: (n,) float32.
    Source: the rule of Picovoice's wake-word-benchmark, mixer.py; there the speech is scaled instead of the noise.
    """
    speech_energy, noise_energy = max_frame_energy(speech), max_frame_energy(noise)
    if speech_energy == 0 or noise_energy == 0:
        return speech
    scale = math.sqrt(speech_energy / (noise_energy * 10 ** (snr_db / 10)))
    mixed = speech.astype(np.float64) + scale * noise.astype(np.float64)
    mixed /= max(1.0, float(np.abs(mixed).max()))
    return mixed.astype(np.float32)


class _Ears:
    """The models' streams, with one front end for all models whose front ends are set alike."""

    def __init__(self, models: Sequence[Model]) -> None:
        self._groups: list[tuple[FrontEnd, list[tuple[int, ModelState]]]] = []
        self._n_models = len(models)
        by_config: dict[object, list[tuple[int, ModelState]]] = {}
        for m, model in enumerate(models):
            states = by_config.get(model.config.frontend)
            if states is None:
                states = by_config[model.config.frontend] = []
                self._groups.append((model.front_end(), states))
            states.append((m, model.new_state()))

    def listen(self, blocks: Iterable[Samples]) -> tuple[list[Posteriors], int]:
        """Hear a stream; every model starts afresh, and each listens in a thread of its own.

        Returns the posteriors (S, K) of each model, and the number of samples.
        """
        parts: list[list[Posteriors]] = [[] for _ in range(self._n_models)]
        n_samples = 0
        for front_end, states in self._groups:
            front_end.reset()
            for _, state in states:
                state.reset()
        for block in blocks:
            n_samples += len(block)
            for front_end, states in self._groups:
                frames = front_end.push(block)
                with ThreadPoolExecutor(len(states)) as pool:
                    for m, heard in [(m, pool.submit(state.push, frames)) for m, state in states]:
                        parts[m].append(np.array(heard.result(), dtype=np.float32))
        return [np.concatenate(part) if part else np.empty((0, 0), np.float32) for part in parts], n_samples


def _generator(seed: int, name: str) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def _read_segments(table: Path) -> dict[str, list[tuple[int, int, str]]]:
    """(start, end, label) of each segment, by file."""
    segments: dict[str, list[tuple[int, int, str]]] = {}
    try:
        with table.open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            missing = {"file", "start", "end"} - set(rows.fieldnames or ())
            if missing:
                raise ConfigError(f"{table}: expected the columns file, start and end, found {rows.fieldnames}")
            for row in rows:
                try:
                    start, end = int(row["start"]), int(row["end"])
                except (TypeError, ValueError):
                    start, end = -1, -1
                if not 0 <= start <= end:
                    raise ConfigError(
                        f"{table}, line {rows.line_num}: expected 0 <= start <= end in samples, "
                        f"got {row['start']} and {row['end']}"
                    )
                label, source = row.get("label") or "", row.get("source") or ""
                segments.setdefault(row["file"], []).append((start, end, _label(label, source)))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{table}: cannot be read: {error}") from error
    return segments


def _label(label: str, source: str) -> str:
    return Path(source).stem if label == NO_LABEL and source else label


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def audio_files(folder: Path) -> list[Path]:
    """The audio files below a folder, but those whose name starts with a dot."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file() and not path.name.startswith(".")
    )


def _speaker(path: Path) -> str:
    speaker, underscore, _ = path.stem.partition("_")
    return speaker if underscore and not speaker.startswith("p") else ""


def _listing(folder: Path) -> str:
    names = [path.name for path in _folders(folder)]
    return ", ".join(names) if names else "no folder"


def _reason(name: str, path: Path, error: Exception) -> str:
    text = str(error).removeprefix(f"{path}: ")
    return f"{name}: {text}"
