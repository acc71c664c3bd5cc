"""Check: a sound folder has no problems; each kind of damage is named, with its file."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ingester.safekeeping.check import check_folder
from tests.safekeeping.folders import filled

Damage = Callable[[Path], None]


def _flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x10
    path.write_bytes(data)


def _middle(path: Path) -> None:
    _flip(path, path.stat().st_size // 2)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def _remove(path: Path) -> None:
    path.unlink()


def _one(folder: Path, pattern: str) -> Path:
    return sorted(folder.glob(pattern))[0]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two parts, an upload file in each, and their journal."""
    return filled(tmp_path_factory.mktemp("sound") / "data")


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:

    shutil.copytree(sound, tmp_path / "data", ignore=shutil.ignore_patterns("control.sock"))
    return tmp_path / "data"


def test_a_sound_folder_has_no_problems_and_is_not_changed(folder: Path) -> None:
    def state() -> dict[str, bytes]:
        files = (path for path in folder.rglob("*") if path.is_file() and path.name != "lock")
        return {str(path): path.read_bytes() for path in files}

    before = state()
    assert check_folder(folder) == []
    assert state() == before


@pytest.mark.parametrize("damage", [_middle, _cut, _remove])
@pytest.mark.parametrize("pattern", ["uploads/000001-*.parquet", "uploads/000002-*.parquet"])
def test_damage_of_an_upload_file_is_named(folder: Path, pattern: str, damage: Damage) -> None:
    path = _one(folder, pattern)
    damage(path)
    (problem,) = check_folder(folder)
    assert problem.startswith(f"uploads/{path.name}: ")
    assert "put it back from a backup, 5000 rows are in it" in problem


@pytest.mark.parametrize("damage", [_cut, _remove])
@pytest.mark.parametrize("name", ["open/000001.duckdb", "open/000002.duckdb", "control.sqlite"])
def test_a_file_that_is_cut_or_missing_is_named(folder: Path, name: str, damage: Damage) -> None:
    damage(folder / name)
    assert any(problem.startswith(f"{name}: ") for problem in check_folder(folder))


def test_a_damaged_page_of_the_control_file_is_named(folder: Path) -> None:
    path = folder / "control.sqlite"
    for page in (0, 1, 2):
        _flip(path, page * 4096 + (100 if page == 0 else 0))
    assert any(problem.startswith("control.sqlite: ") for problem in check_folder(folder))


@pytest.mark.parametrize("damage", [_middle, _cut, _remove])
def test_damage_of_a_journal_segment_is_named(folder: Path, damage: Damage) -> None:
    """Of the oldest of two: what is missing begins where the second one does."""
    path = _one(folder, "journal/*.seg")
    damage(path)
    problems = check_folder(folder)
    if damage is _remove:
        assert problems == []  # the oldest is what retention deletes
    else:
        assert any(f"journal/{path.name}, offset" in problem for problem in problems), problems
        assert "Their rows are in the store" in problems[0]


def test_damage_all_over_a_part_is_named(folder: Path) -> None:
    """A bit in each block: those in use have checksums."""
    path = folder / "open" / "000001.duckdb"
    sound = path.read_bytes()
    found = 0
    for offset in range(3 * 4096 + 9, len(sound), 256 * 1024):
        path.write_bytes(sound)
        _flip(path, offset)
        found += any(problem.startswith("open/000001.duckdb: ") for problem in check_folder(folder))
    path.write_bytes(sound)
    assert found >= 4
    assert check_folder(folder) == []


def test_files_that_are_none_of_ours_are_named_where_they_do_harm(folder: Path) -> None:
    for name in ("open/copy.duckdb", "journal/1.seg.bak", "uploads/x.parquet", "backup.sqlite"):
        (folder / name).write_bytes(b"")
    (folder / "notes.txt").write_bytes(b"")
    (folder / "lost+found").mkdir()
    problems = check_folder(folder)
    assert sorted(problem.partition(":")[0] for problem in problems) == [
        "backup.sqlite",
        "journal/1.seg.bak",
        "open/copy.duckdb",
        "uploads/x.parquet",
    ]
