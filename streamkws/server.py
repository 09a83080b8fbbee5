"""Server: keywords spotted for others over the Wyoming protocol, which Home Assistant and its satellites speak.

    async with Server(load_model("wakewords"), ServerConfig("tcp://127.0.0.1:10400")) as server:
        await server.serve()

A connection has two tasks: one reads messages into a bounded inbox, the other answers them in their order. The audio
is heard in a few threads beside the event loop, each time so short a piece that a client who sends much leaves room for
the others. An error is the last thing a client gets; nobody else notices it.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import json
import logging
import math
import os
import socket
import stat
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import count, groupby
from types import TracebackType
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

from streamkws.audio import MAX_RATE, MIN_RATE, SAMPLE_RATE, Resampler, Samples
from streamkws.detector import Detector
from streamkws.errors import ConfigError, MissingExtraError
from streamkws.model import Model
from streamkws.smoother import Detection, valid_keywords

try:
    from wyoming import wake
    from wyoming.audio import AudioChunk, AudioStart, AudioStop
    from wyoming.error import Error
    from wyoming.event import Event, async_write_event
    from wyoming.info import Attribution, Describe, Info, WakeModel, WakeProgram
    from wyoming.ping import Ping, Pong
except ImportError:
    raise MissingExtraError('the server needs wyoming: pip install "streamkws[server]"') from None

DEFAULT_URI = "tcp://127.0.0.1:10400"

MAX_HEADER_BYTES = 1 << 16
"""Longest first line of a message."""

MAX_DATA_BYTES = 1 << 16
"""Longest JSON after a message's first line."""

MAX_CHANNELS = 64

MAX_TIMESTAMP = 1 << 63
"""Milliseconds; wyoming-satellite sends nanoseconds as such."""

INBOX_BYTES = 1 << 18
"""What waits for its answers before a connection is no longer read; the sender's socket then fills up."""

EVENT_BYTES = 1 << 10
"""What a message counts in the inbox beside its payload, so that many small ones are bounded, too."""

JOB_S = 0.25
"""Seconds of audio that one client has heard before the next client's turn."""

SEND_S = 10.0
"""Seconds after which a client that does not read its messages is given up."""

UNSENT_BYTES = 1 << 16
"""What may wait for a client that does not read, beside what the operating system holds."""

LINGER_S, LINGER_BYTES = 1.0, 1 << 22
"""How long and how much a connection is still read after an error: closed over unread bytes, it would take the error
message with it."""

MAX_QUOTED = 80
"""Characters of a client's text that an error repeats."""

