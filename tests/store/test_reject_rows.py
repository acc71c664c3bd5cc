"""Kept rejects, read back: pages, filters, counts, over several parts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from ingester.messages import LineReject, RejectReason, RequestRecord
from ingester.protocol.columns import REJECT_SCHEMA, REQUEST_SCHEMA, reject_rows, request_rows
from ingester.store import reject_rows as module
from ingester.store.ledger import AppliedBatch
from ingester.store.reject_rows import (
    RejectFilter,
    RejectKey,
    count_rejects,
    find_rejects,
    reject_id_text,
    reject_key,
    reject_page,
    stored_requests,
)
from ingester.store.store import Store
from tests.store.stores import opened, value

EAST, WEST = timezone(timedelta(hours=14)), timezone(-timedelta(hours=12))
FIRST_US = 1_700_000_000_000_000


def put(
    store: Store,
    number: int,
    lines: list[tuple[int, RejectReason, bytes]],
    *,
    source: str = "shop",
    door: str = "natero",
) -> None:
    """One request and its rejects, a second after the one before it."""
    received_at_us = FIRST_US + number * 1_000_000
    rejects = [LineReject(n, reason, "why", line, None, n) for n, reason, line in lines]
    record = RequestRecord(
        request_number=number,
        received_at_us=received_at_us,
        door=door,
        source=source,
        credential=f"source:{number}",
        accepted=0,
        rejected=len(lines),
        bytes_in=1,
        bytes_raw=1,
        encoding="identity",
        idempotency_key=f"made-{number:016x}",
        fingerprint=b"f",
    )
    with store.begin("small") as transaction:
        transaction.prepare("rejects", REJECT_SCHEMA)
        transaction.prepare("requests", REQUEST_SCHEMA)
        batch_id = store.ledger.take_batch_id()
        rows = reject_rows(rejects, number, received_at_us, door, source, None)
        transaction.insert("rejects", rows, {"batch_id": batch_id})
        transaction.insert("requests", request_rows([record]))
        transaction.commit([AppliedBatch(batch_id, "small", number, number, 0, number)])


def all_pages(
    store: Store, wanted: RejectFilter, *, limit: int, oldest_first: bool = False
) -> list[RejectKey]:
    keys: list[RejectKey] = []
    while True:
        after = keys[-1] if keys else None
        page = reject_page(store, wanted, limit=limit, after=after, oldest_first=oldest_first)
        assert len(page.rejects) <= limit
        keys += [reject.key for reject in page.rejects]
        if not page.has_more:
            return keys


def test_pages_go_through_every_part_in_order(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        for number in range(1, 8):
            if number in (3, 6):
                store.rotate()
            put(store, number, [(n, "invalid_json", b"x") for n in (1, 5, 10)])
        expected = [(number, n) for number in range(1, 8) for n in (1, 5, 10)]
        for limit in (1, 2, 7, 21, 100):
            oldest = all_pages(store, RejectFilter(), limit=limit, oldest_first=True)
            assert oldest == expected
            assert all_pages(store, RejectFilter(), limit=limit) == expected[::-1]
        found = find_rejects(store, [(7, 5), (9, 9), (1, 1)])
        assert [(r.key, r.column, r.credential) for r in found] == [
            ((7, 5), 5, "source:7"),
            ((1, 1), 1, "source:1"),
        ]
        assert found[1].id == value(store, "SELECT min(id) FROM rejects")
        assert stored_requests(store, [1, 7, 8], "made-") == {1, 7}
        assert stored_requests(store, [1, 7, 8], "other-") == set()
        assert stored_requests(store, [], "made-") == set()


def test_a_page_is_bounded_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE_BYTES_MAX", 1000)
    monkeypatch.setattr(module, "_ROWS_AT_ONCE", 2)
    with opened(tmp_path) as store:
        put(store, 1, [(n, "too_long", b"x" * 400) for n in range(1, 11)])
        page = reject_page(store, RejectFilter(), limit=10)
        assert (len(page.rejects), page.has_more) == (4, True)
        assert len(all_pages(store, RejectFilter(), limit=10)) == 10


def test_filters_choose_and_counts_agree_with_them(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        put(store, 1, [(1, "invalid_json", b"a"), (2, "missing_field", b"b")])
        put(store, 2, [(1, "invalid_json", b"c")], source="other")
        put(store, 3, [(1, "invalid_json", b"d")], door="ingest")
        noon = datetime.fromtimestamp(FIRST_US / 1e6, UTC)
        wanted = {
            RejectFilter(door="ingest"): [(3, 1)],
            RejectFilter(source="shop", reason="invalid_json"): [(1, 1), (3, 1)],
            RejectFilter(request_number=1): [(1, 1), (1, 2)],
            RejectFilter(since=noon + timedelta(seconds=2)): [(2, 1), (3, 1)],
            RejectFilter(until=noon + timedelta(seconds=2)): [(1, 1), (1, 2)],
            RejectFilter(source="nobody's ' name"): [],
            RejectFilter(since=datetime(1, 1, 1, tzinfo=EAST), source="other"): [(2, 1)],
            RejectFilter(until=datetime(9999, 12, 31, 23, tzinfo=WEST), source="other"): [(2, 1)],
        }
        for chosen, keys in wanted.items():
            assert all_pages(store, chosen, limit=2, oldest_first=True) == keys
            assert sum(count.kept for count in count_rejects(store, chosen)) == len(keys)
        counts = [
            (c.door, c.source, c.reason, c.kept) for c in count_rejects(store, RejectFilter())
        ]
        assert sorted(counts) == [
            ("ingest", "shop", "invalid_json", 1),
            ("natero", "other", "invalid_json", 1),
            ("natero", "shop", "invalid_json", 1),
            ("natero", "shop", "missing_field", 1),
        ]


@pytest.mark.parametrize(
    "text",
    ["", "1-1", "0" * 16 + "-0", "0" * 16, "f" * 16 + "-1", "A" * 16 + "-1", "x" * 16 + "-1"],
)
def test_what_is_no_id_has_no_key(text: str) -> None:
    assert reject_key(text) is None


def test_an_id_and_its_key_are_the_same() -> None:
    key = (0x1A2B, 17)
    assert reject_key(reject_id_text(key)) == key


def test_a_part_without_column_and_form_is_given_them_with_its_rejects(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        put(store, 1, [(1, "invalid_json", b"a")])
        with store.database.lease() as lease, lease.using() as cursor:
            for column in ("column_number", "form"):
                cursor.execute(f"ALTER TABLE part_000001.rejects DROP COLUMN {column}")
            cursor.execute("UPDATE part_000001.part_info SET schema_version = 2")
    with opened(tmp_path) as store:
        put(store, 2, [(7, "invalid_json", b"b")])
        found = reject_page(store, RejectFilter(), limit=9).rejects
        assert [(r.key, r.column, r.form) for r in found] == [
            ((2, 7), 7, None),
            ((1, 1), None, None),
        ]
