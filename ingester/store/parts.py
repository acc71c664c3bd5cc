"""Open parts: DuckDB files under `open/`, the newest takes inserts, older ones wait to be sealed.

A part is named `part_NNNNNN` after its file `NNNNNN.duckdb`. A file is a part once its first
transaction (tables, `part_info`, the ledger row carried forward) is committed, and takes rows only
after the checkpoint behind it. A crash or a full disk before that leaves a file that holds nothing
of anybody's: headers at most, or no tables. It is removed. No other file, and no WAL that belongs
to one, is ever removed by us.

Blocks of an upload under way lie behind the end that the file's header tells. After a crash, a
reopening, or a write that found the disk full they stay there, and no checkpoint cuts them off
(measured, DuckDB 1.5.6): the file is cut when it is attached, provided there is no WAL, whose rows
may lie there.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import duckdb
import structlog

from ..errors import StoreBusy, StoreFailed
from .control.sealed_files import SealedPart
from .database import Cursor
from .ledger import AppliedBatch, is_sealed, write_applied
from .metadata_copy import copy_path, keep_metadata, put_back_metadata
from .pinned import PINNED_ROWS, TailRows
from .schema import PART_DDL, SCHEMA_VERSION, VERSION_DDL
from .syncing import sync_path
from .upgrades import attached_again, refuse_newer

__all__ = [
    "ATTACH_OPTIONS",
    "WIDE_TABLES",
    "Part",
    "PartFiles",
    "busy_file_errors",
]

_log = structlog.get_logger()

# 16,384 rows: an unfilled row group stays in memory until its transaction commits, so small ones
# bound memory; measured 2026-11-21, one thread: as fast as 122,880 within the noise.
ATTACH_OPTIONS = "ROW_GROUP_SIZE 16384, STORAGE_VERSION 'v1.5.0'"


# The tables with strings of any length, and how long they are.
WIDE_TABLES = {
    "events": "strlen(body)",
    "logs": "strlen(message) + strlen(attributes)",
    "metrics": "strlen(metadata)",
    "rejects": "octet_length(line)",
}
# What is not worth cutting off.
_TAIL_BYTES_MIN = 1024 * 1024
# The main header and two database headers. A part in use is larger: it was checkpointed.
_HEADERS_BYTES = 3 * 4096


class Part:
    """One attached file. `has_rows`: something was committed into it after it was made.

    By table: `tail` is its last rows, `fresh` those of them that are in no checkpoint. `is_wide`:
    it has neighbours that a checkpoint must not merge (`pinned.py`).
    """

    def __init__(self, path: Path, number: int) -> None:
        self.path = path
        self.number = number
        self.name = f"part_{number:06d}"
        self.created_at = time.time()
        self.has_rows = False
        # Names of its upload files, and of those that cannot be read; replaced, never changed.
        self.upload_files: tuple[str, ...] = ()
        self.unreadable_files: tuple[str, ...] = ()
        self.upload_bytes = 0
        self.is_wide = False
        self.tail = {table: TailRows() for table in WIDE_TABLES}
        self.fresh = {table: TailRows() for table in WIDE_TABLES}

    @property
    def wal_path(self) -> Path:
        return self.path.with_name(self.path.name + ".wal")

    def file_bytes(self) -> int:
        return _size(self.path)

    def wal_bytes(self) -> int:
        return _size(self.wal_path)


class PartFiles:
    """The folder of parts. Used with the store's exclusive access only.

    `parts`, oldest first, is replaced and never changed: readers in other threads keep theirs.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.parts: tuple[Part, ...] = ()
        # Numbers of files that are there and no part of the store: see `put_back.py`.
        self.replaced: tuple[int, ...] = ()

    @property
    def newest(self) -> Part:
        return self.parts[-1]

    def attach_all(
        self, cursor: Cursor, sealed: Mapping[int, SealedPart], known_newest: int = 0
    ) -> None:
        """Attach every part there is.

        The newest file may be what a crash left of a part under way, unless a part of its number
        was known. Of the numbers in `sealed` there are no parts any more, only files that nobody
        has removed yet, or that somebody put there.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        found, replaced = [], []
        for part in self._find():
            if part.number not in sealed:
                found.append(part)
            elif self._is_sealed(cursor, part, sealed[part.number]):
                _remove(part)
            else:
                replaced.append(part.number)
        self.replaced = tuple(replaced)
        for part in found[:-1]:
            self._attach_trimmed(cursor, part)
            if not self._maybe_read_info(cursor, part):
                raise StoreFailed(f"{part.path.name} is not a part of this store")
        if found and not self._attach_newest(cursor, found[-1], known_newest):
            found.pop()
        self.parts = tuple(found)

    def create(
        self, cursor: Cursor, carried: AppliedBatch, commit_number: int, *, number: int
    ) -> Part:
        """Make a part with the ledger's marks carried forward. It is not in `parts` yet."""
        part = Part(self._path(number), number)
        with busy_file_errors(f"{part.path.name} cannot be made"):
            self._make(cursor, part, carried, commit_number)
        return part

    def _make(self, cursor: Cursor, part: Part, carried: AppliedBatch, commit_number: int) -> None:
        # What is there without its file is left of a removal (`_remove`).
        if not part.path.exists():
            part.wal_path.unlink(missing_ok=True)
            copy_path(part.path).unlink(missing_ok=True)
        try:
            self._attach(cursor, part)
            cursor.execute("BEGIN")
            for statement in PART_DDL:
                cursor.execute(statement.format(part=part.name))
            cursor.execute(
                f"INSERT INTO {part.name}.part_info VALUES (?, ?, now() AT TIME ZONE 'UTC')",
                [SCHEMA_VERSION, part.number],
            )
            write_applied(cursor, part.name, [carried], commit_number)
            cursor.execute("COMMIT")
            # Replay of DDL is where WAL faults cluster: leave none of it in the WAL.
            cursor.execute(f"CHECKPOINT {part.name}")
            sync_path(self.directory)
        except BaseException:
            self.discard(cursor, part)
            raise

    def append(self, part: Part) -> None:
        """`part` takes what comes from now on."""
        self.parts = (*self.parts, part)

    def forget(self, number: int) -> None:
        """The part is sealed. It stays attached until `remove`."""
        self.parts = tuple(part for part in self.parts if part.number != number)

    def leave_out(self, cursor: Cursor, number: int) -> None:
        """The part is not read; its files stay."""
        self.forget(number)
        cursor.execute(f"DETACH DATABASE {Part(self._path(number), number).name}")

    def remove(self, cursor: Cursor, number: int) -> int:
        """Detach a forgotten part and remove its files; nobody reads it. How many bytes it had.

        Raises StoreBusy: what is left of it goes with the next call.
        """
        part = Part(self._path(number), number)
        size = part.file_bytes() + part.wal_bytes()
        cursor.execute(f"DETACH DATABASE IF EXISTS {part.name}")
        with busy_file_errors(f"{part.path.name} cannot be removed"):
            _remove(part)
            sync_path(self.directory)
        return size

    def discard(self, cursor: Cursor, part: Part) -> None:
        """Undo `create`. What cannot be undone now, the next opening finds, and removes or uses."""
        with suppress(duckdb.Error):
            cursor.execute("ROLLBACK")
        try:
            cursor.execute(f"DETACH DATABASE IF EXISTS {part.name}")
        except duckdb.Error:
            return  # an invalid instance still holds the file
        with suppress(OSError):
            _remove(part)

    def have_tails(self, cursor: Cursor) -> bool:
        """Whether attaching again would make a file smaller."""
        return any(_maybe_end(cursor, part) is not None for part in self.parts)

    def _find(self) -> list[Part]:
        numbers = sorted(int(p.stem) for p in self.directory.glob("*.duckdb") if p.stem.isdecimal())
        return [Part(self._path(n), n) for n in numbers]

    def _attach_newest(self, cursor: Cursor, part: Part, known_newest: int) -> bool:
        """False when the file was no part yet and is gone."""
        if part.number <= known_newest and part.file_bytes() <= _HEADERS_BYTES:
            raise StoreFailed(
                f"{part.path.name} was a part and is cut to {part.file_bytes()} bytes; `ingester"
                " check --repair` rebuilds from the journal what it still holds"
            )
        try:
            self._attach_trimmed(cursor, part)
        except duckdb.Error:
            if part.file_bytes() > _HEADERS_BYTES:
                raise
        else:
            if self._maybe_read_info(cursor, part):
                return True
            if self._has_tables(cursor, part) or part.number <= known_newest:
                raise StoreFailed(f"{part.path.name} is not a part of this store")
            cursor.execute(f"DETACH {part.name}")
        _remove(part)
        return False

    def _path(self, number: int) -> Path:
        return self.directory / f"{number:06d}.duckdb"

    def _attach(self, cursor: Cursor, part: Part) -> None:
        path = str(part.path).replace("'", "''")
        if put_back_metadata(part.path):
            _log.warning("a checkpoint was cut off, its metadata is put back", file=part.path.name)
        cursor.execute(f"ATTACH '{path}' AS {part.name} ({ATTACH_OPTIONS})")

    def _attach_trimmed(self, cursor: Cursor, part: Part) -> None:
        self._attach(cursor, part)
        end = _maybe_end(cursor, part)
        if end is None:
            return
        cursor.execute(f"DETACH {part.name}")
        os.truncate(part.path, end)
        self._attach(cursor, part)

    def _is_sealed(self, cursor: Cursor, part: Part, told: SealedPart) -> bool:
        try:
            self._attach(cursor, part)
            return is_sealed(cursor, part.name, told)
        except duckdb.Error:
            return False
        finally:
            cursor.execute(f"DETACH DATABASE IF EXISTS {part.name}")

    def _has_tables(self, cursor: Cursor, part: Part) -> bool:
        row = cursor.execute(
            "SELECT count(*) FROM duckdb_tables() WHERE database_name = ?", [part.name]
        ).fetchone()
        return row is not None and row[0] > 0

    def _migrate(self, cursor: Cursor, part: Part, version: int) -> None:
        """Give a part of an older version what it has not. Raises StoreBusy."""
        copy = attached_again(
            cursor, part.name, part.path, version, lambda: self._attach(cursor, part)
        )
        _log.info("part upgraded", file=part.path.name, before=version, copy=copy.name)
        cursor.execute("BEGIN")
        for newer in range(version + 1, SCHEMA_VERSION + 1):
            for statement in VERSION_DDL[newer]:
                cursor.execute(statement.format(part=part.name))
        cursor.execute(f"UPDATE {part.name}.part_info SET schema_version = ?", [SCHEMA_VERSION])
        cursor.execute("COMMIT")
        keep_metadata(cursor, part.name, part.path)
        cursor.execute(f"CHECKPOINT {part.name}")

    def _maybe_read_info(self, cursor: Cursor, part: Part) -> bool:
        """Whether the first transaction is there. Raises StoreFailed for a newer schema."""
        try:
            row = cursor.execute(
                f"SELECT max(schema_version), epoch(min(created_at)) FROM {part.name}.part_info"
            ).fetchone()
        except duckdb.CatalogException:
            return False
        if row is None or row[0] is None:
            return False
        refuse_newer(part.path, row[0], SCHEMA_VERSION)
        part.created_at = row[1]
        if row[0] < SCHEMA_VERSION:
            self._migrate(cursor, part, row[0])
        row = cursor.execute(
            f"SELECT count(*) FROM {part.name}.applied WHERE lane <> 'carry'"
        ).fetchone()
        part.has_rows = row is not None and row[0] > 0
        rows = cursor.execute(
            f"SELECT file_name, byte_count FROM {part.name}.upload_files ORDER BY request_number"
        ).fetchall()
        part.upload_files = tuple(row[0] for row in rows)
        part.upload_bytes = sum(row[1] for row in rows)
        row = cursor.execute(
            f"SELECT count(*) FROM {part.name}.applied WHERE lane = 'wide'"
        ).fetchone()
        part.is_wide = row is not None and row[0] > 0
        for table, length in WIDE_TABLES.items():
            # All rows of a WAL, if there is one: it may have brought them in many transactions.
            part.fresh[table] = TailRows(part.wal_bytes())
            if not part.is_wide:
                part.tail[table] = TailRows(_tail_bytes(cursor, f"{part.name}.{table}", length))
        return True


