"""Recordings in memory: keywords by speaker, sets of other audio, and rooms, as training examples are made of them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from streamkws.audio import SAMPLE_RATE, audio_files
from streamkws.corpus import (
    I16,
    Segment,
    SegmentSet,
    keyword_folder,
    read_samples,
    read_segment_rows,
    read_segments,
    speaker_of,
)
from streamkws.detector import posteriors
from streamkws.errors import AudioError, ConfigError
from streamkws.model import Model
from streamkws.training import augment
from streamkws.training.data import EXCLUDED, SYNTHETIC, excluded, matches, set_folders

UNKNOWN_TAKES = 10
"""So many clips of unknown speakers count as one speaker, since labelled ones have some ten takes each. Counted as one
speaker each, the 115 unknown ones of "computer" would leave an eighth of its examples to the 18 labelled speakers."""
HEARD, HEARD_LATE = 0.5, 6400
"""Smoothed posterior from which an aligner hears a keyword, and how many samples after its end at most."""
SYNTHETIC_MARGIN = 1600
"""Samples on either side of a synthesized keyword that belong to its recording."""


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


def read_wakewords(
    folder: Path, keywords: tuple[str, ...], exclude: tuple[str, ...] = ()
) -> tuple[list[Clip], list[str]]:
    """All recordings of the keywords, in the order of keyword and file name, and a line for each that is unusable.

    exclude: patterns of those that are left out, as in DataConfig. A keyword may have none; see require_speech.
    """
    clips: list[Clip] = []
    unusable: list[str] = []
    for index, keyword in enumerate(keywords):
        place = keyword_folder(folder, keyword)
        paths = [path for path in audio_files(place) if not excluded(path, exclude)]
        n_unknown = 0
        for path in paths:
            try:
                samples = read_samples(path)
            except AudioError as error:
                unusable.append(str(error))
                continue
            speaker = speaker_of(path)
            if not speaker:
                speaker = f"p{n_unknown // UNKNOWN_TAKES}"
                n_unknown += 1
            clips.append(Clip(samples, index, speaker, *augment.speech_region(samples)))
    return clips, unusable


def require_speech(clips: list[Clip], keywords: tuple[str, ...], places: list[Path]) -> None:
    """Raise ConfigError where a keyword has no recording. places: where they were looked for, for the message."""
    for index, keyword in enumerate(keywords):
        if not any(clip.keyword == index for clip in clips):
            where = " or ".join(map(str, places))
            raise ConfigError(f"expected recordings of {keyword!r} in {where}, found none")


def read_excluded(folders: list[Path], keywords: tuple[str, ...], patterns: tuple[str, ...]) -> SegmentSet:
    """The recordings in folders of keywords that patterns leave out, as a set, a file and a segment each.

    Raises ConfigError where there are none, AudioError for one that cannot be read.
    """
    paths = [
        path
        for folder in folders
        for keyword in keywords
        for path in audio_files(keyword_folder(folder, keyword))
        if excluded(path, patterns)
    ]
    if not paths:
        raise ConfigError(f"expected data.exclude to name recordings in {folders[0]}, found none")
    files = tuple(read_samples(path) for path in paths)
    segments = tuple(
        Segment(number, 0, file.size, EXCLUDED, speaker_of(path))
        for number, (file, path) in enumerate(zip(files, paths, strict=True))
    )
    return SegmentSet(EXCLUDED, files, segments)


def aligned(clips: list[Clip], keywords: tuple[str, ...], model: Model) -> list[Clip]:
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


def read_synthetic(folder: Path, keywords: tuple[str, ...]) -> tuple[list[Clip], SegmentSet]:
    """The keywords of a set of synthesized speakers, and a set of all else they say."""
    one = read_segments(folder)
    clips: list[Clip] = []
    others: list[Segment] = []
    for segment in one.segments:
        file = one.files[segment.file]
        if segment.label in keywords:
            first, last = max(0, segment.start - SYNTHETIC_MARGIN), min(file.size, segment.end + SYNTHETIC_MARGIN)
            samples = file[first:last]
            index = keywords.index(segment.label)
            clips.append(Clip(samples, index, segment.speaker, *augment.speech_region(samples)))
        else:
            others.append(segment)
    if not clips or not others:
        raise ConfigError(f"expected {folder} to hold keywords and other speech, found only one of them")
    return clips, _apart(SYNTHETIC, one, others)


def without_labels(one: SegmentSet, patterns: tuple[str, ...]) -> SegmentSet:
    """A set without the segments whose <set>/<label> a pattern names, and without their audio."""
    kept = [segment for segment in one.segments if not matches(f"{one.name}/{segment.label}", patterns)]
    if len(kept) == len(one.segments):
        return one
    return _apart(one.name, one, kept)


def _apart(name: str, one: SegmentSet, segments: list[Segment]) -> SegmentSet:
    """Segments of a set as a set in which each is a file."""
    files = tuple(one.files[segment.file][segment.start : segment.end] for segment in segments)
    whole = (
        replace(segment, file=number, start=0, end=segment.end - segment.start)
        for number, segment in enumerate(segments)
    )
    return SegmentSet(name, files, tuple(whole))


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
    rows = ((name, row) for name in sets for place in set_folders(parts, name) for row in read_segment_rows(place))
    return tuple(sorted({f"{name}/{row.label}" for name, row in rows}))


def clips_by_speaker(clips: list[Clip], keyword: int) -> list[list[Clip]]:
    """The recordings of a keyword, a list for each speaker."""
    groups: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        if clip.keyword == keyword:
            groups[clip.speaker].append(clip)
    return list(groups.values())


def segments_by_label(one: SegmentSet) -> list[list[Segment]]:
    """The segments of a set, a list for each label."""
    groups: dict[str, list[Segment]] = defaultdict(list)
    for segment in one.segments:
        groups[segment.label].append(segment)
    return list(groups.values())


def read_rooms(folder: Path, n_fft: int) -> list[augment.C64]:
    """The spectra of a folder's impulse responses, two channels of each at most; see augment.room_spectrum.

    Raises AudioError for a file that cannot be read, or is not at 16 kHz.
    """
    import soundfile

    spectra = []
    for path in audio_files(folder):
        try:
            response, rate = soundfile.read(path, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise AudioError(f"{path}: cannot be read as an impulse response ({error})") from None
        if rate != SAMPLE_RATE:
            raise AudioError(f"expected an impulse response at {SAMPLE_RATE} Hz, got {rate} Hz: {path}")
        spectra += [augment.room_spectrum(channel, n_fft) for channel in response.T[:2]]
    return spectra
