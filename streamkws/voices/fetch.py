"""Fetch the teacher of training: Google's speech embedding (Apache-2.0), as the package openwakeword carries it.

    python bench/fetch_teacher.py runs/teacher

Writes melspectrogram.onnx, as it is, and embedding.onnx, which takes any number of frames instead of 76. A recipe names
the folder as data.teacher. Needs pip; onnx is installed into an environment of its own.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from peers import Peer, PeerError

WHEEL, ONNX = "openwakeword==0.5.1", "onnx==1.19.1"
MODELS = "openwakeword/resources/models"
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


def fetch(folder: Path) -> None:
    """Write the two networks."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", place, WHEEL], check=True)
        (wheel,) = place.glob("openwakeword-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            (folder / "melspectrogram.onnx").write_bytes(archive.read(f"{MODELS}/melspectrogram.onnx"))
            archive.extract(f"{MODELS}/embedding_model.onnx", place)
        python = Peer("onnx", "onnx", (ONNX,)).python()
        source, target = place / MODELS / "embedding_model.onnx", folder / "embedding.onnx"
        subprocess.run([python, "-c", ANY_LENGTH, source, target], check=True)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR")
    folder = parser.parse_args().folder
    try:
        fetch(folder)
    except (PeerError, OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"fetch_teacher.py: cannot write {folder}: {error}")


if __name__ == "__main__":
    main()
