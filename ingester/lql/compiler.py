"""Compiler: a tree to one SQL condition with parameters.

The condition is the definition of what a query means: a search runs it over stored rows, a rule
over an arriving batch, `matches` over one row. It runs over any relation with the columns that the
schema names; the payload column may be JSON or text.

Absence is never unknown: a positive condition may be NULL where a field is absent, which counts as
false through AND and OR, and a negation turns all that is not true into true.
"""

from __future__ import annotations

from datetime import UTC, datetime

from msgspec import Struct

from .ast import (
    And,
    Column,
    Contains,
    Filter,
    Node,
    Not,
    Null,
    Or,
    Path,
    Query,
    Range,
    Text,
)
from .levels import LEVELS, maybe_level, spellings
from .paths import any_value, is_null
from .predicates import Predicate, predicate_of
from .schema import LOGS, Schema
from .sql import FALSE, TRUE, Fragment, joined, sql
from .times import Window, intersection, window
from .values import COMPARISONS

__all__ = ["Compiled", "compile_query", "condition_of", "normalised", "window_of"]


class Compiled(Struct, frozen=True):
    """`where_sql` with `params` in the order of its `?`; it holds the window and the services too,
    which are told apart so that a search can prune by them.
    """

    where_sql: str
    params: tuple[object, ...]
    window: Window
    services: tuple[str, ...]


def compile_query(query: Query, *, now: datetime, schema: Schema = LOGS) -> Compiled:
    """The condition of a query; relative times are resolved against `now`."""
    span = window_of(query, now)
    parts = []
    if query.where is not None:
        parts.append(sql("({})", condition_of(query.where, schema)))
    time = Fragment(schema.time)
    if span.start is not None:
        parts.append(sql("{} >= {}", time, _stored(span.start)))
    if span.end is not None:
        parts.append(sql("{} < {}", time, _stored(span.end)))
    if query.services:
        names = joined(", ", (sql("{}", name) for name in query.services))
        parts.append(sql("{} IN ({})", Fragment(schema.columns[schema.source_name]), names))
    where = joined(" AND ", parts) if parts else TRUE
    return Compiled(where.sql, where.params, span, query.services)


def window_of(query: Query, now: datetime) -> Window:
    """What all `t:` clauses together leave."""
    return intersection([window(clause, now.astimezone(UTC)) for clause in query.times])


def _stored(instant: datetime) -> datetime:
    """As the TIMESTAMP columns hold it: UTC without saying so."""
    return instant.replace(tzinfo=None)


def condition_of(node: Node, schema: Schema) -> Fragment:
    """Of one node; NULL counts as false."""
    match node:
        case And():
            items = (condition_of(item, schema) for item in node.items)
            return joined(" AND ", (sql("({})", item) for item in items))
        case Or():
            items = (condition_of(item, schema) for item in node.items)
            return joined(" OR ", (sql("({})", item) for item in items))
        case Not():
            item = condition_of(node.item, schema)
            return sql("CASE WHEN {} THEN false ELSE true END", item)
        case Contains():
            message = Fragment(schema.columns[schema.message_name])
            return sql("contains({}, {})", message, node.text)
        case _:
            return _filter(node, schema)


def _filter(clause: Filter, schema: Schema) -> Fragment:
    field = clause.field
    if schema.level_name is not None:
        if field == Column(schema.level_name):
            return _level_predicate(clause, is_column=True).of_text(_level_column(schema))
        if field == Path((schema.level_name,)):
            return _own_level(clause, schema)
    if isinstance(field, Column):
        return predicate_of(clause).of_text(Fragment(schema.columns[field.name]))
    return _path(clause, field, schema)


def _path(clause: Filter, path: Path, schema: Schema) -> Fragment:
    """By the column that was pulled out of the payload, where there is one and it knows."""
    asked = _path_of_document(clause, path, schema)
    name = schema.pulled.get(path.keys)
    if name is None:
        return asked
    column = Fragment(name)
    if isinstance(clause.value, Null) and clause.operator == "=":
        known = sql("{} IN ('', 'null')", column)
    else:
        known = predicate_of(clause).of_json(column)
        known = sql("CASE WHEN {} = '' THEN false ELSE {} END", column, known)
    return sql("CASE WHEN {} IS NULL THEN {} ELSE {} END", column, asked, known)


