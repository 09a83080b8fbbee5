"""What mutations of all kinds have in common: values that nobody expects, places in JSON, changed bytes."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

VALUES: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2, 3, 7, 1.5, 4096, 65536, 1_000_000, 2**31, 2**33, 2**63, 2**64, 10**30, 1e9, 1e308,
    -1e308, 1e-320, math.nan, math.inf, "", "x", "\x00", "../../x", "\x1b[2J", "\ud800", [], {}, [1], [[]], {"a": 1},
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of everything in a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inside in items:
        yield from places(inside, (*path, key))
    if path:
        yield path


def put(value: Any, path: tuple[Any, ...], new: Any) -> None:
    """Replace what is at a path by a copy of new, which a later change inside it must not reach."""
    for key in path[:-1]:
        value = value[key]
    value[path[-1]] = deepcopy(new)


def changed_bytes(rng: random.Random, content: bytes) -> bytes:
    """Content with some of its bytes changed, cut, doubled or moved, most of them near its beginning."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 5))):
        kind, reach = rng.random(), min(len(data), rng.choice((64, 64, 512, len(data))))
        place = rng.randrange(max(1, reach))
        if kind < 0.6 and data:
            for _ in range(rng.choice((1, 4))):
                data[min(len(data) - 1, place + rng.randrange(4))] = rng.choice((0, 255, 127, 128, rng.randrange(256)))
        elif kind < 0.75:
            del data[place : place + rng.choice((1, 4, 100, len(data)))]
        elif kind < 0.9:
            data[place:place] = data[place : place + rng.choice((1, 4, 100))]
        else:
            data = data[: rng.randrange(len(data) + 1)]
    return bytes(data)
