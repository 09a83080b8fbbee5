"""The work on a cluster of Dask's: few units are out at a time; a part is committed when all of its units are back."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from streamkws.errors import ClusterError, MissingExtraError
from streamkws.model import Model
from streamkws.scanning.hearing import Heard, Listening, Piece, hear_pieces, joined
from streamkws.scanning.listing import INSTALL, Recording, one_line
from streamkws.scanning.planning import Part

if TYPE_CHECKING:
    from distributed import Client, Future

Hear: TypeAlias = "Callable[[Model, Listening, Sequence[Piece]], list[Heard]]"

UNITS_PER_CORE = 3
"""Units that are out at a time, for each core: one that is heard, and some that wait for it."""

TALKATIVE = ("distributed", "tornado", "asyncio")
"""Loggers of Dask's and of what it uses."""

LOST = "the cluster was lost; the same command goes on where this one stopped"
CONNECT_S = 30.0
"""Seconds in which a cluster must answer."""


@contextmanager
def local_client(n_workers: int) -> Iterator[Client]:
    """A cluster of this machine: processes of one thread each, which the kernels and the decoders use up."""
    distributed = _distributed()
    with _quiet():
        cluster = distributed.LocalCluster(
            n_workers=n_workers,
            threads_per_worker=1,
            processes=True,
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL,
        )
        with cluster, distributed.Client(cluster) as client:
            yield client


@contextmanager
def remote_client(address: str) -> Iterator[Client]:
    """A cluster that runs already, by its scheduler's address. Raises ClusterError where it does not answer."""
    distributed = _distributed()
    with _quiet():
        try:
            client = distributed.Client(address, timeout=CONNECT_S)
        except (OSError, ValueError) as error:
            raise ClusterError(f"{address}: no scheduler of Dask's answers ({one_line(error)})") from None
        with client:
            yield client


def n_cores(client: Client) -> int:
    """Threads of a cluster's workers; waits for the first one. Raises ClusterError where none comes."""
    try:
        client.wait_for_workers(1, timeout=CONNECT_S)
    except TimeoutError:
        raise ClusterError(f"the cluster has no workers after {CONNECT_S:g} s") from None
    return _threads(client)


def _threads(client: Client) -> int:
    """Those of the workers there are, at least 1."""
    return max(1, int(sum(client.nthreads().values())))


Tell: TypeAlias = "Callable[[Recording, Heard, int, bool], object]"
"""Is called with what was heard of a recording, of how many of its bytes, and whether it was the last of it."""


@dataclass
class _Begun:
    """A part of which units are out.

    pieces: what came of the pieces of each recording. heard: what came of each recording. n_out: units that are out.
    """

    part: Part
    pieces: dict[Recording, dict[Piece, Heard | None]]
    heard: dict[Recording, Heard] = field(default_factory=dict)
    n_out: int = 0


