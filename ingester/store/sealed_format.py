"""Sealed files: what the rows of each table are as Parquet that any engine can read.

1. Every public column is there, `id` and `request_id` as text, so that who reads a file alone
   sees what a query of ours does. The numbers they are made of follow, as our own readers need
   them: `request_number` and `line_number`; of rejects also what a replay needs (`column_number`,
   `form`, `credential`), of requests what a repeat is told by (`credential`, `fingerprint`,
   `deduplicated`). A credential is the name of a key, such as `tok_1`, never the key. The views of
   users do not show these columns.
2. Two tables have no public form: `dedup_keys`, the ids of a source as digests, and `applied`, the
   ledger, by which a live tail that was away finds where it stood, and a check what is missing.
3. Rows are in order of event time (`time_column`); of tables without one, of arrival.
4. Payloads are JSON to whoever knows that type of Parquet's, text to others.
5. Behind them are `pulled.SLOTS`: values of common paths of the payload, for our searches.
6. Row groups are so small that a reader of a minute skips nearly all: `GROUP_ROWS_MAX`,
   `_GROUP_BYTES_MAX`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from msgspec import Struct

from .pulled import METADATA_KEY, SLOTS, Puller, chosen_paths
from .sorting import time_values
from .upgrades import PARQUET_METADATA

__all__ = ["GROUP_ROWS_MAX", "SEALED_TABLES", "SealedTable", "Span", "conformed", "write_sealed"]

GROUP_ROWS_MAX = 65_536
_GROUP_BYTES_MAX = 16 * 1024 * 1024
# Level 3 takes twice the time and is 2 % smaller.
_ZSTD_LEVEL = 1

_JSON = pa.json_(pa.string())

_HEX = np.frombuffer("".join(f"{n:02x}" for n in range(256)).encode(), np.uint8).reshape(256, 2)


class SealedTable(Struct, frozen=True, kw_only=True):
    """`schema`: the columns of a part that are kept, as they are sorted. `names`: those of the
    file, in their order, `id` and `request_id` among them. `wide`: no statistics. `is_pulled`:
    common paths of the payload get columns.
    """

    name: str
    schema: pa.Schema
    names: tuple[str, ...]
    time_column: str
    arrival_column: str = "received_at"
    json_column: str | None = None
    is_pulled: bool = False
    wide: tuple[str, ...] = ()

    @property
    def has_requests(self) -> bool:
        return "request_number" in self.names


class Span(Struct):
    """What rows hold, ends included; `low` above `high` before the first of them."""

    low: int = 2**63 - 1
    high: int = -(2**63)

    def add(self, values: np.ndarray[Any, np.dtype[np.int64]]) -> None:
        if len(values):
            self.low = min(self.low, int(values.min()))
            self.high = max(self.high, int(values.max()))


_TYPES: Mapping[str, pa.DataType] = {
    **dict.fromkeys(
        (
            *("request_number", "line_number", "batch_id", "accepted", "rejected", "bytes_in"),
            *("bytes_raw", "deduplicated", "column_number", "commit_number", "first_seq"),
            *("last_seq", "row_count", "request_number_max"),
        ),
        pa.int64(),
    ),
    **dict.fromkeys(("received_at", "created_at", "time", "committed_at"), pa.timestamp("us")),
    **dict.fromkeys(("line", "fingerprint", "digest"), pa.binary()),
    "value": pa.float64(),
}
# Few values: a dictionary pays.
_DICTIONARY_COLUMNS = frozenset({
    *("account_id", "action", "source", "door", "encoding", "environment", "level", "service"),
    *("metric_id", "metric_name", "project_id", "unit", "reason", "field", "form", "credential"),
    "lane",
})
_ENCODINGS = {
    "id": "DELTA_BYTE_ARRAY",
    "request_id": "DELTA_BYTE_ARRAY",
    "request_number": "DELTA_BINARY_PACKED",
    "line_number": "DELTA_BINARY_PACKED",
    "batch_id": "DELTA_BINARY_PACKED",
    "received_at": "DELTA_BINARY_PACKED",
    "commit_number": "DELTA_BINARY_PACKED",
    "committed_at": "DELTA_BINARY_PACKED",
    "created_at": "DELTA_BINARY_PACKED",
    "time": "DELTA_BINARY_PACKED",
}


def _table(name: str, columns: str, time_column: str, **rest: Any) -> SealedTable:
    names = tuple(columns.split())
    stored = [each for each in names if each not in ("id", "request_id")]
    schema = pa.schema({each: _TYPES.get(each, pa.string()) for each in stored})
    return SealedTable(name=name, schema=schema, names=names, time_column=time_column, **rest)


_TABLES = (
    _table(
        "events",
        "id received_at source account_id user_id created_at action session_id body batch_id "
        "request_number line_number",
        "created_at",
        json_column="body",
        is_pulled=True,
        wide=("body",),
    ),
    _table(
        "logs",
        "id time received_at service environment level message attributes batch_id "
        "request_number line_number",
        "time",
        json_column="attributes",
        is_pulled=True,
        wide=("message", "attributes"),
    ),
    _table(
        "metrics",
        "id time received_at project_id metric_id metric_name value unit metadata batch_id "
        "request_number line_number",
        "time",
        json_column="metadata",
        wide=("metadata",),
    ),
    _table(
        "rejects",
        "id received_at door source request_id line_number reason field detail line batch_id "
        "request_number column_number form credential",
        "received_at",
        wide=("line", "detail"),
    ),
    _table(
        "requests",
        "request_id received_at door source accepted rejected bytes_in bytes_raw encoding "
        "idempotency_key request_number credential fingerprint deduplicated",
        "received_at",
        wide=("fingerprint",),
    ),
    _table("dedup_keys", "source digest received_at", "received_at", wide=("digest",)),
    _table(
        "applied",
        "batch_id commit_number lane first_seq last_seq row_count request_number_max committed_at",
        "committed_at",
        arrival_column="committed_at",
    ),
)

SEALED_TABLES: Mapping[str, SealedTable] = {table.name: table for table in _TABLES}


def conformed(rows: pa.Table, table: SealedTable) -> pa.Table:
    """The columns of `table.schema`, of its types, whatever file or part they come from."""
    columns = []
    for field in table.schema:
        column = rows.column(field.name)
        if isinstance(column.type, pa.BaseExtensionType):
            column = pa.chunked_array(
                [chunk.storage for chunk in column.chunks], column.type.storage_type
            )
        columns.append(column if column.type == field.type else column.cast(field.type))
    return pa.Table.from_arrays(columns, schema=table.schema)


def write_sealed(
    descriptor: int, path: Path, table: SealedTable, pieces: Iterable[pa.Table]
) -> dict[str, Any]:
    """Write `pieces`, which are in order, to `path`; what the manifest says of them.

    `descriptor` is open from before the first write, so that its sync reports every failed one.
    """
    spans = {name: Span() for name in (table.time_column, table.arrival_column, "batch_id")}
    spans["request_number"] = Span()
    row_count = line_bytes = 0
    with ExitStack() as stack:
        writer: _Writer | None = None
        for rows in _groups(pieces):
            writer = writer or stack.enter_context(closing(_Writer(path, table, rows)))
            for name, span in spans.items():
                if name in table.schema.names:
                    span.add(_integers(rows, name))
            if table.name == "rejects":
                line_bytes += pc.sum(pc.binary_length(rows.column("line"))).as_py() or 0
            row_count += rows.num_rows
            writer.write(rows)
    os.fdatasync(descriptor)
    told: dict[str, Any] = {
        "row_count": row_count,
        "line_bytes": line_bytes,
        "byte_count": os.fstat(descriptor).st_size,
        "time_low_us": spans[table.time_column].low,
        "time_high_us": spans[table.time_column].high,
        "received_low_us": spans[table.arrival_column].low,
        "received_high_us": spans[table.arrival_column].high,
    }
    for field, name in (("batch", "batch_id"), ("request", "request_number")):
        if name in table.schema.names:
            told |= {f"{field}_low": spans[name].low, f"{field}_high": spans[name].high}
    return told


class _Writer:
    """Writes row groups; the first one decides which paths are pulled out."""

    def __init__(self, path: Path, table: SealedTable, first: pa.Table) -> None:
        self._table = table
        slots = SLOTS if table.is_pulled else ()
        paths = chosen_paths(first.column(table.json_column)) if table.is_pulled else []
        self._puller = Puller(paths) if paths else None
        self._empty_count = len(slots) - len(paths)
        self._schema = _file_schema(table)
        self._all = pa.schema([*self._schema, *(pa.field(name, pa.string()) for name in slots)])
        self._writer = pq.ParquetWriter(path, self._all, **_options(table, slots))
        told = {METADATA_KEY: msgspec.json.encode(paths).decode()} if paths else {}
        self._writer.add_key_value_metadata({**PARQUET_METADATA, **told})

    def write(self, rows: pa.Table) -> None:
        made = _finished(rows, self._table, self._schema)
        pulled: list[Any] = []
        if self._puller is not None:
            pulled += self._puller.columns(rows.column(self._table.json_column))
        pulled += [pa.nulls(rows.num_rows, pa.string())] * self._empty_count
        made = pa.Table.from_arrays([*made.columns, *pulled], schema=self._all)
        self._writer.write_table(made, row_group_size=rows.num_rows)

    def close(self) -> None:
        if self._puller is not None:
            self._puller.close()
        self._writer.close()


def _file_schema(table: SealedTable) -> pa.Schema:
    fields = []
    for name in table.names:
        if name in ("id", "request_id"):
            fields.append(pa.field(name, pa.string()))
        else:
            kind = _JSON if name == table.json_column else table.schema.field(name).type
            fields.append(pa.field(name, kind))
    return pa.schema(fields)


def _options(table: SealedTable, pulled: Sequence[str]) -> dict[str, Any]:
    names = list(table.names)
    at = names.index(table.time_column)
    return {
        "compression": "zstd",
        "compression_level": _ZSTD_LEVEL,
        "use_dictionary": [*(name for name in names if name in _DICTIONARY_COLUMNS), *pulled],
        "column_encoding": {name: _ENCODINGS[name] for name in names if name in _ENCODINGS},
        "write_statistics": [*(name for name in names if name not in table.wide), *pulled],
        "sorting_columns": [pq.SortingColumn(at)],
        "store_schema": False,
        "write_page_checksum": True,
    }


def _groups(pieces: Iterable[pa.Table]) -> Iterable[pa.Table]:
    """The same rows, cut to row groups."""
    held: list[pa.Table] = []
    rows_held = bytes_held = 0
    for piece in pieces:
        for rows in _cut(piece):
            if held and (
                rows_held + rows.num_rows > GROUP_ROWS_MAX
                or bytes_held + rows.nbytes > _GROUP_BYTES_MAX
            ):
                yield pa.concat_tables(held)
                held, rows_held, bytes_held = [], 0, 0
            held.append(rows)
            rows_held += rows.num_rows
            bytes_held += rows.nbytes
    if held:
        yield pa.concat_tables(held)


def _cut(rows: pa.Table) -> Iterable[pa.Table]:
    """Pieces that fit into a row group several at a time."""
    step = max(1, min(8_192, rows.num_rows * (_GROUP_BYTES_MAX // 8) // max(1, rows.nbytes)))
    for start in range(0, rows.num_rows, step):
        yield rows.slice(start, step)


def _finished(rows: pa.Table, table: SealedTable, schema: pa.Schema) -> pa.Table:
    """With the public ids, in the order of the file."""
    request_ids: pa.Array | None = None
    if table.has_requests:
        request_ids = _hex_text(_integers(rows, "request_number"))
    columns: list[Any] = []
    for name in table.names:
        if name == "request_id":
            columns.append(request_ids)
        elif name == "id":
            lines = rows.column("line_number").cast(pa.string()).combine_chunks()
            columns.append(pc.binary_join_element_wise(request_ids, lines, "-"))
        elif name == table.json_column:
            chunks = rows.column(name).chunks
            columns.append(
                pa.chunked_array([pa.ExtensionArray.from_storage(_JSON, c) for c in chunks], _JSON)
            )
        else:
            columns.append(rows.column(name))
    return pa.Table.from_arrays(columns, schema=schema)


def _integers(rows: pa.Table, name: str) -> np.ndarray[Any, np.dtype[np.int64]]:
    return time_values(rows, name)


def _hex_text(numbers: np.ndarray[Any, np.dtype[np.int64]]) -> pa.Array:
    """Each as 16 hexadecimal digits, as `printf('%016x')` makes them."""
    count = len(numbers)
    digits = _HEX[numbers.astype(">i8").view(np.uint8)].reshape(count * 16)
    offsets = np.arange(0, 16 * (count + 1), 16, dtype=np.int32)
    return pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(digits))
