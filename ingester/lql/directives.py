"""Charts and selections: the clauses that say what to show, not which rows.

    chart  = aggregate "(" ( "*" | field ) ")"  |  "group_by(" item ("," item)* ")"
    item   = "t::" unit  |  field
    select = "*"  |  field ( "@" alias )?

Both `c:` clauses together are one chart; without an aggregate it counts.
"""

from __future__ import annotations

import re
from difflib import get_close_matches

from msgspec import Struct

from .ast import Chart, Column, Field, Select
from .fields import resolve
from .lexer import Lexer, Place
from .schema import Schema

__all__ = ["AGGREGATES", "BUCKETS", "SELECT_MAX", "ChartParts", "parse_chart", "parse_select"]

# What other languages call them.
_ELSEWHERE = {
    "average": "avg",
    "mean": "avg",
    "median": "p50",
    "distinct": "countd",
    "count_distinct": "countd",
    "uniq": "countd",
    "maximum": "max",
    "minimum": "min",
    "group": "group_by",
    "by": "group_by",
}

AGGREGATES = ("count", "countd", "avg", "sum", "min", "max", "p50", "p90", "p95", "p99")

BUCKETS = {
    **dict.fromkeys(("s", "second"), "second"),
    **dict.fromkeys(("m", "minute"), "minute"),
    **dict.fromkeys(("h", "hour"), "hour"),
    **dict.fromkeys(("d", "day"), "day"),
    **dict.fromkeys(("w", "week"), "week"),
    **dict.fromkeys(("mm", "month"), "month"),
}

SELECT_MAX = 50
GROUPS_MAX = 10

_WORD = re.compile(r"\w+")
_PERIOD = re.compile(r"(\w+)::(\w*)")


class ChartParts(Struct):
    """What the `c:` clauses have said so far."""

    aggregate: str | None = None
    field: Field | None = None
    bucket: str | None = None
    group_by: list[Field] | None = None

    def chart(self) -> Chart | None:
        if self.aggregate is None and self.group_by is None:
            return None
        return Chart(
            self.aggregate or "count",
            self.field,
            self.bucket or "minute",
            tuple(self.group_by or ()),
        )


def parse_chart(lexer: Lexer, schema: Schema, parts: ChartParts, clause_start: int) -> None:
    """One `c:` clause, from behind its colon."""
    start = lexer.at
    lexer.place = Place("aggregate", start)
    found = _WORD.match(lexer.text, start)
    if found is None:
        lexer.refuse("expected an aggregate here, as count(*) or avg(m.duration)", start)
    name = found[0]
    if name != "group_by" and name not in AGGREGATES:
        close = get_close_matches(name.lower(), [*AGGREGATES, "group_by"], 1)
        meant = _ELSEWHERE.get(name.lower()) or next(iter(close), None)
        hint = f"; did you mean {meant}?" if meant else ""
        lexer.refuse(
            f"no aggregate is named {name[:40]}; there are {', '.join(AGGREGATES)} "
            f"and group_by{hint}",
            start,
        )
    if (parts.aggregate if name != "group_by" else parts.group_by) is not None:
        lexer.refuse("a query draws one chart; this would be a second", clause_start)
    lexer.at = found.end()
    opening = lexer.at
    if lexer.character() != "(":
        lexer.refuse(f"expected a parenthesis here: {name}(…)", opening)
    lexer.at += 1
    lexer.skip_blank()
    if name == "group_by":
        parts.group_by = []
        _group_items(lexer, schema, parts, opening)
    else:
        parts.aggregate = name
        parts.field = _operand(lexer, schema, name, opening)
    _close(lexer, opening)


def _operand(lexer: Lexer, schema: Schema, name: str, opening: int) -> Field | None:
    lexer.place = Place("field", lexer.at)
    if lexer.character() == "*":
        if name != "count":
            lexer.refuse(f"{name} needs a field, as {name}(m.duration)", lexer.at)
        lexer.at += 1
        return None
    return _field(lexer, schema, opening)


def _group_items(lexer: Lexer, schema: Schema, parts: ChartParts, opening: int) -> None:
    assert parts.group_by is not None
    while True:
        start = lexer.at
        lexer.place = Place("group", start)
        if len(parts.group_by) == GROUPS_MAX:
            lexer.refuse(f"a chart groups by at most {GROUPS_MAX} fields", start)
        period = _PERIOD.match(lexer.text, start)
        if period is None:
            parts.group_by.append(_field(lexer, schema, opening))
        else:
            if period[1] not in schema.time_names:
                lexer.refuse("a period is written t::minute", start)
            if period[2] not in BUCKETS:
                lexer.refuse(
                    "expected second, minute, hour, day, week or month here", period.start(2)
                )
            if parts.bucket is not None:
                lexer.refuse("a chart has one period; this would be a second", start)
            parts.bucket = BUCKETS[period[2]]
            lexer.at = period.end()
        lexer.skip_blank()
        if lexer.character() != ",":
            return
        lexer.at += 1
        lexer.skip_blank()


def _field(lexer: Lexer, schema: Schema, opening: int) -> Field:
    if not lexer.character():
        lexer.refuse("this parenthesis is never closed", opening)
    token = lexer.name()
    if token.text in schema.time_names:
        lexer.refuse("time is the axis of a chart: group_by(t::minute)", token.start)
    return resolve(token.steps, schema)


def _close(lexer: Lexer, opening: int) -> None:
    lexer.skip_blank()
    if not lexer.character():
        lexer.refuse("this parenthesis is never closed", opening)
    if lexer.character() != ")":
        lexer.refuse("expected a closing parenthesis here", lexer.at)
    lexer.at += 1
    lexer.expect_clause_end()


def parse_select(lexer: Lexer, schema: Schema, count: int, start: int) -> Select:
    """One `s:` clause, from behind its colon; `start` is where the clause starts."""
    if count >= SELECT_MAX:
        lexer.refuse(f"a query selects at most {SELECT_MAX} fields", start)
    lexer.place = Place("field", lexer.at)
    character = lexer.character()
    if not character or character.isspace():
        lexer.refuse("expected a field here, as s:m.user.id or s:*", lexer.at)
    if character == "*":
        lexer.at += 1
        lexer.expect_clause_end()
        return Select(None)
    token = lexer.name()
    is_time = token.text in schema.time_names
    field = Column(token.text) if is_time else resolve(token.steps, schema)
    alias = None
    if lexer.character() == "@":
        lexer.at += 1
        found = _WORD.match(lexer.text, lexer.at)
        if found is None:
            lexer.refuse("expected a name here, as s:m.user.id@user", lexer.at)
        alias = found[0]
        lexer.at = found.end()
    if lexer.character() == ",":
        lexer.refuse("each field has a clause of its own: s:m.a s:m.b", lexer.at)
    lexer.expect_clause_end()
    return Select(field, alias)
