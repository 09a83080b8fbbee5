"""The models that the benches measure: what ships, and the held-out models.

What ships learned from dev's recordings of the keywords, too (data.also_keywords), so its misses there say nothing. The
held-out models in bench/accuracy/held_out are of the same recipe without these recordings, and are measured instead.
"""

from __future__ import annotations

import sys
from pathlib import Path

from bench.report import ROOT
from streamkws import Model, load_model
from streamkws.errors import ModelFileError
from streamkws.model_file import SUFFIX

WIDTHS = ("f32", "w8a8", "w4a8")
HELD_OUT = ROOT / "bench" / "accuracy" / "held_out" / "wakewords-held-out"


def load_widths(path: Path = HELD_OUT) -> list[Model]:
    """The models <path>.<widths> in the order of WIDTHS, named for their files; the program ends if one is missing."""
    try:
        models = [load_model(f"{path}.{bits}{SUFFIX}") for bits in WIDTHS]
    except ModelFileError as error:
        sys.exit(f"{Path(sys.argv[0]).name}: {error}")
    return [model.with_settings(provenance={"name": path.name}) for model in models]
