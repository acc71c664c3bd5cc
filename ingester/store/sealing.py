"""Sealing: a part that nothing is written to any more becomes Parquet, a file a table and day.

1. Its rows and those of the upload files that it lists are read a chunk at a time (`part_rows.py`),
   sorted (`sorting.py`), written under temporary names, synced, renamed, and the folders synced.
   Then one transaction of the manifest puts the files in and the part out; readers find the one
   or the other (`Store.publish_sealed`).
2. The day is that of arrival: a late row lands in its arrival's file, and the manifest tells which
   event times a file has, so that searches find it.
3. Nothing is sealed that is not whole: rows must be as many as the ledger says, and every upload
   file readable, page for page as its checksums say. Such a part stays as it is, and `check` tells
   why.
4. Files of one table and day are joined while they are small (`joinable`). A damaged one is left
   as it is: its rows, joined with others, would have new checksums over what they are now.
5. Between two pieces of a tenth of a second or so it `pause`s, which may take its time or end it.
   No lock and no cursor is held meanwhile.
6. A crash harms nothing: before the manifest changed the files are orphans, behind it the part is
   (`sealed.py`).

What lives in parts beside rows: requests with a key and ids of repeats are sealed too and read back
at a start; so is the ledger, whose marks the next part carries forward; the list of upload files
ends with them.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import StoreBusy, StoreError, StoreFailed
from .control.sealed_files import SealedFile, SealedPart
from .part_rows import Chunk, PartRows, overlap_rows
from .parts import Part
from .schema import DATA_TABLES
from .sealed import TEMPORARY_SUFFIX, sealed_name
from .sealed_format import SEALED_TABLES, SealedTable, conformed, write_sealed
from .sorting import RUN_BYTES, RowSorter, merged, time_values
from .store import Store
from .syncing import sync_path

__all__ = ["JOINED_BYTES_MAX", "PartNotWhole", "Sealer", "joinable"]

_DAY_US = 86_400 * 10**6

# So many rows are held while chunks are merged as they lie; 34 MB of events.
_OVERLAP_ROWS_MAX = 100_000
# A chunk is read once for each of its days; after a jump of the clock these may be thousands.
_CHUNK_DAYS_MAX = 2
# A larger file is not joined any more; some 700,000 events.
JOINED_BYTES_MAX = 64 * 1024 * 1024
_JOINED_FILES_MAX = 8
_JOINED_FILES_MIN = 4


class PartNotWhole(StoreError):
    """Rows are missing, damaged, or more than the ledger says: it stays as it is."""


class _Damaged(StoreError):
    """A sealed file that is not as it was written."""

    def __init__(self, name: str, error: Exception) -> None:
        super().__init__(f"{name}: the sealed file is damaged: {error}")
        self.name = name


# What reading rows comes to that are not what was written.
_DAMAGES = (StoreError, pa.ArrowException, OSError, ValueError)


def _go_on(_: str) -> None:
    pass


# For tests: called at the named points of a sealing.
reached: Callable[[str], None] = _go_on


def joinable(files: Sequence[SealedFile], today: str) -> list[SealedFile]:
    """Small files of one table and day that are worth joining now; [] when none are."""
    groups: dict[tuple[str, str], list[SealedFile]] = {}
    for file in files:
        if file.byte_count < JOINED_BYTES_MAX:
            groups.setdefault((file.table, file.day), []).append(file)
    for (_, day), group in sorted(groups.items()):
        count_min = 2 if day < today else _JOINED_FILES_MIN
        if len(group) >= count_min:
            group.sort(key=lambda file: (file.byte_count, file.name))
            return group[:_JOINED_FILES_MAX]
    return []


class Sealer:
    """Seals and joins, one thing at a time; every method blocks. `pause` raises to end it."""

    def __init__(self, store: Store, *, pause: Callable[[], None] = lambda: None) -> None:
        self._store = store
        self._pause = pause
        self._sealed = store.sealed
        self._temporary = store.sealed.directory / TEMPORARY_SUFFIX
        # Numbers of parts that are not whole, and names of files that are damaged.
        self.stuck: set[int] = set()
        self.damaged: set[str] = set()
        for path in self._temporary.glob("*.runs"):  # a crash has left them
            path.unlink(missing_ok=True)

    def next_part(self) -> Part | None:
        """The oldest part that can be sealed now."""
        for part in self._store.parts_to_seal():
            if part.number in self.stuck:
                continue
            with self._store.database.lease() as lease, lease.using() as cursor:
                ((last,),) = cursor.execute(
                    f"SELECT coalesce(max(commit_number), 0) FROM {part.name}.applied"
                ).fetchall()
            if not self._store.cursors.have_passed(last):
                return None  # those behind it wait for the same reader
            return part
        return None

    def seal(self, part: Part) -> int:
        """How many rows. Raises PartNotWhole and StoreBusy (nothing was changed), StoreBroken,
        StoreFailed.
        """
        with self._held_back(part):
            return self._seal(part)

    def _seal(self, part: Part) -> int:
        if part.unreadable_files:
            raise StoreError(f"{part.unreadable_files[0]}: the upload file is missing or damaged")
        told = self._read_ledger(part)
        added: list[SealedFile] = []
        with self._undone(added):
            counts = {
                name: self._seal_table(part, table, added) for name, table in SEALED_TABLES.items()
            }
            stored = sum(counts[name] for name in DATA_TABLES)
            if stored != told.row_count:
                raise StoreError(f"it has {stored} rows, its ledger says {told.row_count}")
            self._rename(added)
            self._store.publish_sealed(
                added=added,
                part=told,
                paths=[f"uploads/{name}" for name in part.upload_files],
            )
        reached("after the manifest")
        return sum(counts.values())

    def join(self, files: Sequence[SealedFile]) -> SealedFile:
        """One file instead of several of a table and day; as `seal`."""
        with self._set_aside(files):
            return self._join(files)

    def _join(self, files: Sequence[SealedFile]) -> SealedFile:
        first = files[0]
        table = SEALED_TABLES[first.table]
        added: list[SealedFile] = []
        with ExitStack() as stack, self._undone(added):
            sources = []
            for file in files:
                path = self._sealed.path(file)
                with _damage_named(file.name):
                    opened = pq.ParquetFile(path, page_checksum_verification=True)
                sources.append(_SealedRows(stack.enter_context(opened), table, file.name))
                self._pause()
            parts = [number for file in files for number in (file.first_part, file.last_part)]
            pieces = self._paused(merged(sources, table.time_column))
            self._write(table, first.day, (min(parts), max(parts)), pieces, added)
            (joined,) = added
            expected = sum(file.row_count for file in files)
            if joined.row_count != expected:
                raise StoreError(f"{joined.name}: {joined.row_count} rows, not {expected}")
            self._rename(added)
            self._store.publish_sealed(added=added, dropped=files)
        reached("after the manifest")
        return joined

    def _read_ledger(self, part: Part) -> SealedPart:
        with self._store.database.lease() as lease, lease.using() as cursor:
            ((*row,),) = cursor.execute(
                "SELECT coalesce(min(commit_number) FILTER (lane NOT IN ('carry', 'wide')), 0), "
                "max(commit_number), "
                "coalesce(sum(row_count) FILTER (lane NOT IN ('carry', 'wide')), 0)::BIGINT, "
                "max(batch_id), max(last_seq), max(request_number_max) "
                f"FROM {part.name}.applied"
            ).fetchall()
        return SealedPart(
            part_number=part.number,
            commit_low=row[0],
            commit_high=row[1],
            row_count=row[2],
            batch_high=row[3],
            seq_high=row[4],
            request_high=row[5],
            sealed_at=time.time(),
        )

    @contextmanager
    def _held_back(self, part: Part) -> Iterator[None]:
        """What is wrong with a part, and no trouble of the moment, must not hold up the others."""
        try:
            yield
        except (StoreBusy, StoreFailed):
            raise
        except _DAMAGES as error:
            if _is_of_the_disk(error):
                raise StoreBusy(f"{part.path.name} cannot be sealed: {error}") from error
            self.stuck.add(part.number)
            raise PartNotWhole(f"{part.path.name}: {error}") from error

    @contextmanager
    def _set_aside(self, files: Sequence[SealedFile]) -> Iterator[None]:
        """The same of files that are joined."""
        try:
            yield
        except (StoreBusy, StoreFailed):
            raise
        except _DAMAGES as error:
            if _is_of_the_disk(error):
                raise StoreBusy(f"sealed files cannot be joined: {error}") from error
            names = {file.name for file in files}
            self.damaged |= {error.name} if isinstance(error, _Damaged) else names
            raise PartNotWhole(str(error)) from error

    def _seal_table(self, part: Part, table: SealedTable, added: list[SealedFile]) -> int:
        """Write the rows of one table; how many."""
        rows = PartRows(self._store, part)
        chunks = rows.chunks(table)
        before = len(added)
        days = max((chunk.last_day - chunk.first_day for chunk in chunks), default=0)
        if part.is_wide or days > _CHUNK_DAYS_MAX or overlap_rows(chunks) > _OVERLAP_ROWS_MAX:
            self._seal_by_runs(part, rows, chunks, table, added)
        else:
            for day in sorted({day for c in chunks for day in range(c.first_day, c.last_day + 1)}):
                those = [c for c in chunks if c.first_day <= day <= c.last_day]
                sources = [_ChunkRows(rows, chunk, table, day) for chunk in those]
                pieces = self._paused(merged(sources, table.time_column))
                self._write(table, day, part.number, pieces, added)
        written = sum(file.row_count for file in added[before:])
        expected = sum(chunk.row_count for chunk in chunks)
        if written != expected:
            raise StoreError(f"{table.name} of {part.name}: {written} rows, not {expected}")
        return written

    def _seal_by_runs(
        self,
        part: Part,
        rows: PartRows,
        chunks: Sequence[Chunk],
        table: SealedTable,
        added: list[SealedFile],
    ) -> None:
        """Of rows in no order: sorted pieces are written first, and merged then."""
        self._temporary.mkdir(mode=0o700, parents=True, exist_ok=True)
        sorters: dict[int, RowSorter] = {}
        with ExitStack() as stack, _busy_errors():
            for chunk in chunks:
                for day, those in _by_day(rows.read(chunk, table), table.arrival_column):
                    if day not in sorters:
                        path = self._temporary / f"{table.name}-{day}.runs"
                        sorters[day] = RowSorter(table.time_column, path)
                        stack.callback(sorters[day].close)
                    sorters[day].add(those)
                while sum(sorter.held_bytes for sorter in sorters.values()) > RUN_BYTES:
                    max(sorters.values(), key=lambda sorter: sorter.held_bytes).spill()
                self._pause()
            for day in sorted(sorters):
                self._write(table, day, part.number, self._paused(sorters[day].rows()), added)
                sorters[day].close()

    def _paused(self, pieces: Iterable[pa.Table]) -> Iterator[pa.Table]:
        for piece in pieces:
            yield piece
            self._pause()

    def _write(
        self,
        table: SealedTable,
        day: int | str,
        parts: int | tuple[int, int],
        pieces: Iterable[pa.Table],
        added: list[SealedFile],
    ) -> None:
        """One file under its temporary name, durable; it joins `added`. None without rows."""
        rest = iter(pieces)
        with _busy_errors():
            first_piece = next(rest, None)
        if first_piece is None:
            return
        if isinstance(day, int):
            day = datetime.fromtimestamp(day * 86_400, UTC).date().isoformat()
        first_part, last_part = parts if isinstance(parts, tuple) else (parts, parts)
        name = sealed_name(table.name, day, first_part, last_part, time.time_ns())
        path = self._sealed.directory / (name + TEMPORARY_SUFFIX)
        with _busy_errors():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
            try:
                told = write_sealed(descriptor, path, table, chain([first_piece], rest))
            except BaseException:
                path.unlink(missing_ok=True)
                raise
            finally:
                os.close(descriptor)
        added.append(
            SealedFile(
                name=name,
                table=table.name,
                day=day,
                first_part=first_part,
                last_part=last_part,
                sealed_at=time.time(),
                **told,
            )
        )

    def _rename(self, added: Sequence[SealedFile]) -> None:
        reached("before the rename")
        directory = self._sealed.directory
        with _busy_errors():
            for file in added:
                path = self._sealed.path(file)
                path.with_name(path.name + TEMPORARY_SUFFIX).rename(path)
            days = {self._sealed.path(file).parent for file in added}
            for folder in (*days, *{day.parent for day in days}, directory, directory.parent):
                sync_path(folder)
        reached("before the manifest")

    @contextmanager
    def _undone(self, added: Sequence[SealedFile]) -> Iterator[None]:
        """Remove what was written, unless the manifest has it, or may have it at the next start:
        that would let go of the part, too, and the rows were nowhere.
        """
        try:
            yield
        except BaseException:
            for file in added:
                path = self._sealed.path(file)
                path.with_name(path.name + TEMPORARY_SUFFIX).unlink(missing_ok=True)
            with suppress(StoreError):  # then they are orphans, and the next start looks
                self._sealed.manifest.settle()
                listed = {file.name for file in self._sealed.manifest.read_manifest().files}
                for file in added:
                    if file.name not in listed:
                        self._sealed.path(file).unlink(missing_ok=True)
            raise


class _ChunkRows:
    """The rows of one day of a chunk, to be merged with others."""

    def __init__(self, rows: PartRows, chunk: Chunk, table: SealedTable, day: int) -> None:
        self._rows, self._chunk, self._table, self._day = rows, chunk, table, day
        self.lows = [chunk.low]

    def read(self, group: int) -> pa.Table:
        rows = self._rows.read(self._chunk, self._table)
        if self._chunk.first_day == self._chunk.last_day:
            return rows
        return dict(_by_day(rows, self._table.arrival_column)).get(self._day, rows.slice(0, 0))


class _SealedRows:
    """A sealed file as sorted rows, to be merged with others."""

    def __init__(self, file: pq.ParquetFile, table: SealedTable, name: str) -> None:
        self._file = file
        self._table = table
        self._name = name
        self.lows = [self._low(group) for group in range(file.num_row_groups)]

    def read(self, group: int) -> pa.Table:
        names = self._table.schema.names
        with _damage_named(self._name):
            rows = self._file.read_row_group(group, columns=names, use_threads=False)
            return conformed(rows, self._table)

    def _low(self, group: int) -> int:
        column = self._table.time_column
        with _damage_named(self._name):
            rows = self._file.read_row_group(group, columns=[column], use_threads=False)
            return int(time_values(rows, column)[0])


def _by_day(rows: pa.Table, arrival: str) -> Iterator[tuple[int, pa.Table]]:
    """By the day they came, as days since 1970."""
    days: np.ndarray[Any, np.dtype[np.int64]] = time_values(rows, arrival) // _DAY_US
    if not len(days):
        return
    if days[0] == days[-1] and bool(np.all(days == days[0])):
        yield int(days[0]), rows
        return
    for day in np.unique(days):
        yield int(day), rows.filter(pa.array(days == day))


@contextmanager
def _busy_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreBusy(f"a sealed file cannot be written: {error.strerror or error}") from error


@contextmanager
def _damage_named(name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException, ValueError) as error:
        if _is_of_the_disk(error):
            raise
        raise _Damaged(name, error) from error


def _is_of_the_disk(error: Exception) -> bool:
    """Its trouble of the moment, not the file's. Arrow's own errors have no number."""
    return isinstance(error, OSError) and error.errno not in (None, errno.ENOENT)
