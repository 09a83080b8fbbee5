"""Scoring: a corpus and some models in, the posteriors of every recording in every noise condition out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt

from streamkws.audio import SAMPLE_RATE, AudioFile, as_float, read_audio
from streamkws.corpus import NOISE_SUFFIX, ROOM_SET, Corpus, NegativeFile, Recording
from streamkws.detector import TAIL_S
from streamkws.errors import AudioError, ConfigError
from streamkws.frontend import FrontEnd
from streamkws.mixing import NoiseBank, RoomBank, Samples
from streamkws.model import Model, ModelState

TAIL = np.zeros(round(TAIL_S * SAMPLE_RATE), np.float32)
BLOCK_SAMPLES = 60 * SAMPLE_RATE  # what is held of a file that gets no noise

Posteriors = npt.NDArray[np.float32]
Progress = Callable[[str, int, int], None]  # (what, done, total)
Heard = list[list[Posteriors]]
"""The posteriors of one file, [condition][model]."""


@dataclass(frozen=True)
class Condition:
    """What is done to a keyword recording before it is heard.

    snr_db: signal-to-noise ratio as `mix` defines it; None is without noise.
    noise: labels of the noise that is mixed in; an empty tuple allows any noise.
    in_room: whether it is heard through an impulse response, by which the noise is left alone.
    """

    name: str
    snr_db: float | None = None
    noise: tuple[str, ...] = ()
    in_room: bool = False


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
    _check_models(models, snrs_db)
    notes = list(corpus.notes)
    noise, snrs_db = _noise_conditions(corpus, snrs_db, seed, notes)
    ears = _Ears(models)
    skipped: list[str] = []
    recordings: list[tuple[Recording, int, Heard]] = []
    negatives: list[tuple[NegativeFile, int, Heard]] = []
    files: list[Recording | NegativeFile] = [*corpus.recordings, *corpus.negatives]
    for n_done, file in enumerate(files):
        if progress is not None:
            progress("listening", n_done, len(files))
        try:
            n_samples, heard = ears.hear_file(file, noise, snrs_db)
        except (AudioError, OSError) as error:
            skipped.append(_reason(file.name, file.path, error))
            continue
        if not n_samples:
            skipped.append(f"{file.name}: no samples")
        elif isinstance(file, Recording):
            recordings.append((file, n_samples, heard))
        else:
            negatives.append((file, n_samples, heard))
    if progress is not None:
        progress("listening", len(files), len(files))
    if (corpus.recordings and not recordings) or not negatives:
        what = "negative file" if recordings or not corpus.recordings else "keyword recording"
        raise ConfigError(f"{corpus.root}: expected at least one {what} that can be read; the first was {skipped[0]}")
    return ScoredCorpus(
        root=corpus.root,
        seed=seed,
        recordings=tuple(file for file, _, _ in recordings),
        negatives=tuple(file for file, _, _ in negatives),
        recording_samples=tuple(n_samples for _, n_samples, _ in recordings),
        negative_samples=tuple(n_samples for _, n_samples, _ in negatives),
        snrs_db=tuple(snrs_db),
        scores=tuple(
            tuple(
                Scores(tuple(heard[c][m] for *_, heard in recordings), tuple(heard[c][m] for *_, heard in negatives))
                for c in range(len(snrs_db))
            )
            for m in range(len(models))
        ),
        skipped=tuple(skipped),
        notes=tuple(notes),
    )


def _check_models(models: Sequence[Model], snrs_db: Sequence[float | None]) -> None:
    """Raise ConfigError for what score_corpus cannot listen with."""
    if not models:
        raise ConfigError("expected at least one model to evaluate, got none")
    if not snrs_db or len(set(snrs_db)) != len(snrs_db):
        raise ConfigError(f"expected different noise conditions, got {list(snrs_db)}")
    for model in models:
        if model.config.frontend.sample_rate != SAMPLE_RATE:
            raise ConfigError(
                f"{model.name}: expected a front end at {SAMPLE_RATE} Hz, got {model.config.frontend.sample_rate} Hz"
            )


def _noise_conditions(
    corpus: Corpus, snrs_db: Sequence[float | None], seed: int, notes: list[str]
) -> tuple[NoiseBank, Sequence[float | None]]:
    """The noise of a corpus, and the conditions that can be made with it; a note where that is not all of them."""
    if all(snr_db is None for snr_db in snrs_db):
        return NoiseBank((), seed), snrs_db
    noise = NoiseBank.read(corpus.negatives, seed)
    if not noise.stretches:
        notes.append(f"no noise conditions: the corpus has no folder *{NOISE_SUFFIX} with audio")
        snrs_db = [snr_db for snr_db in snrs_db if snr_db is None]
        if not snrs_db:
            raise ConfigError(f"{corpus.root}: expected folders *{NOISE_SUFFIX} with the noise to mix in, found none")
    return noise, snrs_db


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
    heard: list[Heard] = []
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
                self._groups.append((model.new_front_end(), states))
            states.append((m, model.new_state()))

    def hear_file(
        self, file: Recording | NegativeFile, noise: NoiseBank, snrs_db: Sequence[float | None]
    ) -> tuple[int, Heard]:
        """Hear a file in every noise condition. Returns its number of samples, and the posteriors.

        A file that gets noise is held in memory whole; any other is heard while it is decoded.
        """
        if isinstance(file, NegativeFile) and (file.is_noise or all(snr_db is None for snr_db in snrs_db)):
            with AudioFile(file.path, BLOCK_SAMPLES) as blocks:
                clean, n_samples = self.listen(as_float(block) for block in blocks)
            return n_samples, [clean] * len(snrs_db)
        samples = read_audio(file.path)
        if isinstance(file, Recording):
            mixed = (noise.over_recording(file, samples, snr_db) for snr_db in snrs_db)
        else:
            mixed = (noise.over_negative(file, samples, snr_db) for snr_db in snrs_db)
        return len(samples), [self.listen([one])[0] for one in mixed]

    def listen(self, blocks: Iterable[Samples]) -> tuple[list[Posteriors], int]:
        """Hear a stream and the silence behind it; each model starts afresh, and listens in a thread of its own.

        Returns the posteriors (S, K) of each model, and the number of samples.
        """
        parts: list[list[Posteriors]] = [[] for _ in range(self._n_models)]
        n_samples = 0
        for front_end, states in self._groups:
            front_end.reset()
            for _, state in states:
                state.hear_silence()
        for block in chain(blocks, [TAIL]):
            n_samples += len(block)
            for front_end, states in self._groups:
                frames = front_end.push(block)
                with ThreadPoolExecutor(len(states)) as pool:
                    for m, heard in [(m, pool.submit(state.push, frames)) for m, state in states]:
                        parts[m].append(np.array(heard.result(), dtype=np.float32))
        return [np.concatenate(part) for part in parts], n_samples - len(TAIL)


def _reason(name: str, path: Path, error: Exception) -> str:
    text = str(error).removeprefix(f"{path}: ")
    return f"{name}: {text}"
