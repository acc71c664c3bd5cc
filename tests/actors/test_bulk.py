"""Bulk workers: every way an upload can end, and that the next one is taken."""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb
import pytest
import trio

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
from ingester.store.store import Store, Transaction
from tests.store.stores import opened, rows, value

from .bulk_bench import Bench, MiB, accepted, cut_body, lines
from .requests import upload_of

_LARGE = lines(70_000, 400)


# Into the open part, or into a file from the second slice on.
LANES = pytest.mark.parametrize("file_bytes_min", [1 << 40, 1], ids=["part", "mixed"])


@LANES
async def test_an_upload_is_committed_in_slices_and_counted(
    tmp_path: Path, file_bytes_min: int
) -> None:
    body = lines(60_000, 400) + b"nonsense\n" + lines(1)
    with opened(tmp_path) as store:
        bench = Bench(store, upload_file_bytes_min=file_bytes_min)
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
        bench = Bench(store)
        async with bench.running():
            assert accepted(await bench.upload(b"")) == 0
            assert accepted(await bench.upload(b"\n\n\n")) == 0
        assert value(store, "SELECT count(*) FROM requests") == 2


def _cut_gzip() -> bytes:
    return gzip.compress(lines(25_000, 400), 1)[:-4]


def _bad_checksum() -> bytes:
    whole = gzip.compress(lines(25_000, 400), 1)
    return whole[:-8] + bytes(4) + whole[-4:]


BAD: dict[str, tuple[Callable[[], bytes], dict[str, Any], type[IngesterError]]] = {
    "gzip cut at the end": (_cut_gzip, {"encoding": "gzip"}, MalformedBody),
    "gzip with a wrong checksum": (_bad_checksum, {"encoding": "gzip"}, MalformedBody),
    "no gzip at all": (lambda: lines(30_000, 400), {"encoding": "gzip"}, MalformedBody),
    "client gone": (lambda: lines(25_000, 400), {"whole": False}, IngesterError),
    "client gone at once": (lambda: b"", {"whole": False}, IngesterError),
    "too large": (lambda: lines(25_000, 400), {"output_bytes_max": 8 * MiB}, BodyTooLarge),
    "too wide": (lambda: lines(110, MiB - 100), {}, BodyTooLarge),
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
        bench = Bench(store, upload_file_bytes_min=file_bytes_min)
        async with bench.running():
            outcome = await bench.upload(make(), **settings)
            assert isinstance(outcome, error), outcome
            assert not isinstance(outcome, Overloaded)
            assert accepted(await bench.upload(lines(20_000))) == 20_000
        assert value(store, "SELECT count(*) FROM events") == 20_000
        assert value(store, "SELECT count(*) FROM requests") == 1
        assert bench.counters.refused_count == 1
        assert bench.context.rejects.kept_bytes == 0


async def test_a_full_disk_between_slices_aborts_with_503_and_asks_for_help(
    tmp_path: Path,
) -> None:
    with opened(tmp_path) as store:
        bench = Bench(store)
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
            assert accepted(await bench.upload(lines(30_000))) == 30_000
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
        bench = Bench(store, upload_file_bytes_min=10 * MiB)
        _failing_insert(monkeypatch, FAULTS[fault], at=at)
        async with bench.running():
            outcome = await bench.upload(_LARGE)
            assert isinstance(outcome, IngesterError)
            is_bug = fault.endswith("bug")
            assert isinstance(outcome, Overloaded) == (not is_bug)
            assert bench.counters.fault_count == (1 if is_bug else 0)
            assert accepted(await bench.upload(lines(30_000))) == 30_000
        assert store.database.reopened_count == (1 if fault == "broken" else 0)
        assert value(store, "SELECT count(*) FROM events") == 30_000
        assert "secret" not in "".join(capsys.readouterr())


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
async def test_an_upload_announced_as_large_goes_to_its_file_from_the_first_row_on(
    tmp_path: Path, encoding: Encoding
) -> None:
    body = lines(30_000, 400)
    sent = gzip.compress(body, 1) if encoding == "gzip" else body
    with opened(tmp_path) as store:
        bench = Bench(store, upload_file_bytes_min=9 * MiB)
        async with bench.running():
            for announced in (len(sent), None):
                outcome = await bench.upload(sent, encoding=encoding, content_length=announced)
                assert accepted(outcome) == 30_000
        part = store.parts.newest.name
        assert value(store, f"SELECT count(*) FROM {part}.events") == 30_000
        assert value(store, f"SELECT sum(row_count) FROM {part}.upload_files") == 30_000
        assert value(store, "SELECT count(*) FROM events") == 60_000


@LANES
async def test_a_store_that_is_reopened_under_an_upload_refuses_it_once(
    tmp_path: Path, file_bytes_min: int
) -> None:
    with opened(tmp_path) as store:
        bench = Bench(store, upload_file_bytes_min=file_bytes_min)

        def pieces() -> Iterable[bytes]:
            for number, part in enumerate(cut_body(_LARGE)):
                if number == 300:
                    store.recover(store.database.generation)
                yield part

        async with bench.running():
            outcome = await bench.upload(pieces())
            assert isinstance(outcome, Overloaded)
            assert accepted(await bench.upload(lines(30_000))) == 30_000
        assert store.database.reopened_count == 1
        assert value(store, "SELECT count(*) FROM events") == 30_000


async def test_an_unknown_commit_tells_the_door_and_ends_the_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as store:
        bench = Bench(store)

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
        bench = Bench(store, upload_file_bytes_min=file_bytes_min)
        async with bench.running():
            outcome = await bench.upload(_LARGE)
            assert isinstance(outcome, RequestRecord if is_committed else Overloaded), outcome
            assert accepted(await bench.upload(lines(10))) == 10
        wanted = 70_010 if is_committed else 10
        assert value(store, "SELECT count(DISTINCT id) FROM events") == wanted
        assert store.database.reopened_count == 1


async def test_cancelling_a_worker_at_any_point_leaves_no_transaction(tmp_path: Path) -> None:
    body = _LARGE
    with opened(tmp_path) as store:
        for limit in [*range(12), 20, 40, 80, 160, 320]:
            bench = Bench(store, upload_file_bytes_min=limit % 2)
            upload, pieces = upload_of(limit + 1)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(bench._worker)
                await bench.send.send(upload)
                for part in islice(cut_body(body), limit):
                    await pieces.send(part)
                nursery.cancel_scope.cancel()
            pieces.close()
            assert upload.done.is_set()
            assert upload.outcome is None
            bench.assert_at_rest()
        assert value(store, "SELECT count(*) FROM requests") == 0
        bench = Bench(store)
        async with bench.running():
            assert accepted(await bench.upload(body)) == 70_000


async def test_workers_take_uploads_side_by_side(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        bench = Bench(store, workers=2)
        outcomes: list[int] = []

        async def one(count: int) -> None:
            outcomes.append(accepted(await bench.upload(lines(count))))

        async with bench.running(), trio.open_nursery() as nursery:
            for count in (25_000, 30_000, 35_000, 10):
                nursery.start_soon(one, count)
        assert sorted(outcomes) == [10, 25_000, 30_000, 35_000]
        assert value(store, "SELECT count(*) FROM events") == 90_010
