"""Bulk workers: every way an upload can end, and that the next one is taken."""

from __future__ import annotations

import contextlib
import gzip
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb
import pytest
import trio

from ingester.actors.bulk import worker as bulk
from ingester.actors.bulk.worker import BulkCounters, BulkWorkerContext
from ingester.doors.bulk_lane import BulkUpload
from ingester.errors import (
    BodyTooLarge,
    IngesterError,
    MalformedBody,
    Overloaded,
    StoreBusy,
    StoreFailed,
)
from ingester.messages import RequestRecord
from ingester.protocol.inflate import Encoding
from ingester.store.database import StoreBroken
from ingester.store.ledger import AppliedBatch
from ingester.store.reader import check_parts
from ingester.store.rejects import RejectBudget
from ingester.store.store import Store, Transaction
from tests.store.stores import opened, rows, value

from .requests import body_of, event_line, upload_of

KiB, MiB = 1024, 1024 * 1024
PIECE = 64 * KiB


class _Bench:
    """Workers over a real store, and the door's side of an upload."""

    def __init__(
        self, store: Store, *, workers: int = 1, upload_file_bytes_min: int = 1 << 40
    ) -> None:
        self.store = store
        self.workers = workers
        self.trouble_count = 0
        self.disk_error: Callable[[], None] = lambda: None
        self.counters = BulkCounters()
        self.context = BulkWorkerContext(
            store=store,
            rejects=RejectBudget(1 << 30, 0),
            counters=self.counters,
            decode_turn=trio.CapacityLimiter(1),
            insert_turns=trio.CapacityLimiter(workers),
            refuse_if_full=lambda: self.disk_error(),
            upload_file_bytes_min=upload_file_bytes_min,
            on_trouble=self._on_trouble,
        )
        self.send, self.receive = trio.open_memory_channel[BulkUpload](0)
        self._next = 0

    def _on_trouble(self) -> None:
        self.trouble_count += 1

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Workers; at the end they return by themselves and nothing is left open."""
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for _ in range(self.workers):
                    nursery.start_soon(self._worker)
                yield
                self.send.close()
        self.assert_at_rest()
        assert check_parts(self.store) == []

    async def _worker(self) -> None:
        await bulk.run(self.receive.clone(), context=self.context)

    def assert_at_rest(self) -> None:
        assert self.store.statistics()["open_transactions"] == 0
        assert not self.store.database._leases
        listed = {name for part in self.store.parts.parts for name in part.upload_files}
        assert {path.name for path in self.store.uploads_directory.iterdir()} == listed

    async def upload(
        self, body: bytes | Iterable[bytes], *, whole: bool = True, **settings: Any
    ) -> RequestRecord | IngesterError:
        """Send a body as the lane does; the outcome."""
        self._next += 1
        upload, pieces = upload_of(self._next, **settings)
        await self.send.send(upload)
        parts = _cut(body) if isinstance(body, bytes) else body
        with contextlib.suppress(trio.BrokenResourceError), pieces:
            for part in parts:
                await pieces.send(part)
            if whole:
                await pieces.send(b"")
        await upload.done.wait()
        assert upload.outcome is not None
        return upload.outcome


def _cut(body: bytes) -> Iterable[bytes]:
    return [body[start : start + PIECE] for start in range(0, len(body), PIECE)]


def _lines(count: int, size: int = 0) -> bytes:
    return body_of([event_line(number, size) for number in range(count)])


_LARGE = _lines(70_000, 400)


def _accepted(outcome: RequestRecord | IngesterError) -> int:
    assert isinstance(outcome, RequestRecord), outcome
    return outcome.accepted


# Into the open part, or into a file from the second slice on.
LANES = pytest.mark.parametrize("file_bytes_min", [1 << 40, 1], ids=["part", "mixed"])


@LANES
async def test_an_upload_is_committed_in_slices_and_counted(
    tmp_path: Path, file_bytes_min: int
) -> None:
    body = _lines(60_000, 400) + b"nonsense\n" + _lines(1)
    with opened(tmp_path) as store:
        bench = _Bench(store, upload_file_bytes_min=file_bytes_min)
        async with bench.running():
            outcome = await bench.upload(gzip.compress(body, 1), encoding="gzip")
        assert isinstance(outcome, RequestRecord)
        assert (outcome.accepted, outcome.rejected, outcome.bytes_raw) == (60_001, 1, len(body))
        assert bench.counters.slice_count >= 3
        assert value(store, "SELECT count(*) FROM events") == 60_001
        assert rows(store, "SELECT line_number, reason FROM rejects") == [(60_001, "invalid_json")]
        assert value(store, "SELECT count(DISTINCT batch_id) FROM events") >= 3
        assert value(store, "SELECT max(batch_id) FROM events") == store.ledger.batch_id
        is_file = file_bytes_min < 1 << 40
        assert len(list(store.uploads_directory.iterdir())) == int(is_file)
    with opened(tmp_path) as store:
        assert value(store, "SELECT count(DISTINCT id) FROM events") == 60_001
        assert check_parts(store) == []


async def test_an_empty_body_is_an_upload_too(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        bench = _Bench(store)
        async with bench.running():
            assert _accepted(await bench.upload(b"")) == 0
            assert _accepted(await bench.upload(b"\n\n\n")) == 0
        assert value(store, "SELECT count(*) FROM requests") == 2


def _cut_gzip() -> bytes:
    return gzip.compress(_lines(25_000, 400), 1)[:-4]


def _bad_checksum() -> bytes:
    whole = gzip.compress(_lines(25_000, 400), 1)
    return whole[:-8] + bytes(4) + whole[-4:]


BAD: dict[str, tuple[Callable[[], bytes], dict[str, Any], type[IngesterError]]] = {
    "gzip cut at the end": (_cut_gzip, {"encoding": "gzip"}, MalformedBody),
    "gzip with a wrong checksum": (_bad_checksum, {"encoding": "gzip"}, MalformedBody),
    "no gzip at all": (lambda: _lines(30_000, 400), {"encoding": "gzip"}, MalformedBody),
    "client gone": (lambda: _lines(25_000, 400), {"whole": False}, IngesterError),
    "client gone at once": (lambda: b"", {"whole": False}, IngesterError),
    "too large": (lambda: _lines(25_000, 400), {"output_bytes_max": 8 * MiB}, BodyTooLarge),
    "too wide": (lambda: _lines(110, MiB - 100), {}, BodyTooLarge),
}


@LANES
@pytest.mark.parametrize("kind", BAD)
async def test_a_refused_upload_leaves_nothing_and_the_next_one_is_taken(
    tmp_path: Path, kind: str, file_bytes_min: int
) -> None:
    make, settings, error = BAD[kind]
    if kind == "too wide" and file_bytes_min < 1 << 40:
        pytest.skip("rows of a file are never in one commit")
    with opened(tmp_path, memory_bytes_max=256 * MiB) as store:
        bench = _Bench(store, upload_file_bytes_min=file_bytes_min)
        async with bench.running():
            outcome = await bench.upload(make(), **settings)
            assert isinstance(outcome, error), outcome
            assert not isinstance(outcome, Overloaded)
            assert _accepted(await bench.upload(_lines(20_000))) == 20_000
        assert value(store, "SELECT count(*) FROM events") == 20_000
        assert value(store, "SELECT count(*) FROM requests") == 1
        assert bench.counters.refused_count == 1
        assert bench.context.rejects.kept_bytes == 0


async def test_a_full_disk_between_slices_aborts_with_503_and_asks_for_help(
    tmp_path: Path,
) -> None:
    with opened(tmp_path) as store:
        bench = _Bench(store)
        looks = [0]

        def full_at_the_second_slice() -> None:
            looks[0] += 1
            if looks[0] == 2:
                raise Overloaded("the disk is nearly full")

        bench.disk_error = full_at_the_second_slice
        async with bench.running():
            outcome = await bench.upload(_LARGE)
            assert isinstance(outcome, Overloaded)
            assert bench.trouble_count == 1
            assert _accepted(await bench.upload(_lines(30_000))) == 30_000
        assert value(store, "SELECT count(*) FROM events") == 30_000


def _failing_insert(
    monkeypatch: pytest.MonkeyPatch, error: Callable[[Transaction], Exception], *, at: int
) -> None:
    """The insert number `at` of events raises."""
    real, real_write = Transaction.insert, Transaction.write_upload
    left = [at]

    def count(transaction: Transaction) -> None:
        left[0] -= 1
        if left[0] == 0:
            time.sleep(0.3)  # by now the decoder waits to hand over the next slice
            raise error(transaction)

    def insert(self: Transaction, table: str, *arguments: Any) -> None:
        if table == "events":
            count(self)
        real(self, table, *arguments)

    def write_upload(self: Transaction, *arguments: Any, **named: Any) -> None:
        count(self)
        real_write(self, *arguments, **named)

    monkeypatch.setattr(Transaction, "insert", insert)
    monkeypatch.setattr(Transaction, "write_upload", write_upload)


FAULTS: dict[str, Callable[[Transaction], Exception]] = {
    "broken": lambda transaction: StoreBroken("gone", transaction._lease.generation),
    "busy": lambda _: StoreBusy("no space"),
    "a bug": lambda _: AssertionError("an event with a secret in it"),
    "another bug": lambda _: KeyError("an event with a secret in it"),
}


@pytest.mark.parametrize("at", [1, 3])
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_failed_insert_refuses_the_upload_and_the_worker_goes_on(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fault: str,
    at: int,
) -> None:
    """At 3 it is the upload file that fails."""
    with opened(tmp_path) as store:
        bench = _Bench(store, upload_file_bytes_min=10 * MiB)
        _failing_insert(monkeypatch, FAULTS[fault], at=at)
        async with bench.running():
            outcome = await bench.upload(_LARGE)
            assert isinstance(outcome, IngesterError)
            is_bug = fault.endswith("bug")
            assert isinstance(outcome, Overloaded) == (not is_bug)
            assert bench.counters.fault_count == (1 if is_bug else 0)
            assert _accepted(await bench.upload(_lines(30_000))) == 30_000
        assert store.database.reopened_count == (1 if fault == "broken" else 0)
        assert value(store, "SELECT count(*) FROM events") == 30_000
        assert "secret" not in "".join(capsys.readouterr())


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
async def test_an_upload_announced_as_large_goes_to_its_file_from_the_first_row_on(
    tmp_path: Path, encoding: Encoding
) -> None:
    body = _lines(30_000, 400)
    sent = gzip.compress(body, 1) if encoding == "gzip" else body
    with opened(tmp_path) as store:
        bench = _Bench(store, upload_file_bytes_min=9 * MiB)
        async with bench.running():
            for announced in (len(sent), None):
                outcome = await bench.upload(sent, encoding=encoding, content_length=announced)
                assert _accepted(outcome) == 30_000
        part = store.parts.newest.name
        assert value(store, f"SELECT count(*) FROM {part}.events") == 30_000
        assert value(store, f"SELECT sum(row_count) FROM {part}.upload_files") == 30_000
        assert value(store, "SELECT count(*) FROM events") == 60_000


@LANES
async def test_a_store_that_is_reopened_under_an_upload_refuses_it_once(
    tmp_path: Path, file_bytes_min: int
) -> None:
    with opened(tmp_path) as store:
        bench = _Bench(store, upload_file_bytes_min=file_bytes_min)

        def pieces() -> Iterable[bytes]:
            for number, part in enumerate(_cut(_LARGE)):
                if number == 300:
                    store.recover(store.database.generation)
                yield part

        async with bench.running():
            outcome = await bench.upload(pieces())
            assert isinstance(outcome, Overloaded)
            assert _accepted(await bench.upload(_lines(30_000))) == 30_000
        assert store.database.reopened_count == 1
        assert value(store, "SELECT count(*) FROM events") == 30_000


async def test_an_unknown_commit_tells_the_door_and_ends_the_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as store:
        bench = _Bench(store)

        def commit(self: Transaction, batches: list[AppliedBatch]) -> None:
            raise StoreFailed("the ledger cannot be read")

        monkeypatch.setattr(Transaction, "commit", commit)
        upload, pieces = upload_of(1)
        outcomes: list[object] = []

        async def door() -> None:
            await bench.send.send(upload)
            with pieces:
                await pieces.send(b"")
            with trio.CancelScope(shield=True):
                await upload.done.wait()
            outcomes.append(upload.outcome)

        with pytest.RaisesGroup(StoreFailed):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(door)
                nursery.start_soon(bench._worker)
        assert isinstance(outcomes[0], StoreFailed)
        bench.assert_at_rest()


@LANES
@pytest.mark.parametrize("is_committed", [True, False])
async def test_a_commit_that_raises_is_looked_up_in_the_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_committed: bool, file_bytes_min: int
) -> None:
    real = Store._commit
    left = [1]

    def commit(self: Store, *arguments: Any) -> None:
        if not left[0]:
            real(self, *arguments)
            return
        left[0] -= 1
        if is_committed:
            monkeypatch.setattr(Store, "_publish", lambda *_: None)
            real(self, *arguments)
            monkeypatch.setattr(Store, "_publish", publish)
        raise duckdb.FatalException("FATAL Error: database has been invalidated")

    publish = Store._publish
    monkeypatch.setattr(Store, "_commit", commit)
    with opened(tmp_path) as store:
        bench = _Bench(store, upload_file_bytes_min=file_bytes_min)
        async with bench.running():
            outcome = await bench.upload(_LARGE)
            assert isinstance(outcome, RequestRecord if is_committed else Overloaded), outcome
            assert _accepted(await bench.upload(_lines(10))) == 10
        wanted = 70_010 if is_committed else 10
        assert value(store, "SELECT count(DISTINCT id) FROM events") == wanted
        assert store.database.reopened_count == 1


async def test_cancelling_a_worker_at_any_point_leaves_no_transaction(tmp_path: Path) -> None:
    body = _LARGE
    with opened(tmp_path) as store:
        for limit in [*range(12), 20, 40, 80, 160, 320]:
            bench = _Bench(store, upload_file_bytes_min=limit % 2)
            upload, pieces = upload_of(limit + 1)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(bench._worker)
                await bench.send.send(upload)
                for part in islice(_cut(body), limit):
                    await pieces.send(part)
                nursery.cancel_scope.cancel()
            pieces.close()
            assert upload.done.is_set()
            assert upload.outcome is None
            bench.assert_at_rest()
        assert value(store, "SELECT count(*) FROM requests") == 0
        bench = _Bench(store)
        async with bench.running():
            assert _accepted(await bench.upload(body)) == 70_000


async def test_workers_take_uploads_side_by_side(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        bench = _Bench(store, workers=2)
        outcomes: list[int] = []

        async def one(count: int) -> None:
            outcomes.append(_accepted(await bench.upload(_lines(count))))

        async with bench.running(), trio.open_nursery() as nursery:
            for count in (25_000, 30_000, 35_000, 10):
                nursery.start_soon(one, count)
        assert sorted(outcomes) == [10, 25_000, 30_000, 35_000]
        assert value(store, "SELECT count(*) FROM events") == 90_010


async def test_rejects_of_a_huge_bad_upload_are_bounded_in_number_and_bytes(
    tmp_path: Path,
) -> None:
    """20,000 bad lines of 20 kB: 400 MB, of which 2,000 lines at most and 24 MiB may be kept."""
    with opened(tmp_path, memory_bytes_max=64 * MiB) as store:
        bench = _Bench(store)
        line = b"{" + b"x" * 20_000 + b"\n"
        most = [0]

        def pieces() -> Iterable[bytes]:
            for _ in range(20_000):
                most[0] = max(most[0], bench.context.rejects.kept_bytes)
                yield line

        async with bench.running():
            outcome = await bench.upload(pieces(), rejects_max=2_000)
            assert isinstance(outcome, RequestRecord), outcome
            assert (outcome.accepted, outcome.rejected) == (0, 20_000)
        kept = value(store, "SELECT count(*) FROM rejects")
        kept_bytes = value(store, "SELECT sum(octet_length(line)) FROM rejects")
        assert kept_bytes <= store.pinned_bytes_max
        assert 1_000 < kept < 2_000
        assert kept + bench.context.rejects.dropped_count == 2_000
        assert bench.context.rejects.kept_bytes == kept_bytes == most[0]


async def test_a_refused_upload_does_not_use_up_the_budget_of_rejects(tmp_path: Path) -> None:
    body = body_of([b"bad" * 1000] * 5_000)
    with opened(tmp_path) as store:
        bench = _Bench(store)
        async with bench.running():
            for _ in range(3):
                assert isinstance(await bench.upload(body, whole=False), IngesterError)
                assert bench.context.rejects.kept_bytes == 0
            assert _accepted(await bench.upload(body)) == 0
        assert bench.context.rejects.kept_bytes == 15_000_000


@pytest.mark.parametrize(
    ("memory_mib", "size", "passes", "refused"),
    [(64, MiB - 100, 20, 40), (64, 40_000, 500, 2_000), (256, MiB - 100, 80, 110)],
)
async def test_wide_lines_are_refused_before_the_store_fails_and_moderate_ones_pass(
    tmp_path: Path, memory_mib: int, size: int, passes: int, refused: int
) -> None:
    with opened(tmp_path, memory_bytes_max=memory_mib * MiB) as store:
        bench = _Bench(store)
        async with bench.running():
            assert isinstance(await bench.upload(_lines(refused, size)), BodyTooLarge)
            for _ in range(3):
                assert _accepted(await bench.upload(_lines(passes, size))) == passes
        assert value(store, "SELECT count(*) FROM events") == 3 * passes
        assert store.checkpoint()
        assert bench.counters.refused_count == 1
        assert bench.trouble_count == 0


async def test_many_lines_of_40_kb_pass_with_256_mib_of_memory(tmp_path: Path) -> None:
    """The unfilled row group at the end is 3,616 of 20,000 lines, 145 MB."""
    line = event_line(1)[:-2] + os.urandom(20_000).hex().encode() + b'"}\n'

    def pieces() -> Iterable[bytes]:
        for _ in range(20_000):
            yield line

    with opened(tmp_path, memory_bytes_max=256 * MiB) as store:
        bench = _Bench(store)
        async with bench.running():
            assert _accepted(await bench.upload(pieces())) == 20_000
        assert store.checkpoint()
        assert value(store, "SELECT count(*) FROM events") == 20_000
