"""Mine hard negatives: what models take for a keyword in hours of made sound and speech, and in sets of recordings.

Music, noise and babble are made as in voices/sounds.py; numbers are read by espeak-ng in each of its languages but
English. A segment is the end of what a model takes for a keyword, 1.65 s, in 4 s of the sound; what several models hear
at once is kept once.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from streamkws.audio import encode_flac
from streamkws.corpus import read_segment_rows, read_segments
from streamkws.detector import Detector
from streamkws.errors import ConfigError
from streamkws.model import Model
from streamkws.model_file import load_model
from streamkws.voices.segments import SegmentTable
from streamkws.voices.sounds import F32, PIECE_S, RATE, foreign_languages, numbers, pieces, require_espeak
from streamkws.whole import write_whole

MODELS = ("wakewords.f32", "wakewords.w4a8")
"""Shipped models that listen unless others are named."""
MINUTES = {"music": 15, "noise": 20, "babble": 25}
"""Of each kind of sound in an hour."""
FIRST_SEED = 1000
"""Of the first hour; each further hour has the next one. Other seeds than those of the bench that counts what fires."""
BEFORE_S, AFTER_S = 3.0, 1.0
"""What is kept around the end of what is heard."""
START_S, END_S = -1.35, 0.3
"""The segment, from that end on."""
APART_S = 0.5
"""What is heard closer together than this is one sound."""
KEYWORD_MARGIN = 1600
"""Samples around a keyword that are silenced with it."""


class Found(NamedTuple):
    """What models heard in a piece: the end in seconds, the keyword they took it for, and the score."""

    end_s: float
    keyword: str
    score: float


class Job(NamedTuple):
    """Listen to a source and write what is kept. source: a set's folder, or Path("hour0007") or Path("foreign0007")."""

    folder: Path
    source: Path
    models: tuple[str, ...]
    score: float


def mine(
    folder: str | Path,
    *,
    models: Sequence[str | Path] = MODELS,
    sets: Sequence[str | Path] = (),
    hours: int = 30,
    foreign_hours: int = 20,
    score: float = 0.3,
    n_processes: int | None = None,
    show: Callable[[str, float, float], None] = lambda what, done, total: None,
) -> None:
    """Mine what is missing of hours and sets into a folder, which a recipe names among data.negatives.

    Writes segments.csv and a FLAC file for each hour and set. A call that is stopped loses the hours in progress; the
    next one makes what is missing.
    models: shipped names or paths of model files, not loaded models, since each process loads its own; all with the
    same keywords. sets: folders with a segments.csv to go through, too; keywords in them are silenced. hours: of music,
    noise and babble. foreign_hours: of numbers in other languages. score: smoothed posterior that is kept, 0 to 1.
    n_processes: one a core where None. show: told of the progress: what, files done, files to make.
    Takes some 30 s an hour of sound on a core.
    Raises ConfigError for a setting or a folder that is no set, ModelFileError for a model, MissingExtraError where
    espeak-ng is missing, OSError where the folder cannot be written.
    """
    folder, n_processes = Path(folder), n_processes or os.cpu_count() or 1
    if min(hours, foreign_hours) < 0 or n_processes < 1 or not 0 < score < 1:
        raise ConfigError("expected hours of 0 or more, at least one process, and a score between 0 and 1")
    if not models:
        raise ConfigError("expected at least one model")
    names = tuple(str(model) for model in models)
    if len({load_model(name).keywords for name in names}) > 1:
        raise ConfigError(f"expected models with the same keywords, got {', '.join(names)}")
    if len({Path(place).name for place in sets}) < len(sets):
        raise ConfigError("expected sets in folders of different names, since a file is named for its set's folder")
    for place in sets:
        read_segment_rows(Path(place))
    if hours or foreign_hours:
        require_espeak()
    table = SegmentTable(folder)
    made = [*(Path(f"hour{n:04d}") for n in range(hours)), *(Path(f"foreign{n:04d}") for n in range(foreign_hours))]
    sources = [source for source in [*map(Path, sets), *made] if f"{source.name}.flac" not in table.files]
    if not sources:
        return
    jobs = [Job(folder, source, names, score) for source in sources]
    with multiprocessing.Pool(min(n_processes, len(jobs))) as pool:
        for count, (name, segments) in enumerate(pool.imap_unordered(listen, jobs), 1):
            table.add(name, segments, "", "made")
            show("mining", count, len(jobs))


def listen(job: Job) -> tuple[str, list[tuple[str, int, int]]]:
    """Do a job. Returns the file and its segments: label, start and end in samples."""
    models = [load_model(name) for name in job.models]
    models = [model.with_settings(thresholds=dict.fromkeys(model.keywords, job.score)) for model in models]
    before, after = round(BEFORE_S * RATE), round(AFTER_S * RATE)
    kept = [np.zeros(0, np.float32)]
    segments = []
    for kind, samples in sounds_of(job.source, models[0].keywords):
        padded = np.pad(samples, (before, after))
        for one in found_by(models, samples):
            end = (len(kept) - 1) * (before + after) + before
            segments.append((f"{kind}: {one.keyword}", end + round(START_S * RATE), end + round(END_S * RATE)))
            peak = min(round(one.end_s * RATE), samples.size)
            kept.append(padded[peak : peak + before + after])
    name = f"{job.source.name}.flac"
    write_whole(job.folder / name, encode_flac(np.concatenate(kept)))
    return name, segments


def found_by(models: Sequence[Model], samples: F32) -> list[Found]:
    """Where models hear keywords in a piece, by time; of sounds that several hear, the highest score."""
    padded = np.concatenate([samples, np.zeros(RATE // 2, np.float32)])
    found = [Found(hit.peak, hit.keyword, hit.score) for model in models for hit in Detector(model).push(padded)]
    kept: list[Found] = []
    for one in sorted(found, key=lambda one: -one.score):
        if all(abs(one.end_s - other.end_s) > APART_S for other in kept):
            kept.append(one)
    return sorted(kept)


def sounds_of(source: Path, keywords: Sequence[str]) -> Iterator[tuple[str, F32]]:
    """What there is to hear of a job's source, piece by piece: the kind of sound and (n,) float32."""
    for start, maker in (("hour", made_hour), ("foreign", foreign_hour)):
        if (number := str(source).removeprefix(start)).isdecimal():
            return maker(int(number))
    return recorded(source, keywords)


def made_hour(number: int) -> Iterator[tuple[str, F32]]:
    """An hour of music, noise and babble."""
    for kind, minutes in MINUTES.items():
        for piece in pieces(kind, round(minutes * 60 / PIECE_S), FIRST_SEED + number):
            yield kind, piece


def foreign_hour(number: int) -> Iterator[tuple[str, F32]]:
    """An hour of numbers in espeak-ng's languages other than English; the kind is "foreign"."""
    languages = foreign_languages()
    for index in range(3600 // PIECE_S):
        yield "foreign", numbers(np.random.default_rng([FIRST_SEED + number, len(MINUTES), index]), languages)


def recorded(folder: Path, keywords: Sequence[str]) -> Iterator[tuple[str, F32]]:
    """A set, file by file; the kind is its name. Where a keyword is said there is silence."""
    one = read_segments(folder)
    for index, file in enumerate(one.files):
        samples: F32 = (file / np.float32(32768)).astype(np.float32)
        for segment in one.segments:
            if segment.file == index and segment.label in keywords:
                samples[max(0, segment.start - KEYWORD_MARGIN) : segment.end + KEYWORD_MARGIN] = 0
        yield one.name, samples
