"""Models that `streamkws new` made from phrases alone, judged on recordings of people: misses and false accepts.

    python bench/accuracy/own_keyword.py --corpus ../shared/corpus MODEL... [--write]
    python bench/accuracy/own_keyword.py --corpus ../shared/corpus BEFORE AFTER --speaker 036 --learned words

Misses at the lowest threshold with no false accept of the keyword (at most 0.1 per hour), with one (0.5), and at the
model's own, on dev's recordings and all of its negatives. "hey savant" and "hey chatterbox" have theirs in the sets
"community" of train and dev, which are no negatives then. What the models learn from has none of these recordings.
With --speaker: the takes of a speaker of train, but those that --recordings of streamkws new learned from.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.report import markdown, publish
from streamkws import load_model
from streamkws.audio import encode_flac
from streamkws.corpus import KEYWORD_SET, Corpus, keyword_folder, read_corpus, read_recordings, read_segments
from streamkws.evaluation.intervals import rate_interval
from streamkws.evaluation.measure import evaluate_scores
from streamkws.evaluation.operating_points import CLEAN, OperatingPoint
from streamkws.evaluation.scoring import score_corpus
from streamkws.model import Model

COMMUNITY = "community"
LABELS = {"hey savant": "heysavant", "hey chatterbox": "heychatterbox"}
"""Phrases whose recordings are segments of a set, and their labels."""
NOISY = "10 dB"
HEADER = (
    "keyword", "recordings", "miss, none false", "the same, 10 dB", "miss, one false", "that at 10 dB", "own threshold",
    "own miss", "own miss, 10 dB", "FA/h (95 %)",
)  # fmt: skip


@contextmanager
def corpus_of(root: Path, keywords: tuple[str, ...], speaker: str, learned: Path | None) -> Iterator[Corpus]:
    """Dev's negatives, and the recordings of keywords there are. Some are cut out of a set, for as long as it takes.

    speaker: of train, whose recordings are taken instead, without those in a folder learned; "" for all of dev.
    """
    shipped = read_corpus(root / "dev", ("alexa", "computer", "jarvis", "smart mirror", "snowboy", "view glass"))
    recordings = [one for one in shipped.recordings if one.keyword in keywords]
    if speaker:
        taken = {path.name for path in learned.rglob("*.*")} if learned else set()
        theirs = read_recordings(root / "train" / KEYWORD_SET, keywords)[0]
        recordings = [one for one in theirs if one.speaker == speaker and one.path.name not in taken]
    cut = [keyword for keyword in keywords if keyword in LABELS]
    if not cut:
        yield Corpus(root, tuple(recordings), shipped.negatives)
        return
    with tempfile.TemporaryDirectory() as name:
        for part in ("train", "dev"):
            one = read_segments(root / part / COMMUNITY)
            for number, segment in enumerate(one.segments):
                for keyword in cut:
                    if segment.label == LABELS[keyword]:
                        place = keyword_folder(Path(name) / KEYWORD_SET, keyword)
                        place.mkdir(parents=True, exist_ok=True)
                        samples = one.files[segment.file][segment.start : segment.end]
                        (place / f"p_{part}{number}.flac").write_bytes(encode_flac(samples))
        recordings += read_recordings(Path(name) / KEYWORD_SET, cut)[0]
        negatives = tuple(one for one in shipped.negatives if one.set_name != COMMUNITY)
        yield Corpus(root, tuple(recordings), negatives)


def percent(miss: float | None) -> str:
    """A miss rate."""
    return "-" if miss is None else f"{100 * miss:.1f} %"


def rows_of(model: Model, root: Path, speaker: str, learned: Path | None) -> list[list[str]]:
    """A row for each keyword, and one for the mean, of a model. speaker, learned: as for corpus_of."""
    with corpus_of(root, model.keywords, speaker, learned) as corpus:
        scored = score_corpus([model], corpus, (None, 10.0))
    evaluation = evaluate_scores(model, scored)
    points: list[tuple[dict[str, OperatingPoint], tuple[str, str]]] = [
        (evaluation.operating_points[0.1], (CLEAN, NOISY)),
        (evaluation.operating_points[0.5], (CLEAN, NOISY)),
        (evaluation.at_own_thresholds, (CLEAN, NOISY)),
    ]
    rows, table = [], []
    for keyword in model.keywords:
        misses = [point[keyword].figures[name].miss for point, names in points for name in names]
        table.append([np.nan if miss is None else miss for miss in misses])
        own = evaluation.at_own_thresholds[keyword].figures[CLEAN]
        low, high = rate_interval(own.false_accepts, evaluation.hours)
        shown = [percent(miss) for miss in misses]
        threshold = f"{model.thresholds[keyword]:.2f}"
        rate = f"{own.fa_per_h:.2f} ({low:.2f} to {high:.2f})"
        rows.append([keyword, str(own.n_recordings), *shown[:4], threshold, *shown[4:], rate])
    mean, worst = np.nanmean(table, axis=0), np.nanmax(table, axis=0)
    false = sum(evaluation.at_own_thresholds[keyword].figures[CLEAN].false_accepts for keyword in model.keywords)
    hours = evaluation.hours * len(model.keywords)
    low, high = rate_interval(false, hours)
    for name, values, rate in (
        ("mean", mean, f"{false / hours:.2f} ({low:.2f} to {high:.2f})"),
        ("worst", worst, ""),
    ):
        shown = [percent(float(miss)) for miss in values]
        rows.append([name, "", *shown[:4], "", *shown[4:], rate])
    return rows


def main() -> None:
    """Print the tables, and write them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", metavar="MODEL", help="model files, or shipped names")
    parser.add_argument("--corpus", type=Path, required=True, help="the folder with train/ and dev/")
    parser.add_argument("--speaker", default="", help="of train, whose recordings judge instead of dev's")
    parser.add_argument("--learned", type=Path, help="folder of those that a model learned from; they do not count")
    parser.add_argument("--json", metavar="FILE|-", help="write the figures as JSON")
    parser.add_argument("--write", action="store_true", help="write the tables into bench/README.md")
    arguments = parser.parse_args()
    texts, results = [], {}
    for name in arguments.models:
        model = load_model(name)
        rows = rows_of(model, arguments.corpus, arguments.speaker, arguments.learned)
        texts.append(
            f"**{Path(name).name}**: {', '.join(model.keywords)} ({model.config.bits}):\n\n{markdown(HEADER, rows)}"
        )
        results[Path(name).name] = [dict(zip(HEADER, row, strict=True)) for row in rows]
    text = "\n\n".join(texts) + "\n\n"
    if arguments.speaker:
        publish(arguments, "own-takes", text, results)
    else:
        publish(arguments, "own-keyword", text, results)


if __name__ == "__main__":
    main()
