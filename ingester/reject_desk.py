"""The desk of rejects: what the management routes ask for, over a running process.

Used in worker threads: reading the store blocks, and a replay goes back to the event loop, where
the journal is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import trio

from .doors.replay import Replayer
from .messages import ReplayOutcome
from .store.database import StoreBroken
from .store.reject_rows import (
    RejectCount,
    RejectFilter,
    RejectKey,
    RejectPage,
    StoredReject,
    count_rejects,
    find_rejects,
    reject_page,
)
from .store.store import Store

__all__ = ["StoreDesk"]

# Queries at once: DuckDB is the loader's too.
_QUERIES_MAX = 2

T = TypeVar("T")


class StoreDesk:
    """Implements `management.calls.RejectDesk`. Without a replayer it only reads: what an earlier
    process has left open stays so.
    """

    def __init__(self, store: Store, replayer: Replayer | None) -> None:
        self._store = store
        self._replayer = replayer
        self._turns = threading.BoundedSemaphore(_QUERIES_MAX)

    @property
    def can_replay(self) -> bool:
        return self._replayer is not None

    def page(
        self,
        wanted: RejectFilter,
        *,
        limit: int,
        after: RejectKey | None,
        oldest_first: bool = False,
    ) -> RejectPage:
        return self._read(
            lambda: reject_page(
                self._store, wanted, limit=limit, after=after, oldest_first=oldest_first
            )
        )

    def find(self, keys: Sequence[RejectKey]) -> list[StoredReject]:
        return self._read(lambda: find_rejects(self._store, keys))

    def counts(self, wanted: RejectFilter) -> list[RejectCount]:
        return self._read(lambda: count_rejects(self._store, wanted))

    def replay(
        self,
        rejects: Sequence[StoredReject],
        edits: Mapping[str, bytes],
        *,
        dry_run: bool,
        actor: str,
    ) -> list[ReplayOutcome]:
        replayer = self._replayer
        assert replayer is not None

        async def replay() -> list[ReplayOutcome]:
            return await replayer.replay(rejects, edits, dry_run=dry_run, actor=actor)

        return trio.from_thread.run(replay)

    def _read(self, read: Callable[[], T]) -> T:
        """One that finds the store broken opens it again for the next who asks."""
        if self._replayer is not None:
            trio.from_thread.run(self._replayer.settle)
        with self._turns:
            try:
                return read()
            except StoreBroken as error:
                self._store.recover(error.generation)
                raise
