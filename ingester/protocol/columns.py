"""Arrow columns of accepted events, the payload column without a copy.

The names and types are those of the store's `events` table. Strings come from the decoder's
objects; `body` is a string view into the chunk itself (16 bytes a row: length, first four bytes,
buffer, offset), tagged `arrow.json`, which the store takes as its JSON type without parsing it
again (measured: 0.9 CPU-s of 2.6 per million rows went into that second parse).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from .events import EventBatch

__all__ = ["EVENT_COLUMNS", "event_columns", "json_views"]

EVENT_COLUMNS = (
    "account_id",
    "user_id",
    "created_at",
    "action",
    "session_id",
    "body",
    "line_number",
)

_STRING = pa.string()
_TIMESTAMP = pa.timestamp("us")
_JSON = pa.json_(pa.string_view())
_VIEW = np.dtype([("length", "<i4"), ("prefix", "<u4"), ("buffer", "<i4"), ("offset", "<i4")])

# A string view of up to 12 bytes carries its bytes in place of buffer and offset (Arrow columnar
# format, "Variable-size Binary View Layout"). No event is that short: five properties.
_INLINE_BYTES_MAX = 12


def event_columns(batch: EventBatch) -> pa.RecordBatch:
    """`batch` as one record batch with `EVENT_COLUMNS`; `created_at` in whole milliseconds."""
    events = batch.events
    count = len(events)
    created_ms = np.fromiter((e.createdAt for e in events), np.float64, count).astype(np.int64)
    columns = [
        pa.array([e.accountId for e in events], _STRING),
        pa.array([e.userId for e in events], _STRING),
        pa.array(created_ms * 1000).view(_TIMESTAMP),
        pa.array([e.action for e in events], _STRING),
        pa.array([e.sessionId for e in events], _STRING),
        json_views(batch.data, batch.starts, batch.lengths),
        pa.array(batch.line_numbers),
    ]
    return pa.RecordBatch.from_arrays(columns, EVENT_COLUMNS)


def json_views(
    data: bytes, starts: np.ndarray[Any, Any], lengths: np.ndarray[Any, Any]
) -> pa.ExtensionArray:
    """`data[starts[i]:starts[i] + lengths[i]]` as a JSON column that points into `data`."""
    assert not len(lengths) or int(lengths.min()) > _INLINE_BYTES_MAX
    octets = np.frombuffer(data, np.uint8)
    views = np.zeros(len(starts), _VIEW)
    views["length"] = lengths
    views["offset"] = starts
    views["prefix"] = octets[starts[:, None] + np.arange(4)].view("<u4")[:, 0]
    storage = pa.Array.from_buffers(
        pa.string_view(), len(starts), [None, pa.py_buffer(views), pa.py_buffer(data)]
    )
    return pa.ExtensionArray.from_storage(_JSON, storage)
