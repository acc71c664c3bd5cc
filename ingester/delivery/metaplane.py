"""The incident webhook's body, with exactly the keys that Metaplane documents.

1. `idempotencyId` is base64 of `<id>-<updatedAt>`: one id for one revision, and the body is made
   once for it, so that equal ids mean equal bytes.
2. `connections` is always sent, though the documented example leaves it out. The deprecated
   `acknowledged` and `acknowledgedAt` are sent as false and null.
3. Ids and group values are strings, times have milliseconds and `Z`.
"""

from __future__ import annotations

import base64
from datetime import UTC, datetime

import msgspec

from ingester.delivery.incident import AffectedMonitor, Incident

__all__ = ["idempotency_id", "incident_body", "time_text"]


def time_text(epoch_ms: int) -> str:
    """`2026-11-21T17:00:00.000Z`."""
    seconds, milliseconds = divmod(epoch_ms, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{milliseconds:03d}Z"


def idempotency_id(incident: Incident) -> str:
    text = f"{incident.id}-{time_text(incident.updated_at_ms)}"
    return base64.b64encode(text.encode()).decode()


def incident_body(incident: Incident) -> bytes:
    return msgspec.json.encode({
        "id": incident.id,
        "createdAt": time_text(incident.created_at_ms),
        "updatedAt": time_text(incident.updated_at_ms),
        "idempotencyId": idempotency_id(incident),
        "status": incident.status,
        "acknowledged": False,
        "acknowledgedAt": None,
        "incidentUrl": incident.url,
        "labels": [{"id": label.id, "name": label.name} for label in incident.labels],
        "affectedMonitors": [_affected(one) for one in incident.affected_monitors],
    })


def _affected(one: AffectedMonitor) -> dict[str, object]:
    return {
        "id": one.id,
        "monitor": {
            "id": one.monitor_id,
            "type": one.type,
            "name": one.name,
            "entityType": one.entity_type,
            "absolutePath": one.absolute_path,
        },
        "linkedAt": time_text(one.linked_at_ms),
        "resolvedAt": None if one.resolved_at_ms is None else time_text(one.resolved_at_ms),
        "group": (
            None
            if one.group is None
            else [{"name": each.name, "value": each.value} for each in one.group]
        ),
        "connections": [
            {"id": each.id, "name": each.name, "type": each.type} for each in one.connections
        ],
    }
