"""streamkws review: go through the audio that listen saved, and say of each file whether the keyword is in it."""

from __future__ import annotations

import argparse
import re
import shlex
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from streamkws.cli.arguments import Commands, add_speaker_option, device
from streamkws.cli.filing import checked_speaker, move_new
from streamkws.cli.keys import END, is_terminal, read_key, single_keys
from streamkws.cli.messages import only_our_messages
from streamkws.cli.output import print_error, printable
from streamkws.errors import AudioError, ConfigError

if TYPE_CHECKING:
    from streamkws.audio import Samples

KEYS = "y: the keyword was said, n: it was not, r or space: again, s: leave it, u: take the last one back, q: end"

SAVED = re.compile(r"(?P<keyword>.+)_(?P<day>\d{4}-\d\d-\d\d)_(?P<time>\d\d-\d\d-\d\d)(_\d+)?", re.ASCII)
"""The name of a file that listen saved, without its suffix."""


def add_to(commands: Commands) -> None:
    """Add the commands of this module."""
    review = commands.add(
        _review,
        "review",
        "listen to what listen --record and --record-near saved, and sort it by whether the keyword was said",
        "streamkws review heard/",
        "streamkws review nearly/ --speaker anna --recordings words/ --negatives wrong/",
    )
    review.add_argument("folder", metavar="DIR", help="the folder of listen --record or --record-near")
    review.add_argument(
        "--recordings",
        default="words",
        metavar="DIR",
        help="where files with the keyword go, as DIR/<keyword>/<speaker>_<time>.flac (default: words)",
    )
    review.add_argument(
        "--negatives", default="wrong", metavar="DIR", help="where files without it go (default: wrong)"
    )
    add_speaker_option(review)
    review.add_argument(
        "--device", type=device, metavar="D", help="the output's number or a part of its name (default: the system's)"
    )
    review.add_argument("--no-sound", action="store_true", help="play nothing, only decide")


@dataclass(frozen=True)
class _Saved:
    """A file to decide on. keyword: as the name of its folder. when: as in the file's name."""

    path: Path
    keyword: str
    when: str

    @property
    def title(self) -> str:
        """Keyword and time, as they are shown."""
        day, time = self.when.split("_")
        return printable(f"{self.keyword.replace('_', ' ')}  {day} {time.replace('-', ':')}")


@dataclass(frozen=True)
class _Decision:
    """What became of the file of this index. moved: where it is now, None where it was left. kind: for the summary."""

    index: int
    moved: Path | None
    kind: str


def _review(arguments: argparse.Namespace) -> int:
    review = _Review(arguments)
    with only_our_messages():
        try:
            with single_keys():
                review.run()
        except KeyboardInterrupt:
            print()
        except (_NoSound, ConfigError) as error:
            review.is_failed = True
            print_error(error)
    review.print_summary()
    return int(review.is_failed)


