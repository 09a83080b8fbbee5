"""streamkws export --c: a program in C hears what Python does."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from conftest import DEMO

from streamkws import ConfigError, Detector, detect, kernels, load_model
from streamkws.c_export import HEAD, IMAGE, KINDS_LINE, MAGIC, SOURCES, export_c, image_of
from streamkws.native.library import FOLDER

CC = shutil.which("cc")


@pytest.fixture(scope="module")
def exported(native_library, tmp_path_factory):
    """What the command writes in a process that has a library."""
    folder = tmp_path_factory.mktemp("c") / "heard-in-c"
    command = [sys.executable, "-m", "streamkws", "export", "--c", str(folder)]
    done = subprocess.run(
        command, env={**os.environ, FOLDER: str(native_library)}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return folder


@pytest.fixture(scope="module")
def program(exported):
    if CC is None:
        pytest.skip("needs a C compiler")
    options = ["-std=c99", "-O2", "-Wall", "-Wextra", "-Werror", "-L.", "-lstreamkws", "-Wl,-rpath,$ORIGIN"]
    command = [CC, "example.c", "-o", "example", *options]
    done = subprocess.run(command, cwd=exported, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return exported / "example"


def heard(program, pcm, *arguments):
    return subprocess.run([program, *arguments], input=pcm, cwd=program.parent, capture_output=True, check=False)


def test_the_example_hears_the_demo(program):
    pcm = soundfile.read(DEMO, dtype="int16")[0].tobytes()
    done = heard(program, pcm, IMAGE)
    assert (done.returncode, done.stderr) == (0, b"")
    expected = [
        f"{hit.start:9.2f} s  {hit.keyword:<14} {hit.score:.2f}" for hit in detect(DEMO, load_model("wakewords"))
    ]
    assert done.stdout.decode().splitlines() == expected
    assert len((SOURCES / "example.c").read_text().splitlines()) <= 40


def test_what_is_no_image_is_refused(program, exported):
    image = (exported / IMAGE).read_bytes()
    for name, content in {"short": image[:-1], "empty": b"", "head": image[:60], "other": b"x" + image[1:]}.items():
        (exported / name).write_bytes(content)
        done = heard(program, b"", name)
        assert (done.returncode, done.stdout) == (1, b"")
        assert done.stderr.decode() == f"{name}: Invalid argument\n"
    done = heard(program, b"", "missing")
    assert (done.returncode, done.stderr) == (1, b"missing: No such file or directory\n")
    assert heard(program, b"").returncode == 2


def test_the_header_is_of_the_library(exported):
    line = next(
        line for line in (exported / "streamkws.h").read_text().splitlines() if line.startswith(f"{KINDS_LINE} ")
    )
    assert f", {kernels.INSTRUCTIONS})" in line


def test_an_image_has_the_weights_of_every_kind_of_cpu():
    model = load_model("wakewords")
    image = image_of(model, ["portable", kernels.INSTRUCTIONS])
    head = np.frombuffer(image, HEAD, 1).view(np.recarray)[0]
    assert head.magic == MAGIC and head.bytes == len(image) and head.n_kinds == 2
    start = head.weights + head.weights_bytes
    assert image[start : start + head.weights_bytes] == model.network.weights.tobytes()
    names = np.frombuffer(image, f"S{head.keyword_bytes}", head.n_keywords, head.keywords)
    assert [name.decode() for name in names] == list(model.keywords)
    words = np.frombuffer(image, np.int64, head.pointers - head.words >> 3, head.words)
    pointers = np.frombuffer(image, np.int64, head.n_pointers, head.pointers)
    assert ((words[pointers] >= HEAD.itemsize) & (words[pointers] <= len(image))).all()
    rings = Detector(model, history_s=0).arrays[0].network_state.codes
    assert rings.tobytes() in image


@pytest.mark.skipif(kernels.LIBRARY is not None, reason="for a process without a library")
def test_without_a_library_there_is_nothing_to_export(tmp_path):
    with pytest.raises(
        ConfigError, match=r"^expected a library of compiled kernels to export, which a checkout lacks: "
    ):
        export_c(load_model("wakewords"), tmp_path / "c")
    assert not (tmp_path / "c").exists()
