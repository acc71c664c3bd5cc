"""A checkpoint that is cut off in the midst of a metadata block costs no row."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from ingester.errors import StoreBusy
from ingester.store.check import check_parts, inspect_folder
from ingester.store.database import Cursor
from ingester.store.metadata_copy import copy_path, keep_metadata, put_back_metadata
from ingester.store.rollups import Rollups
from ingester.store.store import Store
from tests.store.sealing_rows import seal_all
from tests.store.stores import load, opened, value

BLOCK = 262_144
HEADERS = 3 * 4096


class Torn(BaseException):
    """The process ends here."""


def torn(before: bytes, after: bytes) -> bytes:
    """As `kill -9` leaves a file: data blocks of the checkpoint are there, a page of its first
    metadata block, and not its header.
    """
    half = HEADERS + 4096  # a page
    return before[:HEADERS] + after[HEADERS:half] + before[half : HEADERS + BLOCK] + after[
        HEADERS + BLOCK :
    ]  # fmt: skip


def count(store: Store) -> int:
    return int(value(store, "SELECT count(*) FROM requests"))


def filled(folder: Path) -> None:
    with opened(folder) as store:
        for number in range(1, 4):
            load(store, number, 50)
            store.checkpoint()


def tear(folder: Path, name: str, change: Callable[[Store], None], path: Path) -> None:
    """What `change` has brought is in the WAL; its checkpoint is cut off."""
    with opened(folder) as store:
        change(store)
        with store.database.lease() as lease, lease.using() as cursor:
            assert keep_metadata(cursor, name, path)
        before = path.read_bytes()  # closing it drops DuckDB's lock, which nobody asks for here
        wal = path.with_name(f"{path.name}.wal")
        log = wal.read_bytes()
        with store.database.lease() as lease, lease.using() as cursor:
            cursor.execute(f"CHECKPOINT {name}")
        after = path.read_bytes()
        kept = copy_path(path).read_bytes()
    path.write_bytes(torn(before, after))
    wal.write_bytes(log)
    copy_path(path).write_bytes(kept)


def test_a_part_with_torn_metadata_is_attached_with_all_of_its_rows(tmp_path: Path) -> None:
    filled(tmp_path)
    path = tmp_path / "open" / "000001.duckdb"

    def more(store: Store) -> None:
        load(store, 9, 70)

    tear(tmp_path, "part_000001", more, path)
    with pytest.raises(duckdb.IOException, match="checksum"):
        duckdb.connect(str(path), read_only=True)
    with opened(tmp_path) as store:
        assert count(store) == 3 * 50 + 70
        store.checkpoint()
    with opened(tmp_path) as store:
        assert count(store) == 3 * 50 + 70


@pytest.mark.parametrize("name", ["part_000001", "rollups"])
def test_a_check_of_a_stopped_folder_finds_torn_metadata_in_order(
    tmp_path: Path, name: str
) -> None:
    filled(tmp_path)
    with opened(tmp_path) as store:
        Rollups(store).maybe_checkpoint(bytes_min=1)

    def more(store: Store) -> None:
        load(store, 4, 70)
        Rollups(store).step()

    path = {
        "part_000001": tmp_path / "open" / "000001.duckdb",
        "rollups": tmp_path / "rollups.duckdb",
    }[name]
    tear(tmp_path, name, more, path)
    with pytest.raises(duckdb.IOException, match="checksum"):
        duckdb.connect(str(path), read_only=True)
    found = inspect_folder(tmp_path)
    assert (found.problems, found.damaged, found.are_rollups_lost) == ([], {}, False)


def test_a_block_whose_checksum_does_not_hold_is_not_copied(tmp_path: Path) -> None:
    filled(tmp_path)
    path = tmp_path / "open" / "000001.duckdb"
    with opened(tmp_path) as store:
        load(store, 9, 70)
        with store.database.lease() as lease, lease.using() as cursor:
            with path.open("r+b") as file:
                file.seek(HEADERS + BLOCK - 8)
                file.write(b"torn off")
            assert keep_metadata(cursor, "part_000001", path)
        broken = path.read_bytes()
    assert put_back_metadata(path) is False
    assert path.read_bytes() == broken


def test_rollups_with_torn_metadata_are_attached(tmp_path: Path) -> None:
    filled(tmp_path)
    with opened(tmp_path) as store:
        Rollups(store).maybe_checkpoint(bytes_min=1)

    def step(store: Store) -> None:
        load(store, 9, 70)
        Rollups(store).step()

    tear(tmp_path, "rollups", step, tmp_path / "rollups.duckdb")
    with opened(tmp_path) as store:
        rollups = Rollups(store)
        assert rollups.commit_number == store.ledger.commit_number


def test_a_file_that_is_whole_is_not_written_to(tmp_path: Path) -> None:
    filled(tmp_path)
    path = tmp_path / "open" / "000001.duckdb"
    with opened(tmp_path) as store:
        load(store, 9, 70)
        with store.database.lease() as lease, lease.using() as cursor:
            assert keep_metadata(cursor, "part_000001", path)
        before = path.read_bytes()
        kept = copy_path(path).read_bytes()
        wal = path.with_name(f"{path.name}.wal").read_bytes()
    # As if it had been killed between the copy and the checkpoint.
    path.write_bytes(before)
    path.with_name(f"{path.name}.wal").write_bytes(wal)
    copy_path(path).write_bytes(kept)
    assert put_back_metadata(path) is False
    assert path.read_bytes() == before
    with opened(tmp_path) as store:
        assert count(store) == 3 * 50 + 70


def test_a_copy_of_another_checkpoint_is_not_put_back(tmp_path: Path) -> None:
    filled(tmp_path)
    path = tmp_path / "open" / "000001.duckdb"
    with opened(tmp_path) as store:
        load(store, 9, 70)
        store.checkpoint()
    # The copy is of before that checkpoint, which has come to its end.
    whole = path.read_bytes()
    assert put_back_metadata(path) is False
    assert path.read_bytes() == whole
    copy_path(path).write_bytes(copy_path(path).read_bytes()[:-1])
    assert put_back_metadata(path) is False
    copy_path(path).unlink()
    assert put_back_metadata(path) is False


def test_headers_whose_sync_may_have_failed_are_written_and_synced_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path)
    path = tmp_path / "open" / "000001.duckdb"
    with opened(tmp_path) as store:
        load(store, 9, 70)
        store.checkpoint()
    synced: list[Path] = []
    sync = os.fsync

    def note(descriptor: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    assert put_back_metadata(path) is False
    assert synced == [path]
    with opened(tmp_path) as store:
        assert count(store) == 3 * 50 + 70


def test_a_disk_that_fails_while_a_file_is_attached_puts_the_reopening_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path)
    with opened(tmp_path) as store:
        load(store, 9, 70)
        store.checkpoint()

        def fail(_: int) -> None:
            raise OSError(errno.EIO, "Input/output error")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fail)
            with pytest.raises(StoreBusy, match="Input/output error"):
                store.recover(store.database.generation)
        store.recover(store.database.generation)
        assert count(store) == 3 * 50 + 70


def test_without_room_for_the_copy_there_is_a_checkpoint_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as store:
        load(store, 1, 50)

        def full(_descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            assert store.checkpoint()
        assert store.wal_bytes() == 0
        assert list((tmp_path / "open").glob("*.partial")) == []


def test_commits_do_not_wait_for_the_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(tmp_path) as store:
        load(store, 1, 50)
        kept: list[int] = []

        def keep(cursor: Cursor, name: str, path: Path) -> bool:
            load(store, 2, 70)
            kept.append(count(store))
            return keep_metadata(cursor, name, path)

        monkeypatch.setattr("ingester.store.store.keep_metadata", keep)
        assert store.checkpoint()
        assert kept == [50 + 70]
        assert store.wal_bytes() == 0


def test_a_copy_goes_with_its_part_and_is_no_stranger(tmp_path: Path) -> None:
    filled(tmp_path)
    assert copy_path(tmp_path / "open" / "000001.duckdb").exists()
    with opened(tmp_path) as store:
        assert check_parts(store) == []
        store.rotate()
        assert seal_all(store) == 1
        assert list((tmp_path / "open").glob("000001*")) == []
