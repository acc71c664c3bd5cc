"""`ingester query`: one read-only SELECT, beside a running server or on a stopped one.

On a terminal the rows are a table, into a pipe tab-separated lines under a header, with `--json`
an array of objects.
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
from ingester.cli.rows import print_rows, run_query

__all__ = ["query"]


@click.command(cls=Command)
@click.argument("sql")
@config_option
@data_dir_option
@json_option
def query(sql: str, config_path: Path | None, data_dir: str | None, as_json: bool) -> None:
    """Run one SELECT over events, rejects and requests; `-` reads it from standard input.

    \b
      ingester query "SELECT action, count(*) AS n FROM events GROUP BY ALL ORDER BY n DESC"
      ingester query "SELECT reason, count(*) FROM rejects GROUP BY ALL"
      ingester query "SELECT body->>'$.payload.ref' AS ref FROM events LIMIT 5" --json
      ingester query - < report.sql > report.tsv
    """
    loaded = settings(config_path, {"store.data_dir": data_dir}, env=os.environ)
    if sql == "-":
        sql = sys.stdin.read()
    if not sql.strip():
        raise CommandFailed("there is no SQL to run", EXIT_USAGE)
    rows = run_query(Path(loaded.config.store.data_dir), loaded.config.store, sql)
    if as_json:
        print_json(rows.objects())
    else:
        print_rows(rows)