_SERVICE = "_wyoming._tcp.local."  # what Home Assistant looks for
_log = logging.getLogger(__name__)
_log.addHandler(logging.NullHandler())
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class ServerConfig:
    """Where a server listens, for what, and its limits.

    uri: tcp://HOST:PORT (port 0 takes a free one), unix:///PATH, or stdio:// for one client on standard input and
        output. Whoever can connect may listen: Wyoming knows no passwords.
    thresholds, keywords: as for Detector.
    max_clients: clients at the same time; one more gets an error.
    max_payload_bytes: longest audio of one message.
    idle_s: seconds without a whole message after which a client is sent away; 0 for never.
    n_threads: threads that hear.
    zeroconf: name to be found by in the local network, None for not at all.
    Raises ConfigError for what cannot be.
    """

    uri: str = DEFAULT_URI
    thresholds: Mapping[str, float] | float | None = None
    keywords: Iterable[str] | None = None
    max_clients: int = 100
    max_payload_bytes: int = 1 << 20
    idle_s: float = 300.0
    n_threads: int = 2
    zeroconf: str | None = None

    def __post_init__(self) -> None:
        address = _Address.parse(self.uri)
        for name in ("max_clients", "max_payload_bytes", "n_threads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"expected {name} of at least 1, got {getattr(self, name)}")
        if not (self.idle_s >= 0 and math.isfinite(self.idle_s)):
            raise ConfigError(f"expected idle_s of at least 0, got {self.idle_s}")
        if self.zeroconf is not None and (address.scheme != "tcp" or _is_loopback(address.host)):
            raise ConfigError(f"expected a tcp:// address that others can reach for zeroconf, got {self.uri}")
        if self.zeroconf is not None and not 0 < len(self.zeroconf.encode()) <= 63:
            raise ConfigError(f"expected a zeroconf name of 1 to 63 bytes, got {self.zeroconf!r}")


class Server:
    """Hears for many clients at once with one shared model; all of its methods belong to one event loop.

    model: shared by all clients. config: ServerConfig.
    Raises ConfigError for a threshold or keyword that the model does not know.

    keywords: those that clients may ask for.
    uri: where it listens, with the port that was taken.
    info: what answers a describe message.
    """

    def __init__(self, model: Model, config: ServerConfig | None = None) -> None:
        self.model = model
        self.config = ServerConfig() if config is None else config
        wanted = self.config.keywords
        self.keywords = model.keywords if wanted is None else valid_keywords(wanted, model.keywords)
        self.uri = self.config.uri
        self._spare = [self._new_detector()]  # compiles the kernels, if nobody has yet, and checks thresholds
        self.info = _info(model, self.keywords).event()
        self._threads = ThreadPoolExecutor(self.config.n_threads, "streamkws-server")
        self._listening: asyncio.AbstractServer | None = None
        self._socket_file: tuple[str, int] | None = None  # path and inode
        self._announcement: _Announcement | None = None
        self._clients: set[_Client] = set()
        self._tasks: dict[asyncio.Task[None], _Client] = {}  # of clients, and of those that are being sent away
        self._numbers = count(1)
        self._ended = asyncio.Event()
        self._stopped = False

    @property
    def n_clients(self) -> int:
        """Clients that are being served."""
        return len(self._clients)

    async def start(self) -> None:
        """Begin to listen.

        Raises OSError for an address that cannot be listened on, MissingExtraError without zeroconf where that is
        wanted.
        """
        try:
            await self._listen()
        except BaseException:
            await self.stop()
            raise

    async def serve(self) -> None:
        """Wait until end or stop is called; a server on stdio:// also ends with its client."""
        await self._ended.wait()

    def end(self) -> None:
        """Make serve return; what a signal handler calls."""
        self._ended.set()

    async def stop(self) -> None:
        """Stop listening and close every connection."""
        self.end()
        self._stopped = True
        if self._announcement is not None:
            await self._announcement.withdraw()
            self._announcement = None
        if self._listening is not None:
            self._listening.close()
        tasks = dict(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for client in tasks.values():
            client.abort()  # those that had not even begun
        if self._listening is not None:
            await self._listening.wait_closed()
            self._listening = None
        if self._socket_file is not None:
            path, inode = self._socket_file
            with suppress(OSError):
                if os.stat(path).st_ino == inode:  # else another server has taken the place
                    os.unlink(path)
            self._socket_file = None
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def __aenter__(self) -> Server:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def in_thread(self, work: Callable[..., _Result], *arguments: Any) -> _Result:
        """Return what work gives, done in one of the hearing threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    async def lend_detector(self) -> Detector:
        """A detector for one client; new ones take some milliseconds to make."""
        return self._spare.pop() if self._spare else await self.in_thread(self._new_detector)

    def take_back(self, detector: Detector) -> None:
        """Keep a detector that its client no longer uses for the next one."""
        self._spare.append(detector)

    def _new_detector(self) -> Detector:
        return Detector(self.model, self.config.thresholds, self.keywords, history_s=0)

    async def _listen(self) -> None:
        address = _Address.parse(self.config.uri)
        if address.scheme == "stdio":
            task = self._admit(*await _standard_streams())
            task.add_done_callback(lambda _: self.end())
            return
        try:
            if address.scheme == "unix":
                _remove_stale_socket(address.path)
                self._listening = await asyncio.start_unix_server(self._accept, address.path, limit=MAX_HEADER_BYTES)
                self._socket_file = address.path, os.stat(address.path).st_ino
                return
            self._listening = await asyncio.start_server(
                self._accept, address.host, address.port, limit=MAX_HEADER_BYTES
            )
        except OSError as error:
            raise OSError(error.errno, f"cannot listen on {self.config.uri}: {_reason(error)}") from None
        hosts = {bound.getsockname()[0] for bound in self._listening.sockets}
        port = self._listening.sockets[0].getsockname()[1]
        self.uri = f"tcp://{f'[{address.host}]' if ':' in address.host else address.host}:{port}"
        if not all(map(_is_loopback, hosts)):
            _log.warning("%s: whoever reaches this address may connect; Wyoming knows no passwords", self.uri)
        if self.config.zeroconf is not None:
            self._announcement = await _Announcement.make(self.config.zeroconf, min(hosts), port)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._stopped:
            writer.transport.abort()  # asyncio was still making this connection when it stopped listening
        else:
            self._admit(reader, writer)

    def _admit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> asyncio.Task[None]:
        client = _Client(self, f"client {next(self._numbers)}{_peer(writer)}", reader, writer)
        limit = self.config.max_clients
        if len(self._clients) < limit:
            self._clients.add(client)
            work = client.serve
        elif len(self._tasks) < 2 * limit:
            work = partial(client.refuse, _Refusal("busy", f"expected at most {limit} clients, got one more"))
        else:
            work = partial(client.drop, "others are being sent away already")
        task = asyncio.get_running_loop().create_task(self._attend(client, work))
        self._tasks[task] = client
        task.add_done_callback(self._tasks.pop)
        return task

    async def _attend(self, client: _Client, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await work()
        except Exception:
            _log.exception("%s: ended by a bug in the server", client.name)
        finally:
            self._clients.discard(client)
            await client.close()


class _Refusal(Exception):
    """What is wrong with a client; it gets an error message and is sent away. code: for programs, text: for people."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class _SlowReader(Exception):
    """A client does not read its messages."""


class _Client:
    """One connection, from its first message to its end."""

    def __init__(self, server: Server, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.name = name
        self._server = server
        self._reader = reader
        self._writer = writer
        writer.transport.set_write_buffer_limits(high=UNSENT_BYTES)
        _keep_alive(writer)
        self._inbox = _Inbox()
        self._deadline_s = math.inf  # when it counts as idle, on the loop's clock
        self._timer: asyncio.TimerHandle | None = None  # checks that
        self._wanted = frozenset(server.keywords)
        self._detector: Detector | None = None
        self._request_open = False
        self._opening: tuple[_AudioFormat, int] | None = None  # of an audio-start whose audio has not come yet
        self._stream: _Stream | None = None
        self._n_detections = 0

    async def serve(self) -> None:
        """Answer until the client leaves or has to."""
        _log.info("%s: connected", self.name)
        receiving = asyncio.get_running_loop().create_task(self._receive())
        try:
            await self._answer()
            _log.info("%s: left after %d detections", self.name, self._n_detections)
        except _Refusal as refusal:
            receiving.cancel()
            await asyncio.gather(receiving, return_exceptions=True)
            await self.refuse(refusal)
        except _SlowReader:
            await self.drop(f"has not read its messages for {SEND_S:g} s")
        except OSError:
            _log.info("%s: gone after %d detections", self.name, self._n_detections)
        finally:
            receiving.cancel()
            await asyncio.gather(receiving, return_exceptions=True)
        if self._detector is not None:  # nor is it in a thread's hands, as when the server was stopped
            self._server.take_back(self._detector)

    async def refuse(self, refusal: _Refusal) -> None:
        """Send an error, and wait a little for the client to read it."""
        _log.warning("%s: %s", self.name, refusal)
        with suppress(OSError, asyncio.TimeoutError, _SlowReader, _Refusal):  # it may be gone, or not read, or be idle
            await self._send(Error(str(refusal), refusal.code).event())
            if self._writer.can_write_eof():
                self._writer.write_eof()
            await asyncio.wait_for(self._discard(), LINGER_S)

    async def drop(self, reason: str) -> None:
        """Close the connection at once, and say why in the log."""
        _log.warning("%s: dropped: %s", self.name, reason)
        self.abort()

    def abort(self) -> None:
        """Close the connection at once, without a word."""
        self._writer.transport.abort()

    async def close(self) -> None:
        """Close the connection; what the client does not take in time is thrown away."""
        self._writer.close()
        try:
            await asyncio.wait_for(self._writer.wait_closed(), LINGER_S)
        except (OSError, asyncio.TimeoutError):
            self.abort()

    async def _discard(self) -> None:
        n_bytes = 0
        while n_bytes < LINGER_BYTES and (data := await self._reader.read(MAX_HEADER_BYTES)):
            n_bytes += len(data)

    async def _receive(self) -> None:
        """Read messages into the inbox until there are no more; what ends them is the inbox's last word."""
        loop = asyncio.get_running_loop()
        idle_s = self._server.config.idle_s or math.inf
        if idle_s < math.inf:
            self._timer = loop.call_later(idle_s, self._check_idle)
        error: Exception | None = None
        try:
            while True:
                self._deadline_s = loop.time() + idle_s
                event = await _read_event(self._reader, self._server.config.max_payload_bytes)
                self._deadline_s = math.inf  # a full inbox is not the client's idleness
                if event is None:
                    break
                await self._inbox.put(event)
        except Exception as caught:
            error = caught
        finally:
            if self._timer is not None:
                self._timer.cancel()
        self._inbox.end(error)

    def _check_idle(self) -> None:
        loop = asyncio.get_running_loop()
        idle_s = self._server.config.idle_s
        rest_s = min(self._deadline_s - loop.time(), idle_s)
        if rest_s > 0:
            self._timer = loop.call_later(rest_s, self._check_idle)
        else:
            self._reader.set_exception(_Refusal("idle", f"expected a message within {idle_s:g} s, got none"))

    async def _answer(self) -> None:
        while events := await self._inbox.take():
            for is_audio, group in groupby(events, lambda event: AudioChunk.is_type(event.type)):
                if is_audio:
                    await self._hear(group)
                else:
                    for event in group:
                        await self._reply(event)

    async def _reply(self, event: Event) -> None:
        """Do what a message other than audio asks for."""
        if Describe.is_type(event.type):
            await self._send(self._server.info)
        elif Ping.is_type(event.type):
            await self._send(Pong(_text(event.data, "text")).event())
        elif wake.Detect.is_type(event.type):
            self._wanted = self._names(event.data.get("names"))
            self._request_open = True
            if self._stream is not None:
                self._stream = self._opening = None  # what follows is other audio than what came before
        elif AudioStart.is_type(event.type):
            self._opening = _AudioFormat.of(event.data), _timestamp(event.data) or 0
            self._stream = None
            self._request_open = True
        elif AudioStop.is_type(event.type):
            await self._finish()
        else:
            _log.debug("%s: %s is not for a wake word service", self.name, _quoted(event.type))

    def _names(self, names: Any) -> frozenset[str]:
        if names is None or names == []:
            return frozenset(self._server.keywords)
        if not isinstance(names, list):
            raise _Refusal("bad-message", f"expected names to be a list, got {_quoted(names)}")
        unknown = [name for name in names if name not in self._server.keywords]
        if unknown:
            known = ", ".join(self._server.keywords)
            raise _Refusal("unknown-name", f"unknown wake word {_quoted(unknown[0])}; this server knows: {known}")
        return frozenset(names)

    async def _hear(self, events: Iterable[Event]) -> None:
        """Take audio-chunk messages. What comes before a bad one is still heard."""
        refusal: _Refusal | None = None
        payloads: list[bytes] = []
        for event in events:
            try:
                audio_format = _AudioFormat.of(event.data)
                stream = self._stream or await self._begin(audio_format)
                payloads.append(stream.add(audio_format, event.payload or b"", _timestamp(event.data)))
            except _Refusal as caught:
                refusal = caught
                break
        if self._stream is not None:
            audio = memoryview(b"".join(payloads))
            job_bytes = self._stream.format.bytes_in(JOB_S)
            for start in range(0, len(audio), job_bytes):
                await self._tell(await self._server.in_thread(self._stream.push, audio[start : start + job_bytes]))
        if refusal is not None:
            raise refusal

    async def _begin(self, audio_format: _AudioFormat) -> _Stream:
        """Start a stream: as audio-start said or, since some satellites send none, as its first chunk does."""
        if self._detector is None:
            self._detector = await self._server.lend_detector()
        opened_format, start_ms = self._opening or (audio_format, 0)
        self._stream = _Stream(self._detector, opened_format, start_ms, self._wanted)
        self._request_open = True
        return self._stream

    async def _finish(self) -> None:
        """End the stream: what was still awaited is detected, and if nothing was at all, that is said."""
        if not self._request_open:
            raise _Refusal("wrong-order", "expected audio-start or audio-chunk before audio-stop")
        n_detections = 0
        if self._stream is not None:
            await self._tell(await self._server.in_thread(self._stream.finish))
            n_detections = self._stream.n_detections
        if not n_detections:
            await self._send(wake.NotDetected().event())
        self._stream = self._opening = None
        self._request_open = False

    async def _tell(self, hits: list[_Hit]) -> None:
        for hit in hits:
            self._n_detections += 1
            _log.info("%s: heard %s at %d ms, score %.2f", self.name, hit.keyword, hit.timestamp_ms, hit.score)
            await self._send(wake.Detection(name=hit.keyword, timestamp=hit.timestamp_ms).event())

    async def _send(self, event: Event) -> None:
        try:
            await asyncio.wait_for(async_write_event(event, self._writer), SEND_S)
        except asyncio.TimeoutError:
            raise _SlowReader from None


class _Inbox:
    """Messages that wait for their answers, bounded in bytes."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._n_bytes = 0
        self._has_ended = False
        self._error: Exception | None = None
        self._ready = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    async def put(self, event: Event) -> None:
        """Add a message, and wait until there is room for another."""
        self._events.append(event)
        self._n_bytes += EVENT_BYTES + len(event.payload or b"")
        self._ready.set()
        if self._n_bytes >= INBOX_BYTES:
            self._room.clear()
        await self._room.wait()

    def end(self, error: Exception | None) -> None:
        """Say that nothing more comes. error: why, if the client did not just leave."""
        self._has_ended = True
        self._error = error
        self._ready.set()

    async def take(self) -> list[Event]:
        """Return what has come, at least one message, in its order; nothing at the end, or raise what ended it."""
        await self._ready.wait()
        events, self._events = self._events, []
        self._n_bytes = 0
        self._room.set()
        if not self._has_ended:
            self._ready.clear()
        elif not events and self._error is not None:
            raise self._error
        return events


class _AudioFormat(NamedTuple):
    """Raw audio as a client sends it. rate: Hz. width: bytes of a sample. n_channels: samples of a frame."""

    rate: int
    width: int
    n_channels: int

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> _AudioFormat:
        """The format that a message states."""
        audio_format = cls(_integer(data, "rate"), _integer(data, "width"), _integer(data, "channels"))
        if not MIN_RATE <= audio_format.rate <= MAX_RATE:
            raise _Refusal("bad-audio", f"expected a rate of {MIN_RATE} to {MAX_RATE} Hz, got {audio_format.rate}")
        if not 1 <= audio_format.width <= 4:
            raise _Refusal("bad-audio", f"expected a width of 1 to 4 bytes, got {audio_format.width}")
        if not 1 <= audio_format.n_channels <= MAX_CHANNELS:
            raise _Refusal("bad-audio", f"expected 1 to {MAX_CHANNELS} channels, got {audio_format.n_channels}")
        return audio_format

    @property
    def frame_bytes(self) -> int:
        return self.width * self.n_channels

    def bytes_in(self, seconds: float) -> int:
        """Bytes of whole frames, at least one."""
        return max(1, int(seconds * self.rate)) * self.frame_bytes

    def samples(self, audio: bytes | memoryview) -> Samples:
        """Whole frames as (n, n_channels) int16 (up to 2 bytes a sample) or float32 samples.

        Samples of one byte are unsigned, as in wav files; all others signed, little endian.
        """
        flat: Samples
        if self.width == 1:
            flat = (np.frombuffer(audio, np.uint8).astype(np.int16) - np.int16(128)) * np.int16(256)
        elif self.width == 2:
            flat = np.frombuffer(audio, "<i2").astype(np.int16)
        else:
            flat = _wide_samples(audio, self.width)
        return flat.reshape(-1, self.n_channels)

    def __str__(self) -> str:
        return f"{self.rate} Hz, {self.width} bytes, {self.n_channels} channels"


class _Hit(NamedTuple):
    """A detection on the client's clock."""

    keyword: str
    timestamp_ms: int
    score: float


class _Stream:
    """A client's audio from its start to its stop; used by one thread at a time.

    detector: reset and used from here on. start_ms: the client's time of the first sample. wanted: keywords to report.
    n_detections: those reported so far.
    """

    def __init__(self, detector: Detector, audio_format: _AudioFormat, start_ms: int, wanted: frozenset[str]) -> None:
        detector.reset()
        self.format = audio_format
        self.n_detections = 0
        self._detector = detector
        self._wanted = wanted
        self._clock = _ClientClock(start_ms)
        self._n_frames = 0
        self._resampler: Resampler | None = None
        if (audio_format.rate, audio_format.n_channels) != (SAMPLE_RATE, 1):
            self._resampler = Resampler(audio_format.rate, audio_format.n_channels)
        config = detector.model.config
        self._reach_s = (config.smoother.patience_steps + 1) * config.step_samples / SAMPLE_RATE

    def add(self, audio_format: _AudioFormat, audio: bytes, timestamp_ms: int | None) -> bytes:
        """Check the next chunk, note its time, and return its audio for push."""
        if audio_format != self.format:
            raise _Refusal("bad-audio", f"expected audio of {self.format}, as it began, got {audio_format}")
        n_frames, rest = divmod(len(audio), audio_format.frame_bytes)
        if rest:
            raise _Refusal(
                "bad-audio",
                f"expected whole frames of {audio_format.frame_bytes} bytes, got a payload of {len(audio)} bytes",
            )
        if timestamp_ms is not None:
            self._clock.set(self._n_frames / audio_format.rate, timestamp_ms)
        self._n_frames += n_frames
        return audio

    def push(self, audio: bytes | memoryview) -> list[_Hit]:
        """Hear whole frames and return what they completed."""
        samples = self.format.samples(audio)
        mono = np.ravel(samples) if self._resampler is None else self._resampler.push(samples)
        hits = self._report(self._detector.push(mono))
        self._clock.forget(self._detector.heard_s - self._reach_s)
        return hits

    def finish(self) -> list[_Hit]:
        """What the end of the stream completes."""
        rest = np.zeros(0, np.float32) if self._resampler is None else self._resampler.flush()
        return self._report(self._detector.push(rest) + self._detector.flush())

    def _report(self, hits: list[Detection]) -> list[_Hit]:
        wanted = [_Hit(hit.keyword, self._clock.at(hit.peak), hit.score) for hit in hits if hit.keyword in self._wanted]
        self.n_detections += len(wanted)
        return wanted


class _ClientClock:
    """Turns seconds of a stream into the client's milliseconds, which may jump between chunks.

    start_ms: the client's time of the first sample, which holds until it says otherwise.
    """

    def __init__(self, start_ms: int) -> None:
        self._marks = deque([(0.0, start_ms)])  # seconds of the stream, the client's time there

    def set(self, time_s: float, timestamp_ms: int) -> None:
        """Say the client's time of the sample at time_s; times must not fall."""
        if self._marks[-1][0] == time_s:
            self._marks.pop()
        self._marks.append((time_s, timestamp_ms))

    def at(self, time_s: float) -> int:
        """The client's time of the sample that ends at time_s."""
        mark_s, mark_ms = next((mark for mark in reversed(self._marks) if mark[0] < time_s), self._marks[0])
        return mark_ms + round(1000 * (time_s - mark_s))

    def forget(self, time_s: float) -> None:
        """Drop what only times before time_s need."""
        while len(self._marks) > 1 and self._marks[1][0] < time_s:
            self._marks.popleft()


class _Announcement:
    """The server's entry in the local network's zeroconf (mDNS), where Home Assistant finds it."""

    def __init__(self, zeroconf: Any, service: Any) -> None:
        self._zeroconf = zeroconf
        self._service = service

    @classmethod
    async def make(cls, name: str, host: str, port: int) -> _Announcement:
        """Announce a server. host: its IP address, which may stand for all of this machine."""
        try:
            from zeroconf import Error as ZeroconfError
            from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf
        except ImportError:
            raise MissingExtraError('being found needs zeroconf: pip install "streamkws[zeroconf]"') from None
        zeroconf: Any = None
        try:
            address = _own_address() if ipaddress.ip_address(host).is_unspecified else host
            service = AsyncServiceInfo(_SERVICE, f"{name}.{_SERVICE}", port, parsed_addresses=[address])
            zeroconf = AsyncZeroconf(interfaces=[address])
            await (await zeroconf.async_register_service(service, allow_name_change=True))
        except (OSError, ZeroconfError) as error:
            if zeroconf is not None:
                await zeroconf.async_close()
            code, reason = (error.errno, _reason(error)) if isinstance(error, OSError) else (errno.EINVAL, str(error))
            raise OSError(code, f"cannot be announced by zeroconf as {name!r}: {reason}") from None
        _log.info("announced as %s at %s:%d", service.name, address, port)
        return cls(zeroconf, service)

    async def withdraw(self) -> None:
        """Take the entry back."""
        await (await self._zeroconf.async_unregister_service(self._service))
        await self._zeroconf.async_close()


class _Address(NamedTuple):
    """What a URI says. scheme: tcp, unix or stdio. host, port: of tcp. path: of unix."""

    scheme: str
    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def parse(cls, uri: str) -> _Address:
        """Raises ConfigError for a URI that is none of these."""
        try:
            parts = urlsplit(uri)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        plain = not (parts.query or parts.fragment or parts.username is not None)
        if plain and parts.scheme == "tcp" and parts.hostname and port is not None and parts.path in ("", "/"):
            return cls("tcp", parts.hostname, port)
        if plain and parts.scheme == "unix" and not parts.netloc and len(parts.path) > 1:
            if not hasattr(asyncio, "start_unix_server"):
                raise ConfigError(f"expected tcp://HOST:PORT on this system, which has no unix sockets, got {uri}")
            return cls("unix", path=parts.path)
        if plain and parts.scheme == "stdio" and not (parts.netloc or parts.path):
            return cls("stdio")
        raise ConfigError(f"expected tcp://HOST:PORT, unix:///PATH or stdio://, got {uri!r}")


async def _read_event(reader: asyncio.StreamReader, max_payload_bytes: int) -> Event | None:
    """Read one message; None when there is none any more.

    wyoming's own async_read_event would take any length that a message claims.
    """
    try:
        line = await reader.readuntil(b"\n")
    except asyncio.LimitOverrunError:
        text = f"expected a first line of at most {MAX_HEADER_BYTES} bytes, got a longer one"
        raise _Refusal("too-large", text) from None
    except asyncio.IncompleteReadError as cut:
        if cut.partial:
            raise _Refusal("cut", f"expected a whole message, got {len(cut.partial)} bytes of its first line") from None
        return None
    header = _json_object(line, "the first line")
    if not isinstance(header.get("type"), str):
        raise _Refusal("bad-message", f"expected a type, got {_quoted(header.get('type'))}")
    n_data_bytes = _length(header, "data_length", MAX_DATA_BYTES)
    n_payload_bytes = _length(header, "payload_length", max_payload_bytes)
    data = header.get("data") or {}
    if not isinstance(data, dict):
        raise _Refusal("bad-message", f"expected data to be an object, got {_quoted(data)}")
    try:
        if n_data_bytes:
            data |= _json_object(await reader.readexactly(n_data_bytes), "data")
        payload = await reader.readexactly(n_payload_bytes) if n_payload_bytes else None
    except asyncio.IncompleteReadError as cut:
        n_missing = (cut.expected or 0) - len(cut.partial)
        raise _Refusal("cut", f"expected a whole message, got one that lacks {n_missing} bytes") from None
    return Event(header["type"], data, payload)


def _json_object(text: bytes, what: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise _Refusal("bad-message", f"expected {what} to be a JSON object, got {_quoted(text)}")
    return value


def _length(header: Mapping[str, Any], name: str, limit: int) -> int:
    if header.get(name) is None:
        return 0
    length = _integer(header, name)
    if length < 0:
        raise _Refusal("bad-message", f"expected {name} of at least 0, got {length}")
    if length > limit:
        raise _Refusal("too-large", f"expected {name} of at most {limit}, got {_quoted(length)}")
    return length


def _integer(data: Mapping[str, Any], name: str) -> int:
    value = data.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise _Refusal("bad-message", f"expected {name} to be a whole number, got {_quoted(value)}")
    return value


def _timestamp(data: Mapping[str, Any]) -> int | None:
    """A message's timestamp in milliseconds, if it has one."""
    value = data.get("timestamp")
    if value is None:
        return None
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < MAX_TIMESTAMP:
        return round(value)
    raise _Refusal("bad-message", f"expected timestamp to be milliseconds, got {_quoted(value)}")


def _text(data: Mapping[str, Any], name: str) -> str | None:
    value = data.get(name)
    if value is None:
        return None
    try:
        if isinstance(value, str):
            value.encode()
            return value
    except UnicodeEncodeError:  # JSON can hold half of a surrogate pair
        pass
    raise _Refusal("bad-message", f"expected {name} to be text, got {_quoted(value)}")


def _quoted(value: object) -> str:
    """A client's value as ASCII of a bounded length, for messages and logs."""
    if isinstance(value, int) and value.bit_length() > 4 * MAX_QUOTED:
        return f"a number of {value.bit_length()} bits"
    text = ascii(value[: MAX_QUOTED + 1] if isinstance(value, (str, bytes, list)) else value)
    return text if len(text) <= MAX_QUOTED else text[:MAX_QUOTED] + "..."


def _wide_samples(audio: bytes | memoryview, width: int) -> npt.NDArray[np.float32]:
    """Samples of 3 or 4 bytes as (n,) float32 in [-1, 1]."""
    narrow = np.frombuffer(audio, np.uint8).reshape(-1, width)
    wide = np.zeros((len(narrow), 4), np.uint8)
    wide[:, 4 - width :] = narrow
    return wide.view("<i4")[:, 0].astype(np.float32) * np.float32(2**-31)


def _info(model: Model, keywords: Iterable[str]) -> Info:
    from streamkws import __version__

    attribution = Attribution(name="streamkws", url="https://doi.org/10.1109/ICMLA.2019.00127")
    models = [
        WakeModel(
            name=keyword,
            description=keyword,
            phrase=keyword,
            attribution=attribution,
            installed=True,
            version=model.name,
            languages=[],
        )
        for keyword in keywords
    ]
    program = WakeProgram(
        name="streamkws",
        description="Streaming keyword spotting with low-bit integer kernels",
        attribution=attribution,
        installed=True,
        version=__version__,
        models=models,
    )
    return Info(wake=[program])


async def _standard_streams() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Standard input and output, which must be pipes, as streams; they are the caller's and stay open."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=MAX_HEADER_BYTES)
    if not (_can_be_awaited(0) and _can_be_awaited(1)):
        raise OSError(errno.ENOTSUP, "cannot listen on stdio://: expected pipes as standard input and output")
    source, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(os.dup(0), "rb", 0)
    )
    # a protocol with flow control, which only the one for readers offers
    sink, protocol = await loop.connect_write_pipe(
        lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader()), os.fdopen(os.dup(1), "wb", 0)
    )
    return reader, _PipeWriter(sink, protocol, source, loop)


def _can_be_awaited(descriptor: int) -> bool:
    """Whether a descriptor is open and what an event loop can wait for; a file or /dev/null is not."""
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(descriptor)


class _PipeWriter(asyncio.StreamWriter):
    """A writer to a pipe that closes the pipe read from, too."""

    def __init__(
        self,
        transport: asyncio.WriteTransport,
        protocol: asyncio.BaseProtocol,
        source: asyncio.ReadTransport,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(transport, protocol, None, loop)
        self._source = source

    def close(self) -> None:
        self._source.close()
        super().close()


def _remove_stale_socket(path: str) -> None:
    """Remove the socket that a server left when it was killed; asyncio would remove that of a living one, too."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _reason(error: OSError) -> str:
    """Why a place cannot be listened on; asyncio's own text repeats the place."""
    if isinstance(error, socket.gaierror) or not error.errno:
        return str(error.strerror or error)
    return os.strerror(error.errno)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _own_address() -> str:
    """This machine's address towards the local network; nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("224.0.0.251", 5353))
        address: str = probe.getsockname()[0]
    return address


def _peer(writer: asyncio.StreamWriter) -> str:
    peer = writer.get_extra_info("peername")
    return f" ({peer[0]}:{peer[1]})" if isinstance(peer, tuple) else ""


def _keep_alive(writer: asyncio.StreamWriter) -> None:
    """Have the operating system find out when a client's machine is gone."""
    connection = writer.get_extra_info("socket")
    if connection is not None and connection.family in (socket.AF_INET, socket.AF_INET6):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
