"""Printing and parsing are inverse, and no text is answered by anything but a QueryError."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from ingester.lql import EVENTS, Query, parse, to_text
from ingester.lql.ast import And, Chart, Column, Contains, Filter, Not, Or, Path, Text, TimeFilter

from .definition_cases import CASES
from .refusals import maybe_refusal
from .strategies import queries


@settings(max_examples=500, deadline=None)
@given(queries)
def test_printed_query_parses_to_the_same_tree(query: Query) -> None:
    assert parse(to_text(query)) == query


@settings(max_examples=100, deadline=None)
@given(queries)
def test_printing_is_stable(query: Query) -> None:
    text = to_text(query)
    assert to_text(parse(text)) == text


def test_cases_survive_printing() -> None:
    for _, query, *_ in CASES:
        assert parse(to_text(parse(query))) == parse(query), query


def test_events_survive_printing() -> None:
    query = parse("account_id:x m.plan:pro level:error ~a created_at:today", schema=EVENTS)
    assert query.where == And((
        Filter(Column("account_id"), "=", Text("x")),
        Filter(Path(("plan",)), "=", Text("pro")),
        Filter(Path(("level",)), "=", Text("error")),
        Filter(Column("event_message"), "~", Text("a")),
    ))
    assert parse(to_text(query, schema=EVENTS), schema=EVENTS) == query


def test_needless_marks_are_gone() -> None:
    assert to_text(parse('((a))  "b" AND metadata.`c`:"d"')) == "a b m.c:d"
    assert to_text(parse("(a OR b) t:today c:group_by(t::minute)")) == "(a OR b) t:today c:count(*)"
    assert to_text(parse("-(-a) -(b c)")) == "-(-a) -(b c)"
    assert to_text(parse("(a OR b) OR c")) == "(a OR b) OR c"


def test_values_keep_their_kind() -> None:
    for text in ("8", "true", "NULL", "1..2", ">5", "a b", "(", "", "=x", "2026-01-01", "~x"):
        query = Query(Filter(Path(("a",)), "=", Text(text)))
        assert parse(to_text(query)) == query, text
    assert to_text(Query(Contains("http://x"))) == '"http://x"'
    assert to_text(Query(Not(Contains("-x")))) == '-"-x"'
    assert to_text(Query(times=(TimeFilter(">", "2026-04-15 10:00"),))) == 't:>"2026-04-15 10:00"'
    assert to_text(Query(Or((Contains("a"), Contains("b"))), chart=Chart())) == (
        "(a OR b) c:count(*)"
    )


_PIECES = [
    *("a", "m.", "metadata.", "`", '"', "\\", "(", ")", "-", "~", ":", ".", "..", "OR", "AND"),
    *(" ", "\n", ">", "<", "=", "!", "@>", "@>~", "t:", "c:", "s:", "f:", "level:", "NULL", "8"),
    *("count(", "group_by(", "t::", "*", ",", "{", "}", "[", "]", "last@5m", "2026-04-15", "@"),
    *("\ud800", "é", "😀", "\x00", "1e9", "true", "^", "$", "+", "?", "|", "/", "http://"),
]


@settings(max_examples=3000, deadline=None)
@given(st.lists(st.sampled_from(_PIECES), max_size=12).map("".join) | st.text(max_size=20))
@example("m.`a`.:x")
@example("c:count(")
def test_any_text_is_read_or_refused_with_a_column_within_it(text: str) -> None:
    as_search, as_rule = maybe_refusal(text), maybe_refusal(text, "rule")
    for refusal in (as_search, as_rule):
        assert refusal is None or 1 <= refusal.column <= len(text) + 1
    if as_search is None:
        assert parse(to_text(parse(text))) == parse(text)
    else:
        assert as_rule is not None
        assert as_rule.column == as_search.column
