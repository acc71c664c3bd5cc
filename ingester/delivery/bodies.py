"""Which destination is told of what, in which body.

| destination | revisions | firings |
|---|---|---|
| `webhook` | all | none |
| `incident_io`, key mode `incident` | all | none |
| `incident_io`, key mode `logflare` | of monitors: opened and joined, as firing | all |
| `generic` | of monitors: all | all |

A revision is "of monitors" when one of its affected monitors is neither an alert nor a rule.
Destinations that share a **format** get the same bytes: all webhooks, all generic ones, and those
of incident.io with the same key mode and metadata.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from typing import Literal

import msgspec
from msgspec import Struct

from ingester.delivery import generic, incident_io, metaplane
from ingester.delivery.incident import Firing, Incident, Revision

__all__ = [
    "DestinationType",
    "Format",
    "KeyMode",
    "firing_event_id",
    "maybe_firing_body",
    "maybe_revision_body",
    "revision_event_id",
]

DestinationType = Literal["webhook", "incident_io", "generic"]
KeyMode = Literal["incident", "logflare"]


class Format(Struct, frozen=True, kw_only=True):
    """What a body depends on besides its revision or firing."""

    type: DestinationType
    key_mode: KeyMode = "incident"
    metadata: Mapping[str, object] = {}

    @property
    def name(self) -> str:
        """The same for destinations that get the same bytes."""
        if self.type != "incident_io":
            return self.type
        metadata = msgspec.json.encode(self.metadata, order="deterministic")
        return f"incident_io:{self.key_mode}:{hashlib.sha256(metadata).hexdigest()[:16]}"


def revision_event_id(incident: Incident) -> str:
    """The revision's id in every format (`webhook-id`); in the webhook also `idempotencyId`."""
    return metaplane.idempotency_id(incident)


def firing_event_id(firing: Firing) -> str:
    """Two firings of one alert or rule differ in time, two rules in one batch in their url."""
    text = f"{firing.incident_id}|{firing.url}|{firing.fired_at_ms}|{firing.name}"
    return base64.b64encode(hashlib.sha256(text.encode()).digest()[:24]).decode()


def maybe_revision_body(
    revision: Revision, rows: bytes | None, wanted: Format, *, instance_id: str
) -> bytes | None:
    """The body for destinations of a format; None when they are not told. `rows`: the last rows
    of the incident as a JSON array.
    """
    incident = revision.incident
    if wanted.type == "webhook":
        return metaplane.incident_body(incident)
    is_of_monitors = any(one.type not in ("ALERT", "RULE") for one in incident.affected_monitors)
    if wanted.type == "generic":
        return metaplane.incident_body(incident) if is_of_monitors else None
    kind = revision.kind
    key = incident_io.incident_key(instance_id, incident.id)
    if wanted.key_mode == "logflare":
        if not (is_of_monitors and kind in ("opened", "joined")):
            return None
        key = incident_io.batch_key(rows or b"", incident.updated_at_ms)
    return incident_io.revision_body(incident, kind, rows=rows, metadata=wanted.metadata, key=key)


def maybe_firing_body(firing: Firing, wanted: Format) -> bytes | None:
    """The body for destinations of a format; None when they follow incidents instead."""
    if wanted.type == "generic":
        return generic.firing_body(firing)
    if wanted.type == "incident_io" and wanted.key_mode == "logflare":
        return incident_io.firing_body(firing, metadata=wanted.metadata)
    return None
