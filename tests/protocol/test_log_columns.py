"""Arrow columns of logs: what was accepted is what DuckDB holds, byte for byte."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings

from ingester.protocol.body_decoder import BodyLimits
from ingester.protocol.log_columns import (
    LOG_SCHEMA,
    SMALL_LOG_SCHEMA,
    LogBatch,
    SmallLogs,
    small_log_rows,
)
from ingester.protocol.log_values import LEVELS, LogRow
from ingester.protocol.logs import HonestLogDecoder, LogDoorDecoder

from .log_bodies import NOW_US, TIGHT, Row, bodies, honest, rows_of

EPOCH = datetime(1970, 1, 1)
Made = tuple[bytes, list[bytes], list[bytes] | None]


@pytest.fixture(scope="module")
def duck() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute(
            "CREATE TABLE logs(time TIMESTAMP, level VARCHAR, message VARCHAR, attributes JSON, "
            "line_number BIGINT)"
        )
        yield connection


def inserted(duck: duckdb.DuckDBPyConnection, rows: pa.Table) -> list[tuple[object, ...]]:
    duck.execute("DELETE FROM logs")
    duck.register("given_rows", rows)
    duck.execute("INSERT INTO logs SELECT * FROM given_rows")
    return duck.execute(
        "SELECT line_number, encode(attributes::VARCHAR), level, message, time, "
        "json_valid(attributes) FROM logs"
    ).fetchall()


def expected(rows: list[Row]) -> list[tuple[object, ...]]:
    return [
        (number, text, log.level, log.message, EPOCH + timedelta(microseconds=log.time_us), True)
        for number, text, log in rows
    ]


def batches_of(pieces: list[bytes]) -> list[LogBatch]:
    one = HonestLogDecoder(TIGHT, received_at_us=NOW_US, rejects_max=9, is_plain=True)
    one.chunk_bytes_min = 0  # or nothing so small would be read by chunk
    return [batch for piece in pieces for batch in one.feed(piece)] + list(one.finish())


@settings(max_examples=150, deadline=None)
@given(made=bodies())
def test_every_accepted_log_inserts_as_sent(duck: duckdb.DuckDBPyConnection, made: Made) -> None:
    found = honest(made[1])
    if found.error is None and found.rows:
        rows = pa.Table.from_batches([batch.columns() for batch in batches_of(made[1])])
        assert rows.schema == LOG_SCHEMA
        rows.validate(full=True)
        assert inserted(duck, rows) == expected(found.rows)


def test_odd_payloads_survive(duck: duckdb.DuckDBPyConnection) -> None:
    texts = [
        b"1", b'""', b"null", b"[]", b"{}", b'"exactly 10"', b'"exactly 11!"', b"9" * 400,
        b'{"message":"nul \\u0000","a":"\\u0000"}', b'{"a":-1e400}', b'{"a":1,"a":2}',
        '{"message":"😀\u2028","level":"WARN"}'.encode(), b'"' + b"x" * 5000 + b'"',
    ]  # fmt: skip
    one = LogDoorDecoder(BodyLimits(), received_at_us=NOW_US, is_plain=True)
    batches = one.feed(b"\n".join(texts)) + list(one.finish())
    rows = pa.Table.from_batches([batch.columns() for batch in batches])
    found = inserted(duck, rows)
    assert found == expected([row for batch in batches for row in rows_of(batch)])
    assert [row[1] for row in found] == texts
    assert found[8][3] == "nul \0"


def test_small_requests_keep_their_own_numbers() -> None:
    row = LogRow(LEVELS.index("error"), "m", NOW_US)
    requests = [
        SmallLogs(1, 10, "cart", "prod", [row, row], [b"{}", b'{"message":"m"}'], [1, 3]),
        SmallLogs(2, 20, "cart", "test", [], [], []),
        SmallLogs(3, 30, "pay", "prod", [row], [b"[1]"], [1]),
    ]
    rows = small_log_rows(requests)
    assert rows.schema == SMALL_LOG_SCHEMA
    rows.validate(full=True)
    attributes = rows["attributes"].combine_chunks().storage.to_pylist()
    assert attributes == ["{}", '{"message":"m"}', "[1]"]
    for name, values in {
        "level": ["error"] * 3, "message": ["m"] * 3, "line_number": [1, 3, 1],
        "request_number": [1, 1, 3], "service": ["cart", "cart", "pay"],
        "environment": ["prod", "prod", "prod"],
        "received_at": [EPOCH + timedelta(microseconds=n) for n in (10, 10, 30)],
        "time": [EPOCH + timedelta(microseconds=NOW_US)] * 3,
    }.items():  # fmt: skip
        assert rows[name].to_pylist() == values
    assert small_log_rows([]).num_rows == 0
    assert repr(requests[0]) == "SmallLogs(2 logs)"
