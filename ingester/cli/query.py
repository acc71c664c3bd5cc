"""`ingester query`: one read-only SELECT, beside a running server or on a stopped one.

On a terminal the rows are a table, into a pipe tab-separated lines under a header, with `--json`
an array of objects, with `--format` what the API gives in that format.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from ingester.cli.common import (
    EXIT_USAGE,
    Command,
    CommandFailed,
    config_option,
    data_dir_option,
    json_option,
    print_json,
    settings,
)
from ingester.cli.rows import print_table, run_query, stream_lines, stream_query
from ingester.sandbox.messages import FORMATS, maybe_format

__all__ = ["query"]

# Formats that would only disturb a terminal.
_BINARY = frozenset({"parquet", "arrow"})


@click.command(cls=Command, short_help="Run one SELECT over all that is stored.")
@click.argument("sql")
@click.option(
    "--format",
    "format_name",
    type=click.Choice(FORMATS),
    help="Print the result in this format instead of a table.",
)
@config_option
@data_dir_option
@json_option
def query(
    sql: str, format_name: str | None, config_path: Path | None, data_dir: str | None, as_json: bool
) -> None:
    """Run one SELECT over events, logs, metrics, rejects, requests, users, accounts and the hourly
    and daily counts; `-` reads it from standard
    input. It runs in a process of its own and can change nothing.

    \b
      ingester query "SELECT action, count(*) AS n FROM events GROUP BY ALL ORDER BY n DESC"
      ingester query "SELECT reason, count(*) FROM rejects GROUP BY ALL"
      ingester query "SELECT body->>'$.payload.ref' AS ref FROM events LIMIT 5" --json
      ingester query "FROM logs" --format parquet > logs.parquet
      ingester query - < report.sql > report.tsv
    """
    loaded = settings(config_path, {"store.data_dir": data_dir}, env=os.environ)
    if sql == "-":
        sql = sys.stdin.read()
    if not sql.strip():
        raise CommandFailed("there is no SQL to run", EXIT_USAGE)
    folder, config = Path(loaded.config.store.data_dir), loaded.config.store
    wanted = maybe_format(format_name or "")
    if wanted is not None and not as_json:
        if wanted in _BINARY and sys.stdout.isatty():
            raise CommandFailed(f"{wanted} is not for a terminal; send it to a file", EXIT_USAGE)
        stream_query(folder, config, sql, wanted, sys.stdout.buffer.write)
        return
    if as_json:
        print_json(run_query(folder, config, sql).objects())
    elif sys.stdout.isatty():
        print_table(run_query(folder, config, sql))
    else:
        stream_lines(folder, config, sql)
