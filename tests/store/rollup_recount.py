"""Rollups against a recount of all rows, in plain SQL that shares nothing with the steps.

It tells where they differ, a few buckets of each relation, in sentences. It counts anew what the
rows say that are behind the snapshot's commits: rows of commits that the cursor has not passed are
left out on both sides. Buckets whose rows may be gone (`since`) are not compared.
"""

from __future__ import annotations

import time
from datetime import datetime

from ingester.store.database import Cursor
from ingester.store.relations import Snapshot, relation
from ingester.store.rollups import Rollups
from ingester.store.store import Store

__all__ = ["recount_problems"]

_EXAMPLES_MAX = 5
_CATCH_UP_S = 60.0

_HOUR = "date_trunc('hour', {})::TIMESTAMP"
_DAY = "date_trunc('day', {})::TIMESTAMP"
_EVENTS = (
    "SELECT {bucket} AS bucket, source, account_id, action, count(*) AS events, "
    "count(DISTINCT user_id) AS users, count(DISTINCT session_id) AS sessions "
    "FROM {{events}} GROUP BY ALL"
)


def _number(camel: str, snake: str) -> str:
    found = f"try_cast(coalesce(body->>'{camel}', body->>'{snake}') AS DOUBLE)"
    return f"CASE WHEN isfinite({found}) THEN {found} END"


# By relation: the recount, its keys, what must be equal, and what may differ by rounding.
_RECOUNTS = {
    "events_hourly": (
        _EVENTS.format(bucket=_HOUR.format("created_at")),
        ("bucket", "source", "account_id", "action"),
        ("events", "users", "sessions"),
        (),
    ),
    "events_daily": (
        _EVENTS.format(bucket=_DAY.format("created_at")),
        ("bucket", "source", "account_id", "action"),
        ("events", "users", "sessions"),
        (),
    ),
    "accounts_daily": (
        f"SELECT {_DAY.format('created_at')} AS bucket, source, account_id, count(*) AS events, "
        "count(DISTINCT user_id) AS users, count(DISTINCT session_id) AS sessions, "
        f"coalesce(sum({_number('activeDuration', 'active_duration')}) "
        "FILTER (action IN ('sessionSync', 'session_sync')), 0) AS active_duration "
        "FROM {events} GROUP BY ALL",
        ("bucket", "source", "account_id"),
        ("events", "users", "sessions"),
        ("active_duration",),
    ),
    "modules_daily": (
        f"SELECT {_DAY.format('created_at')} AS bucket, source, account_id, "
        f"body->>'module' AS module, coalesce(sum({_number('timeSpent', 'time_spent')}), 0) "
        "AS time_spent, count(*) AS visits FROM {events} "
        "WHERE action IN ('moduleEnd', 'module_end') AND (body->>'module') <> '' GROUP BY ALL",
        ("bucket", "source", "account_id", "module"),
        ("visits",),
        ("time_spent",),
    ),
    "features_daily": (
        f"SELECT {_DAY.format('created_at')} AS bucket, source, account_id, "
        "body->>'module' AS module, body->>'product' AS product, body->>'feature' AS feature, "
        f"coalesce(sum({_number('total', 'total')}), 0) AS total, "
        "count(DISTINCT user_id) AS users FROM {events} WHERE action = 'feature' "
        "AND (body->>'feature') <> '' GROUP BY ALL",
        ("bucket", "source", "account_id", "module", "product", "feature"),
        ("users",),
        ("total",),
    ),
    "logs_hourly": (
        f"SELECT {_HOUR.format('time')} AS bucket, service, environment, level, "
        "count(*) AS logs FROM {logs} GROUP BY ALL",
        ("bucket", "service", "environment", "level"),
        ("logs",),
        (),
    ),
    "metrics_hourly": (
        f"SELECT {_HOUR.format('time')} AS bucket, project_id, metric_id, count(*) AS count, "
        "sum(value) AS sum, min(value) AS min, max(value) AS max, "
        "arg_max(value, (time, request_number, line_number)) AS last FROM {metrics} GROUP BY ALL",
        ("bucket", "project_id", "metric_id"),
        ("count", "min", "max", "last"),
        ("sum",),
    ),
}
_COLUMNS = {
    "events": ("created_at", "source", "account_id", "user_id", "action", "session_id", "body"),
    "logs": ("time", "service", "environment", "level"),
    "metrics": ("time", "project_id", "metric_id", "value"),
}
_TIMES = {"events": "created_at", "logs": "time", "metrics": "time"}


