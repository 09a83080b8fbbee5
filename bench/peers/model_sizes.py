"""Bytes of the model files that each peer loads for those of the six keywords that it has.

    python bench/peers/model_sizes.py            print the table; the engines are installed into runs/peers once
    python bench/peers/model_sizes.py --write    also write it in bench/README.md

Counted are acoustic models, keyword files and dictionaries, not the libraries that run them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.peers.peers import KEYWORDS, PEERS, Peer, PeerError
from bench.report import markdown, write_section, written_by

OPEN_MODELS = "openwakeword/resources/models"
FILES = {
    "porcupine": (
        "pvporcupine/lib/common/porcupine_params.pv",
        *(f"pvporcupine/resources/keyword_files/linux/{keyword}_linux.ppn" for keyword in KEYWORDS),
    ),
    "microwakeword": ("pymicro_wakeword/models/alexa.tflite",),
    "openwakeword": tuple(
        f"{OPEN_MODELS}/{name}.tflite" for name in ("melspectrogram", "embedding_model", "alexa_v0.1")
    ),
    "pocketsphinx": ("pocketsphinx/model/en-us/en-us/*", "pocketsphinx/model/en-us/cmudict-en-us.dict"),
}
"""Of each peer, patterns of files in its environment's site-packages."""


def files_of(peer: Peer) -> list[Path]:
    """The model files of a peer, which is installed where it is missing; PeerError where one is not there."""
    (packages,) = peer.python().parent.parent.glob("lib/python*/site-packages")
    found = []
    for pattern in FILES[peer.engine]:
        paths = [path for path in sorted(packages.glob(pattern)) if path.name != "README"]
        if not paths:
            raise PeerError(f"{peer.name}: expected the model file {pattern}, found none")
        found += paths
    return found


def main() -> None:
    """Count, print, and write where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the table in bench/README.md")
    arguments = parser.parse_args()
    try:
        files = {peer.name: files_of(peer) for peer in PEERS.values()}
    except PeerError as error:
        sys.exit(f"model_sizes.py: {error}")
    sizes = {name: sum(path.stat().st_size for path in paths) for name, paths in files.items()}
    rows = [[name, str(len(files[name])), f"{n_bytes:,} B"] for name, n_bytes in sizes.items()]
    text = f"{markdown(['engine', 'files', 'size'], rows)}\n\n{written_by()}"
    print(text)
    if arguments.write:
        write_section("peer-sizes", text)


if __name__ == "__main__":
    main()
