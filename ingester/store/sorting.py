"""Sorting rows by time in bounded memory: sorted runs in a file, then merged.

Why not DuckDB's ORDER BY: it would take the memory that the store has for what comes in.

1. At most `RUN_BYTES` are held unsorted; a run is that much, sorted, as record batches of
   `_GROUP_BYTES` (LZ4) in one file. A sorter that never has more writes none.
2. Merging holds `RUN_BYTES` and one group of each run. A group is read when its smallest time
   comes first among all that are unread, and rows are given out up to that time: of data that came
   nearly in order few runs are open at once.
3. Rows of one time keep no order among each other.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

__all__ = ["RUN_BYTES", "RowSorter", "SortedRows", "merged", "time_values"]

RUN_BYTES = 16 * 1024 * 1024
# With 10 GB of rows in no order there are 640 runs: 80 MB of groups are held.
_GROUP_BYTES = 128 * 1024


class SortedRows(Protocol):
    """Rows in order of time, by groups. `lows`: the smallest time of each, in microseconds."""

    @property
    def lows(self) -> Sequence[int]: ...

    def read(self, group: int) -> pa.Table: ...


def time_values(rows: pa.Table, column: str) -> np.ndarray[Any, np.dtype[np.int64]]:
    """A column of timestamps as microseconds."""
    values = rows.column(column).combine_chunks()
    if isinstance(values, pa.ChunkedArray):  # of no rows
        return np.zeros(0, np.int64)
    return np.asarray(values.cast(pa.int64()).to_numpy(zero_copy_only=False), np.int64)


def _in_order(rows: pa.Table, column: str) -> tuple[pa.Table, np.ndarray[Any, np.dtype[np.int64]]]:
    times = time_values(rows, column)
    if bool(np.all(times[1:] >= times[:-1])):
        return rows, times
    order = np.argsort(times, kind="stable")
    return rows.take(pa.array(order)), times[order]


def merged(sources: Sequence[SortedRows], column: str) -> Iterator[pa.Table]:
    """All rows of `sources` in order of `column`, a piece at a time."""
    unread = [(source.lows[0], index, 0) for index, source in enumerate(sources) if source.lows]
    heapq.heapify(unread)
    held: list[pa.Table] = []
    new_bytes = 0
    while unread:
        _, index, group = heapq.heappop(unread)
        lows = sources[index].lows
        rows = sources[index].read(group)
        held.append(rows)
        new_bytes += rows.nbytes
        if group + 1 < len(lows):
            heapq.heappush(unread, (lows[group + 1], index, group + 1))
        if unread and new_bytes < RUN_BYTES:
            continue
        rows, times = _in_order(pa.concat_tables(held), column)
        end = rows.num_rows
        if unread:
            # Whatever is unread is not before this time.
            end = int(np.searchsorted(times, unread[0][0], side="right"))
        if end:
            yield rows.slice(0, end)
        # A copy: a slice would keep what was given out.
        held = [rows.take(pa.array(np.arange(end, rows.num_rows)))] if end < rows.num_rows else []
        new_bytes = 0


class _Run:
    """A run in the file of its sorter: neighbouring batches."""

    def __init__(self, sorter: RowSorter, first: int, lows: Sequence[int]) -> None:
        self._sorter = sorter
        self._first = first
        self.lows = lows

    def read(self, group: int) -> pa.Table:
        return self._sorter._read(self._first + group)


class RowSorter:
    """`add` rows of one schema, then `rows` in order of time; `close` it in any case."""

    def __init__(self, column: str, path: Path) -> None:
        self._column = column
        self._path = path
        self._held: list[pa.Table] = []
        self.held_bytes = 0
        self._runs: list[_Run] = []
        self._batch_count = 0
        self._writer: pa.ipc.RecordBatchFileWriter | None = None
        self._reader: pa.ipc.RecordBatchFileReader | None = None

    def add(self, rows: pa.Table) -> None:
        self._held.append(rows)
        self.held_bytes += rows.nbytes

    def spill(self) -> None:
        """Write what is held as a run."""
        if not self._held:
            return
        rows, times = _in_order(pa.concat_tables(self._held), self._column)
        self._held, self.held_bytes = [], 0
        rows = rows.combine_chunks()
        if self._writer is None:
            options = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
            self._writer = pa.ipc.new_file(str(self._path), rows.schema, options=options)
        group_rows = max(1, rows.num_rows * _GROUP_BYTES // max(1, rows.nbytes))
        lows: list[int] = []
        for start in range(0, rows.num_rows, group_rows):
            lows.append(int(times[start]))
            for batch in rows.slice(start, group_rows).to_batches():
                self._writer.write_batch(batch)
        self._runs.append(_Run(self, self._batch_count, lows))
        self._batch_count += len(lows)

    def rows(self) -> Iterator[pa.Table]:
        """Once, after the last `add`."""
        if self._writer is None:
            if self._held:
                rows, _ = _in_order(pa.concat_tables(self._held), self._column)
                self._held, self.held_bytes = [], 0
                yield rows
            return
        self.spill()
        self._writer.close()
        self._writer = None
        self._reader = pa.ipc.open_file(
            pa.OSFile(str(self._path)), options=pa.ipc.IpcReadOptions(use_threads=False)
        )
        yield from merged(self._runs, self._column)

    def close(self) -> None:
        """Remove the file of runs."""
        for opened in (self._writer, self._reader):
            if isinstance(opened, pa.ipc.RecordBatchFileWriter):
                with suppress(OSError, pa.ArrowException):
                    opened.close()
        self._writer = self._reader = None
        self._path.unlink(missing_ok=True)

    def _read(self, batch: int) -> pa.Table:
        assert self._reader is not None
        return pa.Table.from_batches([self._reader.get_batch(batch)])
