"""Series and histograms out of rollups: what can be told without looking at rows.

A question fits when it asks only for what the sums are kept by: source, account and action of
events, project and metric of metrics, service, environment and level of logs. What it asks of those
may be anything, because the condition is applied to the groups, of which there are few.

1. Distinct counts add up over accounts (nobody is in two) and not over actions or days. So they are
   summed where one action, each action or all of them together are asked for, by hour or day;
   otherwise they are counted over the sets, which are exact too, and slower.
2. A span that begins or ends within an hour or a day leaves a rest, whose rows are read.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Literal

from msgspec import Struct

from ..lql import Query, Schema, compile_query
from ..lql.ast import And, Column, Field, Filter, Node, Not, Or, Text
from ..lql.sql import Fragment, sql
from ..lql.times import Window
from .reading import Reading, Row
from .requests import Interval
from .subjects import METRIC_ROWS

__all__ = [
    "Cut",
    "condition_of",
    "counted_by_hour",
    "cut",
    "event_points",
    "fits",
    "metric_points",
    "within",
]

GROUPED_BY = {
    "events": ("source", "account_id", "action"),
    "metrics": ("project_id", "metric_id"),
    "logs": ("service", "environment", "level"),
}
# Relations with the columns above, `hour`, and `rows`: how many there were in it.
_HOURS = {
    "events": "SELECT source, account_id, action, bucket AS hour, events AS rows "
    "FROM memory.main.rollup_event_hours JOIN memory.main.rollup_groups USING (gid) "
    "WHERE action IS NOT NULL",
    "metrics": "SELECT project_id, metric_id, bucket AS hour, count AS rows "
    "FROM memory.main.rollup_metric_hours",
    "logs": "SELECT service, environment, level, bucket AS hour, logs AS rows "
    "FROM memory.main.rollup_log_hours",
}

_UNITS = {"hour": timedelta(hours=1), "day": timedelta(days=1)}


class Cut(Struct, frozen=True):
    """A span as whole units, and what is left of it on both sides."""

    whole: Window
    rests: tuple[Window, ...]


def fits(query: Query, group_by: Field | None, schema: Schema) -> bool:
    """Whether only columns that rollups are kept by are asked for."""
    names = GROUPED_BY[schema.relation]
    if group_by is not None and not _is_column(group_by, names):
        return False
    return query.where is None or all(_is_known(node, names) for node in _leaves(query.where))


def cut(span: Window, unit: Literal["hour", "day"]) -> Cut:
    """Whole hours or days of a span."""
    low, end = span.start, span.end
    first = None if low is None else _ceiling(low, unit)
    last = None if end is None else _floor(end, unit)
    if first is not None and last is not None and first >= last:
        return Cut(Window(first, first), (span,))
    rests = []
    if low is not None and first is not None and low < first:
        rests.append(Window(low, first))
    if end is not None and last is not None and last < end:
        rests.append(Window(last, end))
    return Cut(Window(first, last), tuple(rests))


def days_by_group(query: Query, group_by: Field) -> str:
    """Events by day and group, as far as it takes to see which groups are frequent; a relation with
    the columns of events.
    """
    names = {"account_id"} & {*_names(query.where), *_names(Filter(group_by, "=", Text("")))}
    level = "event" if names else "source"
    return (
        "(SELECT source, account_id, action, bucket AS created_at, events "
        f"FROM memory.main.rollup_{level}_days JOIN memory.main.rollup_groups USING (gid) "
        "WHERE action IS NOT NULL) AS events"
    )


def counted_by_hour(schema: Schema) -> str:
    """How many rows there were in each hour, behind FROM: `hour`, `rows`, and what they are kept
    by.
    """
    return f"({_HOURS[schema.relation]}) AS {schema.relation}"


def event_points(
    reading: Reading,
    query: Query,
    whole: Window,
    *,
    interval: Interval,
    group: Fragment,
    group_by: Field | None,
    has_others: bool,
    schema: Schema,
    limit: int,
) -> list[Row]:
    """Bucket, group, events, users, accounts, sessions; the newest first. `group` is what points
    are grouped by, `has_others` that it gathers some.
    """
    names = _names(query.where)
    by = group_by.name if isinstance(group_by, Column) else None
    condition = condition_of(reading, query, schema)
    is_one = by == "action" or _pins_action(query.where)
    is_any = "action" not in names and by != "action"
    if interval in {"week", "month"} or not (is_one or is_any) or (by == "action" and has_others):
        statement = _from_sets(condition, whole, interval, group)
    else:
        of_all_accounts = by != "account_id" and "account_id" not in names
        statement = _from_sums(
            condition,
            whole,
            interval,
            group,
            of_all_accounts=of_all_accounts,
            of_all_actions=is_any,
        )
    statement = sql("{} ORDER BY bucket DESC, grp LIMIT {}", statement, limit)
    return reading.rows(statement.sql, statement.params)


def metric_points(
    reading: Reading,
    query: Query,
    parts: Cut,
    *,
    interval: Interval,
    group: Fragment,
    rests: list[tuple[str, Window]],
    limit: int,
) -> list[Row]:
    """Bucket, group, count, sum, min, max, avg, last; the newest first. `rests` are relations of
    rows, each with the span that is read of it.
    """
    arms = [
        sql(
            "SELECT bucket, project_id, metric_id, count, sum, min, max, last, last_time, "
            "last_request, last_line FROM memory.main.rollup_metric_hours WHERE {}",
            within("bucket", parts.whole),
        )
    ]
    for rows, span in rests:
        arms.append(
            sql(
                "SELECT time, project_id, metric_id, 1, value, value, value, value, time, "
                "request_number, line_number FROM {} WHERE {}",
                Fragment(rows),
                within("time", span),
            )
        )
    union = Fragment(
        " UNION ALL ".join(arm.sql for arm in arms),
        tuple(param for arm in arms for param in arm.params),
    )
    statement = sql(
        "SELECT date_trunc({}, bucket)::TIMESTAMP AS period, {} AS grp, sum(count)::BIGINT, "
        "sum(sum), min(min), max(max), sum(sum) / sum(count), "
        "arg_max(last, (last_time, last_request, last_line)) "
        "FROM ({}) AS metrics WHERE {} GROUP BY ALL ORDER BY period DESC, grp LIMIT {}",
        interval,
        group,
        union,
        condition_of(reading, query, METRIC_ROWS.schema),
        limit,
    )
    return reading.rows(statement.sql, statement.params)


def _from_sums(
    condition: Fragment,
    whole: Window,
    interval: Interval,
    group: Fragment,
    *,
    of_all_accounts: bool,
    of_all_actions: bool,
) -> Fragment:
    level = "source" if of_all_accounts else "event"
    accounts = "sum(accounts)" if of_all_accounts else "count(DISTINCT (source, account_id))"
    return sql(
        "SELECT bucket, {} AS grp, sum(events)::BIGINT AS events, sum(users)::BIGINT AS users, "
        "{}::BIGINT AS accounts, sum(sessions)::BIGINT AS sessions FROM (SELECT * FROM {} "
        "JOIN (SELECT * FROM memory.main.rollup_groups WHERE account_id IS {} AND action IS {}) "
        "USING (gid)) AS events WHERE {} AND ({}) GROUP BY bucket, grp",
        group,
        Fragment(accounts),
        Fragment(f"memory.main.rollup_{level}_{interval}s"),
        Fragment("NULL" if of_all_accounts else "NOT NULL"),
        Fragment("NULL" if of_all_actions else "NOT NULL"),
        within("bucket", whole),
        condition,
    )


def _from_sets(condition: Fragment, whole: Window, interval: Interval, group: Fragment) -> Fragment:
    unit = "hour" if interval == "hour" else "day"
    groups = (
        "(SELECT * FROM memory.main.rollup_groups WHERE account_id IS NOT NULL "
        "AND action IS NOT NULL)"
    )

    def counted(table: str, values: str) -> Fragment:
        return sql(
            "SELECT date_trunc({}, bucket)::TIMESTAMP AS period, {} AS grp, {} FROM (SELECT * "
            "FROM {} JOIN {} USING (gid)) AS events WHERE {} AND ({}) GROUP BY ALL",
            interval,
            group,
            Fragment(values),
            Fragment(table),
            Fragment(groups),
            within("events.bucket", whole),
            condition,
        )

    return sql(
        "SELECT period AS bucket, said.grp, events, users, accounts, sessions FROM ({}) AS said "
        "JOIN ({}) AS seen USING (period) WHERE said.grp IS NOT DISTINCT FROM seen.grp",
        counted(
            f"memory.main.rollup_event_{unit}s",
            "sum(events)::BIGINT AS events, count(DISTINCT (source, account_id)) AS accounts",
        ),
        counted(
            f"memory.main.rollup_members_{unit}",
            "count(DISTINCT digest) FILTER (NOT is_session) AS users, "
            "count(DISTINCT digest) FILTER (is_session) AS sessions",
        ),
    )


def condition_of(reading: Reading, query: Query, schema: Schema) -> Fragment:
    """Without times: those are of buckets here."""
    untimed = Query(query.where, services=query.services)
    compiled = compile_query(untimed, now=reading.now, schema=schema)
    return Fragment(compiled.where_sql, compiled.params)


def within(column: str, span: Window) -> Fragment:
    conditions = [Fragment("true")]
    if span.start is not None:
        conditions.append(sql(f"{column} >= {{}}", span.start.replace(tzinfo=None)))
    if span.end is not None:
        conditions.append(sql(f"{column} < {{}}", span.end.replace(tzinfo=None)))
    return Fragment(
        " AND ".join(each.sql for each in conditions),
        tuple(param for each in conditions for param in each.params),
    )


def _leaves(node: Node | None) -> Iterator[Node]:
    if isinstance(node, And | Or):
        for item in node.items:
            yield from _leaves(item)
    elif isinstance(node, Not):
        yield from _leaves(node.item)
    elif node is not None:
        yield node


def _names(node: Node | None) -> set[str]:
    """Of the columns that are asked for."""
    fields = [leaf.field for leaf in _leaves(node) if isinstance(leaf, Filter)]
    return {field.name for field in fields if isinstance(field, Column)}


def _is_known(node: Node, names: tuple[str, ...]) -> bool:
    return isinstance(node, Filter) and _is_column(node.field, names)


def _is_column(field: Field, names: tuple[str, ...]) -> bool:
    return isinstance(field, Column) and field.name in names


def _pins_action(where: Node | None) -> bool:
    """Whether only one action can satisfy it."""
    items = where.items if isinstance(where, And) else (where,)
    return any(
        isinstance(item, Filter)
        and isinstance(item.field, Column)
        and item.field.name == "action"
        and item.operator == "="
        and isinstance(item.value, Text)
        for item in items
    )


def _floor(moment: datetime, unit: Literal["hour", "day"]) -> datetime:
    moment = moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    return moment if unit == "hour" else moment.replace(hour=0)


def _ceiling(moment: datetime, unit: Literal["hour", "day"]) -> datetime | None:
    """None beyond the end of the calendar."""
    found = _floor(moment, unit)
    if found == moment:
        return found
    try:
        return found + _UNITS[unit]
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)
