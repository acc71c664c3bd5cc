"""Rows of many small requests at a time, as the loader inserts them.

One table each for events, logs and metrics; `row_widths` tells how wide they are, for the store
must not be given too much of that at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .columns import small_event_rows
from .forms import HonestLogForm, LogForm, MetricForm
from .json_views import json_lengths
from .log_columns import SmallLogs, small_log_rows
from .log_values import LogRow
from .logs import read_accepted_logs
from .metric_columns import metric_rows
from .metrics import MetricRequest
from .requests import SmallRequest

__all__ = ["row_widths", "small_rows"]

_ROWS_AT_ONCE = 1000

_WIDE_COLUMNS = {
    "events": ("body",),
    "logs": ("message", "attributes"),
    "metrics": ("metadata",),
    "rejects": ("line",),
}


def small_rows(table: str, requests: Sequence[SmallRequest]) -> pa.Table:
    """The rows of `requests`, each of which has some, all of `table`."""
    if table == "events":
        return small_event_rows(requests)
    if table == "logs":
        return small_log_rows(list(_logs_of(requests)))
    return metric_rows([_metrics_of(request) for request in requests])


def row_widths(table: str, rows: pa.Table) -> np.ndarray[Any, Any]:
    """The bytes of each row that may be long."""
    widths = np.zeros(rows.num_rows, np.int64)
    for name in _WIDE_COLUMNS[table]:
        column = rows[name]
        if isinstance(column.type, pa.JsonType):
            widths += json_lengths(column)
        else:
            widths += pc.fill_null(pc.binary_length(column), 0).to_numpy()
    return widths


def _logs_of(requests: Sequence[SmallRequest]) -> Iterator[SmallLogs]:
    unread = [request for request in requests if not request.rows]
    rows = _read_again(unread)
    for request in requests:
        entry, form = request.entry, request.entry.form
        assert isinstance(form, LogForm | HonestLogForm)
        yield SmallLogs(
            entry.request_number,
            entry.received_at_us,
            form.service,
            form.environment,
            request.rows or (next(rows),),
            request.lines,
            request.line_numbers,
        )


def _read_again(requests: Sequence[SmallRequest]) -> Iterator[LogRow]:
    """The logs of requests with one each. A decoder call holds the interpreter lock."""
    for first in range(0, len(requests), _ROWS_AT_ONCE):
        some = requests[first : first + _ROWS_AT_ONCE]
        texts = [request.lines[0] for request in some]
        yield from read_accepted_logs(texts, [request.entry.received_at_us for request in some])


def _metrics_of(request: SmallRequest) -> MetricRequest:
    entry, form = request.entry, request.entry.form
    assert isinstance(form, MetricForm)
    return MetricRequest(
        entry.request_number, entry.received_at_us, form.project_id, list(request.rows)
    )
