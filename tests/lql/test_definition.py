"""Every line of the definition of the language, by cases of our own."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest

from ingester import lql
from ingester.errors import QueryError

from .definition_cases import CASES, Log


@pytest.mark.parametrize(("line", "query", "log", "expected", "reason"), CASES)
def test_query_matches_as_defined(
    line: str, query: str, log: Log, expected: bool, reason: str
) -> None:
    assert lql.matches(query, log) is expected, reason


def test_every_line_has_cases() -> None:
    counts = Counter(line for line, *_ in CASES)
    assert all(counts[str(line)] >= 2 for line in range(1, 11))
    assert counts["R"] >= 30


_NOW = datetime(2026, 3, 31, 10, 20, 30, 500000, tzinfo=UTC)

WINDOWS: list[tuple[str, str | None, str | None, str]] = [
    ("t:now", "2026-03-31T10:20:30", "2026-03-31T10:20:31", "one whole second"),
    ("time:yesterday", "2026-03-30", "2026-03-31", "time is a name of it too"),
    ("t:this@minute", "2026-03-31T10:20", "2026-03-31T10:20:30.500000", "now is excluded"),
    ("t:this@s", "2026-03-31T10:20:30", "2026-03-31T10:20:30.500000", "short units"),
    ("t:this@month", "2026-03-01", "2026-03-31T10:20:30.500000", "from the first"),
    ("t:this@year", "2026-01-01", "2026-03-31T10:20:30.500000", "from new year"),
    ("t:last@h", "2026-03-31T09:00", "2026-03-31T10:20:30.500000", "one is the default"),
    ("t:last@30s", "2026-03-31T10:20:00", "2026-03-31T10:20:30.500000", "seconds"),
    ("t:last@2weeks", "2026-03-17", "2026-03-31T10:20:30.500000", "weeks are cut to the day"),
    ("t:last@1mm", "2026-02-28", "2026-03-31T10:20:30.500000", "clamped to the month's last day"),
    ("t:last@13months", "2025-02-28", "2026-03-31T10:20:30.500000", "over a year's end"),
    ("t:last@2y", "2024-03-31", "2026-03-31T10:20:30.500000", "years"),
    ("t:last@9999y", "0001-01-01", "2026-03-31T10:20:30.500000", "cut to the calendar"),
    ("t:last@9999w", "1834-08-12", "2026-03-31T10:20:30.500000", "long ago"),
    ("t:2026-02-28", "2026-02-28", "2026-03-01", "a day"),
    ("t:2026-04-15T10:20:30Z", "2026-04-15T10:20:30", "2026-04-15T10:20:30.000001", "an instant"),
    ("t:>2026-04-15", "2026-04-15T00:00:00.000001", None, "one step after midnight"),
    ("t:<=2026-04-15", None, "2026-04-15T00:00:00.000001", "midnight included"),
    ("t:>=yesterday", "2026-03-30", None, "a named span stands for its start"),
    ("t:<now", None, "2026-03-31T10:20:30.500000", "now to the microsecond"),
    ("t:yesterday..today", "2026-03-30", "2026-03-31T00:00:00.000001", "midnights"),
    (
        "t:2026-04-15T12:00:00+02:00..now",
        "2026-04-15T10:00",
        "2026-03-31T10:20:30.500001",
        "offset",
    ),
    ("t:>=1767225600", "2026-01-01", None, "seconds"),
    ("t:>=1767225600123", "2026-01-01T00:00:00.123000", None, "milliseconds"),
    ("t:>=1767225600123456", "2026-01-01T00:00:00.123456", None, "microseconds"),
    ("t:>=1767225600123456789", "2026-01-01T00:00:00.123456", None, "nanoseconds are cut"),
    ("t:2026-04-{07..09}", "2026-04-07", "2026-04-09T00:00:00.000001", "a date is its midnight"),
    (
        "t:2026-04-{07..09}T00:{00..40}:00.{001..314}Z",
        "2026-04-07T00:00:00.001000",
        "2026-04-09T00:40:00.314001",
        "digits after the point are a fraction",
    ),
    ("t:>=2026-01-01 t:<2026-02-01", "2026-01-01", "2026-02-01", "two clauses intersect"),
    ("(t:today x)", "2026-03-31", "2026-04-01", "in a group under AND it holds for the whole"),
    ("x", None, None, "no clause, no window"),
    ('t:>="2026-04-15 10:00"', "2026-04-15T10:00", None, "quotes allow a blank"),
    ("t:<=9999-12-31T23:59:59.999999", None, "9999-12-31T23:59:59.999999", "the calendar's end"),
]


@pytest.mark.parametrize(("query", "start", "end", "reason"), WINDOWS)
def test_time_clause_is_the_window(
    query: str, start: str | None, end: str | None, reason: str
) -> None:
    expected = [t and datetime.fromisoformat(t).replace(tzinfo=UTC) for t in (start, end)]
    assert [*lql.time_window(query, _NOW)] == expected, reason


def test_naive_now_is_utc() -> None:
    assert lql.time_window("t:today", _NOW.replace(tzinfo=None)) == lql.time_window("t:today", _NOW)


CHARTS: list[tuple[str, tuple[str, str | None, str, list[str]] | None, str]] = [
    ("x", None, "no chart"),
    ("c:min(a.b)", ("min", "metadata.a.b", "minute", []), "min, a bare path"),
    ("c:avg(metadata.x)", ("avg", "metadata.x", "minute", []), "the long spelling"),
    ("c:p50(m.`a b`)", ("p50", "metadata.`a b`", "minute", []), "backquotes stay"),
    ("c:countd(service)", ("countd", "service", "minute", []), "a column by its bare name"),
    ("c:count(*) c:group_by(t::m)", ("count", None, "minute", []), "a short unit"),
    ("c:group_by(level)", ("count", None, "minute", ["level"]), "a group alone"),
    ("c:group_by(t::s,m.a , b)", ("count", None, "second", ["metadata.a", "metadata.b"]), "two"),
    ("c:sum( m.a )", ("sum", "metadata.a", "minute", []), "blanks inside"),
    ("chart:p95(x) chart:group_by(timestamp::hour)", ("p95", "metadata.x", "hour", []), "long"),
    ("c:group_by(t::mm)", ("count", None, "month", []), "months"),
]


@pytest.mark.parametrize(("query", "expected", "reason"), CHARTS)
def test_chart_clauses_are_one_chart(
    query: str, expected: tuple[Any, ...] | None, reason: str
) -> None:
    keys = ("aggregate", "path", "bucket", "group_by")
    found = lql.chart(query)
    assert found == (None if expected is None else dict(zip(keys, expected, strict=True))), reason


REFUSALS: list[tuple[str, int, str, str]] = [
    ("a OR", 3, "both", "nothing after OR"),
    ("a OR OR b", 6, "both", "two ORs"),
    ("AND a", 1, "both", "nothing before AND"),
    ("a (OR b)", 4, "both", "nor inside of a group"),
    ("a (b AND)", 6, "both", "nothing after AND in a group"),
    ("()", 2, "both", "an empty group"),
    ("a )", 3, "both", "closes nothing"),
    ("a) b", 2, "both", "also where it touches"),
    ("(a", 1, "both", "never closed"),
    ("a (b (c)", 3, "both", "the one that is open is named"),
    ("(", 1, "both", "nothing at all in it"),
    ("a(b)", 2, "both", "clauses that touch"),
    ("(a)b", 4, "both", "left over behind a group"),
    ("(a)ORBIT", 4, "both", "no connective, but a word"),
    ("-", 1, "both", "nothing to negate"),
    ("a - b", 3, "both", "a minus must touch"),
    ("-OR", 2, "both", "a connective cannot be negated"),
    ('ab"c"', 3, "both", "a phrase touches a word"),
    ('m.a:"b"c', 8, "both", "text behind a quoted value"),
    ('"', 1, "both", "a lone quote"),
    ('m.a:"b', 5, "both", "an unclosed quoted value"),
    ("x m.`a", 5, "both", "an unclosed backquote"),
    ("m.`:`", 6, "both", "backquotes, and nothing after them"),
    ("it`s", 3, "both", "an unclosed one in a word"),
    ("a`b`", 2, "both", "backquotes in a word"),
    ("`a`", 4, "both", "a quoted step without a colon"),
    ("m.user-agent:x", 7, "both", "a hyphen in a path that says it is one"),
    ("m..a:x", 3, "both", "an empty step"),
    ("m.a:", 5, "both", "an empty value at the end"),
    ("m.a: b", 5, "both", "a value must touch"),
    ("(m.a:)", 6, "both", "an empty value before the parenthesis"),
    ("m.a:>", 6, "both", "an empty operand"),
    ("~", 2, "both", "an empty pattern"),
    ("f:", 3, "search", "an empty name"),
    ("t:", 3, "search", "an empty time"),
    ("m.a:!5", 5, "both", "an exclamation mark is no operator"),
    ("m.a:!~b", 5, "both", "no !~"),
    ("m.a:==b", 5, "both", "no =="),
    ("m.a:=~b", 5, "both", "no =~"),
    ("m.a:<>5", 5, "both", "no <>"),
    ("m.a:=>5", 5, "both", "no =>"),
    ("m.a:>>5", 5, "both", "no >>"),
    ("m.a:@5", 5, "both", "no @"),
    ("m.a:>~5", 5, "both", "no >~"),
    ("x -m.a:!=5", 8, "both", "under a minus"),
    ("~(", 2, "both", "a bad pattern: its first character"),
    ("m.a:@>~a**", 8, "both", "also of a member"),
    ("m.a:~\\1", 6, "both", "no back references"),
    ("~(?<n>a)", 2, "both", "a group's name needs a P"),
    ("level:>loud", 8, "both", "no such level"),
    ("level:info..loud", 7, "both", "nor in a range"),
    ("t:tomorrow", 3, "search", "not a time"),
    ("t:last@5x", 3, "search", "no such unit"),
    ("t:this@5m", 3, "search", "this takes no number"),
    ("t:last@12345m", 3, "search", "four digits at most"),
    ("t:2026-13-01", 3, "search", "no such month"),
    ("t:2026-02-30", 3, "search", "no such day"),
    ("t:2026-01-01T25:00", 3, "search", "no such hour"),
    ("t:123456789012", 3, "search", "twelve digits"),
    ("t:2026-01-01..soon", 3, "search", "one end is none"),
    ("t:2026-01-01..", 3, "search", "an end is missing"),
    ("t:2026-{1..2}-01", 3, "search", "a month has two digits"),
    ("t:>=2026-{01..02}-01", 5, "search", "braces are an interval, no instant"),
    ("t:~2026", 3, "search", "no regex on time"),
    ("t:=now", 3, "search", "no := either"),
    ("a OR t:today", 6, "search", "time inside OR"),
    ("t:today a OR b", 1, "search", "AND binds tighter"),
    ("-t:today", 1, "search", "time under a minus: the clause starts with it"),
    ("-(a t:today)", 5, "search", "or in a negated group"),
    ("a OR c:count(*)", 6, "search", "a chart inside OR"),
    ("c:", 3, "search", "an empty chart"),
    ("c:median(m.x)", 3, "search", "an unknown aggregate"),
    ("c:count", 8, "search", "no parenthesis"),
    ("c:count(", 8, "search", "an unclosed one"),
    ("c:count(m.x", 8, "search", "the same behind a field"),
    ("c:count()", 9, "search", "nothing in it"),
    ("c:avg(*)", 7, "search", "avg needs a field"),
    ("c:count(m.x y)", 13, "search", "two fields"),
    ("c:count(*)x", 11, "search", "left over"),
    ("c:count(time)", 9, "search", "time is the axis"),
    ("c:count(m.`x)", 11, "search", "an unclosed backquote"),
    ("c:sum(m.x) c:sum(m.x)", 12, "search", "a second chart, the same"),
    ("c:group_by(t::m) c:group_by(t::h)", 18, "search", "a second period"),
    ("c:group_by(t::m, t::h)", 18, "search", "or in one clause"),
    ("c:group_by(t::fortnight)", 15, "search", "an unknown unit"),
    ("c:group_by(x::m)", 12, "search", "only time has periods"),
    ("c:group_by()", 12, "search", "nothing to group by"),
    (f"c:group_by({','.join(['a'] * 11)})", 32, "search", "ten groups at most"),
    ("s:", 3, "search", "an empty selection"),
    ("s:m.a@", 7, "search", "an empty alias"),
    ("s:m.a,m.b", 6, "search", "one field a clause"),
    ("s:m.", 4, "search", "a path without a step"),
    ("s:-", 3, "search", "no field"),
    ("f:>x", 3, "search", "a service takes no operator"),
    ("a t:today", 3, "rule", "no time in a rule"),
    ("a c:count(*)", 3, "rule", "no chart in a rule"),
    ("a s:*", 3, "rule", "no selection in a rule"),
    ("a f:x", 3, "rule", "no service in a rule"),
    ("   ", 1, "rule", "blank is empty"),
    ("a \ud800", 3, "both", "half of a surrogate pair"),
    (" ".join(["s:a"] * 51), 201, "search", "fifty fields at most"),
    (" ".join(["(a)"] * 100 + ["-(b)"]), 403, "both", "groups are no clauses, their clauses are"),
    (" ".join(["a"] * 100 + ["-b"]), 201, "both", "clause 101 starts with its minus"),
]


@pytest.mark.parametrize(("query", "column", "context", "reason"), REFUSALS)
def test_query_is_refused_with_its_column(
    query: str, column: int, context: str, reason: str
) -> None:
    contexts: list[lql.Context] = ["search", "rule"]
    for each in contexts:
        if context in {"both", each}:
            with pytest.raises(QueryError) as refusal:
                lql.check(query, each)
            assert refusal.value.column == column, reason
            assert str(column) in str(refusal.value)


HINTS: list[tuple[str, str]] = [
    ("m.a:!=5", "-m.a:5"),
    ("m.a:!~x", "-m.a:~x"),
    ("m.a:=x", "m.a:x"),
    ("m.a:=~x", "m.a:~x"),
    ("m.a:<>x", "-m.a:x"),
    ("m.a:=>5", "m.a:>=5"),
    ("m.a:@bob", 'm.a:"@bob"'),
    ("m.user-agent:x", "m.`user-agent`:"),
    ("m.@timestamp:x", "m.`@timestamp`:"),
    ("m.a.-b.c:x", "m.a.`-b`.c:"),
    ("c:cuont(*)", "count"),
    ("c:median(m.x)", "did you mean p50?"),
    ("~(?=x)", "neither ahead nor behind"),
    ("~(?<n>x)", "(?P<name>"),
]


@pytest.mark.parametrize(("query", "hint"), HINTS)
def test_refusal_names_the_spelling_that_works(query: str, hint: str) -> None:
    with pytest.raises(QueryError) as refusal:
        lql.check(query)
    assert hint in str(refusal.value)
