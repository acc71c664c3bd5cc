"""Monitors over stored rows: buckets judged once, late rows, jumps of the clock, back-tests."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ingester.search.reading import Reading, Stop
from ingester.watch.backtest import backtest, span_of
from ingester.watch.settings import Monitor, decode_settings
from ingester.watch.values import group_key, monitor_values
from tests.search.rows import event, log, metric
from tests.watch.monitor_runner import LOG_COUNT, Runner, time_at
from tests.watch.rig import START_S, Rig, rigged


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with rigged(tmp_path) as made:
        yield made


def test_an_open_bucket_is_never_judged(rig: Rig) -> None:
    runner = Runner(rig, **LOG_COUNT)
    runner.logs(1, 2, 3)
    rig.passes(59)
    assert runner.look() == [-1]
    rig.passes(5)  # over, but not the delay
    assert runner.look() == []
    assert rig.statuses() == []
    rig.passes(1)
    assert runner.look() == [0]
    assert rig.statuses() == ["opened"]
    rig.passes(60)
    assert runner.look() == [1]
    assert rig.revisions() == [(1, "opened"), (1, "resolved")]


def test_a_monitor_tells_its_window_and_what_feeds_it(rig: Rig) -> None:
    rig.control.create_token(service="web", environment="prod")
    lql = "needle service:web environment:prod"
    runner = Runner(rig, **{**LOG_COUNT, "target": {"kind": "logs", "lql": lql}})
    runner.logs(1, 2, 3)
    rig.passes(65)
    runner.look()
    with rig.control.watching(now_s=0, console_base="") as transaction:
        incident = transaction.book.incident(1)
    (affected,) = incident.affected_monitors
    assert incident.title == "mon: 3 >= 3"
    assert (affected.type, affected.entity_type) == ("LOG_COUNT", "service")
    assert affected.absolute_path == "logs.prod.web"
    assert [one.id for one in affected.connections] == ["tok_1"]
    assert affected.group is None


def test_a_service_of_any_environment_is_fed_by_all_of_its_tokens(rig: Rig) -> None:
    for environment in ("prod", "dev"):
        rig.control.create_token(service="web", environment=environment)
    rig.control.create_token(service="api", environment="prod")
    runner = Runner(rig, **LOG_COUNT, group_by=["service"])
    runner.logs(1, 2, 3)
    rig.passes(65)
    runner.look()
    with rig.control.watching(now_s=0, console_base="") as transaction:
        (affected,) = transaction.book.incident(1).affected_monitors
    assert affected.absolute_path == "logs.*.web"
    assert [one.name for one in affected.connections] == ["web/prod", "web/dev"]


def test_each_group_has_its_own_incident(rig: Rig) -> None:
    runner = Runner(rig, **LOG_COUNT, group_by=["service", "m.code"])
    runner.logs(1, 2, 3, service="web", attributes={"code": 500})
    runner.logs(1, 2, 3, service="api", attributes={"code": 500})
    runner.logs(1, service="api")
    rig.passes(65)
    runner.look()
    with rig.control.watching(now_s=0, console_base="") as transaction:
        groups = {
            tuple((one.name, one.value) for one in affected.group or ())
            for number in (1, 2)
            for affected in transaction.book.incident(number).affected_monitors
        }
    assert groups == {
        (("service", "web"), ("m.code", "500")),
        (("service", "api"), ("m.code", "500")),
    }
    runner.logs(61, 62, 63, service="web", attributes={"code": 500})
    rig.passes(60)
    runner.look()
    assert sorted(rig.statuses()) == ["opened", "resolved"]


def test_groups_may_share_an_incident(rig: Rig) -> None:
    runner = Runner(rig, **LOG_COUNT, group_by=["service"], incident_group="g")
    runner.logs(1, 2, 3, service="web")
    runner.logs(1, 2, 3, service="api")
    rig.passes(65)
    runner.look()
    rig.passes(60)
    runner.look()
    kinds = [kind for _, kind in rig.revisions()]
    assert kinds == ["opened", "joined", "monitor_resolved", "resolved"]


@pytest.mark.parametrize(
    ("aggregate", "value"),
    [
        *(("avg", 2.5), ("sum", 10), ("min", 1), ("max", 4), ("count", 4), ("last", 4)),
        *(("countd", 4), ("p50", 2.5)),
    ],
)
def test_aggregates_of_a_metric(rig: Rig, aggregate: str, value: float) -> None:
    target = {"kind": "metric", "metric_id": "m1", "aggregate": aggregate, "filter": "m.host:a"}
    runner = Runner(rig, target=target, operator="==", threshold=value)
    points = [metric(time_at(n), n, metadata={"host": "a"}) for n in (1, 2, 3, 4)]
    noise = [metric(time_at(5), 99), metric(time_at(5), 99, "m2", metadata={"host": "a"})]
    rig.rows.add("metrics", points)
    rig.rows.add("metrics", noise)
    rig.passes(65)
    runner.look()
    with rig.control.watching(now_s=0, console_base="") as transaction:
        (affected,) = transaction.book.incident(1).affected_monitors
    assert (affected.type, affected.absolute_path) == ("METRIC", "metrics.default.m1")


def values_of(rig: Rig, **fields: Any) -> dict[str, float | None]:
    settings = {"name": "x", "operator": ">", "threshold": 0, "window_s": 60, **fields}
    info = rig.add("monitor", **settings)
    monitor = decode_settings(info.settings, Monitor)
    first = int(START_S) // 60
    with Reading.open(rig.store, seconds_max=10) as reading:
        found = monitor_values(reading, monitor, first, first, groups_max=10)
    return found[first].by_group if first in found else {}


def test_values_of_the_other_targets(rig: Rig) -> None:
    rig.rows.add(
        "events",
        [
            event(time_at(1), "signup", account_id="acme", body={"plan": "pro"}),
            event(time_at(2), "signup", account_id="acme", body={"plan": "free"}),
            event(time_at(3), "login", account_id="umbrella"),
        ],
    )
    rig.rows.add("logs", [log(time_at(20)), log(time_at(30))])
    events = {"kind": "events", "lql": "action:signup"}
    assert values_of(rig, target=events, group_by=["account_id"]) == {group_key(["acme"]): 2}
    rig.control.delete_watch("monitor", "mon_1", console_base="", actor="test")
    assert values_of(rig, target=events, group_by=["body.plan"]) == {
        group_key(["pro"]): 1,
        group_key(["free"]): 1,
    }
    rig.control.delete_watch("monitor", "mon_2", console_base="", actor="test")
    assert values_of(rig, target={"kind": "rows", "table": "logs"}) == {"": 2}
    rig.control.delete_watch("monitor", "mon_3", console_base="", actor="test")
    assert values_of(rig, target={"kind": "freshness", "table": "logs"}) == {"": 30}
    rig.control.delete_watch("monitor", "mon_4", console_base="", actor="test")
    assert values_of(rig, target={"kind": "freshness", "table": "metrics"}) == {}


@pytest.mark.parametrize("jump_s", [3600, 86_400])
def test_a_jump_forward_is_no_absence(rig: Rig, jump_s: int) -> None:
    runner = Runner(rig, **{**LOG_COUNT, "operator": "<", "threshold": 1})
    runner.logs(5)
    rig.passes(65)
    runner.look()
    rig.wall_s += jump_s
    runner.logs(jump_s + 66)
    judged = runner.look()
    runner.logs(jump_s + 70)
    rig.passes(60)
    judged += runner.look()
    assert judged == list(range(1, jump_s // 60 + 2))  # none is lost, none judged twice
    assert rig.statuses() == []
    rig.passes(120)  # but a real absence is one
    runner.look()
    assert rig.statuses() == ["opened"]


@pytest.mark.parametrize("jump_s", [30, 3600, 86_400])
def test_a_clock_set_back_fires_nothing_twice(rig: Rig, jump_s: int) -> None:
    runner = Runner(rig, **LOG_COUNT)
    runner.logs(1, 2, 3)
    rig.passes(125)
    runner.look()
    assert rig.revisions() == [(1, "opened"), (1, "resolved")]
    rig.wall_s -= jump_s
    for _ in range(min(jump_s // 60, 70) + 3):
        rig.passes(60)
        runner.look()
    assert rig.revisions() == [(1, "opened"), (1, "resolved")]


def test_what_was_open_when_the_clock_was_set_back_ends_when_it_no_longer_fires(rig: Rig) -> None:
    runner = Runner(rig, **LOG_COUNT)
    runner.logs(1, 2, 3)
    rig.passes(65)
    runner.look()
    assert rig.statuses() == ["opened"]
    rig.wall_s -= 3600
    runner.look()
    rig.passes(180)
    runner.look()
    assert rig.revisions() == [(1, "opened"), (1, "resolved")]


def test_time_without_a_server_is_no_absence(rig: Rig) -> None:
    runner = Runner(rig, **{**LOG_COUNT, "operator": "<", "threshold": 1})
    runner.logs(5)
    rig.passes(65)
    runner.look()
    died_at = rig.wall_s
    rig.passes(1000)
    runner.restart(alive_at=died_at)
    runner.logs(1066)
    runner.look()
    rig.passes(60)
    runner.logs(1120)
    runner.look()
    assert rig.statuses() == []


def test_a_changed_monitor_begins_anew(rig: Rig) -> None:
    runner = Runner(rig, **LOG_COUNT)
    runner.logs(1, 2, 3)
    rig.passes(65)
    runner.look()
    assert rig.statuses() == ["opened"]
    settings = runner.info.settings.replace('"threshold":3', '"threshold":9').encode()
    changed = rig.control.change_watch("monitor", runner.info.id, "mon", settings, actor="test")
    # What was evaluated before the change is not written.
    due = runner.engine.due(runner.info, runner.monitor, went_back_to=None, stop=Stop())
    assert due is None or runner.engine.write(due, {}) == (0, 0)
    runner.info = changed
    runner.monitor = decode_settings(changed.settings, Monitor)
    runner.look()
    assert rig.statuses() == ["resolved"]


def test_a_crash_between_reading_and_writing_is_made_good(rig: Rig) -> None:
    runner = Runner(rig, **LOG_COUNT)
    runner.logs(1, 2, 3)
    rig.passes(65)
    due = runner.engine.due(runner.info, runner.monitor, went_back_to=None, stop=Stop())
    assert due is not None
    runner.engine.read(due, Stop())
    runner.restart(alive_at=rig.wall_s)  # nothing was written
    runner.look()
    assert rig.statuses() == ["opened"]
    assert rig.select("SELECT firings FROM affected") == [(1,)]


def test_a_backtest_says_what_the_live_monitor_did(rig: Rig) -> None:
    runner = Runner(rig, **LOG_COUNT, group_by=["service"], datapoints=(2, 3))
    pattern = [3, 0, 3, 3, 0, 0, 0, 1, 3, 3]
    for bucket, count in enumerate(pattern):
        if count:
            runner.logs(*(bucket * 60 + n for n in range(count)))
    for _ in pattern:
        rig.passes(60)
        runner.look()
    rig.passes(5)
    runner.look()
    live = rig.select("SELECT linked_at, resolved_at FROM affected ORDER BY affected_id")
    monitor = runner.monitor
    first, last = span_of(monitor, time_at(0), time_at(len(pattern) * 60))

    def read(begin: int, end: int) -> Any:
        with Reading.open(rig.store, seconds_max=10) as reading:
            return monitor_values(reading, monitor, begin, end, groups_max=3)

    found = backtest(monitor, first, last, read, groups_max=3)
    assert found.buckets == len(pattern)
    assert [(one.fired_at, one.recovered_at) for one in found.firings] == [
        (_text(180), _text(360)),
        (_text(600), None),
    ]
    assert len(live) == len(found.firings)
    assert found.firings[0].group == {"service": "web"}
    assert [sample.firing for sample in found.samples].count(True) == found.firing_buckets


def _text(seconds: float) -> str:
    return (time_at(0) + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")
