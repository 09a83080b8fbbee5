"""What is done to the sound of an example: room, equalizer, speed, noise, device, level, vocal-tract length."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from streamkws.audio import SAMPLE_RATE, as_int16
from streamkws.corpus import I16, SegmentSet
from streamkws.frontend import FrontEnd, FrontEndConfig, mel_filters
from streamkws.mixing import coloured_noise, noise_gain
from streamkws.training import augment, devices
from streamkws.training.augment import F32, AugmentConfig
from streamkws.training.blocks import NO_EMBEDDINGS
from streamkws.training.data import DataConfig
from streamkws.training.teacher import SpeechEmbedding

N_FFT = 48000
"""Length of the forward transform of an example; holds 2.1 s at the highest speed and a room's response."""

FLOOR_SHAPE_DB = 5.0
"""Standard deviation of the spectral shape of a microphone's steady noise."""


class Perturbation:
    """Everything random that happens between clean audio and an example's features.

    noises, speech: sets that noise and babble are taken from. rooms: spectra as augment.room_spectrum makes them.
    seed: of the coloured noise that examples take stretches of.
    n_frames: T of the features; n_samples: of the audio they are made of.
    """

    def __init__(
        self,
        data: DataConfig,
        augmentation: AugmentConfig,
        frontend: FrontEndConfig,
        noises: Sequence[SegmentSet],
        speech: Sequence[SegmentSet],
        rooms: Sequence[augment.C64],
        seed: int,
    ) -> None:
        self.augmentation, self.noises, self.speech, self.rooms = augmentation, noises, speech, rooms
        self.teacher = SpeechEmbedding(data.teacher) if data.teacher else None
        self.teacher_clean = data.teacher_clean
        hop = frontend.hop_samples
        self.n_frames = round(data.crop_s * frontend.sample_rate) // hop + augmentation.shift_frames
        self.n_samples = frontend.window_samples + (self.n_frames - 1) * hop
        self.basis = augment.equalizer_basis(N_FFT // 2 + 1)
        filters = mel_filters(frontend)
        self.frontends = [
            FrontEnd(frontend, augment.warped_filters(filters, factor, frontend.sample_rate))
            for factor in augment.vtlp_factors(augmentation)
        ]
        rng = np.random.default_rng([seed, 0])
        self.coloured = [coloured_noise(rng, 20 * SAMPLE_RATE, exponent) for exponent in (0.0, 0.5, 1.0, 2.0)]

    def perturb(
        self, rng: np.random.Generator, samples: F32, length: int, word: tuple[int, int] | None = None
    ) -> tuple[F32, npt.NDArray[np.float16]]:
        """Room, equalizer, speed, noise, device, level and vocal-tract length, then the front end.

        samples: (n,) float32, the source's, n_samples * speed of them, where speed is N_FFT / length.
        word: start and end in the source of what must stay where the audio is cut; None for whatever there is.
        Returns (n_frames, F) float32 log-mel, and the teacher's embeddings before noise is added, (E, 96) float16.
        """
        source = samples
        samples = augment.filter_and_resample(source, self._gains(rng), N_FFT, length)[: self.n_samples]
        taught = samples
        if self.teacher_clean:
            taught = augment.filter_and_resample(source, None, N_FFT, length)[: self.n_samples]
        embeddings = self.embed(taught)
        samples = self._through_device(rng, self._add_noise(rng, self._add_floor(rng, samples)))
        frontend = self.frontends[int(rng.integers(len(self.frontends)))]
        frontend.reset()
        levelled = self._level(rng, samples)
        if self._happens(rng, self.augmentation.codec_share):
            levelled = devices.coded(rng, levelled)
        if self._happens(rng, self.augmentation.cut_share):
            self._cut(rng, levelled, word, length / N_FFT)
        return frontend.push(levelled)[: self.n_frames], embeddings

    def embed(self, samples: F32) -> npt.NDArray[np.float16]:
        """The teacher's embeddings of (n_samples,) samples, (E, 96) float16; none without a teacher."""
        if self.teacher is None:
            return NO_EMBEDDINGS
        return self.teacher.embed(samples).astype(np.float16)

    def _gains(self, rng: np.random.Generator) -> augment.C64 | F32 | None:
        """The product of a room and an equalizer, (N_FFT // 2 + 1,); None for neither."""
        config = self.augmentation
        shape: F32 | None = None
        if rng.random() < config.equalizer_share:
            shape = self._shape(rng, config.equalizer_db)
        if rng.random() < config.bandlimit_share:
            shape = np.ones(N_FFT // 2 + 1, np.float32) if shape is None else shape
            shape[int(rng.uniform(3400, 7000) / SAMPLE_RATE * N_FFT) :] *= np.float32(0.01)
        if self._happens(rng, config.resonance_share):
            response = devices.resonances(rng, N_FFT // 2 + 1)
            shape = response if shape is None else shape * response
        if not self.rooms or rng.random() >= config.room_share:
            return shape
        wet = np.float32(10 ** (rng.uniform(-18, 6) / 20))
        room = self.rooms[int(rng.integers(len(self.rooms)))] * wet
        room += np.float32(1)
        return room if shape is None else room * shape

    def _shape(self, rng: np.random.Generator, deviation_db: float) -> F32:
        """A smooth random spectral shape, (N_FFT // 2 + 1,) float32."""
        points = rng.standard_normal(self.basis.shape[0]) * deviation_db * np.log(10) / 20
        shape: F32 = np.exp(points.astype(np.float32) @ self.basis)
        return shape

    def _add_floor(self, rng: np.random.Generator, samples: F32) -> F32:
        """Add the steady noise of a microphone, of a random slope and shape."""
        config = self.augmentation
        if not self._happens(rng, config.floor_share):
            return samples
        source = self.coloured[int(rng.integers(len(self.coloured)))]
        start = int(rng.integers(source.size - N_FFT))
        shape = self._shape(rng, FLOOR_SHAPE_DB)
        noise = augment.filter_and_resample(source[start : start + N_FFT], shape, N_FFT, N_FFT)[: samples.size]
        return samples + noise * np.float32(
            noise_gain(samples, noise, rng.uniform(config.floor_min_db, config.floor_max_db))
        )

    def _add_noise(self, rng: np.random.Generator, samples: F32) -> F32:
        config = self.augmentation
        if rng.random() >= config.noise_share:
            return samples
        kind = rng.random()
        if kind < config.recorded_share and self.noises:
            noise = self._recorded_noise(rng)
        elif kind < config.recorded_share + config.babble_share and self.speech:
            noise = np.zeros(self.n_samples, np.float32)
            for _ in range(int(rng.integers(2, 6))):
                put(noise, stretch_of_speech(rng, self.speech, self.n_samples) * np.float32(rng.uniform(0.3, 1.0)), 0)
        else:
            source = self.coloured[int(rng.integers(len(self.coloured)))]
            start = int(rng.integers(source.size - self.n_samples))
            noise = source[start : start + self.n_samples]
        gain = noise_gain(samples, noise, rng.uniform(config.snr_min_db, config.snr_max_db))
        return samples + noise * np.float32(gain)

    def _recorded_noise(self, rng: np.random.Generator) -> F32:
        one = self.noises[int(rng.integers(len(self.noises)))]
        segment = one.segments[int(rng.integers(len(one.segments)))]
        piece = one.files[segment.file][segment.start : segment.end]
        start = int(rng.integers(max(1, piece.size - self.n_samples)))
        noise = np.zeros(self.n_samples, np.float32)
        put(noise, piece[start : start + self.n_samples].astype(np.float32), 0)
        return noise

    @staticmethod
    def _happens(rng: np.random.Generator, share: float) -> bool:
        """Whether to apply a perturbation of this share. A share of 0 draws no random number."""
        return share > 0 and bool(rng.random() < share)

    def _through_device(self, rng: np.random.Generator, samples: F32) -> F32:
        config = self.augmentation
        if self._happens(rng, config.suppression_share):
            samples = devices.suppressed(samples, rng.uniform(1, 4), rng.uniform(-25, -6))
        if self._happens(rng, config.compressor_share):
            samples = devices.compressed(samples, rng.uniform(1.3, 3))
        if self._happens(rng, config.saturation_share):
            samples = devices.saturated(samples, rng.uniform(3, 20))
        return samples

    def _level(self, rng: np.random.Generator, samples: F32) -> I16:
        """Bring the peak to a random level, add a faint floor of white noise, round to int16."""
        config = self.augmentation
        peak = float(np.abs(samples).max())
        level_db = rng.uniform(config.peak_min_db, config.peak_max_db)
        if rng.random() < config.overdrive_share:
            level_db = rng.uniform(3, 12)
        if peak > 0:
            samples = samples * np.float32(32767 * 10 ** (level_db / 20) / peak)
        if rng.random() < 0.9:  # the rest keeps exact digital silence, where there is any
            floor = 32767 * 10 ** (rng.uniform(-90, max(-85.0, min(-50.0, level_db - 15))) / 20)
            start = int(rng.integers(self.coloured[0].size - samples.size))
            samples = samples + self.coloured[0][start : start + samples.size] * np.float32(floor)
        return as_int16(samples, scale=1)

    @staticmethod
    def _cut(rng: np.random.Generator, samples: I16, word: tuple[int, int] | None, scale: float) -> None:
        """Let the audio begin at a word, end at it, or both, in place: a recording cut tight, and nothing around it.

        word: its start and end, in samples that become scale as many. Without one the audio is cut anywhere.
        """
        if word is None:
            start, end = (int(samples.size * rng.uniform(*limits)) for limits in ((0.05, 0.45), (0.55, 0.95)))
        else:
            start = round(word[0] * scale - rng.uniform(-0.01, 0.15) * SAMPLE_RATE)
            end = round(word[1] * scale + rng.uniform(-0.025, 0.15) * SAMPLE_RATE)
        side = int(rng.integers(4))
        if side != 1:
            samples[max(0, end) :] = 0
        if side in (1, 2):
            samples[: max(0, start)] = 0


def stretch_of_speech(rng: np.random.Generator, speech: Sequence[SegmentSet], n_samples: int) -> F32:
    """A random stretch of a random set of speech, (n_samples,) float32; shorter where the file is."""
    one = speech[int(rng.integers(len(speech)))]
    file = one.files[int(rng.integers(len(one.files)))]
    start = int(rng.integers(max(1, file.size - n_samples)))
    return file[start : start + n_samples].astype(np.float32)


def put(target: F32, piece: F32, position: int) -> None:
    """Add piece to target from position on; what lies outside is dropped."""
    start, end = max(0, position), min(target.size, position + piece.size)
    if start < end:
        target[start:end] += piece[start - position : end - position]


def quietest(samples: npt.NDArray[np.int16] | F32, position: int, reach_s: float = 0.08) -> int:
    """The middle of the quietest 10 ms within reach_s of a position; the position where there is nothing to choose."""
    hop, reach = SAMPLE_RATE // 100, round(reach_s * SAMPLE_RATE)
    first = max(0, position - reach)
    around = samples[first : position + reach]
    n_frames = around.size // hop
    if n_frames < 2:
        return min(position, samples.size)
    power = np.square(around[: n_frames * hop].astype(np.float32)).reshape(n_frames, hop).sum(1)
    return first + int(power.argmin()) * hop + hop // 2
