"""wyoming-satellite as a client of the server."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tones import pcm, tones, tones_model
from wyoming.client import AsyncClient
from wyoming.event import Event
from wyoming_talk import (
    ANSWER_S,
    HIGH,
    LOW,
    serving,
)

from streamkws import Model


@pytest.fixture(scope="module")
def model() -> Model:
    return tones_model()


SATELLITE = os.environ.get("WYOMING_SATELLITE_PYTHON")
"""A Python that has wyoming-satellite, which cannot be installed beside the wyoming that the server needs."""


@pytest.mark.skipif(not SATELLITE, reason="WYOMING_SATELLITE_PYTHON names no Python that has wyoming-satellite")
class TestSatellite:
    """wyoming-satellite, a client that nobody here wrote; its microphone is a script that plays tones in real time."""

    @pytest.fixture
    def satellite(self, tmp_path: Path) -> Iterator[Callable[..., str]]:
        """Start a satellite of a server, and return its own URI."""
        (tmp_path / "tones.raw").write_bytes(pcm(tones(LOW, HIGH, LOW, HIGH, LOW, HIGH)))
        (tmp_path / "mic.py").write_text(
            "import sys, time\n"
            "data = open(sys.argv[1], 'rb').read()\n"
            "for start in range(0, len(data), 2048):\n"
            "    sys.stdout.buffer.write(data[start : start + 2048])\n"
            "    sys.stdout.buffer.flush()\n"
            "    time.sleep(0.064)\n"
        )
        processes = []

        def start(server_uri: str, *wake_words: str) -> str:
            with socket.create_server(("127.0.0.1", 0)) as free:
                uri = f"tcp://127.0.0.1:{free.getsockname()[1]}"
            mic = f"{sys.executable} {tmp_path}/mic.py {tmp_path}/tones.raw"
            command = [SATELLITE, "-m", "wyoming_satellite", "--no-zeroconf", "--name", "x", "--uri", uri]
            command += ["--mic-command", mic, "--snd-command", "cat", "--wake-uri", server_uri]
            for word in wake_words:
                command += ["--wake-word-name", word]
            with open(tmp_path / "satellite.log", "wb") as log:
                processes.append(subprocess.Popen(command, stdout=log, stderr=log))
            return uri

        yield start
        for process in processes:
            process.terminate()
            process.wait()

    def test_hears_its_wake_word_again_and_again(self, model: Model, satellite: Any) -> None:
        """As home, run the satellite, and end each voice command a second after its wake word has begun it."""

        async def commands(home: AsyncClient) -> int:
            await home.write_event(Event("run-satellite"))
            n_commands = 0
            while n_commands < 2:
                event = await home.read_event()
                assert event is not None
                if event.type == "run-pipeline":
                    n_commands += 1
                    await asyncio.sleep(1.0)
                    await home.write_event(Event("transcript", {"text": "x"}))
            return n_commands

        async def scenario() -> int:
            async with serving(model) as running:
                home = AsyncClient.from_uri(satellite(running.uri, HIGH))
                for _ in range(200):
                    with suppress(ConnectionError):
                        await home.connect()
                        break
                    await asyncio.sleep(0.1)
                try:
                    return await asyncio.wait_for(commands(home), ANSWER_S)
                finally:
                    await home.disconnect()

        assert asyncio.run(scenario()) == 2
