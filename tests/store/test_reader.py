"""The folder's lock, a stopped folder, the budget of refused lines."""

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
from ingester.store.lock import FolderLock
from ingester.store.rejects import RejectBudget

from .stores import load, opened, value

REPOSITORY = Path(__file__).resolve().parents[2]


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
    with pytest.raises(NotFound), offline.opened_store(tmp_path, config):
        pass
    with opened(tmp_path) as store:
        load(store, 1, 5)
    with offline.opened_store(tmp_path, config) as store:
        assert value(store, "SELECT count(*) FROM requests") == 5
    lock = FolderLock(tmp_path)
    lock.acquire()
    with pytest.raises(StoreBusy), offline.opened_store(tmp_path, config):
        pass
    lock.release()


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
