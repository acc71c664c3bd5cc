"""Open parts: DuckDB files under `open/`, the newest takes inserts, older ones wait to be sealed.

A part is named `part_NNNNNN` after its file `NNNNNN.duckdb`. A file is a part once its first
transaction (tables, `part_info`, the ledger row carried forward) and a checkpoint are done; a
crash before that leaves a file without tables, which the next start makes anew. The WAL beside a
file is never touched by us.
"""

from __future__ import annotations

import os
from pathlib import Path

import duckdb

from ..errors import StoreFailed
from .database import Cursor
from .ledger import AppliedBatch, write_applied
from .schema import PART_DDL, SCHEMA_VERSION

__all__ = ["Part", "PartFiles"]

# 16,384 rows: an unfilled row group stays in memory until its transaction commits, so small ones
# bound memory; measured 2026-11-21, one thread: as fast as 122,880 within the noise.
_ATTACH_OPTIONS = "ROW_GROUP_SIZE 16384, STORAGE_VERSION 'v1.5.0'"
ROW_GROUP_ROWS = 16_384


class Part:
    """One attached file."""

    def __init__(self, path: Path, number: int) -> None:
        self.path = path
        self.number = number
        self.name = f"part_{number:06d}"

    def file_bytes(self) -> int:
        return _size(self.path)

    def wal_bytes(self) -> int:
        return _size(self.path.with_name(self.path.name + ".wal"))


class PartFiles:
    """The folder of parts. Used with the store's exclusive access only."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.parts: list[Part] = []

    @property
    def newest(self) -> Part:
        return self.parts[-1]

    def find(self) -> None:
        """List the files, oldest first."""
        self.directory.mkdir(parents=True, exist_ok=True)
        numbers = sorted(int(p.stem) for p in self.directory.glob("*.duckdb") if p.stem.isdecimal())
        self.parts = [Part(self._path(n), n) for n in numbers]

    def attach_all(self, cursor: Cursor) -> None:
        """Attach every part; make the first, or the newest if a crash left it without tables."""
        for part in list(self.parts):
            self._attach(cursor, part)
            if self._is_complete(cursor, part):
                continue
            if part is not self.newest or self._has_tables(cursor, part):
                raise StoreFailed(f"{part.path.name} is not a part of this store")
            cursor.execute(f"DETACH {part.name}")
            part.path.unlink()
            part.path.with_name(part.path.name + ".wal").unlink(missing_ok=True)
            self.parts.remove(part)
        if not self.parts:
            self.create(cursor, AppliedBatch(0, "carry", 0, 0, 0, 0), 0)

    def create(self, cursor: Cursor, carried: AppliedBatch, commit_number: int) -> Part:
        """Make the next part with the ledger's marks carried forward, and append it."""
        number = self.parts[-1].number + 1 if self.parts else 1
        part = Part(self._path(number), number)
        self._attach(cursor, part)
        cursor.execute("BEGIN")
        for statement in PART_DDL:
            cursor.execute(statement.format(part=part.name))
        cursor.execute(
            f"INSERT INTO {part.name}.part_info VALUES (?, ?, now() AT TIME ZONE 'UTC')",
            [SCHEMA_VERSION, number],
        )
        write_applied(cursor, part.name, [carried], commit_number)
        cursor.execute("COMMIT")
        # Replay of DDL is where WAL faults cluster: leave none of it in the WAL.
        cursor.execute(f"CHECKPOINT {part.name}")
        _sync_directory(self.directory)
        self.parts.append(part)
        return part

    def _path(self, number: int) -> Path:
        return self.directory / f"{number:06d}.duckdb"

    def _attach(self, cursor: Cursor, part: Part) -> None:
        path = str(part.path).replace("'", "''")
        cursor.execute(f"ATTACH '{path}' AS {part.name} ({_ATTACH_OPTIONS})")

    def _has_tables(self, cursor: Cursor, part: Part) -> bool:
        row = cursor.execute(
            "SELECT count(*) FROM duckdb_tables() WHERE database_name = ?", [part.name]
        ).fetchone()
        return row is not None and row[0] > 0

    def _is_complete(self, cursor: Cursor, part: Part) -> bool:
        try:
            row = cursor.execute(
                f"SELECT max(schema_version) FROM {part.name}.part_info"
            ).fetchone()
        except duckdb.CatalogException:
            return False
        if row is None or row[0] is None:
            return False
        if row[0] > SCHEMA_VERSION:
            raise StoreFailed(
                f"{part.path.name} has schema version {row[0]}, this program knows "
                f"{SCHEMA_VERSION}: start the newer version again"
            )
        return True


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
