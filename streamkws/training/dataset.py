"""The corpus in memory, and training examples made from it: example number i depends on the seed and i alone.

A corpus is a folder of sets. `wakewords/<keyword>/<speaker>_<id>.<ext>` holds one keyword per file (smart_mirror is
the keyword "smart mirror"; a speaker in p* is unknown: ten such clips count as one). Any other set is a few long
files with segments.csv (file, start, end, label, speaker, source; positions in samples at 16 kHz).
"""

from __future__ import annotations

import csv
import multiprocessing
import signal
from collections import defaultdict
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatchcase
from multiprocessing.queues import Queue
from pathlib import Path
from queue import Full
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from streamkws.audio import read_audio
from streamkws.detector import posteriors
from streamkws.errors import AudioError, ConfigError
from streamkws.frontend import FrontEnd, FrontEndConfig, mel_filters
from streamkws.model import Model
from streamkws.model_file import load_model
from streamkws.training import augment, devices
from streamkws.training.augment import F32, AugmentConfig
from streamkws.training.teacher import N_EMBEDDING, SpeechEmbedding
from streamkws.training.voices import in_another_voice, vocoder

I16 = npt.NDArray[np.int16]

SAMPLE_RATE = 16000
UNKNOWN_TAKES = 10
"""So many clips of unknown speakers count as one speaker, since labelled ones have some ten takes each. Counted as one
speaker each, the 115 unknown ones of "computer" would leave an eighth of its examples to the 18 labelled speakers."""
SUFFIXES = (".flac", ".ogg", ".wav", ".mp3")
WORD_SAMPLES = 26000
"""Segments up to this long are single words, longer ones running speech or noise."""
HEARD, HEARD_LATE = 0.5, 6400
"""Smoothed posterior from which an aligner hears a keyword, and how many samples after its end at most."""
VOICE_MARGIN = 4800
"""Samples on either side of a word that are said in another voice with it."""
SYNTHETIC = "synthetic"
"""The set of negatives that synthesized speakers say."""
SYNTHETIC_MARGIN = 1600
"""Samples on either side of a synthesized keyword that belong to its recording."""
NO_EMBEDDINGS = np.zeros((0, N_EMBEDDING), np.float16)
N_FFT = 48000
"""Length of the forward transform of an example; holds 2.1 s at the highest speed and a room's response."""


