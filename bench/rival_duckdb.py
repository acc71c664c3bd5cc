"""DuckDB's own loader, as its documentation would have it done.

`read_ndjson_objects` + `from_json` with the five properties, into a file database with the
current storage version and zstd for the body; committed and checkpointed.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import msgspec

from bench.log_sql import LogFacts
from bench.process import memory_mb, reset_peak_memory
from bench.rivals import RivalPlan, RivalResult

__all__ = ["load", "main", "objects"]

_TABLE = """
CREATE TABLE events(
    received_at TIMESTAMP, source VARCHAR, account_id VARCHAR, user_id VARCHAR,
    created_at TIMESTAMP, action VARCHAR, session_id VARCHAR, body JSON USING COMPRESSION zstd)
"""
_SHAPE = (
    '{"accountId":"VARCHAR","userId":"VARCHAR","createdAt":"BIGINT",'
    '"action":"VARCHAR","sessionId":"VARCHAR"}'
)
_COMPRESSION = {"none": "uncompressed", "gzip": "gzip", "zstd": "zstd"}


def load(
    plan: RivalPlan,
    ddl: str,
    table: str,
    select: str,
    read: Callable[[Any], LogFacts] | None = None,
) -> RivalResult:
    """Time `select` into `table` of a fresh file; `read` asks the loaded database, untimed."""
    database = Path(plan.folder) / "rival.duckdb"
    connection = duckdb.connect(":memory:", config={"threads": str(plan.threads)})
    connection.execute(f"ATTACH '{database}' AS rival (STORAGE_VERSION 'v1.5.0')")
    connection.execute("USE rival")
    connection.execute("SET checkpoint_threshold = '1TB'")  # one checkpoint, at the end
    if plan.variant == "unordered":
        connection.execute("SET preserve_insertion_order = false")
    connection.execute(ddl)
    connection.execute("CHECKPOINT rival")
    reset_peak_memory(os.getpid())
    cpu, start = time.process_time(), time.perf_counter()
    connection.execute(f"INSERT INTO {table} {select}")
    connection.execute("CHECKPOINT rival")
    seconds, cpu_s = time.perf_counter() - start, time.process_time() - cpu
    peak = memory_mb(os.getpid())
    count = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    assert count is not None
    facts = read(connection) if read else None
    connection.close()
    return RivalResult(
        rows=int(count[0]),
        seconds=seconds,
        cpu_s=cpu_s,
        peak_rss_mb=peak,
        stored_mb=database.stat().st_size / 1e6,
        facts=facts,
    )


def objects(plan: RivalPlan) -> str:
    """The lines of the plan's file as a relation with one column `json`."""
    compression = _COMPRESSION[plan.encoding]
    return f"read_ndjson_objects('{plan.path}', compression = '{compression}')"


def _load(plan: RivalPlan) -> RivalResult:
    select = f"""
        SELECT now()::TIMESTAMP, 'bench', e.accountId, e.userId, epoch_ms(e.createdAt),
               e.action, e.sessionId, json
        FROM (SELECT json, from_json(json, '{_SHAPE}') AS e FROM {objects(plan)})
    """
    return load(plan, _TABLE, "events", select)


def main() -> None:
    """Load as the plan on the command line says and print the result."""
    plan = msgspec.json.decode(sys.argv[1], type=RivalPlan)
    sys.stdout.buffer.write(msgspec.json.encode(_load(plan)) + b"\n")


if __name__ == "__main__":
    main()
