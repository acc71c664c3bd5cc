"""Files of other releases: older ones are copied before they change, newer ones are left alone."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingester.errors import StoreBusy, StoreFailed
from ingester.store import rollup_file, upgrades
from ingester.store.check import check_parts
from ingester.store.metadata_copy import copy_path, put_back_metadata
from ingester.store.schema import SCHEMA_VERSION
from ingester.store.upgrades import PARQUET_METADATA, maybe_newer_parquet
from ingester.store.upload_files import remove_unlisted
from tests.store.stores import load, opened, value


def make_old(folder: Path) -> None:
    """A part as version 2 left it, with rows in its WAL."""
    with opened(folder) as store:
        load(store, 1, 10)
        with store.database.lease() as lease, lease.using() as cursor:
            for column in ("column_number", "form"):
                cursor.execute(f"ALTER TABLE part_000001.rejects DROP COLUMN {column}")
            cursor.execute("UPDATE part_000001.part_info SET schema_version = 2")


def version_of(folder: Path) -> object:
    with opened(folder) as store:
        assert value(store, "SELECT count(*) FROM requests") == 10
        assert check_parts(store) == []
        return value(store, "SELECT list(schema_version) FROM part_000001.part_info")


def test_an_older_part_is_copied_whole_before_it_is_migrated(tmp_path: Path) -> None:
    make_old(tmp_path)
    assert version_of(tmp_path) == [SCHEMA_VERSION]
    path = tmp_path / "open" / "000001.duckdb"
    copy = path.with_name("000001.duckdb.v2.bak")
    assert copy.stat().st_mode & 0o777 == 0o600
    # The way back: the copy in the place of the file, and nothing beside it.
    for name in (path, path.with_name(f"{path.name}.wal"), copy_path(path)):
        name.unlink(missing_ok=True)
    copy.rename(path)
    assert version_of(tmp_path) == [SCHEMA_VERSION]
    assert copy.exists(), "it was of version 2 again"


def test_without_room_for_the_copy_nothing_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_old(tmp_path)

    def full(path: Path, target: Path) -> None:
        target.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(upgrades, "_copy", full)
        for _ in range(2):
            with pytest.raises((StoreBusy, StoreFailed), match="nothing was changed"):
                version_of(tmp_path)
    assert not list(tmp_path.rglob("*.bak*"))
    assert version_of(tmp_path) == [SCHEMA_VERSION]


def test_a_migration_that_did_not_end_is_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_old(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("ingester.store.parts.VERSION_DDL", {3: ("SELECT error('stopped')",)})
        with pytest.raises(Exception, match="stopped"):
            version_of(tmp_path)
    assert version_of(tmp_path) == [SCHEMA_VERSION]
    assert [path.name for path in tmp_path.rglob("*.bak")] == ["000001.duckdb.v2.bak"]


def test_rollups_of_another_release_are_copied_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as store:
        load(store, 1, 10)
    with monkeypatch.context() as patch:
        patch.setattr(rollup_file, "ROLLUPS_VERSION", 2)
        patch.setattr(rollup_file, "_VERSION_DDL", {2: ("CREATE TABLE {rollups}.notes(n INT)",)})
        with opened(tmp_path):
            assert (tmp_path / "rollups.duckdb.v1.bak").exists()
    with pytest.raises(StoreFailed, match="newer release that wrote it"), opened(tmp_path):
        pass


def test_parquet_of_a_newer_release_is_told_apart_from_a_damaged_one(tmp_path: Path) -> None:
    name = "000001-00000000000000aa-events.parquet"
    path = tmp_path / name
    for version, is_ours in (("1", True), ("2", False), ("x", False)):
        (key,) = PARQUET_METADATA
        pq.write_table(pa.table({"a": [1]}).replace_schema_metadata({key: version}), path)
        assert (maybe_newer_parquet(pq.read_metadata(path)) is None) is is_ours
        if is_ours:
            assert list(remove_unlisted(tmp_path, [name])) == []
        else:
            with pytest.raises(StoreFailed, match="newer release"):
                list(remove_unlisted(tmp_path, [name]))
    pq.write_table(pa.table({"a": [1]}), path)  # as the first release wrote them
    assert list(remove_unlisted(tmp_path, [name])) == []


def test_a_copy_of_metadata_of_a_newer_format_is_not_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "000001.duckdb"
    path.write_bytes(bytes(3 * 4096))
    copy_path(path).write_bytes(b"ingester metadata 2\n" + bytes(100))
    with pytest.raises(StoreFailed, match="newer release"):
        put_back_metadata(path)
    copy_path(path).write_bytes(b"torn")
    assert not put_back_metadata(path)
