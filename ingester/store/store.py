"""The store: transactions into the open part, the commit gate, checkpoints, rotation, recovery.

Everything here blocks and is called from worker threads. One commit gate per process is held only
to take commit numbers, write `applied`, COMMIT and publish; inserts run outside it.

What a caller may rely on
1. `Transaction.commit` either returns (rows and ledger are durable), raises StoreBusy (nothing was
   stored), or raises StoreFailed (it could not be found out: answer nobody). A commit error is
   "unknown" until the ledger has been read.
2. StoreBroken is raised with the generation to hand to `recover`, once the transaction is closed.
3. A transaction ends in the part it began in, also when the store rotates meanwhile.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from ..config import StoreConfig
from ..errors import StoreBusy, StoreError, StoreFailed
from .database import Cursor, Database, StoreBroken, memory_setting, resting_bytes
from .ledger import AppliedBatch, Ledger, is_applied, read_ledger, write_applied
from .parts import ROW_GROUP_ROWS, Part, PartFiles
from .schema import view_ddl

__all__ = ["ROW_GROUP_ROWS", "Store", "Transaction"]


class _Feed:
    """What DuckDB scans for an insert: whatever table is put in `table`.

    Registered once a transaction, before it begins: a registration inside one stays in its undo
    log and keeps every slice alive until commit (measured: 800 MB for 1 M rows, with it 320).
    """

    def __init__(self, schema: pa.Schema) -> None:
        self.table = schema.empty_table()

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self.table.__arrow_c_stream__(requested_schema)


class Store:
    """Open parts under `data_dir/open`."""

    def __init__(self, data_dir: Path, config: StoreConfig) -> None:
        self.config = config
        self.parts = PartFiles(data_dir / "open")
        self._temp_directory = data_dir / "tmp"
        self._gate = threading.Lock()
        self._count_lock = threading.Lock()
        self._open_transactions = 0
        self._memory_lock = threading.Lock()
        self._memory_raised_count = 0
        self._ledger = Ledger()
        self.database = Database(config, self._temp_directory, self._attach)
        self.commit_count = 0
        self.checkpoint_count = 0
        self.checkpoint_failure_count = 0
        self._created_at = time.time()

    @property
    def ledger(self) -> Ledger:
        return self._ledger

    def open(self) -> None:
        """Attach what is there, read the ledger. Raises StoreFailed."""
        shutil.rmtree(self._temp_directory, ignore_errors=True)
        self._temp_directory.mkdir(parents=True)
        self.database.open()

    def close(self) -> None:
        self.database.close()

    def recover(self, generation: int) -> None:
        """Attach and open everything again after StoreBroken."""
        self.database.reopen(generation)

    def _attach(self, cursor: Cursor) -> None:
        self.parts.find()
        self.parts.attach_all(cursor)
        names = [part.name for part in self.parts.parts]
        for statement in view_ddl(names):
            cursor.execute(statement)
        ledger = read_ledger(cursor, names)
        # Numbers handed out and not committed stay used.
        ledger.batch_id = max(ledger.batch_id, self._ledger.batch_id)
        ledger.commit_number = max(ledger.commit_number, self._ledger.commit_number)
        self._ledger = ledger

    def checkpoint(self) -> bool:
        """Checkpoint every part that has a WAL; False when writers are in the way.

        Raises StoreBroken when it fails: the part is then invalid until `recover`.
        """
        if self._open_transactions:
            return False
        with self.database.lease() as lease, lease.using() as cursor, self._gate:
            for part in self.parts.parts:
                if not part.wal_bytes():
                    continue
                try:
                    cursor.execute(f"CHECKPOINT {part.name}")
                except duckdb.TransactionException:
                    return False  # a writer came in between
                except duckdb.Error:
                    self.checkpoint_failure_count += 1
                    raise
                self.checkpoint_count += 1
        return True

    def maybe_rotate(self) -> bool:
        """Start the next part when the newest is over its size or age."""
        newest = self.parts.newest
        too_big = newest.file_bytes() + newest.wal_bytes() > self.config.part_bytes_max
        too_old = time.time() - self._created_at > self.config.part_hours_max * 3600
        if not too_big and not (too_old and self.commit_count):
            return False
        self.rotate()
        return True

    def rotate(self) -> None:
        with self.database.lease() as lease, lease.using() as cursor, self._gate:
            self.parts.create(cursor, self._ledger.carry(), self._ledger.commit_number)
            for statement in view_ddl([part.name for part in self.parts.parts]):
                cursor.execute(statement)
            self._created_at = time.time()

    @contextmanager
    def raised_memory(self) -> Iterator[None]:
        """Let DuckDB use `memory_bytes_max` for a while: queries, uploads with wide lines."""
        with self._memory_lock:
            self._memory_raised_count += 1
            if self._memory_raised_count == 1:
                self._limit_memory(self.config.memory_bytes_max)
        try:
            yield
        finally:
            with self._memory_lock:
                self._memory_raised_count -= 1
                if not self._memory_raised_count:
                    self._limit_memory(resting_bytes(self.config))

    def _limit_memory(self, byte_count: int) -> None:
        # Lowering it fails while more is pinned; the next query or upload lowers it then.
        with suppress(StoreError), self.database.lease() as lease, lease.using() as cursor:
            cursor.execute(f"SET GLOBAL memory_limit = '{memory_setting(byte_count)}'")

    def free_bytes(self) -> int:
        return shutil.disk_usage(self.parts.directory).free

    def statistics(self) -> dict[str, int]:
        newest = self.parts.newest
        return {
            "parts": len(self.parts.parts),
            "part_file_bytes": newest.file_bytes(),
            "part_wal_bytes": newest.wal_bytes(),
            "commits_total": self.commit_count,
            "checkpoints_total": self.checkpoint_count,
            "checkpoint_failures_total": self.checkpoint_failure_count,
            "reopened_total": self.database.reopened_count,
            "open_transactions": self._open_transactions,
            "applied_seq": self._ledger.applied_seq,
            "commit_number": self._ledger.commit_number,
        }

    def begin(self, lane: str) -> Transaction:
        return Transaction(self, lane)

    def _commit(self, part: Part, batches: Sequence[AppliedBatch], cursor: Cursor) -> None:
        """COMMIT behind the gate and take note. DuckDB's errors pass through."""
        with self._gate:
            write_applied(cursor, part.name, batches, self._ledger.commit_number + 1)
            # Also when COMMIT fails: a number is never used for two commits that may both be there.
            self._ledger.commit_number += len(batches)
            cursor.execute("COMMIT")
            self._note_applied(batches)

    def _note_applied(self, batches: Sequence[AppliedBatch]) -> None:
        self._ledger.applied(batches)
        self.commit_count += 1

    def _count_transaction(self, change: int) -> None:
        with self._count_lock:
            self._open_transactions += change

    def _was_applied(self, part: Part, batch: AppliedBatch) -> bool:
        """Read the ledger after a COMMIT that raised. Raises StoreFailed when it cannot be read."""
        for _ in range(2):
            try:
                with self.database.lease() as lease, lease.using() as cursor:
                    return is_applied(cursor, part.name, batch.batch_id)
            except StoreBroken as error:
                self.recover(error.generation)
            except StoreError as error:
                raise StoreFailed(f"the ledger cannot be read: {error}") from error
        raise StoreFailed("the ledger cannot be read")


