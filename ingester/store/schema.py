"""Tables of a part and the public views over all rows (contract section 4).

The store itself has no such views: the query process makes them over the files that a query needs,
and searches name what they read (`relations.py`). So a commit costs the same however many sealed
files there are.

A part holds inserts only: no key, index or default, and no DDL after it was made (constraints cost
4× on insert, and replay faults cluster there). Public names are views, so that the tables can
carry numbers where the contract shows text:

- `id` is `<request number in hex>-<line>`: made from what the journal record froze, so it is the
  same after a restart, a replay, and later sealing.
- `request_id` is the request number in hex, as the client saw it.

Compression is set where measurement said so (1 M events, one thread): zstd for payloads, none for
user and session ids: trying the other methods on them costs 0.3 CPU-s for 30 bytes a row, in a
file that sealing replaces.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = [
    "DATA_TABLES",
    "PART_DDL",
    "SCHEMA_VERSION",
    "VERSION_DDL",
    "VIEW_NAMES",
    "parquet_relation",
    "view_select",
    "views_named_in",
]

SCHEMA_VERSION = 3

# Tables whose rows come in batches and, of large uploads, as Parquet files.
DATA_TABLES = ("events", "logs", "metrics")

# What each version after the first brought.
VERSION_DDL: Mapping[int, Sequence[str]] = {
    2: (
        "CREATE TABLE {part}.logs(request_number BIGINT, line_number BIGINT, "
        "received_at TIMESTAMP, service VARCHAR, environment VARCHAR, time TIMESTAMP, "
        "level VARCHAR, "
        "message VARCHAR USING COMPRESSION zstd, attributes JSON USING COMPRESSION zstd, "
        "batch_id BIGINT)",
        "CREATE TABLE {part}.metrics(request_number BIGINT, line_number BIGINT, "
        "received_at TIMESTAMP, project_id VARCHAR, metric_id VARCHAR, metric_name VARCHAR, "
        "value DOUBLE, unit VARCHAR, time TIMESTAMP, metadata JSON, batch_id BIGINT)",
        "CREATE TABLE {part}.dedup_keys(source VARCHAR, digest BLOB, received_at TIMESTAMP)",
        "ALTER TABLE {part}.requests ADD COLUMN deduplicated BIGINT",
    ),
    # Where in the line, and what the body was read as: a replay needs it.
    3: (
        "ALTER TABLE {part}.rejects ADD COLUMN column_number BIGINT",
        "ALTER TABLE {part}.rejects ADD COLUMN form VARCHAR",
    ),
}

PART_DDL = (
    "CREATE TABLE {part}.part_info(schema_version INTEGER, part_number BIGINT, "
    "created_at TIMESTAMP)",
    "CREATE TABLE {part}.applied(batch_id BIGINT, commit_number BIGINT, lane VARCHAR, "
    "first_seq BIGINT, last_seq BIGINT, row_count BIGINT, request_number_max BIGINT, "
    "committed_at TIMESTAMP)",
    "CREATE TABLE {part}.events(request_number BIGINT, line_number BIGINT, "
    "received_at TIMESTAMP, source VARCHAR, account_id VARCHAR, "
    "user_id VARCHAR USING COMPRESSION uncompressed, "
    "created_at TIMESTAMP, action VARCHAR, session_id VARCHAR USING COMPRESSION uncompressed, "
    "body JSON USING COMPRESSION zstd, batch_id BIGINT)",
    "CREATE TABLE {part}.upload_files(file_name VARCHAR, request_number BIGINT, "
    "row_count BIGINT, byte_count BIGINT)",
    "CREATE TABLE {part}.rejects(request_number BIGINT, line_number BIGINT, "
    "received_at TIMESTAMP, door VARCHAR, source VARCHAR, reason VARCHAR, field VARCHAR, "
    "detail VARCHAR, line BLOB, batch_id BIGINT)",
    "CREATE TABLE {part}.requests(request_number BIGINT, received_at TIMESTAMP, door VARCHAR, "
    "source VARCHAR, accepted BIGINT, rejected BIGINT, bytes_in BIGINT, bytes_raw BIGINT, "
    "encoding VARCHAR, idempotency_key VARCHAR, credential VARCHAR, fingerprint BLOB)",
    *(statement for statements in VERSION_DDL.values() for statement in statements),
)

_ID = "printf('%016x-%d', request_number, line_number) AS id"
_REQUEST_ID = "printf('%016x', request_number) AS request_id"

_VIEWS = {
    "events": f"SELECT {_ID}, received_at, source, account_id, user_id, created_at, action, "
    "session_id, body, batch_id FROM {rows}",
    "logs": f"SELECT {_ID}, time, received_at, service, environment, level, message, attributes, "
    "batch_id FROM {rows}",
    "metrics": f"SELECT {_ID}, time, received_at, project_id, metric_id, metric_name, value, unit, "
    "metadata, batch_id FROM {rows}",
    "rejects": f"SELECT {_ID}, received_at, door, source, {_REQUEST_ID}, line_number, reason, "
    "field, detail, line, batch_id FROM {rows}",
    "requests": f"SELECT {_REQUEST_ID}, received_at, door, source, accepted, rejected, bytes_in, "
    "bytes_raw, encoding, idempotency_key FROM {rows}",
}

VIEW_NAMES = tuple(_VIEWS)

_NAMES = re.compile(rf"\b(?:{'|'.join(VIEW_NAMES)})\b", re.IGNORECASE)


def views_named_in(sql: str) -> tuple[str, ...]:
    """The public views of rows that a text may name, whatever else the words in it mean."""
    found = {name.lower() for name in _NAMES.findall(sql)}
    return tuple(name for name in VIEW_NAMES if name in found)


def view_select(name: str, parts: Sequence[str], files: Sequence[Path]) -> str:
    """What the public view `name` is over `parts` (schemas, oldest first) and Parquet files."""
    assert parts
    relations = [f"{part}.{name}" for part in parts]
    if files:
        relations.append(parquet_relation(files))
    return " UNION ALL ".join(_VIEWS[name].format(rows=relation) for relation in relations)


def parquet_relation(paths: Sequence[Path]) -> str:
    """A table function over files with the columns of the table."""
    names = ", ".join("'" + str(path).replace("'", "''") + "'" for path in paths)
    return f"read_parquet([{names}])"
