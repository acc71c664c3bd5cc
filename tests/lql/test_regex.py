"""Our RE2 syntax checker against DuckDB's RE2."""

from __future__ import annotations

from functools import cache

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingester.lql.regex import BadPattern, check_pattern
from ingester.lql.regex_names import POSIX_CLASSES, UNICODE_GROUPS

ACCEPTED = r"""
a|b ^$ a* a+? a?? a{2} a{2,} a{2,3}? a{,2} a{ a{x} a{01} x{99999999999} (a) (?:a) (?P<n_1>a) ()
(|) a||b (?i)a (?i:a) (?s-i).* (?-s). (?imsU)a (?) \d\D\s\S\w\W \b\B\A\z \C \a\f\n\r\t\v \. \- \_
\" \x41 \x{1F600} \x{D800} \0 \07 \012 \123 \pL \PL \p{Greek} \p{^Lu} \P{Han} [a] [^a] []] [^]a]
[a-z] [-a] [a-] [a-b-c] [+--] [\d-z] [\]\\] [[:alpha:]] [^[:^digit:]x] [[:] [\pL\d] [\n-\x41\x{5a}]
\Qa*(\E* \Q \Q\E ((a{10}){10}){10} (a*)* (?i)k é😀* [é-ü] a(?i)* a*(?i)b a{0} a{1000} .{500}
"""

REFUSED = [
    ("*", 0),
    ("a|*", 2),
    ("(+)", 1),
    ("a**", 2),
    ("a{2}{3}", 4),
    ("a???", 3),
    ("a{3,2}", 1),
    ("a{1001}", 1),
    ("(a{100}){11}", 8),
    ("\\Q\\E*", 4),
    ("{2}", 0),
    ("(a", 0),
    ("x(a(b)", 1),
    ("a)", 1),
    ("(?=a)", 0),
    ("(?!a)", 0),
    ("(?<=a)", 0),
    ("(?<n>a)", 0),
    ("(?P<n", 0),
    ("(?P<n-a>b)", 0),
    ("(?x)", 0),
    ("(?i-)", 0),
    ("(?#a)", 0),
    ("(?>a)", 0),
    ("(?i", 0),
    ("[a", 0),
    ("x[]", 1),
    ("[^]", 0),
    ("[z-a]", 1),
    ("[a-\\d]", 3),
    ("[[:foo:]]", 1),
    ("[\\b]", 1),
    ("[\\", 1),
    ("a\\", 1),
    ("\\1", 0),
    ("\\8", 0),
    ("\\Z", 0),
    ("\\é", 0),
    ("\\x4", 0),
    ("\\x{110000}", 0),
    ("\\pX", 0),
    ("\\p{Klingon}", 0),
    ("\\p", 0),
    ("\\k<n>", 0),
]

# What is narrower than RE2.
TOO_LARGE = [
    "(?P<é>a)",
    "\\pL{1000}",
    "\\pL" * 200,
    "[" + "a" * 5000 + "]",
    "(a)" * 501,
    "(" * 201 + "a" + ")" * 201,
    "a" * 40_001,
]


@cache
def _connection() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(config={"threads": "1"})
    connection.execute("CREATE TABLE t AS SELECT 'abc' AS x UNION ALL SELECT 'é'")
    return connection


def _is_taken(pattern: str) -> bool:
    try:
        _connection().execute("SELECT regexp_matches(x, ?) FROM t", [pattern]).fetchall()
    except duckdb.InvalidInputException:
        return False
    return True


@pytest.mark.parametrize("pattern", ACCEPTED.split())
def test_pattern_is_taken_by_both(pattern: str) -> None:
    check_pattern(pattern)
    assert _is_taken(pattern)


@pytest.mark.parametrize(("pattern", "offset"), REFUSED)
def test_pattern_is_refused_by_both(pattern: str, offset: int) -> None:
    with pytest.raises(BadPattern) as refusal:
        check_pattern(pattern)
    assert refusal.value.offset == offset
    assert not _is_taken(pattern)


@pytest.mark.parametrize("pattern", TOO_LARGE, ids=lambda pattern: pattern[:9])
def test_pattern_beyond_our_limits_is_refused(pattern: str) -> None:
    with pytest.raises(BadPattern):
        check_pattern(pattern)


def test_every_name_is_known_to_duckdb() -> None:
    names = [f"\\p{{{name}}}" for name in UNICODE_GROUPS]
    names += [f"[[:{name}:]]" for name in POSIX_CLASSES]
    for pattern in names:
        check_pattern(pattern)
        assert _is_taken(pattern), pattern


@pytest.mark.parametrize(
    "atom", ["\\pL", "(?i)\\pL", "\\P{Lo}", "[^é]", "(?i)[^k]", ".", "😀", "(?i)ſ", "\\W", "(ab|c)"]
)
def test_largest_pattern_we_take_is_taken(atom: str) -> None:
    taken = 1
    for count in (2, 5, 10, 50, 100, 200, 500, 1000):
        try:
            check_pattern(f"{atom}{{{count}}}")
        except BadPattern:
            break
        taken = count
    assert _is_taken(f"{atom}{{{taken}}}")
    many = atom * (36_000 // (1 + 300 * ("p" in atom.lower()) + 60 * len(atom)))
    check_pattern(many)
    assert _is_taken(many)


_ATOMS = [
    *("a", "b", "é", "😀", "(", ")", "(?:", "(?i)", "(?i:", "(?P<n>", "(?-s)", "|", "*", "+", "?"),
    *("{2}", "{2,3}", "{,3}", "{1,", "{1000}", "[", "[^", "]", "[^]", "-", "a-z", "[:alpha:]"),
    *("[:", "[[:^digit:]]", ":]", "\\", "\\d", "\\W", "\\b", "\\pL", "\\p{Greek}", "\\P{^N}"),
    *("\\Q", "\\E", "\\x41", "\\x{1F600}", "\\012", "\\1", "\\0", "\\n", "\\-", ".", "^", "$"),
    *("\\A", "\\z", "\\C", "z", "9", ",", "}", "{", "&", "=", "<", "P", "0", "\n", "\x00"),
]


@settings(max_examples=1000, deadline=None)
@given(st.lists(st.sampled_from(_ATOMS), max_size=10).map("".join) | st.text(max_size=8))
def test_we_and_duckdb_agree_on_any_pattern(pattern: str) -> None:
    refusal = None
    try:
        check_pattern(pattern)
    except BadPattern as error:
        refusal = error
    if refusal is None:
        assert _is_taken(pattern)
    elif not any(word in str(refusal) for word in ("too large", "too many", "is named")):
        assert 0 <= refusal.offset <= len(pattern)
        assert not _is_taken(pattern)
