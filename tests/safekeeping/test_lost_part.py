"""The newest part is lost, or commits with its WAL: what comes next takes nothing from it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from ingester.safekeeping.backup import BackupSource, back_up
from ingester.safekeeping.check import check_folder, check_running
from ingester.safekeeping.copies import Pace
from ingester.safekeeping.manifest import BackupFailed, read_manifest
from ingester.safekeeping.repair import repair_folder
from ingester.store.control.copying import maybe_manifest
from ingester.store.lost import LEAP
from ingester.store.offline import opened_store
from ingester.store.rollups import Rollups
from ingester.store.store import Store
from tests.safekeeping.folders import (
    acknowledge,
    config_of,
    everything,
    filled,
    requests,
    rolled_up,
    started,
    upload,
)
from tests.store.stores import value

Rows = dict[str, list[tuple[Any, ...]]]


def _uploads(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "uploads").glob("*.parquet"))


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Rows, list[Any]]:
    folder = filled(tmp_path_factory.mktemp("sound") / "data")
    with started(folder) as opened:
        days = rolled_up(opened)
        return folder, everything(opened.store), days


@pytest.fixture
def folder(sound: tuple[Path, Rows, list[Any]], tmp_path: Path) -> Path:
    shutil.copytree(sound[0], tmp_path / "data")
    return tmp_path / "data"


def _assert_repaired(folder: Path, sound: tuple[Path, Rows, list[Any]]) -> None:
    assert check_folder(folder) != []
    found = repair_folder(config_of(folder))
    assert found.problems == [], found
    with started(folder) as opened:
        found_rows = everything(opened.store)
        assert found_rows["events"] == sound[1]["events"]
        assert found_rows["rejects"] == sound[1]["rejects"]
        numbers = [row[0] for row in found_rows["requests"]]
        assert numbers == [row[0] for row in sound[1]["requests"]]
        assert rolled_up(opened) == sound[2]
    assert check_folder(folder) == []


def test_starts_without_the_newest_part_keep_its_upload_files(
    folder: Path, sound: tuple[Path, Rows, list[Any]]
) -> None:
    before = _uploads(folder)
    (folder / "open" / "000002.duckdb").unlink()
    for _ in range(2):
        with started(folder) as opened:
            assert [part.number for part in opened.store.parts.parts] == [1, 3]
            assert opened.store.missing_parts == [2]
            assert opened.store.kept_files == [before[1]]
            told = check_running(opened.store, folder, at_start=())
        names = [problem.partition(":")[0] for problem in told]
        assert names == ["open/000002.duckdb", "open/", f"uploads/{before[1]}"]
        assert [problem.partition(":")[0] for problem in check_folder(folder)] == names
        assert _uploads(folder) == before
    _assert_repaired(folder, sound)
    assert _uploads(folder) == before


def test_a_number_is_not_given_twice_when_nothing_bears_it_but_the_manifest(
    folder: Path, sound: tuple[Path, Rows, list[Any]]
) -> None:
    (folder / "open" / "000002.duckdb").unlink()
    shutil.rmtree(folder / "export")
    for path in (folder / "uploads").glob("000002-*"):
        path.rename(folder / path.name)
    with started(folder) as opened:
        assert opened.store.parts.newest.number == 3
    for path in folder.glob("000002-*"):
        path.rename(folder / "uploads" / path.name)
    _assert_repaired(folder, sound)


def test_a_number_is_not_given_twice_when_only_an_upload_file_bears_it(
    folder: Path, sound: tuple[Path, Rows, list[Any]]
) -> None:
    """control.sqlite of a release that did not keep the number, or a lost one."""
    (folder / "open" / "000002.duckdb").unlink()
    for path in folder.glob("control.sqlite*"):
        path.unlink()
    before = _uploads(folder)
    with started(folder) as opened:
        assert opened.store.parts.newest.number == 3
    assert _uploads(folder) == before
    _assert_repaired(folder, sound)


def test_all_parts_may_be_lost_before_a_start(
    folder: Path, sound: tuple[Path, Rows, list[Any]]
) -> None:
    before = _uploads(folder)
    for path in (folder / "open").iterdir():
        path.unlink()
    with started(folder) as opened:
        assert opened.store.parts.newest.number == 3
        assert opened.store.ledger.commit_number > LEAP
    assert _uploads(folder) == before
    _assert_repaired(folder, sound)


def test_rows_of_a_lost_part_are_counted_once_in_rollups(
    folder: Path, sound: tuple[Path, Rows, list[Any]]
) -> None:
    """Small requests are replayed by the start itself: the sums have had them before."""
    (folder / "open" / "000002.duckdb").unlink()
    with started(folder) as opened:
        rolled_up(opened)
        counted = value(opened.store, "SELECT sum(events) FROM events_daily")
        assert counted == value(opened.store, "SELECT count(*) FROM events")
        assert counted == len(sound[1]["events"]) - 5_000
    _assert_repaired(folder, sound)


def test_what_comes_between_the_loss_and_the_repair_stays(folder: Path) -> None:
    (folder / "open" / "000002.duckdb").unlink()
    with started(folder) as opened:
        acknowledge(opened, requests(range(2_000, 2_010)))
        upload(opened.store, 2_100)
    assert repair_folder(config_of(folder)).problems == []
    with started(folder) as opened:
        assert value(opened.store, "SELECT count(DISTINCT id) FROM events") == 10_998 + 5_021
        assert value(opened.store, "SELECT count(*) FROM events") == 10_998 + 5_021
    assert check_folder(folder) == []


def test_a_backup_of_a_store_that_has_lost_rows_replaces_none(folder: Path) -> None:
    directory, other = folder.with_name("backup"), folder.with_name("other")
    with opened_store(folder, config_of(folder).store) as store:
        before, _ = back_up(
            BackupSource(store=store, data_dir=folder), directory, with_secrets=False, pace=Pace()
        )
    (folder / "open" / "000002.duckdb").unlink()
    with opened_store(folder, config_of(folder).store) as store:
        source = BackupSource(store=store, data_dir=folder)
        with pytest.raises(BackupFailed, match="repair first"):
            back_up(source, directory, with_secrets=False, pace=Pace())
        back_up(source, other, with_secrets=False, pace=Pace())
    assert read_manifest(directory) == before


def _with_wal(folder: Path, *, stepped: bool = True, rotated: bool = False) -> None:
    """An upload that is in the WAL alone, and rolled up when `stepped`; then a kill."""
    with started(folder) as opened:
        rolled_up(opened)
    store = Store(folder, config_of(folder).store)
    store.open()
    upload(store, 1_003)
    if stepped:
        Rollups(store).step()
    if rotated:
        store.rotate()
    copy = folder.with_name("killed")
    shutil.copytree(folder, copy)
    store.close()
    shutil.rmtree(folder)
    copy.rename(folder)


# A bit of its head: DuckDB (1.5.6) then leaves out the whole WAL and says nothing.
@pytest.mark.parametrize("damage", ["gone", "cut", "a bit"])
@pytest.mark.parametrize("stepped", [True, False])
def test_an_upload_whose_commit_was_lost_with_the_wal_is_kept_and_listed_again(
    folder: Path, damage: str, stepped: bool
) -> None:
    _with_wal(folder, stepped=stepped)
    wal = folder / "open" / "000002.duckdb.wal"
    assert wal.exists()
    if damage == "gone":
        wal.unlink()
    elif damage == "cut":
        wal.write_bytes(wal.read_bytes()[: wal.stat().st_size // 3])
    else:
        content = bytearray(wal.read_bytes())
        content[3] ^= 0x10
        wal.write_bytes(content)
    before = _uploads(folder)
    assert len(before) == 3
    problems = check_folder(folder)
    assert any("rows were lost with a WAL" in problem for problem in problems), problems
    with started(folder) as opened:
        assert _uploads(folder) == before
        assert len(opened.store.kept_files) == 1
    assert _uploads(folder) == before
    found = repair_folder(config_of(folder))
    assert found.problems == [], found
    with started(folder) as opened:
        assert value(opened.store, "SELECT count(*) FROM events") == 10_998 + 5_000
        rolled_up(opened)
        assert value(opened.store, "SELECT sum(events) FROM events_daily") == 15_998
    assert check_folder(folder) == []


def test_an_upload_whose_commit_was_lost_with_the_wal_of_a_rotated_part_is_kept(
    folder: Path,
) -> None:
    _with_wal(folder, rotated=True)
    (folder / "open" / "000002.duckdb.wal").unlink()
    before = _uploads(folder)
    for _ in range(2):
        with started(folder) as opened:
            assert _uploads(folder) == before
            assert len(opened.store.kept_files) == 1
    found = repair_folder(config_of(folder))
    assert found.problems == [], found
    for _ in range(2):
        with started(folder) as opened:
            assert opened.store.sealed.lost == ()
            assert value(opened.store, "SELECT count(*) FROM events") == 10_998 + 5_000
            rolled_up(opened)
            assert value(opened.store, "SELECT sum(events) FROM events_daily") == 15_998
    assert check_folder(folder) == []


def test_a_number_that_was_given_in_vain_before_a_rotation_is_no_loss(folder: Path) -> None:
    with started(folder) as opened:
        opened.store.ledger.take_commit_numbers(1)  # a COMMIT that failed
        opened.store.rotate()
    with started(folder) as opened:
        assert opened.store.sealed.lost == ()
    assert check_folder(folder) == []


def test_what_a_crash_has_left_of_a_sound_part_is_removed_as_ever(folder: Path) -> None:
    leaving = folder / "uploads" / f"000002-{77:016x}-events.parquet"
    shutil.copy(next((folder / "uploads").glob("000002-*")), leaving)
    stranger = folder / "uploads" / "mine.parquet"
    stranger.write_bytes(b"")
    with started(folder) as opened:
        assert opened.store.kept_files == []
    assert not leaving.exists()
    assert stranger.exists()


def test_a_newest_part_that_was_cut_to_nothing_is_not_taken_for_one_that_never_was(
    folder: Path, sound: tuple[Path, Rows, list[Any]]
) -> None:
    path = folder / "open" / "000002.duckdb"
    path.write_bytes(b"")
    with pytest.raises(Exception, match="was a part and is cut to 0 bytes"), started(folder):
        pass
    assert path.exists()
    _assert_repaired(folder, sound)


def test_the_number_of_a_part_that_was_never_made_is_given_again(folder: Path) -> None:
    (folder / "open" / "000003.duckdb").write_bytes(b"")
    with started(folder) as opened:
        assert opened.store.parts.newest.number == 2
        assert opened.store.missing_parts == []
        opened.store.rotate()
    manifest = maybe_manifest(folder / "control.sqlite")
    assert manifest is not None
    assert manifest.newest_part == 3
