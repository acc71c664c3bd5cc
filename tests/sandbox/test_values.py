"""JSON forms of SQL values."""

from __future__ import annotations

import csv
import io
import json
import math
import uuid
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingester.sandbox.formats import make_text_result
from ingester.sandbox.messages import Format
from ingester.sandbox.values import json_value


def result(
    format_name: Format, columns: list[str], types: list[str], *rows: tuple[object, ...]
) -> bytes:
    written = make_text_result(format_name, columns, types)
    return written.begin() + b"".join(written.rows([row]) for row in rows) + written.end()


def answer_json(type_name: str, *values: object) -> bytes:
    return result("json", ["v"], [type_name], *((value,) for value in values))


def text(type_name: str, value: object) -> str:
    body = answer_json(type_name, value).decode()
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
    json.loads(answer_json("JSON", "[" * 5000 + "]" * 5000))


def test_struct_values_are_converted_inside() -> None:
    written = json.loads(text("STRUCT", {"t": datetime(2024, 1, 1), "b": [b"\xfe"]}))
    assert written == {"t": "2024-01-01T00:00:00.000000Z", "b": ["base64:/g=="]}


def test_columns_of_one_name_are_kept_in_arrays_and_merge_in_objects() -> None:
    columns, types = ["a", "a"], ["INTEGER", "INTEGER"]
    assert result("json", columns, types, (1, 2)) == (
        b'{"columns":["a","a"],"types":["INTEGER","INTEGER"],"rows":[[1,2]]}'
    )
    assert result("ndjson", columns, types, (1, 2)) == b'{"a":2}\n'


def test_answer_without_rows_keeps_its_columns() -> None:
    assert answer_json("JSON") == b'{"columns":["v"],"types":["JSON"],"rows":[]}'
    assert result("csv", ["a", "b c"], ["JSON", "JSON"]) == b"a,b c\r\n"
    assert result("ndjson", ["a"], ["JSON"]) == b""


def test_csv_is_rfc_4180_and_tells_null_from_the_empty_text() -> None:
    types = ["VARCHAR", "BIGINT", "JSON", "TIMESTAMP", "BOOLEAN", "DOUBLE", "BLOB"]
    rows = [
        ('say "hi", \r\nplease', 2**62, '{"a": 0.10}', datetime(2024, 5, 1), True, 0.5, b"\xff"),
        ("", None, None, None, None, math.inf, b"=1+1"),
        (" edge", -1, "[]", None, False, -0.0, b""),
    ]
    written = result("csv", list("abcdefg"), types, *rows).decode()
    assert list(csv.reader(io.StringIO(written, newline=""), strict=True)) == [
        list("abcdefg"),
        [
            'say "hi", \r\nplease',
            str(2**62),
            '{"a": 0.10}',
            "2024-05-01T00:00:00.000000Z",
            "true",
            "0.5",
            "base64:/w==",
        ],
        ["", "", "", "", "", "", "=1+1"],
        [" edge", "-1", "[]", "", "false", "-0.0", ""],
    ]
    assert '\r\n"",,,,,,=1+1\r\n' in written


def test_a_timestamp_beyond_the_calendar_keeps_its_form() -> None:
    assert text("TIMESTAMP", "20000-01-01 00:00:00.5") == '"20000-01-01T00:00:00.500000Z"'
    assert text("TIMESTAMP WITH TIME ZONE", "20000-01-01 00:00:00+00") == (
        '"20000-01-01T00:00:00.000000Z"'
    )


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
    json.loads(answer_json("JSON", value))
