"""Arrow columns of logs, the payload column without a copy.

The names and types are those of the store's `logs` table. What is the same for every row of an
upload (service, environment, receive time, request) is given to the store as constants; many small
requests in one batch say it row by row.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import pyarrow as pa
from msgspec import Struct

from .chunk_shape import Array
from .json_views import JSON, json_views, packed_json
from .log_values import LEVELS, LogRow

__all__ = ["LOG_SCHEMA", "SMALL_LOG_SCHEMA", "LogBatch", "SmallLogs", "small_log_rows"]

_STRING = pa.string()
_TIMESTAMP = pa.timestamp("us")

LOG_SCHEMA = pa.schema({
    "time": _TIMESTAMP,
    "level": _STRING,
    "message": _STRING,
    "attributes": JSON,
    "line_number": pa.int64(),
})

SMALL_LOG_SCHEMA = pa.schema([
    *LOG_SCHEMA,
    pa.field("request_number", pa.int64()),
    pa.field("received_at", _TIMESTAMP),
    pa.field("service", _STRING),
    pa.field("environment", _STRING),
])


class LogBatch(Struct):
    """Accepted logs of one chunk. `data[starts[i]:starts[i] + lengths[i]]` is log i as sent.

    `levels`: uint8, places in `LEVELS`; `times`: int64, microseconds; `starts`, `lengths`: int32;
    `line_numbers`: int64, from 1 within the body (of an array: the element).
    """

    levels: Array
    messages: list[str]
    times: Array
    data: bytes
    starts: Array
    lengths: Array
    line_numbers: Array

    def __repr__(self) -> str:
        return f"LogBatch({self.row_count} logs, {len(self.data)} bytes)"

    @property
    def row_count(self) -> int:
        return len(self.messages)

    def columns(self) -> pa.RecordBatch:
        """One record batch of `LOG_SCHEMA`."""
        columns = [
            pa.array(self.times).view(_TIMESTAMP),
            _level_names().take(pa.array(self.levels)),
            pa.array(self.messages, _STRING),
            json_views(self.data, self.starts, self.lengths),
            pa.array(self.line_numbers),
        ]
        return pa.RecordBatch.from_arrays(columns, schema=LOG_SCHEMA)


class SmallLogs(Struct, gc=False):
    """The logs of one small request. `texts[i]` is log i as sent."""

    request_number: int
    received_at_us: int
    service: str
    environment: str
    rows: Sequence[LogRow]
    texts: Sequence[bytes]
    line_numbers: Sequence[int]

    def __repr__(self) -> str:
        return f"SmallLogs({len(self.rows)} logs)"


def small_log_rows(requests: Sequence[SmallLogs]) -> pa.Table:
    """The logs of many small requests as one table of `SMALL_LOG_SCHEMA`."""
    rows = [row for r in requests for row in r.rows]
    count = len(rows)
    counts = np.fromiter((len(r.rows) for r in requests), np.int64, len(requests))
    numbers = np.fromiter((r.request_number for r in requests), np.int64, len(requests))
    received = np.fromiter((r.received_at_us for r in requests), np.int64, len(requests))
    times = np.fromiter((row.time_us for row in rows), np.int64, count)
    levels = np.fromiter((row.level for row in rows), np.uint8, count)
    columns = [
        pa.array(times).view(_TIMESTAMP),
        _level_names().take(pa.array(levels)),
        pa.array([row.message for row in rows], _STRING),
        packed_json([text for r in requests for text in r.texts]),
        pa.array([n for r in requests for n in r.line_numbers], pa.int64()),
        pa.array(np.repeat(numbers, counts)),
        pa.array(np.repeat(received, counts)).view(_TIMESTAMP),
        pa.array([r.service for r in requests for _ in r.rows], _STRING),
        pa.array([r.environment for r in requests for _ in r.rows], _STRING),
    ]
    return pa.Table.from_arrays(columns, schema=SMALL_LOG_SCHEMA)


@cache
def _level_names() -> pa.Array:
    """Made when first asked for: an Arrow array of Python values imports pandas, if installed."""
    return pa.array(LEVELS, _STRING)
