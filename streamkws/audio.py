"""Audio: the check that all samples pass, conversions, mixing and resampling to 16 kHz mono, files."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from io import BytesIO, FileIO
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from streamkws.containers import CONTAINER_SUFFIXES, ContainerDecoder, is_container
from streamkws.errors import AudioError, MissingExtraError

SAMPLE_RATE = 16000
"""Hz; the rate of all audio after this module."""

FULL_SCALE = 32768
"""The int16 value that corresponds to 1.0."""

STREAMABLE, LONGEST_TAG = (1, 3, 6, 7, 0xFFFE), 128
"""Formats of a wav that need no length: integers, floats, a-law, u-law, extensible. Bytes of a tag behind a wav."""

NO_LENGTH = "cut off: its header says that there is no audio; heard was what is behind it"
MAX_ABS = 64.0
"""Largest float sample that is accepted: room for the overshoot of a resampler, but not for unscaled int16 values."""

AUDIO_SUFFIXES = (".flac", ".mp3", ".oga", ".ogg", ".opus", ".wav")
"""Names that audio_files looks for, in upper or lower case."""

ALL_SUFFIXES = (*AUDIO_SUFFIXES, *CONTAINER_SUFFIXES)
"""Names that a search through a folder looks for; training and evaluation take no files that need PyAV."""

SEEKING_FORMATS = ("AIFF", "AU", "CAF", "FLAC", "RF64", "W64", "WAV", "WAVEX")
SEEKING_SUBTYPES = ("PCM_U8", "PCM_S8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW")
"""Files whose samples are the same wherever decoding begins. An MP3's frames borrow from those before."""

MIX_S, CANCELLED, MIXED = 0.05, 0.01, 0.1
"""Channels are looked at for MIX_S seconds. Where their mean has less than CANCELLED of the power of the loudest, it is
heard alone, until the mean has MIXED of that."""

MIN_RATE, MAX_RATE = 1000, 1_000_000
"""Hz; limits of the sample rate of a file or device. A damaged header may claim anything."""

BLOCK_SAMPLES = 4000
"""Default length of a file's blocks: 0.25 s. So much audio at most is lost before a damaged place."""

Samples: TypeAlias = "npt.NDArray[np.int16] | npt.NDArray[np.float32]"

_Order: TypeAlias = Literal["little", "big"]

_INT16, _FLOAT32, _FLOAT64 = np.dtype(np.int16), np.dtype(np.float32), np.dtype(np.float64)
_UNKNOWN_FRAMES = 2**63 - 1  # libsndfile's SF_COUNT_MAX: the header does not tell
_UNKNOWN_BYTES = 0x7FFF0000  # sox and ffmpeg write a larger size when they do not know the length
_UNKNOWN_LONG_BYTES = 1 << 62
_ORDERS: dict[bytes, _Order] = {b"RIFF": "little", b"RF64": "little", b"RIFX": "big", b"FORM": "big"}
"""How a wav or aiff file begins, and the order of the bytes of its numbers; RF64 has lengths of 64 bits in a chunk."""
_MAX_OGG_PAGE = 65307
_MP3_FRAMES_SLACK = 2 * 1152  # some encoders count their header frame as audio


def valid_samples(samples: npt.ArrayLike) -> Samples:
    """Return samples as compiled code needs them (contiguous, aligned, native, writable); copied only where needed.

    samples: (n,) int16, or float32 in [-1, 1]; any n; mono, 16 kHz. float64 becomes float32.
    Raises AudioError for another dtype or shape, for a non-finite sample, and for floats far outside [-1, 1].
    """
    try:
        array = np.asarray(samples)
    except (ValueError, TypeError):
        raise AudioError(f"expected (n,) int16 or float32 samples, got {type(samples).__name__}") from None
    dtype = array.dtype
    if array.ndim == 1 and dtype == _INT16:
        return array if array.flags.carray else np.array(array, order="C")
    if array.ndim != 1 or (dtype != _FLOAT32 and dtype.newbyteorder("=") not in (_INT16, _FLOAT32, _FLOAT64)):
        raise AudioError(f"expected (n,) int16 or float32 samples, got {array.shape} {dtype}")
    if dtype.kind == "i":
        return array.astype(_INT16)
    # Two passes and no temporary array; a NaN makes both comparisons false. A sum of squares needs one pass (0.7
    # instead of 2.7 us for 160 samples), but numpy warns when it overflows, and silencing the warning costs 3 us.
    if len(array) and not (np.minimum.reduce(array) >= -MAX_ABS and np.maximum.reduce(array) <= MAX_ABS):
        raise AudioError(_why_unusable(array))
    return array if dtype == _FLOAT32 and array.flags.carray else np.array(array, np.float32, order="C")


