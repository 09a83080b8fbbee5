"""The README's Python examples run as they stand."""

import re
import shutil
from pathlib import Path

import pytest

import streamkws as kws

ROOT = Path(__file__).parent.parent
EXAMPLES = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
DEMO = ROOT / "streamkws" / "demo.flac"


def what_it_is_about(example: str) -> str:
    """Something to tell an example by."""
    names = re.findall(r"(?:kws\.|import )(detect|listen|Detector|Server)", example)
    return names[0] + (", asyncio" if "asyncio" in example else "")


@pytest.mark.parametrize("example", EXAMPLES, ids=what_it_is_about)
def test_the_example_runs(example, tmp_path, monkeypatch, capsys):
    shutil.copy(DEMO, tmp_path / "kitchen.flac")
    monkeypatch.chdir(tmp_path)
    if "Server" in example:  # which serves until it is told to end
        monkeypatch.setattr("streamkws.server.Server.serve", lambda server: server.stop())
        example = example.replace("10400", "0")
    monkeypatch.setattr(kws, "Microphone", lambda: kws.FileSource("kitchen.flac"))
    exec(compile(example, "README.md", "exec"), {"__name__": "example"})
    printed = capsys.readouterr().out
    if "np.zeros" not in example and "Server" not in example:
        for keyword in kws.load_model("wakewords").keywords:
            assert keyword in printed


def test_there_are_examples_of_every_way_to_embed():
    text = "".join(EXAMPLES)
    for name in (
        "kws.detect(",
        "detector.hear(",
        "detector.audio(",
        "kws.listen(",
        "async for",
        "detector.push(",
        "Server(",
    ):
        assert name in text
