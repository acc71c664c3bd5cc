"""Stage `load`: Arrow columns into the open part, ledger row, commit through the gate.

Ceiling: the same tables into a bare DuckDB file with its own settings (all CPUs, default row
groups), committed. Both use a fresh folder each round; parts are removed afterwards.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import duckdb
import pyarrow as pa

from bench.columns import decoded_batches
from bench.corpus import cache_directory
from bench.options import Options
from bench.report import Row
from bench.stage import Subject, compare
from ingester.actors.bulk.decode import SLICE_BYTES, SLICE_ROWS
from ingester.config import StoreConfig
from ingester.protocol.columns import EVENT_SCHEMA, event_columns
from ingester.protocol.events import EventBatch
from ingester.store.ledger import AppliedBatch
from ingester.store.store import Store

__all__ = ["run", "slices_of"]

# Held in memory as Arrow tables before the clock starts.
_EVENTS_MAX = 500_000

_Work = Callable[[Path, Sequence[pa.Table]], int]
_RECEIVED_AT_US = 1_790_000_000_000_000
_TABLE = """
CREATE TABLE bare.events(
    request_number BIGINT, line_number BIGINT, received_at TIMESTAMP, source VARCHAR,
    account_id VARCHAR, user_id VARCHAR, created_at TIMESTAMP, action VARCHAR,
    session_id VARCHAR, body JSON USING COMPRESSION zstd, batch_id BIGINT)
"""


def run(options: Options) -> list[Row]:
    """A pair of rows over at most the first 500,000 events."""
    corpus = options.corpus()
    batches = decoded_batches(options, _EVENTS_MAX)
    events = sum(len(batch.events) for batch in batches)
    raw_bytes = sum(len(batch.data) for batch in batches)
    slices = slices_of(batches)
    return compare(
        "load",
        corpus,
        Subject("ours", partial(_in_fresh_folder, _ours, slices)),
        Subject("bare DuckDB", partial(_in_fresh_folder, _bare, slices)),
        expected=events,
        rounds=1 if options.smoke else options.rounds,
        events=events,
        raw_bytes=raw_bytes,
    )


def slices_of(batches: Sequence[EventBatch]) -> list[pa.Table]:
    """Insertable tables, cut as the bulk workers cut them."""
    slices: list[pa.Table] = []
    held: list[pa.RecordBatch] = []
    rows = byte_count = 0
    for batch in batches:
        held.append(event_columns(batch))
        rows += len(batch.events)
        byte_count += len(batch.data)
        if byte_count >= SLICE_BYTES or rows >= SLICE_ROWS:
            slices.append(pa.Table.from_batches(held))
            held = []
            rows = byte_count = 0
    if held:
        slices.append(pa.Table.from_batches(held))
    return slices


def _in_fresh_folder(work: _Work, slices: Sequence[pa.Table]) -> int:
    folder = Path(tempfile.mkdtemp(prefix="load-", dir=cache_directory()))
    try:
        return work(folder, slices)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _ours(folder: Path, slices: Sequence[pa.Table]) -> int:
    store = Store(folder, StoreConfig())
    store.open()
    rows = 0
    try:
        with store.begin("bulk") as transaction:
            transaction.prepare("events", EVENT_SCHEMA)
            applied: list[AppliedBatch] = []
            for table in slices:
                batch_id = store.ledger.take_batch_id()
                constants: dict[str, str | int] = {
                    "request_number": 1,
                    "received_at_us": _RECEIVED_AT_US,
                    "source": "bench",
                    "batch_id": batch_id,
                }
                transaction.insert("events", table, constants)
                applied.append(AppliedBatch(batch_id, "bulk", 0, 0, table.num_rows, 1))
            transaction.commit(applied)
        with store.database.lease() as lease, lease.using() as cursor:
            found = cursor.execute("SELECT count(*) FROM part_000001.events").fetchone()
            assert found is not None
            rows = int(found[0])
    finally:
        store.close()
    return rows


def _bare(folder: Path, slices: Sequence[pa.Table]) -> int:
    connection = duckdb.connect(":memory:", config={"threads": str(os.cpu_count() or 1)})
    try:
        connection.execute(f"ATTACH '{folder / 'bare.duckdb'}' AS bare (STORAGE_VERSION 'v1.5.0')")
        connection.execute("SET checkpoint_threshold = '1TB'")
        connection.execute(_TABLE)
        connection.execute("BEGIN")
        for table in slices:
            connection.register("slice", table)
            connection.execute(
                "INSERT INTO bare.events SELECT 1, line_number, make_timestamp(?), 'bench', "
                "account_id, user_id, created_at, action, session_id, body, 1 FROM slice",
                [_RECEIVED_AT_US],
            )
            connection.unregister("slice")
        connection.execute("COMMIT")
        found = connection.execute("SELECT count(*) FROM bare.events").fetchone()
        assert found is not None
        return int(found[0])
    finally:
        connection.close()
