"""Audio that is not recorded here: recordings, raw samples from a pipe, blocks that somebody else makes."""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import IO, Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from streamkws.audio import BLOCK_SAMPLES, SAMPLE_RATE, AudioFile, Samples, valid_samples
from streamkws.errors import AudioError

READ_BYTES = 1 << 16
"""Most bytes taken from a pipe at once: what a Linux pipe holds."""

Source: TypeAlias = "str | os.PathLike[str] | npt.NDArray[Any] | Iterable[Samples]"
"""What open_source takes: a path, "-", samples, or an iterable of blocks such as an AudioSource."""

_Self = TypeVar("_Self", bound="AudioSource")
_FILE_MAGIC = (b"RIFF", b"RIFX", b"RF64", b"FORM", b"fLaC", b"OggS", b"ID3\x02", b"ID3\x03", b"ID3\x04")


class AudioSource(ABC):
    """Audio as an iterable of blocks, each (n,) int16 or float32 samples; a context manager that closes itself.

    name: what messages call the source.
    duration_s: seconds of audio; None where that is not known beforehand.
    sample_rate: of the blocks, Hz.
    """

    name: str
    duration_s: float | None = None
    sample_rate: int = SAMPLE_RATE

    @abstractmethod
    def __iter__(self) -> Iterator[Samples]: ...

    @abstractmethod
    def close(self) -> None:
        """End the source; an iteration under way ends."""

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class FileSource(AudioSource):
    """A recording, as AudioFile decodes it; it can be iterated over once.

    path, block_samples, Raises: as for AudioFile.
    """

    def __init__(self, path: str | os.PathLike[str], block_samples: int = BLOCK_SAMPLES) -> None:
        self._file = AudioFile(path, block_samples)
        self.name = self._file.name
        self.duration_s = self._file.duration_s

    def __iter__(self) -> Iterator[Samples]:
        return iter(self._file)

    def close(self) -> None:
        """Close the file; an iteration under way ends."""
        self._file.close()


class RawSource(AudioSource):
    """Raw samples from a pipe: int16, little endian, 16 kHz, mono. A block is what one read of the pipe returned.

    stream: a binary stream; None is standard input. It belongs to the caller, and stays open.

    trailing_bytes: 1 if the stream ended in the middle of a sample; that byte is ignored.
    Raises AudioError for a terminal, for a closed stream, and for an audio file instead of raw samples.
    """

    def __init__(self, stream: IO[bytes] | None = None) -> None:
        self.name = "standard input" if stream is None else str(getattr(stream, "name", "stream"))
        self.trailing_bytes = 0
        if stream is None:
            if sys.stdin is None or sys.stdin.closed:
                raise AudioError(f"{self.name}: expected an open stream, got a closed one")
            stream = sys.stdin.buffer
        if stream.closed:
            raise AudioError(f"{self.name}: expected an open stream, got a closed one")
        if stream.isatty():
            raise AudioError(f"{self.name}: expected raw 16 kHz mono int16 audio, got a terminal")
        self._read = getattr(stream, "read1", stream.read)  # read would wait for all the bytes that were asked for
        self._closed = False

    def __iter__(self) -> Iterator[Samples]:
        data = b""
        checked = False
        ended = False
        while not (self._closed or ended):
            try:
                new = self._read(READ_BYTES)
            except (OSError, ValueError) as error:
                raise AudioError(f"{self.name}: {getattr(error, 'strerror', None) or error}") from None
            if new is None:
                raise AudioError(f"{self.name}: expected a blocking stream, got one without data yet")
            ended = not new
            data += new
            if len(data) < 4 and not ended:
                continue
            if not checked and data.startswith(_FILE_MAGIC):
                raise AudioError(
                    f"{self.name}: expected raw 16 kHz mono int16 audio, got an audio file ({data[:4]!r}); "
                    f"give its path, or decode it: ffmpeg -i FILE -ac 1 -ar {SAMPLE_RATE} -f s16le -"
                )
            checked = True
            n_bytes = len(data) // 2 * 2
            if n_bytes:
                yield np.frombuffer(data[:n_bytes], "<i2").astype(np.int16)
            data = data[n_bytes:]
        self.trailing_bytes = len(data)

    def close(self) -> None:
        """End the source after the current block; the stream itself stays open."""
        self._closed = True


class Blocks(AudioSource):
    """Blocks that somebody else makes, as a source; close does nothing to them.

    blocks: an iterable of (n,) int16 or float32 samples at 16 kHz. If it has a name and a duration_s, the source has
        the same.
    """

    def __init__(self, blocks: Iterable[Samples]) -> None:
        self._blocks = blocks
        self.name = str(getattr(blocks, "name", "blocks"))
        self.duration_s = getattr(blocks, "duration_s", None)

    def __iter__(self) -> Iterator[Samples]:
        return iter(self._blocks)

    def close(self) -> None:
        """Do nothing: the blocks belong to the one who made them."""


def open_source(source: Source) -> AudioSource:
    """Return the AudioSource of a path, samples or blocks; closing it closes only what was opened here.

    source: a path; "-" for raw samples on standard input; (n,) int16 or float32 samples; an iterable of such blocks.
    Raises AudioError for anything else, and as FileSource and RawSource do.
    """
    if isinstance(source, (str, os.PathLike)):
        return RawSource() if source == "-" else FileSource(source)
    if isinstance(source, np.ndarray):
        samples = valid_samples(source)
        blocks = Blocks([samples])
        blocks.name = "samples"
        blocks.duration_s = len(samples) / SAMPLE_RATE
        return blocks
    if isinstance(source, Iterable) and not isinstance(source, (bytes, bytearray, memoryview)):
        return Blocks(source)
    raise AudioError(f'expected a path, "-", samples or an iterable of blocks, got {type(source).__name__}')
