"""Arrow columns: what was accepted is what the store holds, byte for byte."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingester.config import StoreConfig
from ingester.messages import LineReject, RequestRecord
from ingester.protocol.columns import (
    EVENT_SCHEMA,
    REJECT_SCHEMA,
    REQUEST_SCHEMA,
    SMALL_EVENT_SCHEMA,
    event_columns,
    reject_rows,
    request_rows,
    small_event_rows,
    small_request_rows,
)
from ingester.protocol.event_lines import EventRules
from ingester.protocol.events import EventBatch, EventDecoder
from ingester.protocol.json_views import json_lengths, json_views
from ingester.protocol.requests import decode_body
from ingester.store.store import Store

from .lines import bodies, decoded, entry, event_line, is_utf8

RULES = EventRules(line_bytes_max=2400, depth_max=8, lenient_session=True)
_EPOCH = datetime(1970, 1, 1)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    store = Store(Path(tmp_path_factory.mktemp("store")), StoreConfig())
    store.open()
    yield store
    store.close()


def inserted(
    store: Store, table: str, rows: pa.Table, constants: dict[str, Any], select: str
) -> list[tuple[Any, ...]]:
    """`select` over `rows` after they went into the real table; rolled back."""
    with store.begin("small") as transaction:
        transaction.prepare(table, rows.schema)
        transaction.insert(table, rows, constants)
        with transaction._lease.using() as cursor:
            part = store.parts.newest.name
            return cursor.execute(f"SELECT {select} FROM {part}.{table} ORDER BY ALL").fetchall()


EVENT_SELECT = (
    "line_number, encode(body::VARCHAR), json_valid(body), account_id, user_id, created_at, "
    "action, session_id, request_number, epoch_us(received_at), source, batch_id"
)


def expected_rows(
    accepted: list[tuple[int, bytes, tuple[Any, ...]]], *constants: object
) -> list[tuple[Any, ...]]:
    rows = []
    for number, line, (account, user, created, action, session) in accepted:
        moment = _EPOCH + timedelta(milliseconds=int(created))
        rows.append((number, line, True, account, user, moment, action, session, *constants))
    return rows


def batches_of(pieces: list[bytes], rules: EventRules = RULES) -> list[EventBatch]:
    decoder = EventDecoder(rules, rejects_max=10, is_plain=True)
    return [batch for piece in pieces for batch in decoder.feed(piece)] + decoder.finish()


@settings(max_examples=120, deadline=None)
@given(body=bodies())
def test_every_accepted_line_inserts_as_sent(store: Store, body: tuple[bytes, list[bytes]]) -> None:
    accepted = decoded([body[0]], RULES).accepted
    batches = batches_of(body[1])
    if batches:
        rows = pa.Table.from_batches(map(event_columns, batches))
        rows.validate(full=True)
        constants = {"request_number": 5, "received_at_us": 7, "source": "s", "batch_id": 9}
        found = inserted(store, "events", rows, constants, EVENT_SELECT)
        assert found == expected_rows(accepted, 5, 7, "s", 9)
    request = decode_body(entry(body[0], rules=RULES), body[0])
    if request.lines:
        rows = small_event_rows([request])
        rows.validate(full=True)
        found = inserted(store, "events", rows, {"batch_id": 3}, EVENT_SELECT)
        assert found == expected_rows(accepted, 11, 13, "shop", 3)


def test_odd_values_survive_the_store(store: Store) -> None:
    lines = [
        event_line(accountId="nul\0inside", action="😀\u2028", x="\u0000"),
        event_line()[:-1] + b',"x":' + b"9" * 400 + b',"y":-1e400,"z":1e-999}',
        event_line()[:-1] + b',"x":"\\ud83d\\ude00","":{"":{}}, "x":2, "x": 3}',
        event_line(createdAt=0),
        event_line(createdAt=253402300799999.9),
        event_line(userId="x" * 1024, x="y" * 100_000),
    ]
    body = b"\n".join(lines)
    accepted = decoded([body]).accepted
    assert [line for _, line, _ in accepted] == lines
    [batch] = [event_columns(b) for b in batches_of([body + b"\n"], EventRules())]
    constants = {"request_number": 5, "received_at_us": 7, "source": "s", "batch_id": 9}
    rows = pa.Table.from_batches([batch])
    found = inserted(store, "events", rows, constants, EVENT_SELECT)
    assert found == expected_rows(accepted, 5, 7, "s", 9)
    assert [row[5] for row in found[3:5]] == [_EPOCH, datetime(9999, 12, 31, 23, 59, 59, 999000)]


@pytest.mark.parametrize(
    ("created", "millis"),
    [("0.9", 0), ("-0", 0), ("1.999", 1), ("1700000000123.99", 1700000000123)],
)
def test_the_fraction_of_created_at_is_cut(created: str, millis: int) -> None:
    line = event_line(createdAt=77).replace(b"77", created.encode())
    [batch] = batches_of([line + b"\n"])
    assert event_columns(batch)["created_at"].cast(pa.int64()).to_pylist() == [millis * 1000]


def test_many_small_requests_keep_their_own_numbers(store: Store) -> None:
    first = entry(b"", number=1, time_us=10, source="a")
    second = entry(b"", number=2, time_us=20, source="b")
    third = entry(b"", number=3, time_us=30, source="c")
    line = event_line()
    requests = [
        decode_body(first, line + b"\nbad\n" + line),
        decode_body(second, b"bad"),
        decode_body(third, line),
    ]
    rows = small_event_rows(requests)
    assert rows.schema == SMALL_EVENT_SCHEMA
    found = inserted(
        store, "events", rows, {"batch_id": 1}, "request_number, line_number, source, received_at"
    )
    assert found == [
        (1, 1, "a", _EPOCH + timedelta(microseconds=10)),
        (1, 3, "a", _EPOCH + timedelta(microseconds=10)),
        (3, 1, "c", _EPOCH + timedelta(microseconds=30)),
    ]
    assert small_event_rows([requests[1]]).num_rows == 0
    assert small_event_rows([]).num_rows == 0


def test_rejects_insert_with_their_bytes(store: Store) -> None:
    rejects = [
        LineReject(3, "invalid_utf8", "byte 0xff is not UTF-8", b"\xff\x00'\"", None, 1),
        LineReject(9, "missing_field", "accountId is missing", b"{}", "accountId"),
    ]
    rows = reject_rows(rejects, 5, 7, "natero", "shop", "[]")
    assert rows.schema == REJECT_SCHEMA
    found = inserted(
        store,
        "rejects",
        rows,
        {"batch_id": 2},
        "request_number, line_number, epoch_us(received_at), door, source, reason, field, "
        "detail, line, batch_id, column_number, form",
    )
    assert found == [
        (5, r.line_number, 7, "natero", "shop", r.reason, r.field, r.detail, r.line, 2, *rest)
        for r, rest in zip(rejects, [(1, "[]"), (None, "[]")], strict=True)
    ]
    assert reject_rows([], 5, 7, "natero", "shop", None).schema == REJECT_SCHEMA


def test_requests_insert_with_and_without_a_key(store: Store) -> None:
    record = RequestRecord(
        request_number=(1 << 63) - 1,
        received_at_us=1_700_000_000_000_001,
        door="natero",
        source="shop",
        credential="source:1",
        accepted=3,
        rejected=4,
        bytes_in=5,
        bytes_raw=6,
        encoding="x-gzip, \xff",
        idempotency_key="k",
        fingerprint=b"\x00" * 16,
    )
    rows = request_rows([record])
    assert rows.schema == REQUEST_SCHEMA
    found = inserted(store, "requests", rows, {}, "*")
    received = datetime.fromtimestamp(1_700_000_000, UTC).replace(tzinfo=None, microsecond=1)
    assert found == [
        ((1 << 63) - 1, received, "natero", "shop", 3, 4, 5, 6, "x-gzip, \xff", "k", "source:1",
         bytes(16), 0)
    ]  # fmt: skip
    rows = request_rows([decode_body(entry(b"x"), b"x").record()])
    assert inserted(store, "requests", rows, {}, "idempotency_key, fingerprint") == [(None, None)]


def test_many_small_requests_make_the_rows_of_their_records() -> None:
    requests = [decode_body(entry(body), body) for body in (b"x", event_line())]
    expected = request_rows([request.record() for request in requests])
    assert small_request_rows(requests).equals(expected)


def test_the_lengths_of_a_json_column_are_those_of_its_values() -> None:
    longer = event_line()[:-1] + b"  }"
    requests = [decode_body(entry(body), body) for body in (event_line(), longer)]
    body = small_event_rows(requests)["body"]
    assert json_lengths(body).tolist() == [len(text) for text in body.to_pylist()]


@given(st.lists(st.binary(min_size=13, max_size=40), max_size=8), st.binary(max_size=5))
def test_json_views_point_at_their_bytes(texts: list[bytes], gap: bytes) -> None:
    data = gap + gap.join(texts)
    starts = np.zeros(len(texts), np.int32)
    position = len(gap)
    for index, text in enumerate(texts):
        starts[index] = position
        position += len(text) + len(gap)
    lengths = np.array([len(text) for text in texts], np.int32)
    views = json_views(data, starts, lengths)
    assert views.storage.cast(pa.binary_view()).to_pylist() == texts
    if all(map(is_utf8, texts)):
        views.storage.validate(full=True)


def test_event_columns_have_the_schema_of_the_store() -> None:
    [batch] = batches_of([event_line() + b"\n"])
    assert event_columns(batch).schema == EVENT_SCHEMA
