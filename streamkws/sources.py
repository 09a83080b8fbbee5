"""Sources: where audio comes from, as iterables of 16 kHz mono blocks."""

from __future__ import annotations

import atexit
import gc
import logging
import os
import queue
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from streamkws.audio import BLOCK_SAMPLES, SAMPLE_RATE, AudioFile, Resampler, Samples, valid_samples
from streamkws.errors import AudioError, ConfigError, MissingExtraError

STALL_S = 5.0
"""Seconds without a sample after which a microphone counts as dead."""

SILENCE_S = 5.0
"""Seconds of nothing but zeros after which a microphone is reported: even a quiet room makes noise."""

RETRY_S, MAX_RETRY_S = 0.5, 10.0
"""Seconds before a lost microphone is opened again: at first, and at most; they double from try to try."""

REPORT_S = 10.0
"""Least seconds between two reports of lost audio."""

ENDING_S = 2.0
"""Seconds that PortAudio gets to end a stream."""

COMMON_RATES = (16000, 44100, 48000)
"""Hz; what open_rates tries."""

READ_BYTES = 1 << 16
"""Most that is taken from a pipe at once: what a Linux pipe holds."""

Source: TypeAlias = "str | os.PathLike[str] | npt.NDArray[Any] | Iterable[Samples]"
"""What open_source takes: a path, "-", samples, or an iterable of blocks such as an AudioSource."""

log = logging.getLogger(__name__)

_OPENING = threading.Lock()  # PortAudio is one for the whole process
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


