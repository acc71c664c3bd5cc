"""A check counts every relation of rollups anew: sound ones add up, and any change is named."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import duckdb
import pytest

from ingester.safekeeping.check import check_folder
from ingester.store import check_rollups
from ingester.store.check import inspect_store
from ingester.store.rollups import Rollups
from ingester.store.store import Store
from tests.search.rows import Rows
from tests.store.recount import add_some
from tests.store.stores import opened


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with opened(tmp_path) as made:
        yield made


def _filled(store: Store, seed: int) -> Rollups:
    rollups, made = Rollups(store), Rows(store)
    for _ in range(4):
        add_some(made, random.Random(seed), 40)
        while rollups.step().row_count:
            pass
    return rollups


@pytest.mark.parametrize("span_rows_max", [1_000_000, 7, 1])
def test_sound_rollups_add_up_in_spans_of_any_size(
    store: Store, span_rows_max: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_rollups, "_SPAN_ROWS_MAX", span_rows_max)
    _filled(store, 1)
    add_some(Rows(store), random.Random(2), 30)  # behind the cursor
    assert inspect_store(store).problems == []


# By table: what is changed, and the relation that a check names.
_CHANGES = [
    ("event_hours", "events = events + 1", "events_hourly"),
    ("event_hours", "users = users + 1", "events_hourly"),
    ("event_days", "sessions = sessions - 1", "events_daily|accounts_daily"),
    ("event_days", "active_duration = active_duration + 1", "accounts_daily"),
    ("source_hours", "events = 0", "events_hourly of all accounts"),
    ("source_days", "accounts = coalesce(accounts, 0) + 1", "events_daily of all accounts"),
    ("module_days", "time_spent = time_spent + 1", "modules_daily"),
    ("module_days", "visits = visits - 1", "modules_daily"),
    ("feature_days", "total = total * 2 + 1", "features_daily"),
    ("feature_days", "users = users + 1", "features_daily"),
    ("log_hours", "logs = logs + 1", "logs_hourly"),
    ("metric_hours", "count = count - 1", "metrics_hourly"),
    ("metric_hours", "sum = sum + 1", "metrics_hourly"),
    ("metric_hours", "last = last + 1, last_time = last_time + INTERVAL 50 MINUTE", "metrics_h"),
    ("user_seen", "first_seen = first_seen - INTERVAL 1 SECOND", "users"),
    ("account_seen", "last_seen = last_seen + INTERVAL 1 SECOND", "accounts"),
    ("details", "value = '\"another\"'", "users has other details|accounts has other details"),
    ("details", "time = time + INTERVAL 9 DAY", "users has other det|accounts has other det"),
    ("details", "key = key || 'x'", "users has other details|accounts has other details"),
]


@pytest.mark.parametrize(("table", "change", "named"), _CHANGES)
def test_a_changed_row_of_any_table_is_named(
    store: Store, table: str, change: str, named: str
) -> None:
    _filled(store, 3)
    generation = store.rollup_file.names()[table]
    with store.database.lease() as lease, lease.using() as cursor:
        condition = "active_duration IS NOT NULL" if "active" in change else "true"
        cursor.execute(
            f"UPDATE {generation} SET {change} WHERE rowid = "
            f"(SELECT max(rowid) FROM {generation} WHERE {condition})"
        )
    problems = inspect_store(store).problems
    names = tuple(f"rollups.duckdb: {name}" for name in named.split("|"))
    assert problems
    assert all(problem.startswith(names) for problem in problems), problems
    assert all("makes the rollups anew" in problem for problem in problems)


def test_a_day_that_is_gone_or_too_much_is_named_on_a_stopped_folder(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        _filled(store, 4)
        table = store.rollup_file.names()["log_hours"].partition(".")[2]
        store.checkpoint()
    assert check_folder(tmp_path) == []
    for change in (
        f"DELETE FROM {table} WHERE rowid = 0",
        f"INSERT INTO {table} VALUES (TIMESTAMP '2031-01-01', 'x', 'y', 'info', 3)",
    ):
        with closing(duckdb.connect(str(tmp_path / "rollups.duckdb"))) as connection:
            connection.execute(change)
        assert any("logs_hourly" in problem for problem in check_folder(tmp_path))
