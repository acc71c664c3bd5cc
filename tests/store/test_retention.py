"""Retention: which files go when, told before, and space that really returns."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ingester.config import StoreConfig
from ingester.store.control import SealedFile
from ingester.store.retention import Keeping, due, next_purges, purge_sentence
from tests.store.sealing_rows import contents, fill, seal_all
from tests.store.stores import opened

MIDNIGHT = datetime(2026, 11, 21, tzinfo=UTC)
NOW = MIDNIGHT.timestamp()
DAY_S = 86_400


def file(table: str, day: str, *, byte_count: int = 100, row_count: int = 10) -> SealedFile:
    at = datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp() + 3600
    return SealedFile(
        name=f"{table}/{day}/{byte_count}.parquet",
        table=table,
        day=day,
        first_part=1,
        last_part=1,
        row_count=row_count,
        byte_count=byte_count,
        time_low_us=0,
        time_high_us=0,
        received_low_us=int(at * 1e6),
        received_high_us=int(at * 1e6),
        sealed_at=0.0,
    )


def names(found: list[tuple[str, SealedFile]]) -> list[str]:
    return [f"{reason} {file.table} {file.day}" for reason, file in found]


def test_a_day_goes_so_many_days_after_its_end() -> None:
    keeping = Keeping(days={"events": 7, "logs": 0})
    files = [file("events", "2026-11-13"), file("events", "2026-11-14"), file("logs", "2020-01-01")]
    assert names(due(files, keeping, stored_bytes=0, now=NOW)) == ["age events 2026-11-13"]
    assert names(due(files, keeping, stored_bytes=0, now=NOW - 1)) == []


def test_the_oldest_days_of_all_tables_go_until_the_rest_fits() -> None:
    days = ["2026-11-01", "2026-11-02", "2026-11-03"]
    files = [file(table, day) for table in ("events", "logs") for day in days]

    def gone(bytes_max: int) -> list[str]:
        return names(due(files, Keeping(days={}, bytes_max=bytes_max), stored_bytes=700, now=NOW))

    assert gone(0) == gone(700) == []
    first = ["size events 2026-11-01", "size logs 2026-11-01"]
    assert gone(699) == gone(500) == first
    assert gone(499) == [*first, "size events 2026-11-02", "size logs 2026-11-02"]
    assert len(gone(1)) == 6


def test_what_goes_by_age_counts_for_the_size() -> None:
    files = [file("events", "2026-01-01"), file("logs", "2026-01-02")]
    keeping = Keeping(days={"logs": 1}, bytes_max=150)
    assert names(due(files, keeping, stored_bytes=200, now=NOW)) == ["age logs 2026-01-02"]


def test_what_repeats_are_told_by_stays_for_its_window() -> None:
    keeping = Keeping(
        days={"requests": 1}, bytes_max=1, idempotency_hours=24 * 30, dedup_hours=24 * 20
    )
    files = [file("requests", "2026-11-01"), file("dedup_keys", "2026-11-05")]
    assert due(files, keeping, stored_bytes=1000, now=NOW) == []
    later = NOW + 5 * DAY_S
    assert names(due(files, keeping, stored_bytes=0, now=later)) == ["age dedup_keys 2026-11-05"]
    later = NOW + 11 * DAY_S
    assert "age requests 2026-11-01" in names(due(files, keeping, stored_bytes=0, now=later))


def test_the_ledger_stays_as_long_as_any_rows() -> None:
    files = [file("applied", "2026-11-01")]
    some = Keeping(days={"events": 1, "logs": 1})
    assert due(files, some, stored_bytes=0, now=NOW) == []
    every = Keeping(days={"events": 1, "logs": 19, "metrics": 1})
    assert due(files, every, stored_bytes=0, now=NOW - 1) == []
    assert len(due(files, every, stored_bytes=0, now=NOW)) == 1


def test_the_next_purge_is_told_before_it_is_due() -> None:
    keeping = Keeping(days={"events": 30, "logs": 30})
    files = [
        file("events", "2026-11-02", row_count=5),
        file("events", "2026-11-02", row_count=6, byte_count=200),
        file("logs", "2026-11-02"),
        file("events", "2026-11-03"),
    ]
    (purge,) = next_purges(files, keeping, stored_bytes=0, now=NOW)
    assert purge_sentence(purge) == (
        "next purge removes events of 2026-11-02 (11 rows, 300 bytes), logs of 2026-11-02 (10 rows,"
        " 100 bytes) at 2026-12-03T00:00:00Z: their time is over"
    )
    assert next_purges(files, Keeping(days={}), stored_bytes=0, now=NOW) == []
    by_size = next_purges(files, Keeping(days={}, bytes_max=450), stored_bytes=500, now=NOW)
    assert [(purge.reason, purge.at) for purge in by_size] == [("size", "2026-11-21T00:00:00Z")]


def test_settings_are_days_by_table() -> None:
    config = StoreConfig(retention_days=("events=30", "logs = 7"), store_bytes_max=9)
    keeping = Keeping.of(config, idempotency_hours=24, dedup_hours=[24, 100])
    assert (keeping.days, keeping.bytes_max, keeping.dedup_hours) == (
        {"events": 30, "logs": 7},
        9,
        100,
    )


@pytest.mark.parametrize("is_read", [False, True])
def test_removed_files_give_their_space_back(tmp_path: Path, is_read: bool) -> None:
    def used() -> int:
        return sum(path.stat().st_size for path in tmp_path.rglob("*.parquet"))

    with opened(tmp_path) as store:
        fill(store)
        fill(store, day=MIDNIGHT - timedelta(days=90), seed=2)
        store.rotate()
        seal_all(store)
        before, held_rows = used(), contents(store)
        found = due(
            store.sealed.all_files(),
            Keeping(days={"events": 30, "logs": 30}),
            stored_bytes=0,
            now=NOW,
        )
        gone = [file for _, file in found]
        assert {file.table for file in gone} == {"events", "logs", "dedup_keys"}
        freed = sum(file.byte_count for file in gone)
        if is_read:
            with store.hold() as held:
                store.publish_sealed(dropped=gone)
                store.remove_unread()
                assert used() == before
                assert all(path.exists() for path in held.snapshot.files_of("events"))
        else:
            store.publish_sealed(dropped=gone)
        assert store.remove_unread() == freed
        assert used() == before - freed
        left = contents(store)
        assert len(left["events"]) == len(held_rows["events"]) // 2
        assert left["metrics"] == held_rows["metrics"]
        assert left["rejects"] == held_rows["rejects"]
    with opened(tmp_path) as store:
        assert contents(store) == left
