"""One step of the rollups in SQL: what rows of some batches add to the partial sums.

Every function takes `rows`, a relation of the rows to be added in parentheses, and the names of the
tables to append to. All of it but `read_events`, which only reads rows that are committed, runs in
the transaction that also moves the cursor, so all or nothing of it happens; temporary tables are of
the cursor and made anew by each step.

1. Distinct counts are exact: a member (a user or a session in a group and a bucket) is counted by
   the step that finds it in no set, which also puts it there. So counts of steps can be added up.
2. A member is a digest of 128 bits of (source, account, id). 64 bits would not do: among 5·10⁹
   of them one is expected to be taken for another one, of 128 bits the chance is 4·10⁻²⁰. It
   is salted with random bytes of this folder, so that nobody can prepare ids that share one.
3. What a bucket before `horizon` gets is not kept: those were removed (`rollup_retention_days`).
4. A number that is not finite is none, and neither is one that is not there.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from .database import Cursor

__all__ = ["StepTables", "add_events", "add_logs", "add_metrics", "read_events"]

# Known actions by their snake_case spellings, which mean the same.
_SPELLINGS = {
    "module_end": "moduleEnd",
    "session_sync": "sessionSync",
    "identify_user": "identifyUser",
    "identify_account": "identifyAccount",
}
_ACTIONS = "('feature', '" + "', '".join([*_SPELLINGS, *_SPELLINGS.values()]) + "')"
_KNOWN = (
    "CASE action "
    + " ".join(f"WHEN '{snake}' THEN '{camel}'" for snake, camel in _SPELLINGS.items())
    + " ELSE action END"
)

_DAY = "date_trunc('day', {})::TIMESTAMP"


class StepTables(Struct, frozen=True, kw_only=True):
    """Where a step appends: qualified names by table, and what is the same in every step."""

    names: Mapping[str, str]
    salt: str
    horizon: str

    def __getitem__(self, name: str) -> str:
        return self.names[name]


def read_events(cursor: Cursor, rows: str) -> bool:
    """What `add_events` needs of the rows, as temporary tables; False: there are none. Before the
    transaction: within one a temporary table costs twice as much to write.
    """
    if not _group(cursor, rows):
        return False
    _read_payloads(cursor, rows)
    return True


def add_events(cursor: Cursor, tables: StepTables) -> None:
    _number_groups(cursor, tables)
    _key(cursor, tables)
    _append_seen(cursor, tables)
    for level in _LEVELS:
        _count_level(cursor, tables, level)
    _add_properties(cursor, tables)
    _add_features(cursor, tables)
    _add_details(cursor, tables)


def add_logs(cursor: Cursor, rows: str, tables: StepTables) -> None:
    cursor.execute(
        f"INSERT INTO {tables['log_hours']} "
        "SELECT date_trunc('hour', time) AS bucket, service, environment, level, count(*) "
        f"FROM {rows} WHERE time >= {tables.horizon} GROUP BY ALL"
    )


def add_metrics(cursor: Cursor, rows: str, tables: StepTables) -> None:
    order = "(time, request_number, line_number)"
    latest = ", ".join(
        f"arg_max({name}, {order})" for name in ("value", "time", "request_number", "line_number")
    )
    cursor.execute(
        f"INSERT INTO {tables['metric_hours']} "
        "SELECT date_trunc('hour', time) AS bucket, project_id, metric_id, count(*), "
        f"sum(value), min(value), max(value), {latest} "
        f"FROM {rows} WHERE time >= {tables.horizon} GROUP BY ALL"
    )
    cursor.execute(
        f"INSERT INTO {tables['metric_labels']} "
        f"SELECT project_id, metric_id, arg_max(metric_name, {order}), "
        f"arg_max({{'unit': unit}}, {order}).unit, count(*), min(time), {latest} "
        f"FROM {rows} GROUP BY ALL"
    )


def _group(cursor: Cursor, rows: str) -> bool:
    """`step_grouped`: rows by hour and names; what needs no payload is made of it. False: there are
    no events.
    """
    cursor.execute(
        "CREATE OR REPLACE TEMP TABLE step_grouped AS SELECT "
        "date_trunc('hour', created_at) AS bucket, source, account_id, action, user_id, "
        "session_id, count(*) AS n, min(created_at) AS low, max(created_at) AS high "
        f"FROM {rows} GROUP BY ALL"
    )
    ((count,),) = cursor.execute("SELECT count(*) FROM step_grouped").fetchall()
    return bool(count)


def _read_payloads(cursor: Cursor, rows: str) -> None:
    """`step_said`: what known actions say. Read from the payload here and not when it is decoded,
    in one pass, as decompressing it is half of the work.
    """
    # The amount first, in both spellings where it has two: camelCase wins.
    found = (
        "CASE action WHEN 'feature' THEN "
        "json_extract_string(body, ['$.total', '$.total', '$.module', '$.product', '$.feature']) "
        "WHEN 'moduleEnd' THEN "
        "json_extract_string(body, ['$.timeSpent', '$.time_spent', '$.module']) "
        "WHEN 'sessionSync' THEN "
        "json_extract_string(body, ['$.activeDuration', '$.active_duration']) END"
    )
    # Plain columns and not a struct: half of the time of this statement.
    cursor.execute(
        f"CREATE OR REPLACE TEMP TABLE step_said AS SELECT {_DAY.format('created_at')} AS bucket, "
        "source, account_id, user_id, action, found[3] AS module, found[4] AS product, "
        "found[5] AS feature, try_cast(coalesce(found[1], found[2]) AS DOUBLE) AS amount, "
        "created_at, request_number, line_number, details "
        "FROM (SELECT source, account_id, user_id, action, created_at, request_number, "
        f"line_number, {found} AS found, CASE WHEN action IN ('identifyUser', 'identifyAccount') "
        f"THEN json_extract(body, '$.details') END AS details "
        f"FROM (SELECT * REPLACE ({_KNOWN} AS action) FROM {rows} WHERE action IN {_ACTIONS}))"
    )


def _append_seen(cursor: Cursor, tables: StepTables) -> None:
    cursor.execute(
        f"INSERT INTO {tables['user_seen']} SELECT user, source, account_id, user_id, low, high "
        "FROM (SELECT user, any_value(account_gid) AS account_gid, any_value(user_id) AS user_id, "
        "min(low) AS low, max(high) AS high FROM step_keyed GROUP BY user) "
        "JOIN step_account_numbers USING (account_gid)"
    )
    cursor.execute(
        f"INSERT INTO {tables['account_seen']} "
        "SELECT account_gid, min(low), max(high) FROM step_keyed GROUP BY account_gid"
    )


def _number_groups(cursor: Cursor, tables: StepTables) -> None:
    """`step_groups`: the groups of this step with their numbers; `gid` of (source, account_id,
    action), `account_gid` of all its actions, `action_gid` of all accounts, `source_gid` of both.
    `step_account_numbers`: the second of them by source and account.
    """
    groups = tables["groups"]
    cursor.execute(
        "CREATE OR REPLACE TEMP TABLE step_names AS SELECT source, account_id, action "
        "FROM (SELECT DISTINCT source, account_id, action FROM step_grouped) GROUP BY "
        "GROUPING SETS ((source, account_id, action), (source, account_id), (source, action), "
        "(source))"
    )
    same = (
        "known.source = names.source AND known.account_id IS NOT DISTINCT FROM names.account_id "
        "AND known.action IS NOT DISTINCT FROM names.action"
    )
    cursor.execute(
        f"INSERT INTO {groups} SELECT (SELECT coalesce(max(gid), 0) FROM {groups}) "
        "+ row_number() OVER (), source, account_id, action FROM step_names AS names "
        f"ANTI JOIN {groups} AS known ON {same}"
    )
    cursor.execute(
        "CREATE OR REPLACE TEMP TABLE step_numbers AS SELECT known.* "
        f"FROM {groups} AS known SEMI JOIN step_names AS names ON {same}"
    )
    cursor.execute(
        "CREATE OR REPLACE TEMP TABLE step_groups AS SELECT g.*, a.gid AS account_gid, "
        "x.gid AS action_gid, s.gid AS source_gid FROM step_numbers AS g "
        "JOIN step_numbers AS a ON a.source = g.source AND a.account_id = g.account_id "
        "AND a.action IS NULL "
        "JOIN step_numbers AS x ON x.source = g.source AND x.action = g.action "
        "AND x.account_id IS NULL "
        "JOIN step_numbers AS s ON s.source = g.source AND s.action IS NULL "
        "AND s.account_id IS NULL WHERE g.account_id IS NOT NULL AND g.action IS NOT NULL"
    )
    cursor.execute(
        "CREATE OR REPLACE TEMP TABLE step_account_numbers AS "
        "SELECT source, account_id, gid AS account_gid FROM step_numbers "
        "WHERE account_id IS NOT NULL AND action IS NULL"
    )


def _digest(tables: StepTables, kind: str, name: str) -> str:
    """Of somebody or something of an account, whose number stands for its source and id."""
    return f"md5_number(concat('{tables.salt}{kind}', account_gid, '.', {name}))"


def _key(cursor: Cursor, tables: StepTables) -> None:
    """`step_keyed`: rows by numbers and digests; `step_members`: who is in which group."""
    cursor.execute(
        "CREATE OR REPLACE TEMP TABLE step_keyed AS SELECT bucket, gid, account_gid, user_id, n, "
        f"low, high, {_digest(tables, 'u', 'user_id')} AS user, "
        "CASE WHEN session_id IS NOT NULL "
        f"THEN {_digest(tables, 's', 'session_id')} END AS session "
        "FROM step_grouped JOIN step_groups USING (source, account_id, action)"
    )
    cursor.execute(
        "CREATE OR REPLACE TEMP TABLE step_members AS SELECT DISTINCT * FROM ("
        "SELECT bucket, gid, false AS is_session, user AS digest FROM step_keyed UNION ALL "
        "SELECT bucket, gid, true, session FROM step_keyed) "
        f"WHERE digest IS NOT NULL AND bucket >= {tables.horizon}"
    )


class _Level(Struct, frozen=True):
    """Hours or days. `bucket` of an hour; days see what was new in an hour and nothing else."""

    bucket: str
    candidates: str
    members: str
    by_account: str
    by_source: str


_LEVELS = (
    _Level("bucket", "step_members", "members_hour", "event_hours", "source_hours"),
    _Level(_DAY.format("bucket"), "step_new", "members_day", "event_days", "source_days"),
)


def _count_level(cursor: Cursor, tables: StepTables, level: _Level) -> None:
    distinct = "" if level.candidates == "step_members" else "DISTINCT"
    cursor.execute(
        f"CREATE OR REPLACE TEMP TABLE step_asked AS SELECT {distinct} {level.bucket} AS bucket, "
        f"gid, is_session, digest FROM {level.candidates}"
    )
    # The large side is only looked through; a join on the bucket skips what lies elsewhere.
    cursor.execute(
        "CREATE OR REPLACE TEMP TABLE step_known AS SELECT bucket, gid, digest "
        f"FROM {tables[level.members]} SEMI JOIN step_asked USING (bucket, digest)"
    )
    cursor.execute(
        "CREATE OR REPLACE TEMP TABLE step_new AS SELECT * FROM step_asked "
        "ANTI JOIN step_known USING (bucket, gid, digest)"
    )
    cursor.execute(
        f"INSERT INTO {tables[level.members]} SELECT bucket, gid, is_session, digest FROM step_new"
    )
    cursor.execute(
        f"CREATE OR REPLACE TEMP TABLE step_events AS SELECT {level.bucket} AS bucket, gid, "
        f"account_gid, sum(n) AS events FROM step_keyed WHERE bucket >= {tables.horizon} "
        "GROUP BY ALL"
    )
    counted = "count(*) FILTER (NOT is_session), count(*) FILTER (is_session)"
    # New to an account: in none of its groups before, and once however many there are now.
    cursor.execute(
        "CREATE OR REPLACE TEMP TABLE step_counts AS "
        "SELECT bucket, gid, sum(events)::BIGINT AS events, sum(users)::BIGINT AS users, "
        "sum(sessions)::BIGINT AS sessions FROM ("
        "SELECT bucket, gid, events, 0 AS users, 0 AS sessions FROM step_events UNION ALL "
        "SELECT bucket, account_gid, events, 0, 0 FROM step_events UNION ALL "
        f"SELECT bucket, gid, 0, {counted} FROM step_new GROUP BY ALL UNION ALL "
        f"SELECT bucket, account_gid, 0, {counted} FROM (SELECT DISTINCT bucket, account_gid, "
        "is_session, digest FROM step_new JOIN step_groups USING (gid) "
        "ANTI JOIN step_known USING (bucket, digest)) GROUP BY ALL) GROUP BY ALL"
    )
    _count_sources(cursor, tables, level)
    cursor.execute(
        f"INSERT INTO {tables[level.by_account]} (bucket, gid, events, users, sessions) "
        "FROM step_counts"
    )


def _count_sources(cursor: Cursor, tables: StepTables, level: _Level) -> None:
    """Counts of all accounts together: nobody is in two, so these are sums. An account is new to a
    bucket that has no row of its group.
    """
    cursor.execute(
        "CREATE OR REPLACE TEMP TABLE step_accounts AS SELECT bucket, gid, 1 AS accounts "
        "FROM (SELECT bucket, gid FROM step_counts ANTI JOIN (SELECT DISTINCT bucket, gid "
        f"FROM {tables[level.by_account]} SEMI JOIN step_counts USING (bucket, gid)) "
        "USING (bucket, gid))"
    )
    cursor.execute(
        f"INSERT INTO {tables[level.by_source]} "
        "SELECT bucket, upper_gid, sum(events), sum(users), sum(sessions), sum(accounts) "
        "FROM step_counts LEFT JOIN step_accounts USING (bucket, gid) JOIN ("
        "SELECT gid, action_gid AS upper_gid FROM step_groups UNION ALL "
        "SELECT DISTINCT account_gid, source_gid FROM step_groups) USING (gid) GROUP BY ALL"
    )


def _add_properties(cursor: Cursor, tables: StepTables) -> None:
    """Modules and durations."""
    amount = "sum(amount) FILTER (isfinite(amount))"
    cursor.execute(
        f"INSERT INTO {tables['event_days']} SELECT bucket, account_gid, 0, 0, 0, duration FROM ("
        f"SELECT bucket, source, account_id, {amount} AS duration FROM step_said "
        f"WHERE action = 'sessionSync' AND bucket >= {tables.horizon} GROUP BY ALL) "
        "JOIN step_account_numbers USING (source, account_id) WHERE duration IS NOT NULL"
    )
    cursor.execute(
        f"INSERT INTO {tables['module_days']} SELECT bucket, source, account_id, module, "
        f"coalesce({amount}, 0), count(*) FROM step_said "
        f"WHERE action = 'moduleEnd' AND module <> '' AND bucket >= {tables.horizon} GROUP BY ALL"
    )


def _add_features(cursor: Cursor, tables: StepTables) -> None:
    names = ("module", "product", "feature")
    # What is absent is not what is empty; the lengths keep two different lists from being one text.
    lengths = ", ".join(f"coalesce(strlen({name}), -1), '.'" for name in names)
    texts = f"concat({lengths}, {', '.join(names)}, user_id)"
    cursor.execute(
        "CREATE OR REPLACE TEMP TABLE step_features AS SELECT bucket, account_gid, module, "
        f"product, feature, total, {_digest(tables, 'f', texts)} AS digest FROM ("
        "SELECT bucket, source, account_id, user_id, module, product, feature, "
        "sum(amount) FILTER (isfinite(amount)) AS total FROM step_said "
        f"WHERE action = 'feature' AND feature <> '' AND bucket >= {tables.horizon} GROUP BY ALL) "
        "JOIN step_account_numbers USING (source, account_id)"
    )
    cursor.execute(
        "CREATE OR REPLACE TEMP TABLE step_new AS SELECT bucket, digest FROM step_features "
        f"ANTI JOIN (SELECT bucket, digest FROM {tables['feature_members']} "
        "SEMI JOIN step_features USING (bucket, digest)) USING (bucket, digest)"
    )
    cursor.execute(f"INSERT INTO {tables['feature_members']} FROM step_new")
    cursor.execute(
        f"INSERT INTO {tables['feature_days']} SELECT bucket, source, account_id, module, product, "
        "feature, total, users FROM (SELECT bucket, account_gid, module, product, feature, "
        "coalesce(sum(total), 0) AS total, count(step_new.digest) AS users "
        "FROM step_features LEFT JOIN step_new USING (bucket, digest) GROUP BY ALL) "
        "JOIN step_account_numbers USING (account_gid)"
    )


def _add_details(cursor: Cursor, tables: StepTables) -> None:
    """Top-level keys of `details`; of a key that stands there twice the last one counts."""
    # Both lists are in the order of the text, and have each key as often as it does. A map would
    # refuse such a key, `json_each` takes ten times as long.
    cursor.execute(
        f"INSERT INTO {tables['details']} SELECT person, gid, unnest(keys), unnest(found), time, "
        "request, line, unnest(range(len(keys))) FROM (SELECT "
        f"CASE WHEN action = 'identifyUser' THEN {_digest(tables, 'u', 'user_id')} END AS person, "
        "CASE WHEN action = 'identifyAccount' THEN account_gid END AS gid, created_at AS time, "
        "request_number AS request, line_number AS line, json_keys(details) AS keys, "
        "json_extract(details, '$.*') AS found "
        "FROM step_said JOIN step_account_numbers USING (source, account_id) "
        # As DuckDB writes JSON, nothing else begins so.
        "WHERE starts_with(details, '{'))"
    )
