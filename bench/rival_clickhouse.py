"""ClickHouse inside this process (`chdb`): a MergeTree table filled by INSERT … SELECT.

The file is read line by line (`LineAsString`, so that the body stays as sent) and the five
properties are taken out either by one typed `JSONExtract` or by five. Merges that go on after
the statement are not waited for.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from chdb import session

from bench.log_sql import LogFacts
from bench.process import memory_mb, reset_peak_memory
from bench.rivals import RivalPlan, RivalResult

__all__ = ["load", "main", "source"]

_TABLE = """
CREATE TABLE rival.loaded(
    received_at DateTime64(6, 'UTC'), source LowCardinality(String), account_id String,
    user_id String, created_at DateTime64(3, 'UTC'), action LowCardinality(String),
    session_id String, body String CODEC(ZSTD(1)))
ENGINE = MergeTree ORDER BY tuple()
"""
_COMPRESSION = {"none": "none", "gzip": "gzip", "deflate": "deflate", "zstd": "zstd"}
_SHAPE = "Tuple(accountId String, userId String, createdAt Int64, action String, sessionId String)"


def source(plan: RivalPlan) -> str:
    """The lines of the plan's file as a relation with one column `line`."""
    compression = _COMPRESSION[plan.encoding]
    return f"file('{plan.path}', 'LineAsString', 'line String', '{compression}')"


def load(
    plan: RivalPlan, ddl: str, select: str, read: Callable[[Any], LogFacts] | None = None
) -> RivalResult:
    """Time `select` into the table `rival.loaded` that `ddl` makes.

    `read` asks the loaded database, untimed.
    """
    open_session: Any = session.Session  # untyped package
    engine = open_session(plan.folder)
    engine.query("CREATE DATABASE IF NOT EXISTS rival ENGINE = Atomic")
    engine.query(ddl)
    statement = (
        f"INSERT INTO rival.loaded {select} SETTINGS max_threads = {plan.threads}, "
        f"max_insert_threads = {plan.threads}"
    )
    reset_peak_memory(os.getpid())
    cpu, start = time.process_time(), time.perf_counter()
    engine.query(statement)
    seconds, cpu_s = time.perf_counter() - start, time.process_time() - cpu
    peak = memory_mb(os.getpid())
    rows = int(str(engine.query("SELECT count() FROM rival.loaded", "TabSeparated")).strip())
    facts = read(engine) if read else None
    stored = sum(path.stat().st_size for path in Path(plan.folder).rglob("*.bin"))
    engine.close()
    return RivalResult(
        rows=rows,
        seconds=seconds,
        cpu_s=cpu_s,
        peak_rss_mb=peak,
        stored_mb=stored / 1e6,
        facts=facts,
    )


def _select(plan: RivalPlan) -> str:
    if plan.variant == "tuple":
        return f"""
            SELECT now64(6), 'bench', e.1, e.2, fromUnixTimestamp64Milli(e.3), e.4, e.5, line
            FROM (SELECT line, JSONExtract(line, '{_SHAPE}') AS e FROM {source(plan)})
        """
    return f"""
        SELECT now64(6), 'bench', JSONExtractString(line, 'accountId'),
               JSONExtractString(line, 'userId'),
               fromUnixTimestamp64Milli(JSONExtractInt(line, 'createdAt')),
               JSONExtractString(line, 'action'), JSONExtractString(line, 'sessionId'), line
        FROM {source(plan)}
    """


def main() -> None:
    """Load as the plan on the command line says and print the result."""
    plan = msgspec.json.decode(sys.argv[1], type=RivalPlan)
    result = load(plan, _TABLE, _select(plan))
    sys.stdout.buffer.write(msgspec.json.encode(result) + b"\n")


if __name__ == "__main__":
    main()
