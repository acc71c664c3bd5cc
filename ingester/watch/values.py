"""Values of a monitor's buckets, read from stored rows.

One statement a range of buckets, the same for a live monitor and a back-test. A bucket is numbered
by its start: `number * window_s` seconds since 1970. Rows are put into buckets by their own time
(`time`, `created_at`), rows of `rows` and `freshness` by their arrival.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import cast

import msgspec

from ..lql import Query, Schema, compile_query, parse
from ..lql.charts import text_of
from ..lql.sql import Fragment, joined, sql
from ..search.asked import equals, field_named, narrowed
from ..search.reading import Reading, Row
from ..search.subjects import SUBJECTS, Subject
from ..store.relations import relation
from .judge import ALONE, Values
from .settings import (
    EventTarget,
    FreshnessTarget,
    LogTarget,
    MetricTarget,
    Monitor,
    RowTarget,
    SqlTarget,
)
from .tables import tables_of

__all__ = [
    "bucket_of",
    "group_key",
    "late_bucket",
    "monitor_values",
    "window_of",
]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_GROUP_CHARACTERS_MAX = 256
_QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
# Groups beyond those that are told apart are counted up to here.
_GROUPS_READ_MAX = 10_000
# How far back the newest row is looked for.
_FRESHNESS_SPAN = timedelta(days=31)


def bucket_of(monitor: Monitor, epoch_s: float) -> int:
    return math.floor(epoch_s / monitor.window_s)


def window_of(monitor: Monitor, bucket: int) -> tuple[datetime, datetime]:
    start = _EPOCH + timedelta(seconds=bucket * monitor.window_s)
    return start, start + timedelta(seconds=monitor.window_s)


def group_key(values: Sequence[object]) -> str:
    """The key of a group: its columns as texts; NULL is the empty one."""
    if not values:
        return ALONE
    return msgspec.json.encode(["" if value is None else str(value) for value in values]).decode()


def monitor_values(
    reading: Reading, monitor: Monitor, first: int, last: int, *, groups_max: int
) -> dict[int, Values]:
    """Of the buckets from `first` to `last`, both included; one without rows is left out."""
    target = monitor.target
    assert not isinstance(target, SqlTarget)
    if isinstance(target, FreshnessTarget):
        return {
            bucket: _freshness(reading, monitor, target, bucket, groups_max)
            for bucket in range(first, last + 1)
        }
    subject, query, aggregate, time = _asked(monitor)
    where, params = _within(reading, monitor, subject, query, time, first, last)
    groups = _groups(monitor, subject.schema)
    statement = sql(
        "SELECT epoch_us({}) // {} AS bucket, {}, count(*) AS rows {} FROM {} GROUP BY ALL "
        "ORDER BY bucket, rows DESC, {}",
        Fragment(time),
        monitor.window_s * 1_000_000,
        aggregate,
        groups,
        Fragment(where, tuple(params)),
        Fragment(", ".join(["bucket", *(f"g{n}" for n in range(len(monitor.group_by)))])),
    )
    by_bucket: dict[int, list[Row]] = {}
    for row in reading.rows(statement.sql, statement.params):
        by_bucket.setdefault(cast(int, row[0]), []).append(row)
    return {
        bucket: _capped([(row[3:], row[1]) for row in rows], groups_max)
        for bucket, rows in by_bucket.items()
    }


def late_bucket(
    reading: Reading, monitor: Monitor, *, after_commit: int, first: int, last: int
) -> int | None:
    """The first bucket within that a commit behind `after_commit` has brought rows for. Of a SELECT
    by their own time and by their arrival, in the tables that it names.
    """
    batch_ids = _batches_behind(reading, after_commit) if first <= last else []
    if not batch_ids:
        return None
    target = monitor.target
    asked: list[tuple[Subject, Query, str]]
    begin = first
    if isinstance(target, SqlTarget):
        asked = [
            (subject, Query(), time)
            for subject in map(SUBJECTS.__getitem__, tables_of(target.query))
            for time in dict.fromkeys((subject.schema.time, "received_at"))
        ]
    elif isinstance(target, FreshnessTarget):
        subject = SUBJECTS[target.table]
        asked = [(subject, _query(target.lql, subject.schema), "received_at")]
        # Also what arrived before them makes them fresher than they were.
        begin -= math.ceil(_FRESHNESS_SPAN.total_seconds() / monitor.window_s)
    else:
        subject, query, _, time = _asked(monitor)
        asked = [(subject, query, time)]
    found: list[int] = []
    for subject, query, time in asked:
        where, params = _within(reading, monitor, subject, query, time, begin, last)
        ((bucket,),) = reading.rows(
            f"SELECT min(epoch_us({time}) // ?) FROM {where} "
            "AND batch_id >= ? AND list_contains(?::BIGINT[], batch_id)",
            [monitor.window_s * 1_000_000, *params, min(batch_ids), batch_ids],
        )
        if bucket is not None:
            found.append(max(first, cast(int, bucket)))
    return min(found, default=None)


def _batches_behind(reading: Reading, after_commit: int) -> list[int]:
    """Those with rows, in parts that are sealed by now too."""
    sources, _ = reading.snapshot.ledgers_from(after_commit)
    union = " UNION ALL ".join(
        f"SELECT batch_id, commit_number, row_count FROM {source} "
        "WHERE lane NOT IN ('carry', 'wide')"
        for source in sources
    )
    found = reading.rows(
        f"SELECT batch_id FROM ({union}) WHERE commit_number > ? AND commit_number <= ? "
        "AND row_count > 0",
        [after_commit, reading.snapshot.commit_number],
    )
    return [cast(int, batch_id) for (batch_id,) in found]


def _asked(monitor: Monitor) -> tuple[Subject, Query, Fragment, str]:
    """The rows of a target, what is made of them, and the time that they count at."""
    target = monitor.target
    count = Fragment("count(*)")
    match target:
        case LogTarget() | EventTarget():
            subject = SUBJECTS["logs" if isinstance(target, LogTarget) else "events"]
            return subject, _query(target.lql, subject.schema), count, subject.schema.time
        case RowTarget():
            return SUBJECTS[target.table], Query(), count, "received_at"
        case MetricTarget():
            subject = SUBJECTS["metrics"]
            query = narrowed(
                _query(target.filter, subject.schema),
                [equals("metric_id", target.metric_id), equals("project_id", target.project_id)],
            )
            return subject, query, _aggregate(target.aggregate), subject.schema.time
    raise AssertionError(target)


def _query(text: str, schema: Schema) -> Query:
    return parse(text, context="rule", schema=schema) if text.strip() else Query()


def _aggregate(name: str) -> Fragment:
    if name in _QUANTILES:
        return Fragment(f"quantile_cont(value, {_QUANTILES[name]})")
    if name == "last":
        return Fragment("arg_max(value, (time, request_number, line_number))")
    return Fragment("count(DISTINCT value)" if name == "countd" else f"{name}(value)")


def _groups(monitor: Monitor, schema: Schema) -> Fragment:
    columns = []
    for n, name in enumerate(monitor.group_by):
        text = text_of(field_named("group_by", name, schema), schema)
        columns.append(sql(f", left({{}}, {_GROUP_CHARACTERS_MAX}) AS g{n}", text))
    return joined(" ", columns)


def _within(
    reading: Reading,
    monitor: Monitor,
    subject: Subject,
    query: Query,
    time: str,
    first: int,
    last: int,
) -> tuple[str, list[object]]:
    """Behind FROM: the rows of these buckets."""
    low = window_of(monitor, first)[0].replace(tzinfo=None)
    high = window_of(monitor, last)[1].replace(tzinfo=None)
    files = reading.snapshot.files_within(subject.table, time, low, high)
    rows = relation(reading.snapshot, subject.table, subject.columns, files)
    compiled = compile_query(query, now=reading.now, schema=subject.schema)
    return (
        f"({rows}) AS {subject.schema.relation} WHERE {time} >= ? AND {time} < ? "
        f"AND ({compiled.where_sql})",
        [low, high, *compiled.params],
    )


def _freshness(
    reading: Reading, monitor: Monitor, target: FreshnessTarget, bucket: int, groups_max: int
) -> Values:
    subject = SUBJECTS[target.table]
    end = window_of(monitor, bucket)[1].replace(tzinfo=None)
    begin = end - _FRESHNESS_SPAN
    files = reading.snapshot.files_within(subject.table, "received_at", begin, end)
    rows = relation(reading.snapshot, subject.table, subject.columns, files)
    query = _query(target.lql, subject.schema)
    compiled = compile_query(query, now=reading.now, schema=subject.schema)
    groups = _groups(monitor, subject.schema)
    statement = sql(
        "SELECT max(received_at) AS newest {} FROM {} GROUP BY ALL HAVING newest IS NOT NULL "
        "ORDER BY newest DESC, {}",
        groups,
        Fragment(
            f"({rows}) AS {subject.schema.relation} WHERE received_at >= ? AND received_at < ? "
            f"AND ({compiled.where_sql})",
            (begin, end, *compiled.params),
        ),
        Fragment(", ".join(["newest", *(f"g{n}" for n in range(len(monitor.group_by)))])),
    )
    return _capped(
        [
            (row[1:], (end - cast(datetime, row[0])).total_seconds())
            for row in reading.rows(statement.sql, statement.params)
        ],
        groups_max,
    )


def _capped(rows: Sequence[tuple[Sequence[object], object]], groups_max: int) -> Values:
    """More groups than a monitor tells apart, so that those it knows are among them."""
    by_group: dict[str, float | None] = {}
    for values, value in rows[: max(groups_max, _GROUPS_READ_MAX)]:
        by_group[group_key(values)] = _finite(value)
    return Values(by_group, max(0, len(rows) - len(by_group)))


def _finite(value: object) -> float | None:
    number = float(cast(float, value)) if value is not None else None
    return number if number is not None and math.isfinite(number) else None
