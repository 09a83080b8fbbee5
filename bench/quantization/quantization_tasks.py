"""The two tasks of quantization.py: their data as features, made once, and the figures on their dev speakers.

wakewords: six keywords in streaming audio; the figure is the DET area on clean dev audio (see
streamkws/evaluation). commands: the forty words of Arabic Speech Commands, one second each; the figure is the share of
dev clips whose word is not the one with the highest posterior.

Training examples are made by the package's own ExampleMaker and kept as features, a folder per task, so that dozens of
trainings see the same examples; what differs between the seeds is initialization, order, time shifts, gains and masks.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from streamkws import Model
from streamkws.audio import read_audio
from streamkws.corpus import SegmentSet, read_corpus, read_segment_rows
from streamkws.evaluation.measure import evaluate_scores
from streamkws.evaluation.operating_points import CLEAN
from streamkws.evaluation.scoring import ScoredCorpus, Scores
from streamkws.frontend import FrontEnd, FrontEndConfig
from streamkws.layers import LayerConfig
from streamkws.mixing import NoiseBank
from streamkws.model import ModelConfig
from streamkws.smoother import SmootherConfig
from streamkws.training.augment import AugmentConfig
from streamkws.training.blocks import EXAMPLE_ARRAYS, Block, Example
from streamkws.training.data import DataConfig
from streamkws.training.examples import ExampleMaker
from streamkws.training.losses import LOSS_NAMES, Losses, clip_losses
from streamkws.training.recipe import TrainingConfig
from streamkws.training.sound import N_FFT

F32 = npt.NDArray[np.float32]
Listener = Callable[[F32], F32]
"""(T, F) float32 log-mel of one recording to (S, K) float32 posteriors."""

FRONT_END = FrontEndConfig(n_mels=40, window="hann", low_hz=60.0, high_hz=7600.0, energy_floor=1e-9)
FRAME_STRIDE = 3
"""A network step every 30 ms: a third less work than the shipped model's 20 ms."""
SMOOTHER = SmootherConfig(smoothing_steps=2, patience_steps=2, refractory_steps=33)
CACHE_SEED = 1
WIDTHS = {"fully connected": {50: 37, 100: 68, 250: 144}, "dilated": {50: 44, 100: 64, 250: 104}}
"""Units of each hidden layer by thousands of parameters."""


def layers(network: str, size: int, n_outputs: int, activation: str) -> tuple[LayerConfig, ...]:
    """The layers of a network with about size thousand parameters.

    fully connected: 31 stacked frames, every third of the last 0.93 s (the paper's stacked window, spread over a word's
    length instead of a phone's, since these tasks have no alignments), four hidden layers, as in the paper.
    dilated: 5 stacked frames, seven residual causal layers, hears 1.5 s back.
    """
    n = WIDTHS[network][size]
    if network == "fully connected":
        hidden = [LayerConfig(FRONT_END.n_mels, n, taps=31, dilation=3), *[LayerConfig(n, n)] * 3]
    else:
        dilations = (1, 1, 2, 4, 4, 4, 8)
        hidden = [LayerConfig(FRONT_END.n_mels, n, taps=5)]
        hidden += [LayerConfig(n, n, taps=3, dilation=dilation, residual=True) for dilation in dilations]
    return (*hidden, LayerConfig(n, n_outputs, activation=activation))


@dataclass(frozen=True)
class Cache:
    """Training examples as features in float16."""

    arrays: Block
    n_outputs: int

    def block(self, rng: np.random.Generator, n: int) -> Block:
        """n random examples."""
        return self.of(np.sort(rng.integers(0, len(self.arrays.features), n)))

    def of(self, rows: npt.NDArray[np.int64]) -> Block:
        """The examples in these rows."""
        block = self.arrays.take(rows)
        return block._replace(features=block.features.astype(np.float32))


def make_cache(folder: Path, maker: ExampleMaker, n: int) -> None:
    """Write n examples to a folder, unless it holds them; continues where an earlier call was interrupted."""
    folder.mkdir(parents=True, exist_ok=True)
    done_path = folder / "done.json"
    there = all((folder / f"{name}.npy").exists() for name in EXAMPLE_ARRAYS)
    done = json.loads(done_path.read_text())["examples"] if there and done_path.exists() else 0
    first = maker.make(0)
    shapes = {
        "features": ((n, maker.n_frames, FRONT_END.n_mels), np.float16),
        "targets": ((n, maker.n_outputs), np.int8),
        "onset": ((n, maker.n_outputs), np.int16),
        "first": ((n, maker.n_outputs), np.int16),
        "embeddings": ((n, *first.embeddings.shape), np.float16),
        "ends": ((n, *first.ends.shape), np.int16),
    }
    files = {}
    for name, (shape, dtype) in shapes.items():
        path = folder / f"{name}.npy"
        mode = "r+" if done and path.exists() else "w+"
        files[name] = np.lib.format.open_memmap(path, mode=mode, dtype=dtype, shape=shape)
    for index in range(done, n):
        example = maker.make(index)
        for name, file in files.items():
            file[index] = getattr(example, name)
        if (index + 1) % 512 == 0 or index + 1 == n:
            for file in files.values():
                file.flush()
            temporary = done_path.with_suffix(".tmp")
            temporary.write_text(json.dumps({"examples": index + 1}))
            os.replace(temporary, done_path)
            print(f"{folder.name}: {index + 1} of {n} examples", file=sys.stderr, flush=True)


