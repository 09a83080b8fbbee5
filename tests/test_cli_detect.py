"""streamkws detect: files, folders, standard input."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tones import SLOW_START, hits, messages, pcm, tones

from streamkws import cli
from streamkws.audio import ALL_SUFFIXES
from streamkws.model import Model


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

    def test_several_models(self, run: Any, model_path: str, other_path: str, audio: Any) -> None:
        path = audio("a.wav", "low tone", "high tone")
        both = ("--model", model_path, "--model", other_path)
        code, out, err = run("detect", "--json", *both, path)
        assert (code, err) == (0, "")
        assert [hit["keyword"] for hit in hits(out)] == ["low tone", "high tone", "bell"]
        for one in (model_path, other_path):
            own = hits(run("detect", "--json", "--model", one, path)[1])
            assert own and own == [hit for hit in hits(out) if hit["keyword"] in [each["keyword"] for each in own]]
        chosen = run(
            "detect", "--json", *both, "--threshold", "0.9", "--threshold", "bell=0.6", "--keyword", "bell", path
        )
        assert [hit["keyword"] for hit in hits(chosen[1])] == ["bell"]
        lines = run("detect", *both, path)[1].splitlines()
        assert len({line.index(" s  ") for line in lines}) == 1

    def test_models_that_cannot_hear_together_are_one_line(
        self, run: Any, model_path: str, other_path: str, audio: Any
    ) -> None:
        path = audio("a.wav", "low tone")
        code, out, err = run("detect", "--model", other_path, "--model", model_path, "--model", other_path, path)
        assert (code, out) == (2, "")
        assert err == (
            "streamkws: expected each keyword in one model, got 'bell' in model 1 (other.w4a8) and in model 3 "
            "(other.w4a8)\n"
        )
        code, out, err = run("detect", "--model", model_path, "--model", other_path, "--keyword", "x", path)
        assert (code, err) == (2, "streamkws: unknown keyword 'x'; the models know: low tone, high tone, bell\n")
        code, out, err = run("detect", "--model", model_path, "--model", "none", path)
        assert (code, out) == (2, "") and err.startswith("streamkws: unknown model 'none': ") and err.count("\n") == 1

    def test_near_misses(self, run: Any, model_path: str, audio: Any) -> None:
        path = audio("a.wav", "low tone", "high tone")
        options = ("--threshold", "low tone=0.999", "--near", "0.5")
        code, out, _ = run("detect", "--json", "--model", model_path, *options, path)
        near, hit = hits(out)
        assert code == 0 and near.pop("near") is True and "near" not in hit
        assert (near["keyword"], hit["keyword"]) == ("low tone", "high tone") and 0.5 <= near["score"] < 0.999
        lines = run("detect", "--model", model_path, *options, path)[1].splitlines()
        assert [line.endswith("  near") for line in lines] == [True, False]
        assert len(hits(run("detect", "--json", "--model", model_path, *options[:2], path)[1])) == 1
        code, out, err = run("detect", "--model", model_path, "--near", "7", path)
        assert (code, out) == (2, "")
        assert err == "streamkws: expected a score above 0 and at most 1 for 'near', got 7\n"

    def test_a_name_of_a_file_is_printed_and_not_obeyed(self, run: Any, model_path: str, audio: Any) -> None:
        path = audio("a\n\x1b[31mb\t.wav", "low tone")
        shown = path.replace("\n", "\\n").replace("\x1b", "\\x1b").replace("\t", "\\t")
        code, out, err = run("detect", "--model", model_path, path)
        assert (code, err, len(out.splitlines())) == (0, "", 1)
        assert out.startswith(f"{shown} ") and out.strip().isprintable()
        (hit,) = hits(run("detect", "--json", "--model", model_path, path)[1])
        assert hit["file"] == path  # exact, for programs
        Path(path).write_bytes(b"no audio")
        code, out, err = run("detect", "--model", model_path, path)
        assert (code, out) == (1, "") and "\x1b" not in err and err.count("\n") == 1

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
            f"streamkws: {bare}: expected audio files in this folder ({' '.join(ALL_SUFFIXES)}), found none"
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
        assert (process.returncode, messages(err)) == (0, [])
        assert b"\\udcff.wav" in out

    def test_standard_input_at_once(self, start: Any, model_path: str) -> None:
        process = start("detect", "--model", model_path, "-")
        process.stdin.write(pcm(tones("low tone")))
        process.stdin.flush()
        assert process.stdout.readline().startswith(b"- ")  # while the pipe is still open
        process.stdin.write(pcm(tones("high tone")))
        out, err = process.communicate(timeout=60)
        assert (process.returncode, messages(err)) == (0, [])
        assert out.count(b"\n") == 1 and b"high tone" in out

    def test_half_a_sample_is_reported(self, start: Any, model_path: str) -> None:
        process = start("detect", "--model", model_path, "-")
        out, err = process.communicate(pcm(tones("low tone")) + b"x", timeout=60)
        assert (process.returncode, out.count(b"\n")) == (0, 1)
        assert messages(err) == ["streamkws: standard input: ended in the middle of a sample, expected int16"]

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
            assert messages(done.stderr) == [] and b"missing" not in done.stdout

    def test_closed_pipe_ends_quietly(self, start: Any, model_path: str, audio: Any) -> None:
        path = audio("a.wav", "low tone", "high tone")
        process = start("detect", "--model", model_path, *[path] * 50)
        assert process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=60) == 0
        assert messages(process.stderr.read()) == []

    @pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
    def test_ctrl_c(self, start: Any, model_path: str) -> None:
        process = start("detect", "--model", model_path, "-")
        process.stdin.write(pcm(tones("low tone")))
        process.stdin.flush()
        assert process.stdout.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out, messages(err)) == (130, b"", [])

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
