"""Committed batches behind a cursor, as columns, and single rows of them as they were sent.

A cursor is the number of a commit that was made; what is committed later has a higher one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import pyarrow as pa
from msgspec import Struct

from ..delivery.incident import RuleEvent
from ..search.reading import Reading
from ..search.subjects import Subject
from ..store.ledger import IS_AGAIN
from ..store.relations import relation

__all__ = ["BatchGroup", "evaluated_before", "groups_behind", "read_events", "read_group"]

# Rows looked at together. A batch has 16 MiB of texts at most, so a group has four times that.
_GROUP_ROWS = 65_536
_GROUP_BATCHES = 4
_BATCHES_MAX = 1_000
# A payload beyond it is represented by its columns alone.
_BODY_BYTES_MAX = 1024 * 1024
_MESSAGE_CHARACTERS_MAX = 64 * 1024
# Rows that were evaluated, lost, and came back: their batches are passed.
_NEW_ROWS = f"CASE WHEN {IS_AGAIN} THEN 0 ELSE row_count END AS row_count"


class BatchGroup(Struct, frozen=True):
    """Neighbouring batches with rows, and the commit number behind them; the newest journal record
    among them (0: none), and when the last commit began.
    """

    batch_ids: tuple[int, ...]
    commit_number: int
    seq: int
    began_ms: int


def groups_behind(reading: Reading, cursor: int) -> Iterator[BatchGroup]:
    """What was committed behind `cursor`, in the order of commits."""
    union = " UNION ALL ".join(
        f"SELECT batch_id, commit_number, {_NEW_ROWS}, last_seq, "
        f"epoch_ms(committed_at) AS began_ms FROM {part}.applied "
        "WHERE lane NOT IN ('carry', 'wide')"
        for part in reading.snapshot.parts
    )
    found = reading.rows(
        f"SELECT batch_id, commit_number, row_count, last_seq, began_ms FROM ({union}) "
        "WHERE commit_number > ? AND commit_number <= ? "
        f"ORDER BY commit_number LIMIT {_BATCHES_MAX}",
        [cursor, reading.snapshot.commit_number],
    )
    ids: list[int] = []
    rows = last = seq = began_ms = 0
    for batch_id, commit_number, row_count, last_seq, began in cast(
        list[tuple[int, int, int, int, int]], found
    ):
        if ids and (rows + row_count > _GROUP_ROWS or len(ids) >= _GROUP_BATCHES):
            yield BatchGroup(tuple(ids), last, seq, began_ms)
            ids, rows = [], 0
        if row_count:
            ids.append(batch_id)
            rows += row_count
        last, seq, began_ms = commit_number, max(seq, last_seq), began
    if last:
        yield BatchGroup(tuple(ids), last, seq, began_ms)


def evaluated_before(reading: Reading, cursor: int) -> tuple[int, int]:
    """The newest journal record of commits up to `cursor`, and when the last of them began."""
    union = " UNION ALL ".join(
        f"SELECT last_seq, epoch_ms(committed_at) AS began_ms FROM {part}.applied "
        f"WHERE commit_number <= {cursor}"
        for part in reading.snapshot.parts
    )
    ((seq, began_ms),) = reading.rows(f"SELECT max(last_seq), max(began_ms) FROM ({union})", [])
    return cast(int | None, seq) or 0, cast(int | None, began_ms) or 0


def read_group(
    reading: Reading, subject: Subject, group: BatchGroup, columns: Sequence[str]
) -> pa.Table:
    """`request_number`, `line_number` and `columns` of the rows; a payload as text."""
    selects = [
        f"{name}::VARCHAR AS {name}" if name == subject.payload else name for name in columns
    ]
    rows, params = _rows(reading, subject, group)
    return reading.arrow(
        f"SELECT {', '.join(['request_number', 'line_number', *selects])} FROM {rows}", params
    )


def read_events(
    reading: Reading, subject: Subject, group: BatchGroup, keys: Sequence[tuple[int, int]]
) -> dict[tuple[int, int], tuple[RuleEvent, str]]:
    """The rows of these request and line numbers as they were sent, and what fed each: service and
    environment with a slash between, or the source.
    """
    if not keys:
        return {}
    is_log = subject.table == "logs"
    texts = (
        f"left(message, {_MESSAGE_CHARACTERS_MAX}), level, service, environment"
        if is_log
        else "action, NULL, source, NULL"
    )
    named = (
        "JOIN (SELECT unnest(?::BIGINT[]) AS its_number, unnest(?::BIGINT[]) AS its_line) "
        "ON request_number = its_number AND line_number = its_line"
    )
    rows, params = _rows(reading, subject, group, named)
    found = reading.rows(
        f"SELECT request_number, line_number, epoch_ms({subject.schema.time}), {texts}, "
        f"CASE WHEN strlen({subject.payload}::VARCHAR) <= {_BODY_BYTES_MAX} "
        f"THEN {subject.payload}::VARCHAR ELSE '{{}}' END FROM {rows}",
        [[number for number, _ in keys], [line for _, line in keys], *params],
    )
    events = {}
    for number, line, time_ms, message, level, service, environment, body in found:
        event = RuleEvent(
            body=cast(str, body or "{}").encode(),
            event_message=cast(str, message or ""),
            timestamp_ms=cast(int, time_ms or 0),
            level=cast(str | None, level),
            service=cast(str | None, service) if is_log else None,
            environment=cast(str | None, environment),
        )
        fed = f"{environment or ''}/{service or ''}" if is_log else f"{service or ''}"
        events[cast(int, number), cast(int, line)] = event, fed
    return events


def _rows(
    reading: Reading, subject: Subject, group: BatchGroup, join: str = ""
) -> tuple[str, list[object]]:
    """Behind FROM; the parameters are those of the condition."""
    low, high = min(group.batch_ids), max(group.batch_ids)
    files = reading.snapshot.files_within(subject.table, "batch_id", low, high)
    rows = relation(reading.snapshot, subject.table, subject.columns, files)
    sql = f"({rows}) AS {subject.schema.relation} {join} WHERE batch_id >= ? AND batch_id <= ?"
    if high - low + 1 == len(group.batch_ids):
        return sql, [low, high]
    return f"{sql} AND list_contains(?::BIGINT[], batch_id)", [low, high, [*group.batch_ids]]
