"""streamkws train and evaluate."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from tones import RATE, hits


class TestTrain:
    def test_arguments_arrive(self, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        calls = []

        def train(config: Any, corpus: Any, fresh: bool, held_out: str) -> str:
            calls.append(("train", str(config), corpus and str(corpus), fresh, held_out))
            return "runs/x"

        loop = types.SimpleNamespace(train=train)

        def export(run_folder: str, out: str, corpus: Any, recipe: None) -> list[Path]:
            calls.append(("export", run_folder, str(out), corpus and str(corpus)))
            return [Path(out) / "x.f32.safetensors"]

        exporter = types.SimpleNamespace(export=export)
        chains = types.SimpleNamespace(read_chain=lambda path, held_out: None)
        monkeypatch.setitem(sys.modules, "streamkws.training.chain", types.SimpleNamespace(run_chain=0, stage_table=0))
        monkeypatch.setitem(sys.modules, "streamkws.training.stages", chains)
        monkeypatch.setitem(sys.modules, "streamkws.training.loop", loop)
        monkeypatch.setitem(sys.modules, "streamkws.training.export", exporter)
        assert run("train", "a.toml", "--corpus", "c", "--fresh", "--export", "out") == (
            0,
            "out/x.f32.safetensors\n",
            "",
        )
        assert run("train", "a.toml", "--held-out", "dev") == (0, "", "")
        assert calls == [
            ("train", "a.toml", "c", True, ""),
            ("export", "runs/x", "out", "c"),
            ("train", "a.toml", None, False, "dev"),
        ]

    def test_torch_is_missing(self, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in [name for name in sys.modules if name.startswith("streamkws.training")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "torch", None)
        code, out, err = run("train", "a.toml")
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert "streamkws[train]" in err

    def test_recipe_is_missing(self, run: Any, tmp_path: Path) -> None:
        pytest.importorskip("torch")
        code, out, err = run("train", str(tmp_path / "no.toml"))
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert err.startswith("streamkws: ") and "no.toml" in err


class TestEvaluate:
    @pytest.fixture
    def corpus(self, audio: Any, tmp_path: Path) -> str:
        audio("corpus/wakewords/low_tone/a_1.wav", "low tone")
        audio("corpus/wakewords/high_tone/a_1.wav", "high tone")
        hiss = np.random.default_rng(1).normal(0, 0.01, 3 * RATE).astype(np.float32)
        (tmp_path / "corpus" / "room_noise").mkdir()
        soundfile.write(tmp_path / "corpus" / "room_noise" / "hiss.wav", hiss, RATE)
        return str(tmp_path / "corpus")

    def test_table_and_file(self, run: Any, model_path: str, corpus: str, tmp_path: Path) -> None:
        path = tmp_path / "figures.json"
        code, out, err = run("evaluate", model_path, corpus, "--snr", "20", "--json", str(path))
        assert (code, err) == (0, "")
        assert all(shown in out for shown in ("tones.f32", "low tone", "high tone", "20 dB"))
        (figures,) = hits(path.read_text())
        assert figures["model"] == "tones.f32"
        assert figures["conditions"] == ["clean", "20 dB"]

    def test_json_lines(self, run: Any, model_path: str, corpus: str) -> None:
        code, out, err = run("evaluate", model_path, model_path, corpus, "--json", "-")
        assert (code, err) == (0, "")
        assert [figures["conditions"] for figures in hits(out)] == [["clean", "10 dB"]] * 2

    def test_bad_corpus(self, run: Any, model_path: str, tmp_path: Path) -> None:
        code, out, err = run("evaluate", model_path, str(tmp_path / "nothing"))
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert err.startswith(f"streamkws: {tmp_path}/nothing: ")

    def test_figures_that_cannot_be_written(self, run: Any, model_path: str, corpus: str, tmp_path: Path) -> None:
        path = tmp_path / "no" / "figures.json"
        message = f"streamkws: {path}: No such file or directory\n"
        assert run("evaluate", model_path, corpus, "--json", str(path)) == (1, "", message)
