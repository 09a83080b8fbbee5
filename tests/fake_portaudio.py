"""A fake PortAudio, as the part of sounddevice that the package uses."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from streamkws.sources import microphone


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
            self.audio.goes_on.wait(20)
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


@dataclass(eq=False)
class FakeOutput:
    """A stream that plays into a list in a thread, as fast as it can.

    played: samples of the first channel, without the silence behind the end.
    """

    audio: FakePortAudio
    samplerate: int
    device: Any
    channels: int
    dtype: str
    callback: Callable[..., None]
    finished_callback: Callable[[], None]
    played: list[float] = field(default_factory=list)
    closed: bool = False
    _thread: threading.Thread | None = None

    def start(self) -> None:
        if self.audio.play_error:
            raise FakePortAudioError(self.audio.play_error)
        if not self.audio.output_stalls:
            self._thread = threading.Thread(target=self._play)
            self._thread.start()

    def _play(self) -> None:
        n_blocks = 0
        buffer = np.empty((512, self.channels), np.float32)
        while not self.closed and n_blocks != self.audio.output_stops:
            buffer[:] = np.nan
            try:
                self.callback(buffer, len(buffer), None, None)
            except FakeCallbackStop:
                break
            finally:
                self.played += buffer[:, 0].tolist()
            n_blocks += 1
        self.finished_callback()

    def abort(self) -> None:
        self.closed = True
        if self._thread is not None:
            self._thread.join()

    def close(self) -> None:
        self.audio.hangs.wait(20)
        self.closed = True


class FakeCallbackStop(Exception):
    pass


class FakePortAudio(ModuleType):
    """The parts of sounddevice that Microphone uses, with devices and a script of its own.

    accepts: (device, rate, channels) that can be opened; None is all.
    n_blocks, then: what a stream records, and whether it then stops or stalls; script: the same for the first streams.
    overflow_s, clock_gap_s: how long an overflow takes, and by how much PortAudio's clock goes on at one.
    hangs: cleared, ending a stream hangs. goes_on: cleared, a stream waits after each block.
    outputs: rates that an output opens at; its own is 48 kHz. play_error, output_stalls, output_stops: how playing
        fails; the last is the number of blocks after which it does.
    found: the devices that starting PortAudio anew finds, time after time; at the end those that were there.
    """

    PortAudioError = FakePortAudioError
    CallbackStop = FakeCallbackStop
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
        self.goes_on = threading.Event()
        self.hangs.set()
        self.goes_on.set()
        self.start_error = ""
        self.streams: list[FakeStream] = []
        self.outputs: set[int] = {16000, 48000}
        self.has_output = True
        self.play_error = ""
        self.output_stalls = False
        self.output_stops = -1
        self.played: list[FakeOutput] = []
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
        if kind == "output":
            if not self.has_output:
                raise FakePortAudioError("Error querying device -1")
            if device not in (None, 1, "Speakers"):
                raise ValueError(f"No output device matching {device!r}")
            return devices[1]
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

    def OutputStream(self, **settings: Any) -> FakeOutput:
        if settings["samplerate"] not in self.outputs:
            raise FakePortAudioError("Invalid sample rate [PaErrorCode -9997]")
        self.played.append(FakeOutput(self, **settings))
        return self.played[-1]

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


def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakePortAudio]:
    """The body of a fixture: sounddevice is this fake, and a lost device is opened again without much waiting."""
    fake = FakePortAudio()
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    monkeypatch.setattr(microphone, "RETRY_S", 0.02)
    yield fake
    fake.hangs.set()
    for stream in fake.streams:
        stream.abort()
        stream.close()


def ramp(n: int, n_channels: int = 1) -> npt.NDArray[np.float32]:
    """What FakeStream records, every channel at its level."""
    levels = np.arange(n) % 30000 / 32768
    return (levels[:, None] * (1 + np.arange(n_channels))).astype(np.float32)
