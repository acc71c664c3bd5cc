"""A part made outside of a server: from the Parquet files of a backup, or of what a repair saved.

1. It has the tables of the newest schema; columns are matched by name, so rows of an older one fit.
   The file of rollups has those that the backup says.
2. Rows keep their order. They come in transactions of bounded size, into an instance of its own.
3. The file is whole when `finish` returns: checkpointed, closed, synced.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import StoreError, StoreFailed
from .damage import UNREADABLE
from .database import mapped_errors
from .parts import ATTACH_OPTIONS
from .schema import PART_DDL, SCHEMA_VERSION
from .syncing import sync_path

__all__ = ["RebuiltFile", "RebuiltPart"]

_MEMORY = "1GiB"
# One transaction; a row group of longer rows is one by itself.
_ROWS_MAX = 65_536
_BYTES_MAX = 64 * 1024 * 1024


class RebuiltFile:
    """A new file at `path`. Use as a context manager: left early, the file is removed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_finished = False
        self._connection = duckdb.connect(
            ":memory:",
            config={
                "threads": 1,
                "memory_limit": _MEMORY,
                "temp_directory": str(path.with_name(f"{path.name}.tmp")),
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
                "max_vacuum_tasks": 0,
            },
        )
        quoted = str(path).replace("'", "''")
        with mapped_errors(0):
            self._connection.execute(f"ATTACH '{quoted}' AS part ({ATTACH_OPTIONS})")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.close()
        if not self._is_finished:
            for path in (self._path, self._path.with_name(f"{self._path.name}.wal")):
                with suppress(OSError):
                    path.unlink(missing_ok=True)

    def insert_files(self, table: str, paths: Iterable[Path]) -> int:
        """All rows of Parquet files; how many."""
        count = 0
        for path in paths:
            with _read_errors(path), pq.ParquetFile(path, page_checksum_verification=True) as file:
                held: list[pa.Table] = []
                rows = size = 0
                for group in range(file.num_row_groups):
                    read = file.read_row_group(group, use_threads=False)
                    held.append(read)
                    rows, size = rows + read.num_rows, size + read.nbytes
                    if rows >= _ROWS_MAX or size >= _BYTES_MAX:
                        self.insert(table, pa.concat_tables(held))
                        held, rows, size = [], 0, 0
                if held:
                    self.insert(table, pa.concat_tables(held))
                count += file.metadata.num_rows
        return count

    def insert(self, table: str, rows: pa.Table) -> None:
        with mapped_errors(0):
            self._connection.register("feed", rows)
            try:
                columns = ", ".join(_columns(rows.column_names))
                self._connection.execute(
                    f"INSERT INTO part.{table} BY NAME SELECT {columns} FROM feed"
                )
            finally:
                self._connection.unregister("feed")

    def create_table(self, statement: str) -> None:
        """`CREATE TABLE name(…)`, without a database's name."""
        if (
            not statement.startswith("CREATE TABLE ")
            or len(duckdb.extract_statements(statement)) != 1
        ):
            raise StoreError("a table is to be made by another statement than CREATE TABLE")
        with mapped_errors(0):
            self._connection.execute("USE part")
            self._connection.execute(statement)
            self._connection.execute("USE memory")

    def has_request(self, rows: pa.Table) -> bool:
        """Whether the first of these rows of `requests` is there."""
        number = rows.column("request_number")[0].as_py()
        with mapped_errors(0):
            found = self._connection.execute(
                "SELECT count(*) FROM part.requests WHERE request_number = ?", [number]
            ).fetchall()
        return bool(found[0][0])

    def count(self, table: str) -> int:
        with mapped_errors(0):
            ((count,),) = self._connection.execute(f"SELECT count(*) FROM part.{table}").fetchall()
        return int(count)

    def finish(self) -> None:
        with mapped_errors(0):
            self._connection.execute("CHECKPOINT part")
            self._connection.execute("DETACH part")
        sync_path(self._path)
        sync_path(self._path.parent)
        self._is_finished = True


def _columns(names: Iterable[str]) -> Iterator[str]:
    """As they are named; the halves of a number of 128 bits as one (`frozen.py`)."""
    for name in names:
        if name.endswith(".high"):
            whole = name.removesuffix(".high")
            yield (
                f'"{name}"::UHUGEINT * 18446744073709551616::UHUGEINT'
                f' + "{whole}.low"::UHUGEINT AS "{whole}"'
            )
        elif not name.endswith(".low"):
            yield f'"{name}"'


class RebuiltPart(RebuiltFile):
    """A new part, with its tables."""

    def __init__(self, path: Path, number: int, created_at: str | None = None) -> None:
        super().__init__(path)
        with mapped_errors(0):
            for statement in PART_DDL:
                self._connection.execute(statement.format(part="part"))
            moment = "now() AT TIME ZONE 'UTC'" if created_at is None else "CAST($3 AS TIMESTAMP)"
            values: list[object] = [SCHEMA_VERSION, number]
            self._connection.execute(
                f"INSERT INTO part.part_info VALUES ($1, $2, {moment})",
                values if created_at is None else [*values, created_at],
            )


@contextmanager
def _read_errors(path: Path) -> Iterator[None]:
    """Damage of a file that rows come from is a StoreFailed with its name."""
    try:
        yield
    except UNREADABLE as error:
        raise StoreFailed(f"{path.name} cannot be read: {error}") from error
