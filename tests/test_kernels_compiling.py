"""The cache of compiled code: stamped with all files of the package, and no obstacle when it cannot be used."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import run_python

from streamkws import kernels
from streamkws.kernels import compiling, sources


def test_a_cache_folder_that_cannot_be_written_is_no_obstacle(tmp_path):
    locked = tmp_path / "locked"
    locked.write_text("a file where the cache folder should be")
    script = (
        "import numpy as np; from streamkws import FrontEnd;print(FrontEnd().push(np.zeros(400, np.float32)).shape)"
    )
    assert run_python(script, NUMBA_CACHE_DIR=str(locked / "cache")) == "(1, 26)"


LOGARITHM = (
    "import numpy as np; from streamkws.kernels.front_end import log_energies; frame = np.zeros(2, np.float32);"
    "log_energies(np.ones(2), 1e-9, -20.7, frame); print(frame.tolist())"
)


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [
        ("nbi", lambda data: data[: len(data) // 2]),
        ("nbi", lambda data: data[::-1]),
        ("nbc", lambda data: b""),
        ("nbc", lambda data: data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 255]) + data[len(data) // 2 + 1 :]),
        ("nbc", None),
    ],
    ids=["short index", "foreign index", "empty code", "a byte of the code", "folder for code"],
)
def test_a_damaged_cache_is_made_anew(suffix, damage, tmp_path):
    def start():
        environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
        result = subprocess.run([sys.executable, "-c", LOGARITHM], env=environment, capture_output=True, text=True)
        assert (result.returncode, result.stdout) == (0, "[0.0, 0.0]\n"), result.stderr
        return result.stderr

    start()
    files = list(tmp_path.rglob(f"*.{suffix}"))
    assert files
    for file in files:
        data = file.read_bytes()
        if damage:
            file.write_bytes(damage(data))
        else:
            file.unlink()
            file.mkdir()
    text = start()
    assert len(text.splitlines()) <= 2
    assert "damaged cache" in text or "cannot be cached" in text
    if damage:
        assert start() == ""


def test_processes_that_start_at_once_share_a_cache(tmp_path):
    command = [sys.executable, "-c", LOGARITHM]
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    processes = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    assert [process.communicate() for process in processes] == [("[0.0, 0.0]\n", "")] * 4


HELPER = """
from toy.compiling import compiled

@compiled(inline="always")
def helper(x):
    x[0] += 1.0
"""
CALLER = """
import numpy as np
from toy.compiling import compiled
from toy.helper import helper

@compiled()
def caller(x):
    helper(x)

x = np.zeros(1)
caller(x)
print(x[0])
"""


def start(folder):
    """What the toy package prints; how many kernels it saved in the cache, and how many it loaded."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder / "cache"), "NUMBA_DEBUG_CACHE": "1"}
    command = [sys.executable, "-m", "toy.caller"]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    return float(lines[-1]), sum("data saved" in line for line in lines), sum("data loaded" in line for line in lines)


def test_a_helper_that_changes_in_another_file_leaves_no_stale_kernel(tmp_path):
    """A package with the kernels' own way of compiling, a kernel, and its helper in another file."""
    package = tmp_path / "toy"
    package.mkdir()
    for module in (compiling, sources):
        text = Path(module.__file__).read_text()
        (package / Path(module.__file__).name).write_text(text.replace("streamkws.kernels", "toy"))
    (package / "__init__.py").touch()
    (package / "helper.py").write_text(HELPER)
    (package / "caller.py").write_text(CALLER)
    assert start(tmp_path) == (1.0, 1, 0)
    assert start(tmp_path) == (1.0, 0, 1), "nothing is compiled twice"
    (package / "helper.py").write_text(HELPER.replace("1.0", "2.0"))
    assert start(tmp_path) == (2.0, 1, 0)


def test_the_stamp_is_of_all_kernels(tmp_path, monkeypatch):
    """The digest changes with each file of the package, and is what the cache of every kernel is stamped with."""
    digest = sources.sources_digest()
    package = tmp_path / "kernels"
    shutil.copytree(Path(sources.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(sources, "__file__", str(package / "sources.py"))
    assert sources.sources_digest.__wrapped__() == digest
    for path in sorted(package.glob("*.py")):
        text = path.read_bytes()
        path.write_bytes(text + b"#")
        assert sources.sources_digest.__wrapped__() != digest, path.name
        path.write_bytes(text)
    assert kernels.detect._cache._cache_file._source_stamp == digest
    shutil.rmtree(package)
    with pytest.raises(RuntimeError, match="expected the source files of the kernels, found none"):
        sources.sources_digest.__wrapped__()


def test_machine_code_with_any_byte_changed_is_never_loaded(tmp_path):
    """A changed byte of machine code can end the process, or change what it computes."""
    cache = compiling._CacheFile(str(tmp_path), "kernel", "stamp")
    cache.save("signature", b"machine code")
    (path,) = tmp_path.glob("*.nbc")
    content = path.read_bytes()
    assert cache.load("signature") == b"machine code" and cache.load("another") is None
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :])
        try:
            assert cache.load("signature") == b"machine code", place  # a byte of the pickle that says nothing
        except AssertionError:
            raise
        except Exception:
            continue
