"""Parquet files of the store: whole, as many rows as they should have, known to the manifest."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import duckdb
import msgspec
import pyarrow.parquet as pq

from .control.sealed_files import Manifest, SealedFile
from .damage import UNREADABLE
from .relations import spans_of
from .schema import parquet_relation
from .sealed import ENDS, number_of
from .upgrades import BACKUP_NAME, maybe_newer_parquet

__all__ = [
    "STRANGER",
    "export_problems",
    "file_problem",
    "first_line",
    "footer_problem",
    "part_strangers",
    "sealed_ledgers",
    "sealed_problems",
    "sealed_strangers",
]

_PART_COMPANION = re.compile(
    rf"\d{{6}}\.duckdb(\.wal(\.\w+)?|\.meta(\.partial)?|{BACKUP_NAME})?(\.damaged-.+)?"
)
_REPAIR = re.compile(r"\d{6}(\.duckdb)?\.(rebuilt|rebuilding.*)")
STRANGER = (
    "the manifest in control.sqlite does not know this file, so its rows are not found; `ingester"
    " check --repair` lists it again"
)


def file_problem(path: Path, row_count: int, byte_count: int) -> str | None:
    """What is wrong with a Parquet file of so many rows and bytes; every page is read, by Arrow for
    the checksums, and by DuckDB: of a damaged footer it refuses what Arrow passes over, and then
    every query fails.
    """
    try:
        size = path.stat().st_size
        if size != byte_count:
            return f"it has {size} bytes, not {byte_count}"
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            if (problem := maybe_newer_parquet(file.metadata)) is not None:
                return problem
            if file.metadata.num_rows != row_count:
                return f"it has {file.metadata.num_rows} rows, not {row_count}"
            for number in range(file.num_row_groups):
                file.read_row_group(number)
        with closing(duckdb.connect(":memory:", config={"threads": 1})) as connection:
            connection.execute(f"SELECT bit_xor(hash(COLUMNS(*))) FROM {parquet_relation([path])}")
    except FileNotFoundError:
        return "it is missing"
    except (*UNREADABLE, duckdb.Error) as error:
        return f"it cannot be read ({first_line(error)})"
    return None


def export_problems(directory: Path, *, is_running: bool) -> Iterator[str]:
    """Rows exported for queries: files that a stopped folder lists, or all whole ones."""
    for path, row_count in _exported(directory, is_running):
        try:
            found = row_count if row_count is not None else pq.read_metadata(path).num_rows
            reason = file_problem(path, found, path.stat().st_size)
        except FileNotFoundError:
            continue  # replaced meanwhile
        except UNREADABLE as error:
            reason = f"it cannot be read ({first_line(error)})"
        if reason is not None and path.exists():
            yield (
                f"export/{path.name}: {reason}; queries miss its rows, which the parts have: with"
                " the server stopped `ingester check --repair` has them exported anew"
            )


def _exported(directory: Path, is_running: bool) -> Iterator[tuple[Path, int | None]]:
    if is_running:
        for path in sorted(directory.glob("*.parquet")):
            with suppress(OSError), path.open("rb") as file:
                file.seek(-4, os.SEEK_END)
                if file.read() == b"PAR1":  # else it is being written
                    yield path, None
        return
    # Without a list all of them go at the next start.
    with suppress(OSError, msgspec.DecodeError, KeyError, TypeError):
        listed = msgspec.json.decode((directory / "index.json").read_bytes())
        for entry in listed["files"]:
            yield directory / entry["name"], entry["end"] - entry["first"]


def footer_problem(path: Path, row_count: int) -> str | None:
    try:
        metadata = pq.read_metadata(path)
    except UNREADABLE:
        return "it is missing or damaged"
    found = metadata.num_rows
    if found != row_count:
        return f"it has {found} rows, not {row_count}"
    return maybe_newer_parquet(metadata)


def _span_problem(path: Path, file: SealedFile) -> str | None:
    """Whether rows lie outside of what the manifest says: a search would not find them."""
    spans = spans_of(path)
    for column, (low, high) in ENDS.items():
        span = spans.get(column)
        if span is None:
            continue
        if getattr(file, low) > number_of(span.low) or getattr(file, high) < number_of(span.high):
            return f"it holds values of {column} that the manifest does not expect"
    return None


def sealed_problems(
    directory: Path, files: Iterable[SealedFile], *, deep: bool
) -> Iterator[tuple[str, str]]:
    """Names of sealed files that are not what the manifest says, and why."""
    for file in files:
        path = directory / file.name
        if deep:
            reason = file_problem(path, file.row_count, file.byte_count)
            reason = reason or _span_problem(path, file)
        else:
            reason = footer_problem(path, file.row_count)
        if reason is not None:
            yield (
                file.name,
                f"sealed/{file.name}: {reason}; put it back from a backup, {file.row_count} rows"
                f" of {file.table} are in it",
            )


def sealed_ledgers(directory: Path, files: Iterable[SealedFile], behind: int) -> list[Path]:
    """The ledgers of sealed parts from shortly before number `behind` on, as far as they are there:
    a transaction may end in its part after the next one has begun.
    """
    found = (
        directory / file.name
        for file in files
        if file.table == "applied" and file.last_part >= behind - 2
    )
    return [path for path in found if path.exists()]


def sealed_strangers(directory: Path, manifest: Manifest) -> list[str]:
    """Names of files below `sealed/` that the manifest does not know."""
    known = {file.name for file in manifest.files}
    known |= {path.removeprefix("sealed/") for path in manifest.removals}
    found = directory.glob("*/*/*.parquet") if directory.is_dir() else ()
    names = (path.relative_to(directory).as_posix() for path in found)
    return sorted(name for name in names if name not in known)


def first_line(error: Exception) -> str:
    """Without the paths that such messages have: the sentence names the file already."""
    return re.sub(r'"?(?:/[^\s\'",;()/]+){2,}"?', "the file", str(error).split("\n", 1)[0])


def part_strangers(directory: Path) -> Iterator[str]:
    """What is in `open/` and no part, nor what belongs to one."""
    for path in sorted(directory.iterdir()) if directory.is_dir() else ():
        if _REPAIR.fullmatch(path.name):
            yield f"open/{path.name}: a repair was interrupted; run `ingester check --repair` again"
        elif not _PART_COMPANION.fullmatch(path.name):
            yield f"open/{path.name}: this is no part of the store; move it elsewhere"
        elif path.name.endswith(".wal") and not path.with_suffix("").exists():
            yield (
                f"open/{path.name}: the part it belongs to is missing; put it back from a backup"
            )
