"""Values of rows as JSON: the same spellings as in answers of `POST /api/v1/query`."""

from __future__ import annotations

import math
from datetime import datetime
from decimal import Decimal

import msgspec

__all__ = ["cell", "json_text"]

_INT_BITS_MAX = 63


def cell(value: object) -> object:
    """A value that msgspec can write."""
    if isinstance(value, datetime):
        return value.isoformat(timespec="microseconds") + "Z"
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int) and value.bit_length() > _INT_BITS_MAX:
        return msgspec.Raw(str(value).encode())
    if isinstance(value, Decimal):
        return msgspec.Raw(format(value, "f").encode()) if value.is_finite() else None
    if value is None or isinstance(value, str | int):
        return value
    return str(value)


def json_text(value: object) -> object:
    """Stored JSON text, nested as it is: every digit and the order of keys stay."""
    if not isinstance(value, str):
        return cell(value)
    try:
        # Checks the grammar and builds nothing.
        return msgspec.json.decode(value.encode(), type=msgspec.Raw)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return value
