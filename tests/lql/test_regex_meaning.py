"""A regex finds in a stored column what Python's finds: DuckDB rewrites some patterns to LIKE."""

from __future__ import annotations

import re

import duckdb
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from ingester.lql.ast import Column, Filter, Text
from ingester.lql.predicates import predicate_of
from ingester.lql.sql import Fragment

_ATOMS = ["a", "b", ".", ".*", "^", "$", "%", "_", "\\.", "a|b", "(a)", "[ab]", "\\\\", "é", "[^a]"]
_CHARACTERS = ["a", "b", ".", "\n", "%", "_", "A", "\\", "é"]


@pytest.fixture(scope="module")
def connection() -> duckdb.DuckDBPyConnection:
    return duckdb.connect(config={"threads": "1"})


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from(_ATOMS), min_size=1, max_size=5).map("".join),
    st.lists(st.lists(st.sampled_from(_CHARACTERS), max_size=6).map("".join), min_size=2),
)
@example("$a", ["a", "ab"])
@example("a.b", ["a\nb", "a_b"])
def test_regex_finds_what_it_should(
    connection: duckdb.DuckDBPyConnection, pattern: str, texts: list[str]
) -> None:
    try:
        expected = re.compile(pattern.replace("$", "\\Z"))
    except re.error:
        assume(False)
    connection.execute("CREATE OR REPLACE TABLE t AS SELECT unnest(?::VARCHAR[]) AS x", [texts])
    found = predicate_of(Filter(Column("message"), "~", Text(pattern))).of_text(Fragment("x"))
    rows = connection.execute(f"SELECT x FROM t WHERE {found.sql}", list(found.params)).fetchall()
    assert [row[0] for row in rows] == [text for text in texts if expected.search(text)]