def read_cache(folder: Path) -> Cache:
    """The examples of a folder, mapped into memory."""
    arrays = Block(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in EXAMPLE_ARRAYS))
    return Cache(arrays, arrays.targets.shape[1])


class WakeWords:
    """Six wake words in streaming audio; DET area, lower is better."""

    name = "wakewords"
    keywords = ("alexa", "computer", "jarvis", "smart mirror", "snowboy", "view glass")
    activation, n_outputs = "sigmoid", 6
    n_examples = 32768
    augmentation = AugmentConfig()
    data = DataConfig(
        negatives={
            "spoken_commands": 1.5,
            "librispeech": 1.5,
            "read_sentences": 0.5,
            "speech_commands": 0.8,
            "arabic_speech_commands": 0.8,
            "community": 1.0,
            "esc10_noise": 0.3,
            "room_noise": 0.2,
        },
        noise=("esc10_noise", "room_noise"),
        auxiliary=("arabic_speech_commands", "speech_commands"),
    )
    settings = TrainingConfig(smoothing_steps=3)

    def __init__(self, corpus: Path) -> None:
        self.corpus = corpus
        self._dev: tuple[Any, ...] | None = None

    def maker(self) -> ExampleMaker:
        """The maker of the training examples."""
        return ExampleMaker(self.corpus / "train", self.keywords, self.data, self.augmentation, FRONT_END, CACHE_SEED)

    def loss(self, logits: torch.Tensor, targets: torch.Tensor, onset: torch.Tensor, first: torch.Tensor) -> Losses:
        """The recipe's own loss; onset and first in frames."""
        return clip_losses(logits, targets, onset // FRAME_STRIDE, first // FRAME_STRIDE, self.n_outputs, self.settings)

    def measure(self, model: Model, listen: Listener) -> dict[str, float]:
        """DET area and misses without a false accept on clean dev audio.

        model: gives keywords and decision rule. listen: gives the posteriors.
        """
        if self._dev is None:
            self._dev = self._read_dev()
        corpus, recordings, recording_samples, negatives, negative_samples = self._dev
        scores = Scores(tuple(listen(one) for one in recordings), tuple(listen(one) for one in negatives))
        scored = ScoredCorpus(
            corpus.root, 0, corpus.recordings, corpus.negatives, recording_samples, negative_samples, (None,),
            ((scores,),),
        )  # fmt: skip
        evaluation = evaluate_scores(model, scored)
        curves = evaluation.curves[CLEAN].values()
        return {
            "det_area": float(np.mean([curve.area for curve in curves])),
            "miss_at_0_fa": float(np.mean([curve.miss_at(0.0) for curve in curves])),
            "hours": evaluation.hours,
            "recordings": float(sum(evaluation.n_recordings.values())),
        }

    def _read_dev(self) -> tuple[Any, ...]:
        corpus = read_corpus(self.corpus / "dev", self.keywords)
        faint, frontend = NoiseBank((), 0), FrontEnd(FRONT_END)

        def features(samples: F32) -> F32:
            frontend.reset()
            return frontend.push(samples)

        audio = [read_audio(one.path) for one in corpus.recordings]
        recordings = [
            features(faint.over_recording(one, samples, None))
            for one, samples in zip(corpus.recordings, audio, strict=True)
        ]
        negative_audio = [read_audio(one.path) for one in corpus.negatives]
        negatives = [features(samples) for samples in negative_audio]
        return (
            corpus,
            recordings,
            tuple(len(samples) for samples in audio),
            negatives,
            tuple(len(samples) for samples in negative_audio),
        )


class WordMaker(ExampleMaker):
    """Training examples of the forty words: example i is a perturbed take of clip i modulo their number.

    Some are noise or silence alone: the output after the words, "no keyword".
    """

    SILENT_SHARE = 0.04
    TAIL_S = 0.15

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.words: SegmentSet = self.negatives[0]
        labels = sorted({segment.label for segment in self.words.segments})
        self.labels = {label: index for index, label in enumerate(labels)}
        self.n_outputs = len(labels) + 1

    def make(self, index: int) -> Example:
        """Training example number index; its targets are one for the word said and zero for the others."""
        rng = np.random.default_rng([self.seed, 3, index])
        segment = self.words.segments[index % len(self.words.segments)]
        targets = np.zeros(self.n_outputs, np.int8)
        length = int(rng.choice(self.lengths)) if rng.random() < self.augmentation.speed_share else N_FFT
        speed = N_FFT / length
        source = np.zeros(math.ceil(self.perturbation.n_samples * speed), np.float32)
        if rng.random() < self.SILENT_SHARE:
            targets[-1] = 1
            source += rng.standard_normal(source.size).astype(np.float32) * np.float32(10 ** rng.uniform(-1, 3))
        else:
            targets[self.labels[segment.label]] = 1
            word = self.words.files[segment.file][segment.start : segment.end]
            end = source.size - round(self.TAIL_S * speed * FRONT_END.sample_rate)
            first = max(0, word.size - end)
            source[end - word.size + first : end] = word[first:]
        features, _ = self.perturbation.perturb(rng, source, length)
        return Example(features, targets, *np.zeros((2, self.n_outputs), np.int16))


class Commands:
    """Forty Arabic command words of one second; error rate, lower is better."""

    name = "commands"
    activation, n_outputs = "softmax", 41  # the last: no keyword
    n_examples = 57600
    # more takes are clean than for the wake words, as the clips of dev are
    augmentation = AugmentConfig(noise_share=0.5, snr_min_db=0.0, bandlimit_share=0.03, overdrive_share=0.02)
    data = DataConfig(
        negatives={"arabic_speech_commands": 1.0, "esc10_noise": 0.0, "room_noise": 0.0},
        noise=("esc10_noise", "room_noise"),
        crop_s=1.3,
    )
    END_S = 0.25
    """The word is decided by the mean over the steps of this last part of a clip, of the posteriors."""

    def __init__(self, corpus: Path) -> None:
        self.corpus = corpus
        rows = read_segment_rows(corpus / "train" / "arabic_speech_commands")
        self.keywords = tuple(sorted({row.label for row in rows}))
        self.n_steps = round(self.END_S * FRONT_END.sample_rate / FRONT_END.hop_samples / FRAME_STRIDE)
        self._dev: tuple[list[F32], npt.NDArray[np.int64]] | None = None

    def maker(self) -> ExampleMaker:
        """The maker of the training examples."""
        return WordMaker(self.corpus / "train", ("alexa",), self.data, self.augmentation, FRONT_END, CACHE_SEED)

    def loss(self, logits: torch.Tensor, targets: torch.Tensor, onset: torch.Tensor, first: torch.Tensor) -> Losses:
        """Cross-entropy of the mean over the last steps."""
        mean = logits[:, -self.n_steps :].mean(1)
        total = torch.nn.functional.cross_entropy(mean, targets.argmax(1), label_smoothing=0.05)
        return Losses(total, total, *(torch.zeros(()) for _ in LOSS_NAMES[2:]))

    def measure(self, model: Model, listen: Listener) -> dict[str, float]:
        """Share of the dev clips in which another word has the highest mean posterior over the last steps."""
        if self._dev is None:
            self._dev = self._read_dev()
        features, labels = self._dev
        heard = np.array([listen(one)[-self.n_steps :].mean(0).argmax() for one in features])
        return {"error": float(np.mean(heard != labels)), "clips": float(len(labels))}

    def _read_dev(self) -> tuple[list[F32], npt.NDArray[np.int64]]:
        folder = self.corpus / "dev" / "arabic_speech_commands"
        frontend, audio = FrontEnd(FRONT_END), {}
        features, labels = [], []
        rng = np.random.default_rng(0)
        for row in read_segment_rows(folder):
            if row.file not in audio:
                audio[row.file] = read_audio(folder / row.file)
            faint = (10**-3.5 * rng.standard_normal((2, 2400))).astype(np.float32)  # -70 dBFS, 0.15 s
            word = audio[row.file][row.start : row.end]
            frontend.reset()
            features.append(frontend.push(np.concatenate([faint[0], word, faint[1]])))
            labels.append(self.keywords.index(row.label))
        return features, np.array(labels)


TASKS = {task.name: task for task in (WakeWords, Commands)}


def full_config(task: Any, network: str, size: int, provenance: dict[str, str]) -> ModelConfig:
    """The full-precision ModelConfig of a network for a task."""
    return ModelConfig(
        keywords=task.keywords,
        layers=layers(network, size, task.n_outputs, task.activation),
        frontend=FRONT_END,
        smoother=SMOOTHER,
        frame_stride=FRAME_STRIDE,
        provenance=provenance,
    )
