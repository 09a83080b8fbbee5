"""The command line: streamkws demo | detect | listen | devices | info | quantize | train | evaluate | voices | mine |
fetch-teacher | calibrate | plot | bench | serve.

Results go to standard output, everything else to standard error. Exit codes: 0 done, 1 a failure (a file that cannot
be read, no microphone), 2 wrong usage (an option, a keyword or a name), 130 Ctrl-C. A reader that closes the pipe ends
a command quietly. Each command imports what it needs when it runs, so that --help is quick.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from streamkws.cli import bench, calibrate, demo, detect, live, models, plot, serve, training, voices
from streamkws.cli.arguments import Commands, Parser
from streamkws.cli.output import complain
from streamkws.errors import ConfigError, StreamKwsError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    argv: the arguments after the program's name; None takes the process's own.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file name may be anything
    try:
        arguments = parser().parse_args(argv)
        code: int = arguments.run(arguments)
        if sys.stdout is not None:  # as it is where the shell closed it
            sys.stdout.flush()
        return code
    except SystemExit as stop:  # argparse: --help, --version, wrong usage
        return stop.code if isinstance(stop.code, int) else 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # what is still buffered has nowhere to go, and must not raise again when the interpreter ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ConfigError as error:
        complain(error)
        return 2
    except StreamKwsError as error:
        complain(error)
        return 1
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        complain(f"{name}{error.strerror or error}")
        return 1


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from streamkws import __version__

        print(f"streamkws {__version__}")
        parser.exit()


def parser() -> Parser:
    """The parser of all commands."""
    whole = Parser(
        prog="streamkws",
        description="Streaming keyword spotting with low-bit integer kernels.",
        epilog="example: streamkws demo",
    )
    whole.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = Commands(whole)
    for module in (demo, detect, live, models, training, voices, calibrate, plot, bench, serve):
        module.add_to(commands)
    return whole
