"""Printer: a tree as text that parses to the same tree.

Not the text that was typed: white space, needless quotes and parentheses are gone, directives come
last, and a path always says `m.`. A value stays unquoted only if the parser would read it back as
the same value.
"""

from __future__ import annotations

import re

from .ast import (
    And,
    Boolean,
    Chart,
    Contains,
    Filter,
    Node,
    Not,
    Null,
    Or,
    Query,
    Range,
    Select,
    Text,
    TimeFilter,
    Value,
)
from .fields import spelling
from .schema import LOGS, Schema
from .values import classify

__all__ = ["quoted", "to_text"]

# Narrower than what the lexer takes: no colon, so that a word is never a field.
_WORD = re.compile(r"[\w./,;!?%$^+*&|@#'\[\]{}<>=][\w./,;!?%$^+*&|@#'\[\]{}<>=~-]*")
_VALUE = re.compile(r"[\w./][\w./,;:?%$^+*&|#'\[\]{}-]*")
_PATTERN = re.compile(r"[\w./^][\w./,;:!?%$^+*&|@#'{}<>=~-]*")


def to_text(query: Query, *, schema: Schema = LOGS) -> str:
    """`parse(to_text(query)) == query`."""
    parts = [] if query.where is None else [_clauses(query.where, schema)]
    if isinstance(query.where, Or) and _has_directives(query):
        parts = [f"({parts[0]})"]
    parts += [_time(clause) for clause in query.times]
    parts += [f"f:{_plain(service) or quoted(service)}" for service in query.services]
    parts += [_select(item) for item in query.select]
    if query.chart is not None:
        parts += _chart(query.chart)
    return " ".join(parts)


def quoted(text: str) -> str:
    """In double quotes."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _has_directives(query: Query) -> bool:
    return bool(query.times or query.services or query.select or query.chart)


def _clauses(node: Node, schema: Schema) -> str:
    if isinstance(node, Or):
        return " OR ".join(_alternative(item, schema) for item in node.items)
    if isinstance(node, And):
        return " ".join(_clause(item, schema) for item in node.items)
    return _clause(node, schema)


def _alternative(node: Node, schema: Schema) -> str:
    text = _clauses(node, schema)
    return f"({text})" if isinstance(node, Or) else text


def _clause(node: Node, schema: Schema) -> str:
    if isinstance(node, Not):
        inner = _clause(node.item, schema)
        return f"-({inner})" if isinstance(node.item, Not) else f"-{inner}"
    if isinstance(node, And | Or):
        return f"({_clauses(node, schema)})"
    if isinstance(node, Contains):
        is_word = _WORD.fullmatch(node.text) and node.text not in {"OR", "AND"}
        return node.text if is_word else quoted(node.text)
    return _filter(node, schema)


def _filter(clause: Filter, schema: Schema) -> str:
    if clause.operator in {"~", "@>~"}:
        assert isinstance(clause.value, Text)
        pattern = clause.value.text
        value = pattern if _PATTERN.fullmatch(pattern) else quoted(pattern)
        name = spelling(clause.field)
        if clause.operator == "~" and name == schema.message_name:
            return f"~{value}"
        return f"{name}:{clause.operator}{value}"
    operator = "" if clause.operator in {"=", ".."} else clause.operator
    return f"{spelling(clause.field)}:{operator}{_value(clause, clause.value)}"


def _value(clause: Filter, value: Value) -> str:
    match value:
        case Null():
            return "NULL"
        case Boolean():
            return "true" if value.is_true else "false"
        case Range():
            return f"{_end(value.low)}..{_end(value.high)}"
        case Text():
            plain = _plain(value.text)
            is_same = plain and classify(clause.operator, plain, is_quoted=False)[1] == value
            return plain if plain and is_same else quoted(value.text)
        case _:
            return value.spelling


def _end(value: object) -> str:
    return value.text if isinstance(value, Text) else getattr(value, "spelling", "")


def _plain(text: str) -> str | None:
    return text if _VALUE.fullmatch(text) else None


def _time(clause: TimeFilter) -> str:
    operand = clause.operand
    is_plain = re.fullmatch(r'[^\s"()]+', operand) is not None
    return f"t:{clause.operator}{operand if is_plain else quoted(operand)}"


def _select(item: Select) -> str:
    if item.field is None:
        return "s:*"
    return f"s:{spelling(item.field)}" + (f"@{item.alias}" if item.alias else "")


def _chart(chart: Chart) -> list[str]:
    over = "*" if chart.field is None else spelling(chart.field)
    aggregate = f"c:{chart.aggregate}({over})"
    items = [f"t::{chart.bucket}", *(spelling(field) for field in chart.group_by)]
    group_by = f"c:group_by({', '.join(items)})"
    if chart == Chart(chart.aggregate, chart.field):
        return [aggregate]
    return [group_by] if aggregate == "c:count(*)" else [aggregate, group_by]
