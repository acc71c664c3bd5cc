"""Stage `seal`: an open part and its upload files to Parquet, sorted by time; CPU and bytes a row.

Ceiling: DuckDB's own `COPY (… ORDER BY created_at) TO` of the same part with the same memory, into
one file, without ids, manifest and sync. Each in a fresh folder, filled before the clock starts.
Three kinds of data: inserted rows and an upload file in the order of their events, and inserted
rows whose events are in no order at all, which is what sorting costs most.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from bench.columns import decoded_batches
from bench.corpus import cache_directory
from bench.load import slices_of
from bench.options import Options
from bench.process import memory_mb, reset_peak_memory
from bench.report import Row, median_row, pairwise_ratios
from bench.seal_beside import beside_sealing
from ingester.config import StoreConfig
from ingester.protocol.columns import EVENT_SCHEMA
from ingester.store.ledger import AppliedBatch
from ingester.store.schema import view_select
from ingester.store.sealing import Sealer
from ingester.store.store import Store

__all__ = ["run"]

_EVENTS_MAX = 1_000_000
_RECEIVED_AT_US = 1_790_000_000_000_000
_KINDS = ("inserted", "upload file", "no order")

_Work = Callable[[Store], int]


def run(options: Options) -> list[Row]:
    """Ours and DuckDB's, for each kind of data; then single requests beside it."""
    batches = decoded_batches(options, _EVENTS_MAX)
    slices = slices_of(batches)
    events = sum(table.num_rows for table in slices)
    raw_bytes = sum(len(batch.data) for batch in batches)
    del batches
    rows: list[Row] = []
    for kind in _KINDS:
        data = _shuffled(slices) if kind == "no order" else slices
        measured: dict[str, list[Row]] = {"ours": [], "DuckDB COPY": []}
        for _ in range(1 if options.smoke else options.rounds):
            for name, work in (("ours", _seal), ("DuckDB COPY", _copy)):
                row = _measured(f"{kind}, {name}", data, work, as_file=kind == "upload file")
                row.events, row.raw_bytes = events, raw_bytes
                row.extra["bytes_a_row"] = round(row.extra["bytes"] / events, 1)
                measured[name].append(row)
        ours, theirs = measured["ours"], measured["DuckDB COPY"]
        row = median_row(ours)
        # Both hold the rows that were put in as well.
        row.extra["memory_mb"] = round(row.peak_rss_mb - row.extra["memory_before_mb"], 1)
        row.ratios = pairwise_ratios(ours, theirs)
        row.ratio, row.ratio_to = float(np.median(row.ratios)), "DuckDB COPY"
        rows += [row, median_row(theirs)]
    del slices
    return rows + beside_sealing(options)


def _measured(name: str, slices: Sequence[pa.Table], work: _Work, *, as_file: bool) -> Row:
    folder = Path(tempfile.mkdtemp(prefix="seal-", dir=cache_directory()))
    store = Store(folder, StoreConfig())
    store.open()
    try:
        _fill(store, slices, as_file=as_file)
        reset_peak_memory(os.getpid())
        before_mb = memory_mb(os.getpid(), "VmRSS")
        began, cpu_began = time.perf_counter(), time.process_time()
        size = work(store)
        row = Row(
            bench="seal",
            name=name,
            events=0,
            seconds=time.perf_counter() - began,
            cpu_s=time.process_time() - cpu_began,
        )
        row.extra = {"bytes": size, "memory_before_mb": round(before_mb, 1)}
        row.peak_rss_mb = memory_mb(os.getpid())
        return row
    finally:
        store.close()
        shutil.rmtree(folder, ignore_errors=True)


def _fill(store: Store, slices: Sequence[pa.Table], *, as_file: bool) -> None:
    with store.begin("bulk") as transaction:
        applied: list[AppliedBatch] = []
        if not as_file:
            transaction.prepare("events", EVENT_SCHEMA)
        for table in slices:
            batch_id = store.ledger.take_batch_id()
            constants: dict[str, str | int] = {
                "request_number": 1,
                "received_at_us": _RECEIVED_AT_US,
                "source": "bench",
                "batch_id": batch_id,
            }
            if as_file:
                transaction.write_upload("events", table, constants, request_number=1)
            else:
                transaction.insert("events", table, constants)
            applied.append(AppliedBatch(batch_id, "bulk", 0, 0, table.num_rows, 1))
        transaction.commit(applied)
    store.checkpoint()
    store.rotate()


def _seal(store: Store) -> int:
    sealer = Sealer(store)
    part = sealer.next_part()
    assert part is not None
    sealer.seal(part)
    return sum(file.byte_count for file in store.sealed.files["events"])


def _copy(store: Store) -> int:
    path = store.parts.directory.parent / "copied.parquet"
    snapshot = store.snapshot()
    rows = view_select("events", snapshot.parts, snapshot.files_of("events"))
    with store.database.lease() as lease, lease.using() as cursor:
        cursor.execute(
            f"COPY (SELECT * FROM ({rows}) ORDER BY created_at) TO '{path}' "
            "(FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 65536)"
        )
    return os.path.getsize(path)


def _shuffled(slices: Sequence[pa.Table]) -> list[pa.Table]:
    """The same rows with the times of others, over a year."""
    chance = np.random.default_rng(7)
    found = []
    for table in slices:
        days = chance.integers(0, 365 * 86_400_000, table.num_rows) * 1_000
        times = pa.array(_RECEIVED_AT_US - days, pa.int64()).view(pa.timestamp("us"))
        at = table.schema.get_field_index("created_at")
        found.append(table.set_column(at, "created_at", times))
    return found