class _Review:
    """The files, the decisions on them, and where each goes.

    is_failed: whether a file could not be understood, read or moved, or nothing can be played.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._folder = Path(arguments.folder)
        self._places = {"y": Path(arguments.recordings), "n": Path(arguments.negatives)}
        self._speaker = checked_speaker(arguments.speaker)
        self._device, self._sound = arguments.device, not arguments.no_sound
        self._decisions: list[_Decision] = []
        self.is_failed = False
        if not self._folder.is_dir():
            raise ConfigError(f"{self._folder}: expected a folder, got {_kind(self._folder)}")
        if self._places["n"].resolve() == self._folder.resolve():
            raise ConfigError(f"{self._folder}: expected another folder for --negatives than the one that is reviewed")
        self._files = self._listed()

    def _listed(self) -> list[_Saved]:
        from streamkws.audio import AUDIO_SUFFIXES

        files = []
        paths = [path for path in sorted(self._folder.iterdir()) if path.name.lower().endswith(AUDIO_SUFFIXES)]
        for path in paths:
            if path.name.startswith(".") or path.is_dir():
                continue
            if path.exists() and not path.is_file():  # a pipe would be waited for
                self._fail(f"{printable(str(path))}: expected a file, got a pipe or a device; it is left where it is")
                continue
            name = SAVED.fullmatch(path.stem)
            if name is None or name["keyword"].startswith("."):
                wanted = "expected a name that listen gave, <keyword>_<day>_<time>"
                self._fail(f"{printable(str(path))}: {wanted}; it is left where it is")
            else:
                files.append(_Saved(path, name["keyword"], f"{name['day']}_{name['time']}"))
        if not files and not self.is_failed:
            raise AudioError(f"{self._folder}: expected audio files that listen saved, found none")
        return files

    def _fail(self, message: str) -> None:
        self.is_failed = True
        print_error(message)

    def run(self) -> None:
        """Decide on each file."""
        if self._files:
            print(KEYS)
        index = 0
        while index < len(self._files):
            try:
                following = self._decide(index)
            except AudioError as error:
                self._fail(f"{error}; it is left where it is")
                following = index + 1
            if following is None:
                return
            index = following
            if index == len(self._files) and self._decisions:
                if is_terminal():
                    print("that was the last; u: take it back, any other key: end")
                if read_key() == "u":
                    index = self._take_back(index)

    def _decide(self, index: int) -> int | None:
        """Play and show a file, and do what the key says; return the index of the next file, None for the end.

        Raises AudioError for a file that cannot be read.
        """
        from streamkws.audio import SAMPLE_RATE, read_audio
        from streamkws.takes import peak_db

        saved = self._files[index]
        samples = read_audio(saved.path)
        if not len(samples):
            raise AudioError(f"{saved.path}: expected audio, got a file without a sample")
        number = f"{index + 1:{len(str(len(self._files)))}} of {len(self._files)}"
        title = f"{number}  {saved.title}  {len(samples) / SAMPLE_RATE:5.1f} s  {peak_db(samples):4.0f} dB"
        print(title, end="", flush=True)
        while True:
            key = self._key_while_playing(samples)
            if key in ("q", END):
                print()
                return None
            if key in ("y", "n", "s"):
                self._decisions.append(self._place(index, key))
                return index + 1
            if key == "u":
                return self._take_back(index)
            if key not in ("r", " "):
                print()
                if not is_terminal():  # what follows was meant for other files
                    raise ConfigError(f"expected one of y, n, r, s, u and q in each line, got {key!r}")
                print(KEYS)
                print(title, end="", flush=True)

    def _key_while_playing(self, samples: Samples) -> str:
        with ExitStack() as stack:
            if self._sound:
                from streamkws.sources import Playback

                try:
                    playback = stack.enter_context(Playback(samples, self._device))
                    if not is_terminal():
                        playback.wait()
                except AudioError as error:
                    print()
                    raise _NoSound(f"{error}; --no-sound decides without") from None
            return read_key()

    def _place(self, index: int, key: str) -> _Decision:
        saved = self._files[index]
        if key == "s":
            print("  left")
            return _Decision(index, None, "left")
        target = self._places[key] / saved.path.name
        if key == "y":
            name = f"{self._speaker}_{saved.when}{saved.path.suffix}"
            target = self._places[key] / saved.keyword / name
        try:
            moved = move_new(saved.path, target)
        except OSError as error:
            print("  left")
            self._fail(f"{saved.path}: cannot be moved to {target.parent}: {error.strerror}")
            return _Decision(index, None, "left")
        print(f"  to {printable(str(moved))}")
        return _Decision(index, moved, key)

    def _take_back(self, index: int) -> int:
        if not self._decisions:
            print("  nothing to take back")
            return index
        last = self._decisions[-1]
        if last.moved is not None:
            saved = self._files[last.index]
            try:
                back = move_new(last.moved, saved.path)
            except OSError as error:
                print()
                self._fail(f"{last.moved}: cannot be moved back to {self._folder}: {error.strerror}")
                return index
            self._files[last.index] = _Saved(back, saved.keyword, saved.when)
        self._decisions.pop()
        print("  the last one is taken back")
        return last.index

    def print_summary(self) -> None:
        """Say what went where, and what to do with it."""
        counts = Counter(decision.kind for decision in self._decisions)
        said, wrong = self._places["y"], self._places["n"]
        n_left = len(self._files) - counts["y"] - counts["n"]
        print(printable(f"{counts['y']} to {said}, {counts['n']} to {wrong}, {n_left} left in {self._folder}"))
        if counts["y"] or counts["n"]:
            recordings = f"--recordings {shlex.quote(str(said))} " if said.is_dir() else ""
            negatives = f"--negatives {shlex.quote(str(wrong)) if wrong.is_dir() else 'DIR'}"
            print(printable(f"thresholds by them: streamkws calibrate MODEL {recordings}{negatives}"))


class _NoSound(Exception):
    """Nothing can be played."""


def _kind(path: Path) -> str:
    return "a file" if path.exists() else "nothing"
