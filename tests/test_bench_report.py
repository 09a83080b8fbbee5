"""bench/README.md holds every table, and the headline of the main README is written from it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SECTIONS = (
    "accuracy",
    "elsewhere",
    "crossval",
    "listening",
    "telephone",
    "accuracy-conditions",
    "own-keyword",
    "own-takes",
    "accuracy-peers",
    "peer-sizes",
    "sizes",
    "rounding",
    "quantization",
    "fuzz",
    "soak",
    "writers",
    "caches",
    "latency",
    "together",
    "library",
    "kernels",
    "cold-start",
    "throughput",
    "archive",
    "archive-kills",
    "cuts",
    "server",
)


@pytest.fixture
def report(bench_module):
    return bench_module("bench.report")


@pytest.fixture
def headline(bench_module):
    return bench_module("bench.headline")


def test_every_section_that_a_bench_writes_is_there_once(report):
    text = report.README.read_text(encoding="utf-8")
    assert sorted(re.findall(r"<!-- /([\w-]+) -->", text)) == sorted(SECTIONS)
    for name in SECTIONS:
        assert report.read_section(report.README, name).count("|---") >= 1
    written = set(re.findall(r'(?:write_section\(|publish\(arguments, )"([\w-]+)"', "".join(sources())))
    written |= {"accuracy", "accuracy-conditions", "accuracy-peers", "sizes"}  # which accuracy.py writes in a loop
    assert written == set(SECTIONS)


def sources():
    return [path.read_text(encoding="utf-8") for path in (ROOT / "bench").rglob("*.py")]


def test_scripts_run_from_anywhere(tmp_path):
    scripts = [path for path in (ROOT / "bench").rglob("*.py") if path.parent.name != "peer_workers"]
    scripts = [path for path in scripts if 'if __name__ == "__main__"' in path.read_text(encoding="utf-8")]
    assert len(scripts) == 25
    for path in scripts:
        depth = len(path.relative_to(ROOT).parents) - 1
        line = f"sys.path.insert(0, str(Path(__file__).resolve().parents[{depth}]))\n"
        text = path.read_text(encoding="utf-8")
        assert line in text or "from bench" not in text, path
    command = [sys.executable, str(ROOT / "bench" / "speed" / "cold_start.py"), "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "python bench/speed/cold_start.py --write" in done.stdout


def test_its_links_and_the_commands_it_names_lead_somewhere(report):
    text = report.README.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (ROOT / "bench" / target).exists(), target
    for command in re.findall(r"python (bench/[\w/]+\.py)", text):
        assert (ROOT / command).exists(), command
    lines = re.findall("^#+ (.*)$", text, re.M)
    headings = {re.sub(r"[^\w -]", "", line).lower().replace(" ", "-") for line in lines}
    assert set(re.findall(r"\]\(#([\w-]+)\)", text)) <= headings


def test_a_section_is_replaced_and_nothing_else(report, tmp_path):
    path = tmp_path / "a.md"
    path.write_text("before\n<!-- one -->\nold\n<!-- /one -->\nafter\n")
    report.replace_section(path, "one", "new")
    assert path.read_text() == "before\n<!-- one -->\nnew\n<!-- /one -->\nafter\n"
    assert report.read_section(path, "one") == "new"
    for text in ("nothing", "<!-- one -->", "<!-- /one --><!-- one -->", "<!-- one --><!-- one --><!-- /one -->"):
        path.write_text(text)
        with pytest.raises(SystemExit, match=r"expected one <!-- one --> and after it one <!-- /one --> in .*a\.md$"):
            report.replace_section(path, "one", "new")
        assert path.read_text() == text


def test_the_note_names_no_folder_of_this_machine(report, monkeypatch):
    monkeypatch.setattr(sys, "argv", [str(ROOT / "bench/a/b.py"), "--corpus", "/home/me", "--only", "x y", "--write"])
    assert report.written_by().startswith("Written by `python bench/a/b.py --corpus <corpus> --only 'x y' --write` on ")


def test_the_headline_is_short_and_says_what_the_tables_say(headline):
    lines = headline.table().splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("|")]
    assert len(lines) <= 15 and len(rows) == 2 + 3 + 4
    assert all(len(row) == len(headline.HEADER) and all(row) for row in rows if "---" not in row[0])
    w4a8 = dict(zip(rows[0], rows[2], strict=True))
    accuracy = headline.only(
        headline.tables("accuracy-peers"), "accuracy-peers", engine="wakewords-held-out.w4a8", setting="own thresholds"
    )
    assert accuracy["mean"] == f"{w4a8['miss, %: clean']} / {w4a8['10 dB']}"
    porcupine = next(row for row in rows if row[0].startswith("Porcupine"))
    assert porcupine[2] == "6" and porcupine[-1].endswith(" MB")


def test_the_headline_fails_clearly(headline, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["headline.py", "--write"])
    monkeypatch.setattr(headline, "TARGET", tmp_path / "README.md")
    message = r"^headline\.py: expected one <!-- headline --> and after it one <!-- /headline --> in "
    with pytest.raises(SystemExit, match=message):
        headline.main()
    (tmp_path / "README.md").write_text("a\n<!-- headline -->\n<!-- /headline -->\nb\n")
    headline.main()
    assert "| **streamkws w4a8** |" in (tmp_path / "README.md").read_text()
    with pytest.raises(SystemExit, match=r"^headline\.py: expected one row with .* in the section sizes .*, got 0$"):
        headline.only(headline.tables("sizes"), "sizes", model="none")
