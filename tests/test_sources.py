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
from dataclasses import dataclass, field
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
from streamkws.sources import Blocks, FileSource, InputDevice, Microphone, RawSource, input_devices, open_source

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


@dataclass
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
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self.calls.append("start")
        if self.audio.start_error:
            raise FakePortAudioError(self.audio.start_error)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._record)
        self._thread.start()

    def _record(self) -> None:
        buffer = np.empty((self.blocksize, self.channels), np.float32)  # one buffer, as PortAudio has
        for number in range(self.audio.n_blocks):
            if self._stop.is_set():
                break
            ramp = np.arange(number * self.blocksize, (number + 1) * self.blocksize) % 30000 / 32768
            buffer[:] = ramp[:, None] * (1 + np.arange(self.channels))
            flags = SimpleNamespace(input_overflow=number in self.audio.overflows)
            self.callback(buffer, self.blocksize, None, flags)
            buffer[:] = np.nan
            time.sleep(self.audio.pause_s)
        if self.audio.then == "stall":
            self._stop.wait(20)
        self.finished_callback()

    def abort(self) -> None:
        self.calls.append("abort")
        if self._thread is not None:
            self._stop.set()
            self._thread.join()
            self._thread = None

    def close(self) -> None:
        self.abort()
        self.calls.append("close")


class FakePortAudio(ModuleType):
    """The parts of sounddevice that Microphone uses, with devices and a script of its own.

    accepts: (device, rate, channels) that can be opened; None is all.
    """

    PortAudioError = FakePortAudioError

    def __init__(self) -> None:
        super().__init__("sounddevice")
        self.devices = [
            self.device("Built-in Audio", 0, 2, 48000.0),
            self.device("Speakers", 0, 0, 48000.0),
            self.device("USB Microphone", 0, 1, 44100.0),
            self.device("USB Microphone", 1, 1, 44100.0),
            self.device("USB Microphone Array", 1, 6, 16000.0),
        ]
        for index, device in enumerate(self.devices):
            device["index"] = index
        self.default = 0
        self.accepts: set[tuple[int, int, int]] | None = None
        self.n_blocks = 10
        self.pause_s = 0.0
        self.overflows: set[int] = set()
        self.then = "stop"
        self.start_error = ""
        self.streams: list[FakeStream] = []

    @staticmethod
    def device(name: str, host_api: int, n_channels: int, rate: float) -> dict[str, Any]:
        return {"name": name, "hostapi": host_api, "max_input_channels": n_channels, "default_samplerate": rate}

    def query_devices(self, device: Any = None, kind: str | None = None) -> Any:
        if kind is None:
            return self.devices
        if self.default < 0:
            raise FakePortAudioError("Error querying device -1")
        return self.devices[self.default]

    def query_hostapis(self) -> Any:
        return ({"name": "ALSA"}, {"name": "JACK"})

    def InputStream(self, **settings: Any) -> FakeStream:
        if self.accepts is not None and not (
            self.accepts & {(settings["device"], settings["samplerate"], settings["channels"])}
        ):
            raise FakePortAudioError("Invalid sample rate [PaErrorCode -9997]")
        self.streams.append(FakeStream(self, **settings))
        return self.streams[-1]


@pytest.fixture
def portaudio(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakePortAudio]:
    fake = FakePortAudio()
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    yield fake
    for stream in fake.streams:
        stream.abort()


def ramp(n: int, n_channels: int = 1) -> npt.NDArray[np.float32]:
    """What FakeStream records, every channel at its level."""
    levels = np.arange(n) % 30000 / 32768
    return (levels[:, None] * (1 + np.arange(n_channels))).astype(np.float32)


def record(microphone: Microphone, n_blocks: int) -> npt.NDArray[np.float32]:
    return np.concatenate([as_float(block) for block in islice(microphone, n_blocks)])


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
    with Microphone(device) as microphone:
        assert (microphone.rate, microphone.n_channels) == (rate, n_channels)
        blocks = []
        with pytest.raises(AudioError, match="the device stopped"):
            for block in microphone:
                blocks.append(block)
    resampled = Resampler(rate, n_channels).push(ramp(50 * rate // 50, n_channels))
    assert len(resampled) > 14000
    assert np.array_equal(np.concatenate(blocks), resampled)
    assert microphone.sample_rate == 16000


def test_microphone_records_only_while_it_is_iterated(portaudio: FakePortAudio) -> None:
    portaudio.then = "stall"
    microphone = Microphone()
    assert portaudio.streams[0].calls == []
    assert np.array_equal(record(microphone, 3), ramp(960)[:, 0])
    assert portaudio.streams[0].calls == ["start", "abort"]
    assert np.array_equal(record(microphone, 3), ramp(960)[:, 0]), "old audio must not come again"
    microphone.close()
    microphone.close()
    assert portaudio.streams[0].calls == ["start", "abort", "start", "abort", "abort", "close"]
    assert refused(lambda: next(iter(microphone))) == ("Built-in Audio: expected an open microphone, got a closed one")


def test_audio_lost_by_the_device_is_counted(portaudio: FakePortAudio) -> None:
    portaudio.accepts = {(2, 44100, 1)}
    portaudio.overflows = {3, 7}
    with Microphone("USB Microphone, ALSA") as microphone:
        assert refused(lambda: list(microphone)) == "USB Microphone: expected audio, but the device stopped"
        assert (microphone.dropped, microphone.overflows) == (2 * 320, 2)


def test_audio_that_waits_too_long_is_dropped_and_counted(portaudio: FakePortAudio) -> None:
    portaudio.n_blocks = 40
    with Microphone(block_s=0.02, queue_s=0.2) as microphone:
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
        assert microphone.overflows >= 29
        assert microphone.dropped == microphone.overflows * 320 == 40 * 320 - len(kept)
        assert np.array_equal(kept[: 9 * 320], ramp(9 * 320)[:, 0])


def test_microphone_that_stops(portaudio: FakePortAudio) -> None:
    with Microphone() as microphone:
        blocks = iter(microphone)
        assert len([next(blocks) for _ in range(10)]) == 10
        assert refused(lambda: next(blocks)) == "Built-in Audio: expected audio, but the device stopped"


def test_microphone_that_stalls(portaudio: FakePortAudio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "STALL_S", 0.1)
    portaudio.then = "stall"
    with Microphone() as microphone:
        assert refused(lambda: list(microphone)) == "Built-in Audio: expected audio, got none for 0.1 s"
    assert portaudio.streams[0].calls == ["start", "abort", "abort", "close"]


def test_microphone_that_cannot_start(portaudio: FakePortAudio) -> None:
    portaudio.start_error = "Device unavailable [PaErrorCode -9985]"
    with Microphone() as microphone:
        assert refused(lambda: next(iter(microphone))) == (
            "Built-in Audio: cannot be started: Device unavailable [PaErrorCode -9985]"
        )


def test_microphone_that_cannot_be_opened(portaudio: FakePortAudio) -> None:
    portaudio.accepts = set()
    assert refused(Microphone) == (
        "Built-in Audio: cannot be opened, neither at 16000 Hz mono nor at its own 48000 Hz with 2 channels: "
        "Invalid sample rate [PaErrorCode -9997]"
    )


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
    assert portaudio.streams[0].calls[-1] == "close"
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
