"""Spellings of `since` and `until`: those of LQL, `now-1h`, a plain span ago, RFC 3339.

What names a span of time stands for its start, in both; `until` itself is excluded. So
`since=yesterday&until=today` is yesterday.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import cast

from ..errors import InvalidField
from ..lql.ast import Query, TimeFilter
from ..lql.compiler import window_of
from ..lql.times import BadOperand, Window, window

__all__ = ["DEFAULT_SPAN", "aware", "bounded", "instant", "maybe_spelled", "spelled", "window_for"]

DEFAULT_SPAN = timedelta(days=2)

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_RELATIVE = re.compile(r"(?:now\s?([+-]))?([0-9]{1,9})([smhdw])")
# In a query string a plus is a blank.
_LOST_PLUS = re.compile(r"(T[0-9:.]+) ([0-9]{2}:?[0-9]{2})")
_MIN = datetime.min.replace(tzinfo=UTC)
_MAX = datetime.max.replace(tzinfo=UTC)


def instant(field: str, text: str, now: datetime) -> datetime:
    """One point in time. Raises InvalidField, which names `field`."""
    text = _LOST_PLUS.sub(r"\1+\2", text.strip())
    found = _RELATIVE.fullmatch(text)
    if found is not None:
        seconds = int(found[2]) * _UNITS[found[3]]
        try:
            span = timedelta(seconds=seconds)
            return now + span if found[1] == "+" else now - span
        except OverflowError:
            return _MAX if found[1] == "+" else _MIN
    try:
        start = window(TimeFilter(">=", text), now).start
    except BadOperand as error:
        raise InvalidField(field, f"{field}: {error}, or now-1h") from None
    assert start is not None
    return start


def window_for(
    query: Query, *, since: str | None, until: str | None, now: datetime, span: timedelta
) -> Window:
    """What `since`, `until` and the `t:` clauses leave. Without any of them the last `span`; with
    an end alone, the `span` before it. Where nothing ends it, it is open: clocks may be ahead.
    """
    asked = window_of(query, now)
    start = None if since is None else instant("since", since, now)
    end = None if until is None else instant("until", until, now)
    if start is None and not query.times:
        try:
            start = (end or now) - span
        except OverflowError:
            start = _MIN
    starts = [each for each in (asked.start, start) if each is not None]
    ends = [each for each in (asked.end, end) if each is not None]
    return Window(max(starts, default=None), min(ends, default=None))


def bounded(query: Query, span: Window) -> Query:
    """The same question about another span of time."""
    times = []
    if span.start is not None:
        times.append(TimeFilter(">=", spelled(span.start)))
    if span.end is not None:
        times.append(TimeFilter("<", spelled(span.end)))
    return Query(query.where, tuple(times), query.chart, query.select, query.services)


def aware(moment: object) -> datetime:
    """A stored time, or the date that `date_trunc` makes of one."""
    found = cast(date, moment)
    if isinstance(found, datetime):
        return found.replace(tzinfo=UTC)
    return datetime(found.year, found.month, found.day, tzinfo=UTC)


def spelled(moment: datetime) -> str:
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def maybe_spelled(moment: datetime | None) -> str | None:
    return None if moment is None else spelled(moment)
