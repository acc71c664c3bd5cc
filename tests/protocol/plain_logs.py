"""Contract 3.2 read plainly, with the standard library's JSON, to hold the decoders against.

Slow and by value: duplicates and numbers as sent are kept by parsing into pairs and texts.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from hypothesis import strategies as st

__all__ = ["Log", "json_values", "log_of", "parsed"]

NAMES = ["trace", "debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"]
ALIASES = {
    "warn": "warning", "err": "error", "crit": "critical", "fatal": "critical",
    "emerg": "emergency", "panic": "emergency", "information": "info", "informational": "info",
    "dbg": "debug", "verbose": "trace",
}  # fmt: skip
SYSLOG = ["emergency", "alert", "critical", "error", "warning", "notice", "info", "debug"]
TENS = {10: "trace", 20: "debug", 30: "info", 40: "warning", 50: "error", 60: "critical"}
GUESSES = [
    ("emergency", ["emergency"]), ("alert", ["alert"]), ("critical", ["fatal", "critical"]),
    ("error", ["error", "err", "exception"]), ("warning", ["warn", "warning"]),
    ("notice", ["notice"]), ("info", ["info"]), ("debug", ["debug"]),
]  # fmt: skip


class Log(NamedTuple):
    level: str
    message: str
    time_us: int


class Number(NamedTuple):
    text: str

    @property
    def value(self) -> float:
        whole = re.fullmatch("-?[0-9]+", self.text)
        return int(self.text) if whole and len(self.text) < 4000 else float(self.text)


class Pairs(list[tuple[str, Any]]):
    @property
    def last(self) -> dict[str, Any]:
        return dict(self)


def parsed(text: bytes) -> Any:
    """Raises ValueError for what is no JSON."""
    return json.loads(
        text.decode(),
        parse_int=Number,
        parse_float=Number,
        parse_constant=_no_constant,
        object_pairs_hook=Pairs,
    )


def _no_constant(_: str) -> None:
    raise ValueError("not JSON")


def dumped(value: Any) -> str:
    if isinstance(value, Number):
        return value.text
    if isinstance(value, Pairs):
        return "{" + ",".join(f"{dumped(k)}:{dumped(v)}" for k, v in value) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(dumped, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def log_of(value: Any, received_us: int) -> Log:
    if not isinstance(value, Pairs):
        message = value if isinstance(value, str) else dumped(value)
        return Log("info", message, received_us)
    return Log(_level(value.last), _message(value), _time(value.last, received_us))


def _candidates(fields: dict[str, Any], names: list[str]) -> list[Any]:
    found = [fields[name] for name in names if name in fields]
    for name in names:
        others = [key for key in fields if key.lower() == name and key != name]
        found += [fields[key] for key in others[-1:]]
    return found


def _level(fields: dict[str, Any]) -> str:
    given = _candidates(fields, ["level", "severity"])
    for value in [*given, *([fields["PRIORITY"]] if "PRIORITY" in fields else [])]:
        if isinstance(value, str):
            text = value.strip().lower()
            if len(value) > 64:
                continue
            if text in NAMES:
                return text
            if text in ALIASES:
                return ALIASES[text]
            if re.fullmatch(r"[0-9]{1,16}(\.[0-9]{1,16})?", text) is None:
                continue
            number = float(text)
        elif isinstance(value, Number):
            number = value.value
        else:
            continue
        if number in range(8):
            return SYSLOG[int(number)]
        if 10 <= number <= 60:
            return TENS[int(number // 10 * 10)]
    for level, names in GUESSES:
        for key, value in fields.items():
            if key.lower() in names and not _is_empty(value):
                return level
    return "info"


def _is_empty(value: Any) -> bool:
    if isinstance(value, Number):
        return value.value == 0
    return value in (None, False, "") or value == []


def _message(value: Pairs) -> str:
    for found in _candidates(value.last, ["message", "msg"]):
        if isinstance(found, Number | bool):
            return dumped(found)
        if found:
            return found if isinstance(found, str) else dumped(found)
    return dumped(value)


def _time(fields: dict[str, Any], received_us: int) -> int:
    for value in _candidates(fields, ["timestamp", "time", "ts", "@timestamp", "date"]):
        found = None
        if isinstance(value, Number):
            found = _epoch(value.value)
        elif isinstance(value, str):
            found = _rfc3339(value)
            if found is None and re.fullmatch(r"[0-9]{1,32}(\.[0-9]{1,32})?", value):
                found = _epoch(float(value) if "." in value else int(value))
        earliest = int(datetime(2000, 1, 1, tzinfo=UTC).timestamp()) * 10**6
        if found is not None and earliest <= found <= received_us + 86_400 * 10**6:
            return found
    return received_us


def _epoch(number: float) -> int | None:
    if not 0 <= number < 10**20:
        return None
    if number < 10**11:
        return round(number * 10**6)
    if number < 10**14:
        return round(number * 10**3)
    return round(number if number < 10**17 else number // 1000)


def _rfc3339(text: str) -> int | None:
    match = re.fullmatch(
        r"([0-9]{4}-[0-9]{2}-[0-9]{2})[tT ]([0-9]{2}:[0-9]{2}):([0-9]{2})([.,][0-9]{1,32})?"
        r"([zZ]|[+-][0-9]{2}:?[0-9]{2})?",
        text,
    )
    if match is None or int(match[3]) > 60:
        return None
    zone = (match[5] or "Z").upper().replace("Z", "+00:00").replace(":", "")
    if int(zone[1:3]) > 23 or int(zone[3:]) > 59:
        return None
    try:
        moment = datetime.strptime(f"{match[1]} {match[2]} +0000", "%Y-%m-%d %H:%M %z")
    except ValueError:
        return None
    offset = timedelta(hours=int(zone[1:3]), minutes=int(zone[3:]))
    start = datetime(1970, 1, 1, tzinfo=UTC)
    since = moment - start + (offset if zone[0] == "-" else -offset)
    micros = int((match[4] or ".0")[1:7].ljust(6, "0"))
    return (since // timedelta(seconds=1) + int(match[3])) * 10**6 + micros


_KEYS = [
    "level", "severity", "Level", "LEVEL", "SEVERITY", "PRIORITY", "priority", "message", "msg",
    "Message", "MESSAGE", "MSG", "timestamp", "time", "ts", "@timestamp", "date", "Timestamp",
    "TIME", "DATE", "error", "err", "exception", "warn", "Warning", "info", "debug", "fatal",
    "ALERT", "emergency", "critical", "notice", "x", "log", "\\u006cevel", "m\\u0065ssage", "",
]  # fmt: skip
_VALUES = [
    '"info"', '"WARN"', '" Error "', '"panic"', '"bogus"', '"3"', '"30"', '"45.5"', '"8"', '"61"',
    "0", "1", "7", "8", "9.99", "10", "19", "30", "45.5", "60", "60.5", "61", "3.0", "3.5", "-1",
    "1e1", "1e400", "1e-400", "-0", "0.0", "9" * 400, "9" * 5000, "true", "false", "null", '""',
    "[]", "{}", "[ ]", "{ }", '[0]', '{"a" : 1.50, "a":[ 1 , 2]}', '"caf\\u00e9"', '"café \\/ \\n"',
    '"\\ud83d\\ude00"', '"a\\u0000b"', '"hello world"', '" "', '"2026-11-21T10:00:00Z"',
    '"2026-11-21T10:00:00.123456789Z"', '"2026-11-21t10:00:00.5+02:00"', '"2026-11-21 10:00:00"',
    '"2026-11-21T10:00:60Z"', '"2026-11-21T24:00:00Z"', '"2026-02-29T10:00:00Z"',
    '"2026-11-21T10:00:00,5-0230"', '"2026-11-21T10:00:00x"', '"2026-11-21"',
    '"1999-12-31T23:59:59Z"',
    '"2000-01-01T00:00:00Z"', '"2026-11-22T12:00:00Z"', '"2026-11-22T12:00:00.000001Z"',
    '"9999-12-31T00:00:00Z"', '"Nov 21 10:00:00"', "1795262400", "1795262400.25", "1795262400123",
    "1795262400123456", "1795262400123456789", '"1795262400"', '"1795262400.123"',
    '"1795262400123"',
    "946684799", "946684800", "1795348800", "1795348801", "99999999999", "1e11",
    "18446744073709551616",
]  # fmt: skip


@st.composite
def json_values(draw: st.DrawFn, *, objects_only: bool = False) -> bytes:
    """One JSON value as text: an object with properties that matter, more often than not."""
    if not objects_only and draw(st.integers(0, 4)) == 0:
        return draw(st.sampled_from([*_VALUES, "[1, {}]", "[ [ ] ]"])).encode()
    space = draw(st.sampled_from(["", "", " ", "\t "]))
    value = st.sampled_from(_VALUES)
    pairs = draw(st.lists(st.tuples(st.sampled_from(_KEYS), value), max_size=6))
    inner = f",{space}".join(f'"{key}"{space}:{space}{value}' for key, value in pairs)
    return f"{{{space}{inner}{space}}}".encode()
