"""The command line: what it prints, where, and the exit code."""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from streamkws import cli, sources
from streamkws.detector import Detector
from streamkws.errors import MissingExtraError
from streamkws.frontend import FrontEndConfig
from streamkws.layers import LayerConfig
from streamkws.model import FloatWeights, Model, ModelConfig
from streamkws.model_file import load_model, save_model

RATE = 16000
COMMANDS = (
    "demo",
    "detect",
    "listen",
    "devices",
    "info",
    "quantize",
    "train",
    "calibrate",
    "evaluate",
    "plot",
    "bench",
    "serve",
)
KEYWORDS = ("low tone", "high tone")
SLOW_START = "streamkws: starting; the first start compiles the kernels, once per machine ..."
TONES_HZ = {"low tone": 300.0, "high tone": 3000.0}


def tones(*keywords: str) -> np.ndarray:
    """Each keyword as 0.4 s of its tone, with 1 s of silence around each; (n,) float32."""
    time_s = np.arange(int(0.4 * RATE)) / RATE
    silence = np.zeros(RATE)
    pieces = [silence]
    for keyword in keywords:
        pieces += [0.5 * np.sin(2 * np.pi * TONES_HZ[keyword] * time_s), silence]
    return np.concatenate(pieces).astype(np.float32)


def pcm(samples: np.ndarray) -> bytes:
    return (samples * 32767).astype("<i2").tobytes()


def tones_model(n_copies: int = 0) -> Model:
    """A model that hears a tone as a keyword: its last layer compares low with high mel bands.

    n_copies: layers before it that only copy their input.
    """
    n_mels = 26
    copy = LayerConfig(n_mels, n_mels, activation="linear")
    config = ModelConfig(
        keywords=KEYWORDS,
        layers=(*[copy] * n_copies, LayerConfig(n_mels, 2, activation="sigmoid")),
        frontend=FrontEndConfig(n_mels=n_mels, window="hann"),
        thresholds={"low tone": 0.6, "high tone": 0.6},
        durations_s={"low tone": 0.3, "high tone": 0.3},
        provenance={"name": "tones", "data": "none; made by hand"},
    )
    low = 0.5 * np.where(np.arange(n_mels) < 8, 1 / 8, -1 / (n_mels - 8))
    high = np.where(np.arange(n_mels) < 14, -1 / 14, 1 / (n_mels - 14))
    weights = FloatWeights(
        feature_mean=np.zeros(n_mels, np.float32),
        feature_scale=np.ones(n_mels, np.float32),
        weights=(
            *[np.eye(n_mels, dtype=np.float32)[:, np.newaxis]] * n_copies,
            np.stack([low, high])[:, np.newaxis].astype(np.float32),
        ),
        biases=(*[np.zeros(n_mels, np.float32)] * n_copies, np.full(2, -3, np.float32)),
    )
    return Model.from_float(config, weights)


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """tones_model's file."""
    path = tmp_path_factory.mktemp("model") / "tones.f32.safetensors"
    model = tones_model()
    save_model(model, path)
    Detector(model)  # compiles the kernels, if nobody has yet
    return str(path)


