"""Repair: rows of small requests come back from the journal exactly once; nothing is deleted."""

from __future__ import annotations

import random
import secrets
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from ingester import startup
from ingester.safekeeping import repair as repair_module
from ingester.safekeeping.check import check_folder
from ingester.safekeeping.repair import Repair, repair_folder
from ingester.store.check import check_parts
from ingester.store.sealing import Sealer
from ingester.store.store import Store
from tests.actors.requests import small_request
from tests.safekeeping.folders import (
    acknowledge,
    config_of,
    everything,
    filled,
    requests,
    started,
    upload,
)

Rows = dict[str, list[tuple[Any, ...]]]
# Of those that are in use.
_BLOCKS_SHORT = 3
Damage = Callable[[Path], None]


def _flip(offset: int) -> Damage:
    def flip(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[offset % len(data)] ^= 0x10
        path.write_bytes(data)

    return flip


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def _blocks(path: Path) -> list[int]:
    """An offset within each block, in an order of chance: the short form does not come to all."""
    offsets = list(range(3 * 4096 + 9, path.stat().st_size, 256 * 1024))
    seed = secrets.randbelow(1 << 32)
    print(f"blocks of {path.name} in the order of seed {seed}")
    random.Random(seed).shuffle(offsets)
    return offsets


def _remove(path: Path) -> None:
    path.unlink()


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Rows]:
    folder = filled(tmp_path_factory.mktemp("sound") / "data")
    with started(folder) as opened:
        return folder, everything(opened.store)


@pytest.fixture
def folder(sound: tuple[Path, Rows], tmp_path: Path) -> Path:
    shutil.copytree(sound[0], tmp_path / "data")
    return tmp_path / "data"


def _repaired(folder: Path) -> Repair:
    """Nothing is gone, and what a server does afterwards is sound."""
    before = {path.stat().st_ino: path for path in folder.rglob("*.*") if path.is_file()}
    found = repair_folder(config_of(folder))
    after = {path.stat().st_ino for path in folder.rglob("*.*") if path.is_file()}
    # A checkpoint replaces the copy of metadata from before the last one.
    files = [path for inode, path in before.items() if inode not in after]
    gone = [path for path in files if path.suffix != ".meta"]
    assert {path.parent.name for path in gone} <= {"export"}, gone
    return found


