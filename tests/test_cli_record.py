"""streamkws record, with a microphone that hears tones in a noisy room."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from fake_portaudio import FakePortAudio, installed
from test_takes import room, word

from streamkws import cli, sources
from streamkws.corpus import read_recordings

RATE = 16000
NAME = r"hey_robot/anna_\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d(_\d)?\.flac"


class FakeMicrophone:
    """Hears the pieces, in blocks of 20 ms, and then Ctrl-C; a number among the pieces is so many seconds lost."""

    pieces: tuple[Any, ...] = ()
    name = "fake microphone"

    def __init__(self, device: int | str | None = None) -> None:
        self.dropped = 0

    def __enter__(self) -> FakeMicrophone:
        return self

    def __exit__(self, *_: object) -> None: ...

    def __iter__(self) -> Iterator[np.ndarray]:
        for piece in self.pieces:
            if isinstance(piece, float):
                self.dropped += round(piece * RATE)
            else:
                yield from np.split(piece, range(320, len(piece), 320))
        raise KeyboardInterrupt


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sources, "Microphone", FakeMicrophone)
    return tmp_path


@pytest.fixture
def hear(monkeypatch: pytest.MonkeyPatch) -> Any:
    return lambda *pieces: monkeypatch.setattr(FakeMicrophone, "pieces", pieces)


@pytest.fixture
def portaudio(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakePortAudio]:
    yield from installed(monkeypatch)


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


class TestTakes:
    def test_good_ones_are_written_and_bad_ones_asked_for_again(self, run: Any, hear: Any, folder: Path) -> None:
        hear(room(2), word(0.5), room(1.5), word(0.5, 2).clip(-1, 1), room(1.5), word(0.6), room(1.5))
        code, out, err = run("record", "hey robot", "--speaker", "anna", "--takes", "2")
        assert (code, err) == (0, "")
        assert [re.sub(NAME, "FILE", line) for line in out.splitlines()] == [
            "fake microphone: be quiet, the room's noise is measured",
            'take 1 of 2: say "hey robot"',
            "take 1 of 2: words/FILE, 1.5 s, -14 dB, 43 dB above the noise",
            'take 2 of 2: say "hey robot"',
            "once more: clipped: too loud, or too close to the microphone",
            'take 2 of 2: say "hey robot"',
            "take 2 of 2: words/FILE, 1.6 s, -14 dB, 43 dB above the noise",
            "2 of 2 takes of 'hey robot' in words/hey_robot",
            "misses in them: streamkws calibrate MODEL --negatives DIR --recordings words",
        ]
        recordings, _ = read_recordings(folder / "words", ("hey robot",))
        assert [recording.speaker for recording in recordings] == ["anna", "anna"]
        assert all(soundfile.info(recording.path).samplerate == RATE for recording in recordings)
        assert len(files(folder)) == 2, "and nothing else"

    def test_ctrl_c_ends_it_with_a_summary(self, run: Any, hear: Any, folder: Path) -> None:
        hear(room(2), word(0.5), room(1.5), word(0.3))
        code, out, err = run("record", "hey_robot", "--out", "mine")
        assert (code, err) == (0, "")
        assert out.splitlines()[-2] == "1 of 10 takes of 'hey robot' in mine/hey_robot"
        (name,) = files(folder)
        assert name.startswith("mine/hey_robot/p_")

    def test_a_take_with_a_gap_is_not_used(self, run: Any, hear: Any, folder: Path) -> None:
        hear(room(2), word(0.3), 0.5, room(2))
        code, out, _ = run("record", "hey robot")
        assert code == 0 and "once more: a part of the audio was lost\n" in out
        assert files(folder) == []

    def test_too_long_measures_anew(self, run: Any, hear: Any) -> None:
        hear(room(2), room(7, 0.05))
        lines = run("record", "hey robot")[1].splitlines()
        assert lines[2].startswith("once more: too long")
        assert lines[3:5] == ["be quiet, the room's noise is measured again", 'take 1 of 10: say "hey robot"']

    def test_nothing_heard(self, run: Any, hear: Any) -> None:
        hear(room(22))
        out = run("record", "hey robot")[1]
        assert out.count("nothing heard for 10 s: the level is -60 dB, the room's noise -60 dB\n") == 1
        assert out.count("nothing heard for 20 s") == 1

    def test_takes_are_played_back_and_not_heard(
        self, run: Any, hear: Any, folder: Path, portaudio: FakePortAudio
    ) -> None:
        hear(room(2), word(0.5), room(0.79), room(0.1), *[word(0.1)] * 10, room(2), word(0.5), room(4))
        portaudio.goes_on.set()
        code, out, err = run("record", "hey robot", "--takes", "1", "--play")
        assert (code, err) == (0, "")
        (stream,) = portaudio.played
        (name,) = files(folder)
        assert np.array_equal(stream.played[: 16000 + 8000], soundfile.read(folder / name, dtype="float32")[0][:24000])
        assert stream.closed and "1 of 1 takes" in out

    def test_no_output_for_playing(self, run: Any, hear: Any, folder: Path, portaudio: FakePortAudio) -> None:
        portaudio.has_output = False
        hear(room(2), word(0.5), room(4))
        code, out, err = run("record", "hey robot", "--play")
        assert (code, err) == (1, "streamkws: expected an audio output: Error querying device -1\n")
        assert "1 of 10 takes" in out and len(files(folder)) == 1, "what was recorded stays"

    def test_the_live_level(self, run: Any, hear: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        monkeypatch.setattr(cli.meter, "SCREENS_PER_SECOND", 1000)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", "80")
        hear(room(2), word(0.5), room(1.5))
        code, out, _ = run("record", "hey robot")
        assert code == 0 and "1 of 10 takes" in out
        assert "█" in out and 'take 1 of 10: say "hey robot"' in out
        assert "\x1b[?25h" in out, "the cursor is back"


class TestAmbient:
    def test_the_room(self, run: Any, hear: Any, folder: Path) -> None:
        hear(room(70.3))
        code, out, err = run("record", "--ambient", "70s")
        assert (code, err) == (0, "")
        (name,) = files(folder)
        assert re.fullmatch(r"wrong/ambient_\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d\.flac", name)
        assert soundfile.info(folder / name).frames == 70 * RATE
        assert re.sub(r"-\d+ dB", "LEVEL", out).splitlines() == [
            "fake microphone: 0:01:10 left; Ctrl-C ends, LEVEL",
            "fake microphone: 0:00:10 left; Ctrl-C ends, LEVEL",
            f"0:01:10 of the room in {name}",
            "thresholds by it: streamkws calibrate MODEL --negatives wrong",
        ]

    def test_ctrl_c_keeps_what_there_is(self, run: Any, hear: Any, folder: Path) -> None:
        hear(room(2), 0.5, room(1))
        code, out, err = run("record", "--ambient", "1h", "--out", "office")
        assert (code, err) == (0, "streamkws: lost 0.50 s of audio in all\n")
        (name,) = files(folder)
        assert soundfile.info(folder / name).frames == 3 * RATE
        assert f"0:00:03 of the room in {name}\n" in out

    def test_nothing_came(self, run: Any, hear: Any, folder: Path) -> None:
        hear()
        assert run("record", "--ambient", "1m") == (1, "", "streamkws: fake microphone: expected audio, got none\n")
        assert files(folder) == []

    def test_a_full_disk_keeps_what_there_is(
        self, run: Any, hear: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write, n_left = soundfile.SoundFile.write, 50

        def full(file: Any, block: Any) -> None:
            nonlocal n_left
            n_left -= 1
            if n_left < 0:
                raise AssertionError
            write(file, block)

        monkeypatch.setattr(soundfile.SoundFile, "write", full)
        hear(room(2))
        code, _, err = run("record", "--ambient", "1m")
        assert code == 1 and re.fullmatch(
            r"streamkws: wrong/ambient_\S+\.part: cannot be written: is the disk full\?\n", err
        )
        (name,) = files(folder)
        assert soundfile.info(folder / name).frames == RATE


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "expected a keyword to record, or --ambient, got neither"),
        (("hey robot", "--ambient", "3m"), "expected a keyword or --ambient, got both 'hey robot' and --ambient"),
        (("../robot",), "expected a keyword that can name a folder, got '../robot'"),
        ((" ",), "expected a keyword that can name a folder, got ' '"),
        (("a\nb",), "expected a keyword that can name a folder, got 'a\\nb'"),
        (("hey robot", "--takes", "0"), "expected at least 1 take, got 0"),
        (
            ("hey robot", "--speaker", "a_b"),
            "expected a speaker of letters, digits and hyphens that does not begin with p (unknown), got 'a_b'",
        ),
    ],
)
def test_wrong_usage(run: Any, folder: Path, arguments: tuple[str, ...], message: str) -> None:
    assert run("record", *arguments) == (2, "", f"streamkws: {message}\n")
    assert files(folder) == []


@pytest.mark.parametrize("text", ["30", "0s", "25h", "m", "-3m", "nan"])
def test_wrong_durations(run: Any, text: str) -> None:
    message = f"argument --ambient: expected 1s to 24h, such as 90s, 30m or 2h, got {text!r}"
    code, out, err = run("record", f"--ambient={text}")
    assert (code, out) == (2, "") and message in err


@pytest.mark.parametrize("arguments", [("hey robot",), ("--ambient", "3s")])
def test_a_folder_that_cannot_be_written(run: Any, folder: Path, arguments: tuple[str, ...]) -> None:
    (folder / "file").touch()
    code, out, err = run("record", *arguments, "--out", "file")
    assert (code, out) == (1, "") and err.startswith("streamkws: file") and err.count("\n") == 1
