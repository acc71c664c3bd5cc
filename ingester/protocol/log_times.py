"""The time a log says it happened: RFC 3339, or an epoch in s, ms, µs or ns by its size.

Two ways that must agree (tests compare them): `read_time` for one value, `read_times` for a column
of them, which parses equally laid out strings as a matrix of digits.

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

import numpy as np

__all__ = ["DAY_US", "NO_TIME", "read_time", "read_times", "rfc3339_us"]

# 2000-01-01T00:00:00Z in microseconds; also why -1 can stand for "no time".
EARLIEST_US = 946_684_800_000_000
DAY_US = 86_400_000_000
NO_TIME = -1

Array = np.ndarray[Any, Any]

_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()
_RFC3339 = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})"
    r"(?:[.,]([0-9]{1,32}))?(?:[Zz]|([+-])([0-9]{2}):?([0-9]{2}))?"
)
_NUMBER = re.compile(r"[0-9]{1,32}(\.[0-9]{1,32})?")
# 32 digits of a fraction behind the second, and an offset.
_LENGTH_MAX = 64
# The layouts taken as matrices: 19 characters to the second, a fraction, `Z` or an offset.
_SECOND_END = 19
_DIGITS = np.array([0, 1, 2, 3, 5, 6, 8, 9, 11, 12, 14, 15, 17, 18])
_MARKS = ((4, b"--"), (7, b"--"), (10, b"Tt"), (13, b"::"), (16, b"::"))


_KINDS = {str, int, float}


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
    match = _RFC3339.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second = map(int, match.groups()[:6])
    if hour > 23 or minute > 59 or second > 60:
        return None
    try:
        days = date(year, month, day).toordinal() - _EPOCH_ORDINAL
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


def read_times(values: list[Any], latest_us: int) -> Array:
    """`read_time` of each, as int64. Values of a kind are read together, others are no times."""
    kinds = set(map(type, values))
    if len(kinds) == 1:
        return _read_kind(kinds.pop(), values, latest_us)
    times = np.full(len(values), NO_TIME, np.int64)
    for kind in kinds & _KINDS:
        places = [place for place, value in enumerate(values) if type(value) is kind]
        times[places] = _read_kind(kind, [values[place] for place in places], latest_us)
    return times


def _read_kind(kind: type, values: list[Any], latest_us: int) -> Array:
    count = len(values)
    if kind is str:
        return _read_texts(values, latest_us)
    if kind is float:
        return _within(_float_epochs(np.array(values, np.float64)), latest_us)
    if kind is not int:
        return np.full(count, NO_TIME, np.int64)
    try:
        return _within(_whole_epochs(np.array(values, np.int64)), latest_us)
    except OverflowError:
        return np.fromiter((read_time(value, latest_us) for value in values), np.int64, count)


def _within(times: Array, latest_us: int) -> Array:
    times[(times < EARLIEST_US) | (times > latest_us)] = NO_TIME
    return times


def _whole_epochs(values: Array) -> Array:
    bounded = np.clip(values, 0, None)
    scaled: Array = np.select(
        [bounded < 10**11, bounded < 10**14, bounded < 10**17],
        [np.minimum(bounded, 10**11) * 1_000_000, np.minimum(bounded, 10**14) * 1000, bounded],
        bounded // 1000,
    )
    return scaled


def _float_epochs(values: Array) -> Array:
    bounded = np.where((values >= 0) & (values < 1e20), values, 0.0)
    scaled: Array = np.select(
        [bounded < 1e11, bounded < 1e14, bounded < 1e17],
        [bounded * 1e6, bounded * 1e3, bounded],
        bounded // 1000.0,
    )
    return np.rint(scaled).astype(np.int64)


def _read_texts(texts: list[str], latest_us: int) -> Array:
    distinct = set(map(len, texts))
    if len(distinct) == 1:
        return _read_equal(texts, distinct.pop(), latest_us)
    times = np.full(len(texts), NO_TIME, np.int64)
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    for length in distinct:
        if length <= _LENGTH_MAX:  # no longer text is a time
            places = (lengths == length).nonzero()[0]
            found = [texts[place] for place in places.tolist()]
            times[places] = _read_equal(found, length, latest_us)
    return times


def _read_equal(texts: list[str], length: int, latest_us: int) -> Array:
    """Texts of one length: as a matrix where they are laid out as the first is."""
    joined = "".join(texts)
    times, fits = None, None
    if joined.isascii() and _SECOND_END < length <= _LENGTH_MAX:
        cells = np.frombuffer(joined.encode(), np.uint8).reshape(len(texts), length)
        times, fits = _read_matrix(cells, texts[0])
    if times is None or fits is None:
        count = len(texts)
        return np.fromiter((read_time(text, latest_us) for text in texts), np.int64, count)
    times = _within(times, latest_us)
    for place in (~fits).nonzero()[0].tolist():
        times[place] = read_time(texts[place], latest_us)
    return times


def _read_matrix(cells: Array, first: str) -> tuple[Array | None, Array | None]:
    """Times, and which rows have the layout of `first`; None if that is not one of ours."""
    end = len(first) - 1 if first[-1] in "Zz" else len(first) - 6
    fraction_length = end - _SECOND_END - 1
    if end != _SECOND_END and fraction_length < 1:
        return None, None
    columns = np.ascontiguousarray(cells.T)
    fits = np.ones(len(cells), np.bool_)
    for place, marks in _MARKS:
        fits &= (columns[place] == marks[0]) | (columns[place] == marks[1])
    digits = columns[_DIGITS] - np.uint8(48)
    fits &= (digits <= 9).all(axis=0)
    d = digits.astype(np.int64)
    year = d[0] * 1000 + d[1] * 100 + d[2] * 10 + d[3]
    month, day = d[4] * 10 + d[5], d[6] * 10 + d[7]
    hour, minute, second = d[8] * 10 + d[9], d[10] * 10 + d[11], d[12] * 10 + d[13]
    fits &= (month >= 1) & (month <= 12) & (year >= 1)
    months = np.where(fits, (year - 1970) * 12 + month - 1, 0).astype("datetime64[M]")
    month_start = months.astype("datetime64[D]").astype(np.int64)
    month_end = (months + 1).astype("datetime64[D]").astype(np.int64)
    fits &= (day >= 1) & (day <= month_end - month_start)
    fits &= (hour <= 23) & (minute <= 59) & (second <= 60)
    seconds = (((month_start + day - 1) * 24 + hour) * 60 + minute) * 60 + second
    micros = np.zeros(len(cells), np.int64)
    if fraction_length >= 1:
        fits &= columns[_SECOND_END] == 0x2E
        fraction = columns[_SECOND_END + 1 : end] - np.uint8(48)
        fits &= (fraction <= 9).all(axis=0)
        for place in range(min(fraction_length, 6)):
            micros += fraction[place].astype(np.int64) * 10 ** (5 - place)
    if end == len(first) - 1:
        fits &= (columns[end] == 0x5A) | (columns[end] == 0x7A)
    else:
        offset, is_offset = _read_offsets(columns[end:])
        fits &= is_offset
        seconds -= offset
    return seconds * 1_000_000 + micros, fits


def _read_offsets(
    columns: Array,
) -> tuple[Array, Array]:
    """Seconds of `+hh:mm`, and where there is one."""
    digits = columns[[1, 2, 4, 5]] - np.uint8(48)
    is_minus = columns[0] == 0x2D
    hours = digits[0].astype(np.int64) * 10 + digits[1]
    minutes = digits[2].astype(np.int64) * 10 + digits[3]
    is_offset = (is_minus | (columns[0] == 0x2B)) & (columns[3] == 0x3A)
    is_offset &= (digits <= 9).all(axis=0) & (hours <= 23) & (minutes <= 59)
    seconds = (hours * 60 + minutes) * 60
    return np.where(is_minus, -seconds, seconds), is_offset
