"""Build the wheels: one for each system, with the library of kernels for it; from this one machine.

    python wheels/make.py dist/                         Linux on x86-64 and on aarch64
    python wheels/make.py dist/ --target x86_64-macos   another one; may be repeated

Each takes a minute or two of two cores. The libraries for x86-64 can only be made on x86-64.
"""

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINUX = ("x86_64-linux", "aarch64-linux")


def main():
    """Build the wheels that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the wheels go")
    parser.add_argument("--target", action="append", help="instead of those for Linux")
    arguments = parser.parse_args()
    for target in arguments.target or LINUX:
        command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", str(arguments.folder)]
        command += ["--config-settings", f"target={target}", str(ROOT)]
        if subprocess.run(command, check=False).returncode != 0:
            sys.exit(f"make.py: no wheel for {target}")
    for path in sorted(arguments.folder.glob("*.whl")):
        print(path)


if __name__ == "__main__":
    main()
