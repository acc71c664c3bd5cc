"""Arrow columns of accepted events, the payload column without a copy.

The names and types are those of the store's `events` table. Strings come from the decoder's
objects; `body` is a string view into the chunk itself (16 bytes a row: length, first four bytes,
buffer, offset), tagged `arrow.json`, which the store takes as its JSON type without parsing it
again (measured: 0.9 CPU-s of 2.6 per million rows went into that second parse).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from ..messages import LineReject, RequestRecord
from .event_runs import decode_accepted
from .events import EventBatch
from .json_views import JSON, json_views

__all__ = [
    "EVENT_SCHEMA",
    "REJECT_SCHEMA",
    "REQUEST_SCHEMA",
    "SMALL_EVENT_SCHEMA",
    "event_columns",
    "reject_rows",
    "request_rows",
    "small_event_rows",
    "small_request_rows",
]

_STRING = pa.string()
_TIMESTAMP = pa.timestamp("us")

# One upload: what is the same for every row (source, request, batch) is given as constants.
EVENT_SCHEMA = pa.schema({
    "account_id": _STRING,
    "user_id": _STRING,
    "created_at": _TIMESTAMP,
    "action": _STRING,
    "session_id": _STRING,
    "body": JSON,
    "line_number": pa.int64(),
})

# Many small requests in one batch: each row says where it came from.
SMALL_EVENT_SCHEMA = pa.schema([
    *EVENT_SCHEMA,
    pa.field("request_number", pa.int64()),
    pa.field("received_at", _TIMESTAMP),
    pa.field("source", _STRING),
])

REJECT_SCHEMA = pa.schema({
    "request_number": pa.int64(),
    "line_number": pa.int64(),
    "received_at": _TIMESTAMP,
    "door": _STRING,
    "source": _STRING,
    "reason": _STRING,
    "field": _STRING,
    "detail": _STRING,
    "line": pa.binary(),
    "column_number": pa.int64(),
    "form": _STRING,
})

REQUEST_SCHEMA = pa.schema({
    "request_number": pa.int64(),
    "received_at": _TIMESTAMP,
    "door": _STRING,
    "source": _STRING,
    "accepted": pa.int64(),
    "rejected": pa.int64(),
    "bytes_in": pa.int64(),
    "bytes_raw": pa.int64(),
    "encoding": _STRING,
    "idempotency_key": _STRING,
    "credential": _STRING,
    "fingerprint": pa.binary(),
    "deduplicated": pa.int64(),
})


# Decoded in one call, which holds the interpreter lock: 1,000 events take some 0.3 ms.
_SMALL_ROWS_AT_ONCE = 1000


class CountedRequest(Protocol):
    """What `requests.SmallRequest` tells of a request and its counts."""

    entry: Any
    row_count: int
    rejected_count: int
    bytes_raw: int


class EventLines(Protocol):
    """What `requests.SmallRequest` tells of the events of a request."""

    entry: Any
    rows: Sequence[Any]
    lines: Sequence[bytes]
    line_numbers: Sequence[int]


def event_columns(batch: EventBatch) -> pa.RecordBatch:
    """`batch` as one record batch of `EVENT_SCHEMA`; `created_at` in whole milliseconds."""
    columns = [
        *_named_columns(batch.events),
        json_views(batch.data, batch.starts, batch.lengths),
        pa.array(batch.line_numbers),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=EVENT_SCHEMA)


def small_event_rows(requests: Sequence[EventLines]) -> pa.Table:
    """The events of many small requests as one table of `SMALL_EVENT_SCHEMA`, in one chunk."""
    batches: list[pa.RecordBatch] = []
    first = row_count = 0
    for index, request in enumerate(requests, 1):
        row_count += len(request.lines)
        if row_count >= _SMALL_ROWS_AT_ONCE or index == len(requests):
            batches.append(_small_event_batch(requests[first:index]))
            first, row_count = index, 0
    return pa.Table.from_batches(batches, SMALL_EVENT_SCHEMA).combine_chunks()


def _small_event_batch(requests: Sequence[EventLines]) -> pa.RecordBatch:
    lines = [line for r in requests for line in r.lines]
    data = b"\n".join([*lines, b""])
    lengths = np.fromiter(map(len, lines), np.int32, len(lines))
    starts = np.zeros(len(lines), np.int32)
    np.cumsum(lengths[:-1] + 1, out=starts[1:])
    # Events of a source with a map were read by it; the others are decoded again, together.
    if any(r.rows for r in requests):
        events = [event for r in requests for event in r.rows or _decode_again(r.lines)]
    else:
        events = decode_accepted(data, lines)
    counts = np.fromiter((len(r.lines) for r in requests), np.int64, len(requests))
    numbers = np.fromiter((r.entry.request_number for r in requests), np.int64, len(requests))
    times = np.fromiter((r.entry.received_at_us for r in requests), np.int64, len(requests))
    columns = [
        *_named_columns(events),
        json_views(data, starts, lengths),
        pa.array([n for r in requests for n in r.line_numbers], pa.int64()),
        pa.array(np.repeat(numbers, counts)),
        pa.array(np.repeat(times, counts)).view(_TIMESTAMP),
        pa.array([r.entry.source for r in requests for _ in r.lines], _STRING),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SMALL_EVENT_SCHEMA)


def _decode_again(lines: Sequence[bytes]) -> list[Any]:
    return decode_accepted(b"\n".join([*lines, b""]), lines)


def reject_rows(
    rejects: Sequence[LineReject],
    request_number: int,
    received_at_us: int,
    door: str,
    source: str,
    form: str | None,
) -> pa.Table:
    """Refused lines of one request as `REJECT_SCHEMA`; `form` as `forms.form_text` writes it."""
    count = len(rejects)
    columns = [
        pa.array([request_number] * count, pa.int64()),
        pa.array([r.line_number for r in rejects], pa.int64()),
        pa.array([received_at_us] * count, pa.int64()).view(_TIMESTAMP),
        pa.array([door] * count, _STRING),
        pa.array([source] * count, _STRING),
        pa.array([r.reason for r in rejects], _STRING),
        pa.array([r.field for r in rejects], _STRING),
        pa.array([r.detail for r in rejects], _STRING),
        pa.array([r.line for r in rejects], pa.binary()),
        pa.array([r.column or None for r in rejects], pa.int64()),
        pa.array([form] * count, _STRING),
    ]
    return pa.Table.from_arrays(columns, schema=REJECT_SCHEMA)


def small_request_rows(requests: Sequence[CountedRequest]) -> pa.Table:
    """Many small requests as `REQUEST_SCHEMA`, without a record for each (1 µs)."""
    entries = [r.entry for r in requests]
    columns = [
        pa.array([e.request_number for e in entries], pa.int64()),
        pa.array([e.received_at_us for e in entries], pa.int64()).view(_TIMESTAMP),
        pa.array([e.door for e in entries], _STRING),
        pa.array([e.source for e in entries], _STRING),
        pa.array([r.row_count for r in requests], pa.int64()),
        pa.array([r.rejected_count for r in requests], pa.int64()),
        pa.array([len(e.body) for e in entries], pa.int64()),
        pa.array([r.bytes_raw for r in requests], pa.int64()),
        pa.array([e.encoding_name for e in entries], _STRING),
        pa.array([e.idempotency_key for e in entries], _STRING),
        pa.array([e.credential for e in entries], _STRING),
        pa.array([e.fingerprint for e in entries], pa.binary()),
        pa.array([len(e.duplicates) for e in entries], pa.int64()),
    ]
    return pa.Table.from_arrays(columns, schema=REQUEST_SCHEMA)


def request_rows(records: Sequence[RequestRecord]) -> pa.Table:
    """Acknowledged requests as `REQUEST_SCHEMA`."""
    times = [r.received_at_us for r in records]
    columns = [
        pa.array([r.request_number for r in records], pa.int64()),
        pa.array(times, pa.int64()).view(_TIMESTAMP),
        pa.array([r.door for r in records], _STRING),
        pa.array([r.source for r in records], _STRING),
        pa.array([r.accepted for r in records], pa.int64()),
        pa.array([r.rejected for r in records], pa.int64()),
        pa.array([r.bytes_in for r in records], pa.int64()),
        pa.array([r.bytes_raw for r in records], pa.int64()),
        pa.array([r.encoding for r in records], _STRING),
        pa.array([r.idempotency_key for r in records], _STRING),
        pa.array([r.credential for r in records], _STRING),
        pa.array([r.fingerprint for r in records], pa.binary()),
        pa.array([r.deduplicated for r in records], pa.int64()),
    ]
    return pa.Table.from_arrays(columns, schema=REQUEST_SCHEMA)


def _named_columns(events: Sequence[Any]) -> list[pa.Array]:
    """The first five columns of `EVENT_SCHEMA`."""
    count = len(events)
    created_ms = np.fromiter((e.createdAt for e in events), np.float64, count).astype(np.int64)
    return [
        pa.array([e.accountId for e in events], _STRING),
        pa.array([e.userId for e in events], _STRING),
        pa.array(created_ms * 1000).view(_TIMESTAMP),
        pa.array([e.action for e in events], _STRING),
        pa.array([e.sessionId for e in events], _STRING),
    ]
