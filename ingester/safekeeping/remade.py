"""Sealed files that are lost or damaged, made anew: from the journal as far as it goes back, and of
what of them can still be read.

1. A record's rows were in a file if its sequence is in the ledger of a sealed part, its request
   among those the file had, its day the file's, and no other sealed file has rows of it. They are
   decoded as the loader does and get the batch that the ledger names: to cursors and rollups, which
   have passed them, nothing has changed.
2. The file gets a new name; one that is put back later is told from it (`adopt_sealed`).
3. Of a damaged file row groups that can be read are taken, but for requests that the journal has.
4. Other rows of uploads are in no journal, ids of repeats and the ledger name no request: those
   come from a backup only.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from msgspec import structs

from ..actors.loader import rows_of
from ..errors import StoreError
from ..protocol.requests import SmallRequest, decode_entry, entry_from_bytes
from ..store.check_files import sealed_ledgers
from ..store.control.sealed_files import Manifest, SealedFile
from ..store.damage import UNREADABLE
from ..store.ledger import SMALL_AGAIN
from ..store.sealed import TEMPORARY_SUFFIX, sealed_name, that_may_hold
from ..store.sealed_format import SEALED_TABLES, conformed, write_sealed
from ..store.sorting import RUN_BYTES, RowSorter, time_values
from ..store.syncing import sync_path

__all__ = ["remake"]

_TABLES = frozenset({"events", "logs", "metrics", "rejects", "requests"})
# So much is decoded before it is made into rows.
_HELD_BYTES = 4 * 1024 * 1024

Numbers = npt.NDArray[np.int64]


def remake(
    directory: Path,
    manifest: Manifest,
    lost: Collection[str],
    records: Iterable[tuple[int, bytes]],
) -> dict[str, SealedFile]:
    """New files below `directory`, durable, for the `lost` ones of which there are rows; by the
    names of those.
    """
    files = [file for file in manifest.files if file.name in lost and file.table in _TABLES]
    if not files:
        return {}
    sound = [file for file in manifest.files if file.name not in lost]
    with ExitStack() as stack:
        ledger = _Ledger(directory, sound, min(file.first_part for file in files))
        remaking = [stack.enter_context(_Remade(directory, file, sound)) for file in files]
        for seq, payload in records:
            batch_id = ledger.maybe_batch(seq)
            if batch_id is None:
                continue
            entry = entry_from_bytes(payload)
            # One file a table: of two that may have had it, either will do.
            wanted = {
                one.lost.table: one
                for one in remaking
                if one.had(entry.request_number, entry.received_at_us)
            }
            if wanted:
                request = decode_entry(entry)
                for one in wanted.values():
                    one.add(request, batch_id)
        made = {one.lost.name: one.finish() for one in remaking}
    return {name: file for name, file in made.items() if file is not None}


class _Ledger:
    """Which batch a journal record is in, of sealed parts from `first_part` on."""

    def __init__(self, directory: Path, files: Sequence[SealedFile], first_part: int) -> None:
        found: list[tuple[int, int, int]] = []
        for path in sealed_ledgers(directory, files, first_part):
            batches = pq.read_table(path).to_pylist()
            found += [
                (batch["first_seq"], batch["last_seq"], batch["batch_id"])
                for batch in batches
                if batch["lane"] in ("small", SMALL_AGAIN)
            ]
        found.sort()
        self._firsts = np.array([first for first, _, _ in found], np.int64)
        self._batches = found

    def maybe_batch(self, seq: int) -> int | None:
        place = int(np.searchsorted(self._firsts, seq, side="right")) - 1
        if place < 0:
            return None
        _, last, batch_id = self._batches[place]
        return batch_id if seq <= last else None


class _Remade:
    """One file under way. Use as a context manager."""

    def __init__(self, directory: Path, lost: SealedFile, sound: Sequence[SealedFile]) -> None:
        self.lost = lost
        self._journalled: set[int] = set()
        self._directory = directory
        self._table = SEALED_TABLES[lost.table]
        self._elsewhere = _numbers_in(directory, lost, sound)
        self._held: dict[int, tuple[SmallRequest, int]] = {}
        self._held_bytes = 0
        runs = directory / TEMPORARY_SUFFIX / f"{lost.name.replace('/', '-')}.runs"
        runs.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._sorter = RowSorter(self._table.time_column, runs)
        self._row_count = 0

    def __enter__(self) -> _Remade:
        return self

    def __exit__(self, *_: object) -> None:
        self._sorter.close()

    def had(self, request_number: int, received_at_us: int) -> bool:
        """Whether it had the rows of a request that was sealed, if that has any of its table."""
        file = self.lost
        return (
            file.request_low <= request_number <= file.request_high
            and file.received_low_us <= received_at_us <= file.received_high_us
            and request_number not in self._elsewhere
        )

    def add(self, request: SmallRequest, batch_id: int) -> None:
        self._held[request.entry.request_number] = request, batch_id
        self._held_bytes += request.bytes_raw
        if self._held_bytes >= _HELD_BYTES:
            self._take_in()

    def finish(self) -> SealedFile | None:
        """None when the journal has nothing of it."""
        self._take_in()
        for rows in self._readable():
            self._take(rows)
        if not self._row_count:
            return None
        lost = self.lost
        name = sealed_name(lost.table, lost.day, lost.first_part, lost.last_part, time.time_ns())
        path = self._directory / name
        partial = path.with_name(path.name + TEMPORARY_SUFFIX)
        partial.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            told = write_sealed(descriptor, partial, self._table, self._sorter.rows())
        finally:
            os.close(descriptor)
        partial.rename(path)
        for folder in (path.parent, path.parent.parent, self._directory):
            sync_path(folder)
        return structs.replace(lost, name=name, sealed_at=time.time(), **told)

    def _take_in(self) -> None:
        held, self._held, self._held_bytes = self._held, {}, 0
        if not held:
            return
        rows = rows_of([request for request, _ in held.values()]).get(self._table.name)
        if rows is None:
            return
        numbers = time_values(rows, "request_number").tolist()
        added = {
            "batch_id": pa.array([held[n][1] for n in numbers], pa.int64()),
            "credential": pa.array([held[n][0].entry.credential for n in numbers], pa.string()),
        }
        for name in added.keys() - set(rows.column_names):
            if name in self._table.schema.names:
                rows = rows.append_column(name, added[name])
        self._journalled.update(numbers)
        self._take(conformed(rows, self._table))

    def _take(self, rows: pa.Table) -> None:
        self._row_count += rows.num_rows
        self._sorter.add(rows)
        if self._sorter.held_bytes > RUN_BYTES:
            self._sorter.spill()

    def _readable(self) -> Iterator[pa.Table]:
        """Row groups of the damaged file, without what the journal had."""
        names = self._table.schema.names
        with (
            suppress(*UNREADABLE),
            pq.ParquetFile(
                self._directory / self.lost.name, page_checksum_verification=True
            ) as file,
        ):
            for group in range(file.num_row_groups):
                with suppress(*UNREADABLE):
                    rows = file.read_row_group(group, columns=names, use_threads=False)
                    numbers = time_values(rows, "request_number")
                    is_new = [n not in self._journalled for n in numbers.tolist()]
                    yield conformed(rows.filter(pa.array(is_new)), self._table)


def _numbers_in(directory: Path, lost: SealedFile, sound: Sequence[SealedFile]) -> set[int]:
    """Requests whose rows other files of the table have, among those of the lost one."""
    files = [file for file in sound if file.table == lost.table]
    found: set[int] = set()
    for file in that_may_hold(files, "request_number", lost.request_low, lost.request_high):
        try:
            table = pq.read_table(directory / file.name, columns=["request_number"])
        except UNREADABLE as error:
            raise StoreError(f"sealed/{file.name} cannot be read: {error}") from error
        numbers = np.unique(time_values(table, "request_number"))
        within = (numbers >= lost.request_low) & (numbers <= lost.request_high)
        found.update(numbers[within].tolist())
    return found
