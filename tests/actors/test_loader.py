"""The loader: when a batch is cut, what an error does to it, what is put aside."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.lowlevel
import trio.testing

from ingester.actors import loader
from ingester.actors.loader import LoaderCounters, load_requests
from ingester.config import StoreConfig
from ingester.doors.small_lane import JournalGate, JournalledGroup
from ingester.errors import StoreBusy, StoreError, StoreFailed
from ingester.flow import Mark
from ingester.protocol.requests import SmallRequest, decode_entry, entry_from_bytes
from ingester.store.database import StoreBroken, StoreOutOfMemory
from ingester.store.reader import check_parts
from ingester.store.rejects import RejectBudget
from ingester.store.store import Store
from tests.store.stores import opened, rows, value

from .requests import body_of, event_line, small_request

GROUP_BYTES = 1000


def _group(first_seq: int, count: int, *, events: int = 1) -> JournalledGroup:
    requests = [
        small_request(n, body_of([event_line(n * 1000 + i) for i in range(events)]))
        for n in range(first_seq, first_seq + count)
    ]
    return JournalledGroup(first_seq, requests, GROUP_BYTES * count, count * events)


class _Bench:
    """A loader over a real store."""

    def __init__(self, store: Store, folder: Path, *, rejects_bytes_max: int = 1 << 30) -> None:
        self.store = store
        self.gate = JournalGate(backlog_bytes_max=1 << 30)
        self.applied = Mark()
        self.counters = LoaderCounters()
        self.rejects = RejectBudget(rejects_bytes_max, 0)
        self.dead_letters = folder / "dead-letter"
        self.send, self.receive = trio.open_memory_channel[JournalledGroup](float("inf"))

    def put(self, group: JournalledGroup) -> None:
        self.gate.backlog_bytes += group.byte_count
        self.send.send_nowait(group)

    async def run(self) -> None:
        await loader.run(
            self.receive,
            gate=self.gate,
            applied=self.applied,
            store=self.store,
            config=self.store.config,
            rejects=self.rejects,
            counters=self.counters,
            dead_letters=self.dead_letters,
        )

    async def load(self, *groups: JournalledGroup) -> None:
        """Load all and end."""
        for group in groups:
            self.put(group)
        self.send.close()
        with trio.fail_after(60):
            await self.run()
        assert self.gate.backlog_bytes == 0
        assert self.store.statistics()["open_transactions"] == 0
        assert not self.store.database._leases
        assert check_parts(self.store) == []

    def numbers(self) -> list[int]:
        """The request numbers that are stored."""
        sql = "SELECT ('0x' || request_id)::BIGINT FROM requests ORDER BY 1"
        return [number for (number,) in rows(self.store, sql)]


@pytest.mark.parametrize(
    ("settings", "group_count", "reason", "taken"),
    [
        ({"batch_rows_max": 4}, 6, "rows", 4),
        ({"batch_bytes_max": 3 * GROUP_BYTES}, 6, "bytes", 3),
        ({}, 3, "linger", 3),
    ],
)
async def test_a_batch_is_cut_by_rows_by_bytes_or_by_time(
    autojump_clock: trio.testing.MockClock,
    settings: dict[str, int],
    group_count: int,
    reason: str,
    taken: int,
) -> None:
    send, receive = trio.open_memory_channel[JournalledGroup](10)
    for number in range(1, group_count + 1):
        send.send_nowait(_group(number, 1))
    began = trio.current_time()
    batch = await loader._receive_batch(receive, StoreConfig(linger_ms_max=400, **settings))
    assert batch is not None
    assert (batch.reason, batch.first_seq, len(batch.requests)) == (reason, 1, taken)
    assert trio.current_time() - began == pytest.approx(0.4 if reason == "linger" else 0.0)


async def test_time_counts_from_the_first_request_and_the_end_cuts_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    send, receive = trio.open_memory_channel[JournalledGroup](10)
    config = StoreConfig(linger_ms_max=400)

    async def trickle() -> None:
        for number in range(1, 6):
            await send.send(_group(number, 1))
            await trio.sleep(0.15)
        send.close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trickle)
        found = []
        while (batch := await loader._receive_batch(receive, config)) is not None:
            found.append((batch.reason, len(batch.requests)))
    assert found == [("linger", 3), ("drained", 2)]


async def test_everything_is_loaded_once_and_the_mark_rises(tmp_path: Path) -> None:
    with opened(tmp_path, batch_rows_max=5) as store:
        bench = _Bench(store, tmp_path)
        await bench.load(*(_group(first, 3, events=2) for first in range(1, 31, 3)))
        assert bench.numbers() == list(range(1, 31))
        assert value(store, "SELECT count(*) FROM events") == 60
        assert bench.applied.value == store.ledger.applied_seq == 30
        statistics = bench.counters.statistics()
        assert statistics["rows_total"] == 60
        assert sum(bench.counters.flush_reasons.values()) == bench.counters.batch_count


def _failing(
    store: Store, monkeypatch: pytest.MonkeyPatch, errors: Sequence[Exception | None]
) -> list[int]:
    """`load_batch` raises these in turn before it does what it should. None: after it has."""
    real = loader.load_batch
    left = list(errors)
    sizes: list[int] = []

    def load_batch(store: Store, first_seq: int, requests: Sequence[SmallRequest]) -> None:
        sizes.append(len(requests))
        error = left.pop(0) if left else ""
        if isinstance(error, Exception):
            raise error
        real(store, first_seq, requests)
        if error is None:
            raise StoreBusy("it looked as if it failed")

    monkeypatch.setattr(loader, "load_batch", load_batch)
    monkeypatch.setattr(loader, "_RETRY_WAITS_S", (0.001,))
    return sizes


@pytest.mark.parametrize(
    "error",
    [StoreBusy("no space"), StoreBroken("gone", 0), None],
    ids=["busy", "broken", "stored after all"],
)
async def test_a_busy_or_broken_store_is_tried_again_without_loss_or_double(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    with opened(tmp_path) as store:
        bench = _Bench(store, tmp_path)
        sizes = _failing(store, monkeypatch, [error])
        await bench.load(_group(1, 8))
        assert bench.numbers() == list(range(1, 9))
        assert sizes == ([8] if error is None else [8, 8])
        assert bench.counters.retry_count == 1
        assert store.database.reopened_count == (1 if isinstance(error, StoreBroken) else 0)
        assert not bench.dead_letters.exists()


async def test_out_of_memory_is_tried_again_in_halves_until_it_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as store:
        bench = _Bench(store, tmp_path)
        sizes = _failing(store, monkeypatch, [StoreOutOfMemory("no"), StoreOutOfMemory("no")])
        await bench.load(_group(1, 9))
        assert sizes == [9, 4, 2, 2, 2, 2, 1]
        assert bench.numbers() == list(range(1, 10))


async def test_a_batch_larger_than_the_stores_memory_is_loaded(tmp_path: Path) -> None:
    """A group can be far larger than a batch should be: 60 bodies of 1 MiB at once."""
    size = 1024 * 1024 - 100
    group = JournalledGroup(1, [small_request(n, event_line(n, size)) for n in range(1, 61)], 1, 60)
    with opened(tmp_path, memory_bytes_max=32 * 1024 * 1024) as store:
        bench = _Bench(store, tmp_path)
        await bench.load(group)
        assert bench.counters.retry_count > 0
        assert bench.numbers() == list(range(1, 61))


async def test_a_store_that_failed_ends_the_loader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as store:
        bench = _Bench(store, tmp_path)
        _failing(store, monkeypatch, [StoreFailed("for good")])
        bench.put(_group(1, 2))
        with pytest.raises(StoreFailed, match="for good"):
            await bench.run()
        assert bench.applied.value == 0
        with pytest.raises(trio.BrokenResourceError):
            bench.send.send_nowait(_group(3, 1))


def _poisoned(
    monkeypatch: pytest.MonkeyPatch, poison: set[int], error: Callable[[], Exception]
) -> None:
    real = loader.small_rows

    def rows_of(table: str, requests: Sequence[SmallRequest]) -> Any:
        if poison & {r.entry.request_number for r in requests}:
            raise error()
        return real(table, requests)

    monkeypatch.setattr(loader, "small_rows", rows_of)


@pytest.mark.parametrize("error", [StoreError, AssertionError, OverflowError, UnicodeEncodeError])
async def test_a_record_at_fault_is_put_aside_and_the_rest_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def make() -> Exception:
        if error is UnicodeEncodeError:
            return UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed")
        return error("poison")

    with opened(tmp_path) as store:
        bench = _Bench(store, tmp_path)
        _poisoned(monkeypatch, {4, 11}, make)
        await bench.load(_group(1, 7), _group(8, 6))
        assert bench.numbers() == [n for n in range(1, 14) if n not in {4, 11}]
        assert bench.counters.dead_letter_count == 2
        assert bench.applied.value == store.ledger.applied_seq == 13
        assert store.ledger.request_number_max == 13
        for sequence in (4, 11):
            path = bench.dead_letters / f"{sequence:020d}.entry"
            entry = entry_from_bytes(path.read_bytes())
            assert decode_entry(entry).lines == small_request(sequence, entry.body).lines
    with opened(tmp_path) as store:
        assert store.ledger.applied_seq == 13


async def test_a_record_is_not_passed_over_before_it_is_put_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as store:
        bench = _Bench(store, tmp_path)
        _poisoned(monkeypatch, {2}, lambda: ValueError("poison"))
        monkeypatch.setattr(loader, "_RETRY_WAITS_S", (0.001,))
        real, left = os.fsync, [2]

        def fsync(descriptor: int) -> None:
            if left[0]:
                left[0] -= 1
                raise OSError(28, "No space left on device")
            real(descriptor)

        monkeypatch.setattr(os, "fsync", fsync)
        await bench.load(_group(1, 3))
        assert bench.numbers() == [1, 3]
        assert bench.counters.dead_letter_count == 1
        assert bench.counters.retry_count == 2


async def test_refused_lines_are_kept_within_the_budget_and_counted_beyond(tmp_path: Path) -> None:
    body = body_of([event_line(1), b"x" * 100, b"y" * 100, b"z" * 100])
    with opened(tmp_path) as store:
        bench = _Bench(store, tmp_path, rejects_bytes_max=500)
        group = JournalledGroup(1, [small_request(n, body) for n in (1, 2, 3)], 300, 3)
        await bench.load(group)
        assert rows(store, "SELECT request_id, line_number FROM rejects ORDER BY 1, 2") == [
            (f"{number:016x}", line) for number, line in [(1, 2), (1, 3), (1, 4), (2, 2), (2, 3)]
        ]
        assert value(store, "SELECT sum(rejected) FROM requests") == 9
        assert (bench.rejects.kept_bytes, bench.rejects.dropped_count) == (500, 4)


async def test_a_request_without_a_valid_line_is_stored_with_its_rejects(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        bench = _Bench(store, tmp_path)
        requests = [small_request(1, b"nonsense"), small_request(2, b""), small_request(3)]
        await bench.load(JournalledGroup(1, requests, 30, len(requests)))
        assert bench.numbers() == [1, 2, 3]
        assert value(store, "SELECT count(*) FROM events") == 1
        assert value(store, "SELECT count(*) FROM rejects") == 1


async def test_cancelling_the_loader_leaves_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as store:
        for checkpoints in range(6):
            bench = _Bench(store, tmp_path)
            first = store.ledger.applied_seq + 1
            bench.put(_group(first, 2))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(bench.run)
                for _ in range(checkpoints):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
            assert store.statistics()["open_transactions"] == 0
            assert not store.database._leases
            assert store.ledger.applied_seq in {first - 1, first + 1}
        assert check_parts(store) == []


def test_what_the_ledger_has_is_passed_over(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        counters = LoaderCounters()
        requests = [small_request(n) for n in range(1, 11)]
        load_requests(store, 1, requests[:4], tmp_path / "dead", counters)
        load_requests(store, 1, requests, tmp_path / "dead", counters, 3)
        load_requests(store, 1, requests, tmp_path / "dead", counters)
        load_requests(store, 1, [], tmp_path / "dead", counters)
        assert value(store, "SELECT count(*) FROM requests") == 10
        assert value(store, "SELECT count(*) FROM part_000001.applied WHERE lane = 'small'") == 3


_WIDE_REQUESTS_AND_CRASH = """
import os, sys
from pathlib import Path
from ingester.actors.loader import load_batch
from tests.actors.requests import event_line, small_request
from tests.store.stores import opened
with opened(Path(sys.argv[1]), memory_bytes_max=64 << 20) as store:
    for first in range(1, 101, 10):
        line = event_line(first, 1_000_000)
        load_batch(store, first, [small_request(n, line) for n in range(first, first + 10)])
    os._exit(0)
"""


def test_wide_rows_of_many_batches_are_no_trouble_after_a_crash(tmp_path: Path) -> None:
    """100 MB in neighbouring rows, 64 MiB of memory: no commit and no checkpoint holds them."""
    subprocess.run(
        [sys.executable, "-c", _WIDE_REQUESTS_AND_CRASH, str(tmp_path)],
        cwd=Path(__file__).resolve().parents[2],
        check=True,
        timeout=60,
    )
    with opened(tmp_path, memory_bytes_max=64 << 20) as store:
        assert value(store, "SELECT count(*) FROM events") == 100
        counters = LoaderCounters()
        load_requests(store, 101, [small_request(101)], tmp_path / "dead", counters)
        assert store.checkpoint()
        assert value(store, "SELECT count(*) FROM events") == 101
