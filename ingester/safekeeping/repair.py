"""`check --repair`: what can be rebuilt is rebuilt; what cannot is said. Nothing is deleted.

1. A stopped folder, under its lock. What is taken out of use is renamed (`….damaged-<time>`), when
   what takes its place is durable: a repair that is killed goes on when it is run again.
2. A damaged part becomes a new one with all rows that can still be read of it; of a missing one
   nothing can. Uploads whose files are there are listed again. One that was put back too late
   (`store/put_back.py`) becomes one with what is stored nowhere else.
3. Upload files that no part lists and that may hold rows which were acknowledged are listed again.
4. Then the journal's records that are nowhere applied are loaded as the loader does, so their rows
   are the same as before and there once: a record counts as applied when its request is stored.
5. Sealed files that the manifest does not know are listed again, unless their rows lie elsewhere;
   those that are lost are made anew of what the journal has (`remade.py`).
6. Rows of uploads that are in no file, and control data, come from a backup only.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
from msgspec import Struct, field, structs

from ..actors.loader import LoaderCounters, load_runs
from ..config import Config
from ..errors import NotFound
from ..journal.check import SET_ASIDE_MARK
from ..journal.recovery import recover
from ..protocol.requests import SmallRequest, decode_entry, entry_from_bytes
from ..store.control import ControlStore
from ..store.control.copying import control_problems, maybe_manifest, put_manifest
from ..store.control.sealed_files import SealedFile
from ..store.damage import UNREADABLE
from ..store.lock import FolderLock
from ..store.lost import bulk_lane
from ..store.rebuilt_part import RebuiltPart
from ..store.repairing import (
    PartMarks,
    accept_losses,
    adopt_sealed,
    list_again,
    mark_found,
    mark_lost,
    marks_before,
    sequences_of_folder,
    stored_numbers,
    stored_numbers_of_folder,
)
from ..store.rollups import Rollups
from ..store.salvage import Saved, ledger_rows, listing_rows, salvage
from ..store.store import Store
from ..store.syncing import sync_path
from ..store.upload_files import request_of
from .check import FolderCheck, look_at_folder
from .remade import remake

__all__ = ["Repair", "repair_folder"]

# Records are loaded in transactions of so many, or of so many bytes.
_RECORDS = 16_384
_BYTES = 16 * 1024 * 1024
# Names of a part that is being made, and of one that is made.
_BEING_MADE, _MADE = ".rebuilding", ".rebuilt"
# Above all sequences.
_NEVER = 1 << 62

Numbers = npt.NDArray[np.int64]
Interval = tuple[int, int]


class Repair(Struct, kw_only=True):
    """`done` and `lost` in sentences; `problems` are what a check says afterwards."""

    done: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def repair_folder(config: Config) -> Repair:
    """Raises NotFound, StoreBusy when a server has the folder, StoreFailed."""
    data_dir = Path(config.store.data_dir)
    if not data_dir.is_dir():
        raise NotFound(f"{data_dir} holds no data")
    lock = FolderLock(data_dir)
    lock.acquire()
    try:
        return _Run(config, data_dir).run()
    finally:
        lock.release()


class _Run:
    """One repair under way."""

    def __init__(self, config: Config, data_dir: Path) -> None:
        self._config = config
        self._data_dir = data_dir
        self._stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        self._repair = Repair()
        # The journal's records are loaded from here on.
        self._load_from = 0
        manifest = maybe_manifest(data_dir / "control.sqlite")
        # When rules had evaluated what was lost, as far as that was noted before it was.
        marks = [each.evaluated_ms for each in manifest.lost] if manifest else []
        self._evaluated_ms = min([*marks, manifest.evaluated.began_ms]) if manifest else 0

    def run(self) -> Repair:
        self._end_interrupted()
        repair, before = self._repair, look_at_folder(self._data_dir)
        if not before.problems:
            return repair
        if self._control():
            # What could still be read of the old one said which files there are.
            before = look_at_folder(self._data_dir)
        # Rows for queries are written anew: row ids of a part that is made anew are others.
        (self._data_dir / "export" / "index.json").unlink(missing_ok=True)
        self._lost_files(before)
        adopted = self._sealed(before)
        if adopted:
            before = look_at_folder(self._data_dir)
        self._parts(before)
        if before.parts.are_rollups_lost:
            self._set_aside_rollups()
        self._rows(
            is_changed=adopted
            or bool(before.parts.damaged or before.parts.missing or before.parts.doubled)
            or before.parts.are_rollups_wrong
            or before.parts.is_behind
        )
        self._segments()
        repair.problems = look_at_folder(self._data_dir).problems
        return repair

    def _end_interrupted(self) -> None:
        """A part that was made and is not in its place yet; the old one may be aside already."""
        directory = self._data_dir / "open"
        for path in sorted(directory.glob(f"*{_MADE}")):
            self._put_in_place(path)
        for path in directory.glob(f"*{_BEING_MADE}*"):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    def _control(self) -> bool:
        """Whether it was made anew."""
        path = self._data_dir / "control.sqlite"
        if not control_problems(path):
            return False
        for suffix in ("", "-wal", "-shm"):
            self._set_aside(path.with_name(f"{path.name}{suffix}"))
        ControlStore.open(path).close()
        self._repair.lost.append(
            "control.sqlite was made anew: sources, keys, members and settings come from a backup"
            " only (`ingester restore`, or put its file back)"
        )
        return True

    def _lost_files(self, before: FolderCheck) -> None:
        """A damaged file in a view would break every query; without it the others are read."""
        sealed: set[str] = set()
        for name in before.parts.lost_files:
            if name.startswith("sealed/"):
                sealed.add(name.removeprefix("sealed/"))
            else:
                self._set_aside(self._data_dir / "uploads" / name)
                self._repair.lost.append(f"{name}: its rows come from a backup only")
        manifest = maybe_manifest(self._data_dir / "control.sqlite")
        if not sealed or manifest is None:
            return
        directory = self._data_dir / "sealed"
        made = remake(directory, manifest, sealed, self._records())
        files = tuple(made.get(file.name, file) for file in manifest.files)
        put_manifest(self._data_dir / "control.sqlite", structs.replace(manifest, files=files))
        for file in manifest.files:
            if file.name in sealed:
                self._set_aside(directory / file.name)
                self._tell_remade(file, made.get(file.name))

    def _tell_remade(self, lost: SealedFile, made: SealedFile | None) -> None:
        if made is None:
            self._repair.lost.append(f"sealed/{lost.name}: its rows come from a backup only")
            return
        self._repair.done.append(
            f"sealed/{made.name} was made in the place of {lost.name}, of {made.row_count:,} rows"
        )
        if made.row_count < lost.row_count:
            self._repair.lost.append(
                f"sealed/{lost.name}: {lost.row_count - made.row_count:,} rows, of uploads or no"
                " more in the journal, come from a backup only; put that file there and repair"
                " again"
            )

    def _sealed(self, before: FolderCheck) -> bool:
        """Before anything else: a manifest that lacks a part makes it look lost."""
        strangers = before.parts.strangers
        lost = {*before.parts.damaged, *before.parts.missing}
        sound = [number for number in self._numbers() if number not in lost]
        adopted, refused, replaced = adopt_sealed(self._data_dir, strangers, sound)
        if adopted:
            self._repair.done.append(f"{adopted} sealed files are in the manifest again")
        for name in (*refused, *replaced):
            self._set_aside(self._data_dir / "sealed" / name)
        return adopted > 0

    def _parts(self, before: FolderCheck) -> None:
        """New files in the place of damaged and missing parts, and of those put back too late."""
        parts = before.parts
        numbers = sorted({*parts.damaged, *parts.missing, *parts.doubled})
        if not numbers:
            return
        sound = [n for n in self._numbers() if n not in numbers]
        stored = stored_numbers_of_folder(self._data_dir, sound)
        wanted, replayed_from = self._records_wanted(stored)
        # Of older ones, behind damage of the journal too, what is saved of the part stays.
        self._load_from = replayed_from
        replayed = [(replayed_from, _NEVER)]
        marks = marks_before(self._data_dir, sound)
        for number in numbers:
            if number in parts.doubled:
                stored = stored_numbers_of_folder(self._data_dir, sound)
                told = sequences_of_folder(self._data_dir, sound)
                self._part(number, marks, np.union1d(wanted, stored), sorted([*told, *replayed]))
            else:
                self._part(number, marks, wanted, replayed)
            sound.append(number)

    def _part(
        self, number: int, marks: PartMarks, without: Numbers, sequences: Sequence[Interval]
    ) -> None:
        directory, uploads = self._data_dir / "open", self._data_dir / "uploads"
        directory.mkdir(mode=0o700, exist_ok=True)
        path = directory / f"{number:06d}.duckdb"
        partial = directory / f"{number:06d}{_BEING_MADE}"
        saved = Saved()
        paths = sorted(uploads.glob(f"{number:06d}-*.parquet"))
        numbered = [(path, request_of(path.name)) for path in paths]
        files = [path for path, n in numbered if n is not None and n not in without]
        with RebuiltPart(partial, number) as rebuilt:
            if path.exists():
                saved = salvage(path, rebuilt, without=without, sequences=sequences, uploads=files)
            if not saved.has_ledger:
                rebuilt.insert("applied", marks.carry(number))
                if saved.batches:
                    written = [p for p in (path, path.with_name(f"{path.name}.wal")) if p.exists()]
                    lane = bulk_lane(written, self._evaluated_ms)
                    first = marks.commit_number + 1
                    rebuilt.insert("applied", ledger_rows(saved.batches, first, lane))
                    marks.commit_number += len(saved.batches)
            if saved.scattered:
                rebuilt.insert("applied", marks.found(saved.scattered))
            listed = self._list_again(files, rebuilt, saved, marks)
            rebuilt.finish()
        self._put_in_place(partial.rename(partial.with_suffix(_MADE)))
        self._tell(number, saved, listed)

    def _put_in_place(self, made: Path) -> None:
        """A new part, which is durable, instead of what is left of the old one."""
        sync_path(made.parent)
        path = made.with_suffix(".duckdb")
        for suffix in ("", ".wal", ".meta"):
            self._set_aside(path.with_name(f"{path.name}{suffix}"))
        made.rename(path)
        sync_path(made.parent)

    def _list_again(
        self,
        files: Sequence[Path],
        rebuilt: RebuiltPart,
        saved: Saved,
        marks: PartMarks,
    ) -> int:
        count = 0
        for path in files:
            known = saved.ledger if saved.has_ledger else saved.batches.keys()
            try:
                tables, batch_count = listing_rows(
                    path,
                    marks.commit_number + 1,
                    without=known,
                    evaluated_ms=self._evaluated_ms,
                )
            except UNREADABLE:
                if path.name not in saved.listed:
                    self._set_aside(path)
                    self._repair.lost.append(f"uploads/{path.name}: its rows are in a backup only")
                continue
            if not rebuilt.has_request(tables["requests"]):
                rebuilt.insert("requests", tables["requests"])
            if path.name in saved.listed:
                continue
            marks.commit_number += batch_count
            rebuilt.insert("upload_files", tables["upload_files"])
            rebuilt.insert("applied", tables["applied"])
            count += 1
        return count

    def _tell(self, number: int, saved: Saved, listed: int) -> None:
        done, lost = self._repair.done, self._repair.lost
        rows = sum(saved.rows[table] for table in ("events", "logs", "metrics"))
        done.append(
            f"open/{number:06d}.duckdb: a new part was made; {rows:,} rows were saved from the old"
            f" one, {len(saved.listed) + listed} upload files are listed"
        )
        for lane, count in saved.lost_batch_rows.items():
            is_bulk = lane.startswith("bulk")
            what = "uploads" if is_bulk else "small requests that the journal has no more"
            lost.append(
                f"open/{number:06d}.duckdb: {count:,} rows of {what} cannot be read; they come from"
                " a backup only"
            )
        if saved.lost_requests > 0:
            lost.append(
                f"open/{number:06d}.duckdb: what is told of {saved.lost_requests:,} requests is"
                " lost, their idempotency keys too"
            )
        if saved.lost_rows["rejects"]:
            lost.append(
                f"open/{number:06d}.duckdb: up to {saved.lost_rows['rejects']:,} refused lines"
                " cannot be read; those the journal has are there again"
            )
        if not saved.has_ledger:
            lost.append(
                f"open/{number:06d}.duckdb: its ledger is lost; rows of uploads that had no file of"
                " their own come from a backup only"
            )

    def _set_aside_rollups(self) -> None:
        for suffix in ("", ".wal", ".meta"):
            self._set_aside(self._data_dir / f"rollups.duckdb{suffix}")

    def _rows(self, *, is_changed: bool) -> None:
        """What the journal holds that is nowhere stored, and the sums of all rows."""
        store = Store(self._data_dir, self._config.store)
        store.open()
        with closing(store):
            is_changed = is_changed or bool(store.sealed.lost)
            self._list_kept(store)
            loaded = self._load(store)
            if loaded:
                self._repair.done.append(f"{loaded:,} requests were loaded from the journal")
            for first, last in mark_lost(store):
                self._repair.lost.append(
                    f"what became of journal records {first} to {last} is not known: neither the"
                    " journal has them nor the ledger"
                )
            rollups = Rollups(store)
            if is_changed or loaded or not rollups.commit_number:
                # What was loaded again has new numbers: the sums would hold it twice.
                rows = rollups.rebuild()
                rollups.maybe_checkpoint(bytes_min=1)
                self._repair.done.append(f"rollups were made anew from {rows:,} rows")
                if store.sealed.parts:
                    self._repair.lost.append(
                        "rollups of rows that retention has removed are lost, if there were any;"
                        " they come from a backup only"
                    )
            accept_losses(store)
            store.checkpoint()

    def _list_kept(self, store: Store) -> None:
        """Upload files whose listing was lost with commits of a part that is there."""
        listed, unreadable = list_again(store, store.kept_files)
        if listed:
            self._repair.done.append(
                f"{len(listed)} upload files are listed again: {', '.join(listed)}"
            )
        for name in unreadable:
            self._set_aside(self._data_dir / "uploads" / name)
            self._repair.lost.append(f"uploads/{name}: its rows are in a backup only")

    def _load(self, store: Store) -> int:
        counters, loaded, last_seq = LoaderCounters(), 0, 0
        dead_letters = self._data_dir / "dead-letter"
        for first_seq, requests in self._runs():
            numbers = np.array([r.entry.request_number for r in requests], np.int64)
            stored = np.isin(numbers, stored_numbers(store, numbers))
            for start, end in _false_runs(stored):
                load_runs(store, first_seq + start, requests[start:end], dead_letters, counters)
                loaded += end - start
            last_seq = first_seq + len(requests) - 1
        mark_found(store, last_seq)
        return loaded

    def _runs(self) -> Iterator[tuple[int, list[SmallRequest]]]:
        """Runs of consecutive records of the whole journal."""
        first_seq = byte_count = 0
        run: list[SmallRequest] = []
        for seq, payload in self._records():
            if seq < self._load_from:
                continue
            is_next = seq == first_seq + len(run)
            if run and (not is_next or len(run) >= _RECORDS or byte_count >= _BYTES):
                yield first_seq, run
                run, byte_count = [], 0
            if not run:
                first_seq = seq
            run.append(decode_entry(entry_from_bytes(payload)))
            byte_count += run[-1].bytes_raw
        if run:
            yield first_seq, run

    def _records(self) -> Iterator[tuple[int, bytes]]:
        journal = self._data_dir / "journal"
        first_seq = recover(journal, after_seq=0).first_seq
        if first_seq is None:
            return iter(())
        return iter(recover(journal, after_seq=first_seq - 1))

    def _records_wanted(self, stored: Numbers) -> tuple[Numbers, int]:
        """The sequence from which on the journal has all records, and the request numbers of those
        that no sound part has.
        """
        numbers: list[int] = []
        oldest, expected = _NEVER, 0
        for seq, payload in self._records():
            if seq != expected:
                oldest = seq
                numbers.clear()
            expected = seq + 1
            numbers.append(entry_from_bytes(payload).request_number)
        found = np.array(numbers, np.int64)
        return np.setdiff1d(found, stored), oldest

    def _segments(self) -> None:
        """Segments whose damage hides nothing that is not stored."""
        after = look_at_folder(self._data_dir)
        for name in dict.fromkeys(after.journal.damaged):
            self._set_aside(self._data_dir / "journal" / name)

    def _numbers(self) -> list[int]:
        manifest = maybe_manifest(self._data_dir / "control.sqlite")
        sealed = {part.part_number for part in manifest.parts} if manifest else set()
        found = (p for p in (self._data_dir / "open").glob("*.duckdb") if p.stem.isdecimal())
        return sorted(int(p.stem) for p in found if int(p.stem) not in sealed)

    def _set_aside(self, path: Path) -> None:
        if not path.exists():
            return
        target = path.with_name(f"{path.name}{SET_ASIDE_MARK}{self._stamp}")
        while target.exists():  # of a repair in the same second
            target = target.with_name(f"{target.name}+")
        path.rename(target)
        sync_path(path.parent)
        self._repair.done.append(f"{path.name} was set aside as {target.name}")


def _false_runs(flags: Sequence[bool] | npt.NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """Runs that are not set."""
    start: int | None = None
    for place, flag in enumerate([*flags, True]):
        if flag and start is not None:
            yield start, place
            start = None
        elif not flag and start is None:
            start = place
