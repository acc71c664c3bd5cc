"""The tail: rows of committed batches behind a position, in the order of commits.

1. A position is (commit number, request number, line number) of the last row that was told; rows
   behind it are those that a later look finds, also after a restart: no commit number is named
   that may be given again (`store/ledger.py`).
2. A look tells at most `_LINES_MAX` rows, oldest first; the next goes on behind them. Who lags
   behind by more than `_BACKLOG_LINES_MAX` is told how many were left out, and goes on with the
   newest. A look reads at most `_ROWS_MAX` rows, the newest. Nothing waits for who follows.
3. Without a position it begins with what was committed in the last minutes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal, cast

from msgspec import Struct

from ..errors import InvalidField
from ..lql import Query, compile_query
from ..store.ledger import IS_AGAIN
from ..store.relations import relation
from .asked import parse_rows
from .fetch import Document, documents
from .keys import Key
from .reading import Reading
from .subjects import Subject

__all__ = [
    "Look",
    "Position",
    "end_of",
    "look",
    "matching_behind",
    "parse_position",
    "parse_tail",
    "start_of",
]

_BEGIN_SPAN = timedelta(minutes=5)
_BEGIN_LINES_MAX = 200
_LINES_MAX = 1_000
_BACKLOG_LINES_MAX = 10_000
# A word that is nowhere costs 0.2 s in a million rows (measured 2026-11-21).
_ROWS_MAX = 1_000_000

_POSITION = re.compile(r"([0-9]{1,18})\.([0-9]{1,19})\.([0-9]{1,19})")
_NUMBER_MAX = 2**63 - 1


class Position(Struct, frozen=True, order=True):
    """Everything up to here was told."""

    commit_number: int
    request_number: int = _NUMBER_MAX
    line_number: int = _NUMBER_MAX

    def __str__(self) -> str:
        return f"{self.commit_number}.{self.request_number}.{self.line_number}"


class Look(Struct, frozen=True, kw_only=True):
    """What one look found: rows, oldest first, each with its position; where the next one begins,
    and whether that will find more; matching lines that were left out, and rows that were not even
    looked at.
    """

    rows: list[tuple[Position, Document]]
    position: Position
    missed_lines: int = 0
    unread_rows: int = 0
    has_more: bool = False


class _Batches(Struct, frozen=True):
    """Of those in `again_ids` only rows that arrived since `again_since` count."""

    ids: list[int]
    commit_numbers: list[int]
    unread_rows: int
    last: int | None
    again_ids: list[int]
    again_since: datetime | None


def parse_tail(text: str, subject: Subject) -> Query:
    """Raises QueryError, RequestError."""
    return parse_rows(text, subject.schema, "a live tail shows rows as they come")


def parse_position(text: str) -> Position:
    """Raises InvalidField."""
    found = _POSITION.fullmatch(text)
    if found is None:
        raise InvalidField("last_event_id", "Last-Event-ID is none that a live tail has given")
    commit_number, request_number, line_number = (int(part) for part in found.groups())
    return Position(commit_number, min(request_number, _NUMBER_MAX), min(line_number, _NUMBER_MAX))


def end_of(reading: Reading) -> Position:
    """Behind all that is committed."""
    return Position(reading.snapshot.commit_number)


def start_of(reading: Reading) -> Position:
    """Behind the last commit before the last minutes."""
    before = (reading.now - _BEGIN_SPAN).replace(tzinfo=None)
    union = " UNION ALL ".join(
        f"SELECT commit_number, committed_at FROM {source}"
        for source in reading.snapshot.ledgers_before(before)
    )
    ((last,),) = reading.rows(
        f"SELECT max(commit_number) FROM ({union}) WHERE committed_at < ?", [before]
    )
    return Position(cast(int | None, last) or 0)


def look(
    reading: Reading,
    subject: Subject,
    query: Query,
    position: Position | None,
    *,
    rows_max: int = _ROWS_MAX,
) -> Look:
    """Rows behind `position`; without one, the last of the last minutes."""
    if position is not None and position.commit_number > reading.snapshot.commit_number:
        position = None  # of another store, or one that was restored
    begins = position is None
    after = start_of(reading) if position is None else position
    batches = _batches(reading, after, rows_max)
    if batches.last is None:
        return Look(rows=[], position=after)
    end = Position(batches.last)
    if not batches.ids:
        return Look(rows=[], position=end, unread_rows=0 if begins else batches.unread_rows)
    if begins:
        keys = _keys(reading, subject, query, after, batches, _BEGIN_LINES_MAX, "DESC")
        return Look(rows=_rows(reading, subject, keys)[::-1], position=end)
    keys = _keys(reading, subject, query, after, batches, _LINES_MAX + 1, "ASC")
    missed = 0
    if len(keys) > _LINES_MAX:
        count = _count(reading, subject, query, after, batches)
        if count > _BACKLOG_LINES_MAX:
            keys = _keys(reading, subject, query, after, batches, _LINES_MAX, "DESC")[::-1]
            missed = count - len(keys)
    rows = _rows(reading, subject, keys[:_LINES_MAX])
    has_more = len(rows) < len(keys)
    return Look(
        rows=rows,
        position=rows[-1][0] if has_more else end,
        missed_lines=missed,
        unread_rows=batches.unread_rows,
        has_more=has_more,
    )


def matching_behind(
    reading: Reading,
    subject: Subject,
    query: Query,
    commit_number: int,
    *,
    limit: int,
    again_since: datetime | None = None,
) -> tuple[list[Key], int]:
    """The first matching rows of all commits behind one, and how many there are. Rows that were
    lost and came back, behind a new commit, are among them when they arrived since `again_since`.
    """
    after = Position(commit_number)
    batches = _batches(reading, after, _NUMBER_MAX, again_since)
    if not batches.ids:
        return [], 0
    keys = _keys(reading, subject, query, after, batches, limit, "ASC")
    count = len(keys)
    if count == limit:
        count = _count(reading, subject, query, after, batches)
    return [key for _, key in keys], count


def _rows(
    reading: Reading, subject: Subject, keys: Sequence[tuple[Position, Key]]
) -> list[tuple[Position, Document]]:
    """Fewer than `keys` when they are large."""
    found = documents(reading, subject, [key for _, key in keys])
    return [(at, document) for (at, _), document in zip(keys, found, strict=False)]


def _batches(
    reading: Reading, after: Position, rows_max: int, again_since: datetime | None = None
) -> _Batches:
    """The newest batches behind `after`, its own commit included, up to `rows_max` rows. Of rows
    that were lost and came back only those received since `again_since`.
    """
    sources, unknown = reading.snapshot.ledgers_from(after.commit_number)
    union = " UNION ALL ".join(
        f"SELECT batch_id, commit_number, row_count, {IS_AGAIN} AS is_again FROM {source} "
        "WHERE lane NOT IN ('carry', 'wide')"
        for source in sources
    )
    found = reading.rows(
        f"SELECT batch_id, commit_number, row_count, is_again FROM ({union}) "
        "WHERE commit_number >= ? AND commit_number <= ? ORDER BY commit_number DESC",
        [after.commit_number, reading.snapshot.commit_number],
    )
    ids: list[int] = []
    commit_numbers: list[int] = []
    read = unread = 0
    again_ids: list[int] = []
    for batch_id, commit_number, count, is_again in cast(list[tuple[int, int, int, bool]], found):
        row_count = count if not is_again or again_since is not None else 0
        if commit_number == after.commit_number and after.request_number == _NUMBER_MAX:
            continue
        # What is older than a batch that is left out is left out too: the next look begins behind.
        if unread or (read + row_count > rows_max and ids):
            unread += row_count
            continue
        read += row_count
        if row_count:
            ids.append(batch_id)
            commit_numbers.append(commit_number)
            if is_again:
                again_ids.append(batch_id)
    last = cast(int, found[0][1]) if found else None
    return _Batches(ids, commit_numbers, unread + unknown, last, again_ids, again_since)


def _matching(
    reading: Reading, subject: Subject, query: Query, after: Position, batches: _Batches
) -> tuple[str, list[object]]:
    """FROM and WHERE of the matching rows of `batches` behind `after`."""
    low, high = min(batches.ids), max(batches.ids)
    files = reading.snapshot.files_within(subject.table, "batch_id", low, high)
    rows = relation(reading.snapshot, subject.table, subject.columns, files)
    compiled = compile_query(query, now=reading.now, schema=subject.schema)
    sql = (
        f"FROM ({rows}) AS {subject.schema.relation} JOIN (SELECT unnest(?::BIGINT[]) AS "
        "its_batch, unnest(?::BIGINT[]) AS its_commit) AS told ON batch_id = its_batch "
        f"WHERE batch_id >= ? AND batch_id <= ? AND ({compiled.where_sql}) "
        "AND (its_commit > ? OR request_number > ? OR (request_number = ? AND line_number > ?))"
    )
    params: list[object] = [
        *(batches.ids, batches.commit_numbers, low, high, *compiled.params),
        *(after.commit_number, after.request_number, after.request_number, after.line_number),
    ]
    if batches.again_ids:
        sql += " AND (NOT list_contains(?::BIGINT[], batch_id) OR received_at >= ?)"
        params += [batches.again_ids, batches.again_since]
    return sql, params


def _keys(
    reading: Reading,
    subject: Subject,
    query: Query,
    after: Position,
    batches: _Batches,
    limit: int,
    order: Literal["ASC", "DESC"],
) -> list[tuple[Position, Key]]:
    """The oldest or the newest, that end first."""
    matching, params = _matching(reading, subject, query, after, batches)
    rows = cast(
        Sequence[tuple[int, datetime, int, int, int, str, int]],
        reading.rows(
            f"SELECT its_commit, {subject.schema.time}, request_number, line_number, arm_number, "
            f"file_name, place {matching} "
            f"ORDER BY its_commit {order}, request_number {order}, line_number {order} "
            f"LIMIT {limit:d}",
            params,
        ),
    )
    return [
        (Position(commit_number, key.request_number, key.line_number), key)
        for commit_number, *rest in rows
        for key in [Key(*rest)]  # type: ignore[arg-type]
    ]


def _count(
    reading: Reading, subject: Subject, query: Query, after: Position, batches: _Batches
) -> int:
    matching, params = _matching(reading, subject, query, after, batches)
    ((count,),) = reading.rows(f"SELECT count(its_commit) {matching}", params)
    return cast(int, count)
