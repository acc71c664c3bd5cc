"""The export: every row once, whole, as lines or as a table that no spreadsheet runs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ingester.errors import QueryError, RequestError
from ingester.search.export import ExportPage, ExportStream, export_page, parse_export
from ingester.search.fetch import TEXT_BYTES_MAX
from ingester.search.reading import Reading
from ingester.search.requests import ExportQuery
from ingester.search.subjects import LOG_ROWS
from tests.search.rows import NOW, Rows, log
from tests.store.stores import opened


def exported(store: Any, between: Callable[[], object] | None = None, **asked: Any) -> list[bytes]:
    pages: list[bytes] = []
    cursor: str | None = None
    while not pages or cursor is not None:
        if between is not None and pages:
            between()
        with Reading.open(store, seconds_max=20, now=NOW) as reading:
            found = export_page(reading, LOG_ROWS, ExportQuery(**asked), cursor)
        pages.append(found.body)
        cursor = found.cursor
    return pages


def test_all_rows_come_once_over_pages_while_others_arrive(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        rows = Rows(store)
        rows.add("logs", [log(NOW - timedelta(seconds=n), f"line {n}") for n in range(2_300)])
        pages = exported(store, lambda: rows.add("logs", [log(NOW - timedelta(seconds=0.5))]))
        assert len(pages) == 3
        told = [json.loads(line)["message"] for line in b"".join(pages).splitlines()]
        assert told == [f"line {n}" for n in range(2_300)]
        told = b"".join(exported(store, q='m.message:"line 77"')).splitlines()
        assert [json.loads(line)["message"] for line in told] == ["line 77"]


def test_long_texts_are_whole(tmp_path: Path) -> None:
    long = "x" * (TEXT_BYTES_MAX + 1)
    with opened(tmp_path) as store:
        Rows(store).add("logs", [log(NOW, long), log(NOW - timedelta(seconds=1))])
        (page,) = exported(store)
        first, second = (json.loads(line) for line in page.splitlines())
    assert first["message"] == first["attributes"]["message"] == long
    assert "cut" not in first
    assert second["message"] == "hello"


def test_a_table_has_one_head_and_nothing_that_a_spreadsheet_runs(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        texts = ["=cmd|' /C calc'!A0", '"quoted", and\nbroken', "plain"]
        Rows(store).add(
            "logs", [log(NOW - timedelta(seconds=n), text) for n, text in enumerate(texts)]
        )
        body = b"".join(exported(store, format="csv")).decode()
        assert exported(store, format="csv", q="nowhere") == [
            body.splitlines()[0].encode() + b"\r\n"
        ]
    head, *rows = csv.reader(io.StringIO(body, newline=""))
    assert head == list(LOG_ROWS.schema.every_column)
    found = [dict(zip(head, row, strict=True)) for row in rows]
    assert [row["message"] for row in found] == [f"'{texts[0]}", *texts[1:]]
    assert json.loads(found[2]["attributes"]) == {"message": "plain"}


async def test_pages_are_asked_for_one_at_a_time_when_the_one_before_was_taken() -> None:
    asked: list[str | None] = []

    async def pager(cursor: str | None) -> ExportPage:
        asked.append(cursor)
        return ExportPage(b"second", None)

    stream = ExportStream(ExportPage(b"first", "c1"), pager)
    assert await anext(stream) == b"first"
    assert asked == []
    assert [piece async for piece in stream] == [b"second"]
    assert asked == ["c1"]


def test_what_is_no_list_of_rows_is_refused() -> None:
    with pytest.raises(RequestError, match="leave out c: and s:"):
        parse_export("c:count(*)", LOG_ROWS)
    with pytest.raises(QueryError):
        parse_export("level:>", LOG_ROWS)
