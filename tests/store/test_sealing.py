"""Sealed parts: the same rows once, in files that any engine reads, whatever ends the process."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import polars
import pyarrow.parquet as pq
import pytest

from ingester.errors import StoreBusy, StoreFailed
from ingester.store import part_rows, sealing, sorting
from ingester.store.control.sealed_files import SealedFiles
from ingester.store.reader import check_parts, kept_reject_bytes, read_dedup_keys, read_keys
from ingester.store.reject_rows import RejectFilter, count_rejects, find_rejects, reject_page
from ingester.store.sealing import PartNotWhole, Sealer
from ingester.store.store import Store
from tests.store.sealing_rows import VIEWS, add_request, contents, fill, seal_all
from tests.store.stores import opened, rows, value


class Killed(BaseException):
    """The process ends here."""


def sealed_files(folder: Path) -> list[Path]:
    return sorted((folder / "sealed").glob("*/*/*.parquet"))


def test_sealed_rows_are_those_of_the_part(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        fill(store)
        before = contents(store)
        assert all(before.values())
        store.rotate()
        assert seal_all(store) == 1
        assert contents(store) == before
        assert value(store, "SELECT typeof(body) FROM events LIMIT 1") == "JSON"
        # Six tables of three days, and the ledger of today.
        assert len(sealed_files(tmp_path)) == 19
        assert [path.name for path in (tmp_path / "open").glob("*.duckdb")] == ["000002.duckdb"]
        assert list((tmp_path / "uploads").iterdir()) == []
        assert check_parts(store) == []
    with opened(tmp_path) as store:
        assert contents(store) == before
        assert check_parts(store) == []


def test_a_file_has_the_rows_of_one_day_in_order_of_time(tmp_path: Path) -> None:
    times = {"events": "created_at", "logs": "time", "metrics": "time"}
    with opened(tmp_path) as store:
        fill(store)
        store.rotate()
        seal_all(store)
        for path in sealed_files(tmp_path):
            table, day, _ = path.relative_to(tmp_path / "sealed").parts
            found = pq.read_table(path)
            arrival = "committed_at" if table == "applied" else "received_at"
            assert {str(each.date()) for each in found[arrival].to_pylist()} == {day}
            order = found[times.get(table, arrival)].to_pylist()
            assert order == sorted(order)


@pytest.mark.parametrize("way", ["by runs", "as it lies", "a day more", "wide"])
def test_every_way_of_sorting_has_the_same_rows(
    tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sorting, "RUN_BYTES", 20_000)
    monkeypatch.setattr(sealing, "RUN_BYTES", 20_000)
    monkeypatch.setattr(sorting, "_GROUP_BYTES", 2_000)
    monkeypatch.setattr(part_rows, "_CHUNK_ROWS", 512)
    if way == "by runs":
        monkeypatch.setattr(sealing, "_OVERLAP_ROWS_MAX", 0)
    with opened(tmp_path) as store:
        fill(store, row_count=700)
        if way == "a day more":
            add_request(store, 9_999, datetime(1999, 1, 1, tzinfo=UTC), reject_count=3)
        before = contents(store)
        store.rotate()
        store.parts.parts[0].is_wide = way == "wide"
        assert seal_all(store) == 1
        assert contents(store) == before
        for path in sealed_files(tmp_path):
            if path.parts[-3] == "events":
                order = pq.read_table(path)["created_at"].to_pylist()
                assert order == sorted(order)
        assert list((tmp_path / "sealed").glob(".tmp/*")) == []


def test_other_engines_read_the_files(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        fill(store)
        store.rotate()
        seal_all(store)
        for view in VIEWS:
            known = {row[0] for row in store_ids(store, view)}
            name = "request_id" if view == "requests" else "id"
            paths = [path for path in sealed_files(tmp_path) if path.parts[-3] == view]
            assert {
                each for path in paths for each in pq.ParquetFile(path).read()[name].to_pylist()
            } == known
            frames = [polars.read_parquet(path) for path in paths]
            assert {each for frame in frames for each in frame[name].to_list()} == known
        statistics = pq.read_metadata(paths[0]).row_group(0)
        assert statistics.column(0).compression == "ZSTD"
        assert statistics.column(1).statistics.has_min_max


def store_ids(store: Store, view: str) -> list[tuple[str]]:
    return rows(store, f"SELECT {'request_id' if view == 'requests' else 'id'} FROM {view}")


@pytest.mark.parametrize(
    "point", ["before the rename", "before the manifest", "after the manifest"]
)
def test_a_kill_while_sealing_leaves_every_row_once(
    tmp_path: Path, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as store:
        fill(store, row_count=50)
        before = contents(store)
        store.rotate()
        killed_at(monkeypatch, store, point, lambda sealer: sealer.seal(store.parts.parts[0]))
    monkeypatch.undo()
    with opened(tmp_path) as store:
        assert contents(store) == before
        assert check_parts(store) == []
        seal_all(store)
        assert contents(store) == before
        assert store.parts.parts[0].number == 2
        listed = {store.sealed.path(file) for file in store.sealed.all_files()}
        assert set((tmp_path / "sealed").glob("*/*/*")) == listed
        assert list((tmp_path / "uploads").iterdir()) == []
        assert len(list((tmp_path / "open").glob("*.duckdb"))) == 1
        assert store.sealed.manifest.read_manifest().removals == frozenset()


def killed_at(
    monkeypatch: pytest.MonkeyPatch, store: Store, point: str, act: Callable[[Sealer], object]
) -> None:
    """Nothing is tidied up behind it, as by a kill."""

    def die(reached: str) -> None:
        if reached == point:
            raise Killed

    monkeypatch.setattr(sealing, "reached", die)
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)
    with pytest.raises(Killed):
        act(Sealer(store))


@pytest.mark.parametrize(
    "point", ["before the rename", "before the manifest", "after the manifest"]
)
def test_a_kill_while_joining_leaves_every_row_once(
    tmp_path: Path, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as store:
        for seed in range(3):
            fill(store, row_count=20, seed=seed)
            store.rotate()
        seal_all(store)
        before = contents(store)
        files = sealing.joinable(store.sealed.all_files(), "2026-12-01")
        assert len(files) == 3
        killed_at(monkeypatch, store, point, lambda sealer: sealer.join(files))
    monkeypatch.undo()
    with opened(tmp_path) as store:
        assert contents(store) == before
        assert check_parts(store) == []
        while files := sealing.joinable(store.sealed.all_files(), "2026-12-01"):
            Sealer(store).join(files)
        store.remove_unread()
        assert contents(store) == before
        assert len(sealed_files(tmp_path)) == 19
        assert check_parts(store) == []


@pytest.mark.parametrize("is_there", [False, True])
@pytest.mark.parametrize("is_join", [False, True])
def test_a_swap_whose_sync_failed_costs_no_row_whether_it_is_there_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_there: bool, is_join: bool
) -> None:
    """For this process it did not happen; the next one may find it in SQLite's WAL."""
    manifest = SealedFiles.open(tmp_path / "control.sqlite")
    swap = manifest.swap_sealed

    def fail(**changes: Any) -> None:
        found = manifest.read_manifest()
        monkeypatch.setattr(manifest, "read_manifest", lambda: found)
        if is_there:
            swap(**changes)
        raise StoreFailed("disk I/O error")

    def fail_to_settle() -> None:
        raise StoreFailed("disk I/O error")

    with opened(tmp_path) as store:
        fill(store, row_count=20)
        store.rotate()
        if is_join:
            for seed in (2, 3):
                fill(store, row_count=20, seed=seed)
                store.rotate()
            seal_all(store)
        before = contents(store)
        store.sealed._manifest = manifest
        monkeypatch.setattr(manifest, "swap_sealed", fail)
        monkeypatch.setattr(manifest, "settle", fail_to_settle)
        sealer = Sealer(store)
        files = sealing.joinable(store.sealed.all_files(), "2026-12-01")
        act = partial(sealer.join, files) if is_join else partial(sealer.seal, store.parts.parts[0])
        with pytest.raises(StoreFailed):
            act()
        assert contents(store) == before
    manifest.close()
    with opened(tmp_path) as store:
        assert contents(store) == before
        assert check_parts(store) == []
        seal_all(store)
        assert contents(store) == before


