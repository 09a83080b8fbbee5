"""The server's log: what its lines are about, beside their text."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timezone


def about(event: str, **values: object) -> dict[str, object]:
    """Return the extra of a log call. event: what happened, for programs. values: what the line's text says of it."""
    return {"about": {"event": event, **values}}


class JsonFormatter(logging.Formatter):
    """A record as one line, a JSON object: time, level, event, message, and the values that the event has."""

    def format(self, record: logging.LogRecord) -> str:
        values = getattr(record, "about", {"event": "other"})
        line = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": values["event"],
            "message": record.getMessage(),
            **values,
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)
