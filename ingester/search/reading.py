"""A reading: the statements of one search, on a lease of its own.

1. It ends at its deadline (`SearchTookTooLong`) and when it is cancelled, whichever is first. An
   interrupt is lost between two statements, so a watch repeats it until the reading is over.
2. Every statement reads the parts and files of one snapshot, which stay until the end, sealed or
   joined meanwhile or not; rows committed meanwhile may be seen.
3. Blocking. One thread runs it; `cancel` may be called by any.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import cast

import pyarrow as pa

from ..errors import RequestError, StoreBusy, StoreError
from ..store.database import Lease, StoreBroken, StoreOutOfMemory
from ..store.relations import Snapshot
from ..store.rollups import Rollups
from ..store.store import Store

__all__ = ["MetricWarning", "Reading", "Row", "SearchCancelled", "SearchTookTooLong", "Stop"]

Row = tuple[object, ...]

_INTERRUPT_EVERY_S = 0.05

# What an answer out of rollups may wait for the newest rows.
_CATCH_UP_S = 0.5

# Project and metric; None: nothing is odd.
MetricWarning = Callable[[str, str], str | None]

# Making rows holds the interpreter: others have a turn after each of these.
_FETCH_ROWS = 500


def _no_warning(project: str, metric_id: str) -> str | None:
    return None


class SearchTookTooLong(RequestError):
    """The deadline has passed."""

    status_hint = 408


class SearchCancelled(StoreBusy):
    """Nobody waits for the answer any more."""


class Stop:
    """The wish to end a reading, which may come before it begins."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.is_wanted = False
        self.is_over = False

    def ask(self) -> None:
        with self.changed:
            self.is_wanted = True
            self.changed.notify_all()

    def finish(self) -> None:
        with self.changed:
            self.is_over = True
            self.changed.notify_all()


class Reading:
    """What a search asks with; `Reading.open` makes one."""

    def __init__(
        self, lease: Lease, snapshot: Snapshot, now: datetime, stop: Stop, ends_at: float
    ) -> None:
        self._lease = lease
        self.snapshot = snapshot
        self.now = now
        self._stop = stop
        self._ends_at = ends_at
        self._began = time.monotonic()
        # For the cost that an answer tells.
        self.rows_scanned = 0
        self.files_read = 0
        self.rollups: Rollups | None = None
        # What is odd about the names and units of a metric, as a sentence.
        self.metric_warning: MetricWarning = _no_warning

    @classmethod
    @contextmanager
    def open(
        cls,
        store: Store,
        *,
        seconds_max: float,
        stop: Stop | None = None,
        now: datetime | None = None,
    ) -> Iterator[Reading]:
        """Raises SearchTookTooLong, SearchCancelled; StoreBusy and StoreBroken as the store."""
        stop = stop or Stop()
        ends_at = time.monotonic() + seconds_max
        with store.hold() as held, store.database.lease() as lease:
            watch = threading.Thread(target=_watch, args=(lease, stop, ends_at), daemon=True)
            watch.start()
            try:
                yield cls(lease, held.snapshot, now or datetime.now(UTC), stop, ends_at)
            except StoreBroken:
                raise
            except StoreBusy as error:
                if stop.is_wanted:
                    raise SearchCancelled("the search was cancelled") from error
                if time.monotonic() >= ends_at:
                    raise SearchTookTooLong(
                        f"the search took longer than {seconds_max:g} s; ask for a shorter range"
                    ) from error
                if isinstance(error, StoreOutOfMemory):
                    raise StoreBusy(
                        "the search needs more memory than the store has left ([store] "
                        "memory_bytes_max); ask for a shorter range or for fewer groups"
                    ) from error
                raise
            finally:
                stop.finish()
                watch.join()

    def catch_up(self) -> datetime:
        """Take in what rollups lack, as far as a moment suffices. Until when they are complete."""
        assert self.rollups is not None
        gives_up_at = min(self._ends_at, time.monotonic() + _CATCH_UP_S)
        try:
            return self.rollups.catch_up(gives_up_at=gives_up_at)
        except StoreBroken:
            raise
        except StoreError:
            # Its actor tries again; what is there is told.
            return self.rollups.complete_up_to

    def rolled_up_since(self) -> datetime | None:
        """Since when rollups keep hours and days; None: all of them."""
        assert self.rollups is not None
        with self._lease.using() as cursor:
            found = self.rollups.horizon(cursor)
        return None if found is None else found.replace(tzinfo=UTC)

    @property
    def elapsed_ms(self) -> float:
        return (time.monotonic() - self._began) * 1000

    def rows(self, sql: str, params: Sequence[object] = ()) -> list[Row]:
        """All rows of one SELECT."""
        if self._stop.is_wanted or time.monotonic() >= self._ends_at:
            raise StoreBusy("interrupted")
        with self._lease.using() as cursor:
            cursor.execute(sql, list(params))
            found: list[Row] = []
            while chunk := cursor.fetchmany(_FETCH_ROWS):
                found += cast(list[Row], chunk)
            return found

    def arrow(self, sql: str, params: Sequence[object] = ()) -> pa.Table:
        """The same as columns."""
        if self._stop.is_wanted or time.monotonic() >= self._ends_at:
            raise StoreBusy("interrupted")
        with self._lease.using() as cursor:
            return cursor.execute(sql, list(params)).to_arrow_table()


def _watch(lease: Lease, stop: Stop, ends_at: float) -> None:
    """Interrupt the lease from when the reading is to end until it has."""
    with stop.changed:
        while not stop.is_over:
            left_s = ends_at - time.monotonic()
            if left_s > 0 and not stop.is_wanted:
                stop.changed.wait(left_s)
                continue
            lease.interrupt()
            stop.changed.wait(_INTERRUPT_EVERY_S)