def test_a_swap_that_did_not_happen_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise StoreBusy("the disk is full")

    with opened(tmp_path) as store:
        fill(store, row_count=20)
        store.rotate()
        with monkeypatch.context() as patch:
            patch.setattr(SealedFiles, "swap_sealed", fail)
            with pytest.raises(StoreBusy):
                Sealer(store).seal(store.parts.parts[0])
        assert sealed_files(tmp_path) == []
        assert seal_all(store) == 1


@pytest.mark.parametrize("is_there", [False, True])
def test_a_rotation_whose_note_failed_is_no_loss_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_there: bool
) -> None:
    with opened(tmp_path) as store:
        fill(store, row_count=20)
        before = contents(store)
        manifest = store.sealed.manifest
        note = manifest.note_part

        def fail(number: int) -> None:
            if is_there:
                note(number)
            raise StoreFailed("disk I/O error")

        def fail_to_settle() -> None:
            raise StoreFailed("disk I/O error")

        with monkeypatch.context() as patch:
            patch.setattr(manifest, "note_part", fail)
            patch.setattr(manifest, "settle", fail_to_settle)
            with pytest.raises(StoreFailed):
                store.rotate()
    with opened(tmp_path) as store:
        assert store.missing_parts == []
        assert store.sealed.lost == ()
        assert contents(store) == before


