"""Bulk workers: one upload each, streamed through inflate, decode and insert into a transaction.

Why it exists: a bulk body does not fit in memory and needs no journal: its own DuckDB commit is
its durability. `bulk_uploads_max` workers take uploads from a channel of capacity 0; an upload
that finds no worker waits there, and its socket is not read.

Per upload: pieces (channel, 4 × 64 KiB) ► decode turn, one process-wide, at most 256 KiB of
inflated bytes at a time ► slices (channel, 1) ► insert. Decoding a slice overlaps inserting the
one before it. At most three slices of `SLICE_BYTES` are alive.

Outcomes, each told to the waiting door exactly once: a `RequestRecord` (committed), a
`RequestError` (refused, rolled back), `Overloaded` (503, rolled back), or `StoreFailed` (it could
not be found out: the door closes the connection unanswered).
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import PurePath
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import structlog
import trio
from msgspec import Struct

from ..doors.bulk_lane import BulkUpload
from ..errors import (
    BodyTooLarge,
    IngesterError,
    Overloaded,
    StoreBusy,
    StoreFailed,
)
from ..messages import LineReject, RequestRecord, request_id_text
from ..protocol.columns import (
    EVENT_SCHEMA,
    REJECT_SCHEMA,
    REQUEST_SCHEMA,
    event_columns,
    reject_rows,
    request_rows,
)
from ..protocol.events import EventBatch
from ..store.database import StoreBroken
from ..store.ledger import AppliedBatch
from ..store.pinned import PINNED_ROWS
from ..store.rejects import RejectBudget
from ..store.store import Store, Transaction

__all__ = ["BulkCounters", "BulkWorkerContext", "run"]

_log = structlog.get_logger()

# A slice is one INSERT. Measured 2026-11-21 (1 M events): 4 MiB 3.5, 8 MiB 3.3 CPU-s, and three of
# them are alive at once.
SLICE_BYTES = 8 * 1024 * 1024
SLICE_ROWS = 131_072
# Python's own, and what is set while an upload is under way (seconds).
DEFAULT_SWITCH_INTERVAL_S = 0.005
SWITCH_INTERVAL_S = 0.0005
# Inflated bytes decoded in one turn: bounds how long the interpreter lock is held for one call.
TURN_BYTES = 256 * 1024
# After this a turn is given back: others wait for it, and a small body inflates far.
TURN_SECONDS = 0.02
# Rejected lines kept in memory before they go to the transaction.
REJECT_SLICE_BYTES = 4 * 1024 * 1024

_END = b""


class BulkCounters:
    def __init__(self) -> None:
        self.active_count = 0
        self.upload_count = 0
        self.refused_count = 0
        self.fault_count = 0
        self.row_count = 0
        self.slice_count = 0

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


class _Slice(Struct):
    """What one INSERT takes. `events` is one chunk: the store works in vectors of 2,048 rows and
    does not fill them across chunks (measured: 0.1 to 0.2 of 1.9 CPU-s per million rows).
    """

    events: pa.Table | None
    rejects: list[LineReject]
    row_count: int
    byte_count: int
    lengths: list[np.ndarray[Any, Any]]


class _TurnOver:
    """The decode turn is given back before a slice is full."""


_TURN_OVER = _TurnOver()


class _Fault(IngesterError):
    """A bug; the door answers 500."""


class _Abandoned(IngesterError):
    """The sender went away: nobody is told, everything is rolled back."""


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
    insert = _Insert(upload, transaction, context)
    try:
        await trio.to_thread.run_sync(insert.prepare, limiter=limiter)
        send, receive = trio.open_memory_channel[_Slice](1)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_insert_slices, receive, insert, limiter)
                await _decode_slices(upload, send, context)
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


async def _decode_slices(
    upload: BulkUpload, slices: trio.MemorySendChannel[_Slice], context: BulkWorkerContext
) -> None:
    """Pull pieces, decode them by turns, and hand on slices. Owns `slices`."""
    pieces = _Pieces(upload.pieces)
    decode = _Decode(upload)
    async with slices:
        while True:
            piece = await pieces.next()
            turns = decode.finish() if piece == _END else decode.feed(piece)
            while (
                turn := await trio.to_thread.run_sync(
                    next, turns, None, limiter=context.decode_turn
                )
            ) is not None:
                if isinstance(turn, _Slice):
                    context.refuse_if_full()
                    try:
                        await slices.send(turn)
                    except trio.BrokenResourceError:
                        return  # inserting has failed and raises why
            if piece == _END:
                return


async def _insert_slices(
    slices: trio.MemoryReceiveChannel[_Slice], insert: _Insert, limiter: trio.CapacityLimiter
) -> None:
    async with slices:
        async for ready in slices:
            await trio.to_thread.run_sync(insert.slice, ready, limiter=limiter)


class _Pieces:
    """What has arrived of a body, joined up to `TURN_BYTES`: a thread call each costs too much."""

    def __init__(self, channel: trio.MemoryReceiveChannel[bytes]) -> None:
        self._channel = channel
        self._is_ended = False

    async def next(self) -> bytes:
        """The next bytes, `b""` at the proper end. Raises _Abandoned when it was cut."""
        if self._is_ended:
            return _END
        try:
            parts = [await self._channel.receive()]
        except trio.EndOfChannel:
            raise _Abandoned("the body was not sent whole") from None
        if parts[0] == _END:
            return _END
        size = len(parts[0])
        while size < TURN_BYTES:
            try:
                piece = self._channel.receive_nowait()
            except (trio.WouldBlock, trio.EndOfChannel):
                break
            if piece == _END:
                self._is_ended = True
                break
            parts.append(piece)
            size += len(piece)
        return b"".join(parts)


class _Decode:
    """The decoding side, called in a thread: bytes as received in, slices out."""

    def __init__(self, upload: BulkUpload) -> None:
        self._inflater = upload.inflater
        self._decoder = upload.decoder
        self._upload = upload
        self._slice = _Slice(None, [], 0, 0, [])
        self._columns: list[pa.RecordBatch] = []
        self._reject_bytes = 0

    def feed(self, data: bytes) -> Iterator[_Slice | _TurnOver]:
        turn_ends_s = time.monotonic() + TURN_SECONDS
        for raw in self._inflater.feed(data):
            if self._upload.digest is not None:
                self._upload.digest.update(raw)
            for batch in self._decoder.feed(raw):
                self._add(batch)
            rejects = self._decoder.take_rejects()
            self._slice.rejects += rejects
            self._reject_bytes += sum(len(r.line) for r in rejects)
            if (
                self._slice.byte_count >= SLICE_BYTES
                or self._slice.row_count >= SLICE_ROWS
                or self._reject_bytes >= REJECT_SLICE_BYTES
            ):
                yield self._take()
                turn_ends_s = time.monotonic() + TURN_SECONDS
            elif time.monotonic() > turn_ends_s:
                yield _TURN_OVER
                turn_ends_s = time.monotonic() + TURN_SECONDS

    def finish(self) -> Iterator[_Slice | _TurnOver]:
        self._inflater.finish()
        for batch in self._decoder.finish():
            self._add(batch)
        self._slice.rejects += self._decoder.take_rejects()
        if self._slice.row_count or self._slice.rejects:
            yield self._take()

    def _add(self, batch: EventBatch) -> None:
        self._columns.append(event_columns(batch))
        self._slice.row_count += len(batch.events)
        self._slice.byte_count += len(batch.data)
        self._slice.lengths.append(batch.lengths)

    def _take(self) -> _Slice:
        taken, self._slice = self._slice, _Slice(None, [], 0, 0, [])
        if self._columns:
            taken.events = pa.Table.from_batches(self._columns).combine_chunks()
        self._columns = []
        self._reject_bytes = 0
        return taken


class _Insert:
    """The store's side, called in a thread, one call at a time."""

    def __init__(
        self, upload: BulkUpload, transaction: Transaction, context: BulkWorkerContext
    ) -> None:
        self._upload = upload
        self._transaction = transaction
        self._context = context
        self._batches: list[AppliedBatch] = []
        self._inserted_bytes = 0
        self._reject_bytes = 0
        self._is_committed = False

    def prepare(self) -> None:
        self._transaction.prepare("events", EVENT_SCHEMA)
        self._transaction.prepare("rejects", REJECT_SCHEMA)
        self._transaction.prepare("requests", REQUEST_SCHEMA)

    def slice(self, ready: _Slice) -> None:
        upload = self._upload
        is_file = self._inserted_bytes >= self._context.upload_file_bytes_min
        if not is_file:
            self._inserted_bytes += ready.byte_count
            if ready.lengths:
                self._refuse_if_too_wide(np.concatenate(ready.lengths))
        batch_id = self._context.store.ledger.take_batch_id()
        number = upload.request_number
        self._batches.append(AppliedBatch(batch_id, "bulk", 0, 0, ready.row_count, number))
        if ready.events is not None:
            constants: dict[str, str | int] = {
                "request_number": number,
                "received_at_us": upload.received_at_us,
                "source": upload.source.name,
                "batch_id": batch_id,
            }
            if is_file:
                self._transaction.write_upload(ready.events, constants, request_number=number)
            else:
                self._transaction.insert("events", ready.events, constants)
        rejects = self._context.rejects.take(
            ready.rejects, bytes_max=self._context.store.pinned_bytes_max - self._reject_bytes
        )
        if rejects:
            lengths = np.fromiter((len(r.line) for r in rejects), np.int64, len(rejects))
            self._reject_bytes += int(lengths.sum())
            self._transaction.count_pinned("rejects", lengths)
            rows = reject_rows(
                rejects, number, upload.received_at_us, upload.door, upload.source.name
            )
            self._transaction.insert("rejects", rows, {"batch_id": batch_id})
        self._context.counters.slice_count += 1

    def commit(self) -> RequestRecord:
        upload = self._upload
        record = RequestRecord(
            request_number=upload.request_number,
            received_at_us=upload.received_at_us,
            door=upload.door,
            source=upload.source.name,
            credential=upload.credential,
            accepted=upload.decoder.accepted_count,
            rejected=upload.decoder.rejected_count,
            bytes_in=upload.inflater.input_bytes,
            bytes_raw=upload.inflater.output_bytes,
            encoding=upload.encoding_name,
            idempotency_key=upload.idempotency_key,
            fingerprint=upload.digest.digest()[:16] if upload.digest is not None else None,
        )
        if not self._batches:
            batch_id = self._context.store.ledger.take_batch_id()
            self._batches.append(AppliedBatch(batch_id, "bulk", 0, 0, 0, upload.request_number))
        self._transaction.insert("requests", request_rows([record]))
        self._transaction.commit(self._batches)
        self._is_committed = True
        return record

    def _refuse_if_too_wide(self, lengths: np.ndarray[Any, Any]) -> None:
        """Before the rows are sent: the COMMIT would fail, in every attempt."""
        pinned_bytes = self._transaction.count_pinned("events", lengths)
        bytes_max = self._context.store.pinned_bytes_max
        if pinned_bytes > bytes_max:
            raise BodyTooLarge(
                f"events in a row add up to {pinned_bytes >> 20} MiB within {PINNED_ROWS:,}; the "
                f"store takes {bytes_max >> 20} MiB: split the upload, or raise [store] "
                "memory_bytes_max"
            )

    def end(self) -> None:
        """End the transaction, however it went."""
        self._transaction.__exit__()
        if not self._is_committed:  # nothing was kept: another upload may keep as many
            self._context.rejects.give_back(self._reject_bytes)
