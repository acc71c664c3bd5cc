"""Time operands: instants, named spans, ranges and the brace shorthand. All in UTC.

The finest step is one microsecond, so every interval is `[start, end)` with an end one step after
the last instant that belongs to it. `None` is an open end.

Relative operands are resolved against a `now` that the caller gives. What would fall outside the
calendar is cut to its ends, so that an operand which was once accepted always resolves.
"""

from __future__ import annotations

import re
from calendar import monthrange
from datetime import UTC, datetime, timedelta, timezone

from msgspec import Struct

from .ast import TimeFilter

__all__ = ["BadOperand", "Window", "intersection", "maybe_instant", "window"]

STEP = timedelta(microseconds=1)

_MIN = datetime.min.replace(tzinfo=UTC)
_MAX = datetime.max.replace(tzinfo=UTC)

_INSTANT = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
    r"(?:[Tt ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,9}))?)?"
    r"(?:([Zz])|([+-])([01][0-9]|2[0-3])(?::?([0-5][0-9]))?)?)?"
)
_SPAN = re.compile(r"(this|last)@([0-9]{1,4})?([a-z]+)")
_BRACES = re.compile(r"\{([0-9]+)\.\.([0-9]+)\}")

_UNITS = {
    **dict.fromkeys(("s", "second", "seconds"), "second"),
    **dict.fromkeys(("m", "minute", "minutes"), "minute"),
    **dict.fromkeys(("h", "hour", "hours"), "hour"),
    **dict.fromkeys(("d", "day", "days"), "day"),
    **dict.fromkeys(("w", "week", "weeks"), "week"),
    **dict.fromkeys(("mm", "month", "months"), "month"),
    **dict.fromkeys(("y", "year", "years"), "year"),
}

# Digits of a Unix time, and how many of its units are in a second.
_UNIX = {10: 1, 13: 10**3, 16: 10**6, 19: 10**9}

_EXPECTED = (
    "expected an ISO date or date-time (2026-04-15T10:20:30Z), a Unix time of 10, 13, 16 or 19 "
    "digits, now, today, yesterday, this@hour or last@5m"
)


class BadOperand(ValueError):
    """No time."""


class Window(Struct, frozen=True):
    """`[start, end)`; aware, UTC."""

    start: datetime | None = None
    end: datetime | None = None


def window(clause: TimeFilter, now: datetime) -> Window:
    """The interval of one time clause. Raises BadOperand."""
    operator, operand = clause.operator, clause.operand
    if operator:
        point = _point(operand, now)
        if operator.startswith(">"):
            return Window(point if operator == ">=" else _after(point), None)
        return Window(None, point if operator == "<" else _after(point))
    if "{" in operand or "}" in operand:
        return _from_braces(operand)
    low, dots, high = operand.partition("..")
    if not dots:
        return Window(*_span(operand, now))
    return Window(_point(low, now), _after(_point(high, now)))


def intersection(windows: list[Window]) -> Window:
    """What all of them hold; it may be empty, its start after its end."""
    starts = [w.start for w in windows if w.start is not None]
    ends = [w.end for w in windows if w.end is not None]
    return Window(max(starts, default=None), min(ends, default=None))


def maybe_instant(text: str) -> datetime | None:
    """An ISO date (its midnight) or date-time; UTC unless it names an offset."""
    found = _INSTANT.fullmatch(text)
    if found is None:
        return None
    year, month, day, hour, minute, second = (int(part or 0) for part in found.groups()[:6])
    fraction, _, sign, offset_hours, offset_minutes = found.groups()[6:]
    microsecond = int((fraction or "").ljust(6, "0")[:6])
    offset = timedelta(hours=int(offset_hours or 0), minutes=int(offset_minutes or 0))
    zone = timezone(-offset if sign == "-" else offset)
    try:
        local = datetime(year, month, day, hour, minute, second, microsecond, tzinfo=zone)
        return local.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _point(operand: str, now: datetime) -> datetime:
    """The instant that stands for an operand in a comparison or a range: where its span starts."""
    return now if operand == "now" else _span(operand, now)[0]


def _span(operand: str, now: datetime) -> tuple[datetime, datetime]:
    """What an operand means on its own."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if operand == "now":
        second = now.replace(microsecond=0)
        return second, _plus(second, timedelta(seconds=1))
    if operand == "today":
        return midnight, _plus(midnight, timedelta(days=1))
    if operand == "yesterday":
        return _plus(midnight, timedelta(days=-1)), midnight
    if (instant := _maybe_unix(operand)) is not None:
        return instant, _after(instant)
    if (instant := maybe_instant(operand)) is not None:
        is_date = len(operand) == len("2026-04-15")
        return instant, _plus(instant, timedelta(days=1) if is_date else STEP)
    span = _SPAN.fullmatch(operand)
    if span is None or span[3] not in _UNITS or (span[1] == "this" and span[2]):
        raise BadOperand(f"{operand[:40]!r} is no time; {_EXPECTED}" if operand else _EXPECTED)
    unit = _UNITS[span[3]]
    if span[1] == "this":
        return _cut(now, unit), now
    return _back(now, int(span[2] or 1), unit), now


def _maybe_unix(operand: str) -> datetime | None:
    per_second = _UNIX.get(len(operand))
    if per_second is None or not (operand.isascii() and operand.isdigit()):
        return None
    # 2286-11-20 at the latest, so within the calendar.
    microseconds = int(operand) * 10**6 // per_second
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)


def _from_braces(operand: str) -> Window:
    """`2026-04-{07..09}`: the low parts are the first instant, the high parts the last."""
    low = maybe_instant(_BRACES.sub(r"\1", operand))
    high = maybe_instant(_BRACES.sub(r"\2", operand))
    if low is None or high is None:
        raise BadOperand(
            f"{operand[:60]!r} is no interval; braces hold two numbers as wide as what they stand "
            "for: 2026-04-{07..09}T00:{00..40}:00"
        )
    return Window(low, _after(high))


def _cut(now: datetime, unit: str) -> datetime:
    """The start of the unit that `now` lies in; weeks start on Monday."""
    if unit == "second":
        return now.replace(microsecond=0)
    if unit == "minute":
        return now.replace(second=0, microsecond=0)
    if unit == "hour":
        return now.replace(minute=0, second=0, microsecond=0)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if unit == "week":
        return _plus(midnight, timedelta(days=-now.weekday()))
    if unit == "month":
        return midnight.replace(day=1)
    return midnight.replace(month=1, day=1) if unit == "year" else midnight


def _back(now: datetime, count: int, unit: str) -> datetime:
    """Cut, then shifted: weeks, months and years are cut to the day."""
    if unit in {"month", "year"}:
        return _months_back(_cut(now, "day"), count * (12 if unit == "year" else 1))
    start = _cut(now, "day" if unit == "week" else unit)
    return _plus(start, -count * timedelta(**{f"{unit}s": 1}))


def _months_back(day: datetime, count: int) -> datetime:
    """Clamped to the last day of a shorter month."""
    months = day.year * 12 + day.month - 1 - count
    if months < 12:
        return _MIN
    year, month = divmod(months, 12)
    last = monthrange(year, month + 1)[1]
    return day.replace(year=year, month=month + 1, day=min(day.day, last))


def _plus(instant: datetime, duration: timedelta) -> datetime:
    try:
        return instant + duration
    except OverflowError:
        return _MIN if duration < timedelta(0) else _MAX


def _after(instant: datetime) -> datetime:
    return _plus(instant, STEP)
