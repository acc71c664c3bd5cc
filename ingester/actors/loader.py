"""Loader actor: journalled requests into the open part, in sequence, in large transactions.

A batch is cut by rows, by bytes, or `linger_ms_max` after its first request, whichever comes
first. Its rows and its ledger row `applied(first_seq, last_seq)` share one transaction, so after a
crash exactly the records past the highest `last_seq` are replayed.

On an error: nothing is lost, the records are in the journal. Busy or broken: wait, reopen, try the
same batch again; out of memory: in halves. Data at fault (it was validated, so this is a bug): the
batch is halved until the record is found; that one is put aside under `dead-letter/` and counted.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import structlog
import trio
from msgspec import Struct

from ..config import StoreConfig
from ..doors.small_lane import JournalGate, JournalledGroup
from ..errors import StoreBusy, StoreError, StoreFailed
from ..flow import Mark
from ..protocol.columns import reject_rows, small_request_rows
from ..protocol.dedup_columns import small_dedup_rows
from ..protocol.forms import form_text, table_of_form
from ..protocol.requests import SmallRequest, entry_to_bytes
from ..protocol.small_rows import row_widths, small_rows
from ..store.database import StoreBroken, StoreOutOfMemory
from ..store.ledger import SMALL_AGAIN, AppliedBatch
from ..store.parts import WIDE_TABLES
from ..store.rejects import RejectBudget
from ..store.store import Store
from ..store.syncing import sync_path

__all__ = ["LoaderCounters", "load_batch", "load_requests", "load_runs", "rows_of", "run"]

_log = structlog.get_logger()

_FREED_AT_ONCE = 256
# Tables whose rows do not name their batch.
_UNBATCHED = frozenset({"requests", "dedup_keys"})
_LOOK_EVERY_S = 0.02
_RETRY_WAITS_S = (0.05, 0.1, 0.2, 0.5, 1.0)


class LoaderCounters:
    """What the loader did, by why a batch was cut."""

    def __init__(self) -> None:
        self.flush_reasons: Counter[str] = Counter()
        self.row_count = 0
        self.batch_count = 0
        self.retry_count = 0
        self.dead_letter_count = 0

    def statistics(self) -> dict[str, object]:
        return {
            "batches_total": self.batch_count,
            "rows_total": self.row_count,
            "retries_total": self.retry_count,
            "dead_letters_total": self.dead_letter_count,
            "flushes_total": {"by_reason": dict(self.flush_reasons)},
        }


class _Batch(Struct):
    first_seq: int
    requests: list[SmallRequest] = []
    row_count: int = 0
    byte_count: int = 0
    reason: str = "linger"

    def add(self, group: JournalledGroup) -> None:
        self.requests += group.requests
        self.byte_count += group.byte_count
        self.row_count += group.row_count


async def run(
    groups: trio.MemoryReceiveChannel[JournalledGroup],
    *,
    gate: JournalGate,
    applied: Mark,
    store: Store,
    config: StoreConfig,
    rejects: RejectBudget,
    counters: LoaderCounters,
    dead_letters: Path,
) -> None:
    """Load groups in order. Owns `groups`; returns when every sender has closed."""
    limiter = trio.CapacityLimiter(1)
    async with groups:
        while (batch := await _receive_batch(groups, config)) is not None:
            for request in batch.requests:
                if request.rejects:
                    request.rejects = rejects.take(request.rejects)
            await _load_until_done(batch, store, counters, dead_letters, limiter)
            counters.flush_reasons[batch.reason] += 1
            counters.batch_count += 1
            counters.row_count += batch.row_count
            gate.applied(batch.byte_count)
            applied.rise(batch.first_seq + len(batch.requests) - 1)
            # In steps: thousands of requests freed in one call would hold up the event loop.
            while batch.requests:
                del batch.requests[-_FREED_AT_ONCE:]
                await trio.lowlevel.checkpoint()


async def _receive_batch(
    groups: trio.MemoryReceiveChannel[JournalledGroup], config: StoreConfig
) -> _Batch | None:
    """Gather until full or `linger_ms_max` after the first; None at the end of the channel."""
    try:
        group = await groups.receive()
    except trio.EndOfChannel:
        return None
    batch = _Batch(group.first_seq)
    batch.add(group)
    deadline = trio.current_time() + config.linger_ms_max / 1000
    while True:
        if batch.row_count >= config.batch_rows_max:
            batch.reason = "rows"
            break
        if batch.byte_count >= config.batch_bytes_max:
            batch.reason = "bytes"
            break
        try:
            batch.add(groups.receive_nowait())
        except trio.EndOfChannel:
            batch.reason = "drained"
            break
        except trio.WouldBlock:
            left_s = deadline - trio.current_time()
            if left_s <= 0:
                break
            # Not woken by every group: there are thousands a second.
            await trio.sleep(min(left_s, _LOOK_EVERY_S))
    return batch


async def _load_until_done(
    batch: _Batch,
    store: Store,
    counters: LoaderCounters,
    dead_letters: Path,
    limiter: trio.CapacityLimiter,
) -> None:
    attempt = 0
    requests_max = len(batch.requests)
    while True:
        try:
            await trio.to_thread.run_sync(
                load_requests,
                store,
                batch.first_seq,
                batch.requests,
                dead_letters,
                counters,
                requests_max,
                limiter=limiter,
            )
            return
        except StoreBusy as error:
            counters.retry_count += 1
            if attempt % 20 == 0:
                _log.warning("batch not loaded, trying again", reason=str(error))
            if isinstance(error, StoreOutOfMemory):
                requests_max = max(1, requests_max // 2)
            if isinstance(error, StoreBroken):
                try:
                    await trio.to_thread.run_sync(store.recover, error.generation, limiter=limiter)
                except StoreBusy as busy:
                    _log.warning("store not reopened, trying again", reason=str(busy))
            await trio.sleep(_RETRY_WAITS_S[min(attempt, len(_RETRY_WAITS_S) - 1)])
            attempt += 1


def load_requests(
    store: Store,
    first_seq: int,
    requests: Sequence[SmallRequest],
    dead_letters: Path,
    counters: LoaderCounters,
    requests_max: int | None = None,
) -> None:
    """Load in transactions of at most `requests_max`; a record at fault is put aside.

    What the ledger says is there already, from an attempt that ended in an error, is passed over.
    """
    position = 0
    while True:
        position = max(position, store.ledger.applied_seq + 1 - first_seq)
        if position >= len(requests):
            return
        end = len(requests) if requests_max is None else position + requests_max
        _load_or_halve(store, first_seq + position, requests[position:end], dead_letters, counters)
        position += len(requests[position:end])


def load_runs(
    store: Store,
    first_seq: int,
    requests: Sequence[SmallRequest],
    dead_letters: Path,
    counters: LoaderCounters,
) -> None:
    """Load what a repair has found to be missing, whatever the ledger's newest sequence is."""
    _load_or_halve(store, first_seq, requests, dead_letters, counters)