@dataclass(frozen=True)
class DataConfig:
    """Where the examples come from, and how they are mixed.

    corpus: root folder; train, validation: its parts.
    also_train: more of its parts to train on, the validation part too once a recipe is chosen (what is measured on it
        then says nothing); sets that such a part lacks are left out.
    also_keywords: parts of which only the recordings of keywords are trained on, too: of the validation part the
        negatives are then still unheard, and thresholds can be set on them.
    wakewords, impulse_responses: names of folders of a part.
    exclude: recordings of keywords that are left out, as patterns of <keyword>/<file>, such as "computer/p1*".
    negatives: share of each set of negatives, by name. noise: the sets mixed into other examples. A name with a slash
        is the folder of a set outside the corpus, such as "runs/mined" (streamkws mine).
    auxiliary: sets whose labels are auxiliary outputs.
    crop_s: length of an example in seconds.
    keyword_share, partial_share, collage_share: parts of the examples that are keywords, pieces of keywords, and short
        pieces of keywords and other speech, one after the other.
    word_pair_share: part of the single-word examples that are several words in a row.
    aligner: a model, by name or path, that knows the keywords: where it hears the keyword of a recording outside the
        stretch of sound that speech_region takes for it, the keyword is where it is heard; "" for none.
    min_tail_s: a keyword ends at least this long before the example does.
    synthetic: folder of a set of synthesized speakers (streamkws voices), "" for none; its segments labelled with a
        keyword are recordings of it, the others are negatives, whose share is that of "synthetic" among the negatives.
    synthetic_share: part of the keyword examples that synthesized speakers say.
    near_dry_share: part of the negatives that resemble keywords (pieces, collages, and what synthesized speakers say)
        that are left without room and noise, in which they cannot be told from the keyword: so as not to hear them
        there, a network would have to be deaf to the keyword.
    teacher: folder of a speech embedding to learn from (teacher.py), "" for none.
    teacher_clean: whether the teacher hears the recording without the room, the equalizer and the resonances, too.
    """

    negatives: dict[str, float]
    corpus: str = "../shared/corpus"
    train: str = "train"
    also_train: tuple[str, ...] = ()
    also_keywords: tuple[str, ...] = ()
    validation: str = "dev"
    wakewords: str = "wakewords"
    exclude: tuple[str, ...] = ()
    impulse_responses: str = "impulse_responses"
    noise: tuple[str, ...] = ()
    auxiliary: tuple[str, ...] = ()
    crop_s: float = 2.0
    keyword_share: float = 0.5
    partial_share: float = 0.08
    collage_share: float = 0.0
    word_pair_share: float = 0.5
    aligner: str = ""
    min_tail_s: float = 0.3
    synthetic: str = ""
    synthetic_share: float = 0.3
    near_dry_share: float = 0.0
    teacher: str = ""
    teacher_clean: bool = False

    def __post_init__(self) -> None:
        if not self.negatives or min(self.negatives.values()) < 0 or sum(self.negatives.values()) <= 0:
            raise ConfigError("expected data.negatives to give sets a share of 0 or more, and one more than 0")
        if not 0.5 <= self.crop_s <= 2.0:
            raise ConfigError(f"expected data.crop_s in 0.5..2.0 seconds, got {self.crop_s}")
        shares = (self.keyword_share, self.partial_share, self.collage_share)
        if min(shares) < 0 or sum(shares) >= 1:
            raise ConfigError(
                "expected data.keyword_share + data.partial_share + data.collage_share below 1, none negative"
            )
        for name in ("word_pair_share", "synthetic_share", "near_dry_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"expected data.{name} in 0..1, got {getattr(self, name)}")
        if SYNTHETIC in self.negatives and not self.synthetic:
            raise ConfigError(f"expected data.synthetic to name a folder beside data.negatives.{SYNTHETIC}")
        if not 0 <= self.min_tail_s < self.crop_s / 2:
            raise ConfigError(f"expected data.min_tail_s from 0 to half of crop_s, got {self.min_tail_s}")


@dataclass(frozen=True)
class Clip:
    """One recording of a keyword.

    samples: (n,) int16. keyword: index. start, end: the word, in samples.
    speaker: its name; p0, p1, ... for tens of unknown ones.
    """

    samples: I16
    keyword: int
    speaker: str
    start: int
    end: int


@dataclass(frozen=True)
class Segment:
    """A part of a long file: samples[start:end], with its label and who speaks."""

    file: int
    start: int
    end: int
    label: str
    speaker: str = ""


@dataclass(frozen=True)
class SegmentSet:
    """A set of long files. files: (n,) int16 each."""

    name: str
    files: tuple[I16, ...]
    segments: tuple[Segment, ...]

    @property
    def single_words(self) -> bool:
        """Whether the segments are words, by their median length."""
        return float(np.median([segment.end - segment.start for segment in self.segments])) <= WORD_SAMPLES


def read_samples(path: Path) -> I16:
    """A recording of any rate and channel count as (n,) int16, 16 kHz mono; half the memory of float32."""
    return np.clip(np.rint(read_audio(path) * 32768), -32768, 32767).astype(np.int16)


def excluded(path: Path, patterns: tuple[str, ...]) -> bool:
    """Whether a recording <keyword>/<file> is one that data.exclude names."""
    return any(fnmatchcase(f"{path.parent.name}/{path.name}", pattern) for pattern in patterns)


def read_wakewords(
    folder: Path, keywords: tuple[str, ...], exclude: tuple[str, ...] = ()
) -> tuple[list[Clip], list[str]]:
    """All recordings of the keywords, in the order of keyword and file name, and a line for each that is unusable.

    exclude: patterns of those that are left out, as in DataConfig. Raises ConfigError where a keyword has no recording.
    """
    clips: list[Clip] = []
    unusable: list[str] = []
    for index, keyword in enumerate(keywords):
        place = folder / keyword.replace(" ", "_")
        paths = sorted(path for path in place.glob("*") if path.suffix.lower() in SUFFIXES)
        paths = [path for path in paths if not excluded(path, exclude)]
        n_before, n_unknown = len(clips), 0
        for path in paths:
            try:
                samples = read_samples(path)
            except AudioError as error:
                unusable.append(str(error))
                continue
            speaker = path.stem.split("_")[0]
            if speaker.startswith("p"):
                speaker = f"p{n_unknown // UNKNOWN_TAKES}"
                n_unknown += 1
            clips.append(Clip(samples, index, speaker, *augment.speech_region(samples)))
        if len(clips) == n_before:
            raise ConfigError(f"expected recordings of {keyword!r} in {place}, found none")
    return clips, unusable


def located(clips: list[Clip], keywords: tuple[str, ...], model: Model) -> list[Clip]:
    """The clips, each with its word where the model hears it, if it hears it clearly and elsewhere.

    A recording with loud noise in it has a main stretch of sound that is not the word: an example made of that stretch
    would teach that noise is a keyword.
    """
    missing = sorted(set(keywords) - set(model.keywords))
    if missing:
        raise ConfigError(
            f"expected data.aligner to know {missing[0]!r}, {model.name} knows {', '.join(model.keywords)}"
        )
    clock = model.config.clock
    typical = [
        int(np.median([clip.end - clip.start for clip in clips if clip.keyword == index] or [0]))
        for index in range(len(keywords))
    ]
    tail = np.zeros(SAMPLE_RATE // 2, np.int16)
    placed = []
    for clip in clips:
        scores = posteriors(np.concatenate([clip.samples, tail]), model)[
            :, model.keywords.index(keywords[clip.keyword])
        ]
        heard = round(clock.end_s(int(np.argmax(scores))) * SAMPLE_RATE)
        inside = clip.start + (clip.end - clip.start) // 4 <= heard <= clip.end + HEARD_LATE
        if scores.max(initial=0.0) >= HEARD and not inside:
            end = min(heard, clip.samples.size)
            clip = replace(clip, start=max(0, end - typical[clip.keyword]), end=end)
        placed.append(clip)
    return placed


def read_rows(folder: Path) -> list[dict[str, str]]:
    """The rows of a set's segments.csv. Raises ConfigError where there is none."""
    path = folder / "segments.csv"
    if not path.is_file():
        raise ConfigError(f"expected a set of long files with {path}, found no such file")
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_segments(folder: Path) -> SegmentSet:
    """A set of long files with its segments."""
    rows = read_rows(folder)
    names = sorted({row["file"] for row in rows})
    files = tuple(read_samples(folder / name) for name in names)
    segments = tuple(
        Segment(names.index(row["file"]), int(row["start"]), int(row["end"]), row["label"], row.get("speaker", ""))
        for row in rows
    )
    for segment in segments:
        if not 0 <= segment.start < segment.end <= files[segment.file].size + SAMPLE_RATE // 100:
            raise AudioError(
                f"expected segment {segment.start}..{segment.end} inside {folder / names[segment.file]}, "
                f"which has {files[segment.file].size} samples"
            )
    return SegmentSet(folder.name, files, segments)


def read_synthetic(folder: Path, keywords: tuple[str, ...]) -> tuple[list[Clip], SegmentSet]:
    """The keywords of a set of synthesized speakers, and a set of all else they say."""
    one = read_segments(folder)
    clips: list[Clip] = []
    files: list[I16] = []
    segments: list[Segment] = []
    for segment in one.segments:
        file = one.files[segment.file]
        if segment.label in keywords:
            first, last = max(0, segment.start - SYNTHETIC_MARGIN), min(file.size, segment.end + SYNTHETIC_MARGIN)
            samples = file[first:last]
            index = keywords.index(segment.label)
            clips.append(Clip(samples, index, segment.speaker, *augment.speech_region(samples)))
        else:
            segments.append(replace(segment, file=len(files), start=0, end=segment.end - segment.start))
            files.append(file[segment.start : segment.end])
    if not clips or not files:
        raise ConfigError(f"expected {folder} to hold keywords and other speech, found only one of them")
    return clips, SegmentSet(SYNTHETIC, tuple(files), tuple(segments))


def parts_of(part: Path, data: DataConfig) -> list[Path]:
    """The parts of the corpus that are trained on, from the first one's folder."""
    return [part, *(part.parent / name for name in data.also_train)]


def keyword_parts(part: Path, data: DataConfig) -> list[Path]:
    """The parts of the corpus whose recordings of keywords are trained on, from the first one's folder."""
    return list(dict.fromkeys([*parts_of(part, data), *(part.parent / name for name in data.also_keywords)]))


def set_folders(parts: list[Path], name: str) -> list[Path]:
    """The folders of a set: of the parts that have it, the first of which must; one outside them if it has a slash."""
    if "/" in name:
        return [Path(name)]
    return [parts[0] / name, *(part / name for part in parts[1:] if (part / name / "segments.csv").is_file())]


def joined(name: str, sets: list[SegmentSet]) -> SegmentSet:
    """Sets of one name as one."""
    files: list[I16] = []
    segments: list[Segment] = []
    for one in sets:
        segments += [replace(segment, file=segment.file + len(files)) for segment in one.segments]
        files += one.files
    return SegmentSet(name, tuple(files), tuple(segments))


def auxiliary_labels(parts: list[Path], sets: tuple[str, ...]) -> tuple[str, ...]:
    """The labels of the auxiliary sets of parts of the corpus, as set/label, sorted."""
    rows = ((name, row) for name in sets for folder in set_folders(parts, name) for row in read_rows(folder))
    return tuple(sorted({f"{name}/{row['label']}" for name, row in rows}))


@dataclass(frozen=True)
class Example:
    """A training example of T frames with a target for each of C outputs.

    features: (T, F) float32 log-mel.
    targets: (C,) int8: 1 present, 0 absent, -1 unknown.
    onset, first: (C,) int16 frames: a present word does not sound before onset; its output counts from first on.
    embeddings, ends: (E, 96) float16, what a teacher makes of it before noise is added, and the frame each ends with,
        (E,) int16; E = 0 without a teacher.
    """

    features: F32
    targets: npt.NDArray[np.int8]
    onset: npt.NDArray[np.int16]
    first: npt.NDArray[np.int16]
    embeddings: npt.NDArray[np.float16] = field(default_factory=lambda: NO_EMBEDDINGS)
    ends: npt.NDArray[np.int16] = field(default_factory=lambda: np.zeros(0, np.int16))


EXAMPLE_ARRAYS = tuple(one.name for one in fields(Example))


@dataclass
class _Canvas:
    """An example in the making, in the time of the source (before the change of speed).

    samples: (n,) float32. words: what was put where: output, start, end in samples; cut: outputs that are unknown.
    """

    samples: F32
    words: list[tuple[int, int, int]] = field(default_factory=list)
    cut: list[int] = field(default_factory=list)


class ExampleMaker:
    """Makes training examples from a part of the corpus.

    Each is a pure function of (seed, its number): the same after a restart, whatever was made before it.
    """

    def __init__(
        self,
        part: Path,
        keywords: tuple[str, ...],
        data: DataConfig,
        augmentation: AugmentConfig,
        frontend: FrontEndConfig,
        seed: int,
    ) -> None:
        self.data, self.augmentation, self.seed = data, augmentation, seed
        self.keywords = keywords
        parts = parts_of(part, data)
        self.clips, self.unusable = self.read_clips(keyword_parts(part, data))
        if data.aligner:
            self.clips = located(self.clips, keywords, load_model(data.aligner))
        names = sorted({*data.negatives, *data.noise} - {SYNTHETIC})
        sets = {name: joined(name, [read_segments(place) for place in set_folders(parts, name)]) for name in names}
        synthetic: list[Clip] = []
        if data.synthetic:
            synthetic, sets[SYNTHETIC] = read_synthetic(Path(data.synthetic), keywords)
        self.negatives = [sets[name] for name in data.negatives]
        self.negative_shares = list(data.negatives.values())
        self.noises = [sets[name] for name in data.noise]
        self.speech = [sets[name] for name in data.negatives if name not in data.noise]
        labels = auxiliary_labels(parts, data.auxiliary)
        self.outputs = {label: len(keywords) + index for index, label in enumerate(labels)}
        self.n_outputs = len(keywords) + len(labels)
        self.by_speaker = [clips_by_speaker(self.clips, index) for index in range(len(keywords))]
        self.synthetic_by_speaker = [clips_by_speaker(synthetic, index) for index in range(len(keywords))]
        self.teacher = SpeechEmbedding(data.teacher) if data.teacher else None
        self.numbers = {id(clip): index for index, clip in enumerate(self.clips)}
        self.voices: dict[tuple[int, int], Clip] = {}
        if augmentation.voice_share:
            vocoder()
        self.by_label = {id(one): _segments_by_label(one) for one in self.negatives}

        rng = np.random.default_rng([seed, 0])
        self.coloured = [augment.coloured_noise(rng, 20 * SAMPLE_RATE, exponent) for exponent in (0.0, 0.5, 1.0, 2.0)]
        self.rooms = [room for place in parts for room in self._rooms(place)]
        self.basis = augment.equalizer_basis(N_FFT // 2 + 1)
        self.lengths = augment.speed_lengths(N_FFT, augmentation.speed_min, augmentation.speed_max)
        filters = mel_filters(frontend)
        self.frontends = [
            FrontEnd(frontend, augment.warped_filters(filters, factor, frontend.sample_rate))
            for factor in augment.vtlp_factors(augmentation)
        ]
        self.hop = frontend.hop_samples
        self.n_frames = round(data.crop_s * frontend.sample_rate) // self.hop + augmentation.shift_frames
        self.n_samples = frontend.window_samples + (self.n_frames - 1) * self.hop

    def read_clips(self, parts: list[Path]) -> tuple[list[Clip], list[str]]:
        """The recordings of the keywords, and a line for each that is unusable."""
        clips: list[Clip] = []
        unusable: list[str] = []
        for part in parts:
            found, lines = read_wakewords(part / self.data.wakewords, self.keywords, self.data.exclude)
            if part != parts[0]:  # an unknown speaker of one part is none of another's
                found = [replace(clip, speaker=f"{part.name}/{clip.speaker}") for clip in found]
            clips += found
            unusable += lines
        return clips, unusable

    def _rooms(self, part: Path) -> list[augment.C64]:
        import soundfile

        spectra = []
        for path in sorted((part / self.data.impulse_responses).glob("*")):
            if path.suffix.lower() in SUFFIXES:
                try:
                    response, rate = soundfile.read(path, dtype="float32", always_2d=True)
                except soundfile.LibsndfileError as error:
                    raise AudioError(f"{path}: cannot be read as an impulse response ({error})") from None
                if rate != SAMPLE_RATE:
                    raise AudioError(f"expected an impulse response at {SAMPLE_RATE} Hz, got {rate} Hz: {path}")
                spectra += [augment.room_spectrum(channel, N_FFT) for channel in response.T[:2]]
        return spectra

    def durations_s(self) -> dict[str, float]:
        """The typical duration of each keyword: the median over its recordings, in seconds."""
        return {
            keyword: round(
                float(np.median([clip.end - clip.start for clip in self.clips if clip.keyword == index])) / SAMPLE_RATE,
                3,
            )
            for index, keyword in enumerate(self.keywords)
        }

    def make(self, index: int) -> Example:
        """Training example number index."""
        rng = np.random.default_rng([self.seed, 1, index])
        length = N_FFT
        if rng.random() < self.augmentation.speed_share:
            length = int(rng.choice(self.lengths))
        speed = N_FFT / length
        n_source = int(np.ceil(self.n_samples * speed))

        kind, resembling = rng.random(), True
        if kind < self.data.keyword_share:
            canvas, resembling = self._keyword(rng, n_source, partial=False), False
        elif kind < self.data.keyword_share + self.data.partial_share:
            canvas = self._keyword(rng, n_source, partial=True)
        elif kind < self.data.keyword_share + self.data.partial_share + self.data.collage_share:
            canvas = self._collage(rng, n_source)
        else:
            one = self.negatives[augment.pick(rng, self.negative_shares)]
            resembling = one.name == SYNTHETIC
            canvas = self._words(rng, one, n_source) if one.single_words else self._stretch(rng, one, n_source)

        dry = resembling and self._happens(rng, self.data.near_dry_share)
        features, embeddings = self.perturb(rng, canvas.samples, length, dry)
        return self._label(canvas, features, embeddings, speed)

    def perturb(
        self, rng: np.random.Generator, samples: F32, length: int, dry: bool = False
    ) -> tuple[F32, npt.NDArray[np.float16]]:
        """Room, equalizer, speed, noise, device, level and vocal-tract length, then the front end.

        samples: (n,) float32, the source's, n_samples * speed of them, where speed is N_FFT / length.
        dry: without room and noise.
        Returns (n_frames, F) float32 log-mel, and what the teacher makes of it before noise is added, (E, 96) float16.
        """
        source = samples
        samples = augment.filter_and_resample(source, self._gains(rng, dry), N_FFT, length)[: self.n_samples]
        embeddings = NO_EMBEDDINGS
        if self.teacher is not None:
            taught = samples
            if self.data.teacher_clean:
                taught = augment.filter_and_resample(source, None, N_FFT, length)[: self.n_samples]
            embeddings = self.teacher.embed(taught).astype(np.float16)
        samples = self._through_device(rng, samples if dry else self._add_noise(rng, samples))
        frontend = self.frontends[int(rng.integers(len(self.frontends)))]
        frontend.reset()
        levelled = self._level(rng, samples)
        if self._happens(rng, self.augmentation.codec_share):
            levelled = devices.coded(rng, levelled)
        return frontend.push(levelled)[: self.n_frames], embeddings

    def _label(self, canvas: _Canvas, features: F32, embeddings: npt.NDArray[np.float16], speed: float) -> Example:
        targets = np.zeros(self.n_outputs, np.int8)
        onset = np.zeros(self.n_outputs, np.int16)
        first = np.zeros(self.n_outputs, np.int16)
        for output, start, end in reversed(canvas.words):
            targets[output] = 1
            onset[output] = max(0, round(start / speed / self.hop))
            first[output] = min(self.n_frames - 20, max(0, round((start + end) / 2 / speed / self.hop)))
        for output in canvas.cut:
            if targets[output] == 0:
                targets[output] = -1
        return Example(features, targets, onset, first, embeddings, SpeechEmbedding.ends(len(embeddings)))

    def _keyword(self, rng: np.random.Generator, n_source: int, partial: bool) -> _Canvas:
        """A keyword at a random place, wholly inside; or the first or last part of one, which is none."""
        keyword = int(rng.integers(len(self.keywords)))
        speakers = self.by_speaker[keyword]
        synthetic = bool(self.synthetic_by_speaker[keyword]) and rng.random() < self.data.synthetic_share
        if synthetic:
            speakers = self.synthetic_by_speaker[keyword]
        clips = speakers[int(rng.integers(len(speakers)))]
        clip = clips[int(rng.integers(len(clips)))]
        if not synthetic and self.augmentation.voice_share and rng.random() < self.augmentation.voice_share:
            clip = self._in_another_voice(clip, int(rng.integers(self.augmentation.n_voices)))
        start, end = clip.start, clip.end
        first, last = 0, clip.samples.size  # what is taken of the clip
        if partial:
            length = int((end - start) * rng.uniform(0.35, 0.55))
            if rng.random() < 0.5:
                last = end = start + length
            else:
                first = start = end - length
        context = rng.random() < self.augmentation.context_share * (2 if partial else 1)
        if context or rng.random() < 0.15:
            margin = int(rng.uniform(0.02, 0.15) * SAMPLE_RATE)
            first, last = max(first, start - margin), min(last, end + margin)

        tail = round(self.data.min_tail_s * SAMPLE_RATE)
        shift = self.augmentation.shift_frames * self.hop  # at each use as much is cut off, from either end
        earliest, latest = shift + (end - start), n_source - shift - tail
        place = round(rng.uniform(earliest, latest)) if latest > earliest else n_source - shift - 1600
        canvas = _Canvas(np.zeros(n_source, np.float32))
        offset = place - end  # from the clip's time to the canvas'
        _put(canvas.samples, augment.faded(clip.samples[first:last]), first + offset)
        if context:
            self._context(rng, canvas.samples, first + offset, last + offset)
        if not partial:
            canvas.words.append((keyword, start + offset, end + offset))
        return canvas

    def _in_another_voice(self, clip: Clip, number: int) -> Clip:
        """The word of a clip, with a margin, in its voice of this number; made when first asked for, and kept."""
        key = self.numbers[id(clip)], number
        voice = self.voices.get(key)
        if voice is None:
            first = max(0, clip.start - VOICE_MARGIN)
            word = clip.samples[first : clip.end + VOICE_MARGIN]
            spoken = in_another_voice(
                np.random.default_rng([self.seed, 4, *key]),
                word,
                self.augmentation.voice_min_hz,
                self.augmentation.voice_max_hz,
            )
            samples = np.clip(np.rint(spoken), -32768, 32767).astype(np.int16)
            voice = replace(clip, samples=samples, start=clip.start - first, end=clip.end - first)
            self.voices[key] = voice
        return voice

    def _collage(self, rng: np.random.Generator, n_source: int) -> _Canvas:
        """Pieces of 0.1 to 0.4 s, of keywords (never two of the same one in a row) and of other speech; no keyword."""
        canvas = _Canvas(np.zeros(n_source, np.float32))
        fade = SAMPLE_RATE // 100
        position, last = int(rng.integers(-2000, 8000)), -1
        end = n_source - int(rng.integers(0, 8000))
        while position < end:
            length = int(rng.uniform(0.1, 0.4) * SAMPLE_RATE)
            if rng.random() < 0.5:
                keyword = int(rng.integers(len(self.keywords)))
                if keyword == last:
                    continue
                speakers = self.by_speaker[keyword]
                clips = speakers[int(rng.integers(len(speakers)))]
                clip = clips[int(rng.integers(len(clips)))]
                length = min(length, (clip.end - clip.start) // 2)
                start = int(rng.integers(clip.start, clip.end - length + 1))
                piece, last = clip.samples[start : start + length].astype(np.float32), keyword
            else:
                piece, last = self._speech(rng, length), -1
            level = float(np.sqrt(np.mean(piece**2))) if piece.size else 0.0
            if level > 0:
                gain = 2000 * 10 ** (rng.uniform(-6, 6) / 20) / level
                _put(canvas.samples, augment.faded(piece, fade) * np.float32(min(gain, 30.0)), position)
            position += max(length - fade, fade)
            if rng.random() < 0.15:
                position += int(rng.uniform(0.05, 0.3) * SAMPLE_RATE)
        return canvas

    def _context(self, rng: np.random.Generator, samples: F32, first: int, last: int) -> None:
        """Put other speech right before samples[first:last], right after it, or both."""
        sides = int(rng.integers(3))
        peak = float(np.abs(samples).max())
        for size, position in ((first, 0), (samples.size - last, last)):
            if size > 800 and sides != (0 if position else 1):
                speech = self._speech(rng, size)
                loudest = float(np.abs(speech).max())
                if loudest > 0:
                    gain = peak / loudest * 10 ** (rng.uniform(-10, 3) / 20)
                    _put(samples, augment.faded(speech) * np.float32(gain), position)

    def _speech(self, rng: np.random.Generator, n_samples: int) -> F32:
        """A random stretch of a random set of speech, (n_samples,) float32; shorter where the file is."""
        one = self.speech[int(rng.integers(len(self.speech)))]
        file = one.files[int(rng.integers(len(one.files)))]
        start = int(rng.integers(max(1, file.size - n_samples)))
        return file[start : start + n_samples].astype(np.float32)

    def _stretch(self, rng: np.random.Generator, one: SegmentSet, n_source: int) -> _Canvas:
        """A stretch of running speech or noise around a random point of a random segment."""
        segment = one.segments[int(rng.integers(len(one.segments)))]
        centre = int(rng.integers(segment.start, segment.end))
        file = one.files[segment.file]
        start = int(np.clip(centre - n_source // 2, 0, max(0, file.size - n_source)))
        canvas = _Canvas(np.zeros(n_source, np.float32))
        _put(canvas.samples, augment.faded(file[start : start + n_source]), 0)
        return canvas

    def _words(self, rng: np.random.Generator, one: SegmentSet, n_source: int) -> _Canvas:
        """Single words at random places, with their auxiliary labels: one, or as many as fit, parts of some."""
        canvas = _Canvas(np.zeros(n_source, np.float32))
        several = rng.random() < self.data.word_pair_share
        groups = self.by_label[id(one)]
        position = int(rng.uniform(-0.5, 0.8 if several else 1.0) * SAMPLE_RATE)
        while position < n_source:
            group = groups[int(rng.integers(len(groups)))]
            segment = group[int(rng.integers(len(group)))]
            word = one.files[segment.file][segment.start : segment.end]
            if several and rng.random() < 0.3:  # closer together than the recordings are
                start, end = augment.speech_region(word)
                word = word[start:end]
            _put(canvas.samples, augment.faded(word), position)
            output = self.outputs.get(f"{one.name}/{segment.label}")
            if output is not None:
                margin = word.size // 5
                if position >= -margin and position + word.size <= n_source - 2400 + margin:
                    canvas.words.append((output, position, position + word.size))
                else:
                    canvas.cut.append(output)
            position += word.size + int(rng.uniform(0, 0.2) * SAMPLE_RATE)
            if not several:
                break
        return canvas

    def _gains(self, rng: np.random.Generator, dry: bool) -> augment.C64 | F32 | None:
        """The product of a room and an equalizer, (N_FFT // 2 + 1,); None for neither."""
        config = self.augmentation
        shape: F32 | None = None
        if rng.random() < config.equalizer_share:
            points = rng.standard_normal(self.basis.shape[0]) * config.equalizer_db * np.log(10) / 20
            shape = np.exp(points.astype(np.float32) @ self.basis)
        if rng.random() < config.bandlimit_share:
            shape = np.ones(N_FFT // 2 + 1, np.float32) if shape is None else shape
            shape[int(rng.uniform(3400, 7000) / SAMPLE_RATE * N_FFT) :] *= np.float32(0.01)
        if self._happens(rng, config.resonance_share):
            response = devices.resonances(rng, N_FFT // 2 + 1)
            shape = response if shape is None else shape * response
        if dry or not self.rooms or rng.random() >= config.room_share:
            return shape
        wet = np.float32(10 ** (rng.uniform(-18, 6) / 20))
        room = self.rooms[int(rng.integers(len(self.rooms)))] * wet
        room += np.float32(1)
        return room if shape is None else room * shape

    def _add_noise(self, rng: np.random.Generator, samples: F32) -> F32:
        config = self.augmentation
        if rng.random() >= config.noise_share:
            return samples
        kind = rng.random()
        if kind < config.recorded_share and self.noises:
            noise = self._recorded_noise(rng)
        elif kind < config.recorded_share + config.babble_share and self.speech:
            noise = np.zeros(self.n_samples, np.float32)
            for _ in range(int(rng.integers(2, 6))):
                _put(noise, self._speech(rng, self.n_samples) * np.float32(rng.uniform(0.3, 1.0)), 0)
        else:
            source = self.coloured[int(rng.integers(len(self.coloured)))]
            start = int(rng.integers(source.size - self.n_samples))
            noise = source[start : start + self.n_samples]
        gain = augment.noise_gain(samples, noise, rng.uniform(config.snr_min_db, config.snr_max_db))
        return samples + noise * np.float32(gain)

    def _recorded_noise(self, rng: np.random.Generator) -> F32:
        one = self.noises[int(rng.integers(len(self.noises)))]
        segment = one.segments[int(rng.integers(len(one.segments)))]
        piece = one.files[segment.file][segment.start : segment.end]
        start = int(rng.integers(max(1, piece.size - self.n_samples)))
        noise = np.zeros(self.n_samples, np.float32)
        _put(noise, piece[start : start + self.n_samples].astype(np.float32), 0)
        return noise

    @staticmethod
    def _happens(rng: np.random.Generator, share: float) -> bool:
        """Whether a perturbation of this share is done; of none, nothing is drawn."""
        return share > 0 and bool(rng.random() < share)

    def _through_device(self, rng: np.random.Generator, samples: F32) -> F32:
        config = self.augmentation
        if self._happens(rng, config.suppression_share):
            samples = devices.suppressed(samples, rng.uniform(1, 4), rng.uniform(-25, -6))
        if self._happens(rng, config.compressor_share):
            samples = devices.compressed(samples, rng.uniform(1.3, 3))
        if self._happens(rng, config.saturation_share):
            samples = devices.saturated(samples, rng.uniform(3, 20))
        return samples

    def _level(self, rng: np.random.Generator, samples: F32) -> I16:
        """Bring the peak to a random level, add a faint floor of white noise, round to int16."""
        config = self.augmentation
        peak = float(np.abs(samples).max())
        level_db = rng.uniform(config.peak_min_db, config.peak_max_db)
        if rng.random() < config.overdrive_share:
            level_db = rng.uniform(3, 12)
        if peak > 0:
            samples = samples * np.float32(32767 * 10 ** (level_db / 20) / peak)
        if rng.random() < 0.9:  # the rest keeps exact digital silence, where there is any
            floor = 32767 * 10 ** (rng.uniform(-85, -50) / 20)
            start = int(rng.integers(self.coloured[0].size - samples.size))
            samples = samples + self.coloured[0][start : start + samples.size] * np.float32(floor)
        return np.clip(np.rint(samples), -32768, 32767).astype(np.int16)


def clips_by_speaker(clips: list[Clip], keyword: int) -> list[list[Clip]]:
    """The recordings of a keyword, a list for each speaker."""
    groups: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        if clip.keyword == keyword:
            groups[clip.speaker].append(clip)
    return list(groups.values())


def _segments_by_label(one: SegmentSet) -> list[list[Segment]]:
    groups: dict[str, list[Segment]] = defaultdict(list)
    for segment in one.segments:
        groups[segment.label].append(segment)
    return list(groups.values())


def _put(target: F32, piece: F32, position: int) -> None:
    """Add piece to target from position on; what lies outside is dropped."""
    start, end = max(0, position), min(target.size, position + piece.size)
    if start < end:
        target[start:end] += piece[start - position : end - position]


@dataclass(frozen=True)
class ProducerConfig:
    """What the process that makes examples needs to know; see ExampleMaker."""

    part: str
    keywords: tuple[str, ...]
    data: DataConfig
    augmentation: AugmentConfig
    frontend: FrontEndConfig
    seed: int
    first: int
    block: int


class Block(NamedTuple):
    """A block of Examples, each array with a first axis of n.

    posteriors: (n, T, K) float16, what an ensemble says of them (training.ensemble); None without one.
    """

    features: F32
    targets: npt.NDArray[np.int8]
    onset: npt.NDArray[np.int16]
    first: npt.NDArray[np.int16]
    embeddings: npt.NDArray[np.float16]
    ends: npt.NDArray[np.int16]
    posteriors: npt.NDArray[np.float16] | None = None

    @classmethod
    def of(cls, examples: list[Example]) -> Block:
        """The block of some examples."""
        return cls(*(np.stack([getattr(example, name) for example in examples]) for name in EXAMPLE_ARRAYS))

    def take(self, rows: npt.NDArray[np.int64]) -> Block:
        """The examples in these rows."""
        arrays: list[Any] = [None if array is None else array[rows] for array in self]
        return Block(*arrays)


def produce(config: ProducerConfig, queue: Queue[tuple[str, Any]]) -> None:
    """Put ("ready", (durations_s, unusable)), then ("block", Block) without end, from example number config.first on.

    Runs in a process of its own and ends with its parent. What goes wrong is put as ("error", text).
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    parent = multiprocessing.parent_process()

    def put(message: tuple[str, Any]) -> bool:
        while parent is None or parent.is_alive():
            try:
                queue.put(message, timeout=1.0)
                return True
            except Full:
                continue
        queue.cancel_join_thread()
        return False

    try:
        maker = ExampleMaker(
            Path(config.part), config.keywords, config.data, config.augmentation, config.frontend, config.seed
        )
        going = put(("ready", (maker.durations_s(), maker.unusable)))
        index = config.first
        while going:
            examples = [maker.make(index + offset) for offset in range(config.block)]
            block = Block.of(examples)
            going = put(("block", block))
            index += config.block
    except Exception as error:  # whatever it is, the parent must hear of it
        put(("error", f"{type(error).__name__}: {error}"))
