"""Charts and selections as SQL: what to show of the rows that a query finds.

Results name their columns by position (`c0`, `c1`, …), because a name would be text of the query;
`names` says what each is.
"""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

from .ast import Chart, Column, Field, Filter, Not, Null, Query, Select
from .compiler import compile_query, condition_of, normalised
from .fields import display_name
from .paths import first_value, values
from .predicates import numeric
from .schema import LOGS, Schema
from .sql import Fragment, joined, sql

__all__ = ["Statement", "chart_statement", "selection", "text_of"]

_QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}


class Statement(Struct, frozen=True):
    """SQL with its parameters; `names` of its columns in order."""

    sql: str
    params: tuple[object, ...]
    names: tuple[str, ...]


def chart_statement(
    query: Query, *, now: datetime, schema: Schema = LOGS, relation: str | None = None
) -> Statement:
    """One row a bucket and group: `bucket`, the groups, the value. Needs `query.chart`.

    `relation` stands behind FROM instead of the schema's; it is the caller's own SQL.
    """
    chart = query.chart
    assert chart is not None
    found = compile_query(query, now=now, schema=schema)
    columns = [sql("date_trunc({}, {})", chart.bucket, Fragment(schema.time))]
    columns += [text_of(field, schema) for field in chart.group_by]
    columns.append(_aggregate(chart, schema))
    statement = sql(
        "SELECT {} FROM {} WHERE {} GROUP BY ALL ORDER BY ALL",
        _named(columns),
        Fragment(relation or schema.relation),
        Fragment(found.where_sql, found.params),
    )
    groups = (display_name(field) for field in chart.group_by)
    return Statement(statement.sql, statement.params, ("bucket", *groups, "value"))


def selection(query: Query, *, schema: Schema = LOGS) -> Statement:
    """The select list of the `s:` clauses, to stand behind SELECT."""
    columns: list[Fragment] = []
    names: list[str] = []
    for item in query.select or (Select(None),):
        if item.field is None:
            columns += [Fragment(name) for name in schema.every_column]
            names += schema.every_column
        else:
            columns.append(_json(item.field, schema))
            names.append(item.alias or display_name(item.field))
    listed = _named(columns)
    return Statement(listed.sql, listed.params, tuple(names))


def _named(columns: list[Fragment]) -> Fragment:
    return joined(", ", (sql("{} AS {}", c, Fragment(f"c{n}")) for n, c in enumerate(columns)))


def _column(field: Column, schema: Schema) -> Fragment:
    if field.name in schema.time_names:
        return Fragment(schema.time)
    return Fragment(schema.columns[field.name])


def _json(field: Field, schema: Schema) -> Fragment:
    """A column as it is; a path as JSON, a list of what it leads to if it goes through lists."""
    if isinstance(field, Column):
        return _column(field, schema)
    document = Fragment(schema.attributes)
    several = sql(
        "CASE WHEN contains({}, '[') THEN list_transform([{}], lambda l: "
        "CASE WHEN len(l) > 0 THEN '[' || array_to_string(l, ',') || ']' END)[1] END",
        document,
        values(document, field.keys),
    )
    return sql("coalesce({}, {})::JSON", _scalar(field, schema), several)


def _scalar(field: Field, schema: Schema) -> Fragment:
    """JSON text of a path, lists on the way not entered."""
    assert not isinstance(field, Column)
    document = Fragment(schema.attributes)
    found = first_value(document, field.keys)
    if len(field.keys) > 1 and not field.is_exact:
        flat = first_value(document, (".".join(field.keys),))
        found = sql("coalesce({}, {})", found, flat)
    if (name := schema.pulled.get(field.keys)) is not None:
        column = Fragment(name)
        found = sql("CASE WHEN {} IS NULL THEN {} ELSE nullif({}, '') END", column, found, column)
    return found


def text_of(field: Field, schema: Schema) -> Fragment:
    """A value as text; NULL if there is none. The payload's own level gives way to the stored."""
    if isinstance(field, Column):
        return _column(field, schema)
    found = sql("json_extract_string({}, '$')", _scalar(field, schema))
    if schema.level_name is not None and field.keys == (schema.level_name,):
        stored = Fragment(schema.columns[schema.level_name])
        return sql("coalesce({}, {})", normalised(found), stored)
    return found


def _aggregate(chart: Chart, schema: Schema) -> Fragment:
    field = chart.field
    if field is None:
        return Fragment("count(*)")
    if chart.aggregate == "count":
        is_there = condition_of(Not(Filter(field, "=", Null())), schema)
        return sql("count(*) FILTER (WHERE {})", is_there)
    if chart.aggregate == "countd":
        return sql("count(DISTINCT {})", text_of(field, schema))
    number = numeric(Fragment("t"))
    value = sql("list_transform([{}], lambda t: {})[1]", text_of(field, schema), number)
    if chart.aggregate in _QUANTILES:
        return sql("quantile_cont({}, {})", value, _QUANTILES[chart.aggregate])
    return sql(f"{chart.aggregate}({{}})", value)
