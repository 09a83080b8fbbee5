"""streamkws record: takes of a keyword by microphone, one after the other, or the sound of the room without it."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Generator, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from streamkws.cli.arguments import Commands, add_device_option, add_speaker_option
from streamkws.cli.filing import aside, checked_speaker, rename_new, stamp, write_new
from streamkws.cli.messages import only_our_messages
from streamkws.cli.meter import Meter
from streamkws.cli.output import print_error, printable
from streamkws.errors import AudioError, ConfigError

if TYPE_CHECKING:
    from streamkws.audio import Samples
    from streamkws.sources import Microphone
    from streamkws.takes import Take

HINT_S = 10.0
"""Seconds without speech after which the levels are said."""

ECHO_S = 0.3
"""Seconds after a take was played back in which nothing is heard."""

REPORT_S = 60
"""Seconds between two lines of the time left, in a pipe."""


def add_to(commands: Commands) -> None:
    """Add the commands of this module."""
    record = commands.add(
        _record,
        "record",
        "record takes of a keyword by microphone, or the sound of the room without it",
        'streamkws record "hey robot" --speaker anna',
        'streamkws record "hey robot" --takes 20 --out corpus/train/wakewords --play',
        "streamkws record --ambient 30m --out office/",
    )
    record.add_argument("keyword", metavar="KEYWORD", nargs="?", help="what is said; not with --ambient")
    record.add_argument(
        "--out",
        metavar="DIR",
        help="where the files go: DIR/<keyword>/<speaker>_<time>.flac, or DIR/ambient_<time>.flac "
        "(default: words, with --ambient wrong)",
    )
    record.add_argument(
        "--takes", type=int, default=10, metavar="N", help="how many good takes to record (default: 10)"
    )
    add_speaker_option(record)
    add_device_option(record)
    record.add_argument("--play", action="store_true", help="play each take back")
    record.add_argument(
        "--ambient",
        type=_duration,
        metavar="T",
        help="record the room without the keyword for so long, as 90s, 30m or 2h; Ctrl-C ends it before, and keeps it",
    )


def _duration(text: str) -> float:
    """Seconds, of a number with its unit."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    seconds = float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]] if found else 0.0
    if not 1 <= seconds <= 24 * 3600:
        raise argparse.ArgumentTypeError(f"expected 1s to 24h, such as 90s, 30m or 2h, got {text!r}")
    return seconds


def _record(arguments: argparse.Namespace) -> int:
    from streamkws.corpus import keyword_folder
    from streamkws.sources import Microphone

    if arguments.ambient is not None:
        if arguments.keyword is not None:
            raise ConfigError(f"expected a keyword or --ambient, got both {arguments.keyword!r} and --ambient")
        with only_our_messages(), Microphone(arguments.device) as microphone:
            return _ambient(microphone, Path(arguments.out or "wrong"), arguments.ambient)
    if arguments.takes < 1:
        raise ConfigError(f"expected at least 1 take, got {arguments.takes}")
    keyword = _checked_keyword(arguments.keyword)
    out = Path(arguments.out or "words")
    path = keyword_folder(out, keyword) / f"{checked_speaker(arguments.speaker)}_"
    with aside(path) as part:
        open(part, "xb").close()  # a folder that cannot be written is found before anybody speaks
    with only_our_messages(), Microphone(arguments.device) as microphone:
        session = _Session(microphone, keyword, path, arguments.takes, arguments.play)
        try:
            session.run()
        except KeyboardInterrupt:
            pass
        finally:
            session.print_summary(out)
    return 0


def _checked_keyword(text: str | None) -> str:
    """Return the keyword as it stands in models. Raises ConfigError for what cannot be one, or not name a folder."""
    if text is None:
        raise ConfigError("expected a keyword to record, or --ambient, got neither")
    keyword = " ".join(text.replace("_", " ").split(" ")).strip()
    if not keyword or not keyword.isprintable() or re.search(r'[/\\:*?"<>|]', keyword) or keyword[0] == ".":
        raise ConfigError(f"expected a keyword that can name a folder, got {text!r}")
    return keyword


