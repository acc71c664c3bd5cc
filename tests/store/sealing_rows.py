"""A store with rows in every table, and what it has of them, for the tests of sealing."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from ingester.messages import LineReject, RequestRecord
from ingester.protocol.columns import REJECT_SCHEMA, REQUEST_SCHEMA, reject_rows, request_rows
from ingester.store.ledger import AppliedBatch
from ingester.store.sealing import Sealer
from ingester.store.store import Store
from tests.search.rows import Rows, event, log, metric
from tests.store.stores import rows

__all__ = ["DAY", "VIEWS", "add_request", "contents", "fill", "seal_all"]

DAY = datetime(2026, 11, 20, 6, tzinfo=UTC)
VIEWS = ("events", "logs", "metrics", "rejects", "requests")


def add_request(
    store: Store,
    number: int,
    received_at: datetime,
    *,
    key: str | None = None,
    reject_count: int = 0,
) -> None:
    """A request of no rows: its record, its rejects and an id to tell repeats by."""
    received_at_us = int(received_at.timestamp() * 1_000_000)
    record = RequestRecord(
        request_number=number,
        received_at_us=received_at_us,
        door="natero",
        source="shop",
        credential=f"source:{number}",
        accepted=0,
        rejected=reject_count,
        bytes_in=1,
        bytes_raw=1,
        encoding="gzip",
        idempotency_key=key,
        fingerprint=b"f",
        deduplicated=1,
    )
    found = [
        LineReject(n, "invalid_json", "why", b"\xff{", None, 2) for n in range(1, reject_count + 1)
    ]
    ids = pa.table({
        "source": ["events:shop:id"],
        "digest": pa.array([number.to_bytes(16)], pa.binary()),
        "received_at": pa.array([received_at.replace(tzinfo=None)], pa.timestamp("us")),
    })
    batch_id = store.ledger.take_batch_id()
    with store.begin("small") as transaction:
        transaction.prepare("rejects", REJECT_SCHEMA)
        transaction.prepare("requests", REQUEST_SCHEMA)
        transaction.prepare("dedup_keys", ids.schema)
        transaction.insert("requests", request_rows([record]))
        transaction.insert("dedup_keys", ids)
        if found:
            made = reject_rows(found, number, received_at_us, "natero", "shop", None)
            transaction.insert("rejects", made, {"batch_id": batch_id})
        transaction.commit([AppliedBatch(batch_id, "small", 0, 0, 0, number)])


def fill(store: Store, *, row_count: int = 300, seed: int = 1, day: datetime = DAY) -> Rows:
    """Rows of three arrival days in every table, in parts and upload files, in no order of time."""
    chance = random.Random(seed)
    made = Rows(store)
    made.request_number = store.ledger.request_number_max
    for days in range(3):
        arrived = day + timedelta(days=days)
        for as_file in (False, True):
            times = [
                arrived - timedelta(seconds=chance.randrange(40 * 86_400)) for _ in range(row_count)
            ]
            rest = {"received_at": arrived}
            made.add(
                "events",
                [event(at, f"a{n % 7}", **rest) for n, at in enumerate(times)],
                as_file=as_file,
            )
            made.add(
                "logs", [log(at, f"m{n}", **rest) for n, at in enumerate(times)], as_file=as_file
            )
            made.add(
                "metrics",
                [
                    metric(at, n / 2, metadata={"n": n} if n % 3 else None, **rest)
                    for n, at in enumerate(times)
                ],
                as_file=as_file,
            )
        made.request_number += 1
        add_request(store, made.request_number, arrived, key=f"key-{days}-{seed}", reject_count=5)
    return made


def contents(store: Store) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of the public views."""
    return {view: rows(store, f"SELECT * FROM {view} ORDER BY ALL") for view in VIEWS}


def seal_all(store: Store, sealer: Sealer | None = None) -> int:
    """Seal what can be, and remove what nobody reads; how many parts."""
    sealer = sealer or Sealer(store)
    count = 0
    while (part := sealer.next_part()) is not None:
        sealer.seal(part)
        count += 1
    store.remove_unread()
    return count
