"""One opening of an audio input, from its start to its end."""

from __future__ import annotations

import queue
import sys
import threading
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from streamkws.audio import SAMPLE_RATE
from streamkws.errors import AudioError
from streamkws.sources.devices import InputDevice

STALL_S = 5.0
"""Seconds without a sample after which a device counts as dead."""

ENDING_S = 2.0
"""Seconds that PortAudio gets to end a stream."""


class Recording:
    """One opening of a device: PortAudio's callback copies blocks into a ring, and read takes them from there.

    device, block_s, queue_s: as for Microphone.
    Raises AudioError for a device that cannot be opened.

    rate, n_channels: what it was opened at: 16 kHz mono, else the device's own rate, mono or with all its channels.
    """

    def __init__(self, sounddevice: Any, device: InputDevice, block_s: float, queue_s: float) -> None:
        self._name = device.name
        self._portaudio_error = sounddevice.PortAudioError
        self._ready: queue.SimpleQueue[tuple[int, int, float] | None] = queue.SimpleQueue()  # None: the end
        self._n_put = 0  # slots filled so far; only the callback writes it
        self._n_taken = 0  # slots read so far; only read writes it
        self._n_lost_frames = 0  # frames lost since the last slot was filled
        self._called_s = time.monotonic()  # time of the last call of the callback
        self._recorded_s = float("inf")  # end of the audio of that call, by PortAudio's clock
        self._ends_by_s = 0.0  # end waits until then; 0: end was not called yet
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
        """Begin to record. Raises AudioError if the device does not start."""
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
            # PortAudio does not tell how much was lost. At least a block; more if both PortAudio's clock and ours
            # say so: PortAudio's alone may have been set meanwhile.
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
        """Wait for the next block.

        Return the block, (n, n_channels); the number of samples (at 16 kHz) that were lost before it; and the time it
        came, in seconds of time.monotonic.
        Raises AudioError if the device stopped or stalls.
        """
        try:
            slot = self._ready.get(timeout=STALL_S)
        except queue.Empty:
            try:
                slot = self._ready.get(timeout=STALL_S / 10)  # this process may have been suspended
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
        """End the recording, and make a thread that waits in read return; this takes at most ENDING_S.

        While a sound server hangs, PortAudio's calls hang too. So they run in a thread of their own, which is left
        behind if it takes longer.
        """
        if sys.is_finalizing():
            return  # no thread can be started any more, and PortAudio has ended its streams
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
        """Return whether PortAudio has closed the stream."""
        return self._ended.is_set()
