"""Alerts: windows that tile whatever the clock and the process do, and what comes of rows."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import pytest

from ingester.errors import StoreBusy
from ingester.search.reading import Stop
from ingester.store.control import WatchInfo
from ingester.store.database import Cursor
from ingester.watch.alerts import AlertBook, AlertWindow, Outcome, bound_query, due_window
from ingester.watch.clock import Clock, Gap, Timeline
from ingester.watch.cron import Cron
from ingester.watch.settings import Alert, decode_settings
from tests.search.rows import NOW, log
from tests.store.sealing_rows import seal_all
from tests.store.stores import fail_next, insert
from tests.watch.rig import BASE, START_S, Rig, rigged

ROW = Outcome(rows=(b'{"n":1}',), count=1)
NONE = Outcome()


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"2026-11-21T{text}").replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("sql", "bound"),
    [
        ("SELECT $window_start", "SELECT TIMESTAMP '2026-11-21 12:00:00.000000'"),
        ("x>=$window_start AND x<$window_end", None),
        ("SELECT '$window_start', \"$window_end\"", "SELECT '$window_start', \"$window_end\""),
        ("SELECT 'it''s $window_end' -- $window_end", "SELECT 'it''s $window_end' -- $window_end"),
        ("SELECT /* $window_end */ 1", "SELECT /* $window_end */ 1"),
        ("SELECT $$ $window_end $$, $a$ $window_end $a$", None),
        ("SELECT $window_ending", "SELECT $window_ending"),
    ],
)
def test_a_window_is_bound_where_it_is_a_parameter(sql: str, bound: str | None) -> None:
    found = bound_query(sql, AlertWindow(at("12:00"), at("12:05")))
    if bound is not None:
        assert found == bound
    elif "$$" in sql:
        assert found == sql
    else:
        assert found == (
            "x>=TIMESTAMP '2026-11-21 12:00:00.000000' AND x<TIMESTAMP '2026-11-21 12:05:00.000000'"
        )


def windows(timeline: Timeline, cron: str, start: str, now: str) -> list[tuple[str, str]]:
    through, found = at(start), []
    while (
        window := due_window(Cron.parse(cron), through, at(now), delay_s=5, timeline=timeline)
    ) is not None:
        found.append((f"{window.start:%H:%M}", f"{window.end:%H:%M}"))
        through = window.end
    return found


def timeline_with(*gaps: tuple[str, str]) -> Timeline:
    timeline = Timeline(Clock(wall=lambda: START_S, monotonic=lambda: 0.0), None)
    timeline.gaps = tuple(Gap(at(a).timestamp(), at(b).timestamp()) for a, b in gaps)
    return timeline


def test_windows_tile_and_wait_for_the_delay() -> None:
    assert windows(timeline_with(), "*/5 * * * *", "12:00", "12:10:04") == [("12:00", "12:05")]
    assert windows(timeline_with(), "*/5 * * * *", "12:00", "12:10:05") == [
        *(("12:00", "12:05"), ("12:05", "12:10"))
    ]


def test_windows_in_a_gap_are_one_with_the_one_that_it_ends_in() -> None:
    gapped = timeline_with(("12:02", "13:02"))
    assert windows(gapped, "*/5 * * * *", "12:00", "13:11") == [
        *(("12:00", "12:05"), ("12:05", "13:05"), ("13:05", "13:10"))
    ]
    assert windows(gapped, "*/5 * * * *", "12:00", "13:03") == [("12:00", "12:05")]


class Runner:
    """An alert over a rig, run by hand."""

    def __init__(self, rig: Rig, **fields: Any) -> None:
        self.rig = rig
        settings = {"language": "sql", "query": "SELECT 1", "cron": "* * * * *", **fields}
        self.info: WatchInfo = rig.add("alert", "alert", **settings)
        self.alert = decode_settings(self.info.settings, Alert)
        self.timeline = Timeline(rig.clock, None)
        self.restart()
        assert self.due() is None

    def restart(self, alive_at: float | None = None) -> None:
        self.timeline = Timeline(self.rig.clock, alive_at)
        self.book = AlertBook(
            self.rig.store,
            self.rig.control,
            self.timeline,
            console_base=lambda: BASE,
            clock=self.rig.clock,
            delay_s=lambda: 5,
        )

    def due(self) -> Any:
        self.timeline.look()
        back = self.timeline.take_back()
        return self.book.due(self.info, self.alert, went_back_to=back)

    def run(self, outcome: Outcome | None = None) -> list[str]:
        """Run all that is due; the ends of the windows."""
        ends = []
        while (due := self.due()) is not None:
            state, window = due
            ran = outcome
            if ran is None:
                ran = self.book.lql_rows(self.info, self.alert, state, stop=Stop())
            self.book.settle(self.info, self.alert, state, window, ran)
            ends.append(f"{window.end:%d %H:%M}")
        return ends

    def look_ahead(self) -> None:
        self.book.look_ahead(self.info, self.alert, stop=Stop())


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with rigged(tmp_path) as made:
        yield made


def test_an_alert_opens_at_rows_and_resolves_at_the_first_run_without(rig: Rig) -> None:
    runner = Runner(rig, labels=["sev1"])
    rig.passes(66)
    assert runner.run(ROW) == ["21 12:01"]
    rig.passes(60)
    assert runner.run(ROW) == ["21 12:02"]
    assert rig.revisions() == [(1, "opened")]
    rig.passes(60)
    runner.run(NONE)
    rig.passes(60)
    runner.run(NONE)
    assert rig.revisions() == [(1, "opened"), (1, "resolved")]
    rig.passes(60)
    runner.run(ROW)
    assert rig.statuses() == ["resolved", "opened"]
    runs = rig.control.alert_runs(runner.info.number)
    assert [run.row_count for run in runs] == [1, 0, 0, 1, 1]
    assert all(run.window_end - run.window_start == 60 for run in runs)


def test_rows_of_lql_alerts_are_in_exactly_one_window(rig: Rig) -> None:
    random_ = random.Random(5)
    runner = Runner(rig, language="lql", query="needle", on="logs")
    added = 0
    for turn in range(12):
        count = random_.randint(0, 3)
        # Their own times are anywhere.
        rig.rows.add("logs", [log(NOW, "a needle")] * count + [log(NOW, "other")])
        added += count
        jump = random_.choice([0, 0, 3600, -3600, 86_400, -86_400])
        alive_at = rig.wall_s
        rig.passes(60)
        rig.wall_s += jump
        if turn % 4 == 3:
            runner.restart(alive_at)
        runner.run()
    rig.passes(120)
    runner.run()
    found = sum(run.row_count or 0 for run in rig.control.alert_runs(runner.info.number))
    assert found == added


def test_a_number_that_a_failed_commit_has_taken_is_not_passed(tmp_path: Path) -> None:
    """After a start it is given again."""
    with rigged(tmp_path) as rig:
        runner = Runner(rig, language="lql", query="needle", on="logs")
        rig.rows.add("logs", [log(NOW, "other")])
        with rig.store.begin("small") as transaction:
            batch = insert(rig.store, transaction, 2)
            fail_next(transaction, _refuse)
            with pytest.raises(StoreBusy):
                transaction.commit([batch])
        rig.passes(66)
        assert runner.run() == ["21 12:01"]
        wall_s = rig.wall_s
    with rigged(tmp_path) as rig:
        rig.wall_s, rig.rows.request_number, runner.rig = wall_s, 10, rig
        runner.restart(alive_at=wall_s)
        rig.rows.add("logs", [log(NOW, "needle")])
        rig.passes(60)
        assert runner.run() == ["21 12:02"]
        assert rig.statuses() == ["opened"]


def _refuse(_: Cursor) -> None:
    raise duckdb.TransactionException("no room")


def test_a_long_window_is_looked_at_as_it_goes_and_holds_no_part(rig: Rig) -> None:
    runner = Runner(rig, language="lql", query="needle", on="logs", cron="0 0 * * *")
    messages = []
    for turn in range(8):
        messages.append(f"needle {turn}")
        rig.rows.add("logs", [log(NOW, messages[-1]), log(NOW, "other")], as_file=bool(turn % 2))
        rig.passes(400)
        runner.look_ahead()
        if turn == 4:
            rig.store.rotate()
            assert seal_all(rig.store) == 1
        if turn == 5:
            runner.restart(alive_at=rig.wall_s)
    state = rig.control.watch_state(runner.info.number) or ""
    assert '"ahead"' in state
    rig.passes(12 * 3600)
    assert runner.run() == ["22 00:00"]
    (run,) = rig.control.alert_runs(runner.info.number)
    assert run.row_count == 8
    assert rig.select("SELECT count(*) FROM alert_rows") == [(0,)]
    ((body,),) = rig.select("SELECT rows FROM incident_rows")
    assert [row["message"] for row in json.loads(body)] == messages
    rig.passes(86_400)
    assert runner.run() == ["23 00:00"]
    assert rig.statuses() == ["resolved"]


def test_what_was_found_ahead_by_other_settings_is_found_anew(rig: Rig) -> None:
    runner = Runner(rig, language="lql", query="needle", on="logs", cron="0 0 * * *")
    runner.look_ahead()
    rig.rows.add("logs", [log(NOW, "needle"), log(NOW, "other"), log(NOW, "other")])
    rig.passes(301)
    runner.look_ahead()
    settings = runner.info.settings.replace('"needle"', '"other"').encode()
    runner.info = rig.control.change_watch("alert", runner.info.id, "alert", settings, actor="test")
    runner.alert = decode_settings(runner.info.settings, Alert)
    rig.passes(12 * 3600)
    runner.run()
    assert [run.row_count for run in rig.control.alert_runs(runner.info.number)] == [2]


def test_a_failed_window_is_run_again_and_then_given_up(rig: Rig) -> None:
    runner = Runner(rig)
    rig.passes(66)
    failed = Outcome(error="no such column", attempts=2)
    assert runner.run(failed) == ["21 12:01"]
    assert runner.due() is None  # not at once
    rig.passes(60)
    assert runner.run(ROW) == ["21 12:01", "21 12:02"]
    for _ in range(5):
        rig.passes(60)
        assert runner.run(failed)[0] == "21 12:03"
    rig.passes(60)
    assert runner.run(NONE)[0] == "21 12:04"
    errors = [run.error for run in rig.control.alert_runs(runner.info.number) if run.error]
    assert errors.count("no such column (given up)") == 1
    assert rig.statuses() == ["resolved"]


@pytest.mark.parametrize("jump_s", [3600, 86_400])
def test_a_jump_forward_makes_one_window_of_those_it_skips(rig: Rig, jump_s: int) -> None:
    runner = Runner(rig)
    rig.passes(66)
    runner.run(NONE)
    rig.passes(30)
    rig.wall_s += jump_s
    runner.run(NONE)
    rig.passes(120)
    runner.run(NONE)
    runs = rig.control.alert_runs(runner.info.number)[::-1]
    assert len(runs) <= 5
    edges = [(run.window_start, run.window_end) for run in runs]
    assert all(a[1] == b[0] for a, b in pairwise(edges))


@pytest.mark.parametrize("jump_s", [30, 3600, 86_400])
def test_a_clock_set_back_goes_on_and_the_same_rows_fire_once(rig: Rig, jump_s: int) -> None:
    runner = Runner(rig, cron="*/30 * * * *")
    rig.passes(1830)
    assert runner.run(ROW) == ["21 12:30"]
    rig.passes(60)
    rig.wall_s -= jump_s
    assert runner.run(ROW) == []
    rig.passes(1800)
    assert len(runner.run(NONE)) == 1
    assert rig.statuses() == ["resolved"]
    while rig.wall_s < START_S + 1800 + 60:
        rig.passes(1800)
        runner.run(ROW if rig.wall_s > START_S + 1800 + 5 else NONE)
    assert rig.statuses() == ["resolved"]


def test_a_start_goes_on_where_the_process_ended(rig: Rig) -> None:
    runner = Runner(rig)
    rig.passes(66)
    runner.run(NONE)
    died_at = rig.wall_s
    rig.passes(600)
    runner.restart(alive_at=died_at)
    assert runner.run(NONE) == ["21 12:02"]
    rig.passes(60)
    assert runner.run(NONE) == ["21 12:12"]