def _tail_bytes(cursor: Cursor, table: str, length: str) -> int:
    """How wide the last rows are. The bound is a constant: only their row groups are read."""
    ((row_count,),) = cursor.execute(f"SELECT count(*) FROM {table}").fetchall()
    ((byte_count,),) = cursor.execute(
        f"SELECT coalesce(sum({length}), 0) FROM {table} WHERE rowid >= {row_count - PINNED_ROWS}"
    ).fetchall()
    return int(byte_count)


def _maybe_end(cursor: Cursor, part: Part) -> int | None:
    """Where the part ends, if its file goes on behind that and nothing can be there."""
    # DuckDB also has a `.wal.checkpoint` and a `.wal.recovery`, for moments.
    if any(_size(wal) for wal in part.path.parent.glob(f"{part.path.name}.wal*")):
        return None
    row = cursor.execute(
        "SELECT block_size * total_blocks FROM pragma_database_size() WHERE database_name = ?",
        [part.name],
    ).fetchone()
    assert row is not None
    end = _HEADERS_BYTES + int(row[0])
    return end if part.file_bytes() >= end + _TAIL_BYTES_MIN else None


def _remove(part: Part) -> None:
    """The WAL first: alone it would be taken for that of the next file of this name."""
    part.wal_path.unlink(missing_ok=True)
    copy_path(part.path).unlink(missing_ok=True)
    part.path.unlink(missing_ok=True)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


@contextmanager
def busy_file_errors(what: str) -> Iterator[None]:
    """The disk's trouble of the moment, as StoreBusy."""
    try:
        yield
    except OSError as error:
        raise StoreBusy(f"{what}: {error.strerror or error}") from error
