"""Repeats on their way into the store: uploads, the loader, and what a start knows again."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from ingester import startup
from ingester.actors.bulk import worker as bulk
from ingester.actors.bulk.worker import BulkCounters, BulkWorkerContext
from ingester.actors.loader import LoaderCounters, load_requests
from ingester.config import Config, StoreConfig
from ingester.doors.bulk_lane import BulkUpload
from ingester.doors.dedup import Claim, DedupWindow, DedupWindows, claim_small
from ingester.doors.idempotency import Remembered
from ingester.doors.receive import now_us
from ingester.errors import IngesterError, Overloaded, StoreFailed
from ingester.messages import RequestRecord, Source
from ingester.protocol.dedup import DedupField
from ingester.protocol.requests import JournalEntry, SmallRequest, decode_entry, entry_to_bytes
from ingester.store.ledger import AppliedBatch
from ingester.store.reader import check_parts, read_dedup_keys
from ingester.store.rejects import RejectBudget
from ingester.store.store import Store, Transaction
from tests.store.stores import opened, rows, value

from .requests import body_of, event_line, small_request, upload_of

SOURCE = Source(source_id=1, name="test", dedup_field="n")
PIECE = 64 * 1024
LANES = pytest.mark.parametrize("file_bytes_min", [1 << 40, 1], ids=["part", "file"])


def window() -> DedupWindow:
    found = DedupWindows().window_of(SOURCE, "events")
    assert found is not None
    return found


def lines(numbers: Iterable[int], size: int = 0) -> bytes:
    return body_of([event_line(number, size) for number in numbers])


class _Bench:
    """One worker over a real store."""

    def __init__(self, store: Store, file_bytes_min: int = 1 << 40) -> None:
        self.store = store
        self.window = window()
        self.now_us = now_us()
        self._number = 0
        self.context = BulkWorkerContext(
            store=store,
            rejects=RejectBudget(1 << 30, 0),
            counters=BulkCounters(),
            decode_turn=trio.CapacityLimiter(1),
            insert_turns=trio.CapacityLimiter(1),
            refuse_if_full=lambda: None,
            upload_file_bytes_min=file_bytes_min,
            on_trouble=lambda: None,
        )
        self.send, self.receive = trio.open_memory_channel[BulkUpload](0)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(bulk.run, self.receive, context=self.context))
                yield
                self.send.close()
        assert self.window.statistics()["claims"] == 0
        self.assert_consistent()

    def assert_consistent(self) -> None:
        """The ids in the store are those of its rows, and the window knows the same."""
        assert check_parts(self.store) == []
        kept = sorted(digest for digest, _ in read_dedup_keys(self.store, self.window.scope, 24))
        numbers = [n for (n,) in rows(self.store, "SELECT body->>'n' FROM events")]
        assert len(set(numbers)) == len(numbers)
        field = DedupField("n")
        assert kept == sorted(
            filter(None, (field.digest(b'{"n":%b}' % n.encode()) for n in numbers))
        )
        repeats = bytearray(len(kept))
        self.window.claim(self.now_us).take(kept, repeats)
        assert repeats.count(1) == len(kept)

    async def upload(
        self, body: bytes, *, whole: bool = True, **settings: Any
    ) -> RequestRecord | IngesterError:
        self._number += 1
        upload, pieces = upload_of(self._number, **settings)
        upload.received_at_us = self.now_us
        upload.dedup = await self.window.claim_upload(self.now_us, seconds_max=60)
        await self.send.send(upload)
        async with pieces:
            for start in range(0, len(body), PIECE):
                await pieces.send(body[start : start + PIECE])
            if whole:
                await pieces.send(b"")
        await upload.done.wait()
        assert upload.outcome is not None
        return upload.outcome


def counts(outcome: RequestRecord | IngesterError) -> tuple[int, int, int]:
    assert isinstance(outcome, RequestRecord), outcome
    return outcome.accepted, outcome.deduplicated, outcome.rejected


@LANES
async def test_uploads_store_every_id_once(tmp_path: Path, file_bytes_min: int) -> None:
    with opened(tmp_path) as store:
        bench = _Bench(store, file_bytes_min)
        async with bench.running():
            first = lines(range(30_000), 400) + b"bad\n" + lines(range(29_000, 31_000))
            assert counts(await bench.upload(gzip.compress(first, 1), encoding="gzip")) == (
                31_000, 1_000, 1,
            )  # fmt: skip
            assert counts(await bench.upload(first)) == (0, 32_000, 1)
            assert counts(await bench.upload(lines(range(30_990, 31_010)))) == (10, 10, 0)
            assert counts(await bench.upload(b"")) == (0, 0, 0)
        found = rows(store, "SELECT count(*), sum(length(body)) FROM events")
        wanted = lines(range(30_000), 400) + lines(range(30_000, 31_010))
        assert found == [(31_010, len(wanted) - 31_010)]
        part = store.parts.newest.name
        kept = f"SELECT accepted, deduplicated FROM {part}.requests ORDER BY request_number"
        assert rows(store, kept) == [(31_000, 1_000), (0, 32_000), (10, 10), (0, 0)]


def _commit_fails(self: Transaction, batches: list[AppliedBatch]) -> None:
    raise duckdb.OutOfMemoryException("no")


@LANES
@pytest.mark.parametrize("how", ["cut", "corrupt", "commit"])
async def test_ids_of_an_upload_that_was_rolled_back_may_come_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, file_bytes_min: int
) -> None:
    body = lines(range(30_000), 400)
    with opened(tmp_path) as store:
        bench = _Bench(store, file_bytes_min)
        async with bench.running():
            with monkeypatch.context() as patch:
                if how == "commit":
                    patch.setattr(Transaction, "commit", _commit_fails)
                outcome = (
                    await bench.upload(gzip.compress(body, 1)[:-3] + b"xyz", encoding="gzip")
                    if how == "corrupt"
                    else await bench.upload(body, whole=how == "commit")
                )
            assert isinstance(outcome, IngesterError), outcome
            assert value(store, "SELECT count(*) FROM events") == 0
            assert counts(await bench.upload(body)) == (30_000, 0, 0)
            assert counts(await bench.upload(body)) == (0, 30_000, 0)


async def test_ids_of_an_upload_that_may_be_stored_stay_claimed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(self: Transaction, batches: list[AppliedBatch]) -> None:
        raise StoreFailed("the ledger cannot be read")

    monkeypatch.setattr(Transaction, "commit", unknown)
    monkeypatch.setattr("ingester.doors.dedup.CLAIM_SECONDS_MAX", 0.01)
    with opened(tmp_path) as store:
        bench = _Bench(store)
        outcomes: list[object] = []

        async def send() -> None:
            with trio.CancelScope(shield=True):
                outcomes.append(await bench.upload(lines([1])))

        with pytest.RaisesGroup(StoreFailed):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send)
                nursery.start_soon(partial(bulk.run, bench.receive, context=bench.context))
        assert isinstance(outcomes[0], StoreFailed)
        with pytest.raises(Overloaded):
            await claim_small(bench.window, [event_line(1)], bench.now_us, turn=None)
        with pytest.raises(Overloaded):
            await bench.window.claim_upload(bench.now_us, seconds_max=0.01)


@pytest.mark.parametrize("is_durable", [True, False])
async def test_an_upload_waits_for_the_journal_of_a_small_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_durable: bool
) -> None:
    is_waiting = trio.Event()
    real = Claim.wait_ended

    async def wait_ended(claim: Claim) -> None:
        is_waiting.set()
        await real(claim)

    monkeypatch.setattr(Claim, "wait_ended", wait_ended)
    with opened(tmp_path) as store:
        bench = _Bench(store)
        found: list[tuple[int, int, int]] = []

        async def send() -> None:
            found.append(counts(await bench.upload(lines(range(20_000)))))
            bench.send.close()

        small, _ = await claim_small(bench.window, [event_line(7)], bench.now_us, turn=None)
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(bulk.run, bench.receive, context=bench.context))
                nursery.start_soon(send)
                await is_waiting.wait()
                await wait_all_tasks_blocked(0.05)
                assert not found
                small.settle(is_durable=is_durable)
        assert found == [(19_999, 1, 0) if is_durable else (20_000, 0, 0)]


def small_with_ids(number: int, numbers: Iterable[int]) -> SmallRequest:
    """As the door leaves it, without the lines `duplicates`."""
    entry = small_request(number, lines(numbers)).entry
    values = {name: getattr(entry, name) for name in JournalEntry.__struct_fields__}
    values |= {"dedup_field": "n", "received_at_us": now_us(), "duplicates": (2,)}
    values |= {"idempotency_key": f"key-{number}", "fingerprint": bytes(16)}
    return decode_entry(JournalEntry(**values))


def test_the_loader_stores_ids_with_their_rows(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        requests = [
            small_with_ids(1, [1, 2, 3]),
            small_request(2),
            small_with_ids(3, [4, 4]),
        ]
        load_requests(store, 1, requests, tmp_path / "dead", LoaderCounters())
        part = store.parts.newest.name
        assert rows(store, f"SELECT source, count(*) FROM {part}.dedup_keys GROUP BY ALL") == [
            ("events:test:n", 3)
        ]
        known = window()
        known.restore(read_dedup_keys(store, known.scope, 24))
        repeats = bytearray(5)
        texts = [event_line(n) for n in (1, 2, 3, 4, 0)]
        known.claim(now_us()).take([known.field.digest(text) for text in texts], repeats)
        assert list(repeats) == [1, 0, 1, 1, 0]
        assert value(store, f"SELECT sum(deduplicated) FROM {part}.requests") == 2
        assert check_parts(store) == []


@pytest.mark.parametrize("is_loaded", [True, False])
async def test_a_start_knows_ids_from_the_store_and_the_journal_of_all_parts(
    tmp_path: Path, is_loaded: bool
) -> None:
    config = Config(store=StoreConfig(data_dir=str(tmp_path)))
    first = startup.open_all(config)
    for number in (1, 2):
        request = small_with_ids(number, [number * 10, 0, number * 10 + 1])
        sequence, _ = first.writer.append([entry_to_bytes(request.entry)])
        if is_loaded:
            load_requests(
                first.store, sequence, [request], first.dead_letters, first.loader_counters
            )
            first.store.rotate()
    # Without any of the tidying of `close`.
    first.store.database._root = None
    first.store.database._leases.clear()
    first.control.close()
    first.lock.release()
    again = startup.open_all(config)
    assert again.replayed_count == (0 if is_loaded else 2)
    again.dedup.prepare([SOURCE])
    known = again.dedup.window_of(SOURCE, "events")
    assert known is not None
    texts = [event_line(n) for n in (10, 11, 20, 21, 0, 1)]
    claim, places = await claim_small(known, texts, now_us(), turn=None)
    assert isinstance(claim, Claim)
    assert places == [0, 1, 2, 3]
    remembered = await again.idempotency.join("natero", "source:1", "key-1", now_us())
    assert isinstance(remembered, Remembered)
    assert (remembered.accepted, remembered.deduplicated) == (2, 1)
    startup.close(again)
