"""Kept rejects, read back: by id, a page at a time, and counted.

A page is found by its keys first and its lines are fetched then: a sort that carries lines of up to
64 KiB would read all of them. Pages go by (request number, line number), which is the order of
arrival, so that a cursor is the id of the last row.

Reads parts and sealed files, not the public view: a replay needs columns that the view has not.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from msgspec import Struct

from ..messages import RejectReason
from ..protocol.ndjson import EXCERPT_BYTES_MAX
from .database import Cursor
from .relations import Held
from .schema import parquet_relation
from .store import Store

__all__ = [
    "RejectCount",
    "RejectFilter",
    "RejectKey",
    "RejectPage",
    "StoredReject",
    "count_rejects",
    "find_rejects",
    "reject_id_text",
    "reject_key",
    "reject_page",
    "stored_requests",
]

# Request number and line number.
RejectKey = tuple[int, int]

# What one page may hold of lines, looked at after every `_ROWS_AT_ONCE`.
PAGE_BYTES_MAX = 2 * 1024 * 1024
_ROWS_AT_ONCE = 64

_ID = re.compile(r"([0-9a-f]{16})-([1-9][0-9]{0,17})")
_NUMBER_MAX = 2**63 - 1


class RejectFilter(Struct, frozen=True, kw_only=True):
    """Which rejects; what is None does not matter. `since` is included, `until` is not."""

    door: str | None = None
    source: str | None = None
    reason: str | None = None
    request_number: int | None = None
    since: datetime | None = None
    until: datetime | None = None


class StoredReject(Struct, frozen=True, kw_only=True):
    """A refused line as it is kept. `form` as `forms.form_text` writes it."""

    request_number: int
    line_number: int
    received_at_us: int
    door: str
    source: str
    credential: str | None
    reason: RejectReason
    field: str | None
    column: int | None
    detail: str
    line: bytes
    form: str | None

    def __repr__(self) -> str:
        return f"StoredReject({self.id}, {self.reason}, {len(self.line)} bytes)"

    @property
    def key(self) -> RejectKey:
        return self.request_number, self.line_number

    @property
    def id(self) -> str:
        return reject_id_text(self.key)

    @property
    def is_cut(self) -> bool:
        """Only the first 64 KiB are kept (a line of exactly that length counts as cut)."""
        return len(self.line) >= EXCERPT_BYTES_MAX


class RejectPage(Struct, frozen=True):
    """Rejects in order; `has_more`: behind the last of them there are others."""

    rejects: list[StoredReject]
    has_more: bool


class RejectCount(Struct, frozen=True, kw_only=True):
    """How many are kept of one door, source and reason, and when the newest came."""

    door: str
    source: str
    reason: RejectReason
    kept: int
    newest_at_us: int


def reject_id_text(key: RejectKey) -> str:
    """As in the column `id` of `rejects`."""
    return f"{key[0]:016x}-{key[1]}"


def reject_key(text: str) -> RejectKey | None:
    """The key behind an id; None for what is none."""
    found = _ID.fullmatch(text)
    if found is None:
        return None
    number = int(found[1], 16)
    return (number, int(found[2])) if number <= _NUMBER_MAX else None


def reject_page(
    store: Store,
    wanted: RejectFilter,
    *,
    limit: int,
    after: RejectKey | None = None,
    oldest_first: bool = False,
) -> RejectPage:
    """At most `limit` rejects behind `after`, newest first unless told otherwise."""
    sign, order = (">", "ASC") if oldest_first else ("<", "DESC")
    where, values = _conditions(wanted)
    if after is not None:
        where += f" AND (request_number, line_number) {sign} (?, ?)"
        values += after
    with store.hold() as held, store.database.lease() as lease, lease.using() as cursor:
        sql = (
            f"SELECT request_number, line_number FROM ({_rejects(held, wanted)}) WHERE {where} "
            f"ORDER BY request_number {order}, line_number {order} LIMIT ?"
        )
        keys: list[RejectKey] = cursor.execute(sql, [*values, limit + 1]).fetchall()
        has_more = len(keys) > limit
        del keys[limit:]
        rejects: list[StoredReject] = []
        byte_count = 0
        for start in range(0, len(keys), _ROWS_AT_ONCE):
            if byte_count >= PAGE_BYTES_MAX:
                return RejectPage(rejects, True)
            found = _fetch(held, cursor, keys[start : start + _ROWS_AT_ONCE])
            byte_count += sum(len(reject.line) for reject in found)
            rejects += found
    return RejectPage(rejects, has_more)


def find_rejects(store: Store, keys: Sequence[RejectKey]) -> list[StoredReject]:
    """Those of `keys` that are kept, in the order of `keys`."""
    rejects: list[StoredReject] = []
    with store.hold() as held, store.database.lease() as lease, lease.using() as cursor:
        for start in range(0, len(keys), _ROWS_AT_ONCE):
            rejects += _fetch(held, cursor, keys[start : start + _ROWS_AT_ONCE])
    return rejects


def count_rejects(store: Store, wanted: RejectFilter) -> list[RejectCount]:
    """By door, source and reason; the most first."""
    where, values = _conditions(wanted)
    with store.hold() as held, store.database.lease() as lease, lease.using() as cursor:
        sql = (
            "SELECT door, source, reason, count(*) AS kept, epoch_us(max(received_at)) "
            f"FROM ({_rejects(held, wanted)}) WHERE {where} "
            "GROUP BY ALL ORDER BY kept DESC, door, source, reason"
        )
        rows = cursor.execute(sql, values).fetchall()
    return [
        RejectCount(door=door, source=source, reason=reason, kept=kept, newest_at_us=newest)
        for door, source, reason, kept, newest in rows
    ]


def stored_requests(store: Store, numbers: Collection[int], key_prefix: str) -> set[int]:
    """Those of the requests that are stored; the idempotency key of each ends with its own id."""
    if not numbers:
        return set()
    with store.hold() as held, store.database.lease() as lease, lease.using() as cursor:
        files = held.snapshot.sealed_within(
            "requests", "request_number", min(numbers), max(numbers)
        )
        sql = (
            f"SELECT request_number FROM ({_relation(held, 'requests', files)}) "
            "WHERE request_number IN (SELECT unnest(?::BIGINT[])) "
            "AND idempotency_key = ? || printf('%016x', request_number)"
        )
        return {number for (number,) in cursor.execute(sql, [list(numbers), key_prefix]).fetchall()}


_TABLES = {
    "rejects": "request_number, line_number, received_at, door, source, reason",
    "requests": "request_number, idempotency_key",
}

_COLUMNS = (
    "r.request_number, r.line_number, epoch_us(r.received_at), r.door, r.source, q.credential, "
    "r.reason, r.field, r.column_number, r.detail, r.line, r.form"
)


def _rejects(held: Held, wanted: RejectFilter) -> str:
    """The sealed files that may hold one of `wanted` among them."""
    number = wanted.request_number
    if number is not None:
        files = held.snapshot.sealed_within("rejects", "request_number", number, number)
    else:
        low, high = (
            None if time is None else _in_utc(time) for time in (wanted.since, wanted.until)
        )
        files = held.snapshot.sealed_within("rejects", "received_at", low, high)
    return _relation(held, "rejects", files)


def _relation(held: Held, table: str, files: Sequence[Path]) -> str:
    sources = [f"{part}.{table}" for part in held.snapshot.parts]
    if files:
        sources.append(parquet_relation(files))
    return " UNION ALL ".join(f"SELECT {_TABLES[table]} FROM {source}" for source in sources)


def _conditions(wanted: RejectFilter) -> tuple[str, list[object]]:
    tests = ["true"]
    values: list[object] = []
    for column in ("door", "source", "reason", "request_number"):
        value = getattr(wanted, column)
        if value is not None:
            tests.append(f"{column} = ?")
            values.append(value)
    for sign, time in ((">=", wanted.since), ("<", wanted.until)):
        if time is not None:
            tests.append(f"received_at {sign} ?")
            values.append(_in_utc(time))
    return " AND ".join(tests), values


def _in_utc(time: datetime) -> datetime:
    """Without its zone, as the store keeps times. The years 1 and 9999 end where they do here."""
    try:
        return time.astimezone(UTC).replace(tzinfo=None)
    except OverflowError:
        return datetime.min if time.year == 1 else datetime.max


def _fetch(held: Held, cursor: Cursor, keys: Sequence[RejectKey]) -> list[StoredReject]:
    """In the order of `keys`. A request and its rejects lie in the same part; sealed rejects know
    the credential themselves.
    """
    numbers, lines = [key[0] for key in keys], [key[1] for key in keys]
    sources = [
        f"{_COLUMNS} FROM {part}.rejects r JOIN k USING (request_number, line_number) "
        f"LEFT JOIN {part}.requests q USING (request_number)"
        for part in held.snapshot.parts
    ]
    files = held.snapshot.sealed_within("rejects", "request_number", min(numbers), max(numbers))
    if files:
        columns = _COLUMNS.replace("q.credential", "r.credential")
        sources.append(
            f"{columns} FROM {parquet_relation(files)} r JOIN k USING (request_number, line_number)"
        )
    found: dict[RejectKey, StoredReject] = {}
    for source in sources:
        rows = cursor.execute(
            "WITH k AS (SELECT unnest(?::BIGINT[]) AS request_number, "
            f"unnest(?::BIGINT[]) AS line_number) SELECT {source}",
            [numbers, lines],
        ).fetchall()
        found.update((reject.key, reject) for reject in _rejects_of(rows))
    return [found[key] for key in keys if key in found]


def _rejects_of(rows: Iterable[tuple[object, ...]]) -> Iterable[StoredReject]:
    names = StoredReject.__struct_fields__
    return (StoredReject(**dict(zip(names, row, strict=True))) for row in rows)  # type: ignore[arg-type]
