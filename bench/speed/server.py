"""The Wyoming server under load: many clients that stream in real time to a server on one core.

    python bench/speed/server.py                50 clients for 60 s, print the table
    python bench/speed/server.py --hostile 4    beside four who send damaged, cut and gigantic messages all along
    python bench/speed/server.py --write        also write the table in bench/README.md

`streamkws serve` runs in a process of its own, pinned to one core; the clients are in this process, on the other cores.
Each client streams the demo recording over and over, from a place and at a time of its own, a chunk whenever a
microphone would have it. Measured is the time from sending the chunk whose last sample completes a detection until the
detection has arrived, and once a second, for any chunk, until a ping sent right behind it is answered: a client's
messages are answered in their order, so that its chunk has been heard by then. An answer is late when the next chunk is
already due. The clients must get exactly the detections that `streamkws.detect` gives for the same audio.
"""

import argparse
import asyncio
import io
import json
import os
import random
import re
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
from wyoming.audio import AudioChunk
from wyoming.event import write_event
from wyoming.ping import Ping

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import streamkws
from bench.report import markdown, write_section, written_by
from streamkws.audio import FULL_SCALE, SAMPLE_RATE, read_audio

DEMO = Path(streamkws.__file__).parent / "demo.flac"
PING_EVERY_S = 1.0
START_S = 2.0
"""The clients begin spread over as many seconds, so that their chunks come at different times, too."""
LAST_ANSWER_S = 10.0


def wire(event) -> bytes:
    """The bytes of an event as wyoming's own client sends them."""
    out = io.BytesIO()
    write_event(event.event(), out)
    return out.getvalue()


