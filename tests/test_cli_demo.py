"""streamkws demo."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import soundfile
from tones import RATE, hits, tones

from streamkws import cli


class TestDemo:
    def test_json(self, run: Any, model_path: str) -> None:
        code, out, _ = run("demo", "--json", "--model", model_path)
        assert code == 0
        *heard, summary = hits(out)
        assert summary["expected"] == 0  # the recording has no tones
        assert summary["false"] == len(heard)
        assert summary["audio_s"] == pytest.approx(30, abs=10)

    def test_picture(self, run: Any, tmp_path: Path, model_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Two tones in a recording of one's own: one expected, one not, and a keyword that is not there."""
        soundfile.write(tmp_path / "demo.flac", tones("low tone", "high tone"), RATE)
        truth = [{"keyword": "low tone", "start": start, "end": start + 0.4} for start in (1.0, 3.0)]
        (tmp_path / "demo.json").write_text(json.dumps({"keywords": truth}))
        monkeypatch.setattr(cli.demo, "PACKAGE", tmp_path)
        code, out, err = run("demo", "--model", model_path)
        assert (code, err) == (0, "")
        head, _, skyline, right, wrong, missed, _, summary = out.splitlines()
        assert head == "4 s of synthesized speech in noise, heard by tones.f32:"
        assert "█" in skyline and "▁" in skyline
        assert "█" in right and "low tone" in right and right.endswith("✓")
        assert "█" in wrong and "high tone" in wrong and wrong.endswith("false")
        assert "3.00 s  low tone" in missed and missed.endswith("missed")
        assert summary.startswith("1 of 2 keywords heard, 1 false, in ") and summary.endswith("x real time")

    def test_realtime(self, run: Any, model_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
        slept = []
        monkeypatch.setattr(time, "sleep", slept.append)
        code, out, _ = run("demo", "--realtime", "--model", model_path)
        assert code == 0
        assert max(slept) == pytest.approx(30, abs=10)
        assert "real time" not in out

    def test_truth_lies_in_the_recording(self) -> None:
        folder = cli.demo.PACKAGE
        truth = json.loads((folder / "demo.json").read_text())["keywords"]
        assert len(truth) == 6
        audio = soundfile.info(folder / "demo.flac")
        assert (audio.samplerate, audio.channels) == (RATE, 1)
        assert (folder / "demo.flac").stat().st_size < 1_000_000
        ends = [0.0]
        for item in truth:
            assert ends[-1] < item["start"] < item["end"] < audio.duration
            ends.append(item["end"])
