"""Commits, unknown outcomes, reopening, the ledger's numbers."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import duckdb
import pytest

from ingester.errors import StoreBusy, StoreError, StoreFailed
from ingester.store import database as database_module
from ingester.store import store as store_module
from ingester.store.database import Cursor, StoreBroken, StoreOutOfMemory
from ingester.store.ledger import AppliedBatch
from ingester.store.reader import check_parts
from ingester.store.store import Store

from .stores import fail_next, insert, load, opened, rows, value

JOIN_S = 20.0


def _run(*functions: Callable[[], object]) -> None:
    """Run all at once; raise what they raise, and fail when one does not return."""
    errors: list[BaseException] = []

    def guarded(function: Callable[[], object]) -> None:
        try:
            function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=[f], daemon=True) for f in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(JOIN_S)
    assert not any(thread.is_alive() for thread in threads), "deadlock"
    if errors:
        raise errors[0]


def _fatal(_: Cursor) -> None:
    raise duckdb.FatalException("FATAL Error: database has been invalidated")


def _not_written(_: Cursor) -> None:
    raise duckdb.TransactionException("Failed to commit: No space left on device")


def _pinned(_: Cursor) -> None:
    raise duckdb.TransactionException("Failed to commit: failed to pin block of size 1.0 MiB")


def _interrupted(_: Cursor) -> None:
    raise duckdb.InterruptException("Interrupted!")


def _out_of_memory(_: Cursor) -> None:
    raise duckdb.OutOfMemoryException("could not allocate block of size 256.0 KiB")


def _odd(_: Cursor) -> None:
    raise duckdb.ConversionException("no such thing")


def _after(fault: Callable[[Cursor], None]) -> Callable[[Cursor], None]:
    """The same error, but the COMMIT has happened."""

    def commit_and_fail(cursor: Cursor) -> None:
        cursor.execute("COMMIT")
        fault(cursor)

    return commit_and_fail


NEWEST_COMMIT = "SELECT max(commit_number) FROM part_000001.applied"
FAULTS = [_fatal, _not_written, _pinned, _interrupted, _out_of_memory, _odd]


def test_a_commit_is_all_or_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        with store.begin("bulk") as transaction:
            insert(store, transaction, 1, 50_000)
            assert value(store, "SELECT count(*) FROM requests") == 0
        assert value(store, "SELECT count(*) FROM requests") == 0
        assert store.ledger.applied_seq == 0
        load(store, 2, 50_000)
        assert value(store, "SELECT count(*) FROM requests") == 50_000
        assert store.ledger.applied_seq == 2
        assert store.statistics()["open_transactions"] == 0
        assert not store.database._leases
    with opened(tmp_path) as store:
        assert value(store, "SELECT count(*) FROM requests") == 50_000
        assert check_parts(store) == []


@pytest.mark.parametrize("fault", FAULTS)
def test_a_commit_error_before_it_happened_says_that_nothing_is_stored(
    tmp_path: Path, fault: Callable[[Cursor], None]
) -> None:
    with opened(tmp_path) as store:
        load(store, 1)
        with store.begin("small") as transaction:
            batch = insert(store, transaction, 2)
            fail_next(transaction, fault)
            wanted = StoreError if fault is _odd else StoreBusy
            with pytest.raises(wanted) as raised:
                transaction.commit([batch])
        assert isinstance(raised.value, StoreOutOfMemory) == (fault in (_pinned, _out_of_memory))
        assert not isinstance(raised.value, StoreFailed)
        assert rows(store, "SELECT count(*) FROM requests") == [(1,)]
        assert store.ledger.applied_seq == 1
        # Cursors may stand there, and the number that failed may be given again after a start.
        assert store.snapshot().commit_number == value(store, NEWEST_COMMIT) == 1
        load(store, 2)
        assert store.snapshot().commit_number == value(store, NEWEST_COMMIT) == 3
        assert value(store, "SELECT count(*) FROM requests") == 2
        assert check_parts(store) == []


@pytest.mark.parametrize("fault", FAULTS)
def test_a_commit_error_after_it_happened_is_a_success(
    tmp_path: Path, fault: Callable[[Cursor], None]
) -> None:
    with opened(tmp_path) as store:
        with store.begin("small") as transaction:
            batch = insert(store, transaction, 1)
            fail_next(transaction, _after(fault))
            transaction.commit([batch])
        assert store.ledger.applied_seq == 1
        assert store.commit_count == 1
        assert store.snapshot().commit_number == value(store, NEWEST_COMMIT) == 1
        assert value(store, "SELECT count(*) FROM requests") == 1
        assert store.statistics()["reopened_total"] == (1 if fault is _fatal else 0)
        assert check_parts(store) == []


@pytest.mark.parametrize("statement", ["BEGIN", "COMMIT"])
def test_a_broken_store_loads_the_same_batch_once_after_recovering(
    tmp_path: Path, statement: str
) -> None:
    with opened(tmp_path) as store:
        for attempt in range(3):
            try:
                with store.begin("small") as transaction:
                    if attempt == 0:
                        fail_next(transaction, _fatal, statement=statement)
                    transaction.commit([insert(store, transaction, 1)])
            except StoreBusy as error:
                assert attempt == 0
                if isinstance(error, StoreBroken):
                    store.recover(error.generation)
            if store.ledger.applied_seq == 1:
                break
        assert value(store, "SELECT count(*) FROM requests") == 1
        assert check_parts(store) == []


def test_threads_that_see_the_same_failure_reopen_once_and_all_wait_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as store:
        load(store, 1)
        _slow_attach(store, monkeypatch)

        def meet() -> None:
            store.recover(0)
            assert value(store, "SELECT count(*) FROM requests") == 1

        _run(meet, meet, meet, meet)
        assert store.database.reopened_count == 1
        assert store.database.generation == 1


def test_an_idle_transaction_never_blocks_reopening_and_is_dead_afterwards(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        with store.begin("bulk") as transaction:
            insert(store, transaction, 1, 20_000)
            began = time.monotonic()
            store.recover(0)
            assert time.monotonic() - began < JOIN_S
            with pytest.raises(StoreBroken) as raised, transaction._lease.using():
                pass
            store.recover(raised.value.generation)
            assert store.database.reopened_count == 1
            with pytest.raises(StoreBroken):
                transaction.insert("requests", transaction._feeds["requests"].table)
            with pytest.raises(StoreBusy):
                transaction.commit([AppliedBatch(1, "bulk", 0, 0, 0, 1)])
        assert value(store, "SELECT count(*) FROM requests") == 0
        assert store.statistics()["open_transactions"] == 0
        assert not store.database._leases


def test_reopening_interrupts_what_is_under_way_even_between_statements(tmp_path: Path) -> None:
    """A first interrupt that finds no statement running is lost."""
    with opened(tmp_path) as store:
        is_in_use = threading.Event()

        def read() -> None:
            with store.database.lease() as lease, suppress(StoreBusy), lease.using() as cursor:
                is_in_use.set()
                time.sleep(0.2)
                cursor.execute("SELECT count(*) FROM range(1000000) a, range(1000000) b").fetchall()
                raise AssertionError("it was not interrupted")

        def reopen() -> None:
            is_in_use.wait(JOIN_S)
            store.recover(0)

        _run(read, reopen)
        assert store.database.reopened_count == 1


def test_a_commit_that_waits_at_the_gate_lets_the_store_be_reopened(tmp_path: Path) -> None:
    """The waiting commit is in use, and whoever holds the gate is too: neither waits for us."""
    with opened(tmp_path) as store:
        store._gate.acquire()
        is_waiting = threading.Event()
        stored: list[int] = []

        def commit() -> None:
            with store.begin("small") as transaction, suppress(StoreBusy):
                batch = insert(store, transaction, 1)
                is_waiting.set()
                transaction.commit([batch])
                stored.append(1)

        def reopen() -> None:
            is_waiting.wait(JOIN_S)
            store.recover(0)

        def release() -> None:
            is_waiting.wait(JOIN_S)
            time.sleep(0.3)
            store._gate.release()

        _run(commit, reopen, release)
        assert value(store, "SELECT count(*) FROM requests") == len(stored)
        assert store.database.reopened_count == 1


def test_an_unknown_commit_waits_for_another_threads_reopening(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as store:
        with store.begin("small") as transaction:
            batch = insert(store, transaction, 1)

            def commit_while_reopening(cursor: Cursor) -> None:
                cursor.execute("COMMIT")
                _slow_attach(store, monkeypatch)
                other.start()
                time.sleep(0.05)
                raise duckdb.InterruptException("Interrupted!")

            other = threading.Thread(target=store.recover, args=[0], daemon=True)
            fail_next(transaction, commit_while_reopening)
            transaction.commit([batch])
            other.join(JOIN_S)
        assert value(store, "SELECT count(*) FROM requests") == 1


def test_an_unknown_commit_is_never_called_not_stored_while_the_ledger_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as store:
        with store.begin("small") as transaction:
            batch = insert(store, transaction, 1)
            fail_next(transaction, _after(_fatal))
            _failing_attach(store, monkeypatch, times=3)
            transaction.commit([batch])
        assert value(store, "SELECT count(*) FROM requests") == 1
        assert store.database.reopened_count == 1

        monkeypatch.setattr(store_module, "_FIND_OUT_S", 0.3)
        with store.begin("small") as transaction:
            batch = insert(store, transaction, 2)
            fail_next(transaction, _after(_fatal))
            _failing_attach(store, monkeypatch, times=10_000)
            with pytest.raises(StoreFailed):
                transaction.commit([batch])


def test_a_store_that_could_not_be_reopened_is_tried_again_by_the_next_who_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as store:
        load(store, 1)
        _failing_attach(store, monkeypatch, times=1)
        with pytest.raises(StoreBusy, match="cannot open"):
            store.recover(0)
        with pytest.raises(StoreBroken) as raised:
            store.begin("small")
        assert store.statistics()["open_transactions"] == 0
        store.recover(raised.value.generation)
        load(store, 2)
        assert value(store, "SELECT count(*) FROM requests") == 2

        _failing_attach(store, monkeypatch, times=10_000)
        monkeypatch.setattr(database_module, "_REOPEN_FAILURES_MAX", 3)
        for _ in range(2):
            with pytest.raises(StoreBusy):
                store.recover(store.database.generation)
        with pytest.raises(StoreFailed):
            store.recover(store.database.generation)


def test_nothing_is_lost_or_blocked_when_everything_happens_at_once(tmp_path: Path) -> None:
    """Loader, uploads, checkpoints, rotations, queries and reopenings side by side."""
    with opened(tmp_path) as store:
        ends_at = time.monotonic() + 3.0
        acknowledged: list[int] = []
        sequence = threading.Lock()
        numbers = iter(range(1, 1_000_000))
        choice = random.Random(7)

        def load_batches(row_count: int) -> None:
            while time.monotonic() < ends_at:
                with sequence:
                    number = next(numbers)
                try:
                    load(store, number, row_count)
                    acknowledged.append(row_count)
                except StoreBroken as error:
                    store.recover(error.generation)
                except StoreBusy:
                    continue

        def look(action: Callable[[], object], pause_s: float) -> Callable[[], None]:
            def repeat() -> None:
                while time.monotonic() < ends_at:
                    try:
                        action()
                    except StoreBroken as error:
                        store.recover(error.generation)
                    except StoreBusy:
                        pass
                    time.sleep(pause_s * choice.random())

            return repeat

        _run(
            lambda: load_batches(3),
            lambda: load_batches(5_000),
            look(lambda: store.checkpoint(beside_writers=True), 0.1),
            look(store.checkpoint, 0.1),
            look(store.rotate, 0.5),
            look(lambda: value(store, "SELECT count(DISTINCT request_id) FROM requests"), 0.01),
            look(lambda: store.recover(store.database.generation), 0.4),
        )
        found = value(store, "SELECT count(*) FROM requests")
        assert found == sum(acknowledged)
        assert store.database.reopened_count > 2
        assert store.statistics()["open_transactions"] == 0
        assert check_parts(store) == []
    with opened(tmp_path) as store:
        assert value(store, "SELECT count(*) FROM requests") == found
        assert check_parts(store) == []


def test_batch_and_commit_numbers_are_never_reused_or_reordered(tmp_path: Path) -> None:
    choice = random.Random(3)
    taken: list[int] = []
    number = 0
    for _ in range(4):
        with opened(tmp_path) as store:
            for _ in range(15):
                number += 1
                taken.append(_one_change(store, number, choice))
            commits = _all_commits(store)
            assert check_parts(store) == []
            newest = commits[-1][0]
            assert store.ledger.commit_number >= newest
    assert len(set(taken)) == len(taken)
    assert [c for c, _, _ in commits] == sorted({c for c, _, _ in commits})
    assert len({b for _, b, _ in commits}) == len(commits)
    assert [s for _, _, s in commits] == sorted(s for _, _, s in commits)


def _one_change(store: Store, number: int, choice: random.Random) -> int:
    """Commit under `number`, with something unpleasant before it; the batch number taken."""
    kind = choice.choice(["plain", "rolled back", "lost", "rotate", "reopen", "checkpoint"])
    if kind == "rolled back":
        with store.begin("bulk") as transaction:
            insert(store, transaction, number)
    elif kind == "lost":
        with store.begin("small") as transaction:
            batch = insert(store, transaction, number)
            fail_next(transaction, _fatal)
            with pytest.raises(StoreBusy):
                transaction.commit([batch])
    elif kind == "rotate":
        store.rotate()
    elif kind == "reopen":
        store.recover(store.database.generation)
    elif kind == "checkpoint":
        assert store.checkpoint()
    return load(store, number).batch_id


def _all_commits(store: Store) -> list[tuple[int, int, int]]:
    found: list[tuple[int, int, int]] = []
    for part in store.parts.parts:
        found += rows(
            store,
            f"SELECT commit_number, batch_id, last_seq FROM {part.name}.applied "
            "WHERE lane <> 'carry'",
        )
    return sorted(found)


def test_several_batches_of_one_commit_take_a_commit_number_each(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        with store.begin("bulk") as transaction:
            first = insert(store, transaction, 1)
            others = [
                AppliedBatch(store.ledger.take_batch_id(), "bulk", 0, 0, 0, 1) for _ in range(300)
            ]
            transaction.commit([first, *others])
        load(store, 2)
        numbers = rows(store, "SELECT commit_number FROM part_000001.applied WHERE lane <> 'carry'")
        assert [n for (n,) in numbers] == list(range(1, 303))


def _slow_attach(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    attach = store._attach

    def slowly(cursor: Cursor) -> None:
        time.sleep(0.3)
        attach(cursor)

    monkeypatch.setattr(store.database, "_attach", slowly)


def _failing_attach(store: Store, monkeypatch: pytest.MonkeyPatch, *, times: int) -> None:
    """Opening fails so many times, then it works."""
    left = [times]

    def attach(cursor: Cursor) -> None:
        if left[0]:
            left[0] -= 1
            raise duckdb.IOException("IO Error: the disk has a moment of trouble")
        store._attach(cursor)

    monkeypatch.setattr(store.database, "_attach", attach)