def audio_of(client: int, n_clients: int, n_samples: int) -> np.ndarray:
    """What a client says: the demo over and over from a place of its own, (n_samples,) int16."""
    demo = np.rint(read_audio(DEMO) * FULL_SCALE).astype(np.int16)
    return np.resize(np.roll(demo, -(client * len(demo) // n_clients)), n_samples)


def expected(samples, model, chunk_samples: int) -> list[tuple[str, int, int]]:
    """Keyword, time in ms and completing chunk of every detection."""
    detector = streamkws.Detector(model)
    return [
        (hit.keyword, round(1000 * hit.peak), index)
        for index, start in enumerate(range(0, len(samples), chunk_samples))
        for hit in detector.push(samples[start : start + chunk_samples])
    ]


class Client(asyncio.Protocol):
    """One client; notes when each chunk went and when each answer came, in seconds of time.perf_counter."""

    def __init__(self, samples, chunk_samples: int) -> None:
        self.audio = samples.tobytes()
        self.chunk_samples = chunk_samples
        self.n_chunks = len(samples) // chunk_samples
        self.sent_s: list[float] = []
        self.lags_s: list[float] = []  # of this process behind the clock
        self.detections: list[tuple[str, int, float]] = []
        self.answers: dict[int, float] = {}
        self.error = None
        self.buffer = b""
        self.transport = None

    def connection_made(self, transport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        now_s = time.perf_counter()
        self.buffer += data
        while (end := self.buffer.find(b"\n")) >= 0:
            header = json.loads(self.buffer[:end])
            stop = end + 1 + header.get("data_length", 0)
            if len(self.buffer) < stop:
                break
            data = json.loads(self.buffer[end + 1 : stop] or "{}")
            self.buffer = self.buffer[stop:]
            if header["type"] == "detection":
                self.detections.append((data["name"], data["timestamp"], now_s))
            elif header["type"] == "pong":
                self.answers[int(data["text"])] = now_s
            else:
                self.error = data

    async def stream(self, start_s: float, ping_offset: int) -> None:
        """Send each chunk when its last sample has been spoken, and now and then a ping behind it."""
        chunk_s = self.chunk_samples / SAMPLE_RATE
        n_bytes = 2 * self.chunk_samples
        ping_every = max(1, round(PING_EVERY_S / chunk_s))
        for index in range(self.n_chunks):
            due_s = start_s + (index + 1) * chunk_s
            await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
            audio = self.audio[index * n_bytes : (index + 1) * n_bytes]
            timestamp = round(1000 * index * chunk_s) if (1000 * self.chunk_samples) % SAMPLE_RATE == 0 else None
            message = wire(AudioChunk(SAMPLE_RATE, 2, 1, audio, timestamp=timestamp))
            if (index + ping_offset) % ping_every == 0 or index == self.n_chunks - 1:
                message += wire(Ping(str(index)))
            self.sent_s.append(time.perf_counter())
            self.lags_s.append(self.sent_s[-1] - due_s)
            self.transport.write(message)
        end_s = time.perf_counter() + LAST_ANSWER_S
        while self.n_chunks - 1 not in self.answers and time.perf_counter() < end_s:
            await asyncio.sleep(0.05)
        self.transport.close()


HOSTILE = (
    b"GET / HTTP/1.1\r\n\r\n",
    b'{"type": "audio-chunk", "payload_length": 1000000000000}\n',
    b'{"type": "audio-chunk", "data_length": 50, "payload_',
    b'{"type": "' + b"x" * 200_000,
    b"[" * 60_000 + b"\n",
    wire(AudioChunk(SAMPLE_RATE, 2, 1, b"odd")),
    wire(AudioChunk(SAMPLE_RATE, 2, 1, bytes(1 << 20))) * 4,  # two minutes of audio at once
    wire(Ping("x" * 60_000)) * 100,  # and never read the answers
)


async def be_hostile(port: int, seed: int, counts: list[int]) -> None:
    """Come again and again with something that no server likes."""
    rng = random.Random(seed)
    while True:
        with suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
            counts[0] += 1
            writer.write(rng.choice(HOSTILE))
            await asyncio.sleep(rng.uniform(0.05, 0.5))
            writer.transport.abort()


class ServerProcess:
    """`streamkws serve`, pinned to one core."""

    def __init__(self, model: str, n_clients: int, core: int | None) -> None:
        command = [sys.executable, "-m", "streamkws", "serve", "--uri", "tcp://127.0.0.1:0", "--model", model]
        pin = None if core is None else lambda: os.sched_setaffinity(0, {core})
        self.process = subprocess.Popen(
            [*command, "--clients", str(n_clients)], stderr=subprocess.PIPE, text=True, preexec_fn=pin
        )
        self.port = 0
        while not self.port:
            line = self.process.stderr.readline()
            if not line:
                sys.exit("server.py: the server did not start")
            found = re.search(r"listens on tcp://127.0.0.1:(\d+)", line)
            self.port = int(found[1]) if found else 0

    def cpu_s(self) -> float:
        """CPU seconds so far, of all threads."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def waited_s(self) -> float:
        """Seconds so far that its threads were ready to run but the core was another's."""
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[1]) for task in tasks) / 1e9

    def resident_bytes(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * int(re.search(r"VmRSS:\s+(\d+)", status)[1])

    def stop(self) -> list[str]:
        """End it and return what it said."""
        self.process.terminate()
        return self.process.communicate(timeout=30)[1].splitlines()


async def run(server: ServerProcess, clients: list[Client], chunk_samples: int, n_hostile: int) -> dict:
    """Stream, and return CPU share, memory and the number of hostile connections."""
    loop = asyncio.get_running_loop()
    first = Client(np.zeros(max(1, SAMPLE_RATE // chunk_samples) * chunk_samples, np.int16), chunk_samples)
    await loop.create_connection(lambda: first, "127.0.0.1", server.port)
    await first.stream(time.perf_counter(), 0)  # what the first client costs once, the others do not
    await asyncio.sleep(0.2)
    base_bytes = server.resident_bytes()
    for client in clients:
        await loop.create_connection(lambda client=client: client, "127.0.0.1", server.port)
    counts = [0]
    hostile = [asyncio.create_task(be_hostile(server.port, seed, counts)) for seed in range(n_hostile)]
    start_s = time.perf_counter()
    streams = [
        asyncio.create_task(client.stream(start_s + index / len(clients) * START_S, index))
        for index, client in enumerate(clients)
    ]
    await asyncio.sleep(START_S + 0.5)
    cpu_s, waited_s, wall_s = server.cpu_s(), server.waited_s(), time.perf_counter()
    await asyncio.sleep(clients[0].n_chunks * chunk_samples / SAMPLE_RATE - START_S - 1.0)
    lasted_s = time.perf_counter() - wall_s
    share, waited = (server.cpu_s() - cpu_s) / lasted_s, (server.waited_s() - waited_s) / lasted_s
    resident = server.resident_bytes()
    await asyncio.gather(*streams)
    for task in hostile:
        task.cancel()
    return {
        "cpu_share": share,
        "waited_share": waited,
        "base_bytes": base_bytes,
        "bytes_per_client": (resident - base_bytes) / len(clients),
        "n_hostile_connections": counts[0],
    }


def percentiles(name: str, seconds: list[float]) -> dict:
    p50, p99, most = (1000 * value for value in np.quantile(seconds, [0.5, 0.99, 1]))
    return {f"{name}_p50_ms": p50, f"{name}_p99_ms": p99, f"{name}_max_ms": most}


def evaluate(clients: list[Client], truths: list, chunk_s: float) -> dict:
    """What the clients saw."""
    errors = [client.error for client in clients if client.error is not None]
    if errors:
        sys.exit(f"server.py: {len(errors)} clients got an error, such as {errors[0]}")
    told = [[(name, ms) for name, ms, _ in client.detections] for client in clients]
    n_equal = sum(one == [(name, ms) for name, ms, _ in truth] for one, truth in zip(told, truths, strict=True))
    detections = [
        came_s - client.sent_s[index]
        for client, truth in zip(clients, truths, strict=True)
        for (_, _, came_s), (_, _, index) in zip(client.detections, truth, strict=False)
    ]
    answers = [came_s - client.sent_s[index] for client in clients for index, came_s in client.answers.items()]
    n_lost = sum(client.n_chunks - 1 not in client.answers for client in clients)
    return {
        **percentiles("detection", detections),
        **percentiles("answer", answers),
        "n_detections": len(detections),
        "n_answers": len(answers),
        "n_late": sum(seconds > chunk_s for seconds in detections + answers) + n_lost,
        "n_clients_equal": n_equal,
        "sender_lag_p99_ms": float(np.quantile([lag for client in clients for lag in client.lags_s], 0.99) * 1000),
    }


def table(f: dict) -> str:
    """The figures as a Markdown table."""
    beside = f", beside {f['n_hostile_connections']} hostile connections" if f["n_hostile_connections"] else ""
    delays = {
        name: ", ".join(f"{f[f'{name}_{what}_ms']:.1f}" for what in ("p50", "p99", "max")) + " ms"
        for name in ("detection", "answer")
    }
    memory = f"{f['base_bytes'] / 2**20:.0f} MiB, {f['bytes_per_client'] / 1024:.0f} KiB"
    equal = f"{f['n_clients_equal']} of {f['n_clients']} ({f['n_detections']} detections)"
    rows = [
        ["share of one core", f"{f['cpu_share']:.1%}"],
        ["from the last sample to the detection message: median, p99, most", delays["detection"]],
        ["from any chunk to the answer behind it: median, p99, most", delays["answer"]],
        ["later than the next chunk", f"{f['n_late']} of {f['n_detections'] + f['n_answers']:,}"],
        ["memory of the server, and of each client beside it", memory],
        ["clients told exactly what `detect` hears", equal],
    ]
    head = f"{f['n_clients']} clients, {f['seconds']:g} s, {f['chunk_ms']:g} ms chunks{beside}"
    return markdown([head, ""], rows)


def main() -> None:
    """Measure, print, and write where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=50, metavar="N")
    parser.add_argument("--seconds", type=float, default=60.0, metavar="S")
    parser.add_argument("--chunk", type=int, default=1024, metavar="N", help="samples of a chunk (default: 1024)")
    parser.add_argument("--hostile", type=int, default=0, metavar="N", help="hostile clients beside (default: 0)")
    parser.add_argument("--model", default="wakewords", help="name or path (default: wakewords)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    parser.add_argument("--write", action="store_true", help="write the table in bench/README.md")
    arguments = parser.parse_args()
    if arguments.clients < 1 or arguments.chunk < 1 or arguments.seconds < 2 * START_S:
        parser.error("expected at least 1 client, 1 sample a chunk and 4 seconds")
    cores = os.sched_getaffinity(0)
    core = max(cores) if len(cores) > 1 else None
    model = streamkws.load_model(arguments.model)
    n_samples = round(arguments.seconds * SAMPLE_RATE) // arguments.chunk * arguments.chunk
    audio = [audio_of(client, arguments.clients, n_samples) for client in range(arguments.clients)]
    truths = [expected(samples, model, arguments.chunk) for samples in audio]
    server = ServerProcess(arguments.model, arguments.clients + 1 + 2 * arguments.hostile, core)
    try:
        if core is not None:
            os.sched_setaffinity(0, cores - {core})
        clients = [Client(samples, arguments.chunk) for samples in audio]
        load = asyncio.run(run(server, clients, arguments.chunk, arguments.hostile))
    finally:
        server.stop()
    chunk_ms = 1000 * arguments.chunk / SAMPLE_RATE
    figures = {"n_clients": arguments.clients, "seconds": arguments.seconds, "chunk_ms": chunk_ms, **load}
    figures |= evaluate(clients, truths, chunk_ms / 1000)
    figures["n_cores_for_clients"] = len(cores) - (core is not None)
    if arguments.json:
        print(json.dumps(figures))
    else:
        print(table(figures))
        print(
            f"\nwhat others on this machine added: the server was ready but waited for its core for "
            f"{figures['waited_share']:.1%} of the time;\nthe clients' process sent 99 % of the chunks within "
            f"{figures['sender_lag_p99_ms']:.1f} ms of their time"
        )
    if arguments.write:
        write_section("server", f"{table(figures)}\n\n{written_by()}")


if __name__ == "__main__":
    main()
