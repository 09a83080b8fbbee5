"""Single keys: without Enter in a terminal, a line each in a pipe."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

END = ""
"""What read_key returns at the end of the input."""

_END_KEYS = "\x04\x1a"  # Ctrl-D; Ctrl-Z of Windows


def is_terminal() -> bool:
    """Whether a person presses the keys."""
    return sys.stdin is not None and sys.stdin.isatty()


@contextmanager
def single_keys() -> Iterator[None]:
    """While the body runs, a terminal gives each key at once and does not show it; Ctrl-C is still Ctrl-C."""
    if sys.platform == "win32" or not is_terminal():
        yield
        return
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor, termios.TCSADRAIN)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def read_key() -> str:
    """Within single_keys, wait for a key and return it, in lower case; of a pipe, the next line; END at the end.

    A key that sends several bytes, such as an arrow, is returned as one that has no letter.
    """
    if sys.stdin is None:
        return END
    if not is_terminal():
        raw = sys.stdin.buffer.readline() if hasattr(sys.stdin, "buffer") else sys.stdin.readline().encode()
        if not raw:
            return END
        line = raw.decode(errors="replace").rstrip("\r\n").lower()
        return line.strip() or line[:1] or "\n"
    if sys.platform == "win32":
        key = _windows_key()
    else:
        key = _posix_key()
    return END if key in _END_KEYS else key.lower()


if sys.platform == "win32":

    def _windows_key() -> str:
        import msvcrt

        key = msvcrt.getwch()
        if key == "\x03":
            raise KeyboardInterrupt
        if key in "\0\xe0":  # an arrow or a function key: its number follows
            msvcrt.getwch()
            return "\0"
        return key

else:

    def _posix_key() -> str:
        import select
        import termios
        import tty

        descriptor = sys.stdin.fileno()
        tty.setcbreak(descriptor, termios.TCSADRAIN)  # again: a shell that stopped and continued us has changed it
        key = os.read(descriptor, 1)
        if key[:1] == b"\x1b" or key[:1] >= b"\x80":
            while select.select([descriptor], [], [], 0)[0] and os.read(descriptor, 1):
                pass
            return "\0"
        return key.decode("ascii")
