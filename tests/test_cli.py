"""The command line: its usage, and errors that every command may have."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tones import KEYWORDS

from streamkws import cli

COMMANDS = (
    "demo",
    "detect",
    "listen",
    "devices",
    "review",
    "record",
    "info",
    "quantize",
    "train",
    "calibrate",
    "evaluate",
    "voices",
    "mine",
    "fetch-teacher",
    "plot",
    "bench",
    "serve",
)


class TestUsage:
    @pytest.mark.parametrize("command", COMMANDS)
    def test_help_shows_an_example(self, run: Any, command: str) -> None:
        code, out, err = run(command, "--help")
        assert (code, err) == (0, "")
        assert f"examples:\n  streamkws {command}" in out

    def test_help_names_every_command(self, run: Any) -> None:
        code, out, _ = run("--help")
        assert code == 0
        assert all(command in out for command in COMMANDS)

    def test_version(self, run: Any) -> None:
        import streamkws

        assert run("--version") == (0, f"streamkws {streamkws.__version__}\n", "")

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((), "streamkws: the following arguments are required: COMMAND (see streamkws --help)"),
            (("detect",), "streamkws detect: the following arguments are required: FILE (see streamkws detect --help)"),
            (("listen", "--loud"), "streamkws: unrecognized arguments: --loud (see streamkws --help)"),
            (
                ("detect", "--threshold", "alexa=high", "a.wav"),
                "streamkws detect: argument --threshold: expected a number or KEYWORD=NUMBER, got 'alexa=high' "
                "(see streamkws detect --help)",
            ),
        ],
    )
    def test_wrong_usage_is_one_line(self, run: Any, arguments: tuple[str, ...], message: str) -> None:
        assert run(*arguments) == (2, "", message + "\n")

    def test_unknown_command_lists_the_known_ones(self, run: Any) -> None:
        code, out, err = run("detekt")
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "'detekt'" in err and all(command in err for command in COMMANDS)

    def test_unknown_keyword_lists_the_known_ones(self, run: Any, model_path: str, audio: Any) -> None:
        for option in (("--keyword", "mid tone"), ("--threshold", "mid tone=0.5")):
            code, out, err = run("detect", "--model", model_path, *option, audio("a.wav"))
            assert (code, out, err.count("\n")) == (2, "", 1)
            assert "mid tone" in err and all(keyword in err for keyword in KEYWORDS)

    @pytest.mark.parametrize("value", ["1.5", "-0.1", "nan"])
    def test_threshold_out_of_range(self, run: Any, model_path: str, audio: Any, value: str) -> None:
        code, out, err = run("detect", "--model", model_path, f"--threshold={value}", audio("a.wav"))
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "threshold" in err and value in err

    def test_unknown_model_lists_the_shipped_ones(self, run: Any, audio: Any) -> None:
        import streamkws

        code, out, err = run("detect", "--model", "nonsense", audio("a.wav"))
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "nonsense" in err and all(name in err for name in streamkws.shipped_models())

    def test_model_that_is_no_model(self, run: Any, audio: Any) -> None:
        path = audio("a.wav")
        code, out, err = run("info", path)
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert err.startswith(f"streamkws: {path}")

    def test_help_is_quick(self) -> None:
        heavy = "{'rich', 'soundfile', 'sounddevice', 'torch'}"
        program = f"import sys, streamkws.cli; print(sorted({heavy} & set(sys.modules)))"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert done.stdout == "[]\n"


def test_operating_system_error_is_one_line(run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(_: argparse.Namespace) -> int:
        (tmp_path / "no" / "such").write_text("x")
        return 0

    monkeypatch.setattr(cli.live, "_devices", fail)
    assert run("devices") == (1, "", f"streamkws: {tmp_path}/no/such: No such file or directory\n")


def test_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli.live, "_devices", lambda _: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        cli.main(["devices"])
