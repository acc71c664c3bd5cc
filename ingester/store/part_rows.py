"""The rows of a part that is sealed, by chunks: ranges of its tables, row groups of its files.

A chunk tells which times and days it has before it is read, so that one can decide how rows are
sorted: chunks that came nearly in order are merged as they are, others need runs (`sorting.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
from msgspec import Struct

from ..errors import StoreError
from .damage import UNREADABLE
from .parts import Part
from .relations import spans_of_group
from .sealed_format import SealedTable, conformed
from .store import Store
from .upload_files import table_of

__all__ = ["Chunk", "PartRows", "overlap_rows"]

# Rows at a time: a row group of a part. So many neighbours as are fetched at once are what the
# store itself must hold (`pinned.py`).
_CHUNK_ROWS = 16_384
_FETCH_ROWS = 2_048
_DAY_US = 86_400 * 10**6
_MICROSECOND = timedelta(microseconds=1)


class Chunk(Struct, frozen=True, kw_only=True):
    """Rows `first` up to before `end` of a table, or those of row group `first` of `file`. Times in
    microseconds, days since 1970; ends included.
    """

    first: int
    end: int
    row_count: int
    low: int
    high: int
    first_day: int
    last_day: int
    file: str = ""


def overlap_rows(chunks: Sequence[Chunk]) -> int:
    """How many rows lie in chunks that have one time in common, at most."""
    # At one time those that begin come first: ends are included.
    begins = [(chunk.low, 0, chunk.row_count) for chunk in chunks]
    ends = [(chunk.high, 1, -chunk.row_count) for chunk in chunks]
    most = now = 0
    for _, _, rows in sorted(begins + ends):
        now += rows
        most = max(most, now)
    return most


class PartRows:
    """One part. Blocking; a cursor is used for one chunk at a time and no longer."""

    def __init__(self, store: Store, part: Part) -> None:
        self._store = store
        self._part = part
        # A part with wide rows has 32 MiB and more in so many neighbours.
        self._chunk_rows = _FETCH_ROWS if part.is_wide else _CHUNK_ROWS

    def chunks(self, table: SealedTable) -> list[Chunk]:
        """All of them. Raises StoreError for an upload file without statistics."""
        at, arrival, size = table.time_column, table.arrival_column, self._chunk_rows
        with self._store.database.lease() as lease, lease.using() as cursor:
            rows = cursor.execute(
                f"SELECT rowid // {size} AS n, count(*), epoch_us(min({at})), epoch_us(max({at})), "
                f"epoch_us(min({arrival})), epoch_us(max({arrival})) "
                f"FROM {self._part.name}.{table.name} GROUP BY n ORDER BY n"
            ).fetchall()
        found = [
            Chunk(
                first=n * size,
                end=n * size + count,
                row_count=count,
                low=low,
                high=high,
                first_day=first // _DAY_US,
                last_day=last // _DAY_US,
            )
            for n, count, low, high, first, last in rows
        ]
        for name in self._part.upload_files:
            if table_of(name) == table.name:
                found += self._groups(name, table)
        return found

    def _groups(self, name: str, table: SealedTable) -> list[Chunk]:
        metadata = pq.read_metadata(self._store.uploads_directory / name)
        found: list[Chunk] = []
        for group in range(metadata.num_row_groups):
            spans = spans_of_group(metadata.row_group(group))
            ends = [
                _microseconds(moment)
                for column in (table.time_column, table.arrival_column)
                for moment in ((spans[column].low, spans[column].high) if column in spans else ())
            ]
            if len(ends) != 4:
                raise StoreError(f"{name}: the upload file has no statistics of its times")
            found.append(
                Chunk(
                    first=group,
                    end=group + 1,
                    row_count=metadata.row_group(group).num_rows,
                    low=ends[0],
                    high=ends[1],
                    first_day=ends[2] // _DAY_US,
                    last_day=ends[3] // _DAY_US,
                    file=name,
                )
            )
        return found

    def read(self, chunk: Chunk, table: SealedTable) -> pa.Table:
        if chunk.file:
            path = self._store.uploads_directory / chunk.file
            try:
                with pq.ParquetFile(path, page_checksum_verification=True) as file:
                    return conformed(file.read_row_group(chunk.first, use_threads=False), table)
            except UNREADABLE as error:
                if getattr(error, "errno", None) is not None:  # the disk's trouble, not the file's
                    raise
                raise StoreError(f"{chunk.file}: the upload file is damaged: {error}") from error
        names = ", ".join(f"t.{name}" for name in table.schema.names)
        source = f"{self._part.name}.{table.name} t"
        if table.name == "rejects":
            # Which key they came with: the request lies in the same part.
            names = names.replace("t.credential", "q.credential")
            source += (
                f" LEFT JOIN {self._part.name}.requests q ON q.request_number = t.request_number"
            )
        with self._store.database.lease() as lease, lease.using() as cursor:
            # The bounds are constants: only the row groups between them are read.
            reader = cursor.execute(
                f"SELECT {names} FROM {source} "
                f"WHERE t.rowid >= {chunk.first} AND t.rowid < {chunk.end}"
            ).to_arrow_reader(_FETCH_ROWS)
            try:
                batches = list(reader)
            finally:
                reader.close()
        rows = conformed(pa.Table.from_batches(batches), table)
        if rows.num_rows != chunk.row_count:
            raise StoreError(f"{table.name} of {self._part.name} changed while it was sealed")
        return rows


def _microseconds(moment: object) -> int:
    assert isinstance(moment, datetime)
    return (moment - datetime(1970, 1, 1)) // _MICROSECOND
