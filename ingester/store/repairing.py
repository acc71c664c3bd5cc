"""What a repair asks of parts and of the open store: what is stored or lost, what to adopt."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from msgspec import Struct

from .check import Interval, parts_read_only, sequence_gaps
from .check_files import sealed_ledgers
from .check_ledger import MARKS
from .control.copying import maybe_manifest, put_manifest
from .control.sealed_files import Manifest, SealedFile, SealedPart
from .damage import UNREADABLE
from .ledger import AppliedBatch
from .lost import LEAP, accept_cuts, part_number_of
from .salvage import listing_rows
from .schema import DATA_TABLES, parquet_relation
from .sealed_format import SEALED_TABLES, Span
from .sorting import time_values
from .store import Store

__all__ = [
    "PartMarks",
    "accept_losses",
    "adopt_sealed",
    "list_again",
    "mark_found",
    "mark_lost",
    "marks_before",
    "sequences_of_folder",
    "stored_numbers",
    "stored_numbers_of_folder",
]

Numbers = npt.NDArray[np.int64]

# Whose sealed rows name the request that they came with.
_NUMBERED_TABLES = ("requests", *DATA_TABLES, "rejects")


class PartMarks(Struct):
    """High water marks of what is sound, raised above what was lost."""

    batch_id: int
    commit_number: int
    seq_by_part: dict[int, int]
    request_number: int

    def carry(self, number: int) -> pa.Table:
        """The first ledger row of a part whose own ledger is lost."""
        seq = max((s for n, s in self.seq_by_part.items() if n < number), default=0)
        return pa.table({
            "batch_id": [self.batch_id],
            "commit_number": [self.commit_number],
            "lane": ["carry"],
            "first_seq": [seq],
            "last_seq": [seq],
            "row_count": [0],
            "request_number_max": [self.request_number],
            "committed_at": [datetime.now(UTC).replace(tzinfo=None)],
        })

    def found(self, sequences: Sequence[Interval]) -> pa.Table:
        """Ledger rows that tell of records whose rows other batches have."""
        count = len(sequences)
        batch_id, commit_number = self.batch_id + 1, self.commit_number + 1
        self.batch_id += count
        self.commit_number += count
        return pa.table({
            "batch_id": range(batch_id, batch_id + count),
            "commit_number": range(commit_number, commit_number + count),
            "lane": ["found"] * count,
            "first_seq": [first for first, _ in sequences],
            "last_seq": [last for _, last in sequences],
            "row_count": [0] * count,
            "request_number_max": [0] * count,
            "committed_at": [datetime.now(UTC).replace(tzinfo=None)] * count,
        })


def marks_before(data_dir: Path, sound: Sequence[int]) -> PartMarks:
    """Of sealed parts and the `sound` open ones."""
    manifest = maybe_manifest(data_dir / "control.sqlite")
    sealed = manifest.parts if manifest else ()
    marks = PartMarks(
        max((p.batch_high for p in sealed), default=0),
        max((p.commit_high for p in sealed), default=0),
        {p.part_number: p.seq_high for p in sealed},
        max((p.request_high for p in sealed), default=0),
    )
    with parts_read_only(data_dir) as (connection, parts, _):
        for part in parts:
            if part.number not in sound:
                continue
            ((batch, commit, seq, request),) = connection.execute(
                "SELECT max(batch_id), max(commit_number), max(last_seq), max(request_number_max) "
                f"FROM {part.name}.applied"
            ).fetchall()
            marks.batch_id = max(marks.batch_id, batch)
            marks.commit_number = max(marks.commit_number, commit)
            marks.seq_by_part[part.number] = seq
            marks.request_number = max(marks.request_number, request)
    # Numbers that a lost ledger has given may be known elsewhere (cursors).
    marks.batch_id += LEAP
    marks.commit_number += LEAP
    return marks


def stored_numbers_of_folder(data_dir: Path, sound: Sequence[int]) -> Numbers:
    """Request numbers of the `sound` parts of a stopped folder, and of sealed ones."""
    found: list[Numbers] = []
    with parts_read_only(data_dir) as (connection, parts, _):
        for part in parts:
            if part.number in sound:
                rows = connection.execute(f"SELECT request_number FROM {part.name}.requests")
                found.append(rows.fetchnumpy()["request_number"].astype(np.int64))
    manifest = maybe_manifest(data_dir / "control.sqlite")
    by_table: dict[str, list[Path]] = {}
    for file in manifest.files if manifest else ():
        by_table.setdefault(file.table, []).append(data_dir / "sealed" / file.name)
    wanted = by_table.get("requests", [])
    if not all(path.exists() for path in wanted):
        wanted = [path for table in _NUMBERED_TABLES for path in by_table.get(table, [])]
    for path in wanted:
        if path.exists():
            table = pq.read_table(path, columns=["request_number"])
            found.append(np.unique(time_values(table, "request_number")))
    return np.concatenate(found) if found else np.array([], np.int64)


def sequences_of_folder(data_dir: Path, sound: Sequence[int]) -> list[Interval]:
    """Journal sequences in the ledgers of the `sound` parts of a stopped folder, and of parts that
    were sealed behind the first of them, in order.
    """
    manifest = maybe_manifest(data_dir / "control.sqlite") or Manifest()
    ledgers = sealed_ledgers(data_dir / "sealed", manifest.files, min(sound, default=0))
    with parts_read_only(data_dir) as (connection, parts, _):
        names = [f"{part.name}.applied" for part in parts if part.number in sound]
        names += [parquet_relation(ledgers)] if ledgers else []
        if not names:
            return []
        union = " UNION ALL ".join(
            f"SELECT first_seq, last_seq FROM {name} WHERE lane NOT IN {MARKS} AND last_seq > 0"
            for name in names
        )
        return connection.execute(f"SELECT * FROM ({union}) ORDER BY ALL").fetchall()


def stored_numbers(store: Store, numbers: Numbers) -> Numbers:
    """Which of these requests are stored. When a file of sealed requests is lost, by their rows."""
    low, high = int(numbers.min()), int(numbers.max())
    with store.hold() as held, store.database.lease() as lease, lease.using() as cursor:
        relations = [f"{part}.requests" for part in held.snapshot.parts]
        is_lost = any(name.startswith("requests/") for name in store.sealed.missing)
        for table in _NUMBERED_TABLES if is_lost else ("requests",):
            files = held.snapshot.sealed_within(table, "request_number", low, high)
            if files:
                relations.append(parquet_relation(files))
        union = " UNION ALL ".join(f"SELECT request_number FROM {name}" for name in relations)
        rows = cursor.execute(
            f"SELECT request_number FROM ({union}) WHERE request_number BETWEEN {low} AND {high}"
        ).fetchnumpy()
    return np.asarray(rows["request_number"], np.int64)


def list_again(store: Store, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """List upload files in their parts, which are attached, as new commits. Which ones were, and
    which cannot be read. Their rows are seen once the store is opened again.
    """
    listed, unreadable = [], []
    evaluated_ms = min(lost.evaluated_ms for lost in store.sealed.lost) if names else 0
    by_number = {part.number: part.name for part in store.parts.parts}
    for name in names:
        first = store.ledger.taken_number + 1
        try:
            tables, count = listing_rows(
                store.uploads_directory / name, first, without=(), evaluated_ms=evaluated_ms
            )
        except UNREADABLE:
            unreadable.append(name)
            continue
        part = by_number.get(part_number_of(name) or 0, store.parts.newest.name)
        with store.database.lease() as lease, lease.using() as cursor:
            cursor.execute("BEGIN")
            for table, rows in tables.items():
                cursor.register("feed", rows)
                columns = ", ".join(rows.column_names)
                cursor.execute(f"INSERT INTO {part}.{table} BY NAME SELECT {columns} FROM feed")
                cursor.unregister("feed")
            cursor.execute("COMMIT")
        store.ledger.take_commit_numbers(count)
        listed.append(name)
    if listed:
        store.recover(store.database.generation)
    return listed, unreadable


def mark_lost(store: Store) -> Iterator[Interval]:
    """Say in the ledger that the records of its gaps are lost, so that each is told once."""
    for first, last in sequence_gaps(store):
        _mark(store, "lost", first, last)
        yield first, last


def accept_losses(store: Store) -> None:
    """What was lost was looked for: it is not told of again."""
    numbers = [part.number for part in store.parts.parts]
    with store.database.lease() as lease, lease.using() as cursor:
        accept_cuts(cursor, numbers, store.sealed.parts.values())
    store.sealed.forget_lost()


def mark_found(store: Store, last_seq: int) -> None:
    """All of the journal's records are stored, up to this one: the next start must not load those
    again whose ledger was lost.
    """
    first_seq = store.ledger.applied_seq + 1
    if last_seq >= first_seq:
        _mark(store, "found", first_seq, last_seq)


def _mark(store: Store, lane: str, first_seq: int, last_seq: int) -> None:
    with store.begin("small") as transaction:
        batch_id = store.ledger.take_batch_id()
        transaction.commit([AppliedBatch(batch_id, lane, first_seq, last_seq, 0, 0)])


def adopt_sealed(
    data_dir: Path, strangers: Sequence[str], sound: Sequence[int]
) -> tuple[int, list[str], list[str]]:
    """List sealed files that the manifest does not know, on a stopped folder; how many, the names
    of those that were not, and of those in whose place one is that has more rows. `sound`: open
    parts that can be read. What is sealed of them lies in them as well, and is what a sealing has
    left that did not end.
    """
    path = data_dir / "control.sqlite"
    manifest = maybe_manifest(path)
    if manifest is None:  # nothing is known of any file, so none is refused
        return 0, [], []
    refused: list[str] = []
    replaced: set[str] = set()
    added: list[SealedFile] = []
    for name in sorted(strangers, key=_widest_first):
        file = _maybe_file(data_dir / "sealed", name)
        if file is None:
            refused.append(name)
            continue
        if set(sound).intersection(range(file.first_part, file.last_part + 1)):
            continue
        others = [other for other in (*manifest.files, *added) if _overlap(file, other)]
        if others and not _is_more(file, others):
            refused.append(name)
            continue
        replaced.update(other.name for other in others)
        added.append(file)
    if added:
        known = {part.part_number for part in manifest.parts}
        parts = (*manifest.parts, *_parts_of(data_dir / "sealed", added, known))
        files = [file for file in (*manifest.files, *added) if file.name not in replaced]
        put_manifest(path, Manifest(tuple(files), parts, manifest.removals))
    return len(added), refused, sorted(replaced)


def _is_more(file: SealedFile, others: Sequence[SealedFile]) -> bool:
    """Whether it is what those were made of: of the same parts, with more rows (`remade.py`)."""
    parts = (file.first_part, file.last_part)
    is_same = all((other.first_part, other.last_part) == parts for other in others)
    return is_same and file.row_count > sum(other.row_count for other in others)


def _overlap(one: SealedFile, other: SealedFile) -> bool:
    return (
        (one.table, one.day) == (other.table, other.day)
        and one.first_part <= other.last_part
        and other.first_part <= one.last_part
    )


def _parts_of(
    directory: Path, added: Sequence[SealedFile], known: Collection[int]
) -> Iterator[SealedPart]:
    """What the manifest must say of the parts that these files are made of: by their ledgers, which
    are sealed as well. One that several parts share counts for the last of them.
    """
    numbers = {n for file in added for n in range(file.first_part, file.last_part + 1)}
    for number in sorted(numbers.difference(known)):
        mine = [file for file in added if file.first_part <= number <= file.last_part]
        commits, seqs, row_count = Span(), Span(low=0, high=0), 0
        for file in mine:
            if file.table == "applied" and number == file.last_part:
                rows = pq.read_table(directory / file.name).to_pylist()
                batches = [row for row in rows if row["lane"] not in ("carry", "wide")]
                commits.add(np.array([row["commit_number"] for row in batches], np.int64))
                seqs.add(np.array([row["last_seq"] for row in rows], np.int64))
                row_count += sum(row["row_count"] for row in batches)
        yield SealedPart(
            part_number=number,
            commit_low=max(0, commits.low) if commits.low <= commits.high else 0,
            commit_high=max(0, commits.high),
            row_count=row_count,
            batch_high=max(file.batch_high for file in mine),
            seq_high=seqs.high,
            request_high=max(file.request_high for file in mine),
            sealed_at=time.time(),
        )


def _widest_first(name: str) -> tuple[str, int]:
    """A joined file stands for those it was made of."""
    first, last, _ = name.rpartition("/")[2].split("-", 2)
    return name.rpartition("/")[0], int(first) - int(last)


def _maybe_file(directory: Path, name: str) -> SealedFile | None:
    """What the manifest says of a file, read from the file."""
    table_name, day, file_name = name.split("/")
    table = SEALED_TABLES.get(table_name)
    path = directory / name
    if table is None:
        return None
    columns = (table.time_column, table.arrival_column, "batch_id", "request_number")
    spans = {column: Span() for column in columns}
    wanted = [column for column in spans if column in table.schema.names]
    line_bytes = 0
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            for group in range(file.num_row_groups):
                rows = file.read_row_group(group)
                for column in wanted:
                    spans[column].add(time_values(rows, column))
                if table_name == "rejects":
                    line_bytes += sum(len(line) for line in rows.column("line").to_pylist())
            row_count = file.metadata.num_rows
        byte_count = path.stat().st_size
    except UNREADABLE:
        return None
    first, last, _ = file_name.split("-", 2)
    ends = {
        f"{field}_{end}": getattr(spans[column], end)
        for field, column in (("batch", "batch_id"), ("request", "request_number"))
        if column in wanted
        for end in ("low", "high")
    }
    return SealedFile(
        name=name,
        table=table_name,
        day=day,
        first_part=int(first),
        last_part=int(last),
        row_count=row_count,
        byte_count=byte_count,
        line_bytes=line_bytes,
        time_low_us=spans[table.time_column].low,
        time_high_us=spans[table.time_column].high,
        received_low_us=spans[table.arrival_column].low,
        received_high_us=spans[table.arrival_column].high,
        sealed_at=time.time(),
        **ends,
    )
