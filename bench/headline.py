"""Write the headline table of the main README from the tables in bench/README.md.

    python bench/headline.py            print it
    python bench/headline.py --write    also write it between <!-- headline --> and <!-- /headline --> in README.md

Nothing is measured or copied by hand: run this after a bench has written its table. What the table says of licences
stands in this file.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.report import README, ROOT, markdown, read_section, replace_section

TARGET = ROOT / "README.md"
OWN = ("w4a8", "w8a8", "f32")
BLOCK_MS = "10"
"""The blocks in which streamkws is timed; the others have a length of their own."""
OWN_LICENCE = "Apache-2.0, models too; no key"
HEADER = [
    "engine",
    "licence",
    "keywords",
    "miss, %: clean",
    "10 dB",
    "false accepts per hour and keyword",
    "us per 10 ms",
    "memory, MB",
    "model",
]


class Peer(NamedTuple):
    """An engine as the tables call it, the setting it is shown at, and its licence.

    The setting is the default of its package or documentation; PocketSphinx wants one for each phrase.
    """

    name: str
    setting: str
    licence: str


PEERS = (
    Peer("Porcupine 1.9.5, C library", "sensitivity 0.5", "Apache-2.0, closed library; from 2.0 on a key"),
    Peer("openWakeWord 0.5.1", "threshold 0.5", "Apache-2.0; models CC BY-NC-SA 4.0"),
    Peer("pymicro-wakeword 2.5.0", "threshold 0.9", "Apache-2.0"),
    Peer("PocketSphinx 5.1.1", "threshold 1e-20", "BSD"),
)
Row = dict[str, str]


def tables(section: str) -> list[Row]:
    """The rows of the first table of a section of bench/README.md, by the names of the columns.

    Of columns that share a name, the first counts.
    """
    lines = [line for line in read_section(README, section).splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]
    if len(cells) < 3:
        sys.exit(f"headline.py: expected a table in the section {section} of {README}, found none")
    return [dict(reversed([*zip(cells[0], row, strict=True)])) for row in cells[2:] if len(row) == len(cells[0])]


def only(rows: Sequence[Row], section: str, **wanted: str) -> Row:
    """The one row with these cells; ends the program if there is not exactly one."""
    found = [row for row in rows if all(row.get(column) == cell for column, cell in wanted.items())]
    if len(found) != 1:
        sys.exit(f"headline.py: expected one row with {wanted} in the section {section} of {README}, got {len(found)}")
    return found[0]


def size(cell: str) -> str:
    """A cell such as "124,316 B" in kilobytes or megabytes."""
    n_bytes = int(cell.removesuffix(" B").replace(",", ""))
    return f"{n_bytes / 1e6:.1f} MB" if n_bytes >= 1e6 else f"{n_bytes / 1e3:.0f} kB"


def own_rows() -> list[list[str]]:
    """A row for each width of streamkws: misses and false accepts of the held-out model, at its own thresholds."""
    accuracy, latency, sizes = tables("accuracy"), tables("latency"), tables("sizes")
    means = accuracy[next(i for i, row in enumerate(accuracy) if row["keyword"] == "mean") :]
    rows = []
    for bits in OWN:
        score = only(means, "accuracy", model=f"wakewords-held-out.{bits}")
        speed = only(latency, "latency", engine=f"wakewords.{bits}", **{"block, ms": BLOCK_MS})
        rows.append(
            [
                f"**streamkws {bits}**",
                OWN_LICENCE,
                speed["keywords"],
                score["own miss clean"].removesuffix(" %"),
                score["own miss 10 dB"].removesuffix(" %"),
                score["own FA/h clean"],
                speed["us per 10 ms"],
                speed["resident, MB"],
                size(only(sizes, "sizes", model=f"wakewords.{bits}")["file"]),
            ]
        )
    return rows


def peer_rows() -> list[list[str]]:
    """A row for each other engine."""
    accuracy, latency, sizes = tables("accuracy-peers"), tables("latency"), tables("peer-sizes")
    for before, row in pairwise(accuracy):
        row["engine"] = row["engine"] or before["engine"]
    rows = []
    for name, setting, licence in PEERS:
        score = only(accuracy, "accuracy-peers", engine=name, setting=setting)
        speed = only(latency, "latency", engine=name)
        figures = [*score["mean"].split(" / "), score["FA/h per keyword"], speed["us per 10 ms"], speed["resident, MB"]]
        model = size(only(sizes, "peer-sizes", engine=name)["size"])
        rows.append([name.split(",")[0], licence, speed["keywords"], *figures, model])
    return rows


def table() -> str:
    """The headline table, and a line of explanation."""
    settings = ", ".join(f"{peer.name.split()[0]} at {peer.setting}" for peer in PEERS)
    hours = re.search(r"([\d.]+) h of negative audio", read_section(README, "accuracy-peers"))
    if hours is None:
        sys.exit(f"headline.py: expected the hours of negative audio in the section accuracy-peers of {README}")
    note = (
        "Keywords: of the six of the shipped model; an engine with one has *alexa*. Misses are of held-out speakers, "
        f"false accepts in {hours[1]} h; streamkws at its own thresholds, {settings}. All heard the same audio; "
        "streamkws' thresholds were chosen on a part of it, the others' were not. Memory includes Python and NumPy. "
        "More figures, and how they were measured: [bench](bench/README.md)."
    )
    return f"{markdown(HEADER, [*own_rows(), *peer_rows()], n_text=2)}\n\n{note}"


def main() -> None:
    """Print the table, and write it where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the table in README.md")
    arguments = parser.parse_args()
    text = table()
    print(text)
    if arguments.write:
        replace_section(TARGET, "headline", text)


if __name__ == "__main__":
    main()
