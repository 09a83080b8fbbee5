"""Misses and false accepts on a corpus; writes tables of bench/README.md and the model cards.

Measured are the held-out models, which did not learn from dev (bench/models.py); the cards are of those that ship.

    python bench/accuracy/accuracy.py --corpus DIR            print the tables (DIR as `streamkws evaluate` takes it)
    python bench/accuracy/accuracy.py --corpus DIR --peers    other wake-word engines too, on the same audio
    python bench/accuracy/accuracy.py --corpus DIR --write    also bench/README.md, models/*.md and accuracy.json
    python bench/accuracy/accuracy.py --corpus DIR --plot     also the DET curves, accuracy.svg and accuracy_peers.svg
    python bench/accuracy/accuracy.py --corpus DIR --json F   the figures; - is standard output, instead of the tables
    python bench/accuracy/accuracy.py --corpus DIR --held-out PATH    measure PATH.f32, PATH.w8a8 and PATH.w4a8 instead

Misses are counted clean, in every kind of noise and in rooms. Files as stored and weights as held in memory are
measured in the same run. Peers are installed into runs/peers once.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.accuracy import accuracy_conditions
from bench.models import HELD_OUT, WIDTHS, load_widths
from bench.peers import accuracy_peers
from bench.peers.peers import PEERS, PeerError
from bench.report import ROOT, machine, markdown, write_section
from streamkws import Model, load_model, shipped_models
from streamkws.corpus import Corpus, read_corpus
from streamkws.evaluation.measure import evaluate_scores
from streamkws.evaluation.results import Evaluation
from streamkws.evaluation.scoring import score_corpus
from streamkws.evaluation.tables import format_markdown, format_table
from streamkws.model import ROUNDING
from streamkws.model_file import model_path
from streamkws.training.stages import read_chain

FIGURES = ROOT / "bench" / "accuracy" / "accuracy.json"


def sizes_markdown(models: list[Model]) -> str:
    """Bytes of each model, stored and in memory, against float32."""
    header = ["model", "parameters", "file", "of f32", "weights and tables stored", "saved", "held in memory", "saved"]
    rows = []
    full = model_path(models[0].name).stat().st_size
    for model in models:
        size = model_path(model.name).stat().st_size
        saved, held = (1 - n / model.float_bytes for n in (model.stored_bytes, model.resident_bytes))
        file = [f"{size:,} B", f"{size / full:.1%}"]
        memory = [f"{model.stored_bytes:,} B", f"{saved:.1%}", f"{model.resident_bytes:,} B", f"{max(0, held):.1%}"]
        rows.append([model.name, f"{model.n_parameters:,}", *file, *memory])
    return markdown(header, rows)


def left_out_sets() -> tuple[str, ...]:
    """The sets of dev that set no threshold of the shipped models."""
    chain = read_chain(ROOT / "models" / "wakewords.toml")
    return chain.recipes[chain.trained[-1]].export.left_out if chain else ()


def card(model: Model, evaluation: Evaluation, when: str) -> str:
    """The model card of a shipped model."""
    c, p = model.config, model.config.provenance
    size = model_path(model.name).stat().st_size
    keywords = ", ".join(model.keywords)
    widths = "" if c.bits == "f32" else "; every weight column and every frame's vectors have their own exact range"
    rounding = f"; {p[ROUNDING]}" if ROUNDING in p else ""
    thresholds = ", ".join(f"{k} {v:.4g}" for k, v in model.thresholds.items())
    hop_ms = 1000 * c.frontend.hop_samples / c.frontend.sample_rate
    step_ms = 1000 * c.step_samples / c.frontend.sample_rate
    reach = c.layers[0].taps * hop_ms + sum((x.taps - 1) * x.dilation for x in c.layers[1:]) * step_ms
    return f"""# {model.name}

Keyword spotting in a stream of 16 kHz audio: {keywords}.

- **Network:** {len(c.layers)} causal layers, {model.n_parameters:,} parameters, a step every {step_ms:.0f} ms, hears
  {reach / 1000:.2f} s back. Input: {c.frontend.n_mels} log-mel bands every {hop_ms:.0f} ms.
- **Widths:** {c.bits}{widths}{rounding}.
- **Size:** file {size:,} bytes; weights, tables and biases {model.stored_bytes:,} bytes stored,
  {model.resident_bytes:,} in memory; {model.float_bytes:,} in float32.
- **Trained on:** {p.get("data", "not said")}.
- **Training:** {p.get("training", "not said")}; the recipe is `{p.get("recipe", "not said")}`. What it goes on from,
  and how that was trained, is in bench/research.
- **Thresholds:** {thresholds}.
  They are the lowest with at most one false accept of each keyword in dev's negatives, and two with noise at 10 dB;
  {", ".join(left_out_sets())} set none. So expect more false accepts elsewhere than below.
- **Licence:** {p.get("licence", "not said")}.

## Intended use

Waking a voice application on a device, beside other work. It learned from a few dozen recorded speakers of each word,
mostly adults speaking English into close microphones, and from synthesized ones: speakers unlike those are missed more
often, and some on most tries (the figures by speaker are in bench/accuracy/accuracy.json). It is not made for deciding
anything about a person, and not for transcribing.

## Figures on dev ({when})

They are of {evaluation.model}, trained by the same recipe without dev's recordings, which this model learned from. dev
was used to choose the recipe, the smoothing and the thresholds.

