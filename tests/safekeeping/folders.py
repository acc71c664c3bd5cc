"""Data folders for the tests of safekeeping, made as a server makes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from ingester import startup
from ingester.config import Config, JournalConfig, StoreConfig
from ingester.protocol.columns import REQUEST_SCHEMA, request_rows
from ingester.protocol.requests import SmallRequest
from ingester.startup import Opened
from ingester.store.ledger import AppliedBatch
from ingester.store.store import Store
from tests.actors.requests import body_of, event_line, payload_of, small_request
from tests.store.stores import rows

__all__ = [
    "DAYS",
    "acknowledge",
    "config_of",
    "everything",
    "filled",
    "requests",
    "rolled_up",
    "started",
    "upload",
]

DAYS = "SELECT bucket, source, account_id, action, events, users, sessions FROM events_daily"
_UPLOAD_ROWS = 5_000


def config_of(folder: Path) -> Config:
    return Config(
        store=StoreConfig(data_dir=str(folder)), journal=JournalConfig(segment_bytes=256 * 1024)
    )


@contextmanager
def started(folder: Path) -> Iterator[Opened]:
    """What a start opens, closed as at a clean end."""
    opened = startup.open_all(config_of(folder))
    try:
        yield opened
    finally:
        startup.close(opened)


def requests(numbers: Iterable[int]) -> list[SmallRequest]:
    """Some with several events, some with bad lines, some with a key."""
    made = []
    for number in numbers:
        lines = [event_line(number * 10 + i) for i in range(number % 3 + 1)]
        if number % 4 == 0:
            lines.insert(0, b"not an event")
        key = f"key-{number}" if number % 5 == 0 else None
        made.append(small_request(number, body_of(lines), key=key))
    return made


def acknowledge(opened: Opened, made: list[SmallRequest], *, load_too: bool = True) -> None:
    """What journal and loader do."""
    first_seq, _ = opened.writer.append([payload_of(request) for request in made])
    if load_too:
        startup.load_requests(
            opened.store, first_seq, made, opened.dead_letters, opened.loader_counters
        )


def upload(store: Store, number: int, row_count: int = _UPLOAD_ROWS) -> None:
    """A large upload, as a file of its own."""
    numbers = range(1, row_count + 1)
    table = pa.table({
        "account_id": [f"a{n % 5}" for n in numbers],
        "user_id": [f"u{n}" for n in numbers],
        "created_at": pa.array(list(numbers), pa.int64()).view(pa.timestamp("us")),
        "action": ["x"] * row_count,
        "session_id": [f"s{n * 7919 % 10007}" for n in numbers],
        "body": pa.ExtensionArray.from_storage(
            pa.json_(pa.string_view()),
            pa.array([f'{{"n":{n * n}}}' for n in numbers], pa.string_view()),
        ),
        "line_number": list(numbers),
    })
    record = small_request(number).record()
    with store.begin("bulk") as transaction:
        transaction.prepare("requests", REQUEST_SCHEMA)
        batch_id = store.ledger.take_batch_id()
        constants = {
            "request_number": number,
            "received_at_us": 1_700_000_000_000_000,
            "source": "web",
            "batch_id": batch_id,
        }
        transaction.write_upload("events", table, constants, request_number=number)
        transaction.insert("requests", request_rows([record]))
        transaction.commit([AppliedBatch(batch_id, "bulk", 0, 0, row_count, number)])


def filled(folder: Path) -> Path:
    """Two parts with small requests and an upload each, and their journal in three segments."""
    with started(folder) as opened:
        acknowledge(opened, requests(range(1, 300)))
        upload(opened.store, 1_001)
        opened.store.rotate()
        acknowledge(opened, requests(range(300, 400)))
        upload(opened.store, 1_002)
    with started(folder) as opened:
        acknowledge(opened, requests(range(400, 500)))
    return folder


def everything(store: Store) -> dict[str, list[tuple[Any, ...]]]:
    """All rows, but for the batch they came with."""
    return {
        "events": rows(store, "SELECT * EXCLUDE (batch_id) FROM events ORDER BY id"),
        "rejects": rows(store, "SELECT * EXCLUDE (batch_id) FROM rejects ORDER BY id"),
        "requests": rows(store, "SELECT * FROM requests ORDER BY request_id"),
    }


def rolled_up(opened: Opened) -> list[tuple[Any, ...]]:
    """What the days tell once nothing waits."""
    while opened.rollups.step().row_count:
        pass
    return sorted(rows(opened.store, DAYS))
