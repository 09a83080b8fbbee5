"""The audio inputs of this machine."""

from __future__ import annotations

from dataclasses import dataclass

from streamkws.audio import SAMPLE_RATE
from streamkws.errors import AudioError
from streamkws.sources.portaudio import load_sounddevice

COMMON_RATES = (SAMPLE_RATE, 44100, 48000)
"""Hz; what open_rates tries."""


@dataclass(frozen=True)
class InputDevice:
    """An audio input of this machine.

    index: PortAudio's number of the device; it changes when devices come and go.
    name, host_api: the system's name of the device, and of the sound system that it is reached through.
    n_channels: the most channels it records.
    sample_rate: its own rate, Hz.
    is_default: whether Microphone() opens it.
    """

    index: int
    name: str
    host_api: str
    n_channels: int
    sample_rate: int
    is_default: bool

    @property
    def full_name(self) -> str:
        """Name and sound system, as messages list a device."""
        return f"{self.name}, {self.host_api}"


def input_devices() -> list[InputDevice]:
    """List the audio inputs.

    Raises MissingExtraError without sounddevice or PortAudio.
    """
    sounddevice = load_sounddevice()
    try:
        default = sounddevice.query_devices(kind="input")["index"]
    except (sounddevice.PortAudioError, ValueError):
        default = -1  # there is none
    host_apis = sounddevice.query_hostapis()
    return [
        InputDevice(
            index=device["index"],
            name=device["name"],
            host_api=host_apis[device["hostapi"]]["name"],
            n_channels=device["max_input_channels"],
            sample_rate=round(device["default_samplerate"]),
            is_default=device["index"] == default,
        )
        for device in sounddevice.query_devices()
        if device["max_input_channels"] > 0
    ]


def open_rates(device: InputDevice) -> tuple[int, ...]:
    """Return the sample rates that a device can be opened at now, of COMMON_RATES and its own; none if it is busy.

    Raises MissingExtraError without sounddevice or PortAudio.
    """
    sounddevice = load_sounddevice()

    def opens(rate: int, n_channels: int) -> bool:
        try:
            sounddevice.check_input_settings(device.index, n_channels, "float32", samplerate=rate)
        except (sounddevice.PortAudioError, ValueError):
            return False
        return True

    rates = sorted({*COMMON_RATES, device.sample_rate})
    return tuple(rate for rate in rates if any(opens(rate, n) for n in {1, device.n_channels}))


def find_input(wanted: int | str | None) -> InputDevice:
    """Return the input that a user means.

    wanted: its index, or part of its full name in upper or lower case; None is the system's default input.
    Raises AudioError, with a list of the inputs, where none fits or several do.
    """
    devices = input_devices()
    if not devices:
        raise AudioError("expected an audio input, found none on this machine")
    if wanted is None:
        fitting = [device for device in devices if device.is_default]
    elif isinstance(wanted, int):
        fitting = [device for device in devices if device.index == wanted]
    else:
        fitting = [device for device in devices if wanted.casefold() in device.full_name.casefold()]
        exact = [device for device in fitting if wanted in (device.name, device.full_name)]
        fitting = exact if len(exact) == 1 else fitting
    if len(fitting) == 1:
        return fitting[0]
    listing = "; ".join(f"{device.index}: {device.full_name}" for device in fitting or devices)
    if wanted is None:
        raise AudioError(f"expected a default audio input, found none; choose one of {listing}")
    if fitting:
        raise AudioError(f"expected one audio input, got {wanted!r}, which fits {listing}")
    raise AudioError(f"expected an audio input, got {wanted!r}; there are {listing}")


def find_again(device: InputDevice) -> InputDevice:
    """Return the input that has the name of a lost one, with its old index if there is still one.

    Raises AudioError where no input has that name.
    """
    names = (device.name, device.host_api)
    same = [other for other in input_devices() if (other.name, other.host_api) == names]
    if not same:
        raise AudioError(f"{device.name}: expected an audio input of this name, found none")
    return next((other for other in same if other.index == device.index), same[0])
