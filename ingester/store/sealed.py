"""Sealed data: which sealed files there are, what was let go, and what a crash has left behind.

The manifest (`control/sealed_files.py`) is the truth; this is its summary in memory, replaced
behind the commit gate.

1. What was replaced is unlinked when nobody is left who may read it (`holds.py`); the manifest
   names it until then, so that the next start does it if this process cannot.
2. At opening, a file that the manifest does not name is removed only if its rows are known to lie
   elsewhere: in its part, which is still open, or in listed files that it was to replace. Any
   other is left alone and reported (`strangers`): the manifest may have been lost.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
from msgspec import Struct

from ..errors import StoreError
from .control.sealed_files import LostCommits, Manifest, SealedFile, SealedFiles, SealedPart
from .damage import UNREADABLE
from .holds import Holds
from .parts import busy_file_errors
from .schema import DATA_TABLES
from .syncing import sync_path

__all__ = [
    "ENDS",
    "SealedData",
    "number_of",
    "rows_were_removed",
    "sealed_name",
    "that_may_hold",
]

TEMPORARY_SUFFIX = ".tmp"
_SUFFIX = ".parquet"
_NAME = re.compile(r"([0-9]{6,})-([0-9]{6,})-[0-9a-f]+\.parquet")
_EPOCH = datetime(1970, 1, 1)
_MICROSECOND = timedelta(microseconds=1)

ENDS = {
    "committed_at": ("received_low_us", "received_high_us"),
    "received_at": ("received_low_us", "received_high_us"),
    "batch_id": ("batch_low", "batch_high"),
    "request_number": ("request_low", "request_high"),
}


class _Retired(Struct):
    """What goes when the readers of `epoch` have left: paths below the data folder, and a part
    that is still attached, by its number.
    """

    epoch: int
    paths: tuple[str, ...]
    part_number: int | None = None


def rows_were_removed(files: Iterable[SealedFile], parts: Iterable[SealedPart]) -> bool:
    """Whether sealed parts had rows that are no longer there."""
    kept = sum(file.row_count for file in files if file.table in DATA_TABLES)
    return kept < sum(part.row_count for part in parts)


def sealed_name(table: str, day: str, first_part: int, last_part: int, unique: int) -> str:
    """Path below `sealed/`. `unique` makes that no name is given twice."""
    return f"{table}/{day}/{first_part:06d}-{last_part:06d}-{unique:x}{_SUFFIX}"


def that_may_hold(
    files: Iterable[SealedFile], column: str, low: object | None, high: object | None
) -> list[SealedFile]:
    """Files in which a row with `low <= column <= high` may be; None is open."""
    lowest_name, highest_name = ENDS.get(column, ("time_low_us", "time_high_us"))
    # Hundreds of files are looked at for every window of a search: this is done once.
    lowest = -(2**63) if low is None else number_of(low)
    highest = 2**63 if high is None else number_of(high)
    return [
        file
        for file in files
        if getattr(file, highest_name) >= lowest and getattr(file, lowest_name) <= highest
    ]


def number_of(value: object) -> int:
    if isinstance(value, datetime):
        return (value - _EPOCH) // _MICROSECOND
    assert isinstance(value, int)
    return value


class SealedData:
    """Under `data_dir/sealed`. `files` by table, `parts` by number; replaced, never changed."""

    def __init__(self, data_dir: Path, holds: Holds, manifest: SealedFiles | None) -> None:
        self._data_dir = data_dir.absolute()
        self.directory = self._data_dir / "sealed"
        self._holds = holds
        self._own: SealedFiles | None = None
        self._manifest = manifest
        self.files: Mapping[str, tuple[SealedFile, ...]] = {}
        self.parts: Mapping[int, SealedPart] = {}
        # Names of files that the manifest does not know, and of those it does that are not there.
        self.strangers: tuple[str, ...] = ()
        self.missing: tuple[str, ...] = ()
        self.lost: tuple[LostCommits, ...] = ()
        self._newest_part = 0
        self._retired: list[_Retired] = []
        self._is_clean = False

    @property
    def manifest(self) -> SealedFiles:
        """That of the server, else one of our own."""
        if self._manifest is None:
            self._own = self._manifest = SealedFiles.open(self._data_dir / "control.sqlite")
        return self._manifest

    def close(self) -> None:
        if self._own is not None:
            self._own.close()
            self._own = self._manifest = None

    def read(self) -> Manifest:
        """Read the manifest; the first time also tidy up behind a crash."""
        found = self.manifest.read_manifest()
        # One such file in a view would break every query.
        there = [file for file in found.files if self._is_whole(file)]
        self.missing = tuple(sorted({f.name for f in found.files} - {f.name for f in there}))
        self._take(there, found.parts)
        self.lost, self._newest_part = found.lost, found.newest_part
        # What is attached now was attached anew.
        for entry in self._retired:
            entry.part_number = None
        if not self._is_clean:
            self._is_clean = True
            self._retired.append(_Retired(-1, tuple(found.removals)))
            self.strangers = tuple(self._remove_orphans(found))
        return found

    def _take(self, files: Iterable[SealedFile], parts: Iterable[SealedPart]) -> None:
        by_table: dict[str, list[SealedFile]] = {}
        for file in files:
            by_table.setdefault(file.table, []).append(file)
        self.files = {table: tuple(found) for table, found in by_table.items()}
        self.parts = {part.part_number: part for part in parts}

    def note_part(self, number: int) -> None:
        """No other part will have this number."""
        if number > self._newest_part:
            self.manifest.note_part(number)
            self._newest_part = number

    def is_certain_not_noted(self, number: int) -> bool:
        """After `note_part` has failed: whether no start will ever find it noted."""
        try:
            self.manifest.settle()
            return self.manifest.read_manifest().newest_part < number
        except StoreError:
            return False

    def note_lost(self, low: int, high: int, through: int) -> None:
        """Before the part is made that leaves those commits behind."""
        began_ms = self.manifest.read_manifest().evaluated.began_ms
        self.manifest.note_lost(low, high, through, began_ms)
        self.lost = self.manifest.read_manifest().lost

    def forget_lost(self) -> None:
        self.manifest.forget_lost()
        self.lost = ()

    def swap(
        self,
        *,
        added: Sequence[SealedFile] = (),
        part: SealedPart | None = None,
        dropped: Sequence[SealedFile] = (),
        paths: Sequence[str] = (),
    ) -> None:
        """Change the manifest and what is in memory. Called with the commit gate held; the caller
        then publishes the change, and calls `retire`.
        """
        names = {file.name for file in dropped}
        removals = [*(f"sealed/{name}" for name in names), *paths]
        try:
            self.manifest.swap_sealed(
                added=added, part=part, dropped=sorted(names), removals=removals
            )
        except StoreError:
            # A COMMIT that raised may have happened.
            found = self.manifest.read_manifest()
            is_there = {file.name for file in added} <= {file.name for file in found.files}
            if not (is_there and found.removals.issuperset(removals) and (added or removals)):
                raise
        kept = [file for files in self.files.values() for file in files if file.name not in names]
        files = sorted([*kept, *added], key=lambda f: (f.table, f.day, f.first_part, f.name))
        self._take(files, [*self.parts.values(), *([] if part is None else [part])])

    def retire(
        self,
        *,
        dropped: Sequence[SealedFile] = (),
        paths: Sequence[str] = (),
        part_number: int | None = None,
    ) -> None:
        """What nobody finds any more."""
        gone = (*(f"sealed/{file.name}" for file in dropped), *paths)
        self._retired.append(_Retired(self._holds.retire(), gone, part_number))

    def parts_to_detach(self) -> list[int]:
        """Numbers of retired parts that nobody reads any more."""
        return [
            entry.part_number
            for entry in self._retired
            if entry.part_number is not None and self._holds.are_over(entry.epoch)
        ]

    def unlink_unread(self, detached: Iterable[int] = ()) -> int:
        """Remove files that nobody reads any more; how many bytes that gave back. `detached`: of
        `parts_to_detach`, those that are. Raises StoreBusy: they are tried again.
        """
        gone = set(detached)
        freed_bytes = 0
        done: list[_Retired] = []
        for entry in self._retired:
            if entry.part_number in gone:
                entry.part_number = None
            if entry.part_number is None and self._holds.are_over(entry.epoch):
                with busy_file_errors("a file that was replaced cannot be removed"):
                    freed_bytes += sum(self._unlink(path) for path in entry.paths)
                done.append(entry)
        if done:
            self.manifest.forget_removals([path for entry in done for path in entry.paths])
            self._retired = [entry for entry in self._retired if entry not in done]
        return freed_bytes

    @property
    def retired_paths(self) -> set[str]:
        """What is still there and must stay until it goes."""
        return {path for entry in self._retired for path in entry.paths}

    def path(self, file: SealedFile) -> Path:
        return self.directory / file.name

    def all_files(self) -> list[SealedFile]:
        return [file for files in self.files.values() for file in files]

    def _is_whole(self, file: SealedFile) -> bool:
        try:
            return self.path(file).stat().st_size == file.byte_count
        except FileNotFoundError:
            return False

    def _unlink(self, path: str) -> int:
        found = self._data_dir / path
        try:
            size = found.stat().st_size
            found.unlink()
        except FileNotFoundError:
            return 0
        if found.parent.parent.parent == self.directory:
            with suppress(OSError):  # others are in it
                found.parent.rmdir()
        else:
            with suppress(OSError):
                sync_path(found.parent)
        return size

    def _remove_orphans(self, manifest: Manifest) -> Iterator[str]:
        """Yield the names of files that are nobody's and may hold rows."""
        listed = {file.name for file in manifest.files}
        sealed = {part.part_number for part in manifest.parts}
        for path in sorted(self.directory.glob("*/*/*")):
            name = path.relative_to(self.directory).as_posix()
            if name in listed or f"sealed/{name}" in manifest.removals:
                continue
            if name.endswith(TEMPORARY_SUFFIX):
                path.unlink(missing_ok=True)
                continue
            found = _NAME.fullmatch(path.name)
            if found is None:
                continue  # not ours
            numbers = range(int(found[1]), int(found[2]) + 1)
            is_open = all(
                (self._data_dir / "open" / f"{number:06d}.duckdb").exists() and number not in sealed
                for number in numbers
            )
            if is_open or self._is_unfinished_merge(path, numbers):
                path.unlink(missing_ok=True)
            else:
                yield name

    def _is_unfinished_merge(self, path: Path, numbers: range) -> bool:
        """Whether all of its rows lie in listed files."""
        table, day = path.parts[-3], path.parts[-2]
        inputs = [
            file
            for file in self.files.get(table, ())
            if file.day == day and {file.first_part, file.last_part} <= set(numbers)
        ]
        if not all(self.path(file).exists() for file in inputs):
            return False
        try:
            row_count = pq.read_metadata(path).num_rows
        except UNREADABLE:
            return False
        return bool(row_count == sum(file.row_count for file in inputs))
