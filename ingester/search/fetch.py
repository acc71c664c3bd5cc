"""Fetching: the rows of a page as documents.

1. A text beyond `TEXT_BYTES_MAX` is left out of a list and the row says so (`cut`); the row alone
   is shown whole.
2. A page ends early when its rows have more than `PAGE_BYTES_MAX`; the cursor goes on behind it.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..lql import Query, selection
from ..lql.sql import Fragment, sql
from .documents import cell, json_text
from .keys import Key
from .places import arms
from .reading import Reading, Row
from .subjects import Subject

__all__ = ["PAGE_BYTES_MAX", "TEXT_BYTES_MAX", "documents", "selected"]

TEXT_BYTES_MAX = 64 * 1024
PAGE_BYTES_MAX = 8 * 1024 * 1024

# Rows asked for at once: with texts of full length, what one statement may hold.
_CHUNK_ROWS = 100

Document = dict[str, object]


def documents(
    reading: Reading, subject: Subject, keys: Sequence[Key], *, is_whole: bool = False
) -> list[Document]:
    """Rows as objects, in the order of `keys`, fewer when they are large."""
    columns = subject.schema.every_column
    texts = set() if is_whole else set(subject.texts)
    selects = [_short(name) if name in texts else Fragment(name) for name in columns]
    lengths = [Fragment(f"strlen({name})") for name in subject.texts]
    found: list[Document] = []
    for row in _pages(reading, subject, keys, [*selects, *lengths]):
        document: Document = {
            name: json_text(value) if name == subject.payload else cell(value)
            for name, value in zip(columns, row, strict=False)
        }
        if texts and any(
            isinstance(length, int) and length > TEXT_BYTES_MAX for length in row[len(columns) :]
        ):
            document["cut"] = True
        found.append(document)
    return found


def selected(
    reading: Reading, subject: Subject, query: Query, keys: Sequence[Key]
) -> tuple[list[str], list[list[object]]]:
    """Names and rows of the `s:` clauses."""
    listed = selection(query, schema=subject.schema)
    names = [f"c{n}" for n in range(len(listed.names))]
    inner = Fragment(listed.sql, listed.params)
    selects = [_short(name) for name in names]
    kinds = [Fragment(f"typeof({name}) = 'JSON'") for name in names]
    rows = _pages(reading, subject, keys, [*selects, *kinds], inner=inner)
    count = len(names)
    return list(listed.names), [
        [
            json_text(value) if is_json or name == subject.payload else cell(value)
            for name, value, is_json in zip(listed.names, row[:count], row[count:], strict=True)
        ]
        for row in rows
    ]


def _short(name: str) -> Fragment:
    return Fragment(f"CASE WHEN strlen({name}::VARCHAR) <= {TEXT_BYTES_MAX} THEN {name} END")


def _pages(
    reading: Reading,
    subject: Subject,
    keys: Sequence[Key],
    selects: Sequence[Fragment],
    *,
    inner: Fragment | None = None,
) -> list[Row]:
    found: list[Row] = []
    byte_count = 0
    for start in range(0, len(keys), _CHUNK_ROWS):
        chunk = keys[start : start + _CHUNK_ROWS]
        rows = _chunk(reading, subject, chunk, selects, inner)
        for key in chunk:
            row = rows[key.request_number, key.line_number]
            byte_count += sum(len(value) for value in row if isinstance(value, str))
            if found and byte_count > PAGE_BYTES_MAX:
                return found
            found.append(row)
    return found


def _chunk(
    reading: Reading,
    subject: Subject,
    keys: Sequence[Key],
    selects: Sequence[Fragment],
    inner: Fragment | None,
) -> dict[tuple[int, int], Row]:
    listed = ", ".join(part.sql for part in selects)
    found: dict[tuple[int, int], Row] = {}
    for rows in arms(reading, subject, keys):
        if inner is not None:
            rows = sql("(SELECT {}, request_number, line_number FROM {})", inner, rows)
        for request_number, line_number, *row in reading.rows(
            f"SELECT request_number, line_number, {listed} FROM {rows.sql}", rows.params
        ):
            found[request_number, line_number] = tuple(row)  # type: ignore[index]
    return found
