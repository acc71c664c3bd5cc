"""Severity: the order of levels and the spellings that stand for each.

Names and aliases in any case, numbers as loggers write them: 0 to 7 of syslog, 10 to 60 of pino
and bunyan rounded down. A value that is none of these has no level.
"""

from __future__ import annotations

from collections.abc import Iterable

from .ast import Number, Text, Value
from .numbers import decimal_of

__all__ = ["ALIASES", "LEVELS", "level_of", "level_of_number", "maybe_level", "spellings"]

LEVELS = (
    "trace",
    "debug",
    "info",
    "notice",
    "warning",
    "error",
    "critical",
    "alert",
    "emergency",
)

ALIASES = {
    "verbose": "trace",
    "dbg": "debug",
    "information": "info",
    "informational": "info",
    "warn": "warning",
    "err": "error",
    "crit": "critical",
    "fatal": "critical",
    "emerg": "emergency",
    "panic": "emergency",
}

_SYSLOG = ("emergency", "alert", "critical", "error", "warning", "notice", "info", "debug")
_TENS = {1: "trace", 2: "debug", 3: "info", 4: "warning", 5: "error", 6: "critical"}


def level_of(text: str) -> str | None:
    """The level a name or an alias stands for."""
    name = text.lower()
    return name if name in LEVELS else ALIASES.get(name)


def level_of_number(number: float) -> str | None:
    """The level a number stands for."""
    if 0 <= number <= 7:
        return _SYSLOG[int(number)] if number == int(number) else None
    return _TENS.get(int(number // 10)) if 10 <= number <= 60 else None


def maybe_level(operand: Value, *, with_numbers: bool) -> str | None:
    """The level an operand stands for."""
    if isinstance(operand, Text):
        return level_of(operand.text)
    if isinstance(operand, Number) and with_numbers:
        return level_of_number(float(decimal_of(operand.spelling)))
    return None


def spellings(levels: Iterable[str]) -> list[str]:
    """Every lower-case text that stands for one of `levels`."""
    wanted = set(levels)
    found = [name for name in LEVELS if name in wanted]
    found += [alias for alias, name in ALIASES.items() if name in wanted]
    numbers = [n for n in range(61) if level_of_number(n) in wanted]
    return found + [f"{n}{end}" for n in numbers for end in ("", ".0")]