def _why_unusable(array: npt.NDArray[np.floating[Any]]) -> str:
    bad = np.flatnonzero(~np.isfinite(array))
    if len(bad):
        return f"expected finite samples, got {len(bad)} NaN or infinite ones, the first at {bad[0]}"
    return f"expected float samples in [-1, 1], got up to {np.abs(array).max():.6g}; int16 audio goes in as int16"


class Resampler:
    """Mixes a stream's channels to mono and resamples it to 16 kHz; the output does not depend on the block lengths.

    rate_in: sample rate of the input in Hz.
    n_channels: number of channels of the input; the output is their mean, or the loudest alone where they cancel, as
        where a cable inverts one of them.
    Raises AudioError for a rate or a number of channels out of range.

    At 48 kHz, soxr's HQ quality holds 6 to 36 ms of audio back until flush.
    """

    def __init__(self, rate_in: int, n_channels: int = 1) -> None:
        if not MIN_RATE <= rate_in <= MAX_RATE:
            raise AudioError(f"expected a sample rate of {MIN_RATE} to {MAX_RATE} Hz, got {rate_in}")
        if n_channels < 1:
            raise AudioError(f"expected at least 1 channel, got {n_channels}")
        self._n_channels = n_channels
        self._mixer = Mixer(n_channels, round(MIX_S * rate_in)) if n_channels > 1 else None
        self._stream: Any = None
        if rate_in != SAMPLE_RATE:
            import soxr

            self._stream = soxr.ResampleStream(rate_in, SAMPLE_RATE, 1, dtype="float32", quality="HQ")

    def push(self, block: Samples) -> npt.NDArray[np.float32]:
        """Feed a block and return the (n,) float32 samples it completed.

        block: (n, n_channels), or (n,) for one channel; int16 or float32; any n. A float32 block at 16 kHz mono is
        returned itself, not copied.
        Raises AudioError for another dtype or shape.
        """
        n_channels = 1 if block.ndim == 1 else block.shape[-1]
        if block.ndim not in (1, 2) or n_channels != self._n_channels or block.dtype not in (_INT16, _FLOAT32):
            wanted = f"(n, {self._n_channels}) int16 or float32"
            raise AudioError(f"expected {wanted} samples, got {block.shape} {block.dtype}")
        audio = as_float(block)
        mono = np.ravel(audio) if self._mixer is None else self._mixer.push(audio)
        if self._stream is None:
            return mono
        resampled: npt.NDArray[np.float32] = self._stream.resample_chunk(mono)
        return resampled

    @property
    def is_settled(self) -> bool:
        """Whether channels are mixed as if the stream had begun earlier, from the next block on."""
        return self._mixer is None or self._mixer.is_settled

    def flush(self) -> npt.NDArray[np.float32]:
        """Return the (n,) float32 samples still held back, and reset the resampler."""
        rest = np.zeros(0, np.float32)
        if self._mixer is not None:
            self._mixer.reset()
        if self._stream is not None:
            rest = self._stream.resample_chunk(rest, last=True)
            self._stream.clear()
        return rest


