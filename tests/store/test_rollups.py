"""Rollups: at any moment they and the rows behind the cursor are a recount."""

from __future__ import annotations

import json
import random
import time
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from ingester.errors import StoreError
from ingester.store import rollups as rollups_module
from ingester.store.rollups import READER, Rollups
from tests.search.rows import NOW, Rows, at, event, metric
from tests.store.recount import add_some, assert_recounts
from tests.store.stores import opened, rows, value

from .rollup_recount import recount_problems


def finish(rollups: Rollups) -> None:
    rollups.catch_up(gives_up_at=time.monotonic() + 20)


@pytest.mark.parametrize("seed", range(4))
def test_rollups_equal_a_recount_after_each_step(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    with opened(tmp_path) as store:
        rollups, made = Rollups(store), Rows(store)
        for _ in range(4):
            for _ in range(chance.randrange(1, 4)):
                add_some(made, chance)
            finish(rollups)
            assert_recounts(store)
        assert store.cursors.positions()[READER] == store.ledger.commit_number


@pytest.mark.parametrize("seed", range(3))
def test_rollups_and_the_rows_behind_the_cursor_are_a_recount(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events, which are counted by addition, after each single batch."""
    monkeypatch.setattr(rollups_module, "_STEP_ROWS_MAX", 1)
    chance = random.Random(seed)
    with opened(tmp_path) as store:
        made = Rows(store)
        for _ in range(4):
            add_some(made, chance)
        rollups = Rollups(store)
        rollups._step_rows_max = 1
        total = value(store, "SELECT count(*) FROM events")
        while True:
            step = rollups.step()
            behind = value(
                store,
                "SELECT count(*) FROM events WHERE batch_id IN (SELECT batch_id FROM "
                f"part_000001.applied WHERE commit_number > {rollups.commit_number})",
            )
            assert value(store, "SELECT coalesce(sum(events), 0) FROM events_daily") + behind == (
                total
            )
            if not step.waiting_row_count:
                break
        assert_recounts(store)


def test_small_steps_take_fewer_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollups_module, "_SMALL_STEP_ROWS_MAX", 2)
    with opened(tmp_path) as store:
        rollups, made = Rollups(store), Rows(store)
        for _ in range(6):
            made.add("events", [event(NOW, "x")])
        assert rollups.step(is_small=True).row_count == 2
        assert rollups.step().row_count == 4
        assert_recounts(store)


@pytest.mark.parametrize("seed", range(2))
def test_merging_changes_nothing_that_is_told(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollups_module, "_UNMERGED_ROWS_MAX", 5)
    monkeypatch.setattr(rollups_module, "_MERGE_ROWS_MAX", 10)
    chance = random.Random(seed)
    with opened(tmp_path) as store:
        rollups, made = Rollups(store), Rows(store)
        for _ in range(2):
            add_some(made, chance, 30)
            finish(rollups)
            while rollups.maybe_merge():
                # What is appended in the midst of a merge is not lost with the old generation.
                if chance.random() < 0.2:
                    add_some(made, chance, 3)
                    finish(rollups)
                    assert_recounts(store)
            assert_recounts(store)
        assert rollups.merge_count > 2
        generation = store.rollup_file.generations["event_hours"]
        assert generation > 1
        merged = value(store, "SELECT count(*) FROM rollup_source_days")
        assert merged <= rollups_module._UNMERGED_ROWS_MAX + 2 * value(
            store, "SELECT count(*) FROM (SELECT DISTINCT bucket, gid FROM rollup_source_days)"
        )
    with opened(tmp_path) as store:
        assert store.rollup_file.generations["event_hours"] == generation
        Rollups(store)
        assert_recounts(store)


def test_a_merge_waits_for_who_is_in_the_way_of_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a word: it is due, no more."""
    monkeypatch.setattr(rollups_module, "_UNMERGED_ROWS_MAX", 5)
    with opened(tmp_path) as store:
        rollups, made = Rollups(store), Rows(store)
        for _ in range(3):
            add_some(made, random.Random(3), 30)
            finish(rollups)
        with store.database.lease() as lease:
            with lease.using() as cursor:
                cursor.execute("BEGIN")
                cursor.execute("UPDATE rollups.about SET created_at = created_at")
            assert not rollups.maybe_merge()
            with lease.using() as cursor:
                cursor.execute("ROLLBACK")
        assert rollups.maybe_merge()
        assert_recounts(store)


def test_a_step_that_fails_at_any_statement_is_done_once(tmp_path: Path) -> None:
    """Also at its COMMIT, before and after it has happened."""
    chance = random.Random(7)
    with opened(tmp_path) as store:
        rollups, made = Rollups(store), Rows(store)
        add_some(made, chance)
        finish(rollups)
        for number in range(0, 60, 4):
            add_some(made, chance)
            with _failing(rollups, number, after=bool(number % 8)), suppress(StoreError):
                rollups.step()
            finish(rollups)
        assert_recounts(store)


def test_a_reopened_store_goes_on_where_its_rollups_stand(tmp_path: Path) -> None:
    chance = random.Random(3)
    with opened(tmp_path) as store:
        made = Rows(store)
        add_some(made, chance)
        finish(Rollups(store))
        add_some(made, chance)
    with opened(tmp_path) as store:
        rollups = Rollups(store)
        assert 0 < store.cursors.positions()[READER] < store.ledger.commit_number
        made.store = store
        store.recover(store.database.generation)
        add_some(made, chance)
        finish(rollups)
        store.rotate()
        add_some(made, chance)
        finish(rollups)
        assert_recounts(store)


def test_no_horizon_is_none_whatever_statistics_say(tmp_path: Path) -> None:
    """From those of a file DuckDB 1.5.6 answers max('-infinity') with a day in 290309 BC."""
    with opened(tmp_path) as store:
        made = Rows(store)
        made.add("events", [event(NOW)])
        rollups = Rollups(store)
        finish(rollups)
        rollups.maybe_checkpoint(bytes_min=1)
    for _ in range(2):
        with opened(tmp_path) as store:
            made.store = store
            made.add("events", [event(NOW)])
            rollups = Rollups(store)
            finish(rollups)
            with store.database.lease() as lease, lease.using() as cursor:
                assert rollups.horizon(cursor) is None
            progress = store.rollup_file.names()["progress"]
            with store.database.lease() as lease, lease.using() as cursor:
                stored = cursor.execute(f"SELECT DISTINCT horizon::VARCHAR FROM {progress}")
                assert stored.fetchall() == [("-infinity",)]


def test_a_number_that_was_taken_by_a_failed_commit_holds_nothing_up(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        rollups, made = Rollups(store), Rows(store)
        store.ledger.take_commit_numbers(3)
        made.add("events", [event(NOW)])
        store.ledger.take_commit_numbers(2)
        finish(rollups)
        assert rollups.commit_number == 4
        made.add("events", [event(NOW)])
        finish(rollups)
        assert rows(store, "SELECT events, users FROM events_daily") == [(2, 1)]


def test_a_late_row_corrects_its_bucket_and_counts_nobody_twice(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        rollups, made = Rollups(store), Rows(store)
        old = at("2019-03-01T10:30:00")
        made.add("events", [event(old, "x"), event(NOW, "x"), event(NOW, "x", user_id="bob")])
        finish(rollups)
        made.add("events", [event(old, "x"), event(old + timedelta(hours=1), "x", user_id="bob")])
        finish(rollups)
        daily = "SELECT events, users, sessions FROM events_daily ORDER BY bucket"
        assert rows(store, daily) == [(3, 2, 1), (2, 2, 1)]
        assert_recounts(store)


def test_the_last_value_of_a_metric_is_by_time_and_then_by_arrival(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        rollups, made = Rollups(store), Rows(store)
        later = NOW + timedelta(minutes=9)
        made.add("metrics", [metric(later, 1, unit="s"), metric(later, 2), metric(NOW, 3)])
        finish(rollups)
        made.add("metrics", [metric(NOW, 4, unit="m", metric_name="Old")])
        finish(rollups)
        assert value(store, "SELECT last FROM metrics_hourly") == 2.0
        made.add("metrics", [metric(later, 5)], as_file=True)
        finish(rollups)
        assert value(store, "SELECT last FROM metrics_hourly") == 5.0
        assert_recounts(store)


def test_details_merge_by_key_and_null_removes(tmp_path: Path) -> None:
    def says(minutes: int, **details: Any) -> dict[str, Any]:
        body = {"details": details}
        return event(NOW + timedelta(minutes=minutes), "identifyUser", body=body)

    with opened(tmp_path) as store:
        rollups, made = Rollups(store), Rows(store)
        made.add("events", [says(0, a=1, b=2), says(5, b=None)])
        finish(rollups)
        # Later, but of before: it says nothing of b, which is gone since.
        made.add("events", [says(3, b=7, c={"x": None}), says(5, a="new")])
        text = '{"action": "identifyUser", "details": {"d": 1, "d": {"last": 2}}}'
        made.add("events", [{**event(NOW, "identifyUser"), "body": text}])
        made.add("events", [event(NOW, "identifyUser", body={"details": "{no object"})])
        finish(rollups)
        ((details, first, last),) = rows(store, "SELECT details, first_seen, last_seen FROM users")
        assert last - first == timedelta(minutes=5)
        assert json.loads(details) == {"a": "new", "c": {"x": None}, "d": {"last": 2}}


def test_a_known_action_in_snake_case_is_the_same_action(tmp_path: Path) -> None:
    said = {
        "module_end": {"module": "m", "time_spent": 3},
        "session_sync": {"active_duration": 5},
        "identify_user": {"details": {"a": 1}},
        "identify_account": {"details": {"b": 2}},
    }
    with opened(tmp_path) as store:
        rollups, made = Rollups(store), Rows(store)
        made.add("events", [event(NOW, action, body=body) for action, body in said.items()])
        made.add("events", [event(NOW, "moduleEnd", body={"module": "m", "timeSpent": 4})])
        finish(rollups)
        assert rows(store, "SELECT time_spent, visits FROM modules_daily") == [(7.0, 2)]
        assert value(store, "SELECT active_duration FROM accounts_daily") == 5.0
        assert json.loads(value(store, "SELECT details FROM users")) == {"a": 1}
        assert json.loads(value(store, "SELECT details FROM accounts")) == {"b": 2}
        assert value(store, "SELECT events FROM events_daily WHERE action = 'module_end'") == 1
        assert not recount_problems(store, rollups)


def test_what_is_older_than_is_kept_goes_and_does_not_come_again(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        rollups, made = Rollups(store), Rows(store)
        old = at("2026-11-10T23:59:59")
        made.add("events", [event(old, "x"), event(old + timedelta(seconds=1), "x")])
        made.add("metrics", [metric(old, 1), metric(NOW, 2)])
        finish(rollups)
        assert rollups.purge(10, now=NOW) > 0
        assert rollups.purge(10, now=NOW) == 0
        made.add("events", [event(old, "x", user_id="late"), event(NOW, "x")])
        finish(rollups)
        for view in ("events_hourly", "events_daily", "accounts_daily"):
            assert value(store, f"SELECT min(bucket) FROM {view}") == datetime(2026, 11, 11)
            assert value(store, f"SELECT sum(events) FROM {view}") == 2
        assert value(store, "SELECT count(*) FROM metrics_daily") == 1
        # Who was there stays.
        assert value(store, "SELECT count(*) FROM users") == 2
    with opened(tmp_path) as store:
        assert value(store, "SELECT sum(events) FROM events_daily") == 2


def test_a_rebuild_makes_the_same_anew(tmp_path: Path) -> None:
    chance = random.Random(5)
    with opened(tmp_path) as store:
        rollups, made = Rollups(store), Rows(store)
        for _ in range(3):
            add_some(made, chance)
            store.rotate()
        finish(rollups)
        with store.database.lease() as lease, lease.using() as cursor:
            for table, name in store.rollup_file.names().items():
                if table not in {"progress", "groups"}:
                    cursor.execute(f"DELETE FROM {name} WHERE random() < 0.5")
        rollups.rebuild()
        assert rollups.commit_number == store.ledger.commit_number
        assert_recounts(store)
        add_some(made, chance)
        finish(rollups)
        assert_recounts(store)


def test_a_recount_finds_what_was_changed_and_a_rebuild_mends_it(tmp_path: Path) -> None:
    chance = random.Random(9)
    with opened(tmp_path) as store:
        rollups, made = Rollups(store), Rows(store)
        for _ in range(3):
            add_some(made, chance)
        assert recount_problems(store, rollups) == []
        add_some(made, chance)
        assert recount_problems(store, rollups) == []
        names = store.rollup_file.names()
        changes = {
            "events_daily": f"UPDATE {names['event_days']} SET users = users + 1 WHERE events > 0",
            "modules_daily": f"UPDATE {names['module_days']} SET time_spent = 1e6",
            "logs_hourly": f"DELETE FROM {names['log_hours']} WHERE level = 'error'",
            "metrics_hourly": f"UPDATE {names['metric_hours']} SET last = 77",
            "features_daily": f"INSERT INTO {names['feature_days']} "
            "VALUES (TIMESTAMP '2026-01-01', 'x', 'y', NULL, NULL, 'f', 1, 1)",
        }
        with store.database.lease() as lease, lease.using() as cursor:
            for change in changes.values():
                cursor.execute(change)
        problems = recount_problems(store, rollups)
        for view in changes:
            assert [problem for problem in problems if problem.startswith(view)], view
        assert not [problem for problem in problems if problem.startswith("events_hourly")]
        assert any("instead of" in problem for problem in problems)
        rollups.rebuild()
        assert recount_problems(store, rollups) == []
        rollups.purge(5, now=NOW)
        assert recount_problems(store, rollups) == []


def test_rollups_ahead_of_their_rows_are_made_anew(tmp_path: Path) -> None:
    with opened(tmp_path / "a") as store:
        made = Rows(store)
        for _ in range(5):
            made.add("events", [event(NOW, "of another folder")])
        finish(Rollups(store))
    with opened(tmp_path / "b") as store:
        Rows(store).add("events", [event(NOW, "mine")])
    (tmp_path / "a/rollups.duckdb").replace(tmp_path / "b/rollups.duckdb")
    with opened(tmp_path / "b") as store:
        rollups = Rollups(store)
        assert rollups.step().row_count == 1
        assert rollups.commit_number == store.ledger.commit_number
        assert rows(store, "SELECT action, events FROM events_daily") == [("mine", 1)]


def test_rollups_that_miss_commits_of_parts_that_are_gone_are_made_anew(tmp_path: Path) -> None:
    """As when rows were sealed: they are there, and no ledger lists their commits."""
    with opened(tmp_path) as store:
        made = Rows(store)
        made.add("events", [event(NOW, "x"), event(NOW, "x", user_id="bob")])
        store.rotate()
        made.add("events", [event(NOW, "x")])
        with store.database.lease() as lease, lease.using() as cursor:
            cursor.execute(
                "INSERT INTO part_000002.events SELECT * FROM part_000001.events; "
                "DELETE FROM part_000001.events"
            )
        store.parts.parts = store.parts.parts[1:]
        rollups = Rollups(store)
        assert rollups.catch_up(gives_up_at=time.monotonic() + 5).year == 1
        assert rollups.step().row_count == 3
        assert rows(store, "SELECT events, users FROM events_daily") == [(3, 2)]
        made.add("events", [event(NOW, "x")])
        finish(rollups)
        assert rows(store, "SELECT events, users FROM events_daily") == [(4, 2)]
        assert not Rollups(store)._is_rebuild_due


def test_a_rotation_behind_a_failed_commit_is_passed(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        rollups, made = Rollups(store), Rows(store)
        made.add("events", [event(NOW)])
        store.ledger.take_commit_numbers(3)
        store.rotate()
        finish(rollups)
        assert rollups.commit_number == store.ledger.commit_number
        assert not Rollups(store)._is_rebuild_due


def test_a_step_of_nothing_writes_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        rollups = Rollups(store)
        assert rollups.step().row_count == 0
        assert value(store, "SELECT count(*) FROM rollup_progress") == 0


class _failing:  # used as a function
    """Statement `number` of the next step raises, before or after it was executed."""

    def __init__(self, rollups: Rollups, number: int, *, after: bool) -> None:
        self._rollups, self._left, self._after = rollups, number, after

    def __enter__(self) -> None:
        self._using = self._rollups._using
        failing = self

        class Failing:
            def __init__(self, cursor: Any) -> None:
                self._cursor = cursor

            def execute(self, sql: str, *arguments: Any) -> Any:
                failing._left -= 1
                if failing._left < 0 and not failing._after and sql != "ROLLBACK":
                    raise duckdb.IOException("made to fail")
                found = self._cursor.execute(sql, *arguments)
                if failing._left < 0 and failing._after and sql in {"COMMIT", "BEGIN"}:
                    raise duckdb.IOException("made to fail")
                return found

        @contextmanager
        def using() -> Any:
            with self._using() as cursor:
                yield Failing(cursor)

        self._rollups._using = using  # type: ignore[method-assign,assignment]

    def __exit__(self, *_: object) -> None:
        self._rollups._using = self._using  # type: ignore[method-assign]
