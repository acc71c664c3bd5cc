"""Increments: the rows of open parts as Parquet files, for readers that must not open a part.

The query process (`sandbox/`) reads upload and sealed files as they lie and all else here: of each
table of each part the rows behind those exported before, written when a query asks, so that it
sees all that was queryable when it was asked. Files stay for the next query.

1. Tables of a part take inserts only and commits are one at a time behind the gate: the rows that
   a transaction sees are those with `rowid` below their number. So a file is a range of row ids,
   and the ranges of a table follow each other without a gap.
2. One snapshot a part: rows and the list of upload files come from one read transaction.
3. Only what the text of a query names is exported and given to it: a name cannot be written in
   another way than as it is. Rollups are exported by the same means, after the steps that are due
   were done: of each generation the rows behind those exported before.
4. A file joins its older neighbour while that one is less than twice as large, up to
   `_FILE_ROWS_MAX`: their number grows with the logarithm of the queries, and a row is written
   again as rarely.
5. A file that a reader holds (`Holding`) is not removed; one that was replaced goes with its last
   reader. Nothing of a key or a credential is written.
6. At a clean close the files are synced and listed in `index.json`; the next opening takes them
   over and removes the list. Without a list, all files go: after a crash nobody knows how whole
   they are.

It refuses to keep up on its own: without queries nothing is written.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from msgspec import Struct

from ..errors import StoreBusy, StoreError
from .control.sealed_files import SealedFile
from .damage import UNREADABLE
from .database import Cursor
from .niced import niced
from .parts import Part
from .rollup_file import ROLLUPS, ROLLUPS_VERSION
from .rollup_schema import EXPORTED_COLUMNS, tables_named_in
from .rollups import Rollups
from .schema import SCHEMA_VERSION, views_named_in
from .store import Store
from .syncing import sync_path
from .upload_files import table_of

__all__ = ["ExportLate", "Holding", "Increments"]

_SUFFIX = ".parquet"
_INDEX = "index.json"
# Files that were exported from other tables are made anew.
_LAYOUT = f"parts {SCHEMA_VERSION}, rollups {ROLLUPS_VERSION}"

# About a second of writing; a file of so many rows is not joined any more.
_FILE_ROWS_MAX = 1_000_000
# Rows of a row group, and what they may weigh: the bound of memory here.
_GROUP_ROWS_MAX = 32_768
_GROUP_BYTES_MAX = 8 * 1024 * 1024
_FETCH_ROWS = 2_048
# Exporting must not take the processor from the doors.
_NICE = 10
# How long a query waits for rollups of what was committed just before.
_CATCH_UP_S = 2.0
# The number of the part that rollups are exported as; parts count from 1.
_ROLLUPS_NUMBER = 0

_NOT_EXPORTED = {"requests": "EXCLUDE (credential, fingerprint)"}
_DICTIONARY_COLUMNS = frozenset({
    "account_id",
    "action",
    "door",
    "encoding",
    "environment",
    "level",
    "metric_id",
    "metric_name",
    "project_id",
    "reason",
    "service",
    "source",
    "unit",
    "module",
    "product",
    "feature",
    "key",
})
_STATISTICS_COLUMNS = frozenset({
    "bucket",
    "created_at",
    "time",
    "received_at",
    "request_number",
    "batch_id",
})


class ExportLate(StoreBusy):
    """The deadline came first. What was exported stays: asking again goes on from there."""


class _Range(Struct, kw_only=True):
    """A file of rows `first` up to before `end` of one table of one part."""

    name: str
    part_number: int
    table: str
    first: int
    end: int
    byte_count: int
    holders: int = 0
    is_replaced: bool = False


class _Index(Struct, frozen=True):
    """What a clean close leaves behind."""

    layout: str
    files: list[_Range]


class Holding(Struct, frozen=True):
    """Files of one moment, by table; there until `Increments.release`. `sealed`: of those that are,
    what the manifest says, by path.
    """

    files: dict[str, list[str]]
    ranges: list[_Range]
    epoch: int
    sealed: dict[str, SealedFile]

    def __repr__(self) -> str:
        return f"Holding({sum(map(len, self.files.values()))} files)"


class _Bounds(Struct, frozen=True):
    """Until when files may be written, and while what holds."""

    gives_up_at: float
    has_room: Callable[[], bool]

    def check(self) -> None:
        if time.monotonic() > self.gives_up_at:
            raise ExportLate("the newest rows are being made readable; ask again")
        if not self.has_room():
            raise StoreBusy("the disk is nearly full: new rows cannot be made readable for queries")


class Increments:
    """The folder of exported rows. Every method blocks; safe from several threads."""

    def __init__(self, store: Store, directory: Path, rollups: Rollups | None = None) -> None:
        self._store = store
        self._rollups = rollups
        self._directory = directory.absolute()
        self._turn = threading.Lock()
        self._held = threading.Lock()
        # By part number and table, in the order of rows.
        self._ranges: dict[tuple[int, str], list[_Range]] = {}
        self._next_number = 0
        self.exported_row_count = 0

    def open(self) -> None:
        """Take over what a clean close has left, remove everything else."""
        self._directory.mkdir(mode=0o700, exist_ok=True)
        listed = _read_index(self._directory / _INDEX)
        names = {entry.name for entry in listed if self._is_whole(entry)}
        for path in self._directory.iterdir():
            if path.name not in names:
                path.unlink(missing_ok=True)
        for entry in listed:
            ranges = self._ranges.setdefault((entry.part_number, entry.table), [])
            # Behind a gap everything is exported again.
            if entry.name in names and entry.first == (ranges[-1].end if ranges else 0):
                ranges.append(entry)
            elif entry.name in names:
                self._path(entry).unlink(missing_ok=True)
        # No name is given twice, also not one that an old reader may still have open.
        self._next_number = time.time_ns()

    def close(self) -> None:
        """Leave a list behind, so that the next start need not export again."""
        with self._turn, suppress(OSError):
            kept = [entry for ranges in self._ranges.values() for entry in ranges]
            for entry in kept:
                sync_path(self._path(entry))
            partial = self._directory / f".{_INDEX}"
            partial.write_bytes(msgspec.json.encode(_Index(_LAYOUT, kept)))
            sync_path(partial)
            partial.rename(self._directory / _INDEX)
            sync_path(self._directory)

    def hold(
        self, *, gives_up_at: float, has_room: Callable[[], bool] = lambda: True, sql: str
    ) -> Holding:
        """All rows that are visible now of what `sql` may name, as files. `gives_up_at` is of
        `time.monotonic`. Without room on the disk no file is written: then only rows exported
        before can be had.

        Raises StoreBusy (ExportLate at the deadline), StoreBroken.
        """
        with self._turn:
            return niced(
                lambda: self._hold(
                    _Bounds(gives_up_at, has_room), views_named_in(sql), tables_named_in(sql)
                ),
                nice=_NICE,
                name="increments",
            )

    def release(self, holding: Holding) -> None:
        self._store.holds.leave(holding.epoch)
        with self._held:
            for entry in holding.ranges:
                entry.holders -= 1
                assert entry.holders >= 0
                if entry.is_replaced and not entry.holders:
                    self._path(entry).unlink(missing_ok=True)

    def statistics(self) -> dict[str, int]:
        with self._held:
            ranges = [entry for ranges in self._ranges.values() for entry in ranges]
        return {
            "files": len(ranges),
            "file_bytes": sum(entry.byte_count for entry in ranges),
            "exported_rows_total": self.exported_row_count,
        }

    def _hold(self, bounds: _Bounds, views: Sequence[str], tables: set[str]) -> Holding:
        files: dict[str, list[str]] = {name: [] for name in views}
        held: list[_Range] = []
        now = self._store.take_hold()
        try:
            self._forget_parts({_ROLLUPS_NUMBER, *(part.number for part in now.parts)})
            for part in now.parts if views else ():
                self._read_part(part, files, held, bounds)
            # Last: they have columns more, and the first file of a view tells which there are.
            sealed = {
                str(now.snapshot.sealed_directory / file.name): file
                for table in views
                for file in now.snapshot.sealed.get(table, ())
            }
            for path, file in sealed.items():
                files[file.table].append(path)
            if tables and self._rollups is not None:
                self._read_rollups(self._rollups, tables, files, held, bounds)
        except BaseException:
            self._store.holds.leave(now.epoch)
            raise
        with self._held:
            for entry in held:
                entry.holders += 1
        return Holding(files, held, now.epoch, sealed)

    def _read_part(
        self, part: Part, files: dict[str, list[str]], held: list[_Range], bounds: _Bounds
    ) -> None:
        with self._store.database.lease() as lease, lease.using() as cursor:
            cursor.execute("BEGIN TRANSACTION READ ONLY")
            try:
                for (name,) in cursor.execute(
                    f"SELECT file_name FROM {part.name}.upload_files ORDER BY request_number"
                ).fetchall():
                    if table_of(name) in files and name not in part.unreadable_files:
                        files[table_of(name)].append(str(self._store.uploads_directory / name))
                for table in files:
                    ((count,),) = cursor.execute(
                        f"SELECT count(*) FROM {part.name}.{table}"
                    ).fetchall()
                    source = f"SELECT * {_NOT_EXPORTED.get(table, '')} FROM {part.name}.{table}"
                    self._extend(cursor, (part.number, table), source, count, bounds)
                    ranges = self._ranges.get((part.number, table), [])
                    files[table] += [str(self._path(entry)) for entry in ranges]
                    held += ranges
            finally:
                cursor.execute("ROLLBACK")

    def _read_rollups(
        self,
        rollups: Rollups,
        tables: set[str],
        files: dict[str, list[str]],
        held: list[_Range],
        bounds: _Bounds,
    ) -> None:
        # A step that fails is tried again by its actor; what is told is then a little older.
        with suppress(StoreError):
            rollups.catch_up(gives_up_at=min(bounds.gives_up_at, time.monotonic() + _CATCH_UP_S))
        with self._store.database.lease() as lease, lease.using() as cursor:
            cursor.execute("BEGIN TRANSACTION READ ONLY")
            try:
                generations = self._store.rollup_file.exported_generations(cursor)
                self._forget_generations(set(generations.values()))
                for table in sorted(tables):
                    # Which file of rollups, and which generation: rows of others are other rows.
                    key = (_ROLLUPS_NUMBER, generations[table])
                    name = f"{ROLLUPS}.{generations[table].partition('-')[0]}"
                    ((count,),) = cursor.execute(f"SELECT count(*) FROM {name}").fetchall()
                    source = f"SELECT {EXPORTED_COLUMNS.get(table, '*')} FROM {name}"
                    self._extend(cursor, key, source, count, bounds)
                    ranges = self._ranges.get(key, [])
                    files[table] = [str(self._path(entry)) for entry in ranges]
                    held += ranges
            finally:
                cursor.execute("ROLLBACK")

    def _extend(
        self, cursor: Cursor, key: tuple[int, str], source: str, count: int, bounds: _Bounds
    ) -> None:
        """Export what is missing of `source` up to row `count`, joined with small files before."""
        ranges = self._ranges.setdefault(key, [])
        if ranges and ranges[-1].end > count:
            # Never seen; a table that lost rows is read anew rather than trusted.
            self._replace(ranges, 0, [])
        first = ranges[-1].end if ranges else 0
        if first >= count:
            return
        keep = len(ranges)
        while keep:
            last = ranges[keep - 1]
            is_large = last.end - last.first >= 2 * (count - first)
            if is_large or count - last.first > _FILE_ROWS_MAX:
                break
            keep -= 1
            first = last.first
        for start in range(first, count, _FILE_ROWS_MAX):
            bounds.check()
            end = min(count, start + _FILE_ROWS_MAX)
            entry = self._export(cursor, key, source, start, end)
            # What is joined fits into one file, so the first one replaces all of it.
            self._replace(ranges, keep, [entry])
            keep += 1

    def _replace(self, ranges: list[_Range], keep: int, new: list[_Range]) -> None:
        with self._held:
            for entry in ranges[keep:]:
                entry.is_replaced = True
                if not entry.holders:
                    self._path(entry).unlink(missing_ok=True)
            ranges[keep:] = new

    def _export(
        self, cursor: Cursor, key: tuple[int, str], source: str, first: int, end: int
    ) -> _Range:
        part_number, table = key
        self._next_number += 1
        name = f"{part_number:06d}-{table}-{self._next_number:x}{_SUFFIX}"
        path = self._directory / name
        try:
            # The bounds are constants: only the row groups between them are read.
            reader = cursor.execute(
                f"{source} WHERE rowid >= {first} AND rowid < {end}"
            ).to_arrow_reader(_FETCH_ROWS)
            try:
                count = _write(path, reader)
            finally:
                reader.close()
            if count != end - first:
                raise StoreError(f"{table} of part {part_number}: {count} rows, not {end - first}")
        except BaseException as error:
            path.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise StoreBusy(f"rows cannot be exported: {error.strerror or error}") from error
            raise
        self.exported_row_count += count
        return _Range(
            name=name,
            part_number=part_number,
            table=table,
            first=first,
            end=end,
            byte_count=path.stat().st_size,
        )

    def _forget_parts(self, numbers: set[int]) -> None:
        """Parts that are no more: their rows lie elsewhere."""
        for key in [key for key in self._ranges if key[0] not in numbers]:
            self._replace(self._ranges[key], 0, [])
            with self._held:
                del self._ranges[key]

    def _forget_generations(self, kept: set[str]) -> None:
        """Those before, which were merged into others."""
        for key in [key for key in self._ranges if key[0] == _ROLLUPS_NUMBER]:
            if key[1] not in kept:
                self._replace(self._ranges[key], 0, [])
                with self._held:
                    del self._ranges[key]

    def _path(self, entry: _Range) -> Path:
        return self._directory / entry.name

    def _is_whole(self, entry: _Range) -> bool:
        path = self._path(entry)
        try:
            rows = pq.read_metadata(path).num_rows
            return rows == entry.end - entry.first and path.stat().st_size == entry.byte_count
        except UNREADABLE:
            return False


def _write(path: Path, reader: Any) -> int:
    """The batches as row groups of bounded size; how many rows."""
    names = set(reader.schema.names)
    row_count = held_rows = held_bytes = 0
    held: list[Any] = []
    with (
        open(path, "xb", opener=_private) as file,
        pq.ParquetWriter(
            file,
            reader.schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=sorted(names & _DICTIONARY_COLUMNS),
            write_statistics=sorted(names & _STATISTICS_COLUMNS),
            store_schema=False,
            write_page_checksum=True,
        ) as writer,
    ):
        for batch in reader:
            held.append(batch)
            held_rows += batch.num_rows
            held_bytes += batch.nbytes
            row_count += batch.num_rows
            if held_rows >= _GROUP_ROWS_MAX or held_bytes >= _GROUP_BYTES_MAX:
                writer.write_table(pa.Table.from_batches(held))
                held, held_rows, held_bytes = [], 0, 0
        if held:
            writer.write_table(pa.Table.from_batches(held))
    return row_count


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def _read_index(path: Path) -> list[_Range]:
    """Read and removed: it counts once."""
    try:
        content = path.read_bytes()
        path.unlink()
        index = msgspec.json.decode(content, type=_Index)
    except (OSError, msgspec.DecodeError):
        return []
    if index.layout != _LAYOUT:
        return []
    return sorted(index.files, key=lambda entry: (entry.part_number, entry.table, entry.first))
