"""Request bodies and queries of rules, alerts, monitors, incidents, labels and silences."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from ingester.delivery.routing import RouteRule
from ingester.management.requests import Limit, Name, Time
from ingester.watch import settings
from ingester.watch.settings import Alert, Monitor

__all__ = [
    "BacktestMonitor",
    "BacktestSpan",
    "CreateLabel",
    "CreateSilence",
    "IncidentsQuery",
    "PatchAlert",
    "PatchIncident",
    "PatchMonitor",
    "PatchRule",
    "PatchSilence",
    "PreviewSilence",
    "RunsQuery",
    "SilencesQuery",
    "TestAlert",
]

IncidentId = Annotated[str, Meta(pattern=r"^inc_[1-9][0-9]{0,17}\Z")]
Matchers = Annotated[tuple[RouteRule, ...], Meta(min_length=1, max_length=50)]
Group = Annotated[str, Meta(max_length=256)]


class _Patch(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is left out stays."""

    name: Name | UnsetType = UNSET
    description: settings.Description | UnsetType = UNSET
    destinations: settings.Labels | UnsetType = UNSET
    labels: settings.Labels | UnsetType = UNSET
    incident_group: Group | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET


class PatchRule(_Patch, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of a rule."""

    lql: settings.Query | UnsetType = UNSET
    on: Literal["logs", "events"] | UnsetType = UNSET
    resolve_after_s: settings.Seconds | UnsetType = UNSET


class PatchAlert(_Patch, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of an alert."""

    query: settings.Query | UnsetType = UNSET
    cron: Annotated[str, Meta(max_length=256)] | UnsetType = UNSET
    language: Literal["sql", "lql"] | UnsetType = UNSET
    on: Literal["logs", "events"] | UnsetType = UNSET


class PatchMonitor(_Patch, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of a monitor; it begins anew."""

    target: settings.Target | UnsetType = UNSET
    operator: settings.Operator | UnsetType | None = UNSET
    threshold: float | UnsetType | None = UNSET
    window_s: settings.WindowSeconds | UnsetType = UNSET
    group_by: Annotated[tuple[Name, ...], Meta(max_length=4)] | UnsetType = UNSET
    datapoints: tuple[settings.Count, settings.Count] | UnsetType = UNSET
    no_data: Literal["ok", "alert", "keep"] | UnsetType = UNSET
    recovery: float | UnsetType | None = UNSET
    delay_s: Annotated[int, Meta(ge=0, le=86_400)] | UnsetType | None = UNSET


class TestAlert(Alert, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An alert that need not be there."""


class BacktestSpan(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Default: until now, and 200 windows back."""

    since: Time | None = None
    until: Time | None = None


class BacktestMonitor(BacktestSpan, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The same for a monitor that need not be there."""

    monitor: Monitor


class RunsQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    limit: Annotated[int, Meta(ge=1, le=200)] = 50


class IncidentsQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`before`: incidents older than this one."""

    status: Literal["opened", "resolved"] | None = None
    limit: Limit = 100
    before: IncidentId | None = None


class PatchIncident(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`labels` are all of them, by name. `status` can be set to `resolved` only."""

    labels: settings.Labels | UnsetType = UNSET
    owner: Name | UnsetType | None = UNSET
    status: Literal["resolved"] | UnsetType = UNSET


class CreateLabel(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: Name


class CreateSilence(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Nothing is told of what all matchers match. Without `ends_at` it lasts `seconds`."""

    matchers: Matchers
    reason: settings.Description = ""
    starts_at: Time | None = None
    ends_at: Time | None = None
    seconds: settings.Seconds = 3600


class PatchSilence(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Another end; none: now."""

    ends_at: Time | None = None


class PreviewSilence(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    matchers: Matchers


class SilencesQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    ended: bool = False
