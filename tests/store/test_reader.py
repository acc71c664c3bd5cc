"""The operator's SELECT, the folder's lock, a stopped folder, the budget of refused lines."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ingester.config import StoreConfig
from ingester.errors import NotFound, StoreBusy
from ingester.messages import LineReject
from ingester.store import offline
from ingester.store import reader as reader_module
from ingester.store.lock import FolderLock
from ingester.store.reader import QueryRefused, select
from ingester.store.rejects import RejectBudget

from .stores import load, opened, value

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "sql",
    [
        "",
        "   -- nothing",
        "SELEC 1",
        "SELECT 1; SELECT 2",
        "SELECT 1; DELETE FROM part_000001.requests",
        "INSERT INTO part_000001.requests SELECT * FROM part_000001.requests",
        "DELETE FROM part_000001.requests",
        "WITH gone AS (DELETE FROM part_000001.requests RETURNING *) SELECT * FROM gone",
        "WITH new AS (INSERT INTO part_000001.requests SELECT * FROM part_000001.requests "
        "RETURNING 1) SELECT * FROM new",
        "WITH a AS (SELECT 1) INSERT INTO part_000001.requests SELECT * FROM part_000001.requests",
        "PRAGMA database_list",
        ";; /* é */ pragma table_info('requests')",
        "PRAGMA memory_limit='1GB'",
        "SET memory_limit='1GB'",
        "COPY part_000001.requests TO '/dev/null'",
        "COPY (SELECT 1) TO '/dev/null'",
        "ATTACH ':memory:' AS other",
        "DETACH part_000001",
        "CHECKPOINT part_000001",
        "BEGIN",
        "COMMIT",
        "CREATE TABLE memory.main.t(i INTEGER)",
        "EXPLAIN ANALYZE DELETE FROM part_000001.requests",
        "CALL pragma_version()",
        "LOAD httpfs",
        "SELECT * FROM no_such_table",
        "SELECT 1 + 'a'",
        "SELECT * FROM read_csv('/no/such/file.csv')",
        "SELECT $1",
    ],
)
def test_anything_but_one_select_that_works_is_refused(tmp_path: Path, sql: str) -> None:
    with opened(tmp_path) as store:
        load(store, 1, 3)
        with pytest.raises(QueryRefused):
            select(store, sql, seconds_max=10)
        assert value(store, "SELECT count(*) FROM requests") == 3
        assert select(store, "SELECT 1 AS one", seconds_max=10).rows == [(1,)]
        assert not store.database._leases


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("SELECT count(*) AS n FROM requests;", [(3,)]),
        ("FROM requests SELECT count(*)", [(3,)]),
        ("WITH a AS (SELECT 7 AS x) SELECT x FROM a", [(7,)]),
        ("VALUES (1), (2)", [(1,), (2,)]),
        ("SELECT ';'", [(";",)]),
    ],
)
def test_a_select_in_any_form_is_taken(
    tmp_path: Path, sql: str, rows: list[tuple[object, ...]]
) -> None:
    with opened(tmp_path) as store:
        load(store, 1, 3)
        assert select(store, sql, seconds_max=10).rows == rows


def test_a_query_ends_at_its_deadline_and_says_so(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        sql = "SELECT count(*) FROM range(10000000) a, range(10000000) b"
        with pytest.raises(StoreBusy, match=r"longer than 0\.2 s"):
            select(store, sql, seconds_max=0.2)
        assert select(store, "SELECT 1", seconds_max=10).rows == [(1,)]


def test_a_deadline_that_comes_late_does_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        lease = store.database.lease()
        with reader_module._deadline(lease, 0.01) as is_over:
            assert is_over.wait(10)
        lease.close()
        lease.interrupt()
        assert select(store, "SELECT 1", seconds_max=10).rows == [(1,)]


def test_a_result_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "ROWS_MAX", 20_000)
    with opened(tmp_path) as store:
        assert len(select(store, "SELECT * FROM range(20000)", seconds_max=10).rows) == 20_000
        with pytest.raises(QueryRefused, match="LIMIT"):
            select(store, "SELECT * FROM range(20001)", seconds_max=10)
        assert select(store, "SELECT 1", seconds_max=10).rows == [(1,)]


def test_a_reader_sees_one_moment_while_batches_are_committed(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        ends = threading.Event()

        def write() -> None:
            for number in range(1, 200):
                if ends.is_set():
                    return
                load(store, number, 10)

        thread = threading.Thread(target=write)
        thread.start()
        try:
            for _ in range(30):
                ((total, tens),) = select(
                    store,
                    "SELECT (SELECT count(*) FROM requests), "
                    "(SELECT 10 * count(*) FROM part_000001.applied WHERE lane <> 'carry')",
                    seconds_max=10,
                ).rows
                assert total == tens
        finally:
            ends.set()
            thread.join(20)


_HOLD = """
import sys
from pathlib import Path
from ingester.store.lock import FolderLock
FolderLock(Path(sys.argv[1])).acquire()
print("held", flush=True)
sys.stdin.read()
"""


def test_a_folder_in_use_is_refused_with_the_process_that_holds_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _HOLD, str(tmp_path)]
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        with pytest.raises(StoreBusy, match=f"in use by process {child.pid}$"):
            FolderLock(tmp_path).acquire()
        child.kill()
        child.wait(10)
    lock = FolderLock(tmp_path)
    lock.acquire()
    assert (tmp_path / "lock").read_text() == str(os.getpid())
    with pytest.raises(StoreBusy):
        FolderLock(tmp_path).acquire()
    lock.release()
    lock.release()
    again = FolderLock(tmp_path)
    again.acquire()
    again.release()


def test_a_full_disk_does_not_refuse_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    lock = FolderLock(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        lock.acquire()
    with pytest.raises(StoreBusy, match="in use by process"):
        FolderLock(tmp_path).acquire()
    lock.release()


def test_a_stopped_folder_is_read_under_its_lock(tmp_path: Path) -> None:
    config = StoreConfig(data_dir=str(tmp_path))
    with pytest.raises(NotFound):
        offline.query(tmp_path, config, "SELECT 1")
    with opened(tmp_path) as store:
        load(store, 1, 5)
    assert offline.query(tmp_path, config, "SELECT count(*) FROM requests").rows == [(5,)]
    assert offline.check(tmp_path, config) == []
    with pytest.raises(QueryRefused):
        offline.query(tmp_path, config, "DELETE FROM part_000001.requests")
    lock = FolderLock(tmp_path)
    lock.acquire()
    with pytest.raises(StoreBusy):
        offline.query(tmp_path, config, "SELECT 1")
    lock.release()
    assert offline.query(tmp_path, config, "SELECT count(*) FROM requests").rows == [(5,)]


def _rejects(*sizes: int) -> list[LineReject]:
    return [LineReject(i, "invalid_json", "", b"x" * size) for i, size in enumerate(sizes)]


def test_the_reject_budget_keeps_what_fits_and_takes_back_what_was_not_stored() -> None:
    budget = RejectBudget(100, 10)
    assert [len(r.line) for r in budget.take(_rejects(50, 60, 40, 1))] == [50, 40]
    assert (budget.kept_bytes, budget.dropped_count) == (100, 2)
    budget.give_back(40)
    assert [len(r.line) for r in budget.take(_rejects(30, 20, 10), bytes_max=40)] == [30, 10]
    assert (budget.kept_bytes, budget.dropped_count) == (100, 3)
    assert budget.take(_rejects(1), bytes_max=0) == []


def test_the_reject_budget_is_exact_between_threads() -> None:
    budget = RejectBudget(1_000_000, 0)

    def use() -> None:
        for _ in range(3000):
            budget.take(_rejects(3, 4))
            budget.give_back(6)

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert budget.kept_bytes == 4 * 3000
