"""Imports run strictly downward (DESIGN, section 3), and importing streamkws loads nothing heavy."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "streamkws"

LEVELS = [
    {"__main__"},
    {"cli"},
    {
        "cli.bench",
        "cli.demo",
        "cli.calibrate",
        "cli.detect",
        "cli.export",
        "cli.live",
        "cli.models",
        "cli.new",
        "cli.plot",
        "cli.record",
        "cli.review",
        "cli.scan",
        "cli.serve",
        "cli.training",
        "cli.voices",
    },
    {"cli.filing", "cli.keys", "cli.messages", "cli.meter"},
    {"cli.arguments", "cli.reactions", "cli.screen"},
    {"cli.output"},
    {"training.chain", "new.making"},
    {"new.report"},
    {"new.judge", "new.training"},
    {"new.own", "new.surroundings", "new.scripts"},
    {"new.near"},
    {"new.phrase"},
    {"new.phones"},
    {"voices.speakers", "voices.mining", "voices.fetch"},
    {"voices.sounds", "voices.segments", "voices.environment", "voices.phrases", "voices.kokoro"},
    {
        "server",
        "evaluation.calibration",
        "evaluation.examples",
        "evaluation.plots",
    },
    {"evaluation.plots.trace", "evaluation.plots.det"},
    {"evaluation.plots.style"},
    {"server.server"},
    {"server.client", "server.announce", "server.web", "server.exposition"},
    {"server.inbox", "server.stream", "server.detectors", "server.transport"},
    {"server.config", "server.framing", "server.metrics", "server.log"},
    {"training.loop", "training.export"},
    {"training.stages"},
    {"training.provenance", "training.pool"},
    {"training.recipe_file", "training.losses", "training.validation"},
    {"training.ensemble", "training.optimizer"},
    {"training.checkpoint"},
    {"training.recipe", "training.progress", "training.producer"},
    {"training.network", "training.examples"},
    {"training.sound", "training.packed"},
    {"training.recordings"},
    {"training.data", "training.blocks", "training.pack"},
    {"evaluation.measure", "evaluation.thresholds", "evaluation.tables"},
    {"evaluation.results"},
    {"evaluation.operating_points"},
    {"evaluation.counting"},
    {"evaluation.timeline", "evaluation.curves", "evaluation.intervals"},
    {
        "training.fake_quant",
        "training.augment",
        "training.devices",
        "training.teacher",
        "evaluation.scoring",
        "evaluation.latency",
        "evaluation.traces",
    },
    {"scanning"},
    {"scanning.running", "scanning.dataset"},
    {"scanning.planning", "scanning.progress"},
    {"scanning.hearing"},
    {"scanning.listing", "scanning.entries"},
    {"listener", "c_export"},
    {"detector"},
    {"model_set", "stages"},
    {"model_file"},
    {"mixing", "takes"},
    {"corpus"},
    {"model", "sources"},
    {"sources.microphone", "sources.playback"},
    {"sources.files", "sources.recording"},
    {"sources.devices"},
    {"sources.portaudio"},
    {"gptq"},
    {"layers", "frontend", "smoother"},
    {"quantization", "audio", "kernels"},
    {"native.build"},
    {"native.emit"},
    {"native.entries", "native.targets", "native.python_call", "native.calls"},
    {"native.signatures"},
    {"containers"},
    {"kernels.path"},
    {"kernels.front_end", "kernels.network", "kernels.smoother"},
    {"kernels.codes", "kernels.fft"},
    {"kernels.products"},
    {"kernels.x86", "kernels.arm"},
    {"kernels.numba_types"},
    {"kernels.packing", "kernels.vectors", "kernels.memory"},
    {"kernels.compiling", "kernels.cpu", "kernels.layout"},
    {"native.library"},
    {"kernels.sources"},
    {"errors", "whole"},
]
"""From the top down; a module may import only from levels below its own."""

ONLY = {
    "numba": ("kernels.", "native."),
    "llvmlite": ("kernels.", "native."),
    "torch": "training.",
    "sounddevice": "sources.portaudio",
    "matplotlib": "evaluation.plots.",
    "wyoming": "server.",
    "prometheus_client": "server.",
    "dask": "scanning.",
    "distributed": "scanning.running",
    "pyarrow": "scanning.",
    "fsspec": "scanning.listing",
    "av": "containers",
    "kokoro_onnx": "voices.kokoro",
    "wonderwords": "voices.kokoro",
}
COMPILERS = {"numba", "llvmlite"}
"""Loaded where no library of compiled kernels fits, as in a checkout; test_native.py sees to where one does."""
NOT_LOADED = (
    *sorted(set(ONLY) - COMPILERS),
    "scipy.fftpack",
    "soundfile",
    "soxr",
    "python_speech_features",
    "rich",
    "safetensors",
)


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        if not name.endswith("__init__"):
            yield name, ast.parse(path.read_text())


def imported(tree):
    """Full names of everything a module imports, also inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def level_of(name):
    return next((index for index, names in enumerate(LEVELS) if name in names), None)


@pytest.mark.parametrize(("name", "tree"), list(modules()), ids=lambda value: value if isinstance(value, str) else "")
def test_imports_run_downward(name, tree):
    own = level_of(name)
    assert own is not None, f"{name} has no place in LEVELS"
    for target in imported(tree):
        below = level_of(target.removeprefix("streamkws."))
        if target.startswith("streamkws.") and below is not None:
            assert below > own, f"{name} imports {target}"
        root = target.split(".")[0]
        if root in ONLY:
            assert f"{name}.".startswith(ONLY[root]), f"{name} imports {target}"


def test_import_loads_nothing_heavy():
    script = f"import sys, streamkws; print([m for m in {NOT_LOADED!r} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_every_module_says_what_it_is_for():
    for name, tree in modules():
        assert ast.get_docstring(tree), f"{name} has no docstring"
