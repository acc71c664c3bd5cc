"""A recount of the rollups in plain SQL over the public tables of rows, and random rows for it."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta
from typing import Any

from ingester.store.store import Store
from tests.search.rows import Row, Rows, event, log, metric
from tests.store.stores import rows

__all__ = ["COLUMNS", "RECOUNTS", "add_some", "assert_recounts", "some_rows"]

# DATE and TIMESTAMP: `date_trunc` gives both.
_HOUR = "date_trunc('hour', {})::TIMESTAMP"
_DAY = "date_trunc('day', {})::TIMESTAMP"
_EVENTS = (
    "SELECT {bucket} AS bucket, source, account_id, action, count(*), "
    "count(DISTINCT user_id), count(DISTINCT session_id) FROM events GROUP BY ALL"
)
_NUMBER = "(body->>'{0}')::DOUBLE"
_LOGS = "SELECT {bucket}, service, environment, level, count(*) FROM logs GROUP BY ALL"
_METRICS = (
    "SELECT {bucket}, project_id, metric_id, count(*), sum(value), min(value), max(value), "
    "avg(value), arg_max(value, (time, split_part(id, '-', 1), split_part(id, '-', 2)::BIGINT)) "
    "FROM metrics GROUP BY ALL"
)
_TIME_SPENT = "coalesce((body->>'timeSpent')::DOUBLE, (body->>'time_spent')::DOUBLE, 0)"
_ACTIVE = "coalesce((body->>'activeDuration')::DOUBLE, (body->>'active_duration')::DOUBLE)"

RECOUNTS = {
    "events_hourly": _EVENTS.format(bucket=_HOUR.format("created_at")),
    "events_daily": _EVENTS.format(bucket=_DAY.format("created_at")),
    "accounts_daily": f"SELECT {_DAY.format('created_at')} AS bucket, source, account_id, "
    "count(*), count(DISTINCT user_id), count(DISTINCT session_id), "
    f"coalesce(sum({_ACTIVE}) FILTER (action = 'sessionSync'), 0) FROM events GROUP BY ALL",
    "modules_daily": f"SELECT {_DAY.format('created_at')} AS bucket, source, account_id, "
    f"body->>'module' AS module, sum({_TIME_SPENT}), count(*) FROM events "
    "WHERE action = 'moduleEnd' GROUP BY ALL",
    "features_daily": f"SELECT {_DAY.format('created_at')} AS bucket, source, account_id, "
    "body->>'module' AS module, body->>'product' AS product, body->>'feature' AS feature, "
    "sum((body->>'total')::DOUBLE), count(DISTINCT user_id) FROM events "
    "WHERE action = 'feature' GROUP BY ALL",
    "logs_hourly": _LOGS.format(bucket=_HOUR.format("time")),
    "logs_daily": _LOGS.format(bucket=_DAY.format("time")),
    "metrics_hourly": _METRICS.format(bucket=_HOUR.format("time")),
    "metrics_daily": _METRICS.format(bucket=_DAY.format("time")),
}
COLUMNS = {
    "events_hourly": "bucket, source, account_id, action, events, users, sessions",
    "events_daily": "bucket, source, account_id, action, events, users, sessions",
    "accounts_daily": "bucket, source, account_id, events, users, sessions, active_duration",
    "modules_daily": "bucket, source, account_id, module, time_spent, visits",
    "features_daily": "bucket, source, account_id, module, product, feature, total, users",
    "logs_hourly": "bucket, service, environment, level, logs",
    "logs_daily": "bucket, service, environment, level, logs",
    "metrics_hourly": "bucket, project_id, metric_id, count, sum, min, max, avg, last",
    "metrics_daily": "bucket, project_id, metric_id, count, sum, min, max, avg, last",
    "users": "source, account_id, user_id, first_seen, last_seen, details",
    "accounts": "source, account_id, first_seen, last_seen, details",
}

_START = datetime(2026, 11, 1, tzinfo=UTC)
_ACTIONS = ("feature", "moduleEnd", "sessionSync", "identifyUser", "identifyAccount", "login")


def assert_recounts(store: Store) -> None:
    """Every rollup says what plain SQL over all rows says."""
    for name, recount in RECOUNTS.items():
        told = sorted(map(repr, rows(store, f"SELECT {COLUMNS[name]} FROM {name}")))
        counted = sorted(map(repr, rows(store, recount)))
        assert told == counted, name
    for name, keys in (("users", 3), ("accounts", 2)):
        found = rows(store, f"SELECT {COLUMNS[name]} FROM {name}")
        told = {row[:keys]: (*row[keys:-1], json.loads(row[-1])) for row in found}
        assert len(told) == len(found)
        assert told == _people(store, keys), name


def some_rows(random: random.Random, count: int) -> dict[str, list[Row]]:
    """Rows of each table over a few weeks, with few different values, some of them late."""

    def time() -> datetime:
        days = random.choice((0, 0, 0, 0, 0, 1, 6, 40, -300))
        return _START + timedelta(days=days, seconds=random.randrange(5) * 1700)

    return {
        "events": [_some_event(random, time()) for _ in range(random.randrange(count + 1))],
        "logs": [
            log(time(), service=random.choice("ab"), level=random.choice(("info", "error")))
            for _ in range(random.randrange(count + 1))
        ],
        "metrics": [
            metric(time(), random.randrange(-5, 6), random.choice(("m1", "m2")), unit="ms")
            for _ in range(random.randrange(count + 1))
        ],
    }


def add_some(made: Rows, random: random.Random, count: int = 20) -> None:
    """Commit some rows, a table a commit."""
    for table, found in some_rows(random, count).items():
        if found:
            made.add(table, found, as_file=random.random() < 0.3)


def _some_event(random: random.Random, time: datetime) -> Row:
    body: dict[str, Any] = {}
    action = random.choice(_ACTIONS)
    spelling = random.random() < 0.3
    if action in {"feature", "moduleEnd"}:
        body["module"] = random.choice("pq")
    if action == "feature":
        body |= {"feature": random.choice("fg"), "total": random.randrange(4)}
        if random.random() < 0.5:
            body["product"] = random.choice(("", "x"))
    if action == "moduleEnd" and random.random() < 0.9:
        body["time_spent" if spelling else "timeSpent"] = random.randrange(100)
    if action == "sessionSync":
        body["active_duration" if spelling else "activeDuration"] = random.randrange(100)
    if action.startswith("identify"):
        values = (None, 1, "text", {"a": [1, None]}, False)
        body["details"] = {key: random.choice(values) for key in random.sample("ab'\"", 2)}
    return event(
        time,
        action,
        body=body,
        source=random.choice(("shop", "site")),
        account_id=random.choice(("a", "b", "ab")),
        user_id=random.choice(("ada", "bob", "bada")),
        session_id=random.choice(("1", "2", None)),
    )


def _people(store: Store, keys: int) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """Users (3 keys) or accounts (2) with what identify events say, in the order of their time and
    then of their arrival.
    """
    action = "identifyUser" if keys == 3 else "identifyAccount"
    found: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    events = rows(
        store,
        "SELECT source, account_id, user_id, created_at, action, body FROM events "
        "ORDER BY created_at, split_part(id, '-', 1), split_part(id, '-', 2)::BIGINT",
    )
    for *key, at, done, body in events:
        first, last, details = found.get(tuple(key[:keys]), (at, at, {}))
        if done == action:
            details = {**details, **json.loads(body)["details"]}
        found[tuple(key[:keys])] = (min(first, at), max(last, at), details)
    return {
        key: (*seen, {name: value for name, value in details.items() if value is not None})
        for key, (*seen, details) in found.items()
    }
