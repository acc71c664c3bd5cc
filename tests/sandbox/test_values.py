"""JSON forms of SQL values."""

from __future__ import annotations

import json
import math
import uuid
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingester.console.rows import answer_json, json_value, row_objects
from ingester.console.services import QueryAnswer


def answer(type_name: str, *values: object) -> QueryAnswer:
    return QueryAnswer(columns=["v"], types=[type_name], rows=[(value,) for value in values])


def text(type_name: str, value: object) -> str:
    body = answer_json(answer(type_name, value)).decode()
    json.loads(body)
    return body.split('"rows":[[', 1)[1].removesuffix("]]}")


@pytest.mark.parametrize(
    ("type_name", "value", "expected"),
    [
        ("TIMESTAMP", datetime(2024, 5, 1, 12), '"2024-05-01T12:00:00.000000Z"'),
        ("TIMESTAMP", datetime(1, 1, 1, 0, 0, 0, 5), '"0001-01-01T00:00:00.000005Z"'),
        (
            "TIMESTAMP WITH TIME ZONE",
            datetime(2024, 5, 1, 12, tzinfo=timezone(timedelta(hours=2))),
            '"2024-05-01T10:00:00.000000Z"',
        ),
        (
            "TIMESTAMP WITH TIME ZONE",
            datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=2))),
            '"0001-01-01T00:00:00.000000Z"',
        ),
        ("DATE", date(2024, 5, 1), '"2024-05-01"'),
        ("TIME", time(1, 2, 3), '"01:02:03"'),
        ("INTERVAL", timedelta(days=1), '"1 day, 0:00:00"'),
        ("UUID", uuid.UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
        ("BIGINT", 2**63 - 1, "9223372036854775807"),
        ("BIGINT", -(2**63), "-9223372036854775808"),
        ("HUGEINT", 2**100, str(2**100)),
        ("DECIMAL(18,3)", Decimal("1.500"), "1.500"),
        ("DECIMAL(38,0)", Decimal("1E+3"), "1000"),
        ("DOUBLE", math.nan, "null"),
        ("DOUBLE", -math.inf, "null"),
        ("DOUBLE", 0.1, "0.1"),
        ("BOOLEAN", True, "true"),
        ("BLOB", b"caf\xc3\xa9", '"café"'),
        ("BLOB", b"\xff\x00", '"base64:/wA="'),
        ("BLOB", b"", '""'),
        ("VARCHAR", 'a"b\u2028\x00', None),
        ("VARCHAR", None, "null"),
        ("JSON", '{"b": 0.10, "a": 12345678901234567890123}', None),
        ("JSON", None, "null"),
        ("JSON", "null", "null"),
        ("JSON", "not json", '"not json"'),
        ("JSON", "", '""'),
        ("INTEGER[]", [1, None, 3], "[1,null,3]"),
        ("DOUBLE[]", [math.inf], "[null]"),
        ("STRUCT(t TIMESTAMP, b BLOB)", {"t": datetime(2024, 1, 1), "b": b"\xfe"}, None),
        ("MAP(INTEGER, VARCHAR)", {1: "a"}, '{"1":"a"}'),
    ],
)
def test_value_has_its_documented_form(type_name: str, value: object, expected: str | None) -> None:
    written = text(type_name, value)
    if expected is not None:
        assert written == expected


def test_json_column_is_nested_with_its_own_digits_and_order() -> None:
    stored = '{"b": 0.10, "a": [12345678901234567890123, 1e400], "b": null}'
    assert text("JSON", stored) == stored


@given(st.text(alphabet='[]{}",:0123456789.eE+-truefalsn \\u\n\t\x00', max_size=12))
@settings(max_examples=300, deadline=None)
def test_only_json_is_written_as_it_is(stored: str) -> None:
    text("JSON", stored)


def test_deeply_nested_json_text_is_still_valid_json() -> None:
    json.loads(answer_json(answer("JSON", "[" * 5000 + "]" * 5000)))


def test_struct_values_are_converted_inside() -> None:
    written = json.loads(text("STRUCT", {"t": datetime(2024, 1, 1), "b": [b"\xfe"]}))
    assert written == {"t": "2024-01-01T00:00:00.000000Z", "b": ["base64:/g=="]}


def test_columns_of_one_name_are_kept_in_arrays_and_merge_in_objects() -> None:
    same = QueryAnswer(columns=["a", "a"], types=["INTEGER", "INTEGER"], rows=[(1, 2)])
    assert answer_json(same) == (
        b'{"columns":["a","a"],"types":["INTEGER","INTEGER"],"rows":[[1,2]]}'
    )
    assert row_objects(same) == [{"a": 2}]


def test_answer_without_rows_keeps_its_columns() -> None:
    assert answer_json(answer("JSON")) == b'{"columns":["v"],"types":["JSON"],"rows":[]}'


def test_repr_shows_counts_only() -> None:
    assert repr(answer("VARCHAR", "secret")) == "QueryAnswer(1 columns, 1 rows)"


VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(st.characters(exclude_categories=["Cs"])),
        st.binary(),
        st.datetimes(),
        st.datetimes(timezones=st.just(UTC)),
        st.dates(),
        st.decimals(),
        st.timedeltas(),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.text(max_size=3), st.integers()), inner, max_size=3),
    ),
    max_leaves=8,
)


@given(VALUES)
def test_any_value_becomes_valid_json(value: object) -> None:
    if isinstance(value, str):
        value = value.encode("utf-8", "replace").decode()
    json.loads(msgspec.json.encode(json_value(value)))
    json.loads(answer_json(answer("JSON", value)))
