"""The store at one moment, to be copied while it goes on: rows of parts as Parquet, files by name.

1. Behind the commit gate, held for a few milliseconds: a read transaction that has touched every
   part, a hold on files, and the marks of the ledger. So all parts are seen at one commit number.
2. Rows are read in the order of their row ids, in pieces; a file of Parquet holds at most
   `_FILE_ROWS_MAX`, a row group so much as `_GROUP_BYTES_MAX`: that bounds memory here and where
   they are put back.
3. Nothing is written by DuckDB: a full disk on the other side is an error of a file, while one
   inside the instance would end all of it.
4. The transaction keeps old versions alive and lets checkpoints of parts pass; when the store has
   to be opened again meanwhile, it ends with StoreBusy or StoreBroken.
5. Rollups are seen by a transaction of their own, begun behind the same gate, that can be ended
   before: their tables are replaced, and while somebody reads one that was dropped their file
   cannot be checkpointed (measured, DuckDB 1.5.6).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
from msgspec import Struct

from ..errors import StoreError
from .control.sealed_files import Manifest
from .database import Cursor, Lease
from .ledger import marks_of, read_ledger
from .relations import Snapshot
from .rollup_file import ROLLUPS
from .schema import SCHEMA_VERSION
from .store import Store

__all__ = ["Frozen", "FrozenPart", "frozen", "write_parquet"]


_FETCH_ROWS = 2_048
_FILE_ROWS_MAX = 1_000_000
_GROUP_ROWS_MAX = 32_768
_GROUP_BYTES_MAX = 8 * 1024 * 1024


class FrozenPart(Struct, frozen=True):
    """One part: its rows by table, and the upload files that it lists, with rows and bytes. Of the
    file of rollups, which has number 0, also how its tables are made (`ddl`).
    """

    number: int
    name: str
    schema_version: int
    created_at: str
    row_counts: Mapping[str, int]
    upload_files: Mapping[str, tuple[int, int]] = {}
    ddl: Mapping[str, str] = {}


class Frozen:
    """Valid inside `frozen`. One thread uses it."""

    def __init__(self, store: Store, lease: Lease, rollups_lease: Lease) -> None:
        self._store = store
        self._lease = lease
        self._rollups_lease = rollups_lease
        self.parts: list[FrozenPart] = []
        self.rollups: FrozenPart
        self.snapshot: Snapshot
        self.manifest = Manifest()
        self.commit_number = 0
        self.applied_seq = 0

    def files_of(self, part: FrozenPart, table: str) -> Iterator[range]:
        """Row ids of the files that the rows of a table are to be written to."""
        count = part.row_counts[table]
        for first in range(0, count, _FILE_ROWS_MAX):
            yield range(first, min(count, first + _FILE_ROWS_MAX))

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        """All rows of one SELECT over the parts at that moment."""
        with self._lease.using() as cursor:
            return cursor.execute(sql).fetchall()

    def write(self, part: FrozenPart, table: str, rows: range, file: BinaryIO) -> None:
        """Raises StoreBusy, StoreBroken; OSError as `file` does."""
        lease = self._rollups_lease if part.name == ROLLUPS else self._lease
        with lease.using() as cursor:
            # The bounds are constants: only the row groups between them are read.
            reader = cursor.execute(
                f"SELECT {self._columns(cursor, part, table)} FROM {part.name}.{table} "
                f"WHERE rowid >= {rows.start} AND rowid < {rows.stop}"
            ).to_arrow_reader(_FETCH_ROWS)
            try:
                count = write_parquet(reader, file)
            finally:
                reader.close()
        if count != len(rows):
            raise StoreError(f"{table} of {part.name}: {count} rows, not {len(rows)}")

    def release_rollups(self) -> None:
        """They have been read."""
        self._rollups_lease.close()

    def _columns(self, cursor: Cursor, part: FrozenPart, table: str) -> str:
        """Digests of 128 bits, for which Parquet has no type, as two numbers (`rebuilt_part.py`).
        As text they cost a millisecond each (measured, DuckDB 1.5.6).
        """
        columns = cursor.execute(
            "SELECT column_name, data_type FROM duckdb_columns() "
            "WHERE database_name = ? AND table_name = ? ORDER BY column_index",
            [part.name, table],
        ).fetchall()
        halves = (
            '("{0}" >> 64)::UBIGINT AS "{0}.high", '
            '("{0}" & 18446744073709551615::UHUGEINT)::UBIGINT AS "{0}.low"'
        )
        return ", ".join(
            halves.format(name) if kind == "UHUGEINT" else f'"{name}"' for name, kind in columns
        )

    def _begin(self) -> None:
        """With the gate held and the lease in use."""
        store, cursor = self._store, self._lease._cursor
        cursor.execute("BEGIN TRANSACTION READ ONLY")
        rollups_cursor = self._rollups_lease._cursor
        if rollups_cursor is not cursor:
            rollups_cursor.execute("BEGIN TRANSACTION READ ONLY")
        self.snapshot = store._snapshot()
        for name in self.snapshot.parts:
            # The transaction sees a part as it was when it touched it first.
            cursor.execute(f"SELECT count(*) FROM {name}.part_info").fetchall()
        # Behind the cursor of these sums are no rows that the parts do not have.
        rollups_cursor.execute(f"SELECT count(*) FROM {ROLLUPS}.about").fetchall()
        sealed = store.sealed
        self.manifest = Manifest(tuple(sealed.all_files()), tuple(sealed.parts.values()))

    def _look(self) -> None:
        """What there is, inside the transaction."""
        with self._lease.using() as cursor:
            marks = read_ledger(cursor, self.snapshot.parts)
            # A transaction may have ended in a part behind the beginning of the next one.
            marks.rise(marks_of(self.manifest.parts))
            self.commit_number, self.applied_seq = marks.commit_number, marks.applied_seq
            for name in self.snapshot.parts:
                tables = cursor.execute(
                    "SELECT table_name FROM duckdb_tables() WHERE database_name = ? "
                    "AND table_name <> 'part_info' ORDER BY table_name",
                    [name],
                ).fetchall()
                ((number, version, created_at),) = cursor.execute(
                    f"SELECT part_number, schema_version, created_at::VARCHAR FROM {name}.part_info"
                ).fetchall()
                counts = {}
                for (table,) in tables:
                    ((counts[table],),) = cursor.execute(
                        f"SELECT count(*) FROM {name}.{table}"
                    ).fetchall()
                listed = cursor.execute(
                    f"SELECT file_name, row_count, byte_count FROM {name}.upload_files"
                ).fetchall()
                files = {row[0]: (row[1], row[2]) for row in listed}
                part = FrozenPart(number, name, version, created_at, counts, files)
                assert version <= SCHEMA_VERSION
                self.parts.append(part)
        with self._rollups_lease.using() as cursor:
            tables = cursor.execute(
                "SELECT table_name, sql FROM duckdb_tables() WHERE database_name = ? "
                "ORDER BY table_name",
                [ROLLUPS],
            ).fetchall()
            counts = {}
            for table, _ in tables:
                ((counts[table],),) = cursor.execute(
                    f"SELECT count(*) FROM {ROLLUPS}.{table}"
                ).fetchall()
            self.rollups = FrozenPart(0, ROLLUPS, 0, "", counts, ddl=dict(tables))


@contextmanager
def frozen(store: Store, *, share_rollups: bool = False) -> Iterator[Frozen]:
    """With `share_rollups` one statement may ask for parts and rollups. Raises StoreBusy,
    StoreBroken.
    """
    with ExitStack() as ending:
        epoch = store.holds.enter()
        ending.callback(store.holds.leave, epoch)
        lease = ending.enter_context(store.database.lease())
        rollups_lease = lease if share_rollups else ending.enter_context(store.database.lease())
        found = Frozen(store, lease, rollups_lease)
        # Closing a lease ends its transaction.
        with ExitStack() as using:
            using.enter_context(lease.using())
            if not share_rollups:
                using.enter_context(rollups_lease.using())
            using.enter_context(store._gate)
            found._begin()
        found._look()
        yield found


def write_parquet(reader: Any, file: BinaryIO) -> int:
    """Batches as row groups of bounded size; how many rows."""
    row_count = held_rows = held_bytes = 0
    held: list[Any] = []
    with pq.ParquetWriter(
        pa.PythonFile(file, mode="w"),
        reader.schema,
        compression="zstd",
        compression_level=1,
        use_dictionary=False,
        write_statistics=False,
        write_page_checksum=True,
        store_schema=False,
    ) as writer:
        for batch in reader:
            held.append(batch)
            held_rows += batch.num_rows
            held_bytes += batch.nbytes
            row_count += batch.num_rows
            if held_rows >= _GROUP_ROWS_MAX or held_bytes >= _GROUP_BYTES_MAX:
                writer.write_table(pa.Table.from_batches(held))
                held, held_rows, held_bytes = [], 0, 0
        if held:
            writer.write_table(pa.Table.from_batches(held))
    return row_count
