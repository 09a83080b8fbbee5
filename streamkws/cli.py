"""The command line: streamkws demo | detect | listen | devices | info | quantize | train | evaluate.

Results go to standard output, everything else to standard error. Exit codes: 0 done, 1 a failure (a file that cannot
be read, no microphone), 2 wrong usage (an option, a keyword or a name), 130 Ctrl-C. A reader that closes the pipe ends
a command quietly. Each command imports what it needs when it runs, so that --help is quick.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from streamkws.errors import AudioError, ConfigError, ModelFileError, StreamKwsError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from rich.progress import Progress, TaskID
    from rich.text import Text

    from streamkws.detector import Detector
    from streamkws.model import Model
    from streamkws.smoother import Detection

DEFAULT_MODEL = "wakewords"
RESULTS = ("keyword", "score", "start", "end", "peak")  # what JSON lines hold of a Detection
AUDIO_SUFFIXES = (".flac", ".mp3", ".oga", ".ogg", ".opus", ".wav")  # what a folder is searched for
SLOW_START_S = 2.0  # a start that takes longer explains itself
LONG_FILE_S = 60.0  # a file or ...
MANY_FILES = 20  # ... a call that gets a progress bar
EARLY_S, LATE_S = 0.2, 0.5  # how far from the spoken keyword a detection still counts (DESIGN.md, section 5)
INFO_BITS = (8, 4)  # widths whose weight quantization error is shown of an f32 model
TIMELINE_COLUMNS = 48
DEMO_BLOCK_SAMPLES = 1280
METER_COLUMNS = 40
METER_FLOOR_DB = -60.0
CLIPPING = 0.99  # amplitude from which the level turns red
HEARD_SHOWN_S = 1.0  # how long a keyword's bar stays green
SCREENS_PER_SECOND = 15


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    argv: the arguments after the program's name; None takes the process's own.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file name may be anything
    try:
        arguments = _parser().parse_args(argv)
        code: int = arguments.run(arguments)
        if sys.stdout is not None:  # as it is where the shell closed it
            sys.stdout.flush()
        return code
    except SystemExit as stop:  # argparse: --help, --version, wrong usage
        return stop.code if isinstance(stop.code, int) else 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # what is still buffered has nowhere to go, and must not raise again when the interpreter ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ConfigError as error:
        _complain(error)
        return 2
    except StreamKwsError as error:
        _complain(error)
        return 1
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        _complain(f"{name}{error.strerror or error}")
        return 1


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from streamkws import __version__

        print(f"streamkws {__version__}")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="streamkws",
        description="Streaming keyword spotting with low-bit integer kernels.",
        epilog="example: streamkws demo",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)

    def command(run: Callable[[argparse.Namespace], int], name: str, summary: str, *examples: str) -> _Parser:
        added = commands.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            epilog="examples:\n" + "\n".join(f"  {example}" for example in examples),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(run=run)
        return added

    def json_lines(added: _Parser) -> None:
        added.add_argument("--json", action="store_true", help="print JSON lines")

    def choice(added: _Parser) -> None:
        added.add_argument(
            "--model", default=DEFAULT_MODEL, metavar="NAME|PATH", help=f"a shipped model or a file ({DEFAULT_MODEL})"
        )
        added.add_argument(
            "--threshold",
            action="append",
            default=[],
            type=_threshold,
            metavar="X|KEYWORD=X",
            help="smoothed posterior that counts as heard, 0 to 1, for all keywords or one; may be repeated",
        )
        added.add_argument(
            "--keyword", action="append", metavar="KEYWORD", help="listen for this keyword only; may be repeated"
        )

    demo = command(
        _demo,
        "demo",
        "hear the keywords in a short recording that comes with the package",
        "streamkws demo",
        "streamkws demo --realtime",
    )
    demo.add_argument("--realtime", action="store_true", help="at the speed of speech")
    choice(demo)
    json_lines(demo)

    detect = command(
        _detect,
        "detect",
        "find keywords in audio files",
        "streamkws detect kitchen.flac",
        "streamkws detect --json --keyword alexa --threshold 0.8 recordings/",
        "arecord -q -r 16000 -f S16_LE -c 1 -t raw | streamkws detect -",
    )
    detect.add_argument(
        "files", nargs="+", metavar="FILE", help="audio files, folders of them, or - for raw 16 kHz mono int16"
    )
    choice(detect)
    json_lines(detect)

    listen = command(
        _listen,
        "listen",
        "hear keywords in the microphone, until Ctrl-C",
        "streamkws listen",
        "streamkws listen --device USB --threshold alexa=0.9",
        'streamkws listen --json | while read -r hit; do notify-send "$hit"; done',
    )
    listen.add_argument("--device", type=_device, metavar="D", help="number or part of the name, see streamkws devices")
    choice(listen)
    json_lines(listen)

    devices = command(_devices, "devices", "list the audio inputs", "streamkws devices")
    json_lines(devices)

    info = command(_info, "info", "show what a model is made of", "streamkws info", "streamkws info wakewords --json")
    info.add_argument("model", nargs="?", metavar="MODEL", help="a shipped name or a file; without it, list what ships")
    json_lines(info)

    quantize = command(
        _quantize,
        "quantize",
        "quantize a float32 model to integer codes, without training",
        "streamkws quantize wakewords.f32 --weights 4 --activations 8",
        "streamkws quantize mine.f32.safetensors --weights 8,4,4,8 --activations 8 --out small.safetensors",
        "streamkws quantize mine.f32.safetensors --weights 32,4,4,32 --activations 32,8,8,32",
    )
    quantize.add_argument("model", metavar="MODEL", help="a shipped name or a file, in float32")
    for name, what in (("--weights", "weights"), ("--activations", "the layers' input vectors")):
        quantize.add_argument(
            name,
            required=True,
            type=_widths,
            metavar="BITS",
            help=f"bits of {what}, 2 to 8, or 32 for float32: for all layers, or one for each with commas between",
        )
    quantize.add_argument("--out", metavar="FILE", help="instead of <name>.<widths>.safetensors in the current folder")
    quantize.add_argument("--force", action="store_true", help="replace a file that exists")
    quantize.add_argument("--json", action="store_true", help="print a JSON object")

    train = command(
        _train,
        "train",
        "train a model",
        "streamkws train models/wakewords.toml --corpus corpus --export models/",
    )
    train.add_argument("config", metavar="CONFIG.toml", help="the recipe")
    train.add_argument("--corpus", metavar="FOLDER", help="folder with train/ and dev/, instead of the recipe's")
    train.add_argument("--fresh", action="store_true", help="start anew instead of continuing from the last checkpoint")
    train.add_argument("--export", metavar="FOLDER", help="write the trained model there in every bit width")

    evaluate = command(
        _evaluate,
        "evaluate",
        "count misses and false accepts of models on a corpus",
        "streamkws evaluate wakewords corpus/dev",
        "streamkws evaluate wakewords.f32 wakewords.w4a8 corpus/dev --snr 10 --json figures.json",
    )
    evaluate.add_argument("models", nargs="+", metavar="MODEL", help="shipped names or files")
    evaluate.add_argument(
        "corpus",
        metavar="CORPUS",
        help="folder of recordings, such as corpus/dev: wakewords/<keyword>/ with a keyword per file (smart_mirror "
        "for smart mirror), and folders of other audio to count false accepts in (*_noise is mixed in, too)",
    )
    evaluate.add_argument(
        "--snr", action="append", type=float, metavar="DB", help="noise condition beside clean (10); may be repeated"
    )
    evaluate.add_argument("--json", metavar="FILE|-", help="write all figures as JSON, one line per model")
    return parser


def _threshold(text: str) -> tuple[str, float]:
    keyword, _, number = text.rpartition("=")
    try:
        return keyword, float(number)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number or KEYWORD=NUMBER, got {text!r}") from None


def _widths(text: str) -> int | tuple[int, ...]:
    try:
        bits = tuple(int(number) for number in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected a number, or one for each layer with commas between, got {text!r}"
        ) from None
    return bits if len(bits) > 1 else bits[0]


def _device(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


def _complain(message: object) -> None:
    """Print one line to standard error."""
    if sys.stderr is None:
        return  # print would take standard output instead
    print("streamkws:", " ".join(str(message).split()), file=sys.stderr, flush=True)


def _json(values: Mapping[str, object]) -> str:
    return json.dumps({name: round(value, 6) if isinstance(value, float) else value for name, value in values.items()})


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return aligned columns; numbers, percentages and "-" to the right."""
    cells = [header, *([str(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    right = [
        all(isinstance(row[column], int | float) or f" {row[column]}".endswith((" %", " -")) for row in rows)
        for column in range(len(header))
    ]
    return "\n".join(
        "  ".join(
            f"{cell:{'>' if r else '<'}{width}}" for cell, width, r in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in cells
    )


@contextmanager
def _patience(reason: str) -> Iterator[None]:
    """Say the reason on standard error if what follows takes more than SLOW_START_S."""
    timer = threading.Timer(SLOW_START_S, _complain, [reason])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _load_model(name: str) -> Model:
    import streamkws

    try:
        return streamkws.load_model(name)
    except ModelFileError as error:
        if os.path.exists(name):
            raise
        raise ConfigError(str(error)) from None  # a name that is not known is wrong usage, not a bad file


def _new_detector(arguments: argparse.Namespace) -> Detector:
    """Load the model and make the detector that the options ask for."""
    with _patience("starting; the first start compiles the kernels, once per machine ..."):
        import streamkws

        model = _load_model(arguments.model)
        thresholds: dict[str, float] = {}
        for keyword, value in sorted(arguments.threshold, key=lambda item: bool(item[0])):  # those for all come first
            thresholds.update({keyword: value} if keyword else dict.fromkeys(model.keywords, value))
        return streamkws.Detector(model, thresholds=thresholds or None, keywords=arguments.keyword)


def _sample_rate(detector: Detector) -> int:
    return detector.model.config.frontend.sample_rate


# -- detect


def _detect(arguments: argparse.Namespace) -> int:
    from streamkws.sources import RawSource, open_source

    paths, complaints = _audio_files(arguments.files)
    for complaint in complaints:
        _complain(complaint)
    if not paths:
        return 1
    failed = bool(complaints)
    detector = _new_detector(arguments)
    lines = _Lines(detector.thresholds, paths, arguments.json)
    with _Bar() as bar:
        for n_done, path in enumerate(paths):
            detector.reset()
            n_samples = 0
            try:
                with open_source(path) as source:
                    for block in source:
                        lines.show(detector.push(block), path)
                        n_samples += len(block)
                        if source.duration_s and (len(paths) >= MANY_FILES or source.duration_s >= LONG_FILE_S):
                            part = min(1.0, n_samples / source.sample_rate / source.duration_s)
                            bar.show(os.path.basename(path), n_done + part, len(paths))
                    lines.show(detector.flush(), path)
                    if isinstance(source, RawSource) and source.trailing_bytes:
                        _complain(f"{source.name}: ended in the middle of a sample, expected int16")
            except AudioError as error:
                _complain(error)
                failed = True
    return int(failed)


def _audio_files(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the files to listen to, folders replaced by the audio files below them, and what is wrong with folders.

    Files and folders whose name starts with a dot are left out of a folder.
    """
    paths: list[str] = []
    complaints: list[str] = []
    for name in names:
        if name == "-" or not os.path.isdir(name):
            paths.append(name)
            continue
        found: list[str] = []
        unreadable: list[OSError] = []
        for folder, folders, files in os.walk(name, onerror=unreadable.append):
            folders[:] = [inner for inner in folders if not inner.startswith(".")]
            audio = [file for file in files if file.lower().endswith(AUDIO_SUFFIXES) and not file.startswith(".")]
            found += [os.path.join(folder, file) for file in audio]
        complaints += [f"{error.filename}: {error.strerror}" for error in unreadable]
        if not found and not unreadable:
            complaints.append(f"{name}: expected audio files in this folder ({' '.join(AUDIO_SUFFIXES)}), found none")
        paths += sorted(found)
    return paths, complaints


class _Lines:
    """Detections as lines of text or of JSON.

    keywords: those that may come, to align the columns by.
    paths: the files that may come; none for live audio, whose lines name no file.
    """

    def __init__(self, keywords: Iterable[str], paths: Iterable[str], as_json: bool) -> None:
        self._keyword_columns = max(map(len, keywords))
        self._path_columns = max((len(path) + 1 for path in paths), default=0)
        self._as_json = as_json

    def show(self, hits: Iterable[Detection], path: str = "") -> None:
        """Print detections as they come, so that a reader of the pipe has each at once."""
        for hit in hits:
            if self._as_json:
                values = {"file": path} if path else {}
                print(_json(values | {name: getattr(hit, name) for name in RESULTS}), flush=True)
            else:
                keyword = f"{hit.keyword:<{self._keyword_columns}}"
                print(f"{path:<{self._path_columns}}{hit.start:9.2f} s  {keyword}  {hit.score:.2f}", flush=True)


class _Bar:
    """A progress bar on standard error, from the first call of show on; nothing where that is no terminal."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def show(self, what: str, done: float, total: float) -> None:
        """Set the bar to done of total steps."""
        if self._progress is None or self._task is None:
            if not sys.stderr.isatty():
                return
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            self._progress = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TextColumn("{task.percentage:3.0f} %"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
                redirect_stdout=sys.stdout.isatty(),
            )
            self._task = self._progress.add_task(what, total=total)
            self._progress.start()
        self._progress.update(self._task, description=what, completed=done, total=total)


# -- listen


class _Source(Protocol):
    """What the listening loop needs of a microphone.

    dropped: samples lost so far.
    """

    dropped: int

    def __iter__(self) -> Iterator[npt.NDArray[Any]]: ...


def _listen(arguments: argparse.Namespace) -> int:
    from streamkws.sources import Microphone

    detector = _new_detector(arguments)
    with Microphone(arguments.device) as microphone:
        _hear(microphone, detector, f"{microphone.name} heard by {detector.model.name}", arguments.json)
    return 0


def _hear(source: _Source, detector: Detector, title: str, as_json: bool) -> None:
    """Show what is heard until the source ends or Ctrl-C is pressed."""
    lines = _Lines(detector.thresholds, (), as_json)
    n_dropped = 0
    with _Meter(detector, title) if sys.stdout.isatty() and not as_json else nullcontext() as meter:
        try:
            for block in source:
                hits = detector.push(block)
                if meter is not None:
                    meter.show(block, hits)
                lines.show(hits)
                if source.dropped > n_dropped:
                    _complain(f"lost {source.dropped - n_dropped} samples of audio, {source.dropped} so far")
                    n_dropped = source.dropped
            lines.show(detector.flush())
        except KeyboardInterrupt:
            pass


class _Meter:
    """A live picture of the sound level and of every keyword's posterior, below the lines that are printed meanwhile.

    title: what is listened to.
    """

    def __init__(self, detector: Detector, title: str) -> None:
        from rich.console import Console
        from rich.live import Live

        self._detector = detector
        self._title = title
        self._thresholds = detector.thresholds
        self._columns = max(len("level"), *map(len, self._thresholds))
        self._live = Live(console=Console(highlight=False), auto_refresh=False, transient=True)
        self._n_samples = 0
        self._level = 0.0  # amplitude; the largest since the last picture
        self._posteriors = dict.fromkeys(self._thresholds, 0.0)  # the largest since the last picture
        self._heard_s = dict.fromkeys(self._thresholds, float("-inf"))
        self._drawn_s = float("-inf")

    def __enter__(self) -> _Meter:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, block: npt.NDArray[Any], hits: Iterable[Detection]) -> None:
        """Take in a block that the detector has heard, and draw the picture if it is time to."""
        now_s = time.monotonic()
        self._n_samples += len(block)
        if len(block):
            full_scale = 32768.0 if block.dtype.kind == "i" else 1.0
            self._level = max(self._level, float(abs(block.astype("f8")).max()) / full_scale)
        for keyword, posterior in zip(self._detector.model.keywords, self._detector.levels(), strict=True):
            if keyword in self._posteriors:
                self._posteriors[keyword] = max(self._posteriors[keyword], float(posterior))
        for hit in hits:
            self._heard_s[hit.keyword] = now_s
        if now_s - self._drawn_s >= 1 / SCREENS_PER_SECOND:
            self._drawn_s = now_s
            self._live.update(self._picture(now_s), refresh=True)
            self._level = 0.0
            self._posteriors = dict.fromkeys(self._thresholds, 0.0)

    def _picture(self, now_s: float) -> Text:
        from rich.text import Text

        level_db = 20 * math.log10(max(self._level, 10 ** (METER_FLOOR_DB / 20)))
        minutes, seconds = divmod(self._n_samples // _sample_rate(self._detector), 60)
        picture = Text(no_wrap=True, overflow="crop")
        picture.append(f"{self._title}, {minutes}:{seconds:02d}; Ctrl-C ends\n", "dim")
        style = "red" if self._level > CLIPPING else "cyan"
        picture.append_text(self._bar("level", 1 - level_db / METER_FLOOR_DB, None, style))
        picture.append(f" {level_db:5.0f} dB\n")
        for keyword, threshold in self._thresholds.items():
            posterior = self._posteriors[keyword]
            style = "green" if now_s - self._heard_s[keyword] < HEARD_SHOWN_S or posterior >= threshold else "yellow"
            picture.append_text(self._bar(keyword, posterior, threshold, style))
            picture.append(f" {posterior:5.2f} of {threshold:.2f}\n")
        picture.right_crop(1)
        return picture

    def _bar(self, name: str, value: float, mark: float | None, style: str) -> Text:
        """Draw one bar, value and mark from 0 to 1."""
        from rich.text import Text

        n_full = round(min(max(value, 0.0), 1.0) * METER_COLUMNS)
        bar = "█" * n_full + "·" * (METER_COLUMNS - n_full)
        text = Text(f"  {name:<{self._columns}}  ").append(bar[:n_full], style).append(bar[n_full:], "dim")
        if mark is not None:
            column = 4 + self._columns + min(round(mark * METER_COLUMNS), METER_COLUMNS - 1)
            text = text[:column].append("│", "bold").append_text(text[column + 1 :])
        return text


# -- devices, info, quantize


def _devices(arguments: argparse.Namespace) -> int:
    from streamkws.sources import input_devices

    devices = input_devices()
    if arguments.json:
        for device in devices:
            print(_json(asdict(device)))
    elif devices:
        rows = [
            (d.index, d.name, d.host_api, d.n_channels, d.sample_rate, "default" if d.is_default else "")
            for d in devices
        ]
        print(_table(("device", "name", "sound system", "channels", "Hz", ""), rows))
    else:
        raise AudioError("expected an audio input, found none on this machine")
    return 0


def _info(arguments: argparse.Namespace) -> int:
    if arguments.model is None:
        return _shipped(arguments.json)
    model = _load_model(arguments.model)
    config = model.config
    thresholds = model.smoother().thresholds
    facts = {
        "name": model.name,
        "parameters": model.n_parameters,
        "stored_bytes": model.stored_bytes,
        "resident_bytes": model.resident_bytes,
        "float_bytes": model.float_bytes,
    }
    if arguments.json:
        print(json.dumps(facts | {"thresholds": thresholds, "layers": _layer_facts(model), "config": asdict(config)}))
        return 0
    front_end, smoother = config.frontend, config.smoother
    step_ms = 1000 * config.step_samples / front_end.sample_rate
    print(f"{model.name}: {model.n_parameters:,} parameters")
    for what, n_bytes in (("stored", model.stored_bytes), ("in memory", model.resident_bytes)):
        print(f"  {what:<9}  {n_bytes:>9,} bytes, {100 * n_bytes / model.float_bytes:.0f} % of float32")
    print()
    rows: list[Sequence[object]] = [
        (keyword, f"{threshold:.3f}", f"{config.durations_s.get(keyword, 0):.2f} s")
        for keyword, threshold in thresholds.items()
    ]
    print(_table(("keyword", "threshold", "length"), rows))
    print(
        f"\nfront end: {front_end.n_mels} mel bands, {front_end.low_hz:g} to {front_end.high_hz:g} Hz, "
        f"{front_end.window} window of {front_end.window_samples} samples every {front_end.hop_samples}, "
        f"{front_end.sample_rate} Hz"
    )
    print(
        f"decision: a step of {step_ms:g} ms, smoothed over {smoother.smoothing_steps}, patience "
        f"{smoother.patience_steps}, refractory {smoother.refractory_steps} steps\n"
    )
    print(_layer_table(model))
    if config.provenance:
        print()
        for name, text in config.provenance.items():
            print(f"{name}: {text}")
    return 0


def _weight_errors(model: Model) -> dict[int | None, Sequence[tuple[float, float] | tuple[None, None]]]:
    """Each layer's weight quantization error and its worst column's; None where unknown.

    The key is None for the errors that the model records, or the bits at which an f32 model would have them.
    """
    if model.config.is_float:
        return {bits: model.quantize(bits, bits).config.weight_errors for bits in INFO_BITS}
    return {None: model.config.weight_errors or [(None, None)] * len(model.layers)}


def _layer_table(model: Model) -> str:
    """Draw the layers with their shapes, sizes and weight quantization errors."""
    errors = _weight_errors(model)
    header = ["layer", "taps", "dilation", "activation", "bits", "bytes"]
    for bits in errors:
        header += ["error" if bits is None else f"{bits}-bit error", "worst"]
    rows = [
        (
            f"{layer.n_inputs} -> {layer.n_outputs}",
            layer.taps,
            layer.dilation,
            layer.activation + (" + input" if layer.residual else ""),
            layer.bits,
            layer.stored_bytes,
            *("-" if error is None else f"{100 * error:.2f} %" for pair in pairs for error in pair),
        )
        for layer, *pairs in zip(model.config.layers, *errors.values(), strict=True)
    ]
    lines = [
        _table(header, rows),
        "error: RMS of what quantization changes in the weights, relative to their own; worst: of the worst column",
    ]
    if (None, None) in [pair for pairs in errors.values() for pair in pairs]:
        lines.append("-: not recorded in the model file")
    return "\n".join(lines)


def _layer_facts(model: Model) -> list[dict[str, object]]:
    """Return what _layer_table shows, for JSON; errors as fractions."""
    facts: list[dict[str, object]] = [
        {
            "n_inputs": layer.n_inputs,
            "n_outputs": layer.n_outputs,
            "taps": layer.taps,
            "dilation": layer.dilation,
            "bits": layer.bits,
            "stored_bytes": layer.stored_bytes,
        }
        for layer in model.config.layers
    ]
    for bits, pairs in _weight_errors(model).items():
        at = "" if bits is None else f"_at_{bits}_bits"
        for layer_facts, (error, worst) in zip(facts, pairs, strict=True):
            layer_facts |= {f"weight_error{at}": error, f"worst_column_error{at}": worst}
    return facts


def _quantize(arguments: argparse.Namespace) -> int:
    from streamkws.model_file import SUFFIX, model_path, save_model

    full = _load_model(arguments.model)
    if not full.config.is_float:
        raise ConfigError(
            f"expected a float32 model, got {full.config.bits}: quantize the f32 model {arguments.model} was made from"
        )
    model = full.quantize(arguments.weights, arguments.activations)
    if model.config.is_float:
        raise ConfigError("expected at least one layer of 2 to 8 bits, got 32 for all")
    path = Path(arguments.out or re.sub(r"[^\w.+ -]", "_", model.name) + SUFFIX)  # a model's name is free text
    if path.is_dir():
        raise ConfigError(f"{path}: expected a file to write, got a folder")
    if path.exists() and not arguments.force:
        raise ConfigError(f"{path}: exists already; --force replaces it")
    n_full_bytes = model_path(arguments.model).stat().st_size
    n_bytes = save_model(model, path).stat().st_size
    if model.thresholds:
        _complain(f"the thresholds are those calibrated for {full.name}; streamkws evaluate shows how they do")
    if arguments.json:
        facts = {"path": str(path), "name": model.name, "file_bytes": n_bytes, "float_file_bytes": n_full_bytes}
        print(json.dumps(facts | {"layers": _layer_facts(model)}))
        return 0
    print(f"{path}: {n_bytes:,} bytes, {100 * n_bytes / n_full_bytes:.0f} % of {full.name}'s {n_full_bytes:,}\n")
    print(_layer_table(model))
    return 0


def _shipped(as_json: bool) -> int:
    """List the shipped models."""
    import streamkws

    rows: list[Sequence[object]] = []
    for name in streamkws.shipped_models():
        model = _load_model(name)
        if as_json:
            print(json.dumps({"name": name, "keywords": model.keywords, "stored_bytes": model.stored_bytes}))
        rows.append((name, model.n_parameters, model.stored_bytes, ", ".join(model.keywords)))
    if not as_json:
        print(_table(("model", "parameters", "bytes", "keywords"), rows))
        print("\nstreamkws info MODEL shows one in detail")
    return 0


# -- train, evaluate


def _train(arguments: argparse.Namespace) -> int:
    from streamkws.training.export import export
    from streamkws.training.trainer import train

    run_folder = train(arguments.config, corpus=arguments.corpus, fresh=arguments.fresh)
    if arguments.export:
        for path in export(run_folder, arguments.export, corpus=arguments.corpus):
            print(path)
    return 0


def _evaluate(arguments: argparse.Namespace) -> int:
    from streamkws.evaluation.det import evaluate_models, format_table

    if arguments.json not in (None, "-"):
        Path(arguments.json).open("a").close()  # a path that cannot be written fails now, not after the long run
    models = [_load_model(name) for name in arguments.models]
    with _Bar() as bar:
        evaluations = evaluate_models(models, arguments.corpus, (None, *(arguments.snr or (10.0,))), bar.show)
    lines = "".join(json.dumps(evaluation.to_json()) + "\n" for evaluation in evaluations)
    if arguments.json == "-":
        print(lines, end="")
        return 0
    print(format_table(evaluations))
    if arguments.json:
        Path(arguments.json).write_text(lines, encoding="utf-8")
    return 0


# -- demo


@dataclass
class _Expected:
    """A keyword of the demo recording; times in seconds."""

    keyword: str
    start: float
    end: float
    heard: bool = False

    def matches(self, hit: Detection) -> bool:
        """Whether a detection belongs to it."""
        return hit.keyword == self.keyword and self.start - EARLY_S <= hit.peak <= self.end + LATE_S


def _demo(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from streamkws.audio import read_audio

    truth = json.loads(Path(__file__).with_name("demo.json").read_text(encoding="utf-8"))
    detector = _new_detector(arguments)
    keywords = detector.thresholds
    expected = [_Expected(**item) for item in truth["keywords"] if item["keyword"] in keywords]
    samples = read_audio(Path(__file__).with_name("demo.flac"))
    rate = _sample_rate(detector)
    duration_s = len(samples) / rate
    console = Console(highlight=False, soft_wrap=True)
    width = max(map(len, keywords))

    def styled(line: str) -> None:
        """Print a line of rich markup; by print, since rich has its own way to end on a closed pipe."""
        with console.capture() as capture:
            console.print(line)
        print(capture.get(), end="", flush=True)

    def show(hits: Iterable[Detection]) -> int:
        """Print detections and return how many of them were not expected."""
        n_false = 0
        for hit in hits:
            match = next((item for item in expected if item.matches(hit) and not item.heard), None)
            if match is None:
                n_false += 1
            else:
                match.heard = True
            if arguments.json:
                line = {name: getattr(hit, name) for name in RESULTS} | {"expected": match is not None}
                print(_json(line), flush=True)
            else:
                bar = _at(hit.start, hit.end, duration_s)
                verdict = "[green]✓[/]" if match else "[red]false[/]"
                styled(f"  {bar} {hit.start:6.2f} s  {hit.keyword:<{width}}  {hit.score:.2f} {verdict}")
        return n_false

    if not arguments.json:
        print(f"{duration_s:.0f} s of synthesized speech in noise, heard by {detector.model.name}:\n")
        styled(f"  [cyan]{_skyline(samples)}[/]")
    n_false = 0
    start_s = time.perf_counter()
    for start in range(0, len(samples), DEMO_BLOCK_SAMPLES):
        block = samples[start : start + DEMO_BLOCK_SAMPLES]
        if arguments.realtime:
            time.sleep(max(0.0, (start + len(block)) / rate - (time.perf_counter() - start_s)))
        n_false += show(detector.push(block))
    n_false += show(detector.flush())
    elapsed_s = time.perf_counter() - start_s
    n_heard = sum(item.heard for item in expected)
    if arguments.json:
        summary = {"heard": n_heard, "expected": len(expected), "false": n_false, "audio_s": duration_s}
        print(_json(summary | {"elapsed_s": elapsed_s}))
        return 0
    for item in expected:
        if not item.heard:
            bar = _at(item.start, item.end, duration_s)
            styled(f"  [dim]{bar}[/] {item.start:6.2f} s  {item.keyword:<{width}}  [red]missed[/]")
    speed = "" if arguments.realtime else f", in {elapsed_s:.2f} s: {duration_s / elapsed_s:.0f}x real time"
    print(f"\n{n_heard} of {len(expected)} keywords heard, {n_false} false{speed}")
    return 0


def _at(start_s: float, end_s: float, duration_s: float) -> str:
    """Draw a stretch of the timeline."""
    first = min(int(start_s / duration_s * TIMELINE_COLUMNS), TIMELINE_COLUMNS - 1)
    n = max(1, round((end_s - start_s) / duration_s * TIMELINE_COLUMNS))
    return ("·" * first + "█" * n).ljust(TIMELINE_COLUMNS, "·")[:TIMELINE_COLUMNS]


def _skyline(samples: npt.NDArray[np.float32]) -> str:
    """Draw the level of a recording along the timeline, 5 dB a step."""
    import numpy as np

    parts = np.array_split(samples.astype(np.float64), TIMELINE_COLUMNS)
    level_db = [10 * math.log10(float(np.mean(part**2)) + 1e-12) for part in parts]
    return "".join("▁▂▃▄▅▆▇█"[round(min(max(7 + (db - max(level_db)) / 5, 0), 7))] for db in level_db)