class Mixer:
    """Channels to mono: their mean, or the loudest alone while they cancel each other.

    Which it is follows from the powers in the stretch before, so that nothing is held back, and the output does not
    depend on the block lengths.

    n_channels: at least 2. stretch_frames: length of a stretch.
    """

    def __init__(self, n_channels: int, stretch_frames: int) -> None:
        self._n_channels, self._stretch = n_channels, stretch_frames
        self.reset()

    def reset(self) -> None:
        """Return to the state of a new stream."""
        self.is_settled = False  # whether the choice no longer depends on where the stream began
        self._alone = -1  # the channel that is heard, -1 for the mean of all
        self._n = 0  # frames of the stretch so far
        self._powers = np.zeros(self._n_channels + 1)  # of the channels, and of their mean

    def push(self, audio: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """(n, n_channels) to (n,) float32."""
        mono = audio[:, 0] + audio[:, 1]  # channel by channel: the order of a sum over an axis is numpy's choice
        for channel in range(2, self._n_channels):
            mono += audio[:, channel]
        mono *= np.float32(1 / self._n_channels)
        first = 0
        while first < len(audio):
            end = min(len(audio), first + self._stretch - self._n)
            parts = [*audio[first:end].T, mono[first:end]]
            self._powers += [float(np.dot(part, part)) for part in map(np.ascontiguousarray, parts)]
            if self._alone >= 0:
                mono[first:end] = audio[first:end, self._alone]
            self._n += end - first
            if self._n == self._stretch:
                self._choose()
            first = end
        return mono

    def _choose(self) -> None:
        """Choose what is heard in the next stretch; a channel that is heard alone stays while it is loud enough."""
        *powers, of_mean = self._powers
        highest, was = max(powers), self._alone
        if highest == 0:
            pass  # silence says nothing
        elif not of_mean < (CANCELLED if was < 0 else MIXED) * highest:
            self._alone = -1
            self.is_settled = self.is_settled or bool(of_mean >= MIXED * highest)
        elif was < 0 or powers[was] < highest / 2:
            self._alone = powers.index(highest)
        self._n, self._powers = 0, np.zeros(self._n_channels + 1)


def as_float(samples: Samples) -> npt.NDArray[np.float32]:
    """Return int16 samples as float32 in [-1, 1), exactly; float32 samples as they are."""
    if samples.dtype == _FLOAT32:
        return samples  # type: ignore[return-value]
    return samples.astype(np.float32) * np.float32(1 / FULL_SCALE)


def as_int16(samples: npt.NDArray[np.floating[Any]], scale: float = FULL_SCALE) -> npt.NDArray[np.int16]:
    """Return float samples as int16: scaled, rounded to the nearest (halves to even), clipped.

    scale: the int16 value of 1.0; 1 for samples that have the range of int16 already.
    """
    rounded: npt.NDArray[np.floating[Any]] = np.clip(np.rint(samples * scale), -FULL_SCALE, FULL_SCALE - 1)
    return rounded.astype(np.int16)


def encode_flac(samples: Samples, rate: int = SAMPLE_RATE) -> bytes:
    """Mono samples, (n,) int16 or float32, as a FLAC file of 16 bits, in memory: a full disk is no error in C then."""
    import soundfile

    encoded = BytesIO()
    soundfile.write(encoded, samples, rate, format="FLAC")
    return encoded.getvalue()


class AudioFile:
    """A recording, decoded while it is read: an iterable of 16 kHz mono blocks that can be iterated over once.

    A 16-bit file at 16 kHz mono gives its int16 samples, every other file float32. A damaged or cut file gives the
    audio before the damage, and then AudioError.

    path: wav, flac, ogg, mp3 or another format of libsndfile; m4a, mp4, webm, wma and amr with PyAV; any sample rate
        and number of channels.
    block_samples: the approximate length of a block.

    name: the path.
    first_frame: the file's frame to begin with, 0 unless it is set before the iteration; channels are mixed and
        resampled as if nothing came before it.
    rate, n_channels, n_frames: of the file, not of its blocks; n_frames is None where the header does not tell.
    duration_s: seconds of audio, None where the header does not tell.

    Raises AudioError for a path that cannot be read or is not audio.
    """

    def __init__(self, path: str | os.PathLike[str], block_samples: int = BLOCK_SAMPLES) -> None:
        self.name = os.fspath(path)
        self.first_frame = 0
        self._decoder: Any = None
        self._pump: Thread | None = None
        self._pipe = -1
        self._missing = ""
        try:
            self._file = FileIO(self.name)
        except (OSError, ValueError) as error:
            raise AudioError(f"{self.name}: {_reason(error)}") from None
        try:
            self._open()
            self._resampler = Resampler(self.rate, self.n_channels)
        except AudioError as error:
            self.close()
            raise AudioError(f"{self.name}: {error}") from None
        except BaseException:
            self.close()
            raise
        self.n_frames = None if self._n_frames == _UNKNOWN_FRAMES else self._n_frames
        self.duration_s = None if self.n_frames is None else self.n_frames / self.rate
        self._block_frames = max(1, block_samples * self.rate // SAMPLE_RATE)

    def __enter__(self) -> AudioFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Samples]:
        if self._file.closed:
            raise AudioError(f"{self.name}: expected an open file, got a closed one; it can be read once")
        try:
            yield from self._blocks()
        finally:
            self.close()

    @property
    def is_settled(self) -> bool:
        """Whether what is decoded now would be the same with an earlier first frame: see Resampler.is_settled."""
        return self._resampler.is_settled

    @property
    def seeks_exactly(self) -> bool:
        """Whether decoding may begin at any frame, at no cost, and gives the same samples from there on."""
        form, subtype = self._decoder.format, self._decoder.subtype
        is_plain = self._pipe < 0 and not self._missing and self.n_frames is not None
        return is_plain and form in SEEKING_FORMATS and subtype in SEEKING_SUBTYPES

    def close(self) -> None:
        """Close the file; an iteration under way ends."""
        if self._decoder is not None:
            self._decoder.close()
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1
        if self._pump is not None:
            self._pump.join()
            self._pump = None
        self._file.close()

    def _open(self) -> None:
        soundfile = _soundfile()
        try:
            status = os.fstat(self._file.fileno())
            if stat.S_ISREG(status.st_mode):
                if status.st_size == 0:
                    raise AudioError("expected audio, got an empty file")
                head = self._file.read(16)
                self._file.seek(0)
                if is_container(head):
                    self._take(ContainerDecoder(self._file))
                    return
                self._missing = _what_is_missing(self._file, status.st_size)
                self._file.seek(0)
            # A descriptor, not the name: libsndfile would trust a name that ends in .mp3 or .raw. On Windows its wheels
            # have a C library of their own, which does not know Python's descriptors.
            posix = os.name == "posix"
            if self._missing == NO_LENGTH and posix:
                self._open_pipe(*_with_unknown_length(self._file))
            else:
                self._decoder = _decoder_class()(self._file.fileno() if posix else self.name, closefd=False)
            if self._decoder.format == "MP3" and stat.S_ISREG(status.st_mode) and posix:
                # If no Xing header states an MP3's length, libsndfile guesses it from the file's size and stops there;
                # half of a file with a variable bit rate was lost so. A pipe it reads to the end.
                self._decoder.close()
                self._open_pipe(b"", _id3_bytes(self._file))
        except OSError as error:
            raise AudioError(_reason(error)) from None
        except soundfile.LibsndfileError as error:
            reason = "no audio in it" if error.code == 7 else _reason(error)  # 7 says that the file does not exist
            raise AudioError(f"cannot be read as wav, flac, ogg or mp3 (libsndfile: {reason})") from None
        self._take(self._decoder)

    def _take(self, decoder: Any) -> None:
        """Read with this decoder from now on."""
        self._decoder = decoder
        self.rate: int = decoder.samplerate
        self.n_channels: int = decoder.channels
        self._n_frames: int = _UNKNOWN_FRAMES if self._missing == NO_LENGTH else decoder.frames

    def _open_pipe(self, head: bytes, start: int) -> None:
        """Open the file through a pipe: the bytes head, and then the file's from start on."""
        self._file.seek(start)
        self._pipe, inlet = os.pipe()
        self._pump = Thread(target=_copy, args=(head, self._file, inlet), daemon=True)
        self._pump.start()
        self._decoder = _decoder_class()(self._pipe, closefd=False)

    def _blocks(self) -> Iterator[Samples]:
        libsndfile_error = _soundfile().LibsndfileError
        exact = self._decoder.subtype == "PCM_16" and (self.rate, self.n_channels) == (SAMPLE_RATE, 1)
        dtype = "int16" if exact else "float32"
        n_read = 0
        trouble = ""
        if self.first_frame and self.seeks_exactly:
            n_read = self._decoder.seek(min(self.first_frame, self._n_frames))
        while not trouble and not self._file.closed:
            n_ahead = max(0, self.first_frame - n_read)
            n_wanted = min(self._block_frames, n_ahead or self._block_frames)
            try:
                block = self._decoder.read(n_wanted, dtype=dtype, always_2d=not exact)
            except libsndfile_error as error:
                trouble = f"damaged at {self._time(n_read)} (libsndfile: {_reason(error)})"
                break
            except AudioError as error:
                trouble = f"damaged at {self._time(n_read)} ({error})"
                break
            n_frames = len(block)
            if n_frames == 0:
                trouble = self._shortfall(n_read)
                break
            if n_ahead:
                n_read += n_frames
                continue
            if not exact:
                bad = ~(np.abs(block) <= MAX_ABS)  # a NaN compares false
                if bad.any():
                    first = int(bad.any(axis=1).argmax())
                    value = block[first][bad[first]][0]
                    trouble = f"expected finite samples in [-1, 1], got {value:g} at {self._time(n_read + first)}"
                    block = block[:first]
                block = self._resampler.push(block)
            n_read += n_frames
            if len(block):
                yield block
        rest = self._resampler.flush()
        if len(rest) and not self._file.closed:
            yield rest
        if trouble:
            raise AudioError(f"{self.name}: {trouble}")

    def _shortfall(self, n_read: int) -> str:
        """Return what is missing at the end of the file, "" if nothing."""
        n_lost = 0 if self.duration_s is None else self._n_frames - n_read
        if n_lost > (_MP3_FRAMES_SLACK if self._decoder.format == "MP3" else 0):
            return f"damaged: {n_lost / self.rate:.2f} s of its {self.duration_s:.2f} s cannot be decoded"
        return self._missing

    def _time(self, n_frames: int) -> str:
        whole = "" if self.duration_s is None else f" of {self.duration_s:.2f} s"
        return f"{n_frames / self.rate:.2f} s{whole}"


def read_audio(path: str | os.PathLike[str]) -> npt.NDArray[np.float32]:
    """Return a whole recording as (n,) float32 samples in [-1, 1], 16 kHz mono.

    path: as for AudioFile.
    Raises AudioError for a path that cannot be read, is not audio, is damaged or cut.
    """
    with AudioFile(path) as audio:
        blocks = [as_float(block) for block in audio]
    return np.concatenate([np.zeros(0, np.float32), *blocks])


def audio_files(
    folder: str | os.PathLike[str],
    on_error: Callable[[OSError], object] | None = None,
    suffixes: tuple[str, ...] = AUDIO_SUFFIXES,
) -> list[Path]:
    """Return the files below a folder, at any depth, whose suffix is one of suffixes, in sorted order.

    Files and folders whose name starts with a dot are left out.
    on_error: is called with the OSError of each folder that cannot be read; None skips such folders silently.
    """
    found: list[Path] = []
    for place, folders, files in os.walk(folder, onerror=on_error):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(place, name) for name in files if name.lower().endswith(suffixes) and not name.startswith(".")]
    return sorted(found)