class Transaction:
    """Rows on their way into one part. Use as a context manager; leaving it rolls back."""

    def __init__(self, store: Store, lane: str) -> None:
        self._store = store
        self.lane = lane
        self._part = store.parts.newest
        self._feeds: dict[str, _Feed] = {}
        self._lease = store.database.lease()
        self._is_open = False
        self._raised = ExitStack()
        store._count_transaction(1)

    def __enter__(self) -> Transaction:
        return self

    def __exit__(self, *_: object) -> None:
        self._rollback()
        self._lease.close()
        self._raised.close()
        self._store._count_transaction(-1)

    def prepare(self, table: str, schema: pa.Schema) -> None:
        """Say what will be inserted; before the first `insert`."""
        assert not self._is_open
        feed = _Feed(schema)
        with self._lease.using() as cursor:
            cursor.register(f"feed_{table}", feed)
        self._feeds[table] = feed

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
            finally:
                feed.table = rows.schema.empty_table()

    def raise_memory(self) -> None:
        """From here to its end this transaction needs more memory than rests with the store."""
        self._raised.enter_context(self._store.raised_memory())

    def commit(self, batches: Sequence[AppliedBatch]) -> None:
        """Make the rows durable and visible, with their ledger rows."""
        assert batches
        try:
            with self._lease.using() as cursor:
                self._maybe_begin(cursor)
                self._store._commit(self._part, batches, cursor)
                self._is_open = False
        except StoreError as error:
            self._find_out(batches, error)

    def _maybe_begin(self, cursor: Cursor) -> None:
        if not self._is_open:
            cursor.execute("BEGIN")
            self._is_open = True

    def _rollback(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        # An invalid part has nothing left to roll back, a failed COMMIT has done it already.
        with suppress(StoreError), self._lease.using() as cursor:
            cursor.execute("ROLLBACK")

    def _find_out(self, batches: Sequence[AppliedBatch], error: StoreError) -> None:
        """A COMMIT that raised may have happened. Returns if it did, raises StoreBusy if not."""
        self._rollback()
        self._lease.close()
        if isinstance(error, StoreBroken):
            self._store.recover(error.generation)
        if not self._store._was_applied(self._part, batches[0]):
            raise StoreBusy(f"the commit failed: {error}") from error
        self._store._note_applied(batches)
