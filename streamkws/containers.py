"""Recordings that libsndfile does not read (m4a, mp4, webm, wma, amr), decoded by PyAV, that is, by FFmpeg."""

from __future__ import annotations

from collections.abc import Iterator
from io import FileIO
from typing import Any

import numpy as np
import numpy.typing as npt

from streamkws.errors import AudioError

CONTAINER_SUFFIXES = (".3gp", ".aac", ".amr", ".m4a", ".mka", ".mkv", ".mov", ".mp4", ".webm", ".wma")
"""Names of such files, in lower case."""

INSTALL = 'm4a, mp4, webm, wma and amr need PyAV: pip install "streamkws[formats]"'
UNKNOWN_FRAMES = 2**63 - 1  # as libsndfile says it
_MAGIC = (b"\x1a\x45\xdf\xa3", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", b"#!AMR", b"\xff\xf1", b"\xff\xf9")


def is_container(head: bytes) -> bool:
    """Whether a file that begins so is one for PyAV: MP4 and its like, Matroska, ASF, AMR, or bare AAC."""
    return head[4:8] == b"ftyp" or head.startswith(_MAGIC)


class ContainerDecoder:
    """The first audio stream of a file, read forward only; as a soundfile.SoundFile, as far as AudioFile needs one.

    file: open, at its beginning. It belongs to the caller, and stays open.

    samplerate, channels: of the stream. frames: unknown, since what a container states is rounded.
    Raises AudioError without PyAV, and for a file that FFmpeg cannot read or that has no audio.
    """

    format, subtype, frames = "container", "", UNKNOWN_FRAMES

    def __init__(self, file: FileIO) -> None:
        try:
            import av
        except ImportError:
            raise AudioError(INSTALL) from None
        self._error = av.FFmpegError
        self._container: Any = None
        try:
            self._container = av.open(file, metadata_errors="ignore")
            streams = self._container.streams.audio
            if not streams:
                raise AudioError("no audio in it")
            stream = streams[0]
            self.samplerate = int(stream.rate or 0)
            self.channels = int(stream.layout.nb_channels)
            planes = av.AudioResampler(format="fltp", layout=stream.layout, rate=stream.rate)
            self._arrays = self._decoded(stream, planes)
            self._waiting = np.zeros((0, self.channels), np.float32)
        except AudioError:
            self.close()
            raise
        except (self._error, ValueError) as error:
            self.close()
            raise AudioError(f"cannot be read by PyAV ({_reason(error)})") from None

    def _decoded(self, stream: Any, planes: Any) -> Iterator[npt.NDArray[np.float32]]:
        """(n, channels) float32 of each decoded frame."""
        for frame in self._container.decode(stream):
            yield from (part.to_ndarray().T for part in planes.resample(frame))
        yield from (part.to_ndarray().T for part in planes.resample(None))

    def read(self, frames: int, dtype: str = "float32", always_2d: bool = True) -> npt.NDArray[np.float32]:
        """The next frames, (n, channels) float32; n is less than asked for at the end only.

        Raises AudioError for a damaged place, once what came before it has been given.
        """
        parts, n = [self._waiting], len(self._waiting)
        try:
            while n < frames and (part := next(self._arrays, None)) is not None:
                parts.append(part)
                n += len(part)
        except (self._error, ValueError) as error:
            if not n:
                raise AudioError(f"FFmpeg: {_reason(error)}") from None
            self._arrays = _raising(error)
        audio = np.concatenate(parts)
        self._waiting = audio[frames:]
        return np.ascontiguousarray(audio[:frames])

    def close(self) -> None:
        """Close what FFmpeg opened."""
        if self._container is not None:
            self._container.close()


def _raising(error: Exception) -> Iterator[npt.NDArray[np.float32]]:
    """An iterator that raises the error when it is first asked."""
    raise error
    yield  # what makes it an iterator


def _reason(error: Exception) -> str:
    """FFmpeg's message, without the number and the name of the file."""
    return str(getattr(error, "strerror", None) or error).rstrip(".")
