"""What a user brings: takes of his phrases, and sound without them; and what the voices said, as recordings."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from streamkws.audio import SAMPLE_RATE, as_int16, audio_files, encode_flac, read_audio
from streamkws.corpus import KEYWORD_SET, keyword_folder, read_segments, speaker_of
from streamkws.errors import AudioError, ConfigError
from streamkws.voices.segments import SegmentTable
from streamkws.voices.speakers import OTHER
from streamkws.whole import write_whole

KEPT_OUT_OF = 5
"""Of so many takes of a speaker one is kept out of training."""
PIECE_S = 10
"""Long sound is cut into pieces of so many seconds; every fourth one is kept out."""
MARGIN = SAMPLE_RATE // 10
"""Samples on either side of a word that belong to its recording."""
OWN_NEGATIVES = "own"
"""The set of sound that the user brings."""
NEAR = "near"
SENTENCES = "sentences"


@dataclass(frozen=True)
class Takes:
    """How many takes were found. learned, kept_out: by phrase. skipped: what cannot be read, a line each."""

    learned: dict[str, int]
    kept_out: dict[str, int]
    skipped: tuple[str, ...]


def take_recordings(folder: Path, phrases: Sequence[str], train: Path, judge: Path) -> Takes:
    """Copy takes of phrases, <phrase>/<speaker>_<name> in a folder, into two parts of a corpus.

    Of each speaker's takes one in five is kept out of training, to judge by.
    Raises ConfigError for a folder that is none, or holds none of the phrases.
    """
    if not folder.is_dir():
        raise ConfigError(
            f"expected a folder of recordings, <phrase>/<file> as streamkws record makes it, got {folder}"
        )
    learned, kept, skipped = dict.fromkeys(phrases, 0), dict.fromkeys(phrases, 0), []
    for phrase in phrases:
        by_speaker: dict[str, list[Path]] = defaultdict(list)
        for path in audio_files(keyword_folder(folder, phrase)):
            by_speaker[speaker_of(path)].append(path)
        for speaker, paths in sorted(by_speaker.items()):
            for number, path in enumerate(paths):
                out = number % KEPT_OUT_OF == KEPT_OUT_OF - 1
                try:
                    samples = as_int16(read_audio(path))
                except (AudioError, OSError) as error:
                    skipped.append(str(error))
                    continue
                place = keyword_folder((judge if out else train) / KEYWORD_SET, phrase)
                place.mkdir(parents=True, exist_ok=True)
                name = f"{speaker or 'p'}_{path.stem.partition('_')[2] or path.stem}.flac"
                write_whole(place / name, encode_flac(samples))
                (kept if out else learned)[phrase] += 1
    if not any(learned.values()):
        names = ", ".join(keyword_folder(Path(), phrase).name for phrase in phrases)
        reason = f"; the first is unusable: {skipped[0]}" if skipped else ""
        raise ConfigError(f"expected recordings in folders named {names} in {folder}, found none{reason}")
    return Takes(learned, kept, tuple(skipped))


def take_negatives(places: Iterable[Path], train: Path, judge: Path) -> list[str]:
    """Copy sound without the phrases into a set of each of two parts; every fourth 10 s are kept out of training.

    Returns a line for each file that cannot be read. Raises ConfigError where there is no sound.
    """
    skipped: list[str] = []
    tables = [SegmentTable(part / OWN_NEGATIVES) for part in (train, judge)]
    number, learned = 0, False
    for place in places:
        paths = [place] if place.is_file() else audio_files(place)
        if not paths:
            raise ConfigError(f"expected a recording, or a folder of them, without the phrases, got {place}")
        for path in paths:
            name = f"{number:05d}.flac"
            number += 1
            try:
                samples = as_int16(read_audio(path))
            except (AudioError, OSError) as error:
                skipped.append(str(error))
                continue
            length = PIECE_S * SAMPLE_RATE
            pieces = [(OTHER, samples[start : start + length]) for start in range(0, samples.size, length)]
            learned = learned or bool(pieces)
            rest = [one for index, one in enumerate(pieces) if index % 4 != 3]
            for table, kept in zip(tables, (rest, pieces[3::4]), strict=True):
                if kept:
                    table.write(name, kept, "", path.name)
    if not learned:
        reason = f": {skipped[0]}" if skipped else ""
        raise ConfigError(f"expected sound without the phrases, found none that can be read{reason}")
    return skipped


def split_kept_out(folder: Path, phrases: Sequence[str], judge: Path, near: Path) -> None:
    """What kept-out voices said, as a part of a corpus: phrases as recordings, sentences as a set.

    near: folder of a set that becomes what they said that is near to the phrases, labelled with its text.
    """
    one = read_segments(folder)
    for segment in one.segments:
        name = f"{segment.speaker}_{segment.file:03d}-{segment.start:08d}.flac"
        file = one.files[segment.file]
        if segment.label in phrases:
            place = keyword_folder(judge / KEYWORD_SET, segment.label)
            place.mkdir(parents=True, exist_ok=True)
            if not (place / name).exists():
                samples = file[max(0, segment.start - MARGIN) : segment.end + MARGIN]
                write_whole(place / name, encode_flac(samples))
    for target, wanted in ((judge / SENTENCES, True), (near, False)):
        table = SegmentTable(target)
        for speaker in sorted({segment.speaker for segment in one.segments}):
            pieces = [
                (segment.label, one.files[segment.file][max(0, segment.start - MARGIN) : segment.end + MARGIN])
                for segment in one.segments
                if segment.speaker == speaker and segment.label not in phrases and (segment.label == OTHER) == wanted
            ]
            if pieces and f"{speaker}.flac" not in table.files:
                table.write(f"{speaker}.flac", pieces, speaker, "Kokoro-82M")
