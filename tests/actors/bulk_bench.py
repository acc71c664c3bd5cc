"""Workers over a real store with the door's side of an upload, for the tests of bulk workers."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import trio

from ingester.actors.bulk import worker as bulk
from ingester.actors.bulk.worker import BulkCounters, BulkWorkerContext
from ingester.doors.bulk_lane import BulkUpload
from ingester.errors import (
    IngesterError,
)
from ingester.messages import RequestRecord
from ingester.store.reader import check_parts
from ingester.store.rejects import RejectBudget
from ingester.store.store import Store

from .requests import body_of, event_line, upload_of

__all__ = ["PIECE", "Bench", "KiB", "MiB", "accepted", "cut_body", "lines"]

KiB, MiB = 1024, 1024 * 1024
PIECE = 64 * KiB


class Bench:
    """Workers over a real store, and the door's side of an upload."""

    def __init__(
        self, store: Store, *, workers: int = 1, upload_file_bytes_min: int = 1 << 40
    ) -> None:
        self.store = store
        self.workers = workers
        self.trouble_count = 0
        self.disk_error: Callable[[], None] = lambda: None
        self.counters = BulkCounters()
        self.context = BulkWorkerContext(
            store=store,
            rejects=RejectBudget(1 << 30, 0),
            counters=self.counters,
            decode_turn=trio.CapacityLimiter(1),
            insert_turns=trio.CapacityLimiter(workers),
            refuse_if_full=lambda: self.disk_error(),
            upload_file_bytes_min=upload_file_bytes_min,
            on_trouble=self._on_trouble,
        )
        self.send, self.receive = trio.open_memory_channel[BulkUpload](0)
        self._next = 0

    def _on_trouble(self) -> None:
        self.trouble_count += 1

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Workers; at the end they return by themselves and nothing is left open."""
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for _ in range(self.workers):
                    nursery.start_soon(self._worker)
                yield
                self.send.close()
        self.assert_at_rest()
        assert check_parts(self.store) == []

    async def _worker(self) -> None:
        await bulk.run(self.receive.clone(), context=self.context)

    def assert_at_rest(self) -> None:
        assert self.store.statistics()["open_transactions"] == 0
        assert not self.store.database._leases
        listed = {name for part in self.store.parts.parts for name in part.upload_files}
        assert {path.name for path in self.store.uploads_directory.iterdir()} == listed

    async def upload(
        self, body: bytes | Iterable[bytes], *, whole: bool = True, **settings: Any
    ) -> RequestRecord | IngesterError:
        """Send a body as the lane does; the outcome."""
        self._next += 1
        upload, pieces = upload_of(self._next, **settings)
        await self.send.send(upload)
        parts = cut_body(body) if isinstance(body, bytes) else body
        with contextlib.suppress(trio.BrokenResourceError), pieces:
            for part in parts:
                await pieces.send(part)
            if whole:
                await pieces.send(b"")
        await upload.done.wait()
        assert upload.outcome is not None
        return upload.outcome


def cut_body(body: bytes) -> Iterable[bytes]:
    return [body[start : start + PIECE] for start in range(0, len(body), PIECE)]


def lines(count: int, size: int = 0) -> bytes:
    return body_of([event_line(number, size) for number in range(count)])


def accepted(outcome: RequestRecord | IngesterError) -> int:
    assert isinstance(outcome, RequestRecord), outcome
    return outcome.accepted
