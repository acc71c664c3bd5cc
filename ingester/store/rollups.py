"""Rollups: what becomes of committed batches, step by step behind a cursor.

A step takes the batches behind the cursor, up to so many rows, computes what they add, and commits
that together with the new cursor, in one transaction on `rollups.duckdb`. A crash loses nothing and
does nothing twice: the cursor that is stored tells where to go on.

1. At any moment rollups and the rows behind the cursor are together a recount of all rows.
2. The cursor is the number of a commit that was made (`ledger.py`); what was committed behind the
   gate up to a snapshot is all there (`relations.py`).
3. One step, merge, rebuild or removal at a time (`_turn`); who wants an answer that is complete
   may do the steps itself (`catch_up`).
4. Merging does not hold up steps: it goes over a table in pieces, each a transaction of its own,
   and what was appended meanwhile is moved over at the end.

Everything blocks. Errors are those of the store: StoreBusy, StoreBroken (recover), StoreError.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta

import duckdb
from msgspec import Struct

from ..errors import StoreError
from .database import Cursor, StoreOutOfMemory
from .relations import Snapshot
from .rollup_batches import Batch, ledger_batches, pieces, rows_of_batches, stored_batches
from .rollup_file import RollupFile
from .rollup_schema import BUCKET_TABLES, TABLES
from .rollup_step import StepTables, add_events, add_logs, add_metrics, read_events
from .store import Store

__all__ = ["READER", "Rollups", "Step"]

# Under which name `store.cursors` knows us.
READER = "rollups"

# Rows of a step: bounds its memory and how long it takes. Small steps cost 2 to 19 % more CPU, and
# the process peaks 15 MB lower: for when memory is short, or somebody waits (measured 2026-11-22).
_STEP_ROWS_MAX = 262_144
_SMALL_STEP_ROWS_MAX = 131_072
_STEP_BATCHES_MAX = 4_096
# What a table may hold unmerged, or as much again as it holds merged, whichever is more. Adding up
# half a million rows takes 20 ms.
_UNMERGED_ROWS_MAX = 524_288
# A piece of a merge; it bounds memory, and how long a step waits for it.
_MERGE_ROWS_MAX = 262_144
# What was appended since the last one is held in memory: after a million events 263 MB with 8 MiB
# here, 320 without a checkpoint (measured 2026-11-21).
_CHECKPOINT_BYTES = 8 * 1024 * 1024
# Before any bucket. Not "is finite": from the statistics of a file that was checkpointed and
# attached again DuckDB 1.5.6 answers max('-infinity') with a day in 290309 BC, and stored it is.
_LONG_AGO = "-infinity"
_IS_SET = "horizon > TIMESTAMP '0001-01-01'"

_EVENT_COLUMNS = ("source", "account_id", "user_id", "created_at", "action", "session_id", "body")
_LOG_COLUMNS = ("time", "service", "environment", "level")
_METRIC_COLUMNS = ("time", "project_id", "metric_id", "metric_name", "unit", "value")


class Step(Struct, frozen=True):
    """What a step did: rows it took, and rows that wait behind it."""

    row_count: int
    waiting_row_count: int


class _Progress(Struct, frozen=True):
    commit_number: int
    committed_at: datetime | None
    horizon: str


class _Merge(Struct):
    """A merge under way: rows before `row_count` go by `pieces`, conditions, into `target`."""

    table: str
    generation: int
    target: str
    row_count: int
    pieces: deque[str]
    attached_count: int


class Rollups:
    """Of one store, which is open. Every method blocks; safe from several threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._file: RollupFile = store.rollup_file
        self._turn = threading.Lock()
        self._merge: _Merge | None = None
        self._step_rows_max = _STEP_ROWS_MAX
        # Commits that were seen and are not in yet, with their time: what the lag is told from.
        self._seen: deque[tuple[int, float]] = deque(maxlen=100_000)
        self.commit_number = 0
        self.committed_at: datetime | None = None
        self.waiting_row_count = 0
        self._is_rebuild_due = False
        self.step_count = self.row_count = self.merge_count = self.step_failure_count = 0
        self.step_seconds = self.merge_seconds = 0.0
        with self._turn, self._using() as cursor:
            self._take(self._progress(cursor))
            self._is_rebuild_due = self._misses_commits(cursor)

    def note_commit(self) -> None:
        """Called behind the commit gate."""
        self._seen.append((self._store.ledger.commit_number, time.monotonic()))

    def step(self, *, is_small: bool = False) -> Step:
        """Take in what was committed, up to a bound; or all, when rollups must be made anew."""
        if self._is_rebuild_due:
            return Step(self.rebuild(), 0)
        with self._turn:
            return self._step_counted(_SMALL_STEP_ROWS_MAX if is_small else _STEP_ROWS_MAX)

    def catch_up(self, *, gives_up_at: float) -> datetime:
        """Take in all that is committed now, as long as there is time (`time.monotonic`). Until
        when the rollups are then complete.
        """
        if self._is_rebuild_due:  # that takes longer than anybody who asks may wait
            return self.complete_up_to
        asked_at = datetime.now(UTC)
        wanted = self._store.snapshot().commit_number
        while self.commit_number < wanted:
            left_s = gives_up_at - time.monotonic()
            if left_s <= 0 or not self._turn.acquire(timeout=left_s):
                break
            try:
                step = self._step_counted(_SMALL_STEP_ROWS_MAX)
            finally:
                self._turn.release()
            if not step.row_count and not step.waiting_row_count:
                # The ledger of the last commit may be sealed: it ended in a part behind the next.
                return asked_at
        return asked_at if self.commit_number >= wanted else self.complete_up_to

    @property
    def complete_up_to(self) -> datetime:
        """When the last commit that is in was begun."""
        at = self.committed_at
        return datetime.min.replace(tzinfo=UTC) if at is None else at.replace(tzinfo=UTC)

    def maybe_merge(self) -> bool:
        """A piece of the merge under way, or of the one that is due; False when none is."""
        with self._turn:
            began = time.monotonic()
            try:
                with self._using() as cursor:
                    if self._merge is None:
                        self._merge = self._maybe_begin_merge(cursor)
                    if self._merge is None:
                        return False
                    self._merge_piece(cursor, self._merge)
            except StoreError:
                # Half of a generation is removed at the next attaching, or written over.
                self._merge = None
                raise
            finally:
                self.merge_seconds += time.monotonic() - began
            return True

    def maybe_checkpoint(self, *, bytes_min: int = _CHECKPOINT_BYTES) -> bool:
        """When the WAL has at least so many bytes, and there is room for what it holds."""
        wal_bytes = self._file.wal_bytes()
        if not wal_bytes or wal_bytes < bytes_min or self._store.free_bytes() < wal_bytes:
            return False
        # Somebody may be reading: later.
        with self._turn, self._using() as cursor, suppress(duckdb.TransactionException):
            self._file.checkpoint(cursor)
        return True

    def purge(self, days: int, *, now: datetime | None = None) -> int:
        """Remove buckets that are older than so many whole days; how many rows went. What comes for
        them later is not taken in either.
        """
        now = now or datetime.now(UTC)
        day = now.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
        horizon = day - timedelta(days=days)
        with self._turn, self._using() as cursor:
            self._merge = None
            literal = f"TIMESTAMP '{horizon.isoformat(sep=' ')}'"
            names = self._file.names()
            counts: dict[str, int] = {}
            for table in BUCKET_TABLES:
                ((count,),) = cursor.execute(
                    f"SELECT count(*) FROM {names[table]} WHERE bucket < {literal}"
                ).fetchall()
                if count:
                    counts[table] = count
            if not counts:
                return 0
            numbers = {table: self._file.generations[table] + 1 for table in counts}
            with self._transaction(cursor):
                for table, number in numbers.items():
                    target = self._file.create(cursor, table, number)
                    order = TABLES[table].order
                    cursor.execute(
                        f"INSERT INTO {target} SELECT * FROM {names[table]} "
                        f"WHERE bucket >= {literal} ORDER BY {order}"
                    )
                progress = self._progress(cursor)
                cursor.execute(
                    f"INSERT INTO {names['progress']} VALUES (?, ?, {literal})",
                    [progress.commit_number, progress.committed_at],
                )
                self._file.name_generations(cursor, numbers)
            self._file.switch(cursor, numbers)
            return sum(counts.values())

    def rebuild(self) -> int:
        """Make everything anew from the rows that are stored; how many there were. Meanwhile the
        old sums are read; they are replaced at once.
        """
        with self._turn, self._store.hold() as held, self._using() as cursor:
            self._merge = None
            snapshot = held.snapshot
            horizon = self._progress(cursor).horizon
            numbers = {table: number + 1 for table, number in self._file.generations.items()}
            with self._transaction(cursor):
                names = {table: self._file.create(cursor, table, n) for table, n in numbers.items()}
            tables = StepTables(names=names, salt=self._file.salt, horizon=horizon)
            later = ledger_batches(cursor, snapshot.parts, snapshot.commit_number, 2**62)
            row_count = 0
            excluded = [batch.batch_id for batch in later if not batch.is_mark]
            for ids in stored_batches(cursor, snapshot, excluded, rows_max=_SMALL_STEP_ROWS_MAX):
                has_events = _read(cursor, snapshot, ids)
                with self._transaction(cursor):
                    _add(cursor, snapshot, ids, tables, has_events=has_events)
                row_count += sum(ids.values())
            last = ledger_batches(cursor, snapshot.parts, 0, snapshot.commit_number)[-1:]
            with self._transaction(cursor):
                for batch in last:
                    _write_progress(cursor, tables, batch)
                self._file.name_generations(cursor, numbers)
            self._file.switch(cursor, numbers)
            self.commit_number, self.committed_at = 0, None
            self._take(self._progress(cursor))
            self._is_rebuild_due = False
            return row_count

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Nothing is appended meanwhile."""
        with self._turn:
            yield

    def horizon(self, cursor: Cursor) -> datetime | None:
        """Since when buckets are kept; None: all of them."""
        ((found,),) = cursor.execute(
            f"SELECT max(horizon) FILTER ({_IS_SET}) FROM {self._file.names()['progress']}"
        ).fetchall()
        assert found is None or isinstance(found, datetime)
        return found

    def lag_seconds(self) -> float:
        """For how long the oldest commit that is not in has waited."""
        while self._seen and self._seen[0][0] <= self.commit_number:
            self._seen.popleft()
        return time.monotonic() - self._seen[0][1] if self._seen else 0.0

    def statistics(self) -> dict[str, float]:
        """A snapshot; `lag_rows` as of the last step."""
        return {
            "cursor": self.commit_number,
            "lag_commits": max(0, self._store.ledger.commit_number - self.commit_number),
            "lag_rows": self.waiting_row_count,
            "lag_seconds": self.lag_seconds(),
            "steps_total": self.step_count,
            "step_failures_total": self.step_failure_count,
            "step_seconds_total": self.step_seconds,
            "rows_total": self.row_count,
            "merges_total": self.merge_count,
            "merge_seconds_total": self.merge_seconds,
            "file_bytes": self._file.file_bytes(),
            "wal_bytes": self._file.wal_bytes(),
        }

    def _misses_commits(self, cursor: Cursor) -> bool:
        """Whether steps cannot make good what is missing or too much: rollups hold commits that
        were lost since (or are those of another folder), or commits behind the cursor were in parts
        that are sealed, so that the ledger does not list them any more (a new file, or one put back
        from before).
        """
        oldest = self._store.parts.parts[0].name
        ((carried,),) = cursor.execute(
            f"SELECT coalesce(min(commit_number), 0) FROM {oldest}.applied WHERE lane = 'carry'"
        ).fetchall()
        last = self._store.ledger.commit_number
        holds_lost = any(
            lost.low < self.commit_number < lost.high for lost in self._store.sealed.lost
        )
        return self.commit_number > last or self.commit_number < int(carried) or holds_lost

    def _step_counted(self, rows_max: int) -> Step:
        began = time.monotonic()
        try:
            step = self._step(min(rows_max, self._step_rows_max))
        except StoreError as error:
            self.step_failure_count += 1
            if isinstance(error, StoreOutOfMemory):
                self._step_rows_max = max(1, min(rows_max, self._step_rows_max) // 2)
            raise
        if step.row_count:
            self.step_count += 1
            self.row_count += step.row_count
            self.step_seconds += time.monotonic() - began
        return step

    def _step(self, rows_max: int) -> Step:
        with self._store.hold() as held, self._using() as cursor:
            snapshot = held.snapshot
            progress = self._progress(cursor)
            waiting = ledger_batches(
                cursor, snapshot.parts, progress.commit_number, snapshot.commit_number
            )
            taken: list[Batch] = []
            row_count = 0
            for batch in waiting[:_STEP_BATCHES_MAX]:
                if taken and row_count + batch.row_count > rows_max:
                    break
                taken.append(batch)
                row_count += batch.row_count
            if taken:
                tables = StepTables(
                    names=self._file.names(), salt=self._file.salt, horizon=progress.horizon
                )
                ids = {batch.batch_id: batch.row_count for batch in taken if batch.row_count}
                has_events = _read(cursor, snapshot, ids)
                with self._transaction(cursor):
                    _add(cursor, snapshot, ids, tables, has_events=has_events)
                    _write_progress(cursor, tables, taken[-1])
                self._take(
                    _Progress(taken[-1].commit_number, taken[-1].committed_at, progress.horizon)
                )
        self.waiting_row_count = sum(batch.row_count for batch in waiting[len(taken) :])
        # A bound that was lowered for want of memory rises again.
        self._step_rows_max = min(_STEP_ROWS_MAX, self._step_rows_max * 2)
        return Step(row_count, self.waiting_row_count)

    def _take(self, progress: _Progress) -> None:
        """Told to others once it is stored."""
        self.commit_number, self.committed_at = progress.commit_number, progress.committed_at
        self._store.cursors.move(READER, self.commit_number)

    def _progress(self, cursor: Cursor) -> _Progress:
        ((number, at, horizon),) = cursor.execute(
            "SELECT coalesce(max(commit_number), 0), max(committed_at), "
            f"coalesce(max(horizon) FILTER ({_IS_SET}), '{_LONG_AGO}'::TIMESTAMP)::VARCHAR "
            f"FROM {self._file.names()['progress']}"
        ).fetchall()
        return _Progress(number, at, f"TIMESTAMP '{horizon}'")

    def _maybe_begin_merge(self, cursor: Cursor) -> _Merge | None:
        names = self._file.names()
        for table, about in TABLES.items():
            if about.merged is None:
                continue
            ((count,),) = cursor.execute(f"SELECT count(*) FROM {names[table]}").fetchall()
            merged_rows = self._file.merged_rows[table]
            if count - merged_rows < max(_UNMERGED_ROWS_MAX, merged_rows):
                continue
            generation = self._file.generations[table] + 1
            target = self._file.create(cursor, table, generation)
            try:
                self._file.checkpoint(cursor)
            except duckdb.TransactionException as error:
                if "Cannot CHECKPOINT" not in str(error):
                    raise
                return None  # somebody is in the way: the merge begins with a later step
            found = deque(pieces(cursor, names[table], about, count, rows_max=_MERGE_ROWS_MAX))
            return _Merge(table, generation, target, count, found, self._file.attached_count)
        return None

    def _merge_piece(self, cursor: Cursor, merge: _Merge) -> None:
        if merge.attached_count != self._file.attached_count:
            self._merge = None  # the store was opened again, and has removed what was there
            return
        name = self._file.names()[merge.table]
        about = TABLES[merge.table]
        assert about.merged is not None
        if merge.pieces:
            condition = merge.pieces[0]
            rows = f"(SELECT * FROM {name} WHERE rowid < {merge.row_count} AND {condition})"
            order = f" ORDER BY {about.order}" if about.order else ""
            with self._transaction(cursor):
                cursor.execute(
                    f"INSERT INTO {merge.target} {about.merged.format(rows=rows)}{order}"
                )
            merge.pieces.popleft()
            return
        numbers = {merge.table: merge.generation}
        with self._transaction(cursor):
            self._file.name_generations(cursor, numbers)
            cursor.execute(
                f"INSERT INTO {merge.target} SELECT * FROM {name} WHERE rowid >= {merge.row_count}"
            )
        self._file.switch(cursor, numbers)
        self._merge = None
        self.merge_count += 1

    @contextmanager
    def _using(self) -> Iterator[Cursor]:
        with self._store.database.lease() as lease, lease.using() as cursor:
            yield cursor

    @contextmanager
    def _transaction(self, cursor: Cursor) -> Iterator[None]:
        """What fails is rolled back; of a COMMIT that fails the stored cursor tells what it did."""
        cursor.execute("BEGIN")
        try:
            yield
            cursor.execute("COMMIT")
        except BaseException:
            with suppress(duckdb.Error):
                cursor.execute("ROLLBACK")
            raise


def _read(cursor: Cursor, snapshot: Snapshot, ids: dict[int, int]) -> bool:
    """Before the transaction; whether there are events among the rows."""
    if not ids:
        return False
    return read_events(cursor, rows_of_batches(snapshot, "events", _EVENT_COLUMNS, sorted(ids)))


def _add(
    cursor: Cursor,
    snapshot: Snapshot,
    ids: dict[int, int],
    tables: StepTables,
    *,
    has_events: bool,
) -> None:
    if has_events:
        add_events(cursor, tables)
    if not ids:
        return
    listed = sorted(ids)
    add_logs(cursor, rows_of_batches(snapshot, "logs", _LOG_COLUMNS, listed), tables)
    add_metrics(cursor, rows_of_batches(snapshot, "metrics", _METRIC_COLUMNS, listed), tables)


def _write_progress(cursor: Cursor, tables: StepTables, batch: Batch) -> None:
    cursor.execute(
        f"INSERT INTO {tables['progress']} VALUES (?, ?, {tables.horizon})",
        [batch.commit_number, batch.committed_at],
    )
