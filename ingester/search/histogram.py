"""The histogram: counts over the whole range, by level or action.

A request of its own, so that it never holds up the rows.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import cast

from ..lql import compile_query, parse
from ..lql.times import Window
from . import answers
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
    shown = _ends(reading, subject, span)
    if shown is None:
        return _answer(reading, subject, span, 1, [])
    start, end = shown
    seconds = bucket_seconds(end - start)
    schema, rows_asked = asked_of(reading, subject, query, span)
    compiled = compile_query(bounded(query, span), now=reading.now, schema=schema)
    at = schema.time
    rows = reading.rows(
        f"WITH counted AS MATERIALIZED (SELECT epoch_us({at}) // {seconds * 10**6:d} AS bucket, "
        f"{subject.group} AS grp, count(*) AS n FROM {rows_asked} "
        f"WHERE {compiled.where_sql} GROUP BY ALL), "
        f"frequent AS (SELECT grp FROM counted GROUP BY grp ORDER BY sum(n) DESC, grp "
        f"LIMIT {_GROUPS_MAX}) "
        f"SELECT bucket, CASE WHEN grp IN (FROM frequent) THEN grp ELSE '{_OTHER}' END AS name, "
        "sum(n)::BIGINT FROM counted GROUP BY ALL ORDER BY ALL",
        compiled.params,
    )
    by_bucket: dict[int, dict[str, int]] = {}
    for bucket, name, count in cast(list[tuple[int, str | None, int]], rows):
        by_bucket.setdefault(bucket, {})[name or ""] = count
    buckets = [
        answers.HistogramBucket(
            time=spelled(_EPOCH + timedelta(seconds=bucket * seconds)),
            count=sum(groups.values()),
            groups=groups,
        )
        for bucket, groups in by_bucket.items()
    ]
    return _answer(reading, subject, Window(start, end), seconds, buckets)


def _answer(
    reading: Reading,
    subject: Subject,
    span: Window,
    seconds: int,
    buckets: list[answers.HistogramBucket],
) -> answers.Histogram:
    return answers.Histogram(
        bucket_seconds=seconds,
        group=subject.group,
        since=None if span.start is None else spelled(span.start),
        until=None if span.end is None else spelled(span.end),
        buckets=buckets,
        count=sum(bucket.count for bucket in buckets),
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
    start, end = span.start or oldest, span.end or max(newest, reading.now)
    # An open range that ends far from the data would put all of it into one bucket.
    shown = max(newest - start, DEFAULT_SPAN)
    return start, newest + shown if end - newest > shown else end