class Work:
    """Parts that are heard by a cluster.

    client: of the cluster. model, listening: what is listened for.
    commit: is called with each part that is complete, and with what was heard in each of its recordings.
    hear: what a task does.
    """

    def __init__(
        self,
        client: Client,
        model: Model,
        listening: Listening,
        commit: Callable[[Part, list[Heard]], object],
        tell: Tell,
        hear: Hear = hear_pieces,
    ) -> None:
        self._client, self._listening, self._commit, self._tell, self._hear = client, listening, commit, tell, hear
        self._units: dict[Future, tuple[_Begun, Sequence[Piece]]] = {}
        self._suspects: list[tuple[_Begun, Piece]] = []
        self._done = _distributed().as_completed(loop=client.loop)
        self._model = client.submit(_same, model, pure=False)  # of a task, so that it is made again where it is lost
        error, _ = _outcome(self._model)
        if error is not None:
            raise ClusterError(f"the workers cannot run streamkws: {one_line(error)}")

    def run(self, parts: Iterable[Part]) -> None:
        """Hear all parts. Raises ClusterError for a cluster that is lost."""
        try:
            for part in parts:
                begun = _Begun(part, {})
                for unit in part.units:
                    for piece in unit:
                        begun.pieces.setdefault(piece.recording, {})[piece] = None
                for unit in part.units:
                    self._send(begun, unit)
                most = UNITS_PER_CORE * self._n_cores()
                while len(self._units) >= most:
                    self._take()
            while self._units:
                self._take()
            while self._suspects:
                begun, piece = self._suspects.pop()
                begun.n_out -= 1
                self._send(begun, [piece])
                while self._units:
                    self._take(is_alone=True)
        finally:
            units, self._units = self._units, {}
            if units and self._client.status == "running":
                self._client.cancel(list(units))

    def _n_cores(self) -> int:
        try:
            return _threads(self._client)
        except (OSError, TimeoutError):
            raise ClusterError(LOST) from None

    def _send(self, begun: _Begun, pieces: Sequence[Piece]) -> None:
        if self._client.status != "running":
            raise ClusterError(LOST)
        future = self._client.submit(self._hear, self._model, self._listening, pieces, pure=False)
        self._units[future] = begun, pieces
        begun.n_out += 1
        self._done.add(future)

    def _take(self, is_alone: bool = False) -> None:
        """Wait for a unit, and do what follows from it. is_alone: whether no other one is out."""
        future = next(self._done)
        begun, pieces = self._units.pop(future)
        begun.n_out -= 1
        error, came = _outcome(future)
        if isinstance(error, MissingExtraError):
            raise error
        if error is None:
            for piece, heard in zip(pieces, came, strict=True):
                self._keep(begun, piece, heard)
        elif len(pieces) > 1:  # one of them ends its worker, or fails otherwise
            for piece in pieces:
                self._send(begun, [piece])
        elif _is_killed(error) and not is_alone:  # Dask blames all that a worker had before it when it died
            self._suspects.append((begun, pieces[0]))
            begun.n_out += 1
        else:
            killed = "hearing it ended the process, several times"
            self._keep(begun, pieces[0], Heard(error=killed if _is_killed(error) else one_line(error)))
        if not begun.n_out:
            self._commit(begun.part, [begun.heard[recording] for recording in begun.part.recordings])

    def _keep(self, begun: _Begun, piece: Piece, heard: Heard) -> None:
        """Keep what came of a piece; with the last one of a recording, what came of the recording."""
        recording = piece.recording
        pieces = begun.pieces[recording]
        if piece.is_whole:
            begun.heard[recording] = heard
            self._tell(recording, heard, recording.n_bytes // len(pieces), True)
            return
        pieces[piece] = heard
        came = [one for one in pieces.values() if one is not None]
        is_all = len(came) == len(pieces)
        is_well = all(one.is_exact and not one.error for one in came)
        self._tell(recording, heard, recording.n_bytes // len(pieces), is_all and is_well)
        if is_all and is_well:
            begun.heard[recording] = joined(came)
        elif is_all:  # what a whole file gives before it fails, no piece of it tells
            self._send(begun, [Piece(recording)])


def _outcome(future: Future) -> tuple[BaseException | None, Any]:
    """The exception of a task, or what it returned; waits for it. Raises ClusterError where the cluster is lost."""
    try:
        error = future.exception()
        if error is None:
            return None, future.result()
    except CancelledError as cancelled:
        error = cancelled
    if isinstance(error, CancelledError):
        raise ClusterError(LOST)
    return error, None


def _same(model: Model) -> Model:
    return model


def _is_killed(error: BaseException) -> bool:
    """Whether the workers that had the task died."""
    return isinstance(error, _distributed().KilledWorker)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what Dask says of its workers to itself: what failed is in the output."""
    names = [name for name in logging.root.manager.loggerDict if name.split(".")[0] in TALKATIVE]
    loggers = [logger for logger in map(logging.getLogger, names) if not logger.disabled]
    for logger in loggers:  # each has a level of its own
        logger.disabled = True
    try:
        yield
    finally:
        for logger in loggers:
            logger.disabled = False


def _distributed() -> Any:
    try:
        import distributed
    except ImportError:
        raise MissingExtraError(INSTALL) from None
    return distributed
