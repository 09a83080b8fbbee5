"""sources: files, pipes, and a microphone made of a fake PortAudio."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from streamkws import sources
from streamkws.audio import Resampler, as_float
from streamkws.errors import AudioError, ConfigError, MissingExtraError
from streamkws.sources import (
    Blocks,
    FileSource,
    InputDevice,
    Microphone,
    RawSource,
    input_devices,
    open_rates,
    open_source,
)

NOISE = (np.random.default_rng(0).normal(size=40000) * 3000).astype(np.int16)


def refused(make: Callable[[], Any]) -> str:
    """Return the text of the AudioError that a call raises."""
    with pytest.raises(AudioError) as error:
        make()
    return str(error.value)


# -- FileSource, open_source


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


# -- RawSource


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


@pytest.mark.parametrize("magic", [b"RIFF", b"fLaC", b"OggS", b"ID3\x03"])
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


# -- Microphone


class FakePortAudioError(Exception):
    pass


@dataclass(eq=False)
class FakeStream:
    """A stream that records a ramp in a thread, as fast as it can, and then does what the script says."""

    audio: FakePortAudio
    device: int
    samplerate: int
    channels: int
    blocksize: int
    dtype: str
    callback: Callable[..., None]
    finished_callback: Callable[[], None]
    calls: list[str] = field(default_factory=list)
    closed: bool = False
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self.calls.append("start")
        if self.audio.start_error:
            raise FakePortAudioError(self.audio.start_error)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._record, args=(self.audio.streams.index(self),))
        self._thread.start()

    def _record(self, number_of_stream: int) -> None:
        buffer = np.empty((self.blocksize, self.channels), np.float32)  # one buffer, as PortAudio has
        n_blocks, then = self.audio.n_blocks, self.audio.then
        if number_of_stream < len(self.audio.script):
            n_blocks, then = self.audio.script[number_of_stream]
        clock_s = 1e9
        for number in range(n_blocks):
            if self._stop.is_set():
                break
            ramp = np.arange(number * self.blocksize, (number + 1) * self.blocksize) % 30000 / 32768
            buffer[:] = ramp[:, None] * (1 + np.arange(self.channels)) * (not self.audio.is_muted)
            flags = SimpleNamespace(input_overflow=number in self.audio.overflows)
            if flags.input_overflow:
                time.sleep(self.audio.overflow_s)
                clock_s += self.audio.clock_gap_s
            self.callback(buffer, self.blocksize, SimpleNamespace(inputBufferAdcTime=clock_s), flags)
            clock_s += self.blocksize / self.samplerate
            buffer[:] = np.nan
            time.sleep(self.audio.pause_s)
        if then == "stall":
            self._stop.wait(20)
        self.finished_callback()

    def abort(self) -> None:
        self.calls.append("abort")
        self.audio.hangs.wait(20)
        if self._thread is not None:
            self._stop.set()
            self._thread.join()
            self._thread = None

    def close(self) -> None:
        self.calls.append("close")
        self.closed = True


class FakePortAudio(ModuleType):
    """The parts of sounddevice that Microphone uses, with devices and a script of its own.

    accepts: (device, rate, channels) that can be opened; None is all.
    n_blocks, then: what a stream records, and whether it then stops or stalls; script: the same for the first streams.
    overflow_s, clock_gap_s: how long an overflow takes, and by how much PortAudio's clock goes on at one.
    hangs: cleared, ending a stream hangs.
    found: the devices that starting PortAudio anew finds, time after time; at the end those that were there.
    """

    PortAudioError = FakePortAudioError
    _StreamBase = FakeStream

    def __init__(self) -> None:
        super().__init__("sounddevice")
        self.devices = [
            self.device("Built-in Audio", 0, 2, 48000.0),
            self.device("Speakers", 0, 0, 48000.0),
            self.device("USB Microphone", 0, 1, 44100.0),
            self.device("USB Microphone", 1, 1, 44100.0),
            self.device("USB Microphone Array", 1, 6, 16000.0),
        ]
        self.default = 0
        self.accepts: set[tuple[int, int, int]] | None = None
        self.n_blocks = 10
        self.then = "stop"
        self.script: list[tuple[int, str]] = []
        self.pause_s = 0.0
        self.overflows: set[int] = set()
        self.overflow_s = self.clock_gap_s = 0.0
        self.is_muted = False
        self.hangs = threading.Event()
        self.hangs.set()
        self.start_error = ""
        self.streams: list[FakeStream] = []
        self.n_restarts = 0
        self.found: list[list[dict[str, Any]]] = []
        self.is_running = True

    @staticmethod
    def device(name: str, host_api: int, n_channels: int, rate: float) -> dict[str, Any]:
        return {"name": name, "hostapi": host_api, "max_input_channels": n_channels, "default_samplerate": rate}

    def query_devices(self, device: Any = None, kind: str | None = None) -> Any:
        devices = [{**device, "index": index} for index, device in enumerate(self.devices)]
        if kind is None:
            return devices
        if not 0 <= self.default < len(devices):
            raise FakePortAudioError("Error querying device -1")
        return devices[self.default]

    def query_hostapis(self) -> Any:
        return ({"name": "ALSA"}, {"name": "JACK"})

    def check_input_settings(self, device: int, channels: int, dtype: str, samplerate: int) -> None:
        if self.accepts is not None and (device, samplerate, channels) not in self.accepts:
            raise FakePortAudioError("Invalid sample rate [PaErrorCode -9997]")

    def InputStream(self, **settings: Any) -> FakeStream:
        self.check_input_settings(settings["device"], settings["channels"], "", settings["samplerate"])
        self.streams.append(FakeStream(self, **settings))
        return self.streams[-1]

    def _terminate(self) -> None:
        assert all(stream.closed for stream in self.streams), "PortAudio would pull them away"
        if not self.is_running:
            raise FakePortAudioError("PortAudio not initialized")
        self.is_running = False

    def _initialize(self) -> None:
        self.n_restarts += 1
        self.is_running = True
        if self.found:
            self.devices = self.found.pop(0)

    def _exit_handler(self) -> None:
        pass


@pytest.fixture
def portaudio(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakePortAudio]:
    fake = FakePortAudio()
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    monkeypatch.setattr(sources, "RETRY_S", 0.02)
    yield fake
    fake.hangs.set()
    for stream in fake.streams:
        stream.abort()
        stream.close()


def ramp(n: int, n_channels: int = 1) -> npt.NDArray[np.float32]:
    """What FakeStream records, every channel at its level."""
    levels = np.arange(n) % 30000 / 32768
    return (levels[:, None] * (1 + np.arange(n_channels))).astype(np.float32)


def record(microphone: Microphone, n_blocks: int) -> npt.NDArray[np.float32]:
    blocks = iter(microphone)
    audio = np.concatenate([as_float(block) for block in islice(blocks, n_blocks)])
    blocks.close()  # type: ignore[attr-defined]
    return audio


def close_soon(microphone: Microphone, after_s: float) -> threading.Timer:
    """Close it from another thread."""
    timer = threading.Timer(after_s, microphone.close)
    timer.start()
    return timer


def test_input_devices(portaudio: FakePortAudio) -> None:
    assert input_devices() == [
        InputDevice(0, "Built-in Audio", "ALSA", 2, 48000, True),
        InputDevice(2, "USB Microphone", "ALSA", 1, 44100, False),
        InputDevice(3, "USB Microphone", "JACK", 1, 44100, False),
        InputDevice(4, "USB Microphone Array", "JACK", 6, 16000, False),
    ]
    portaudio.default = -1
    assert not any(device.is_default for device in input_devices())
    portaudio.devices = []
    assert input_devices() == []


def test_open_rates(portaudio: FakePortAudio) -> None:
    inputs = input_devices()
    assert open_rates(inputs[0]) == (16000, 44100, 48000)
    portaudio.accepts = {(0, 48000, 2), (2, 44100, 1), (4, 96000, 6)}
    assert [open_rates(device) for device in inputs] == [(48000,), (44100,), (), ()]
    assert open_rates(replace(inputs[3], sample_rate=96000)) == (96000,)


def test_microphone_at_16_khz(portaudio: FakePortAudio) -> None:
    with Microphone(block_s=0.02) as microphone:
        assert (microphone.name, microphone.rate, microphone.n_channels) == ("Built-in Audio", 16000, 1)
        assert microphone.duration_s is None
        assert np.array_equal(record(microphone, 10), ramp(3200)[:, 0])
        assert (microphone.dropped, microphone.overflows) == (0, 0)
    (stream,) = portaudio.streams
    assert (stream.device, stream.samplerate, stream.channels, stream.blocksize) == (0, 16000, 1, 320)
    assert stream.calls[-1] == "close"


@pytest.mark.parametrize(("device", "rate", "n_channels"), [(2, 44100, 1), (0, 48000, 2), (4, 16000, 6)])
def test_microphone_that_refuses_16_khz_mono(portaudio: FakePortAudio, device: int, rate: int, n_channels: int) -> None:
    portaudio.accepts = {(device, rate, n_channels)}
    portaudio.n_blocks = 50
    with Microphone(device, reopen=False) as microphone:
        assert (microphone.rate, microphone.n_channels) == (rate, n_channels)
        blocks = []
        with pytest.raises(AudioError, match="the device stopped"):
            for block in microphone:
                blocks.append(block)
    resampler = Resampler(rate, n_channels)
    resampled = np.concatenate([resampler.push(ramp(50 * rate // 50, n_channels)), resampler.flush()])
    assert len(resampled) == 16000
    assert np.array_equal(np.concatenate(blocks), resampled)
    assert microphone.sample_rate == 16000


def test_microphone_records_only_while_it_is_iterated(portaudio: FakePortAudio) -> None:
    portaudio.then = "stall"
    microphone = Microphone()
    assert portaudio.streams[0].calls == []
    assert np.array_equal(record(microphone, 3), ramp(960)[:, 0])
    assert portaudio.streams[0].calls == ["start", "abort", "close"]
    assert np.array_equal(record(microphone, 3), ramp(960)[:, 0]), "old audio must not come again"
    microphone.close()
    microphone.close()
    assert [stream.calls for stream in portaudio.streams] == [["start", "abort", "close"]] * 2
    assert refused(lambda: next(iter(microphone))) == ("Built-in Audio: expected an open microphone, got a closed one")


def test_audio_lost_by_the_device_is_counted(portaudio: FakePortAudio, caplog: pytest.LogCaptureFixture) -> None:
    portaudio.accepts = {(2, 44100, 1)}
    portaudio.overflows = {3, 7}
    with Microphone("USB Microphone, ALSA", reopen=False) as microphone:
        assert refused(lambda: list(microphone)) == "USB Microphone: expected audio, but the device stopped"
        assert (microphone.dropped, microphone.overflows) == (2 * 320, 2)
    assert caplog.messages == ["USB Microphone: lost 0.02 s of audio, 0.02 s so far"], (
        "the next line only after a while"
    )


def test_overflow_costs_what_the_clock_says(portaudio: FakePortAudio) -> None:
    portaudio.overflows = {4}
    portaudio.overflow_s, portaudio.clock_gap_s = 0.15, 0.1
    with Microphone(reopen=False) as microphone:
        with pytest.raises(AudioError):
            list(microphone)
        assert microphone.dropped == 1600


def test_overflow_while_the_clock_is_set(portaudio: FakePortAudio) -> None:
    portaudio.overflows = {4}
    portaudio.clock_gap_s = 3600
    with Microphone(reopen=False) as microphone:
        with pytest.raises(AudioError):
            list(microphone)
        assert 320 <= microphone.dropped < 32000


def test_a_gap_is_counted_just_before_what_follows_it(portaudio: FakePortAudio) -> None:
    portaudio.overflows = {3}
    portaudio.then = "stall"
    with Microphone() as microphone:
        assert [microphone.dropped for _ in islice(microphone, 6)] == [0, 0, 0, 320, 320, 320]
        time.sleep(0.05)


def test_nothing_is_resampled_across_a_gap(portaudio: FakePortAudio) -> None:
    portaudio.accepts = {(2, 44100, 1)}
    portaudio.overflows = {6}
    portaudio.then = "stall"
    before: list[Any] = []
    after: list[Any] = []
    with Microphone("USB Microphone, ALSA") as microphone:
        close_soon(microphone, 0.5)
        for block in microphone:
            (after if microphone.dropped else before).append(block)
    resampler = Resampler(44100)
    whole = ramp(10 * 882)[:, 0]
    expected = np.concatenate([resampler.push(whole[: 6 * 882]), resampler.flush()])
    assert np.array_equal(np.concatenate(before), expected)
    assert np.array_equal(np.concatenate(after), resampler.push(whole[6 * 882 :]))


def test_audio_that_waits_too_long_is_dropped_and_counted(portaudio: FakePortAudio) -> None:
    portaudio.n_blocks = 40
    with Microphone(block_s=0.02, queue_s=0.2, reopen=False) as microphone:
        blocks = iter(microphone)
        first = next(blocks)
        deadline = time.monotonic() + 10
        while portaudio.streams[0]._thread.is_alive() and time.monotonic() < deadline:  # type: ignore[union-attr]
            time.sleep(0.01)
        rest = []
        with pytest.raises(AudioError, match="the device stopped"):
            for block in blocks:
                rest.append(block)
        kept = np.concatenate([first, *rest])
        assert microphone.overflows == 1
        assert 29 * 320 <= microphone.dropped == 40 * 320 - len(kept)
        assert np.array_equal(kept[: 9 * 320], ramp(9 * 320)[:, 0])


def test_microphone_that_stops(portaudio: FakePortAudio) -> None:
    with Microphone(reopen=False) as microphone:
        blocks = iter(microphone)
        assert len([next(blocks) for _ in range(10)]) == 10
        assert refused(lambda: next(blocks)) == "Built-in Audio: expected audio, but the device stopped"


def test_microphone_that_stalls(portaudio: FakePortAudio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "STALL_S", 0.1)
    portaudio.then = "stall"
    with Microphone(reopen=False) as microphone:
        assert refused(lambda: list(microphone)) == "Built-in Audio: expected audio, got none for 0.1 s"
    assert portaudio.streams[0].calls == ["start", "abort", "close"]


def test_microphone_that_cannot_start(portaudio: FakePortAudio) -> None:
    portaudio.start_error = "Device unavailable [PaErrorCode -9985]"
    with Microphone(reopen=False) as microphone:
        assert refused(lambda: next(iter(microphone))) == (
            "Built-in Audio: cannot be started: Device unavailable [PaErrorCode -9985]"
        )


def test_microphone_that_cannot_be_opened(portaudio: FakePortAudio) -> None:
    portaudio.accepts = set()
    assert refused(Microphone) == (
        "Built-in Audio: cannot be opened, neither at 16000 Hz mono nor at its own 48000 Hz with 2 channels: "
        "Invalid sample rate [PaErrorCode -9997]"
    )


@pytest.mark.parametrize("then", ["stop", "stall"])
def test_lost_microphone_is_opened_again(
    portaudio: FakePortAudio, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    monkeypatch.setattr(sources, "STALL_S", 0.1)
    portaudio.script = [(10, then)]
    portaudio.n_blocks = 1000
    portaudio.pause_s = 0.001
    start_s = time.monotonic()
    with Microphone() as microphone:
        heard = list(islice(((block, microphone.dropped) for block in microphone), 20))
        elapsed = (time.monotonic() - start_s) * 16000
    assert np.array_equal(np.concatenate([block for block, _ in heard[:10]]), ramp(3200)[:, 0])
    assert np.array_equal(np.concatenate([block for block, _ in heard[10:]]), ramp(3200)[:, 0])
    assert {n_lost for _, n_lost in heard[:10]} == {0}
    (n_lost,) = {n_lost for _, n_lost in heard[10:]}
    pause = (0.02 + (0.1 if then == "stall" else 0)) * 16000
    assert pause - 320 <= n_lost <= elapsed
    assert (microphone.dropped, microphone.overflows) == (n_lost, 1)
    assert portaudio.streams[0].closed and portaudio.n_restarts == 1
    why = "but the device stopped" if then == "stop" else "got none for 0.1 s"
    went, back = caplog.messages
    assert went == f"Built-in Audio: expected audio, {why}; it is opened again as soon as it can be"
    assert back == f"Built-in Audio: audio comes again, after {n_lost / 16000:.1f} s without"


def test_lost_microphone_is_awaited_with_growing_pauses(
    portaudio: FakePortAudio, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "MAX_RETRY_S", 0.08)
    devices = portaudio.devices
    moved = [devices[1], devices[4], devices[2], devices[3], devices[0]]  # it is back under another number
    portaudio.found = [[], devices[1:4], devices[1:4], devices[1:4], moved]
    waits: list[float] = []
    with Microphone("array") as microphone:
        wait = microphone._closed.wait
        monkeypatch.setattr(microphone._closed, "wait", lambda pause_s: waits.append(pause_s) or wait(pause_s))
        assert len(list(islice(microphone, 15))) == 15
        assert (microphone.device.index, microphone.name) == (1, "USB Microphone Array")
    assert waits == [0.02, 0.04, 0.08, 0.08, 0.08]
    assert [stream.device for stream in portaudio.streams] == [4, 1]
    assert len(caplog.messages) == 2


def test_a_device_that_comes_and_goes_is_tried_less_and_less(
    portaudio: FakePortAudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    portaudio.n_blocks = 2
    waits: list[float] = []
    with Microphone() as microphone:
        wait = microphone._closed.wait
        monkeypatch.setattr(microphone._closed, "wait", lambda pause_s: waits.append(pause_s) or wait(pause_s))
        list(islice(microphone, 8))
    assert waits == [0.02, 0.04, 0.08]


def test_microphone_that_cannot_start_yet(portaudio: FakePortAudio, caplog: pytest.LogCaptureFixture) -> None:
    portaudio.start_error = "Device unavailable [PaErrorCode -9985]"
    with Microphone() as microphone:
        threading.Timer(0.1, lambda: setattr(portaudio, "start_error", "")).start()
        assert len(list(islice(microphone, 3))) == 3
        assert (microphone.dropped, microphone.overflows) == (0, 0), "the stream begins with the first block"
    assert caplog.messages == [
        "Built-in Audio: cannot be started: Device unavailable [PaErrorCode -9985]; "
        "it is opened again as soon as it can be",
        "Built-in Audio: audio comes",
    ]


def test_portaudio_is_not_pulled_away_from_others(portaudio: FakePortAudio) -> None:
    other = Microphone(2)
    with Microphone() as microphone:
        assert len(list(islice(microphone, 15))) == 15
        assert portaudio.n_restarts == 0
        other.close()
        assert len(list(islice(microphone, 15))) == 15
        assert portaudio.n_restarts == 1


def test_portaudio_that_does_not_start_at_once(portaudio: FakePortAudio, monkeypatch: pytest.MonkeyPatch) -> None:
    initialize = portaudio._initialize

    def fail() -> None:
        monkeypatch.setattr(portaudio, "_initialize", initialize)
        raise FakePortAudioError("Error initializing PortAudio")

    monkeypatch.setattr(portaudio, "_initialize", fail)
    with Microphone() as microphone:
        assert len(list(islice(microphone, 15))) == 15
    assert portaudio.n_restarts == 1


def test_close_ends_the_waiting_for_a_lost_device(portaudio: FakePortAudio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "RETRY_S", 60)
    microphone = Microphone()
    start_s = time.monotonic()
    timer = close_soon(microphone, 0.1)
    assert len(list(microphone)) == 10
    timer.join()
    assert time.monotonic() - start_s < 5


def test_stream_that_does_not_end(portaudio: FakePortAudio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "STALL_S", 0.1)
    monkeypatch.setattr(sources, "ENDING_S", 0.05)
    unregistered: list[Any] = []
    monkeypatch.setattr("atexit.unregister", unregistered.append)
    portaudio.then = "stall"
    portaudio.hangs.clear()
    with Microphone() as microphone:
        timer = close_soon(microphone, 0.5)
        assert len(list(microphone)) == 10
        timer.join()
    assert len(portaudio.streams) == 1, "one that hangs is not opened a second time"
    assert portaudio.n_restarts == 0
    assert unregistered[0] == portaudio._exit_handler


def test_program_that_ends_without_closing(portaudio: FakePortAudio, monkeypatch: pytest.MonkeyPatch) -> None:
    portaudio.then = "stall"
    microphone = Microphone()
    blocks = iter(microphone)
    next(blocks)
    monkeypatch.setattr(sys, "is_finalizing", lambda: True)
    blocks.close()  # type: ignore[attr-defined]
    assert portaudio.streams[0].calls == ["start"], "no thread could be started to end it"


def test_silence_is_reported_once(
    portaudio: FakePortAudio, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "SILENCE_S", 0.1)
    message = "Built-in Audio: delivers only silence (zeros for 0.1 s): muted, or no permission?"
    portaudio.n_blocks = 1_000_000
    portaudio.pause_s = 0.001
    portaudio.is_muted = True
    reports = []
    with Microphone(queue_s=0.02) as microphone:
        for number, _ in enumerate(microphone):
            reports.append(caplog.messages.count(message))
            portaudio.is_muted = not 50 <= number < 60
            if number == 120:
                break
    assert reports[3:6] == [0, 1, 1]
    assert reports[50] == 1
    assert reports[-1] == 2


def test_close_ends_the_iteration_of_another_thread(portaudio: FakePortAudio) -> None:
    portaudio.then = "stall"
    microphone = Microphone()
    blocks: list[Any] = []
    reader = threading.Thread(target=lambda: blocks.extend(microphone))
    reader.start()
    deadline = time.monotonic() + 10
    while len(blocks) < 10 and time.monotonic() < deadline:
        time.sleep(0.01)
    microphone.close()
    reader.join(10)
    assert not reader.is_alive()
    assert len(blocks) == 10


def test_ctrl_c_stops_the_recording(portaudio: FakePortAudio) -> None:
    portaudio.n_blocks = 1_000_000
    portaudio.pause_s = 0.001
    with pytest.raises(KeyboardInterrupt), Microphone() as microphone:
        for number, _ in enumerate(microphone):
            if number == 5:
                raise KeyboardInterrupt
    assert portaudio.streams[0].calls == ["start", "abort", "close"]
    assert portaudio.streams[0]._thread is None


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        (None, 0),
        (0, 0),
        (3, 3),
        ("built-in", 0),
        ("array", 4),
        ("USB Microphone, ALSA", 2),
        ("microphone, jack", 3),
        ("Built-in Audio", 0),
    ],
)
def test_device_by_index_or_name(portaudio: FakePortAudio, wanted: int | str | None, index: int) -> None:
    with Microphone(wanted) as microphone:
        assert microphone.device.index == index
        assert portaudio.streams[0].device == index


def test_device_of_an_exact_name_wins(portaudio: FakePortAudio) -> None:
    del portaudio.devices[3]
    with Microphone("USB Microphone") as microphone:
        assert microphone.device.index == 2


def test_devices_that_do_not_fit(portaudio: FakePortAudio) -> None:
    listing = "0: Built-in Audio, ALSA; 2: USB Microphone, ALSA; 3: USB Microphone, JACK; 4: USB Microphone Array, JACK"
    assert refused(lambda: Microphone("blue")) == f"expected an audio input, got 'blue'; there are {listing}"
    assert refused(lambda: Microphone("Speakers")) == f"expected an audio input, got 'Speakers'; there are {listing}"
    assert refused(lambda: Microphone(1)) == f"expected an audio input, got 1; there are {listing}"
    assert refused(lambda: Microphone("usb")) == (
        f"expected one audio input, got 'usb', which fits {listing.split('; ', 1)[1]}"
    )
    portaudio.default = -1
    assert refused(Microphone) == f"expected a default audio input, found none; choose one of {listing}"
    portaudio.devices = []
    assert refused(Microphone) == "expected an audio input, found none on this machine"


@pytest.mark.parametrize(("block_s", "queue_s"), [(0, 5), (-1, 5), (1, 0.5), (0.02, 1000), (float("nan"), 5)])
def test_impossible_block_lengths(portaudio: FakePortAudio, block_s: float, queue_s: float) -> None:
    with pytest.raises(ConfigError) as error:
        Microphone(block_s=block_s, queue_s=queue_s)
    assert str(error.value) == (
        f"expected 0.001 <= block_s <= queue_s <= 600, got block_s={block_s}, queue_s={queue_s}"
    )


def test_sounddevice_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    for make in (Microphone, input_devices):
        with pytest.raises(MissingExtraError, match=r"^the microphone needs sounddevice: pip install sounddevice$"):
            make()


def test_portaudio_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_library(name: str, path: Any, target: Any = None) -> None:
        if name == "sounddevice":
            raise OSError("PortAudio library not found")

    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(sys, "meta_path", [SimpleNamespace(find_spec=no_library), *sys.meta_path])
    with pytest.raises(MissingExtraError) as error:
        Microphone()
    assert str(error.value) == "the microphone needs the PortAudio library: apt install libportaudio2"
