"""Bulk workers: one upload each, streamed through inflate, decode and insert into a transaction.

Why it exists: a bulk body does not fit in memory and needs no journal: its own DuckDB commit is
its durability. `bulk_uploads_max` workers take uploads from a channel of capacity 0; an upload
that finds no worker waits there, and its socket is not read.

Per upload two stages overlap: decode (`decode.py`) and insert (`insert.py`). At most three slices
of `SLICE_BYTES` are alive.

Outcomes, each told to the waiting door exactly once: a `RequestRecord` (committed), a
`RequestError` (refused, rolled back), `Overloaded` (503, rolled back), or `StoreFailed` (it could
not be found out: the door closes the connection unanswered).
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import PurePath
from typing import NoReturn

import structlog
import trio
from msgspec import Struct

from ...doors.bulk_lane import BulkUpload
from ...errors import IngesterError, Overloaded, StoreBusy, StoreFailed
from ...flow import WaitClock
from ...messages import RequestRecord, request_id_text
from ...store.database import StoreBroken
from ...store.rejects import RejectBudget
from ...store.store import Store
from .decode import Slice, decode_pieces
from .insert import BulkInsert

__all__ = ["SLICES_CAPACITY", "BulkCounters", "BulkWorkerContext", "run"]

_log = structlog.get_logger()

# One is inserted while the next waits and the one after is decoded.
SLICES_CAPACITY = 1

# Python's own, and what is set while an upload is under way (seconds).
DEFAULT_SWITCH_INTERVAL_S = 0.005
SWITCH_INTERVAL_S = 0.0005


class BulkCounters:
    def __init__(self) -> None:
        self.active_count = 0
        self.upload_count = 0
        self.refused_count = 0
        self.fault_count = 0
        self.row_count = 0
        self.slice_count = 0
        # Decoders for whom inserting was too slow.
        self.slice_waits = WaitClock()

    def statistics(self) -> dict[str, int]:
        return {
            "uploads": self.active_count,
            "uploads_total": self.upload_count,
            "refused_total": self.refused_count,
            "faults_total": self.fault_count,
            "rows_total": self.row_count,
            "slices_total": self.slice_count,
        }


@contextmanager
def _quick_switches(counters: BulkCounters) -> Iterator[None]:
    """While an upload is decoded, a thread that waits for the interpreter lock gets it soon.

    An upload is handed between threads some 200 times per million events, and every small
    acknowledgement beside it waits for the decoder. Without uploads the default is faster.
    """
    counters.active_count += 1
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        yield
    finally:
        counters.active_count -= 1
        if not counters.active_count:
            sys.setswitchinterval(DEFAULT_SWITCH_INTERVAL_S)


class BulkWorkerContext(Struct, frozen=True):
    """What the workers share. `refuse_if_full` raises Overloaded below the disk reserve."""

    store: Store
    rejects: RejectBudget
    counters: BulkCounters
    decode_turn: trio.CapacityLimiter
    insert_turns: trio.CapacityLimiter
    refuse_if_full: Callable[[], None]
    upload_file_bytes_min: int
    on_trouble: Callable[[], None]


class _Fault(IngesterError):
    """A bug; the door answers 500."""


async def run(
    uploads: trio.MemoryReceiveChannel[BulkUpload], *, context: BulkWorkerContext
) -> None:
    """One worker. Owns its end of `uploads`; returns when every sender has closed."""
    async with uploads:
        async for upload in uploads:
            try:
                with _quick_switches(context.counters):
                    upload.outcome = await _receive_upload(upload, context)
                context.counters.upload_count += 1
                context.counters.row_count += upload.outcome.accepted
            except StoreBroken as error:
                upload.outcome = Overloaded("the store is being reopened", retry_after_s=5)
                await _recover(context, error.generation)
            except StoreBusy as error:
                upload.outcome = Overloaded(f"the store cannot take this now: {error}", 5)
                context.on_trouble()
            except StoreFailed as error:
                upload.outcome = error
                raise  # no actor can go on with a store that cannot be read
            except IngesterError as error:
                upload.outcome = error
                if isinstance(error, Overloaded):
                    context.on_trouble()
            except Exception as error:  # a bug that this body has met: it fails this request only
                upload.outcome = _Fault(type(error).__name__)
                context.counters.fault_count += 1
                _log_fault(upload, error)
            finally:
                if not isinstance(upload.outcome, RequestRecord):
                    context.counters.refused_count += 1
                # Unknown (StoreFailed): its ids stay claimed, for they may be stored.
                if upload.dedup is not None and not isinstance(upload.outcome, StoreFailed):
                    upload.dedup.settle(is_durable=isinstance(upload.outcome, RequestRecord))
                upload.pieces.close()
                upload.done.set()


def _log_fault(upload: BulkUpload, error: Exception) -> None:
    """Where it happened. Not what it says: a message may carry an event."""
    frames: list[traceback.FrameSummary] = []
    todo: list[BaseException] = [error]
    while todo:
        found = todo.pop()
        if isinstance(found, BaseExceptionGroup):
            todo += found.exceptions
        else:
            frames += traceback.extract_tb(found.__traceback__)[-6:]
    _log.error(
        "an upload met a fault of ours",
        request_id=request_id_text(upload.request_number),
        error=type(error).__name__,
        where=[f"{PurePath(f.filename).name}:{f.lineno} {f.name}" for f in frames],
    )


async def _recover(context: BulkWorkerContext, generation: int) -> None:
    with suppress(StoreBusy):  # the next one who meets it tries again
        await trio.to_thread.run_sync(
            context.store.recover, generation, limiter=context.insert_turns
        )


async def _receive_upload(upload: BulkUpload, context: BulkWorkerContext) -> RequestRecord:
    """Stream one upload into a transaction and commit it."""
    limiter = context.insert_turns
    transaction = await trio.to_thread.run_sync(context.store.begin, "bulk", limiter=limiter)
    insert = BulkInsert(
        upload,
        transaction,
        store=context.store,
        rejects=context.rejects,
        upload_file_bytes_min=context.upload_file_bytes_min,
    )
    try:
        await trio.to_thread.run_sync(insert.prepare, limiter=limiter)
        slices_send, slices = trio.open_memory_channel[Slice](SLICES_CAPACITY)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_insert_slices, slices, insert, context)
                waits = context.counters.slice_waits
                await decode_pieces(upload, slices_send, context.decode_turn, waits)
        except BaseExceptionGroup as group:
            _raise_ours(group)
        return await trio.to_thread.run_sync(insert.commit, limiter=limiter)
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(insert.end, limiter=limiter)


def _raise_ours(group: BaseExceptionGroup[BaseException]) -> NoReturn:
    """One side failed, and the other was cancelled or failed in its wake: raise ours."""
    ours, rest = group.split(IngesterError)
    if ours is None or (rest is not None and rest.subgroup(Exception) is not None):
        raise group
    leaf: BaseException = ours
    while isinstance(leaf, BaseExceptionGroup):
        leaf = leaf.exceptions[0]
    raise leaf from None


async def _insert_slices(
    slices: trio.MemoryReceiveChannel[Slice], insert: BulkInsert, context: BulkWorkerContext
) -> None:
    async with slices:
        async for ready in slices:
            context.refuse_if_full()
            await trio.to_thread.run_sync(insert.slice, ready, limiter=context.insert_turns)
            context.counters.slice_count += 1
