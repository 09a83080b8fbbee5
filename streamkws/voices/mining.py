"""Mine hard negatives: of hours of made sound and speech, what makes models think of a keyword.

    python bench/mine.py runs/mined                30 hours of music, noise and babble, 20 of numbers in other languages
    python bench/mine.py runs/mined --hours 60     more; a call goes on where the last one stood
    python bench/mine.py runs/mined --sets runs/synthetic-more    and what synthesized speakers say besides keywords
    python bench/mine.py runs/mined --models A B --score 0.4    heard by models other than those that ship (f32, w4a8)
                                                                and a twin (f32); only what scores more

Writes DIR/segments.csv (file, start, end, label, speaker, source; samples at 16 kHz) and a FLAC file an hour or set, as
the corpus' sets are: a recipe names DIR among data.negatives. Music, noise and babble are made as bench/listening.py
makes those of its hour, from other seeds; the numbers are read by espeak-ng in each of its languages but English. A
segment is the end of what a model takes for a keyword, 1.65 s, in 4 s of the sound; what several models hear at once is
kept once. Takes some 30 s an hour of sound on a core. Needs espeak-ng.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
from accuracy import TWIN
from listening import PIECE_S, RATE, levelled, pieces, spoken

from streamkws import Detector, load_model
from streamkws.errors import StreamKwsError
from streamkws.model import Model
from streamkws.model_file import SUFFIX
from streamkws.training.dataset import read_rows, read_segments

MODELS = ("wakewords.f32", "wakewords.w4a8", f"{TWIN}.f32{SUFFIX}")
MINUTES = {"music": 15, "noise": 20, "babble": 25}
"""Of an hour."""
FIRST_SEED = 1000
"""Of the first hour; the next ones follow."""
BEFORE_S, AFTER_S = 3.0, 1.0
"""What is kept around the end of what is heard."""
START_S, END_S = -1.35, 0.3
"""The segment, from that end on."""
APART_S = 0.5
"""What is heard closer together than this is one sound."""
KEYWORD_MARGIN = 1600
"""Samples around a keyword that are silenced with it."""


class Found(NamedTuple):
    """What models heard in a piece: the end in seconds, of which keyword, and the score."""

    end_s: float
    keyword: str
    score: float


def heard(models: list[Model], samples: np.ndarray) -> list[Found]:
    """Where models hear keywords in a piece, by time, of sounds that several hear the highest score."""
    padded = np.concatenate([samples, np.zeros(RATE // 2, np.float32)])
    found = [Found(hit.peak, hit.keyword, hit.score) for model in models for hit in Detector(model).push(padded)]
    kept: list[Found] = []
    for one in sorted(found, key=lambda one: -one.score):
        if all(abs(one.end_s - other.end_s) > APART_S for other in kept):
            kept.append(one)
    return sorted(kept)


def made(number: int) -> Iterator[tuple[str, np.ndarray]]:
    """An hour of made sound, piece by piece: its kind and (n,) float32."""
    for kind, minutes in MINUTES.items():
        for piece in pieces(kind, round(minutes * 60 / PIECE_S), FIRST_SEED + number):
            yield kind, piece


def foreign(number: int) -> Iterator[tuple[str, np.ndarray]]:
    """An hour of numbers in espeak-ng's languages other than English, piece by piece: "foreign" and (n,) float32."""
    tongues = languages()
    for index in range(3600 // PIECE_S):
        rng = np.random.default_rng([FIRST_SEED + number, len(MINUTES), index])
        samples, position = np.zeros(PIECE_S * RATE, np.float32), 0
        while position < samples.size:
            numbers = (10 ** rng.uniform(0, 4, 8)).astype(int)
            try:
                sound = spoken(rng, " ".join(map(str, numbers)), str(rng.choice(tongues)))[: samples.size - position]
            except subprocess.CalledProcessError:  # a few of its languages have no voice here, or crash it
                continue
            samples[position : position + sound.size] = sound * np.float32(rng.uniform(0.3, 1))
            position += sound.size
        yield "foreign", levelled(rng, samples)


def languages() -> list[str]:
    """espeak-ng's languages other than English."""
    rows = subprocess.run(["espeak-ng", "--voices"], check=True, capture_output=True, text=True).stdout.splitlines()[1:]
    return sorted({name for name in (row.split()[1] for row in rows) if not name.startswith("en")})


def recorded(folder: Path, keywords: tuple[str, ...]) -> Iterator[tuple[str, np.ndarray]]:
    """A set, file by file: its name and (n,) float32; where a keyword is said there is silence."""
    one = read_segments(folder)
    for index, file in enumerate(one.files):
        samples = file / np.float32(32768)
        for segment in one.segments:
            if segment.file == index and segment.label in keywords:
                samples[max(0, segment.start - KEYWORD_MARGIN) : segment.end + KEYWORD_MARGIN] = 0
        yield one.name, samples


def mine(job: tuple[Path, Path, list[str], float]) -> tuple[str, list[tuple[int, int, str]]]:
    """Listen to an hour or to a set, and write what is kept; returns the file and its segments: start, end, label.

    An hour is "hour" or "foreign" with its number, as Path("hour0007").
    """
    folder, source, names, score = job
    models = [load_model(name) for name in names]
    models = [model.with_settings(thresholds=dict.fromkeys(model.keywords, score)) for model in models]
    before, after = round(BEFORE_S * RATE), round(AFTER_S * RATE)
    kept = [np.zeros(0, np.float32)]
    segments = []
    for kind, samples in sounds(source, models[0].keywords):
        padded = np.pad(samples, (before, after))
        for one in heard(models, samples):
            end = (len(kept) - 1) * (before + after) + before
            segments.append((end + round(START_S * RATE), end + round(END_S * RATE), f"{kind}: {one.keyword}"))
            peak = min(round(one.end_s * RATE), samples.size)
            kept.append(padded[peak : peak + before + after])
    name = f"{source.name}.flac"
    soundfile.write(folder / name, np.concatenate(kept), RATE, format="FLAC")
    return name, segments


def sounds(source: Path, keywords: tuple[str, ...]) -> Iterator[tuple[str, np.ndarray]]:
    """What is to be heard of a source, as made, foreign and recorded give it."""
    for start, maker in (("hour", made), ("foreign", foreign)):
        if (number := str(source).removeprefix(start)).isdecimal():
            return maker(int(number))
    return recorded(source, keywords)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--hours", type=int, default=30, help="of music, noise and babble (default: 30)")
    parser.add_argument("--foreign", type=int, default=20, help="hours of numbers in other languages (default: 20)")
    parser.add_argument("--sets", nargs="+", default=[], type=Path, metavar="SET", help="folders of sets to hear, too")
    parser.add_argument("--models", nargs="+", default=list(MODELS), metavar="MODEL", help="who listens")
    parser.add_argument("--score", type=float, default=0.3, help="the least that is kept (default: 0.3)")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    if min(arguments.hours, arguments.foreign) < 0 or arguments.processes < 1 or not 0 < arguments.score < 1:
        sys.exit("mine.py: expected hours of 0 or more, at least one process, and a score between 0 and 1")
    table = arguments.folder / "segments.csv"
    try:
        subprocess.run(["espeak-ng", "--version"], check=True, capture_output=True)
        for name in arguments.models:
            load_model(name)
        for place in arguments.sets:
            read_rows(place)
        arguments.folder.mkdir(parents=True, exist_ok=True)
        if not table.exists():
            table.write_text("file,start,end,label,speaker,source\n", encoding="utf-8")
    except (OSError, subprocess.CalledProcessError, StreamKwsError) as error:
        sys.exit(f"mine.py: {error}")
    counts = (("hour", arguments.hours), ("foreign", arguments.foreign))
    hours = [Path(f"{kind}{number:04d}") for kind, count in counts for number in range(count)]
    there = {row["file"] for row in read_rows(arguments.folder)}
    missing = [one for one in [*arguments.sets, *hours] if f"{one.name}.flac" not in there]
    jobs = [(arguments.folder, source, arguments.models, arguments.score) for source in missing]
    try:
        with multiprocessing.Pool(arguments.processes) as pool:
            for count, (name, segments) in enumerate(pool.imap_unordered(mine, jobs), 1):
                with table.open("a", newline="", encoding="utf-8") as file:
                    rows = csv.writer(file, lineterminator="\n")
                    rows.writerows([name, start, end, label, "", "made"] for start, end, label in segments)
                print(f"{count} of {len(jobs)}: {name}, {len(segments)} sounds", flush=True)
    except StreamKwsError as error:
        sys.exit(f"mine.py: {error}")
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
