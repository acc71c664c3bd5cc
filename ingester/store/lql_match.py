"""One log against one query, by the SQL that searches and rules run.

For scripts, tests and the console's "does this rule match?". One in-memory database a thread, made
at first use and kept: a query costs its planning, about a millisecond, and touches no stored data.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from datetime import UTC, datetime

import duckdb

from ..lql.compiler import compile_query
from ..lql.parser import parse
from ..lql.times import maybe_instant

__all__ = ["matches", "regex_found"]

_local = threading.local()


def matches(query: str, log: Mapping[str, object]) -> bool:
    """Whether `log` satisfies `query`. Keys of a log: `message`, `level`, `service`,
    `environment`, `time`, `attributes`; one that is missing is absent. Raises QueryError.
    """
    compiled = compile_query(parse(query), now=datetime.now(UTC))
    attributes = log.get("attributes")
    row = (
        _timestamp(log.get("time")),
        *(log.get(name) for name in ("service", "environment", "level", "message")),
        None if attributes is None else json.dumps(attributes, ensure_ascii=False),
    )
    cursor = _connection()
    found = cursor.execute(
        f"SELECT count(*) FROM (SELECT unnest([?::TIMESTAMP]) AS time, ?::VARCHAR AS service, "
        "?::VARCHAR AS environment, ?::VARCHAR AS level, ?::VARCHAR AS message, "
        f"?::JSON AS attributes) AS logs WHERE {compiled.where_sql}",
        [*row, *compiled.params],
    ).fetchone()
    return found is not None and bool(found[0])


def regex_found(pattern: str, text: str) -> bool:
    """Whether RE2 finds `pattern` in `text`: linear in time, whatever the pattern."""
    row = _connection().execute("SELECT regexp_matches(?, ?)", [text, pattern]).fetchone()
    return row is not None and bool(row[0])


def _connection() -> duckdb.DuckDBPyConnection:
    connection: duckdb.DuckDBPyConnection | None = getattr(_local, "connection", None)
    if connection is None:
        connection = duckdb.connect(
            config={"threads": "1", "memory_limit": "128MB", "enable_external_access": "false"}
        )
        _local.connection = connection
    return connection


def _timestamp(value: object) -> datetime | None:
    """As the TIMESTAMP columns hold it."""
    if isinstance(value, str):
        value = maybe_instant(value)
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC).replace(tzinfo=None)
    return value if isinstance(value, datetime) else None
