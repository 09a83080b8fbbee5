"""Other engines beside streamkws, each in an environment of its own, all on one core and in one run.

    from bench.peers.peers import PEERS, Peer, PeerError

    with PEERS["porcupine"].start(core=1) as engine:
        timing, period = engine.time_blocks(samples, n_blocks=1000)
        for hits in engine.detect(["kitchen.flac", samples]):
            ...

start() makes the environment under runs/peers where it is missing (pip reaches the network then), and runs
bench/peers/peer_workers there. A peer that cannot be installed or does not start raises PeerError, one line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bench.report import ROOT
from streamkws.audio import read_audio
from streamkws.errors import MissingExtraError
from streamkws.evaluation.latency import Timing, as_int16
from streamkws.voices.environment import Environment

WORKERS = ROOT / "bench" / "peers" / "peer_workers"
ENVIRONMENTS = ROOT / "runs" / "peers"
KEYWORDS = ("alexa", "computer", "jarvis", "smart mirror", "snowboy", "view glass")
ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
I16 = npt.NDArray[np.int16]


class PeerError(Exception):
    """A peer that cannot be installed, started or asked; one line."""


class Hit(NamedTuple):
    """A detection: its keyword, the seconds of audio heard when it came, its score where the engine says one."""

    keyword: str
    heard_s: float
    score: float | None


@dataclass(frozen=True)
class Peer:
    """An engine, and how to get it.

    name: as the tables call it. engine: the worker's name for it. requirements: for pip; none means this very Python,
    or interpreter, the Python of an environment that is there already. variables: of the worker's environment.
    """

    name: str
    engine: str
    requirements: tuple[str, ...] = ()
    worker: str = "listen.py"
    interpreter: str = sys.executable
    variables: tuple[tuple[str, str], ...] = ()

    def python(self) -> Path:
        """The Python of the peer's environment, which is made where it is missing or has other requirements."""
        if not self.requirements:
            return Path(self.interpreter)
        try:
            return Environment(self.name, ENVIRONMENTS / self.engine, self.requirements).python()
        except MissingExtraError as error:
            raise PeerError(str(error)) from None

    def worker_process(self, core: int | None = None) -> Worker:
        """Run the peer's worker, on one core."""
        return Worker(self.name, self.python(), self.worker, core, dict(self.variables))

    def start(self, core: int | None = None, **options: Any) -> Engine:
        """Run the engine, on one core. options: what this engine alone understands, see bench/peers/peer_workers."""
        return Engine(self, core, options)


class Worker:
    """A script of bench/peers/peer_workers in some environment, asked by lines of JSON."""

    def __init__(
        self, name: str, python: Path, script: str, core: int | None, variables: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        command = [str(python), str(WORKERS / script)]
        try:
            self._process = subprocess.Popen(
                command if core is None else [*command, str(core)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env={**os.environ, **ONE_THREAD, **(variables or {})},
            )
        except OSError as error:
            raise PeerError(f"{name} does not start: {error.strerror}: {python}") from None

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, do: str, **arguments: Any) -> Any:
        """The answer to a request; PeerError where the engine fails."""
        pipes = self._process
        assert pipes.stdin is not None and pipes.stdout is not None
        try:
            pipes.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            pipes.stdin.flush()
            line = pipes.stdout.readline()
        except OSError:
            line = ""
        if not line:
            raise PeerError(f"{self.name}: the worker ended, exit code {pipes.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise PeerError(f"{self.name}: {answer['error']}")
        return answer["answer"]

    def close(self) -> None:
        """End the worker."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.close()
        except OSError:  # it has ended by itself
            pass
        self._process.wait()
        self._process.stdout.close()


class Engine:
    """A running peer that listens for keywords."""

    def __init__(self, peer: Peer, core: int | None, options: dict[str, Any]) -> None:
        self.name = peer.name
        self._worker = peer.worker_process(core)
        self._folder = tempfile.TemporaryDirectory()
        try:
            opened = self._worker.ask("open", engine=peer.engine, keywords=KEYWORDS, **options)
        except PeerError:
            self.close()
            raise
        self.block_samples: int = opened["block_samples"]
        self.keywords: list[str] = opened["keywords"]

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the engine."""
        self._worker.close()
        self._folder.cleanup()

    def time_blocks(
        self, samples: I16, n_blocks: int, block_samples: int | None = None, live: bool = False
    ) -> tuple[Timing, int]:
        """Time n_blocks of a recording that is repeated, and say after how many blocks it repeats.

        block_samples: the engine's own where None. live: see streamkws.evaluation.latency.measure.
        """
        length = block_samples or self.block_samples
        out = str(Path(self._folder.name) / "ns.npy")
        answer = self._worker.ask(
            "time",
            samples=self._save(samples),
            out=out,
            n_blocks=n_blocks,
            block_samples=length,
            live=live,
        )
        return Timing(np.load(out), answer["cpu_s"], length), answer["period"]

    def detect(self, recordings: Iterable[str | os.PathLike[str] | I16]) -> Iterator[list[Hit]]:
        """What the engine hears in each recording by itself: a file of any rate, or 16 kHz int16 samples.

        The engine hears whole blocks of its own length; the last is filled up with zeros.
        """
        for recording in recordings:
            yield [Hit(*found) for found in self._worker.ask("detect", samples=self._save(_samples(recording)))]

    def scores(self, recordings: Iterable[str | os.PathLike[str] | I16]) -> Iterator[npt.NDArray[np.float32]]:
        """The score of each block and keyword of each recording by itself, (n, K); NaN where a block completes none.

        Recordings as in detect. PeerError where the engine has no scores.
        """
        out = str(Path(self._folder.name) / "scores.npy")
        for recording in recordings:
            self._worker.ask("scores", samples=self._save(_samples(recording)), out=out)
            yield np.load(out)

    def memory(self) -> dict[str, float | None]:
        """Megabytes resident before the engine was loaded ("bare_mb") and now ("resident_mb")."""
        answer: dict[str, float | None] = self._worker.ask("memory")
        return answer

    def _save(self, samples: I16) -> str:
        path = Path(self._folder.name) / "samples.npy"
        np.save(path, samples)
        return str(path)


def _samples(recording: str | os.PathLike[str] | I16) -> I16:
    return recording if isinstance(recording, np.ndarray) else as_int16(read_audio(recording))


PEERS = {
    peer.engine: peer
    for peer in (
        Peer("Porcupine 1.9.5, C library", "porcupine", ("pvporcupine==1.9.5", "numpy")),
        Peer("pymicro-wakeword 2.5.0", "microwakeword", ("pymicro-wakeword==2.5.0", "numpy")),
        Peer("openWakeWord 0.5.1", "openwakeword", ("openwakeword==0.5.1", "numpy<2")),
        Peer("PocketSphinx 5.1.1", "pocketsphinx", ("pocketsphinx==5.1.1", "numpy")),
    )
}
OWN = Peer("streamkws", "streamkws")
LAYERS = Peer(
    "NumPy, onnxruntime, LiteRT",
    "layers",
    ("ai-edge-litert==2.3.0", "onnxruntime==1.31.1", "onnx", "flatbuffers", "numpy"),
    "layers.py",
)
OWN_LAYERS = Peer("streamkws' kernels", "streamkws", worker="own_layers.py")
