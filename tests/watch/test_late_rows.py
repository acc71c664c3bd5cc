"""Rows that come late: which windows are judged again, and what comes of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ingester.watch.tables import tables_of
from tests.search.rows import log, metric
from tests.store.sealing_rows import seal_all
from tests.watch.monitor_runner import LOG_COUNT, Runner, time_at
from tests.watch.rig import Rig, rigged

SQL_COUNT = {
    "target": {
        "kind": "sql",
        "query": "SELECT count(*) AS value FROM logs WHERE time >= $window_start"
        " AND time < $window_end",
    },
    "operator": ">=",
    "threshold": 3,
}
FRESHNESS = {
    "target": {"kind": "freshness", "table": "metrics"},
    "operator": ">",
    "threshold": 90,
}


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with rigged(tmp_path) as made:
        yield made


def test_late_rows_make_a_bucket_be_judged_again(rig: Rig) -> None:
    runner = Runner(rig, **LOG_COUNT)
    runner.logs(1, 2)
    rig.passes(130)
    runner.look()
    assert rig.statuses() == []
    runner.logs(3)  # for the first bucket
    rig.passes(10)
    assert runner.look() == [0, 1]
    # It fired in that bucket and had recovered in the next.
    assert rig.revisions() == [(1, "opened"), (1, "resolved")]
    rig.passes(20)
    assert 0 not in runner.look()
    assert rig.statuses() == ["resolved"]


def test_late_rows_take_a_verdict_back(rig: Rig) -> None:
    runner = Runner(rig, **{**LOG_COUNT, "operator": "<", "threshold": 1})
    rig.passes(65)
    runner.look()
    assert rig.statuses() == ["opened"]
    runner.logs(5)
    rig.passes(10)
    runner.look()
    assert rig.statuses() == ["resolved"]


def test_rows_that_are_too_late_change_nothing(rig: Rig) -> None:
    runner = Runner(rig, **LOG_COUNT)
    rig.passes(7200)
    runner.look()
    runner.logs(1, 2, 3)
    rig.passes(60)
    assert 0 not in runner.look()
    assert rig.statuses() == []


def test_late_rows_in_a_part_that_was_sealed_meanwhile_count(rig: Rig) -> None:
    runner = Runner(rig, **{**LOG_COUNT, "operator": "<", "threshold": 1})
    rig.passes(65)
    runner.look()
    assert rig.statuses() == ["opened"]
    runner.logs(5)
    rig.store.rotate()
    assert seal_all(rig.store) == 1
    rig.passes(10)
    runner.look()
    assert rig.statuses() == ["resolved"]


def test_late_rows_of_a_select_make_its_windows_be_judged_again(rig: Rig) -> None:
    runner = Runner(rig, **SQL_COUNT)
    runner.logs(1, 2)
    rig.passes(190)
    runner.look()
    assert rig.statuses() == []
    runner.logs(3)
    rig.passes(61)
    assert runner.look()[:3] == [0, 1, 2]
    assert rig.revisions() == [(1, "opened"), (1, "resolved")]


def test_a_select_is_asked_again_the_less_often_the_more_windows_it_takes(rig: Rig) -> None:
    runner = Runner(rig, **SQL_COUNT)
    rig.passes(20 * 60 + 5)
    runner.look()
    runner.logs(1)
    rig.passes(60)
    assert 0 in runner.look()
    runner.logs(2)
    rig.passes(120)
    assert 0 not in runner.look()
    rig.passes(60)
    assert 0 in runner.look()


@pytest.mark.parametrize(
    ("sql", "tables"),
    [
        ("SELECT 1", []),
        ("SELECT * FROM Logs JOIN metrics_daily USING (x)", ["logs", "metrics"]),
        ('SELECT count(*) FROM "users"', ["events"]),
        ("SELECT * FROM requests", []),
    ],
)
def test_a_select_looks_at_the_tables_that_it_names(sql: str, tables: list[str]) -> None:
    assert tables_of(sql) == tables


def test_an_upload_that_ends_late_makes_its_table_fresh_again(rig: Rig) -> None:
    runner = Runner(rig, **FRESHNESS)
    rig.rows.add("metrics", [metric(time_at(1), 1)])
    rig.passes(185)
    runner.look()
    assert rig.statuses() == ["opened"]  # 119 s behind the second window
    # It began to arrive in the second window, and is seen behind the third.
    rig.rows.add("metrics", [metric(time_at(100), 1)])
    rig.passes(10)
    assert runner.look() == [1, 2]
    assert rig.statuses() == ["resolved"]


def test_rows_that_began_to_arrive_long_ago_make_fresher_too(rig: Rig) -> None:
    runner = Runner(rig, **{**FRESHNESS, "threshold": 9000, "no_data": "alert"})
    rig.passes(4 * 3600)
    runner.look()
    assert rig.statuses() == ["opened"]  # nothing at all
    rig.rows.add("metrics", [metric(time_at(2 * 3600), 1)])
    rig.passes(10)
    runner.look()
    assert rig.statuses() == ["resolved"]


@pytest.mark.parametrize("fields", [LOG_COUNT, SQL_COUNT], ids=["logs", "sql"])
def test_a_late_firing_in_between_does_not_end_what_fires_now(
    rig: Rig, fields: dict[str, object]
) -> None:
    runner = Runner(rig, **fields)
    runner.logs(361, 362, 363)
    rig.passes(425)
    runner.look()
    assert rig.revisions() == [(1, "opened")]
    runner.logs(1, 2, 3)  # the first window fires too, those between do not
    rig.passes(30)
    rig.rows.add("logs", [log(time_at(425 + n), "a needle") for n in range(3)])
    rig.passes(31)
    runner.look()
    assert rig.revisions() == [(1, "opened")]
    assert rig.statuses() == ["opened"]


def test_a_verdict_taken_back_in_between_does_not_end_what_fires_now(rig: Rig) -> None:
    runner = Runner(rig, **{**LOG_COUNT, "operator": "<", "threshold": 1})
    rig.passes(185)
    runner.look()
    assert rig.revisions() == [(1, "opened")]
    runner.logs(61)
    rig.passes(10)
    assert runner.look() == [1, 2]
    assert rig.revisions() == [(1, "opened")]


def test_a_query_that_fails_is_shown_and_tried_again_a_minute_later(rig: Rig) -> None:
    runner = Runner(rig, **SQL_COUNT)
    runner.logs(1, 2, 3)
    rig.passes(65)
    runner.engine.fail(runner.info, "no such column")
    assert '"error":"no such column"' in (rig.control.watch_state(runner.info.number) or "")
    rig.passes(59)
    assert runner.look() == []
    rig.passes(1)
    assert 0 in runner.look()
    assert rig.statuses()[0] == "opened" or rig.revisions()[0] == (1, "opened")
    assert '"error":null' in (rig.control.watch_state(runner.info.number) or "")