def test_a_part_waits_for_cursors_and_transactions(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        fill(store, row_count=5)
        sealer = Sealer(store)
        assert sealer.next_part() is None  # the newest
        with store.begin("bulk"):
            store.rotate()
            assert sealer.next_part() is None
        store.cursors.move("rollups", store.ledger.commit_number - 1)
        assert sealer.next_part() is None
        store.cursors.move("rollups", store.ledger.commit_number)
        part = sealer.next_part()
        assert part is not None
        assert part.number == 1


def test_a_reader_in_flight_keeps_what_it_reads(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        fill(store, row_count=20)
        store.rotate()
        before = contents(store)
        with store.hold() as held:
            seal_all(store)
            files = held.snapshot.files_of("events")
            assert all(path.exists() for path in files)
            parts = " UNION ALL ".join(
                f"SELECT body FROM {part}.events" for part in held.snapshot.parts
            )
            assert value(store, f"SELECT count(*) FROM ({parts})") == 60
            assert contents(store) == before
        store.remove_unread()
        assert not any(path.exists() for path in files)
        assert contents(store) == before


def test_nothing_that_is_not_whole_is_sealed(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        fill(store, row_count=20)
        store.rotate()
    min((tmp_path / "uploads").iterdir()).unlink()
    with opened(tmp_path) as store:
        sealer = Sealer(store)
        part = sealer.next_part()
        assert part is not None
        with pytest.raises(PartNotWhole, match="missing or damaged"):
            sealer.seal(part)
        assert sealer.next_part() is None
        assert sealed_files(tmp_path) == []
        assert len(check_parts(store)) > 0


def test_a_damaged_upload_file_holds_up_only_its_part(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        for seed in range(2):
            fill(store, row_count=300, seed=seed)
            store.rotate()
        path = next((tmp_path / "uploads").glob("000001-*-events.parquet"))
        content = bytearray(path.read_bytes())
        content[100:400] = bytes(300)  # the footer is whole
        path.write_bytes(content)
        sealer = Sealer(store)
        for number in (1, 2):
            part = sealer.next_part()
            assert part is not None
            assert part.number == number
            if number == 1:
                with pytest.raises(PartNotWhole):
                    sealer.seal(part)
            else:
                sealer.seal(part)
        assert {file.first_part for file in store.sealed.all_files()} == {2}
        assert len(list((tmp_path / "sealed").glob("*/*/*"))) == len(store.sealed.all_files())


def test_rows_that_the_ledger_does_not_tell_of_are_not_sealed(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        fill(store, row_count=5)
        rows(store, "UPDATE part_000001.applied SET row_count = row_count + 1 WHERE batch_id = 1")
        store.rotate()
        with pytest.raises(PartNotWhole, match="ledger says"):
            Sealer(store).seal(store.parts.parts[0])


def test_an_unknown_file_is_left_alone_and_told(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        fill(store, row_count=5)
        store.rotate()
        seal_all(store)
        files = sealed_files(tmp_path)
    # Somebody has begun with a new control store.
    (tmp_path / "control.sqlite").unlink()
    with opened(tmp_path) as store:
        assert sealed_files(tmp_path) == files
        assert len([text for text in check_parts(store) if "does not know" in text]) == len(files)


def test_a_missing_file_is_told_and_the_others_are_read(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        fill(store, row_count=5)
        store.rotate()
        seal_all(store)
    (tmp_path / "sealed" / "events" / "2026-11-20").rename(tmp_path / "away")
    with opened(tmp_path) as store:
        assert value(store, "SELECT count(*) FROM events") == 20
        assert [text for text in check_parts(store) if "missing" in text]


def test_keys_ids_and_rejects_survive(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    long_ago = now - timedelta(days=30)
    with opened(tmp_path) as store:
        fill(store, row_count=5, day=long_ago)
        for number in range(101, 104):
            add_request(
                store, number, now - timedelta(hours=1), key=f"new-{number}", reject_count=3
            )
        keys = read_keys(store, keys_max=100, hours=24)
        ids = list(read_dedup_keys(store, "events:shop:id", 24))
        page = reject_page(store, RejectFilter(), limit=100)
        assert (len(keys), len(ids), len(page.rejects)) == (3, 3, 24)
        kept = kept_reject_bytes(store)
        counts = count_rejects(store, RejectFilter(since=long_ago + timedelta(days=1)))
        store.rotate()
        seal_all(store)
        assert read_keys(store, keys_max=100, hours=24) == keys
        assert list(read_dedup_keys(store, "events:shop:id", 24)) == ids
        assert reject_page(store, RejectFilter(), limit=100) == page
        assert page.rejects[0].credential == "source:103"
        wanted = [reject.key for reject in page.rejects[::3]]
        assert find_rejects(store, wanted) == page.rejects[::3]
        assert count_rejects(store, RejectFilter(since=long_ago + timedelta(days=1))) == counts
        assert kept_reject_bytes(store) == kept
