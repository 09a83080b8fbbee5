"""What is printed while a sound device is in use: messages of the library, none of C libraries."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from streamkws.cli.output import print_error


class _OneLineEach(logging.Handler):
    """Prints log messages of the library as a command prints its own messages."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one line to standard error."""
        print_error(record.getMessage())


@contextmanager
def only_our_messages() -> Iterator[None]:
    """Show log messages of the library, and no output of C libraries.

    ALSA and PortAudio write several lines to descriptor 2 whenever a device comes or goes.
    """
    handler = _OneLineEach()
    logger = logging.getLogger("streamkws")
    logger.addHandler(handler)
    try:
        with _silent_descriptor():
            yield
    finally:
        logger.removeHandler(handler)


@contextmanager
def _silent_descriptor() -> Iterator[None]:
    """Discard what is written to descriptor 2; sys.stderr still works."""
    stderr = sys.stderr
    try:
        is_there = stderr.fileno() == 2
    except (AttributeError, OSError, ValueError):
        is_there = False
    if not is_there:
        yield
        return
    stderr.flush()
    with (
        open(os.dup(2), "w", buffering=1, encoding=stderr.encoding, errors=stderr.errors) as ours,
        open(os.devnull, "w") as nowhere,
    ):
        os.dup2(nowhere.fileno(), 2)
        sys.stderr = ours
        try:
            yield
        finally:
            sys.stderr = stderr
            os.dup2(ours.fileno(), 2)
