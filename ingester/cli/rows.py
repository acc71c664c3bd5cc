"""Rows of a query as a command shows them: a table, tab-separated lines, or JSON objects.

Cells stay the JSON text they arrived as until they are shown, so that every digit of a number
survives. Into a pipe, tab, line end and backslash are written as escapes: one row is one line, and
lines are written as the rows come, so that `| head` ends the query and no result is too large.
"""

from __future__ import annotations

import codecs
import csv
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
    "print_table",
    "printable",
    "rows_table",
    "run_query",
    "stream_lines",
    "stream_query",
]

# The server ends a query at `store.query_seconds_max`; its answer still has to arrive.
_ANSWER_SECONDS = 30.0

# More than anybody reads; a table is laid out as a whole.
_TABLE_ROWS_MAX = 1_000

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


def stream_lines(data_dir: Path, config: StoreConfig, sql: str) -> None:
    """Tab-separated lines under a header, as the rows come."""
    stream_query(data_dir, config, sql, "csv", _Lines(sys.stdout.write).add)


def print_table(rows: Rows) -> None:
    from rich.console import Console

    count = len(rows.rows)
    if rows.rows:
        Console().print(rows_table(Rows(rows.columns, rows.rows[:_TABLE_ROWS_MAX])))
    if count > _TABLE_ROWS_MAX:
        click.echo(f"{_TABLE_ROWS_MAX:,} of {count:,} rows; into a pipe all of them go", err=True)
    else:
        click.echo(f"{count} row{'' if count == 1 else 's'}", err=True)


def print_rows(rows: Rows) -> None:
    """A table on a terminal, else tab-separated lines under a header."""
    if sys.stdout.isatty():
        print_table(rows)
        return
    click.echo("\t".join(name.translate(ESCAPES) for name in rows.columns))
    for row in rows.values():
        click.echo("\t".join(_text(value).translate(ESCAPES) for value in row))


class _Lines:
    """CSV in pieces to tab-separated lines. A record ends at a line end outside of quotes: where
    the number of quotes before it is even, doubled ones included.
    """

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._begun: list[str] = []
        self._is_quoted = False
        csv.field_size_limit(2**31 - 1)

    def add(self, piece: bytes) -> None:
        *lines, rest = self._decoder.decode(piece).split("\n")
        records: list[str] = []
        for line in lines:
            self._begin(line + "\n")
            if not self._is_quoted:
                records.append("".join(self._begun))
                self._begun.clear()
        self._begin(rest)
        for fields in csv.reader(records):
            self._write("\t".join(field.translate(ESCAPES) for field in fields) + "\n")

    def _begin(self, text: str) -> None:
        self._begun.append(text)
        self._is_quoted ^= text.count('"') % 2 == 1


def rows_table(rows: Rows) -> Any:
    """A rich table: numbers to the right, a colour for each kind of value, NULL dim."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    values = rows.values()
    for number, name in enumerate(rows.columns):
        column = [row[number] for row in values if row[number] is not None]
        numeric = bool(column) and all(_is_number(value) for value in column)
        table.add_column(
            Text(printable(name)), justify="right" if numeric else "left", overflow="fold"
        )
    for row in values:
        table.add_row(
            *(
                Text("NULL" if value is None else printable(_text(value)), style=_style(value))
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


def _style(value: object) -> str:
    if value is None:
        return "dim"
    if _is_number(value):
        return "cyan"
    return "magenta" if isinstance(value, bool) else "" if isinstance(value, str) else "green"


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
