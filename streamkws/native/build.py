"""Build a library of kernels compiled ahead of time, for this system or another one.

    python -m streamkws.native.build FOLDER                          for this system
    python -m streamkws.native.build FOLDER --target aarch64-linux   for another one

It takes 15 to 25 s of a core for each kind of CPU. Objects are linked by the C compiler `cc`; for another system, and
where there is none, by the package ziglang.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from streamkws.native.library import DESCRIPTION, FIELDS, stamp
from streamkws.native.targets import TARGETS, Target

ROOT = Path(__file__).resolve().parents[2]
"""The folder that this package lies in."""


class BuildError(RuntimeError):
    """A library cannot be built here; the text says why, in one line."""


def this_target() -> str:
    """The name of the target that this system is. Raises BuildError where it is none."""
    system = f"{platform.system()} {platform.machine()}"
    for name, target in TARGETS.items():
        if target.system == system:
            return name
    raise BuildError(f"expected a system of {', '.join(TARGETS)}, got {system}")


def build_library(folder: str | os.PathLike[str], name: str | None = None, only: Sequence[str] = ()) -> Path:
    """Write a library and its description into a folder, and return the library's path.

    name: of TARGETS; None is this system. only: the kinds of CPU that it is for, where not all are wanted.
    Raises BuildError for an unknown name, without a linker, and where compiling or linking fails.
    """
    name = this_target() if name is None else name
    if name not in TARGETS:
        raise BuildError(f"expected a target of {', '.join(TARGETS)}, got {name}")
    target = TARGETS[name]
    unknown = sorted(set(only) - set(target.kinds))
    if unknown:
        raise BuildError(f"expected CPUs of {', '.join(target.kinds)}, got {', '.join(unknown)}")
    kinds = [kind for kind in target.kinds if not only or kind in only]
    linker, folder = _linker(target), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / target.file
    with tempfile.TemporaryDirectory() as text:
        objects = _emit(name, ["base", *kinds], Path(text))
        _run([*linker, "-o", str(path), *map(str, objects)])
    kinds_in_place = [kind if kind in kinds else None for kind in target.kinds]
    values = (target.file, target.system, kinds_in_place, stamp(), hashlib.sha256(path.read_bytes()).hexdigest())
    description = dict(zip(FIELDS, values, strict=True))
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
    return path


def _linker(target: Target) -> list[str]:
    """The command that links objects to a library of a target."""
    is_here = target.system == f"{platform.system()} {platform.machine()}"
    options = ["-shared", "-s", *target.link_options]
    if is_here and shutil.which("cc"):
        return ["cc", *options]
    if importlib.util.find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "cc", "-target", target.zig, *options]
    wanted = "a C compiler (cc) or the package ziglang" if is_here else "the package ziglang"
    raise BuildError(f"expected {wanted} to link a library for {target.system} with, found none")


def _emit(name: str, parts: Sequence[str], folder: Path) -> list[Path]:
    """The object files of a library, each made by a process of its own, a few at once."""
    objects = [folder / f"{part}.o" for part in parts]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda part, path: _emit_one(name, part, path), parts, objects))
    return objects


def _emit_one(name: str, part: str, path: Path) -> None:
    kinds = TARGETS[name].kinds
    features = kinds[part].features if part in kinds else ""
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": paths, "NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": features}
    _run([sys.executable, "-m", "streamkws.native.emit", name, part, str(path)], environment)


def _run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise BuildError(f"{Path(command[0]).name} failed: {said}")


def main() -> None:
    """Build the library that the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m streamkws.native.build",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="where the library and its description go")
    parser.add_argument("--target", choices=tuple(TARGETS), help="the system that it is for (this one)")
    parser.add_argument("--only", action="append", default=[], metavar="CPU", help="a kind of CPU; may be repeated")
    arguments = parser.parse_args()
    try:
        print(build_library(arguments.folder, arguments.target, arguments.only))
    except BuildError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
