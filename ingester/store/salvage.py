"""What can still be read of a damaged part, and of upload files that no part lists any more.

1. A table is read in runs of row ids; a run that meets a damaged block is tried in smaller ones,
   and only rows of the smallest that fails are lost. They are counted, never guessed.
2. Rows of requests that are stored elsewhere, or will be replayed from the journal, are left out,
   and the ledger with them: whatever is saved is there once.
3. The damaged file is only read; when its WAL is what is damaged, without it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from msgspec import Struct, field

from .damage import UNREADABLE
from .ledger import BULK_AGAIN
from .lost import bulk_lane
from .metadata_copy import put_back_metadata
from .rebuilt_part import RebuiltPart
from .schema import DATA_TABLES
from .upload_files import request_of

__all__ = [
    "Saved",
    "batch_counts",
    "ledger_rows",
    "listing_rows",
    "salvage",
    "without_intervals",
]

# A row group of a part, and one vector.
_RUN_ROWS = 16_384
_SMALL_RUN_ROWS = 2_048
# Those whose rows name their request.
_TABLES = ("upload_files", *DATA_TABLES, "rejects", "requests")

Numbers = npt.NDArray[np.int64]
Interval = tuple[int, int]


class Saved(Struct, kw_only=True):
    """What was saved: rows by table, rows that were not, rows of batches, upload files that are
    listed. `has_ledger`: the batches are known (`ledger`), `lost_batch_rows` what they lack, by
    lane, `scattered` sequences of theirs behind others that are told elsewhere, and `lost_requests`
    how many requests are not told of any more.
    """

    rows: Counter[str] = field(default_factory=Counter)
    lost_rows: Counter[str] = field(default_factory=Counter)
    batches: Counter[int] = field(default_factory=Counter)
    listed: set[str] = field(default_factory=set)
    has_ledger: bool = False
    ledger: set[int] = field(default_factory=set)
    scattered: list[Interval] = field(default_factory=list)
    lost_requests: int = 0
    lost_batch_rows: Counter[str] = field(default_factory=Counter)


def salvage(
    path: Path,
    target: RebuiltPart,
    *,
    without: Numbers,
    sequences: Sequence[Interval],
    uploads: Sequence[Path],
) -> Saved:
    """Put into `target` what can be read of the part at `path`. `without`: requests that are stored
    elsewhere or will be replayed, `sequences` their records, in order. `uploads`: files of this
    part, which will be listed.
    """
    saved = Saved()
    put_back_metadata(path)
    with (
        _without_wal(path) as alone,
        closing(duckdb.connect(":memory:", config={"threads": 1})) as connection,
    ):
        try:
            if not _is_attached(connection, path) and not _is_attached(connection, alone):
                return saved
            replayed = pa.table({"request_number": without})
            connection.execute("CREATE TABLE replayed(request_number BIGINT)")
            connection.register("feed", replayed)
            connection.execute("INSERT INTO replayed SELECT * FROM feed")
            connection.unregister("feed")
        except duckdb.Error:
            return saved
        for table in _TABLES:
            condition = "AND request_number NOT IN (FROM replayed)"
            for rows in _rows(connection, table, condition, saved):
                target.insert(table, rows)
                saved.rows[table] += rows.num_rows
                if table in DATA_TABLES:
                    _count(rows.column("batch_id"), saved.batches)
                elif table == "upload_files":
                    saved.listed.update(rows.column("file_name").to_pylist())
        for rows in _rows(connection, "dedup_keys", "", saved):
            target.insert("dedup_keys", rows)
        for upload in uploads:
            with suppress(*UNREADABLE):
                saved.batches.update(batch_counts(upload))
        _save_ledger(connection, target, saved, sequences)
    return saved


def _is_attached(connection: duckdb.DuckDBPyConnection, path: Path) -> bool:
    quoted = str(path).replace("'", "''")
    try:
        connection.execute(f"ATTACH '{quoted}' AS old (READ_ONLY)")
    except duckdb.Error:
        return False
    return True


@contextmanager
def _without_wal(path: Path) -> Iterator[Path]:
    """The part under another name, beside which there is no WAL: damage there must not take what
    is in the file.
    """
    alone = path.with_name(f"{path.name}.rebuilding-from")
    alone.unlink(missing_ok=True)
    os.link(path, alone)
    try:
        yield alone
    finally:
        alone.unlink()


def batch_counts(path: Path) -> Counter[int]:
    """How many rows of each batch a Parquet file holds. Raises OSError, ArrowException."""
    found: Counter[int] = Counter()
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        for group in range(file.num_row_groups):
            _count(file.read_row_group(group, columns=["batch_id"]).column("batch_id"), found)
    return found


def listing_rows(
    path: Path, first_commit_number: int, *, without: Collection[int], evaluated_ms: int
) -> tuple[Mapping[str, pa.Table], int]:
    """Rows that list an upload file anew, by table, and how many batches it has that are not
    `without`: the list itself, its batches, and the request as far as the file knows it.

    `evaluated_ms`: see `bulk_lane`. Raises OSError, ArrowException.
    """
    counts = batch_counts(path)
    request_number = request_of(path.name)
    assert request_number is not None
    row_count = sum(counts.values())
    counts = Counter({batch: count for batch, count in counts.items() if batch not in without})
    with pq.ParquetFile(path) as file:
        names = set(file.schema_arrow.names)
        wanted = [name for name in ("source", "received_at") if name in names]
        first = file.read_row_group(0, columns=wanted).slice(0, 1).to_pylist()[0]
    tables = {
        "upload_files": pa.table({
            "file_name": [path.name],
            "request_number": [request_number],
            "row_count": [row_count],
            "byte_count": [path.stat().st_size],
        }),
        "applied": pa.table({
            "batch_id": list(counts),
            "commit_number": [first_commit_number + n for n in range(len(counts))],
            "lane": [bulk_lane([path], evaluated_ms)] * len(counts),
            "first_seq": [0] * len(counts),
            "last_seq": [0] * len(counts),
            "row_count": list(counts.values()),
            "request_number_max": [request_number] * len(counts),
            "committed_at": [first["received_at"]] * len(counts),
        }),
        "requests": pa.table({
            "request_number": [request_number],
            "received_at": [first["received_at"]],
            "door": ["unknown"],
            "source": [first.get("source") or ""],
            "accepted": [row_count],
            "rejected": [0],
            "bytes_in": [0],
            "bytes_raw": [0],
            "encoding": ["unknown"],
            "credential": [""],
            "deduplicated": [0],
        }),
    }
    return tables, len(counts)


def ledger_rows(batches: Mapping[int, int], first_commit_number: int, lane: str) -> pa.Table:
    """A ledger for rows whose own is lost."""
    count = len(batches)
    return pa.table({
        "batch_id": list(batches),
        "commit_number": [first_commit_number + n for n in range(count)],
        "lane": [lane] * count,
        "first_seq": [0] * count,
        "last_seq": [0] * count,
        "row_count": list(batches.values()),
        "request_number_max": [0] * count,
        "committed_at": [datetime.now(UTC).replace(tzinfo=None)] * count,
    })


def _rows(
    connection: duckdb.DuckDBPyConnection, table: str, condition: str, saved: Saved
) -> Iterator[pa.Table]:
    try:
        ((count,),) = connection.execute(f"SELECT count(*) FROM old.{table}").fetchall()
    except duckdb.Error:
        return  # the part is of an older schema, or its catalogue is gone
    for start in range(0, count, _RUN_ROWS):
        end = min(count, start + _RUN_ROWS)
        rows = _maybe_read(connection, table, condition, start, end)
        if rows is not None:
            yield rows
            continue
        for low in range(start, end, _SMALL_RUN_ROWS):
            high = min(end, low + _SMALL_RUN_ROWS)
            rows = _maybe_read(connection, table, condition, low, high)
            if rows is None:
                saved.lost_rows[table] += high - low
            else:
                yield rows


def _maybe_read(
    connection: duckdb.DuckDBPyConnection, table: str, condition: str, start: int, end: int
) -> pa.Table | None:
    try:
        return connection.execute(
            f"SELECT * FROM old.{table} WHERE rowid >= {start} AND rowid < {end} {condition}"
        ).to_arrow_table()
    except duckdb.Error:
        return None


def _save_ledger(
    connection: duckdb.DuckDBPyConnection,
    target: RebuiltPart,
    saved: Saved,
    sequences: Sequence[Interval],
) -> None:
    """Batches with the rows that are left of them; without the records that are told elsewhere."""
    condition = "AND NOT (lane LIKE 'bulk%' AND request_number_max IN (FROM replayed))"
    rows = _maybe_read(connection, "applied", condition, 0, 1 << 60)
    if rows is None:
        return
    saved.has_ledger = True
    kept: list[dict[str, Any]] = []
    requests: set[int] = set()
    batches = rows.to_pylist()
    for batch in batches:
        if batch["last_seq"] and batch["lane"] not in ("carry", "wide"):
            own = (batch["first_seq"], batch["last_seq"])
            left = without_intervals(own, sequences)
            if not left:
                continue
            if left != [own]:
                # These records are in this part alone: what was saved of them stays.
                batch["first_seq"], batch["last_seq"] = left[0]
                batch["row_count"] = saved.batches[batch["batch_id"]]
                saved.scattered += left[1:]
        lost = batch["row_count"] - saved.batches[batch["batch_id"]]
        if batch["lane"] not in ("carry", "wide") and lost > 0:
            saved.lost_batch_rows[batch["lane"]] += lost
            batch["row_count"] -= lost
        kept.append(batch)
        if batch["lane"] in ("bulk", BULK_AGAIN):
            requests.add(batch["request_number_max"])
        elif batch["last_seq"] and batch["lane"] != "carry":
            saved.lost_requests += batch["last_seq"] - batch["first_seq"] + 1
    saved.lost_requests += sum(last - first + 1 for first, last in saved.scattered)
    saved.ledger = {batch["batch_id"] for batch in kept}
    saved.lost_requests += len(requests) - saved.rows["requests"]
    # No number that was given is given again: who reads behind a cursor would pass over it.
    carried = [batch for batch in batches if batch["lane"] == "carry"]
    if carried:
        mark = min(carried, key=lambda batch: batch["last_seq"])
        highest = ("batch_id", "commit_number", "request_number_max")
        kept.append(mark | {name: max(batch[name] for batch in batches) for name in highest})
    if kept:
        target.insert("applied", pa.Table.from_pylist(kept, schema=rows.schema))


def without_intervals(own: Interval, others: Sequence[Interval]) -> list[Interval]:
    """What is left of an interval of whole numbers; `others` in order."""
    first, last = own
    left: list[Interval] = []
    for low, high in others:
        if low > first and first <= last:
            left.append((first, min(low - 1, last)))
        first = max(first, high + 1)
    if first <= last:
        left.append((first, last))
    return left


def _count(column: pa.ChunkedArray, into: Counter[int]) -> None:
    for entry in pc.value_counts(column).to_pylist():
        into[entry["values"]] += entry["counts"]
