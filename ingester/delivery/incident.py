"""Incidents as they are told: the incident, one of its revisions, and a firing of a rule or alert.

A **revision** is a change of an incident. It goes to destinations that follow incidents: the
incident webhook, incident.io, and the generic webhook for monitors. A **firing** is one run of an
alert with rows, or one batch of events that a rule has matched, whether it opened an incident or
not. It goes to destinations that take each one by itself, as Logflare sent them: the generic
webhook, and incident.io with `key_mode` `logflare`.

1. Plain data; times are epoch milliseconds, because that is what the bodies show.
2. `updated_at_ms` of an incident rises by at least 1 with each revision; with the incident's id it
   is the revision's id.
3. Rows are JSON texts as they came (`bytes`), so that no number is read and written again.

`repr` shows counts only: rows are data of users.
"""

from __future__ import annotations

from typing import Literal
from urllib.parse import quote

from msgspec import Struct

__all__ = [
    "FIRING_EVENTS_MAX",
    "FIRING_ROWS_MAX",
    "AffectedMonitor",
    "AlertRows",
    "Connection",
    "ConnectionType",
    "Data",
    "EntityType",
    "Firing",
    "GroupValue",
    "Incident",
    "Label",
    "MonitorType",
    "MonitorValues",
    "MonitorWindow",
    "Revision",
    "RevisionKind",
    "RuleEvent",
    "RuleEvents",
    "incident_url",
]

MonitorType = Literal[
    "METRIC",
    "LOG_COUNT",
    "EVENT_COUNT",
    "ROW_COUNT",
    "FRESHNESS",
    "NO_DATA",
    "ALERT",
    "RULE",
]
EntityType = Literal["table", "metric", "service"]
ConnectionType = Literal["log", "metric", "event"]
RevisionKind = Literal["opened", "joined", "monitor_resolved", "changed", "resolved"]

# What a body holds at most; the counts beside them are exact.
FIRING_ROWS_MAX = 1000
FIRING_EVENTS_MAX = 250


class Label(Struct, frozen=True, kw_only=True):
    """A label on an incident."""

    id: str
    name: str


class Connection(Struct, frozen=True, kw_only=True):
    """The token, connection or source that fed a monitor."""

    id: str
    name: str | None
    type: ConnectionType


class GroupValue(Struct, frozen=True, kw_only=True):
    """One column of a group-by monitor's group, as text."""

    name: str
    value: str


class AffectedMonitor(Struct, frozen=True, kw_only=True):
    """A monitor, alert or rule that takes part in an incident. `id` is that of its taking part.

    `services` and `table` are for routes only: bodies do not show them.
    """

    id: str
    monitor_id: str
    type: MonitorType
    name: str
    entity_type: EntityType
    absolute_path: str
    linked_at_ms: int
    resolved_at_ms: int | None = None
    group: tuple[GroupValue, ...] | None = None
    connections: tuple[Connection, ...] = ()
    services: tuple[str, ...] = ()
    table: str | None = None


class Incident(Struct, frozen=True, kw_only=True):
    """An incident as of one revision. `title` and `description` are for incident.io, which shows
    them; `url` is its page in the console (`incident_url`).
    """

    id: str
    created_at_ms: int
    updated_at_ms: int
    status: Literal["opened", "resolved"]
    url: str
    title: str
    description: str = ""
    labels: tuple[Label, ...] = ()
    affected_monitors: tuple[AffectedMonitor, ...] = ()


class AlertRows(Struct, frozen=True, kw_only=True):
    """Result rows of an alert, each a JSON object, `FIRING_ROWS_MAX` at most."""

    rows: tuple[bytes, ...]

    def __repr__(self) -> str:
        return f"AlertRows({len(self.rows)})"


class RuleEvent(Struct, frozen=True, kw_only=True):
    """A log or event that a rule has matched. `body` is its JSON text as sent; the others are
    added to it where it lacks them (`service` and `environment` None: an event, not a log).
    """

    body: bytes
    event_message: str
    timestamp_ms: int
    level: str | None = None
    service: str | None = None
    environment: str | None = None

    def __repr__(self) -> str:
        return f"RuleEvent({len(self.body)} bytes)"


class RuleEvents(Struct, frozen=True, kw_only=True):
    """Events of one batch that matched, `FIRING_EVENTS_MAX` at most. `count` is exact."""

    events: tuple[RuleEvent, ...]
    count: int

    def __repr__(self) -> str:
        return f"RuleEvents({len(self.events)} of {self.count})"


class MonitorWindow(Struct, frozen=True, kw_only=True):
    """What a monitor saw in one window of one group. `value` None: no data."""

    monitor: str
    value: float | None
    threshold: float | None
    window_start_ms: int
    window_end_ms: int
    group: tuple[GroupValue, ...] | None = None


class MonitorValues(Struct, frozen=True, kw_only=True):
    """What the affected monitors saw."""

    windows: tuple[MonitorWindow, ...]


Data = AlertRows | RuleEvents | MonitorValues


class Revision(Struct, frozen=True, kw_only=True):
    """One change of an incident. `data` None: that of the revision before ("the last such
    rows"), which is kept beside the outbox.
    """

    kind: RevisionKind
    incident: Incident
    data: Data | None = None


class Firing(Struct, frozen=True, kw_only=True):
    """One run of an alert with rows, or one batch of a rule: `data` says which. `url` is the page
    of the alert or rule. `monitor_id`, `services`, `table` and `labels` are for routes only.
    """

    incident_id: str
    name: str
    description: str
    url: str
    fired_at_ms: int
    data: AlertRows | RuleEvents
    monitor_id: str = ""
    services: tuple[str, ...] = ()
    table: str | None = None
    labels: tuple[Label, ...] = ()


def incident_url(console_base: str, incident_id: str) -> str:
    """The incident's page in the console."""
    return f"{console_base.rstrip('/')}/incidents/{quote(incident_id, safe='')}"
