"""The build backend: a wheel has a library of compiled kernels, and the tag of its system."""

import importlib
import json
import sys
import zipfile

import pytest
from conftest import ROOT

from streamkws.native import build
from streamkws.native.library import DESCRIPTION
from streamkws.native.targets import TARGETS


@pytest.fixture
def backend(monkeypatch):
    """wheels/backend.py, as pip loads it, with a library that nobody compiled."""

    def build_library(folder, name):
        path = build.Path(folder) / TARGETS[name].file
        path.parent.mkdir()
        path.write_bytes(b"library")
        path.with_name(DESCRIPTION).write_text(json.dumps({"file": path.name}))
        return path

    monkeypatch.setattr(build, "build_library", build_library)
    monkeypatch.setattr(sys, "path", [str(ROOT / "wheels"), *sys.path])
    monkeypatch.setenv("STREAMKWS_TARGET", "")
    monkeypatch.chdir(ROOT)
    return importlib.import_module("backend")


def names_in(wheel):
    with zipfile.ZipFile(wheel) as file:
        return {name.partition("/")[2] for name in file.namelist() if name.startswith("streamkws/")}


@pytest.mark.parametrize("target", TARGETS)
def test_a_wheel_has_the_library_and_the_tag_of_its_system(backend, target, tmp_path):
    name = backend.build_wheel(str(tmp_path), {"target": target})
    assert name == f"streamkws-0.1.0-py3-none-{TARGETS[target].wheel}.whl"
    names = names_in(tmp_path / name)
    assert {f"native/{TARGETS[target].file}", f"native/{DESCRIPTION}", "native/c/streamkws.h"} <= names


def test_a_wheel_without_a_library_is_for_any_system(backend, tmp_path, monkeypatch):
    name = backend.build_wheel(str(tmp_path / "asked"), {"target": "none"})
    monkeypatch.setenv("STREAMKWS_TARGET", "")
    monkeypatch.setattr("platform.machine", lambda: "vax")
    assert backend.build_wheel(str(tmp_path / "unknown")) == name == "streamkws-0.1.0-py3-none-any.whl"
    assert f"native/{DESCRIPTION}" not in names_in(tmp_path / "asked" / name) | names_in(tmp_path / "unknown" / name)


def test_an_editable_installation_has_none(backend):
    data = {}
    importlib.import_module("hook").LibraryHook(str(ROOT), {}, None, None, "", "wheel").initialize("editable", data)
    assert data == {}
    assert backend.get_requires_for_build_editable() == ["editables~=0.3"]


def test_only_a_wheel_asks_for_a_compiler(backend, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    assert backend.get_requires_for_build_wheel() == [backend.COMPILER]
    assert backend.get_requires_for_build_wheel({"target": "aarch64-linux"}) == [backend.COMPILER, backend.LINKER]
    assert backend.get_requires_for_build_wheel({"target": "none"}) == []
    assert backend.get_requires_for_build_sdist() == []
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert backend.get_requires_for_build_wheel({}) == [backend.COMPILER, backend.LINKER]