def _path_of_document(clause: Filter, path: Path, schema: Schema) -> Fragment:
    """The nested path; else, if it has several steps, the key spelt like the whole of it."""
    document = Fragment(schema.attributes)
    flat = (".".join(path.keys),)
    has_flat = len(path.keys) > 1 and not path.is_exact
    if isinstance(clause.value, Null) and clause.operator == "=":
        absent = is_null(document, flat, absent=TRUE) if has_flat else TRUE
        return is_null(document, path.keys, absent=absent)
    found = predicate_of(clause)
    absent = FALSE
    if has_flat:
        absent = any_value(document, flat, found.of_json)
    return any_value(document, path.keys, found.of_json, absent=absent, needle=found.needle)


def _level_column(schema: Schema) -> Fragment:
    assert schema.level_name is not None
    return Fragment(schema.columns[schema.level_name])


def _own_level(clause: Filter, schema: Schema) -> Fragment:
    """The level that the payload itself names; the stored one where it names none."""
    document, keys = Fragment(schema.attributes), (schema.level_name or "",)
    stored = _level_predicate(clause, is_column=True).of_text(_level_column(schema))
    if isinstance(clause.value, Null) and clause.operator == "=":
        return is_null(document, keys, absent=stored)
    own = _level_predicate(clause, is_column=False)
    return any_value(document, keys, own.of_json, absent=stored)


def _level_predicate(clause: Filter, *, is_column: bool) -> Predicate:
    """Levels are equal whatever their case and alias, and ordered by severity. What asks for no
    level is an ordinary clause, on the normalised text.
    """
    levels = _maybe_levels(clause, is_column=is_column)
    if levels is not None:
        names = spellings(levels)
        return Predicate(
            lambda t: sql("list_contains({}::VARCHAR[], lower({}))", names, t),
            lambda d: sql("list_contains({}::VARCHAR[], lower(trim({}, '\"')))", names, d),
        )
    found = predicate_of(clause)
    if isinstance(clause.value, Text):
        if clause.operator in {"~", "@>~"}:
            return Predicate(
                lambda t: found.of_text(normalised(t)),
                lambda d: sql(
                    "CASE WHEN left({}, 1) IN ('[', '{') THEN false ELSE {} END",
                    d,
                    found.of_text(normalised(sql("json_extract_string({}, '$')", d))),
                ),
            )
        if clause.operator in {"=", "@>"}:
            folded = predicate_of(Filter(clause.field, "=", Text(clause.value.text.lower())))
            return Predicate(
                lambda t: folded.of_text(sql("lower({})", t)),
                lambda d: folded.of_json(sql("lower({})", d)),
            )
    return found


def normalised(text: Fragment) -> Fragment:
    """The stored spelling of a level; any other text as it is."""
    cases = [
        sql("WHEN {} THEN {}", spelling, level)
        for level in LEVELS
        for spelling in spellings([level])
    ]
    return sql("CASE lower({}) {} ELSE {} END", text, joined(" ", cases), text)


def _maybe_levels(clause: Filter, *, is_column: bool) -> list[str] | None:
    """The levels that satisfy a clause, if its operand names levels. A number does so only where
    no number is stored: in the column.
    """
    operator, value = clause.operator, clause.value
    if operator in {"=", "@>"}:
        level = maybe_level(value, with_numbers=is_column)
        return None if level is None else [level]
    if operator == "..":
        assert isinstance(value, Range)
        low = maybe_level(value.low, with_numbers=is_column)
        high = maybe_level(value.high, with_numbers=is_column)
        if low is None or high is None:
            return None
        return [*LEVELS[LEVELS.index(low) : LEVELS.index(high) + 1]]
    level = maybe_level(value, with_numbers=is_column) if operator in COMPARISONS else None
    if level is None:
        return None
    at = LEVELS.index(level)
    first, last = {
        ">": (at + 1, len(LEVELS)),
        ">=": (at, len(LEVELS)),
        "<": (0, at),
        "<=": (0, at + 1),
    }[operator]
    return [*LEVELS[first:last]]
