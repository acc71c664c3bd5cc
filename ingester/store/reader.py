"""Reading: one SELECT over the public views, bounded in time and rows.

For the operator's own command line (the unix socket has mode 0600, and the files are theirs
anyway). It refuses anything but one SELECT; it is no sandbox against a hostile query.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import duckdb
from msgspec import Struct

from ..errors import RequestError, StoreBusy, StoreError
from ..messages import RequestRecord
from .database import Cursor, Lease, StoreBroken
from .parts import Part
from .schema import DATA_TABLES, parquet_relation
from .store import Store
from .upload_files import table_of

__all__ = [
    "QueryRefused",
    "Rows",
    "check_parts",
    "kept_reject_bytes",
    "read_dedup_keys",
    "read_keys",
    "select",
]

ROWS_MAX = 1_000_000
_FETCH_ROWS = 10_000


class QueryRefused(RequestError):
    """Not one SELECT, or DuckDB refuses it; the sentence is DuckDB's."""


class Rows(Struct, frozen=True):
    """A result: column names, DuckDB type names, and rows as Python values."""

    columns: list[str]
    types: list[str]
    rows: list[tuple[object, ...]]

    def __repr__(self) -> str:
        return f"Rows({len(self.columns)} columns, {len(self.rows)} rows)"


def select(store: Store, sql: str, *, seconds_max: float) -> Rows:
    """Run one SELECT. Raises QueryRefused, or StoreBusy at the deadline."""
    with (
        store.database.lease() as lease,
        _deadline(lease, seconds_max) as is_over,
    ):
        try:
            with lease.using() as cursor:
                return _run(cursor, sql)
        except StoreBroken:
            raise
        except StoreBusy as error:
            if is_over.is_set():
                raise StoreBusy(f"the query took longer than {seconds_max:g} s") from error
            raise
        except StoreError as error:
            raise QueryRefused(str(error)) from error


def _run(cursor: Cursor, sql: str) -> Rows:
    statements = cursor.extract_statements(sql)
    if len(statements) != 1:
        raise QueryRefused(f"one SELECT is taken, got {len(statements)} statements")
    if statements[0].type != duckdb.StatementType.SELECT or _is_pragma(sql):
        raise QueryRefused("only SELECT is taken")
    cursor.execute("BEGIN TRANSACTION READ ONLY")
    try:
        cursor.execute(statements[0])
        description = cursor.description or []
        rows: list[tuple[object, ...]] = []
        while chunk := cursor.fetchmany(_FETCH_ROWS):
            rows += chunk
            if len(rows) > ROWS_MAX:
                raise QueryRefused(f"more than {ROWS_MAX:,} rows; add a LIMIT")
    except duckdb.IOException as error:
        if "invalidated" in str(error):
            raise
        raise QueryRefused(str(error)) from error  # a file the query names, say
    finally:
        cursor.execute("ROLLBACK")
    return Rows([d[0] for d in description], [str(d[1]) for d in description], rows)


def _is_pragma(sql: str) -> bool:
    """Some pragmas are rewritten to a SELECT before their type can be asked."""
    words = (at for at, kind in duckdb.tokenize(sql) if kind != duckdb.token_type.operator)
    at = next(words, len(sql))
    return sql.encode()[at : at + 6].lower() == b"pragma"


@contextmanager
def _deadline(lease: Lease, seconds_max: float) -> Iterator[threading.Event]:
    """Interrupt the lease's cursor when time is up; the event tells that it was."""
    is_over = threading.Event()

    def end() -> None:
        is_over.set()
        lease.interrupt()

    timer = threading.Timer(seconds_max, end)
    timer.daemon = True
    timer.start()
    try:
        yield is_over
    finally:
        timer.cancel()


def read_keys(store: Store, *, keys_max: int, hours: int) -> list[RequestRecord]:
    """The newest requests that came with an idempotency key, oldest first."""
    records: list[RequestRecord] = []
    with store.database.lease() as lease, lease.using() as cursor:
        for part in store.parts.parts:
            rows = cursor.execute(
                "SELECT request_number, epoch_us(received_at), door, source, credential, accepted, "
                "rejected, idempotency_key, fingerprint, coalesce(deduplicated, 0) "
                f"FROM {part.name}.requests "
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


def read_dedup_keys(store: Store, scope: str, hours: int) -> Iterator[tuple[bytes, int]]:
    """Ids of rows received within the last hours, and when (microseconds)."""
    with store.database.lease() as lease, lease.using() as cursor:
        for part in store.parts.parts:
            cursor.execute(
                f"SELECT digest, epoch_us(received_at) FROM {part.name}.dedup_keys "
                "WHERE source = ? AND received_at > (now() AT TIME ZONE 'UTC') - to_hours(?)",
                [scope, hours],
            )
            while rows := cursor.fetchmany(_FETCH_ROWS):
                yield from rows


def kept_reject_bytes(store: Store) -> int:
    """Bytes of refused lines in the store, for `rejects_bytes_max`."""
    total = 0
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
    with store.database.lease() as lease, lease.using() as cursor:
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
    return problems