{format_markdown([evaluation])}
"""


def measure_peers(
    names: Sequence[str], corpus: Corpus, core: int | None
) -> tuple[list[accuracy_peers.Result], list[str]]:
    """Let the peers hear a corpus. Returns their results, and a line for each that does not run here."""
    results, missing = [], []
    material = accuracy_peers.Material.read(corpus) if names else None
    for name in names:
        try:
            results.append(accuracy_peers.measure(name, material, core, lambda doing: print(doing, file=sys.stderr)))
        except PeerError as error:
            missing.append(str(error))
            print(error, file=sys.stderr)
    return results, missing


def written_before() -> dict[str, Any]:
    """The figures that an earlier run wrote; {} where there are none."""
    return json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else {}


def kept_peers(hours: float) -> tuple[list[accuracy_peers.Result], list[str], str]:
    """What an earlier run on as many hours of negatives wrote of peers: results, who was missing, when."""
    before = written_before()
    results = [accuracy_peers.from_json(entries) for entries in before.get("peers", [])]
    if not results or any(abs(result.hours - hours) > 1e-6 for result in results):
        return [], [], ""
    return results, before["peers_missing"], before.get("peers_date", before["date"])


def write(
    corpus_name: str,
    models: Sequence[Model],
    evaluations: Sequence[Evaluation],
    sections: dict[str, str],
    figures: dict[str, Any],
) -> None:
    """Write the tables, the model cards and accuracy.json, where the figures of peers not asked for this time stay."""
    peers = " --peers" if "peers" in figures else ""
    command = f"python bench/accuracy/accuracy.py --corpus <corpus>/{corpus_name}{peers} --write"
    where = f"Written by `{command}` on {figures['date']} ({figures['machine']})."
    for name, text in sections.items():
        write_section(name, text if name == "sizes" else f"{text}\n\n{where}")
    for model, evaluation in zip(models, evaluations, strict=True):
        text = card(model, evaluation, figures["date"]).replace(evaluation.corpus, corpus_name)
        (ROOT / "models" / f"{model.name}.md").write_text(text, encoding="utf-8")
    FIGURES.write_text(json.dumps({**written_before(), **figures}) + "\n", encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    """Read the command line; peers comes back as a list of names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", required=True, type=Path, help="corpus folder, such as corpus/dev")
    parser.add_argument("--model", default="wakewords", help="shipped name without widths (default: wakewords)")
    parser.add_argument(
        "--held-out",
        default=HELD_OUT,
        type=Path,
        metavar="PATH",
        help="the models that are measured, a path without widths (default: those in bench/accuracy/held_out)",
    )
    parser.add_argument("--peers", nargs="?", const=",".join(PEERS), default="", metavar="NAME,...",
                        help=f"other engines: {', '.join(PEERS)}, or without names all")  # fmt: skip
    parser.add_argument("--core", type=int, help="the core that peers run on (default: any)")
    parser.add_argument("--json", metavar="FILE", help="write the figures; - is standard output, instead of the tables")
    parser.add_argument("--write", action="store_true", help="write the tables, model cards and accuracy.json")
    parser.add_argument("--plot", action="store_true", help="write the pictures (extra: plot)")
    arguments = parser.parse_args()
    arguments.peers = [name for name in arguments.peers.split(",") if name]
    unknown = sorted(set(arguments.peers) - set(PEERS))
    if unknown:
        parser.error(f"no such peer: {', '.join(unknown)}; there are {', '.join(PEERS)}")
    return arguments


def main() -> None:
    """Measure, print, and write where asked to."""
    arguments = parse_arguments()
    names = [f"{arguments.model}.{bits}" for bits in WIDTHS]
    absent = [name for name in names if name not in shipped_models()]
    if absent:
        sys.exit(f"accuracy.py: no such shipped model: {', '.join(absent)}")
    models = [load_model(name) for name in names]
    held_out = load_widths(arguments.held_out)
    corpus = read_corpus(arguments.corpus, held_out[0].keywords)
    scored = score_corpus(held_out, corpus)
    evaluations = [evaluate_scores(model, scored, m) for m, model in enumerate(held_out)]
    in_conditions = accuracy_conditions.measure(held_out, evaluations, scored, corpus)
    today = when = date.today().isoformat()
    if arguments.peers:
        peers, missing = measure_peers(arguments.peers, corpus, arguments.core)
    else:  # those of an earlier run, beside what is shipped now
        peers, missing, when = kept_peers(evaluations[-1].hours)
    engines = [accuracy_peers.own_result(evaluations[-1]), *peers]

    sections = {
        "accuracy": format_markdown(evaluations).replace(str(arguments.corpus), arguments.corpus.name),
        "accuracy-conditions": accuracy_conditions.report(in_conditions),
        "sizes": sizes_markdown(models),
    }
    if peers or missing:
        sections["accuracy-peers"] = accuracy_peers.report(engines, missing) + f" The others listened on {when}."
    figures: dict[str, Any] = {
        "date": today,
        "machine": machine(),
        "models": [{**one.to_json(), "corpus": Path(one.corpus).name} for one in evaluations],
        "in_conditions": accuracy_conditions.to_json(in_conditions),
    }
    if arguments.peers:
        figures |= {"peers": [asdict(result) for result in peers], "peers_missing": missing, "peers_date": when}

    if arguments.json == "-":
        print(json.dumps(figures))
    else:
        print("\n\n".join([format_table(evaluations), *list(sections.values())[1:]]))
        if arguments.json:
            Path(arguments.json).write_text(json.dumps(figures) + "\n", encoding="utf-8")
    if arguments.plot:
        from streamkws.evaluation.plots import draw_det, save

        save(draw_det(evaluations), FIGURES.with_suffix(".svg"))
        if peers:
            accuracy_peers.draw(engines, ROOT / "bench" / "peers" / "accuracy_peers.svg")
    if arguments.write:
        write(arguments.corpus.name, models, evaluations, sections, figures)


if __name__ == "__main__":
    main()
