"""Long lives: many hours through one detector, and many clients that die in every way.

    python bench/robustness/soak.py                        100 hours, and 10,000 clients
    python bench/robustness/soak.py --hours 1 --clients 200
    python bench/robustness/soak.py --write                also write the table in bench/README.md

The detector hears the demo between noise over and over, in blocks of random length. It must hear the same in every
round, its clock must be exact, and its process must not grow. Clients of the server connect and leave, send half a
message, nonsense, a header that is too long, audio and then a reset, or a whole stream; all of the last must hear what
the demo says, and at the end no client and no connection may be left.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import socket
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.report import ROOT, markdown, publish
from streamkws import Detector, detect, load_model
from streamkws.audio import as_int16, read_audio
from streamkws.server import Server, ServerConfig

RATE = 16_000
AT_ONCE = 40
DEATHS = ("leaves", "half a message", "nonsense", "long header", "reset in audio", "whole stream")


def resident_kb() -> int:
    """Memory of this process that is resident, in kB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4


def long_life(hours: float) -> dict[str, Any]:
    """So many hours through one detector. Raises AssertionError where a round differs or the clock is wrong."""
    rng = np.random.default_rng(0)
    noise = (rng.standard_normal(RATE * 90) * 300).astype(np.int16)
    audio = np.concatenate([noise, as_int16(read_audio(ROOT / "streamkws" / "demo.flac")), noise])
    audio = audio[: audio.size // 320 * 320]  # whole network steps, so that every round is cut into the same frames
    detector = Detector(load_model("wakewords"))
    n_rounds = max(2, round(hours * 3600 * RATE / audio.size))
    first: list[tuple[str, float, float]] = []
    after_warm_up = 0
    for number in range(n_rounds):
        hits, place = [], 0
        while place < audio.size:
            block = audio[place : place + int(rng.choice((1, 160, 320, 512, 1600, 4000, 16_000, 40_000)))]
            hits += detector.push(block)
            place += block.size
        origin = number * audio.size / RATE
        heard = [(hit.keyword, hit.score, round(hit.peak - origin, 4)) for hit in hits]
        if number == 1:
            first, after_warm_up = heard, resident_kb()
        assert number < 1 or heard == first, f"round {number}: heard {heard}, in the second round {first}"
        assert detector.heard_s == (number + 1) * audio.size / RATE, (
            f"round {number}: the clock says {detector.heard_s}"
        )
    assert np.isfinite(detector.levels()).all()
    total_h = n_rounds * audio.size / RATE / 3600
    return {"hours": total_h, "detections": len(first) * n_rounds, "grown_kb": resident_kb() - after_warm_up}


def message(kind: str, payload: bytes = b"", **data: Any) -> bytes:
    """A Wyoming message."""
    return json.dumps({"type": kind, "data": data, "payload_length": len(payload)}).encode() + b"\n" + payload


async def die(port: int, death: str, audio: bytes) -> list[str]:
    """Be a client that ends in some way. Returns what a whole stream was told to have heard."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    chunk = {"rate": RATE, "width": 2, "channels": 1}
    heard: list[str] = []
    try:
        if death == "half a message":
            writer.write(message("audio-chunk", audio[:20_000], **chunk)[:9000])
        elif death == "nonsense":
            writer.write(b"\xff\x00{]\n" * 50)
        elif death == "long header":
            writer.write(b"{" + b" " * (1 << 18))
        elif death == "reset in audio":
            writer.write(message("audio-chunk", audio[:200_000], **chunk))
            await writer.drain()
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        elif death == "whole stream":
            writer.write(message("audio-chunk", audio, **chunk) + message("audio-stop") + message("ping", text="done"))
            while line := await asyncio.wait_for(reader.readline(), 60):
                event = json.loads(line)
                data = json.loads(await reader.readexactly(event["data_length"])) if event.get("data_length") else {}
                if event["type"] == "detection":
                    heard.append(data["name"])
                elif event["type"] == "pong":
                    break
        await writer.drain()
    except (OSError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()
    return heard


async def crowd(n_clients: int) -> dict[str, Any]:
    """So many clients, AT_ONCE at a time. Raises AssertionError where one hears wrong or one is left."""
    audio = as_int16(read_audio(ROOT / "streamkws" / "demo.flac"))
    expected = [hit.keyword for hit in detect(audio, load_model("wakewords"))]
    rng, counts, grown = random.Random(0), dict.fromkeys(DEATHS, 0), 0
    async with Server(load_model("wakewords"), ServerConfig("tcp://127.0.0.1:0", max_clients=2 * AT_ONCE)) as server:
        port = int(server.uri.rpartition(":")[2])
        for start in range(0, n_clients, AT_ONCE):
            deaths = rng.choices(DEATHS, (4, 2, 2, 1, 3, 1), k=min(AT_ONCE, n_clients - start))
            told = await asyncio.gather(*(die(port, death, audio.tobytes()) for death in deaths))
            for death, heard in zip(deaths, told, strict=True):
                counts[death] += 1
                assert death != "whole stream" or heard == expected, f"heard {heard}, expected {expected}"
            if start // AT_ONCE == 9:
                grown = resident_kb()
        for _ in range(600):
            if not server.n_clients and not server._tasks:
                break
            await asyncio.sleep(0.1)
        assert not server.n_clients and not server._tasks, f"{server.n_clients} clients are left"
        grown = resident_kb() - grown if grown else 0
        assert await die(port, "whole stream", audio.tobytes()) == expected
    return {"clients": sum(counts.values()), "by_death": counts, "grown_kb": grown}


def main() -> None:
    """Run, print, and write where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=100.0, metavar="N", help="through one detector (100)")
    parser.add_argument("--clients", type=int, default=10_000, metavar="N", help="of the server (10,000)")
    parser.add_argument("--json", metavar="FILE", help="write the figures; - is standard output, instead of the table")
    parser.add_argument("--write", action="store_true", help="write the table into bench/README.md")
    arguments = parser.parse_args()
    life, clients = long_life(arguments.hours), asyncio.run(crowd(arguments.clients))
    rows = [
        [f"{life['hours']:.0f} h through one detector", f"{life['detections']:,} detections, all as expected",
         f"{life['grown_kb']:+,} kB"],
        [f"{clients['clients']:,} clients of one server", "none left; every whole stream heard as expected",
         f"{clients['grown_kb']:+,} kB"],
    ]  # fmt: skip
    text = markdown(["tried", "found", "memory"], rows, 2) + "\n\n"
    publish(arguments, "soak", text, {"life": life, "clients": clients})


if __name__ == "__main__":
    main()