@pytest.fixture(autouse=True)
def never_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep a busy machine from adding a line to standard error."""
    monkeypatch.setattr(cli.output, "SLOW_START_S", 600.0)


@pytest.fixture
def audio(tmp_path: Path) -> Callable[..., str]:
    """Write the tones of keywords into a file and return its path."""

    def write(name: str, *keywords: str) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, tones(*keywords), RATE)
        return str(path)

    return write


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command in this process; return its exit code, standard output and standard error."""

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.main(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start a command in a process of its own."""
    processes = []

    def popen(*arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "streamkws", *arguments]
        pipe = subprocess.PIPE
        processes.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe))
        return processes[-1]

    yield popen
    for process in processes:
        process.kill()
        process.communicate()


def complaints(err: bytes) -> list[str]:
    """What a process wrote to standard error, but that it started slowly."""
    return [line for line in err.decode().splitlines() if line != SLOW_START]


def hits(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


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


class TestDetect:
    def test_a_line_per_detection(self, run: Any, model_path: str, audio: Any) -> None:
        short, long = audio("a.wav", "low tone", "high tone"), audio("longer.flac", "high tone")
        code, out, err = run("detect", "--model", model_path, short, long)
        assert (code, err) == (0, "")
        lines = out.splitlines()
        assert [line.split(maxsplit=1)[0] for line in lines] == [short, short, long]
        assert [line.split(" s  ")[1][:9] for line in lines] == ["low tone ", "high tone", "high tone"]
        assert len({line.index(" s  ") for line in lines}) == 1  # aligned
        assert all(0.6 <= float(line.split()[-1]) <= 1 for line in lines)

    def test_json_lines(self, run: Any, model_path: str, audio: Any) -> None:
        path = audio("a.wav", "low tone")
        code, out, err = run("detect", "--json", "--model", model_path, path)
        assert (code, err) == (0, "")
        (hit,) = hits(out)
        assert list(hit) == ["file", "keyword", "score", "start", "end", "peak"]
        assert (hit["file"], hit["keyword"]) == (path, "low tone")
        assert 0.5 < hit["start"] < hit["end"] < 1.8
        assert 0.6 < hit["score"] <= 1

    def test_folder_is_searched_in_order(self, run: Any, model_path: str, audio: Any, tmp_path: Path) -> None:
        paths = [audio(name, "low tone") for name in ("in/b/1.wav", "in/a.flac", "in/c.WAV")]
        (tmp_path / "in" / "notes.txt").write_text("no audio")
        audio("in/.trash/d.wav", "low tone")
        audio("in/._c.WAV", "low tone")
        code, out, _ = run("detect", "--json", "--model", model_path, str(tmp_path / "in"))
        assert code == 0
        assert [hit["file"] for hit in hits(out)] == sorted(paths)

    def test_keyword_and_threshold(self, run: Any, model_path: str, audio: Any) -> None:
        path = audio("a.wav", "low tone", "high tone")

        def heard(*options: str) -> list[str]:
            code, out, _ = run("detect", "--json", "--model", model_path, *options, path)
            assert code == 0
            return [hit["keyword"] for hit in hits(out)]

        assert heard("--keyword", "high tone") == ["high tone"]
        assert heard("--keyword", "high tone", "--keyword", "low tone") == ["low tone", "high tone"]
        assert heard("--threshold", "1") == []
        assert heard("--threshold", "low tone=1") == ["high tone"]
        assert heard("--threshold", "low tone=0.6", "--threshold", "1") == ["low tone"]  # the named one wins

    def test_bad_files_do_not_stop_the_others(self, run: Any, model_path: str, audio: Any, tmp_path: Path) -> None:
        text = tmp_path / "text.wav"
        text.write_text("not audio at all\n" * 100)
        empty = tmp_path / "empty.flac"
        empty.touch()
        bare = tmp_path / "bare"
        bare.mkdir()
        bad = [str(path) for path in (text, tmp_path / "missing.wav", empty)]
        good = audio("a.wav", "low tone")
        code, out, err = run("detect", "--model", model_path, *bad, str(bare), good)
        assert code == 1
        assert out.startswith(good) and out.count("\n") == 1
        lines = err.splitlines()
        assert lines[0] == (
            f"streamkws: {bare}: expected audio files in this folder (.flac .mp3 .oga .ogg .opus .wav), found none"
        )
        assert len(lines) == 4
        for line, path in zip(lines[1:], bad, strict=True):
            assert line.startswith(f"streamkws: {path}: ") and line.count(path) == 1

    def test_only_an_empty_folder(self, run: Any, tmp_path: Path) -> None:
        code, out, err = run("detect", str(tmp_path))
        assert (code, out, err.count("\n")) == (1, "", 1)

    @pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read everything")
    def test_no_permission(self, run: Any, model_path: str, audio: Any) -> None:
        path = audio("a.wav")
        os.chmod(path, 0)
        code, out, err = run("detect", "--model", model_path, path)
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert err.startswith(f"streamkws: {path}: ")

    @pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file names are text there")
    def test_name_that_is_not_utf8(self, start: Any, model_path: str, audio: Any) -> None:
        path = os.fsencode(audio("a.wav", "low tone"))
        strange = path[:-5] + b"\xff.wav"
        os.rename(path, strange)
        process = start("detect", "--model", model_path, os.fsdecode(strange))
        out, err = process.communicate(timeout=60)
        assert (process.returncode, complaints(err)) == (0, [])
        assert b"\\udcff.wav" in out

    def test_standard_input_at_once(self, start: Any, model_path: str) -> None:
        process = start("detect", "--model", model_path, "-")
        process.stdin.write(pcm(tones("low tone")))
        process.stdin.flush()
        assert process.stdout.readline().startswith(b"- ")  # while the pipe is still open
        process.stdin.write(pcm(tones("high tone")))
        out, err = process.communicate(timeout=60)
        assert (process.returncode, complaints(err)) == (0, [])
        assert out.count(b"\n") == 1 and b"high tone" in out

    def test_half_a_sample_is_reported(self, start: Any, model_path: str) -> None:
        process = start("detect", "--model", model_path, "-")
        out, err = process.communicate(pcm(tones("low tone")) + b"x", timeout=60)
        assert (process.returncode, out.count(b"\n")) == (0, 1)
        assert complaints(err) == ["streamkws: standard input: ended in the middle of a sample, expected int16"]

    def test_folder_that_cannot_be_read(self, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def walk(name: str, onerror: Callable[[OSError], None]) -> Iterator[Any]:
            onerror(PermissionError(13, "Permission denied", name))
            return iter(())

        monkeypatch.setattr(os, "walk", walk)
        assert run("detect", str(tmp_path)) == (1, "", f"streamkws: {tmp_path}: Permission denied\n")

    @pytest.mark.skipif(sys.platform == "win32", reason="POSIX shell")
    def test_closed_streams(self, model_path: str, audio: Any) -> None:
        command = f'"{sys.executable}" -m streamkws detect --model "{model_path}" "{audio("a.wav", "low tone")}"'
        for arguments in (">&-", "missing.wav 2>&-"):
            done = subprocess.run(f"{command} {arguments}", shell=True, capture_output=True)
            assert done.returncode == (0 if arguments == ">&-" else 1)
            assert complaints(done.stderr) == [] and b"missing" not in done.stdout

    def test_closed_pipe_ends_quietly(self, start: Any, model_path: str, audio: Any) -> None:
        path = audio("a.wav", "low tone", "high tone")
        process = start("detect", "--model", model_path, *[path] * 50)
        assert process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=60) == 0
        assert complaints(process.stderr.read()) == []

    @pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
    def test_ctrl_c(self, start: Any, model_path: str) -> None:
        process = start("detect", "--model", model_path, "-")
        process.stdin.write(pcm(tones("low tone")))
        process.stdin.flush()
        assert process.stdout.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out, complaints(err)) == (130, b"", [])

    def test_progress_in_a_terminal(
        self, run: Any, model_path: str, audio: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cli.detect, "LONG_FILE_S", 1.0)
        path = audio("a.wav", "low tone")
        assert run("detect", "--model", model_path, path)[2] == ""
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        monkeypatch.setenv("TERM", "xterm")
        code, out, err = run("detect", "--model", model_path, path)
        assert code == 0
        assert out.count("\n") == 1 and "low tone" in out
        assert "100 %" in err and "a.wav" in err

    def test_slow_start_explains_itself(
        self, run: Any, model_path: str, audio: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import streamkws

        load_model = streamkws.load_model

        def slow_load_model(name: str) -> Model:
            time.sleep(0.2)
            return load_model(name)

        monkeypatch.setattr(cli.output, "SLOW_START_S", 0.05)
        monkeypatch.setattr(streamkws, "load_model", slow_load_model)
        _, _, err = run("detect", "--model", model_path, audio("a.wav"))
        assert err == SLOW_START + "\n"


class FakeMicrophone:
    """A microphone that hears the two tones, loses 0.7 s between them, and is ended with Ctrl-C."""

    opened: Any = None
    name = "fake microphone"

    def __init__(self, device: int | str | None = None) -> None:
        FakeMicrophone.opened = device
        self.dropped = 0

    def __enter__(self) -> FakeMicrophone:
        return self

    def __exit__(self, *_: object) -> None:
        FakeMicrophone.opened = None

    def __iter__(self) -> Iterator[np.ndarray]:
        logging.getLogger("streamkws.sources").warning("fake microphone: it\nis fake")
        yield from np.array_split(tones("low tone"), 100)
        self.dropped += int(0.7 * RATE)
        yield from np.array_split(tones("high tone"), 100)
        self.at_end()
        raise KeyboardInterrupt

    @staticmethod
    def at_end() -> None:
        """What a test wants to be done before Ctrl-C is pressed."""


def await_commands() -> None:
    """Wait for the commands that listen has started."""
    for thread in threading.enumerate():
        if thread.name.startswith("command for"):
            thread.join(60)


class TestListen:
    @pytest.fixture(autouse=True)
    def microphone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sources, "Microphone", FakeMicrophone)

    @pytest.fixture
    def terminal(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
        """Make standard output a terminal of so many columns."""

        def make(n_columns: int) -> None:
            monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
            monkeypatch.setattr(cli.screen, "SCREENS_PER_SECOND", 1000)
            monkeypatch.setenv("TERM", "xterm")
            monkeypatch.setenv("COLUMNS", str(n_columns))

        return make

    def test_lines_in_a_pipe(self, run: Any, model_path: str) -> None:
        code, out, err = run("listen", "--model", model_path)
        assert code == 0
        assert [line.split(" s  ")[1][:9] for line in out.splitlines()] == ["low tone ", "high tone"]
        assert err == "streamkws: fake microphone: it is fake\nstreamkws: lost 0.70 s of audio in all\n"
        assert FakeMicrophone.opened is None
        assert logging.getLogger("streamkws").handlers == []

    def test_json_lines(self, run: Any, model_path: str) -> None:
        code, out, _ = run("listen", "--json", "--model", model_path, "--keyword", "high tone")
        assert code == 0
        (hit,) = hits(out)
        assert list(hit) == ["keyword", "score", "start", "end", "peak"]
        assert hit["keyword"] == "high tone"

    def test_lost_audio_is_time_that_passed(self, run: Any, model_path: str, audio: Any) -> None:
        low, high = hits(run("listen", "--json", "--model", model_path)[1])
        (low_alone,) = hits(run("detect", "--json", "--model", model_path, audio("low.wav", "low tone"))[1])
        (high_alone,) = hits(run("detect", "--json", "--model", model_path, audio("high.wav", "high tone"))[1])
        assert low["peak"] == low_alone["peak"]
        assert high["peak"] == pytest.approx(2.4 + 0.7 + high_alone["peak"], abs=1e-5)

    @pytest.mark.parametrize(("text", "device"), [("3", 3), ("USB", "USB")])
    def test_device(self, text: str, device: int | str) -> None:
        assert cli.parser().parse_args(["listen", "--device", text]).device == device

    @pytest.mark.parametrize("n_columns", [80, 40, 20])
    def test_screen(self, run: Any, model_path: str, terminal: Any, n_columns: int) -> None:
        terminal(n_columns)
        code, out, _ = run("listen", "--model", model_path)
        assert code == 0
        picture = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.rsplit("fake microphone heard by tones"[:n_columns], 1)[1])
        lines = picture.splitlines()
        assert max(map(len, lines)) <= n_columns
        assert [line[:11].strip() for line in lines[1:4]] == ["level", "low tone", "high tone"]
        if n_columns >= 40:
            assert re.search(r" -?\d+ dB$", lines[1])
            assert "│" in lines[2] and lines[2].endswith(" of 0.60")
            assert lines[5].startswith("  lost 0.70 s of audio, ") and lines[5].endswith("% of a core")
            assert re.fullmatch(r"  \d\d:\d\d:\d\d  high tone  0\.\d\d", lines[7])
            assert "  low tone   " in lines[8]
        assert "█" in out
        assert "\x1b[?25h" in out[-40:]  # the cursor is back

    def test_screen_when_no_audio_comes(self, model_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cli.screen, "NO_AUDIO_S", -1)
        picture = cli.screen.Screen(Detector(load_model(model_path)), "a microphone").picture().plain
        assert picture.splitlines()[1].endswith(" none, 0 s")
        assert picture.endswith("\n  nothing heard yet")

    def test_beep(self, run: Any, model_path: str, terminal: Any) -> None:
        assert run("listen", "--model", model_path, "--beep")[2].count("\a") == 2
        terminal(80)
        assert run("listen", "--model", model_path, "--beep")[2].count("\a") == 2

    def test_record(self, run: Any, model_path: str, tmp_path: Path) -> None:
        folder = tmp_path / "to" / "heard"
        for _ in range(2):
            code, _, err = run("listen", "--model", model_path, "--record", str(folder))
            assert code == 0 and "cannot" not in err
        paths = sorted(folder.iterdir())
        assert len(paths) == 4, "nothing is overwritten"
        names = re.compile(r"(low|high)_tone_\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d(_2)?\.flac")
        assert all(names.fullmatch(path.name) for path in paths)
        assert [path.name[:3] for path in paths] == ["hig", "hig", "low", "low"]
        for path in paths:
            samples, rate = soundfile.read(path)
            (hit,) = hits(run("detect", "--json", "--model", model_path, str(path))[1])
            assert rate == RATE
            assert path.name.startswith(hit["keyword"].replace(" ", "_"))
            assert hit["start"] == pytest.approx(0.75, abs=0.03), "the audio before it"
            assert len(samples) / RATE == pytest.approx(hit["end"] + 0.5, abs=0.03), "and after it"

    def test_record_up_to_a_gap(self, run: Any, model_path: str, tmp_path: Path, monkeypatch: Any) -> None:
        monkeypatch.setattr(cli.reactions, "AFTER_S", 2.0)
        run("listen", "--model", model_path, "--record", str(tmp_path), "--keyword", "low tone")
        (path,) = tmp_path.iterdir()
        samples, _ = soundfile.read(path)
        assert len(samples) == 2.4 * RATE

    def test_what_was_awaited_at_a_long_gap(
        self, run: Any, model_path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        audio = tones("low tone")
        detector = Detector(load_model(model_path))
        n = next(n for n in range(RATE, len(audio), 160) if not detector.push(audio[n - 160 : n]) and detector.flush())

        def cut(microphone: FakeMicrophone) -> Iterator[np.ndarray]:
            yield audio[RATE - 160 : n]
            microphone.dropped = 100 * RATE
            yield audio[-RATE:]

        monkeypatch.setattr(FakeMicrophone, "__iter__", cut)
        code, out, err = run("listen", "--json", "--model", model_path, "--record", str(tmp_path))
        assert len(hits(out)) == 1
        assert (code, err) == (0, "streamkws: lost 100.00 s of audio in all\n")
        (path,) = tmp_path.iterdir()
        assert len(soundfile.read(path)[0]) == n - (RATE - 160), "all there was before the gap"

    def test_record_that_fails(self, run: Any, model_path: str, tmp_path: Path, monkeypatch: Any) -> None:
        monkeypatch.setattr(cli.reactions.Path, "mkdir", lambda *_, **__: None)
        command = 'echo "${STREAMKWS_AUDIO-no recording}" >> "$OUT"'
        monkeypatch.setenv("OUT", str(tmp_path / "out"))
        code, out, err = run("listen", "--model", model_path, "--record", str(tmp_path / "no"), "--exec", command)
        assert code == 0 and out.count("\n") == 2
        assert err.count(f"streamkws: cannot record: {tmp_path}/no/") == 2
        assert err.count(": No such file or directory\n") == 2
        assert eventually((tmp_path / "out").read_text, "no recording\n" * 2)

    def test_record_longer_than_what_is_kept(self, run: Any, model_path: str, tmp_path: Path, monkeypatch: Any) -> None:
        monkeypatch.setattr(cli.reactions, "BEFORE_S", -100)
        _, out, err = run("listen", "--model", model_path, "--record", str(tmp_path))
        assert out.count("\n") == 2 and err.count("streamkws: cannot record: expected a stretch") == 2

    def test_folder_that_cannot_be_made(self, run: Any, model_path: str, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        code, _, err = run("listen", "--model", model_path, "--record", str(tmp_path / "file" / "folder"))
        assert (code, err) == (1, f"streamkws: {tmp_path}/file/folder: Not a directory\n")

    @pytest.mark.skipif(sys.platform == "win32", reason="POSIX shell")
    def test_exec(self, run: Any, model_path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OUT", str(tmp_path / "out"))
        values = " ".join(f"$STREAMKWS_{name}" for name in ("KEYWORD", "SCORE", "START", "END", "AUDIO"))
        command = f'echo "{values}" >> "$OUT"'
        _, out, _ = run("listen", "--json", "--model", model_path, "--exec", command, "--keyword", "low tone")
        (hit,) = hits(out)
        expected = f"low tone {hit['score']:.4f} {hit['start']:.3f} {hit['end']:.3f}"
        assert eventually((tmp_path / "out").read_text, f"{expected} \n")
        (tmp_path / "out").unlink()
        folder = str(tmp_path / "heard")
        run("listen", "--model", model_path, "--exec", command, "--keyword", "low tone", "--record", folder)
        (path,) = os.listdir(folder)
        assert eventually((tmp_path / "out").read_text, f"{expected} {folder}/{path}\n")

    @pytest.mark.skipif(sys.platform == "win32", reason="POSIX shell")
    def test_command_that_fails(self, run: Any, model_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(FakeMicrophone, "at_end", staticmethod(await_commands))
        _, out, err = run("listen", "--model", model_path, "--exec", "exit 3")
        assert out.count("\n") == 2
        assert err.count("streamkws: the command for a detection failed with exit code 3: exit 3\n") == 2

    @pytest.mark.skipif(sys.platform == "win32", reason="POSIX shell")
    def test_commands_are_counted_and_not_awaited(
        self, run: Any, model_path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cli.reactions, "MAX_COMMANDS", 1)
        started: list[Any] = []
        popen = subprocess.Popen
        monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: started.append(popen(*a, **k)) or started[-1])
        _, out, err = run("listen", "--model", model_path, "--exec", "exec sleep 100")
        assert out.count("\n") == 2
        assert "streamkws: no command for 'high tone': 1 still run\n" in err
        (process,) = started
        assert process.poll() is None, "it outlives the listening"
        process.kill()
        process.wait()

    def test_command_that_cannot_be_started(self, run: Any, model_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
        def popen(*_: Any, **__: Any) -> None:
            raise OSError(11, "Resource temporarily unavailable")

        monkeypatch.setattr(subprocess, "Popen", popen)
        _, out, err = run("listen", "--model", model_path, "--exec", "true")
        assert out.count("\n") == 2
        message = "the command for a detection cannot be run: Resource temporarily unavailable: true"
        assert err.count(f"streamkws: {message}\n") == 2

    @pytest.mark.skipif(sys.platform == "win32", reason="POSIX shell")
    def test_what_c_libraries_print_is_not_shown(self, model_path: str) -> None:
        script = (
            "import os, sys, logging\n"
            "from streamkws.cli.live import _only_our_messages\n"
            "with _only_our_messages():\n"
            "    os.write(2, b'ALSA lib: noise\\n')\n"
            "    print('ours', file=sys.stderr)\n"
            "    logging.getLogger('streamkws.sources').warning('logged')\n"
            "os.write(2, b'as before\\n')\n"
            "print('and so', file=sys.stderr)\n"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert done.stderr == "ours\nstreamkws: logged\nas before\nand so\n"


def eventually(get: Callable[[], str], expected: str) -> bool:
    """Whether a process in the background makes get return what is expected, within some seconds."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with suppress(OSError):
            if get() == expected:
                return True
        time.sleep(0.02)
    return False


class TestDevices:
    def test_no_port_audio(self, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        message = "the microphone needs the PortAudio library: apt install libportaudio2"

        def refuse() -> None:
            raise MissingExtraError(message)

        monkeypatch.setattr(sources, "input_devices", refuse)
        assert run("devices") == (1, "", f"streamkws: {message}\n")

    def test_table_and_json(self, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        devices = [
            sources.InputDevice(0, "Webcam", "ALSA", 1, 44100, False),
            sources.InputDevice(12, "USB Microphone", "ALSA", 2, 48000, True),
        ]
        monkeypatch.setattr(sources, "input_devices", lambda: devices)
        monkeypatch.setattr(sources, "open_rates", lambda device: (16000, 48000) if device.index else ())
        code, out, err = run("devices")
        assert (code, err) == (0, "")
        assert out == (
            "device  name            sound system  channels     Hz  opens at\n"
            "     0  Webcam          ALSA                 1  44100  none now\n"
            "    12  USB Microphone  ALSA                 2  48000  16000 48000  default\n"
        )
        code, out, _ = run("devices", "--json")
        assert code == 0
        assert hits(out)[1] == {
            "index": 12,
            "name": "USB Microphone",
            "host_api": "ALSA",
            "n_channels": 2,
            "sample_rate": 48000,
            "is_default": True,
            "open_rates": [16000, 48000],
        }

    def test_none(self, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sources, "input_devices", lambda: [])
        assert run("devices") == (1, "", "streamkws: expected an audio input, found none on this machine\n")
        assert run("devices", "--json") == (0, "", "")


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
