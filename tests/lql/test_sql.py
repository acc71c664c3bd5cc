"""What the compiler hands to the database: parameters, never text of the query."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingester.lql import EVENTS, LOGS, chart_statement, compile_query, matches, parse, selection
from ingester.lql.ast import Filter, Path, Query, Text
from ingester.lql.compiler import Compiled
from ingester.lql.predicates import json_string

NOW = datetime(2026, 4, 15, 10, 20, 30, tzinfo=UTC)

SIMPLE: list[tuple[str, str, tuple[object, ...]]] = [
    ("", "true", ()),
    ("timeout", "(contains(message, ?))", ("timeout",)),
    ("-a", "(CASE WHEN contains(message, ?) THEN false ELSE true END)", ("a",)),
    ("a b", "((contains(message, ?)) AND (contains(message, ?)))", ("a", "b")),
    ("a OR b", "((contains(message, ?)) OR (contains(message, ?)))", ("a", "b")),
    ("service:x", "(service = ?)", ("x",)),
    ("environment:NULL", "(environment IS NULL)", ()),
    ("~a.b", "(regexp_matches(message, ?))", ("a.b",)),
    ("f:a f:b", "service IN (?, ?)", ("a", "b")),
    ("t:>=2026-04-01", "time >= ?", (datetime(2026, 4, 1),)),
    (
        "a t:today f:x",
        "(contains(message, ?)) AND time >= ? AND time < ? AND service IN (?)",
        ("a", datetime(2026, 4, 15), datetime(2026, 4, 16), "x"),
    ),
]


@pytest.mark.parametrize(("query", "where", "params"), SIMPLE)
def test_simple_queries_compile_to_simple_sql(
    query: str, where: str, params: tuple[object, ...]
) -> None:
    found = compile_query(parse(query), now=NOW)
    assert (found.where_sql, found.params) == (where, params)


def test_pieces_are_told_apart() -> None:
    found = compile_query(parse("a t:today f:x"), now=NOW)
    assert isinstance(found, Compiled)
    assert found.window.start == datetime(2026, 4, 15, tzinfo=UTC)
    assert found.window.end == datetime(2026, 4, 16, tzinfo=UTC)
    assert found.services == ("x",)


HOSTILE = [
    *(
        "'",
        '"',
        "\\",
        "*",
        "",
        "?",
        "$",
        "$.",
        "..",
        "[0]",
        "[*]",
        "a]",
        "0",
        "-1",
        "#",
        "@",
        "~",
        "/",
    ),
    *("~0", "~1", "a.b", "'; DROP TABLE logs; --", '"; --', "{}", "%s", ":x", "\n", "\x00", "\x1f"),
    *("é", "😀", "\u2028", "\\u0061", "\\", '\\"', "lambda", "d", "x", " ", "?" * 3, "a" * 500),
]


@pytest.mark.parametrize("key", HOSTILE)
@pytest.mark.parametrize("other", ["a", "0", "*", ""])
def test_hostile_keys_are_only_keys(key: str, other: str) -> None:
    """Also against a document of everything else, in which they must not be found."""
    found = compile_query(Query(Filter(Path((key, other), True), "=", Text("v"))), now=NOW)
    assert "DROP" not in found.where_sql
    connection = duckdb.connect(config={"threads": "1"})
    decoys = {name: {"b": "v"} for name in [*HOSTILE, "b"] if name != key}
    documents: list[tuple[Any, bool]] = [
        ({key: {other: "v"}, **decoys}, True),
        ({key: [{other: ["w", "v"]}]}, True),
        ([{key: [{other: "w"}, {other: "v"}]}], True),
        ({key: ["v"]}, False),
        (decoys, False),
        ({"b": {key: {other: "v"}}}, False),
    ]
    for ascii_only in (False, True):
        for document, expected in documents:
            text = json.dumps(document, ensure_ascii=ascii_only)
            rows = connection.execute(
                f"SELECT count(*) FROM (SELECT unnest([?::JSON]) AS attributes) AS logs "
                f"WHERE {found.where_sql}",
                [text, *found.params],
            ).fetchall()
            assert rows == [(int(expected),)], (key, document)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=10))
def test_text_is_written_as_duckdb_writes_it(text: str) -> None:
    rows = duckdb.execute("SELECT to_json(?::VARCHAR)::VARCHAR", [text]).fetchall()
    assert rows == [(json_string(text),)]


def test_every_low_character_is_written_as_duckdb_writes_it() -> None:
    text = "".join(map(chr, range(0x300)))
    rows = duckdb.execute("SELECT to_json(?::VARCHAR)::VARCHAR", [text]).fetchall()
    assert rows == [(json_string(text),)]


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ('{"\\u0061":"\\u0078y"}', "m.a:xy"),
        ('{"a":"x\\/y"}', "m.a:x/y"),
        ('{"x\\/y":1}', "m.`x/y`:1"),
        ('{ "a" : [ "x" , "b" ] }', "m.a:b"),
        (' [ { "a" : 1 } ]', "m.a:1"),
        ('{"a":8e0}', "m.a:8"),
        ('{"a":-0.0}', "m.a:0"),
        ('{"a":1e22}', "m.a:10000000000000000000000"),
        ('{"a":1e23}', "m.a:1e23"),
        ('{"a":1e400}', "m.a:1e400"),
        ('{"a":123456789012345678901234567890}', "m.a:>=123456789012345678901234567890"),
        ('{"a":"\\ud83d\\ude00"}', "m.a:😀"),
    ],
)
def test_the_way_json_was_written_does_not_matter(text: str, query: str) -> None:
    found = compile_query(parse(query), now=NOW)
    for kind in ("JSON", "VARCHAR"):
        rows = duckdb.execute(
            f"SELECT count(*) FROM (SELECT unnest([?::{kind}]) AS attributes) AS logs "
            f"WHERE {found.where_sql}",
            [text, *found.params],
        ).fetchall()
        assert rows == [(1,)]


@pytest.fixture
def logs() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(config={"threads": "1"})
    connection.execute(
        "CREATE TABLE logs(id VARCHAR, time TIMESTAMP, received_at TIMESTAMP, service VARCHAR, "
        "environment VARCHAR, level VARCHAR, message VARCHAR, attributes JSON, batch_id BIGINT)"
    )
    rows = [
        ("00:00:01", "cart", "error", '{"ms": 10, "user": {"id": "u1"}, "flat.key": 1}'),
        ("00:00:59", "cart", "info", '{"ms": "30", "user": {"id": "u2"}, "level": "WARN"}'),
        ("00:01:00", "shop", "info", '{"ms": "NaN", "user": {"id": "u1"}, "items": [{"q": 1}]}'),
        ("00:01:30", "shop", "info", '{"ms": true, "items": [{"q": 2}, {"q": [3, "x"]}]}'),
    ]
    for n, (time, service, level, attributes) in enumerate(rows):
        connection.execute(
            "INSERT INTO logs VALUES (?, ?, ?, ?, 'prod', ?, 'm', ?, 1)",
            [f"{n}", f"2026-04-15 {time}", f"2026-04-15 {time}", service, level, attributes],
        )
    return connection


CHARTS: list[tuple[str, list[tuple[object, ...]]]] = [
    ("c:count(*)", [(0, 2), (1, 2)]),
    ("c:count(m.user.id)", [(0, 2), (1, 1)]),
    ("c:count(flat.key)", [(0, 1), (1, 0)]),
    ("c:countd(m.user.id) c:group_by(t::day)", [(0, 2)]),
    ("c:avg(m.ms)", [(0, 20.0), (1, None)]),
    ("c:sum(m.ms) c:group_by(t::hour)", [(0, 40.0)]),
    ("c:min(m.ms)", [(0, 10.0), (1, None)]),
    ("c:max(m.ms)", [(0, 30.0), (1, None)]),
    ("c:p50(m.ms)", [(0, 20.0), (1, None)]),
    ("c:p99(m.ms) m.ms:>20", [(0, 30.0)]),
    ("c:group_by(t::day, service)", [(0, "cart", 2), (0, "shop", 2)]),
    (
        "c:group_by(t::day, m.level, m.user.id)",
        [
            (0, "error", "u1", 1),
            (0, "info", "u1", 1),
            (0, "info", None, 1),
            (0, "warning", "u2", 1),
        ],
    ),
    ("c:countd(level)", [(0, 2), (1, 1)]),
    ("c:max(flat.key)", [(0, 1.0), (1, None)]),
]


@pytest.mark.parametrize(("query", "expected"), CHARTS)
def test_chart_is_drawn(
    logs: duckdb.DuckDBPyConnection, query: str, expected: list[tuple[object, ...]]
) -> None:
    statement = chart_statement(parse(query), now=NOW)
    rows = logs.execute(statement.sql, list(statement.params)).fetchall()
    assert [(row[0].minute, *row[1:]) for row in rows] == expected
    assert len(statement.names) == len(expected[0])
    assert statement.names[0] == "bucket"
    assert statement.names[-1] == "value"


def test_chart_names_its_groups() -> None:
    statement = chart_statement(parse("c:group_by(t::day, m.a, service)"), now=NOW)
    assert statement.names == ("bucket", "metadata.a", "service", "value")


def test_chart_takes_another_relation(logs: duckdb.DuckDBPyConnection) -> None:
    statement = chart_statement(
        parse("c:count(*)"), now=NOW, relation="(SELECT * FROM logs LIMIT 1)"
    )
    assert logs.execute(statement.sql, list(statement.params)).fetchall() == [
        (datetime(2026, 4, 15), 1)
    ]


def test_selection_lists_what_was_asked(logs: duckdb.DuckDBPyConnection) -> None:
    query = parse("s:t s:service s:m.user.id@user s:items.q s:flat.key s:m.`'; --` s:m.`*`.0")
    found = selection(query)
    assert found.names == (
        *("t", "service", "user", "metadata.items.q", "metadata.flat.key"),
        *("metadata.`'; --`", "metadata.`*`.`0`"),
    )
    rows = logs.execute(f"SELECT {found.sql} FROM logs ORDER BY id", list(found.params)).fetchall()
    assert rows[0] == (datetime(2026, 4, 15, 0, 0, 1), "cart", '"u1"', None, "1", None, None)
    assert [row[3] for row in rows[2:]] == ["[1]", '[2,[3,"x"]]']


@pytest.mark.parametrize("query", ["", "s:*"])
def test_everything_is_the_columns_of_the_view(query: str) -> None:
    assert selection(parse(query)).names == LOGS.every_column


def test_events_are_searched_by_their_own_columns() -> None:
    connection = duckdb.connect(config={"threads": "1"})
    connection.execute(
        "CREATE TABLE events(id VARCHAR, received_at TIMESTAMP, source VARCHAR, account_id VARCHAR,"
        " user_id VARCHAR, created_at TIMESTAMP, action VARCHAR, session_id VARCHAR, body JSON, "
        "batch_id BIGINT)"
    )
    body = '{"accountId": "a1", "plan": "pro", "level": "WARN", "details": {"size": 5}}'
    connection.execute(
        "INSERT INTO events VALUES "
        "('1', NULL, 'app', 'a1', 'u1', '2026-04-15', 'click', NULL, ?, 1)",
        [body],
    )
    for query, expected in [
        ("account_id:a1 user_id:u1 action:click session_id:NULL source:app", 1),
        ("m.plan:pro accountId:a1 details.size:>4", 1),
        ("body.plan:pro body.details.size:>4 -body.x:1", 1),
        ("level:WARN", 1),
        ("level:warning", 0),
        ("pro", 1),
        ("nothing", 0),
        ("f:app t:2026-04-15", 1),
        ("created_at:2026-04-16", 0),
        ("message:pro", 0),
    ]:
        found = compile_query(parse(query, schema=EVENTS), now=NOW, schema=EVENTS)
        rows = connection.execute(
            f"SELECT count(*) FROM events WHERE {found.where_sql}", list(found.params)
        ).fetchall()
        assert rows == [(expected,)], query
    chart = chart_statement(
        parse("c:countd(user_id) c:group_by(t::day, m.plan)", schema=EVENTS), now=NOW, schema=EVENTS
    )
    rows = connection.execute(chart.sql, list(chart.params)).fetchall()
    assert rows == [(datetime(2026, 4, 15), "pro", 1)]
    # The payload's column may be named too; a key of that name is m.body.
    names = selection(parse("s:created_at s:body.x s:m.body.x", schema=EVENTS), schema=EVENTS).names
    assert names == ("created_at", "metadata.x", "metadata.body.x")


def test_matches_takes_times_of_any_kind() -> None:
    aware = datetime(2026, 4, 15, 12, tzinfo=UTC)
    for time in (aware, aware.replace(tzinfo=None), "2026-04-15T14:00:00+02:00"):
        assert matches("t:2026-04-15T12:00..2026-04-15T12:00", {"time": time})
    assert not matches("t:today", {"time": "no time"})
    assert not matches("t:today", {"time": 5})


def test_matches_serves_threads_at_once() -> None:
    def ask(n: int) -> bool:
        return matches(f"m.n:{n} word", {"message": "a word", "attributes": {"n": n}})

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(ask, range(100)))


def test_batch_may_carry_json_as_any_arrow_string() -> None:
    found = compile_query(parse("m.a.b:2 -m.c:1 level:err"), now=NOW)
    texts = ['{"a":[{"b":1},{"b":2}]}', '{"a":{"b":2},"c":1}', None]
    for kind in (pa.string(), pa.large_string(), pa.string_view(), pa.json_(pa.string())):
        storage = pa.array(texts, pa.string()).cast(getattr(kind, "storage_type", kind))
        is_json = isinstance(kind, pa.JsonType)
        column = pa.ExtensionArray.from_storage(kind, storage) if is_json else storage
        batch = pa.table({"attributes": column, "level": pa.array(["error"] * 3)})
        connection = duckdb.connect(config={"threads": "1"})
        connection.register("batch", batch)
        rows = connection.execute(
            f"SELECT count(*) FROM batch WHERE {found.where_sql}", list(found.params)
        ).fetchall()
        assert rows == [(1,)], kind
