"""The DuckDB instance: one per process, cursors by generation, two kinds of failure.

Why it exists: DuckDB fails in two ways, and both must end in "go on", not in a lost row.
A failed checkpoint invalidates one attached file; a failed sync or any FATAL error invalidates the
whole instance. Either way every cursor is handed back, the file is attached (or the instance made)
again, and callers read the ledger to learn what became of their transaction.

Invariants
1. Every use of DuckDB is inside `Lease.using()`; `reopen` interrupts what is in use, waits, and
   closes every cursor, because one live one keeps the instance from being reopened.
2. `generation` rises with every reopening; an error carries the generation it was seen in, so that
   of several threads that saw the same failure only the first reopens, and the others wait for it.
3. What is waited for: `lease` and `reopen` wait for a reopening, a reopening waits for cursors in
   use. So neither is called by a thread inside `using()`.
4. An instance that could not be opened again stays closed, and `lease` raises StoreBroken until a
   reopening works: whoever comes tries.
5. No other code in the package imports duckdb's errors: `mapped_errors` turns them into ours.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeAlias

import duckdb

from ..config import StoreConfig
from ..errors import StoreBusy, StoreError, StoreFailed
from .holds import Holds

__all__ = [
    "Cursor",
    "Database",
    "Lease",
    "StoreBroken",
    "StoreOutOfMemory",
    "mapped_errors",
]

Cursor: TypeAlias = duckdb.DuckDBPyConnection

# How long `reopen` waits for interrupted cursors. An interrupt takes 1–500 ms on what the server
# itself runs (reliability facts, 3.3).
_REOPEN_WAIT_S = 30.0
# An interrupt is lost on a cursor between two statements, so it is repeated.
_INTERRUPT_EVERY_S = 0.1
# Times in a row that opening again may fail (space, memory, a moment's trouble with the disk)
# before it counts as lost.
_REOPEN_FAILURES_MAX = 20


class StoreBroken(StoreBusy):
    """The instance or a part of it is invalid; call `reopen(generation)` with no lease held."""

    def __init__(self, detail: str, generation: int) -> None:
        super().__init__(detail)
        self.generation = generation


class StoreOutOfMemory(StoreBusy):
    """Not within `memory_bytes_max`: a smaller piece of the same may pass."""


@contextmanager
def mapped_errors(generation: int) -> Iterator[None]:
    """Raise our errors for DuckDB's.

    StoreBroken: must be reopened. StoreBusy: no space, memory or an interrupt; may be tried again.
    StoreError: the statement or its data is at fault.
    """
    try:
        yield
    except (duckdb.FatalException, duckdb.InternalException) as error:
        raise StoreBroken(str(error), generation) from error
    except duckdb.InterruptException as error:
        raise StoreBusy("interrupted") from error
    except duckdb.OutOfMemoryException as error:
        raise StoreOutOfMemory(_first_line(error)) from error
    except (duckdb.IOException, duckdb.TransactionException) as error:
        if "invalidated" in str(error):
            raise StoreBroken(str(error), generation) from error
        if "failed to pin block" in str(error):  # out of memory, told by a COMMIT
            raise StoreOutOfMemory(_first_line(error)) from error
        raise StoreBusy(_first_line(error)) from error
    except duckdb.ConnectionException as error:
        raise StoreBroken(_first_line(error), generation) from error
    except duckdb.Error as error:
        if "invalidated" in str(error):
            raise StoreBroken(str(error), generation) from error
        raise StoreError(_first_line(error)) from error


class Lease:
    """A cursor for one holder. Every use of it happens inside `using()`.

    Held for as long as a transaction lives; only while in use does it keep the instance from
    being reopened. After a reopening it is dead: `using()` raises StoreBroken with the old
    generation.
    """

    def __init__(self, database: Database, cursor: Cursor, generation: int) -> None:
        self._database = database
        self._cursor = cursor
        self.generation = generation
        self.is_in_use = False
        self.epoch = 0

    @contextmanager
    def using(self) -> Iterator[Cursor]:
        """The cursor, with DuckDB's errors mapped."""
        self._database._enter(self)
        try:
            with mapped_errors(self.generation):
                yield self._cursor
        finally:
            self._database._leave(self)

    def interrupt(self) -> None:
        """Stop what the holder is executing; called from another thread."""
        with suppress(duckdb.Error):  # it may have been closed meanwhile
            self._cursor.interrupt()

    def close(self) -> None:
        self._database._forget(self)

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Database:
    """One in-memory instance to which the parts are attached."""

    def __init__(
        self,
        config: StoreConfig,
        temp_directory: Path,
        attach: Callable[[Cursor], None],
        holds: Holds | None = None,
    ) -> None:
        self._config = config
        # Whoever uses a cursor may read what is published then until the use ends.
        self._holds = holds or Holds()
        self._temp_directory = temp_directory
        self._attach = attach
        self._idle = threading.Condition()
        self._leases: set[Lease] = set()
        self._is_reopening = False
        self._is_closed = False
        self._failures_in_a_row = 0
        self._root: Cursor | None = None
        self.generation = 0
        self.reopened_count = 0

    def open(self) -> None:
        """Make the instance and attach the parts. Raises StoreFailed."""
        assert self._root is None
        try:
            self._open()
        except StoreError as error:
            raise StoreFailed(f"cannot open the store: {error}") from error

    def lease(self) -> Lease:
        """A cursor of its own. Raises StoreBroken when the last reopening failed."""
        with self._idle:
            self._idle.wait_for(lambda: not self._is_reopening)
            if self._is_closed:
                raise StoreBusy("the store is closed")
            if self._root is None:
                raise StoreBroken("the store could not be reopened", self.generation)
            with mapped_errors(self.generation):
                lease = Lease(self, self._root.cursor(), self.generation)
            self._leases.add(lease)
            return lease

    def reopen(self, generation: int) -> None:
        """Close everything and open again, unless another thread already did.

        Raises StoreBusy when cursors in use do not come back in time or the instance cannot be
        opened now, StoreFailed when it cannot be opened at all.
        """
        with self._idle:
            self._idle.wait_for(lambda: not self._is_reopening)
            if generation != self.generation or self._is_closed:
                return
            self._is_reopening = True
            try:
                self._close_all()
                self._reopen()
            finally:
                self._is_reopening = False
                self._idle.notify_all()

    def interrupt(self) -> None:
        """Stop whatever is being executed; its callers see StoreBusy."""
        with self._idle:
            for lease in self._leases:
                if lease.is_in_use:
                    lease.interrupt()

    def close(self) -> None:
        """Raises StoreBusy when cursors in use do not come back in time."""
        with self._idle:
            self._idle.wait_for(lambda: not self._is_reopening)
            self._is_closed = True
            self._close_all()

    def _open(self) -> None:
        with mapped_errors(self.generation):
            root = duckdb.connect(":memory:", config=self._settings())
            try:
                # Nor at a DETACH or the end: no copy would be taken before (`metadata_copy.py`).
                root.execute("PRAGMA disable_checkpoint_on_shutdown")
                self._attach(root)
            except OSError as error:  # of a file that is put in order before it is attached
                _close(root)
                raise StoreBusy(f"{error.filename or 'a file'}: {error.strerror}") from error
            except BaseException:
                _close(root)
                raise
        self._root = root

    def _reopen(self) -> None:
        try:
            self._open()
        except StoreFailed:
            raise
        except StoreError as error:
            self._failures_in_a_row += 1
            is_lost = self._failures_in_a_row >= _REOPEN_FAILURES_MAX
            if is_lost or not isinstance(error, StoreBusy):
                raise StoreFailed(f"cannot open the store: {error}") from error
            raise StoreBusy(f"cannot open the store: {error}") from error
        self._failures_in_a_row = 0
        self.generation += 1
        self.reopened_count += 1

    def _close_all(self) -> None:
        in_use = [lease for lease in self._leases if lease.is_in_use]
        gives_up_at = time.monotonic() + _REOPEN_WAIT_S
        while busy := [lease for lease in in_use if lease.is_in_use]:
            if time.monotonic() > gives_up_at:
                raise StoreBusy("cursors are still in use")
            for lease in busy:
                lease.interrupt()
            self._idle.wait(_INTERRUPT_EVERY_S)
        for lease in self._leases:
            _close(lease._cursor)
        self._leases.clear()
        if self._root is not None:
            _close(self._root)
            self._root = None

    def _enter(self, lease: Lease) -> None:
        with self._idle:
            if lease not in self._leases or self._is_reopening or self._is_closed:
                raise StoreBroken("the store was reopened", lease.generation)
            assert not lease.is_in_use, "one thread at a time"
            lease.is_in_use = True
            lease.epoch = self._holds.enter()

    def _leave(self, lease: Lease) -> None:
        with self._idle:
            lease.is_in_use = False
            self._holds.leave(lease.epoch)
            self._idle.notify_all()

    def _forget(self, lease: Lease) -> None:
        with self._idle:
            if lease in self._leases:
                self._leases.remove(lease)
                _close(lease._cursor)

    def _settings(self) -> dict[str, str | bool | int | float | list[str]]:
        return {
            "threads": self._config.threads,
            "memory_limit": f"{self._config.memory_bytes_max // 1024}KiB",
            "temp_directory": str(self._temp_directory),
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "allow_community_extensions": False,
            "python_enable_replacements": False,
            # Checkpoints are ours to time: one inside a commit stalls it.
            "checkpoint_threshold": "1TiB",
            # No merging of row groups, unless the store says so for one checkpoint (`pinned.py`).
            "max_vacuum_tasks": 0,
        }


def _close(cursor: Cursor) -> None:
    with suppress(duckdb.Error):  # an invalid instance refuses even that
        cursor.close()


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0]
