"""incident.io's HTTP alert events (version 2): their bodies, keys and address.

1. `metadata.data` is always an array of objects and overrides a configured `data`; the configured
   metadata is sent beside it.
2. `key_mode` `incident`: the key is instance id + incident id, the same for the incident's whole
   life, so that `resolved` closes what `firing` opened, and two servers never close each other's.
3. `key_mode` `logflare`: hash of the rows + the current minute, always `firing`. The minute is
   that of the epoch: Logflare's minute of the hour lets equal rows an hour later collide.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import quote

import msgspec

from ingester.delivery.incident import AlertRows, Firing, Incident, RevisionKind
from ingester.delivery.rows import rows_array

__all__ = [
    "BASE_URL",
    "batch_key",
    "events_url",
    "firing_body",
    "incident_key",
    "revision_body",
    "test_body",
]

BASE_URL = "https://api.incident.io"

_NO_ROWS = b"[]"


def events_url(base_url: str, alert_source_config_id: str) -> str:
    return f"{base_url.rstrip('/')}/v2/alert_events/http/{quote(alert_source_config_id, safe='')}"


def incident_key(instance_id: str, incident_id: str) -> str:
    return f"{instance_id}-{incident_id}"


def batch_key(rows: bytes, at_ms: int) -> str:
    minute = datetime.fromtimestamp(at_ms // 1000, UTC)
    return f"{hashlib.sha256(rows).hexdigest()[:32]}-{minute:%Y%m%dT%H%MZ}"


def revision_body(
    incident: Incident,
    kind: RevisionKind,
    *,
    rows: bytes | None,
    metadata: Mapping[str, object],
    key: str,
) -> bytes:
    """The event of a revision. `rows`: the last rows as a JSON array."""
    return _event(
        title=incident.title,
        description=incident.description,
        status="resolved" if kind == "resolved" else "firing",
        key=key,
        url=incident.url,
        metadata=metadata,
        rows=rows or _NO_ROWS,
    )


def firing_body(firing: Firing, *, metadata: Mapping[str, object]) -> bytes:
    """The event of one alert run or one rule batch, as Logflare sends it."""
    rows = rows_array(firing.data)
    if isinstance(firing.data, AlertRows):
        title, description = firing.name, firing.description
    else:
        count = firing.data.count
        title, description = f"{count} event{'' if count == 1 else 's'} detected", ""
    return _event(
        title=title,
        description=description,
        status="firing",
        key=batch_key(rows, firing.fired_at_ms),
        url=firing.url,
        metadata=metadata,
        rows=rows,
    )


def test_body(name: str, *, metadata: Mapping[str, object], key: str, url: str) -> bytes:
    """A resolved event under a key of its own: it pages nobody."""
    return _event(
        title=f"Test of destination {name}",
        description="Sent by Verify. It is resolved already and needs no answer.",
        status="resolved",
        key=key,
        url=url,
        metadata=metadata,
        rows=b'[{"test":true}]',
    )


def _event(
    *,
    title: str,
    description: str,
    status: str,
    key: str,
    url: str,
    metadata: Mapping[str, object],
    rows: bytes,
) -> bytes:
    event = {
        "title": title,
        "description": description,
        "status": status,
        "deduplication_key": key,
        "source_url": url,
        "metadata": {**metadata, "data": msgspec.Raw(rows)},
    }
    return msgspec.json.encode(event)
