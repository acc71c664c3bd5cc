"""The histogram: counts over the whole range, by level or action.

A request of its own, so that it never holds up the rows. In buckets of hours it comes out of
rollups where those tell it (`rolled.py`) and no row that they counted was removed.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Literal, cast

from ..lql import Query, compile_query, parse
from ..lql.sql import Fragment, joined, sql
from ..lql.times import Window
from . import answers, rolled
from .page import cost_of
from .reading import Reading
from .requests import RangeQuery
from .subjects import Subject
from .times import DEFAULT_SPAN, bounded, spelled, window_for
from .walk import asked_of, count_rows, relation_within, whole

__all__ = ["bucket_seconds", "histogram"]

_BUCKETS_MAX = 120
_GROUPS_MAX = 12
_OTHER = "(other)"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# The last instant of an hour: another microsecond may be beyond the calendar.
_HOUR = timedelta(hours=1) - timedelta(microseconds=1)

# No TIMESTAMP is as far from the epoch, on either side.
_TIMESTAMP_US_MAX = 2**62

# Bucket, group, count.
_Counted = tuple[int, str | None, int]

# Widths that people read; a week starts wherever the epoch puts it, so there is none.
_STEPS_S = (
    *(1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200),
    *(86_400, 2 * 86_400, 5 * 86_400, 10 * 86_400, 30 * 86_400, 90 * 86_400, 365 * 86_400),
)


def bucket_seconds(span: timedelta) -> int:
    """The narrowest width that makes at most `_BUCKETS_MAX` buckets."""
    wanted = span.total_seconds() / _BUCKETS_MAX
    last = _STEPS_S[-1]
    return next((step for step in _STEPS_S if step >= wanted), last * (int(wanted // last) + 1))


def histogram(reading: Reading, subject: Subject, request: RangeQuery) -> answers.Histogram:
    """Raises QueryError, InvalidField."""
    query = parse(request.q, schema=subject.schema)
    span = window_for(
        query, since=request.since, until=request.until, now=reading.now, span=DEFAULT_SPAN
    )
    return _out_of_rollups(reading, subject, query, span) or _out_of_rows(
        reading, subject, query, span
    )


def _out_of_rollups(
    reading: Reading, subject: Subject, query: Query, span: Window
) -> answers.Histogram | None:
    """None where those do not tell it, or not of the rows that are there now."""
    rollups = reading.rollups
    if rollups is None or span.start is None or not rolled.fits(query, None, subject.schema):
        return None
    if span.end is not None and not _is_in_hours(span.start, span.end):
        return None
    if reading.snapshot.rows_were_removed:
        return None
    reading.catch_up()
    if rollups.commit_number < reading.snapshot.commit_number:
        return None
    kept_since = reading.rolled_up_since()
    if kept_since is not None and span.start < kept_since:
        return None
    hours, cut = rolled.counted_by_hour(subject.schema), rolled.cut(span, "hour")
    within = rolled.within("hour", cut.whole)
    end = span.end
    if end is None:
        ((last,),) = reading.rows(
            f"SELECT max(hour) FROM {hours} WHERE {within.sql}", within.params
        )
        if last is None:
            return None
        hour = cast(datetime, last).replace(tzinfo=UTC)
        newest = hour + _HOUR if hour > reading.now else min(hour + _HOUR, reading.now)
        end = _end_shown(reading, span.start, newest)
        if not _is_in_hours(span.start, end):
            return None
    seconds = bucket_seconds(end - span.start)
    untimed = Query(query.where, services=query.services)
    arms = [
        sql(
            "SELECT {} AS bucket, {} AS grp, sum(rows) AS n FROM {} WHERE {} AND ({}) GROUP BY ALL",
            _bucket_of("hour", seconds),
            Fragment(subject.group),
            Fragment(hours),
            within,
            rolled.condition_of(reading, untimed, subject.schema),
        )
    ]
    for rest in cut.rests:
        reading.rows_scanned += count_rows(reading, subject, rest)
        arms.append(_counted(reading, subject, bounded(untimed, rest), rest, seconds))
    rows = _told(reading, joined(" UNION ALL ", arms))
    return _answer(reading, subject, Window(span.start, end), seconds, rows, "rollups")


def _out_of_rows(
    reading: Reading, subject: Subject, query: Query, span: Window
) -> answers.Histogram:
    shown = _ends(reading, subject, span)
    if shown is None:
        return _answer(reading, subject, span, 1, [], "rows")
    start, end = shown
    seconds = bucket_seconds(end - start)
    counted = _counted(reading, subject, bounded(query, span), span, seconds)
    rows = _told(reading, counted)
    return _answer(reading, subject, Window(start, end), seconds, rows, "rows")


def _is_in_hours(start: datetime, end: datetime) -> bool:
    return bucket_seconds(end - start) % 3600 == 0


def _counted(
    reading: Reading, subject: Subject, query: Query, span: Window, seconds: int
) -> Fragment:
    """Bucket, group and count of the rows of `span` that `query` finds."""
    schema, rows_asked = asked_of(reading, subject, query, span)
    compiled = compile_query(query, now=reading.now, schema=schema)
    return sql(
        "SELECT {} AS bucket, {} AS grp, count(*) AS n FROM {} WHERE {} GROUP BY ALL",
        _bucket_of(schema.time, seconds),
        Fragment(subject.group),
        Fragment(rows_asked),
        Fragment(compiled.where_sql, compiled.params),
    )


def _bucket_of(column: str, seconds: int) -> Fragment:
    """Its number from the epoch, rounded down: DuckDB divides towards zero, so that what lies
    before the epoch is moved behind it first.
    """
    width_us = seconds * 10**6
    moved = _TIMESTAMP_US_MAX // width_us + 1
    return Fragment(f"(epoch_us({column}) + {moved * width_us}) // {width_us} - {moved}")


def _told(reading: Reading, counted: Fragment) -> list[_Counted]:
    """By bucket and name; the rarer groups are gathered."""
    rows = reading.rows(
        f"WITH counted AS MATERIALIZED ({counted.sql}), "
        f"frequent AS (SELECT grp FROM counted GROUP BY grp ORDER BY sum(n) DESC, grp "
        f"LIMIT {_GROUPS_MAX}) "
        f"SELECT bucket, CASE WHEN grp IN (FROM frequent) THEN grp ELSE '{_OTHER}' END AS name, "
        "sum(n)::BIGINT FROM counted GROUP BY ALL ORDER BY ALL",
        counted.params,
    )
    return cast(list[_Counted], rows)


def _answer(
    reading: Reading,
    subject: Subject,
    span: Window,
    seconds: int,
    rows: list[_Counted],
    answered_from: Literal["rollups", "rows"],
) -> answers.Histogram:
    by_bucket: dict[int, dict[str, int]] = {}
    for bucket, name, count in rows:
        by_bucket.setdefault(bucket, {})[name or ""] = count
    buckets = [
        answers.HistogramBucket(
            time=spelled(_EPOCH + timedelta(seconds=bucket * seconds)),
            count=sum(groups.values()),
            groups=groups,
        )
        for bucket, groups in by_bucket.items()
    ]
    return answers.Histogram(
        bucket_seconds=seconds,
        group=subject.group,
        since=None if span.start is None else spelled(span.start),
        until=None if span.end is None else spelled(span.end),
        buckets=buckets,
        count=sum(bucket.count for bucket in buckets),
        answered_from=answered_from,
        cost=cost_of(reading),
    )


def _ends(reading: Reading, subject: Subject, span: Window) -> tuple[datetime, datetime] | None:
    """The range to show: what is asked for, and where it is open, what is there."""
    if span.start is not None and span.end is not None:
        reading.rows_scanned = count_rows(reading, subject, span)
        return (span.start, span.end) if reading.rows_scanned else None
    at, where = subject.schema.time, whole(subject, span, reading)
    ((first, last, count),) = reading.rows(
        f"SELECT min({at}), max({at}), count({at}) FROM {relation_within(reading, subject, span)} "
        f"WHERE {where.sql}",
        where.params,
    )
    reading.rows_scanned = cast(int, count)
    if first is None or last is None:
        return None
    oldest = cast(datetime, first).replace(tzinfo=UTC)
    newest = cast(datetime, last).replace(tzinfo=UTC)
    start = span.start or oldest
    return start, span.end or _end_shown(reading, start, newest)


def _end_shown(reading: Reading, start: datetime, newest: datetime) -> datetime:
    """Of a range without end. One that ends far from the data would put all of it into one
    bucket.
    """
    end = max(newest, reading.now)
    shown = max(newest - start, DEFAULT_SPAN)
    return newest + shown if end - newest > shown else end
