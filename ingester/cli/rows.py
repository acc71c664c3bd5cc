"""Rows of a query as a command shows them: a table, tab-separated lines, or JSON objects.

Cells stay the JSON text they arrived as until they are shown, so that every digit of a number
survives. Into a pipe, tab, line end and backslash are written as escapes: one row is one line.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import click
import msgspec
from msgspec import Raw, Struct

from ingester.cli.common import run_trio
from ingester.cli.local import LocalServer, settled_server
from ingester.config import StoreConfig
from ingester.sandbox.messages import Format

__all__ = [
    "ESCAPES",
    "Rows",
    "ask",
    "print_rows",
    "printable",
    "rows_table",
    "run_query",
    "stream_query",
]

# The server ends a query at `store.query_seconds_max`; its answer still has to arrive.
_ANSWER_SECONDS = 30.0

ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})

_ENCODER = msgspec.json.Encoder(decimal_format="number")
_DECODER = msgspec.json.Decoder(float_hook=Decimal)


class Rows(Struct, frozen=True):
    """The API's answer: column names, and rows of JSON values in their order."""

    columns: list[str]
    rows: list[list[Raw]]

    def objects(self) -> list[dict[str, Raw]]:
        """The form of `--json`; of columns with one name the last wins."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]

    def values(self) -> list[list[object]]:
        return [[_DECODER.decode(cell) for cell in row] for row in self.rows]


def run_query(data_dir: Path, config: StoreConfig, sql: str) -> Rows:
    """Ask the server when there is one, else read the stopped folder."""
    pieces: list[bytes] = []
    stream_query(data_dir, config, sql, "json", pieces.append)
    return _decoded(b"".join(pieces))


def stream_query(
    data_dir: Path,
    config: StoreConfig,
    sql: str,
    format_name: Format,
    write: Callable[[bytes], object],
) -> None:
    """The result in its format, as it comes."""
    server = settled_server(data_dir)
    if server is not None:
        request = {"sql": sql, "format": format_name}
        timeout_s = config.query_seconds_max + _ANSWER_SECONDS
        for piece in server.stream("POST", "/api/v1/query", request, timeout_s=timeout_s):
            write(piece)
        return
    from ingester.sandbox.offline import query

    run_trio(lambda: query(data_dir, config, sql, format_name, write))


def ask(server: LocalServer, sql: str, *, timeout_s: float = 60.0) -> Rows:
    request = {"sql": sql, "format": "json"}
    return _decoded(server.call("POST", "/api/v1/query", request, timeout_s=timeout_s))


def print_rows(rows: Rows) -> None:
    if sys.stdout.isatty():
        from rich.console import Console

        if rows.rows:
            Console().print(rows_table(rows))
        count = len(rows.rows)
        click.echo(f"{count} row{'' if count == 1 else 's'}", err=True)
        return
    click.echo("\t".join(name.translate(ESCAPES) for name in rows.columns))
    for row in rows.values():
        click.echo("\t".join(_text(value).translate(ESCAPES) for value in row))


def rows_table(rows: Rows) -> Any:
    """A rich table; numbers to the right, NULL dim."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    values = rows.values()
    for number, name in enumerate(rows.columns):
        column = [row[number] for row in values if row[number] is not None]
        numeric = bool(column) and all(_is_number(value) for value in column)
        table.add_column(Text(name), justify="right" if numeric else "left", overflow="fold")
    for row in values:
        table.add_row(
            *(
                Text("NULL", style="dim") if value is None else Text(printable(_text(value)))
                for value in row
            )
        )
    return table


def _decoded(content: bytes) -> Rows:
    if content.lstrip().startswith(b"["):  # an array of objects says the same
        objects = msgspec.json.decode(content, type=list[dict[str, Raw]])
        return Rows(
            columns=list(objects[0]) if objects else [],
            rows=[list(entry.values()) for entry in objects],
        )
    return msgspec.json.decode(content, type=Rows)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, Decimal)) and not isinstance(value, bool)


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, (str, Decimal)):
        return str(value)
    return _ENCODER.encode(value).decode()


def printable(text: str) -> str:
    """No control characters: what a sender put into an event must not drive the terminal."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() or character == "\n" else repr(character)[1:-1]
        for character in text
    )
