"""Parser: a query in text to its tree, by recursive descent; refusals with column and remedy.

    query      = alternatives?
    alternatives = clauses ("OR" clauses)*
    clauses    = clause ("AND"? clause)*
    clause     = "-"? ( "(" alternatives ")" | phrase | word | "~" pattern | field ":" operand )

A field named t, c, s or f is a directive: time, chart, select, source. Directives are no filter;
they stand where only ANDs are above them and are taken out of the tree.

Invariants
1. Everything that depends on a position is refused here: patterns, times, levels out of order.
2. Recursion is bounded by NESTING_MAX, work by CLAUSES_MAX and the length of the text.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import Literal, NoReturn, cast

from msgspec import Struct

from ..errors import QueryError
from .ast import (
    And,
    Column,
    Contains,
    Field,
    Filter,
    Node,
    Not,
    Operator,
    Or,
    Query,
    Range,
    Select,
    TimeFilter,
    Value,
)
from .directives import ChartParts, parse_chart, parse_select
from .fields import resolve
from .levels import LEVELS, maybe_level
from .lexer import Lexer, Place, Token
from .regex import BadPattern, check_pattern
from .schema import LOGS, Schema
from .times import BadOperand, window
from .values import COMPARISONS, classify

__all__ = ["CLAUSES_MAX", "NESTING_MAX", "Context", "parse", "place_at_end"]

Context = Literal["search", "rule"]

CLAUSES_MAX = 100
NESTING_MAX = 100

_DIRECTIVES = {
    "c": "chart",
    "chart": "chart",
    "s": "select",
    "select": "select",
    "f": "from",
    "from": "from",
}

# Any instant will do to find out whether an operand is a time.
_SOME_TIME = datetime(2026, 1, 1, tzinfo=UTC)


def place_at_end(text: str, *, schema: Schema = LOGS) -> Place:
    """What the parser was reading when the text ended, be it a query or the start of one."""
    parser = _Parser(text, schema, "search")
    with suppress(QueryError):  # the start of a query is seldom one
        parser.parse()
    return parser.lexer.place


def parse(text: str, *, schema: Schema = LOGS, context: Context = "search") -> Query:
    """The tree of a query. Raises QueryError."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise QueryError("half of a surrogate pair is no character", error.start + 1) from None
    return _Parser(text, schema, context).parse()


class _Directive(Struct, frozen=True):
    kind: str
    start: int


