"""Cross-validation over the speakers of train and dev: what a training recipe is worth on voices it has not heard.

    python bench/accuracy/crossval.py --corpus DIR                    the baseline, then every variant; print the tables
    python bench/accuracy/crossval.py --corpus DIR --only baseline    one of them
    python bench/accuracy/crossval.py --corpus DIR --recipe mine.toml --network recipe --steps 6000    of this recipe
    python bench/accuracy/crossval.py --corpus DIR --network recipe --only baseline --write    also bench/README.md
    python bench/accuracy/crossval.py                                 the tables of what has been done

The speakers of dev and train are dealt into folds, alike in keywords. For each fold a network is trained on the other
folds' speakers and train's negatives, and judged on the fold's own speakers and dev's negatives, which no network is
trained on. Clips without a speaker label are dealt in tens: one person may be in two folds, so their misses are a lower
bound. Thresholds are set for each network on clean negatives, once for all conditions; misses are pooled over folds.

The proxy network (100 thousand parameters, a step every 30 ms, as in bench/quantization) is for comparing recipes.
Every training is a job of its own, kept in runs/crossval; another call continues where the last one stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import zlib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.accuracy.crossval_report import CONDITIONS, N_FALSE_ACCEPTS, NOTHING, Result, report
from bench.accuracy.crossval_variants import VARIANTS, Variant
from bench.quantization.quantization_tasks import FRAME_STRIDE, SMOOTHER, Cache, layers, make_cache, read_cache
from bench.report import ROOT, write_section, written_by
from bench.research import cached_training
from streamkws import Model
from streamkws.audio import read_audio
from streamkws.corpus import Recording, read_corpus
from streamkws.evaluation.measure import evaluate_scores
from streamkws.evaluation.operating_points import CLEAN
from streamkws.evaluation.results import Evaluation
from streamkws.evaluation.scoring import ScoredCorpus, Scores
from streamkws.frontend import FrontEnd, FrontEndConfig
from streamkws.mixing import NoiseBank
from streamkws.model import ModelConfig
from streamkws.training.augment import AugmentConfig
from streamkws.training.blocks import Example
from streamkws.training.checkpoint import save_checkpoint
from streamkws.training.data import excluded
from streamkws.training.ensemble import Ensemble
from streamkws.training.examples import ExampleMaker
from streamkws.training.losses import block_losses, difficulty, moments
from streamkws.training.network import KeywordNetwork
from streamkws.training.pool import drawn_by_difficulty, perturbed
from streamkws.training.recipe import Recipe, TrainingConfig
from streamkws.training.recordings import Clip, clips_by_speaker, read_wakewords
from streamkws.training.stages import load_stage
from streamkws.training.teacher import N_EMBEDDING

RUNS = Path("runs") / "crossval"
PARTS = ("train", "dev")
SNRS_DB = (None, 10.0, 5.0)
N_EXAMPLES = 49_152
"""Examples made for a variant, of all folds together."""
PROXY = {"steps": 2000, "warmup_steps": 100, "average_decay": 0.995}
"""How the proxy network is trained; all other settings are the recipe's."""
USE_SETTINGS = (
    "gain_jitter_db", "n_time_masks", "time_mask_frames", "n_frequency_masks", "frequency_mask_bands",
    "tempo_jitter",
)  # fmt: skip
"""Settings of AugmentConfig that apply each time an example is used, not when it is made."""


@dataclass(frozen=True)
class Take:
    """A recording of a keyword. part: train or dev. speaker: p0, p1, ... for tens of unknown ones. fold: its number."""

    part: str
    recording: Recording
    keyword: int
    speaker: str
    fold: int