def open_rates(device: InputDevice) -> tuple[int, ...]:
    """The sample rates among COMMON_RATES and its own that a device can be opened at now; none if it is busy.

    Raises MissingExtraError without sounddevice or PortAudio.
    """
    sounddevice = _sounddevice()

    def opens(rate: int, n_channels: int) -> bool:
        try:
            sounddevice.check_input_settings(device.index, n_channels, "float32", samplerate=rate)
        except (sounddevice.PortAudioError, ValueError):
            return False
        return True

    rates = sorted({*COMMON_RATES, device.sample_rate})
    return tuple(rate for rate in rates if any(opens(rate, n) for n in {1, device.n_channels}))


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

    It is opened at 16 kHz mono or, where the device refuses that, at its own rate, mixed down and resampled. A device
    that disappears, stops or stalls is opened again, after pauses that grow from RETRY_S to MAX_RETRY_S; the iteration
    goes on where audio comes again, and the time without any counts as lost, so that times stay in step with the
    clock on the wall. The outage, its end, a device that delivers only zeros, and audio that was lost because
    the reader was late are logged, once each or every REPORT_S, as warnings of the logger "streamkws.sources".

    device: index, or part of "name, host API" in any case; None is the system's default input.
    block_s: seconds of audio in a block.
    queue_s: seconds of audio that wait for a reader who is late; what comes beyond is dropped.
    reopen: whether to open a lost device again, under the same name. PortAudio knows only the devices that were there
        when it started: it is then started anew, unless the process has another sounddevice stream open.

    dropped: samples (at 16 kHz) lost so far; it grows just before the block that follows the gap is given.
    overflows: times that samples were lost.
    device: the InputDevice. rate, n_channels: what it was opened at.

    Raises MissingExtraError without sounddevice or PortAudio, ConfigError for block_s or queue_s that cannot be,
    AudioError for a device that is unknown, ambiguous, cannot be opened, and while iterating, unless it may be opened
    again, if it cannot be started, stops or stalls.
    """

    def __init__(
        self, device: int | str | None = None, block_s: float = 0.02, queue_s: float = 5.0, reopen: bool = True
    ) -> None:
        if not 0.001 <= block_s <= queue_s <= 600:
            raise ConfigError(f"expected 0.001 <= block_s <= queue_s <= 600, got block_s={block_s}, queue_s={queue_s}")
        self._sounddevice = _sounddevice()
        self._block_s = block_s
        self._queue_s = queue_s
        self._reopen = reopen
        self._closed = threading.Event()
        self.dropped = 0
        self.overflows = 0
        self._is_lost = False  # and not yet back
        self._came_s = 0.0  # when the last block came; 0: none has
        self._back_s = 0.0  # when the first did, or the first after an outage
        self._n_zeros = 0  # frames since the last that was not zero
        self._reported_s, self._n_reported = float("-inf"), 0  # when lost samples were last reported, and how many
        self._pause_s = RETRY_S
        with _OPENING:
            self._open(_find_input(device))

    def _open(self, device: InputDevice) -> None:
        self._recording = _Recording(self._sounddevice, device, self._block_s, self._queue_s)
        self.device, self.name = device, device.name
        self.rate, self.n_channels = self._recording.rate, self._recording.n_channels

    def __iter__(self) -> Iterator[Samples]:
        if self._closed.is_set():
            raise AudioError(f"{self.name}: expected an open microphone, got a closed one")
        self._is_lost = False
        self._came_s = 0.0
        self._n_zeros = 0
        if self._recording.is_ended():
            with _OPENING:
                self._open(self.device)
        try:
            while not self._closed.is_set():
                try:
                    self._recording.start()
                    yield from self._blocks(self._recording)
                except AudioError as error:
                    if self._closed.is_set():
                        return
                    if not self._reopen:
                        self._lose(self._recording.n_lost)
                        raise
                    if not self._is_lost:
                        self._is_lost = True
                        log.warning("%s; it is opened again as soon as it can be", error)
                    self._open_again()
        finally:
            self._end()

    def _blocks(self, recording: _Recording) -> Iterator[Samples]:
        """Blocks at 16 kHz until the recording ends, which raises AudioError."""
        resampler = Resampler(recording.rate, recording.n_channels)
        is_first = True
        try:
            while True:
                frames, n_lost, came_s = recording.read()
                if is_first:
                    n_lost += self._begin(came_s, len(frames) / recording.rate)
                    is_first = False
                self._came_s = came_s
                if n_lost:
                    rest = resampler.flush()
                    if len(rest):
                        yield rest
                    self._lose(n_lost)
                self._watch_for_zeros(frames)
                block = resampler.push(frames)
                if len(block):
                    yield block
        except AudioError:
            rest = resampler.flush()
            if len(rest) and not self._closed.is_set():
                yield rest
            raise

    def _begin(self, came_s: float, block_s: float) -> int:
        """Note that audio comes, and return how many samples were lost if there was an outage before."""
        self._back_s = came_s
        if not self._is_lost:
            return 0
        self._is_lost = False
        if not self._came_s:  # none has come so far: the stream begins here
            log.warning("%s: audio comes", self.name)
            return 0
        gap_s = max(0.0, came_s - block_s - self._came_s)
        log.warning("%s: audio comes again, after %.1f s without", self.name, gap_s)
        n_lost = round(gap_s * SAMPLE_RATE)
        self._reported_s, self._n_reported = came_s, self.dropped + n_lost
        return n_lost

    def _lose(self, n_samples: int) -> None:
        """Count lost samples, and report them unless there was a report just now."""
        if not n_samples:
            return
        self.dropped += n_samples
        self.overflows += 1
        if self._came_s >= self._reported_s + REPORT_S:
            lost_s, whole_s = (self.dropped - self._n_reported) / SAMPLE_RATE, self.dropped / SAMPLE_RATE
            log.warning("%s: lost %.2f s of audio, %.2f s so far", self.name, lost_s, whole_s)
            self._reported_s, self._n_reported = self._came_s, self.dropped

    def _watch_for_zeros(self, frames: npt.NDArray[np.float32]) -> None:
        if frames.any():
            self._n_zeros = 0
            return
        limit = round(SILENCE_S * self.rate)
        if self._n_zeros < limit <= self._n_zeros + len(frames):
            log.warning("%s: delivers only silence (zeros for %g s): muted, or no permission?", self.name, SILENCE_S)
        self._n_zeros += len(frames)

    def _open_again(self) -> None:
        """Open the device as soon as it can be; give up when the microphone is closed."""
        if self._came_s - self._back_s > MAX_RETRY_S:  # one that comes and goes finds the pauses as long as they were
            self._pause_s = RETRY_S
        self._recording.end()
        while not self._closed.wait(self._pause_s):
            self._pause_s = min(2 * self._pause_s, MAX_RETRY_S)
            if self._recording.is_ended():
                with suppress(AudioError, self._sounddevice.PortAudioError), _OPENING:
                    if not _is_in_use(self._sounddevice):
                        _restart(self._sounddevice)
                    self._open(_find_again(self.device))
                    return

    def _end(self) -> None:
        self._recording.end()
        if not self._recording.is_ended():  # PortAudio would wait for it when the program ends, too
            atexit.unregister(self._sounddevice._exit_handler)

    def close(self) -> None:
        """Close the device; an iteration under way ends."""
        self._closed.set()
        self._end()


class _Recording:
    """One opening of a device: PortAudio's callback copies blocks into a ring, from which read takes them.

    device, block_s, queue_s: as for Microphone.
    Raises AudioError for a device that cannot be opened.
    """

    def __init__(self, sounddevice: Any, device: InputDevice, block_s: float, queue_s: float) -> None:
        self._name = device.name
        self._portaudio_error = sounddevice.PortAudioError
        self._ready: queue.SimpleQueue[tuple[int, int, float] | None] = queue.SimpleQueue()  # None: the end
        self._n_put = 0  # slots filled so far; only the callback writes it
        self._n_taken = 0  # slots read so far; only read writes it
        self._n_lost_frames = 0  # frames since the last that was put
        self._called_s = time.monotonic()  # when the callback last was
        self._recorded_s = float("inf")  # where what it then got ended, by PortAudio's clock
        self._ends_by_s = 0.0  # until when it is waited for the end; 0: nobody wants it yet
        self._ended = threading.Event()
        self._lock = threading.Lock()
        own = device.sample_rate
        reason = ""
        for rate, n_channels in dict.fromkeys([(SAMPLE_RATE, 1), (own, 1), (own, device.n_channels)]):
            self.rate, self.n_channels, self._block_frames = rate, n_channels, round(block_s * rate)
            self._ring = np.empty((round(queue_s / block_s), self._block_frames, n_channels), np.float32)
            try:
                self._stream = sounddevice.InputStream(
                    samplerate=rate,
                    blocksize=self._block_frames,
                    device=device.index,
                    channels=n_channels,
                    dtype="float32",
                    callback=self._take,
                    finished_callback=self._finish,
                )
                return
            except self._portaudio_error as error:
                reason = str(error)
        raise AudioError(
            f"{self._name}: cannot be opened, neither at {SAMPLE_RATE} Hz mono "
            f"nor at its own {own} Hz with {device.n_channels} channels: {reason}"
        )

    def start(self) -> None:
        """Begin to record. Raises AudioError if the device does not."""
        with self._lock:
            if not self._ends_by_s:
                try:
                    self._stream.start()
                except self._portaudio_error as error:
                    raise AudioError(f"{self._name}: cannot be started: {error}") from None

    def _take(self, audio: npt.NDArray[np.float32], n_frames: int, times: Any, status: Any) -> None:
        """PortAudio's callback, in its own thread: copy a block into the ring and say so."""
        now_s, began_s = time.monotonic(), times.inputBufferAdcTime
        if status.input_overflow:
            # PortAudio does not tell how much it cost: a block, or what its clock says, which may be set meanwhile
            gap_s = min(began_s - self._recorded_s, now_s - self._called_s)
            self._n_lost_frames += round(max(self._block_frames, gap_s * self.rate))
        self._called_s, self._recorded_s = now_s, began_s + n_frames / self.rate
        if self._n_put - self._n_taken < len(self._ring):
            self._ring[self._n_put % len(self._ring), :n_frames] = audio
            self._n_put += 1
            self._ready.put((n_frames, self._n_lost_frames, now_s))
            self._n_lost_frames = 0
        else:
            self._n_lost_frames += n_frames

    def _finish(self) -> None:
        self._ready.put(None)

    def read(self) -> tuple[npt.NDArray[np.float32], int, float]:
        """Wait for a block, (n, n_channels), and return it, the samples (at 16 kHz) lost before it, and when it came.

        Raises AudioError if the device stopped or stalls.
        """
        try:
            slot = self._ready.get(timeout=STALL_S)
        except queue.Empty:
            try:
                slot = self._ready.get(timeout=STALL_S / 10)  # it may be this process that was stopped
            except queue.Empty:
                raise AudioError(f"{self._name}: expected audio, got none for {STALL_S:g} s") from None
        if slot is None:
            raise AudioError(f"{self._name}: expected audio, but the device stopped")
        n_frames, n_lost, came_s = slot
        frames = self._ring[self._n_taken % len(self._ring), :n_frames].copy()
        self._n_taken += 1
        return frames, self._samples(n_lost), came_s

    @property
    def n_lost(self) -> int:
        """Samples at 16 kHz that were lost after the last block."""
        return self._samples(self._n_lost_frames)

    def _samples(self, n_frames: int) -> int:
        return round(n_frames * SAMPLE_RATE / self.rate)

    def end(self) -> None:
        """End the recording and whoever waits in read, within ENDING_S.

        While a sound server hangs, so do PortAudio's calls: a thread waits for them then, and is left to do so.
        """
        if sys.is_finalizing():
            return  # no thread starts any more, and PortAudio has ended its streams
        with self._lock:
            if not self._ends_by_s:
                self._ends_by_s = time.monotonic() + ENDING_S
                self._ready.put(None)
                threading.Thread(target=self._end, daemon=True).start()
        self._ended.wait(max(0.0, self._ends_by_s - time.monotonic()))

    def _end(self) -> None:
        self._stream.abort()
        self._stream.close()
        self._ended.set()

    def is_ended(self) -> bool:
        """Whether PortAudio has let go of the stream."""
        return self._ended.is_set()


def _is_in_use(sounddevice: Any) -> bool:
    """Whether this process has a sounddevice stream, anybody's; starting PortAudio anew would pull it away."""
    gc.collect()  # a stream that could not be opened refers to itself, and looks open
    streams = (thing for thing in gc.get_objects() if issubclass(type(thing), sounddevice._StreamBase))
    return any(not getattr(stream, "closed", True) for stream in streams)


def _restart(sounddevice: Any) -> None:
    """Start PortAudio anew, so that it sees the devices there are now. Raises PortAudioError if it does not start."""
    with suppress(sounddevice.PortAudioError):  # as if it did not start the last time
        sounddevice._terminate()
    sounddevice._initialize()


def _find_again(device: InputDevice) -> InputDevice:
    """The input that has the name of one that was lost."""
    names = (device.name, device.host_api)
    same = [other for other in input_devices() if (other.name, other.host_api) == names]
    if not same:
        raise AudioError(f"{device.name}: expected an audio input of this name, found none")
    return next((other for other in same if other.index == device.index), same[0])


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
