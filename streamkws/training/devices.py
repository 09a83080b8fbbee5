"""What recording devices do to sound: resonances, noise suppression, automatic gain, saturation, lossy codecs.

Some speakers are missed on most words, and their microphones are unlike the others' (bench/research/experiments.md).
"""

from __future__ import annotations

import io
import math

import numpy as np
import numpy.typing as npt
import soundfile

from streamkws.audio import SAMPLE_RATE

F32 = npt.NDArray[np.float32]

N_FFT, HOP = 512, 256
QUIET_SHARE = 0.2
"""The noise power of a frequency is estimated from this quantile of its frames. For noise alone the quantile is
-ln(1 - 0.2) of the mean, since the power is distributed exponentially."""
GAIN_HOP = 160
GREATEST_GAIN_DB = 25.0
CODECS = (("MP3", "MPEG_LAYER_III", 0.3, 0.95), ("OGG", "VORBIS", 0.7, 1.0))
"""Format, subtype and range of libsndfile's compression level: 16 to 40 kbit/s at 16 kHz."""


def resonances(rng: np.random.Generator, n_bins: int, nyquist_hz: float = 8000.0) -> F32:
    """The frequency response of a small device: a slope and one to seven peaks and dips, (n_bins,) float32 factors.

    The slope has a standard deviation of 3 dB an octave; a peak's height one of 10 dB, up to 25, its width (the
    standard deviation of a bell curve) is 0.1 to 0.7 octaves. The mean over the logarithm of frequency is 0 dB.
    """
    octaves = np.linspace(math.log2(60.0), math.log2(nyquist_hz), 200)
    gains_db = 3.0 * rng.standard_normal() * octaves
    for _ in range(int(rng.integers(1, 8))):
        height = np.clip(10 * rng.standard_normal(), -25, 25)
        distance = (octaves - rng.uniform(octaves[0], octaves[-1])) / rng.uniform(0.1, 0.7)
        gains_db += height * np.exp(-(distance**2) / 2)
    gains_db -= gains_db.mean()
    hz = np.linspace(0.0, nyquist_hz, n_bins)
    gains: F32 = (10 ** (np.interp(hz, 2**octaves, gains_db) / 20)).astype(np.float32)
    return gains


def suppressed(samples: F32, strength: float, floor_db: float) -> F32:
    """Sound after noise suppression by spectral subtraction (Boll 1979; Berouti et al. 1979).

    samples: (n,) float32. strength: how many times the noise's power is subtracted.
    floor_db: the lowest gain, in dB, 0 or less. Returns (n,) float32.
    """
    window = np.sqrt(np.hanning(N_FFT + 1)[:-1]).astype(np.float32)
    n_frames = -(-samples.size // HOP) + 1
    padded = np.zeros((n_frames + 1) * HOP, np.float32)
    padded[HOP : HOP + samples.size] = samples
    frames = np.lib.stride_tricks.sliding_window_view(padded, N_FFT)[::HOP] * window
    spectra = np.fft.rfft(frames)
    power = np.abs(spectra) ** 2
    noise = np.quantile(power, QUIET_SHARE, axis=0) / -np.log(1 - QUIET_SHARE)
    gains = np.sqrt(np.maximum(1 - strength * noise / np.maximum(power, 1e-12), 10 ** (floor_db / 10)))
    frames = np.fft.irfft(spectra * gains) * window
    heard = np.zeros_like(padded)
    heard[:-HOP] += frames[:, :HOP].ravel().astype(np.float32)
    heard[HOP:] += frames[:, HOP:].ravel().astype(np.float32)
    kept: F32 = heard[HOP : HOP + samples.size]
    return kept


def compressed(samples: F32, ratio: float) -> F32:
    """Sound after a compressor: what is d dB below the loudest 50 ms is d / ratio below it, raised by 25 dB at most.

    samples: (n,) float32. ratio: 1 or more. Returns (n,) float32.
    """
    n_frames = samples.size // GAIN_HOP
    if n_frames < 5:
        return samples
    power = np.mean(samples[: n_frames * GAIN_HOP].reshape(n_frames, GAIN_HOP) ** 2, axis=1)
    level = 10 * np.log10(np.convolve(power, np.full(5, 0.2), mode="same") + 1e-12)
    gain_db = np.minimum((1 - 1 / ratio) * (level.max() - level), GREATEST_GAIN_DB)
    centres = (np.arange(n_frames) + 0.5) * GAIN_HOP
    gains = np.interp(np.arange(samples.size), centres, 10 ** (gain_db / 20))
    heard: F32 = samples * gains.astype(np.float32)
    return heard


def saturated(samples: F32, drive_db: float) -> F32:
    """Sound after an amplifier that bends what is loud: tanh, driven so many dB into it; the peak stays.

    samples: (n,) float32. Returns (n,) float32.
    """
    peak = float(np.abs(samples).max(initial=0.0))
    if peak <= 0:
        return samples
    drive = 10 ** (drive_db / 20)
    bent: F32 = (np.tanh(samples * np.float32(drive / peak)) * np.float32(peak / np.tanh(drive))).astype(np.float32)
    return bent


def coded(
    rng: np.random.Generator, samples: npt.NDArray[np.int16], sample_rate: int = SAMPLE_RATE
) -> npt.NDArray[np.int16]:
    """Sound after a lossy codec at a low bit rate: MP3 or Vorbis, as this machine's libsndfile makes them.

    samples: (n,) int16. Returns (n,) int16.
    """
    format_, subtype, lowest, highest = CODECS[int(rng.integers(len(CODECS)))]
    level = float(rng.uniform(lowest, highest))
    with io.BytesIO() as file:
        soundfile.write(file, samples, sample_rate, subtype, format=format_, compression_level=level)
        file.seek(0)
        heard, _ = soundfile.read(file, dtype="int16")
    decoded = np.zeros_like(samples)
    n_samples = min(decoded.size, len(heard))
    decoded[:n_samples] = heard[:n_samples]
    return decoded
