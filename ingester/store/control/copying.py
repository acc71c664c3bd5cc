"""The control file as a whole: is it sound, and a consistent copy of it.

Why a connection of its own: both take as long as the file is large, and the store's one connection
serves the doors. A second connection of the same SQLite library in the same process shares its
book of locks (sqlite.org/howtocorrupt.html 2.2 is about foreign descriptors), and in WAL mode a
reader waits for nobody.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

from msgspec import Struct
from msgspec.structs import astuple

from ...errors import StoreBusy
from ..migrations import schema_version
from ..syncing import sync_path
from .file import _create_private
from .sealed_files import (
    Evaluated,
    LostCommits,
    Manifest,
    SealedFile,
    SealedPart,
    read_numbers,
)

__all__ = ["control_problems", "copy_control", "maybe_manifest", "put_manifest"]

_BUSY_SECONDS_MAX = 5.0
_NAMED_MAX = 5

T = TypeVar("T", SealedFile, SealedPart)


def control_problems(path: Path) -> list[str]:
    """What SQLite's own check of the file says, in sentences."""
    advice = (
        "; put it back from a backup (`ingester restore`): keys, members and settings are in it"
    )
    if not path.exists():
        return [f"{path.name}: the file is missing{advice}"]
    try:
        with closing(sqlite3.connect(path, timeout=_BUSY_SECONDS_MAX)) as connection:
            found = [row[0] for row in connection.execute(f"PRAGMA integrity_check({_NAMED_MAX})")]
            broken = connection.execute("PRAGMA foreign_key_check").fetchmany(_NAMED_MAX)
            # A file of no bytes is a sound database to SQLite.
            if not schema_version(connection):
                found.append("it is empty")
    except sqlite3.DatabaseError as error:
        return [f"{path.name}: {error}{advice}"]
    found = [problem for problem in found if problem != "ok"]
    found += [f"a row of {row[0]} names one of {row[2]} that is not there" for row in broken]
    return [f"{path.name}: {problem}{advice}" for problem in found]


def maybe_manifest(path: Path) -> Manifest | None:
    """The manifest of sealed files, as it stands in a control file that is not open; None when it
    cannot be read, or the file is of a release that had none.
    """
    if not path.exists():
        return None
    try:
        with closing(sqlite3.connect(path, timeout=_BUSY_SECONDS_MAX)) as connection:
            files = connection.execute(f"SELECT {_columns(SealedFile)} FROM sealed_files")
            parts = connection.execute(f"SELECT {_columns(SealedPart)} FROM sealed_parts")
            return Manifest(
                tuple(_made(SealedFile, row) for row in files),
                tuple(_made(SealedPart, row) for row in parts),
                frozenset(row[0] for row in connection.execute("SELECT * FROM sealed_removals")),
                *_numbers(connection),
            )
    except sqlite3.DatabaseError:
        return None


def _numbers(connection: sqlite3.Connection) -> tuple[int, tuple[LostCommits, ...], Evaluated]:
    try:
        return read_numbers(connection)
    except sqlite3.OperationalError:  # a file of a release that did not keep them
        return 0, (), Evaluated()


def put_manifest(path: Path, manifest: Manifest) -> None:
    """Replace the lists of a control file that is not open: files, parts, removals."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        for table, rows in (
            ("sealed_files", [astuple(file) for file in manifest.files]),
            ("sealed_parts", [astuple(part) for part in manifest.parts]),
            ("sealed_removals", [(removal,) for removal in manifest.removals]),
        ):
            connection.execute(f"DELETE FROM {table}")
            if rows:
                marks = ", ".join("?" * len(rows[0]))
                connection.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)
        connection.execute("COMMIT")


def _columns(kind: type[Struct]) -> str:
    return ", ".join("table_name" if f == "table" else f for f in kind.__struct_fields__)


def _made(kind: type[T], row: Sequence[Any]) -> T:
    return kind(**dict(zip(kind.__struct_fields__, row, strict=True)))


def copy_control(path: Path, target: Path) -> None:
    """One snapshot of the file as a new file, synced, with mode 0600. Raises StoreBusy."""
    try:
        _create_private(target)
        with (
            closing(sqlite3.connect(path, timeout=_BUSY_SECONDS_MAX)) as source,
            closing(sqlite3.connect(target)) as copy,
        ):
            source.backup(copy)
            # A copy alone has no log beside it.
            copy.execute("PRAGMA journal_mode = DELETE")
        sync_path(target)
    except (sqlite3.DatabaseError, OSError) as error:
        raise StoreBusy(f"{path.name} cannot be copied: {error}") from error
