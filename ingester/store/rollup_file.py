"""The file `rollups.duckdb`: attached beside the parts, its tables in generations.

1. A table is only appended to. Merging writes the next generation of it and then names that one in
   `generations`, in one transaction; what no generation names is removed at the next attaching. An
   UPDATE or DELETE in place would keep old versions, and a file does not shrink by it.
2. `rollup_<table>` in the instance's own memory is the generation that counts, and the public
   relations are made of those: a statement sees one generation, whatever happens beside it.
3. It is attached and made by the store's own opening, so that every reopening brings it back.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import duckdb
import structlog

from ..errors import StoreFailed
from .database import Cursor
from .metadata_copy import keep_metadata, put_back_metadata
from .rollup_schema import TABLES, rollup_view_ddl
from .syncing import sync_path
from .upgrades import attached_again, refuse_newer

__all__ = ["ROLLUPS", "ROLLUPS_VERSION", "RollupFile", "view_of"]

_log = structlog.get_logger()

# The name under which the file is attached.
ROLLUPS = "rollups"
ROLLUPS_VERSION = 1
# What each version after the first brings, as statements over `{rollups}`.
_VERSION_DDL: Mapping[int, Sequence[str]] = {}


def view_of(table: str) -> str:
    """The generation of `table` that counts, as a relation."""
    return f"memory.main.rollup_{table}"


class RollupFile:
    """Which generations there are. Changed with the turn of `Rollups`, or by an opening."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.generations: Mapping[str, int] = {}
        # How many rows a generation had when it was made.
        self.merged_rows: Mapping[str, int] = {}
        self.salt = ""
        # Rises with every attaching: whoever is in the midst of a merge begins again.
        self.attached_count = 0

    def attach(self, cursor: Cursor) -> None:
        """Attach, make or tidy up, and make the views. Raises StoreFailed: no such file."""
        is_new = not self.path.exists()
        try:
            self._attach(cursor)
        except duckdb.Error as error:
            if "No space" in str(error) or "invalidated" in str(error):
                raise
            raise StoreFailed(
                f"{self.path.name} cannot be opened ({str(error).splitlines()[0]}): move it away "
                "and start again, it is then made anew from the rows that are stored"
            ) from error
        if is_new or not self._has_tables(cursor):
            self._make(cursor)
            sync_path(self.path.parent)
        self._maybe_upgrade(cursor)
        self._read(cursor)
        self._remove_others(cursor)
        self.make_views(cursor, tuple(TABLES))
        for statement in rollup_view_ddl(view_of, "memory.main"):
            cursor.execute(statement)
        self.attached_count += 1

    def checkpoint(self, cursor: Cursor) -> None:
        """Raises as the statement does."""
        keep_metadata(cursor, ROLLUPS, self.path)
        cursor.execute(f"CHECKPOINT {ROLLUPS}")

    def names(self) -> dict[str, str]:
        """The qualified names of the generations that count."""
        return {name: self.name_of(name, number) for name, number in self.generations.items()}

    def name_of(self, table: str, generation: int) -> str:
        return f"{ROLLUPS}.{table}_g{generation}"

    def commit_number(self, cursor: Cursor) -> int:
        """The cursor: sums hold all commits up to it."""
        ((number,),) = cursor.execute(
            f"SELECT coalesce(max(commit_number), 0) FROM {self.names()['progress']}"
        ).fetchall()
        return int(number)

    def exported_generations(self, cursor: Cursor) -> dict[str, str]:
        """By table, as one transaction sees them: a name that no other rows ever had."""
        rows = cursor.execute(
            f"SELECT name, max(number) FROM {ROLLUPS}.generations GROUP BY name"
        ).fetchall()
        return {table: f"{table}_g{number}-{self.salt}" for table, number in rows}

    def create(self, cursor: Cursor, table: str, generation: int) -> str:
        """An empty generation, which does not count yet; its qualified name."""
        name = self.name_of(table, generation)
        cursor.execute(f"CREATE OR REPLACE TABLE {name} ({TABLES[table].columns})")
        return name

    def name_generations(self, cursor: Cursor, numbers: Mapping[str, int]) -> None:
        """Within the transaction that completes them: these count from its commit on."""
        for table, number in numbers.items():
            ((count,),) = cursor.execute(
                f"SELECT count(*) FROM {self.name_of(table, number)}"
            ).fetchall()
            cursor.execute(
                f"INSERT INTO {ROLLUPS}.generations VALUES (?, ?, ?)", [table, number, count]
            )

    def switch(self, cursor: Cursor, numbers: Mapping[str, int]) -> None:
        """After that commit: show them, and remove those before."""
        self._read(cursor)
        self.make_views(cursor, tuple(numbers))
        self._remove_others(cursor)

    def make_views(self, cursor: Cursor, tables: tuple[str, ...]) -> None:
        names = self.names()
        cursor.execute("BEGIN")
        for table in tables:
            cursor.execute(
                f"CREATE OR REPLACE VIEW {view_of(table)} AS SELECT * FROM {names[table]}"
            )
        cursor.execute("COMMIT")

    def file_bytes(self) -> int:
        return _size(self.path)

    def wal_bytes(self) -> int:
        return _size(self.path.with_name(self.path.name + ".wal"))

    def _attach(self, cursor: Cursor) -> None:
        path = str(self.path).replace("'", "''")
        if put_back_metadata(self.path):
            _log.warning("a checkpoint was cut off, its metadata is put back", file=self.path.name)
        cursor.execute(
            f"ATTACH '{path}' AS {ROLLUPS} (ROW_GROUP_SIZE 16384, STORAGE_VERSION 'v1.5.0')"
        )

    def _make(self, cursor: Cursor) -> None:
        cursor.execute("BEGIN")
        cursor.execute(
            f"CREATE TABLE {ROLLUPS}.about(schema_version INTEGER, salt VARCHAR, "
            "created_at TIMESTAMP)"
        )
        cursor.execute(
            f"CREATE TABLE {ROLLUPS}.generations(name VARCHAR, number INTEGER, row_count BIGINT)"
        )
        cursor.execute(
            f"INSERT INTO {ROLLUPS}.about VALUES (?, ?, now() AT TIME ZONE 'UTC')",
            [ROLLUPS_VERSION, os.urandom(8).hex()],
        )
        for table in TABLES:
            self.create(cursor, table, 1)
            cursor.execute(f"INSERT INTO {ROLLUPS}.generations VALUES (?, 1, 0)", [table])
        cursor.execute("COMMIT")
        # Replay of DDL is where WAL faults cluster: leave none of it in the WAL.
        self.checkpoint(cursor)

    def _has_tables(self, cursor: Cursor) -> bool:
        ((count,),) = cursor.execute(
            "SELECT count(*) FROM duckdb_tables() WHERE database_name = ?", [ROLLUPS]
        ).fetchall()
        return bool(count)

    def _maybe_upgrade(self, cursor: Cursor) -> None:
        version = self._about(cursor)[0]
        refuse_newer(self.path, version, ROLLUPS_VERSION)
        if version == ROLLUPS_VERSION:
            return
        copy = attached_again(cursor, ROLLUPS, self.path, version, lambda: self._attach(cursor))
        _log.info("rollups upgraded", file=self.path.name, before=version, copy=copy.name)
        cursor.execute("BEGIN")
        for newer in range(version + 1, ROLLUPS_VERSION + 1):
            for statement in _VERSION_DDL[newer]:
                cursor.execute(statement.format(rollups=ROLLUPS))
        cursor.execute(f"UPDATE {ROLLUPS}.about SET schema_version = ?", [ROLLUPS_VERSION])
        cursor.execute("COMMIT")
        self.checkpoint(cursor)

    def _about(self, cursor: Cursor) -> tuple[int, str]:
        try:
            ((version, salt),) = cursor.execute(
                f"SELECT schema_version, salt FROM {ROLLUPS}.about"
            ).fetchall()
        except (duckdb.CatalogException, ValueError) as error:
            raise StoreFailed(f"{self.path.name} is not a file of rollups of this store") from error
        return int(version), str(salt)

    def _read(self, cursor: Cursor) -> None:
        _, salt = self._about(cursor)
        try:
            rows = cursor.execute(
                "SELECT name, max(number), arg_max(row_count, number) "
                f"FROM {ROLLUPS}.generations GROUP BY name"
            ).fetchall()
        except duckdb.CatalogException as error:
            raise StoreFailed(f"{self.path.name} is not a file of rollups of this store") from error
        if {row[0] for row in rows} != set(TABLES):
            raise StoreFailed(
                f"{self.path.name} has not the tables of schema version {ROLLUPS_VERSION}: move it"
                " away and start again, it is then made anew from the rows that are stored"
            )
        self.salt = salt
        self.generations = {row[0]: row[1] for row in rows}
        self.merged_rows = {row[0]: row[2] for row in rows}

    def _remove_others(self, cursor: Cursor) -> None:
        kept = {name.removeprefix(f"{ROLLUPS}.") for name in self.names().values()}
        found = cursor.execute(
            "SELECT table_name FROM duckdb_tables() WHERE database_name = ?", [ROLLUPS]
        ).fetchall()
        removed = [
            name for (name,) in found if name not in kept and name not in {"about", "generations"}
        ]
        for name in removed:
            cursor.execute(f"DROP TABLE {ROLLUPS}.{name}")
        if removed:
            # Somebody still reads what was dropped (a backup): a later checkpoint gives it back.
            with suppress(duckdb.TransactionException):
                self.checkpoint(cursor)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
