"""The compiled SQL means what the definition says, and the same wherever the row lies."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingester.lql.ast import Node, Query
from ingester.lql.compiler import compile_query
from ingester.lql.parser import parse
from ingester.lql.printer import to_text

from .oracle import holds
from .strategies import logs, nodes

_NOW = datetime(2026, 4, 15, 10, 20, 30, tzinfo=UTC)
_TEXT = ["service", "environment", "level", "message", "attributes"]


def _batch(rows: list[dict[str, Any]]) -> pa.Table:
    columns: dict[str, Any] = {"n": pa.array(range(len(rows)), pa.int64())}
    columns["time"] = pa.nulls(len(rows), pa.timestamp("us"))
    for name in _TEXT:
        found = [row.get(name) for row in rows]
        if name == "attributes":
            found = [json.dumps(value, ensure_ascii=False) for value in found]
        columns[name] = pa.array(found, pa.string())
    return pa.table(columns)


@pytest.fixture(scope="module")
def connection() -> duckdb.DuckDBPyConnection:
    return duckdb.connect(config={"threads": "1"})


def _found(connection: duckdb.DuckDBPyConnection, relation: str, where: Node) -> list[int]:
    compiled = compile_query(Query(where), now=_NOW)
    rows = connection.execute(
        f"SELECT n FROM {relation} WHERE {compiled.where_sql} ORDER BY n", list(compiled.params)
    ).fetchall()
    return [row[0] for row in rows]


@settings(max_examples=200, deadline=None)
@given(st.lists(logs, min_size=1, max_size=6), st.lists(nodes, min_size=1, max_size=4))
def test_row_batch_and_table_give_the_answer_of_the_definition(
    connection: duckdb.DuckDBPyConnection, rows: list[dict[str, Any]], filters: list[Node]
) -> None:
    connection.register("batch", _batch(rows))
    connection.execute(
        "CREATE OR REPLACE TABLE logs AS SELECT n, time, service, environment, level, message, "
        "attributes::JSON AS attributes FROM batch"
    )
    for where in filters:
        text = to_text(Query(where))
        expected = [n for n, row in enumerate(rows) if holds(where, row)]
        assert _found(connection, "batch", where) == expected, text
        assert _found(connection, "logs", where) == expected, text
        first = _found(connection, "(SELECT * FROM logs LIMIT 1)", where)
        assert first == [n for n in expected if n == 0], text


@settings(max_examples=30, deadline=None)
@given(st.lists(logs, min_size=1, max_size=6), nodes)
def test_parquet_gives_the_answer_of_the_definition(
    tmp_path_factory: pytest.TempPathFactory,
    connection: duckdb.DuckDBPyConnection,
    rows: list[dict[str, Any]],
    where: Node,
) -> None:
    path = Path(tmp_path_factory.getbasetemp()) / "logs.parquet"
    connection.register("batch", _batch(rows))
    connection.execute(f"COPY batch TO '{path}' (FORMAT parquet)")
    expected = [n for n, row in enumerate(rows) if holds(where, row)]
    assert _found(connection, f"'{path}'", where) == expected, to_text(Query(where))


@settings(max_examples=200, deadline=None)
@given(nodes, logs)
def test_printing_does_not_change_the_meaning(where: Node, log: dict[str, Any]) -> None:
    assert parse(to_text(Query(where))).where == where
    assert holds(parse(to_text(Query(where))).where, log) == holds(where, log)
