"""Exports: the rows of one table over a span of time, as a SELECT for the query process.

Why through the query process: it reads Parquet files only, in a process of its own with low
priority and bounded memory, streams any number of rows, and its formats are those of `query`. What
an export has more is time: `EXPORT_LIMITS`, and a place of its own, so that queries go on.

1. A span is of arrival (`received_at`) unless the caller names the time of the events: what arrived
   late is then in the export of the day it arrived, and nightly exports miss nothing.
2. Columns are those of the public view, in their order.
3. `where` is a condition in SQL over those columns. It stands in parentheses of its own and passes
   the same walls as any SQL of a user (`sandbox/`); not LQL, which knows events and logs only.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal, get_args

from ..errors import InvalidField
from ..search.times import instant
from ..store.rollup_schema import ROLLUP_VIEW_NAMES
from ..store.schema import VIEW_NAMES

__all__ = ["BY", "By", "days_sql", "export_sql", "time_column"]

By = Literal["received_at", "time"]
BY: tuple[By, ...] = get_args(By)

# Tables whose rows have a time of their own beside that of their arrival.
_TIMES = {"events": "created_at", "logs": "time", "metrics": "time"}
_ARRIVING = frozenset({*_TIMES, "rejects", "requests"})


def export_sql(
    table: str,
    *,
    since: str | None,
    until: str | None,
    by: str = "received_at",
    where: str | None = None,
) -> str:
    """Raises InvalidField."""
    return f"SELECT * FROM {_checked(table)}{_where(table, since, until, by, where)}"


def days_sql(
    table: str,
    *,
    since: str | None,
    until: str | None,
    by: str = "received_at",
    where: str | None = None,
) -> str:
    """Days that have rows, and how many."""
    column = time_column(_checked(table), by)
    assert column is not None
    return (
        f"SELECT CAST(date_trunc('day', {column}) AS DATE) AS day, count(*) AS row_count "
        f"FROM {table}{_where(table, since, until, by, where)} GROUP BY day ORDER BY day"
    )


def time_column(table: str, by: str) -> str | None:
    """By what the rows of a table are told apart in time; None for tables that have no time."""
    if by not in BY:
        raise InvalidField("by", f"by must be one of {', '.join(BY)}; got {by!r}")
    if table in _ARRIVING:
        return "received_at" if by == "received_at" else _TIMES.get(table, "received_at")
    return "bucket" if table.endswith(("_hourly", "_daily")) else None


def _checked(table: str) -> str:
    tables = (*VIEW_NAMES, *ROLLUP_VIEW_NAMES)
    if table not in tables:
        known = ", ".join(tables)
        raise InvalidField("table", f"table must be one of {known}; got {table!r}")
    return table


def _where(table: str, since: str | None, until: str | None, by: str, where: str | None) -> str:
    column, now = time_column(table, by), datetime.now(UTC)
    bounds = []
    for name, text, operator in (("since", since, ">="), ("until", until, "<")):
        if text is None:
            continue
        if column is None:
            raise InvalidField(name, f"{table} has no time; export it whole, without {name}")
        moment = instant(name, text, now).astimezone(UTC).replace(tzinfo=None)
        bounds.append(f"{column} {operator} TIMESTAMP '{moment.isoformat(sep=' ')}'")
    if where is not None:
        if not where.strip():
            raise InvalidField("where", "where must be a condition in SQL, such as level = 'error'")
        # A comment at its end takes no more than its line.
        bounds.append(f"(\n{where}\n)")
    return f" WHERE {' AND '.join(bounds)}" if bounds else ""
