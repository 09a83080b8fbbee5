"""What recording devices do to sound: noise suppression, automatic gain, saturation, lossy codecs.

A microphone on a desk, a headset and a telephone differ in more than their frequency response, and a network that has
heard none of it misses every word of a speaker whose device does it.
"""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
import soundfile

F32 = npt.NDArray[np.float32]

N_FFT, HOP = 512, 256
QUIET_SHARE = 0.2
"""The noise of a frequency is told from the power that this part of its frames stays below: -ln(1 - 0.2) of the mean
where there is noise alone, since its power is distributed exponentially."""
GAIN_HOP = 160
GREATEST_GAIN_DB = 25.0
CODECS = (("MP3", "MPEG_LAYER_III", 0.3, 0.95), ("OGG", "VORBIS", 0.7, 1.0))
"""Format, subtype and range of libsndfile's compression level: 16 to 40 kbit/s at 16 kHz."""


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


def levelled(samples: F32, ratio: float) -> F32:
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


def coded(rng: np.random.Generator, samples: npt.NDArray[np.int16], sample_rate: int = 16000) -> npt.NDArray[np.int16]:
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
