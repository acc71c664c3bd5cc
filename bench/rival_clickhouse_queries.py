"""ClickHouse inside this process (`chdb`), asked: a MergeTree table with a `JSON` column.

`python -m bench.rival_clickhouse_queries '{…}'` with a `QueryPlan`; the protocol is
that of `query_rival.py`.

Settings, for its sake: all processors; a table sorted by time; its JSON column with room for every
path of the corpus as a column of its own. Its parts are few from the start and are not merged: they
have several files for each path, and a merge beside an insert opens more of them than 20,000. The
cache of conditions is off: a question asked twice would be answered without looking.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
from chdb import session
from msgspec import Struct

from bench.log_sql import LogNames
from bench.process import memory_mb, reset_peak_memory
from bench.query_rival import Answered, Ask, Loaded, QueryPlan
from bench.rival_clickhouse_logs import select_logs
from bench.rivals import RivalPlan

__all__ = ["main"]

_TABLE = """
CREATE TABLE rival.logs(
    time DateTime64(6, 'UTC'), received_at DateTime64(6, 'UTC'), service LowCardinality(String),
    environment LowCardinality(String), level LowCardinality(String),
    message String CODEC(ZSTD(1)), attributes JSON(max_dynamic_paths = 1024))
ENGINE = MergeTree ORDER BY time
"""
# What makes a part. A million rows of 2 KB took more than 20 GB of memory.
_PART_ROWS = 250_000


class _Engine:
    """A session and its settings."""

    def __init__(self, plan: RivalPlan) -> None:
        open_session: Any = session.Session  # untyped package
        self._session = open_session(plan.folder)
        self.run("CREATE DATABASE IF NOT EXISTS rival ENGINE = Atomic")
        self.run(_TABLE)
        for setting in (
            f"max_threads = {plan.threads}",
            "max_insert_threads = 1",
            f"min_insert_block_size_rows = {_PART_ROWS}",
            "min_insert_block_size_bytes = 0",
            "type_json_skip_duplicated_paths = 1",
            "output_format_json_quote_64bit_integers = 0",
            "use_query_condition_cache = 0",
        ):
            self.run(f"SET {setting}")
        self.run("USE rival")
        self.run("SYSTEM STOP MERGES rival.logs")

    def run(self, sql: str, form: str = "TabSeparated") -> bytes:
        return bytes(self._session.query(sql, form).bytes())

    def number(self, sql: str) -> int:
        return int(self.run(sql))

    def close(self) -> None:
        self._session.close()


def _load(engine: _Engine, plan: RivalPlan, names: LogNames) -> Loaded:
    cpu, start = time.process_time(), time.perf_counter()
    engine.run(f"INSERT INTO rival.logs {select_logs(plan, names)}")
    seconds, cpu_s = time.perf_counter() - start, time.process_time() - cpu
    return Loaded(
        rows=engine.number("SELECT count() FROM rival.logs"),
        seconds=seconds,
        cpu_s=cpu_s,
        stored_mb=sum(path.stat().st_size for path in Path(plan.folder).rglob("*.bin")) / 1e6,
    )


def _answer(engine: _Engine, ask: Ask) -> Answered:
    reset_peak_memory(os.getpid())
    cpu, start = time.process_time(), time.perf_counter()
    for _ in range(ask.times):
        found = engine.run(ask.sql, "JSONCompactEachRow")
    seconds, cpu_s = time.perf_counter() - start, time.process_time() - cpu
    return Answered(
        rows=[msgspec.json.decode(line) for line in found.splitlines()],
        seconds=seconds / ask.times,
        cpu_s=cpu_s / ask.times,
        peak_rss_mb=memory_mb(os.getpid()),
    )


def _say(message: Struct) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(message) + b"\n")
    sys.stdout.buffer.flush()


def main() -> None:
    """Load as the plan on the command line says, then answer until standard input ends."""
    plan = msgspec.json.decode(sys.argv[1], type=QueryPlan)
    engine = _Engine(plan.load)
    try:
        _say(_load(engine, plan.load, plan.names))
        for line in sys.stdin.buffer:
            _say(_answer(engine, msgspec.json.decode(line, type=Ask)))
    finally:
        engine.close()


if __name__ == "__main__":
    main()
