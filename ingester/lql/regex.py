"""Syntax of RE2, checked without RE2: a pattern that this accepts is accepted by DuckDB.

Why it exists: a query is checked where no database is, and the refusal must say where the pattern
is wrong. RE2's parser is followed construct by construct (its flags as DuckDB sets them: UTF-8,
Perl classes, `\\b`, `.` without newline), with three limits that are narrower: the compiled size,
the number of groups, and names of groups in ASCII.

Tests compare it with DuckDB on tables and on random patterns, both ways.
"""

from __future__ import annotations

import re
from typing import NoReturn

from msgspec import Struct

from .regex_names import POSIX_CLASSES, UNICODE_GROUPS

__all__ = ["BadPattern", "check_pattern"]

# RE2's own: the product of nested counted repetitions.
REPEAT_MAX = 1000

# Of instructions, estimated from above. RE2 has room for some 87,000 in the 8 MiB that it is given.
_SIZE_MAX = 40_000
_GROUPS_MAX = 500
_NESTING_MAX = 200

# Instructions that one construct compiles to; measured as 87,381 / the most repetitions taken.
_UNICODE_GROUP_SIZE = 250
_RANGE_SIZE = 12

_REPEAT = re.compile(r"\{(0|[1-9][0-9]*)(?:(,)(0|[1-9][0-9]*)?)?\}")
# More digits make the braces text.
_REPEAT_DIGITS_MAX = 9
_OPENING = re.compile(r"\((?:\?P<[A-Za-z0-9_]+>|(?!\?))")
_FLAGS = re.compile(r"\(\?([imsU]*)(?:-[imsU]+)?([:)])")
_HEX = re.compile(r"\\x(?:([0-9A-Fa-f]{2})|\{([0-9A-Fa-f]+)\})")
_OCTAL = re.compile(r"\\(?:0[0-7]{0,2}|[1-7][0-7]{1,2})")
_GROUP_NAME = re.compile(r"\\[pP](?:\{\^?(\w+)\}|([A-Za-z]))")
# Between the ends of a range in a class.
_DASH = re.compile(r"-[^\]]")
_CONTROL = {"a": 7, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11}


class BadPattern(ValueError):
    """RE2 refuses it. `offset` counts characters from the start of the pattern."""

    def __init__(self, detail: str, offset: int) -> None:
        super().__init__(detail)
        self.offset = offset


class _Group(Struct):
    """A parenthesis that is open. `atom_*` is the last thing that a repetition could apply to."""

    start: int
    folds_case: bool
    size: int = 0
    repeats: int = 1
    atom_size: int = 0
    atom_repeats: int = 0  # 0: there is no atom


def check_pattern(pattern: str) -> None:
    """Raise BadPattern if RE2 would refuse `pattern`, or if it is too large."""
    _Checker(pattern).run()


