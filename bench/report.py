"""What the benches share: where their tables go, Markdown tables, and the note that says which command wrote them.

Every figure stands in bench/README.md, between the markers <!-- name --> and <!-- /name -->.
"""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "bench" / "README.md"
"""The file that --write writes tables to."""
OUTPUTS = ("--json", "--picture", "--log")
"""Options that name files of the caller, which the note under a table leaves out."""
PLACES = {"--corpus": "<corpus>", "--recordings": "<recordings>", "--library": "<library>", "--learned": "<takes>"}
"""Options whose values are folders of one machine, and what the note says instead."""


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]], n_text: int = 1) -> str:
    """A Markdown table; the first n_text columns are aligned to the left, the others to the right."""
    lines = ["| " + " | ".join(row) + " |" for row in (header, *rows)]
    lines.insert(1, "|" + "|".join("---" if column < n_text else "---:" for column in range(len(header))) + "|")
    return "\n".join(lines)


def machine() -> str:
    """The CPU as the operating system names it, and the versions of Python and numba."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        fields = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
        name = next((value.strip() for key, value in fields.items() if key.strip() == "model name"), name)
    import numba

    return f"{name}, Python {platform.python_version()}, numba {numba.__version__}"


def read_section(path: Path, name: str) -> str:
    """What stands between the markers <!-- name --> and <!-- /name --> of a file.

    The program ends with one line where the file lacks the markers or has them more than once.
    """
    content = path.read_text(encoding="utf-8") if path.exists() else ""
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    if content.count(start) != 1 or content.count(end) != 1 or content.index(start) > content.index(end):
        sys.exit(f"{Path(sys.argv[0]).name}: expected one {start} and after it one {end} in {path}")
    return content.split(start)[1].split(end)[0].strip("\n")


def replace_section(path: Path, name: str, text: str) -> None:
    """Replace what stands between the markers <!-- name --> and <!-- /name --> of a file."""
    read_section(path, name)
    before, rest = path.read_text(encoding="utf-8").split(f"<!-- {name} -->")
    after = rest.split(f"<!-- /{name} -->")[1]
    path.write_text(f"{before}<!-- {name} -->\n{text}\n<!-- /{name} -->{after}", encoding="utf-8")


def write_section(name: str, text: str) -> None:
    """Replace a section of bench/README.md."""
    replace_section(README, name, text)


def without(words: Sequence[str], options: Sequence[str]) -> list[str]:
    """A command line without some options and their values."""
    kept, skip = [], False
    for word in words:
        if not skip and word.split("=")[0] not in options:
            kept.append(word)
        skip = word in options
    return kept


def written_by() -> str:
    """The sentence that says by which command, when and where a section was written."""
    given = [word for word in without(sys.argv[1:], OUTPUTS) if word != "--write"]
    words = [PLACES.get(before) or shlex.quote(word) for before, word in zip(["", *given], given, strict=False)]
    script = Path(sys.argv[0]).resolve()
    name = script.relative_to(ROOT) if script.is_relative_to(ROOT) else script.name
    command = " ".join(["python", str(name), *words, "--write"])
    return f"Written by `{command}` on {date.today().isoformat()} ({machine()})."


def publish(arguments: argparse.Namespace, section: str, text: str, results: Any, missing: Sequence[str] = ()) -> None:
    """Print the text, and write what the options --json and --write ask for.

    section: of bench/README.md, replaced by --write. missing: peers that were left out, a line each.
    """
    text += f" {written_by()}"
    if missing:
        text += "\n\nLeft out: " + "; ".join(missing) + "."
    figures = {"date": date.today().isoformat(), "machine": machine(), "results": results, "missing": list(missing)}
    if arguments.json == "-":
        print(json.dumps(figures))
    else:
        print(text)
        if arguments.json:
            Path(arguments.json).write_text(json.dumps(figures) + "\n", encoding="utf-8")
    if arguments.write:
        write_section(section, text)
