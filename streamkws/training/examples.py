"""Training examples from a part of the corpus: example number i depends on the seed and i alone."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from streamkws.audio import SAMPLE_RATE
from streamkws.corpus import SegmentSet, read_segments
from streamkws.frontend import FrontEndConfig
from streamkws.model_file import load_model
from streamkws.training import augment
from streamkws.training.augment import F32, AugmentConfig
from streamkws.training.blocks import Example
from streamkws.training.data import EXCLUDED, PACK, SYNTHETIC, DataConfig, keyword_parts, parts_of, set_folders
from streamkws.training.pack import read_pack
from streamkws.training.packed import PackedSpeech
from streamkws.training.recordings import (
    Clip,
    aligned,
    auxiliary_labels,
    clips_by_speaker,
    joined,
    read_excluded,
    read_rooms,
    read_synthetic,
    read_wakewords,
    require_speech,
    segments_by_label,
    without_labels,
)
from streamkws.training.sound import N_FFT, Perturbation, put, quietest, stretch_of_speech
from streamkws.training.teacher import SpeechEmbedding

OUTSIDE = 10_000
"""The end of an embedding that is none: behind every example, however it is shifted."""


@dataclass
class _Canvas:
    """An example in the making, in the time of the source (before the change of speed).

    samples: (n,) float32. words: what was put where: output, start, end in samples; cut: outputs that are unknown.
    piece: start and end of what stands alone without being such a word.
    """

    samples: F32
    words: list[tuple[int, int, int]] = field(default_factory=list)
    cut: list[int] = field(default_factory=list)
    piece: tuple[int, int] | None = None

    @property
    def heard(self) -> tuple[int, int] | None:
        """From where to where there is what the labels are about, or the piece; None where there is neither."""
        if not self.words:
            return self.piece
        return min(start for _, start, _ in self.words), max(end for _, _, end in self.words)


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
            self.clips = aligned(self.clips, keywords, load_model(data.aligner))
        names = sorted({*data.negatives, *data.noise} - {SYNTHETIC, EXCLUDED, PACK})
        sets = {name: self.read_set(name, parts) for name in names}
        synthetic: list[Clip] = []
        if data.synthetic:
            synthetic, sets[SYNTHETIC] = read_synthetic(Path(data.synthetic), keywords)
        self.spoken = [*self.clips, *synthetic]
        folders = [place / data.wakewords for place in keyword_parts(part, data)]
        require_speech(self.spoken, keywords, [*folders, *([Path(data.synthetic)] if data.synthetic else [])])
        if EXCLUDED in data.negatives:
            sets[EXCLUDED] = read_excluded(folders, keywords, data.exclude)
        shares = {name: share for name, share in data.negatives.items() if name != PACK}
        self.negatives = [sets[name] for name in shares]
        self.negative_shares = list(shares.values())
        self.packed_share = data.negatives.get(PACK, 0.0) / sum(data.negatives.values())
        noises = [sets[name] for name in data.noise]
        self.speech = [sets[name] for name in shares if name not in data.noise]
        labels = auxiliary_labels(parts, data.auxiliary)
        self.outputs = {label: len(keywords) + index for index, label in enumerate(labels)}
        self.n_outputs = len(keywords) + len(labels)
        self.by_speaker = [clips_by_speaker(self.clips, index) for index in range(len(keywords))]
        self.synthetic_by_speaker = [clips_by_speaker(synthetic, index) for index in range(len(keywords))]
        self.by_label = {id(one): segments_by_label(one) for one in self.negatives}
        self.lengths = augment.speed_lengths(N_FFT, augmentation.speed_min, augmentation.speed_max)
        self.hop = frontend.hop_samples
        rooms = [room for place in parts for room in read_rooms(place / data.impulse_responses, N_FFT)]
        self.perturbation = Perturbation(data, augmentation, frontend, noises, self.speech, rooms, seed)
        self.n_frames = self.perturbation.n_frames
        self.packed = None
        if data.pack:
            pack, coloured = read_pack(data.pack), self.perturbation.coloured
            self.packed = PackedSpeech(pack, augmentation, frontend, noises, coloured)
            silence = np.zeros(self.perturbation.n_samples, np.float32)
            self.untaught = np.zeros_like(self.perturbation.embed(silence))

    def read_clips(self, parts: list[Path]) -> tuple[list[Clip], list[str]]:
        """The recordings of the keywords, and a line for each that is unusable."""
        clips: list[Clip] = []
        unusable: list[str] = []
        for part in parts:
            found, lines = read_wakewords(part / self.data.wakewords, self.keywords, self.data.exclude)
            if part != parts[0]:  # an unknown speaker of one part is not one of another part
                found = [replace(clip, speaker=f"{part.name}/{clip.speaker}") for clip in found]
            clips += found
            unusable += lines
        return clips, unusable

    def read_set(self, name: str, parts: list[Path]) -> SegmentSet:
        """A set of other audio in the parts, without what data.exclude names."""
        one = joined(name, [read_segments(place) for place in set_folders(parts, name)])
        return without_labels(one, self.data.exclude)

    def durations_s(self) -> dict[str, float]:
        """The typical duration of each keyword, in seconds: the median over its recordings, or what is synthesized."""
        durations = {}
        for index, keyword in enumerate(self.keywords):
            clips = self.clips if self.by_speaker[index] else self.spoken
            samples = float(np.median([clip.end - clip.start for clip in clips if clip.keyword == index]))
            durations[keyword] = round(samples / SAMPLE_RATE, 3)
        return durations

    def make(self, index: int) -> Example:
        """Training example number index."""
        rng = np.random.default_rng([self.seed, 1, index])
        length = N_FFT
        if rng.random() < self.augmentation.speed_share:
            length = int(rng.choice(self.lengths))
        speed = N_FFT / length
        n_source = int(np.ceil(self.perturbation.n_samples * speed))

        kind = rng.random()
        if kind < self.data.keyword_share:
            canvas = self._keyword(rng, n_source, partial=False)
        elif kind < self.data.keyword_share + self.data.partial_share:
            canvas = self._keyword(rng, n_source, partial=True)
        elif self.packed and rng.random() < self.packed_share:
            nothing = _Canvas(np.zeros(0, np.float32))
            example = self._label(nothing, self.packed.draw(rng, self.n_frames), self.untaught, 1)
            return replace(example, ends=np.full_like(example.ends, OUTSIDE))
        else:
            one = self.negatives[augment.pick(rng, self.negative_shares)]
            canvas = self._negative(rng, one, n_source)

        features, embeddings = self.perturbation.perturb(rng, canvas.samples, length, canvas.heard)
        return self._label(canvas, features, embeddings, speed)

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
        """A whole keyword at a random place; or its first or last part, which counts as no keyword."""
        keyword = int(rng.integers(len(self.keywords)))
        speakers = self.by_speaker[keyword]
        made = self.synthetic_by_speaker[keyword]
        if made and (rng.random() < self.data.synthetic_share or not speakers):
            speakers = made
        clips = speakers[int(rng.integers(len(speakers)))]
        clip = clips[int(rng.integers(len(clips)))]
        if partial and self.data.swapped_share and rng.random() < self.data.swapped_share:
            return self._swapped(rng, clip, n_source)
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
        put(canvas.samples, augment.faded(clip.samples[first:last]), first + offset)
        if context:
            self._context(rng, canvas.samples, first + offset, last + offset)
        if partial:
            canvas.piece = (start + offset, end + offset)
        else:
            canvas.words.append((keyword, start + offset, end + offset))
        return canvas

    def _swapped(self, rng: np.random.Generator, clip: Clip, n_source: int) -> _Canvas:
        """A keyword's second half and then its first: the same voice, microphone and rhythm, and no keyword."""
        word = clip.samples[clip.start : clip.end]
        middle = quietest(word, int(word.size * rng.uniform(0.35, 0.65)))
        return self._placed(rng, np.concatenate([augment.faded(word[middle:]), augment.faded(word[:middle])]), n_source)

    def _placed(self, rng: np.random.Generator, piece: F32, n_source: int) -> _Canvas:
        """A piece of sound at a random place, with nothing around it."""
        canvas = _Canvas(np.zeros(n_source, np.float32))
        place = int(rng.integers(max(1, n_source - piece.size)))
        put(canvas.samples, piece, place)
        canvas.piece = (place, place + piece.size)
        return canvas

    def _context(self, rng: np.random.Generator, samples: F32, first: int, last: int) -> None:
        """Put other speech right before samples[first:last], right after it, or both."""
        sides = int(rng.integers(3))
        peak = float(np.abs(samples).max())
        for size, position in ((first, 0), (samples.size - last, last)):
            if size > 800 and sides != (0 if position else 1):
                speech = stretch_of_speech(rng, self.speech, size)
                loudest = float(np.abs(speech).max())
                if loudest > 0:
                    gain = peak / loudest * 10 ** (rng.uniform(-10, 3) / 20)
                    put(samples, augment.faded(speech) * np.float32(gain), position)

    def _negative(self, rng: np.random.Generator, one: SegmentSet, n_source: int) -> _Canvas:
        """An example of a set of negatives: single words, a piece of speech alone, or a stretch of it."""
        if one.single_words:
            return self._words(rng, one, n_source)
        alone = self.data.alone_share
        if alone and any(one is speech for speech in self.speech) and rng.random() < alone:
            return self._alone(rng, one, n_source)
        return self._stretch(rng, one, n_source)

    def _alone(self, rng: np.random.Generator, one: SegmentSet, n_source: int) -> _Canvas:
        """A piece of a random segment, as long as a word and cut where it is quiet, with nothing around it."""
        segment = one.segments[int(rng.integers(len(one.segments)))]
        speech = one.files[segment.file][segment.start : segment.end]
        length = int(rng.uniform(0.35, 1.2) * SAMPLE_RATE)
        first = int(rng.integers(max(1, speech.size - length)))
        first, last = quietest(speech, first), quietest(speech, first + length)
        return self._placed(rng, augment.faded(speech[first:last]), n_source)

    def _stretch(self, rng: np.random.Generator, one: SegmentSet, n_source: int) -> _Canvas:
        """A stretch of running speech or noise around a random point of a random segment."""
        segment = one.segments[int(rng.integers(len(one.segments)))]
        centre = int(rng.integers(segment.start, segment.end))
        file = one.files[segment.file]
        start = int(np.clip(centre - n_source // 2, 0, max(0, file.size - n_source)))
        canvas = _Canvas(np.zeros(n_source, np.float32))
        put(canvas.samples, augment.faded(file[start : start + n_source]), 0)
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
            put(canvas.samples, augment.faded(word), position)
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
