"""Queries against a store of a few rows, in real query processes."""

from __future__ import annotations

import hashlib
import json
import math
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import msgspec
import pyarrow as pa
import trio

from ingester import executable
from ingester.config import StoreConfig
from ingester.errors import IngesterError
from ingester.sandbox.messages import Format, QueryRequest
from ingester.sandbox.process import QueryProcess
from ingester.sandbox.queries import Queries, _refusal
from ingester.store.increments import Increments
from ingester.store.ledger import AppliedBatch
from ingester.store.rollups import Rollups
from ingester.store.store import Store
from tests.store.stores import load, opened, value

__all__ = ["EVENT_SCHEMA", "Asking", "Intake", "add_events", "event_rows", "open_asking"]

_SHARED = (
    "import sys; sys.path[:] = sys.argv[1:]; from tests.sandbox.shared_child import main; main()"
)

EVENT_SCHEMA = pa.schema({
    "request_number": pa.int64(),
    "line_number": pa.int64(),
    "received_at": pa.timestamp("us"),
    "source": pa.string(),
    "account_id": pa.string(),
    "user_id": pa.string(),
    "created_at": pa.timestamp("us"),
    "action": pa.string(),
    "session_id": pa.string(),
    "body": pa.string(),
})


@dataclass
class Asking:
    """A store, what it exports, and who may ask."""

    store: Store
    increments: Increments
    queries: Queries
    folder: Path
    settings: dict[str, Any]

    async def bytes(self, sql: str, format_name: Format = "json") -> bytes:
        pieces: list[bytes] = []
        async with await self.queries.ask(sql, format_name) as answer:
            while piece := await answer.receive():
                pieces.append(piece)
        return b"".join(pieces)

    async def rows(self, sql: str) -> list[list[Any]]:
        rows = json.loads(await self.bytes(sql))["rows"]
        assert isinstance(rows, list)
        return rows

    async def value(self, sql: str) -> Any:
        ((found,),) = await self.rows(sql)
        return found

    async def each(self, texts: Sequence[str]) -> list[bytes | IngesterError]:
        """What each is answered in the default format, by one process (`shared_child.py`)."""
        with patch.object(executable, "_PROGRAM", _SHARED):
            asked = await QueryProcess.start()
        gives_up_at = time.monotonic() + 20
        sql = msgspec.json.encode(texts).decode()
        holding = await trio.to_thread.run_sync(
            lambda: self.increments.hold(gives_up_at=gives_up_at, sql=sql)
        )
        try:
            await asked.ask(QueryRequest(sql=sql, files=holding.files))
            return [await _one_answer(asked) for _ in texts]
        finally:
            await asked.aclose()
            self.increments.release(holding)

    def stored(self) -> int:
        return int(value(self.store, "SELECT count(*) FROM requests"))

    def files(self) -> set[Path]:
        return {path for path in self.folder.rglob("*") if path.is_file()}

    def digest(self) -> str:
        """Of the parts."""
        digest = hashlib.sha256()
        for path in sorted(self.files()):
            if path.suffix == ".duckdb":
                digest.update(path.name.encode() + path.read_bytes())
        return digest.hexdigest()


@asynccontextmanager
async def open_asking(
    folder: Path, *, with_spare: bool = False, with_rollups: bool = False, **settings: Any
) -> AsyncIterator[Asking]:
    config = {"query_seconds_max": 20, **settings}
    with opened(folder) as store:
        load(store, 1, 3)
        add_events(store, 2, 5)
        rollups = Rollups(store) if with_rollups else None
        increments = Increments(store, folder / "export", rollups)
        increments.open()
        queries = Queries(
            increments,
            lambda: StoreConfig(data_dir=str(folder), **config),
            on_broken=lambda error: store.recover(error.generation),
        )
        asking = Asking(store, increments, queries, folder, config)
        async with trio.open_nursery() as nursery:
            if with_spare:
                nursery.start_soon(queries.run)
            yield asking
            nursery.cancel_scope.cancel()
        assert not queries._open
        assert not any(entry.holders for ranges in increments._ranges.values() for entry in ranges)
        increments.close()


async def _one_answer(asked: QueryProcess) -> bytes | IngesterError:
    data = b""
    while True:
        kind, body = await asked.receive_frame()
        if kind == b"E":
            return _refusal(body)
        if kind == b"Z":
            return data
        data += body if kind == b"D" else b""


def add_events(store: Store, number: int, count: int, *, body: str = '{"n": 0.10}') -> None:
    """Commit `count` events of account `a<number>`."""
    rows = event_rows(number, count, body=body)
    with store.begin("small") as transaction:
        transaction.prepare("events", EVENT_SCHEMA)
        batch_id = store.ledger.take_batch_id()
        transaction.insert("events", rows, {"batch_id": batch_id})
        transaction.commit([AppliedBatch(batch_id, "small", number, number, count, number)])


def event_rows(number: int, count: int, *, body: str = '{"n": 0.10}') -> pa.Table:
    columns: dict[str, list[Any]] = {
        "request_number": [number] * count,
        "line_number": list(range(count)),
        "received_at": [1_700_000_000_000_000 + number] * count,
        "source": ["shop"] * count,
        "account_id": [f"a{number}"] * count,
        "user_id": [f"u{i}" for i in range(count)],
        "created_at": [1_700_000_000_000_000 + i for i in range(count)],
        "action": ["login"] * count,
        "session_id": ["s"] * count,
        "body": [body] * count,
    }
    return pa.table(
        [pa.array(columns[field.name]).cast(field.type) for field in EVENT_SCHEMA],
        schema=EVENT_SCHEMA,
    )


class Intake:
    """Commits all the time; how many, and the longest time without one."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._is_ending = threading.Event()
        self._thread = threading.Thread(target=self._commit)
        self.count = 0
        self.longest_s = 0.0

    def __enter__(self) -> Intake:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_ending.set()
        self._thread.join(20)
        assert math.isfinite(self.longest_s)

    def _commit(self) -> None:
        number = 1000
        while not self._is_ending.wait(0.01):
            number += 1
            began = time.monotonic()
            load(self._store, number)
            self.longest_s = max(self.longest_s, time.monotonic() - began)
            self.count += 1
