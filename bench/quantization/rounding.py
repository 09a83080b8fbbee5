"""What few bits cost the shipped network after training: each weight rounded by itself, and codes chosen on recordings.

    python bench/quantization/rounding.py --corpus DIR            print the table (DIR with train/ and dev/; a minute)
    python bench/quantization/rounding.py --corpus DIR --write    also write it in bench/README.md

The network is the held-out f32 model (bench/models.py). The codes are chosen as `streamkws quantize
--recordings DIR/train/wakewords --recordings DIR/train/librispeech` does.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.models import load_widths
from bench.report import markdown, write_section, written_by
from streamkws import Model
from streamkws.corpus import read_corpus
from streamkws.evaluation.curves import mean
from streamkws.evaluation.examples import Examples, read_examples
from streamkws.evaluation.measure import evaluate_scores
from streamkws.evaluation.operating_points import CLEAN, mean_miss
from streamkws.evaluation.results import Evaluation
from streamkws.evaluation.scoring import score_corpus
from streamkws.model_file import save_model

WIDTHS = (8, 4, 3, 2)
SETS = ("wakewords", "librispeech")
NOISE = "10 dB"


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", required=True, type=Path, help="corpus folder with train/ and dev/")
    parser.add_argument("--write", action="store_true", help="write the table in bench/README.md")
    arguments = parser.parse_args()
    full = load_widths()[0]
    examples = read_examples(full, [arguments.corpus / "train" / name for name in SETS])
    near = [full.quantize(bits, 8) for bits in WIDTHS]
    chosen = [full.quantize(bits, 8, examples=examples.log_mels) for bits in WIDTHS]
    models = [full, *near, *chosen]
    corpus = read_corpus(arguments.corpus / "dev", full.keywords)
    scored = score_corpus(models, corpus, snrs_db=(None, 10.0))
    evaluations = [evaluate_scores(model, scored, m) for m, model in enumerate(models)]
    text = report(models, evaluations, examples)
    print(text)
    if arguments.write:
        write_section("rounding", f"{text}\n- {written_by()}")


def report(models: list[Model], evaluations: list[Evaluation], examples: Examples) -> str:
    """A row of the table for float32, and one for each width with both ways beside each other."""
    n = len(WIDTHS)
    full, sizes = models[0], [size(model) for model in models]
    rows = [[full.config.bits, f"{sizes[0]:,}", "", *misses(evaluations[0]), "", "", ""]]
    for place in range(1, n + 1):
        name, saved = models[place].config.bits, 1 - sizes[place] / sizes[0]
        figures = [*misses(evaluations[place]), *misses(evaluations[place + n])]
        rows.append([name, f"{sizes[place]:,}", f"{saved:.0%}", *figures])
    header = ["widths", "file, bytes", "saved", "miss clean", "10 dB", "area clean / 10 dB"]
    header += ["codes chosen: miss clean", "10 dB", "area clean / 10 dB"]
    return markdown(header, rows, 1) + "\n\n" + "\n".join(
        [
            f"- {full.name} quantized after training, mean over the keywords, %. First: each weight rounded by itself.",
            f"- Miss: at the lowest threshold without a false accept in {evaluations[0].hours:.2f} h of dev's clean "
            "negatives, kept in noise; one sound can move it by points. Area, steadier: mean miss over 0.1 to 10 FA/h "
            "on a log axis.",
            f"- Codes chosen on {examples.seconds:.0f} s of {examples.n_files} of train's files ({', '.join(SETS)}).",
        ]
    )  # fmt: skip


def size(model: Model) -> int:
    """Bytes of the model's file."""
    with tempfile.TemporaryDirectory() as folder:
        return save_model(model, Path(folder) / "model.safetensors").stat().st_size


def misses(evaluation: Evaluation) -> list[str]:
    """Mean miss at no false accept, clean and with noise, and both DET areas, in per cent."""
    at_none = evaluation.operating_points[min(evaluation.operating_points)]
    areas = [mean(curve.area for curve in evaluation.curves[one].values()) for one in (CLEAN, NOISE)]
    return [percent(mean_miss(at_none, CLEAN)), percent(mean_miss(at_none, NOISE)), " / ".join(map(percent, areas))]


def percent(share: float | None) -> str:
    """A share as a number of per cent."""
    return "-" if share is None else f"{100 * share:.1f}"


if __name__ == "__main__":
    main()
