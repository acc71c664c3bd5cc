"""Level, message and time of a log in SQL, as far as a corpus needs them, and what must agree.

Why: a rival that only copies text does less than ours. These expressions are the contract's rules
written for DuckDB, independently of our decoder: explicit level under its names and aliases, the
numbers of syslog and pino, the guess from an `error`, message or the whole payload, RFC 3339 and
epoch times. They leave out what no corpus holds, always to the rival's advantage: other guesses,
other cases of a name than the corpus has, bounds and UTC offsets of a time, fractional levels.

`LogFacts` are asked of both sides; equal facts mean that both did the same work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct

__all__ = [
    "FACTS_SQL",
    "HISTOGRAM_SQL",
    "LEVEL_TEXTS",
    "LogFacts",
    "LogNames",
    "duckdb_select",
    "names_of",
]

_LEVEL_ALIASES = {
    "info": ("information", "informational", "30", "6"),
    "debug": ("dbg", "20", "7"),
    "warning": ("warn", "40", "4"),
    "error": ("err", "50", "3"),
    "notice": ("5",),
    "critical": ("crit", "fatal", "60", "2"),
    "trace": ("verbose", "10"),
    "alert": ("1",),
    "emergency": ("emerg", "panic", "0"),
}
# Text of a level to its stored spelling; the frequent ones first, as a CASE tries them in order.
LEVEL_TEXTS = {
    text: level for level, aliases in _LEVEL_ALIASES.items() for text in (level, *aliases)
}

_OWN_TIME = "FILTER (WHERE time <> received_at)"  # a log without a time has that of its arrival

FACTS_SQL = f"""
SELECT count(*)::BIGINT AS row_count,
       count(*) {_OWN_TIME}::BIGINT AS timed_count,
       min(epoch_us(time)) {_OWN_TIME} AS first_us,
       max(epoch_us(time)) {_OWN_TIME} AS last_us,
       coalesce(sum(epoch_us(time) % 1000003) {_OWN_TIME}, 0)::BIGINT AS time_sum,
       sum(strlen(message))::BIGINT AS message_bytes,
       sum(strlen(attributes::VARCHAR))::BIGINT AS payload_bytes
FROM logs
"""
HISTOGRAM_SQL = "SELECT level, count(*)::BIGINT AS n FROM logs GROUP BY level ORDER BY level"


class LogFacts(Struct, kw_only=True):
    """What both sides must agree on exactly. Times are those of logs that have one."""

    row_count: int
    timed_count: int
    first_us: int | None
    last_us: int | None
    time_sum: int  # of the microseconds, each modulo 1,000,003
    message_bytes: int
    payload_bytes: int
    levels: dict[str, int]


class LogNames(Struct, frozen=True):
    """Under which names a corpus has its levels, messages, times, and errors to guess from."""

    level: tuple[str, ...]
    message: tuple[str, ...]
    time: tuple[str, ...]
    error: tuple[str, ...] = ()

    def all(self) -> tuple[str, ...]:
        return (*self.level, *self.message, *self.time, *self.error)


_SYNTHETIC = LogNames(
    ("level", "severity"), ("message", "msg"), ("timestamp", "time", "ts"), ("error",)
)
_REAL = LogNames(("Level",), ("Message",), ("@timestamp",))
_ANY = LogNames(
    ("level", "severity"),
    ("message", "msg"),
    ("timestamp", "time", "ts", "@timestamp", "date"),
    ("error",),
)


def names_of(data: str) -> LogNames:
    """The names of the corpus that `--data` asks for."""
    return {"synthetic": _SYNTHETIC, "real": _REAL}.get(data, _ANY)


def duckdb_select(objects: str, names: LogNames) -> str:
    """A SELECT of (time, received_at, service, environment, level, message, attributes).

    `objects` is a relation with one column `json`. One `from_json` reads all properties as text.
    """
    shape = ",".join(f'"{name}":"VARCHAR"' for name in names.all())
    level = [*_each(names.level, _level), *_each(names.error, _guess), "'info'"]
    message = [*_each(names.message, "nullif({}, '')".format), "json::VARCHAR"]
    time = [*_each(names.time, _time), "now()::TIMESTAMP"]
    return f"""
        SELECT coalesce({", ".join(time)}), now()::TIMESTAMP, 'bench', 'test',
               coalesce({", ".join(level)}), coalesce({", ".join(message)}), json
        FROM (SELECT json, from_json(json, '{{{shape}}}') AS e FROM {objects})
    """


def _each(names: Sequence[str], expression: Callable[[str], str]) -> list[str]:
    return [expression(f'e."{name}"') for name in names]


def _level(value: str) -> str:
    whens = " ".join(f"WHEN '{text}' THEN '{level}'" for text, level in LEVEL_TEXTS.items())
    return f"CASE lower({value}) {whens} END"


def _guess(value: str) -> str:
    return f"CASE WHEN {value} <> '' THEN 'error' END"


def _time(value: str) -> str:
    """RFC 3339 in UTC, told by its first dash, else an epoch by its size."""
    number = f"TRY_CAST({value} AS DOUBLE)"
    return (
        f"CASE WHEN {value}[5] = '-' THEN TRY_CAST({value} AS TIMESTAMP) ELSE make_timestamp("
        f"CASE WHEN {number} < 1e11 THEN round({number} * 1e6) "
        f"WHEN {number} < 1e14 THEN {number} * 1e3 "
        f"WHEN {number} < 1e17 THEN {number} ELSE {number} / 1e3 END::BIGINT) END"
    )
