"""Reading for our own needs: what a start restores.

It refuses any statement of a user's: those run in a process of their own (`sandbox/`).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from ..messages import RequestRecord
from .check import check_parts
from .relations import Held
from .schema import parquet_relation
from .store import Store

__all__ = ["check_parts", "kept_reject_bytes", "read_dedup_keys", "read_keys"]

_FETCH_ROWS = 10_000


def read_keys(store: Store, *, keys_max: int, hours: int) -> list[RequestRecord]:
    """The newest requests that came with an idempotency key, oldest first."""
    records: list[RequestRecord] = []
    with store.hold() as held, store.database.lease() as lease, lease.using() as cursor:
        for relation in _relations(held, "requests", hours):
            rows = cursor.execute(
                "SELECT request_number, epoch_us(received_at), door, source, credential, accepted, "
                "rejected, idempotency_key, fingerprint, coalesce(deduplicated, 0) "
                f"FROM {relation} "
                "WHERE idempotency_key IS NOT NULL AND received_at > "
                "(now() AT TIME ZONE 'UTC') - to_hours(?) "
                "ORDER BY request_number DESC LIMIT ?",
                [hours, keys_max],
            ).fetchall()
            records += [
                RequestRecord(
                    request_number=row[0],
                    received_at_us=row[1],
                    door=row[2],
                    source=row[3],
                    credential=row[4],
                    accepted=row[5],
                    rejected=row[6],
                    bytes_in=0,
                    bytes_raw=0,
                    encoding="",
                    idempotency_key=row[7],
                    fingerprint=row[8],
                    deduplicated=row[9],
                )
                for row in rows
            ]
    records.sort(key=lambda record: record.request_number)
    return records[-keys_max:] if keys_max else []


def _relations(held: Held, table: str, hours: int) -> list[str]:
    """The parts, and the sealed files that may hold a row of the last hours."""
    since = datetime.now(UTC).replace(tzinfo=None) - timedelta(hours=hours)
    files = held.snapshot.sealed_within(table, "received_at", since, None)
    parts = [f"{part}.{table}" for part in held.snapshot.parts]
    return [*parts, *([parquet_relation(files)] if files else [])]


def read_dedup_keys(store: Store, scope: str, hours: int) -> Iterator[tuple[bytes, int]]:
    """Ids of rows received within the last hours, and when (microseconds)."""
    with store.hold() as held, store.database.lease() as lease, lease.using() as cursor:
        for relation in _relations(held, "dedup_keys", hours):
            cursor.execute(
                f"SELECT digest, epoch_us(received_at) FROM {relation} "
                "WHERE source = ? AND received_at > (now() AT TIME ZONE 'UTC') - to_hours(?)",
                [scope, hours],
            )
            while rows := cursor.fetchmany(_FETCH_ROWS):
                yield from rows


def kept_reject_bytes(store: Store) -> int:
    """Bytes of refused lines in the store, for `rejects_bytes_max`."""
    total = sum(file.line_bytes for file in store.sealed.files.get("rejects", ()))
    with store.database.lease() as lease, lease.using() as cursor:
        for part in store.parts.parts:
            row = cursor.execute(
                f"SELECT coalesce(sum(octet_length(line)), 0) FROM {part.name}.rejects"
            ).fetchone()
            total += row[0] if row is not None else 0
    return total
