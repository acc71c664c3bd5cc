"""Rollups against a recount of the rows they were made of, in SQL that shares nothing with a step.

1. All relations of sums are counted anew by hour and by day, distinct users and sessions as well, a
   span of days at a time that holds `_SPAN_ROWS_MAX` events at most: that bounds memory. A day with
   more is counted by source and action only. When somebody was first and last seen, and what
   `details` say, is compared for all accounts, and for as many users as fit.
2. Rows behind the cursor of the rollups are left out of the recount.
3. When retention has removed rows, the sums live on: then a recount may be smaller, never larger,
   and what is no count is not compared. Days before the horizon of the rollups are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb
from msgspec import Struct

from .control.sealed_files import Manifest
from .metadata_copy import put_back_metadata
from .relations import Snapshot, relation
from .rollup_file import ROLLUPS
from .rollup_schema import TABLES, rollup_view_ddl
from .sealed import rows_were_removed

__all__ = ["attach_rollups", "recount_problems"]

Ask = Callable[[str], list[tuple[Any, ...]]]

_NAMED_MAX = 5
# One lost step shows in nearly all relations: no need to recount the rest.
_TOLD_MAX = 20
_SPAN_ROWS_MAX = 1_000_000
_ADVICE = "; `ingester check --repair` makes the rollups anew from the rows"
_THAN_ROWS = f" than the rows that are stored{_ADVICE}"
_TIMES = {"events": "created_at", "logs": "time", "metrics": "time"}
_COLUMNS = {
    "events": ("created_at", "source", "account_id", "user_id", "action", "session_id", "body"),
    "logs": ("time", "service", "environment", "level"),
    "metrics": ("time", "project_id", "metric_id", "value"),
}


class _Recount(Struct, frozen=True, kw_only=True):
    """One relation of sums: `told` of what is stored, `counted` of `{rows}`. A count is never less
    than a recount; `exact` and `rounded` are compared while no row was removed.
    """

    table: str
    name: str
    keys: tuple[str, ...]
    counts: tuple[str, ...]
    exact: tuple[str, ...] = ()
    rounded: tuple[str, ...] = ()
    told: str
    counted: str


def _at(unit: str, column: str) -> str:
    return f"date_trunc('{unit}', {column})::TIMESTAMP AS bucket"


def _number(*names: str) -> str:
    """Of a payload, under one of these names; NULL when it is none, or not finite."""
    found = ", ".join(f"body->>'{name}'" for name in names)
    number = f"try_cast(coalesce({found}) AS DOUBLE)"
    return f"CASE WHEN isfinite({number}) THEN {number} END"


_PEOPLE = "count(DISTINCT user_id) AS users, count(DISTINCT session_id) AS sessions"
# Nobody is in two accounts: a user of one is another than that of the same name in another.
_ALL_PEOPLE = (
    "count(DISTINCT (account_id, user_id)) AS users, count(DISTINCT (account_id, session_id)) "
    "FILTER (session_id IS NOT NULL) AS sessions, count(DISTINCT account_id) AS accounts"
)


def _of_events(unit: str, view: str, source_table: str) -> Iterator[_Recount]:
    yield _Recount(
        table="events",
        name=view,
        keys=("bucket", "source", "account_id", "action"),
        counts=("events", "users", "sessions"),
        told=f"SELECT * FROM {{where}}.{view}",
        counted=f"SELECT {_at(unit, 'created_at')}, source, account_id, action, "
        f"count(*) AS events, {_PEOPLE} FROM {{rows}} GROUP BY ALL",
    )
    yield _Recount(
        table="events",
        name=f"{view} of all accounts",
        keys=("bucket", "source", "action"),
        counts=("events", "users", "sessions", "accounts"),
        told="SELECT bucket, source, action, sum(events) AS events, sum(users) AS users, "
        f"sum(sessions) AS sessions, sum(accounts) AS accounts FROM {{{source_table}}} "
        "JOIN {groups} USING (gid) GROUP BY ALL",
        counted=f"SELECT {_at(unit, 'created_at')}, source, action, count(*) AS events, "
        f"{_ALL_PEOPLE} FROM {{rows}} GROUP BY GROUPING SETS "
        "((bucket, source, action), (bucket, source))",
    )


_OF_EVENTS = (
    *_of_events("hour", "events_hourly", "source_hours"),
    *_of_events("day", "events_daily", "source_days"),
    _Recount(
        table="events",
        name="events_hourly of all actions",
        keys=("bucket", "source", "account_id"),
        counts=("events", "users", "sessions"),
        told="SELECT bucket, source, account_id, sum(events) AS events, sum(users) AS users, "
        "sum(sessions) AS sessions FROM {event_hours} JOIN {groups} USING (gid) "
        "WHERE action IS NULL GROUP BY ALL",
        counted=f"SELECT {_at('hour', 'created_at')}, source, account_id, count(*) AS events, "
        f"{_PEOPLE} FROM {{rows}} GROUP BY ALL",
    ),
    _Recount(
        table="events",
        name="accounts_daily",
        keys=("bucket", "source", "account_id"),
        counts=("events", "users", "sessions"),
        rounded=("active_duration",),
        told="SELECT * FROM {where}.accounts_daily",
        counted=f"SELECT {_at('day', 'created_at')}, source, account_id, count(*) AS events, "
        f"{_PEOPLE}, coalesce(sum(CASE WHEN action IN ('sessionSync', 'session_sync') THEN "
        f"{_number('activeDuration', 'active_duration')} END), 0) AS active_duration "
        "FROM {rows} GROUP BY ALL",
    ),
    _Recount(
        table="events",
        name="modules_daily",
        keys=("bucket", "source", "account_id", "module"),
        counts=("visits",),
        rounded=("time_spent",),
        told="SELECT * FROM {where}.modules_daily",
        counted=f"SELECT {_at('day', 'created_at')}, source, account_id, body->>'module' AS module,"
        f" count(*) AS visits, coalesce(sum({_number('timeSpent', 'time_spent')}), 0) AS time_spent"
        " FROM (SELECT * FROM {rows} WHERE action IN ('moduleEnd', 'module_end')) "
        "WHERE (body->>'module') <> '' "
        "GROUP BY ALL",
    ),
    _Recount(
        table="events",
        name="features_daily",
        keys=("bucket", "source", "account_id", "module", "product", "feature"),
        counts=("users",),
        rounded=("total",),
        told="SELECT * FROM {where}.features_daily",
        counted=f"SELECT {_at('day', 'created_at')}, source, account_id, body->>'module' AS module,"
        " body->>'product' AS product, body->>'feature' AS feature, "
        f"count(DISTINCT user_id) AS users, coalesce(sum({_number('total')}), 0) AS total "
        "FROM (SELECT * FROM {rows} WHERE action = 'feature') WHERE (body->>'feature') <> '' "
        "GROUP BY ALL",
    ),
)
_OF_LARGE_DAYS = (
    _Recount(
        table="events",
        name="events_daily",
        keys=("bucket", "source", "action"),
        counts=("events",),
        told="SELECT bucket, source, action, sum(events) AS events FROM {where}.events_daily "
        "GROUP BY ALL",
        counted=f"SELECT {_at('day', 'created_at')}, source, action, count(*) AS events "
        "FROM {rows} GROUP BY ALL",
    ),
)
_OF_LOGS = (
    _Recount(
        table="logs",
        name="logs_hourly",
        keys=("bucket", "service", "environment", "level"),
        counts=("logs",),
        told="SELECT * FROM {where}.logs_hourly",
        counted=f"SELECT {_at('hour', 'time')}, service, environment, level, count(*) AS logs "
        "FROM {rows} GROUP BY ALL",
    ),
)
_OF_METRICS = (
    _Recount(
        table="metrics",
        name="metrics_hourly",
        keys=("bucket", "project_id", "metric_id"),
        counts=("count",),
        exact=("min", "max", "last"),
        rounded=("sum",),
        told="SELECT * FROM {where}.metrics_hourly",
        counted=f"SELECT {_at('hour', 'time')}, project_id, metric_id, count(*) AS count, "
        "sum(value) AS sum, min(value) AS min, max(value) AS max, "
        "arg_max(value, (time, request_number, line_number)) AS last FROM {rows} GROUP BY ALL",
    ),
)
_SEEN = (
    (
        "accounts",
        ("source", "account_id"),
        "SELECT source, account_id, min(first_seen) AS first_seen, max(last_seen) AS last_seen "
        "FROM {account_seen} JOIN {groups} USING (gid) GROUP BY ALL",
    ),
    (
        "users",
        ("source", "account_id", "user_id"),
        "SELECT source, account_id, user_id, min(first_seen) AS first_seen, "
        "max(last_seen) AS last_seen FROM {user_seen} WHERE {sample} GROUP BY ALL",
    ),
)


def _newest(time: str, *order: str) -> str:
    """What was said last, and when. A JSON null is a value, which takes older ones away."""
    said = f"struct_pack(value := coalesce(value, 'null')::VARCHAR, at := {time})"
    return f"arg_max({said}, ({', '.join((time, *order))})) AS newest"


_SAID = (
    (
        "accounts",
        ("source", "account_id"),
        "SELECT source, account_id, key, newest FROM (SELECT gid, key, "
        f"{_newest('time', 'request', 'line', 'place')} FROM {{details}} WHERE gid IS NOT NULL "
        "GROUP BY gid, key) JOIN {groups} USING (gid)",
        "identifyAccount",
    ),
    (
        "users",
        ("source", "account_id", "user_id"),
        "SELECT source, account_id, user_id, key, newest FROM (SELECT person, key, "
        f"{_newest('time', 'request', 'line', 'place')} FROM {{details}} WHERE person IS NOT NULL "
        "GROUP BY person, key) JOIN (SELECT DISTINCT person, source, account_id, user_id "
        "FROM {user_seen} WHERE {sample}) USING (person)",
        "identifyUser",
    ),
)


def recount_problems(
    ask: Ask,
    snapshot: Snapshot,
    manifest: Manifest,
    *,
    name_of: Callable[[str], str],
    where: str,
) -> list[str]:
    """`ask` asks at one moment, that of `snapshot`. `name_of` tells the relation of a table of
    rollups, `where` is the schema of their public relations.
    """
    progress = name_of("progress")
    ((cursor, horizon),) = ask(
        "SELECT coalesce(max(commit_number), 0), "
        f"coalesce(max(horizon), '-infinity'::TIMESTAMP)::VARCHAR FROM {progress}"
    )
    ((newest,),) = ask(_union(snapshot.parts, "max(commit_number)", "true", "max"))
    newest = max([newest or 0, *(part.commit_high for part in manifest.parts)])
    if cursor > newest:
        return [f"rollups.duckdb is ahead of the rows: commit {cursor} of {newest}{_ADVICE}"]
    beyond = _union(
        snapshot.parts,
        "batch_id",
        f"commit_number > {cursor} AND lane NOT IN ('carry', 'wide')",
        "DISTINCT",
    )
    recounting = _Recounting(ask, snapshot, manifest, name_of, where, horizon, beyond)
    problems = [*islice(recounting.run(), _TOLD_MAX + 1)]
    if len(problems) > _TOLD_MAX:
        problems[-1] = f"rollups.duckdb: more differs than is told here{_ADVICE}"
    return problems


class _Recounting:
    """One recount under way."""

    def __init__(
        self,
        ask: Ask,
        snapshot: Snapshot,
        manifest: Manifest,
        name_of: Callable[[str], str],
        where: str,
        horizon: str,
        beyond: str,
    ) -> None:
        self._ask = ask
        self._snapshot = snapshot
        self._is_purged = rows_were_removed(manifest.files, manifest.parts)
        self._names = {table: name_of(table) for table in TABLES} | {"where": where}
        self._horizon = horizon
        self._beyond = beyond

    def run(self) -> Iterator[str]:
        spans = [*self._spans("events")]
        for low, high, row_count in spans:
            small = row_count <= _SPAN_ROWS_MAX
            yield from self._compared(_OF_EVENTS if small else _OF_LARGE_DAYS, low, high)
        for table, recounts in (("logs", _OF_LOGS), ("metrics", _OF_METRICS)):
            for low, high, _ in self._spans(table):
                yield from self._compared(recounts, low, high)
        total = sum(row_count for _, _, row_count in spans)
        for name, keys, told in _SEEN:
            yield from self._seen(name, keys, told, total)
        for name, keys, told, action in _SAID:
            yield from self._said(name, keys, told, action, total)

    def _spans(self, table: str) -> Iterator[tuple[datetime | None, datetime | None, int]]:
        """All of time in days that are looked at together, with how many rows they have."""
        time = _TIMES[table]
        days = self._ask(
            f"SELECT date_trunc('day', {time})::TIMESTAMP AS day, count(*) "
            f"FROM {self._rows(table, (time,), None, None)} GROUP BY day ORDER BY day"
        )
        low: datetime | None = None
        held = 0
        for day, count in days:
            if held and held + count > _SPAN_ROWS_MAX:
                yield low, day, held
                low, held = day, 0
            held += count
            if held > _SPAN_ROWS_MAX:  # a day by itself
                yield low, day + timedelta(days=1), held
                low, held = day + timedelta(days=1), 0
        yield low, None, held

    def _rows(
        self,
        table: str,
        columns: Sequence[str],
        low: datetime | None,
        high: datetime | None,
    ) -> str:
        """The rows of a span that the cursor has passed, in parentheses."""
        time = _TIMES[table]
        last = None if high is None else high - timedelta(microseconds=1)
        files = self._snapshot.files_within(table, time, low, last)
        names = [*dict.fromkeys((*columns, time, "batch_id"))]
        found = relation(self._snapshot, table, names, files)
        conditions = [f"batch_id NOT IN ({self._beyond})", _between(time, low, high)]
        return f"(SELECT * FROM ({found}) WHERE {' AND '.join(conditions)})"

    def _compared(
        self, recounts: Sequence[_Recount], low: datetime | None, high: datetime | None
    ) -> Iterator[str]:
        for each in recounts:
            rows = self._rows(each.table, _COLUMNS[each.table], low, high)
            kept = f"bucket >= TIMESTAMP '{self._horizon}' AND {_between('bucket', low, high)}"
            told = each.told.format(**self._names)
            counted = each.counted.format(rows=rows)
            yield from self._differences(
                each,
                f"SELECT * FROM ({told}) WHERE {kept}",
                f"SELECT * FROM ({counted}) WHERE {kept}",
            )

    def _differences(self, each: _Recount, told: str, counted: str) -> Iterator[str]:
        same = " AND ".join(f"told.{key} IS NOT DISTINCT FROM counted.{key}" for key in each.keys)
        values = (*each.counts, *(() if self._is_purged else (*each.exact, *each.rounded)))
        differ = " OR ".join(self._differ(each, value) for value in values)
        listed = ", ".join([
            *(f"coalesce(told.{key}, counted.{key})::VARCHAR" for key in each.keys),
            *(f"told.{value}::VARCHAR, counted.{value}::VARCHAR" for value in values),
        ])
        for row in self._ask(
            f"SELECT {listed} FROM ({told}) AS told FULL JOIN ({counted}) AS counted "
            f"ON {same} WHERE {differ} ORDER BY ALL LIMIT {_NAMED_MAX}"
        ):
            keys, found = row[: len(each.keys)], row[len(each.keys) :]
            place = ", ".join(str(key) for key in keys if key is not None)
            wrong = ", ".join(
                f"{value} {a or 0} where {b or 0} are stored"
                for value, a, b in zip(values, found[::2], found[1::2], strict=True)
                if a != b
            )
            yield f"rollups.duckdb: {each.name} has for {place}: {wrong}{_ADVICE}"

    def _differ(self, each: _Recount, value: str) -> str:
        told, counted = f"told.{value}", f"counted.{value}"
        if value in each.counts:
            operator = "<" if self._is_purged else "<>"
            return f"coalesce({told}, 0) {operator} coalesce({counted}, 0)"
        if value in each.exact:
            return f"{told} IS DISTINCT FROM {counted}"
        # Sums of both signs may be small: what is lost is told from how large its numbers were.
        scale = f"abs({counted}) + 1"
        if value == "sum":
            scale = "counted.count * greatest(abs(counted.min), abs(counted.max)) + 1"
        # Beyond the largest number the order of additions decides.
        return (
            f"(isfinite({told}) AND isfinite({counted}) "
            f"AND abs({told} - {counted}) > 1e-9 * ({scale}))"
        )

    def _seen(self, name: str, keys: tuple[str, ...], told: str, total: int) -> Iterator[str]:
        """When somebody was first and last seen; of users a part that fits."""
        sample, listed = _sample(name, total), ", ".join(keys)
        rows = self._rows("events", (*keys, "user_id"), None, None)
        counted = (
            f"SELECT {listed}, min(created_at) AS first_seen, max(created_at) AS last_seen "
            f"FROM {rows} WHERE {sample} GROUP BY {listed}"
        )
        differ = (
            "counted.first_seen < coalesce(told.first_seen, 'infinity'::TIMESTAMP) "
            "OR counted.last_seen > coalesce(told.last_seen, '-infinity'::TIMESTAMP)"
            if self._is_purged
            else "told.first_seen IS DISTINCT FROM counted.first_seen "
            "OR told.last_seen IS DISTINCT FROM counted.last_seen"
        )
        found = told.format(**self._names, sample=sample)
        for place in self._places(keys, found, counted, differ):
            yield f"rollups.duckdb: {name} has other times for {place}{_THAN_ROWS}"

    def _said(
        self, name: str, keys: tuple[str, ...], told: str, action: str, total: int
    ) -> Iterator[str]:
        """What was said last of each key of `details`; of users a part that fits."""
        sample, listed = _sample(name, total), ", ".join((*keys, "key"))
        columns = ("source", "account_id", "user_id", "action", "body")
        newest = _newest("created_at", "request_number", "line_number", "nth")
        counted = (
            f"SELECT {listed}, {newest} FROM (SELECT *, json_extract(body, '$.details') AS said "
            f"FROM {self._rows('events', columns, None, None)} "
            f"WHERE action = '{action}' AND {sample}) AS its, "
            "LATERAL (SELECT key, value, id AS nth FROM json_each("
            "CASE json_type(its.said) WHEN 'OBJECT' THEN its.said ELSE '{}' END)) "
            f"GROUP BY {listed}"
        )
        differ = (
            "counted.newest.at > coalesce(told.newest.at, '-infinity'::TIMESTAMP)"
            if self._is_purged
            else "told.newest IS DISTINCT FROM counted.newest"
        )
        found = told.format(**self._names, sample=sample)
        for place in self._places((*keys, "key"), found, counted, differ):
            yield f"rollups.duckdb: {name} has other details for {place}{_THAN_ROWS}"

    def _places(self, keys: tuple[str, ...], told: str, counted: str, differ: str) -> Iterator[str]:
        same = " AND ".join(f"told.{key} IS NOT DISTINCT FROM counted.{key}" for key in keys)
        listed = ", ".join(f"coalesce(told.{key}, counted.{key})::VARCHAR" for key in keys)
        for row in self._ask(
            f"SELECT {listed} FROM ({told}) AS told FULL JOIN ({counted}) AS counted ON {same} "
            f"WHERE {differ} ORDER BY ALL LIMIT {_NAMED_MAX}"
        ):
            yield ", ".join(map(str, row))


def _sample(name: str, total: int) -> str:
    """Of users as many as fit."""
    return f"hash(user_id) % {total // _SPAN_ROWS_MAX + 1} = 0" if name == "users" else "true"


def _between(column: str, low: datetime | None, high: datetime | None) -> str:
    conditions = [
        *([f"{column} >= TIMESTAMP '{low.isoformat(sep=' ')}'"] if low is not None else []),
        *([f"{column} < TIMESTAMP '{high.isoformat(sep=' ')}'"] if high is not None else []),
        f"{column} IS NOT NULL",
    ]
    return " AND ".join(conditions)


def attach_rollups(connection: duckdb.DuckDBPyConnection, path: Path) -> Callable[[str], str]:
    """Attach the file, only to be read, with its public relations; the names of its tables."""
    quoted = str(path).replace("'", "''")
    with suppress(OSError):  # of a folder that may only be read
        put_back_metadata(path)
    connection.execute(f"ATTACH '{quoted}' AS {ROLLUPS} (READ_ONLY)")
    rows = connection.execute(
        f"SELECT name, max(number) FROM {ROLLUPS}.generations GROUP BY name"
    ).fetchall()
    names = {name: f"{ROLLUPS}.{name}_g{number}" for name, number in rows}

    def name_of(table: str) -> str:
        return names.get(table, table)

    for statement in rollup_view_ddl(name_of, "memory.main"):
        connection.execute(statement)
    return name_of


def _union(parts: Sequence[str], what: str, condition: str, outer: str) -> str:
    union = " UNION ALL ".join(
        f"SELECT {what} AS found FROM {part}.applied WHERE {condition}" for part in parts
    )
    return f"SELECT {outer}(found) FROM ({union})"
