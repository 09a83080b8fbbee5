"""sources.files: recordings, pipes, blocks."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import refused
from hypothesis import given, settings
from hypothesis import strategies as st

from streamkws.errors import AudioError
from streamkws.sources import Blocks, FileSource, RawSource, open_source

NOISE = (np.random.default_rng(0).normal(size=40000) * 3000).astype(np.int16)


def test_file_source(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, NOISE, 16000)
    with FileSource(path) as source:
        assert (source.name, source.duration_s, source.sample_rate) == (str(path), 2.5, 16000)
        assert np.array_equal(np.concatenate(list(source)), NOISE)
    assert refused(lambda: list(source)) == f"{path}: expected an open file, got a closed one; it can be read once"
    assert refused(lambda: FileSource(tmp_path / "b.wav")) == f"{tmp_path / 'b.wav'}: No such file or directory"
    with FileSource(path) as source:
        blocks = iter(source)
        next(blocks)
        source.close()
        assert list(blocks) == []


def test_open_source_takes_what_audio_can_come_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, NOISE, 16000)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(NOISE.tobytes()), closed=False))
    pieces = np.split(NOISE, 8)
    for source, name, duration_s in [
        (path, str(path), 2.5),
        (str(path), str(path), 2.5),
        ("-", "standard input", None),
        (NOISE, "samples", 2.5),
        (pieces, "blocks", None),
        (iter(pieces), "blocks", None),
        (FileSource(path), str(path), 2.5),
        (RawSource(io.BytesIO(NOISE.tobytes())), "stream", None),
    ]:
        with open_source(source) as opened:
            assert (opened.name, opened.duration_s) == (name, duration_s)
            assert np.array_equal(np.concatenate(list(opened)), NOISE)


def test_open_source_closes_only_what_it_opened(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", NOISE, 16000)
    mine = FileSource(tmp_path / "a.wav")
    with open_source(mine) as source:
        assert isinstance(source, Blocks)
    assert np.array_equal(np.concatenate(list(mine)), NOISE)


def test_open_source_refuses_the_rest() -> None:
    for source, came in [(3, "int"), (None, "NoneType"), (b"\0\0", "bytes"), (bytearray(2), "bytearray")]:
        with pytest.raises(AudioError) as error:
            open_source(source)  # type: ignore[arg-type]
        assert str(error.value) == f'expected a path, "-", samples or an iterable of blocks, got {came}'
    assert refused(lambda: open_source(np.zeros((2, 5)))) == (
        "expected (n,) int16 or float32 samples, got (2, 5) float64"
    )


class Dribble(io.RawIOBase):
    """A pipe that has so many bytes at each read, whatever was asked for."""

    def __init__(self, data: bytes, sizes: list[int]) -> None:
        self._data = data
        self._sizes = iter(sizes)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        n = min(next(self._sizes, len(buffer)), len(buffer), len(self._data))
        buffer[:n] = self._data[:n]
        self._data = self._data[n:]
        return n


@settings(deadline=None)
@given(sizes=st.lists(st.integers(1, 700), max_size=50), n_bytes=st.integers(0, 2001), buffered=st.booleans())
def test_raw_samples_survive_every_cut(sizes: list[int], n_bytes: int, buffered: bool) -> None:
    data = NOISE.tobytes()[:n_bytes]
    pipe = Dribble(data, sizes)
    source = RawSource(io.BufferedReader(pipe) if buffered else pipe)
    blocks = list(source)
    assert all(block.dtype == np.int16 and block.flags.carray and len(block) for block in blocks)
    samples = np.concatenate([np.zeros(0, np.int16), *blocks])
    assert np.array_equal(samples, NOISE[: n_bytes // 2])
    assert source.trailing_bytes == n_bytes % 2


def test_raw_samples_are_little_endian() -> None:
    assert [block.tolist() for block in RawSource(io.BytesIO(b"\x01\x00\x00\x80\xff\x7f"))] == [[1, -32768, 32767]]


def test_raw_samples_come_as_soon_as_they_are_there() -> None:
    outlet, inlet = os.pipe()
    with open(outlet, "rb") as pipe, open(inlet, "wb", buffering=0) as writer:
        blocks = iter(RawSource(pipe))
        for start in range(0, 1600, 160):
            writer.write(NOISE[start : start + 160].tobytes())  # the pipe stays open: a read for more would hang
            assert np.array_equal(next(blocks), NOISE[start : start + 160])


def test_raw_source_is_standard_input() -> None:
    code = (
        "from streamkws.sources import RawSource\n"
        "source = RawSource()\n"
        "print(source.name, sum(map(len, source)), source.trailing_bytes)"
    )
    run = subprocess.run([sys.executable, "-c", code], input=NOISE.tobytes() + b"x", capture_output=True, check=True)
    assert run.stdout == b"standard input 40000 1\n"


def test_raw_source_leaves_the_stream_open() -> None:
    stream = io.BytesIO(NOISE.tobytes())
    with RawSource(stream) as source:
        assert len(next(iter(source))) == 32768
    assert not stream.closed
    assert list(source) == []


def test_raw_source_refuses_a_terminal() -> None:
    ours, theirs = pty.openpty()
    with open(theirs, "rb", buffering=0) as terminal:
        assert refused(lambda: RawSource(terminal)) == (
            f"{theirs}: expected raw 16 kHz mono int16 audio, got a terminal"
        )
    os.close(ours)


def test_raw_source_refuses_a_closed_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.BytesIO()
    stream.close()
    assert refused(lambda: RawSource(stream)) == "stream: expected an open stream, got a closed one"
    for stdin in (None, SimpleNamespace(closed=True)):
        monkeypatch.setattr(sys, "stdin", stdin)
        assert refused(RawSource) == "standard input: expected an open stream, got a closed one"


@pytest.mark.parametrize("magic", [b"RIFF", b"RIFX", b"RF64", b"FORM", b"fLaC", b"OggS", b"ID3\x03"])
def test_raw_source_refuses_an_audio_file(magic: bytes) -> None:
    for sizes in ([], [1, 1, 1, 1]):
        assert refused(lambda s=sizes: list(RawSource(Dribble(magic + bytes(100), s)))) == (
            f"stream: expected raw 16 kHz mono int16 audio, got an audio file ({magic!r}); "
            "give its path, or decode it: ffmpeg -i FILE -ac 1 -ar 16000 -f s16le -"
        )


def test_raw_source_whose_stream_fails(tmp_path: Path) -> None:
    class Failing(Dribble):
        def readinto(self, buffer: Any) -> Any:
            raise OSError(5, "Input/output error")

    class Waiting(Dribble):
        def readinto(self, buffer: Any) -> Any:
            return None

    assert refused(lambda: list(RawSource(Failing(b"", [])))) == "stream: Input/output error"
    assert refused(lambda: list(RawSource(Waiting(b"", [])))) == (
        "stream: expected a blocking stream, got one without data yet"
    )
    stream = io.BytesIO(NOISE.tobytes())
    blocks = iter(RawSource(stream))
    next(blocks)
    stream.close()
    assert refused(lambda: next(blocks)) == "stream: I/O operation on closed file."
