"""`ingester query`: one read-only SELECT, beside a running server or on a stopped one.

On a terminal the rows are a table; into a pipe they are tab-separated lines under a header, with
tab, line end and backslash written as escapes so that one row is one line; `--json` is an array
of objects, as the server's API gives it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from ingester.cli.common import (
    EXIT_USAGE,
    Command,
    CommandFailed,
    config_option,
    data_dir_option,
    json_option,
    settings,
)
from ingester.cli.local import find_server

__all__ = ["print_rows", "query", "rows_table"]

# The server ends a query at `store.query_seconds_max`; its answer still has to arrive.
_ANSWER_SECONDS = 30.0

_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


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
    content = run_query(Path(loaded.config.store.data_dir), loaded.config.store, sql)
    if as_json:
        click.echo(content)
    else:
        print_rows(msgspec.json.decode(content))


def run_query(data_dir: Path, store_config: Any, sql: str) -> bytes:
    """The rows as a JSON array, from the server when there is one."""
    server = find_server(data_dir)
    if server is not None:
        return server.call(
            "POST",
            "/api/v1/query",
            {"sql": sql, "format": "json"},
            timeout_s=store_config.query_seconds_max + _ANSWER_SECONDS,
        ).rstrip(b"\n")
    if not data_dir.is_dir():
        raise CommandFailed(f"there is no data folder at {data_dir}; name it with --data-dir")
    from ingester.store.offline import query as offline_query

    return msgspec.json.encode(offline_query(data_dir, store_config, sql), enc_hook=str)


def print_rows(rows: Sequence[dict[str, object]]) -> None:
    if sys.stdout.isatty():
        from rich.console import Console

        console = Console()
        if rows:
            console.print(rows_table(rows))
        click.echo(f"{len(rows)} row{'' if len(rows) == 1 else 's'}", err=True)
        return
    if rows:
        click.echo("\t".join(name.translate(_ESCAPES) for name in rows[0]))
    for row in rows:
        click.echo("\t".join(_text(value).translate(_ESCAPES) for value in row.values()))


def rows_table(rows: Sequence[dict[str, object]]) -> Any:
    """A rich table; numbers to the right, NULL dim."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    for name in rows[0]:
        numeric = all(
            isinstance(row[name], (int, float)) and not isinstance(row[name], bool)
            for row in rows
            if row[name] is not None
        )
        table.add_column(Text(name), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(
            *(
                Text("NULL", style="dim") if value is None else Text(_text(value))
                for value in row.values()
            )
        )
    return table


def _text(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
