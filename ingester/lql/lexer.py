"""Lexer: the text of a query in tokens, each asked for by the parser, which knows what may follow.

What a character means depends on where it stands: `a..b` is a path, a range or part of a word. So
there is no list of tokens; the parser asks for the next clause's start (`token`), then for an
operator, a value or a name.

Invariants
1. Every refusal names the offending character; columns count characters from 1.
2. Nothing is looked at more than a bounded number of times, so a long query is refused or read in
   linear time.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import Literal, NoReturn

from msgspec import Struct

from ..errors import QueryError
from .ast import Field

__all__ = ["Lexer", "Place", "Step", "Token", "unquoted_key"]

Kind = Literal["open", "close", "minus", "OR", "AND", "phrase", "word", "regex", "name", "end"]

# Of a path. A clause with as many compiles to some 30 kB of SQL and is planned in 0.05 s.
STEPS_MAX = 64

_BLANK = re.compile(r"\s*")
_NOT_BLANK = re.compile(r"\S+")
_WORD = re.compile(r'[^\s"()`]+')
_STEP = r"(?:\w+|`[^`]*`)"
_NAME = re.compile(rf"{_STEP}(?:\.{_STEP})*")
_STEPS = re.compile(r"(\w+)|`([^`]*)`")
# A path that says it is one, however it goes on.
_PREFIXED = re.compile(r'(?:m|metadata)\.[^\s"():]*:')
_CONNECTIVE = re.compile(r"(OR|AND)(?=[\s()]|$)")
_QUOTED = re.compile(r'"([^"\\]*(?:\\.[^"\\]*)*)"', re.DOTALL)
_ESCAPE = re.compile(r'\\(["\\])')
_OPERATOR = re.compile(r"@>~|@>|>=|<=|>|<|~|")
# What cannot start a value: it would be an operator of some other language.
_NOT_A_VALUE = re.compile(r"[=!@<>]+~?")
_AFTER_ORDER = re.compile(r"[=<>~]+")

# What may change the depth of parentheses in an unquoted value of a group; in a regex an escape
# and a class hide them.
_PLAIN_SPECIAL = re.compile(r"[()\s]")
_REGEX_SPECIAL = re.compile(r"\\\S|\[\^?\]?(?:\[:\^?[a-z]+:\]|\\\S|[^\]\\\s])*\]?|[()\s]")


class Step(Struct, frozen=True):
    key: str
    is_quoted: bool


class Token(Struct, frozen=True):
    """`start` is the offset of the first character. `steps` only of a name."""

    kind: Kind
    start: int
    text: str = ""
    steps: tuple[Step, ...] = ()


class Place(Struct, frozen=True):
    """What could stand at an offset; `field` and `operator` of a value. For completion."""

    kind: Literal["clause", "value", "time", "aggregate", "field", "group", "service"]
    start: int
    field: Field | None = None
    operator: str = ""


class Lexer:
    """A position in the text. `depth`: parentheses open around it, kept by the parser, as is
    `place`: what it has begun to read.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.depth = 0
        self.place = Place("clause", 0)

    def refuse(self, detail: str, offset: int) -> NoReturn:
        raise QueryError(detail, offset + 1)

    def character(self) -> str:
        """The next character, empty at the end."""
        return self.text[self.at : self.at + 1]

    def skip_blank(self) -> None:
        found = _BLANK.match(self.text, self.at)
        assert found is not None
        self.at = found.end()

    def token(self, *, is_negated: bool = False) -> Token:
        """The start of a clause, or what stands between clauses."""
        before = self.at
        if not is_negated:
            self.skip_blank()
        # At the end of the text, without a blank, the last thing may still be typed on.
        if self.at < len(self.text) or self.at > before:
            self.place = Place("clause", self.at)
        start, character = self.at, self.character()
        if not character:
            return Token("end", start)
        if character in "()":
            self.at += 1
            self.place = Place("clause", self.at)
            return Token("open" if character == "(" else "close", start)
        if character == '"':
            return Token("phrase", start, self.quoted())
        if character == "~":
            self.at += 1
            return Token("regex", start)
        if character == "-" and not is_negated:
            self.at += 1
            self.place = Place("clause", self.at)
            return Token("minus", start)
        connective = _CONNECTIVE.match(self.text, start)
        if connective is not None:
            self.at = connective.end()
            return Token("OR" if connective[1] == "OR" else "AND", start)
        return self._maybe_name() or self._word()

    def _maybe_name(self) -> Token | None:
        """A field and its colon."""
        start = self.at
        found = _NAME.match(self.text, start)
        if found is not None and self.text.startswith(":", found.end()):
            steps = self._steps(found[0], start)
            if self._is_field(steps, found.end()):
                self.at = found.end() + 1
                return Token("name", start, found[0], steps)
            return None
        end = found.end() if found is not None else start
        if self.text.startswith((".`", "`"), end):
            self._refuse_backquote(end)
        if found is not None and "`" in found[0] and end == len(self.text):
            self.refuse("expected a colon after the field in backquotes", end)
        prefixed = _PREFIXED.match(self.text, start)
        if prefixed is not None:
            self._refuse_name(prefixed[0], end)
        if self.text.startswith("`", start):
            self.refuse("expected a colon after the field in backquotes", end)
        return None

    def _is_field(self, steps: tuple[Step, ...], end: int) -> bool:
        if steps[0].is_quoted or (len(steps) > 1 and steps[0].key in {"m", "metadata"}):
            return True
        if self.text.startswith("://", end):
            return False  # an address, not a field
        # 10:20:30 and 10.0.0.5:8080 are no fields; m.`10` is.
        return not steps[0].key[0].isdigit()

    def _refuse_backquote(self, end: int) -> NoReturn:
        at = self.text.index("`", end)
        if self.text.find("`", at + 1) < 0:
            self.refuse("this backquote is never closed", at)
        self.refuse("a backquote quotes one step of a path, as in m.`user-agent`:curl", at)

    def _refuse_name(self, name: str, end: int) -> NoReturn:
        if self.text[end] == ".":
            end += 1
        character = self.text[end]
        if character in ".:":
            self.refuse("expected a step of the path here", end)
        prefix, _, rest = name[:-1].partition(".")
        steps = ".".join(step if unquoted_key(step) else f"`{step}`" for step in rest.split("."))
        hint = f"; write {_cut(f'{prefix}.{steps}')}:" if "`" not in rest else ""
        self.refuse(f"{character!r} in the name of a field needs backquotes{hint}", end)

    def _word(self) -> Token:
        start = self.at
        found = _WORD.match(self.text, start)
        assert found is not None  # what cannot start a word was dealt with before
        self.at = found.end()
        following = self.character()
        if following == "(":
            self.refuse("a parenthesis in a word needs double quotes around the whole", self.at)
        if following == "`":
            self.refuse("a backquote in a word needs double quotes around the whole", self.at)
        self.expect_clause_end()
        return Token("word", start, found[0])

    def quoted(self) -> str:
        """A text in double quotes, from its opening one; only its escapes are undone."""
        start = self.at
        found = _QUOTED.match(self.text, start)
        if found is None:
            self.refuse('this quote is never closed; a quote in a text is written \\"', start)
        self.at = found.end()
        self.expect_clause_end()
        return _ESCAPE.sub(r"\1", found[1])

    def at_connective(self) -> bool:
        """Whether OR or AND stands here; it may touch the parentheses beside it."""
        return _CONNECTIVE.match(self.text, self.at) is not None

    def expect_clause_end(self) -> None:
        """White space separates clauses; a parenthesis may close a group."""
        character = self.character()
        if character and not character.isspace() and character != ")":
            self.refuse("text is left over here; white space must separate clauses", self.at)

    def operator(self, name: str) -> str:
        """What follows the colon of the field `name`; empty is equality."""
        start = self.at
        found = _OPERATOR.match(self.text, start)
        assert found is not None
        self.at = found.end()
        wrong = None
        if found[0] == "":
            wrong = _NOT_A_VALUE.match(self.text, start)
        elif found[0] != "~" and found[0] != "@>~":
            wrong = _AFTER_ORDER.match(self.text, self.at)
        if wrong is not None:
            self._refuse_operator(name, start, wrong.end())
        return found[0]

    def _refuse_operator(self, name: str, start: int, end: int) -> NoReturn:
        operator, name = self.text[start : min(end, start + 10)], _cut(name)
        rest = _NOT_BLANK.match(self.text, end)
        value = rest[0][:40] if rest is not None else "value"
        hint = f'; a value that starts so needs quotes: {name}:"{operator}{value}"'
        if operator.startswith("!"):
            hint = f"; a minus negates: -{name}:{'~' if '~' in operator else ''}{value}"
        elif operator in {"=", "=="}:
            hint = f"; a colon alone is equality: {name}:{value}"
        elif operator == "<>":
            hint = f"; a minus negates: -{name}:{value}"
        elif operator == "=~":
            hint = f"; a regex is {name}:~{value}"
        elif operator in {"=>", "=<"}:
            hint = f"; write {name}:{operator[::-1]}{value}"
        self.refuse(
            f"there is no operator {operator}; the operators are : :> :>= :< :<= :~ :@> :@>~"
            f" and :a..b{hint}",
            start,
        )

    def value(self, *, is_regex: bool = False) -> tuple[str, bool]:
        """A value and whether it is quoted. Unquoted, it runs to the next white space or to the
        parenthesis that closes its group.
        """
        start, character = self.at, self.character()
        if not character or character.isspace() or (character == ")" and self.depth):
            self.refuse('expected a value here; an empty text is written ""', start)
        if character == '"':
            return self.quoted(), True
        if self.depth:
            self.at = self._value_end(_REGEX_SPECIAL if is_regex else _PLAIN_SPECIAL)
        else:
            found = _NOT_BLANK.match(self.text, start)
            assert found is not None
            self.at = found.end()
        return self.text[start : self.at], False

    def _value_end(self, special: re.Pattern[str]) -> int:
        depth = 0
        for found in special.finditer(self.text, self.at):
            if found[0] == "(":
                depth += 1
            elif found[0] == ")":
                if not depth:
                    return found.start()
                depth -= 1
            elif found[0].isspace():
                return found.start()
        return len(self.text)

    def name(self) -> Token:
        """A field where only a field may stand."""
        found = _NAME.match(self.text, self.at)
        start = self.at
        end = found.end() if found is not None else start
        if self.text.startswith((".`", "`"), end):
            self._refuse_backquote(end)
        if found is None or self.text.startswith(".", end):
            self.refuse("expected a field here, as m.duration or service", end)
        self.at = end
        return Token("name", start, found[0], self._steps(found[0], start))

    def _steps(self, name: str, start: int) -> tuple[Step, ...]:
        found = [*islice(_STEPS.finditer(name), STEPS_MAX + 2)]
        if len(found) - (found[0][0] in {"m", "metadata"}) > STEPS_MAX:
            self.refuse(f"a path has at most {STEPS_MAX} steps", start)
        return tuple(Step(step[1] or step[2] or "", step[1] is None) for step in found)


def _cut(name: str) -> str:
    return name if len(name) <= 60 else f"{name[:59]}…"


def unquoted_key(key: str) -> bool:
    """Whether a step of a path may stand without backquotes."""
    return re.fullmatch(r"\w+", key) is not None
