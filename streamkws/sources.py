"""Sources: where audio comes from, as iterables of 16 kHz mono blocks."""

from __future__ import annotations

import os
import queue
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from streamkws.audio import BLOCK_SAMPLES, SAMPLE_RATE, AudioFile, Resampler, Samples, valid_samples
from streamkws.errors import AudioError, ConfigError, MissingExtraError

STALL_S = 5.0
"""Seconds without a sample after which a microphone counts as dead."""

READ_BYTES = 1 << 16
"""Most that is taken from a pipe at once: what a Linux pipe holds."""

Source: TypeAlias = "str | os.PathLike[str] | npt.NDArray[Any] | Iterable[Samples]"
"""What open_source takes: a path, "-", samples, or an iterable of blocks such as an AudioSource."""

_Self = TypeVar("_Self", bound="AudioSource")
_FILE_MAGIC = (b"RIFF", b"fLaC", b"OggS", b"ID3\x02", b"ID3\x03", b"ID3\x04")


class AudioSource(ABC):
    """Audio as an iterable of blocks, each (n,) int16 or float32 samples; a context manager that closes itself.

    name: what to call it in messages.
    duration_s: seconds of audio, None where that is not known beforehand.
    sample_rate: of the blocks, Hz.
    """

    name: str
    duration_s: float | None = None
    sample_rate: int = SAMPLE_RATE

    @abstractmethod
    def __iter__(self) -> Iterator[Samples]: ...

    @abstractmethod
    def close(self) -> None:
        """End the source; an iteration under way ends."""

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class FileSource(AudioSource):
    """A recording, as AudioFile decodes it; can be gone through once.

    path, block_samples, Raises: as for AudioFile.
    """

    def __init__(self, path: str | os.PathLike[str], block_samples: int = BLOCK_SAMPLES) -> None:
        self._file = AudioFile(path, block_samples)
        self.name = self._file.name
        self.duration_s = self._file.duration_s

    def __iter__(self) -> Iterator[Samples]:
        return iter(self._file)

    def close(self) -> None:
        """Close the file; an iteration under way ends."""
        self._file.close()


class RawSource(AudioSource):
    """Raw samples from a pipe: int16, little endian, 16 kHz, mono; each block is what the pipe held.

    stream: a binary stream; None is standard input. It is the caller's, and stays open.

    trailing_bytes: 1 if the stream ended in the middle of a sample, which is then ignored.
    Raises AudioError for a stream that is a terminal, closed, or holds an audio file instead of raw samples.
    """

    def __init__(self, stream: IO[bytes] | None = None) -> None:
        self.name = "standard input" if stream is None else str(getattr(stream, "name", "stream"))
        self.trailing_bytes = 0
        if stream is None:
            if sys.stdin is None or sys.stdin.closed:
                raise AudioError(f"{self.name}: expected an open stream, got a closed one")
            stream = sys.stdin.buffer
        if stream.closed:
            raise AudioError(f"{self.name}: expected an open stream, got a closed one")
        if stream.isatty():
            raise AudioError(f"{self.name}: expected raw 16 kHz mono int16 audio, got a terminal")
        self._read = getattr(stream, "read1", stream.read)  # read would wait until it has all that was asked for
        self._closed = False

    def __iter__(self) -> Iterator[Samples]:
        data = b""
        checked = False
        ended = False
        while not (self._closed or ended):
            try:
                new = self._read(READ_BYTES)
            except (OSError, ValueError) as error:
                raise AudioError(f"{self.name}: {getattr(error, 'strerror', None) or error}") from None
            if new is None:
                raise AudioError(f"{self.name}: expected a blocking stream, got one without data yet")
            ended = not new
            data += new
            if len(data) < 4 and not ended:
                continue
            if not checked and data.startswith(_FILE_MAGIC):
                raise AudioError(
                    f"{self.name}: expected raw 16 kHz mono int16 audio, got an audio file ({data[:4]!r}); "
                    "give its path, or decode it: ffmpeg -i FILE -ac 1 -ar 16000 -f s16le -"
                )
            checked = True
            n_bytes = len(data) // 2 * 2
            if n_bytes:
                yield np.frombuffer(data[:n_bytes], "<i2").astype(np.int16)
            data = data[n_bytes:]
        self.trailing_bytes = len(data)

    def close(self) -> None:
        """End the source after the block being read; the stream itself stays open."""
        self._closed = True


