"""What DuckDB must hold in memory at once: the strings of 2,048 rows.

Why it exists: a COMMIT and a CHECKPOINT pin the strings of one vector of a table at a time,
whatever else could be spilled. When they are more than `memory_bytes_max` a commit fails, and rows
that came with several commits, which only a checkpoint can take out of memory, make every commit
and checkpoint fail from the next start on, for good. Measured, DuckDB 1.5.6:

- memory 64 MiB, one upload: 62 lines of 1 MiB pass and 70 do not; 20 of them in every 2,048 of
  30,000 rows pass; 1,200 lines of 40 kB pass and 1,600 do not;
- memory 256 MiB: 300 requests of 1 MiB in three commits, then a kill: the start replays them, and
  neither commits nor checkpoints any more. 1,000 with checkpoints in between are no trouble.

So the widest 2,048 rows in a row are counted, by transaction and by part, where rows of several
transactions become neighbours: those in no checkpoint yet, for the sake of the next one, and all of
them, because a checkpoint also merges small row groups and then holds what was stored long ago. (It
must merge: one every minute without costs 1.1 GB a day, whatever comes.)
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

__all__ = ["PINNED_ROWS", "PinnedRows", "TailRows"]

# DuckDB's STANDARD_VECTOR_SIZE.
PINNED_ROWS = 2048


class PinnedRows:
    """Rows of one table in one transaction: `widest_bytes` of any `PINNED_ROWS` in a row, and
    `tail_bytes` of the last ones.
    """

    def __init__(self) -> None:
        self.row_count = 0
        self.widest_bytes = 0
        self._last = np.zeros(0, np.int64)

    @property
    def tail_bytes(self) -> int:
        return int(self._last.sum())

    def add(self, lengths: np.ndarray[Any, Any]) -> None:
        """Count the strings of the rows that come next."""
        self.row_count += len(lengths)
        known = np.concatenate([self._last, lengths])
        sums = np.concatenate([np.zeros(1, np.int64), np.cumsum(known, dtype=np.int64)])
        firsts = sums[: max(1, len(sums) - PINNED_ROWS)]
        widest = int((sums[len(sums) - len(firsts) :] - firsts).max())
        self.widest_bytes = max(self.widest_bytes, widest)
        self._last = known[-PINNED_ROWS:]


class TailRows:
    """The last `PINNED_ROWS` rows of a table, or a few more: by commit, how many and how wide."""

    def __init__(self, byte_count: int = 0) -> None:
        """`byte_count`: what is known of rows that are there already."""
        self.byte_count = byte_count
        self._row_count = 1 if byte_count else 0
        self._commits = deque([(self._row_count, byte_count)] if byte_count else ())

    def widest_with(self, rows: PinnedRows) -> int:
        """At most so many bytes are in `PINNED_ROWS` neighbours when `rows` follow."""
        return self.byte_count + rows.widest_bytes

    def add(self, rows: PinnedRows) -> None:
        """`rows` were committed."""
        self._commits.append((rows.row_count, rows.tail_bytes))
        self._row_count += rows.row_count
        self.byte_count += rows.tail_bytes
        while self._row_count - self._commits[0][0] >= PINNED_ROWS:
            row_count, byte_count = self._commits.popleft()
            self._row_count -= row_count
            self.byte_count -= byte_count
