"""Checkpoints that are cut off: at points that DuckDB names, and at any moment."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ingester.store.check import inspect_folder
from ingester.store.database import StoreBroken
from ingester.store.rollups import Rollups
from tests.store.stores import load, opened, value

HEADERS = 3 * 4096


def headers(folder: Path) -> list[bytes]:
    files = [folder / "open" / "000001.duckdb", folder / "rollups.duckdb"]
    return [path.read_bytes()[:HEADERS] for path in files]


def test_nothing_is_checkpointed_without_a_copy_when_a_store_is_opened_again_or_closed(
    tmp_path: Path,
) -> None:
    with opened(tmp_path) as store:
        load(store, 1, 50)
        Rollups(store).step()
        before = headers(tmp_path)
        store.recover(store.database.generation)
        assert headers(tmp_path) == before
        assert value(store, "SELECT count(*) FROM requests") == 50
    assert headers(tmp_path) == before
    with opened(tmp_path) as store:
        assert value(store, "SELECT count(*) FROM requests") == 50
        assert Rollups(store).commit_number == store.ledger.commit_number


@pytest.mark.parametrize(
    "point", ["BEFORE_HEADER", "AFTER_FREE_LIST_WRITE", "BEFORE_TRUNCATE", "BEFORE_WAL_FINISH"]
)
def test_a_checkpoint_that_ends_anywhere_costs_no_row(tmp_path: Path, point: str) -> None:
    with opened(tmp_path) as store:
        load(store, 1, 50)
        store.checkpoint()
        load(store, 2, 70)
        with store.database.lease() as lease, lease.using() as cursor:
            cursor.execute(f"SET GLOBAL debug_checkpoint_abort = '{point}'")
        with pytest.raises(StoreBroken):
            store.checkpoint()
    # A checkpoint that failed leaves the files as a kill does: nothing writes to them any more.
    assert inspect_folder(tmp_path).problems == []
    for _ in range(2):
        with opened(tmp_path) as store:
            assert value(store, "SELECT count(*) FROM requests") == 50 + 70
            store.checkpoint()


def kill(folder: Path, count: int, seed: int) -> dict[str, object]:
    command = [sys.executable, "-m", "tests.store.checkpoint_killer", str(folder)]
    done = subprocess.run(
        [*command, str(count), str(seed)], capture_output=True, text=True, check=True
    )
    report: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    assert report["wrong"] == []
    assert report["rounds"] == count
    return report


def test_whatever_moment_a_process_is_killed_at_all_that_was_committed_is_there(
    tmp_path: Path,
) -> None:
    kill(tmp_path, 4, 1)


@pytest.mark.long
def test_hundreds_of_kills_cost_no_row(tmp_path: Path) -> None:
    report = kill(tmp_path, 300, 2)
    # Else it was never in the midst of a block.
    assert report["put_back"]
