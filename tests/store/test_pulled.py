"""Columns pulled out of payloads: a query means the same with them and without."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from ingester.lql import LOGS, compile_query, parse, paths_of, to_text
from ingester.lql.ast import Node, Query
from ingester.lql.paths import location
from ingester.lql.times import Window
from ingester.search.reading import Reading
from ingester.search.subjects import EVENT_ROWS, LOG_ROWS
from ingester.search.walk import asked_of, relation_within
from ingester.store import pulled
from ingester.store.pulled import SLOTS, Puller, chosen_paths, pulled_in
from ingester.store.sealing import Sealer
from tests.lql.oracle import holds
from tests.lql.strategies import logs, nodes
from tests.search.rows import NOW, Rows, ask, event, log
from tests.store.sealing_rows import seal_all
from tests.store.stores import opened

_TIME = datetime(2026, 4, 15, tzinfo=UTC)
_NAMES = ["service", "environment", "level", "message"]


def _texts(documents: list[Any]) -> pa.ChunkedArray:
    return pa.chunked_array([[json.dumps(each, ensure_ascii=False) for each in documents]])


@settings(max_examples=200, deadline=None)
@given(st.lists(logs, min_size=1, max_size=6), nodes)
def test_a_condition_on_pulled_columns_is_the_condition(
    rows: list[dict[str, Any]], where: Node
) -> None:
    paths = sorted(paths_of(Query(where), LOGS) or ())
    if not paths or any(location(keys) is None for keys in paths):
        return
    texts = _texts([row.get("attributes") for row in rows])
    puller = Puller(paths)
    columns = puller.columns(texts)
    puller.close()
    names = [f"pulled_{n}" for n in range(len(paths))]
    table = pa.table({
        "n": pa.array(range(len(rows))),
        "time": pa.nulls(len(rows), pa.timestamp("us")),
        "document": texts,
        **{name: pa.array([row.get(name) for row in rows], pa.string()) for name in _NAMES},
        **dict(zip(names, columns, strict=True)),
    })
    schema = structs.replace(LOGS, pulled=dict(zip(paths, names, strict=True)))
    compiled = compile_query(Query(where), now=_TIME, schema=schema)
    unknown = " OR ".join(f"{name} IS NULL" for name in names)
    with duckdb.connect(config={"threads": "1"}) as connection:
        connection.register("rows", table)
        found = connection.execute(
            f"SELECT n FROM (SELECT *, CASE WHEN {unknown} THEN document END::JSON AS attributes "
            f"FROM rows) WHERE {compiled.where_sql} ORDER BY n",
            list(compiled.params),
        ).fetchall()
    expected = [n for n, row in enumerate(rows) if holds(where, row)]
    assert [n for (n,) in found] == expected, to_text(Query(where))


@pytest.mark.parametrize(
    ("document", "value"),
    [
        ({"a": {"b": "x"}}, '"x"'),
        ({"a": {"b": 8.0}}, "8.0"),
        ({"a": {"b": None}}, "null"),
        ({"a": {"b": True}, "a.b": 1}, "true"),
        ({"a": {"c": 1}}, ""),
        ({}, ""),
        ("text", ""),
        ({"c": ["["]}, ""),
        # What the payload itself must tell.
        ({"a.b": 1}, None),
        ({"a": [{"b": 1}]}, None),
        ([{"a": {"b": 1}}], None),
        ({"a": {"b": [1]}}, None),
        ({"a": {"b": {"c": 1}}}, None),
        ({"a": {"b": "x" * 300}}, None),
    ],
)
def test_a_pulled_value_is_json_or_nothing_or_unknown(document: object, value: str | None) -> None:
    puller = Puller([("a", "b"), ("z",)])
    first, _ = puller.columns(_texts([document]))
    puller.close()
    assert first.to_pylist() == [value]


def test_payloads_that_cannot_be_read_are_unknown() -> None:
    puller = Puller([("a", "b"), ("z",)])
    columns = puller.columns(pa.chunked_array([['{"z": 1}', "{"]]))
    assert [column.to_pylist() for column in columns] == [[None, None]] * 2
    columns = puller.columns(pa.chunked_array([['{"z": 1}', None]]))
    assert [column.to_pylist() for column in columns] == [["", ""], ["1", ""]]
    puller.close()


def test_paths_are_those_of_many_scalars() -> None:
    rows = [
        {
            "user": {"id": n, "name": "x" * 100},
            "level": "info",
            "tags": ["a"],
            "odd": [n] if n == 501 else n,  # which is not sampled
            **({"rare": 1} if n < 20 else {"usual": None}),
        }
        for n in range(1_000)
    ]
    assert chosen_paths(_texts(rows)) == [("odd",), ("user", "id"), ("usual",)]
    assert chosen_paths(_texts(rows[:999])) == []
    assert chosen_paths(_texts([{f"k{n:02d}": 1 for n in range(99)}] * 1_000)) == [
        (f"k{n:02d}",) for n in range(8)
    ]
    assert chosen_paths(_texts([[1], "x", None, 3] * 250)) == []


_QUERIES = [
    "m.user.id:7",
    "-m.user.id:7 m.n:<50",
    'm.n:10..19 OR m.kind:"b"',
    "m.n:NULL",
    "-m.kind:~^a",
    "m.user.id:7 -m.absent:1",
    "m.mixed:2",
]
_CHARTS = [
    "c:count(*) c:group_by(t::hour, m.kind)",
    "c:countd(m.user.id) c:group_by(t::day)",
    "c:avg(m.n) c:group_by(t::day, m.user.id) m.kind:a",
    "c:count(m.kind) c:group_by(t::day)",
    "c:countd(m.mixed)",
]
_SERIES = [
    {"interval": "hour", "group_by": "body.kind"},
    {"interval": "day", "group_by": "body.user.id", "filter": "m.n:<150"},
    {"interval": "hour", "group_by": "body.mixed"},
    {"interval": "hour", "filter": "m.kind:a"},
]


def _without_cost(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name not in ("cost", "position")}


@pytest.mark.parametrize("table", ["logs", "events"])
def test_sealed_rows_answer_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    monkeypatch.setattr(pulled, "_ROWS_MIN", 10)
    monkeypatch.setattr(pulled, "_SAMPLE_ROWS", 10)
    with opened(tmp_path) as store:
        made = Rows(store)
        subject = LOG_ROWS if table == "logs" else EVENT_ROWS
        for start in (0, 100):
            bodies = [
                {
                    "user": {"id": n % 9},
                    "n": n if n % 7 else None,
                    "kind": "ab"[n % 2],
                    "mixed": [2] if n == 150 else n % 3,
                }
                for n in range(start, start + 100)
            ]
            times = [NOW - timedelta(minutes=n) for n in range(start, start + 100)]
            rows = [
                log(at, f"m {at}", attributes=body, received_at=NOW)
                if table == "logs"
                else event(at, body=body, received_at=NOW)
                for at, body in zip(times, bodies, strict=True)
            ]
            made.add(table, rows)
            store.rotate()

        def answers() -> list[Any]:
            return [
                *(_without_cost(ask(store, f"/{table}", q=q, limit="500")) for q in _QUERIES),
                *(_without_cost(ask(store, f"/{table}", q=q)) for q in _CHARTS),
                *(_without_cost(ask(store, f"/{table}/histogram", q=q)) for q in _QUERIES),
                *(ask(store, "/events/timeseries", **each)["points"] for each in _SERIES),
            ]

        before = answers()
        assert all(answer.get("rows") for answer in before[:3])
        assert seal_all(store) == 2
        assert answers() == before
        files = [store.sealed.path(file) for file in store.sealed.files[table]]
        assert [len(pulled_in(path)) for path in files] == [4, 3]
        names = pq.read_schema(files[0]).names
        with Reading.open(store, seconds_max=20, now=NOW) as reading:
            query = parse("m.user.id:7", schema=subject.schema)
            schema, rows_asked = asked_of(reading, subject, query, Window(None, None))
            assert [*schema.pulled] == [("user", "id")]
            assert rows_asked.count("read_parquet") == 1
            for text in ("m.mixed:2", "m.mixed:2 m.n:1"):
                query = parse(text, schema=subject.schema)
                _, rows_asked = asked_of(reading, subject, query, Window(None, None))
                assert rows_asked.count("read_parquet") == 2  # one file knows, the other does not
            query = parse("m.absent:2", schema=subject.schema)
            assert asked_of(reading, subject, query, Window(None, None)) == (
                subject.schema,
                relation_within(reading, subject, Window(None, None)),
            )
        joined = Sealer(store).join(store.sealed.files[table])
        store.remove_unread()
        assert answers() == before
        path = store.sealed.path(joined)
        assert pulled_in(path) == {
            ("kind",): SLOTS[0],
            ("n",): SLOTS[2],
            ("user", "id"): SLOTS[3],
        }
        assert pq.read_schema(path).names == names
