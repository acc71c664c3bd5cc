"""A store with a year of events, filled through the store's own transactions, and its rollups.

Why not over HTTP: a hundred million events would take minutes to send, and nothing of that is
measured here. Bodies are empty objects, so that the rows fit on a disk; what rollups read of them
is the same as of others, except for payloads.
"""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from msgspec import Struct

from ingester.config import StoreConfig
from ingester.management.dispatch import decode_query
from ingester.search import ROUTES, answer_search
from ingester.store.ledger import AppliedBatch
from ingester.store.rollups import Rollups
from ingester.store.store import Store

__all__ = ["Told", "YearStore", "opened_year"]

# Milliseconds of each round, the points, and where they came from.
Told = tuple[list[float], Any, str]

_START = datetime(2025, 1, 1, tzinfo=UTC)
_YEAR_US = 365 * 86_400 * 1_000_000
_ACTIONS = ("feature", "pageViewEnd", "sessionSync", "moduleEnd", "checkout", "export", "login")
_ACCOUNTS = 1_000
_USERS = 50_000
_COMMIT_ROWS = 1_000_000
_BATCH_ROWS = 100_000
_SEED = 20260711


class YearStore(Struct):
    """The store, its rollups, and what filling them took."""

    folder: Path
    store: Store
    rollups: Rollups
    fill_s: float = 0.0
    rollup_s: float = 0.0
    rollup_cpu_s: float = 0.0
    file_mb: float = 0.0

    def reopen(self, memory_bytes_max: int) -> None:
        """With more memory: what rollups tell is counted in sets of millions out of rows."""
        self.store.close()
        config = StoreConfig(data_dir=str(self.folder), memory_bytes_max=memory_bytes_max)
        self.store = Store(self.folder, config)
        self.store.open()

    def ask(self, parameters: dict[str, str], rounds: int, *, with_rollups: bool = True) -> Told:
        (route,) = [one for one in ROUTES if one.operation == "event_timeseries"]
        span = {"since": "2025-01-01", "until": "2026-01-01"}
        query = decode_query({**span, **parameters}, route.query)
        taken: list[float] = []
        answer: dict[str, Any] = {}
        for _ in range(rounds):
            began = time.perf_counter()
            text = answer_search(
                self.store,
                route,
                query,
                {},
                seconds_max=600,
                rollups=self.rollups if with_rollups else None,
            )
            taken.append((time.perf_counter() - began) * 1000)
            answer = json.loads(text)
        return taken, answer["points"], answer["answered_from"]


@contextmanager
def opened_year(folder: Path, events: int) -> Iterator[YearStore]:
    """Filled and rolled up."""
    store = Store(folder, StoreConfig(data_dir=str(folder)))
    store.open()
    year = YearStore(folder, store, Rollups(store))
    try:
        random = np.random.default_rng(_SEED)
        for number, first in enumerate(range(0, events, _COMMIT_ROWS), 1):
            began = time.perf_counter()
            # As time goes by: a day's events come together, as they would.
            _commit(store, number, random, first, min(first + _COMMIT_ROWS, events), events)
            year.fill_s += time.perf_counter() - began
            _roll(year)
        store.checkpoint()
        year.rollups.maybe_checkpoint(bytes_min=1)
        year.file_mb = store.rollup_file.file_bytes() / 1e6
        yield year
    finally:
        year.store.close()


def _roll(year: YearStore) -> None:
    began, cpu_before = time.perf_counter(), _cpu_s()
    while year.rollups.step().row_count:
        pass
    while year.rollups.maybe_merge():
        pass
    year.rollups.maybe_checkpoint()
    year.rollup_s += time.perf_counter() - began
    year.rollup_cpu_s += _cpu_s() - cpu_before


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _commit(
    store: Store, number: int, random: np.random.Generator, first: int, end: int, events: int
) -> None:
    batches: list[AppliedBatch] = []
    with store.begin("bulk") as transaction:
        for low in range(first, end, _BATCH_ROWS):
            high = min(low + _BATCH_ROWS, end)
            rows = _rows(random, low, high, events)
            batch_id = store.ledger.take_batch_id()
            constants: dict[str, str | int] = {
                "request_number": number,
                "batch_id": batch_id,
                "source": "bench",
            }
            transaction.write_upload("events", rows, constants, request_number=number)
            batches.append(AppliedBatch(batch_id, "bulk", 0, 0, high - low, number))
        transaction.commit(batches)


def _rows(random: np.random.Generator, low: int, high: int, events: int) -> pa.Table:
    count = high - low
    start_us = int(_START.timestamp() * 1_000_000)
    times = start_us + (np.arange(low, high) * (_YEAR_US / events)).astype(np.int64)
    users = (random.random(count) ** 2 * _USERS).astype(np.int64)
    created_at = pa.array(times).view(pa.timestamp("us"))
    return pa.table({
        "line_number": pa.array(np.arange(1, count + 1)),
        "received_at": created_at,
        "account_id": _named("acct-{:05d}", users % _ACCOUNTS, _ACCOUNTS),
        "user_id": _named("user-{:06d}@example.com", users, _USERS),
        "created_at": created_at,
        "action": pa.array(_ACTIONS).take(pa.array(random.integers(0, len(_ACTIONS), count))),
        "session_id": _named("session-{:06d}", users // 2, _USERS),
        "body": pa.array(["{}"]).take(pa.array(np.zeros(count, np.int64))),
    })


def _named(form: str, numbers: np.ndarray[Any, Any], count: int) -> pa.Array:
    return pa.array([form.format(number) for number in range(count)]).take(pa.array(numbers))
