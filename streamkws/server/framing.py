"""Messages as they come over a connection: read within limits, their values checked.

A message is a line of JSON (type, data, and the lengths of what follows), then more JSON of data_length bytes, then a
payload of payload_length bytes.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from wyoming.event import Event

MAX_HEADER_BYTES = 1 << 16
"""Longest first line of a message."""

MAX_DATA_BYTES = 1 << 16
"""Most JSON after a message's first line."""

MAX_TIMESTAMP = 1 << 63
"""Milliseconds. It is large because wyoming-satellite sends nanoseconds in this field."""

MAX_QUOTED = 80
"""Characters of a client's text that an error repeats."""


class Refusal(Exception):
    """Why a client is disconnected; the client gets it as an error message.

    code: for programs. text: for people.
    """

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


async def read_event(reader: asyncio.StreamReader, max_payload_bytes: int) -> Event | None:
    """Read one message; return None at the end of the stream.

    wyoming's own async_read_event would accept any length that a message claims.
    Raises Refusal for a message that is too long, cut off or not valid.
    """
    try:
        line = await reader.readuntil(b"\n")
    except asyncio.LimitOverrunError:
        text = f"expected a first line of at most {MAX_HEADER_BYTES} bytes, got a longer one"
        raise Refusal("too-large", text) from None
    except asyncio.IncompleteReadError as cut:
        if cut.partial:
            raise Refusal("cut", f"expected a whole message, got {len(cut.partial)} bytes of its first line") from None
        return None
    header = _json_object(line, "the first line")
    if not isinstance(header.get("type"), str):
        raise Refusal("bad-message", f"expected a type, got {quoted(header.get('type'))}")
    n_data_bytes = _length(header, "data_length", MAX_DATA_BYTES)
    n_payload_bytes = _length(header, "payload_length", max_payload_bytes)
    data = header.get("data") or {}
    if not isinstance(data, dict):
        raise Refusal("bad-message", f"expected data to be an object, got {quoted(data)}")
    try:
        if n_data_bytes:
            data |= _json_object(await reader.readexactly(n_data_bytes), "data")
        payload = await reader.readexactly(n_payload_bytes) if n_payload_bytes else None
    except asyncio.IncompleteReadError as cut:
        n_missing = (cut.expected or 0) - len(cut.partial)
        raise Refusal("cut", f"expected a whole message, got one that lacks {n_missing} bytes") from None
    return Event(header["type"], data, payload)


def _json_object(text: bytes, what: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise Refusal("bad-message", f"expected {what} to be a JSON object, got {quoted(text)}")
    return value


def _length(header: Mapping[str, Any], name: str, limit: int) -> int:
    if header.get(name) is None:
        return 0
    length = get_integer(header, name)
    if length < 0:
        raise Refusal("bad-message", f"expected {name} of at least 0, got {length}")
    if length > limit:
        raise Refusal("too-large", f"expected {name} of at most {limit}, got {quoted(length)}")
    return length


def get_integer(data: Mapping[str, Any], name: str) -> int:
    """Return a value that must be a whole number. Raises Refusal for any other."""
    value = data.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise Refusal("bad-message", f"expected {name} to be a whole number, got {quoted(value)}")
    return value


def get_timestamp(data: Mapping[str, Any]) -> int | None:
    """Return a message's timestamp in milliseconds; None if it has none. Raises Refusal for what is not a time."""
    value = data.get("timestamp")
    if value is None:
        return None
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < MAX_TIMESTAMP:
        return round(value)
    raise Refusal("bad-message", f"expected timestamp to be milliseconds, got {quoted(value)}")


def get_text(data: Mapping[str, Any], name: str) -> str | None:
    """Return a value that must be text or missing. Raises Refusal for any other."""
    value = data.get(name)
    if value is None:
        return None
    try:
        if isinstance(value, str):
            value.encode()
            return value
    except UnicodeEncodeError:  # JSON can hold half of a surrogate pair
        pass
    raise Refusal("bad-message", f"expected {name} to be text, got {quoted(value)}")


def quoted(value: object) -> str:
    """Return a client's value as ASCII of a bounded length, for messages and logs."""
    if isinstance(value, int) and value.bit_length() > 4 * MAX_QUOTED:
        return f"a number of {value.bit_length()} bits"
    shown = ascii(value[: MAX_QUOTED + 1] if isinstance(value, (str, bytes, list)) else value)
    return shown if len(shown) <= MAX_QUOTED else shown[:MAX_QUOTED] + "..."