def test_a_repair_that_is_killed_before_the_new_part_is_in_its_place_goes_on(
    folder: Path, sound: tuple[Path, Rows], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old part is aside by then: without the new one its rows would be in no part."""
    for segment in (folder / "journal").iterdir():
        segment.unlink()
    path = folder / "open" / "000001.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute("DROP TABLE dedup_keys")
        connection.execute("DROP TABLE rejects")
    set_aside = repair_module._Run._set_aside

    def killed_behind(run: repair_module._Run, each: Path) -> None:
        set_aside(run, each)
        if each == path:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(repair_module._Run, "_set_aside", killed_behind)
        with pytest.raises(KeyboardInterrupt):
            repair_folder(config_of(folder))
    assert not path.exists()
    assert "a repair was interrupted" in str(check_folder(folder))
    found = repair_folder(config_of(folder))
    assert found.problems == [], found
    assert _rows(folder)["events"] == sound[1]["events"]


def _rows(folder: Path) -> Rows:
    with started(folder) as opened:
        assert opened.problems == []
        assert check_parts(opened.store) == []
        found = everything(opened.store)
        acknowledge(opened, requests(range(9_000, 9_010)))
        upload(opened.store, 9_100)
    assert check_folder(folder) == []
    return found


def test_a_sound_folder_is_left_alone(folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert repair_folder(config_of(folder)) == Repair()
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert {p: c for p, c in after.items() if p.name != "lock"} == {
        p: c for p, c in before.items() if p.name != "lock"
    }


@pytest.mark.parametrize("name", ["000001", "000002"])
@pytest.mark.parametrize("damage", [_cut, _remove, _flip(4096 + 100)])
def test_a_lost_part_is_made_anew_from_the_journal_and_its_uploads(
    folder: Path, sound: tuple[Path, Rows], name: str, damage: Damage
) -> None:
    damage(folder / "open" / f"{name}.duckdb")
    if check_folder(folder) == []:
        pytest.skip("the second header counts")
    found = _repaired(folder)
    assert found.problems == []
    assert len(list((folder / "open").glob("*.duckdb.damaged-*"))) == (damage is not _remove)
    rows = _rows(folder)
    wanted = sound[1]
    assert rows["events"] == wanted["events"]
    assert rows["rejects"] == wanted["rejects"]
    assert [row[0] for row in rows["requests"]] == [row[0] for row in wanted["requests"]]
    assert repair_folder(config_of(folder)) == Repair(), "a second time there is nothing to do"


@pytest.mark.parametrize("part", ["000001", "000002"])
def test_damage_of_any_block_of_a_part_is_repaired(
    folder: Path, sound: tuple[Path, Rows], part: str, long_form: bool
) -> None:
    path = folder / "open" / f"{part}.duckdb"
    counted = 0
    for number, offset in enumerate(_blocks(path)):
        copy = folder.with_name(f"copy-{number}")
        shutil.copytree(folder, copy)
        _flip(offset)(copy / "open" / path.name)
        if check_folder(copy) == []:
            continue  # a block that is not in use
        counted += 1
        if counted > _BLOCKS_SHORT and not long_form:
            break
        found = _repaired(copy)
        assert found.problems == []
        rows = _rows(copy)
        assert rows["events"] == sound[1]["events"], found
        assert rows["rejects"] == sound[1]["rejects"]
        assert [r[0] for r in rows["requests"]] == [r[0] for r in sound[1]["requests"]]
    assert counted >= 2


def test_all_parts_may_be_lost(folder: Path, sound: tuple[Path, Rows]) -> None:
    for path in (folder / "open").iterdir():
        path.unlink()
    assert _repaired(folder).problems == []
    assert _rows(folder)["events"] == sound[1]["events"]


def test_rows_that_the_journal_has_no_more_are_saved_from_the_damaged_part(
    folder: Path, long_form: bool
) -> None:
    """Or are told as lost: never silence, never twice."""
    for path in (folder / "journal").glob("*.seg"):
        path.unlink()
    path = folder / "open" / "000001.duckdb"
    total = 0
    for number, offset in enumerate(_blocks(path)):
        copy = folder.with_name(f"copy-{number}")
        shutil.copytree(folder, copy)
        _flip(offset)(copy / "open" / path.name)
        if check_folder(copy) == []:
            continue
        total += 1
        if total > _BLOCKS_SHORT and not long_form:
            break
        found = _repaired(copy)
        assert found.problems == []
        rows = _rows(copy)
        assert len(rows["events"]) == len(set(rows["events"]))
        if len(rows["events"]) < 10_998 or len(rows["requests"]) < 501:
            assert found.lost, "rows are gone without a word"
    assert total


def test_keys_and_ids_still_join_behind_a_repair(folder: Path) -> None:
    _remove(folder / "open" / "000002.duckdb")
    assert _repaired(folder).problems == []
    with started(folder) as opened:
        assert opened.idempotency.statistics()
        (found,) = [row for row in everything(opened.store)["requests"] if row[9] == "key-450"]
        assert found[0] == f"{450:016x}"
        assert opened.numbers.next() > 1_002


def test_a_damaged_segment_whose_rows_are_stored_is_set_aside(folder: Path) -> None:
    path = sorted((folder / "journal").glob("*.seg"))[0]
    _flip(path.stat().st_size // 2)(path)
    found = _repaired(folder)
    assert found.problems == []
    assert [p.name for p in (folder / "journal").glob("*.damaged-*")]
    assert len(_rows(folder)["events"]) == 10_998


def test_records_that_are_nowhere_are_told_once(folder: Path) -> None:
    """Acknowledged, not loaded, and their segment is gone."""
    opened = startup.open_all(config_of(folder))
    acknowledge(opened, [small_request(5_000)], load_too=False)
    opened.writer.close()
    opened.store.close()
    opened.control.close()
    opened.lock.release()
    (folder / "journal" / max(p.name for p in (folder / "journal").glob("*.seg"))).unlink()
    with started(folder) as opened:
        acknowledge(opened, requests(range(6_000, 6_005)))
    assert check_folder(folder) == []


def test_control_data_cannot_be_rebuilt_and_that_is_said(folder: Path) -> None:
    _cut(folder / "control.sqlite")
    found = _repaired(folder)
    assert found.problems == []
    assert any("control.sqlite was made anew" in sentence for sentence in found.lost)
    assert list(folder.glob("control.sqlite.damaged-*"))
    assert len(_rows(folder)["events"]) == 10_998


@pytest.mark.parametrize("content", [b"", b"not a database at all" * 500])
def test_control_data_that_is_none_takes_no_sealed_file_with_it(
    folder: Path, sound: tuple[Path, Rows], content: bytes
) -> None:
    """An empty file is a sound database to SQLite."""
    with started(folder) as opened:
        while opened.rollups.step().row_count:
            pass
        sealer = Sealer(opened.store)
        for part in opened.store.parts_to_seal():
            sealer.seal(part)
        opened.store.remove_unread()
    for path in folder.glob("control.sqlite-*"):
        path.unlink()
    (folder / "control.sqlite").write_bytes(content)
    assert check_folder(folder)[0].startswith("control.sqlite: ")
    assert _repaired(folder).problems == []
    assert _rows(folder)["events"] == sound[1]["events"]
    assert list(folder.glob("sealed/*/*/*.damaged-*")) == []


def _killed_with_wal(folder: Path) -> None:
    """In the file a small upload that no journal has; in the WAL small requests and a large one."""
    store = Store(folder, config_of(folder).store)
    store.open()
    before = [row[0] for row in everything(store)["events"]]
    opened_at = store.ledger.applied_seq
    assert before
    assert opened_at
    store.checkpoint()
    upload(store, 1_003)
    copy = folder.with_name("killed")
    shutil.copytree(folder, copy)
    store.close()
    shutil.rmtree(folder)
    copy.rename(folder)


# Not in its first bytes: there stands the identifier of the database, of which DuckDB (1.5.6) does
# not mind every change, and then nothing is damaged.
@pytest.mark.parametrize("offset", [400, -2_000, -200])
def test_damage_of_a_wal_takes_nothing_that_is_in_the_file(
    folder: Path, sound: tuple[Path, Rows], offset: int
) -> None:
    for path in (folder / "journal").glob("*.seg"):
        path.unlink()  # nothing else has what was checkpointed
    _killed_with_wal(folder)
    wal = folder / "open" / "000002.duckdb.wal"
    _flip(offset)(wal)
    problems = check_folder(folder)
    assert any(problem.startswith("open/000002.duckdb: ") for problem in problems), problems
    assert _repaired(folder).problems == []
    found = _rows(folder)["events"]
    assert len(found) == len(sound[1]["events"]) + 5_000
    assert set(sound[1]["events"]) <= set(found)


def test_damage_of_exported_rows_is_named_and_they_are_exported_anew(folder: Path) -> None:
    with started(folder) as opened:
        held = opened.increments.hold(gives_up_at=time.monotonic() + 30, sql="FROM events")
        opened.increments.release(held)
    path = next((folder / "export").glob("000001-events-*"))
    assert check_folder(folder) == []
    _flip(path.stat().st_size // 2)(path)
    (problem,) = check_folder(folder)
    assert problem.startswith(f"export/{path.name}: ")
    assert _repaired(folder).problems == []
    assert len(_rows(folder)["events"]) == 10_998


def test_a_lost_upload_file_stays_named(folder: Path) -> None:
    path = next((folder / "uploads").glob("000001-*"))
    _cut(path)
    found = _repaired(folder)
    assert any(path.name in sentence for sentence in found.lost)
    assert [problem.partition(":")[0] for problem in found.problems] == [f"uploads/{path.name}"]
    with started(folder) as opened:
        assert len(everything(opened.store)["events"]) == 5_998
