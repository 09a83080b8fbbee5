"""Takes of a keyword, cut out of a stream by its level, and what is wrong with them."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streamkws.audio import SAMPLE_RATE, Samples, as_float, as_int16

HOP_SAMPLES = SAMPLE_RATE // 50
"""Samples of a frame, whose level is measured: 20 ms."""

MEASURED_S = 1.0
"""Seconds in which the room's noise is measured before anything is heard."""

REMEMBERED_S = 3.0
"""Seconds of quiet whose median level is the room's noise from then on."""

START_DB, STOP_DB = 8.0, 5.0
"""Speech begins with a frame that is louder than the noise by the first, and lasts while frames are by the second."""

LOWEST_NOISE_DB = -70.0
"""The noise counts as no less than this: some microphones give zeros in a quiet room."""

QUIET_S = 0.8
"""Seconds of quiet that end a take."""

AROUND_S = 0.5
"""Seconds of a take before its speech and after it."""

SHORTEST_S, LONGEST_S = 0.15, 4.0
"""Seconds of speech: less is a click, and no take; more is not one keyword."""

AT_ONCE_S = 0.1
"""Speech so soon after listening began may have begun before."""

CLIPPING, N_CLIPPED = 0.985, 3
"""Amplitude of a clipped sample, and so many of them that a take is clipped."""

QUIETEST_DB, LEAST_SNR_DB = -40.0, 15.0
"""Least peak level of a take, and how much louder than the noise its speech has to be."""

SILENCE_DB = -99.0
"""The level of digital silence."""

TOO_LONG = f"too long: over {LONGEST_S:g} s of sound without a pause"
CUT_OFF = "cut off: it began before the signal to speak"
CLIPPED = "clipped: too loud, or too close to the microphone"
TOO_QUIET = "too quiet: come closer, or raise the input's volume"
TOO_NOISY = "too little above the noise: come closer, or make the room quieter"


def peak_db(samples: Samples) -> float:
    """The level of the largest sample, in dB of full scale."""
    return _db(float(np.abs(as_float(samples)).max()) ** 2) if len(samples) else SILENCE_DB


def _db(power: float) -> float:
    return max(10 * math.log10(max(power, 1e-30)), SILENCE_DB)


@dataclass(frozen=True)
class Take:
    """Speech between two stretches of quiet.

    samples: (n,) int16, with AROUND_S before the speech and after it, as far as there is.
    peak_db, speech_db, noise_db: levels of the largest sample, of the speech, and of the room, in dB of full scale.
    fault: what is wrong with it; "" if nothing.
    """

    samples: npt.NDArray[np.int16]
    peak_db: float
    speech_db: float
    noise_db: float
    fault: str


class TakeCutter:
    """Cuts takes out of a stream of blocks, by the level of each frame; the takes do not depend on the block lengths.

    It measures the noise, then hears one take after the other. A take that is too long makes it measure anew: the room
    may have become louder. Its memory is bounded.

    level_db, noise_db: of the last frame, and of the room.
    is_measuring: whether it still measures the noise. is_speaking: whether a take is under way.
    waited_s: seconds since it began to wait for this take.
    """

    def __init__(self) -> None:
        self.level_db = SILENCE_DB
        self.noise_db = LOWEST_NOISE_DB
        self.is_measuring = True
        self.measure()

    @property
    def is_speaking(self) -> bool:
        return self._n_frames > 0

    @property
    def waited_s(self) -> float:
        return _seconds(self._n_waited)

    def measure(self) -> None:
        """Forget the room, and measure its noise anew."""
        self.is_measuring = True
        self._quiet: deque[float] = deque(maxlen=_frames(REMEMBERED_S))  # levels
        self.restart()

    def restart(self) -> None:
        """Begin to hear a take anew: what comes does not follow what came before."""
        self._rest = np.zeros(0, np.float32)  # samples of a frame that is not complete
        self._kept: deque[npt.NDArray[np.float32]] = deque(maxlen=_frames(AROUND_S))  # frames before the speech
        self._await()

    def _await(self) -> None:
        self._n_waited = 0  # frames
        self._take: list[npt.NDArray[np.float32]] = []
        self._powers: list[float] = []  # of the frames of speech
        self._n_frames = 0  # from the first frame of speech to now
        self._n_quiet = 0  # frames since the last frame of speech

    def push(self, block: Samples) -> list[Take]:
        """Feed a block, (n,) int16 or float32, 16 kHz mono, and return the takes it completed."""
        samples = np.concatenate([self._rest, as_float(block)])
        n_frames = len(samples) // HOP_SAMPLES
        takes = []
        for frame in samples[: n_frames * HOP_SAMPLES].reshape(n_frames, HOP_SAMPLES):
            take = self._push(frame.copy())
            if take is not None:
                takes.append(take)
        self._rest = samples[n_frames * HOP_SAMPLES :].copy()
        return takes

    def _push(self, frame: npt.NDArray[np.float32]) -> Take | None:
        power = float(np.square(frame, dtype=np.float64).mean())
        self.level_db = _db(power)
        if self.is_measuring:
            self._remember(frame)
            self.is_measuring = len(self._quiet) < _frames(MEASURED_S)
            return None
        self._n_waited += 1
        if not self.is_speaking:
            if self.level_db < self.noise_db + START_DB:
                self._remember(frame)
                return None
            self._take = list(self._kept)
            self._at_once = self._n_waited <= _frames(AT_ONCE_S)
        self._take.append(frame)
        self._n_frames += 1
        self._n_quiet += 1
        if self.level_db >= self.noise_db + STOP_DB:
            self._n_quiet = 0
            self._powers.append(power)
        n_speech = self._n_frames - self._n_quiet
        is_long = n_speech > _frames(LONGEST_S)
        if not is_long and self._n_quiet < _frames(QUIET_S):
            return None
        is_click = len(self._powers) < _frames(SHORTEST_S)
        take = None if is_click else self._judge(is_long)
        self._kept.extend(self._take[-_frames(AROUND_S) :])
        if is_long:
            self.measure()
        elif is_click:
            n_waited = self._n_waited
            self._await()
            self._n_waited = n_waited
        else:
            self._await()
        return take

    def _remember(self, frame: npt.NDArray[np.float32]) -> None:
        self._kept.append(frame)
        self._quiet.append(self.level_db)
        self.noise_db = max(float(np.median(self._quiet)), LOWEST_NOISE_DB)

    def _judge(self, is_long: bool) -> Take:
        n_too_many = max(0, self._n_quiet - _frames(AROUND_S))
        samples = np.concatenate(self._take[: len(self._take) - n_too_many])
        peak, speech = peak_db(samples), _db(sum(self._powers) / len(self._powers))
        if is_long:
            fault = TOO_LONG
        elif self._at_once:
            fault = CUT_OFF
        elif np.count_nonzero(np.abs(samples) >= CLIPPING) >= N_CLIPPED:
            fault = CLIPPED
        elif peak < QUIETEST_DB:
            fault = TOO_QUIET
        elif speech < self.noise_db + LEAST_SNR_DB:
            fault = TOO_NOISY
        else:
            fault = ""
        return Take(as_int16(samples), peak, speech, self.noise_db, fault)


def _frames(seconds: float) -> int:
    return round(seconds * SAMPLE_RATE / HOP_SAMPLES)


def _seconds(n_frames: int) -> float:
    return n_frames * HOP_SAMPLES / SAMPLE_RATE
