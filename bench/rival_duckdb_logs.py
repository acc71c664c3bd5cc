"""DuckDB's own loader of logs: time, level and message taken out in SQL (`log_sql.py`).

Its table has the columns of ours; message and payload are compressed as ours are.
"""

from __future__ import annotations

import sys
from typing import Any

import msgspec

from bench.log_sql import FACTS_SQL, HISTOGRAM_SQL, LogFacts, duckdb_select, names_of
from bench.rival_duckdb import load, objects
from bench.rivals import RivalPlan

__all__ = ["main"]

_TABLE = """
CREATE TABLE logs(
    time TIMESTAMP, received_at TIMESTAMP, service VARCHAR, environment VARCHAR, level VARCHAR,
    message VARCHAR USING COMPRESSION zstd, attributes JSON USING COMPRESSION zstd)
"""


def _facts(connection: Any) -> LogFacts:
    found = connection.execute(FACTS_SQL)
    names = [column[0] for column in found.description]
    facts = dict(zip(names, found.fetchone(), strict=True))
    levels = dict(connection.execute(HISTOGRAM_SQL).fetchall())
    return msgspec.convert({**facts, "levels": levels}, LogFacts)


def main() -> None:
    """Load as the plan on the command line says and print the result."""
    plan = msgspec.json.decode(sys.argv[1], type=RivalPlan)
    select = duckdb_select(objects(plan), names_of(plan.data))
    result = load(plan, _TABLE, "logs", select, _facts)
    sys.stdout.buffer.write(msgspec.json.encode(result) + b"\n")


if __name__ == "__main__":
    main()
