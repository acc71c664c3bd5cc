"""Chunks with lines at fault: the others are decoded together, and nothing is decided otherwise."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingester.protocol.chunk_shape import ChunkShape
from ingester.protocol.event_lines import EventRules, decode_line
from ingester.protocol.event_runs import decode_chunk

from .lines import LineByLine, decoded, event_line

_RULES = EventRules(line_bytes_max=2400, depth_max=8)
_GOOD = event_line()
_SNAKE = event_line(accountId=None, account_id="acct")
# Refused by the first value of the line, by a later one, by grammar at its start, its end, or only
# behind its end, and odd in each way.
_BAD = [
    event_line(accountId=5),
    event_line(sessionId=""),
    event_line(createdAt=-1),
    b'{"accountId" 5}',
    _GOOD[:-1] + b",}",
    _GOOD[:-1] + b', "open": {"a": 1}',
    b'{"open": "}',
    _GOOD + b" " + _GOOD,
    b"not json",
    b"[" + _GOOD + b"]",
    _GOOD[:-1] + b', "x": "\xff"}',
    _GOOD[:-1] + b', "x": "\\ud800"}',
    _GOOD[:-1] + b', "x": ' + b"[" * 9 + b"]" * 9 + b"}",
    _GOOD[:-1] + b', "x": "' + b"y" * 2400 + b'"}',
    b"",
    b" " + _GOOD + b" ",
]


@pytest.mark.parametrize("bad", _BAD)
@pytest.mark.parametrize("place", [0, 1, 7, 39])
def test_one_odd_line_is_told_of_and_the_others_are_taken(bad: bytes, place: int) -> None:
    lines = [_GOOD] * 39
    lines.insert(place, bad)
    body = b"\n".join(lines)
    whole = decoded([body], _RULES)
    assert whole == decoded([body], _RULES, decoder=LineByLine)
    assert whole.counts[0] >= 39


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from([_GOOD] * 12 + [_SNAKE] * 3 + _BAD), min_size=1, max_size=60))
def test_any_mixture_comes_to_what_its_lines_come_to(lines: list[bytes]) -> None:
    body = b"\n".join(lines)
    assert decoded([body], _RULES) == decoded([body], _RULES, decoder=LineByLine)


def _looked_at(lines: list[bytes], monkeypatch: pytest.MonkeyPatch) -> int:
    """How many lines were looked at by themselves."""
    seen: list[bytes] = []

    def watched(line: bytes, number: int, rules: EventRules) -> object:
        seen.append(line)
        return decode_line(line, number, rules)

    monkeypatch.setattr("ingester.protocol.event_runs.decode_line", watched)
    rejected: list[int] = []
    decode_chunk(
        b"\n".join([*lines, b""]),
        ChunkShape(_RULES.line_bytes_max, _RULES.depth_max),
        _RULES,
        1,
        lambda _, number: rejected.append(number),
    )
    return len(seen)


@pytest.mark.parametrize("bad", [bad for bad in _BAD[:-2] if bad != _GOOD + b" " + _GOOD])
def test_only_the_line_at_fault_is_looked_at(bad: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _looked_at([_GOOD] * 50 + [bad] + [_GOOD] * 50, monkeypatch) <= 2


def test_a_body_in_the_other_spelling_is_not_looked_at_line_by_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines = [_SNAKE] * 50 + [event_line(userId=7)] + [_SNAKE] * 50
    assert _looked_at(lines, monkeypatch) <= 3


def test_a_line_refused_before_has_its_own_number() -> None:
    bad = event_line(accountId=5)
    found = decoded([b"\n".join([_GOOD, bad, _GOOD, bad, bad])], _RULES)
    assert [reject.line_number for reject in found.rejects] == [2, 4, 5]
