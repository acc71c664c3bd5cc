"""SQL of alerts and monitors: the rows of one query, bounded, as it is asked for by the clock.

The same processes and walls as for a user's query. What the query did wrong is an outcome, shown
with the alert; that the server is busy is raised, and the window waits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import msgspec

from ..delivery.incident import FIRING_ROWS_MAX
from ..errors import RequestError
from ..watch.alerts import AlertWindow, Outcome, bound_query
from ..watch.judge import Values
from ..watch.settings import Monitor, SqlTarget
from ..watch.values import group_key, window_of
from .messages import QueryCut, QueryRefused
from .queries import Queries

__all__ = ["check_query", "run_query", "sql_values"]

# Of one result; a query that means to fire has a few rows.
_BYTES_MAX = 16 * 1024 * 1024
_GROUPS_READ_MAX = 10_000
_WRAP = "SELECT * FROM ("


async def run_query(queries: Queries, sql: str, *, rows_max: int = FIRING_ROWS_MAX) -> Outcome:
    """The first rows, and how many there are. Raises Overloaded, StoreBusy."""
    rows: list[bytes] = []
    count = size = 0
    held = b""
    try:
        async with await queries.ask(sql, "ndjson") as answer:
            while piece := await answer.receive():
                *lines, held = (held + piece).split(b"\n")
                count += len(lines)
                size += len(piece)
                rows += lines[: max(0, rows_max - len(rows))]
                if size > _BYTES_MAX:
                    return Outcome(error="the query finds more than 16 MiB of rows")
    except (RequestError, QueryCut) as error:
        return Outcome(error=str(error))
    return Outcome(rows=tuple(rows), count=count)


async def check_query(queries: Queries, sql: str, window: AlertWindow) -> None:
    """Raise QueryRefused when a query cannot be run; it finds no row. Its column is that of `sql`,
    unless a parameter before it has moved it.
    """
    text = bound_query(sql, window).rstrip().rstrip(";")
    try:
        async with await queries.ask(f"{_WRAP}{text}\n) LIMIT 0", "ndjson") as answer:
            while await answer.receive():
                pass
    except QueryRefused as error:
        column = (error.column or 0) - len(_WRAP)
        is_known = column >= 1 and text[:column] == sql[:column]
        raise QueryRefused(str(error), column if is_known else None) from None


async def sql_values(
    queries: Queries, monitor: Monitor, first: int, last: int
) -> dict[int, Values]:
    """The values of a SQL monitor's buckets. Raises QueryRefused, Overloaded, StoreBusy."""
    assert isinstance(monitor.target, SqlTarget)
    found = {}
    for bucket in range(first, last + 1):
        sql = bound_query(monitor.target.query, AlertWindow(*window_of(monitor, bucket)))
        outcome = await run_query(queries, sql, rows_max=_GROUPS_READ_MAX)
        if outcome.error is not None:
            raise QueryRefused(outcome.error)
        found[bucket] = _values(monitor, outcome)
    return found


def _values(monitor: Monitor, outcome: Outcome) -> Values:
    by_group: dict[str, float | None] = {}
    if not monitor.group_by and not outcome.rows:
        return Values({group_key([]): 0.0})
    for row in outcome.rows:
        columns: Mapping[str, object] = msgspec.json.decode(row)
        missing = [name for name in monitor.group_by if name not in columns]
        if missing:
            raise QueryRefused(f"the query has no column {missing[0]!r} to group by")
        key = group_key([columns[name] for name in monitor.group_by])
        if "value" not in columns:
            by_group[key] = (by_group.get(key) or 0.0) + 1
            continue
        value = columns["value"]
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise QueryRefused("the column value must be a number")
        by_group[key] = None if value is None else float(cast(float, value))
    return Values(by_group)