def deal(counts: dict[str, list[int]], n_folds: int) -> dict[str, int]:
    """The fold of each speaker, such that every fold has about as many recordings of each keyword.

    counts: of each speaker, the recordings of each keyword. The greatest speakers are dealt first, each to the fold
    that is left the most even.
    """
    totals = np.maximum(np.sum(list(counts.values()), axis=0), 1)
    shares = np.zeros((n_folds, len(totals)))
    folds = {}
    for speaker in sorted(counts, key=lambda name: (-sum(counts[name]), name)):
        own = np.array(counts[speaker]) / totals
        costs = [float(((shares[fold] + own) ** 2).sum() - (shares[fold] ** 2).sum()) for fold in range(n_folds)]
        folds[speaker] = int(np.argmin(np.round(costs, 12)))
        shares[folds[speaker]] += own
    return folds


def read_takes(corpus: Path, keywords: tuple[str, ...], n_folds: int) -> tuple[list[Take], list[Clip]]:
    """All recordings of both parts, dealt into folds, and the same as clips to train on."""
    listed: list[tuple[str, Recording, Clip]] = []
    for part in PARTS:
        clips, unusable = read_wakewords(corpus / part / "wakewords", keywords)
        recordings = sorted(
            read_corpus(corpus / part, keywords).recordings, key=lambda one: (keywords.index(one.keyword), one.path)
        )
        if unusable or len(recordings) != len(clips):
            sys.exit(f"crossval.py: expected readable recordings, got {unusable or (len(recordings), len(clips))}")
        listed += [(part, recording, clip) for recording, clip in zip(recordings, clips, strict=True)]
    counts: dict[str, list[int]] = defaultdict(lambda: [0] * len(keywords))
    for _, _, clip in listed:
        counts[clip.speaker][clip.keyword] += 1
    folds = deal(counts, n_folds)
    takes = [Take(part, one, clip.keyword, clip.speaker, folds[clip.speaker]) for part, one, clip in listed]
    return takes, [clip for _, _, clip in listed]


class FoldMaker(ExampleMaker):
    """Makes training examples; the keywords of example i are said by speakers of fold i modulo the number of folds."""

    def __init__(self, takes: list[Take], clips: list[Clip], n_folds: int, *arguments: Any) -> None:
        self.given = clips
        super().__init__(*arguments)
        self.by_fold = []
        for fold in range(n_folds):
            own = [
                clip
                for take, clip in zip(takes, self.clips, strict=True)
                if take.fold == fold and not excluded(take.recording.path, self.data.exclude)
            ]
            self.by_fold.append([clips_by_speaker(own, keyword) for keyword in range(len(self.keywords))])
            if not all(self.by_fold[-1]):
                sys.exit(f"crossval.py: expected every keyword in every fold, got none in one of {n_folds}")

    def read_clips(self, parts: list[Path]) -> tuple[list[Clip], list[str]]:
        """The recordings of all folds, from both parts."""
        return self.given, []

    def make(self, index: int) -> Example:
        """Training example number index."""
        self.by_speaker = self.by_fold[index % len(self.by_fold)]
        return super().make(index)


