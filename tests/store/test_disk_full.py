"""A full disk under the open part: nothing committed is lost, and space comes back."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from ingester.errors import StoreBusy, StoreError
from ingester.store.database import StoreBroken
from ingester.store.reader import check_parts
from ingester.store.store import Store

from .conftest import Disk
from .stores import insert, load, opened, value

pytestmark = pytest.mark.root

MiB = 1024 * 1024


def _load_until_full(store: Store) -> int:
    """Batches loaded."""
    for number in range(1, 2000):
        try:
            load(store, number, 2000)
        except StoreBroken:
            raise
        except StoreBusy:
            return number - 1
    raise AssertionError("the disk was never full")


def _recovering(store: Store) -> bool:
    """One checkpoint; the store is reopened when it fails."""
    try:
        return store.checkpoint()
    except StoreBroken as error:
        store.recover(error.generation)
        return False


def test_a_failed_checkpoint_loses_no_committed_row(disk: Disk) -> None:
    folder = disk(12)
    with opened(folder / "data") as store:
        batches = _load_until_full(store)
        assert value(store, "SELECT count(*) FROM requests") == batches * 2000
        for failures in (1, 2):
            assert not _recovering(store)
            assert store.checkpoint_failure_count == failures
            assert value(store, "SELECT count(*) FROM requests") == batches * 2000
            assert store.ledger.applied_seq == batches
        disk(64)
        assert _recovering(store)
        load(store, batches + 1)
        assert value(store, "SELECT count(*) FROM requests") == batches * 2000 + 1
        assert check_parts(store) == []
    with opened(folder / "data") as store:
        assert value(store, "SELECT count(*) FROM requests") == batches * 2000 + 1


def test_a_full_disk_does_not_keep_the_store_from_opening(disk: Disk) -> None:
    folder = disk(12)
    store = _opened_and_full(folder)
    count = value(store, "SELECT count(*) FROM requests")
    store.close()
    with opened(folder / "data") as store:
        assert value(store, "SELECT count(*) FROM requests") == count
        with pytest.raises(StoreBusy):
            load(store, 10_000, 40_000)
        with pytest.raises(StoreError):
            store.rotate()
        disk(64)
        load(store, 10_000)
        store.rotate()
        load(store, 10_001)
        assert value(store, "SELECT count(*) FROM requests") == count + 2
        assert check_parts(store) == []


def _opened_and_full(folder: Path) -> Store:
    with opened(folder / "data") as store:
        _load_until_full(store)
    # Closing has made a checkpoint if it could; fill what it gave back.
    filler = (folder / "stranger").open("wb")
    with filler, suppress(OSError):
        while True:
            filler.write(bytes(64 * 1024))
            filler.flush()
    again = Store(folder / "data", store.config)
    again.open()
    return again


def test_space_comes_back_after_enospc_in_the_middle_of_an_upload(disk: Disk) -> None:
    folder = disk(24)
    with opened(folder / "data") as store:
        load(store, 1)
        assert store.checkpoint()
        free_before = store.free_bytes()
        with store.begin("bulk") as upload, suppress(StoreBusy):
            for number in range(2, 500):
                insert(store, upload, number, 20_000, random_bytes=100)
        assert store.free_bytes() < free_before - 8 * MiB
        assert store.statistics()["open_transactions"] == 0
        assert _recovering(store)
        assert store.free_bytes() > free_before - MiB
        load(store, 2)
        assert value(store, "SELECT count(*) FROM requests") == 2
        assert check_parts(store) == []