def _load_or_halve(
    store: Store,
    first_seq: int,
    requests: Sequence[SmallRequest],
    dead_letters: Path,
    counters: LoaderCounters,
) -> None:
    again_count = store.evaluated_seq + 1 - first_seq
    if 0 < again_count < len(requests):  # one lane a batch
        for start, some in ((0, requests[:again_count]), (again_count, requests[again_count:])):
            _load_or_halve(store, first_seq + start, some, dead_letters, counters)
        return
    try:
        load_batch(store, first_seq, requests)
    except (StoreBusy, StoreFailed):
        raise
    except StoreError as error:
        if len(requests) > 1:
            middle = len(requests) // 2
            for start, half in ((0, requests[:middle]), (middle, requests[middle:])):
                _load_or_halve(store, first_seq + start, half, dead_letters, counters)
            return
        _put_aside(dead_letters, first_seq, requests[0], error)
        with store.begin("small") as transaction:
            batch_id = store.ledger.take_batch_id()
            number = requests[0].entry.request_number
            transaction.commit([AppliedBatch(batch_id, "dead", first_seq, first_seq, 0, number)])
        counters.dead_letter_count += 1


def load_batch(store: Store, first_seq: int, requests: Sequence[SmallRequest]) -> None:
    """One transaction: rows, rejects, requests, and the ledger row."""
    row_count = sum(r.row_count for r in requests)
    tables = rows_of(requests)
    with store.begin("small") as transaction:
        batch_id = store.ledger.take_batch_id()
        for name, rows in tables.items():
            transaction.prepare(name, rows.schema)
        for name, lengths in _lengths_of(tables).items():
            pinned_bytes = transaction.count_pinned(name, lengths)
            if pinned_bytes > store.pinned_bytes_max and len(requests) > 1:
                raise StoreOutOfMemory(f"{len(requests)} requests are too wide for one commit")
        for name, rows in tables.items():
            transaction.insert(name, rows, {} if name in _UNBATCHED else {"batch_id": batch_id})
        transaction.commit([
            AppliedBatch(
                batch_id,
                SMALL_AGAIN if first_seq <= store.evaluated_seq else "small",
                first_seq,
                first_seq + len(requests) - 1,
                row_count,
                max(r.entry.request_number for r in requests),
            )
        ])


def rows_of(requests: Sequence[SmallRequest]) -> dict[str, pa.Table]:
    """The rows by table. Raises StoreError: what cannot be made into columns is put aside too,
    or it would end this process and, as it is replayed, every one after it.
    """
    by_table: dict[str, list[SmallRequest]] = {}
    for request in requests:
        if request.row_count:
            by_table.setdefault(table_of_form(request.entry.form), []).append(request)
    refused = [r for r in requests if r.rejects]
    keyed = [r for r in requests if r.digests]
    tables: dict[str, pa.Table] = {}
    try:
        for table, found in by_table.items():
            tables[table] = small_rows(table, found)
        if refused:
            tables["rejects"] = pa.concat_tables(map(_reject_rows, refused))
        if keyed:
            tables["dedup_keys"] = small_dedup_rows(keyed)
        tables["requests"] = small_request_rows(requests)
    except Exception as error:  # a bug, by definition
        raise StoreError(f"{type(error).__name__} while making columns") from error
    return tables


def _lengths_of(tables: Mapping[str, pa.Table]) -> dict[str, np.ndarray[Any, Any]]:
    """The lengths of what is wide in the rows of each table."""
    return {name: row_widths(name, rows) for name, rows in tables.items() if name in WIDE_TABLES}


def _reject_rows(request: SmallRequest) -> pa.Table:
    entry = request.entry
    return reject_rows(
        request.rejects,
        entry.request_number,
        entry.received_at_us,
        entry.door,
        entry.source,
        form_text(entry.form),
    )


def _put_aside(dead_letters: Path, sequence: int, request: SmallRequest, error: StoreError) -> None:
    """Durably: the ledger passes over the record next. Raises StoreBusy without space."""
    path = dead_letters / f"{sequence:020d}.entry"
    try:
        dead_letters.mkdir(mode=0o700, exist_ok=True)
        with path.open("wb") as file:
            file.write(entry_to_bytes(request.entry))
            file.flush()
            os.fsync(file.fileno())
        for directory in (dead_letters, dead_letters.parent):
            sync_path(directory)
    except OSError as failure:
        raise StoreBusy(f"a record cannot be put aside: {failure.strerror}") from failure
    _log.error("a record cannot be loaded and was put aside", file=path.name, reason=str(error))
