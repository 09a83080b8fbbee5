"""server.log: records as lines of JSON."""

from __future__ import annotations

import io
import json
import logging
from typing import Any

from streamkws.server.log import JsonFormatter, about


def logged(level: int, text: str, *arguments: object, **settings: Any) -> dict[str, Any]:
    """What a log call writes: one line, an object."""
    log, stream = logging.Logger("x"), io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    log.addHandler(handler)
    log.log(level, text, *arguments, **settings)
    (line,) = stream.getvalue().splitlines()
    values: dict[str, Any] = json.loads(line)
    return values


def test_fields() -> None:
    line = logged(logging.INFO, "%s: heard %s", "a", 'é\n"', extra=about("detection", client="a", score=0.5))
    assert list(line) == ["time", "level", "event", "message", "client", "score"]
    assert (line["level"], line["event"], line["message"]) == ("info", "detection", 'a: heard é\n"')
    assert (line["client"], line["score"]) == ("a", 0.5)


def test_line_that_is_about_nothing() -> None:
    assert logged(logging.WARNING, "x")["event"] == "other"


def test_traceback_is_within_the_line() -> None:
    try:
        raise ZeroDivisionError("a bug")
    except ZeroDivisionError:
        line = logged(logging.ERROR, "x", exc_info=True, extra=about("bug"))
    assert line["event"] == "bug" and line["traceback"].endswith("ZeroDivisionError: a bug")
