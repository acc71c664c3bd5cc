"""The meaning of a query in plain Python, row by row: what the compiled SQL is compared with.

Written from the definition of the language, not from the compiler: it walks decoded JSON.
Integers are compared exactly, everything else as doubles; regexes are Python's, so tests keep to
patterns that mean the same in both.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

from ingester.lql.ast import (
    And,
    Boolean,
    Column,
    Contains,
    Date,
    Filter,
    Node,
    Not,
    Null,
    Number,
    Or,
    Range,
    Text,
)

LEVELS = ["trace", "debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"]
ALIASES = {
    "warn": "warning",
    "err": "error",
    "crit": "critical",
    "fatal": "critical",
    "emerg": "emergency",
    "panic": "emergency",
    "dbg": "debug",
    "verbose": "trace",
    "information": "info",
    "informational": "info",
}
SYSLOG = ["emergency", "alert", "critical", "error", "warning", "notice", "info", "debug"]
TENS = {1: "trace", 2: "debug", 3: "info", 4: "warning", 5: "error", 6: "critical"}

_NUMERIC = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_ISO = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt ].*)?")
_MISSING = object()


def holds(node: Node | None, log: dict[str, Any]) -> bool:
    """Whether a log satisfies a filter. `attributes` is decoded JSON."""
    match node:
        case None:
            return True
        case And():
            return all(holds(item, log) for item in node.items)
        case Or():
            return any(holds(item, log) for item in node.items)
        case Not():
            return not holds(node.item, log)
        case Contains():
            text = node.text
            return text in log["message"] if log.get("message") is not None else False
        case Filter():
            return _filter(node, log)
    raise AssertionError(node)


def _filter(clause: Filter, log: dict[str, Any]) -> bool:
    field = clause.field
    is_null_test = isinstance(clause.value, Null) and clause.operator == "="
    if isinstance(field, Column):
        name = {"event_message": "message"}.get(field.name, field.name)
        value = log.get(name)
        if is_null_test:
            return value is None
        if value is None:
            return False
        if name == "level":
            return _level(clause, value, is_column=True)
        return _scalar(clause, value)
    ends = _ends(log.get("attributes", _MISSING), field.keys)
    if field.keys == ("level",):
        if all(end is _MISSING for end in ends):
            return _filter(Filter(Column("level"), clause.operator, clause.value), log)
        if not is_null_test:
            found = [value for value in _elements(ends) if value is not _MISSING]
            return any(_level(clause, value, is_column=False) for value in found)
    elif len(field.keys) > 1 and not field.is_exact and all(end is _MISSING for end in ends):
        ends = _ends(log.get("attributes", _MISSING), (".".join(field.keys),))
    if is_null_test:
        if all(end is _MISSING for end in ends):
            return True
        return any(value is _MISSING or value is None for value in _elements(ends))
    return any(_scalar(clause, value) for value in _elements(ends) if value is not _MISSING)


def _ends(document: Any, keys: tuple[str, ...]) -> list[Any]:
    """The ends of a path, `_MISSING` for each element that lacks a step."""
    found = [document]
    for key in keys:
        found = [
            value.get(key, _MISSING) if isinstance(value, dict) else _MISSING
            for value in _elements(found)
        ]
    return found


def _elements(values: list[Any]) -> list[Any]:
    return [e for value in values for e in (value if isinstance(value, list) else [value])]


def _level_of(value: Any) -> str | None:
    if isinstance(value, str):
        name = value.lower()
        if name in LEVELS or name in ALIASES:
            return ALIASES.get(name, name)
        if not re.fullmatch(r"(0|[1-9][0-9]?)(\.0)?", name):
            return None
        value = float(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or value not in range(61):
        return None
    if 0 <= value <= 7:
        return SYSLOG[int(value)]
    return TENS[int(value) // 10] if 10 <= value <= 60 else None


def _level(clause: Filter, value: Any, *, is_column: bool) -> bool:
    def wanted(operand: Any) -> int | None:
        level = None
        if isinstance(operand, Text):
            name = operand.text.lower()
            level = ALIASES.get(name, name if name in LEVELS else None)
        elif isinstance(operand, Number) and is_column:
            level = _level_of(float(operand.spelling))
        return None if level is None else LEVELS.index(level)

    operand = clause.value
    found = _level_of(value)
    if isinstance(operand, Range):
        low, high = wanted(operand.low), wanted(operand.high)
        if low is not None and high is not None:
            return found is not None and low <= LEVELS.index(found) <= high
    elif clause.operator not in {"~", "@>~"} and (rank := wanted(operand)) is not None:
        if found is None:
            return False
        have = LEVELS.index(found)
        return {
            "=": have == rank,
            "@>": have == rank,
            ">": have > rank,
            ">=": have >= rank,
            "<": have < rank,
            "<=": have <= rank,
        }[clause.operator]
    if isinstance(operand, Text) and clause.operator in {"~", "@>~"}:
        return _scalar(clause, found or value)
    if isinstance(operand, Text) and clause.operator in {"=", "@>"}:
        return isinstance(value, str) and value.lower() == operand.text.lower()
    return _scalar(clause, value)


def _scalar(clause: Filter, value: Any) -> bool:
    operand = clause.value
    if value is None or isinstance(value, dict | list):
        return False
    if clause.operator in {"~", "@>~"}:
        assert isinstance(operand, Text)
        text = value if isinstance(value, str) else json.dumps(value)
        return re.search(operand.text, text) is not None
    if clause.operator in {"=", "@>"}:
        return _equal(operand, value)
    bounds: list[tuple[str, Any]] = [(clause.operator, operand)]
    if isinstance(operand, Range):
        bounds = [(">=", operand.low), ("<=", operand.high)]
    return all(_ordered(operator, bound, value) for operator, bound in bounds)


def _equal(operand: Any, value: Any) -> bool:
    match operand:
        case Text():
            return isinstance(value, str) and value == operand.text
        case Boolean():
            return value is operand.is_true or value == ("true" if operand.is_true else "false")
        case Number():
            spelling = operand.spelling
            if isinstance(value, str):
                return value == spelling
            if isinstance(value, bool):
                return False
            return bool(_exact(spelling) == _exact(json.dumps(value)))
    raise AssertionError(operand)


def _exact(spelling: str) -> Fraction:
    return Fraction(Decimal(spelling))


def _ordered(operator: str, bound: Any, value: Any) -> bool:
    have: Any
    want: Any
    match bound:
        case Text():
            if not isinstance(value, str):
                return False
            have, want = value.encode(), bound.text.encode()
        case Number():
            text = value if isinstance(value, str) else json.dumps(value)
            if not _NUMERIC.fullmatch(text):
                return False
            have, want = _exact(text), _exact(bound.spelling)
        case Date():
            have, want = _instant(value), _instant(bound.spelling)
            if have is None:
                return False
        case _:
            raise AssertionError(bound)
    return bool(
        {">": have > want, ">=": have >= want, "<": have < want, "<=": have <= want}[operator]
    )


def _instant(value: Any) -> datetime | None:
    if not isinstance(value, str) or not _ISO.fullmatch(value):
        return None
    try:
        found = datetime.fromisoformat(value.upper())
    except ValueError:
        return None
    if found.tzinfo is None:
        return found.replace(tzinfo=UTC)
    offset = found.utcoffset() or timedelta()
    return found.replace(tzinfo=UTC) - offset
