"""Numbered steps of the control store's schema, and the runner that applies them.

A step is a file `NNNN_<what>.sql`; the numbers are contiguous from 1 and a released step is never
edited.

Invariants:

1. One step is one transaction, which also writes `schema_version`: a crash leaves a whole version.
2. `BEGIN IMMEDIATE` comes before the version is read, so two processes that open one file at the
   same time do not both apply a step.
3. A file written by a newer release is refused untouched.

Refuses to go backwards: the way back is the copy made before the first step of an upgrade.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterator, Sequence
from importlib.resources import files

from msgspec import Struct

from ingester.errors import StoreFailed

__all__ = ["Migration", "bundled_migrations", "migrate", "schema_version"]

_FILE_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")


class Migration(Struct, frozen=True):
    """One step: the version it leads to and its statements."""

    version: int
    name: str
    sql: str


def bundled_migrations() -> tuple[Migration, ...]:
    """The steps this release knows, in order."""
    steps = [
        Migration(int(found[1]), entry.name, entry.read_text(encoding="utf-8"))
        for entry in files(__name__).iterdir()
        if (found := _FILE_NAME.fullmatch(entry.name))
    ]
    steps.sort(key=lambda step: step.version)
    assert [step.version for step in steps] == list(range(1, len(steps) + 1))
    return tuple(steps)


def schema_version(connection: sqlite3.Connection) -> int:
    """The version of an opened file; 0 for a new one."""
    known = connection.execute(
        "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'schema_version'"
    ).fetchone()
    if known is None:
        return 0
    (version,) = connection.execute("SELECT max(version) FROM schema_version").fetchone()
    return int(version or 0)


def migrate(connection: sqlite3.Connection, steps: Sequence[Migration], *, path: str) -> int:
    """Bring the file to the newest of `steps`; returns the version. `path` is for the advice."""
    newest = steps[-1].version if steps else 0
    for step in steps:
        connection.execute("BEGIN IMMEDIATE")
        try:
            refuse_newer(schema_version(connection), newest, path=path)
            if schema_version(connection) < step.version:
                _apply(connection, step)
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
    return newest


def refuse_newer(version: int, newest: int, *, path: str) -> None:
    if version > newest:
        raise StoreFailed(
            f"{path} has schema version {version}, this release knows up to {newest}: "
            "start the newer release that wrote it, or put back the copy "
            f"{path}.v{newest}.bak made before the upgrade"
        )


def _apply(connection: sqlite3.Connection, step: Migration) -> None:
    connection.execute(
        "CREATE TABLE IF NOT EXISTS schema_version ("
        "version INTEGER PRIMARY KEY, name TEXT NOT NULL, applied_at REAL NOT NULL) STRICT"
    )
    for statement in _statements(step.sql):
        connection.execute(statement)
    connection.execute(
        "INSERT INTO schema_version VALUES (?, ?, ?)", (step.version, step.name, time.time())
    )


def _statements(sql: str) -> Iterator[str]:
    """Single statements: `executescript` would commit the surrounding transaction first."""
    pending = ""
    for line in sql.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""
    assert not pending.strip(), "a migration ends with a semicolon"
