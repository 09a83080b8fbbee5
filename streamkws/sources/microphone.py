"""Microphone: an audio input, recorded while it is iterated over, and opened again when it was lost."""

from __future__ import annotations

import atexit
import logging
import threading
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import numpy.typing as npt

from streamkws.audio import SAMPLE_RATE, Resampler, Samples
from streamkws.errors import AudioError, ConfigError
from streamkws.sources.devices import InputDevice, find_again, find_input
from streamkws.sources.files import AudioSource
from streamkws.sources.portaudio import OPENING, is_in_use, load_sounddevice, restart
from streamkws.sources.recording import Recording

SILENCE_S = 5.0
"""Seconds of nothing but zeros after which a microphone is reported: even a quiet room makes noise."""

RETRY_S, MAX_RETRY_S = 0.5, 10.0
"""Seconds before a lost microphone is opened again: the first pause, and the longest; each is twice the one before."""

REPORT_S = 10.0
"""Least seconds between two reports of lost audio."""

_log = logging.getLogger(__package__)


class Microphone(AudioSource):
    """An audio input, recorded while it is iterated over.

    It is opened at 16 kHz mono. A device that refuses this is opened at its own rate, mixed down and resampled.

    A device that disappears, stops or stalls is opened again, after pauses that grow from RETRY_S to MAX_RETRY_S.
    The iteration goes on when audio comes again. The time without audio counts as lost, so that times in the stream
    keep up with the clock on the wall.

    Warnings go to the logger "streamkws.sources": when the device is lost and when it is back; when it delivers only
    zeros; and, at most every REPORT_S, when audio was lost because the reader was late.

    device: index, or part of "name, host API" in upper or lower case; None is the system's default input.
    block_s: seconds of audio in a block.
    queue_s: seconds of audio that wait for a late reader; audio beyond that is dropped.
    reopen: whether to open a lost device again, under the same name. PortAudio knows only the devices that were there
        when it started, so it is restarted then, unless the process has another sounddevice stream open.

    dropped: samples (at 16 kHz) lost so far; it grows just before the block that follows the gap is given.
    overflows: how often samples were lost.
    device: the InputDevice. rate, n_channels: what it was opened at.

    Raises MissingExtraError without sounddevice or PortAudio; ConfigError for block_s or queue_s out of range;
    AudioError for a device that is unknown or ambiguous or cannot be opened. While iterating, and only without reopen,
    it raises AudioError if the device cannot be started, stops or stalls.
    """

    def __init__(
        self, device: int | str | None = None, block_s: float = 0.02, queue_s: float = 5.0, reopen: bool = True
    ) -> None:
        if not 0.001 <= block_s <= queue_s <= 600:
            raise ConfigError(f"expected 0.001 <= block_s <= queue_s <= 600, got block_s={block_s}, queue_s={queue_s}")
        self._sounddevice = load_sounddevice()
        self._block_s = block_s
        self._queue_s = queue_s
        self._reopen = reopen
        self._closed = threading.Event()
        self.dropped = 0
        self.overflows = 0
        self._is_lost = False  # and not yet back
        self._came_s = 0.0  # time of the last block; 0: no block yet
        self._back_s = 0.0  # time of the first block, or of the first after an outage
        self._n_zeros = 0  # frames since the last frame that was not zero
        self._reported_s, self._n_reported = (
            float("-inf"),
            0,
        )  # time of the last report of lost samples, and their count
        self._pause_s = RETRY_S
        with OPENING:
            self._open(find_input(device))

    def _open(self, device: InputDevice) -> None:
        self._recording = Recording(self._sounddevice, device, self._block_s, self._queue_s)
        self.device, self.name = device, device.name
        self.rate, self.n_channels = self._recording.rate, self._recording.n_channels

    def __iter__(self) -> Iterator[Samples]:
        if self._closed.is_set():
            raise AudioError(f"{self.name}: expected an open microphone, got a closed one")
        self._is_lost = False
        self._came_s = 0.0
        self._n_zeros = 0
        if self._recording.is_ended():
            with OPENING:
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
                        _log.warning("%s; it is opened again as soon as it can be", error)
                    self._open_again()
        finally:
            self._end()

    def _blocks(self, recording: Recording) -> Iterator[Samples]:
        """Yield blocks at 16 kHz until the recording ends with an AudioError."""
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
        """Note that a recording's first block came; return the number of samples that an outage before it cost."""
        self._back_s = came_s
        if not self._is_lost:
            return 0
        self._is_lost = False
        if not self._came_s:  # the stream begins here: no block came before
            _log.warning("%s: audio comes", self.name)
            return 0
        gap_s = max(0.0, came_s - block_s - self._came_s)
        _log.warning("%s: audio comes again, after %.1f s without", self.name, gap_s)
        n_lost = round(gap_s * SAMPLE_RATE)
        self._reported_s, self._n_reported = came_s, self.dropped + n_lost
        return n_lost

    def _lose(self, n_samples: int) -> None:
        """Count lost samples; report them unless the last report was less than REPORT_S ago."""
        if not n_samples:
            return
        self.dropped += n_samples
        self.overflows += 1
        if self._came_s >= self._reported_s + REPORT_S:
            lost_s, whole_s = (self.dropped - self._n_reported) / SAMPLE_RATE, self.dropped / SAMPLE_RATE
            _log.warning("%s: lost %.2f s of audio, %.2f s so far", self.name, lost_s, whole_s)
            self._reported_s, self._n_reported = self._came_s, self.dropped

    def _watch_for_zeros(self, frames: npt.NDArray[np.float32]) -> None:
        if frames.any():
            self._n_zeros = 0
            return
        limit = round(SILENCE_S * self.rate)
        if self._n_zeros < limit <= self._n_zeros + len(frames):
            _log.warning("%s: delivers only silence (zeros for %g s): muted, or no permission?", self.name, SILENCE_S)
        self._n_zeros += len(frames)

    def _open_again(self) -> None:
        """Open the device as soon as possible; give up when the microphone is closed."""
        if self._came_s - self._back_s > MAX_RETRY_S:  # a device that comes and goes gets ever longer pauses
            self._pause_s = RETRY_S
        self._recording.end()
        while not self._closed.wait(self._pause_s):
            self._pause_s = min(2 * self._pause_s, MAX_RETRY_S)
            if self._recording.is_ended():
                with suppress(AudioError, self._sounddevice.PortAudioError), OPENING:
                    if not is_in_use(self._sounddevice):
                        restart(self._sounddevice)
                    self._open(find_again(self.device))
                    return

    def _end(self) -> None:
        self._recording.end()
        if not self._recording.is_ended():  # PortAudio hangs: its exit handler would hang as well
            atexit.unregister(self._sounddevice._exit_handler)

    def close(self) -> None:
        """Close the device; an iteration under way ends."""
        self._closed.set()
        self._end()
