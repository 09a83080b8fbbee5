"""streamkws review: keys through a pipe and a terminal, and where the files go."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import ROOT
from fake_portaudio import FakePortAudio, installed

from streamkws import cli
from streamkws.cli import filing
from streamkws.corpus import read_recordings

TIME = "2026-11-28_03-01-22"
NAMES = (f"alexa_{TIME}.flac", f"smart_mirror_{TIME}.flac", f"smart_mirror_{TIME}_2.flac")


@pytest.fixture
def heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of three files, each of its own length, in the working directory."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "heard"
    folder.mkdir()
    for number, name in enumerate(NAMES, 1):
        soundfile.write(folder / name, np.full(1600 * number, 0.5), 16000)
    return folder


@pytest.fixture
def portaudio(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakePortAudio]:
    yield from installed(monkeypatch)


@pytest.fixture
def review(run: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run it with lines on standard input."""

    def call(keys: str, *arguments: str) -> Any:
        stdin = io.TextIOWrapper(io.BytesIO("".join(f"{key}\n" for key in keys).encode()))
        monkeypatch.setattr(sys, "stdin", stdin)
        return run("review", "heard", *arguments)

    return call


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_files_go_where_the_keys_say(review: Any, heard: Path) -> None:
    code, out, err = review("yns", "--no-sound")
    assert (code, err) == (0, "")
    assert out.splitlines()[1:] == [
        f"1 of 3  alexa  2026-11-28 03:01:22    0.1 s    -6 dB  to words/alexa/p_{TIME}.flac",
        f"2 of 3  smart mirror  2026-11-28 03:01:22    0.2 s    -6 dB  to wrong/smart_mirror_{TIME}.flac",
        "3 of 3  smart mirror  2026-11-28 03:01:22    0.3 s    -6 dB  left",
        "1 to words, 1 to wrong, 1 left in heard",
        "thresholds by them: streamkws calibrate MODEL --recordings words --negatives wrong",
    ]
    assert files(heard.parent) == [f"heard/{NAMES[2]}", f"words/alexa/p_{TIME}.flac", f"wrong/{NAMES[1]}"]


def test_a_corpus_reads_them(review: Any, heard: Path) -> None:
    review("yyy", "--no-sound", "--speaker", "anna", "--recordings", "mine")
    assert files(heard.parent) == [
        f"mine/alexa/anna_{TIME}.flac",
        f"mine/smart_mirror/anna_{TIME}.flac",
        f"mine/smart_mirror/anna_{TIME}_2.flac",
    ], "a number is appended to a name that is taken"
    recordings, notes = read_recordings(Path("mine"), ("alexa", "smart mirror"))
    assert [(one.keyword, one.speaker) for one in recordings] == [("alexa", "anna")] + [("smart mirror", "anna")] * 2
    assert notes == []


def test_unknown_speakers_are_unknown(review: Any, heard: Path) -> None:
    review("y", "--no-sound")
    (recording,) = read_recordings(Path("words"), ("alexa",))[0]
    assert recording.speaker == ""


def test_a_decision_is_taken_back(review: Any, heard: Path) -> None:
    code, out, _ = review("uyusnyunq", "--no-sound")
    assert code == 0
    assert out.count("nothing to take back") == 1 and out.count("the last one is taken back") == 2
    assert files(heard.parent) == [f"heard/{NAMES[0]}", f"wrong/{NAMES[1]}", f"wrong/{NAMES[2]}"]
    assert out.splitlines()[-2] == "0 to words, 2 to wrong, 1 left in heard"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes")
def test_a_pipe_is_not_waited_for(review: Any, heard: Path) -> None:
    os.mkfifo(heard / "alexa_2026-11-28_03-07-15.flac")
    code, out, err = review("sss", "--no-sound")
    assert code == 1 and "3 left in heard" in out
    assert err.count("\n") == 1 and "expected a file, got a pipe or a device; it is left where it is" in err


