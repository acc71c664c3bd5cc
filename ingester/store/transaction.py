"""Transactions: rows on their way into one part of the store, and their COMMIT.

What a caller may rely on
1. `commit` either returns (rows and ledger are durable), raises StoreBusy or StoreError (nothing
   was stored), or raises StoreFailed (it could not be found out: answer nobody). A commit error is
   "unknown" until the ledger has been read.
2. A transaction ends in the part it began in, also when the store rotates meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pyarrow as pa

from ..errors import StoreBusy, StoreError
from .database import Cursor, StoreOutOfMemory
from .ledger import AppliedBatch
from .parts import WIDE_TABLES
from .pinned import PinnedRows
from .upload_files import UploadFile

if TYPE_CHECKING:
    from .store import Store

__all__ = ["Transaction"]


class _Feed:
    """What DuckDB scans for an insert: whatever table is put in `table`.

    Registered once a transaction, before it begins: a registration inside one stays in its undo
    log and keeps every slice alive until commit (measured: 800 MB for 1 M rows, with it 320).
    """

    def __init__(self, schema: pa.Schema) -> None:
        self.table = schema.empty_table()

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self.table.__arrow_c_stream__(requested_schema)


class Transaction:
    """Rows on their way into one part. Use as a context manager; leaving it rolls back."""

    def __init__(self, store: Store, lane: str) -> None:
        self._store = store
        self.lane = lane
        self._feeds: dict[str, _Feed] = {}
        self._pinned: dict[str, PinnedRows] = {}
        self._lease = store.database.lease()
        self._part = store._enter_newest()
        self._is_open = False
        self._upload: UploadFile | None = None

    def __enter__(self) -> Transaction:
        return self

    def __exit__(self, *_: object) -> None:
        self._rollback()
        if self._upload is not None:
            self._upload.discard()
        self._lease.close()
        self._store._leave(self._part)

    def prepare(self, table: str, schema: pa.Schema) -> None:
        """Say what will be inserted; before the first `insert`."""
        assert not self._is_open
        feed = _Feed(schema)
        with self._lease.using() as cursor:
            cursor.register(f"feed_{table}", feed)
        self._feeds[table] = feed
        if table in WIDE_TABLES:
            self._pinned[table] = PinnedRows()

    def count_pinned(self, table: str, lengths: np.ndarray[Any, Any]) -> int:
        """Take note of the strings of rows that will be inserted; what must be held at once now."""
        pinned = self._pinned[table]
        pinned.add(lengths)
        return pinned.widest_bytes

    def insert(
        self, table: str, rows: pa.Table, constants: dict[str, str | int] | None = None
    ) -> None:
        """Insert `rows` (columns named as in `table`) plus the same constants in every row.

        A constant timestamp is given in microseconds, under a name that ends in `_us`.
        """
        feed = self._feeds[table]
        constants = constants or {}
        targets = [*rows.column_names, *(key.removesuffix("_us") for key in constants)]
        values = [
            *rows.column_names,
            *("make_timestamp(?)" if key.endswith("_us") else "?" for key in constants),
        ]
        statement = (
            f"INSERT INTO {self._part.name}.{table} ({', '.join(targets)}) "
            f"SELECT {', '.join(values)} FROM feed_{table}"
        )
        with self._lease.using() as cursor:
            self._maybe_begin(cursor)
            feed.table = rows
            try:
                cursor.execute(statement, list(constants.values()))
            except duckdb.Error:
                self._store._has_leaked = True
                raise
            finally:
                feed.table = rows.schema.empty_table()

    def write_upload(
        self,
        table: str,
        rows: pa.Table,
        constants: Mapping[str, str | int],
        *,
        request_number: int,
    ) -> None:
        """The same as `insert`, but into the transaction's upload file; one table has one."""
        if self._upload is None:
            self._upload = UploadFile(
                self._store.uploads_directory, self._part.number, request_number, table
            )
            self._upload_request_number = request_number
        assert self._upload.table == table
        self._upload.write(rows, constants)

    def commit(self, batches: Sequence[AppliedBatch]) -> None:
        """Make the rows durable and visible, with their ledger rows."""
        assert batches
        try:
            # Outside the commit turn: a large file takes its time to sync.
            if self._upload is not None:
                self._upload.finish()
            store = self._store
            with store._commit_turn:
                store._make_room(self._part, self._pinned)
                with self._lease.using() as cursor:
                    self._maybe_begin(cursor)
                    if self._upload is not None:
                        self._list_upload(self._upload, cursor)
                    store._commit(self._part, batches, self._upload, self._pinned, cursor)
                    self._is_open = False
                    self._upload = None
        except StoreError as error:
            self._find_out(batches, error)

    def _list_upload(self, upload: UploadFile, cursor: Cursor) -> None:
        """The row that names the file, which is durable by now."""
        cursor.execute(
            f"INSERT INTO {self._part.name}.upload_files VALUES (?, ?, ?, ?)",
            [upload.path.name, self._upload_request_number, upload.row_count, upload.byte_count],
        )

    def _maybe_begin(self, cursor: Cursor) -> None:
        if not self._is_open:
            cursor.execute("BEGIN")
            self._is_open = True

    def _rollback(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        self._store._rolled_back.add(self._part.name)
        # An invalid part has nothing left to roll back, a failed COMMIT has done it already.
        with suppress(StoreError), self._lease.using() as cursor:
            cursor.execute("ROLLBACK")

    def _find_out(self, batches: Sequence[AppliedBatch], error: StoreError) -> None:
        """A COMMIT that raised may have happened. Returns if it did, raises StoreBusy if not."""
        self._rollback()
        self._lease.close()
        # Until the ledger has been read the file may be listed: it is left alone.
        upload, self._upload = self._upload, None
        last_number = self._store._maybe_applied(self._part, batches[-1], error)
        if last_number is not None:
            database = self._store.database
            with database.lease() as lease, lease.using(), self._store._gate:
                self._store._note_applied(self._part, batches, last_number, self._pinned)
                if upload is not None:
                    self._store._publish(self._part.name, upload)
            return
        if upload is not None:
            upload.discard()
        if isinstance(error, StoreBusy):
            kind = StoreOutOfMemory if isinstance(error, StoreOutOfMemory) else StoreBusy
            raise kind(f"the commit failed: {error}") from error
        else:
            raise error