def _id3_bytes(file: FileIO) -> int:
    """Return the bytes of the tag before an MP3's audio; libsndfile cannot skip a long one (a cover) in a pipe."""
    file.seek(0)
    head = file.read(10)
    if head[:3] != b"ID3":
        return 0
    length = 0
    for byte in head[6:]:
        length = length << 7 | byte & 0x7F
    return len(head) + length


def _what_is_missing(file: FileIO, size: int) -> str:
    """Return what a wav, aiff or ogg file lacks at its end, "" if nothing; libsndfile does not notice it."""
    head = file.read(12)
    if head[:4] == b"OggS":
        file.seek(max(0, size - _MAX_OGG_PAGE))
        tail = file.read(_MAX_OGG_PAGE)
        page = tail.rfind(b"OggS")
        is_last = page >= 0 and len(tail) > page + 5 and tail[page + 5] & 4
        return "" if is_last else "cut off: its last page is missing"
    kind = head[:4]
    if kind not in _ORDERS:
        return ""
    order, wanted = _ORDERS[kind], b"SSND" if kind == b"FORM" else b"data"
    sample_format, long_length = -1, -1
    for name, length, start in _chunks(file, order):
        if name == wanted:
            if long_length >= 0:
                length = long_length
            if length == 0 and sample_format in STREAMABLE and _is_audio(file.read(8), order, size - start):
                return NO_LENGTH
            n_missing = start + length - size
            if n_missing <= 0 or length >= (_UNKNOWN_BYTES if long_length < 0 else _UNKNOWN_LONG_BYTES):
                return ""
            return f"cut off: {n_missing} of its {length} bytes of audio are missing"
        if name == b"fmt ":
            sample_format = int.from_bytes(file.read(2), order)
        elif name == b"ds64" and kind == b"RF64":
            long_length = int.from_bytes(file.read(16)[8:], order)
    return ""