def test_nothing_is_overwritten(review: Any, heard: Path) -> None:
    for name in ("words/alexa/p_" + TIME, "wrong/smart_mirror_" + TIME):
        path = heard.parent / f"{name}.flac"
        path.parent.mkdir(parents=True)
        path.write_text("before")
    review("ynq", "--no-sound")
    assert (heard.parent / f"words/alexa/p_{TIME}.flac").read_text() == "before"
    assert (heard.parent / f"wrong/{NAMES[1]}").read_text() == "before"
    assert len(soundfile.read(heard.parent / f"words/alexa/p_{TIME}_2.flac")[0]) == 1600
    assert len(soundfile.read(heard.parent / f"wrong/smart_mirror_{TIME}_2.flac")[0]) == 3200


def test_each_is_played(review: Any, heard: Path, portaudio: FakePortAudio) -> None:
    assert review(["y", "r", " ", "n"])[0] == 0
    lengths = [np.count_nonzero(stream.played) for stream in portaudio.played]
    assert lengths == [1600, 3200, 3200, 3200, 4800]
    assert all(stream.closed for stream in portaudio.played)


def test_no_output(review: Any, heard: Path, portaudio: FakePortAudio) -> None:
    portaudio.has_output = False
    code, out, err = review("yyy")
    assert (code, out.splitlines()[-1]) == (1, "0 to words, 0 to wrong, 3 left in heard")
    assert err == "streamkws: expected an audio output: Error querying device -1; --no-sound decides without\n"


def test_what_cannot_be_reviewed_is_said_and_left(review: Any, heard: Path) -> None:
    (heard / NAMES[1]).write_bytes(b"")
    (heard / NAMES[2]).write_bytes(b"fLaC and no more")
    soundfile.write(heard / f"jarvis_{TIME}.flac", np.zeros(0), 16000)
    for name in ("holiday.flac", "a\nb.flac", ".hidden.flac", "notes.txt"):
        (heard / name).touch()
    before = files(heard)
    code, out, err = review("y", "--no-sound")
    assert code == 1
    assert files(heard) == [name for name in before if name != NAMES[0]]
    lines = err.splitlines()
    assert len(lines) == 5 and all(line.endswith("; it is left where it is") for line in lines)
    assert [line.split(": ")[1] for line in lines] == [
        "heard/a\\nb.flac",
        "heard/holiday.flac",
        f"heard/jarvis_{TIME}.flac",
        f"heard/{NAMES[1]}",
        f"heard/{NAMES[2]}",
    ]
    assert out.splitlines()[-2] == "1 to words, 0 to wrong, 3 left in heard"


def test_a_folder_that_cannot_be_written(review: Any, heard: Path) -> None:
    (heard.parent / "file").touch()
    code, out, err = review("yn", "--no-sound", "--recordings", "file")
    assert code == 1 and out.splitlines()[-2] == "0 to file, 1 to wrong, 2 left in heard"
    assert err == f"streamkws: heard/{NAMES[0]}: cannot be moved to file/alexa: Not a directory\n"
    assert files(heard) == [NAMES[0], NAMES[2]], "the next line is for the next file"


def test_an_unknown_line_in_a_pipe_ends_it(review: Any, heard: Path) -> None:
    code, _, err = review(["yes", "n"], "--no-sound")
    assert (code, err) == (1, "streamkws: expected one of y, n, r, s, u and q in each line, got 'yes'\n")
    assert files(heard) == sorted(NAMES)


def test_ctrl_c_ends_it_with_a_summary(review: Any, heard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def press() -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.review, "read_key", press)
    code, out, err = review("", "--no-sound")
    assert (code, err) == (0, "") and out.splitlines()[-1] == "0 to words, 0 to wrong, 3 left in heard"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("none",), 2, "none: expected a folder, got nothing"),
        ((f"heard/{NAMES[0]}",), 2, f"heard/{NAMES[0]}: expected a folder, got a file"),
        (("empty",), 1, "empty: expected audio files that listen saved, found none"),
        (
            ("heard", "--negatives", "heard/"),
            2,
            "heard: expected another folder for --negatives than the one that is reviewed",
        ),
        (
            ("heard", "--speaker", "paul"),
            2,
            "expected a speaker of letters, digits and hyphens that does not begin with p (unknown), got 'paul'",
        ),
        (
            ("heard", "--speaker", "../anna"),
            2,
            "expected a speaker of letters, digits and hyphens that does not begin with p (unknown), got '../anna'",
        ),
    ],
)
def test_wrong_usage(run: Any, heard: Path, arguments: tuple[str, ...], code: int, message: str) -> None:
    (heard.parent / "empty").mkdir()
    assert run("review", *arguments) == (code, "", f"streamkws: {message}\n")


