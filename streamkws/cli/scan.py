"""streamkws scan: keywords in archives, on all cores or on a cluster."""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING, Any

from streamkws.cli.arguments import (
    Commands,
    add_json_option,
    add_listening_options,
    add_model_option,
    load_models,
    thresholds,
)
from streamkws.cli.output import STARTING, Bar, explain_if_slow, json_line, print_error, table
from streamkws.errors import ConfigError

if TYPE_CHECKING:
    from streamkws.scanning.progress import Summary


def add_to(commands: Commands) -> None:
    """Add the commands of this module."""
    scan = commands.add(
        _scan,
        "scan",
        "find keywords in thousands of hours of recordings",
        "streamkws scan calls/ --out hits.parquet",
        "streamkws scan 'calls/2024-*/*.wav' list.csv --out hits.parquet --keyword alexa --json",
        "streamkws scan s3://bucket/calls --out hits.parquet --scheduler tcp://host:8786",
    )
    scan.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="audio files, folders, patterns, addresses (s3://...), or lists of them (csv, jsonl or parquet with a "
        "column path)",
    )
    scan.add_argument(
        "--out", required=True, metavar="DIR", help="the folder to write; what is in it already is not done again"
    )
    scan.add_argument("--retry-failed", action="store_true", help="also hear again the recordings that failed before")
    scan.add_argument("--workers", type=int, metavar="N", help="processes on this machine (default: one a core)")
    scan.add_argument("--scheduler", metavar="ADDRESS", help="use a cluster of Dask's that runs already, instead")
    add_model_option(scan)
    add_listening_options(scan)
    add_json_option(scan)


def _scan(arguments: argparse.Namespace) -> int:
    if arguments.workers is not None and arguments.workers < 1:
        raise ConfigError(f"expected at least 1 worker, got {arguments.workers}")
    if arguments.workers is not None and arguments.scheduler:
        raise ConfigError("expected --workers or --scheduler, got both: a cluster has the workers that it has")
    with explain_if_slow(STARTING):
        import streamkws

        models = load_models(arguments.model)
    with Bar() as bar:
        summary = streamkws.scan(
            arguments.sources,
            models.models[0],
            out=arguments.out,
            thresholds=thresholds(arguments, models),
            keywords=arguments.keyword,
            client=arguments.scheduler,
            workers=arguments.workers,
            retry_failed=arguments.retry_failed,
            tell=_print_event if arguments.json else partial(_show_event, bar),
        )
    if not arguments.json:
        print(_report(summary))
    if summary.failed:
        n = summary.recordings + summary.failed
        print_error(f"{summary.failed} of {n} recordings failed: {arguments.out}/errors says why")
    return int(summary.failed > 0)


def _print_event(event: dict[str, Any]) -> None:
    print(json_line(event), flush=True)


def _show_event(bar: Bar, event: dict[str, Any]) -> None:
    if event["event"] == "progress":
        what = (
            f"{event['recordings']} of {event['of']} recordings, {event['hours']:.1f} h, "
            f"{event['times_real_time']:.0f} times real time, {event['hits']} hits, {event['errors']} errors"
        )
        bar.show(what, event["done"], 1.0)


def _report(summary: Summary) -> str:
    """What is in the output, as lines."""
    rows = [[keyword, summary.hits[keyword]] for keyword in summary.keywords]
    spent = summary.decode_s + summary.compute_s
    return (
        f"{table(['keyword', 'hits'], rows)}\n"
        f"{summary.recordings} recordings, {summary.hours:.2f} h, at {summary.times_real_time:.0f} times real time; "
        f"{100 * summary.decode_s / spent if spent else 0:.0f} % of the work was reading and decoding"
    )
