"""Values of a result: how each SQL value looks to a client of the console API.

| SQL | JSON |
|---|---|
| TIMESTAMP, with or without time zone | `"2024-05-01T12:00:00.000000Z"`, UTC, always 6 digits |
| DATE, TIME, INTERVAL, UUID, ENUM | text |
| BIGINT, HUGEINT, DECIMAL | a number with all its digits |
| FLOAT, DOUBLE | a number; `null` when not finite |
| BLOB | its text when it is UTF-8, else `"base64:…"` |
| JSON | the value itself, digits and key order as stored |
| LIST, STRUCT, MAP | array or object of the above; keys of a MAP as text |

In CSV the same, a text without its quotes, NULL as nothing and the empty text as `""`.

It refuses to guess: a value of an unknown Python type is its `str`.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal

import msgspec

__all__ = ["Row", "converted", "csv_field", "json_value", "maybe_converters"]

Row = Sequence[object]
Converter = Callable[[object], object]

_BASE64_MARK = "base64:"

# Python types that msgspec writes as they are.
_PLAIN = (str, bool, type(None))
# The SQL types whose values always are of these, or integers of 64 bits.
_PLAIN_TYPES = frozenset({
    "BIGINT",
    "BOOLEAN",
    "INTEGER",
    "SMALLINT",
    "TINYINT",
    "UINTEGER",
    "USMALLINT",
    "UTINYINT",
    "VARCHAR",
})

_INT_BITS_PLAIN = 63

# RFC 4180, and what readers tend to strip.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
_CSV_QUOTED = re.compile(r'[",\r\n]|^\s|\s$|^$')
# A timestamp beyond the years of Python's calendar comes as text.
_FAR_TIMESTAMP = re.compile(r"(\d{4,}-\d\d-\d\d) (\d\d:\d\d:\d\d)(?:\.(\d{1,6}))?(?:\+00)?")


def maybe_converters(types: Sequence[str]) -> list[Converter] | None:
    """One converter a column, to what `msgspec` writes; None when every value is that already."""
    if all(name in _PLAIN_TYPES for name in types):
        return None
    return [_converter(name) for name in types]


def converted(rows: Sequence[Row], converters: Sequence[Converter] | None) -> Sequence[Row]:
    if converters is None:
        return rows
    return [
        [convert(value) for convert, value in zip(converters, row, strict=True)] for row in rows
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


def csv_field(value: object, *, is_for_spreadsheets: bool = False) -> str:
    """One field of a CSV line, of a value that was converted. Spreadsheets take a text that begins
    with one of a few characters for a formula, and run it: for them it gets an apostrophe in front
    (OWASP, CSV injection). Numbers are left alone.
    """
    if value is None:
        return ""
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    if is_for_spreadsheets and isinstance(value, str) and text.startswith(_FORMULA_STARTS):
        text = f"'{text}"
    if _CSV_QUOTED.search(text) is None:
        return text
    return '"' + text.replace('"', '""') + '"'


def _converter(type_name: str) -> Converter:
    if type_name.upper() == "JSON":
        return _json_column
    if type_name.startswith("TIMESTAMP") and not type_name.endswith("]"):
        return _timestamp_column
    return json_value


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


def _timestamp_column(value: object) -> object:
    if isinstance(value, str) and (found := _FAR_TIMESTAMP.fullmatch(value)) is not None:
        return f"{found[1]}T{found[2]}.{(found[3] or '').ljust(6, '0')}Z"
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
