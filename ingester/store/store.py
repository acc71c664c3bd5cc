"""The store: transactions into the open part, the commit gate, checkpoints, rotation, recovery.

Everything here blocks and is called from worker threads. One commit gate per process is held only
to take commit numbers, write `applied`, COMMIT and publish; inserts run outside it. Who waits for
whom: commit turn ► a cursor in use ► gate. A reopening waits for cursors in use and for nothing
else; nobody waits for a reopening with a cursor in use.

What a caller may rely on
1. `Transaction.commit` either returns (rows and ledger are durable), raises StoreBusy or StoreError
   (nothing was stored), or raises StoreFailed (it could not be found out: answer nobody). A commit
   error is "unknown" until the ledger has been read.
2. StoreBroken is raised with the generation to hand to `recover`, once the transaction is closed.
3. A transaction ends in the part it began in, also when the store rotates meanwhile.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from ..config import StoreConfig
from ..errors import StoreBusy, StoreError, StoreFailed
from .cursors import Cursors
from .database import Cursor, Database, StoreBroken, StoreOutOfMemory
from .ledger import AppliedBatch, Ledger, is_applied, read_ledger, write_applied
from .parts import WIDE_TABLES, Part, PartFiles
from .pinned import PinnedRows, TailRows
from .relations import Snapshot, files_by_table
from .schema import VIEW_NAMES, view_ddl
from .upload_files import UploadFile, remove_unlisted

__all__ = ["Store", "Transaction"]

# How long a commit whose outcome is unknown may wait for the ledger to be readable.
_FIND_OUT_S = 90.0
_FIND_OUT_EVERY_S = 0.1

# Wider neighbours are never merged. Less than half of `memory_bytes_max`, so that a start with
# a smaller one finds nothing that it cannot hold.
_MERGED_BYTES_MAX = 32 * 1024 * 1024


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
        self.uploads_directory = (data_dir / "uploads").absolute()
        # Commits are one at a time from the look at what is pinned on; taken before a cursor is
        # used, so that the checkpoint that may be needed first can have one.
        self._commit_turn = threading.Lock()
        self._gate = threading.Lock()
        self._count_lock = threading.Lock()
        self._open_transactions = 0
        self.ledger = Ledger()
        self.cursors = Cursors()
        self.database = Database(config, self._temp_directory, self._attach)
        self.commit_count = 0
        # Called behind the commit gate, by the thread that commits: to ring a bell, no more.
        self.commit_listeners: tuple[Callable[[], None], ...] = ()
        self.checkpoint_count = 0
        self.checkpoint_failure_count = 0
        # Names of parts in which a rollback has left blocks that a checkpoint gives back.
        self._rolled_back: set[str] = set()
        # An insert failed: DuckDB has lost sight of its blocks until the file is opened again,
        # which cuts them off (`PartFiles`).
        self._has_leaked = False

    def listen(self, listener: Callable[[], None]) -> None:
        """Called from one thread, as `unlisten`; the tuple is replaced, as commits walk it."""
        self.commit_listeners = (*self.commit_listeners, listener)

    def unlisten(self, listener: Callable[[], None]) -> None:
        self.commit_listeners = tuple(one for one in self.commit_listeners if one != listener)

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

    def interrupt(self) -> None:
        """Stop what is being executed, to end soon: queries see StoreBusy."""
        self.database.interrupt()

    def trim(self) -> None:
        """Give back what a crash has left behind the end of the parts. Before the doors open."""
        with self.database.lease() as lease, lease.using() as cursor:
            is_wanted = self.parts.have_tails(cursor)
        if is_wanted:
            self.recover(self.database.generation)

    def _attach(self, cursor: Cursor) -> None:
        # Upload files are never changed once they can be seen.
        cursor.execute("SET GLOBAL parquet_metadata_cache = true")
        self.parts.attach_all(cursor)
        self.uploads_directory.mkdir(mode=0o700, exist_ok=True)
        listed = {name for part in self.parts.parts for name in part.upload_files}
        unreadable = set(remove_unlisted(self.uploads_directory, listed))
        for part in self.parts.parts:
            part.unreadable_files = tuple(name for name in part.upload_files if name in unreadable)
        self._rolled_back.clear()
        names = [part.name for part in self.parts.parts]
        self._make_views(cursor, self.parts.parts)
        self.ledger.rise(read_ledger(cursor, names))

    @property
    def is_space_owed(self) -> bool:
        """Whether a checkpoint would give back what rolled back transactions have written."""
        return bool(self._rolled_back) or self._has_leaked

    @property
    def pinned_bytes_max(self) -> int:
        """What one transaction may pin (`pinned.py`). A COMMIT also writes it to the WAL, through
        a buffer beside the limit.
        """
        return self.config.memory_bytes_max * 3 // 8

    def wal_bytes(self) -> int:
        return sum(part.wal_bytes() for part in self.parts.parts)

    def checkpoint(self, *, beside_writers: bool = False) -> bool:
        """Checkpoint every part that has a WAL; False when writers are in the way.

        A checkpoint beside an open transaction is possible (DuckDB 1.5), but when it fails that
        transaction is lost with the instance, and an upload may be hours old.

        Raises StoreBroken when it fails: the part is then invalid until `recover`.
        """
        if self._open_transactions and not beside_writers:
            return False
        with self.database.lease() as lease, lease.using() as cursor, self._gate:
            for part in self.parts.parts:
                self._maybe_write_mark(cursor, part)
                if not part.wal_bytes():
                    continue
                if not self._checkpoint_part(cursor, part):
                    return False  # a writer came in between
        if self._has_leaked and not self._open_transactions:
            self._has_leaked = False
            self.recover(self.database.generation)
        return True

    def _checkpoint_part(self, cursor: Cursor, part: Part) -> bool:
        """With the gate held: no commit gets in between. False when writers are in the way."""
        try:
            if not part.is_wide:
                cursor.execute("SET GLOBAL max_vacuum_tasks = 100")
            cursor.execute(f"CHECKPOINT {part.name}")
        except duckdb.TransactionException:
            return False
        except duckdb.Error:
            self.checkpoint_failure_count += 1
            raise
        finally:
            with suppress(duckdb.Error):
                cursor.execute("SET GLOBAL max_vacuum_tasks = 0")
        self.checkpoint_count += 1
        self._rolled_back.discard(part.name)
        part.fresh = {table: TailRows() for table in part.fresh}
        return True

    def _make_room(self, part: Part, pinned: Mapping[str, PinnedRows]) -> None:
        """Checkpoint before rows become neighbours that DuckDB could not hold at once."""
        bytes_max = self.config.memory_bytes_max // 2
        if all(part.fresh[table].widest_with(rows) <= bytes_max for table, rows in pinned.items()):
            return
        with self.database.lease() as lease, lease.using() as cursor, self._gate:
            self._checkpoint_part(cursor, part)

    def _maybe_write_mark(self, cursor: Cursor, part: Part) -> None:
        """Without a WAL a checkpoint does nothing, and the blocks of a transaction that was rolled
        back stay in the file (measured, DuckDB 1.5.6): give it one ledger row that says nothing.
        """
        if part.name not in self._rolled_back or part.wal_bytes():
            return
        mark = [self.ledger.carry()]
        try:
            write_applied(cursor, part.name, mark, self.ledger.commit_number)
        except duckdb.TransactionException:
            self._has_leaked = True  # not even room for that: what is left is to open again

    def maybe_rotate(self) -> bool:
        """Start the next part when the newest is over its size, or over its age and not empty."""
        newest = self.parts.newest
        size = newest.file_bytes() + newest.wal_bytes() + newest.upload_bytes
        too_big = size > self.config.part_bytes_max
        too_old = time.time() - newest.created_at > self.config.part_hours_max * 3600
        if not newest.has_rows or not (too_big or too_old):
            return False
        self.rotate()
        return True

    def rotate(self) -> None:
        with self.database.lease() as lease, lease.using() as cursor, self._gate:
            part = self.parts.create(
                cursor,
                self.ledger.carry(),
                self.ledger.commit_number,
                number=self.parts.newest.number + 1,
            )
            try:
                self._make_views(cursor, [*self.parts.parts, part])
            except BaseException:
                self.parts.discard(cursor, part)
                raise
            self.parts.append(part)

    def free_bytes(self) -> int:
        return shutil.disk_usage(self.parts.directory).free

    def statistics(self) -> dict[str, int]:
        newest = self.parts.newest
        return {
            "parts": len(self.parts.parts),
            "part_file_bytes": newest.file_bytes(),
            "part_wal_bytes": newest.wal_bytes(),
            "upload_files": sum(len(part.upload_files) for part in self.parts.parts),
            "upload_file_bytes": sum(part.upload_bytes for part in self.parts.parts),
            "commits_total": self.commit_count,
            "checkpoints_total": self.checkpoint_count,
            "checkpoint_failures_total": self.checkpoint_failure_count,
            "reopened_total": self.database.reopened_count,
            "open_transactions": self._open_transactions,
            "applied_seq": self.ledger.applied_seq,
            "commit_number": self.ledger.commit_number,
        }

    def snapshot(self) -> Snapshot:
        """What a search reads. Waits for the commit or the checkpoint under way."""
        with self._gate:
            names = tuple(part.name for part in self.parts.parts)
            files = files_by_table(self.parts.parts, self.uploads_directory)
            return Snapshot(self.ledger.commit_number, names, files)

    def _make_views(
        self, cursor: Cursor, parts: Sequence[Part], names: Sequence[str] = VIEW_NAMES
    ) -> None:
        """All of the public views, or none: one over a lost part would break every query."""
        files = files_by_table(parts, self.uploads_directory)
        cursor.execute("BEGIN")
        try:
            for statement in view_ddl([part.name for part in parts], files, names):
                cursor.execute(statement)
            cursor.execute("COMMIT")
        except BaseException:
            with suppress(duckdb.Error):
                cursor.execute("ROLLBACK")
            raise

    def begin(self, lane: str) -> Transaction:
        return Transaction(self, lane)

    def _commit(
        self,
        part: Part,
        batches: Sequence[AppliedBatch],
        upload: UploadFile | None,
        pinned: Mapping[str, PinnedRows],
        cursor: Cursor,
    ) -> None:
        """COMMIT behind the gate and take note. DuckDB's errors pass through."""
        with self._gate:
            write_applied(cursor, part.name, batches, self.ledger.commit_number + 1)
            # Also when COMMIT fails: a number is never used for two commits that may both be there.
            self.ledger.commit_number += len(batches)
            if not part.is_wide and self._makes_wide(part, pinned):
                write_applied(cursor, part.name, [AppliedBatch(0, "wide", 0, 0, 0, 0)], 0)
            cursor.execute("COMMIT")
            self._note_applied(part, batches, pinned)
            if upload is not None:
                self._publish(part.name, upload, cursor)

    def _publish(self, part_name: str, upload: UploadFile, cursor: Cursor) -> None:
        """Show the rows of a committed upload file. Called with the commit gate held."""
        part = next(part for part in self.parts.parts if part.name == part_name)
        if upload.path.name in part.upload_files:
            return  # the store was opened again meanwhile, and has read its list
        part.upload_files = (*part.upload_files, upload.path.name)
        part.upload_bytes += upload.byte_count
        try:
            self._make_views(cursor, self.parts.parts, [upload.table])
        except duckdb.Error as error:
            # It is committed and must be seen: opening again makes the views.
            raise StoreBroken(str(error), self.database.generation) from error

    def _note_applied(
        self, part: Part, batches: Sequence[AppliedBatch], pinned: Mapping[str, PinnedRows]
    ) -> None:
        self.ledger.applied(batches)
        self.commit_count += 1
        for listener in self.commit_listeners:
            listener()
        part.has_rows = True
        part.is_wide = part.is_wide or self._makes_wide(part, pinned)
        for table, rows in pinned.items():
            part.tail[table].add(rows)
            part.fresh[table].add(rows)

    def _makes_wide(self, part: Part, pinned: Mapping[str, PinnedRows]) -> bool:
        bytes_max = min(_MERGED_BYTES_MAX, self.config.memory_bytes_max // 2)
        return any(part.tail[table].widest_with(rows) > bytes_max for table, rows in pinned.items())

    def _count_transaction(self, change: int) -> None:
        with self._count_lock:
            self._open_transactions += change

    def _was_applied(self, part: Part, batch: AppliedBatch, error: StoreError) -> bool:
        """Read the ledger after a COMMIT that raised `error`.

        Raises StoreFailed when it cannot be read: "busy" would say that nothing was stored.
        """
        gives_up_at = time.monotonic() + _FIND_OUT_S
        while True:
            try:
                if isinstance(error, StoreBroken):
                    self.recover(error.generation)
                with self.database.lease() as lease, lease.using() as cursor:
                    return is_applied(cursor, part.name, batch.batch_id)
            except StoreBusy as busy:
                error = busy
                if time.monotonic() > gives_up_at:
                    raise StoreFailed(f"the ledger cannot be read: {busy}") from busy
                time.sleep(_FIND_OUT_EVERY_S)
            except StoreFailed:
                raise
            except StoreError as other:
                raise StoreFailed(f"the ledger cannot be read: {other}") from other


class Transaction:
    """Rows on their way into one part. Use as a context manager; leaving it rolls back."""

    def __init__(self, store: Store, lane: str) -> None:
        self._store = store
        self.lane = lane
        self._feeds: dict[str, _Feed] = {}
        self._pinned: dict[str, PinnedRows] = {}
        self._lease = store.database.lease()
        self._part = store.parts.newest
        self._is_open = False
        self._upload: UploadFile | None = None
        store._count_transaction(1)

    def __enter__(self) -> Transaction:
        return self

    def __exit__(self, *_: object) -> None:
        self._rollback()
        if self._upload is not None:
            self._upload.discard()
        self._lease.close()
        self._store._count_transaction(-1)

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
        if self._store._was_applied(self._part, batches[0], error):
            database = self._store.database
            with database.lease() as lease, lease.using() as cursor, self._store._gate:
                self._store._note_applied(self._part, batches, self._pinned)
                if upload is not None:
                    self._store._publish(self._part.name, upload, cursor)
            return
        if upload is not None:
            upload.discard()
        if isinstance(error, StoreBusy):
            kind = StoreOutOfMemory if isinstance(error, StoreOutOfMemory) else StoreBusy
            raise kind(f"the commit failed: {error}") from error
        else:
            raise error
