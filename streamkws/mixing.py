"""Mixing: noise at a signal-to-noise ratio, and rooms.

One rule for every SNR: the energy of the loudest frame of 2048 samples of the speech over that of the noise.

Whatever evaluation draws comes from a generator seeded with the seed and the recording's name, so that a recording
always gets the same noise and the same room, whatever else the corpus holds and whichever model listens.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from streamkws.audio import SAMPLE_RATE, audio_files, read_audio
from streamkws.corpus import ROOM_SET, NegativeFile, Recording
from streamkws.errors import AudioError

PADDING_SAMPLES = SAMPLE_RATE  # before and after a keyword recording
PADDING_RMS = 10 ** (-70 / 20)  # -70 dBFS
ENERGY_FRAME_SAMPLES = 2048
NOISE_DRAWS = 20  # stretches tried before a recording is left without noise because all were digital silence

Samples = npt.NDArray[np.float32]


@dataclass(frozen=True)
class NoiseBank:
    """Noise recordings, from which each file to be judged gets its own, always the same stretch.

    stretches: (n,) float32 each, 16 kHz. labels: what each is, where it is known.
    """

    stretches: tuple[Samples, ...]
    seed: int = 0
    labels: tuple[str, ...] = ()

    @classmethod
    def read(cls, negatives: Iterable[NegativeFile], seed: int) -> NoiseBank:
        """Collect the segments of the noise files; files that cannot be read are left to score_corpus to report."""
        stretches: list[Samples] = []
        labels: list[str] = []
        for negative in negatives:
            if not negative.is_noise:
                continue
            try:
                samples = read_audio(negative.path)
            except (AudioError, OSError):
                continue
            segments = negative.segments or ((0, len(samples)),)
            for (start, end), label in zip(segments, negative.labels or [""] * len(segments), strict=True):
                piece = samples[start:end]
                if len(piece):
                    stretches.append(piece)
                    labels.append(label)
        return cls(tuple(stretches), seed, tuple(labels))

    def only(self, labels: Iterable[str]) -> NoiseBank:
        """The stretches with these labels."""
        wanted = set(labels)
        kept = [n for n, label in enumerate(self.labels) if label in wanted]
        return NoiseBank(tuple(self.stretches[n] for n in kept), self.seed, tuple(self.labels[n] for n in kept))

    def over_recording(
        self, recording: Recording, samples: Samples, snr_db: float | None, response: Samples | None = None
    ) -> Samples:
        """Pad a keyword recording on both sides and, unless snr_db is None, lay noise over all of it.

        response: (n,) float32 impulse response of a room that the recording is heard in, the noise not.
        """
        random = self._random(recording.name)
        padding = (PADDING_RMS * random.standard_normal((2, PADDING_SAMPLES))).astype(np.float32)
        padded = np.concatenate([padding[0], samples, padding[1]])
        if response is not None:
            padded = in_room(padded, response)
        if snr_db is None:
            return padded
        return mix(padded, self._draw(random, len(padded)), snr_db)

    def over_negative(self, negative: NegativeFile, samples: Samples, snr_db: float | None) -> Samples:
        """Lay noise over each segment of a negative file, unless snr_db is None."""
        if snr_db is None:
            return samples
        noisy = samples.copy()
        for start, end in negative.segments or ((0, len(samples)),):
            segment = samples[start:end]
            if len(segment):
                noise = self._draw(self._random(f"{negative.name}#{start}"), len(segment))
                noisy[start:end] = mix(segment, noise, snr_db)
        return noisy

    def _random(self, name: str) -> np.random.Generator:
        return _generator(self.seed, name)

    def _draw(self, random: np.random.Generator, n_samples: int) -> Samples:
        """Cut n_samples from a noise recording, repeating one that is too short; zeros if only silence was drawn."""
        for _ in range(NOISE_DRAWS):
            source = self.stretches[random.integers(len(self.stretches))]
            start = int(random.integers(max(1, len(source) - n_samples + 1)))
            noise: Samples = np.resize(source[start : start + n_samples], n_samples)
            if max_frame_energy(noise) > 0:
                return noise
        return np.zeros(n_samples, dtype=np.float32)


@dataclass(frozen=True)
class RoomBank:
    """Impulse responses of rooms, from which each keyword recording gets one, always the same.

    responses: (n,) float32 each, 16 kHz.
    """

    responses: tuple[Samples, ...]
    seed: int = 0

    @classmethod
    def read(cls, root: Path, seed: int) -> RoomBank:
        """Read a corpus' impulse responses but those that are digital silence.

        Raises AudioError or OSError for a file that cannot be read.
        """
        responses = [read_audio(path) for path in audio_files(root / ROOM_SET)]
        return cls(tuple(response for response in responses if response.any()), seed)

    def draw(self, recording: Recording) -> Samples:
        """The impulse response of a recording."""
        random = _generator(self.seed, f"{recording.name}#room")
        return self.responses[random.integers(len(self.responses))]


def in_room(samples: Samples, response: Samples) -> Samples:
    """Hear samples through an impulse response, whose greatest value is the direct path and comes without delay.

    As many samples come back, their loudest frame as loud as before, and less loud only where they would clip.

    samples, response: (n,) float32; the response is not digital silence.
    """
    response = from_direct_path(response)
    n_fft = 1 << (len(samples) + len(response) - 2).bit_length()
    spectrum = np.fft.rfft(samples.astype(np.float64), n_fft) * np.fft.rfft(response.astype(np.float64), n_fft)
    heard = np.fft.irfft(spectrum, n_fft)[: len(samples)]
    energy = max_frame_energy(heard.astype(np.float32))
    if energy > 0:
        heard *= math.sqrt(max_frame_energy(samples) / energy)
    heard /= max(1.0, float(np.abs(heard).max(initial=0.0)))
    return heard.astype(np.float32)


def from_direct_path(response: Samples) -> Samples:
    """An impulse response from its greatest value on, which is taken for the direct path."""
    return response[int(np.argmax(np.abs(response))) :]


def max_frame_energy(samples: Samples) -> float:
    """Energy of the loudest whole frame of 2048 samples; of all samples where they are fewer.

    samples: (n,) float32.
    """
    n_frames = len(samples) // ENERGY_FRAME_SAMPLES
    frames = samples[: n_frames * ENERGY_FRAME_SAMPLES].reshape(n_frames, -1) if n_frames else samples[np.newaxis]
    return float((frames.astype(np.float64) ** 2).sum(axis=1).max(initial=0.0))


def noise_gain(speech: Samples, noise: Samples, snr_db: float) -> float:
    """The factor for the noise that makes max_frame_energy(speech) / max_frame_energy(noise) 10^(snr_db / 10).

    0 where one of them is silent. speech, noise: (n,) float32.
    """
    speech_energy, noise_energy = max_frame_energy(speech), max_frame_energy(noise)
    if speech_energy == 0 or noise_energy == 0:
        return 0.0
    return math.sqrt(speech_energy / (noise_energy * 10 ** (snr_db / 10)))


def mix(speech: Samples, noise: Samples, snr_db: float) -> Samples:
    """Add noise, scaled by noise_gain.

    A sum that leaves [-1, 1] is scaled down as a whole, so that nothing clips and the ratio holds. Silence on either
    side leaves the speech as it is.

    speech, noise: (n,) float32.
    Source: the rule of Picovoice's wake-word-benchmark, mixer.py; there the speech is scaled instead of the noise.
    """
    gain = noise_gain(speech, noise, snr_db)
    if gain == 0:
        return speech
    mixed = speech.astype(np.float64) + gain * noise.astype(np.float64)
    mixed /= max(1.0, float(np.abs(mixed).max()))
    return mixed.astype(np.float32)


def _generator(seed: int, name: str) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(name.encode())])
