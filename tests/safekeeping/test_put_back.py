"""A part was lost, and comes back when its requests were loaded again: nothing is there twice."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import duckdb
import pytest

from ingester.safekeeping.check import check_folder, check_running
from ingester.safekeeping.repair import repair_folder
from ingester.store.put_back import DOUBLED, REPLACED
from ingester.store.salvage import without_intervals
from ingester.store.sealing import Sealer
from tests.safekeeping.folders import (
    acknowledge,
    config_of,
    everything,
    filled,
    requests,
    rolled_up,
    started,
)
from tests.store.stores import value

Rows = dict[str, list[tuple[Any, ...]]]
PROBLEM = f"open/000002.duckdb: {DOUBLED}"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Rows, list[Any]]:
    folder = filled(tmp_path_factory.mktemp("sound") / "data")
    with started(folder) as opened:
        days = rolled_up(opened)
        return folder, everything(opened.store), days


@pytest.fixture
def folder(sound: tuple[Path, Rows, list[Any]], tmp_path: Path) -> Path:
    """Without its newest part, which lies beside it."""
    shutil.copytree(sound[0], tmp_path / "data")
    (tmp_path / "data" / "open" / "000002.duckdb").rename(tmp_path / "000002.duckdb")
    return tmp_path / "data"


def _put_back(folder: Path) -> None:
    (folder.parent / "000002.duckdb").replace(folder / "open" / "000002.duckdb")


def _assert_repaired(folder: Path, sound: tuple[Path, Rows, list[Any]]) -> None:
    assert PROBLEM in check_folder(folder)
    found = repair_folder(config_of(folder))
    assert (found.problems, found.lost) == ([], []), found
    assert list((folder / "open").glob("000002.duckdb.damaged-*"))
    with started(folder) as opened:
        assert opened.store.doubled_parts == []
        assert everything(opened.store) == sound[1]
        assert rolled_up(opened) == sound[2]
    assert check_folder(folder) == []


def test_a_part_that_comes_back_behind_a_start_is_not_read_until_a_repair(
    folder: Path, sound: tuple[Path, Rows, list[Any]]
) -> None:
    with started(folder):
        pass
    _put_back(folder)
    for _ in range(2):
        with started(folder) as opened:
            assert opened.store.doubled_parts == [2]
            assert opened.store.missing_parts == []
            assert value(opened.store, "SELECT count(*) - count(DISTINCT id) FROM events") == 0
            assert PROBLEM in check_running(opened.store, folder, at_start=())
    _assert_repaired(folder, sound)


def test_a_part_that_comes_back_in_place_of_a_repaired_one_is_not_read_until_the_next(
    folder: Path, sound: tuple[Path, Rows, list[Any]]
) -> None:
    with started(folder):
        pass
    assert repair_folder(config_of(folder)).problems == []
    _put_back(folder)
    with started(folder) as opened:
        assert opened.store.doubled_parts == [2]
        assert value(opened.store, "SELECT count(*) - count(DISTINCT id) FROM events") == 0
    _assert_repaired(folder, sound)


def test_a_part_comes_back_when_its_requests_are_sealed_in_another(
    folder: Path, sound: tuple[Path, Rows, list[Any]]
) -> None:
    with started(folder) as opened:
        opened.store.rotate()
        rolled_up(opened)
        Sealer(opened.store).seal(opened.store.parts.parts[-2])
        opened.store.remove_unread()
        assert sorted(opened.store.sealed.parts) == [3]
    _put_back(folder)
    with started(folder) as opened:
        assert opened.store.doubled_parts == [2]
        assert value(opened.store, "SELECT count(*) - count(DISTINCT id) FROM events") == 0
    assert PROBLEM in check_folder(folder)
    found = repair_folder(config_of(folder))
    assert found.problems == [], found
    with started(folder) as opened:
        assert everything(opened.store) == sound[1]
        assert rolled_up(opened) == sound[2]


def test_what_the_journal_had_no_more_comes_with_the_part(
    folder: Path, sound: tuple[Path, Rows, list[Any]]
) -> None:
    segments = sorted((folder / "journal").glob("*.seg"))
    for path in segments[:-2]:
        path.rename(folder.parent / path.name)
    with started(folder) as opened:
        acknowledge(opened, requests(range(2_000, 2_010)))
        loaded = value(opened.store, "SELECT count(*) FROM requests WHERE accepted < 100")
        assert 299 < loaded < 509
    _put_back(folder)
    assert PROBLEM in check_folder(folder)
    found = repair_folder(config_of(folder))
    assert found.problems == [], found
    with started(folder) as opened:
        again = everything(opened.store)
        known = {row[0] for row in sound[1]["requests"]}
        assert sum(row[0] not in known for row in again["requests"]) == 10
        assert known < {row[0] for row in again["requests"]}
        assert {row[0] for row in sound[1]["events"]} < {row[0] for row in again["events"]}
        assert value(opened.store, "SELECT count(*) - count(DISTINCT id) FROM events") == 0
    assert check_folder(folder) == []


def test_a_part_that_comes_back_before_anything_was_loaded_is_read(
    folder: Path, sound: tuple[Path, Rows, list[Any]]
) -> None:
    """Its commits are those that were lost; nothing of them is elsewhere."""
    journal = folder / "journal"
    journal.rename(folder.parent / "journal")
    with started(folder):
        pass
    shutil.rmtree(journal)
    (folder.parent / "journal").rename(journal)
    _put_back(folder)
    with started(folder) as opened:
        assert opened.store.doubled_parts == []
        assert everything(opened.store) == sound[1]
    assert repair_folder(config_of(folder)).problems == []
    with started(folder) as opened:
        assert everything(opened.store) == sound[1]
        assert rolled_up(opened) == sound[2]


@pytest.mark.parametrize(
    ("others", "left"),
    [
        ([], [(5, 9)]),
        ([(1, 4), (10, 20)], [(5, 9)]),
        ([(1, 5)], [(6, 9)]),
        ([(8, 1 << 62)], [(5, 7)]),
        ([(6, 6), (8, 8)], [(5, 5), (7, 7), (9, 9)]),
        ([(1, 6), (2, 3), (9, 9)], [(7, 8)]),
        ([(5, 9)], []),
        ([(1, 2), (4, 30)], []),
    ],
)
def test_what_is_left_of_an_interval(
    others: list[tuple[int, int]], left: list[tuple[int, int]]
) -> None:
    assert without_intervals((5, 9), others) == left


def test_sequences_that_a_lost_journal_has_given_again_are_no_requests_twice(folder: Path) -> None:
    shutil.rmtree(folder / "journal")
    with started(folder) as opened:
        acknowledge(opened, requests(range(3_000, 3_010)))
    _put_back(folder)
    with started(folder) as opened:
        assert opened.store.doubled_parts == []
        assert len(opened.store.sealed.lost) == 1
        assert value(opened.store, "SELECT count(*) FROM requests") == 500 + 1 + 10
    problems = repair_folder(config_of(folder)).problems
    assert all("their rows are in the store" in problem.lower() for problem in problems), problems


def test_a_file_of_a_part_that_is_sealed_by_now_is_removed_only_if_it_holds_nothing_else(
    folder: Path, sound: tuple[Path, Rows, list[Any]]
) -> None:
    _put_back(folder)
    path, kept = folder / "open" / "000001.duckdb", folder.parent / "000001.duckdb"
    shutil.copy(path, kept)
    with started(folder) as opened:
        rolled_up(opened)
        Sealer(opened.store).seal(opened.store.parts.parts[0])
        opened.store.remove_unread()
    shutil.copy(kept, path)
    assert check_folder(folder) == []
    with started(folder) as opened:
        assert not path.exists(), "it is what a sealing that was killed leaves"
        assert everything(opened.store) == sound[1]
    with duckdb.connect(str(kept)) as connection:
        connection.execute("UPDATE applied SET commit_number = 10000 WHERE lane = 'small'")
    shutil.copy(kept, path)
    for _ in range(2):
        with started(folder) as opened:
            assert opened.store.parts.replaced == (1,)
            assert everything(opened.store) == sound[1]
            told = check_running(opened.store, folder, at_start=())
            assert told == [f"open/000001.duckdb: {REPLACED}"]
    assert check_folder(folder) == told
    assert repair_folder(config_of(folder)).problems == told
    assert path.exists()