class _Checker:
    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.at = 0
        self.groups = [_Group(-1, False)]
        self.group_count = 0
        self.was_repeat = False

    def refuse(self, detail: str, offset: int) -> NoReturn:
        raise BadPattern(detail, offset)

    def run(self) -> None:
        if len(self.pattern) > _SIZE_MAX:
            self.refuse("the pattern is too large", 0)
        while self.at < len(self.pattern):
            was_repeat, self.was_repeat = self.was_repeat, False
            character = self.pattern[self.at]
            if character == "(":
                self.open()
            elif character == ")":
                self.close()
            elif character == "|":
                self.fold()
                self.at += 1
            elif character in "*+?":
                self.repeat(was_repeat, self.at + 1, 1)
            elif character == "{" and (found := self.maybe_counts()) is not None:
                self.repeat(was_repeat, found[0], found[1])
            elif character == "[":
                self.bracket()
            elif character == "\\":
                self.escape()
            else:
                size = _RANGE_SIZE if character == "." else self.literal_size(character)
                self.atom(size)
                self.at += 1
        if len(self.groups) > 1:
            self.refuse("this parenthesis is never closed", self.groups[-1].start)
        self.fold()

    def literal_size(self, character: str) -> int:
        return len(character.encode()) * (4 if self.groups[-1].folds_case else 1)

    def atom(self, size: int, repeats: int = 1) -> None:
        """Something that a repetition may follow; what was before it is settled."""
        self.fold(ends_branch=False)
        group = self.groups[-1]
        group.atom_size, group.atom_repeats = size, repeats

    def fold(self, *, ends_branch: bool = True) -> None:
        group = self.groups[-1]
        group.size += group.atom_size + (1 if ends_branch else 0)
        group.repeats = max(group.repeats, group.atom_repeats)
        group.atom_size = group.atom_repeats = 0
        if group.size > _SIZE_MAX:
            self.refuse("the pattern is too large", self.at)

    def open(self) -> None:
        start = self.at
        folds_case = self.groups[-1].folds_case
        if (flags := _FLAGS.match(self.pattern, start)) is not None:
            self.at = flags.end()
            # A flag once seen counts as set: it only makes the estimate larger.
            folds_case = folds_case or "i" in flags[1]
            if flags[2] == ")":
                self.groups[-1].folds_case = folds_case
                return
        elif (opening := _OPENING.match(self.pattern, start)) is not None:
            self.at = opening.end()
        else:
            self.refuse(_group_advice(self.pattern[start : start + 4]), start)
        self.group_count += 1
        if self.group_count > _GROUPS_MAX or len(self.groups) > _NESTING_MAX:
            self.refuse("the pattern has too many groups", start)
        self.groups.append(_Group(start, folds_case))

    def close(self) -> None:
        if len(self.groups) == 1:
            self.refuse("this parenthesis closes nothing", self.at)
        self.fold()
        group = self.groups.pop()
        self.at += 1
        self.atom(group.size + 2, group.repeats)

    def maybe_counts(self) -> tuple[int, int] | None:
        """Where `{n,m}` ends and how often at most; None if it is text."""
        found = _REPEAT.match(self.pattern, self.at)
        if found is None or any(len(part or "") > _REPEAT_DIGITS_MAX for part in found.groups()):
            return None
        low = int(found[1])
        high = int(found[3]) if found[3] is not None else low
        if high < low or high > REPEAT_MAX:
            self.refuse(
                f"{found[0]} is no count; {{n,m}} with n at most m, and m at most {REPEAT_MAX}",
                self.at,
            )
        return found.end(), high

    def repeat(self, was_repeat: bool, end: int, count: int) -> None:
        group = self.groups[-1]
        if was_repeat:
            self.refuse("a repetition of a repetition needs a group around the first", self.at)
        if not group.atom_repeats:
            self.refuse("there is nothing to repeat before this", self.at)
        group.atom_repeats *= max(count, 1)
        if count > 1 and group.atom_repeats > REPEAT_MAX:
            self.refuse(f"nested repetitions come to more than {REPEAT_MAX}", self.at)
        group.atom_size = group.atom_size * max(count, 1) + count + 1
        if group.atom_size > _SIZE_MAX:
            self.refuse("the pattern is too large", self.at)
        self.at = end + self.pattern.startswith("?", end)
        self.was_repeat = True

    def escape(self) -> None:
        """Outside of brackets."""
        start = self.at
        following = self.pattern[start + 1 : start + 2]
        if following == "Q":
            end = self.pattern.find("\\E", start + 2)
            text = self.pattern[start + 2 : end if end >= 0 else None]
            for character in text:
                self.atom(self.literal_size(character))
            self.at = end + 2 if end >= 0 else len(self.pattern)
        elif following and following in "AzbBCdDsSwW":
            self.atom(_RANGE_SIZE)
            self.at += 2
        elif following and following in "pP":
            self.unicode_group()
            self.atom(_UNICODE_GROUP_SIZE)
        else:
            self.atom(self.literal_size(chr(self.code())))

    def unicode_group(self) -> None:
        found = _GROUP_NAME.match(self.pattern, self.at)
        if found is None or (found[1] or found[2]) not in UNICODE_GROUPS:
            self.refuse("unknown group of characters; examples are \\pL and \\p{Greek}", self.at)
        self.at = found.end()

    def code(self) -> int:
        """The character that the escape here stands for."""
        start = self.at
        following = self.pattern[start + 1 : start + 2]
        if not following:
            self.refuse("a backslash at the end; two of them are one", start)
        found = _HEX.match(self.pattern, start)
        if found is not None:
            code = int(found[1] or found[2], 16)
            if code <= 0x10FFFF:
                self.at = found.end()
                return code if not 0xD800 <= code < 0xE000 else 0xFFFD
        found = _OCTAL.match(self.pattern, start)
        if found is not None:
            self.at = found.end()
            return int(found[0][1:], 8)
        if following in _CONTROL:
            self.at += 2
            return _CONTROL[following]
        if following.isascii() and not following.isalnum():
            self.at += 2
            return ord(following)
        self.refuse(f"unknown escape \\{following}", start)

    def bracket(self) -> None:
        """A class of characters."""
        start = self.at
        self.at += 1
        size = _RANGE_SIZE
        if self.pattern.startswith("^", self.at):
            self.at += 1
        is_first = True
        while is_first or not self.pattern.startswith("]", self.at):
            if self.at >= len(self.pattern):
                self.refuse("this bracket is never closed", start)
            size += self.member()
            is_first = False
            if size > _SIZE_MAX:
                self.refuse("the pattern is too large", start)
        self.at += 1
        self.atom(size * (2 if self.groups[-1].folds_case else 1))

    def member(self) -> int:
        """One item of a class; its size."""
        if self.pattern.startswith("[:", self.at):
            end = self.pattern.find(":]", self.at + 2)
            if end >= 0:
                name = self.pattern[self.at + 2 : end]
                if name.removeprefix("^") not in POSIX_CLASSES:
                    self.refuse(f"unknown class [:{name[:30]}:]", self.at)
                self.at = end + 2
                return _RANGE_SIZE
        following = self.pattern[self.at + 1 : self.at + 2]
        if self.pattern[self.at] == "\\" and following:
            if following in "pP":
                self.unicode_group()
                return _UNICODE_GROUP_SIZE
            if following in "dDsSwW":
                self.at += 2
                return _RANGE_SIZE
        start = self.at
        low = self.member_code()
        if _DASH.match(self.pattern, self.at) is not None:
            self.at += 1
            if self.member_code() < low:
                self.refuse("this range of characters runs backwards", start)
        return _RANGE_SIZE

    def member_code(self) -> int:
        character = self.pattern[self.at]
        if character == "\\":
            return self.code()
        self.at += 1
        return ord(character)


def _group_advice(head: str) -> str:
    if head.startswith(("(?=", "(?!", "(?<=", "(?<!")):
        return "RE2 looks neither ahead nor behind; a second clause may say the rest"
    if head.startswith(("(?<", "(?P<", "(?'")):
        return "a group is named (?P<name>…), in ASCII letters, digits and _"
    return "unknown kind of group; RE2 has (…), (?:…), (?P<name>…) and flags as (?i)"
