"""Anchors: a rule's condition taken apart into what many rules can be asked for at once.

Of the clauses that are ANDed at the top of a rule
- those on columns of few values (service, environment, level; source, action) are decided once for
  each combination of them that occurs,
- bare words and phrases are needles, all of them searched for in one pass,
- equalities on a path or on a column of many values are looked up in a table by the row's value,
- the rest is SQL, run only over rows that everything else has left.

1. The parts together mean what the compiled SQL of the whole condition means; `plan` tests that.
2. Nothing here reads a row.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from ..lql.ast import (
    And,
    Boolean,
    Column,
    Contains,
    Filter,
    Node,
    Not,
    Number,
    Or,
    Path,
    Query,
    Text,
)
from ..lql.numbers import forms
from ..lql.paths import location, may_be_escaped
from ..lql.predicates import json_string
from ..lql.schema import Schema
from .needles import NEEDLE_BYTES_MIN

__all__ = ["COMBINED", "Equality", "Parts", "conjuncts", "parts_of"]

# Columns of few values, by relation.
COMBINED = {"logs": ("service", "environment", "level"), "events": ("source", "action")}


class Equality(Struct, frozen=True):
    """`field` is one of `texts` (of a path: JSON texts) or a number written like `doubles`.
    `needle`: what stands in every payload that has it and no escapes.
    """

    field: Path | Column
    texts: tuple[str, ...]
    doubles: tuple[float, ...] = ()
    needle: str | None = None


class Parts(Struct, frozen=True):
    """All of them hold; `rest` is None when nothing is left."""

    combined: tuple[Node, ...]
    needles: tuple[str, ...]
    equalities: tuple[Equality, ...]
    rest: Node | None


def parts_of(query: Query, schema: Schema) -> Parts:
    """Of a query that was parsed as a rule."""
    combined: list[Node] = []
    needles: list[str] = []
    equalities: list[Equality] = []
    rest: list[Node] = []
    few = set(COMBINED[schema.relation])
    for node in conjuncts(query.where):
        equality = _maybe_equality(node, schema)
        if _columns_only(node, few):
            combined.append(node)
        elif isinstance(node, Contains) and len(node.text.encode()) >= NEEDLE_BYTES_MIN:
            needles.append(node.text)
        elif equality is not None:
            equalities.append(equality)
        else:
            rest.append(node)
    left = None if not rest else rest[0] if len(rest) == 1 else And(tuple(rest))
    return Parts(tuple(combined), tuple(needles), tuple(equalities), left)


def conjuncts(node: Node | None) -> Iterator[Node]:
    if isinstance(node, And):
        for item in node.items:
            yield from conjuncts(item)
    elif node is not None:
        yield node


def _columns_only(node: Node, few: set[str]) -> bool:
    """Whether a node looks at nothing but columns of few values."""
    match node:
        case And() | Or():
            return all(_columns_only(item, few) for item in node.items)
        case Not():
            return _columns_only(node.item, few)
        case Filter():
            return isinstance(node.field, Column) and node.field.name in few
        case _:
            return False


def _maybe_equality(node: Node, schema: Schema) -> Equality | None:
    if not isinstance(node, Filter) or node.operator not in {"=", "@>"}:
        return None
    field, value = node.field, node.value
    if isinstance(field, Column):
        is_plain = schema.columns[field.name] == field.name and field.name != schema.level_name
        if is_plain and node.operator == "=" and isinstance(value, Text):
            return Equality(field, (value.text,))
        return None
    # The payload's own level has a meaning of its own, and some paths no single spelling.
    if field.keys == (schema.level_name,) or location(field.keys) is None:
        return None
    match value:
        case Text():
            written = json_string(value.text)
            needle = written[1:]
            is_plain = not may_be_escaped(value.text) and len(needle.encode()) >= NEEDLE_BYTES_MIN
            return Equality(field, (written,), needle=needle if is_plain else None)
        case Boolean():
            name = "true" if value.is_true else "false"
            return Equality(field, (name, f'"{name}"'))
        case Number():
            texts, doubles = forms(value.spelling)
            return Equality(field, (*texts, json_string(value.spelling)), tuple(doubles))
        case _:
            return None
