"""Small requests: the entry freezes every outcome; live and replay come to the same rows."""

from __future__ import annotations

import gzip
import zlib
from typing import Any

import msgspec
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from ingester.protocol.event_lines import EventRules
from ingester.protocol.event_runs import decode_accepted
from ingester.protocol.inflate import Encoding
from ingester.protocol.requests import (
    ENTRY_VERSION,
    SmallRequest,
    decode_body,
    decode_entry,
    decode_single_events,
    entry_from_bytes,
    entry_to_bytes,
    is_single_event,
)

from .lines import bodies, decoded, entry, event_line

TIGHT = EventRules(line_bytes_max=2400, depth_max=8)
LENIENT = EventRules(line_bytes_max=2400, depth_max=8, lenient_session=True)


def outcome(request: SmallRequest) -> tuple[Any, ...]:
    lines = list(request.lines)
    events = decode_accepted(b"".join(line + b"\n" for line in lines), lines)
    accepted = [
        (number, line, msgspec.structs.astuple(event))
        for number, line, event in zip(request.line_numbers, lines, events, strict=True)
    ]
    counts = (len(accepted), request.rejected_count)
    return accepted, list(request.rejects), dict(request.reasons), counts


@settings(max_examples=300, deadline=None)
@given(bodies(), st.sampled_from([TIGHT, LENIENT]), st.sampled_from([0, 1, 100]))
def test_a_body_comes_to_what_the_decoder_makes_of_it(
    body: tuple[bytes, list[bytes]], rules: EventRules, rejects_max: int
) -> None:
    raw = body[0]
    request = decode_body(entry(raw, rules=rules, rejects_max=rejects_max), raw)
    assert outcome(request) == tuple(decoded([raw], rules, rejects_max=rejects_max))
    assert request.bytes_raw == len(raw)


_ONE = event_line()


@pytest.mark.parametrize("rules", [TIGHT, LENIENT, EventRules(line_bytes_max=len(_ONE))])
@pytest.mark.parametrize(
    "raw",
    [
        _ONE,
        _ONE + b"\n",
        _ONE + b"\r\n",
        _ONE + b" \t\r\n\r\n \n",
        _ONE + b" ",
        _ONE + b" " * 3000,
        _ONE + b"\n" * 3000,
        b"\xef\xbb\xbf" + _ONE,
        b" " + _ONE,
        _ONE + _ONE,
        _ONE[:-1] + b"\n}",
        event_line(sessionId=None),
        event_line(sessionId=""),
        event_line(x="y" * 2400),
        b"{",
        b"{ ",
        b"{\n",
        b"{}",
        b"",
        b"\n",
    ],
)
def test_the_short_way_for_one_event_is_no_other_way(raw: bytes, rules: EventRules) -> None:
    for rejects_max in (0, 5):
        request = decode_body(entry(raw, rules=rules, rejects_max=rejects_max), raw)
        assert outcome(request) == tuple(decoded([raw], rules, rejects_max=rejects_max))


def test_a_large_body_is_decoded_in_turns_to_the_same_rows() -> None:
    raw = b"\n".join(event_line(n=n) for n in range(6000)) + b"\nbad\n" + b"x" * 2_000_000
    request = decode_body(entry(raw), raw)
    assert outcome(request) == tuple(decoded([raw]))
    assert (len(request.lines), request.rejected_count) == (6000, 2)


@given(
    st.binary(max_size=50), st.integers(0, 2**63 - 1), st.text(max_size=8), st.none() | st.text()
)
def test_entries_read_back_as_written(
    body: bytes, number: int, source: str, key: str | None
) -> None:
    made = entry(body, number=number, source=source, key=key, rules=LENIENT)
    payload = entry_to_bytes(made)
    assert entry_from_bytes(payload) == made
    assert entry_to_bytes(entry_from_bytes(payload)) == payload


ENCODED: list[tuple[Encoding, Any]] = [
    ("identity", bytes),
    ("gzip", gzip.compress),
    ("deflate", zlib.compress),
    ("zstd", zstandard.compress),
]


