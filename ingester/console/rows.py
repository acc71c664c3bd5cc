"""Rows as JSON: how each SQL value looks to a client of the console API.

| SQL | JSON |
|---|---|
| TIMESTAMP, with or without time zone | `"2024-05-01T12:00:00.000000Z"`, UTC, always 6 digits |
| DATE, TIME, INTERVAL, UUID, ENUM | text |
| BIGINT, HUGEINT, DECIMAL | a number with all its digits |
| FLOAT, DOUBLE | a number; `null` when not finite |
| BLOB | its text when it is UTF-8, else `"base64:…"` |
| JSON | the value itself, digits and key order as stored |
| LIST, STRUCT, MAP | array or object of the above; keys of a MAP as text |

Invariants:

1. The answer is valid JSON whatever the rows hold.
2. Columns keep their order and may share a name, hence rows are arrays.

It refuses to guess: a value of an unknown Python type is its `str`.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal

import msgspec

from ingester.console.services import QueryAnswer

__all__ = ["answer_json", "json_value", "row_objects"]

_BASE64_MARK = "base64:"

# Python types that msgspec writes as they are.
_PLAIN = (str, bool, type(None))

_INT_BITS_PLAIN = 63


def answer_json(answer: QueryAnswer) -> bytes:
    """`{"columns": […], "types": […], "rows": [[…], …]}`."""
    converters = [_converter(name) for name in answer.types]
    rows = [
        [convert(value) for convert, value in zip(converters, row, strict=True)]
        for row in answer.rows
    ]
    return msgspec.json.encode({"columns": answer.columns, "types": answer.types, "rows": rows})


def row_objects(answer: QueryAnswer) -> list[dict[str, object]]:
    """Rows as objects of JSON-ready values; of columns with one name the last wins."""
    converters = [_converter(name) for name in answer.types]
    return [
        {
            name: convert(value)
            for name, convert, value in zip(answer.columns, converters, row, strict=True)
        }
        for row in answer.rows
    ]


def json_value(value: object) -> object:
    """A value msgspec can write, by its Python type; nested ones too."""
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, int):
        return value if value.bit_length() <= _INT_BITS_PLAIN else msgspec.Raw(b"%d" % value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime):
        return _timestamp(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return _blob(bytes(value))
    if isinstance(value, Decimal):
        return msgspec.Raw(format(value, "f").encode()) if value.is_finite() else None
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {_key(key): json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [json_value(item) for item in value]
    return str(value)


def _converter(type_name: str) -> Callable[[object], object]:
    return _json_column if type_name.upper() == "JSON" else json_value


def _json_column(value: object) -> object:
    """Stored JSON text, written as it is: 0.10 stays 0.10, a long integer keeps its digits."""
    if not isinstance(value, str | bytes):
        return json_value(value)
    try:
        text = value.encode() if isinstance(value, str) else str(value, "utf-8").encode()
        # Checks the grammar without building the value; numbers may be of any size.
        return msgspec.json.decode(text, type=msgspec.Raw)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return json_value(value)


def _timestamp(value: datetime) -> str:
    if value.tzinfo is not None:
        try:
            value = value.astimezone(UTC).replace(tzinfo=None)
        except OverflowError:  # at the ends of the calendar the offset leads out of it
            value = value.replace(tzinfo=None)
    return value.isoformat(timespec="microseconds") + "Z"


def _blob(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return _BASE64_MARK + base64.b64encode(value).decode("ascii")


def _key(key: object) -> str:
    value = json_value(key)
    if isinstance(value, str):
        return value
    return msgspec.json.encode(value).decode()
