"""Times of many logs at once: `log_times.read_time`, by columns.

Why it exists: read one by one, times cost more than decoding the rest of a log. Here values of a
kind are read together, and texts of one length as a matrix of digits under the layout of the first
of them: one subtraction, one comparison and one product tell all fields of all rows.

1. Every value comes to what `read_time` says of it (tests compare the two). What does not have the
   layout of the first is given to `read_time`.
2. Fields are sums of a few digits in doubles, hence exact; moments are made of them in int64.
"""

from __future__ import annotations

from datetime import date
from functools import lru_cache
from typing import Any

import numpy as np
from msgspec import Struct

from .log_times import EARLIEST_US, EPOCH_ORDINAL, NO_TIME, RFC3339, read_time

__all__ = ["read_times"]

Array = np.ndarray[Any, Any]

_KINDS = {str, int, float}
# 32 digits of a fraction behind the second, and an offset.
_LENGTH_MAX = 64
_LAYOUTS_MAX = 64
_DATES_MAX = 4096
_ZERO, _NINE = 0x30, 0x39
_MICROS_PLACES = 6
_NO_DAY = -1e12  # seconds; before the year 1
_TO_ZEROS = {ord(digit): "0" for digit in "123456789"}
# Of year, month, day, hour, minute, second, microsecond, offset hour, offset minute; what a date
# may have is for the calendar.
_FIELD_MAX = np.array([[9999], [99], [99], [23], [59], [60], [999_999], [23], [59]], np.float64)


class _Layout(Struct, frozen=True):
    """Which byte may stand where: `lows` to `lows + spans`; fields are `weights @ (bytes - lows)`.

    `sign`: of the offset; 0 without one.
    """

    lows: Array
    spans: Array
    weights: Array
    sign: int


def read_times(values: list[Any], latest_us: int) -> Array:
    """`read_time` of each, as int64."""
    kinds = set(map(type, values))
    if len(kinds) == 1:
        return _read_kind(kinds.pop(), values, latest_us)
    count = len(values)
    times = np.full(count, NO_TIME, np.int64)
    numbers = {kind: number for number, kind in enumerate(kinds)}
    of_kind = np.fromiter(map(numbers.__getitem__, map(type, values)), np.int64, count)
    objects = np.fromiter(values, object, count)
    for kind in kinds & _KINDS:
        is_kind = of_kind == numbers[kind]
        times[is_kind] = _read_kind(kind, objects[is_kind].tolist(), latest_us)
    return times


def _read_kind(kind: type, values: list[Any], latest_us: int) -> Array:
    if kind is str:
        return _read_texts(values, latest_us)
    if kind is float:
        return _within(_float_epochs(np.array(values, np.float64)), latest_us)
    if kind is not int:
        return np.full(len(values), NO_TIME, np.int64)
    try:
        return _within(_whole_epochs(np.array(values, np.int64)), latest_us)
    except OverflowError:
        return _one_by_one(values, latest_us)


def _one_by_one(values: list[Any], latest_us: int) -> Array:
    return np.fromiter((read_time(value, latest_us) for value in values), np.int64, len(values))


def _within(times: Array, latest_us: int) -> Array:
    times[(times < EARLIEST_US) | (times > latest_us)] = NO_TIME
    return times


def _whole_epochs(values: Array) -> Array:
    low, high = int(values.min()), int(values.max())
    if low >= 0 and high < 10**11:
        return values * 1_000_000
    if low >= 10**11 and high < 10**14:
        return values * 1000
    bounded = np.clip(values, 0, None)
    scaled: Array = np.select(
        [bounded < 10**11, bounded < 10**14, bounded < 10**17],
        [np.minimum(bounded, 10**11) * 1_000_000, np.minimum(bounded, 10**14) * 1000, bounded],
        bounded // 1000,
    )
    return scaled


