"""A body of the metric door in pieces: held whole, at most `value_bytes_max`, then read at once.

Why it exists beside `metrics.py`: a hundred metrics with much metadata may be more than the small
lane takes, and then come the way of an upload, with the surface of the other decoders.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import pyarrow as pa
from msgspec import Struct

from ..errors import BodyTooLarge
from ..messages import LineReject, RejectReason
from .metric_columns import METRIC_SCHEMA, metric_rows
from .metrics import Metric, MetricRules, decode_metrics

__all__ = ["METRIC_UPLOAD_SCHEMA", "MetricBatch", "MetricDecoder"]

_PER_ROW = ("request_number", "received_at", "project_id")
METRIC_UPLOAD_SCHEMA = pa.schema([field for field in METRIC_SCHEMA if field.name not in _PER_ROW])


class MetricBatch(Struct):
    """The metrics of one body."""

    columns: pa.RecordBatch
    data: bytes

    def __repr__(self) -> str:
        return f"MetricBatch({self.columns.num_rows} metrics, {len(self.data)} bytes)"


class MetricDecoder:
    """One body. Raises MalformedBody for the first fault, BodyTooLarge beyond `value_bytes_max`."""

    def __init__(
        self, project_id: str, rules: MetricRules, *, value_bytes_max: int, received_at_us: int
    ) -> None:
        self.accepted_count = 0
        self.rejected_count = 0
        self.reasons: Counter[RejectReason] = Counter()
        self.rejects: list[LineReject] = []
        self.metrics: Sequence[Metric] = ()
        self._project_id = project_id
        self._rules = rules
        self._value_bytes_max = value_bytes_max
        self._received_at_us = received_at_us
        self._body = bytearray()

    def feed(self, piece: bytes) -> list[MetricBatch]:
        self._body += piece
        if len(self._body) > self._value_bytes_max:
            at_most = self._value_bytes_max
            raise BodyTooLarge(f"a request may have at most {at_most} bytes; send fewer metrics")
        return []

    def finish(self) -> Iterator[MetricBatch]:
        body = bytes(self._body)
        request = decode_metrics(
            body, self._rules, project_id=self._project_id, received_at_us=self._received_at_us
        )
        self.metrics = request.metrics
        self.accepted_count = len(request.metrics)
        rows = metric_rows([request]).select(METRIC_UPLOAD_SCHEMA.names)
        (columns,) = rows.combine_chunks().to_batches()
        yield MetricBatch(columns, body)

    def take_rejects(self) -> list[LineReject]:
        return []
