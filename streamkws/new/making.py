"""Making a model of phrases: from the words alone to voices, a trained network, thresholds and model files.

A folder, runs/new-<phrases>, holds all that is made on the way. Each step goes on where it was stopped.

    voices/       what speakers say to learn from, a set          kept_out/  what other voices say, to judge by
    corpus/       made rooms, noise and music, and recordings     near/      what those voices say that is near
    network-*/    the training from voices                        adapted-*/  that with what the user brings
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

from streamkws.corpus import KEYWORD_SET
from streamkws.errors import ConfigError
from streamkws.model_file import SUFFIX, save_model
from streamkws.new.judge import Verdict, judge
from streamkws.new.near import Near, near_phrases
from streamkws.new.own import Takes, split_kept_out, take_negatives, take_recordings
from streamkws.new.phones import Dictionary
from streamkws.new.phrase import Phrase, pronounce
from streamkws.new.scripts import FULL, Amounts, scripts
from streamkws.new.surroundings import SEED, make_surroundings
from streamkws.new.training import TEACHER, fingerprint, pack_path, recipe_of
from streamkws.training.export import models_of
from streamkws.training.loop import train_network
from streamkws.training.pack import Pack, read_pack
from streamkws.training.recipe import Recipe
from streamkws.training.recipe_file import RUNS
from streamkws.voices.fetch import fetch_dictionary, fetch_teacher
from streamkws.voices.speakers import HOME, NETWORK, STYLES, pronunciations, read_aloud
from streamkws.whole import write_whole

Show = Callable[[str, float, float], None]
DICTIONARY = HOME.parent / "dictionary"
DONE = "done.json"
DEV_PIECES = 4
"""The made sound that judges is so many times shorter than that which is learned from."""
TARGET_FA_PER_H = 0.5
DOWNLOAD_MB, DISK_MB, SPACE_MB = 245, 560, 150
STEPS_PER_S, EXPORT_MINUTES = 8, 4
"""What is told before anything is done: measured on two cores."""


@dataclass(frozen=True)
class Order:
    """What is wanted.

    phrases: as they are written. spoken: how some of them are said. recordings: a folder <phrase>/<file> of takes, or
    None. negatives: files and folders without the phrases. amounts: how much is made and learned. quick: whether they
    are the lesser ones.
    """

    phrases: tuple[str, ...]
    spoken: dict[str, str] = field(default_factory=dict)
    recordings: Path | None = None
    negatives: tuple[Path, ...] = ()
    amounts: Amounts = FULL
    quick: bool = False
    target_fa_per_h: float = TARGET_FA_PER_H

    def __post_init__(self) -> None:
        if not self.phrases or len(set(self.phrases)) != len(self.phrases):
            raise ConfigError(f"expected phrases, each once, got {', '.join(map(repr, self.phrases)) or 'none'}")
        if strange := sorted(set(self.spoken) - set(self.phrases)):
            raise ConfigError(f"expected pronunciations of {', '.join(self.phrases)}, got one of {strange[0]!r}")

    @property
    def name(self) -> str:
        """Of the models, unless another is wanted."""
        return re.sub(r"[^a-z]+", "_", "-".join(self.phrases))[:60]

    @property
    def folder(self) -> Path:
        """Where everything is kept on the way."""
        text = json.dumps([self.phrases, self.spoken])
        return RUNS / f"new-{self.name}-{hashlib.sha256(text.encode()).hexdigest()[:6]}{'-quick' * self.quick}"


@dataclass(frozen=True)
class Outcome:
    """What was made.

    paths: of the model files. verdicts: of each of them, in the same order. before: the verdict of the smallest model
    before it learned from what the user brought; None where it brought nothing. takes: what it brought; None for none.
    skipped: files that could not be read, a line each.
    """

    paths: tuple[Path, ...]
    verdicts: tuple[Verdict, ...]
    before: Verdict | None
    takes: Takes | None
    skipped: tuple[str, ...]


def dictionary_of() -> Dictionary:
    """The pronouncing dictionary, fetched where it is not there yet."""
    return Dictionary(fetch_dictionary(DICTIONARY))


def needs(order: Order, n_cores: int) -> list[str]:
    """What is fetched, and what space and time it takes, in sentences."""
    told = []
    if not (HOME / NETWORK).exists() or not (HOME / STYLES).exists():
        told.append(
            f"Once: {DOWNLOAD_MB} MB are fetched for the voices (Kokoro-82M), which take {DISK_MB} MB in {HOME}."
        )
    amounts = order.amounts
    speaking = amounts.spoken_s(len(order.phrases)) / 60 / n_cores
    learning = amounts.steps / STEPS_PER_S / 60 * max(1.0, 2 / n_cores)
    minutes = speaking + learning + EXPORT_MINUTES
    told.append(
        f"{amounts.speakers + amounts.kept_out} voices, {amounts.steps:,} steps: some {minutes:.0f} minutes on "
        f"{n_cores} core{'s' * (n_cores != 1)}, {SPACE_MB} MB in {order.folder}. Stopped, it goes on where it was."
    )
    return told


def understand(order: Order, dictionary: Dictionary) -> list[Phrase]:
    """The phrases with their sounds. Raises as the synthesizer does."""
    return pronounce(order.phrases, order.spoken, dictionary, pronunciations)


def speak(order: Order, phrases: Sequence[Phrase], dictionary: Dictionary, show: Show) -> None:
    """Let speakers say the phrases and what is near to them, some to learn from and some to judge by."""
    near: dict[str, dict[str, list[Near]]] = {one.text: near_phrases(one, dictionary) for one in phrases}
    for name, kept_out in (("voices", False), ("kept_out", True)):
        wanted = scripts(phrases, near, order.amounts, kept_out)
        read_aloud(order.folder / name, wanted, order.phrases, show=show)


def prepare(order: Order, show: Show) -> tuple[Takes | None, tuple[str, ...]]:
    """Make what the phrases are heard in, and take in what the user brings. Returns his takes, and what is unusable."""
    corpus, pieces = order.folder / "corpus", order.amounts.pieces
    show("fetching what knows speech", 0, 1)
    fetch_teacher(TEACHER)
    make_surroundings(corpus / "train", pieces, SEED, show)
    make_surroundings(corpus / "dev", pieces // DEV_PIECES, SEED + 1, show)
    show("sorting what the voices said", 0, 1)
    split_kept_out(order.folder / "kept_out", order.phrases, corpus / "dev", order.folder / "near")
    for old in (corpus / "own", corpus / "own_kept_out", corpus / "dev" / "own"):
        shutil.rmtree(old, ignore_errors=True)
    takes: Takes | None = None
    skipped: list[str] = []
    if order.recordings is not None:
        takes = take_recordings(order.recordings, order.phrases, corpus / "own", corpus / "own_kept_out")
        skipped += takes.skipped
    if order.negatives:
        skipped += take_negatives(order.negatives, corpus / "own", corpus / "dev")
    return takes, tuple(skipped)


def learn(order: Order, show: Show) -> list[tuple[Path, Recipe]]:
    """Train from the voices, then with what the user brings, if anything. Returns the run folders and their recipes."""
    folder, source = order.folder, f"Made by streamkws new for {', '.join(order.phrases)}"
    recipe, text = recipe_of(order.name, order.phrases, folder, order.amounts, source)
    runs = [
        (_trained(recipe, text, folder / f"network-{fingerprint(text, folder / 'voices')}", "learning", show), recipe)
    ]
    if (folder / "corpus" / "own").is_dir():
        recipe, text = recipe_of(order.name, order.phrases, folder, order.amounts, source, start=runs[0][0])
        place = folder / f"adapted-{fingerprint(text, folder / 'corpus' / 'own')}"
        runs.append((_trained(recipe, text, place, "learning from your recordings", show), recipe))
    return runs


def _trained(recipe: Recipe, text: str, place: Path, what: str, show: Show) -> Path:
    """A run folder, trained to the end."""
    if (place / DONE).exists():
        return place
    missed = ""

    def follow(entry: dict[str, Any], completed: float) -> None:
        nonlocal missed
        if "miss at 0 FA" in entry:
            missed = f", misses {100 * entry['miss at 0 FA']:.1f} % of kept-out voices without a false accept"
        show(f"{what}{missed}", completed, 1.0)

    show(what, 0, 1)
    train_network(recipe, place, text, follow=follow)
    write_whole(place / DONE, b"{}\n")
    return place


def export(
    order: Order, runs: Sequence[tuple[Path, Recipe]], out: Path, show: Show
) -> tuple[list[Path], list[Verdict], Verdict | None]:
    """Judge the models, and write them beside out. Returns their paths, verdicts, and the verdict before adapting."""
    pack, dev = read_pack(pack_path()), order.folder / "corpus" / "dev"
    takes = order.folder / "corpus" / "own_kept_out" / KEYWORD_SET
    own = takes if takes.is_dir() else None
    show("rounding the weights", 0, 1)
    *first, last = (models_of(*run, Path(run[1].data.corpus)) for run in runs)
    models = [*(several[-1] for several in first), *last]
    verdicts = judge(models, dev, order.folder / "near", own, pack, order.target_fa_per_h, show)
    before = verdicts.pop(0) if first else None
    verdicts = [replace(one, model=one.model.with_settings(provenance=_provenance(order, pack))) for one in verdicts]
    out.parent.mkdir(parents=True, exist_ok=True)
    stem = out.name.removesuffix(SUFFIX)
    paths = [save_model(one.model, out.with_name(f"{stem}.{one.model.config.bits}{SUFFIX}")) for one in verdicts]
    return paths, verdicts, before


def _provenance(order: Order, pack: Pack) -> dict[str, str]:
    """What the models say of themselves."""
    amounts = order.amounts
    brought = [text for text, there in (("takes", order.recordings), ("sound without them", order.negatives)) if there]
    return {
        "data": f"{amounts.speakers} speakers synthesized by Kokoro-82M (Apache-2.0); features of "
        f"{'; '.join(dict.fromkeys(pack.sources.values()))}; taught by Google's speech embedding (Apache-2.0)"
        + (f"; the user's own {' and '.join(brought)}" if brought else ""),
        "training": f"backbone.f32, then {amounts.steps:,} steps",
        "thresholds": f"for {order.target_fa_per_h:g} false accepts per hour, by voices and recordings kept out, "
        f"{date.today().isoformat()}",
    }


def make(order: Order, phrases: Sequence[Phrase], dictionary: Dictionary, out: Path, show: Show) -> Outcome:
    """Do all that is not done yet, and write the models beside out, as <name>.<bits>.safetensors.

    phrases: as understand gives them. show: told of the progress: what, done, in all.
    Raises MissingExtraError for a tool that is missing, ConfigError for recordings that are none, OSError where
    something cannot be written.
    """
    speak(order, phrases, dictionary, show)
    takes, skipped = prepare(order, show)
    runs = learn(order, show)
    paths, verdicts, before = export(order, runs, out, show)
    return Outcome(tuple(paths), tuple(verdicts), before, takes, skipped)
