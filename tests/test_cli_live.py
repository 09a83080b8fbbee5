"""streamkws listen and devices, with a microphone that is made up."""

from __future__ import annotations

import copy
import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from tones import RATE, hits, tones

from streamkws import cli, sources
from streamkws.detector import Detector
from streamkws.errors import MissingExtraError
from streamkws.model_file import load_model


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

    def test_screen_of_several_models(self, run: Any, model_path: str, other_path: str, terminal: Any) -> None:
        terminal(80)
        code, out, _ = run("listen", "--model", model_path, "--model", other_path)
        assert code == 0
        title = "fake microphone heard by tones.f32 + other.w4a8"
        lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.rsplit(title, 1)[1]).splitlines()
        assert [line[:11].strip() for line in lines[1:5]] == ["level", "low tone", "high tone", "bell"]
        assert lines[4].endswith(" of 0.50")
        assert [line.split("  ")[2].strip() for line in lines[8:11]] == ["bell", "high tone", "low tone"]

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

    def test_near_misses_are_recorded_and_start_nothing(self, run: Any, model_path: str, tmp_path: Path) -> None:
        heard, near = tmp_path / "heard", tmp_path / "near"
        command = f'echo "$STREAMKWS_KEYWORD" >> {tmp_path}/out'
        folders = ("--record", str(heard), "--record-near", str(near))
        options = ("--threshold", "low tone=0.999", "--exec", command, "--beep", "--json")
        code, out, err = run("listen", "--model", model_path, *folders, *options)
        assert code == 0 and err.count("\a") == 1
        assert [(hit["keyword"], hit.get("near", False)) for hit in hits(out)] == [
            ("low tone", True),
            ("high tone", False),
        ]
        assert [path.name[:3] for path in near.iterdir()] == ["low"]
        assert [path.name[:3] for path in heard.iterdir()] == ["hig"]
        assert eventually((tmp_path / "out").read_text, "high tone\n")
        code, out, _ = run("listen", "--model", model_path, "--threshold", "0.999", "--near", "0.99999", "--json")
        assert out == ""

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
        n = next(
            n
            for n in range(RATE, len(audio), 160)
            if not detector.push(audio[n - 160 : n]) and copy.deepcopy(detector).flush()
        )

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
            "from streamkws.cli.messages import only_our_messages\n"
            "with only_our_messages():\n"
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