class Blocks(AudioSource):
    """Blocks that somebody else makes, as a source; close leaves them as they are.

    blocks: an iterable of (n,) int16 or float32 samples at 16 kHz; its name and duration_s, if any, are taken over.
    """

    def __init__(self, blocks: Iterable[Samples]) -> None:
        self._blocks = blocks
        self.name = str(getattr(blocks, "name", "blocks"))
        self.duration_s = getattr(blocks, "duration_s", None)

    def __iter__(self) -> Iterator[Samples]:
        return iter(self._blocks)

    def close(self) -> None:
        """Do nothing: the blocks belong to whoever made them."""


def open_source(source: Source) -> AudioSource:
    """Return anything that audio can come from as an AudioSource; its close closes only what is opened here.

    source: a path; "-" for raw samples on standard input; (n,) int16 or float32 samples; an iterable of such blocks.
    Raises AudioError for anything else, and as FileSource and RawSource do.
    """
    if isinstance(source, (str, os.PathLike)):
        return RawSource() if source == "-" else FileSource(source)
    if isinstance(source, np.ndarray):
        samples = valid_samples(source)
        blocks = Blocks([samples])
        blocks.name = "samples"
        blocks.duration_s = len(samples) / SAMPLE_RATE
        return blocks
    if isinstance(source, Iterable) and not isinstance(source, (bytes, bytearray, memoryview)):
        return Blocks(source)
    raise AudioError(f'expected a path, "-", samples or an iterable of blocks, got {type(source).__name__}')


@dataclass(frozen=True)
class InputDevice:
    """An audio input of this machine.

    index: PortAudio's number of it, changes when devices come and go.
    name, host_api: what the system calls it, and the sound system it is reached through.
    n_channels: most channels it records.
    sample_rate: its own rate, Hz.
    is_default: whether Microphone() opens it.
    """

    index: int
    name: str
    host_api: str
    n_channels: int
    sample_rate: int
    is_default: bool


def input_devices() -> list[InputDevice]:
    """List the audio inputs.

    Raises MissingExtraError without sounddevice or PortAudio.
    """
    sounddevice = _sounddevice()
    try:
        default = sounddevice.query_devices(kind="input")["index"]
    except (sounddevice.PortAudioError, ValueError):
        default = -1  # there is none
    host_apis = sounddevice.query_hostapis()
    return [
        InputDevice(
            index=device["index"],
            name=device["name"],
            host_api=host_apis[device["hostapi"]]["name"],
            n_channels=device["max_input_channels"],
            sample_rate=round(device["default_samplerate"]),
            is_default=device["index"] == default,
        )
        for device in sounddevice.query_devices()
        if device["max_input_channels"] > 0
    ]


