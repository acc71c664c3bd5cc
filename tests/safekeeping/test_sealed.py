"""Sealed files and rollups: checked, copied, restored, and made good."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
from msgspec import structs

from ingester import startup
from ingester.safekeeping.backup import BackupSource, back_up
from ingester.safekeeping.check import check_folder
from ingester.safekeeping.copies import Pace
from ingester.safekeeping.repair import repair_folder
from ingester.safekeeping.restore import restore
from ingester.store.control.copying import maybe_manifest, put_manifest
from ingester.store.offline import opened_store
from ingester.store.sealed_format import SEALED_TABLES
from ingester.store.sealing import Sealer
from tests.safekeeping.folders import DAYS, acknowledge, config_of, everything, filled, requests
from tests.store.stores import rows

Rows = dict[str, list[tuple[Any, ...]]]
_UPLOAD = f"{1_001:016x}"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Rows, list[Any]]:
    """One part sealed, one open with an upload, all rolled up."""
    folder = filled(tmp_path_factory.mktemp("sealed") / "data")
    opened = startup.open_all(config_of(folder))
    while opened.rollups.step().row_count:
        pass  # a part is sealed behind all cursors
    sealer = Sealer(opened.store)
    for part in opened.store.parts_to_seal():
        sealer.seal(part)
    opened.store.remove_unread()
    acknowledge(opened, requests(range(600, 650)))
    rollups = opened.rollups
    while rollups.step().row_count:
        pass
    days = sorted(rows(opened.store, DAYS))
    found = everything(opened.store)
    startup.close(opened)
    assert days
    return folder, found, days


@pytest.fixture
def folder(sound: tuple[Path, Rows, list[Any]], tmp_path: Path) -> Path:
    shutil.copytree(sound[0], tmp_path / "data")
    return tmp_path / "data"


def _state(folder: Path) -> tuple[Rows, list[Any]]:
    opened = startup.open_all(config_of(folder))
    try:
        while opened.rollups.step().row_count:
            pass
        return everything(opened.store), sorted(rows(opened.store, DAYS))
    finally:
        startup.close(opened)


def _sealed(folder: Path, table: str) -> Path:
    return next(folder.glob(f"sealed/{table}/*/*.parquet"))


def _flips(path: Path) -> Iterator[None]:
    sound = path.read_bytes()
    # Pages have checksums; their heads and the footer have none.
    for offset in range(2_000, len(sound) * 3 // 4, max(1, len(sound) // 8)):
        data = bytearray(sound)
        data[offset] ^= 4
        path.write_bytes(data)
        yield
    path.write_bytes(sound)


def test_a_sound_folder_with_sealed_files_has_no_problems(folder: Path) -> None:
    assert len(list(folder.glob("sealed/*/*/*.parquet"))) >= 3
    assert check_folder(folder) == []


def test_damage_of_a_sealed_file_is_named(folder: Path) -> None:
    path = _sealed(folder, "events")
    name = path.relative_to(folder).as_posix()
    for _ in _flips(path):
        assert [problem.partition(":")[0] for problem in check_folder(folder)] == [name]
    assert check_folder(folder) == []


@pytest.mark.parametrize("pattern", ["sealed/events/*/*.parquet", "uploads/*.parquet"])
def test_a_name_of_a_column_that_is_no_text_any_more_is_damage(folder: Path, pattern: str) -> None:
    """Footers have no checksum, and Arrow decodes those outside of its own errors."""
    path = next(folder.glob(pattern))
    data = bytearray(path.read_bytes())
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    data[data.index(b"account_id", footer) + 4] |= 0x80
    path.write_bytes(data)
    names = [problem.partition(":")[0] for problem in check_folder(folder)]
    assert names == [path.relative_to(folder).as_posix()]
    repair_folder(config_of(folder))
    assert list(path.parent.glob(f"{path.name}.damaged-*"))
    assert _state(folder)[0]["requests"]


@pytest.mark.parametrize("table", ["events", "requests", "rejects"])
def test_a_sealed_file_that_is_cut_or_missing_is_named(folder: Path, table: str) -> None:
    path = _sealed(folder, table)
    name = path.relative_to(folder).as_posix()
    path.write_bytes(path.read_bytes()[:-10])
    assert [problem.partition(":")[0] for problem in check_folder(folder)] == [name]
    path.unlink()
    assert [problem.partition(":")[0] for problem in check_folder(folder)] == [name]


@pytest.mark.parametrize("table", ["applied", "requests", "rejects"])
@pytest.mark.parametrize("damage", ["cut", "flip", "gone"])
def test_a_lost_sealed_file_hides_no_other_damage_and_brings_no_row_twice(
    folder: Path, sound: tuple[Path, Rows, list[Any]], table: str, damage: str
) -> None:
    """The journal has the requests still: their rows are in other files."""
    path, upload_file = _sealed(folder, table), next(folder.glob("uploads/000002-*"))
    other = upload_file.read_bytes()
    content = bytearray(path.read_bytes())
    content[20] ^= 0x10
    upload_file.write_bytes(other[:-1])
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(content[: len(content) * 2 // 3] if damage == "cut" else content)
    names = [problem.partition(":")[0] for problem in check_folder(folder)]
    assert sorted(names) == sorted(
        each.relative_to(folder).as_posix() for each in (path, upload_file)
    )
    upload_file.write_bytes(other)
    found = repair_folder(config_of(folder))
    told = [problem.partition(":")[0] for problem in found.problems]
    assert told == (names[:1] if table == "applied" else [])
    found_rows, days = _state(folder)
    assert days == sound[2]
    if table == "requests" and damage != "flip":
        # The upload's is in no journal. The flip is in a column that is made of another.
        known = found_rows["requests"]
        assert [row for row in sound[1]["requests"] if row[0] != _UPLOAD] == known
        assert found_rows["events"] == sound[1]["events"]
    else:
        assert found_rows == sound[1]


def test_rows_of_a_lost_sealed_file_come_from_the_journal_and_the_rest_with_the_file(
    folder: Path, sound: tuple[Path, Rows, list[Any]]
) -> None:
    path = _sealed(folder, "events")
    path.rename(folder.parent / path.name)
    found = repair_folder(config_of(folder))
    assert found.problems == [], found
    assert any("5,000 rows, of uploads" in lost for lost in found.lost), found
    state = _state(folder)
    own = [row for row in sound[1]["events"] if not row[0].startswith(_UPLOAD)]
    assert state[0]["events"] == own
    assert len(own) == len(sound[1]["events"]) - 5_000
    # What rollups had counted they have: the rows are under the numbers that they had.
    assert state[1] == sound[2]
    with duckdb.connect() as connection:
        again = f"'{_sealed(folder, 'events')}'"
        ours, before = (
            connection.execute(
                f"SELECT {', '.join(SEALED_TABLES['events'].names)} FROM read_parquet({name}) "
                f"WHERE request_number <> {int(_UPLOAD, 16)} ORDER BY id"
            ).fetchall()
            for name in (again, f"'{folder.parent / path.name}'")
        )
        assert ours == before
    (folder.parent / path.name).rename(path)
    assert any("does not know this file" in problem for problem in check_folder(folder))
    found = repair_folder(config_of(folder))
    assert found.problems == [], found
    assert _state(folder) == (sound[1], sound[2])
    assert check_folder(folder) == []


def test_row_groups_of_a_damaged_file_that_can_be_read_stay(
    folder: Path, sound: tuple[Path, Rows, list[Any]]
) -> None:
    path = _sealed(folder, "events")
    name = path.relative_to(folder / "sealed").as_posix()
    table = pq.read_table(path)
    pq.write_table(table, path, row_group_size=1_000, write_page_checksum=True)
    manifest = maybe_manifest(folder / "control.sqlite")
    assert manifest is not None
    files = [
        structs.replace(file, byte_count=path.stat().st_size) if file.name == name else file
        for file in manifest.files
    ]
    put_manifest(folder / "control.sqlite", structs.replace(manifest, files=tuple(files)))
    assert check_folder(folder) == []
    data = bytearray(path.read_bytes())
    at = pq.read_metadata(path).row_group(2).column(3).data_page_offset
    data[at + 100] ^= 1
    path.write_bytes(data)
    found = repair_folder(config_of(folder))
    assert found.problems == [], found
    events = {row[0]: row for row in _state(folder)[0]["events"]}
    before = {row[0]: row for row in sound[1]["events"]}
    assert events.items() < before.items()
    gone = before.keys() - events.keys()
    assert 0 < len(gone) <= 1_000
    assert all(each.startswith(_UPLOAD) for each in gone)


def test_a_backup_holds_sealed_files_once_and_rollups(
    folder: Path, tmp_path: Path, sound: tuple[Path, Rows, list[Any]]
) -> None:
    copied = []
    for _ in range(2):
        with opened_store(folder, config_of(folder).store) as store:
            source = BackupSource(store=store, data_dir=folder)
            backup, count = back_up(source, tmp_path / "b", with_secrets=True, pace=Pace())
            copied.append(count)
    immutable = sum(f.bytes for f in backup.files if f.kind in ("sealed", "upload"))
    assert immutable > 0
    assert copied[1] <= copied[0] - immutable + 10_000
    restore(tmp_path / "b", tmp_path / "new", Pace())
    assert check_folder(tmp_path / "new") == []
    assert (tmp_path / "new" / "secret.key").read_bytes() == (folder / "secret.key").read_bytes()
    assert _state(tmp_path / "new") == (sound[1], sound[2])


def test_a_manifest_that_was_lost_is_made_from_the_files(
    folder: Path, sound: tuple[Path, Rows, list[Any]]
) -> None:
    manifest = maybe_manifest(folder / "control.sqlite")
    assert manifest is not None
    for path in folder.glob("control.sqlite*"):
        path.unlink()
    found = repair_folder(config_of(folder))
    assert found.problems == [], found
    again = maybe_manifest(folder / "control.sqlite")
    assert again is not None
    assert {f.name: f.row_count for f in again.files} == {
        f.name: f.row_count for f in manifest.files
    }
    assert {p.part_number for p in again.parts} == {p.part_number for p in manifest.parts}
    assert _state(folder) == (sound[1], sound[2])


def test_rollups_that_do_not_add_up_are_named_and_made_anew(
    folder: Path, sound: tuple[Path, Rows, list[Any]]
) -> None:
    with closing(duckdb.connect(str(folder / "rollups.duckdb"))) as connection:
        ((number,),) = connection.execute(
            "SELECT max(number) FROM generations WHERE name = 'source_days'"
        ).fetchall()
        connection.execute(f"UPDATE source_days_g{number} SET events = events + 1")
        ((other,),) = connection.execute(
            "SELECT max(number) FROM generations WHERE name = 'event_days'"
        ).fetchall()
        connection.execute(f"UPDATE event_days_g{other} SET events = events + 1")
    problems = check_folder(folder)
    assert problems
    assert all(problem.startswith("rollups.duckdb: ") for problem in problems)
    assert repair_folder(config_of(folder)).problems == []
    assert _state(folder) == (sound[1], sound[2])


@pytest.mark.parametrize("damage", ["cut", "flip", "gone"])
def test_a_damaged_file_of_rollups_is_named_and_made_anew(
    folder: Path, sound: tuple[Path, Rows, list[Any]], damage: str
) -> None:
    path = folder / "rollups.duckdb"
    if damage == "gone":
        path.unlink()
        assert check_folder(folder) == []  # the next start makes it from the rows
    else:
        data = bytearray(path.read_bytes())
        data[4096 * 3 + 40] ^= 1
        path.write_bytes(data[: len(data) // 2] if damage == "cut" else data)
        assert any(p.startswith("rollups.duckdb: ") for p in check_folder(folder))
        assert repair_folder(config_of(folder)).problems == []
        assert list(folder.glob("rollups.duckdb.damaged-*"))
        assert _state(folder) == (sound[1], sound[2])


def test_a_part_that_is_rebuilt_is_not_counted_twice(
    folder: Path, sound: tuple[Path, Rows, list[Any]]
) -> None:
    (folder / "open" / "000002.duckdb").unlink()
    found = repair_folder(config_of(folder))
    assert found.problems == [], found
    state = _state(folder)
    assert state[0]["events"] == sound[1]["events"]
    assert state[1] == sound[2]
