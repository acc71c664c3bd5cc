"""Rows of incidents and firings as one JSON array: what incident.io calls `metadata.data`.

1. Always an array of objects. An event goes as it was sent, byte for byte, with `event_message`,
   `timestamp`, `level`, `service` and `environment` behind its own keys where it lacks them; one
   that is no object is represented by those alone.
2. At most `ROWS_BYTES_MAX` in all; of more, the first ones, and always the first.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from ingester.delivery.incident import (
    FIRING_EVENTS_MAX,
    FIRING_ROWS_MAX,
    AlertRows,
    Data,
    MonitorValues,
    MonitorWindow,
    RuleEvent,
    RuleEvents,
)
from ingester.delivery.metaplane import time_text

__all__ = ["ROWS_BYTES_MAX", "rows_array"]

# 250 events of the largest kind would be a body of 250 MB that no receiver takes.
ROWS_BYTES_MAX = 4 * 1024 * 1024

_KEYS = msgspec.json.Decoder(dict[str, msgspec.Raw])


def rows_array(data: Data) -> bytes:
    """The rows as one JSON array."""
    match data:
        case AlertRows(rows=rows):
            return _array(rows[:FIRING_ROWS_MAX])
        case RuleEvents(events=events):
            return _array(_event_row(event) for event in events[:FIRING_EVENTS_MAX])
        case MonitorValues(windows=windows):
            return _array(msgspec.json.encode(_window_row(window)) for window in windows)


def _array(rows: Iterable[bytes]) -> bytes:
    taken: list[bytes] = []
    size = 0
    for row in rows:
        size += len(row) + 1
        if taken and size > ROWS_BYTES_MAX:
            break
        taken.append(row)
    return b"[" + b",".join(taken) + b"]"


def _event_row(event: RuleEvent) -> bytes:
    added: dict[str, object] = {
        "event_message": event.event_message,
        "timestamp": time_text(event.timestamp_ms),
        "level": event.level,
        "service": event.service,
        "environment": event.environment,
    }
    own = event.body.strip()
    try:
        present = _KEYS.decode(own).keys()
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        present, own = {}.keys(), b"{}"
    missing = {
        name: value for name, value in added.items() if value is not None and name not in present
    }
    if not missing:
        return own
    tail = msgspec.json.encode(missing)
    return tail if not present else own[:-1].rstrip() + b"," + tail[1:]


def _window_row(window: MonitorWindow) -> dict[str, object]:
    return {
        "monitor": window.monitor,
        "value": window.value,
        "threshold": window.threshold,
        "group": (
            None
            if window.group is None
            else [{"name": each.name, "value": each.value} for each in window.group]
        ),
        "window_start": time_text(window.window_start_ms),
        "window_end": time_text(window.window_end_ms),
    }
