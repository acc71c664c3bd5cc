"""Which batches wait for a step, and their rows: what rollups read of the ledger and the parts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from msgspec import Struct

from .database import Cursor
from .relations import Snapshot, relation
from .rollup_schema import RollupTable

__all__ = ["Batch", "ledger_batches", "pieces", "rows_of_batches", "stored_batches"]


class Batch(Struct, frozen=True):
    """One row of the ledger. A mark is no batch, but its number is not given again either."""

    batch_id: int
    commit_number: int
    row_count: int
    committed_at: datetime
    is_mark: bool


def rows_of_batches(
    snapshot: Snapshot, table: str, columns: Sequence[str], ids: Sequence[int]
) -> str:
    """The rows of some batches as a relation in parentheses."""
    low, high = min(ids), max(ids)
    files = snapshot.files_within(table, "batch_id", low, high)
    rows = relation(snapshot, table, (*columns, "batch_id"), files)
    condition = f"batch_id >= {low} AND batch_id <= {high}"
    if high - low + 1 > len(ids):
        condition += f" AND batch_id IN ({', '.join(map(str, ids))})"
    return f"(SELECT * FROM ({rows}) WHERE {condition})"


def ledger_batches(cursor: Cursor, parts: Sequence[str], after: int, up_to: int) -> list[Batch]:
    """Of the ledger, in the order of commits: those behind `after`, up to `up_to`."""
    union = " UNION ALL ".join(
        "SELECT batch_id, commit_number, row_count, committed_at, lane = 'carry' AS is_mark "
        f"FROM {part}.applied WHERE lane <> 'wide' AND commit_number > {after} "
        f"AND commit_number <= {up_to}"
        for part in parts
    )
    # A mark has the number of the batch before it: it must not be passed without that one.
    rows = cursor.execute(f"SELECT * FROM ({union}) ORDER BY commit_number, is_mark").fetchall()
    return [Batch(*row) for row in rows]


def stored_batches(
    cursor: Cursor, snapshot: Snapshot, left_out: Sequence[int], *, rows_max: int
) -> Iterator[dict[int, int]]:
    """All batches that have rows, with their counts, in portions of a step. Not of the ledger: that
    of sealed parts is gone.
    """
    union = " UNION ALL ".join(
        "SELECT batch_id FROM ("
        f"{relation(snapshot, table, ('batch_id',), snapshot.files_of(table))})"
        for table in ("events", "logs", "metrics")
    )
    found = cursor.execute(
        f"SELECT batch_id, count(batch_id) FROM ({union}) GROUP BY batch_id ORDER BY batch_id"
    ).fetchall()
    portion: dict[int, int] = {}
    excluded = set(left_out)
    for batch_id, count in found:
        if batch_id in excluded:
            continue
        if portion and sum(portion.values()) + count > rows_max:
            yield portion
            portion = {}
        portion[batch_id] = count
    if portion:
        yield portion


def pieces(
    cursor: Cursor, name: str, about: RollupTable, count: int, *, rows_max: int
) -> Iterator[str]:
    """Conditions that part a table into pieces whose sums do not touch each other."""
    piece_count = -(-count // rows_max)
    if piece_count > 1 and about.spread:
        for number in range(piece_count):
            yield f"hash({about.spread}) % {piece_count} = {number}"
        return
    if piece_count <= 1 or not about.order.startswith("bucket"):
        yield "true"
        return
    rows = cursor.execute(
        f"SELECT bucket::VARCHAR, count(*) FROM {name} GROUP BY bucket ORDER BY bucket"
    ).fetchall()
    low, held = None, 0
    for bucket, bucket_count in rows:
        if held and held + bucket_count > rows_max:
            yield between(low, bucket)
            low, held = bucket, 0
        held += bucket_count
    yield between(low, None)


def between(low: str | None, end: str | None) -> str:
    conditions = [
        *([f"bucket >= TIMESTAMP '{low}'"] if low is not None else []),
        *([f"bucket < TIMESTAMP '{end}'"] if end is not None else []),
    ]
    return " AND ".join(conditions) or "true"
