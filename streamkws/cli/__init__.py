"""The command line: streamkws demo | detect | listen | devices | new | review | record | info | quantize | train |
evaluate | voices | mine | fetch-teacher | calibrate | plot | bench | scan | serve | export.

Results go to standard output, everything else to standard error. Exit codes: 0 done, 1 a failure (a file that cannot
be read, no microphone), 2 wrong usage (an option, a keyword or a name), 130 Ctrl-C. A command ends without a message
when the reader of its output closes the pipe. Each command imports what it needs when it runs, so that --help is quick.

arguments: the parser, and the options that several commands have.
output: lines, tables, JSON and a progress bar.
demo, detect, live, new, review, record, models, training, calibrate, plot, bench, scan, serve, export: the commands.
reactions, screen: parts of streamkws listen: what a detection starts, and the live picture.
filing, keys, messages, meter: parts of review and record: files, single keys, what is printed, the live level.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from streamkws.cli import (
    bench,
    calibrate,
    demo,
    detect,
    export,
    live,
    models,
    new,
    plot,
    record,
    review,
    scan,
    serve,
    training,
    voices,
)
from streamkws.cli.arguments import Commands, Parser
from streamkws.cli.output import print_error
from streamkws.errors import ConfigError, StreamKwsError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    argv: the arguments after the program's name; None takes the process's own.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file's name need not be valid text
    try:
        arguments = parser().parse_args(argv)
        code: int = arguments.run(arguments)
        if sys.stdout is not None:  # None if the shell closed it
            sys.stdout.flush()
        return code
    except SystemExit as stop:  # argparse: --help, --version, wrong usage
        return stop.code if isinstance(stop.code, int) else 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # the output that is still buffered must not raise again when the interpreter ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ConfigError as error:
        print_error(error)
        return 2
    except StreamKwsError as error:
        print_error(error)
        return 1
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        print_error(f"{name}{error.strerror or error}")
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
        description="Find spoken keywords: in audio files, live in a microphone's audio, or as a server for others.",
        epilog="example: streamkws demo",
    )
    whole.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = Commands(whole)
    everything = (
        demo,
        detect,
        live,
        new,
        review,
        record,
        models,
        training,
        voices,
        calibrate,
        plot,
        bench,
        scan,
        serve,
        export,
    )
    for module in everything:
        module.add_to(commands)
    return whole