class _Parser:
    def __init__(self, text: str, schema: Schema, context: Context) -> None:
        self.lexer = Lexer(text)
        self.schema = schema
        self.context = context
        self.clause_count = 0
        self.ahead: Token | None = None
        self.directives: list[_Directive] = []
        self.times: list[TimeFilter] = []
        self.chart = ChartParts()
        self.select: list[Select] = []
        self.services: list[str] = []

    def refuse(self, detail: str, offset: int) -> NoReturn:
        self.lexer.refuse(detail, offset)

    def peek(self) -> Token:
        if self.ahead is None:
            self.ahead = self.lexer.token()
        return self.ahead

    def take(self) -> Token:
        token, self.ahead = self.peek(), None
        return token

    def parse(self) -> Query:
        where = None
        if self.peek().kind != "end":
            where = self.alternatives()
            if self.peek().kind == "close":
                self.refuse(
                    'this parenthesis closes nothing; in a text it needs double quotes: ")"',
                    self.peek().start,
                )
        if self.context == "rule":
            self.expect_rule(where)
        return Query(
            where=where,
            times=tuple(self.times),
            chart=self.chart.chart(),
            select=tuple(self.select),
            services=tuple(self.services),
        )

    def expect_rule(self, where: Node | None) -> None:
        for directive in self.directives:
            self.refuse(
                f"a rule has no {directive.kind} clause: it looks at each row as it arrives",
                directive.start,
            )
        if where is None:
            self.refuse("a rule needs a clause, as level:error or timeout", 0)

    def alternatives(self) -> Node | None:
        mark = len(self.directives)
        items = [self.clauses()]
        while self.peek().kind == "OR":
            self.connective()
            items.append(self.clauses())
        if len(items) == 1:
            return items[0]
        self.expect_no_directives(mark, "inside OR")
        return Or(tuple(item for item in items if item is not None))

    def clauses(self) -> Node | None:
        self.expect_clause()
        items = [self.clause()]
        while (kind := self.peek().kind) not in {"end", "close", "OR"}:
            if kind == "AND":
                self.connective()
            items.append(self.clause())
        found = [item for item in items if item is not None]
        return And(tuple(found)) if len(found) > 1 else (found[0] if found else None)

    def connective(self) -> None:
        """OR or AND, and that something follows it."""
        token = self.take()
        if self.peek().kind in {"end", "close", "OR", "AND"}:
            self.refuse(
                f'{token.kind} stands between two clauses; the word itself is written "'
                f'{token.kind}"',
                self.peek().start if self.peek().kind in {"OR", "AND"} else token.start,
            )

    def expect_clause(self) -> None:
        token = self.peek()
        if token.kind in {"OR", "AND"}:
            self.refuse(
                f"there is nothing before this {token.kind}; the word itself is written "
                f'"{token.kind}"',
                token.start,
            )
        if token.kind == "close":
            self.refuse("expected a clause before this parenthesis", token.start)

    def expect_no_directives(self, mark: int, where: str) -> None:
        for directive in self.directives[mark:]:
            self.refuse(
                f"a {directive.kind} clause cannot stand {where}; it holds for the whole query",
                directive.start,
            )

    def clause(self) -> Node | None:
        token = self.take()
        if token.kind != "minus":
            return self.primary(token, token.start)
        following = self.lexer.character()
        if not following or following.isspace() or following == ")":
            self.refuse("a minus negates what it touches, and there is nothing", token.start)
        mark = len(self.directives)
        item = self.primary(self.lexer.token(is_negated=True), token.start)
        self.expect_no_directives(mark, "under a minus")
        assert item is not None
        return Not(item)

    def primary(self, token: Token, start: int) -> Node | None:
        """A clause without its minus; `start` is where it starts with it."""
        if token.kind == "open":
            return self.group(token)
        self.clause_count += 1
        if self.clause_count > CLAUSES_MAX:
            self.refuse(f"a query has at most {CLAUSES_MAX} clauses; this is one more", start)
        match token.kind:
            case "phrase" | "word":
                return Contains(token.text)
            case "regex":
                return self.condition(Column(self.schema.message_name), "~")
            case "name":
                return self.named(token, start)
            case _:
                self.refuse(
                    f'{token.kind} cannot be negated; the word itself is written "{token.kind}"',
                    token.start,
                )

    def group(self, opening: Token) -> Node | None:
        lexer = self.lexer
        lexer.depth += 1
        if lexer.depth > NESTING_MAX:
            self.refuse(f"groups nest at most {NESTING_MAX} deep", opening.start)
        if self.peek().kind == "end":
            self.refuse("this parenthesis is never closed", opening.start)
        node = self.alternatives()
        if self.take().kind != "close":
            self.refuse("this parenthesis is never closed", opening.start)
        lexer.depth -= 1
        if not lexer.at_connective():
            lexer.expect_clause_end()
        return node

    def named(self, name: Token, start: int) -> Node | None:
        if len(name.steps) == 1 and not name.steps[0].is_quoted:
            if name.text in self.schema.time_names:
                self.directives.append(_Directive("time", start))
                self.times.append(self.time(name))
                return None
            if (kind := _DIRECTIVES.get(name.text)) is not None:
                self.directives.append(_Directive(kind, start))
                self.directive(kind, name, start)
                return None
        field = resolve(name.steps, self.schema)
        self.lexer.place = Place("value", self.lexer.at, field, "=")
        operator = self.lexer.operator(name.text) or "="
        return self.condition(field, cast(Operator, operator))

    def condition(self, field: Field, operator: Operator) -> Filter:
        is_regex = operator in {"~", "@>~"}
        start = self.lexer.at
        self.lexer.place = Place("value", start, field, operator)
        text, is_quoted = self.lexer.value(is_regex=is_regex)
        operator, value = classify(operator, text, is_quoted=is_quoted)
        if is_regex:
            try:
                check_pattern(text)
            except BadPattern as error:
                at = error.offset + 1
                self.refuse(f"not a regex that RE2 knows: at its character {at}, {error}", start)
        if field == Column(self.schema.level_name or "") and (
            operator in COMPARISONS or operator == ".."
        ):
            self.expect_levels(value, start)
        return Filter(field, operator, value)

    def expect_levels(self, value: Value, start: int) -> None:
        ends = (value.low, value.high) if isinstance(value, Range) else (value,)
        for end in ends:
            if maybe_level(end, with_numbers=True) is None:
                self.refuse(f"levels are compared in the order {' < '.join(LEVELS)}", start)

    def directive(self, kind: str, name: Token, start: int) -> None:
        lexer = self.lexer
        if kind == "chart":
            parse_chart(lexer, self.schema, self.chart, start)
        elif kind == "select":
            self.select.append(parse_select(lexer, self.schema, len(self.select), start))
        else:
            at = lexer.at
            if lexer.operator(name.text):
                self.refuse(f"{name.text}: takes a name and no operator: {name.text}:checkout", at)
            lexer.place = Place("service", at)
            self.services.append(lexer.value()[0])

    def time(self, name: Token) -> TimeFilter:
        lexer = self.lexer
        at = lexer.at
        operator = lexer.operator(name.text)
        if operator and operator not in COMPARISONS:
            self.refuse(
                f"times have no operator {operator}; write {name.text}:last@5m, "
                f"{name.text}:>=2026-04-15 or {name.text}:2026-04-15..2026-04-16",
                at,
            )
        start = lexer.at
        lexer.place = Place("time", start, operator=operator)
        operand, _ = lexer.value()
        clause = TimeFilter(cast(Literal["", ">", ">=", "<", "<="], operator), operand)
        try:
            window(clause, _SOME_TIME)
        except BadOperand as error:
            self.refuse(str(error), start)
        return clause
