"""Tree of a query: what was asked, without where it stood in the text.

Positions are left out on purpose: two spellings of one query are equal trees, which is what lets
`parse(print(q)) == q` be tested. What needs a position is refused by the parser.

Invariants
1. `And` and `Or` hold at least two items; an empty filter is `None`.
2. A `Path` names its steps without the `m.` that may have introduced them.
3. `Range` ends are of one kind: two numbers, two dates or two texts.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

__all__ = [
    "And",
    "Boolean",
    "Chart",
    "Column",
    "Contains",
    "Date",
    "Field",
    "Filter",
    "Node",
    "Not",
    "Null",
    "Number",
    "Operator",
    "Or",
    "Path",
    "Query",
    "Range",
    "Select",
    "Text",
    "TimeFilter",
    "Value",
]

Operator = Literal["=", ">", ">=", "<", "<=", "..", "~", "@>", "@>~"]


class Column(Struct, frozen=True, tag=True):
    """A column, by the name it was typed with."""

    name: str


class Path(Struct, frozen=True, tag=True):
    """Steps into the attributes. `is_exact`: a step was in backquotes, so the key that is spelt
    like the whole path is not meant.
    """

    keys: tuple[str, ...]
    is_exact: bool = False


Field = Column | Path


class Text(Struct, frozen=True, tag=True):
    text: str


class Number(Struct, frozen=True, tag=True):
    """As it was spelt: a JSON string equals it only in this spelling."""

    spelling: str


class Boolean(Struct, frozen=True, tag=True):
    is_true: bool


class Null(Struct, frozen=True, tag=True):
    pass


class Date(Struct, frozen=True, tag=True):
    """An ISO date or date-time as operand of a comparison."""

    spelling: str


class Range(Struct, frozen=True, tag=True):
    """Both ends belong to it."""

    low: Number | Date | Text
    high: Number | Date | Text


Value = Text | Number | Boolean | Null | Date | Range


class Contains(Struct, frozen=True, tag=True):
    """A bare word or a phrase: a substring of the message."""

    text: str


class Filter(Struct, frozen=True, tag=True):
    field: Field
    operator: Operator
    value: Value


class Not(Struct, frozen=True, tag=True):
    item: Node


class And(Struct, frozen=True, tag=True):
    items: tuple[Node, ...]


class Or(Struct, frozen=True, tag=True):
    items: tuple[Node, ...]


Node = Contains | Filter | Not | And | Or


class TimeFilter(Struct, frozen=True):
    """A `t:` clause; `operator` is empty for a span of time or a range."""

    operator: Literal["", ">", ">=", "<", "<="]
    operand: str


class Chart(Struct, frozen=True):
    """The `c:` clauses of a query together. No `field`: over all rows."""

    aggregate: str = "count"
    field: Field | None = None
    bucket: str = "minute"
    group_by: tuple[Field, ...] = ()


class Select(Struct, frozen=True):
    """One `s:` clause; no `field` is `*`."""

    field: Field | None
    alias: str | None = None


class Query(Struct, frozen=True):
    where: Node | None = None
    times: tuple[TimeFilter, ...] = ()
    chart: Chart | None = None
    select: tuple[Select, ...] = ()
    services: tuple[str, ...] = ()
