"""sources.devices: what inputs there are, at what rates they open, and how one is chosen."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import refused
from fake_portaudio import FakePortAudio, installed

from streamkws.errors import MissingExtraError
from streamkws.sources import InputDevice, Microphone, input_devices, open_rates


@pytest.fixture
def portaudio(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakePortAudio]:
    yield from installed(monkeypatch)


def test_input_devices(portaudio: FakePortAudio) -> None:
    assert input_devices() == [
        InputDevice(0, "Built-in Audio", "ALSA", 2, 48000, True),
        InputDevice(2, "USB Microphone", "ALSA", 1, 44100, False),
        InputDevice(3, "USB Microphone", "JACK", 1, 44100, False),
        InputDevice(4, "USB Microphone Array", "JACK", 6, 16000, False),
    ]
    portaudio.default = -1
    assert not any(device.is_default for device in input_devices())
    portaudio.devices = []
    assert input_devices() == []


def test_open_rates(portaudio: FakePortAudio) -> None:
    inputs = input_devices()
    assert open_rates(inputs[0]) == (16000, 44100, 48000)
    portaudio.accepts = {(0, 48000, 2), (2, 44100, 1), (4, 96000, 6)}
    assert [open_rates(device) for device in inputs] == [(48000,), (44100,), (), ()]
    assert open_rates(replace(inputs[3], sample_rate=96000)) == (96000,)


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        (None, 0),
        (0, 0),
        (3, 3),
        ("built-in", 0),
        ("array", 4),
        ("USB Microphone, ALSA", 2),
        ("microphone, jack", 3),
        ("Built-in Audio", 0),
    ],
)
def test_device_by_index_or_name(portaudio: FakePortAudio, wanted: int | str | None, index: int) -> None:
    with Microphone(wanted) as microphone:
        assert microphone.device.index == index
        assert portaudio.streams[0].device == index


def test_device_of_an_exact_name_wins(portaudio: FakePortAudio) -> None:
    del portaudio.devices[3]
    with Microphone("USB Microphone") as microphone:
        assert microphone.device.index == 2


def test_devices_that_do_not_fit(portaudio: FakePortAudio) -> None:
    listing = "0: Built-in Audio, ALSA; 2: USB Microphone, ALSA; 3: USB Microphone, JACK; 4: USB Microphone Array, JACK"
    assert refused(lambda: Microphone("blue")) == f"expected an audio input, got 'blue'; there are {listing}"
    assert refused(lambda: Microphone("Speakers")) == f"expected an audio input, got 'Speakers'; there are {listing}"
    assert refused(lambda: Microphone(1)) == f"expected an audio input, got 1; there are {listing}"
    assert refused(lambda: Microphone("usb")) == (
        f"expected one audio input, got 'usb', which fits {listing.split('; ', 1)[1]}"
    )
    portaudio.default = -1
    assert refused(Microphone) == f"expected a default audio input, found none; choose one of {listing}"
    portaudio.devices = []
    assert refused(Microphone) == "expected an audio input, found none on this machine"


def test_sounddevice_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    for make in (Microphone, input_devices):
        with pytest.raises(MissingExtraError, match=r"^the microphone needs sounddevice: pip install sounddevice$"):
            make()


def test_portaudio_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_library(name: str, path: Any, target: Any = None) -> None:
        if name == "sounddevice":
            raise OSError("PortAudio library not found")

    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(sys, "meta_path", [SimpleNamespace(find_spec=no_library), *sys.meta_path])
    with pytest.raises(MissingExtraError) as error:
        Microphone()
    assert str(error.value) == "the microphone needs the PortAudio library: apt install libportaudio2"
