"""Which metrics there are: their last values, names and units."""

from __future__ import annotations

from datetime import timedelta
from typing import cast

from msgspec import UNSET, structs

from ..lql import Query, parse
from ..lql.times import Window
from . import answers
from .asked import equals, narrowed
from .page import page
from .reading import Reading, Row
from .requests import MetricsQuery
from .subjects import METRIC_ROWS
from .times import aware, bounded, spelled, window_for
from .walk import relation_within, where_of

__all__ = ["ARRIVAL", "metrics", "rolled_summaries", "summaries"]

METRICS_MAX = 1_000

# Which of several points is the last: by time, then by arrival.
ARRIVAL = "(time, request_number, line_number)"

_SPAN = timedelta(days=30)


def metrics(reading: Reading, request: MetricsQuery) -> answers.MetricPage:
    """Raises QueryError, InvalidField."""
    named = {"project_id": request.project, "metric_id": request.metric_id}
    only = [equals(name, value) for name, value in named.items() if value is not None]
    found = page(reading, METRIC_ROWS, request, only=only, span=_SPAN)
    answer = answers.MetricPage(**structs.asdict(found))
    if request.cursor is not None or found.chart is not UNSET:
        return answer
    asked = parse(request.q, schema=METRIC_ROWS.schema)
    query = narrowed(Query(asked.where, asked.times, services=asked.services), only)
    within = window_for(
        query, since=request.since, until=request.until, now=reading.now, span=_SPAN
    )
    order, limit = "project_id, metric_id", METRICS_MAX + 1
    is_plain = request.since is None and request.until is None and not request.q.strip()
    if reading.rollups is not None and is_plain:
        reading.catch_up()
        listed = rolled_summaries(
            reading, metric_id=request.metric_id, project=request.project, order=order, limit=limit
        )
    else:
        listed = summaries(reading, bounded(query, within), within, order, limit)
    return structs.replace(
        answer, metrics=listed[:METRICS_MAX], metrics_truncated=len(listed) > METRICS_MAX
    )


def rolled_summaries(
    reading: Reading, *, metric_id: str | None, project: str | None, order: str, limit: int
) -> list[answers.MetricSummary]:
    """Of all time, out of rollups."""
    named = {"metric_id": metric_id, "project_id": project}
    conditions = [f"{name} = ?" for name, value in named.items() if value is not None]
    last = "(last_time, last_request, last_line)"
    rows = reading.rows(
        f"SELECT project_id, metric_id, arg_max(metric_name, {last}), "
        f"arg_max({{'unit': unit}}, {last}).unit, sum(count)::BIGINT, min(first_time), "
        f"max(label.last_time) AS last_time, arg_max(last, {last}) "
        f"FROM memory.main.rollup_metric_labels AS label "
        f"WHERE {' AND '.join(conditions) or 'true'} "
        f"GROUP BY project_id, metric_id ORDER BY {order} LIMIT {limit:d}",
        [value for value in named.values() if value is not None],
    )
    return [_summary(reading, row) for row in rows]


def summaries(
    reading: Reading, query: Query, span: Window, order: str, limit: int
) -> list[answers.MetricSummary]:
    where = where_of(reading, METRIC_ROWS, query)
    rows = reading.rows(
        f"SELECT project_id, metric_id, arg_max(metric_name, {ARRIVAL}), arg_max(unit, {ARRIVAL}), "
        f"count(value), min(time), max(time) AS last_time, arg_max(value, {ARRIVAL}) "
        f"FROM {relation_within(reading, METRIC_ROWS, span)} WHERE {where.sql} "
        f"GROUP BY project_id, metric_id ORDER BY {order} LIMIT {limit:d}",
        where.params,
    )
    return [_summary(reading, row) for row in rows]


def _summary(reading: Reading, row: Row) -> answers.MetricSummary:
    project_id, metric_id = cast(str, row[0]), cast(str, row[1])
    return answers.MetricSummary(
        project_id=project_id,
        metric_id=metric_id,
        metric_name=cast(str, row[2]),
        unit=cast(str | None, row[3]),
        count=cast(int, row[4]),
        first_time=spelled(aware(row[5])),
        last_time=spelled(aware(row[6])),
        last=cast(float, row[7]),
        warning=reading.metric_warning(project_id, metric_id) or UNSET,
    )
