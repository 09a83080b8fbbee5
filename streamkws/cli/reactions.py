"""What streamkws listen does at a detection: record the audio, run a command, ring a bell."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from threading import Semaphore, Thread
from typing import TYPE_CHECKING, Any

from streamkws.cli.output import print_error
from streamkws.errors import AudioError
from streamkws.whole import numbered, write_whole

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from streamkws.detector import Detector
    from streamkws.smoother import Detection

BEFORE_S, AFTER_S = 0.75, 0.5
"""Seconds of audio that a recording has before the keyword's start and after its end."""

MAX_COMMANDS = 4
"""Most commands that run at once; a detection beyond that starts none."""


@dataclass
class _Take:
    """A detection whose recording is not complete.

    when: the time of the detection.
    path: of the file that is being written, None before that; its result is "" if the file cannot be written.
    """

    hit: Detection
    when: datetime
    path: Future[str] | None = None


class Reactions:
    """What is done at each detection. A failure is one line on standard error; listening goes on.

    folder: where the audio around each detection is saved, as FLAC; it is made if it does not exist.
    command: run by the shell, with the detection in STREAMKWS_KEYWORD, _SCORE, _START and _END; with a folder it runs
        when the recording is saved, with its path in STREAMKWS_AUDIO. Its output goes to standard error.
    is_quiet: discard the output of the commands.
    bell: ring the terminal's bell, on standard error.
    """

    def __init__(self, detector: Detector, folder: str | None, command: str | None, is_quiet: bool, bell: bool) -> None:
        self._detector = detector
        self._folder = None if folder is None else Path(folder)
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
        self._command = command
        self._stderr = sys.stderr  # the live picture replaces it later
        self._output = subprocess.DEVNULL if is_quiet else _descriptor(self._stderr)
        self._bell = bell
        self._takes: list[_Take] = []
        self._writer = ThreadPoolExecutor(1)
        self._free = Semaphore(MAX_COMMANDS)

    def start(self, hits: Iterable[Detection]) -> None:
        """Begin the reactions to detections that just came."""
        for hit in hits:
            if self._bell and self._stderr is not None:
                self._stderr.write("\a")
                self._stderr.flush()
            if self._folder is not None:
                self._takes.append(_Take(hit, datetime.now()))
            else:
                self._run(hit, "")

    def go_on(self) -> None:
        """Save recordings that are complete, and run their commands; called after each block."""
        for take in self._takes:
            if take.path is None and self._detector.heard_s >= take.hit.end + AFTER_S:
                take.path = self._save(take.hit, take.when)
        for take in [take for take in self._takes if take.path is not None and take.path.done()]:
            self._takes.remove(take)
            self._run(take.hit, take.path.result() if take.path else "")

    def cut(self) -> None:
        """Save all recordings as they are: there is a gap in the audio that follows."""
        for take in self._takes:
            if take.path is None:
                take.path = self._save(take.hit, take.when)

    def close(self) -> None:
        """Save the recordings and start their commands; commands that run are not awaited."""
        self.cut()
        self._writer.shutdown()
        self.go_on()

    def _save(self, hit: Detection, when: datetime) -> Future[str]:
        end = min(hit.end + AFTER_S, self._detector.heard_s)
        try:
            samples = self._detector.audio(hit.start - BEFORE_S, end)
        except AudioError as error:
            print_error(f"cannot record: {error}")
            empty: Future[str] = Future()
            empty.set_result("")
            return empty
        return self._writer.submit(self._write, samples, hit.keyword, when)

    def _write(self, samples: npt.NDArray[np.int16], keyword: str, when: datetime) -> str:
        """Write a new file and return its path, or "" if that fails."""
        from streamkws.audio import encode_flac

        assert self._folder is not None
        flac = encode_flac(samples, self._detector.sample_rate)
        name = f"{re.sub(r'[^0-9A-Za-z_-]+', '_', keyword)}_{when:%Y-%m-%d_%H-%M-%S}"
        for path in numbered(self._folder / f"{name}.flac"):
            try:
                write_whole(path, flac, is_new=True)
            except FileExistsError:
                continue
            except OSError as error:
                print_error(f"cannot record: {path}: {error.strerror}")
                return ""
            return str(path)
        raise AssertionError("numbers do not end")

    def _run(self, hit: Detection, path: str) -> None:
        if self._command is None:
            return
        if not self._free.acquire(blocking=False):
            print_error(f"no command for {hit.keyword!r}: {MAX_COMMANDS} still run")
            return
        values = {
            "STREAMKWS_KEYWORD": hit.keyword,
            "STREAMKWS_SCORE": f"{hit.score:.4f}",
            "STREAMKWS_START": f"{hit.start:.3f}",
            "STREAMKWS_END": f"{hit.end:.3f}",
        }
        if path:
            values["STREAMKWS_AUDIO"] = path
        try:
            process = subprocess.Popen(
                self._command,
                shell=True,
                env=os.environ | values,
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=self._output,
                start_new_session=True,  # Ctrl-C ends listen, not its commands
            )
        except OSError as error:
            self._free.release()
            print_error(f"the command for a detection cannot be run: {error.strerror}: {self._command}")
            return
        Thread(target=self._await, args=(process,), name=f"command for {hit.keyword}", daemon=True).start()

    def _await(self, process: subprocess.Popen[bytes]) -> None:
        code = process.wait()
        self._free.release()
        if code:
            print_error(f"the command for a detection failed with exit code {code}: {self._command}")


def _descriptor(stream: Any) -> int:
    """Return the descriptor of a stream for a child process; DEVNULL if the stream has none."""
    try:
        number: int = stream.fileno()
    except (AttributeError, OSError, ValueError):
        return subprocess.DEVNULL
    return number
