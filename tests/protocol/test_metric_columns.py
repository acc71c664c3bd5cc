"""Arrow columns of metrics: what was accepted is what DuckDB holds."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

import duckdb
import pyarrow as pa

from ingester.protocol.metric_columns import METRIC_SCHEMA, metric_rows
from ingester.protocol.metrics import MetricRequest, MetricRules, decode_metrics

EPOCH = datetime(1970, 1, 1)


def request(number: int, *metrics: bytes) -> MetricRequest:
    body = b'{"projectId":"p%d","metrics":[%b]}' % (number, b",".join(metrics))
    return decode_metrics(
        body,
        MetricRules(),
        project_id=f"p{number}",
        received_at_us=1_795_262_400_000_000 + number,
        request_number=number,
    )


def metric(name: str, extra: bytes = b"") -> bytes:
    return json.dumps({"metricId": name, "metricName": name.upper(), "value": 1.5}).encode()[
        :-1
    ] + (extra + b"}")


def test_metrics_of_many_requests_keep_their_own_numbers() -> None:
    long = b'{"k": "' + b"v" * 300 + b'", "n": ' + b"9" * 400 + b"}"
    requests = [
        request(1, metric("a"), metric("b", b',"unit":"ms","timestamp":1795262399123.9')),
        request(2, metric("c", b',"metadata":{}'), metric("d", b',"metadata":' + long)),
        request(3, metric("nul\0", b',"metadata":{"a":"\\u0000 \xc3\xa9"},"timestamp":0')),
    ]
    rows = metric_rows(requests)
    assert rows.schema == METRIC_SCHEMA
    rows.validate(full=True)
    duck = duckdb.connect()
    duck.execute(
        "CREATE TABLE t(metric_id VARCHAR, metric_name VARCHAR, value DOUBLE, unit VARCHAR, "
        "time TIMESTAMP, metadata JSON, line_number BIGINT, request_number BIGINT, "
        "received_at TIMESTAMP, project_id VARCHAR)"
    )
    duck.register("rows", rows)
    duck.execute("INSERT INTO t SELECT * FROM rows")
    found = duck.execute(
        "SELECT metric_id, metric_name, unit, time, encode(metadata::VARCHAR), line_number, "
        "request_number, received_at, project_id, coalesce(json_valid(metadata), true) FROM t"
    ).fetchall()
    received = [EPOCH + timedelta(microseconds=1_795_262_400_000_000 + n) for n in range(4)]
    given = EPOCH + timedelta(milliseconds=1_795_262_399_123)
    kept = b'{"a":"\\u0000 \xc3\xa9"}'
    assert found == [
        ("a", "A", None, received[1], None, 1, 1, received[1], "p1", True),
        ("b", "B", "ms", given, None, 2, 1, received[1], "p1", True),
        ("c", "C", None, received[2], b"{}", 1, 2, received[2], "p2", True),
        ("d", "D", None, received[2], long, 2, 2, received[2], "p2", True),
        ("nul\0", "NUL\0", None, EPOCH, kept, 1, 3, received[3], "p3", True),
    ]


def test_no_request_and_no_metadata_are_fine() -> None:
    assert metric_rows([]).schema == METRIC_SCHEMA
    assert metric_rows([]).num_rows == 0
    rows = metric_rows([request(1, metric("a"))])
    assert rows["metadata"].combine_chunks().cast(pa.string_view()).to_pylist() == [None]
    assert rows["value"].to_pylist() == [1.5]
