"""`python -m bench [NAME …]`: run benches, print one table or one JSON document."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
from typing import Any

import msgspec

from bench.corpus import ENCODINGS, Encoding
from bench.options import DOORS, Options, Skipped
from bench.report import Report, machine_facts, note, render_table

__all__ = ["BENCHES", "main"]

# What has a row of its own with refused lines, and what a rival cannot read.
_SMOKE_ENCODINGS: tuple[Encoding, ...] = ("gzip", "deflate")
_QUIET_LOAD_MAX = 0.7  # a whole-process bench needs both sides' CPUs to itself

BENCHES: dict[str, str] = {
    "inflate": "stage: body bytes decompressed in bounded pieces",
    "ndjson": "stage: lines framed, decoded, validated",
    "columns": "stage: decoded lines to Arrow columns",
    "journal": "stage: groups appended and synced",
    "load": "stage: columns inserted into the open part and committed",
    "seal": "stage: a rotated part to Parquet, sorted by time",
    "path": "whole process: bulk upload over HTTP until queryable, beside DuckDB and ClickHouse",
    "path_logs": "whole process: NDJSON logs over HTTP until queryable, beside the same",
    "small": "whole process: POSTs of one event, log or metric, durable, beside a bare echo",
    "memory": "whole process: peak memory of a long upload and of many at once",
    "deliver": "the delivery actor: incidents from the outbox to ten receivers, and how soon",
    "rules": "stage and whole process: 1,000 rules over logs, beside a bulk stream without",
    "query": "whole process: searches and charts over logs, beside ClickHouse; intake beside them",
    "rollups": "whole process: what rollups cost uploads, their lag; a year of series out of them",
    "start": "whole process: from the command to the ready line, behind days and a journal",
    "grow": "whole process: rate and latency from an empty store to 50 M rows",
}


def _parser() -> argparse.ArgumentParser:
    names = "\n".join(f"  {name:9} {text}" for name, text in BENCHES.items())
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Benchmarks with their rivals in the same run.",
        epilog=f"benches:\n{names}\n\nThe corpus is cached in $INGESTER_BENCH_CACHE "
        "(default ~/.cache/ingester-bench); servers and rivals work there too.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="which (default: all)")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes; proves that all runs")
    parser.add_argument("--events", type=int, default=0, help="events (or logs) of the corpus")
    parser.add_argument(
        "--encodings",
        help=f"of {','.join(ENCODINGS)} (default: all; with --smoke {','.join(_SMOKE_ENCODINGS)})",
    )
    parser.add_argument(
        "--data", default="synthetic", help="synthetic, real, or an NDJSON file (plain, gz, zst)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each comparison")
    parser.add_argument("--seconds", type=float, default=3.0, help="small: length of a run")
    parser.add_argument("--connections", default="1,8,32,128", help="small: how many")
    parser.add_argument(
        "--doors",
        default="",
        help=f"small: of {','.join(DOORS)}, each with all --connections "
        "(default: all, but with 32 only beyond natero)",
    )
    parser.add_argument("--gigabytes", type=float, default=10.0, help="memory: raw size")
    parser.add_argument("--uploads", type=int, default=64, help="memory: uploads at once")
    parser.add_argument(
        "--rows",
        type=int,
        default=0,
        help="grow: rows at the end (50 M); query: logs (10 M); rollups: events of the year (10 M)",
    )
    parser.add_argument(
        "--rivals", default="duckdb,clickhouse", help="path, path_logs, query: whom to compare with"
    )
    return parser


def _options(arguments: argparse.Namespace, parser: argparse.ArgumentParser) -> Options:
    unknown = [name for name in arguments.names if name not in BENCHES]
    if unknown:
        parser.error(f"unknown bench {', '.join(unknown)}; known: {', '.join(BENCHES)}")
    encodings = ENCODINGS
    if arguments.encodings is not None:
        encodings = tuple(filter(None, arguments.encodings.split(",")))
    elif arguments.smoke:
        encodings = _SMOKE_ENCODINGS
    fields: dict[str, Any] = {
        **vars(arguments),
        "encodings": encodings,
        "connections": tuple(int(text) for text in arguments.connections.split(",")),
        "doors": tuple(filter(None, arguments.doors.split(","))),
        "rivals": tuple(filter(None, arguments.rivals.split(","))),
    }
    if arguments.smoke:
        fields["connections"] = fields["connections"][:2]
    try:
        return msgspec.convert(fields, Options)
    except msgspec.ValidationError as error:
        parser.error(str(error))


def main(argv: list[str] | None = None) -> int:
    """Run what was asked for; 0 when every bench ran or was skipped with a note."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    options = _options(arguments, parser)
    settings = {**msgspec.to_builtins(options), "benches": arguments.names or list(BENCHES)}
    settings.pop("notes")
    report = Report(machine=machine_facts(), settings=settings, notes=options.notes)
    busy = os.getloadavg()[0]
    if busy > _QUIET_LOAD_MAX and not options.smoke:
        options.add_note(f"the machine is busy (load average {busy:.1f}): figures mean little")
    for name in arguments.names or BENCHES:
        start = time.monotonic()
        try:
            rows = importlib.import_module(f"bench.{name}").run(options)
        except Skipped as reason:
            options.add_note(f"{name} skipped: {reason}")
            continue
        report.rows += rows
        note(f"{name}: {time.monotonic() - start:.1f} s")
        if not arguments.json:
            print(render_table(rows) + "\n", flush=True)
    if arguments.json:
        print(report.as_json().decode())
    elif options.notes:
        print("\n".join(f"note: {text}" for text in options.notes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
