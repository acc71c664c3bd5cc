"""The generic webhook's bodies, as Logflare sends them: rows under `result`, or bare events."""

from __future__ import annotations

from ingester.delivery.incident import AlertRows, Firing
from ingester.delivery.rows import rows_array

__all__ = ["firing_body"]


def firing_body(firing: Firing) -> bytes:
    """Of an alert exactly `{"result": [rows]}`, of a rule a JSON array of events."""
    rows = rows_array(firing.data)
    return b'{"result":' + rows + b"}" if isinstance(firing.data, AlertRows) else rows
