"""Completion suggests what the parser would take at the cursor."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingester.lql import EVENTS, complete

from .definition_cases import CASES
from .refusals import maybe_refusal

FIELDS: dict[str, list[object]] = {
    "metadata.user.id": ["u-1", "5", 7, True, False, "true"],
    "metadata.`user-agent`": ["curl/7", "Mozilla 5.0"],
    "service": ["checkout", "two words"],
    "bad-name": ["x"],
    "a.": [],
}

SUGGESTED: list[tuple[str, list[str]]] = [
    ("le", ["level:"]),
    ("-se", ["service:"]),
    ("(x OR env", ["environment:"]),
    ("m.", ["m.user.id:", "m.`user-agent`:"]),
    ("metadata.us", ["metadata.user.id:"]),
    ("m.`us", ["m.`user-agent`:"]),
    ("x O", ["OR"]),
    ("O", []),
    ("(O", []),
    ("level:e", ["error", "emergency"]),
    ("level:>=w", ["warning"]),
    ("m.level:no", ["notice"]),
    ("m.user.id:u", ["u-1"]),
    ("m.user.id:>", ["u-1", '"5"', "7", "true", "false", '"true"']),
    ("m.user.id:~", []),
    ("m.user.id:N", ["NULL"]),
    ("m.user.id:@", ["@>", "@>~"]),
    ("m.other:<", []),
    ('m.`user-agent`:"Mo', ['"Mozilla 5.0"']),
    ("t:y", ["yesterday"]),
    ("t:", ["now", "today", "yesterday", "last@5m", "last@1h", "last@24h"]),
    ("t:>=th", ["this@hour", "this@day", "this@week", "this@month", "this@year"]),
    ("c:co", ["count(", "countd("]),
    ("c:g", ["group_by("]),
    ("c:avg(m.u", ["m.user.id"]),
    ("c:avg(m.`", ["m.`user-agent`"]),
    ("c:group_by(t::h", ["t::hour"]),
    ("c:group_by(t::h, ser", ["service"]),
    ("s:m.us", ["m.user.id"]),
    ("f:", ["checkout", '"two words"']),
    ("f:t", []),
    ('"a b', []),
    ("a:!= c", []),
    ("x ~a", []),
    ("level", ["level:"]),
    ("level:error", []),
    ("(" * 200, []),
]


@pytest.mark.parametrize(("before", "expected"), SUGGESTED)
def test_suggestions_fit_the_cursor(before: str, expected: list[str]) -> None:
    found = complete(before, len(before), FIELDS)
    assert [s.text for s in found][: len(expected) or None] == expected


def test_a_blank_starts_a_clause() -> None:
    first = {s.text for s in complete("", 0, FIELDS)}
    later = {s.text for s in complete("a ", 2, FIELDS)}
    assert {"level:", "m.user.id:", "t:", "c:"} <= first
    assert later - first == {"OR", "AND"}
    kinds = {s.kind for s in complete("m.a:", 4, ["metadata.a"])}
    assert kinds == {"operator", "value"}


def test_the_word_under_the_cursor_is_replaced() -> None:
    (found,) = complete("x lev:error y", 5, FIELDS)
    assert (found.text, found.start, found.end) == ("level:", 2, 6)
    (found,) = complete("level:wxy z", 7, FIELDS)
    assert (found.text, found.start, found.end) == ("warning", 6, 9)
    assert complete("le", 99, FIELDS) == complete("le", 2, FIELDS)
    assert complete("le", -1, FIELDS) == complete("le", 0, FIELDS)


def test_events_have_their_own_names() -> None:
    assert [s.text for s in complete("acc", 3, schema=EVENTS)] == ["account_id:"]
    assert complete("level:e", 7, schema=EVENTS) == []


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([query for _, query, *_ in CASES]), st.integers(0, 40))
def test_a_suggestion_never_makes_a_query_worse(query: str, cursor: int) -> None:
    """What is inserted is read as far as it goes: an error can only lie at its end or behind."""
    for suggestion in complete(query, cursor, FIELDS):
        assert 0 <= suggestion.start <= min(cursor, len(query)) <= suggestion.end <= len(query)
        refusal = maybe_refusal(query[: suggestion.start] + suggestion.text)
        if refusal is not None and refusal.column <= suggestion.start:
            is_word = suggestion.text in {"OR", "AND"}
            assert is_word or "never closed" in str(refusal)
