"""What is asked for: queries put together from texts and from parameters that are no text."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import InvalidField, QueryError, RequestError
from ..lql import Query, Schema, parse
from ..lql.ast import And, Column, Field, Filter, Node, Null, Text

__all__ = ["equals", "field_named", "joined", "narrowed", "parse_rows"]


def parse_rows(text: str, schema: Schema, why: str) -> Query:
    """A query for rows, not for what is made of them. Raises QueryError, RequestError."""
    query = parse(text, schema=schema)
    if query.chart is not None or query.select:
        raise RequestError(f"{why}: leave out c: and s:")
    return query


def equals(name: str, value: str | None) -> Node:
    """A column is as given; None is NULL."""
    return Filter(Column(name), "=", Null() if value is None else Text(value))


def narrowed(query: Query, nodes: Sequence[Node]) -> Query:
    """The same question about the rows that satisfy `nodes` too."""
    items = (*(() if query.where is None else (query.where,)), *nodes)
    where = And(items) if len(items) > 1 else items[0] if items else None
    return Query(where, query.times, query.chart, query.select, query.services)


def joined(schema: Schema, *texts: str) -> Query:
    """What all of several queries find. Raises QueryError, RequestError."""
    found = Query()
    for text in texts:
        query = parse_rows(text, schema, "a series says itself what it shows")
        nodes = () if query.where is None else (query.where,)
        times, services = found.times + query.times, found.services + query.services
        found = narrowed(Query(found.where, times, services=services), nodes)
    return found


def field_named(parameter: str, text: str, schema: Schema) -> Field:
    """A field as a query writes it. Raises InvalidField."""
    wrong = InvalidField(parameter, f"{parameter}: one field is named here, as metadata.plan")
    try:
        query = parse(f"s:{text}", schema=schema)
    except QueryError as error:
        raise InvalidField(parameter, f"{parameter}: {error.detail}") from None
    if query != Query(select=query.select) or len(query.select) != 1:
        raise wrong
    (select,) = query.select
    if select.field is None or select.alias is not None:
        raise wrong
    if isinstance(select.field, Column) and select.field.name in schema.time_names:
        raise InvalidField(parameter, f"{parameter}: time is what `interval` is for")
    return select.field