class Judge:
    """The recordings of all folds and the negatives of dev as features, in every noise condition."""

    def __init__(self, corpus: Path, takes: list[Take], config: FrontEndConfig) -> None:
        self.corpus, self.takes = corpus, takes
        self.negatives = read_corpus(corpus / "dev", {take.recording.keyword for take in takes}).negatives
        noise, frontend = NoiseBank.read(self.negatives, 0), FrontEnd(config)

        def features(samples: np.ndarray) -> np.ndarray:
            frontend.reset()
            return np.array(frontend.push(samples))

        self.n_samples: list[int] = []
        self.features: list[list[np.ndarray]] = []  # [take][condition]
        for take in takes:
            samples = read_audio(take.recording.path)
            self.n_samples.append(len(samples))
            self.features.append([features(noise.over_recording(take.recording, samples, snr)) for snr in SNRS_DB])
        self.negative_samples: list[int] = []
        self.negative_features: list[list[np.ndarray]] = []
        for negative in self.negatives:
            samples = read_audio(negative.path)
            self.negative_samples.append(len(samples))
            noisy = [None if negative.is_noise else snr for snr in SNRS_DB]
            self.negative_features.append([features(noise.over_negative(negative, samples, snr)) for snr in noisy])

    def evaluate(self, models: list[Model], fold: int) -> Evaluation:
        """Judge the mean of some models' posteriors on a fold's recordings; models[0] gives the decision rule."""
        chosen = [index for index, take in enumerate(self.takes) if take.fold == fold]
        states = [model.new_state() for model in models]

        def listen(frames: np.ndarray) -> np.ndarray:
            for state in states:
                state.hear_silence()
            return np.mean([state.push(frames) for state in states], axis=0, dtype=np.float32)

        scores = tuple(
            Scores(
                tuple(listen(self.features[index][c]) for index in chosen),
                tuple(listen(one[c]) for one in self.negative_features),
            )
            for c in range(len(SNRS_DB))
        )
        scored = ScoredCorpus(
            root=self.corpus,
            seed=0,
            recordings=tuple(self.takes[index].recording for index in chosen),
            negatives=self.negatives,
            recording_samples=tuple(self.n_samples[index] for index in chosen),
            negative_samples=tuple(self.negative_samples),
            snrs_db=SNRS_DB,
            scores=(scores,),
        )
        return evaluate_scores(models[0], scored)

    def result(self, models: list[Model], fold: int) -> Result:
        """The results to keep: thresholds by number of false accepts, and the score of every take."""
        evaluation = self.evaluate(models, fold)
        keywords: dict[str, Any] = {}
        for keyword, curve in evaluation.curves[CLEAN].items():
            at = [curve.index_at((n + 0.5) / curve.hours) for n in range(N_FALSE_ACCEPTS)]
            none = at[0]
            keywords[keyword] = {
                "thresholds": [1.1 if i is None else curve.thresholds[i] for i in at],
                "false_accepts": {
                    name: 0 if none is None else curves[keyword].false_accepts[none]
                    for name, curves in evaluation.curves.items()
                },
            }
        takes = []
        for keyword in keywords:
            own = [take for take in self.takes if take.fold == fold and take.recording.keyword == keyword]
            by_condition = [evaluation.scores[name][keyword].recordings for name in CONDITIONS]
            for take, *scores in zip(own, *by_condition, strict=True):
                name = f"{take.part}/{take.recording.name}"
                takes.append([name, take.speaker, keyword, [round(score, 5) for score in scores]])
        return {"fold": fold, "hours": evaluation.hours, "keywords": keywords, "takes": takes}


@dataclass(frozen=True)
class Job:
    """The training of one variant for one fold."""

    variant: Variant
    fold: int
    folder: Path

    @property
    def checkpoint(self) -> Path:
        """The trained weights."""
        return self.folder / f"{self.variant.name}-fold{self.fold}.pt"

    def result(self, bits: str) -> Path:
        """The figures in some widths."""
        return self.folder / f"{self.variant.name}-fold{self.fold}.{bits}.json"


