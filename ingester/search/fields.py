"""Fields: which names the rows of a search have, how many have each, and their usual values.

From a sample, the newest rows, which the answer states: payloads have any shape, and a scan of
all of them would cost as much as every search together. Paths are collected in the database,
whose work does not hold the interpreter; lists are passed through (`items[3].id` is `items.id`,
as a query writes it).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from ..lql import parse
from ..lql.ast import Path
from ..lql.fields import display_name
from . import answers
from .documents import json_text
from .fetch import TEXT_BYTES_MAX
from .keys import Key
from .places import arms
from .reading import Reading, Row
from .requests import RangeQuery
from .subjects import Subject
from .times import DEFAULT_SPAN, window_for
from .walk import walk

__all__ = ["fields"]

SAMPLE_ROWS_MAX = 1_000
_FIELDS_MAX = 300
_VALUES_MAX = 5
_VALUE_CHARACTERS_MAX = 100
# JSON type and text.
_Value = tuple[str, str | None]
_Found = tuple[str, list[str], int, list[answers.TopValue]]


def fields(reading: Reading, subject: Subject, request: RangeQuery) -> answers.Fields:
    """Raises QueryError, InvalidField."""
    query = parse(request.q, schema=subject.schema)
    span = window_for(
        query, since=request.since, until=request.until, now=reading.now, span=DEFAULT_SPAN
    )
    keys = walk(reading, subject, query, span, limit=SAMPLE_ROWS_MAX).keys
    found = _columns(reading, subject, keys) + _paths(reading, subject, keys)
    count = max(1, len(keys))
    return answers.Fields(
        sampled=len(keys),
        sample_max=SAMPLE_ROWS_MAX,
        fields=[
            answers.Field(
                name=name, types=types, share=round(min(rows, count) / count, 4), values=values
            )
            for name, types, rows, values in found
        ],
    )


def _columns(reading: Reading, subject: Subject, keys: Sequence[Key]) -> list[_Found]:
    found: list[_Found] = []
    for name in subject.facets:
        counts: dict[_Value, int] = {}
        for rows in arms(reading, subject, keys):
            for value, count in reading.rows(
                f"SELECT left({name}, {_VALUE_CHARACTERS_MAX}), count(*) FROM {rows.sql} "
                f"WHERE {name} IS NOT NULL GROUP BY ALL",
                rows.params,
            ):
                key = "VARCHAR", cast(str, value)
                counts[key] = counts.get(key, 0) + cast(int, count)
        if counts:
            found.append((name, ["VARCHAR"], sum(counts.values()), _top(counts)))
    return found


def _paths(reading: Reading, subject: Subject, keys: Sequence[Key]) -> list[_Found]:
    rows_of: dict[str, int] = {}
    types_of: dict[str, set[str]] = {}
    counts_of: dict[str, dict[_Value, int]] = {}
    for rows in arms(reading, subject, keys):
        for path, types, row_count, values in _nodes(reading, subject, rows.sql, rows.params):
            name = _maybe_name(cast(str, path))
            if name is None:
                continue
            rows_of[name] = rows_of.get(name, 0) + cast(int, row_count)
            types_of.setdefault(name, set()).update(cast(list[str], types))
            counts = counts_of.setdefault(name, {})
            for each in cast(list[dict[str, object]], values):
                value = cast(str, each["type"]), cast(str | None, each["value"])
                counts[value] = counts.get(value, 0) + cast(int, each["n"])
    frequent = sorted(rows_of, key=lambda name: (-rows_of[name], name))[:_FIELDS_MAX]
    return [
        (name, sorted(types_of[name]), rows_of[name], _top(counts_of[name])) for name in frequent
    ]


def _nodes(reading: Reading, subject: Subject, rows: str, params: Sequence[object]) -> list[Row]:
    """By path: its types, how many rows have it, its usual values."""
    document = subject.schema.attributes
    return reading.rows(
        "WITH nodes AS (SELECT row.n AS n, "
        "regexp_replace(node.fullkey, '\\[[0-9]+\\]', '', 'g') AS path, node.type AS type, "
        f"left(json_extract_string(node.atom, '$'), {_VALUE_CHARACTERS_MAX}) AS value "
        f"FROM (SELECT row_number() OVER () AS n, ({document})::JSON AS document FROM {rows} "
        f"WHERE strlen({document}) <= {TEXT_BYTES_MAX}) AS row, "
        "json_tree(row.document) AS node WHERE node.type NOT IN ('OBJECT', 'ARRAY')), "
        "counted AS (SELECT path, type, value, count(*) AS c, count(DISTINCT n) AS r "
        "FROM nodes GROUP BY ALL), "
        "totals AS (SELECT path, count(DISTINCT n) AS r FROM nodes GROUP BY ALL) "
        "SELECT path, list(DISTINCT type), any_value(totals.r), "
        "list({'value': value, 'type': type, 'n': counted.r} ORDER BY c DESC, value)"
        f"[:{_VALUES_MAX * 4}] "
        "FROM counted JOIN totals USING (path) GROUP BY path "
        f"ORDER BY any_value(totals.r) DESC, path LIMIT {_FIELDS_MAX}",
        params,
    )


def _top(counts: dict[_Value, int]) -> list[answers.TopValue]:
    def order(value: _Value) -> tuple[int, str]:
        return -counts[value], str(value[1])

    return [
        answers.TopValue(value=_scalar(*value), count=counts[value])
        for value in sorted(counts, key=order)[:_VALUES_MAX]
    ]


def _scalar(kind: str, text: str | None) -> object:
    """A value as it stands in the payload."""
    return text if text is None or kind == "VARCHAR" else json_text(text)


def _maybe_name(path: str) -> str | None:
    """`$.a.b` as a query writes it. Keys are not told apart from steps: `m.a.b` finds both."""
    keys = tuple(path.split(".")[1:])
    return display_name(Path(keys)) if keys and all(keys) else None
