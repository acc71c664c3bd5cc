"""Which paths of the payload a query reads, so that columns pulled out of it can stand for it."""

from __future__ import annotations

from collections.abc import Iterable

from .ast import And, Contains, Field, Filter, Node, Not, Or, Path, Query
from .schema import Schema

__all__ = ["paths_of"]


def paths_of(
    query: Query, schema: Schema, others: Iterable[Field] = ()
) -> frozenset[tuple[str, ...]] | None:
    """The paths that the condition and the chart of a query read, and `others`; None if they need
    the payload as a whole: its text, or the level in it.
    """
    fields = [*others]
    if query.where is not None and not _collect(query.where, schema, fields):
        return None
    if query.chart is not None:
        fields += query.chart.group_by
        if query.chart.field is not None:
            fields.append(query.chart.field)
    found = set()
    for field in fields:
        if isinstance(field, Path):
            if field.keys == (schema.level_name,):
                return None
            found.add(field.keys)
        elif _reads_payload(field.name, schema):
            return None
    return frozenset(found)


def _collect(node: Node, schema: Schema, fields: list[Field]) -> bool:
    """False if the payload itself is asked for."""
    match node:
        case And() | Or():
            return all(_collect(item, schema, fields) for item in node.items)
        case Not():
            return _collect(node.item, schema, fields)
        case Contains():
            return not _reads_payload(schema.message_name, schema)
        case Filter():
            fields.append(node.field)
            return True


def _reads_payload(name: str, schema: Schema) -> bool:
    return schema.attributes in schema.columns.get(name, "")
