"""Archives: keywords in thousands of hours of recordings, on all cores of a machine or on a cluster of Dask's.

scan does it. The modules import Dask, pyarrow and fsspec only where they use them.

listing: what there is to hear. entries: where a long file may be cut. hearing: what a worker does with a piece of it.
planning: tasks and commits. running: Dask. dataset: the output. progress: how far it is, and what came of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from time import perf_counter
from typing import TYPE_CHECKING, Any

from streamkws.detector import Detector
from streamkws.model import Model
from streamkws.scanning.dataset import Dataset
from streamkws.scanning.hearing import Heard, Listening
from streamkws.scanning.listing import Recording, recordings
from streamkws.scanning.planning import Part, Sizes, parts
from streamkws.scanning.progress import Progress, Summary
from streamkws.scanning.running import Work, local_client, n_cores, remote_client

if TYPE_CHECKING:
    from distributed import Client

EVENT_S = 1.0
"""Seconds between two events of progress."""


def scan(
    sources: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    model: Model,
    *,
    out: str | os.PathLike[str],
    thresholds: Mapping[str, float] | float | None = None,
    keywords: Iterable[str] | None = None,
    client: Client | str | None = None,
    workers: int | None = None,
    retry_failed: bool = False,
    tell: Callable[[dict[str, Any]], object] | None = None,
) -> Summary:
    """Hear an archive, and write its detections into a folder of Parquet files. What is in it is not done again.

    sources: files, folders, patterns, lists (csv, jsonl, parquet) and addresses of them, as docs/archives.md says.
    out: the folder; it is made where it is not there.
    thresholds, keywords: as for Detector.
    client: a dask.distributed Client, or the address of a scheduler; None for the cores of this machine.
    workers: how many of these; None for all.
    retry_failed: also hear again what failed before.
    tell: is called with events: dictionaries whose "event" is "start", "progress" (about one a second), "error" or
        "end".

    Returns the summary of all that is in out. Recordings that cannot be heard are in out's errors, and counted.
    Raises ConfigError for an out of another model or other thresholds, ClusterError for a cluster that cannot be
    reached or was lost, OSError for an out that cannot be written, MissingExtraError without the extra scan.
    """
    named = [sources] if isinstance(sources, (str, os.PathLike)) else list(sources)
    listening = Listening(thresholds, None if keywords is None else tuple(keywords))
    used = Detector(model, thresholds, listening.keywords, history_s=0).thresholds
    with Dataset(out, model, used) as dataset:
        if retry_failed:
            dataset.forget_failed()
        progress = Progress()
        for recording in recordings(named):
            if not dataset.has(recording):
                progress.expect(recording.n_bytes)
        run = _Run(dataset, progress, tell or _tell_nobody)
        run.begin()
        if progress.total:
            with _client(client, workers) as cluster:
                sizes = Sizes().for_work(progress.total_bytes, n_cores(cluster))
                new = filter(dataset.is_new, recordings(named))
                work = Work(cluster, model, listening, run.commit, run.count)
                work.run(parts(new, sizes, model.config.step_samples))
        run.end()
    return dataset.summary


class _Run:
    """One run of a scan: what is told of it, and its time in the summary."""

    def __init__(self, dataset: Dataset, progress: Progress, tell: Callable[[dict[str, Any]], object]) -> None:
        self._dataset, self._progress, self._tell = dataset, progress, tell
        self._before_s = dataset.summary.wall_s
        self._told = perf_counter()

    def begin(self) -> None:
        """Tell how much there is to do."""
        summary, progress = self._dataset.summary, self._progress
        done = summary.recordings + summary.failed
        self._tell({"event": "start", "recordings": progress.total, "bytes": progress.total_bytes, "done": done})

    def count(self, recording: Recording, heard: Heard, n_bytes: int, is_last: bool) -> None:
        """Count what came of a recording, and tell it."""
        self._progress.count(heard, n_bytes, is_last)
        if heard.error and is_last:
            self._tell({"event": "error", "path": recording.path, "error": heard.error})
        if perf_counter() - self._told >= EVENT_S:
            self._tell(self._progress.event())
            self._told = perf_counter()

    def commit(self, part: Part, heard: list[Heard]) -> None:
        """Write a part."""
        self._dataset.commit(part.name, part.recordings, heard)
        self._write_summary()

    def end(self) -> None:
        """Tell what is in the output."""
        self._write_summary()
        self._tell(self._progress.event())
        self._tell({"event": "end", **self._dataset.summary.as_json()})

    def _write_summary(self) -> None:
        self._dataset.summary.wall_s = self._before_s + self._progress.wall_s
        self._dataset.write_summary()


def _client(client: Client | str | None, workers: int | None) -> AbstractContextManager[Client]:
    """The client to use; one that is the caller's stays open."""
    if client is None:
        return local_client(workers or _cores_here())
    return remote_client(client) if isinstance(client, str) else nullcontext(client)


def _cores_here() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _tell_nobody(event: dict[str, Any]) -> None:
    """Do nothing."""
