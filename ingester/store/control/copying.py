"""The control file as a whole: is it sound, and a consistent copy of it.

Why a connection of its own: both take as long as the file is large, and the store's one connection
serves the doors. A second connection of the same SQLite library in the same process shares its
book of locks (sqlite.org/howtocorrupt.html 2.2 is about foreign descriptors), and in WAL mode a
reader waits for nobody.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from ...errors import StoreBusy
from .file import _create_private

__all__ = ["control_problems", "copy_control"]

_BUSY_SECONDS_MAX = 5.0
_NAMED_MAX = 5


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
    except sqlite3.DatabaseError as error:
        return [f"{path.name}: {error}{advice}"]
    if found == ["ok"]:
        found = []
    found += [f"a row of {row[0]} names one of {row[2]} that is not there" for row in broken]
    return [f"{path.name}: {problem}{advice}" for problem in found]


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
        descriptor = os.open(target, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except (sqlite3.DatabaseError, OSError) as error:
        raise StoreBusy(f"{path.name} cannot be copied: {error}") from error