def _chunks(file: FileIO, order: _Order) -> Iterator[tuple[bytes, int, int]]:
    """The chunks of a wav or aiff file: name, length, and where each begins, where the file then is.

    order: of the bytes of a length.
    """
    start = 12
    file.seek(start)
    while len(chunk := file.read(8)) == 8:
        length = int.from_bytes(chunk[4:], order)
        start += 8
        yield chunk[:4], length, start
        start += length + length % 2
        file.seek(start)


def _is_audio(head: bytes, order: _Order, n_bytes: int) -> bool:
    """Whether the n_bytes behind an empty data chunk, of which head are the first, are audio and no further chunk."""
    is_chunk = len(head) == 8 and head[:4].isalnum() and int.from_bytes(head[4:], order) <= n_bytes - 8
    return n_bytes > LONGEST_TAG and not is_chunk


def _soundfile() -> Any:
    try:
        import soundfile
    except ImportError:
        raise MissingExtraError("reading audio files needs soundfile: pip install soundfile") from None
    except OSError:
        raise MissingExtraError("reading audio files needs the sndfile library: apt install libsndfile1") from None
    return soundfile


@cache
def _decoder_class() -> Any:
    class Decoder(_soundfile().SoundFile):  # type: ignore[misc]
        """A file that is read forward only.

        After every read soundfile seeks to where it is. This restarts an MP3's decoder: the samples depended on the
        length of the blocks, and some were lost.
        """

        def seekable(self) -> bool:
            return False

    return Decoder


def _with_unknown_length(file: FileIO) -> tuple[bytes, int]:
    """The header of a wav file with its lengths unknown, as in a stream, and where the audio behind it starts.

    That of an RF64 file as a plain one's: the chunk with its other lengths is then nothing that anybody reads.
    """
    file.seek(0)
    kind = file.read(4)
    start = next(start for name, _, start in _chunks(file, _ORDERS[kind]) if name == b"data")
    file.seek(0)
    head = bytearray(file.read(start))
    if kind == b"RF64":
        head[:4] = b"RIFF"
    head[4:8] = head[-4:] = b"\xff" * 4
    return bytes(head), start


def _copy(head: bytes, file: FileIO, inlet: int) -> None:
    """Copy bytes and the rest of a file into a pipe until its reader closes it."""
    with suppress(OSError), open(inlet, "wb") as pipe:
        pipe.write(head)
        shutil.copyfileobj(file, pipe, 1 << 16)


def _reason(error: Exception) -> str:
    """Return an error's message without the file's name, a prefix or a full stop."""
    text = getattr(error, "strerror", None) or getattr(error, "error_string", None) or str(error)
    return str(text).removeprefix("Error : ").rstrip(".")
