"""Routes of rules, alerts and monitors."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from ingester.errors import InvalidField, StoreBusy
from ingester.management import watch_answers as answers
from ingester.management.answers import Deleted, time_text
from ingester.management.calls import Call, Nothing, WatchDesk
from ingester.management.requests import given
from ingester.management.watch_requests import (
    BacktestMonitor,
    BacktestSpan,
    PatchAlert,
    PatchMonitor,
    PatchRule,
    RunsQuery,
    TestAlert,
)
from ingester.store.control import AlertRun, WatchInfo, WatchKind
from ingester.watch.alerts import AlertState, AlertWindow
from ingester.watch.backtest import BACKTEST_BUCKETS_MAX, span_of
from ingester.watch.cron import Cron
from ingester.watch.judge import Bucket
from ingester.watch.monitors import MonitorState, group_of
from ingester.watch.settings import Alert, Monitor, Rule, SqlTarget, check_settings, decode_settings
from ingester.watch.values import bucket_of, window_of

WatchT = TypeVar("WatchT", Rule, Alert, Monitor)
AnyCall = Call[Any, Any]

_KINDS: dict[type, WatchKind] = {Rule: "rule", Alert: "alert", Monitor: "monitor"}
_BACKTEST_BUCKETS = 200
_AHEAD_S = 366 * 86_400
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SQL_BACKTEST_BUCKETS_MAX = 100


def create_rule(call: Call[Rule, Nothing]) -> answers.RuleRow:
    return _rule(call, _create(call, Rule))


def list_rules(call: Call[Nothing, Nothing]) -> answers.RuleList:
    return answers.RuleList(rules=[_rule(call, one) for one in call.control.list_watches("rule")])


def get_rule(call: Call[Nothing, Nothing]) -> answers.RuleRow:
    return _rule(call, call.control.watch("rule", call.names["id"]))


def patch_rule(call: Call[PatchRule, Nothing]) -> answers.RuleRow:
    return _rule(call, _patch(call, Rule))


def delete_rule(call: Call[Nothing, Nothing]) -> Deleted:
    return _delete(call, "rule")


def create_alert(call: Call[Alert, Nothing]) -> answers.AlertRow:
    return _alert(call, _create(call, Alert))


def list_alerts(call: Call[Nothing, Nothing]) -> answers.AlertList:
    listed = call.control.list_watches("alert")
    return answers.AlertList(alerts=[_alert(call, one) for one in listed])


def get_alert(call: Call[Nothing, Nothing]) -> answers.AlertRow:
    return _alert(call, call.control.watch("alert", call.names["id"]))


def patch_alert(call: Call[PatchAlert, Nothing]) -> answers.AlertRow:
    return _alert(call, _patch(call, Alert))


def delete_alert(call: Call[Nothing, Nothing]) -> Deleted:
    return _delete(call, "alert")


def list_alert_runs(call: Call[Nothing, RunsQuery]) -> answers.AlertRuns:
    info = call.control.watch("alert", call.names["id"])
    runs = call.control.alert_runs(info.number, limit=call.query.limit)
    return answers.AlertRuns(runs=[_run(run) for run in runs])


def test_alert(call: Call[Nothing, Nothing]) -> answers.AlertTest:
    info = call.control.watch("alert", call.names["id"])
    return _tested(call, decode_settings(info.settings, Alert))


def test_unsaved_alert(call: Call[TestAlert, Nothing]) -> answers.AlertTest:
    return _tested(call, call.body)


def create_monitor(call: Call[Monitor, Nothing]) -> answers.MonitorRow:
    return _monitor(call, _create(call, Monitor))


def list_monitors(call: Call[Nothing, Nothing]) -> answers.MonitorList:
    listed = call.control.list_watches("monitor")
    return answers.MonitorList(monitors=[_monitor(call, one) for one in listed])


def get_monitor(call: Call[Nothing, Nothing]) -> answers.MonitorRow:
    return _monitor(call, call.control.watch("monitor", call.names["id"]))


def patch_monitor(call: Call[PatchMonitor, Nothing]) -> answers.MonitorRow:
    return _monitor(call, _patch(call, Monitor))


def delete_monitor(call: Call[Nothing, Nothing]) -> Deleted:
    return _delete(call, "monitor")


def backtest_monitor(call: Call[BacktestSpan, Nothing]) -> answers.BacktestAnswer:
    info = call.control.watch("monitor", call.names["id"])
    return _backtest(call, decode_settings(info.settings, Monitor), call.body)


def backtest_unsaved_monitor(call: Call[BacktestMonitor, Nothing]) -> answers.BacktestAnswer:
    check_settings(call.body.monitor)
    return _backtest(call, call.body.monitor, call.body)


def _create(call: AnyCall, kind: type[WatchT]) -> WatchInfo:
    watch: WatchT = call.body
    check_watch(call.watch, watch)
    _check_destinations(call, watch.destinations)
    return call.control.create_watch(
        _KINDS[kind], watch.name, msgspec.json.encode(watch), actor=call.actor.name
    )


def _patch(call: AnyCall, kind: type[WatchT]) -> WatchInfo:
    info = call.control.watch(_KINDS[kind], call.names["id"])
    before = decode_settings(info.settings, kind)
    watch = msgspec.structs.replace(before, **given(call.body))
    if watch == before:
        return info
    check_watch(call.watch, watch)
    _check_destinations(call, watch.destinations)
    return call.control.change_watch(
        _KINDS[kind], info.id, watch.name, msgspec.json.encode(watch), actor=call.actor.name
    )


def _delete(call: AnyCall, kind: WatchKind) -> Deleted:
    call.control.delete_watch(
        kind, call.names["id"], console_base=call.links.console(), actor=call.actor.name
    )
    ring(call)
    return Deleted(id=call.names["id"])


def ring(call: AnyCall) -> None:
    """Something may be to be told."""
    if call.delivery is not None:
        call.delivery.ring()


def check_watch(desk: WatchDesk | None, watch: Rule | Alert | Monitor) -> None:
    """Refuse what could not be evaluated. Raises RequestError with its field."""
    check_settings(watch)
    if desk is None:
        return
    if isinstance(watch, Alert) and watch.language == "sql":
        desk.check_sql("query", watch.query, last_window(watch))
    elif isinstance(watch, Monitor) and isinstance(watch.target, SqlTarget):
        bucket = bucket_of(watch, time.time()) - 1
        window = AlertWindow(*window_of(watch, bucket))
        desk.check_sql("target.query", watch.target.query, window)


def last_window(alert: Alert) -> AlertWindow:
    """The last window that is over."""
    cron = Cron.parse(alert.cron)
    end = cron.previous(datetime.now(UTC))
    return AlertWindow(cron.previous(end - timedelta(minutes=1)), end)


def _check_destinations(call: AnyCall, destinations: Sequence[str]) -> None:
    known = {info.id for info in call.control.list_destinations()}
    for one in destinations:
        if one not in known:
            raise InvalidField("destinations", f"destinations: there is no destination '{one}'")


def _desk(call: AnyCall) -> WatchDesk:
    if call.watch is None:
        raise StoreBusy("this needs the stored data; ask a running server")
    return call.watch


def _tested(call: AnyCall, alert: Alert) -> answers.AlertTest:
    check_settings(alert)
    window = last_window(alert)
    found = _desk(call).run_alert(alert, window)
    if found.error is not None:
        raise InvalidField("query", f"query: {found.error}")
    return answers.AlertTest(
        window_start=time_text(window.start.timestamp()),
        window_end=time_text(window.end.timestamp()),
        rows=found.count,
        would_fire=found.count > 0,
        result=[msgspec.json.decode(row) for row in found.rows],
    )


def _backtest(call: AnyCall, monitor: Monitor, span: BacktestSpan) -> answers.BacktestAnswer:
    now = datetime.now(UTC)
    for field, moment in (("since", span.since), ("until", span.until)):
        if moment is not None and not 0 <= moment.timestamp() <= now.timestamp() + _AHEAD_S:
            raise InvalidField(field, f"{field}: name a time between 1970 and next year")
    until = span.until or now
    since = span.since or max(
        _EPOCH, until - timedelta(seconds=monitor.window_s * _BACKTEST_BUCKETS)
    )
    first, last = span_of(monitor, since, until)
    is_sql = isinstance(monitor.target, SqlTarget)
    limit = _SQL_BACKTEST_BUCKETS_MAX if is_sql else BACKTEST_BUCKETS_MAX
    if is_sql and span.since is None:
        first = max(first, last + 1 - limit)
    if last < first:
        raise InvalidField("since", "since: there is no whole window between since and until")
    if last + 1 - first > limit:
        raise InvalidField(
            "since", f"since: {last + 1 - first} windows are too many; at most {limit} are judged"
        )
    found = _desk(call).backtest(monitor, first, last)
    return answers.BacktestAnswer(**msgspec.structs.asdict(found))


def _open_incidents(call: AnyCall, info: WatchInfo) -> list[str]:
    return call.control.open_incidents(info.number)


def _common(info: WatchInfo) -> dict[str, Any]:
    return {
        "id": info.id,
        "file": info.file,
        "created_at": time_text(info.created_at),
        "updated_at": time_text(info.updated_at),
    }


def _rule(call: AnyCall, info: WatchInfo) -> answers.RuleRow:
    rule = decode_settings(info.settings, Rule)
    open_ = _open_incidents(call, info)
    return answers.RuleRow(
        **_fields(rule), **_common(info), open_incident=open_[0] if open_ else None
    )


def _alert(call: AnyCall, info: WatchInfo) -> answers.AlertRow:
    alert = decode_settings(info.settings, Alert)
    open_ = _open_incidents(call, info)
    runs = call.control.alert_runs(info.number, limit=1)
    text = call.control.watch_state(info.number)
    through = datetime.now(UTC)
    if text is not None:
        through = datetime.fromtimestamp(msgspec.json.decode(text, type=AlertState).through, UTC)
    return answers.AlertRow(
        **_fields(alert),
        **_common(info),
        open_incident=open_[0] if open_ else None,
        next_run=time_text(Cron.parse(alert.cron).next(through).timestamp()),
        last_run=_run(runs[0]) if runs else None,
    )


def _monitor(call: AnyCall, info: WatchInfo) -> answers.MonitorRow:
    monitor = decode_settings(info.settings, Monitor)
    judged_until, bucket, error = None, Bucket(), None
    text = call.control.watch_state(info.number)
    if text is not None:
        state = msgspec.json.decode(text, type=MonitorState)
        last = call.control.last_bucket(info.number)
        error = state.error if state.version == info.version else None
        if last is not None and state.version == info.version:
            judged_until = time_text(window_of(monitor, last[0])[1].timestamp())
            bucket = msgspec.json.decode(last[1], type=Bucket)
    return answers.MonitorRow(
        **_fields(monitor),
        **_common(info),
        open_incidents=_open_incidents(call, info),
        judged_until=judged_until,
        groups=[
            answers.GroupRow(
                group=None
                if (found := group_of(monitor, key)) is None
                else {one.name: one.value for one in found},
                value=point.value,
                firing=point.is_firing,
            )
            for key, point in bucket.groups.items()
        ],
        groups_left_out=bucket.overflow,
        error=error,
    )


def _run(run: AlertRun) -> answers.RunRow:
    return answers.RunRow(
        window_start=time_text(run.window_start),
        window_end=time_text(run.window_end),
        ran_at=time_text(run.ran_at),
        attempts=run.attempts,
        rows=run.row_count,
        error=run.error,
    )


def _fields(watch: Struct) -> dict[str, Any]:
    return msgspec.structs.asdict(watch)
