"""Numbers of the store: what was applied, and which number comes next.

`batch_id` names a batch and is taken when its rows start to be inserted; `commit_number` orders
commits and is taken at the commit gate. Cursors of downstream actors walk `commit_number`: a batch
that started early and committed late is never behind them. They name numbers of commits that were
made only: one that was taken by a COMMIT that failed is given again after a start.

The truth is the `applied` table of every part; this is its summary in memory, rebuilt at start.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

from msgspec import Struct

from .control.sealed_files import SealedPart
from .database import Cursor

__all__ = [
    "BULK_AGAIN",
    "IS_AGAIN",
    "SMALL_AGAIN",
    "AppliedBatch",
    "Ledger",
    "is_sealed",
    "marks_of",
    "maybe_commit_number",
    "read_ledger",
    "write_applied",
]


# Lanes of rows that were lost and came back, and that rules and alerts had looked at before:
# nobody is told of them again.
SMALL_AGAIN = "small_again"
BULK_AGAIN = "bulk_again"
IS_AGAIN = f"lane IN ('{SMALL_AGAIN}', '{BULK_AGAIN}')"


class AppliedBatch(Struct, frozen=True):
    """One row of `applied`. Sequences are 0 for batches that had no journal record.

    Two lanes are no batches: `carry` is a mark, `wide` says that the part has wide rows; it has
    number 0.
    """

    batch_id: int
    lane: str
    first_seq: int
    last_seq: int
    row_count: int
    request_number_max: int


class Ledger:
    """The next numbers; safe from several threads. One object for the life of the store: two of
    them would hand out the same numbers.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.batch_id = 0
        # Of the last commit that was made.
        self.commit_number = 0
        # The last one that was given, perhaps in vain.
        self.taken_number = 0
        self.applied_seq = 0
        self.request_number_max = 0

    def take_batch_id(self) -> int:
        with self._lock:
            self.batch_id += 1
            return self.batch_id

    def take_commit_numbers(self, count: int) -> int:
        """The first of so many. A number is never used for two commits that may both be there."""
        with self._lock:
            first = self.taken_number + 1
            self.taken_number += count
            return first

    def carry(self) -> AppliedBatch:
        """The row with which a new part starts, so that it alone tells the high water marks."""
        return AppliedBatch(
            self.batch_id, "carry", self.applied_seq, self.applied_seq, 0, self.request_number_max
        )

    def rise(self, marks: Ledger) -> None:
        """Take over what another one knows. Numbers handed out and not committed stay used."""
        with self._lock:
            self.batch_id = max(self.batch_id, marks.batch_id)
            self.commit_number = max(self.commit_number, marks.commit_number)
            self.taken_number = max(self.taken_number, marks.commit_number)
            self.applied_seq = max(self.applied_seq, marks.applied_seq)
            self.request_number_max = max(self.request_number_max, marks.request_number_max)

    def leap(self, count: int) -> None:
        """Pass over numbers that may have been given by what is lost."""
        with self._lock:
            self.batch_id += count
            self.taken_number += count
            self.commit_number = self.taken_number

    def applied(self, batches: Iterable[AppliedBatch], last_number: int) -> None:
        """Take note of a commit. Called with the commit gate held."""
        self.commit_number = max(self.commit_number, last_number)
        for batch in batches:
            self.applied_seq = max(self.applied_seq, batch.last_seq)
            self.request_number_max = max(self.request_number_max, batch.request_number_max)


def marks_of(parts: Iterable[SealedPart]) -> Ledger:
    """What sealed parts knew, should no open one carry it forward any more."""
    ledger = Ledger()
    for part in parts:
        ledger.batch_id = max(ledger.batch_id, part.batch_high)
        ledger.commit_number = max(ledger.commit_number, part.commit_high)
        ledger.applied_seq = max(ledger.applied_seq, part.seq_high)
        ledger.request_number_max = max(ledger.request_number_max, part.request_high)
    return ledger


def read_ledger(cursor: Cursor, parts: Iterable[str]) -> Ledger:
    """Read the marks of all parts that are not sealed (at least the newest)."""
    ledger = Ledger()
    for part in parts:
        # All of the result: with one row fetched its transaction would stay open, on the cursor
        # that lives as long as the instance, and every checkpoint would have to keep old versions.
        ((*row,),) = cursor.execute(
            "SELECT max(batch_id), max(commit_number), max(last_seq), max(request_number_max) "
            f"FROM {part}.applied"
        ).fetchall()
        if row[0] is None:
            continue
        ledger.batch_id = max(ledger.batch_id, row[0])
        ledger.commit_number = max(ledger.commit_number, row[1])
        ledger.applied_seq = max(ledger.applied_seq, row[2])
        ledger.request_number_max = max(ledger.request_number_max, row[3])
    return ledger


def write_applied(
    cursor: Cursor, part: str, batches: Iterable[AppliedBatch], first_commit_number: int
) -> None:
    """Insert one `applied` row a batch, in the transaction that holds their rows.

    A large upload has hundreds of batches and this runs behind the commit gate: one statement.
    """
    rows = ", ".join(
        f"({b.batch_id}, {commit_number}, '{b.lane}', {b.first_seq}, {b.last_seq}, "
        f"{b.row_count}, {b.request_number_max}, now() AT TIME ZONE 'UTC')"
        for commit_number, b in enumerate(batches, first_commit_number)
    )
    cursor.execute(f"INSERT INTO {part}.applied VALUES {rows}")


def maybe_commit_number(cursor: Cursor, part: str, batch_id: int) -> int | None:
    """Of a batch that is there. A mark is no batch: it only names the newest number taken."""
    ((number,),) = cursor.execute(
        f"SELECT max(commit_number) FROM {part}.applied WHERE batch_id = ? AND lane <> 'carry'",
        [batch_id],
    ).fetchall()
    return None if number is None else int(number)


def is_sealed(cursor: Cursor, part: str, told: SealedPart) -> bool:
    """Whether an attached part has nothing that was not sealed; a WAL of it may be gone."""
    ((low, high, row_count),) = cursor.execute(
        "SELECT min(commit_number), max(commit_number), coalesce(sum(row_count), 0) "
        f"FROM {part}.applied WHERE lane NOT IN ('carry', 'wide')"
    ).fetchall()
    if low is None:
        return True
    is_within = told.commit_low <= low and high <= told.commit_high
    return is_within and int(row_count) <= told.row_count
