"""Which sealed files a statement can do without: what its WHERE says of a table's times.

Why: each file that a view names costs its footer in every query, and a year of one table is
hundreds of files. The manifest knows the times in each.

1. Only what is certain: a table counts as bounded when each of its mentions is the whole FROM of a
   SELECT with a conjunction that compares one of its times with an expression of constants and
   functions of `_FUNCTIONS`. Anything else, and every file stays.
2. The tree was judged before (`allowed.py`). What is evaluated of it goes through the same
   connection, walls and limits as the query.
3. `_MARGIN` covers that `now()` is a little later when the query runs, and rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from msgspec import Struct

from .tree import cte_names, nodes

__all__ = ["Bound", "FileSpan", "bounds_of", "evaluation", "may_hold"]

_MARGIN = timedelta(hours=1)
_EPOCH = datetime(1970, 1, 1)
_MICROSECOND = timedelta(microseconds=1)

# The column of the event time, which its sealed files tell beside `received_at`.
_TIME_COLUMNS = {"events": "created_at", "logs": "time", "metrics": "time"}
_RECEIVED = "received_at"

_COMPARISONS = {
    "COMPARE_GREATERTHAN": ("low", "high"),
    "COMPARE_GREATERTHANOREQUALTO": ("low", "high"),
    "COMPARE_LESSTHAN": ("high", "low"),
    "COMPARE_LESSTHANOREQUALTO": ("high", "low"),
    "COMPARE_EQUAL": ("both", "both"),
}
_FUNCTIONS = frozenset(
    {"+", "-", "now", "get_current_timestamp", "today", "date_trunc", "make_date", "trunc"}
    | {f"to_{unit}s" for unit in ("second", "minute", "hour", "day", "week", "month", "year")}
)


class FileSpan(Struct, frozen=True, array_like=True):
    """Smallest and largest times in a file, microseconds since 1970, ends included."""

    time_low: int
    time_high: int
    received_low: int
    received_high: int


class Bound(Struct, frozen=True):
    """`mention`: which of the table's; `side`: low, high or both; `value`: a tree of constants."""

    mention: int
    is_received: bool
    side: str
    value: Mapping[str, Any]


def bounds_of(tree: Mapping[str, Any], table: str) -> list[Bound]:
    """What holds of every row of `table` that the statement looks at; empty if nothing is known
    of one of its mentions.
    """
    mentions = [node for node in nodes(tree) if _names(node, table)]
    owners = [
        node
        for node in nodes(tree)
        if node.get("type") == "SELECT_NODE" and _names(node["from_table"], table)
    ]
    if len(owners) != len(mentions) or table in cte_names(tree):
        return []
    found: list[Bound] = []
    for mention, owner in enumerate(owners):
        source = owner["from_table"]
        if source["column_name_alias"] or source["sample"] or source["at_clause"]:
            return []
        aliases = {table, source["alias"].lower()}
        bounds = [*_conjuncts(owner["where_clause"], mention, table, aliases)]
        if not bounds:
            return []
        found += bounds
    return found


def evaluation(template: Mapping[str, Any], bounds: Sequence[Bound]) -> dict[str, Any]:
    """A SELECT of the values as timestamps. `template` is the tree of one
    `SELECT TRY_CAST(NULL AS TIMESTAMP)`.
    """
    (statement,) = template["statements"]
    (cast,) = statement["node"]["select_list"]
    selects = [{**cast, "child": bound.value} for bound in bounds]
    node = {**statement["node"], "select_list": selects}
    return {**template, "statements": [{**statement, "node": node}]}


def may_hold(span: FileSpan, bounds: Sequence[Bound], values: Sequence[datetime | None]) -> bool:
    """Whether a row of any mention may lie in a file."""
    mentions: dict[int, bool] = {}
    for bound, value in zip(bounds, values, strict=True):
        is_within = value is None or _is_within(span, bound, value)
        mentions[bound.mention] = mentions.get(bound.mention, True) and is_within
    return any(mentions.values())


def _is_within(span: FileSpan, bound: Bound, value: datetime) -> bool:
    low = span.received_low if bound.is_received else span.time_low
    high = span.received_high if bound.is_received else span.time_high
    at, margin = (value - _EPOCH) // _MICROSECOND, _MARGIN // _MICROSECOND
    if bound.side != "high" and high < at - margin:
        return False
    return bound.side == "low" or low <= at + margin


def _names(node: Mapping[str, Any], table: str) -> bool:
    return node.get("type") == "BASE_TABLE" and str(node["table_name"]).lower() == table


def _conjuncts(root: object, mention: int, table: str, aliases: set[str]) -> Iterator[Bound]:
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if not isinstance(node, dict):
            continue
        if node.get("type") == "CONJUNCTION_AND":
            waiting += node["children"]
        elif node.get("type") == "COMPARE_BETWEEN":
            for side, value in (("low", node["lower"]), ("high", node["upper"])):
                yield from _bound(mention, table, aliases, node["input"], side, value)
        elif (sides := _COMPARISONS.get(str(node.get("type")))) is not None:
            yield from _bound(mention, table, aliases, node["left"], sides[0], node["right"])
            yield from _bound(mention, table, aliases, node["right"], sides[1], node["left"])


def _bound(
    mention: int,
    table: str,
    aliases: set[str],
    column: Mapping[str, Any],
    side: str,
    value: Mapping[str, Any],
) -> Iterator[Bound]:
    names = [str(name).lower() for name in column.get("column_names", ())]
    if column.get("class") != "COLUMN_REF" or len(names) > 2 or not _is_constant(value):
        return
    if names[:-1] and names[0] not in aliases:
        return
    if names[-1] in {_RECEIVED, _TIME_COLUMNS.get(table)}:
        yield Bound(mention, names[-1] == _RECEIVED, side, value)


def _is_constant(root: Mapping[str, Any]) -> bool:
    waiting: list[Mapping[str, Any]] = [root]
    while waiting:
        node = waiting.pop()
        match node.get("class"):
            case "CONSTANT":
                continue
            case "CAST":
                waiting.append(node["child"])
            case "FUNCTION" if node["function_name"] in _FUNCTIONS:
                waiting += node["children"]
            case _:
                return False
    return True
