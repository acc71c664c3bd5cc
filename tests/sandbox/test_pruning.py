"""Sealed files that a statement can do without are left out, and no others."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest

from ingester.sandbox import queries
from ingester.sandbox.messages import QueryRequest
from ingester.sandbox.pruning import FileSpan, bounds_of, evaluation, may_hold
from tests.sandbox.asking import open_asking
from tests.search.rows import Rows, event
from tests.store.sealing_rows import seal_all

_FIRST = datetime(2026, 1, 1, tzinfo=UTC)
_ALL = set(range(1, 11))
_TEMPLATE = "SELECT json_serialize_sql('SELECT TRY_CAST(NULL AS TIMESTAMP)')"


def _span(day: int) -> FileSpan:
    """Of a file with the events of one day of January, which arrived the day after."""
    low = int((_FIRST + timedelta(days=day - 1)).timestamp()) * 10**6
    day_us = 86_400 * 10**6
    return FileSpan(low, low + day_us - 1, low + day_us, low + 2 * day_us - 1)


def _kept(sql: str) -> set[int]:
    """The days of January, of ten files, that the child would read."""
    with duckdb.connect() as connection:
        ((text,),) = connection.execute("SELECT json_serialize_sql(?)", [sql]).fetchall()
        bounds = bounds_of(json.loads(text), "events")
        if not bounds:
            return _ALL
        ((template,),) = connection.execute(_TEMPLATE).fetchall()
        asked = json.dumps(evaluation(json.loads(template), bounds))
        ((select,),) = connection.execute("SELECT json_deserialize_sql(?)", [asked]).fetchall()
        (values,) = connection.execute(select).fetchall()
    return {day for day in _ALL if may_hold(_span(day), bounds, values)}


_FROM = "SELECT count(*) FROM events"


@pytest.mark.parametrize(
    ("sql", "days"),
    [
        (f"{_FROM} WHERE created_at >= '2026-01-09 12:00'", {9, 10}),
        (f"{_FROM} WHERE created_at > TIMESTAMP '2026-01-09 12:00' AND action = 'x'", {9, 10}),
        (f"{_FROM} WHERE created_at < DATE '2026-01-02' AND (1 = 1 AND action <> 'x')", {1, 2}),
        (f"{_FROM} WHERE '2026-01-09 12:00' <= created_at", {9, 10}),
        (f"{_FROM} WHERE NOT created_at >= '2026-01-08 12:00'", _ALL - {9, 10}),
        (f"{_FROM} WHERE created_at BETWEEN '2026-01-04 12:00' AND '2026-01-05 12:00'", {4, 5}),
        (f"{_FROM} WHERE created_at = '2026-01-04 12:00'", {4}),
        (f"{_FROM} WHERE created_at >= TIMESTAMPTZ '2026-01-09 12:00:00+00'", {9, 10}),
        (f"{_FROM} WHERE received_at < '2026-01-02 12:00'", {1}),
        (f"{_FROM} AS e WHERE E.Created_At >= '2026-01-09 12:00'", {9, 10}),
        (f"{_FROM} WHERE events.created_at >= '2026-01-09 12:00'", {9, 10}),
        (f"{_FROM} WHERE created_at >= now() - INTERVAL 1 DAY", set()),
        (f"{_FROM} WHERE created_at >= date_trunc('day', now())", set()),
        (f"SELECT * FROM ({_FROM} WHERE created_at >= '2026-01-09 12:00')", {9, 10}),
        (f"WITH e AS ({_FROM} WHERE created_at > '2026-01-09 12:00') FROM e", {9, 10}),
        (
            f"({_FROM} WHERE created_at < '2026-01-01 12:00') UNION ALL "
            f"({_FROM} WHERE created_at > '2026-01-10 12:00')",
            {1, 10},
        ),
        # The margin of an hour.
        (f"{_FROM} WHERE created_at >= '2026-01-10 00:30'", {9, 10}),
        # Nothing is certain.
        (_FROM, _ALL),
        (f"{_FROM} WHERE created_at >= '2026-01-09' OR action = 'x'", _ALL),
        (f"{_FROM} WHERE NOT (created_at >= '2026-01-09' AND action = 'x')", _ALL),
        (f"{_FROM} WHERE created_at >= CURRENT_DATE", _ALL),
        (f"{_FROM} WHERE created_at + INTERVAL 1 DAY >= '2026-01-09'", _ALL),
        (f"{_FROM} WHERE created_at >= received_at", _ALL),
        (f"{_FROM} WHERE created_at >= (SELECT TIMESTAMP '2026-01-09')", _ALL),
        (f"{_FROM} WHERE created_at >= 'no time'", _ALL),
        (f"{_FROM} WHERE other.created_at >= '2026-01-09'", _ALL),
        (f"{_FROM} WHERE body.created_at >= '2026-01-09'", _ALL),
        (f"{_FROM} AS e(created_at, x) WHERE created_at >= '2026-01-09'", _ALL),
        (f"{_FROM} JOIN logs USING (id) WHERE created_at >= '2026-01-09'", _ALL),
        (f"{_FROM} TABLESAMPLE 10 ROWS WHERE created_at >= '2026-01-09'", _ALL),
        (f"{_FROM} WHERE created_at >= '2026-01-09' UNION ALL {_FROM}", _ALL),
        (f"WITH events AS (SELECT 1) {_FROM} WHERE created_at >= '2026-01-09'", _ALL),
        ("SELECT created_at >= '2026-01-09' FROM events", _ALL),
        (f"{_FROM} GROUP BY created_at HAVING created_at >= '2026-01-09'", _ALL),
    ],
)
def test_files_stay_unless_no_row_of_theirs_can_be_asked_for(sql: str, days: set[int]) -> None:
    assert _kept(sql) == days


async def test_answers_are_the_same_with_fewer_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[QueryRequest] = []

    def noted(**fields: object) -> QueryRequest:
        asked.append(QueryRequest(**fields))  # type: ignore[arg-type]
        return asked[-1]

    async with open_asking(tmp_path) as asking:
        made = Rows(asking.store)
        for day in range(5):
            at = _FIRST + timedelta(days=day)
            made.add("events", [event(at + timedelta(hours=n), f"a{day}") for n in range(24)])
            asking.store.rotate()
        assert seal_all(asking.store) == 5
        statements = [
            "SELECT action, count(*) FROM events WHERE created_at >= '2026-01-04 12:00' "
            "GROUP BY ALL ORDER BY 1",
            "SELECT (SELECT count(*) FROM events WHERE received_at < '2026-01-01 05:00'), "
            "(SELECT count(*) FROM events WHERE created_at = '2026-01-05')",
        ]
        pruned = [await asking.rows(sql) for sql in statements]
        assert pruned == [[["a3", 12], ["a4", 24]], [[10, 1]]]
        monkeypatch.setattr(queries, "QueryRequest", noted)
        monkeypatch.setattr(queries, "_spans", lambda _: {})
        assert [await asking.rows(sql) for sql in statements] == pruned
        assert [len(request.files["events"]) for request in asked] == [6, 6]
