"""One connection of a client, from its first message to its end."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import groupby
from typing import Any

from wyoming import wake
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.error import Error
from wyoming.event import Event, async_write_event
from wyoming.info import Describe
from wyoming.ping import Ping, Pong

from streamkws.detector import Detector
from streamkws.server.config import ServerConfig
from streamkws.server.detectors import DetectorPool
from streamkws.server.framing import MAX_HEADER_BYTES, Refusal, get_text, get_timestamp, quoted, read_event
from streamkws.server.inbox import Inbox, Message
from streamkws.server.log import about
from streamkws.server.metrics import LATE_S
from streamkws.server.stream import AudioFormat, Hit, Stream
from streamkws.server.transport import keep_alive

JOB_S = 0.25
"""Most seconds of one client's audio that a thread takes before it is another client's turn."""

SEND_S = 10.0
"""Seconds after which a client that does not read its messages is dropped."""

UNSENT_BYTES = 1 << 16
"""Most bytes that wait for a client that does not read, beside those that the operating system holds."""

LINGER_S, LINGER_BYTES = 1.0, 1 << 22
"""How long, and how much, a connection is still read after an error. Without this the client would lose the error
message: a connection that is closed with unread bytes in it is reset."""

_log = logging.getLogger(__package__)


class _SlowReader(Exception):
    """A client does not read its messages."""


class Client:
    """One connection, from its first message to its end.

    name: what the log calls it.
    reader, writer: the connection.
    config: the server's. pool: lends it a detector. info: the answer to a describe message.
    when_gone: called once nothing more comes from the client; what came before is still answered.

    n_waiting: messages that came and are not answered yet.
    """

    def __init__(
        self,
        name: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        config: ServerConfig,
        pool: DetectorPool,
        info: Event,
        when_gone: Callable[[Client], object],
    ) -> None:
        self.name = name
        self._reader = reader
        self._writer = writer
        self._config = config
        self._pool = pool
        self._info = info
        self._when_gone = when_gone
        writer.transport.set_write_buffer_limits(high=UNSENT_BYTES)
        keep_alive(writer)
        self._metrics = pool.metrics
        self._inbox = Inbox()
        self._n_taken = 0  # messages that are out of the inbox and not answered yet
        self._deadline_s = math.inf  # time from which the client counts as idle, on the loop's clock
        self._idle_timer: asyncio.TimerHandle | None = None
        self._wanted = frozenset(pool.keywords)
        self._detector: Detector | None = None
        self._request_open = False
        self._opening: tuple[AudioFormat, int] | None = None  # format and time of an audio-start without audio yet
        self._stream: Stream | None = None
        self._n_detections = 0

    @property
    def n_waiting(self) -> int:
        return len(self._inbox) + self._n_taken

    async def serve(self) -> None:
        """Answer until the client leaves or is disconnected."""
        _log.info("%s: connected", self.name, extra=self._about("connected"))
        receiving = asyncio.get_running_loop().create_task(self._receive())
        try:
            await self._answer()
            n = self._n_detections
            _log.info("%s: left after %d detections", self.name, n, extra=self._about("left", n_detections=n))
        except Refusal as refusal:
            receiving.cancel()
            await asyncio.gather(receiving, return_exceptions=True)
            await self.refuse(refusal)
        except _SlowReader:
            await self.drop("slow", f"has not read its messages for {SEND_S:g} s")
        except OSError:
            n = self._n_detections
            _log.info("%s: gone after %d detections", self.name, n, extra=self._about("gone", n_detections=n))
        finally:
            receiving.cancel()
            await asyncio.gather(receiving, return_exceptions=True)
        # Not in finally: when the server is stopped, a thread may still use the detector.
        if self._detector is not None:
            self._pool.take_back(self._detector)

    async def refuse(self, refusal: Refusal) -> None:
        """Send an error, and wait a little for the client to read it."""
        self._metrics.refused[refusal.code] += 1
        _log.warning("%s: %s", self.name, refusal, extra=self._about("refused", reason=refusal.code))
        with suppress(OSError, asyncio.TimeoutError, _SlowReader, Refusal):  # gone, does not read, or idle
            await self._send(Error(str(refusal), refusal.code).event())
            if self._writer.can_write_eof():
                self._writer.write_eof()
            await asyncio.wait_for(self._discard(), LINGER_S)

    async def drop(self, code: str, text: str) -> None:
        """Close the connection at once; the reason is counted by its code, and its text goes to the log."""
        self._metrics.refused[code] += 1
        _log.warning("%s: dropped: %s", self.name, text, extra=self._about("dropped", reason=code))
        self.abort()

    def abort(self) -> None:
        """Close the connection at once, without a message."""
        self._writer.transport.abort()

    async def close(self) -> None:
        """Close the connection; bytes that the client does not read within LINGER_S are lost."""
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
        """Read messages into the inbox until there are no more, and end the inbox with the reason."""
        loop = asyncio.get_running_loop()
        idle_s = self._config.idle_s or math.inf
        if idle_s < math.inf:
            self._idle_timer = loop.call_later(idle_s, self._check_idle)
        error: Exception | None = None
        try:
            while True:
                self._deadline_s = loop.time() + idle_s
                event = await read_event(self._reader, self._config.max_payload_bytes)
                self._deadline_s = math.inf  # a client that waits for room in the inbox is not idle
                if event is None:
                    break
                await self._inbox.put(event)
        except Exception as caught:
            error = caught
        finally:
            if self._idle_timer is not None:
                self._idle_timer.cancel()
            self._when_gone(self)
        self._inbox.end(error)

    def _check_idle(self) -> None:
        loop = asyncio.get_running_loop()
        idle_s = self._config.idle_s
        rest_s = min(self._deadline_s - loop.time(), idle_s)
        if rest_s > 0:
            self._idle_timer = loop.call_later(rest_s, self._check_idle)
        else:
            self._reader.set_exception(Refusal("idle", f"expected a message within {idle_s:g} s, got none"))

    async def _answer(self) -> None:
        while messages := await self._inbox.take():
            self._n_taken = len(messages)
            for is_audio, group in groupby(messages, lambda message: AudioChunk.is_type(message.event.type)):
                if is_audio:
                    await self._hear(group)
                else:
                    for event, _ in group:
                        await self._reply(event)
                        self._n_taken -= 1

    async def _reply(self, event: Event) -> None:
        """Do what a message other than audio asks for."""
        if Describe.is_type(event.type):
            await self._send(self._info)
        elif Ping.is_type(event.type):
            await self._send(Pong(get_text(event.data, "text")).event())
        elif wake.Detect.is_type(event.type):
            self._wanted = self._names(event.data.get("names"))
            self._request_open = True
            if self._stream is not None:
                self._stream = self._opening = None  # the audio that follows is a new stream
        elif AudioStart.is_type(event.type):
            self._opening = AudioFormat.of(event.data), get_timestamp(event.data) or 0
            self._stream = None
            self._request_open = True
        elif AudioStop.is_type(event.type):
            await self._finish()
        else:
            kind = quoted(event.type)
            _log.debug(
                "%s: %s is not for a wake word service", self.name, kind, extra=self._about("ignored", type=kind)
            )

    def _names(self, names: Any) -> frozenset[str]:
        if names is None or names == []:
            return frozenset(self._pool.keywords)
        if not isinstance(names, list):
            raise Refusal("bad-message", f"expected names to be a list, got {quoted(names)}")
        unknown = [name for name in names if name not in self._pool.keywords]
        if unknown:
            known = ", ".join(self._pool.keywords)
            raise Refusal("unknown-name", f"unknown wake word {quoted(unknown[0])}; this server knows: {known}")
        return frozenset(names)

    async def _hear(self, messages: Iterable[Message]) -> None:
        """Take audio-chunk messages. The audio before a bad message is still used."""
        refusal: Refusal | None = None
        payloads: list[bytes] = []
        unheard: deque[tuple[int, float]] = deque()  # of each chunk: where it ends in the audio, and when it came
        n_bytes = 0
        for event, came_s in messages:
            try:
                audio_format = AudioFormat.of(event.data)
                stream = self._stream or await self._begin(audio_format)
                payloads.append(stream.add(audio_format, event.payload or b"", get_timestamp(event.data)))
            except Refusal as caught:
                refusal = caught
                break
            n_bytes += len(payloads[-1])
            unheard.append((n_bytes, came_s))
        if self._stream is not None:
            audio = memoryview(b"".join(payloads))
            job_bytes = self._stream.format.bytes_in(JOB_S)
            for start in range(0, n_bytes, job_bytes):
                piece = audio[start : start + job_bytes]
                hits = await self._pool.run(self._stream.push, piece)
                self._metrics.audio_s += self._stream.format.seconds_in(len(piece))
                self._count_chunks(unheard, start + len(piece))
                await self._tell(hits)
            if unheard:  # those without audio
                self._count_chunks(unheard, n_bytes)
        if refusal is not None:
            raise refusal

    def _count_chunks(self, unheard: deque[tuple[int, float]], n_heard_bytes: int) -> None:
        """Take the chunks that have been heard out of those that have not."""
        on_time_s = asyncio.get_running_loop().time() - LATE_S
        while unheard and unheard[0][0] <= n_heard_bytes:
            _, came_s = unheard.popleft()
            self._n_taken -= 1
            self._metrics.n_chunks += 1
            self._metrics.n_late += came_s < on_time_s

    async def _begin(self, audio_format: AudioFormat) -> Stream:
        """Start a stream, in the format of audio-start or, as some satellites send none, of the first chunk."""
        if self._detector is None:
            self._detector = await self._pool.lend()
        opened_format, start_ms = self._opening or (audio_format, 0)
        self._stream = Stream(self._detector, opened_format, start_ms, self._wanted)
        self._request_open = True
        return self._stream

    async def _finish(self) -> None:
        """End the stream: send the hits that its end completes, or not-detected if there was no hit at all."""
        if not self._request_open:
            raise Refusal("wrong-order", "expected audio-start or audio-chunk before audio-stop")
        n_detections = 0
        if self._stream is not None:
            await self._tell(await self._pool.run(self._stream.finish))
            n_detections = self._stream.n_detections
        if not n_detections:
            await self._send(wake.NotDetected().event())
        self._stream = self._opening = None
        self._request_open = False

    async def _tell(self, hits: list[Hit]) -> None:
        """Log hits, and send those that are no near misses, with their score and level beside what Wyoming names."""
        for hit in hits:
            self._log_hit(hit)
            if hit.near:
                self._metrics.near[hit.keyword] += 1
                continue
            self._metrics.detections[hit.keyword] += 1
            self._n_detections += 1
            event = wake.Detection(name=hit.keyword, timestamp=hit.timestamp_ms).event()
            event.data |= hit.strength
            await self._send(event)

    def _log_hit(self, hit: Hit) -> None:
        name, heard = ("near-miss", "nearly heard") if hit.near else ("detection", "heard")
        extra = self._about(name, keyword=hit.keyword, timestamp_ms=hit.timestamp_ms, **hit.strength)
        _log.info(
            "%s: %s %s at %d ms, score %.2f", self.name, heard, hit.keyword, hit.timestamp_ms, hit.score, extra=extra
        )

    def _about(self, event: str, **values: object) -> dict[str, object]:
        return about(event, client=self.name, **values)

    async def _send(self, event: Event) -> None:
        try:
            await asyncio.wait_for(async_write_event(event, self._writer), SEND_S)
        except asyncio.TimeoutError:
            raise _SlowReader from None