@pytest.mark.parametrize(("encoding", "compress"), ENCODED)
def test_replay_comes_to_the_rows_of_the_live_path(encoding: Encoding, compress: Any) -> None:
    raw = _ONE + b"\r\n\xff\n" + event_line(sessionId=None) + b"\n" + _ONE
    made = entry(compress(raw), encoding=encoding, is_plain=encoding == "identity", key="k")
    live = decode_body(made, raw)
    replayed = decode_entry(entry_from_bytes(entry_to_bytes(made)))
    assert outcome(replayed) == outcome(live)
    assert replayed.record() == live.record()


_SINGLES = [
    event_line(),
    event_line(action="é", x="\\ud83d\\ude00") + b" \r\n",
    event_line(sessionId=None),
    event_line(x=[[]]),
    event_line(x="y" * 90),
    event_line().replace(b"accountId", b"account_id"),
    b'{"accountId":"\xff"}\n',
    b'{"accountId":"a}',
    b"{}{}",
    b'{"x":"\\ud800"}',
]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from(_SINGLES), min_size=1, max_size=6),
    st.lists(st.sampled_from([TIGHT, LENIENT, EventRules(150, 2)]), min_size=1, max_size=2),
)
def test_single_events_decoded_together_come_to_what_each_comes_to(
    lines: list[bytes], rules: list[EventRules]
) -> None:
    entries = [entry(raw, rules=rules[n % len(rules)], number=n) for n, raw in enumerate(lines)]
    assert all(map(is_single_event, entries))
    together = decode_single_events(entries)
    for request, one in zip(together, entries, strict=True):
        alone = decode_entry(one)
        assert outcome(request) == outcome(alone)
        assert request.record() == alone.record()
        kept = [msgspec.structs.astuple(event) for event in request.rows]
        assert kept == [event for _, _, event in outcome(request)[0]]


@pytest.mark.parametrize("raw", [b"", b" {}", b"{}\n{}", _ONE + b"\n\n", b"\xef\xbb\xbf" + _ONE])
def test_what_is_not_one_line_is_no_single_event(raw: bytes) -> None:
    assert not is_single_event(entry(raw))
    assert not is_single_event(entry(gzip.compress(_ONE), encoding="gzip", is_plain=False))


def test_replay_goes_by_the_rules_of_the_time() -> None:
    raw = event_line(sessionId=None) + b"\n" + event_line(x=[[]]) + b"\n" + b"x" * 200
    rules = EventRules(line_bytes_max=150, depth_max=2, lenient_session=True)
    request = decode_entry(entry(raw, rules=rules))
    assert [r.reason for r in request.rejects] == ["too_deep", "too_long"]
    assert len(request.lines) == 1


def test_a_body_within_the_limits_then_inflates_now_whatever_its_ratio() -> None:
    raw = b"\n" * 3_000_000 + _ONE
    made = entry(gzip.compress(raw), encoding="gzip", is_plain=False)
    assert decode_entry(made).bytes_raw == len(raw)


def test_the_record_counts_what_was_received_and_what_came_of_it() -> None:
    raw = _ONE + b"\nbad\n"
    packed = gzip.compress(raw)
    made = entry(packed, encoding="gzip", is_plain=False, key="k", rejects_max=0)
    record = decode_entry(made).record()
    assert (record.accepted, record.rejected) == (1, 1)
    assert (record.bytes_in, record.bytes_raw) == (len(packed), len(raw))
    assert (record.request_number, record.received_at_us) == (11, 13)
    assert (record.door, record.source, record.credential) == ("natero", "shop", "source:1")
    assert (record.encoding, record.idempotency_key, record.fingerprint) == (
        "gzip",
        "k",
        b"f" * 16,
    )


def test_an_entry_of_another_version_is_not_guessed_at() -> None:
    newer = msgspec.structs.replace(entry(b""), version=ENTRY_VERSION + 1)
    with pytest.raises(AssertionError, match="version 2"):
        entry_from_bytes(entry_to_bytes(newer))


def test_repr_shows_no_payload() -> None:
    made = entry(_ONE, key="k")
    assert repr(made) == f"JournalEntry(000000000000000b, {len(_ONE)} bytes)"
    assert repr(decode_entry(made)) == "SmallRequest(1 rows, 0 rejects)"
