"""Incidents, revisions and firings for tests."""

from __future__ import annotations

from typing import Any

from ingester.delivery.incident import (
    AffectedMonitor,
    AlertRows,
    Connection,
    Firing,
    GroupValue,
    Incident,
    Label,
    MonitorValues,
    MonitorWindow,
    Revision,
    RevisionKind,
    RuleEvent,
    RuleEvents,
)

__all__ = ["CREATED_MS", "affected", "firing", "incident", "revision", "values"]

# 2024-05-03T13:43:56.243Z, as in Metaplane's example.
CREATED_MS = 1_714_743_836_243


def affected(**changes: Any) -> AffectedMonitor:
    fields: dict[str, Any] = {
        "id": "26312",
        "monitor_id": "018f3eb0-d994-7a34-a956-92a30a439157",
        "type": "ROW_COUNT",
        "name": "Row count grouped by customer_id",
        "entity_type": "table",
        "absolute_path": "METAPLANE_DB.TEST_SCHEMA.orders",
        "linked_at_ms": CREATED_MS + 72,
        "group": (GroupValue(name="customer_id", value="1"),),
        "connections": (Connection(id="con_1", name="cron", type="metric"),),
        "table": "METAPLANE_DB.TEST_SCHEMA.orders",
    }
    return AffectedMonitor(**fields | changes)


def incident(id: str = "26345", *, step: int = 0, **changes: Any) -> Incident:
    """An incident `step` revisions after it was opened."""
    fields: dict[str, Any] = {
        "id": id,
        "created_at_ms": CREATED_MS,
        "updated_at_ms": CREATED_MS + step,
        "status": "opened",
        "url": f"https://app.metaplane.dev/incident/{id}",
        "title": "Row count is low",
        "description": "of **orders**",
        "affected_monitors": (affected(),),
    }
    return Incident(**fields | changes)


def values(value: float = 3.0) -> MonitorValues:
    window = MonitorWindow(
        monitor="Row count grouped by customer_id",
        value=value,
        threshold=10.0,
        window_start_ms=CREATED_MS - 60_000,
        window_end_ms=CREATED_MS,
        group=(GroupValue(name="customer_id", value="1"),),
    )
    return MonitorValues(windows=(window,))


def revision(
    id: str = "26345", kind: RevisionKind = "opened", *, step: int = 0, **changes: Any
) -> Revision:
    status = "resolved" if kind == "resolved" else "opened"
    data = changes.pop("data", values() if kind == "opened" else None)
    return Revision(
        kind=kind, incident=incident(id, step=step, **{"status": status, **changes}), data=data
    )


def firing(*, is_alert: bool = True, step: int = 0, rows: tuple[bytes, ...] = ()) -> Firing:
    data: AlertRows | RuleEvents
    if is_alert:
        data = AlertRows(rows=rows or (b'{"n":1}', b'{"n":2}'))
    else:
        events = tuple(
            RuleEvent(
                body=row,
                event_message="boom",
                timestamp_ms=CREATED_MS,
                level="error",
                service="web",
                environment="prod",
            )
            for row in rows or (b'{"error": 1.0}',)
        )
        data = RuleEvents(events=events, count=len(events))
    return Firing(
        incident_id="26345",
        name="Too slow",
        description="p99 over a second",
        url="https://ingester.example/alerts/alr_1",
        fired_at_ms=CREATED_MS + step,
        data=data,
        monitor_id="alr_1",
        services=("web",),
        table="logs",
        labels=(Label(id="1", name="urgent"),),
    )
