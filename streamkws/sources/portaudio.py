"""PortAudio, through sounddevice: imported when it is needed, restarted so that it sees new devices."""

from __future__ import annotations

import gc
import threading
from contextlib import suppress
from typing import Any

from streamkws.errors import MissingExtraError

OPENING = threading.Lock()
"""Held while a device is opened or PortAudio is restarted: the whole process shares one PortAudio."""


def load_sounddevice(what: str = "the microphone") -> Any:
    """Import sounddevice.

    what: needs it, as the message says.
    Raises MissingExtraError without sounddevice or without the PortAudio library.
    """
    try:
        import sounddevice
    except ImportError:
        raise MissingExtraError(f"{what} needs sounddevice: pip install sounddevice") from None
    except OSError:
        raise MissingExtraError(f"{what} needs the PortAudio library: apt install libportaudio2") from None
    return sounddevice


def is_in_use(sounddevice: Any) -> bool:
    """Return whether any part of this process has an open sounddevice stream, which a restart would break."""
    gc.collect()  # a stream that could not be opened refers to itself, and looks open
    streams = (thing for thing in gc.get_objects() if issubclass(type(thing), sounddevice._StreamBase))
    return any(not getattr(stream, "closed", True) for stream in streams)


def restart(sounddevice: Any) -> None:
    """Restart PortAudio: it knows only the devices that were there when it started.

    Raises PortAudioError if it does not start.
    """
    with suppress(sounddevice.PortAudioError):  # it is not running if the last restart failed
        sounddevice._terminate()
    sounddevice._initialize()
