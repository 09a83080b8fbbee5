"""A pack of features: other speech and noise to train against and to judge by, as log-mel instead of audio.

Whoever trains a word of his own has no hours of other people's speech. A pack gives him some: it holds no audio, and is
small. Every 8 frames of 40 bands go through a two-dimensional discrete cosine transform, whose
coefficients are rounded; the bytes are compressed. The error is about as large as a third of the step.

File: safetensors with `codes` (bytes, uint8), `lengths` ((n,) int32, frames of each stretch), `judges` ((n,) uint8,
whether a stretch is kept for judging), and JSON in its metadata: the front end, the step, the set of each stretch, and
the sources.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from streamkws.errors import ConfigError
from streamkws.frontend import FrontEndConfig
from streamkws.whole import write_whole

BLOCK_FRAMES = 8
STEP = 1.0
"""Step of the coefficients, in nats of power: 4.3 dB, an error of 1.2 dB in each value."""
KIND = "streamkws feature pack 1"


@dataclass(frozen=True)
class Stretch:
    """Some seconds of a set. features: (T, F) float16 log-mel. judges: whether it is kept for judging."""

    features: npt.NDArray[np.float16]
    set_name: str
    judges: bool


@dataclass(frozen=True)
class Pack:
    """A pack that was read.

    stretches: in the order of the file. frontend: that the features are of. sources: of each set, with its licence.
    """

    stretches: tuple[Stretch, ...]
    frontend: FrontEndConfig
    sources: dict[str, str]

    def judging(self) -> list[Stretch]:
        """What is kept for judging: the stretches of each set as one."""
        by_set: dict[str, list[npt.NDArray[np.float16]]] = {}
        for one in self.stretches:
            if one.judges:
                by_set.setdefault(one.set_name, []).append(one.features)
        return [Stretch(np.concatenate(several), name, True) for name, several in by_set.items()]

    def hours(self, judges: bool) -> float:
        """Hours of what is kept for judging, or of the rest."""
        frames = sum(len(one.features) for one in self.stretches if one.judges == judges)
        return frames * self.frontend.hop_samples / self.frontend.sample_rate / 3600


def write_pack(path: Path, stretches: Sequence[Stretch], frontend: FrontEndConfig, sources: dict[str, str]) -> int:
    """Write a pack, and return its size in bytes. The features' frames are cut to whole blocks."""
    from safetensors.numpy import save

    blocks = [_blocks(one.features) for one in stretches]
    codes = np.concatenate(blocks)
    planes = np.ascontiguousarray(codes.reshape(len(codes), -1).T)  # a coefficient's values in a row
    raw = np.stack([planes.view(np.uint8)[:, 0::2], planes.view(np.uint8)[:, 1::2]])  # low bytes, then high ones
    content = np.frombuffer(lzma.compress(raw.tobytes(), preset=9 | lzma.PRESET_EXTREME), np.uint8)
    tensors: dict[str, npt.NDArray[Any]] = {
        "codes": content,
        "lengths": np.array([len(one) * BLOCK_FRAMES for one in blocks], np.int32),
        "judges": np.array([one.judges for one in stretches], np.uint8),
    }
    metadata = {
        "kind": KIND,
        "frontend": json.dumps(asdict(frontend)),
        "step": str(STEP),
        "sets": json.dumps([one.set_name for one in stretches]),
        "sources": json.dumps(sources),
    }
    file = save(tensors, metadata)
    write_whole(path, file)
    return len(file)


def read_pack(path: str | Path) -> Pack:
    """Read a pack. Raises ConfigError for a file that is none, or damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            metadata: dict[str, Any] = file.metadata() or {}
            if metadata.get("kind") != KIND:
                raise ConfigError(f"expected a pack of features, {path} is another file")
            content, lengths, judges = (file.get_tensor(name) for name in ("codes", "lengths", "judges"))
        frontend = FrontEndConfig(**json.loads(metadata["frontend"]))
        n_blocks = int(lengths.sum()) // BLOCK_FRAMES
        size = BLOCK_FRAMES * frontend.n_mels
        raw = np.frombuffer(lzma.decompress(content.tobytes()), np.uint8).reshape(2, size, n_blocks)
        planes = np.ascontiguousarray(np.stack([raw[0], raw[1]], axis=-1)).view(np.int16)[..., 0]
        features = _features(planes.T.reshape(n_blocks, BLOCK_FRAMES, frontend.n_mels), float(metadata["step"]))
        names, sources = json.loads(metadata["sets"]), json.loads(metadata["sources"])
    except (SafetensorError, lzma.LZMAError, OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"expected a pack of features, {path} cannot be read: {error}") from None
    ends = np.cumsum(lengths)
    stretches = [
        Stretch(features[end - length : end], name, bool(judge))
        for end, length, name, judge in zip(ends, lengths, names, judges, strict=True)
    ]
    return Pack(tuple(stretches), frontend, sources)


def _blocks(features: npt.NDArray[np.floating]) -> npt.NDArray[np.int16]:
    """(T, F) features to the codes of their whole blocks, (T // 8, 8, F) int16."""
    from scipy.fft import dctn

    n = len(features) // BLOCK_FRAMES
    blocks = features[: n * BLOCK_FRAMES].astype(np.float64).reshape(n, BLOCK_FRAMES, -1)
    codes: npt.NDArray[np.float64] = np.rint(dctn(blocks, axes=(1, 2), norm="ortho") / STEP)
    return np.clip(codes, -32768, 32767).astype(np.int16)


def _features(codes: npt.NDArray[np.int16], step: float) -> npt.NDArray[np.float16]:
    """Codes of blocks to features, (8 n, F) float16."""
    from scipy.fft import idctn

    parts = [
        idctn(codes[first : first + 4096].astype(np.float32) * np.float32(step), axes=(1, 2), norm="ortho")
        for first in range(0, len(codes), 4096)
    ]
    features = np.concatenate(parts) if parts else np.zeros((0, *codes.shape[1:]), np.float32)
    return features.reshape(-1, codes.shape[2]).astype(np.float16)
