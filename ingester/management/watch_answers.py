"""Answers about rules, alerts, monitors, incidents, labels and silences."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from ingester.delivery.routing import RouteRule
from ingester.watch.backtest import Backtest
from ingester.watch.settings import Alert, Monitor, Rule

__all__ = [
    "AlertList",
    "AlertRow",
    "AlertRuns",
    "AlertTest",
    "BacktestAnswer",
    "IncidentHistory",
    "IncidentPage",
    "IncidentRow",
    "LabelList",
    "LabelRow",
    "MonitorList",
    "MonitorRow",
    "RuleList",
    "RuleRow",
    "SilenceList",
    "SilencePreview",
    "SilenceRow",
]


class RuleRow(Rule, frozen=True, kw_only=True):
    """A rule. `file`: where it is declared; `open_incident`: the id of the one it has open."""

    id: str
    file: str | None
    created_at: str
    updated_at: str
    open_incident: str | None


class RuleList(Struct, frozen=True, kw_only=True):
    rules: list[RuleRow]


class RunRow(Struct, frozen=True, kw_only=True):
    """One run of an alert. `rows` null: it failed."""

    window_start: str
    window_end: str
    ran_at: str
    attempts: int
    rows: int | None
    error: str | None


class AlertRow(Alert, frozen=True, kw_only=True):
    """An alert. `next_run`: the end of the window that is run next."""

    id: str
    file: str | None
    created_at: str
    updated_at: str
    open_incident: str | None
    next_run: str
    last_run: RunRow | None


class AlertList(Struct, frozen=True, kw_only=True):
    alerts: list[AlertRow]


class AlertRuns(Struct, frozen=True, kw_only=True):
    """Newest first."""

    runs: list[RunRow]


class AlertTest(Struct, frozen=True, kw_only=True):
    """What a run over the last window would find now. `rows` is exact, `result` its first rows."""

    window_start: str
    window_end: str
    rows: int
    would_fire: bool
    result: list[dict[str, Any]]


class GroupRow(Struct, frozen=True, kw_only=True):
    """One group of a monitor after the last judged window."""

    group: dict[str, str] | None
    value: float | None
    firing: bool


class MonitorRow(Monitor, frozen=True, kw_only=True):
    """A monitor. `judged_until`: the end of the last judged window; `groups_left_out`: groups of
    that window that are not told apart; `error`: why the next window is not judged yet.
    """

    id: str
    file: str | None
    created_at: str
    updated_at: str
    open_incidents: list[str]
    judged_until: str | None
    groups: list[GroupRow]
    groups_left_out: int
    error: str | None


class MonitorList(Struct, frozen=True, kw_only=True):
    monitors: list[MonitorRow]


class BacktestAnswer(Backtest, frozen=True, kw_only=True):
    """What a monitor would have done."""


class LabelRow(Struct, frozen=True, kw_only=True):
    id: str
    name: str
    incidents: int


class LabelList(Struct, frozen=True, kw_only=True):
    labels: list[LabelRow]


class NamedLabel(Struct, frozen=True, kw_only=True):
    id: str
    name: str


class AffectedRow(Struct, frozen=True, kw_only=True):
    """A rule, an alert, or a group of a monitor in an incident."""

    id: str
    monitor_id: str
    type: str
    name: str
    absolute_path: str
    group: dict[str, str] | None
    linked_at: str
    resolved_at: str | None
    firings: int
    matches: int
    last_fired_at: str


class IncidentRow(Struct, frozen=True, kw_only=True):
    """An incident. `told`: somebody was told of it, or would have been had there been anybody."""

    id: str
    status: Literal["opened", "resolved"]
    title: str
    description: str
    created_at: str
    updated_at: str
    resolved_at: str | None
    acknowledged: bool
    acknowledged_at: str | None
    owner: str | None
    labels: list[NamedLabel]
    silenced: bool
    told: bool
    url: str
    affected: list[AffectedRow]


class IncidentPage(Struct, frozen=True, kw_only=True):
    """Newest first. `next`: the `before` of the next page."""

    incidents: list[IncidentRow]
    next: str | None


class HistoryRow(Struct, frozen=True, kw_only=True):
    """One revision. `told`: it was handed to the outbox."""

    updated_at: str
    kind: str
    actor: str
    note: str
    told: bool


class IncidentHistory(Struct, frozen=True, kw_only=True):
    """Oldest first."""

    id: str
    revisions: list[HistoryRow]


class SilenceRow(Struct, frozen=True, kw_only=True):
    id: str
    matchers: list[RouteRule]
    reason: str
    created_by: str
    created_at: str
    starts_at: str
    ends_at: str
    active: bool


class SilenceList(Struct, frozen=True, kw_only=True):
    silences: list[SilenceRow]


class SilencePreview(Struct, frozen=True, kw_only=True):
    """Open incidents with something that the silence would cover."""

    incidents: list[IncidentRow]