class _Session:
    """Takes that are recorded one after the other, until there are n_takes good ones.

    path: of the files, without the time and the suffix.
    """

    def __init__(self, microphone: Microphone, keyword: str, path: Path, n_takes: int, plays: bool) -> None:
        from streamkws.takes import TakeCutter

        self._microphone = microphone
        self._keyword, self._path, self._n_takes, self._plays = keyword, path, n_takes, plays
        self._cutter = TakeCutter()
        self._n_good = 0
        self._meter = Meter()
        self._says = ""

    def run(self) -> None:
        """Record until there are enough, or the microphone ends."""
        n_lost, hint_s = 0, HINT_S
        with self._meter:
            self._say(f"{self._microphone.name}: be quiet, the room's noise is measured")
            blocks = iter(self._microphone)
            for block in blocks:
                if self._microphone.dropped > n_lost:
                    n_lost = self._microphone.dropped
                    if self._cutter.is_speaking:
                        print("once more: a part of the audio was lost", flush=True)
                    self._cutter.restart()
                was_measuring = self._cutter.is_measuring
                for take in self._cutter.push(block):
                    self._end(take, blocks)
                    if self._n_good == self._n_takes:
                        return
                    was_measuring = True
                if was_measuring and not self._cutter.is_measuring:
                    self._say(f'take {self._n_good + 1} of {self._n_takes}: say "{self._keyword}"')
                    hint_s = HINT_S
                if self._cutter.waited_s >= hint_s and not self._cutter.is_speaking:
                    hint_s += HINT_S
                    levels = f"{self._cutter.level_db:.0f} dB, the room's noise {self._cutter.noise_db:.0f} dB"
                    print(f"nothing heard for {self._cutter.waited_s:.0f} s: the level is {levels}", flush=True)
                self._meter.show(block, self._says)

    def _say(self, text: str) -> None:
        """Tell what is to be done: in the live line, or as a line."""
        self._says = text
        if not self._meter.is_live:
            print(text, flush=True)

    def _end(self, take: Take, blocks: Iterator[Samples]) -> None:
        """Write a good take, or say what is wrong with it; play it, if asked to."""
        from streamkws.audio import SAMPLE_RATE, encode_flac

        if take.fault:
            print(f"once more: {take.fault}", flush=True)
            if self._cutter.is_measuring:
                self._say("be quiet, the room's noise is measured again")
        else:
            path = write_new(self._path.with_name(f"{self._path.name}{stamp()}.flac"), encode_flac(take.samples))
            self._n_good += 1
            levels = f"{take.peak_db:.0f} dB, {take.speech_db - take.noise_db:.0f} dB above the noise"
            length_s = len(take.samples) / SAMPLE_RATE
            print(printable(f"take {self._n_good} of {self._n_takes}: {path}, {length_s:.1f} s, {levels}"), flush=True)
        if self._plays:
            self._play(take, blocks)

    def _play(self, take: Take, blocks: Iterator[Samples]) -> None:
        """Play a take; what the microphone hears meanwhile is not used."""
        from streamkws.audio import SAMPLE_RATE
        from streamkws.sources import Playback
        from streamkws.sources.playback import ENDING_S

        self._says = "it is played back"
        with Playback(take.samples) as playback:
            n_left = len(take.samples) + round(ENDING_S * SAMPLE_RATE)
            for block in blocks:
                self._meter.show(block, self._says)
                n_left -= len(block)
                if playback.is_done or n_left < 0:
                    break
            playback.wait()
        n_left = round(ECHO_S * SAMPLE_RATE)
        for block in blocks:
            n_left -= len(block)
            if n_left < 0:
                break
        self._cutter.restart()

    def print_summary(self, out: Path) -> None:
        """Say what was recorded, and what it is for."""
        print(printable(f"{self._n_good} of {self._n_takes} takes of {self._keyword!r} in {self._path.parent}"))
        if self._n_good:
            folder = shlex.quote(str(out))
            print(printable(f"misses in them: streamkws calibrate MODEL --negatives DIR --recordings {folder}"))


def _ambient(microphone: Microphone, folder: Path, wanted_s: float) -> int:
    """Record the room as a stream. What was recorded before Ctrl-C, or before the disk was full, is kept."""
    from streamkws.audio import SAMPLE_RATE

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"ambient_{stamp()}.flac"
    part = path.with_name(f"{path.name}.part")
    open(part, "xb").close()
    trouble, n_written = "", 0
    try:
        with closing(_written(microphone, part, wanted_s)) as written:
            for so_far in written:
                n_written = so_far
    except KeyboardInterrupt:
        pass
    except AudioError as error:
        trouble = str(error)
    if not n_written:
        part.unlink()
        raise AudioError(trouble or f"{microphone.name}: expected audio, got none")
    path = rename_new(part, path)
    print(printable(f"{timedelta(seconds=round(n_written / SAMPLE_RATE))} of the room in {path}"))
    print(printable(f"thresholds by it: streamkws calibrate MODEL --negatives {shlex.quote(str(folder))}"))
    if microphone.dropped:
        print_error(f"lost {microphone.dropped / SAMPLE_RATE:.2f} s of audio in all")
    if trouble:
        print_error(trouble)
    return int(bool(trouble))


def _written(microphone: Microphone, part: Path, wanted_s: float) -> Generator[int, None, None]:
    """Write the microphone's blocks into a FLAC file, and yield how many samples are in it after each.

    Raises AudioError if the file cannot be written.
    """
    import soundfile

    from streamkws.audio import SAMPLE_RATE
    from streamkws.takes import peak_db

    n_wanted, n_written, report_s = round(wanted_s * SAMPLE_RATE), 0, 0.0
    try:
        with soundfile.SoundFile(part, "w", SAMPLE_RATE, 1, format="FLAC") as file, Meter() as meter:
            for block in microphone:
                file.write(block[: n_wanted - n_written])
                n_written = min(n_written + len(block), n_wanted)
                yield n_written
                left = f"{timedelta(seconds=round(wanted_s - n_written / SAMPLE_RATE))} left; Ctrl-C ends"
                meter.show(block, left)
                if not meter.is_live and n_written >= report_s * SAMPLE_RATE:
                    print(f"{microphone.name}: {left}, {peak_db(block):.0f} dB", flush=True)
                    report_s += REPORT_S
                if n_written == n_wanted:
                    return
    except (soundfile.LibsndfileError, AssertionError) as error:  # the second where fewer samples were written
        raise AudioError(f"{part}: cannot be written: {str(error) or 'is the disk full?'}") from None
