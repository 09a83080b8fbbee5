"""Mutated talks with the Wyoming server: what a client sends, and what the server must make of it.

A mutation changes the messages of a whole talk: a value anywhere in their JSON, the lengths they state, their order;
or bytes anywhere; or all is random bytes. The client sends it over a real socket, says that it has no more, and reads
to the end. The server must answer with whole messages, of which an error is the last and one line, and then have
neither a client nor a task left, log each client in single lines, and not grow.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import random
import tempfile
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np

from bench.report import ROOT
from bench.robustness.mutations import VALUES, changed_bytes, places, put
from streamkws import load_model
from streamkws.audio import as_int16, read_audio
from streamkws.server import Server, ServerConfig

ANSWER_S = 30.0
CHUNK_SAMPLES = 4000
WARM, MOST_GROWN_KB = 300, 32_000
"""Talks after which memory is noted, and how much more there may be later."""
TYPES = ("describe", "detect", "audio-start", "audio-chunk", "audio-stop", "ping", "synthesize", "", "\x00")
ANSWERS = {"info", "detection", "not-detected", "pong", "error"}

Message = tuple[dict[str, Any], bytes]


def messages_of(audio: np.ndarray, rate: int, n_channels: int = 1) -> list[Message]:
    """A talk about (n,) int16 or (n, n_channels) audio, with every message that a client may send."""
    about = {"rate": rate, "width": audio.dtype.itemsize, "channels": n_channels}
    talk: list[Message] = [
        ({"type": "describe"}, b""),
        ({"type": "detect", "data": {"names": ["alexa", "computer"]}}, b""),
        ({"type": "audio-start", "data": {**about, "timestamp": 1000}}, b""),
    ]
    for start in range(0, len(audio), CHUNK_SAMPLES):
        time_ms = 1000 + 1000 * start // rate
        payload = audio[start : start + CHUNK_SAMPLES].tobytes()
        talk.append(({"type": "audio-chunk", "data": {**about, "timestamp": time_ms}}, payload))
    return [*talk, ({"type": "audio-stop", "data": {"timestamp": 2000}}, b""), ({"type": "ping", "data": {}}, b"")]


def packed(talk: list[Message], apart: bool) -> bytes:
    """A talk as it goes over the connection. apart: data behind the first line, as wyoming's own client sends it."""
    parts = []
    for header, payload in talk:
        line, data = dict(header), b""
        if payload:
            line.setdefault("payload_length", len(payload))
        if apart and "data" in line:
            data = json.dumps(line.pop("data")).encode()
            line.setdefault("data_length", len(data))
        parts += [json.dumps(line).encode(), b"\n", data, payload]
    return b"".join(parts)


def talks() -> list[bytes]:
    """Whole talks: with the beginning of the demo, in stereo, and of keywords alone; each as a list, in JSON."""
    audio = as_int16(read_audio(ROOT / "streamkws" / "demo.flac"))[:24_000]
    stereo = np.stack([audio, audio], 1)[:8000]
    found = [messages_of(audio, 16_000), messages_of(stereo, 44_100, 2)]
    found.append([one for one in found[0] if one[0]["type"] in ("audio-chunk", "ping")])
    return [json.dumps([[header, payload.hex()] for header, payload in talk]).encode() for talk in found]


def mutated_talk(rng: random.Random, content: bytes) -> bytes:
    """What a client sends: a talk with one to three changes."""
    talk: list[Message] = [(header, bytes.fromhex(payload)) for header, payload in json.loads(content)]
    if rng.random() < 0.05:
        return rng.randbytes(rng.choice((1, 10, 1000, 100_000)))
    for _ in range(rng.choice((1, 1, 2, 3))):
        kind, index = rng.random(), rng.randrange(len(talk))
        header, payload = talk[index]
        if kind < 0.4:
            put(header, rng.choice(list(places(header))), rng.choice(VALUES))
        elif kind < 0.5:
            header[rng.choice(("payload_length", "data_length"))] = rng.choice(
                (*VALUES, len(payload) + rng.randrange(-3, 4))
            )
        elif kind < 0.6:
            header["type"] = rng.choice(TYPES)
        elif kind < 0.7:
            talk[index] = header, changed_bytes(rng, payload)
        elif kind < 0.8:
            talk.insert(rng.randrange(len(talk)), (deepcopy(header), payload))
        elif kind < 0.9:
            talk.insert(rng.randrange(len(talk)), talk.pop(index))
        elif len(talk) > 1:
            del talk[index]
    sent = packed(talk, rng.random() < 0.5)
    if rng.random() < 0.3:
        place = rng.randrange(len(sent))
        sent = sent[:place] + changed_bytes(rng, sent[place:])
    return sent


