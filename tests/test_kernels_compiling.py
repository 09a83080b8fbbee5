"""The cache of compiled code: stamped with all files of the package, and no obstacle when it cannot be used."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import run_python

import streamkws


def test_a_cache_folder_that_cannot_be_written_is_no_obstacle(tmp_path):
    locked = tmp_path / "locked"
    locked.write_text("a file where the cache folder should be")
    script = (
        "import numpy as np; from streamkws import FrontEnd;print(FrontEnd().push(np.zeros(400, np.float32)).shape)"
    )
    assert run_python(script, NUMBA_CACHE_DIR=str(locked / "cache")) == "(1, 26)"


LOGARITHM = (
    "import numpy as np; from streamkws import kernels; frame = np.zeros(2, np.float32);"
    "kernels.log_energies(np.ones(2), 1e-9, -20.7, frame); print(frame.tolist())"
)


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [
        ("nbi", lambda data: data[: len(data) // 2]),
        ("nbi", lambda data: data[::-1]),
        ("nbc", lambda data: b""),
        ("nbc", None),
    ],
    ids=["short index", "foreign index", "empty code", "folder for code"],
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


SCRIPT = "import numpy as np; from streamkws import FrontEnd; print(FrontEnd().push(np.ones(400, np.float32))[0, 0])"


def first_band(folder, cache):
    """A log-mel value by the package in this folder; how many cached kernels it saved, and how many it loaded."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache), "NUMBA_DEBUG_CACHE": "1"}
    result = subprocess.run([sys.executable, "-c", SCRIPT], cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    return float(lines[-1]), sum("data saved" in line for line in lines), sum("data loaded" in line for line in lines)


def test_a_helper_that_changes_in_another_file_leaves_no_stale_kernel(tmp_path):
    package, cache = tmp_path / "streamkws", tmp_path / "cache"
    shutil.copytree(Path(streamkws.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    before, n_saved, _ = first_band(tmp_path, cache)
    assert n_saved > 0
    again, n_saved, n_loaded = first_band(tmp_path, cache)
    assert (again, n_saved) == (before, 0), "nothing is compiled twice"
    assert n_loaded > 0
    helper = package / "kernels" / "fft.py"  # the kernel that is called is in front_end.py
    text = helper.read_text()
    assert text.count("= samples[2 * i") == 2
    helper.write_text(text.replace("= samples[2 * i", "= 2.0 * samples[2 * i"))
    after, n_saved, _ = first_band(tmp_path, cache)
    assert n_saved > 0
    assert after == pytest.approx(before + np.log(4), abs=1e-5)