class Microphone(AudioSource):
    """An audio input, recorded while it is iterated over.

    It is opened at 16 kHz mono or, where the device refuses that, at its own rate, mixed down and resampled.

    device: index, or part of "name, host API" in any case; None is the system's default input.
    block_s: seconds of audio in a block.
    queue_s: seconds of audio that wait for a reader who is late; what comes beyond is dropped.

    dropped: samples (at 16 kHz) lost so far. PortAudio does not tell how many an overflow of the device cost; it is
        counted as one block.
    overflows: times that samples were lost.
    device: the InputDevice. rate, n_channels: what it was opened at.

    Raises MissingExtraError without sounddevice or PortAudio, ConfigError for block_s or queue_s that cannot be,
    AudioError for a device that is unknown, ambiguous, cannot be opened, and while iterating if it stops or stalls.
    """

    def __init__(self, device: int | str | None = None, block_s: float = 0.02, queue_s: float = 5.0) -> None:
        if not 0.001 <= block_s <= queue_s <= 600:
            raise ConfigError(f"expected 0.001 <= block_s <= queue_s <= 600, got block_s={block_s}, queue_s={queue_s}")
        self._sounddevice = _sounddevice()
        self.device = _find_input(device)
        self.name = self.device.name
        self.dropped = 0
        self.overflows = 0
        self._closed = False
        self._ready: queue.SimpleQueue[int | None] = queue.SimpleQueue()  # lengths of filled slots; None: the end
        self._n_put = 0  # slots filled so far; only the callback writes it
        self._n_taken = 0  # slots read so far; only the iteration writes it
        self._stream = self._open(block_s)
        self._ring = np.empty((round(queue_s / block_s), self._block_frames, self.n_channels), np.float32)

    def _open(self, block_s: float) -> Any:
        own = self.device.sample_rate
        reason = ""
        for rate, n_channels in dict.fromkeys([(SAMPLE_RATE, 1), (own, 1), (own, self.device.n_channels)]):
            self.rate, self.n_channels, self._block_frames = rate, n_channels, round(block_s * rate)
            try:
                return self._sounddevice.InputStream(
                    samplerate=rate,
                    blocksize=self._block_frames,
                    device=self.device.index,
                    channels=n_channels,
                    dtype="float32",
                    callback=self._take,
                    finished_callback=self._finish,
                )
            except self._sounddevice.PortAudioError as error:
                reason = str(error)
        raise AudioError(
            f"{self.name}: cannot be opened, neither at {SAMPLE_RATE} Hz mono "
            f"nor at its own {own} Hz with {self.device.n_channels} channels: {reason}"
        )

    def _take(self, audio: npt.NDArray[np.float32], n_frames: int, time: Any, status: Any) -> None:
        """PortAudio's callback, in its own thread: copy a block into the ring and say so."""
        lost_frames = self._block_frames if status.input_overflow else 0
        if self._n_put - self._n_taken < len(self._ring):
            self._ring[self._n_put % len(self._ring), :n_frames] = audio
            self._n_put += 1
            self._ready.put(n_frames)
        else:
            lost_frames += n_frames
        if lost_frames:
            self.overflows += 1
            self.dropped += round(lost_frames * SAMPLE_RATE / self.rate)

    def _finish(self) -> None:
        self._ready.put(None)

    def __iter__(self) -> Iterator[Samples]:
        if self._closed:
            raise AudioError(f"{self.name}: expected an open microphone, got a closed one")
        self._ready = queue.SimpleQueue()
        self._n_put = self._n_taken = 0
        resampler = Resampler(self.rate, self.n_channels)
        try:
            self._stream.start()
            while (n_frames := self._ready.get(timeout=STALL_S)) is not None:
                block = resampler.push(self._ring[self._n_taken % len(self._ring), :n_frames]).copy()
                self._n_taken += 1
                if len(block):
                    yield block
            if not self._closed:
                raise AudioError(f"{self.name}: expected audio, but the device stopped")
        except queue.Empty:
            raise AudioError(f"{self.name}: expected audio, got none for {STALL_S:g} s") from None
        except self._sounddevice.PortAudioError as error:
            raise AudioError(f"{self.name}: cannot be started: {error}") from None
        finally:
            if not self._closed:
                self._stream.abort()

    def close(self) -> None:
        """Close the device; an iteration under way ends."""
        if not self._closed:
            self._closed = True
            self._ready.put(None)
            self._stream.close()


def _find_input(wanted: int | str | None) -> InputDevice:
    devices = input_devices()
    if not devices:
        raise AudioError("expected an audio input, found none on this machine")
    full_names = {device: f"{device.name}, {device.host_api}" for device in devices}
    if wanted is None:
        fitting = [device for device in devices if device.is_default]
    elif isinstance(wanted, int):
        fitting = [device for device in devices if device.index == wanted]
    else:
        fitting = [device for device in devices if wanted.casefold() in full_names[device].casefold()]
        exact = [device for device in fitting if wanted in (device.name, full_names[device])]
        fitting = exact if len(exact) == 1 else fitting
    if len(fitting) == 1:
        return fitting[0]
    listing = "; ".join(f"{device.index}: {full_names[device]}" for device in fitting or devices)
    if wanted is None:
        raise AudioError(f"expected a default audio input, found none; choose one of {listing}")
    if fitting:
        raise AudioError(f"expected one audio input, got {wanted!r}, which fits {listing}")
    raise AudioError(f"expected an audio input, got {wanted!r}; there are {listing}")


def _sounddevice() -> Any:
    try:
        import sounddevice
    except ImportError:
        raise MissingExtraError("the microphone needs sounddevice: pip install sounddevice") from None
    except OSError:
        raise MissingExtraError("the microphone needs the PortAudio library: apt install libportaudio2") from None
    return sounddevice
