"""bench/robustness/writers.py and caches.py, in their short forms, and that what is lost is told."""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "bench" / "robustness" / "writers.py"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kills processes the POSIX way")


@pytest.fixture
def writers(bench_module):
    return bench_module("bench.robustness.writers")


@pytest.fixture
def caches(bench_module):
    return bench_module("bench.robustness.caches")


def test_what_killed_writers_leave_is_whole_and_bad_disks_are_refused():
    chosen = ("--only", "quantize", "--only", "record", "--only", "mine")
    command = [sys.executable, str(SCRIPT), "--kills", "15", *chosen, "--json", "-"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    results = json.loads(done.stdout)["results"]
    assert {name: one["kills"] for name, one in results["kills"].items()} == {"quantize": 5, "record": 5, "mine": 5}
    assert all(one["files"] for one in results["kills"].values())
    assert results["disks"]["limit"] == {"commands": 3, "lost": 0}
    assert results["disks"]["gone"] == {"commands": 1, "lost": 0}


CARELESS = """
import random, sys, tempfile, time
from pathlib import Path
from bench.robustness import writers

class Careless:
    folder = Path(sys.argv[1])
    def write(self, out):
        with open(out / "a.jsonl", "w") as file:
            for _ in range(20):
                file.write("[1")
                file.flush()
                time.sleep(0.002)
                file.write("]\\n")
        return 0
    def talk(self, out):
        (out / "a.json").write_text("[2]\\n" if (out / "a.json").exists() else "[1]\\n")
        return 0

print(writers.kills(Careless(), "write", 20, random.Random(0))["lost"] > 3)
out = Careless.folder / "out"
out.mkdir()
print(writers.refused(Careless(), "talk", out, "limit").strip())
"""


def test_a_careless_writer_is_told(tmp_path):
    command = [sys.executable, "-c", CARELESS, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert first == "True" and "write: a.jsonl: half a line" in done.stderr
    assert second.startswith("exit code 70: OSError: [Errno 27] File too large")


def test_a_file_that_is_not_whole_is_told(writers, tmp_path):
    shutil.copy(ROOT / "models" / "wakewords.w4a8.safetensors", tmp_path / "a.safetensors")
    shutil.copy(ROOT / "streamkws" / "demo.flac", tmp_path / "a.flac")
    (tmp_path / "a.json").write_text('{"one": 1}\n{"two": 2}\n')
    (tmp_path / "a.svg").write_text("<svg>\n</svg>\n")
    for path in sorted(tmp_path.iterdir()):
        assert writers.broken(path) == ""
        path.write_bytes(path.read_bytes()[:-3])
        assert writers.broken(path), path
    (tmp_path / "a.txt").touch()
    assert writers.broken(tmp_path / "a.txt") == "a file of no known kind"


def test_a_table_without_some_rows_is_told(writers, tmp_path):
    import numpy as np
    import soundfile

    soundfile.write(tmp_path / "a.flac", np.zeros(128_000), 16_000)
    header, row = "file,start,end,label\n", "a.flac,0,5,x\n"
    for text, told in ((header, ""), (header + 2 * row, ""), (header + row, "some rows are missing of a.flac")):
        (tmp_path / "segments.csv").write_text(text)
        assert writers.broken(tmp_path / "segments.csv") == told


def test_processes_share_a_damaged_cache(caches, tmp_path):
    found = caches.caches(tmp_path, 2, ("damaged",), random.Random(0))
    assert {name: (one["processes"], one["lost"]) for name, one in found.items()} == {"damaged": (2, 0)}


def test_a_process_that_hears_otherwise_is_told(caches, tmp_path, monkeypatch, capsys):
    said = iter([([(0, "1\n" * 6, "")], 0.0), ([(0, "1\n" * 6, ""), (0, "", ""), (-11, "", "crash")], 1.0)])
    monkeypatch.setattr(caches, "start_at_once", lambda cache, n, *_: next(said))
    assert caches.caches(tmp_path, 3, ("empty",), random.Random(0))["empty"]["lost"] == 2
    assert "cache empty: exit code -11: crash" in capsys.readouterr().err


def test_files_are_damaged_but_those_of_long_kernels(caches, tmp_path):
    contents = {"a.f-1.nbi": 50, "a.f-1.1.nbc": 500, "a.g-2.nbi": 50, "a.g-2.1.nbc": caches.LONG_BYTES + 1, "x.txt": 9}
    for with_long, n_damaged in ((False, 2), (True, 4)):
        for name, size in contents.items():
            (tmp_path / name).write_bytes(bytes(size))
        assert caches.damage(tmp_path, random.Random(1), with_long) == n_damaged
        changed = [name for name, size in contents.items() if (tmp_path / name).read_bytes() != bytes(size)]
        assert len(changed) == n_damaged, os.listdir(tmp_path)
