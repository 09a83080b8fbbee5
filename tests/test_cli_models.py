"""streamkws info and quantize."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from tones import RATE, hits, tones_model

from streamkws.model import Model
from streamkws.model_file import load_model, save_model


def layer_lines(out: str) -> list[str]:
    """The table of layers and what follows it, from what info or quantize printed."""
    lines = out.splitlines()
    return lines[next(index for index, line in enumerate(lines) if line.startswith("layer  ")) :]


class TestInfo:
    def test_one_model(self, run: Any, model_path: str) -> None:
        code, out, err = run("info", model_path)
        assert (code, err) == (0, "")
        for shown in ("54 parameters", "low tone", "0.600", "26 mel bands", "26 -> 2", "sigmoid", "made by hand"):
            assert shown in out

    def test_json(self, run: Any, model_path: str) -> None:
        code, out, _ = run("info", model_path, "--json")
        assert code == 0
        (facts,) = hits(out)
        assert facts["parameters"] == 54
        assert facts["thresholds"] == {"low tone": 0.6, "high tone": 0.6}
        assert facts["config"]["layers"][0]["n_outputs"] == 2
        assert facts["float_bytes"] > 0 and facts["stored_bytes"] > 0 and facts["resident_bytes"] > 0

    def test_float_model_shows_what_quantization_would_change(self, run: Any, model_path: str) -> None:
        _, out, _ = run("info", model_path)
        head, row, *_ = layer_lines(out)
        assert head.split()[-6:] == ["8-bit", "error", "worst", "4-bit", "error", "worst"]
        assert len(head) == len(row) <= 100
        expected = [error for bits in (8, 4) for error in tones_model().quantize(bits, bits).config.weight_errors[0]]
        assert row.split()[-8:] == [word for error in expected for word in (f"{100 * error:.2f}", "%")]
        _, out, _ = run("info", model_path, "--json")
        (layer,) = hits(out)[0]["layers"]
        assert [layer.pop(key) for key in list(layer)[-4:]] == expected
        assert layer == {"n_inputs": 26, "n_outputs": 2, "taps": 1, "dilation": 1, "bits": "f32", "stored_bytes": 216}

    def test_quantized_model_shows_what_quantization_changed(self, run: Any, tmp_path: Path) -> None:
        model = tones_model(1).quantize((32, 3), (32, 8))
        path = str(save_model(model, tmp_path / "m.safetensors"))
        _, out, _ = run("info", path)
        error, worst = model.config.weight_errors[1]
        head, first, second, *_ = layer_lines(out)
        assert head.split()[-2:] == ["error", "worst"]
        assert first.endswith(" 0.00 %  0.00 %")
        assert second.endswith(f" {100 * error:.2f} %  {100 * worst:.2f} %")
        assert len(head) == len(first) == len(second) and "not recorded" not in out
        _, out, _ = run("info", path, "--json")
        layers = hits(out)[0]["layers"]
        assert [layer["weight_error"] for layer in layers] == [0, error]
        assert [layer["worst_column_error"] for layer in layers] == [0, worst]

    def test_errors_that_are_not_recorded(self, run: Any, tmp_path: Path) -> None:
        model = tones_model().quantize(4, 8)
        old = Model(replace(model.config, weight_errors=()), model.layers, model.features, model.filters)
        path = str(save_model(old, tmp_path / "m.safetensors"))
        _, out, _ = run("info", path)
        head, row, *_ = layer_lines(out)
        assert row.split()[-2:] == ["-", "-"] and len(row) == len(head)
        assert "\n-: not recorded in the model file\n" in out
        _, out, _ = run("info", path, "--json")
        (layer,) = hits(out)[0]["layers"]
        assert layer["weight_error"] is layer["worst_column_error"] is None

    def test_shipped(self, run: Any) -> None:
        import streamkws

        code, out, _ = run("info")
        assert code == 0
        assert [line.split()[0] for line in out.splitlines()[1:-2]] == list(streamkws.shipped_models())


class TestQuantize:
    def test_file_and_table(self, run: Any, model_path: str, tmp_path: Path) -> None:
        path = tmp_path / "small.safetensors"
        code, out, err = run("quantize", model_path, "--weights", "4", "--activations", "8", "--out", str(path))
        assert code == 0
        assert err == (
            "streamkws: the thresholds are those calibrated for tones.f32; streamkws evaluate shows how they do\n"
        )
        n_bytes, n_full = path.stat().st_size, Path(model_path).stat().st_size
        first, empty, *_ = out.splitlines()
        assert first == f"{path}: {n_bytes:,} bytes, {100 * n_bytes / n_full:.0f} % of tones.f32's {n_full:,}"
        assert empty == ""
        assert layer_lines(out) == layer_lines(run("info", str(path))[1])[: len(layer_lines(out))]
        model = load_model(path)
        assert model.name == "tones.w4a8"
        assert model.config == tones_model().quantize(4, 8).config
        assert model.thresholds == {"low tone": 0.6, "high tone": 0.6}

    def test_json(self, run: Any, model_path: str, tmp_path: Path) -> None:
        path = tmp_path / "small.safetensors"
        code, out, _ = run("quantize", model_path, "--weights=3", "--activations=4", "--out", str(path), "--json")
        assert code == 0
        (facts,) = hits(out)
        error, worst = tones_model().quantize(3, 4).config.weight_errors[0]
        assert facts == {
            "path": str(path),
            "name": "tones.w3a4",
            "file_bytes": path.stat().st_size,
            "float_file_bytes": Path(model_path).stat().st_size,
            "layers": [
                {
                    "n_inputs": 26,
                    "n_outputs": 2,
                    "taps": 1,
                    "dilation": 1,
                    "bits": "w3a4",
                    "stored_bytes": 20 + 2 * 12,  # 52 codes of 3 bits, and lo, step and bias of each column
                    "weight_error": error,
                    "worst_column_error": worst,
                }
            ],
        }

    def test_shipped_name_into_the_current_folder(
        self, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        code, out, _ = run("quantize", "wakewords.f32", "--weights", "8", "--activations", "8")
        assert code == 0
        assert out.startswith("wakewords.w8a8.safetensors: ")
        (path,) = tmp_path.iterdir()
        shipped, made = load_model("wakewords.w8a8"), load_model(path)
        assert made.name == shipped.name == "wakewords.w8a8"
        for left, right in zip(made.layers, shipped.layers, strict=True):
            assert np.array_equal(left.stored_codes(), right.stored_codes())

    @pytest.mark.parametrize("name", ["../up", "/a/b", "a\0b", "..\\c"])
    def test_name_cannot_lead_elsewhere(
        self, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        save_model(tones_model().with_settings(provenance={"name": name}), tmp_path / "m.safetensors")
        (tmp_path / "here").mkdir()
        monkeypatch.chdir(tmp_path / "here")
        assert run("quantize", "../m.safetensors", "--weights", "4", "--activations", "8")[0] == 0
        assert {path.name for path in tmp_path.iterdir()} == {"here", "m.safetensors"}
        (path,) = (tmp_path / "here").iterdir()
        assert path.name.endswith(".w4a8.safetensors")

    @pytest.mark.parametrize(
        ("weights", "activations", "bits"),
        [("8,4", "8", "w8a8+w4a8"), ("32,8", "32,8", "f32+w8a8"), ("4", "8,4", "w4a8+w4a4")],
    )
    def test_mixed_widths_hear(
        self, run: Any, audio: Any, tmp_path: Path, weights: str, activations: str, bits: str
    ) -> None:
        save_model(tones_model(1), tmp_path / "two.f32.safetensors")
        path = str(tmp_path / "mixed.safetensors")
        source = str(tmp_path / "two.f32.safetensors")
        code, out, _ = run("quantize", source, "--weights", weights, "--activations", activations, "--out", path)
        assert code == 0
        assert load_model(path).config.bits == bits
        assert [line.split()[6] for line in layer_lines(out)[1:3]] == bits.split("+")
        code, out, err = run("detect", "--json", "--model", path, audio("a.wav", "low tone", "high tone"))
        assert (code, err) == (0, "")
        assert [hit["keyword"] for hit in hits(out)] == ["low tone", "high tone"]

    @pytest.mark.parametrize("text", ["four", "4,x", "4,", "", "4.5", "8;4"])
    @pytest.mark.parametrize("option", ["--weights", "--activations"])
    def test_list_that_is_none(self, run: Any, model_path: str, option: str, text: str) -> None:
        message = (
            f"streamkws quantize: argument {option}: expected a number, or one for each layer with commas between, "
            f"got {text!r} (see streamkws quantize --help)\n"
        )
        others = ("--weights", "4", "--activations", "8")
        assert run("quantize", model_path, *others, f"{option}={text}") == (2, "", message)

    @pytest.mark.parametrize(
        ("weights", "activations", "message"),
        [
            ("4,4", "8", "expected weight_bits for 1 layers, got 2"),
            ("4", "8,8,8", "expected activation_bits for 1 layers, got 3"),
            ("9", "8", "expected weight_bits of 2 to 8 or 32, got 9"),
            ("4", "-1", "expected activation_bits of 2 to 8 or 32, got -1"),
            (
                "32",
                "8",
                "expected weights and activations both in float32 or both quantized, got weight_bits 32 and "
                "activation_bits 8",
            ),
            ("32", "32", "expected at least one layer of 2 to 8 bits, got 32 for all"),
        ],
    )
    def test_widths_that_do_not_fit(
        self, run: Any, model_path: str, tmp_path: Path, weights: str, activations: str, message: str
    ) -> None:
        path = tmp_path / "x.safetensors"
        options = ("--weights", weights, "--activations", activations, "--out", str(path))
        assert run("quantize", model_path, *options) == (2, "", f"streamkws: {message}\n")
        assert not path.exists()

    def test_codes_chosen_on_recordings(self, run: Any, audio: Any, tmp_path: Path) -> None:
        words = tmp_path / "words"
        words.mkdir()
        for name in ("low tone", "high tone"):
            Path(audio(f"{name}.wav", name, name)).rename(words / f"{name}.wav")
        more = audio("more.wav", "low tone", "high tone")
        full = save_model(tones_model(2), tmp_path / "tones.f32.safetensors")
        path = tmp_path / "small.safetensors"
        options = ("quantize", str(full), "--weights", "2", "--activations", "8", "--force")
        recordings = ("--recordings", str(words), "--recordings", more)
        code, out, err = run(*options, "--out", str(path), *recordings)
        assert code == 0 and err.count("\n") == 2  # on thresholds, and
        assert re.search(
            r"^streamkws: \d+ s of audio are few to choose codes by; 60 s with the keywords will do$", err, re.M
        )
        said = re.search(r"^codes chosen on (\d+) s of audio in 3 files, \d{4}-\d\d-\d\d$", out, re.MULTILINE)
        assert said and int(said[1]) > 1
        chosen, nearest = load_model(path), load_model(full).quantize(2, 8)
        assert chosen.config.provenance["rounding"] == said[0]
        assert f"rounding: {said[0]}" in run("info", str(path))[1]
        differ = [not np.array_equal(a.bias, b.bias) for a, b in zip(chosen.layers, nearest.layers, strict=True)]
        assert any(differ)
        code, out, _ = run(*options, "--out", str(path), *recordings, "--json")
        assert (code, hits(out)[0]["rounding"]) == (0, said[0])
        code, out, _ = run("detect", "--json", "--model", str(path), more)
        assert [hit["keyword"] for hit in hits(out)] == ["low tone", "high tone"]

    def test_recordings_that_cannot_be_used_are_skipped(self, run: Any, audio: Any, tmp_path: Path) -> None:
        words = tmp_path / "words"
        words.mkdir()
        Path(audio("a.wav", "low tone")).rename(words / "a.wav")
        (words / "b.wav").write_bytes(b"RIFF")
        soundfile.write(words / "c.wav", np.zeros(100), RATE)
        save_model(tones_model(), tmp_path / "m.f32.safetensors")
        options = ("quantize", str(tmp_path / "m.f32.safetensors"), "--weights", "4", "--activations", "8")
        path = tmp_path / "small.safetensors"
        code, out, err = run(*options, "--out", str(path), "--recordings", str(words))
        assert code == 0 and "s of audio in 1 file, " in out
        skipped = [line for line in err.splitlines() if "skipped" in line]
        assert len(skipped) == 2 and f"skipped {words / 'b.wav'}: " in skipped[0]
        assert skipped[1] == f"streamkws: skipped {words / 'c.wav'}: expected more than 100 samples at 16000 Hz"

    @pytest.mark.parametrize(
        ("place", "message"),
        [
            ("nowhere", "{}: expected an audio file or a folder of them, got nothing"),
            ("empty", "{}: expected audio files in this folder (.flac .mp3 .oga .ogg .opus .wav), found none"),
            ("b.wav", "expected recordings to choose codes by, none could be used: {}: "),
        ],
    )
    def test_recordings_that_are_none(
        self, run: Any, model_path: str, tmp_path: Path, place: str, message: str
    ) -> None:
        (tmp_path / "empty").mkdir()
        (tmp_path / "b.wav").write_bytes(b"RIFF")
        out_path = tmp_path / "x.safetensors"
        options = ("--weights", "4", "--activations", "8", "--out", str(out_path))
        code, out, err = run("quantize", model_path, *options, "--recordings", str(tmp_path / place))
        assert (code, out) == (2, "") and err.count("\n") == 1
        assert err.startswith(f"streamkws: {message.format(tmp_path / place)}")
        assert not out_path.exists()

    def test_widths_are_required(self, run: Any, model_path: str) -> None:
        code, out, err = run("quantize", model_path)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "the following arguments are required: --weights, --activations" in err

    @pytest.mark.parametrize(("widths", "bits"), [((4, 8), "w4a8"), (((32, 4), (32, 8)), "f32+w4a8")])
    def test_quantized_model(self, run: Any, tmp_path: Path, widths: Any, bits: str) -> None:
        path = save_model(tones_model(1).quantize(*widths), tmp_path / "m.safetensors")
        message = f"streamkws: expected a float32 model, got {bits}: quantize the f32 model {path} was made from\n"
        assert run("quantize", str(path), "--weights", "4", "--activations", "8") == (2, "", message)

    def test_unknown_model(self, run: Any) -> None:
        code, out, err = run("quantize", "nonsense", "--weights", "4", "--activations", "8")
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert err.startswith("streamkws: unknown model 'nonsense': ")

    def test_file_that_exists(self, run: Any, model_path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        path = Path("tones.w4a8.safetensors")
        path.write_text("mine")
        call = ("quantize", model_path, "--weights", "4", "--activations", "8")
        assert run(*call) == (2, "", f"streamkws: {path}: exists already; --force replaces it\n")
        assert path.read_text() == "mine"
        assert run(*call, "--force")[0] == 0
        assert load_model(path).name == "tones.w4a8"

    def test_folder_as_file(self, run: Any, model_path: str, tmp_path: Path) -> None:
        call = ("quantize", model_path, "--weights", "4", "--activations", "8", "--out", str(tmp_path), "--force")
        assert run(*call) == (2, "", f"streamkws: {tmp_path}: expected a file to write, got a folder\n")

    def test_folder_that_is_missing(self, run: Any, model_path: str, tmp_path: Path) -> None:
        path = tmp_path / "no" / "x.safetensors"
        call = ("quantize", model_path, "--weights", "4", "--activations", "8", "--out", str(path))
        assert run(*call) == (1, "", f"streamkws: {path}: No such file or directory\n")

    @pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
    def test_folder_that_cannot_be_written(self, run: Any, model_path: str, tmp_path: Path) -> None:
        os.chmod(tmp_path, 0o500)
        path = tmp_path / "x.safetensors"
        call = ("quantize", model_path, "--weights", "4", "--activations", "8", "--out", str(path))
        assert run(*call) == (1, "", f"streamkws: {path}: Permission denied\n")

    def test_without_thresholds_there_is_nothing_to_say(self, run: Any, tmp_path: Path) -> None:
        path = save_model(tones_model().with_settings(thresholds={}), tmp_path / "m.safetensors")
        out = str(tmp_path / "x.safetensors")
        code, _, err = run("quantize", str(path), "--weights", "4", "--activations", "8", "--out", out)
        assert (code, err) == (0, "")


def test_what_a_foreign_model_says_is_printed_and_not_obeyed(run, tmp_path):
    model = tones_model().with_settings(provenance={"name": "a\x1b[2Jb", "data": "x\ny\x07", "../../up": "z"})
    path = save_model(model, tmp_path / "m.safetensors")
    code, out, err = run("info", str(path))
    assert (code, err) == (0, "")
    assert "\x1b" not in out and "\x07" not in out
    assert "a\\x1b[2Jb.f32: " in out and "data: x\\ny\\x07\n" in out
