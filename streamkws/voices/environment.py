"""Python environments of their own, for tools whose packages must not meet those of streamkws."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from streamkws.errors import MissingExtraError
from streamkws.whole import write_whole


@dataclass(frozen=True)
class Environment:
    """What a tool needs, and where it is installed.

    name: of the tool, for messages. folder: of the environment. requirements: for pip, with versions.
    """

    name: str
    folder: Path
    requirements: tuple[str, ...]

    def python(self) -> Path:
        """The environment's Python; the environment is made if it is missing or has other requirements.

        Raises MissingExtraError where it cannot be made.
        """
        python, stamp = self.folder / "bin" / "python", self.folder / "requirements.txt"
        wanted = "\n".join(self.requirements) + "\n"
        if not (python.exists() and stamp.exists() and stamp.read_text(encoding="utf-8") == wanted):
            print(f"installing {self.name} into {self.folder} ...", file=sys.stderr)
            run_tool(self.name, [sys.executable, "-m", "venv", "--clear", str(self.folder)])
            pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
            run_tool(self.name, [*pip, *self.requirements])
            write_whole(stamp, wanted.encode())
        return python.absolute()


def run_tool(name: str, command: list[str], folder: Path | None = None) -> str:
    """Run a command that fetches or installs something, and return what it prints.

    name: of the tool, for the message. folder: to run it in.
    Raises MissingExtraError, one line, when it is missing or fails.
    """
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise MissingExtraError(f"{name} cannot be installed: expected the command {command[0]}, found none") from None
    if done.returncode != 0:
        lines = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()
        errors = [line for line in lines if line.startswith("ERROR")] or lines
        raise MissingExtraError(f"{name} cannot be installed: {errors[-1][:200]}")
    return done.stdout
