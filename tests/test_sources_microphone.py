"""Microphone and its recordings, on a fake PortAudio."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from conftest import refused
from fake_portaudio import FakePortAudio, FakePortAudioError, installed, ramp

from streamkws.audio import Resampler, as_float
from streamkws.errors import AudioError, ConfigError
from streamkws.sources import Microphone, recording
from streamkws.sources import microphone as module


@pytest.fixture
def portaudio(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakePortAudio]:
    yield from installed(monkeypatch)


def record(microphone: Microphone, n_blocks: int) -> npt.NDArray[np.float32]:
    blocks = iter(microphone)
    audio = np.concatenate([as_float(block) for block in islice(blocks, n_blocks)])
    blocks.close()  # type: ignore[attr-defined]
    return audio


def close_soon(microphone: Microphone, after_s: float) -> threading.Timer:
    """Close it from another thread."""
    timer = threading.Timer(after_s, microphone.close)
    timer.start()
    return timer


def test_microphone_at_16_khz(portaudio: FakePortAudio) -> None:
    with Microphone(block_s=0.02) as microphone:
        assert (microphone.name, microphone.rate, microphone.n_channels) == ("Built-in Audio", 16000, 1)
        assert microphone.duration_s is None
        assert np.array_equal(record(microphone, 10), ramp(3200)[:, 0])
        assert (microphone.dropped, microphone.overflows) == (0, 0)
    (stream,) = portaudio.streams
    assert (stream.device, stream.samplerate, stream.channels, stream.blocksize) == (0, 16000, 1, 320)
    assert stream.calls[-1] == "close"


@pytest.mark.parametrize(("device", "rate", "n_channels"), [(2, 44100, 1), (0, 48000, 2), (4, 16000, 6)])
def test_microphone_that_refuses_16_khz_mono(portaudio: FakePortAudio, device: int, rate: int, n_channels: int) -> None:
    portaudio.accepts = {(device, rate, n_channels)}
    portaudio.n_blocks = 50
    with Microphone(device, reopen=False) as microphone:
        assert (microphone.rate, microphone.n_channels) == (rate, n_channels)
        blocks = []
        with pytest.raises(AudioError, match="the device stopped"):
            for block in microphone:
                blocks.append(block)
    resampler = Resampler(rate, n_channels)
    resampled = np.concatenate([resampler.push(ramp(50 * rate // 50, n_channels)), resampler.flush()])
    assert len(resampled) == 16000
    assert np.array_equal(np.concatenate(blocks), resampled)
    assert microphone.sample_rate == 16000


def test_microphone_records_only_while_it_is_iterated(portaudio: FakePortAudio) -> None:
    portaudio.then = "stall"
    microphone = Microphone()
    assert portaudio.streams[0].calls == []
    assert np.array_equal(record(microphone, 3), ramp(960)[:, 0])
    assert portaudio.streams[0].calls == ["start", "abort", "close"]
    assert np.array_equal(record(microphone, 3), ramp(960)[:, 0]), "old audio must not come again"
    microphone.close()
    microphone.close()
    assert [stream.calls for stream in portaudio.streams] == [["start", "abort", "close"]] * 2
    assert refused(lambda: next(iter(microphone))) == ("Built-in Audio: expected an open microphone, got a closed one")


def test_audio_lost_by_the_device_is_counted(portaudio: FakePortAudio, caplog: pytest.LogCaptureFixture) -> None:
    portaudio.accepts = {(2, 44100, 1)}
    portaudio.overflows = {3, 7}
    with Microphone("USB Microphone, ALSA", reopen=False) as microphone:
        assert refused(lambda: list(microphone)) == "USB Microphone: expected audio, but the device stopped"
        assert (microphone.dropped, microphone.overflows) == (2 * 320, 2)
    assert caplog.messages == ["USB Microphone: lost 0.02 s of audio, 0.02 s so far"], (
        "the next line only after a while"
    )


def test_overflow_costs_what_the_clock_says(portaudio: FakePortAudio) -> None:
    portaudio.overflows = {4}
    portaudio.overflow_s, portaudio.clock_gap_s = 0.15, 0.1
    with Microphone(reopen=False) as microphone:
        with pytest.raises(AudioError):
            list(microphone)
        assert microphone.dropped == 1600


def test_overflow_while_the_clock_is_set(portaudio: FakePortAudio) -> None:
    portaudio.overflows = {4}
    portaudio.clock_gap_s = 3600
    with Microphone(reopen=False) as microphone:
        with pytest.raises(AudioError):
            list(microphone)
        assert 320 <= microphone.dropped < 32000


def test_a_gap_is_counted_just_before_what_follows_it(portaudio: FakePortAudio) -> None:
    portaudio.overflows = {3}
    portaudio.then = "stall"
    with Microphone() as microphone:
        assert [microphone.dropped for _ in islice(microphone, 6)] == [0, 0, 0, 320, 320, 320]
        time.sleep(0.05)


def test_nothing_is_resampled_across_a_gap(portaudio: FakePortAudio) -> None:
    portaudio.accepts = {(2, 44100, 1)}
    portaudio.overflows = {6}
    portaudio.then = "stall"
    before: list[Any] = []
    after: list[Any] = []
    with Microphone("USB Microphone, ALSA") as microphone:
        close_soon(microphone, 0.5)
        for block in microphone:
            (after if microphone.dropped else before).append(block)
    resampler = Resampler(44100)
    whole = ramp(10 * 882)[:, 0]
    expected = np.concatenate([resampler.push(whole[: 6 * 882]), resampler.flush()])
    assert np.array_equal(np.concatenate(before), expected)
    assert np.array_equal(np.concatenate(after), resampler.push(whole[6 * 882 :]))


def test_audio_that_waits_too_long_is_dropped_and_counted(portaudio: FakePortAudio) -> None:
    portaudio.n_blocks = 40
    portaudio.goes_on.clear()  # until the first block is taken
    with Microphone(block_s=0.02, queue_s=0.2, reopen=False) as microphone:
        blocks = iter(microphone)
        first = next(blocks)
        portaudio.goes_on.set()
        deadline = time.monotonic() + 10
        while portaudio.streams[0]._thread.is_alive() and time.monotonic() < deadline:  # type: ignore[union-attr]
            time.sleep(0.01)
        rest = []
        with pytest.raises(AudioError, match="the device stopped"):
            for block in blocks:
                rest.append(block)
        kept = np.concatenate([first, *rest])
        assert microphone.overflows == 1
        assert 29 * 320 <= microphone.dropped == 40 * 320 - len(kept)
        assert np.array_equal(kept[: 9 * 320], ramp(9 * 320)[:, 0])


def test_microphone_that_stops(portaudio: FakePortAudio) -> None:
    with Microphone(reopen=False) as microphone:
        blocks = iter(microphone)
        assert len([next(blocks) for _ in range(10)]) == 10
        assert refused(lambda: next(blocks)) == "Built-in Audio: expected audio, but the device stopped"


def test_microphone_that_stalls(portaudio: FakePortAudio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "STALL_S", 0.1)
    portaudio.then = "stall"
    with Microphone(reopen=False) as microphone:
        assert refused(lambda: list(microphone)) == "Built-in Audio: expected audio, got none for 0.1 s"
    assert portaudio.streams[0].calls == ["start", "abort", "close"]


def test_microphone_that_cannot_start(portaudio: FakePortAudio) -> None:
    portaudio.start_error = "Device unavailable [PaErrorCode -9985]"
    with Microphone(reopen=False) as microphone:
        assert refused(lambda: next(iter(microphone))) == (
            "Built-in Audio: cannot be started: Device unavailable [PaErrorCode -9985]"
        )


def test_microphone_that_cannot_be_opened(portaudio: FakePortAudio) -> None:
    portaudio.accepts = set()
    assert refused(Microphone) == (
        "Built-in Audio: cannot be opened, neither at 16000 Hz mono nor at its own 48000 Hz with 2 channels: "
        "Invalid sample rate [PaErrorCode -9997]"
    )


@pytest.mark.parametrize("then", ["stop", "stall"])
def test_lost_microphone_is_opened_again(
    portaudio: FakePortAudio, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    monkeypatch.setattr(recording, "STALL_S", 0.1)
    portaudio.script = [(10, then)]
    portaudio.n_blocks = 1000
    portaudio.pause_s = 0.001
    start_s = time.monotonic()
    with Microphone() as microphone:
        heard = list(islice(((block, microphone.dropped) for block in microphone), 20))
        elapsed = (time.monotonic() - start_s) * 16000
    assert np.array_equal(np.concatenate([block for block, _ in heard[:10]]), ramp(3200)[:, 0])
    assert np.array_equal(np.concatenate([block for block, _ in heard[10:]]), ramp(3200)[:, 0])
    assert {n_lost for _, n_lost in heard[:10]} == {0}
    (n_lost,) = {n_lost for _, n_lost in heard[10:]}
    pause = (0.02 + (0.1 if then == "stall" else 0)) * 16000
    assert pause - 320 <= n_lost <= elapsed
    assert (microphone.dropped, microphone.overflows) == (n_lost, 1)
    assert portaudio.streams[0].closed and portaudio.n_restarts == 1
    why = "but the device stopped" if then == "stop" else "got none for 0.1 s"
    went, back = caplog.messages
    assert went == f"Built-in Audio: expected audio, {why}; it is opened again as soon as it can be"
    assert back == f"Built-in Audio: audio comes again, after {n_lost / 16000:.1f} s without"


def test_lost_microphone_is_awaited_with_growing_pauses(
    portaudio: FakePortAudio, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_RETRY_S", 0.08)
    devices = portaudio.devices
    moved = [devices[1], devices[4], devices[2], devices[3], devices[0]]  # it is back under another number
    portaudio.found = [[], devices[1:4], devices[1:4], devices[1:4], moved]
    waits: list[float] = []
    with Microphone("array") as microphone:
        wait = microphone._closed.wait
        monkeypatch.setattr(microphone._closed, "wait", lambda pause_s: waits.append(pause_s) or wait(pause_s))
        assert len(list(islice(microphone, 15))) == 15
        assert (microphone.device.index, microphone.name) == (1, "USB Microphone Array")
    assert waits == [0.02, 0.04, 0.08, 0.08, 0.08]
    assert [stream.device for stream in portaudio.streams] == [4, 1]
    assert len(caplog.messages) == 2


def test_a_device_that_comes_and_goes_is_tried_less_and_less(
    portaudio: FakePortAudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    portaudio.n_blocks = 2
    waits: list[float] = []
    with Microphone() as microphone:
        wait = microphone._closed.wait
        monkeypatch.setattr(microphone._closed, "wait", lambda pause_s: waits.append(pause_s) or wait(pause_s))
        list(islice(microphone, 8))
    assert waits == [0.02, 0.04, 0.08]


def test_microphone_that_cannot_start_yet(portaudio: FakePortAudio, caplog: pytest.LogCaptureFixture) -> None:
    portaudio.start_error = "Device unavailable [PaErrorCode -9985]"
    with Microphone() as microphone:
        threading.Timer(0.1, lambda: setattr(portaudio, "start_error", "")).start()
        assert len(list(islice(microphone, 3))) == 3
        assert (microphone.dropped, microphone.overflows) == (0, 0), "the stream begins with the first block"
    assert caplog.messages == [
        "Built-in Audio: cannot be started: Device unavailable [PaErrorCode -9985]; "
        "it is opened again as soon as it can be",
        "Built-in Audio: audio comes",
    ]


def test_portaudio_is_not_pulled_away_from_others(portaudio: FakePortAudio) -> None:
    other = Microphone(2)
    with Microphone() as microphone:
        assert len(list(islice(microphone, 15))) == 15
        assert portaudio.n_restarts == 0
        other.close()
        assert len(list(islice(microphone, 15))) == 15
        assert portaudio.n_restarts == 1


def test_portaudio_that_does_not_start_at_once(portaudio: FakePortAudio, monkeypatch: pytest.MonkeyPatch) -> None:
    initialize = portaudio._initialize

    def fail() -> None:
        monkeypatch.setattr(portaudio, "_initialize", initialize)
        raise FakePortAudioError("Error initializing PortAudio")

    monkeypatch.setattr(portaudio, "_initialize", fail)
    with Microphone() as microphone:
        assert len(list(islice(microphone, 15))) == 15
    assert portaudio.n_restarts == 1


def test_close_ends_the_waiting_for_a_lost_device(portaudio: FakePortAudio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_S", 60)
    microphone = Microphone()
    start_s = time.monotonic()
    timer = close_soon(microphone, 0.1)
    assert len(list(microphone)) == 10
    timer.join()
    assert time.monotonic() - start_s < 5


def test_stream_that_does_not_end(portaudio: FakePortAudio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "STALL_S", 0.1)
    monkeypatch.setattr(recording, "ENDING_S", 0.05)
    unregistered: list[Any] = []
    monkeypatch.setattr("atexit.unregister", unregistered.append)
    portaudio.then = "stall"
    portaudio.hangs.clear()
    with Microphone() as microphone:
        timer = close_soon(microphone, 0.5)
        assert len(list(microphone)) == 10
        timer.join()
    assert len(portaudio.streams) == 1, "one that hangs is not opened a second time"
    assert portaudio.n_restarts == 0
    assert unregistered[0] == portaudio._exit_handler


def test_program_that_ends_without_closing(portaudio: FakePortAudio, monkeypatch: pytest.MonkeyPatch) -> None:
    portaudio.then = "stall"
    microphone = Microphone()
    blocks = iter(microphone)
    next(blocks)
    monkeypatch.setattr(sys, "is_finalizing", lambda: True)
    blocks.close()  # type: ignore[attr-defined]
    assert portaudio.streams[0].calls == ["start"], "no thread could be started to end it"


def test_silence_is_reported_once(
    portaudio: FakePortAudio, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SILENCE_S", 0.1)
    message = "Built-in Audio: delivers only silence (zeros for 0.1 s): muted, or no permission?"
    portaudio.n_blocks = 1_000_000
    portaudio.pause_s = 0.001
    portaudio.is_muted = True
    reports = []
    with Microphone(queue_s=0.02) as microphone:
        for number, _ in enumerate(microphone):
            reports.append(caplog.messages.count(message))
            portaudio.is_muted = not 50 <= number < 60
            if number == 120:
                break
    assert reports[3:6] == [0, 1, 1]
    assert reports[50] == 1
    assert reports[-1] == 2


def test_close_ends_the_iteration_of_another_thread(portaudio: FakePortAudio) -> None:
    portaudio.then = "stall"
    microphone = Microphone()
    blocks: list[Any] = []
    reader = threading.Thread(target=lambda: blocks.extend(microphone))
    reader.start()
    deadline = time.monotonic() + 10
    while len(blocks) < 10 and time.monotonic() < deadline:
        time.sleep(0.01)
    microphone.close()
    reader.join(10)
    assert not reader.is_alive()
    assert len(blocks) == 10


def test_ctrl_c_stops_the_recording(portaudio: FakePortAudio) -> None:
    portaudio.n_blocks = 1_000_000
    portaudio.pause_s = 0.001
    with pytest.raises(KeyboardInterrupt), Microphone() as microphone:
        for number, _ in enumerate(microphone):
            if number == 5:
                raise KeyboardInterrupt
    assert portaudio.streams[0].calls == ["start", "abort", "close"]
    assert portaudio.streams[0]._thread is None


@pytest.mark.parametrize(("block_s", "queue_s"), [(0, 5), (-1, 5), (1, 0.5), (0.02, 1000), (float("nan"), 5)])
def test_impossible_block_lengths(portaudio: FakePortAudio, block_s: float, queue_s: float) -> None:
    with pytest.raises(ConfigError) as error:
        Microphone(block_s=block_s, queue_s=queue_s)
    assert str(error.value) == (
        f"expected 0.001 <= block_s <= queue_s <= 600, got block_s={block_s}, queue_s={queue_s}"
    )
