"""New voices out of real takes: pitch and formants changed apart from each other by the WORLD vocoder (pyworld).

Morise, Yokomori, Ozawa 2016. A change of speed moves pitch, formants and tempo together, and warped mel filters move
the formants alone; neither makes a woman's or a child's voice of a man's.
"""

from __future__ import annotations

import importlib
import math
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from streamkws.errors import MissingExtraError

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

FRAME_MS = 5.0
FORMANT_EXPONENT = 0.26
"""A voice of twice the pitch has formants higher by 2**0.26: about what lies between men, women and children."""
FORMANT_SPREAD = 0.07
FORMANTS_MIN, FORMANTS_MAX = 0.82, 1.27
VOICED_SHARE = 0.1
"""A sound with fewer voiced frames than this is left as it is."""


def vocoder() -> Any:
    """The module pyworld. Raises MissingExtraError where it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it imports pkg_resources, which says that it is deprecated
            pyworld = importlib.import_module("pyworld")
    except ImportError:
        raise MissingExtraError('other voices need pyworld: pip install "streamkws[voices]"') from None
    return pyworld


def in_another_voice(
    rng: np.random.Generator,
    samples: npt.NDArray[np.int16] | F32,
    lowest_hz: float,
    highest_hz: float,
    sample_rate: int = 16000,
) -> F32:
    """The same words by another speaker: pitch drawn anew, formants as go with it, give or take; timing and level kept.

    samples: (n,) int16 or float32. lowest_hz, highest_hz: between these the pitch is drawn, on a log axis.
    Returns (n,) float32 on the same scale; the samples themselves where no voice is found in them.
    """
    world = vocoder()
    source = np.ascontiguousarray(samples, np.float64)
    plain: F32 = source.astype(np.float32)
    scale = float(np.abs(source).max(initial=0.0))
    if scale == 0.0:
        return plain
    source = source / scale
    pitch, times = world.dio(source, sample_rate, frame_period=FRAME_MS)
    pitch = world.stonemask(source, pitch, times, sample_rate)
    if np.mean(pitch > 0) < VOICED_SHARE:
        return plain
    envelope = world.cheaptrick(source, pitch, times, sample_rate)
    noisiness = world.d4c(source, pitch, times, sample_rate)
    target_hz = math.exp(rng.uniform(math.log(lowest_hz), math.log(highest_hz)))
    factor = target_hz / float(np.median(pitch[pitch > 0]))
    formants = factor**FORMANT_EXPONENT * rng.uniform(1 - FORMANT_SPREAD, 1 + FORMANT_SPREAD)
    formants = float(np.clip(formants, FORMANTS_MIN, FORMANTS_MAX))
    voice: F64 = world.synthesize(
        pitch * factor, moved_up(envelope, formants), moved_up(noisiness, formants), sample_rate, FRAME_MS
    )
    made: F32 = np.zeros(source.size, np.float32)
    made[: voice.size] = voice[: source.size]
    made *= np.float32(scale / max(float(np.abs(made).max()), 1e-9))
    return made


def moved_up(spectra: F64, factor: float) -> F64:
    """Spectra (T, bins) moved up in frequency by a factor; the last bin is repeated where nothing is left."""
    n_bins = spectra.shape[1]
    position = np.minimum(np.arange(n_bins) / factor, n_bins - 1)
    before = np.minimum(position.astype(np.int64), n_bins - 2)
    share = position - before
    moved: F64 = np.ascontiguousarray(spectra[:, before] * (1 - share) + spectra[:, before + 1] * share)
    return moved
