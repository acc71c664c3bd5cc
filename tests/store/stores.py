"""Means of the store's tests: a store on a folder, rows for it, and cursors that fail on demand."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from ingester.config import StoreConfig
from ingester.messages import RequestRecord
from ingester.protocol.columns import REQUEST_SCHEMA, request_rows
from ingester.store.database import Cursor
from ingester.store.ledger import AppliedBatch
from ingester.store.schema import VIEW_NAMES, view_select
from ingester.store.store import Store, Transaction

__all__ = ["FaultyCursor", "fail_next", "insert", "load", "opened", "rows", "value"]

MiB = 1024 * 1024


@contextmanager
def opened(folder: Path, **settings: Any) -> Iterator[Store]:
    """A store on `folder`, closed at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    store = Store(folder, StoreConfig(data_dir=str(folder), **settings))
    store.open()
    try:
        yield store
    finally:
        store.close()


def insert(
    store: Store, transaction: Transaction, number: int, count: int = 1, *, random_bytes: int = 0
) -> AppliedBatch:
    """`count` rows of `requests` that are named after `number`, each with so much that cannot be
    compressed; their ledger row.
    """
    if "requests" not in transaction._feeds:
        transaction.prepare("requests", REQUEST_SCHEMA)
    records = [_record(number * 100_000 + i, random_bytes) for i in range(count)]
    transaction.insert("requests", request_rows(records))
    batch_id = store.ledger.take_batch_id()
    return AppliedBatch(batch_id, "small", number, number, 0, records[-1].request_number)


def load(store: Store, number: int, count: int = 1) -> AppliedBatch:
    """Commit one batch."""
    with store.begin("small") as transaction:
        batch = insert(store, transaction, number, count)
        transaction.commit([batch])
    return batch


def rows(store: Store, sql: str) -> list[tuple[Any, ...]]:
    """Of one SELECT, which may name the public views."""
    with store.hold() as held, store.database.lease() as lease, lease.using() as cursor:
        snapshot = held.snapshot
        for name in VIEW_NAMES:
            if name in sql:
                select = view_select(name, snapshot.parts, snapshot.files_of(name))
                cursor.execute(f"CREATE TEMP VIEW {name} AS {select}")
        return cast(list[tuple[Any, ...]], cursor.execute(sql).fetchall())


def value(store: Store, sql: str) -> Any:
    ((found,),) = rows(store, sql)
    return found


class FaultyCursor:
    """A cursor that runs `fault(cursor)` instead of the next statement `statement`."""

    def __init__(self, cursor: Cursor, statement: str, fault: Callable[[Cursor], None]) -> None:
        self._cursor = cursor
        self._statement = statement
        self._fault: Callable[[Cursor], None] | None = fault

    def execute(self, sql: str, *arguments: Any) -> Any:
        if sql == self._statement and self._fault is not None:
            fault, self._fault = self._fault, None
            return fault(self._cursor)
        return self._cursor.execute(sql, *arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)


def fail_next(
    transaction: Transaction, fault: Callable[[Cursor], None], *, statement: str = "COMMIT"
) -> None:
    """Let `fault` stand in for the next `statement` of `transaction`."""
    lease = transaction._lease
    lease._cursor = cast(Cursor, FaultyCursor(lease._cursor, statement, fault))


def _record(number: int, random_bytes: int) -> RequestRecord:
    return RequestRecord(
        request_number=number,
        received_at_us=1_700_000_000_000_000 + number,
        door="natero",
        source="test",
        credential="source:1",
        accepted=0,
        rejected=0,
        bytes_in=10,
        bytes_raw=10,
        encoding="identity",
        fingerprint=os.urandom(random_bytes) if random_bytes else None,
    )
