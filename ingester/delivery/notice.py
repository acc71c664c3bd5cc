"""What is sent of a destination's own state: the notice that one was disabled, and samples.

The notice goes through another destination, as an incident of its own kind: the receiver knows
that form already. It is in no list of incidents. Samples are what Verify sends: they look like the
real thing, and page nobody.
"""

from __future__ import annotations

from ingester.delivery import incident_io, metaplane
from ingester.delivery.bodies import DestinationType, Format
from ingester.delivery.incident import (
    AffectedMonitor,
    Connection,
    GroupValue,
    Incident,
    Label,
    incident_url,
)

__all__ = [
    "disabled_body",
    "disabled_event_id",
    "disabled_incident_id",
    "sample_body",
    "sample_event_id",
]


def disabled_incident_id(number: int, at_ms: int) -> str:
    return f"destination-{number}-{at_ms}"


def disabled_event_id(number: int, at_ms: int) -> str:
    return metaplane.idempotency_id(_disabled(number, "", "", at_ms, ""))


def disabled_body(
    wanted: Format,
    *,
    number: int,
    name: str,
    reason: str,
    at_ms: int,
    console_base: str,
    instance_id: str,
) -> bytes:
    incident = _disabled(number, name, reason, at_ms, console_base)
    if wanted.type != "incident_io":
        return metaplane.incident_body(incident)
    return incident_io.revision_body(
        incident,
        "opened",
        rows=None,
        metadata=wanted.metadata,
        key=incident_io.incident_key(instance_id, incident.id),
    )


def _disabled(number: int, name: str, reason: str, at_ms: int, console_base: str) -> Incident:
    return Incident(
        id=disabled_incident_id(number, at_ms),
        created_at_ms=at_ms,
        updated_at_ms=at_ms,
        status="opened",
        url=f"{console_base.rstrip('/')}/destinations/dst_{number}",
        title=f"Destination {name} was disabled",
        description=f"Nothing is sent to it any more: {reason}.",
        affected_monitors=(
            AffectedMonitor(
                id=str(number),
                monitor_id=f"dst_{number}",
                type="ALERT",
                name=f"Destination {name} was disabled: {reason}",
                entity_type="service",
                absolute_path=f"delivery.{name}",
                linked_at_ms=at_ms,
            ),
        ),
    )


def sample_event_id(number: int, at_ms: int) -> str:
    return metaplane.idempotency_id(_sample(number, at_ms, ""))


def sample_body(
    type_: DestinationType,
    *,
    number: int,
    name: str,
    at_ms: int,
    console_base: str,
    metadata: dict[str, object],
    instance_id: str,
) -> bytes:
    """`number` makes the id of the sample: `sample-<n>`."""
    if type_ == "incident_io":
        return incident_io.test_body(
            name,
            metadata=metadata,
            key=incident_io.incident_key(instance_id, "test"),
            url=console_base,
        )
    return metaplane.incident_body(_sample(number, at_ms, console_base))


def _sample(number: int, at_ms: int, console_base: str) -> Incident:
    incident_id = f"sample-{number}"
    return Incident(
        id=incident_id,
        created_at_ms=at_ms,
        updated_at_ms=at_ms,
        status="opened",
        url=incident_url(console_base, incident_id),
        title="Sample incident",
        labels=(Label(id="sample", name="sample"),),
        affected_monitors=(
            AffectedMonitor(
                id=f"{incident_id}-1",
                monitor_id="sample-monitor",
                type="LOG_COUNT",
                name="Sample monitor",
                entity_type="service",
                absolute_path="logs.prod.web",
                linked_at_ms=at_ms,
                group=(GroupValue(name="service", value="web"),),
                connections=(Connection(id="tok_0", name="web/prod", type="log"),),
            ),
        ),
    )