class Bench:
    """What the jobs of a call share: the recipe, the folds, and the parts of the corpus that they need."""

    def __init__(
        self, corpus: Path, recipe: Recipe, network: str, steps: int, n_folds: int, n_examples: int = N_EXAMPLES
    ) -> None:
        self.corpus, self.recipe, self.n_folds, self.n_examples = corpus, recipe, n_folds, n_examples
        self.proxy = network == "proxy"
        self.frontend = recipe.model.to_model_config({}).frontend
        self.keywords = recipe.model.keywords
        self.steps = steps
        self.takes, self.clips = read_takes(corpus, self.keywords, n_folds)
        self._judge: Judge | None = None
        self._cache: tuple[Path, Cache] | None = None

    @property
    def judge(self) -> Judge:
        """The recordings and negatives to judge by, read at the first use."""
        if self._judge is None:
            self._judge = Judge(self.corpus, self.takes, self.frontend)
        return self._judge

    def config(self, variant: Variant) -> ModelConfig:
        """The network of a variant, in full precision unless it is quantized."""
        if not self.proxy:
            return self.recipe.model.to_model_config({"name": variant.name}, variant.quantization)
        shapes = layers("dilated", variant.size, len(self.keywords), "sigmoid")
        return ModelConfig(
            keywords=self.keywords,
            layers=tuple(variant.quantization.apply(shapes)) if variant.quantization else shapes,
            frontend=self.frontend,
            smoother=SMOOTHER,
            frame_stride=FRAME_STRIDE,
            provenance={"name": variant.name},
        )

    def settings(self, variant: Variant) -> TrainingConfig:
        """How a variant is trained."""
        settings = replace(self.recipe.training, **(PROXY if self.proxy else {}), threads=1)
        if self.steps:
            settings = replace(settings, steps=self.steps)
        return replace(settings, **variant.training)

    def cache(self, variant: Variant, fold: int) -> Cache:
        """The variant's training examples without the fold's speakers."""
        data, augmentation = replace(self.recipe.data, **variant.data), replace(self.recipe.augment, **variant.augment)
        n_examples = variant.examples or self.n_examples
        made_of: list[Any] = [asdict(data), asdict(augmentation), asdict(self.frontend), self.n_folds, n_examples]
        for at_each_use in USE_SETTINGS:
            made_of[1].pop(at_each_use)
        place = RUNS / f"examples-{named(made_of)}"
        done = place / "done.json"
        if not done.exists() or json.loads(done.read_text())["examples"] < n_examples:
            maker = FoldMaker(
                self.takes, self.clips, self.n_folds, self.corpus / "train", self.keywords, data, augmentation,
                self.frontend, 1,
            )  # fmt: skip
            make_cache(place, maker, n_examples)
        if self._cache is None or self._cache[0] != place:
            whole = read_cache(place)
            self._cache = place, Cache(whole.arrays.take(np.arange(len(whole.arrays.features))), whole.n_outputs)
        whole = self._cache[1]
        rows = np.flatnonzero(np.arange(len(whole.arrays.features)) % self.n_folds != fold)
        return Cache(whole.arrays.take(rows), whole.n_outputs)

    def run(self, job: Job) -> None:
        """Train a job's network, unless it is there, and judge it, unless that is done."""
        job.folder.mkdir(parents=True, exist_ok=True)
        variant = job.variant
        if variant.members:
            networks = self.load_all(job, variant.members)
        else:
            if not job.checkpoint.exists():
                self.train(job)
            networks = [self.load(job)]
        for bits in variant.widths:
            if job.result(bits).exists():
                continue
            models = [self.model(job, network, bits) for network in networks]
            result = {"variant": variant.name, "bits": bits, **self.judge.result(models, job.fold)}
            cached_training.write(job.result(bits), json.dumps(result))

    def model(self, job: Job, network: KeywordNetwork, bits: str) -> Model:
        """The results of a network in some widths."""
        if job.variant.quantization:
            return network.to_model()
        full, n_examples = Model.from_float(network.config, network.to_float_weights()), job.variant.rounding_examples
        if bits == "f32":
            return full
        examples: list[npt.NDArray[np.float32]] = []
        if n_examples:
            features = self.cache(job.variant, job.fold).arrays.features
            rows = np.random.default_rng(0).choice(len(features), n_examples, replace=False)
            examples = list(features[rows].astype(np.float32))
        return full.quantize(int(bits[1]), 8, examples=examples)

    def load_all(self, job: Job, names: tuple[str, ...]) -> list[KeywordNetwork]:
        """The networks of these variants for a job's fold, trained if they are not yet."""
        jobs = [Job(one, job.fold, job.folder) for one in VARIANTS if one.name in names]
        for one in jobs:
            if not one.checkpoint.exists():
                self.train(one)
        return [self.load(one) for one in jobs]

    def load(self, job: Job) -> KeywordNetwork:
        """The trained network of a job."""
        entries = torch.load(job.checkpoint, map_location="cpu", weights_only=True)
        network = self.network(job.variant, entries["n_auxiliary"])
        network.load_state_dict(entries["state"])
        return network.eval()

    def posteriors(self, job: Job, cache: Cache) -> np.ndarray:
        """The posteriors of a job's ensemble for its examples; kept beside these for jobs with the same ensemble."""
        assert self._cache is not None
        members = [job.folder.name, *job.variant.ensemble]
        path = self._cache[0] / f"posteriors-{named(members)}-fold{job.fold}.pt"
        if not path.exists():
            ensemble, features = Ensemble(self.load_all(job, job.variant.ensemble)), cache.arrays.features
            blocks = np.array_split(features, -(-len(features) // self.settings(job.variant).batch))
            heard = np.concatenate([ensemble.posteriors(block, self.recipe.training.bfloat16) for block in blocks])
            save_checkpoint({"posteriors": torch.from_numpy(heard)}, path)
        kept: np.ndarray = torch.load(path, weights_only=True)["posteriors"].numpy()
        return kept

    def network(self, variant: Variant, n_auxiliary: int) -> KeywordNetwork:
        """A variant's network, not trained yet."""
        return KeywordNetwork(self.config(variant), n_auxiliary, variant.quantization)

    def train(self, job: Job) -> None:
        """Train a job's network."""
        cache, settings, began = self.cache(job.variant, job.fold), self.settings(job.variant), time.monotonic()
        torch.manual_seed(settings.seed)
        n_other = cache.n_outputs - len(self.keywords) + (N_EMBEDDING if cache.arrays.embeddings.size else 0)
        if job.variant.ensemble:
            cache = replace(cache, arrays=cache.arrays._replace(posteriors=self.posteriors(job, cache)))
        network = self.network(job.variant, n_other)
        if job.variant.start_from:
            network.load_state_dict(self.load_all(job, (job.variant.start_from,))[0].state_dict())
        else:
            network.normalize_by(cache.block(np.random.default_rng(0), 2048)[0])
        with job.checkpoint.with_suffix(".log").open("a") as log:
            trained = train(
                network,
                cache,
                settings,
                replace(self.recipe.augment, **job.variant.augment),
                job.checkpoint.with_suffix(".unfinished"),
                lambda text: print(text, file=log, flush=True),
            )
        entries = {
            "state": trained.state_dict(),
            "n_auxiliary": network.n_auxiliary,
            "minutes": round((time.monotonic() - began) / 60, 2),
        }
        save_checkpoint(entries, job.checkpoint)
        job.checkpoint.with_suffix(".unfinished").unlink(missing_ok=True)
        print(f"{job.checkpoint.name} took {entries['minutes']} minutes", file=sys.stderr, flush=True)


def train(
    network: KeywordNetwork,
    cache: Cache,
    settings: TrainingConfig,
    augmentation: AugmentConfig,
    unfinished: Path,
    say: Callable[[str], None],
) -> KeywordNetwork:
    """Train on cached examples, with the posteriors of an ensemble where they have such; as cached_training.train."""
    config = network.config
    fill, floor = network.feature_mean.numpy().copy(), float(np.log(config.frontend.energy_floor))
    kept = torch.ones(len(cache.arrays.features), dtype=torch.float64)
    difficulties = kept.numpy()  # the same memory
    embeddings = cache.arrays.embeddings
    teacher = moments(embeddings) if embeddings.size else None

    def loss_of(rng: np.random.Generator) -> torch.Tensor:
        rows = drawn_by_difficulty(rng, difficulties, settings.batch, settings.hard_share)
        block = perturbed(rng, cache.of(rows), augmentation, fill, floor)
        with torch.autocast("cpu", torch.bfloat16, enabled=settings.bfloat16):
            logits = network(torch.from_numpy(block.features)).float()
        if settings.hard_share:
            difficulties[rows] = difficulty(logits, block.targets, len(config.keywords))
        return block_losses(logits, block, config.frame_stride, len(config.keywords), settings, teacher).total

    freeze_step = round(network.quantization.freeze_share * settings.steps) if network.quantizing else None
    return cached_training.train(network, settings, loss_of, unfinished, say, freeze_step, {"difficulty": kept})


def named(settings: list[Any]) -> str:
    """A short name that differs where settings do."""
    return f"{zlib.crc32(json.dumps(settings).encode()):08x}"


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, help="corpus folder with train/ and dev/; without it nothing is trained")
    recipe = ROOT / "bench" / "research" / "from_scratch.toml"
    parser.add_argument("--recipe", type=Path, default=recipe, help="what is varied")
    parser.add_argument("--stage", default="labels", help="which stage of it, where it has stages (default: labels)")
    parser.add_argument("--folds", type=int, default=4, help="number of folds (default: 4)")
    parser.add_argument("--network", choices=("proxy", "recipe"), default="proxy", help="what is trained")
    parser.add_argument("--steps", type=int, default=0, help="steps of a training (default: 2000, or the recipe's)")
    parser.add_argument(
        "--examples", type=int, default=N_EXAMPLES, help=f"examples of all folds together (default: {N_EXAMPLES:,})"
    )
    parser.add_argument("--only", default="", metavar="NAMES", help="only these variants, separated by commas")
    parser.add_argument("--json", action="store_true", help="print the pooled figures as JSON")
    parser.add_argument("--write", action="store_true", help="write the table in bench/README.md")
    arguments = parser.parse_args()
    if arguments.write and arguments.json:
        parser.error("--write is not for --json")
    names = [name for name in arguments.only.split(",") if name]
    unknown = sorted(set(names) - {variant.name for variant in VARIANTS})
    if unknown:
        sys.exit(f"crossval.py: no such variant: {', '.join(unknown)}; there are {', '.join(v.name for v in VARIANTS)}")
    chosen = [variant for variant in VARIANTS if not names or variant.name in names]
    recipe = load_stage(arguments.recipe, arguments.stage)
    varied = [arguments.network, arguments.folds, arguments.examples, arguments.steps]
    varied += [asdict(part) for part in (recipe.model, recipe.data, recipe.augment, recipe.training)]
    folder = RUNS / f"{recipe.name}-{arguments.network}-{named(varied)}"
    if arguments.corpus:
        for name in PARTS:
            if not (arguments.corpus / name).is_dir():
                sys.exit(f"crossval.py: expected a corpus folder with train/ and dev/, got {arguments.corpus}")
        torch.set_num_threads(1)
        bench = Bench(arguments.corpus, recipe, arguments.network, arguments.steps, arguments.folds, arguments.examples)
        for variant in chosen:
            for fold in range(arguments.folds):
                bench.run(Job(variant, fold, folder))
    results = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    text = report(results, [variant.name for variant in chosen], arguments.folds, arguments.json)
    print(text)
    if arguments.write and text != NOTHING:
        steps = arguments.steps or (PROXY["steps"] if arguments.network == "proxy" else recipe.training.steps)
        of = "proxy network" if arguments.network == "proxy" else "recipe's own network"
        note = (
            f"The {of} after {steps:,} steps of {recipe.training.batch}, on {arguments.examples:,} examples of all "
            f"folds together, seed {recipe.training.seed}; w4a8 is quantized after training unless said otherwise."
        )
        note = " ".join([note, *(f"{one.name}: {one.described}." for one in chosen if one.described), written_by()])
        write_section("crossval", f"{text}\n- {note}")


if __name__ == "__main__":
    main()