def _float_epochs(values: Array) -> Array:
    low, high = float(values.min()), float(values.max())
    if low >= 0.0 and high < 1e11:  # false with a NaN among them
        return np.rint(values * 1e6).astype(np.int64)
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
    objects = np.fromiter(texts, object, len(texts))
    for length in distinct:
        if length <= _LENGTH_MAX:  # no longer text is a time
            is_equal = lengths == length
            times[is_equal] = _read_equal(objects[is_equal].tolist(), length, latest_us)
    return times


def _read_equal(texts: list[str], length: int, latest_us: int) -> Array:
    """Texts of one length: as a matrix where they are laid out as the first is."""
    joined = "".join(texts)
    layout = None
    if joined.isascii() and length <= _LENGTH_MAX:
        layout = _layout_of(texts[0].translate(_TO_ZEROS))
    if layout is None:
        return _one_by_one(texts, latest_us)
    cells = np.frombuffer(joined.encode(), np.uint8).reshape(len(texts), length)
    times, fits = _read_cells(cells, layout)
    times = _within(times, latest_us)
    if fits is not None:
        for place in (~fits).nonzero()[0].tolist():
            times[place] = read_time(texts[place], latest_us)
    return times


def _read_cells(cells: Array, layout: _Layout) -> tuple[Array, Array | None]:
    """Times, and which rows are laid out like that and can be; None for all."""
    digits = cells - layout.lows  # what is below wraps to something large
    marks = digits <= layout.spans
    fields = layout.weights @ digits.T.astype(np.float64)
    allowed = fields <= _FIELD_MAX[: len(fields)]
    midnights = _midnights_of(fields[0] * 10_000 + fields[1] * 100 + fields[2])
    seconds = midnights + fields[3] * 3600 + fields[4] * 60 + fields[5]
    if layout.sign:
        seconds -= layout.sign * (fields[7] * 3600 + fields[8] * 60)
    times = seconds.astype(np.int64) * 1_000_000 + fields[6].astype(np.int64)
    is_day = midnights > _NO_DAY
    if marks.all() and allowed.all() and is_day.all():
        return times, None
    return times, marks.all(axis=1) & allowed.all(axis=0) & is_day


def _midnights_of(dates: Array) -> Array:
    """Seconds from 1970 to the dates given as yyyymmdd, `_NO_DAY` for what is none."""
    first = dates[0]
    if (dates == first).all():
        return np.full(len(dates), _midnight_of(int(first)))
    distinct, places = np.unique(dates, return_inverse=True)
    found = map(_midnight_of, distinct.astype(np.int64).tolist())
    midnights: Array = np.fromiter(found, np.float64, len(distinct))[places]
    return midnights


@lru_cache(maxsize=_DATES_MAX)
def _midnight_of(yyyymmdd: int) -> float:
    year_month, day = divmod(yyyymmdd, 100)
    try:
        ordinal = date(*divmod(year_month, 100), day).toordinal()
    except ValueError:
        return _NO_DAY
    return float((ordinal - EPOCH_ORDINAL) * 86_400)


@lru_cache(maxsize=_LAYOUTS_MAX)
def _layout_of(zeros: str) -> _Layout | None:
    """Of a text with a zero in place of every digit; None for what is no RFC 3339."""
    match = RFC3339.fullmatch(zeros)
    if match is None:
        return None
    octets = np.frombuffer(zeros.encode(), np.uint8)
    spans = np.where(octets == _ZERO, _NINE - _ZERO, 0).astype(np.uint8)
    weights = np.zeros((9 if match[8] else 7, len(zeros)))
    groups = [1, 2, 3, 4, 5, 6, 7, 9, 10]
    for field, group in enumerate(groups[: len(weights)]):
        start, end = match.span(group)  # (-1, -1) for a group that is not there
        places = end - start
        for offset in range(places):
            if group == 7:
                weight = 10.0 ** (_MICROS_PLACES - 1 - offset) if offset < _MICROS_PLACES else 0.0
            else:
                weight = 10.0 ** (places - 1 - offset)
            weights[field, start + offset] = weight
    return _Layout(octets, spans, weights, {"+": 1, "-": -1}.get(match[8] or "", 0))
