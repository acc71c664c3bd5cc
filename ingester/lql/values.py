"""Typing of operands: what an unquoted value is.

A quoted value is text. Unquoted, a number is a number and true, false and NULL are themselves
where the operator knows them; a date is a date only to a comparison. Everything else is text.
"""

from __future__ import annotations

import re

from .ast import Boolean, Date, Null, Number, Operator, Range, Text, Value
from .numbers import NUMBER
from .times import maybe_instant

__all__ = ["COMPARISONS", "classify"]

COMPARISONS = frozenset({">", ">=", "<", "<="})

# The ends of a range of texts. What has other characters, as a path with `/../` in it, or a dot
# beside the two, is text.
_RANGE_END = re.compile(r"[\w:+-]+(?:\.[\w:+-]+)*")


def classify(operator: Operator, text: str, *, is_quoted: bool) -> tuple[Operator, Value]:
    """The operand of `operator`, and `..` instead of equality if it is a range."""
    if is_quoted or operator in {"~", "@>~"}:
        return operator, Text(text)
    if operator in COMPARISONS:
        return operator, _ordered(text)
    if operator == "=":
        if text == "NULL":
            return operator, Null()
        if (ends := _maybe_range(text)) is not None:
            return "..", ends
    if text in {"true", "false"}:
        return operator, Boolean(text == "true")
    if NUMBER.fullmatch(text):
        return operator, Number(text)
    return operator, Text(text)


def _ordered(text: str) -> Number | Date | Text:
    if NUMBER.fullmatch(text):
        return Number(text)
    return Date(text) if maybe_instant(text) is not None else Text(text)


def _maybe_range(text: str) -> Range | None:
    low, dots, high = text.partition("..")
    if not dots or not _RANGE_END.fullmatch(low) or not _RANGE_END.fullmatch(high):
        return None
    ends = _ordered(low), _ordered(high)
    if type(ends[0]) is type(ends[1]):
        return Range(*ends)
    return Range(Text(low), Text(high))
