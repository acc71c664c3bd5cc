"""Retention: which sealed files are to go, when and why; pure.

1. Only whole files go, and a file has the rows that arrived on one day. By age it goes when that
   day ended as many days ago as `retention_days` says; by size (`store_bytes_max`) all files of the
   oldest day go, then those of the next.
2. What a repeat is told by outlives both: requests for `idempotency_hours`, ids for the longest
   `dedup_hours` of any source and `_IDS_DAYS_MIN` days at least, so that a longer one set later
   looks back that far.
3. Rollups are none of its business: they live by a setting of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Literal

from msgspec import Struct

from ..config import RETENTION_TABLES, StoreConfig
from .control.sealed_files import SealedFile
from .schema import DATA_TABLES

__all__ = [
    "Keeping",
    "Purge",
    "PurgeItem",
    "Retention",
    "due",
    "next_purges",
    "purge_sentence",
    "retention_of",
]

_IDS_DAYS_MIN = 7
_DAY_S = 86_400

Reason = Literal["age", "size"]


class Keeping(Struct, frozen=True, kw_only=True):
    """What is kept: days by table (none: for ever), bytes in all (0: any), and the windows that
    repeats are looked for in.
    """

    days: Mapping[str, int]
    bytes_max: int = 0
    idempotency_hours: int = 24
    dedup_hours: int = 24

    @classmethod
    def of(
        cls, store: StoreConfig, *, idempotency_hours: int, dedup_hours: Iterable[int]
    ) -> Keeping:
        """As the configuration says; `dedup_hours` of every source."""
        return cls(
            days=store.days_kept(),
            bytes_max=store.store_bytes_max,
            idempotency_hours=idempotency_hours,
            dedup_hours=max(dedup_hours, default=24),
        )

    def goes_at(self, file: SealedFile) -> float | None:
        """When it goes by age (epoch seconds); None: never."""
        if file.table == "dedup_keys":
            return self.not_before(file)
        days = self.days.get(file.table, 0)
        if file.table == "applied":  # as long as rows that it tells of
            kept = [self.days.get(table, 0) for table in DATA_TABLES]
            days = max(kept) if all(kept) else 0
        if not days:
            return None
        return max(_end_of(file.day) + days * _DAY_S, self.not_before(file))

    def not_before(self, file: SealedFile) -> float:
        """When it may go at the earliest, whatever the size."""
        newest = file.received_high_us / 1e6
        if file.table == "dedup_keys":
            return newest + max(self.dedup_hours * 3600, _IDS_DAYS_MIN * _DAY_S)
        return newest + self.idempotency_hours * 3600 if file.table == "requests" else 0.0


class PurgeItem(Struct, frozen=True, kw_only=True):
    """What goes of one table."""

    table: str
    days: list[str]
    files: int
    rows: int
    bytes: int


class Purge(Struct, frozen=True, kw_only=True):
    """What goes together, when (RFC 3339) and why."""

    at: str
    reason: Reason
    items: list[PurgeItem]


class Retention(Struct, frozen=True, kw_only=True):
    """What is kept, and what goes next. `days`: by table, of those that have an end."""

    days: dict[str, int]
    stored_bytes: int
    store_bytes_max: int
    purges: list[Purge]


def retention_of(
    files: Sequence[SealedFile], keeping: Keeping, *, stored_bytes: int, now: float
) -> Retention:
    return Retention(
        days={table: days for table, days in keeping.days.items() if days},
        stored_bytes=stored_bytes,
        store_bytes_max=keeping.bytes_max,
        purges=next_purges(files, keeping, stored_bytes=stored_bytes, now=now),
    )


def due(
    files: Iterable[SealedFile], keeping: Keeping, *, stored_bytes: int, now: float
) -> list[tuple[Reason, SealedFile]]:
    """What is to go now. `stored_bytes`: of the whole store."""
    found: list[tuple[Reason, SealedFile]] = []
    rest: list[SealedFile] = []
    for file in files:
        at = keeping.goes_at(file)
        if at is not None and at <= now:
            found.append(("age", file))
        else:
            rest.append(file)
    left_bytes = stored_bytes - sum(file.byte_count for _, file in found)
    return found + [("size", file) for file in _over(rest, keeping, left_bytes, now)]


def _over(
    files: Sequence[SealedFile], keeping: Keeping, stored_bytes: int, now: float
) -> list[SealedFile]:
    """The oldest days, until the others are within the size."""
    if not keeping.bytes_max:
        return []
    found: list[SealedFile] = []
    may_go = [file for file in files if keeping.not_before(file) <= now]
    for day in sorted({file.day for file in may_go}):
        if stored_bytes <= keeping.bytes_max:
            break
        those = [file for file in may_go if file.day == day]
        found += those
        stored_bytes -= sum(file.byte_count for file in those)
    return found


def next_purges(
    files: Sequence[SealedFile], keeping: Keeping, *, stored_bytes: int, now: float
) -> list[Purge]:
    """What goes next by age, all that goes at one time; and what by size, if anything must."""
    found: list[Purge] = []
    by_time: dict[float, list[SealedFile]] = {}
    for file in files:
        at = keeping.goes_at(file)
        if at is not None and file.table in RETENTION_TABLES:
            by_time.setdefault(max(at, now), []).append(file)
    if by_time:
        first = min(by_time)
        found.append(_purge(first, "age", by_time[first]))
    now_due = due(files, keeping, stored_bytes=stored_bytes, now=now)
    by_size = [file for reason, file in now_due if reason == "size"]
    if by_size:
        found.append(_purge(now, "size", by_size))
    return found


def _purge(at: float, reason: Reason, files: Iterable[SealedFile]) -> Purge:
    by_table: dict[str, list[SealedFile]] = {}
    for file in files:
        by_table.setdefault(file.table, []).append(file)
    return Purge(
        at=datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        reason=reason,
        items=[
            PurgeItem(
                table=table,
                days=sorted({file.day for file in those}),
                files=len(those),
                rows=sum(file.row_count for file in those),
                bytes=sum(file.byte_count for file in those),
            )
            for table, those in sorted(by_table.items())
        ],
    )


def purge_sentence(purge: Purge) -> str:
    """For people and for the log."""
    told = []
    for item in purge.items:
        days = item.days[0] if len(item.days) == 1 else f"{item.days[0]} to {item.days[-1]}"
        told.append(f"{item.table} of {days} ({item.rows} rows, {item.bytes} bytes)")
    why = "their time is over" if purge.reason == "age" else "the store is larger than it may be"
    return f"next purge removes {', '.join(told)} at {purge.at}: {why}"


def _end_of(day: str) -> float:
    after = date.fromisoformat(day) + timedelta(days=1)
    return datetime(after.year, after.month, after.day, tzinfo=UTC).timestamp()
