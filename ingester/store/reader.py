"""Reading for our own needs: what a start restores, and whether rows and ledger agree.

It refuses any statement of a user's: those run in a process of their own (`sandbox/`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import chain

import pyarrow as pa
import pyarrow.parquet as pq

from ..messages import RequestRecord
from .control.sealed_files import SealedFile
from .parts import Part
from .relations import Held
from .schema import DATA_TABLES, parquet_relation
from .store import Store
from .upload_files import table_of

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


def _batch_ids(store: Store, part: Part) -> str:
    """The batch of every row of a part, its upload files included."""
    relations = []
    for table in DATA_TABLES:
        relations.append(f"{part.name}.{table}")
        files = [
            store.uploads_directory / name
            for name in part.upload_files
            if name not in part.unreadable_files and table_of(name) == table
        ]
        if files:
            relations.append(parquet_relation(files))
    return " UNION ALL ".join(f"SELECT batch_id FROM {relation}" for relation in relations)


def check_parts(store: Store) -> list[str]:
    """Problems: batches whose rows are not what the ledger says, numbers used twice."""
    problems: list[str] = []
    with store.hold() as held, store.database.lease() as lease, lease.using() as cursor:
        for part in store.parts.parts:
            problems += [
                f"{name}: the upload file is missing or damaged" for name in part.unreadable_files
            ]
            rows = cursor.execute(
                "SELECT batch_id, coalesce(a.row_count, 0), coalesce(e.rows, 0) FROM "
                f"(SELECT batch_id, sum(row_count) AS row_count FROM {part.name}.applied "
                "WHERE lane NOT IN ('carry', 'wide') GROUP BY ALL) a FULL JOIN "
                f"(SELECT batch_id, count(*) AS rows FROM ({_batch_ids(store, part)}) "
                "GROUP BY ALL) e "
                "USING (batch_id) WHERE coalesce(a.row_count, 0) <> coalesce(e.rows, 0) LIMIT 20"
            ).fetchall()
            problems += [
                f"{part.path.name}: batch {batch_id} has {found} rows, the ledger says {expected}"
                for batch_id, expected, found in rows
            ]
        names = " UNION ALL ".join(
            f"SELECT request_number FROM {part.name}.requests" for part in store.parts.parts
        )
        row = cursor.execute(
            f"SELECT count(*) - count(DISTINCT request_number) FROM ({names})"
        ).fetchone()
        if row is not None and row[0]:
            problems.append(f"{row[0]} requests are stored twice")
        for column in ("commit_number", "batch_id"):
            names = " UNION ALL ".join(
                f"SELECT {column} FROM {part.name}.applied WHERE lane NOT IN ('carry', 'wide')"
                for part in store.parts.parts
            )
            rows = cursor.execute(
                f"SELECT {column}, count(*) FROM ({names}) GROUP BY ALL HAVING count(*) > 1 "
                f"ORDER BY {column} LIMIT 20"
            ).fetchall()
            problems += [f"{column} {row[0]} was used {row[1]} times" for row in rows]
        problems += _check_sealed(store, held.snapshot.sealed.values())
    return problems


def _check_sealed(store: Store, files: Iterable[tuple[SealedFile, ...]]) -> list[str]:
    """Sealed files against the manifest."""
    sealed = store.sealed
    problems = [
        f"sealed/{name}: the file is missing or damaged; put it back from a backup"
        for name in sealed.missing
    ]
    problems += [
        f"sealed/{name}: the manifest in control.sqlite does not know this file, its rows are not "
        "found; it was left where it is"
        for name in sealed.strangers
    ]
    for file in chain.from_iterable(files):
        try:
            row_count = pq.read_metadata(sealed.path(file)).num_rows
        except (OSError, pa.ArrowException):
            problems.append(f"sealed/{file.name}: the file cannot be read")
            continue
        if row_count != file.row_count:
            problems.append(
                f"sealed/{file.name} has {row_count} rows, the manifest says {file.row_count}"
            )
    return problems
