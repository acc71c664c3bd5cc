"""The export: all rows that a query finds, newest first, page after page, for one client.

1. A page is a search of its own, taken when the one before was sent: a slow client holds no thread
   and no snapshot, and memory is bounded by a page. The cursor is that of pages, so nothing is lost
   or told twice; rows that come in meanwhile are no part of it.
2. Texts are whole: a row that a list would cut is read by itself.
3. The first page is read before anything is sent, so that a refusal has its status. A later failure
   breaks the answer off, which every client sees.
4. It is an iterator and no generator: it may be dropped at any await.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import cast

import msgspec
from msgspec import Struct

from ..lql import Query
from .asked import parse_rows
from .fetch import documents
from .page import found_key, page
from .reading import Reading
from .requests import ExportQuery, RowsQuery
from .subjects import Subject

__all__ = ["ExportPage", "ExportStream", "export_page", "parse_export"]

_PAGE_ROWS = 1_000

# A spreadsheet takes a cell that begins so for a formula.
_FORMULAS = ("=", "+", "-", "@", "\t", "\r")

Pager = Callable[[str | None], Awaitable["ExportPage"]]


class ExportPage(Struct, frozen=True):
    """Encoded rows, and where the next page begins; None: there is none."""

    body: bytes
    cursor: str | None


def parse_export(text: str, subject: Subject) -> Query:
    """Raises QueryError, RequestError."""
    return parse_rows(text, subject.schema, "an export gives whole rows")


def export_page(
    reading: Reading, subject: Subject, request: ExportQuery, cursor: str | None
) -> ExportPage:
    """Blocking. Raises QueryError, InvalidField."""
    asked = RowsQuery(
        q=request.q,
        since=request.since,
        until=request.until,
        limit=_PAGE_ROWS,
        cursor=cursor,
    )
    found = page(reading, subject, asked)
    rows = [_whole(reading, subject, row) for row in found.rows]
    is_first = cursor is None
    if request.format == "csv":
        return ExportPage(_csv(subject.schema.every_column, rows, with_head=is_first), found.cursor)
    return ExportPage(b"".join(msgspec.json.encode(row) + b"\n" for row in rows), found.cursor)


class ExportStream:
    """Yields the bytes of a file; `first` was read to see whether it can be."""

    def __init__(self, first: ExportPage, pager: Pager) -> None:
        self._next: ExportPage | None = first
        self._pager = pager
        self._cursor: str | None = None

    def __aiter__(self) -> ExportStream:
        return self

    async def __anext__(self) -> bytes:
        found = self._next
        if found is None:
            if self._cursor is None:
                raise StopAsyncIteration
            found = await self._pager(self._cursor)
        self._next, self._cursor = None, found.cursor
        return found.body


def _whole(reading: Reading, subject: Subject, row: Mapping[str, object]) -> Mapping[str, object]:
    if not row.get("cut"):
        return row
    key, _ = found_key(reading, subject, cast(str, row["id"]))
    return documents(reading, subject, [key], is_whole=True)[0]


def _csv(names: Sequence[str], rows: Sequence[Mapping[str, object]], *, with_head: bool) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    if with_head:
        writer.writerow(names)
    for row in rows:
        writer.writerow([_field(row[name]) for name in names])
    return text.getvalue().encode("utf-8", "surrogatepass")


def _field(value: object) -> object:
    """A cell: JSON as its text; what a spreadsheet would run gets an apostrophe."""
    text = value if isinstance(value, str) else None
    if isinstance(value, msgspec.Raw):
        text = bytes(value).decode()
    if text is None:
        return value
    return f"'{text}" if text.startswith(_FORMULAS) else text
