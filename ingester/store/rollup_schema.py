"""Tables of `rollups.duckdb` and the public relations made of them (contract section 4).

Every table but two holds **partial sums**: rows that are added up (or compared) when they are read,
so a step only appends, and merging changes how many rows there are and never what they say. The two
others are sets: each member stands in them once.

- `groups` gives a number to (source, account_id, action). NULL in `account_id` or `action` stands
  for all of them, so an hour of one action, of one account or of a whole source is a row as well,
  with distinct counts of its own: those cannot be added up.
- `event_*` holds groups with an account, `source_*` those of all accounts of a source.
- `members_*` are the sets: who was seen in which group, as 128-bit digests. What a step finds new
  in them is what `users` and `sessions` count; so counts are exact and can be added up.

`progress` is the cursor: a row a step, written by the transaction that appends the step's sums.

Hours are kept of what can be added up over a day: logs and metrics have no table of days.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from msgspec import Struct

__all__ = [
    "BUCKET_TABLES",
    "EXPORTED_COLUMNS",
    "ROLLUP_VIEW_NAMES",
    "TABLES",
    "VIEW_TABLES",
    "RollupTable",
    "exported_table_ddl",
    "rollup_view_ddl",
    "tables_named_in",
]


class RollupTable(Struct, frozen=True, kw_only=True):
    """`merged`: the SELECT over `{rows}` that says the same in fewer rows; None: it has each row
    once already. `order`: how a merged generation lies, within a piece. `spread`: what pieces of a
    merge are told apart by, where it is not the bucket.
    """

    columns: str
    merged: str | None = None
    order: str = ""
    spread: str = ""


_COUNTS = "bucket TIMESTAMP, gid INTEGER, events BIGINT, users BIGINT, sessions BIGINT"
_SUMS = (
    "sum(events)::BIGINT AS events, sum(users)::BIGINT AS users, sum(sessions)::BIGINT AS sessions"
)
_BY_SOURCE = RollupTable(
    columns=f"{_COUNTS}, accounts BIGINT",
    merged=f"SELECT bucket, gid, {_SUMS}, sum(accounts)::BIGINT AS accounts FROM {{rows}} "
    "GROUP BY ALL",
    order="gid, bucket",
    spread="gid",
)
_MEMBERS = RollupTable(
    columns="bucket TIMESTAMP, gid INTEGER, is_session BOOLEAN, "
    "digest UHUGEINT USING COMPRESSION uncompressed",
    order="bucket, gid",
)
# Which of several points is the last: by time, then by arrival.
_LAST = "(last_time, last_request, last_line)"
_LATEST = ", ".join(
    f"arg_max({name}, {_LAST}) AS {name}"
    for name in ("last", "last_time", "last_request", "last_line")
)

TABLES: Mapping[str, RollupTable] = {
    # The cursor, the time of its commit, and from when on buckets are kept.
    "progress": RollupTable(
        columns="commit_number BIGINT, committed_at TIMESTAMP, horizon TIMESTAMP",
        merged="SELECT max(commit_number) AS commit_number, max(committed_at) AS committed_at, "
        "max(horizon) AS horizon FROM {rows}",
    ),
    "groups": RollupTable(
        columns="gid INTEGER, source VARCHAR, account_id VARCHAR, action VARCHAR",
        order="source, account_id, action",
    ),
    "event_hours": RollupTable(
        columns=_COUNTS,
        merged=f"SELECT bucket, gid, {_SUMS} FROM {{rows}} GROUP BY ALL",
        order="bucket, gid",
    ),
    "event_days": RollupTable(
        columns=f"{_COUNTS}, active_duration DOUBLE",
        merged=f"SELECT bucket, gid, {_SUMS}, sum(active_duration) AS active_duration "
        "FROM {rows} GROUP BY ALL",
        order="bucket, gid",
    ),
    "source_hours": _BY_SOURCE,
    "source_days": _BY_SOURCE,
    "members_hour": _MEMBERS,
    "members_day": _MEMBERS,
    "module_days": RollupTable(
        columns="bucket TIMESTAMP, source VARCHAR, account_id VARCHAR, module VARCHAR, "
        "time_spent DOUBLE, visits BIGINT",
        merged="SELECT bucket, source, account_id, module, sum(time_spent) AS time_spent, "
        "sum(visits)::BIGINT AS visits FROM {rows} GROUP BY ALL",
        order="bucket, source, account_id, module",
    ),
    "feature_days": RollupTable(
        columns="bucket TIMESTAMP, source VARCHAR, account_id VARCHAR, module VARCHAR, "
        "product VARCHAR, feature VARCHAR, total DOUBLE, users BIGINT",
        merged="SELECT bucket, source, account_id, module, product, feature, sum(total) AS total, "
        "sum(users)::BIGINT AS users FROM {rows} GROUP BY ALL",
        order="bucket, source, account_id, module, product, feature",
    ),
    # One digest of account, user, module, product and feature: nothing else is asked of it.
    "feature_members": RollupTable(
        columns="bucket TIMESTAMP, digest UHUGEINT USING COMPRESSION uncompressed", order="bucket"
    ),
    "log_hours": RollupTable(
        columns="bucket TIMESTAMP, service VARCHAR, environment VARCHAR, level VARCHAR, "
        "logs BIGINT",
        merged="SELECT bucket, service, environment, level, sum(logs)::BIGINT AS logs "
        "FROM {rows} GROUP BY ALL",
        order="bucket, service, environment, level",
    ),
    "metric_hours": RollupTable(
        columns="bucket TIMESTAMP, project_id VARCHAR, metric_id VARCHAR, count BIGINT, "
        "sum DOUBLE, min DOUBLE, max DOUBLE, last DOUBLE, last_time TIMESTAMP, "
        "last_request BIGINT, last_line BIGINT",
        merged="SELECT bucket, project_id, metric_id, sum(count)::BIGINT AS count, "
        f"sum(sum) AS sum, min(min) AS min, max(max) AS max, {_LATEST} FROM {{rows}} GROUP BY ALL",
        order="project_id, metric_id, bucket",
        spread="metric_id",
    ),
    "metric_labels": RollupTable(
        columns="project_id VARCHAR, metric_id VARCHAR, metric_name VARCHAR, unit VARCHAR, "
        "count BIGINT, first_time TIMESTAMP, last DOUBLE, last_time TIMESTAMP, "
        "last_request BIGINT, last_line BIGINT",
        merged="SELECT project_id, metric_id, "
        f"arg_max(metric_name, {_LAST}) AS metric_name, "
        # A struct, because arg_max passes over NULL: the last point may have no unit.
        f"arg_max({{{{'unit': unit}}}}, {_LAST}).unit AS unit, "
        f"sum(count)::BIGINT AS count, min(first_time) AS first_time, {_LATEST} "
        "FROM {rows} GROUP BY ALL",
        order="project_id, metric_id",
    ),
    # `person` is the digest of a user as the sets have it.
    "user_seen": RollupTable(
        columns="person UHUGEINT USING COMPRESSION uncompressed, source VARCHAR, "
        "account_id VARCHAR, user_id VARCHAR USING COMPRESSION uncompressed, "
        "first_seen TIMESTAMP, last_seen TIMESTAMP",
        merged="SELECT person, any_value(source) AS source, any_value(account_id) AS account_id, "
        "any_value(user_id) AS user_id, min(first_seen) AS first_seen, "
        "max(last_seen) AS last_seen FROM {rows} GROUP BY person",
        order="source, account_id, user_id",
        spread="person",
    ),
    "account_seen": RollupTable(
        columns="gid INTEGER, first_seen TIMESTAMP, last_seen TIMESTAMP",
        merged="SELECT gid, min(first_seen) AS first_seen, max(last_seen) AS last_seen "
        "FROM {rows} GROUP BY gid",
        order="gid",
    ),
    # One row a top-level key of `details`: of a user (`person`) or of an account (`gid`). A JSON
    # null stays, for older values that come later.
    "details": RollupTable(
        columns="person UHUGEINT, gid INTEGER, key VARCHAR, value JSON, "
        "time TIMESTAMP, request BIGINT, line BIGINT, place BIGINT",
        # One state a group: five of them took five times the memory.
        merged="SELECT person, gid, key, top.* FROM (SELECT person, gid, key, "
        "arg_max({{'value': value, 'time': time, 'request': request, 'line': line, "
        "'place': place}}, (time, request, line, place)) AS top "
        "FROM {rows} GROUP BY person, gid, key)",
        spread="person, gid",
        order="gid, person, key",
    ),
}

# How a table is written to Parquet, which has no integers of 128 bits. As text they cost 100 µs
# each, as two numbers 2 (measured 2026-11-21, DuckDB 1.5.6).
_HALVES = (
    "CASE WHEN person IS NOT NULL THEN {'high': (person >> 64)::UBIGINT, "
    "'low': (person & 18446744073709551615::UHUGEINT)::UBIGINT} END"
)
_HALVES_TYPE = "STRUCT(high UBIGINT, low UBIGINT)"
EXPORTED_COLUMNS: Mapping[str, str] = {
    table: f"* REPLACE ({_HALVES} AS person)" for table in ("user_seen", "details")
}

# What `rollup_retention_days` counts for.
BUCKET_TABLES = tuple(name for name, table in TABLES.items() if "bucket TIMESTAMP" in table.columns)

_DETAILS = (
    "SELECT person, gid, json_group_object(key, value) AS details FROM ("
    + (TABLES["details"].merged or "").replace("{rows}", "{details}")
    + ") WHERE value IS NOT NULL AND json_type(value) <> 'NULL' GROUP BY ALL"
)
_SEEN = (TABLES["user_seen"].merged or "").replace("{rows}", "{user_seen}")
_ACCOUNTS_SEEN = (TABLES["account_seen"].merged or "").replace("{rows}", "{account_seen}")
_GROUPED = "JOIN {groups} AS named USING (gid)"
_EVENTS = (
    f"SELECT bucket, source, account_id, action, {_SUMS} FROM {{table}} {_GROUPED} "
    "WHERE action IS NOT NULL GROUP BY bucket, source, account_id, action"
)
_LOGS = (
    "SELECT {bucket} AS bucket, service, environment, level, sum(logs)::BIGINT AS logs "
    "FROM {{log_hours}} GROUP BY ALL"
)
_METRICS = (
    "SELECT {bucket} AS bucket, project_id, metric_id, sum(count)::BIGINT AS count, "
    "sum(sum) AS sum, min(min) AS min, max(max) AS max, sum(sum) / sum(count) AS avg, "
    f"arg_max(last, {_LAST}) AS last FROM {{{{metric_hours}}}} GROUP BY 1, project_id, metric_id"
)
_HOUR = "bucket"
_DAY = "date_trunc('day', bucket)::TIMESTAMP"

# Relations of `TABLES` stand in braces.
_VIEWS: Mapping[str, str] = {
    "events_hourly": _EVENTS.replace("{table}", "{event_hours}"),
    "events_daily": _EVENTS.replace("{table}", "{event_days}"),
    "accounts_daily": f"SELECT bucket, source, account_id, {_SUMS}, "
    f"coalesce(sum(active_duration), 0) AS active_duration FROM {{event_days}} {_GROUPED} "
    "WHERE action IS NULL GROUP BY bucket, source, account_id",
    "modules_daily": TABLES["module_days"].merged.replace("{rows}", "{module_days}"),  # type: ignore[union-attr]
    "features_daily": TABLES["feature_days"].merged.replace("{rows}", "{feature_days}"),  # type: ignore[union-attr]
    "logs_hourly": _LOGS.format(bucket=_HOUR),
    "logs_daily": _LOGS.format(bucket=_DAY),
    "metrics_hourly": _METRICS.format(bucket=_HOUR),
    "metrics_daily": _METRICS.format(bucket=_DAY),
    "users": "SELECT source, account_id, user_id, first_seen, last_seen, "
    "coalesce(known.details, '{{}}')::JSON AS details "
    f"FROM ({_SEEN}) AS seen LEFT JOIN ({_DETAILS}) AS known ON known.person = seen.person",
    "accounts": "SELECT source, account_id, first_seen, last_seen, "
    "coalesce(known.details, '{{}}')::JSON AS details "
    f"FROM ({_ACCOUNTS_SEEN}) AS seen {_GROUPED} "
    f"LEFT JOIN ({_DETAILS}) AS known ON known.gid = seen.gid",
}

ROLLUP_VIEW_NAMES = tuple(_VIEWS)


def _tables_of(view: str) -> tuple[str, ...]:
    return tuple(name for name in TABLES if f"{{{name}}}" in _VIEWS[view])


# The tables that each public relation reads.
VIEW_TABLES: Mapping[str, tuple[str, ...]] = {name: _tables_of(name) for name in _VIEWS}


def rollup_view_ddl(relation: Callable[[str], str], where: str) -> list[str]:
    """Statements that (re)make the public relations in `where`, a schema. `relation` names what
    stands for a table of ours.
    """
    relations = {name: relation(name) for name in TABLES}
    return [
        f"CREATE OR REPLACE VIEW {where}.{name} AS {select.format(**relations)}"
        for name, select in _VIEWS.items()
    ]


def exported_table_ddl(where: str) -> list[str]:
    """Statements that make the tables as they are exported, empty."""
    return [
        f"CREATE TABLE {where}.{name} ("
        + re.sub(r" USING COMPRESSION \w+", "", table.columns).replace("UHUGEINT", _HALVES_TYPE)
        + ")"
        for name, table in TABLES.items()
    ]


def tables_named_in(sql: str) -> set[str]:
    """The tables behind the public relations that a text may name. A name cannot be written in
    another way than as it is, in whatever case.
    """
    text = sql.lower()
    return {table for view, tables in VIEW_TABLES.items() if view in text for table in tables}
