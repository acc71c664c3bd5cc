"""Rollups against a recount of the rows they were made of.

1. Counted anew are events by day, source and action, logs by day, service, environment and level,
   metrics by day and metric: what can be counted in one pass. Distinct counts, users and accounts
   are kept by the same steps and are not counted anew.
2. Rows behind the cursor of the rollups are left out of the recount.
3. When retention has removed rows, the sums live on: then a recount may be smaller, never larger.
   Days before the horizon of the rollups are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import duckdb

from .control.sealed_files import Manifest
from .relations import Snapshot, relation
from .rollup_file import ROLLUPS
from .rollup_schema import rollup_view_ddl
from .schema import DATA_TABLES

__all__ = ["attach_rollups", "recount_problems"]

Ask = Callable[[str], list[tuple[Any, ...]]]

_NAMED_MAX = 5
# The public relation of days, its keys, its count; the columns of the rows that are counted.
_COUNTS = (
    ("events", "events_daily", ("source", "action"), "events", "created_at"),
    ("logs", "logs_daily", ("service", "environment", "level"), "logs", "time"),
    ("metrics", "metrics_daily", ("project_id", "metric_id"), "count", "time"),
)
_ADVICE = "; `ingester check --repair` makes the rollups anew from the rows"


def recount_problems(
    ask: Ask, snapshot: Snapshot, manifest: Manifest, *, progress: str, where: str
) -> list[str]:
    """`ask` asks at one moment, that of `snapshot`. `progress` is the relation of the rollups'
    cursor, `where` the schema of the public relations of rollups.
    """
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
    problems: list[str] = []
    for table, view, keys, count, time in _COUNTS:
        columns = (*keys, time, "batch_id")
        rows = relation(snapshot, table, columns, snapshot.files_of(table))
        names = ", ".join(keys)
        matched = " AND ".join(f"r.{key} IS NOT DISTINCT FROM c.{key}" for key in ("day", *keys))
        wrong = (
            "coalesce(r.n, 0) < coalesce(c.n, 0)"
            if _is_purged(manifest)
            else ("coalesce(r.n, 0) <> coalesce(c.n, 0)")
        )
        for day, told, counted in ask(
            "SELECT coalesce(r.day, c.day)::VARCHAR, coalesce(r.n, 0), coalesce(c.n, 0) FROM "
            f"(SELECT bucket AS day, {names}, sum({count})::BIGINT AS n FROM {where}.{view} "
            f"WHERE bucket >= TIMESTAMP '{horizon}' GROUP BY ALL) r FULL JOIN "
            f"(SELECT date_trunc('day', {time})::TIMESTAMP AS day, {names}, count(*) AS n "
            f"FROM ({rows}) WHERE batch_id NOT IN ({beyond}) AND {time} IS NOT NULL "
            f"AND date_trunc('day', {time}) >= TIMESTAMP '{horizon}' GROUP BY ALL) c "
            f"ON {matched} WHERE {wrong} ORDER BY 1 LIMIT {_NAMED_MAX}"
        ):
            problems.append(
                f"rollups.duckdb: {view} has {told} {table} on {day[:10]} where {counted} are"
                f" stored{_ADVICE}"
            )
    return problems


def _is_purged(manifest: Manifest) -> bool:
    """Whether rows were removed of what was sealed."""
    stored = sum(file.row_count for file in manifest.files if file.table in DATA_TABLES)
    return stored < sum(part.row_count for part in manifest.parts)


def attach_rollups(connection: duckdb.DuckDBPyConnection, path: Path) -> str:
    """Attach the file, only to be read, with its public relations; that of its cursor."""
    quoted = str(path).replace("'", "''")
    connection.execute(f"ATTACH '{quoted}' AS {ROLLUPS} (READ_ONLY)")
    rows = connection.execute(
        f"SELECT name, max(number) FROM {ROLLUPS}.generations GROUP BY name"
    ).fetchall()
    names = {name: f"{ROLLUPS}.{name}_g{number}" for name, number in rows}
    for statement in rollup_view_ddl(lambda table: names.get(table, table), "memory.main"):
        connection.execute(statement)
    return names.get("progress", "progress")


def _union(parts: Sequence[str], what: str, condition: str, outer: str) -> str:
    union = " UNION ALL ".join(
        f"SELECT {what} AS found FROM {part}.applied WHERE {condition}" for part in parts
    )
    return f"SELECT {outer}(found) FROM ({union})"
