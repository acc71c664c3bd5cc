"""Arrow columns of metrics, of many requests at a time.

The names and types are those of the store's `metrics` table. Metadata are JSON views into one
buffer of those that were sent; a metric without is null. `line_number` is the place within the
request, from 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from .json_views import JSON, packed_json
from .metrics import NO_RAW, MetricRequest

__all__ = ["METRIC_SCHEMA", "metric_rows"]

_STRING = pa.string()
_TIMESTAMP = pa.timestamp("us")

METRIC_SCHEMA = pa.schema({
    "metric_id": _STRING,
    "metric_name": _STRING,
    "value": pa.float64(),
    "unit": _STRING,
    "time": _TIMESTAMP,
    "metadata": JSON,
    "line_number": pa.int64(),
    "request_number": pa.int64(),
    "received_at": _TIMESTAMP,
    "project_id": _STRING,
})


def metric_rows(requests: Sequence[MetricRequest]) -> pa.Table:
    """The metrics of `requests` as one table of `METRIC_SCHEMA`, in order."""
    metrics = [metric for r in requests for metric in r.metrics]
    count = len(metrics)
    counts = np.fromiter((len(r.metrics) for r in requests), np.int64, len(requests))
    numbers = np.fromiter((r.request_number for r in requests), np.int64, len(requests))
    received_us = np.repeat(
        np.fromiter((r.received_at_us for r in requests), np.int64, len(requests)), counts
    )
    # Of each row its request's first row, to count from.
    firsts = np.repeat(np.cumsum(counts) - counts, counts)
    millis = [m.timestamp for m in metrics]
    if None in millis:
        given = np.array(millis, np.float64)  # NaN for None
        is_absent = np.isnan(given)
        times = np.where(is_absent, 0, given).astype(np.int64) * 1000
        times[is_absent] = received_us[is_absent]
    else:
        times = np.array(millis, np.float64).astype(np.int64) * 1000
    projects = [r.project_id for r in requests]
    columns = [
        pa.array([m.metricId for m in metrics], _STRING),
        pa.array([m.metricName for m in metrics], _STRING),
        pa.array(np.fromiter((m.value for m in metrics), np.float64, count)),
        pa.array([m.unit for m in metrics], _STRING),
        pa.array(times).view(_TIMESTAMP),
        packed_json([bytes(raw) if (raw := m.metadata) is not NO_RAW else b"" for m in metrics]),
        pa.array(np.arange(1, count + 1) - firsts),
        pa.array(np.repeat(numbers, counts)),
        pa.array(received_us).view(_TIMESTAMP),
        pa.array(projects, _STRING).take(pa.array(np.repeat(np.arange(len(projects)), counts))),
    ]
    return pa.Table.from_arrays(columns, schema=METRIC_SCHEMA)
