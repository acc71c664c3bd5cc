"""Completion: what could stand at the cursor, from what the parser was reading there.

The text before the cursor is parsed; where that ends, the parser was at a clause, a value, an
aggregate, and so on, and only what fits there and starts as typed is suggested. It knows the names
of columns, levels, times and aggregates; fields of the attributes and their values are given by
whoever has seen the rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal

from msgspec import Struct

from ..errors import QueryError
from .ast import Column, Path, Text
from .directives import AGGREGATES, BUCKETS
from .fields import display_name, resolve, spelling
from .levels import LEVELS
from .lexer import Lexer, Place
from .parser import place_at_end
from .printer import quoted
from .schema import LOGS, Schema
from .values import classify

__all__ = ["Suggestion", "complete"]

_SUGGESTIONS_MAX = 100

_OPERATORS = (">", ">=", "<", "<=", "~", "@>", "@>~")
_TIMES = (
    *("now", "today", "yesterday", "last@5m", "last@1h", "last@24h", "last@7d"),
    *("this@hour", "this@day", "this@week", "this@month", "this@year"),
)
_DIRECTIVES = ("t:", "c:", "s:", "f:")

# What is left of the word under the cursor, replaced with it.
_REST = {"clause": re.compile(r"[\w.`]*:?"), "value": re.compile(r'[^\s()"]*')}
_PLAIN = re.compile(r"[\w./][\w./:-]*")

Kind = Literal["field", "operator", "value", "keyword"]


class Suggestion(Struct, frozen=True):
    """Put `text` in the place of the characters from `start` to `end` (offsets)."""

    text: str
    kind: Kind
    start: int
    end: int


def complete(
    query: str,
    cursor: int,
    fields: Mapping[str, Iterable[object]] | Iterable[str] = (),
    *,
    schema: Schema = LOGS,
) -> list[Suggestion]:
    """What could be typed at `cursor` (an offset), the likeliest first.

    `fields`: names as results show them (`metadata.user.id`, `service`), perhaps with values
    seen in them.
    """
    cursor = max(0, min(cursor, len(query)))
    before = query[:cursor]
    place = place_at_end(before, schema=schema)
    typed = before[place.start :]
    known: dict[str, list[object]] = (
        {name: list(values) for name, values in fields.items()}
        if isinstance(fields, Mapping)
        else {name: [] for name in fields}
    )
    rest = _REST["clause" if place.kind == "clause" else "value"].match(query, cursor)
    assert rest is not None
    found: dict[str, Suggestion] = {}
    for text, kind in _candidates(place, known, before, schema):
        if text.startswith(typed) and text != typed:
            found.setdefault(text, Suggestion(text, kind, place.start, rest.end()))
    return list(found.values())[:_SUGGESTIONS_MAX]


def _candidates(
    place: Place, known: dict[str, list[object]], before: str, schema: Schema
) -> list[tuple[str, Kind]]:
    names = [*schema.columns, *(n for name in known if (n := _name(name, schema)) is not None)]
    texts: list[str]
    match place.kind:
        case "clause":
            found: list[tuple[str, Kind]] = [(f"{name}:", "field") for name in names]
            # The long spelling for whoever has begun to type it.
            found += [(f"metadata{n[1:]}:", "field") for n in names if n.startswith("m.")]
            found += [(name, "keyword") for name in _DIRECTIVES]
            if before[: place.start].strip(" (-"):
                found += [("OR", "keyword"), ("AND", "keyword")]
            return found
        case "value":
            return _values(place, known, schema)
        case "time":
            operators = [] if place.operator else [">", ">=", "<", "<="]
            return [*((t, "value") for t in _TIMES), *((o, "operator") for o in operators)]
        case "aggregate":
            return [(f"{name}(", "keyword") for name in (*AGGREGATES, "group_by")]
        case "group":
            texts = [f"t::{bucket}" for bucket in dict.fromkeys(BUCKETS.values())]
            return [*((t, "keyword") for t in texts), *((name, "field") for name in names)]
        case "field":
            return [(name, "field") for name in names]
        case _:
            return [(_written(v), "value") for v in known.get(schema.source_name, [])]


def _values(place: Place, known: dict[str, list[object]], schema: Schema) -> list[tuple[str, Kind]]:
    assert place.field is not None
    found: list[tuple[str, Kind]] = []
    level = schema.level_name
    if level is not None and place.field in {Column(level), Path((level,))}:
        found += [(name, "value") for name in LEVELS]
    if place.operator not in {"~", "@>~"}:
        found += [(_written(v), "value") for v in known.get(display_name(place.field), [])]
    if place.operator == "=":
        found += [(operator, "operator") for operator in _OPERATORS]
        found.append(("NULL", "value"))
    return found


def _written(value: object) -> str:
    """A value as a query writes it: text that would be read as something else is quoted."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return str(value)
    is_text = classify("=", value, is_quoted=False)[1] == Text(value)
    return value if is_text and _PLAIN.fullmatch(value) else quoted(value)


def _name(name: str, schema: Schema) -> str | None:
    """A field as a query writes it; None if it cannot be one."""
    lexer = Lexer(name)
    try:
        token = lexer.name()
    except QueryError:
        return None
    return spelling(resolve(token.steps, schema)) if lexer.at == len(name) else None
