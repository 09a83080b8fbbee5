"""A model for programs in C: the library of compiled kernels, a header, an example, and the model as an image.

An image is what a new Detector's compiled path touches, as one block of memory. A program reads it, adds where it lies
to its pointers, chooses the weights for its CPU, and pushes samples.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from streamkws import kernels
from streamkws.detector import CHUNK_SAMPLES, Detector
from streamkws.errors import ConfigError
from streamkws.kernels.layout import Kind, TupleKind
from streamkws.kernels.memory import ALIGNMENT, words_of
from streamkws.model import Model
from streamkws.native.library import DESCRIPTION
from streamkws.smoother import DEFAULT_DURATION_S
from streamkws.whole import write_whole

SOURCES = Path(__file__).parent / "native" / "c"
IMAGE = "model.image"
MAGIC = b"streamkws image 1"
HEAD = np.dtype(
    [
        ("magic", "S24"),
        *((name, np.int64) for name in ("bytes", "most_samples", "words", "n_pointers", "pointers", "weights_word")),
        *((name, np.int64) for name in ("weights", "weights_bytes", "n_kinds", "events", "n_keywords", "keywords")),
        *((name, np.int64) for name in ("keyword_bytes", "durations")),
        *((name, np.float64) for name in ("first_end_samples", "step_samples", "sample_rate")),
        ("delay_steps", np.float64),
    ]
)
"""streamkws_image of streamkws.h."""
KINDS_LINE = "#define STREAMKWS_KINDS(kind)"
ADDRESS_WORD = 4
"""Which word of an array's is its address, see memory.words_of."""


def export_c(model: Model, folder: str | os.PathLike[str]) -> None:
    """Write the library, streamkws.h, example.c and the model's image into a folder, which may be there.

    Raises ConfigError where this process runs no library of compiled kernels, and OSError.
    """
    library = kernels.LIBRARY
    if library is None:
        raise ConfigError(
            "expected a library of compiled kernels to export, which a checkout lacks: run "
            "python -m streamkws.native.build FOLDER, and set STREAMKWS_LIBRARY to FOLDER"
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    every = json.loads((library.path.parent / DESCRIPTION).read_bytes())["kinds"]
    kinds = {bit: kind for bit, kind in enumerate(every) if kind is not None}
    header = (SOURCES / "streamkws.h").read_text(encoding="utf-8")
    calls = " ".join(f"kind({bit}, {name})" for bit, name in kinds.items())
    write_whole(folder / "streamkws.h", header.replace(KINDS_LINE, f"{KINDS_LINE} {calls}", 1).encode())
    shutil.copyfile(SOURCES / "example.c", folder / "example.c")
    write_whole(folder / library.path.name, library.path.read_bytes())
    write_whole(folder / IMAGE, image_of(model, list(kinds.values())))


class _Block:
    """The parts of an image, each at a multiple of ALIGNMENT behind the head."""

    def __init__(self) -> None:
        self.data = bytearray(HEAD.itemsize)

    def add(self, array: npt.NDArray[Any]) -> int:
        """Append an array, and return where it begins."""
        self.data += bytes(-len(self.data) % ALIGNMENT)
        place = len(self.data)
        self.data += array.tobytes()
        return place


def image_of(model: Model, kinds: Sequence[str]) -> bytes:
    """The image of a new stream of a model, with the weights for these kinds of CPU, as streamkws.h describes it."""
    (arrays,) = Detector(model, history_s=0).arrays
    config, block = model.config, _Block()
    head = np.zeros(1, HEAD).view(np.recarray)[0]
    words: list[int] = []
    pointers: list[int] = []
    for array, kind in _leaves(arrays, kernels.STREAM_ARRAYS):
        word = len(words) + ADDRESS_WORD
        words += words_of(array, kind)
        if array is arrays.network.weights:
            head.weights_word = word
            continue
        words[word] = block.add(array)
        pointers.append(word)
        if array is arrays.events:
            head.events = words[word]
    weights = [_weights(model, kernels.packing_of(kind)) for kind in kinds]
    keywords = np.array([keyword.encode() + b"\0" for keyword in model.keywords])
    head.magic, head.most_samples, head.n_kinds = MAGIC, CHUNK_SAMPLES, len(kinds)
    head.words, head.n_pointers = block.add(np.array(words, np.int64)), len(pointers)
    head.pointers = block.add(np.array(pointers, np.int64))
    head.weights, head.weights_bytes = block.add(np.concatenate(weights)), weights[0].size
    head.keywords, head.n_keywords, head.keyword_bytes = block.add(keywords), len(keywords), keywords.itemsize
    head.durations = block.add(np.array([config.durations_s.get(k, DEFAULT_DURATION_S) for k in model.keywords]))
    clock = config.clock
    head.first_end_samples, head.step_samples = clock.first_end_samples, clock.step_samples
    head.sample_rate = clock.sample_rate
    head.delay_steps = (config.smoother.smoothing_steps - 1) / 2
    head.bytes = len(block.data)
    block.data[: HEAD.itemsize] = head.tobytes()
    return bytes(block.data)


def _leaves(value: Any, kind: Kind) -> Iterator[tuple[npt.NDArray[Any], Kind]]:
    """Every array of nested NamedTuples, in order, with its kind."""
    if not isinstance(kind, TupleKind):
        yield value, kind
        return
    for one, its in zip(value, kind.kinds, strict=True):
        yield from _leaves(one, its)


def _weights(model: Model, packing: kernels.Packing) -> npt.NDArray[np.uint8]:
    """Network.weights as they lie for a kind of CPU, (bytes,)."""
    packed = [layer.kernel_weights(packing).ravel() for layer in model.layers if not layer.config.is_float]
    return np.concatenate([*packed, np.zeros(0, np.uint8)])