class TestMoving:
    @pytest.fixture
    def elsewhere(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A folder on what looks like another filesystem."""
        folder = tmp_path / "elsewhere"
        replace = os.replace

        def other(source: Any, target: Any) -> None:
            if folder in Path(target).parents and folder not in Path(source).parents:
                raise OSError(errno.EXDEV, "Invalid cross-device link")
            replace(source, target)

        monkeypatch.setattr(filing.os, "replace", other)
        return folder

    def test_to_another_filesystem(self, tmp_path: Path, elsewhere: Path) -> None:
        for number in range(2):
            (tmp_path / "a").write_text(str(number))
            os.utime(tmp_path / "a", (1e9, 1e9))
            filing.move_new(tmp_path / "a", elsewhere / "b.flac")
        assert files(tmp_path) == ["elsewhere/b.flac", "elsewhere/b_2.flac"]
        assert (elsewhere / "b.flac").read_text() == "0" and (elsewhere / "b_2.flac").read_text() == "1"
        assert (elsewhere / "b.flac").stat().st_mtime == 1e9

    def test_a_copy_that_fails_leaves_nothing(
        self, tmp_path: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        (tmp_path / "a").write_text("a")
        monkeypatch.setattr(filing.shutil, "copyfileobj", full)
        with pytest.raises(OSError, match="No space"):
            filing.move_new(tmp_path / "a", elsewhere / "b")
        assert files(tmp_path) == ["a"]

    def test_an_original_that_cannot_be_deleted(
        self, tmp_path: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        unlink = Path.unlink

        def refuse(path: Path, **settings: Any) -> None:
            if path.name == "a":
                raise PermissionError(errno.EACCES, "Permission denied")
            unlink(path, **settings)

        (tmp_path / "a").write_text("a")
        monkeypatch.setattr(Path, "unlink", refuse)
        with pytest.raises(PermissionError):
            filing.move_new(tmp_path / "a", elsewhere / "b")
        assert files(tmp_path) == ["a"]

    def test_ctrl_c_just_after_the_rename(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        replace = os.replace

        def then_press(source: Any, target: Any) -> None:
            replace(source, target)
            raise KeyboardInterrupt

        (tmp_path / "a").write_text("a")
        monkeypatch.setattr(filing.os, "replace", then_press)
        with pytest.raises(KeyboardInterrupt):
            filing.move_new(tmp_path / "a", tmp_path / "b")
        assert files(tmp_path) == ["b"] and (tmp_path / "b").read_text() == "a"


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX terminal")
def test_single_keys_in_a_terminal(heard: Path) -> None:
    import pty
    import select
    import termios

    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    here = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "streamkws", "review", str(heard), "--no-sound"]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=here) as process:
        shown = b""

        def press(keys: bytes, until: bytes) -> None:
            nonlocal shown
            os.write(ours, keys)
            deadline = time.monotonic() + 60
            while until not in shown and time.monotonic() < deadline:
                if select.select([ours], [], [], 1)[0]:
                    shown += os.read(ours, 4096)
            if until not in shown:
                process.kill()
            assert until in shown, shown

        press(b"", b"1 of 3")
        press(b"\x1b[A", b"dB\r\ny: the keyword was said")  # an arrow is no key
        press(b"y", b"2 of 3")
        press(b"nn", b"that was the last")
        press(b"u", b"is taken back\r\n3 of 3")
        press(b"S", b"left\r\nthat was the last")
        press(b"q", b"streamkws calibrate MODEL")
        assert process.wait(60) == 0
        assert shown.count(b"y: the keyword was said") == 2, "once more after the arrow"
    assert termios.tcgetattr(theirs) == before
    os.close(ours)
    os.close(theirs)
    assert files(heard.parent) == [f"heard/{NAMES[2]}", f"words/alexa/p_{TIME}.flac", f"wrong/{NAMES[1]}"]
