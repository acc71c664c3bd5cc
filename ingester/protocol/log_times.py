"""The time a log says it happened: RFC 3339, or an epoch in s, ms, µs or ns by its size.

This reads one value; `log_time_columns` reads many at once and must agree (tests compare them).

1. A time counts only from 2000-01-01 to `latest_us`; anything else is no time.
2. The units cannot be confused: each covers 2000 to 5138, and they lie a factor of 1,000 apart.
3. Without a zone UTC is meant; a space may stand for the `T` and a comma for the point; second 60
   is the second after 59. Digits beyond microseconds are cut in text, and a number that is not
   whole is rounded to the nearest microsecond.
4. A numeric string is read as its number. Booleans are no numbers.
"""

from __future__ import annotations

import re
from datetime import date
from typing import Any

__all__ = [
    "DAY_US",
    "EARLIEST_US",
    "EPOCH_ORDINAL",
    "NO_TIME",
    "RFC3339",
    "read_time",
    "rfc3339_us",
]

# 2000-01-01T00:00:00Z in microseconds; also why -1 can stand for "no time".
EARLIEST_US = 946_684_800_000_000
DAY_US = 86_400_000_000
NO_TIME = -1

EPOCH_ORDINAL = date(1970, 1, 1).toordinal()
RFC3339 = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})"
    r"(?:[.,]([0-9]{1,32}))?(?:[Zz]|([+-])([0-9]{2}):?([0-9]{2}))?"
)
_NUMBER = re.compile(r"[0-9]{1,32}(\.[0-9]{1,32})?")


def read_time(value: Any, latest_us: int) -> int:
    """Microseconds since 1970, or `NO_TIME`."""
    if isinstance(value, str):
        found = rfc3339_us(value)
        if found is None:
            number = _NUMBER.fullmatch(value)
            if number is None:
                return NO_TIME
            found = _epoch_us(float(value) if number[1] else int(value))
    elif isinstance(value, bool) or not isinstance(value, int | float):
        return NO_TIME
    else:
        found = _epoch_us(value)
    return found if EARLIEST_US <= found <= latest_us else NO_TIME


def rfc3339_us(text: str) -> int | None:
    """Microseconds since 1970 of an RFC 3339 date and time (or nearly, see the third rule)."""
    match = RFC3339.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second = map(int, match.groups()[:6])
    if hour > 23 or minute > 59 or second > 60:
        return None
    try:
        days = date(year, month, day).toordinal() - EPOCH_ORDINAL
    except ValueError:
        return None
    seconds = ((days * 24 + hour) * 60 + minute) * 60 + second
    if match[8]:
        offset_hours, offset_minutes = int(match[9]), int(match[10])
        if offset_hours > 23 or offset_minutes > 59:
            return None
        offset = (offset_hours * 60 + offset_minutes) * 60
        seconds -= offset if match[8] == "+" else -offset
    return seconds * 1_000_000 + int((match[7] or "0")[:6].ljust(6, "0"))


def _epoch_us(value: float) -> int:
    """Not yet known to be within bounds; 0 for what is no moment at all."""
    if not 0 <= value < 10**20:  # false for NaN too
        return 0
    if value < 10**11:
        scaled = value * 1_000_000
    elif value < 10**14:
        scaled = value * 1000
    elif value < 10**17:
        scaled = value
    else:
        scaled = value // 1000
    return round(scaled)
