"""Cron: five fields in UTC, to the next or previous minute that they name.

As in crontab(5): minute, hour, day of month, month, day of week (0 and 7 are Sunday), each `*`, a
number, a range, a list, with `/step`; names of months and days in English. With both days
restricted either suffices.
"""

from __future__ import annotations

from calendar import monthrange
from datetime import UTC, datetime, timedelta

from msgspec import Struct

from ..errors import InvalidField

__all__ = ["Cron"]

_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
_FIELDS = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of month", 1, 31, ()),
    ("month", 1, 12, tuple(_MONTHS)),
    ("day of week", 0, 7, tuple(_DAYS)),
)
_SHORTHANDS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
# 29 February on a given weekday comes back after 28 years, 40 around a century.
_YEARS_MAX = 41


class Cron(Struct, frozen=True):
    """A schedule; always names some minute."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    is_either_day: bool

    @classmethod
    def parse(cls, text: str) -> Cron:
        """Raises InvalidField."""
        fields = _SHORTHANDS.get(text.strip().lower(), text).split()
        if len(fields) != 5:
            raise InvalidField(
                "cron",
                "cron: five fields are needed (minute hour day month weekday, UTC), as in"
                f" '*/5 * * * *'; there are {len(fields)}",
            )
        minutes, hours, days, months, weekdays = (
            _field(part, *kind) for part, kind in zip(fields, _FIELDS, strict=True)
        )
        found = cls(
            tuple(sorted(minutes)),
            tuple(sorted(hours)),
            frozenset(days),
            frozenset(months),
            frozenset(day % 7 for day in weekdays),
            not fields[2].startswith("*") and not fields[4].startswith("*"),
        )
        if found._maybe_next(datetime(2024, 1, 1, tzinfo=UTC)) is None:
            raise InvalidField("cron", "cron: no day of the calendar is like that")
        return found

    def next(self, after: datetime) -> datetime:
        """The first scheduled minute after `after`."""
        found = self._maybe_next(after)
        assert found is not None
        return found

    def previous(self, until: datetime) -> datetime:
        """The last scheduled minute not after `until`."""
        day = until.date()
        minute = (until.hour, until.minute)
        for _ in range(366 * _YEARS_MAX):
            if self._is_day(datetime(day.year, day.month, day.day)):
                for hour in reversed(self.hours):
                    for each in reversed(self.minutes):
                        if (hour, each) <= minute:
                            return datetime(day.year, day.month, day.day, hour, each, tzinfo=UTC)
            day -= timedelta(days=1)
            minute = (23, 59)
        raise AssertionError("a schedule names some minute")

    def _maybe_next(self, after: datetime) -> datetime | None:
        day = datetime(after.year, after.month, after.day)
        minute = (after.hour, after.minute)
        is_first = True
        ends = day.year + _YEARS_MAX
        while day.year < ends:
            if day.month not in self.months:
                day = day.replace(day=1) + timedelta(days=monthrange(day.year, day.month)[1])
                is_first = False
                continue
            if self._is_day(day):
                for hour in self.hours:
                    for each in self.minutes:
                        if not is_first or (hour, each) > minute:
                            return day.replace(hour=hour, minute=each, tzinfo=UTC)
            day += timedelta(days=1)
            is_first = False
        return None

    def _is_day(self, day: datetime) -> bool:
        if day.month not in self.months:
            return False
        is_day = day.day in self.days
        is_weekday = (day.weekday() + 1) % 7 in self.weekdays
        return is_day or is_weekday if self.is_either_day else is_day and is_weekday


def _field(text: str, name: str, low: int, high: int, names: tuple[str, ...]) -> set[int]:
    found: set[int] = set()
    for part in text.split(","):
        span, slash, step_text = part.partition("/")
        step = _number(step_text, name, 1, high, ()) if slash else 1
        if span == "*":
            first, last = low, high
        else:
            start, dash, end = span.partition("-")
            first = _number(start, name, low, high, names)
            last = _number(end, name, low, high, names) if dash else (high if slash else first)
        if first > last:
            raise InvalidField("cron", f"cron: {name}: {span!r} runs backwards")
        found.update(range(first, last + 1, step))
    return found


def _number(text: str, name: str, low: int, high: int, names: tuple[str, ...]) -> int:
    if text.lower() in names:
        return names.index(text.lower()) + low
    if text.isascii() and text.isdigit() and len(text) <= 4 and low <= int(text) <= high:
        return int(text)
    raise InvalidField("cron", f"cron: {name}: {text!r} is not between {low} and {high}")
