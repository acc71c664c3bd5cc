"""Series: events and metrics by hour, day, week or month.

1. Periods are UTC; weeks begin on Monday. Without `since` the first period is a whole one.
2. The `GROUPS_MAX` most frequent groups are told apart, the others gathered.
3. At most `POINTS_MAX` points, the newest.
4. What rollups tell comes from them (`rolled.py`), everything else from rows; the answer says
   which, and until when it is complete.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any, Literal, cast

from msgspec import UNSET, Struct, UnsetType, structs

from ..errors import InvalidField
from ..lql import Query
from ..lql.ast import Field
from ..lql.charts import text_of
from ..lql.fields import display_name
from ..lql.sql import Fragment, sql
from ..lql.times import Window
from . import answers, rolled
from .asked import equals, field_named, joined, narrowed
from .documents import cell
from .metric_list import ARRIVAL, rolled_summaries, summaries
from .page import cost_of
from .reading import Reading, Row
from .requests import Interval, MetricSeriesQuery, SeriesQuery
from .subjects import EVENT_ROWS, METRIC_ROWS, Subject
from .times import bounded, maybe_spelled, spelled, stored, window_for
from .walk import asked_of, count_rows, relation_within, where_of

__all__ = ["event_series", "metric_series"]

POINTS_MAX = 10_000
GROUPS_MAX = 50
GROUP_CHARACTERS_MAX = 256

_OTHER = "(other)"
_PERCENTILES_MAX = 10
_MIN = datetime.min.replace(tzinfo=UTC)

# Some fifty periods.
_SPANS: dict[Interval, timedelta] = {
    "hour": timedelta(days=2),
    "day": timedelta(days=30),
    "week": timedelta(weeks=26),
    "month": timedelta(days=365),
}

_EVENT_VALUES = (
    "count(created_at)",
    "count(DISTINCT (source, account_id, user_id))",
    "count(DISTINCT (source, account_id))",
    "count(DISTINCT (source, account_id, session_id)) FILTER (session_id IS NOT NULL)",
)
_METRIC_VALUES = (
    *("count(value)", "sum(value)", "min(value)", "max(value)", "avg(value)"),
    f"arg_max(value, {ARRIVAL})",
)


# Of a year by hour there are 8,760: each microsecond of one costs 9 ms.
_EventRow = tuple[datetime, str | None, int, int, int, int]


class _Grouped(Struct, frozen=True, kw_only=True):
    """What a series asks for, its span, and its points: bucket, group, values."""

    query: Query
    span: Window
    rows: list[Row]
    group_by: str | None
    truncated: bool
    answered_from: Literal["rollups", "rows"]
    complete_up_to: datetime

    def group_of(self, row: Row) -> str | UnsetType | None:
        return UNSET if self.group_by is None else cast(str | None, row[1])

    def told(self, request: SeriesQuery, reading: Reading) -> dict[str, Any]:
        """What both kinds of series tell beside their points."""
        return {
            "interval": request.interval,
            "group_by": self.group_by,
            "since": maybe_spelled(self.span.start),
            "until": maybe_spelled(self.span.end),
            "truncated": self.truncated,
            "answered_from": self.answered_from,
            "complete_up_to": spelled(self.complete_up_to),
            "cost": cost_of(reading),
        }


def event_series(reading: Reading, request: SeriesQuery) -> answers.EventSeries:
    """Raises QueryError, RequestError, InvalidField."""
    query = joined(EVENT_ROWS.schema, request.q, request.filter)
    asked = _asked(reading, EVENT_ROWS, query, request)
    found = _rolled_events(reading, asked, request) or _grouped(
        reading, EVENT_ROWS, asked, request, _EVENT_VALUES
    )
    is_grouped = found.group_by is not None
    points = [
        answers.EventPoint(
            bucket=stored(bucket),
            group=group if is_grouped else UNSET,
            events=events,
            users=users,
            accounts=accounts,
            sessions=sessions,
        )
        for bucket, group, events, users, accounts, sessions in cast(list[_EventRow], found.rows)
    ]
    return answers.EventSeries(**found.told(request, reading), points=points)


def metric_series(
    reading: Reading, metric_id: str, request: MetricSeriesQuery
) -> answers.MetricSeries:
    """Raises QueryError, RequestError, InvalidField."""
    only = [equals("metric_id", metric_id)]
    if request.project is not None:
        only.append(equals("project_id", request.project))
    query = narrowed(joined(METRIC_ROWS.schema, request.q, request.filter), only)
    asked = _asked(reading, METRIC_ROWS, query, request)
    quantiles = parse_percentiles(request.percentiles)
    found = _rolled_metrics(reading, asked, request)
    if found is None:
        found = _grouped(reading, METRIC_ROWS, asked, request, _METRIC_VALUES)
        listed = summaries(reading, found.query, found.span, "last_time DESC", 1)
    else:
        listed = rolled_summaries(
            reading, metric_id=metric_id, project=request.project, order="last_time DESC", limit=1
        )
    percentiles = (
        _percentiles(reading, asked, request.interval, quantiles, found) if quantiles else {}
    )
    points = [
        answers.MetricPoint(
            bucket=stored(cast(datetime, row[0])),
            group=found.group_of(row),
            **dict(
                zip(
                    ("count", "sum", "min", "max", "avg", "last"),
                    (cell(value) for value in row[2:]),
                    strict=True,
                )
            ),  # type: ignore[arg-type]
            percentiles=percentiles.get((row[0], row[1])) if quantiles else UNSET,
        )
        for row in found.rows
    ]
    return answers.MetricSeries(
        **found.told(request, reading),
        metric_id=metric_id,
        metric_name=listed[0].metric_name if listed else None,
        unit=listed[0].unit if listed else None,
        points=points,
    )


class _Asked(Struct, frozen=True):
    """A question with its span resolved: the query without and with it as a condition."""

    query: Query
    bounded: Query
    span: Window
    field: Field | None

    @property
    def group_name(self) -> str | None:
        return None if self.field is None else display_name(self.field)


def _asked(reading: Reading, subject: Subject, query: Query, request: SeriesQuery) -> _Asked:
    field = None
    if request.group_by is not None:
        field = field_named("group_by", request.group_by, subject.schema)
    span = window_for(
        query,
        since=request.since,
        until=request.until,
        now=reading.now,
        span=_SPANS[request.interval],
    )
    if request.since is None and not query.times and span.start is not None:
        span = Window(_period_of(span.start, request.interval), span.end)
    return _Asked(query, bounded(query, span), span, field)


def _grouped(
    reading: Reading, subject: Subject, asked: _Asked, request: SeriesQuery, values: Sequence[str]
) -> _Grouped:
    """Out of rows."""
    reading.rows_scanned = count_rows(reading, subject, asked.span)
    group = Fragment("NULL")
    fields = () if asked.field is None else (asked.field,)
    schema, relation = asked_of(reading, subject, asked.bounded, asked.span, fields)
    subject = structs.replace(subject, schema=schema)
    if asked.field is not None:
        where = where_of(reading, subject, asked.bounded)
        group, _ = _group(reading, subject, relation, where, asked.field, "count(*)")
    rows = _points_of_rows(
        reading, subject, asked.bounded, relation, request.interval, group, values
    )
    return _Grouped(
        query=asked.bounded,
        span=asked.span,
        rows=_shown(rows),
        group_by=asked.group_name,
        truncated=len(rows) > POINTS_MAX,
        answered_from="rows",
        complete_up_to=reading.now,
    )


def _points_of_rows(
    reading: Reading,
    subject: Subject,
    query: Query,
    relation: str,
    interval: Interval,
    group: Fragment,
    values: Sequence[str],
) -> list[Row]:
    statement = sql(
        "SELECT date_trunc({}, {})::TIMESTAMP AS bucket, {} AS grp, {} FROM {} WHERE {} "
        "GROUP BY ALL ORDER BY bucket DESC, grp LIMIT {}",
        interval,
        Fragment(subject.schema.time),
        group,
        Fragment(", ".join(values)),
        Fragment(relation),
        where_of(reading, subject, query),
        POINTS_MAX + 1,
    )
    return reading.rows(statement.sql, statement.params)


def _shown(rows: list[Row]) -> list[Row]:
    """Of the newest first, as many as are shown, the oldest first; groups in their order."""
    shown = rows[:POINTS_MAX]
    shown.sort(key=itemgetter(0))
    return shown


def _rolled_events(reading: Reading, asked: _Asked, request: SeriesQuery) -> _Grouped | None:
    """Out of rollups; None where those do not tell it."""
    if reading.rollups is None or not rolled.fits(asked.query, asked.field, EVENT_ROWS.schema):
        return None
    unit: Literal["hour", "day"] = "hour" if request.interval == "hour" else "day"
    cut = rolled.cut(asked.span, unit)
    # The rest of a week or a month shares users with its whole days, so it cannot be added.
    if cut.rests and request.interval in {"week", "month"}:
        return None
    complete_up_to = reading.catch_up()
    untimed = Query(asked.query.where, services=asked.query.services)
    group, has_others = Fragment("NULL"), False
    if asked.field is not None:
        # The days that the span touches tell which groups are frequent.
        start = None if asked.span.start is None else _period_of(asked.span.start, "day")
        where = where_of(reading, EVENT_ROWS, bounded(untimed, Window(start, asked.span.end)))
        relation = rolled.days_by_group(untimed, asked.field)
        group, has_others = _group(reading, EVENT_ROWS, relation, where, asked.field, "sum(events)")
    rows = rolled.event_points(
        reading,
        untimed,
        cut.whole,
        interval=request.interval,
        group=group,
        group_by=asked.field,
        has_others=has_others,
        schema=EVENT_ROWS.schema,
        limit=POINTS_MAX + 1,
    )
    for rest in cut.rests:
        rows += _points_of_rows(
            reading,
            EVENT_ROWS,
            bounded(untimed, rest),
            relation_within(reading, EVENT_ROWS, rest),
            request.interval,
            group,
            _EVENT_VALUES,
        )
    if cut.rests:
        rows.sort(key=lambda row: cast(datetime, row[0]), reverse=True)
    return _rolled(reading, asked, rows, complete_up_to)


def _rolled_metrics(reading: Reading, asked: _Asked, request: SeriesQuery) -> _Grouped | None:
    if reading.rollups is None or not rolled.fits(asked.query, asked.field, METRIC_ROWS.schema):
        return None
    complete_up_to = reading.catch_up()
    cut = rolled.cut(asked.span, "hour")
    group = Fragment("NULL")
    if asked.field is not None:
        group = sql("left({}, {})", text_of(asked.field, METRIC_ROWS.schema), GROUP_CHARACTERS_MAX)
    rows = rolled.metric_points(
        reading,
        asked.query,
        cut,
        interval=request.interval,
        group=group,
        rests=[(relation_within(reading, METRIC_ROWS, rest), rest) for rest in cut.rests],
        limit=POINTS_MAX + 1,
    )
    return _rolled(reading, asked, rows, complete_up_to)


def _rolled(reading: Reading, asked: _Asked, rows: list[Row], complete_up_to: datetime) -> _Grouped:
    return _Grouped(
        query=asked.bounded,
        span=asked.span,
        rows=_shown(rows),
        group_by=asked.group_name,
        truncated=len(rows) > POINTS_MAX,
        answered_from="rollups",
        complete_up_to=complete_up_to,
    )


def _percentiles(
    reading: Reading,
    asked: _Asked,
    interval: Interval,
    quantiles: Mapping[str, float],
    found: _Grouped,
) -> dict[tuple[object, object], dict[str, float]]:
    """Out of rows, by bucket and group; of a bucket whose rows are not all there any more none."""
    group = Fragment("NULL")
    relation = relation_within(reading, METRIC_ROWS, asked.span)
    if asked.field is not None:
        where = where_of(reading, METRIC_ROWS, asked.bounded)
        group, _ = _group(reading, METRIC_ROWS, relation, where, asked.field, "count(*)")
    listed = ", ".join(f"{value!r}" for value in quantiles.values())
    values = ("count(value)", f"quantile_cont(value, [{listed}])")
    rows = _points_of_rows(reading, METRIC_ROWS, asked.bounded, relation, interval, group, values)
    counts = {(row[0], row[1]): row[2] for row in found.rows}
    return {
        (bucket, name): dict(zip(quantiles, cast(list[float], told), strict=True))
        for bucket, name, count, told in rows
        if counts.get((bucket, name)) == count
    }


def parse_percentiles(text: str) -> dict[str, float]:
    """`50,99.9` as `{"p50": 0.5, "p99.9": 0.999}`. Raises InvalidField."""
    found: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        try:
            percent = float(part)
        except ValueError:
            percent = -1.0
        if not 0 <= percent <= 100 or len(found) >= _PERCENTILES_MAX or len(part) > 8:
            raise InvalidField(
                "percentiles",
                f"percentiles: at most {_PERCENTILES_MAX} numbers from 0 to 100, as 50,95,99.9",
            )
        found[f"p{part}"] = percent / 100
    return found


def _group(
    reading: Reading, subject: Subject, relation: str, where: Fragment, field: Field, weight: str
) -> tuple[Fragment, bool]:
    """What rows are grouped by: the frequent values, and one name for all others; whether there are
    others.
    """
    text = sql("left({}, {})", text_of(field, subject.schema), GROUP_CHARACTERS_MAX)
    statement = sql(
        "SELECT {} AS grp FROM {} WHERE {} GROUP BY ALL ORDER BY {} DESC, grp LIMIT {}",
        text,
        Fragment(relation),
        where,
        Fragment(weight),
        GROUPS_MAX + 1,
    )
    names = [name for (name,) in reading.rows(statement.sql, statement.params)]
    if len(names) <= GROUPS_MAX:
        return text, False
    frequent = [name for name in names[:GROUPS_MAX] if name is not None]
    others = sql(
        "CASE WHEN {} IS NULL OR list_contains({}::VARCHAR[], {}) THEN {} ELSE {} END",
        text,
        frequent,
        text,
        text,
        _OTHER,
    )
    return others, True


def _period_of(moment: datetime, interval: Interval) -> datetime:
    """The start of the period that `moment` lies in."""
    if interval == "hour":
        return moment.replace(minute=0, second=0, microsecond=0)
    day = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    if interval == "week":
        return day - min(timedelta(days=day.weekday()), day - _MIN)
    return day.replace(day=1) if interval == "month" else day
