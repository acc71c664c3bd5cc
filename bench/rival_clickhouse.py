"""ClickHouse inside this process (`chdb`): a MergeTree table filled by INSERT … SELECT.

The file is read line by line (`LineAsString`, so that the body stays as sent) and the five
properties are taken out either by one typed `JSONExtract` or by five. Merges that go on after
the statement are not waited for.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
from chdb import session

from bench.process import memory_mb, reset_peak_memory
from bench.rivals import RivalPlan, RivalResult

__all__ = ["main"]

_TABLE = """
CREATE TABLE rival.events(
    received_at DateTime64(6, 'UTC'), source LowCardinality(String), account_id String,
    user_id String, created_at DateTime64(3, 'UTC'), action LowCardinality(String),
    session_id String, body String CODEC(ZSTD(1)))
ENGINE = MergeTree ORDER BY tuple()
"""
_COMPRESSION = {"none": "none", "gzip": "gzip", "deflate": "deflate", "zstd": "zstd"}
_SHAPE = "Tuple(accountId String, userId String, createdAt Int64, action String, sessionId String)"


def _select(plan: RivalPlan) -> str:
    source = f"file('{plan.path}', 'LineAsString', 'line String', '{_COMPRESSION[plan.encoding]}')"
    if plan.variant == "tuple":
        return f"""
            SELECT now64(6), 'bench', e.1, e.2, fromUnixTimestamp64Milli(e.3), e.4, e.5, line
            FROM (SELECT line, JSONExtract(line, '{_SHAPE}') AS e FROM {source})
        """
    return f"""
        SELECT now64(6), 'bench', JSONExtractString(line, 'accountId'),
               JSONExtractString(line, 'userId'),
               fromUnixTimestamp64Milli(JSONExtractInt(line, 'createdAt')),
               JSONExtractString(line, 'action'), JSONExtractString(line, 'sessionId'), line
        FROM {source}
    """


def _load(plan: RivalPlan) -> RivalResult:
    open_session: Any = session.Session  # untyped package
    engine = open_session(plan.folder)
    engine.query("CREATE DATABASE IF NOT EXISTS rival ENGINE = Atomic")
    engine.query(_TABLE)
    statement = (
        f"INSERT INTO rival.events {_select(plan)} SETTINGS max_threads = {plan.threads}, "
        f"max_insert_threads = {plan.threads}"
    )
    reset_peak_memory(os.getpid())
    cpu, start = time.process_time(), time.perf_counter()
    engine.query(statement)
    seconds, cpu_s = time.perf_counter() - start, time.process_time() - cpu
    peak = memory_mb(os.getpid())
    rows = int(str(engine.query("SELECT count() FROM rival.events", "TabSeparated")).strip())
    stored = sum(path.stat().st_size for path in Path(plan.folder).rglob("*.bin"))
    engine.close()
    return RivalResult(
        rows=rows, seconds=seconds, cpu_s=cpu_s, peak_rss_mb=peak, stored_mb=stored / 1e6
    )


def main() -> None:
    """Load as the plan on the command line says and print the result."""
    plan = msgspec.json.decode(sys.argv[1], type=RivalPlan)
    sys.stdout.buffer.write(msgspec.json.encode(_load(plan)) + b"\n")


if __name__ == "__main__":
    main()
