"""streamkws serve, in a process of its own."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any
from urllib.request import urlopen

import pytest
from tones import KEYWORDS, RATE, SLOW_START, pcm, tones, tones_model
from wyoming.audio import AudioStart, AudioStop
from wyoming.client import AsyncClient
from wyoming.event import read_event, write_event
from wyoming.info import Describe, Info
from wyoming.wake import Detection, NotDetected
from wyoming_talk import (
    ANSWER_S,
    CHUNK,
    FREE_PORT,
    HIGH,
    LOW,
    answers,
    chunks,
    message,
    raw_exchange,
)

from streamkws import Model, cli, save_model
from streamkws.server import Server, ServerConfig


@pytest.fixture(scope="module")
def model() -> Model:
    return tones_model()


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory, model: Model) -> str:
    Server(model)  # compiles the kernels, if nobody has yet
    return str(save_model(model, tmp_path_factory.mktemp("model") / "tones.f32.safetensors"))


class TestCommand:
    @pytest.fixture
    def start(self, model_path: str) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
        """Start the command in a process of its own, with pipes."""
        processes = []

        def popen(*arguments: str) -> subprocess.Popen[bytes]:
            command = [sys.executable, "-m", "streamkws", "serve", "--model", model_path, *arguments]
            pipe = subprocess.PIPE
            processes.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe))
            return processes[-1]

        yield popen
        for process in processes:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                pipe.close()

    def uri_of(self, process: subprocess.Popen[bytes]) -> str:
        """Where a started server says that it listens."""
        assert process.stderr is not None
        line = process.stderr.readline().decode()
        if line.strip() == SLOW_START:
            line = process.stderr.readline().decode()
        found = re.fullmatch(r"streamkws: tones.f32 listens on (\S+) for low tone, high tone; Ctrl-C ends\n", line)
        assert found is not None, line
        return found[1]

    @pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
    def test_signals_end_it(self, start: Any, number: int, code: int) -> None:
        process = start("--uri", FREE_PORT)
        uri = self.uri_of(process)

        async def scenario() -> None:
            async with AsyncClient.from_uri(uri) as client:
                assert await answers(client) == []
                process.send_signal(number)
                assert await client.read_event() is None

        asyncio.run(scenario())
        out, err = process.communicate(timeout=ANSWER_S)
        assert (process.returncode, out, err) == (code, b"", b"")

    def test_verbose(self, start: Any) -> None:
        process = start("--uri", FREE_PORT, "--verbose", "--keyword", LOW, "--keyword", HIGH, "--threshold", "0.6")
        uri = self.uri_of(process)
        asyncio.run(raw_exchange(uri, message("audio-chunk", pcm(tones(LOW)), **CHUNK) + b"?\n"))
        process.terminate()
        lines = process.communicate(timeout=ANSWER_S)[1].decode().splitlines()
        name = r"streamkws: client 1 \(127\.0\.0\.1:\d+\): "
        wanted = ["connected", r"heard low tone at 1\d\d\d ms, score 0\.\d\d", "expected the first line to be .*"]
        assert len(lines) == len(wanted)
        assert all(re.fullmatch(name + text, line) for text, line in zip(wanted, lines, strict=True)), lines

    def test_json_lines(self, start: Any) -> None:
        """Every line of the log is an object, those of the start, too."""
        process = start("--uri", FREE_PORT, "--metrics", "127.0.0.1:0", "--verbose", "--log-format", "json")
        lines = []
        while not lines or lines[-1]["event"] != "metrics":
            lines.append(json.loads(process.stderr.readline()))
        listening, watched = lines[-2:]
        assert (listening["event"], listening["model"]) == ("listening", "tones.f32")
        assert listening["keywords"] == list(KEYWORDS)
        asyncio.run(raw_exchange(listening["uri"], message("audio-chunk", pcm(tones(LOW)), **CHUNK) + b"?\n"))
        with urlopen(f"{watched['uri']}/health") as answer:
            assert json.load(answer)["status"] == "ok"
        process.terminate()
        lines = [json.loads(line) for line in process.communicate(timeout=ANSWER_S)[1].splitlines()]
        assert [(line["level"], line["event"]) for line in lines] == [
            ("info", "connected"),
            ("info", "detection"),
            ("warning", "refused"),
        ]
        assert all(re.fullmatch(r"client 1 \(127\.0\.0\.1:\d+\)", line["client"]) for line in lines)
        assert all(datetime.fromisoformat(line["time"]).tzinfo is not None for line in lines)
        _, detection, refused = lines
        assert (detection["keyword"], refused["reason"]) == (LOW, "bad-message")
        assert 0.6 < detection["score"] < 1 and 1000 < detection["timestamp_ms"] < 2000 and detection["level_db"] < 0
        assert detection["message"].startswith(f"{detection['client']}: heard low tone at ")

    def test_metrics_are_announced(self, start: Any) -> None:
        process = start("--uri", FREE_PORT, "--metrics", "127.0.0.1:0")
        self.uri_of(process)
        line = process.stderr.readline().decode()
        assert re.fullmatch(r"streamkws: metrics at http://(\S+)/metrics, health at http://\1/health\n", line)

    def test_stdio(self, start: Any) -> None:
        process = start("--uri", "stdio://")
        assert self.uri_of(process) == "stdio://"
        write_event(Describe().event(), process.stdin)
        info = Info.from_event(read_event(process.stdout))
        assert [ww.name for ww in info.wake[0].models] == list(KEYWORDS)
        for chunk in chunks(pcm(tones(HIGH))):
            write_event(chunk.event(), process.stdin)
        assert Detection.from_event(read_event(process.stdout)).name == HIGH
        write_event(AudioStart(RATE, 2, 1).event(), process.stdin)
        write_event(AudioStop().event(), process.stdin)
        assert NotDetected.is_type(read_event(process.stdout).type)
        process.stdin.close()
        assert process.wait(ANSWER_S) == 0
        assert (process.stdout.read(), process.stderr.read()) == (b"", b"")

    def test_stdio_error(self, start: Any) -> None:
        process = start("--uri", "stdio://")
        self.uri_of(process)
        out, err = process.communicate(b"?\n", timeout=ANSWER_S)
        assert process.returncode == 0
        assert b'"code": "bad-message"' in out
        assert err.startswith(b"streamkws: client 1: expected the first line")

    def test_stdio_without_pipes(self, model_path: str) -> None:
        command = [sys.executable, "-m", "streamkws", "serve", "--model", model_path, "--uri", "stdio://"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        lines = [line for line in done.stderr.decode().splitlines() if line != SLOW_START]
        reason = "streamkws: cannot listen on stdio://: expected pipes as standard input and output"
        assert (done.returncode, done.stdout, lines) == (1, b"", [reason])

    @pytest.mark.parametrize(
        ("arguments", "code", "message"),
        [
            (["--uri", "http://x"], 2, "expected tcp://HOST:PORT, unix:///PATH or stdio://, got 'http://x'"),
            (["--clients", "0"], 2, "expected max_clients of at least 1, got 0"),
            (["--idle", "-1"], 2, "expected idle_s of at least 0, got -1.0"),
            (["--metrics", "9400"], 2, "expected HOST:PORT for metrics, got '9400'"),
            (["--near", "0"], 2, "expected a score above 0 and at most 1 for 'near', got 0"),
            (["--threads", "0"], 2, "expected n_threads of at least 1, got 0"),
            (["--keyword", "x"], 2, "unknown keyword 'x'; the model knows: low tone, high tone"),
            (["--threshold", "x=0.5"], 2, "unknown keyword 'x'; the model knows: low tone, high tone"),
            (
                ["--zeroconf"],
                2,
                "expected a tcp:// address that others can reach for zeroconf, got tcp://127.0.0.1:10400",
            ),
        ],
    )
    def test_wrong_usage(
        self, model_path: str, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
    ) -> None:
        assert cli.main(["serve", "--model", model_path, *arguments]) == code
        captured = capsys.readouterr()
        assert (captured.out, captured.err) == ("", f"streamkws: {message}\n")

    def test_port_in_use(self, model_path: str, capsys: pytest.CaptureFixture[str]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            uri = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
            assert cli.main(["serve", "--model", model_path, "--uri", uri]) == 1
        captured = capsys.readouterr()
        assert (captured.out, captured.err) == ("", f"streamkws: cannot listen on {uri}: Address already in use\n")
        assert not logging.getLogger("streamkws").handlers

    def test_metrics_port_in_use(self, model_path: str, capsys: pytest.CaptureFixture[str]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            where = f"127.0.0.1:{taken.getsockname()[1]}"
            assert cli.main(["serve", "--model", model_path, "--uri", FREE_PORT, "--metrics", where]) == 1
        error = f"streamkws: cannot listen on {where} for metrics: Address already in use\n"
        assert capsys.readouterr() == ("", error)

    def test_prometheus_client_is_missing(
        self, model_path: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "prometheus_client", None)
        assert cli.main(["serve", "--model", model_path, "--uri", FREE_PORT, "--metrics", "127.0.0.1:0"]) == 1
        error = 'streamkws: metrics need prometheus-client: pip install "streamkws[metrics]"\n'
        assert capsys.readouterr() == ("", error)

    def test_defaults_are_those_of_the_library(self) -> None:
        arguments, config = cli.parser().parse_args(["serve"]), ServerConfig()
        told = (arguments.uri, arguments.clients, arguments.idle, arguments.threads, arguments.zeroconf)
        assert told == (config.uri, config.max_clients, config.idle_s, config.n_threads, config.zeroconf)
        assert (arguments.near, arguments.metrics) == (config.near, config.metrics)

    def test_wyoming_is_missing(
        self, model_path: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delitem(sys.modules, "streamkws.server")
        monkeypatch.setitem(sys.modules, "wyoming", None)
        assert cli.main(["serve", "--model", model_path]) == 1
        error = 'streamkws: the server needs wyoming: pip install "streamkws[server]"\n'
        assert capsys.readouterr() == ("", error)
