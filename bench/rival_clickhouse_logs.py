"""ClickHouse's own loader of logs, by the same rules as DuckDB's (`log_sql.py`).

One typed `JSONExtract` reads all properties as text; what is absent is the empty text.
"""

from __future__ import annotations

import sys
from typing import Any

import msgspec

from bench.log_sql import LEVEL_TEXTS, LogFacts, LogNames, names_of
from bench.rival_clickhouse import load, source
from bench.rivals import RivalPlan

__all__ = ["main", "select_logs"]

_TABLE = """
CREATE TABLE rival.loaded(
    time DateTime64(6, 'UTC'), received_at DateTime64(6, 'UTC'), service LowCardinality(String),
    environment LowCardinality(String), level LowCardinality(String),
    message String CODEC(ZSTD(1)), attributes String CODEC(ZSTD(1)))
ENGINE = MergeTree ORDER BY tuple()
"""
_FACTS = """
SELECT toInt64(count()) AS row_count, toInt64(countIf(time != received_at)) AS timed_count,
       minIf(toUnixTimestamp64Micro(time), time != received_at) AS first_us,
       maxIf(toUnixTimestamp64Micro(time), time != received_at) AS last_us,
       sumIf(toUnixTimestamp64Micro(time) % 1000003, time != received_at) AS time_sum,
       sum(length(message)) AS message_bytes, sum(length(attributes)) AS payload_bytes
FROM rival.loaded
"""
_HISTOGRAM = "SELECT level, toInt64(count()) AS n FROM rival.loaded GROUP BY level ORDER BY level"


def select_logs(plan: RivalPlan, names: LogNames) -> str:
    """Time, both names, level, message and the line itself, out of the file of the plan."""
    places = {name: f"e.{place}" for place, name in enumerate(names.all(), 1)}
    shape = ", ".join(f"`{name}` String" for name in names.all())
    texts, levels = list(LEVEL_TEXTS), list(LEVEL_TEXTS.values())
    level = [
        f"nullIf(transform(lower({places[n]}), {texts}, {levels}, ''), '')" for n in names.level
    ]
    guess = [f"if({places[name]} != '', 'error', NULL)" for name in names.error]
    message = [f"nullIf({places[name]}, '')" for name in names.message]
    time = [f"parseDateTime64BestEffortOrNull({places[name]}, 6, 'UTC')" for name in names.time]
    return f"""
        SELECT coalesce({", ".join(time)}, now64(6)), now64(6), 'bench', 'test',
               coalesce({", ".join((*level, *guess))}, 'info'),
               coalesce({", ".join(message)}, line), line
        FROM (SELECT line, JSONExtract(line, 'Tuple({shape})') AS e FROM {source(plan)})
    """


def _facts(engine: Any) -> LogFacts:
    settings = " SETTINGS output_format_json_quote_64bit_integers = 0"
    facts = msgspec.json.decode(str(engine.query(_FACTS + settings, "JSONEachRow")))
    if not facts["timed_count"]:
        facts["first_us"] = facts["last_us"] = None
    lines = str(engine.query(_HISTOGRAM + settings, "JSONEachRow")).splitlines()
    rows = [msgspec.json.decode(line) for line in lines]
    return msgspec.convert({**facts, "levels": {r["level"]: r["n"] for r in rows}}, LogFacts)


def main() -> None:
    """Load as the plan on the command line says and print the result."""
    plan = msgspec.json.decode(sys.argv[1], type=RivalPlan)
    result = load(plan, _TABLE, select_logs(plan, names_of(plan.data)), _facts)
    sys.stdout.buffer.write(msgspec.json.encode(result) + b"\n")


if __name__ == "__main__":
    main()
