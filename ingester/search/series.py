"""Series: events and metrics by hour, day, week or month, and which metrics there are.

1. Periods are UTC; weeks begin on Monday. Without `since` the first period is a whole one.
2. The `GROUPS_MAX` most frequent groups are told apart, the others gathered.
3. At most `POINTS_MAX` points, the newest.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import cast

from msgspec import UNSET, Struct, UnsetType, structs

from ..lql import Query, compile_query, parse
from ..lql.ast import Field
from ..lql.charts import text_of
from ..lql.fields import display_name
from ..lql.sql import Fragment, sql
from ..lql.times import Window
from . import answers
from .asked import equals, field_named, joined, narrowed
from .documents import cell
from .page import cost_of, page
from .reading import Reading, Row
from .requests import Interval, MetricSeriesQuery, MetricsQuery, SeriesQuery
from .subjects import EVENT_ROWS, METRIC_ROWS, Subject
from .times import bounded, maybe_spelled, spelled, window_for
from .walk import count_rows, relation_within

__all__ = ["event_series", "metric_series", "metrics"]

POINTS_MAX = 10_000
GROUPS_MAX = 50
GROUP_CHARACTERS_MAX = 256
METRICS_MAX = 1_000

_OTHER = "(other)"
_MIN = datetime.min.replace(tzinfo=UTC)

# Some fifty periods.
_SPANS: dict[Interval, timedelta] = {
    "hour": timedelta(days=2),
    "day": timedelta(days=30),
    "week": timedelta(weeks=26),
    "month": timedelta(days=365),
}

# Which of several points is the last: by time, then by arrival.
_ORDER = "(time, request_number, line_number)"

_EVENT_VALUES = (
    "count(created_at)",
    "count(DISTINCT (source, account_id, user_id))",
    "count(DISTINCT (source, account_id))",
    "count(DISTINCT (source, account_id, user_id, session_id))",
)
_METRIC_VALUES = (
    *("count(value)", "sum(value)", "min(value)", "max(value)", "avg(value)"),
    f"arg_max(value, {_ORDER})",
)


class _Grouped(Struct, frozen=True):
    """What a series asks for, its span, and its points: bucket, group, values."""

    query: Query
    span: Window
    rows: list[Row]
    group_by: str | None
    truncated: bool

    def group_of(self, row: Row) -> str | UnsetType | None:
        return UNSET if self.group_by is None else cast(str | None, row[1])


def event_series(reading: Reading, request: SeriesQuery) -> answers.EventSeries:
    """Raises QueryError, RequestError, InvalidField."""
    query = joined(EVENT_ROWS.schema, request.q, request.filter)
    found = _grouped(reading, EVENT_ROWS, query, request, _EVENT_VALUES)
    points = [
        answers.EventPoint(
            bucket=spelled(_aware(row[0])),
            group=found.group_of(row),
            **dict(zip(("events", "users", "accounts", "sessions"), row[2:], strict=True)),  # type: ignore[arg-type]
        )
        for row in found.rows
    ]
    return answers.EventSeries(
        interval=request.interval,
        group_by=found.group_by,
        since=maybe_spelled(found.span.start),
        until=maybe_spelled(found.span.end),
        truncated=found.truncated,
        cost=cost_of(reading),
        points=points,
    )


def metric_series(
    reading: Reading, metric_id: str, request: MetricSeriesQuery
) -> answers.MetricSeries:
    """Raises QueryError, RequestError, InvalidField."""
    only = [equals("metric_id", metric_id)]
    if request.project is not None:
        only.append(equals("project_id", request.project))
    query = narrowed(joined(METRIC_ROWS.schema, request.q, request.filter), only)
    found = _grouped(reading, METRIC_ROWS, query, request, _METRIC_VALUES)
    listed = _summaries(reading, found.query, found.span, "last_time DESC", 1)
    points = [
        answers.MetricPoint(
            bucket=spelled(_aware(row[0])),
            group=found.group_of(row),
            **dict(
                zip(
                    ("count", "sum", "min", "max", "avg", "last"),
                    (cell(value) for value in row[2:]),
                    strict=True,
                )
            ),  # type: ignore[arg-type]
        )
        for row in found.rows
    ]
    return answers.MetricSeries(
        interval=request.interval,
        group_by=found.group_by,
        since=maybe_spelled(found.span.start),
        until=maybe_spelled(found.span.end),
        truncated=found.truncated,
        cost=cost_of(reading),
        metric_id=metric_id,
        metric_name=listed[0].metric_name if listed else None,
        unit=listed[0].unit if listed else None,
        points=points,
    )


def metrics(reading: Reading, request: MetricsQuery) -> answers.MetricPage:
    """Raises QueryError, InvalidField."""
    named = {"project_id": request.project, "metric_id": request.metric_id}
    only = [equals(name, value) for name, value in named.items() if value is not None]
    found = page(reading, METRIC_ROWS, request, only=only, span=_SPANS["day"])
    answer = answers.MetricPage(**structs.asdict(found))
    if request.cursor is not None or found.chart is not UNSET:
        return answer
    asked = parse(request.q, schema=METRIC_ROWS.schema)
    query = narrowed(Query(asked.where, asked.times, services=asked.services), only)
    within = window_for(
        query, since=request.since, until=request.until, now=reading.now, span=_SPANS["day"]
    )
    listed = _summaries(
        reading, bounded(query, within), within, "project_id, metric_id", METRICS_MAX + 1
    )
    return structs.replace(
        answer, metrics=listed[:METRICS_MAX], metrics_truncated=len(listed) > METRICS_MAX
    )


def _grouped(
    reading: Reading, subject: Subject, query: Query, request: SeriesQuery, values: Sequence[str]
) -> _Grouped:
    schema = subject.schema
    field = None
    if request.group_by is not None:
        field = field_named("group_by", request.group_by, schema)
    span = window_for(
        query,
        since=request.since,
        until=request.until,
        now=reading.now,
        span=_SPANS[request.interval],
    )
    if request.since is None and not query.times and span.start is not None:
        span = Window(_period_of(span.start, request.interval), span.end)
    reading.rows_scanned = count_rows(reading, subject, span)
    query = bounded(query, span)
    group = Fragment("NULL") if field is None else _group(reading, subject, query, span, field)
    statement = sql(
        "SELECT date_trunc({}, {}) AS bucket, {} AS grp, {} FROM {} WHERE {} "
        "GROUP BY ALL ORDER BY bucket DESC, grp LIMIT {}",
        request.interval,
        Fragment(schema.time),
        group,
        Fragment(", ".join(values)),
        Fragment(relation_within(reading, subject, span)),
        _where(reading, subject, query),
        POINTS_MAX + 1,
    )
    rows = reading.rows(statement.sql, statement.params)
    shown = sorted(rows[:POINTS_MAX], key=lambda row: cast(datetime, row[0]))
    name = None if field is None else display_name(field)
    return _Grouped(query, span, shown, name, len(rows) > POINTS_MAX)


def _group(
    reading: Reading, subject: Subject, query: Query, span: Window, field: Field
) -> Fragment:
    """What rows are grouped by: the frequent values, and one name for all others."""
    text = sql("left({}, {})", text_of(field, subject.schema), GROUP_CHARACTERS_MAX)
    statement = sql(
        "SELECT {} AS grp FROM {} WHERE {} GROUP BY ALL ORDER BY count(*) DESC, grp LIMIT {}",
        text,
        Fragment(relation_within(reading, subject, span)),
        _where(reading, subject, query),
        GROUPS_MAX + 1,
    )
    names = [name for (name,) in reading.rows(statement.sql, statement.params)]
    if len(names) <= GROUPS_MAX:
        return text
    frequent = [name for name in names[:GROUPS_MAX] if name is not None]
    return sql(
        "CASE WHEN {} IS NULL OR list_contains({}::VARCHAR[], {}) THEN {} ELSE {} END",
        text,
        frequent,
        text,
        text,
        _OTHER,
    )


def _summaries(
    reading: Reading, query: Query, span: Window, order: str, limit: int
) -> list[answers.MetricSummary]:
    where = _where(reading, METRIC_ROWS, query)
    rows = reading.rows(
        f"SELECT project_id, metric_id, arg_max(metric_name, {_ORDER}), arg_max(unit, {_ORDER}), "
        f"count(value), min(time), max(time) AS last_time, arg_max(value, {_ORDER}) "
        f"FROM {relation_within(reading, METRIC_ROWS, span)} WHERE {where.sql} "
        f"GROUP BY project_id, metric_id ORDER BY {order} LIMIT {limit:d}",
        where.params,
    )
    return [
        answers.MetricSummary(
            project_id=cast(str, row[0]),
            metric_id=cast(str, row[1]),
            metric_name=cast(str, row[2]),
            unit=cast(str | None, row[3]),
            count=cast(int, row[4]),
            first_time=spelled(_aware(row[5])),
            last_time=spelled(_aware(row[6])),
            last=cast(float, row[7]),
        )
        for row in rows
    ]


def _where(reading: Reading, subject: Subject, query: Query) -> Fragment:
    compiled = compile_query(query, now=reading.now, schema=subject.schema)
    return Fragment(compiled.where_sql, compiled.params)


def _aware(moment: object) -> datetime:
    """A stored time, or the date that `date_trunc` makes of one."""
    found = cast(date, moment)
    if isinstance(found, datetime):
        return found.replace(tzinfo=UTC)
    return datetime(found.year, found.month, found.day, tzinfo=UTC)


def _period_of(moment: datetime, interval: Interval) -> datetime:
    """The start of the period that `moment` lies in."""
    if interval == "hour":
        return moment.replace(minute=0, second=0, microsecond=0)
    day = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    if interval == "week":
        return day - min(timedelta(days=day.weekday()), day - _MIN)
    return day.replace(day=1) if interval == "month" else day