class Talks:
    """A server that hears one talk after the other. used, refused: what attempt returns."""

    def __init__(self, used: str, refused: str) -> None:
        self._used, self._refused = used, refused
        self._loop = asyncio.new_event_loop()
        self._troubles: list[str] = []
        self._loop.set_exception_handler(lambda _, context: self._troubles.append(f"event loop: {context}"))
        self._folder = tempfile.TemporaryDirectory()
        self._path = str(Path(self._folder.name, "socket"))
        self._n, self._warm_kb = 0, 0
        self._server = Server(load_model("wakewords"), ServerConfig(f"unix://{self._path}"))

    def __enter__(self) -> Talks:
        self._log, self._handler = logging.getLogger("streamkws"), logging.Handler()
        self._handler.emit = self._note  # type: ignore[method-assign]
        self._log.addHandler(self._handler)
        self._level = self._log.level
        self._log.setLevel(logging.INFO)
        self._loop.run_until_complete(self._server.start())
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.run_until_complete(self._server.stop())
        self._loop.close()
        self._folder.cleanup()
        self._log.removeHandler(self._handler)
        self._log.setLevel(self._level)

    def _note(self, record: logging.LogRecord) -> None:
        """Look at a line of the log."""
        text = record.getMessage()
        if record.levelno >= logging.ERROR or not text.isprintable():
            self._troubles.append(f"logged: {text[:200]!r} {record.exc_info or ''}")

    def attempt(self, sent: bytes) -> str:
        """What the server makes of the bytes of a talk: used, refused, or what went wrong."""
        self._troubles.clear()
        outcome = self._loop.run_until_complete(asyncio.wait_for(self._talk(sent), ANSWER_S))
        self._n += 1
        if self._n % WARM == 0:
            gc.collect()
            now_kb = int(Path("/proc/self/statm").read_text().split()[1]) * 4
            self._warm_kb = self._warm_kb or now_kb
            if now_kb - self._warm_kb > MOST_GROWN_KB:
                self._troubles.append(f"memory grew by {now_kb - self._warm_kb} kB in {self._n} talks")
        return "; ".join(self._troubles)[:300] or outcome

    async def _talk(self, sent: bytes) -> str:
        reader, writer = await asyncio.open_unix_connection(self._path)
        got = b""
        try:
            reading = asyncio.ensure_future(reader.read())
            writer.write(sent)
            writer.write_eof()
            got = await reading
        finally:
            writer.close()
        for _ in range(1000):
            if not self._server.n_clients and not self._server._tasks:
                break
            await asyncio.sleep(0.001)
        else:
            return f"{self._server.n_clients} clients and {len(self._server._tasks)} tasks are left"
        return self._judged(got)

    def _judged(self, got: bytes) -> str:
        """Used or refused by what came back, which must be whole messages."""
        place, kinds = 0, []
        while place < len(got):
            line, found, _ = got[place:].partition(b"\n")
            header = json.loads(line)
            place += len(line) + len(found) + (header.get("payload_length") or 0)
            n_data = header.get("data_length") or 0
            data = {**(header.get("data") or {}), **(json.loads(got[place : place + n_data]) if n_data else {})}
            place += n_data
            kinds.append(header["type"])
            if header["type"] not in ANSWERS:
                return f"an answer of type {header['type']!r}"
            if header["type"] == "error" and not (data["text"].isprintable() and data.get("code")):
                return f"an error that is no clear line: {data!r}"
        if place != len(got) or "error" in kinds[:-1]:
            return f"answers that do not end as they should: {kinds}"
        return self._refused if "error" in kinds else self._used
