"""Upload files: the rows of a large upload as Parquet, beside the open part that lists them.

Why: measured 2026-11-21, a million events of 341 bytes cost 1.8 CPU-s to insert into an open part
and 0.9 to write as Parquet, which takes 100 bytes a row instead of 141 and is what sealing would
make of them later. Below `upload_file_bytes_min` rows go to the part: many small files would slow
every query.

1. A file is written under a temporary name, synced and renamed before the transaction that lists
   it in `upload_files` commits. What no part lists is removed when the store is opened.
2. Its columns are those of one table of the part, which its name tells.
3. It is never changed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import StoreBusy, StoreFailed
from .damage import UNREADABLE
from .syncing import sync_path
from .upgrades import PARQUET_METADATA, maybe_newer_parquet

__all__ = ["UploadFile", "remove_unlisted", "request_of", "row_count", "table_of"]

_SUFFIX = ".parquet"
_TEMPORARY_SUFFIX = ".tmp"
# What is named otherwise was put there by somebody else.
_NAME = re.compile(r"\d{6,}-([0-9a-f]{16})(-[a-z_]+)?\.parquet(\.tmp)?")

# Level 1 is 5 % larger than DuckDB's level 3 and takes half the time.
_ZSTD_LEVEL = 1
# Few values: a dictionary pays. User and session ids are nearly all different.
_DICTIONARY_COLUMNS = ["account_id", "action", "level"]
# Statistics let a reader skip row groups; on random text they cost time and skip nothing.
_STATISTICS_COLUMNS = [
    "created_at",
    "time",
    "received_at",
    "request_number",
    "batch_id",
    "line_number",
]


def request_of(name: str) -> int | None:
    """The request whose rows are in a file; None when it is none of ours."""
    found = _NAME.fullmatch(name)
    return None if found is None else int(found[1], 16)


class UploadFile:
    """One file under way: `write` slices, then `finish`, or `discard`."""

    def __init__(self, directory: Path, part_number: int, request_number: int, table: str) -> None:
        self.table = table
        self.path = directory / f"{part_number:06d}-{request_number:016x}-{table}{_SUFFIX}"
        self._temporary = self.path.with_suffix(_SUFFIX + _TEMPORARY_SUFFIX)
        self._writer: pq.ParquetWriter | None = None
        self.row_count = 0
        self.byte_count = 0
        with _busy_errors():
            # Open from before the first write, so that its sync reports every failed one.
            self._descriptor = os.open(
                self._temporary, os.O_CREAT | os.O_TRUNC | os.O_RDWR | os.O_CLOEXEC, 0o600
            )

    def write(self, rows: pa.Table, constants: Mapping[str, str | int]) -> None:
        """Append `rows` as one row group; raises StoreBusy (no space)."""
        for name, value in constants.items():
            rows = rows.append_column(
                name.removesuffix("_us"), _constant(name, value, rows.num_rows)
            )
        with _busy_errors():
            if self._writer is None:
                names = set(rows.column_names)
                constant_names = {name.removesuffix("_us") for name in constants}
                self._writer = pq.ParquetWriter(
                    self._temporary,
                    rows.schema,
                    compression="zstd",
                    compression_level=_ZSTD_LEVEL,
                    use_dictionary=sorted(constant_names | names.intersection(_DICTIONARY_COLUMNS)),
                    write_statistics=sorted(names.intersection(_STATISTICS_COLUMNS)),
                    store_schema=False,
                    # 0.01 CPU-s a million rows; without it a flipped bit in a text is not seen.
                    write_page_checksum=True,
                )
            self._writer.write_table(rows, row_group_size=rows.num_rows)
        self.row_count += rows.num_rows

    def finish(self) -> None:
        """Make the file durable under its name; sets `byte_count`."""
        assert self._writer is not None
        with _busy_errors():
            self._writer.add_key_value_metadata(PARQUET_METADATA)
            self._writer.close()
            os.fdatasync(self._descriptor)
            self.byte_count = os.fstat(self._descriptor).st_size
            os.rename(self._temporary, self.path)
            sync_path(self.path.parent)
        os.close(self._descriptor)
        self._descriptor = -1

    def discard(self) -> None:
        """Remove what was written: its transaction did not commit."""
        with suppress(OSError, pa.ArrowException):
            if self._writer is not None:
                self._writer.close()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        for path in (self._temporary, self.path):
            with suppress(OSError):
                path.unlink(missing_ok=True)


def table_of(name: str) -> str:
    """The table an upload file's rows belong to. The first files had none in their names."""
    _, _, table = name.removesuffix(_SUFFIX).split("-", 1)[1].partition("-")
    return table or "events"


def row_count(path: Path) -> int:
    """Rows of a Parquet file, as its footer says. Raises StoreFailed."""
    try:
        return int(pq.read_metadata(path).num_rows)
    except UNREADABLE as error:
        raise StoreFailed(f"{path.name} cannot be read: {error}") from error


def remove_unlisted(
    directory: Path, listed: Iterable[str], spared: Iterable[str] = ()
) -> Iterator[str]:
    """Unlink what a crash left behind; yield the listed names that cannot be read. `spared` stay
    though they are not listed: somebody may read them, or a repair list them.

    One such file in a view would break every query.
    """
    names = set(listed)
    found = {path.name for path in directory.iterdir()}
    for name in found - names - set(spared):
        if _NAME.fullmatch(name):
            (directory / name).unlink(missing_ok=True)
    yield from sorted(name for name in names if not _is_readable(directory / name))


def _is_readable(path: Path) -> bool:
    """Raises StoreFailed for a file of a newer release: its rows must not look lost."""
    try:
        problem = maybe_newer_parquet(pq.read_metadata(path))
    except UNREADABLE:
        return False
    if problem is not None:
        raise StoreFailed(f"uploads/{path.name}: {problem}; start that one, nothing was changed")
    return True


def _constant(name: str, value: str | int, count: int) -> pa.DictionaryArray:
    """A column of one value: an index of zeros."""
    if name.endswith("_us"):
        values = pa.array([value], pa.int64()).view(pa.timestamp("us"))
    else:
        values = pa.array([value], pa.string() if isinstance(value, str) else pa.int64())
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int8)), values)


@contextmanager
def _busy_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreBusy(f"an upload file cannot be written: {error.strerror or error}") from error
