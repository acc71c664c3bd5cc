"""The store: the open parts and sealed files, the commit gate, checkpoints, rotation, recovery.

Everything here blocks and is called from worker threads. One commit gate per process is held only
to take commit numbers, write `applied`, COMMIT and publish; inserts run outside it. Who waits for
whom: commit turn ► a cursor in use ► checkpoint turn ► gate. A reopening waits for cursors in use
and for nothing else; nobody waits for a reopening with a cursor in use.

What a caller may rely on
1. StoreBroken is raised with the generation to hand to `recover`, once the transaction is closed.
2. `snapshot`, and what a `hold` names, is all that is committed at that moment and each row of it
   once: in a part, or in the sealed files that replaced it. What a hold names stays until its end.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import duckdb

from ..config import StoreConfig
from ..errors import StoreBusy, StoreError, StoreFailed
from .commit_mark import CommitMark
from .control.sealed_files import SealedFile, SealedFiles, SealedPart
from .cursors import Cursors
from .database import Cursor, Database, StoreBroken
from .holds import Holds
from .ledger import AppliedBatch, Ledger, marks_of, maybe_commit_number, read_ledger, write_applied
from .lost import LEAP, cut_ledgers, kept_files, missing_numbers, newest_number
from .metadata_copy import keep_metadata
from .parts import Part, PartFiles
from .pinned import PinnedRows, TailRows
from .put_back import doubled_parts
from .relations import Held, Snapshot, files_by_table
from .rollup_file import RollupFile
from .sealed import SealedData
from .transaction import Transaction
from .upload_files import UploadFile, remove_unlisted

__all__ = ["Store", "Transaction"]

# How long a commit whose outcome is unknown may wait for the ledger to be readable.
_FIND_OUT_S = 90.0
_FIND_OUT_EVERY_S = 0.1

# Wider neighbours are never merged. Less than half of `memory_bytes_max`, so that a start with
# a smaller one finds nothing that it cannot hold.
_MERGED_BYTES_MAX = 32 * 1024 * 1024


class Store:
    """Open parts under `data_dir/open`."""

    def __init__(
        self, data_dir: Path, config: StoreConfig, manifest: SealedFiles | None = None
    ) -> None:
        self.config = config
        self.parts = PartFiles(data_dir / "open")
        self._temp_directory = data_dir / "tmp"
        self.uploads_directory = (data_dir / "uploads").absolute()
        # Commits are one at a time from the look at what is pinned on; taken before a cursor is
        # used, so that the checkpoint that may be needed first can have one.
        self._commit_turn = threading.Lock()
        self._gate = threading.Lock()
        # One checkpoint at a time, from the copy of metadata on.
        self._checkpoint_turn = threading.Lock()
        self._count_lock = threading.Lock()
        self._open_transactions = 0
        # By the number of the part that they began in: a part is another object after a reopening.
        self._transactions_in: Counter[int] = Counter()
        self.ledger = Ledger()
        self._commit_mark = CommitMark(data_dir)
        self.cursors = Cursors()
        self.holds = Holds()
        self.sealed = SealedData(data_dir, self.holds, manifest)
        self.rollup_file = RollupFile(data_dir / "rollups.duckdb")
        self.database = Database(config, self._temp_directory, self._attach, self.holds)
        # Numbers of parts that are gone, and of those that are there and not read (`put_back.py`).
        self.missing_parts: list[int] = []
        self.doubled_parts: list[int] = []
        self.kept_files: list[str] = []  # uploads that nobody lists and that stay
        # Journal records up to here were evaluated by rules; those to be loaded were lost since.
        self.evaluated_seq = 0
        self.commit_count = 0
        # Called behind the commit gate, by the thread that commits: to ring a bell, no more.
        self.commit_listeners: tuple[Callable[[], None], ...] = ()
        self.checkpoint_count = 0
        self.checkpoint_failure_count = 0
        # Names of parts in which a rollback has left blocks that a checkpoint gives back.
        self._rolled_back: set[str] = set()
        # An insert failed: its blocks are lost until the file is opened again (`PartFiles`).
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
        self.sealed.close()

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
        # The system caches files too; with both, rollups took 5 % more CPU and 11 MB.
        cursor.execute("SET GLOBAL enable_external_file_cache = false")
        manifest = self.sealed.read()
        self.ledger.rise(marks_of(self.sealed.parts.values()))
        self.uploads_directory.mkdir(mode=0o700, exist_ok=True)
        known = newest_number(manifest, self.uploads_directory, self.sealed.directory)
        self.parts.attach_all(cursor, self.sealed.parts, known)
        self._rolled_back.clear()
        self.ledger.rise(read_ledger(cursor, [part.name for part in self.parts.parts]))
        numbers, sealed = [part.number for part in self.parts.parts], self.sealed.all_files()
        self.doubled_parts = doubled_parts(cursor, numbers, sealed, self.sealed.directory)
        for number in self.doubled_parts:
            self.parts.leave_out(cursor, number)
        self.rollup_file.attach(cursor)
        newest = max((part.number for part in self.parts.parts), default=0)
        rolled_up = self.rollup_file.commit_number(cursor)
        seen = max(manifest.evaluated.commit_number, rolled_up, self._commit_mark.read())
        numbers = [part.number for part in self.parts.parts]
        parts, told = self.sealed.parts.values(), self.sealed.lost
        for low, high, number in cut_ledgers(cursor, numbers, parts, told):
            self.sealed.note_lost(low, high, number)
        is_lost = newest < known or seen > self.ledger.commit_number
        if is_lost:
            low = self.ledger.commit_number
            self.sealed.note_lost(low, low + LEAP, newest)
            self.ledger.leap(LEAP)
        if is_lost or not newest:
            number = max(newest, known) + 1
            marks = self.ledger.carry(), self.ledger.commit_number
            self.parts.append(self.parts.create(cursor, *marks, number=number))
        self.sealed.note_part(self.parts.newest.number)
        self.evaluated_seq = manifest.evaluated.seq
        self._look_at_uploads()

    def _look_at_uploads(self) -> None:
        """Which files are listed and cannot be read, and which are kept though nobody lists them;
        others are removed.
        """
        directory, parts, sealed = self.uploads_directory, self.parts.parts, self.sealed
        listed = {name for part in parts for name in part.upload_files}
        retired = {path.removeprefix("uploads/") for path in sealed.retired_paths}
        attached = [part.number for part in parts]
        self.kept_files = kept_files(
            directory, listed | retired, attached=attached, sealed=sealed.parts, lost=sealed.lost
        )
        spared = retired.union(self.kept_files) - listed
        unreadable = set(remove_unlisted(directory, listed, spared))
        for part in parts:
            part.unreadable_files = tuple(name for name in part.upload_files if name in unreadable)
        there = [*attached, *self.doubled_parts]
        self.missing_parts = missing_numbers(there, sealed.parts, self.parts.newest.number)

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
        with self.database.lease() as lease, lease.using() as cursor:
            for part in self.parts.parts:
                with self._gate:
                    self._maybe_write_mark(cursor, part)
                if not part.wal_bytes():
                    continue
                if not self._checkpoint_part(cursor, part):
                    return False  # a writer came in between
        if self._has_leaked and not self._open_transactions:
            self._has_leaked = False
            self.recover(self.database.generation)
        return True

    def checkpoint_rotated(self) -> None:
        """Checkpoint rotated parts into which nothing is written any more, beside other writers.

        What is only in a WAL stays in memory, a block at least for each column of a part: parts
        of 3,000 rows took 11 MB each, now 0.8 (measured 2026-11-21).

        Raises StoreBroken when it fails: the part is then invalid until `recover`.
        """
        waiting = [part for part in self.parts_to_seal() if part.wal_bytes()]
        if not waiting:
            return
        with self.database.lease() as lease, lease.using() as cursor:
            for part in waiting:
                self._checkpoint_part(cursor, part)

    def _checkpoint_part(self, cursor: Cursor, part: Part) -> bool:
        """False when writers are in the way. No commit gets in between; only the copying, which
        waits for the disk, is done beside them: it is of what the last checkpoint has written.
        """
        with self._checkpoint_turn:
            keep_metadata(cursor, part.name, part.path)
            with self._gate:
                return self._checkpoint_behind_gate(cursor, part)

    def _checkpoint_behind_gate(self, cursor: Cursor, part: Part) -> bool:
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
        with self.database.lease() as lease, lease.using() as cursor:
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
                self.sealed.note_part(part.number)
            except BaseException:
                if self.sealed.is_certain_not_noted(part.number):
                    self.parts.discard(cursor, part)
                else:  # noted at the next start perhaps, which would miss it
                    self.parts.append(part)
                raise
            self.parts.append(part)

    def free_bytes(self) -> int:
        return shutil.disk_usage(self.parts.directory).free

    def statistics(self) -> dict[str, int]:
        newest = self.parts.newest
        return {
            "parts": len(self.parts.parts),
            "sealed_files": len(self.sealed.all_files()),
            "sealed_file_bytes": sum(file.byte_count for file in self.sealed.all_files()),
            "sealed_parts_total": len(self.sealed.parts),
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
        """What there is to read now. Waits for the commit or the checkpoint under way."""
        with self._gate:
            return self._snapshot()

    @contextmanager
    def hold(self) -> Iterator[Held]:
        """A snapshot; nothing of what it names goes until the end."""
        held = self.take_hold()
        try:
            yield held
        finally:
            self.holds.leave(held.epoch)

    def take_hold(self) -> Held:
        """The same, until `holds.leave(held.epoch)`."""
        with self._gate:
            return Held(self.holds.enter(), self._snapshot(), self.parts.parts)

    def _snapshot(self) -> Snapshot:
        return Snapshot(
            self.ledger.commit_number,
            tuple(part.name for part in self.parts.parts),
            files_by_table(self.parts.parts, self.uploads_directory),
            self.sealed.directory,
            self.sealed.files,
            self.sealed.parts,
        )

    def parts_to_seal(self) -> list[Part]:
        """Rotated parts into which nothing is written any more, oldest first."""
        with self._count_lock:
            rotated = self.parts.parts[:-1]
            return [part for part in rotated if not self._transactions_in[part.number]]

    def publish_sealed(
        self,
        *,
        added: Sequence[SealedFile] = (),
        part: SealedPart | None = None,
        dropped: Sequence[SealedFile] = (),
        paths: Sequence[str] = (),
    ) -> None:
        """Change the manifest, and what readers find: all of it or nothing, at one moment. `part`
        is read no more, nor are the files `dropped`; `paths`: what else goes with them, below the
        data folder.

        Raises StoreBusy or StoreBroken (nothing has changed), StoreFailed.
        """
        number = None if part is None else part.part_number
        # The cursor runs nothing: while it is in use the store is not opened again, which would
        # read the manifest and the parts beside this.
        with self.database.lease() as lease, lease.using(), self._gate:
            self.sealed.swap(added=added, part=part, dropped=dropped, paths=paths)
            if number is not None:
                self.parts.forget(number)
            self.sealed.retire(dropped=dropped, paths=paths, part_number=number)

    def stored_bytes(self) -> int:
        """Of the parts, their upload files, and the sealed files."""
        open_bytes = sum(
            part.file_bytes() + part.wal_bytes() + part.upload_bytes for part in self.parts.parts
        )
        return open_bytes + sum(file.byte_count for file in self.sealed.all_files())

    def remove_unread(self) -> int:
        """Remove parts and files that were replaced and that nobody reads; bytes given back."""
        freed_bytes = 0
        numbers = self.sealed.parts_to_detach()
        for number in numbers:
            with self.database.lease() as lease, lease.using() as cursor:
                freed_bytes += self.parts.remove(cursor, number)
        return freed_bytes + self.sealed.unlink_unread(numbers)

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
            first_number = self.ledger.take_commit_numbers(len(batches))
            write_applied(cursor, part.name, batches, first_number)
            if not part.is_wide and self._makes_wide(part, pinned):
                write_applied(cursor, part.name, [AppliedBatch(0, "wide", 0, 0, 0, 0)], 0)
            cursor.execute("COMMIT")
            self._note_applied(part, batches, first_number + len(batches) - 1, pinned)
            if upload is not None:
                self._publish(part.name, upload)

    def _publish(self, part_name: str, upload: UploadFile) -> None:
        """Show the rows of a committed upload file. Called with the commit gate held."""
        part = next(part for part in self.parts.parts if part.name == part_name)
        if upload.path.name in part.upload_files:
            return  # the store was opened again meanwhile, and has read its list
        part.upload_files = (*part.upload_files, upload.path.name)
        part.upload_bytes += upload.byte_count

    def _note_applied(
        self,
        part: Part,
        batches: Sequence[AppliedBatch],
        last_number: int,
        pinned: Mapping[str, PinnedRows],
    ) -> None:
        self.ledger.applied(batches, last_number)
        self._commit_mark.write(self.ledger.commit_number)
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

    def _enter_newest(self) -> Part:
        """The part that a transaction begins in, which is not sealed until it has left."""
        with self._count_lock:
            self._open_transactions += 1
            part = self.parts.newest
            self._transactions_in[part.number] += 1
            return part

    def _leave(self, part: Part) -> None:
        with self._count_lock:
            self._open_transactions -= 1
            self._transactions_in[part.number] -= 1
            if not self._transactions_in[part.number]:
                del self._transactions_in[part.number]

    def _maybe_applied(self, part: Part, batch: AppliedBatch, error: StoreError) -> int | None:
        """Read the ledger after a COMMIT that raised `error`: the number of the batch, if it is
        there.

        Raises StoreFailed when it cannot be read: "busy" would say that nothing was stored.
        """
        gives_up_at = time.monotonic() + _FIND_OUT_S
        while True:
            try:
                if isinstance(error, StoreBroken):
                    self.recover(error.generation)
                with self.database.lease() as lease, lease.using() as cursor:
                    return maybe_commit_number(cursor, part.name, batch.batch_id)
            except StoreBusy as busy:
                error = busy
                if time.monotonic() > gives_up_at:
                    raise StoreFailed(f"the ledger cannot be read: {busy}") from busy
                time.sleep(_FIND_OUT_EVERY_S)
            except StoreFailed:
                raise
            except StoreError as other:
                raise StoreFailed(f"the ledger cannot be read: {other}") from other