def recount_problems(
    store: Store, rollups: Rollups | None = None, *, since: datetime | None = None
) -> list[str]:
    """Where rollups are not what a recount says, in plain sentences; empty when all is well.

    Steps that are due are done first. `since`: older buckets are left out, because rows of theirs
    may have been removed.
    """
    rollups = rollups or Rollups(store)
    rollups.catch_up(gives_up_at=time.monotonic() + _CATCH_UP_S)
    problems: list[str] = []
    # Nothing is appended meanwhile, and what is committed is behind the cursor.
    with rollups.paused(), store.database.lease() as lease, lease.using() as cursor:
        snapshot = store.snapshot()
        low = max(filter(None, (since, rollups.horizon(cursor))), default=None)
        rows = {
            table: _rows(cursor, snapshot, table, rollups.commit_number, low) for table in _COLUMNS
        }
        for name, (recount, keys, exact, rounded) in _RECOUNTS.items():
            problems += _differences(
                cursor, name, recount.format(**rows), keys, exact, rounded, low
            )
    return problems


def _rows(
    cursor: Cursor, snapshot: Snapshot, table: str, cursor_number: int, low: datetime | None
) -> str:
    """The rows of `table` that the cursor has passed, as a relation."""
    union = " UNION ALL ".join(
        f"SELECT batch_id FROM {part}.applied WHERE lane NOT IN ('carry', 'wide') "
        f"AND commit_number > {cursor_number}"
        for part in snapshot.parts
    )
    later = [str(batch_id) for (batch_id,) in cursor.execute(union).fetchall()]
    columns = (*_COLUMNS[table], "batch_id")
    found = relation(snapshot, table, columns, snapshot.files_of(table))
    conditions = [f"batch_id NOT IN ({', '.join(later)})"] if later else []
    if low is not None:
        conditions.append(f"{_TIMES[table]} >= TIMESTAMP '{low.replace(tzinfo=None)}'")
    return f"(SELECT * FROM ({found}) WHERE {' AND '.join(conditions) or 'true'})"


def _scale(value: str) -> str:
    """How large numbers are that were added: sums of both signs may be small."""
    if value != "sum":
        return f"abs(counted.{value}) + 1"
    return "counted.count * greatest(abs(counted.min), abs(counted.max))"


def _differences(
    cursor: Cursor,
    name: str,
    recount: str,
    keys: tuple[str, ...],
    exact: tuple[str, ...],
    rounded: tuple[str, ...],
    low: datetime | None,
) -> list[str]:
    same = " AND ".join(f"told.{key} IS NOT DISTINCT FROM counted.{key}" for key in keys)
    differ = " OR ".join([
        "told.bucket IS NULL OR counted.bucket IS NULL",
        *(f"told.{value} IS DISTINCT FROM counted.{value}" for value in exact),
        *(
            # Beyond the largest number the order of additions decides.
            f"isfinite(told.{value}) AND isfinite(counted.{value}) "
            f"AND abs(told.{value} - counted.{value}) > 1e-9 * ({_scale(value)})"
            for value in rounded
        ),
    ])
    values = (*exact, *rounded)
    kept = "" if low is None else f" WHERE bucket >= TIMESTAMP '{low.replace(tzinfo=None)}'"
    listed = ", ".join([
        *(f"coalesce(told.{key}, counted.{key})::VARCHAR" for key in keys),
        *(f"told.{value}::VARCHAR, counted.{value}::VARCHAR" for value in values),
    ])
    rows = cursor.execute(
        f"SELECT {listed}, count(*) OVER () FROM (SELECT * FROM {name}{kept}) AS told "
        f"FULL JOIN ({recount}) AS counted ON {same} WHERE {differ} LIMIT {_EXAMPLES_MAX}"
    ).fetchall()
    problems = []
    for row in rows:
        place = ", ".join(map(str, row[: len(keys)]))
        pairs = list(zip(row[len(keys) : -1 : 2], row[len(keys) + 1 : -1 : 2], strict=True))
        wrong = [
            f"{value} {told or 0} instead of {counted or 0}"
            for value, (told, counted) in zip(values, pairs, strict=True)
            if told != counted
        ]
        problems.append(f"{name}: {place}: {', '.join(wrong)}")
    if rows and rows[0][-1] > len(rows):
        problems.append(f"{name}: {rows[0][-1]} rows in all differ from a recount")
    return problems
