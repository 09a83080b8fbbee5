"""Playback: samples played by an audio output of this machine."""

from __future__ import annotations

import atexit
import threading
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from streamkws.audio import SAMPLE_RATE, Samples, as_float
from streamkws.errors import AudioError
from streamkws.sources.portaudio import OPENING, load_sounddevice

ENDING_S = 2.0
"""Seconds that PortAudio gets to end a stream, and to play the last of it."""


class Playback:
    """Samples that are played, from its making on; a context manager that ends the playing.

    samples: (n,) int16 or float32, 16 kHz mono. An output that refuses this rate gets its own.
    device: index, or part of the name of an output; None is the system's default output.

    Raises MissingExtraError without sounddevice or PortAudio, AudioError for an output that is missing, ambiguous or
    cannot be opened or started.
    """

    def __init__(self, samples: Samples, device: int | str | None = None) -> None:
        self._sounddevice = load_sounddevice("playing audio")
        self._done = threading.Event()
        self._n_played = 0
        self._duration_s = len(samples) / SAMPLE_RATE
        try:
            found = self._sounddevice.query_devices(device, kind="output")
            self.name, own = str(found["name"]), round(found["default_samplerate"])
        except (self._sounddevice.PortAudioError, ValueError) as error:
            wanted = "" if device is None else f" that fits {device!r}"
            raise AudioError(f"expected an audio output{wanted}: {' '.join(str(error).split())}") from None
        with OPENING:
            self._stream = self._opened(as_float(samples), device, own)
        try:
            self._stream.start()
        except self._sounddevice.PortAudioError as error:
            self.close()
            raise AudioError(f"{self.name}: cannot be played: {error}") from None

    def _opened(self, samples: npt.NDArray[np.float32], device: int | str | None, own: int) -> Any:
        reason = ""
        for rate in dict.fromkeys([SAMPLE_RATE, own]):
            try:
                stream = self._sounddevice.OutputStream(
                    samplerate=rate,
                    device=device,
                    channels=1,
                    dtype="float32",
                    callback=self._give,
                    finished_callback=self._done.set,
                )
            except (self._sounddevice.PortAudioError, ValueError) as error:
                reason = str(error)
                continue
            if rate != SAMPLE_RATE:
                import soxr

                samples = soxr.resample(samples, SAMPLE_RATE, rate)
            self._samples = samples
            return stream
        raise AudioError(f"{self.name}: cannot be opened, neither at {SAMPLE_RATE} nor at its own {own} Hz: {reason}")

    def _give(self, audio: npt.NDArray[np.float32], n_frames: int, times: Any, status: Any) -> None:
        """PortAudio's callback, in its own thread: copy the next samples; what is behind their end is silence."""
        part = self._samples[self._n_played : self._n_played + n_frames]
        audio[: len(part), 0] = part
        audio[len(part) :] = 0
        self._n_played += len(part)
        if self._n_played == len(self._samples):
            raise self._sounddevice.CallbackStop

    @property
    def is_done(self) -> bool:
        """Whether all was played."""
        return self._done.is_set()

    def wait(self) -> None:
        """Wait until all was played. Raises AudioError if the output stalls, or stops before the end."""
        if not self._done.wait(self._duration_s + ENDING_S):
            raise AudioError(f"{self.name}: expected to play {self._duration_s:.1f} s, but the output stalls")
        if self._n_played < len(self._samples):
            raise AudioError(f"{self.name}: expected to play {self._duration_s:.1f} s, but the output stopped")

    def close(self) -> None:
        """End the playing; this takes at most ENDING_S, also where PortAudio hangs."""
        ending = threading.Thread(target=self._end, daemon=True)
        ending.start()
        ending.join(ENDING_S)
        if ending.is_alive():  # its exit handler would hang as well
            atexit.unregister(self._sounddevice._exit_handler)

    def _end(self) -> None:
        self._stream.abort()
        self._stream.close()

    def __enter__(self) -> Playback:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
