"""Events of any shape: where a map finds their properties, and what it says when it does not."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingester.errors import ConfigError
from ingester.messages import LineReject
from ingester.protocol.body_decoder import BodyLimits
from ingester.protocol.event_lines import Event, EventRules, decode_line
from ingester.protocol.honest_events import HonestEventDecoder
from ingester.protocol.mapping import EventMap, compile_map

from ..helpers import sliced
from .lines import bodies, decoded, event_line, lines, rows_of

LIMITS = BodyLimits(line_bytes_max=2400, value_bytes_max=20_000, depth_max=8)
RULES = EventRules(line_bytes_max=2400, depth_max=8)
MAP = {
    "account_id": "/org/id",
    "user_id": "=system",
    "action": "/type",
    "session_id": "/context/session/id",
    "created_at": "/at",
    "time_unit": "s",
}
ODD: dict[str, Any] = {
    "org": {"id": "acme", "name": "x"},
    "type": "push",
    "context": {"session": {"id": "s-1"}},
    "at": 1_700_000_000.123,
}
Rows = list[tuple[int, bytes, tuple[object, ...]]]


def decoder(event_map: EventMap | None, *, lenient: bool = False) -> HonestEventDecoder:
    return HonestEventDecoder(
        LIMITS, rejects_max=99, is_plain=True, lenient_session=lenient, event_map=event_map
    )


def run(one: HonestEventDecoder, pieces: list[bytes]) -> tuple[Rows, list[LineReject]]:
    one.chunk_bytes_min = 0  # or nothing so small would be read by chunk
    batches = [batch for piece in pieces for batch in one.feed(piece)] + list(one.finish())
    return [row for batch in batches for row in rows_of(batch)], one.take_rejects()


class ByText(HonestEventDecoder):
    def read_chunk(self, *_: Any) -> None:
        return None


def read(value: Any, rules: EventRules = RULES, **changes: str) -> Any:
    line = value if isinstance(value, bytes) else json.dumps(value).encode()
    return compile_map({**MAP, **changes}).read_event(line, 1, rules)


def test_an_odd_event_is_found_where_the_map_says() -> None:
    assert msgspec.structs.astuple(read(ODD)) == (
        "acme", "system", 1_700_000_000_123.0, "push", "s-1"
    )  # fmt: skip
    rows, rejects = run(decoder(compile_map(MAP)), [json.dumps(ODD).encode()])
    assert (len(rows), rejects) == (1, [])
    assert rows[0][1] == json.dumps(ODD).encode()


@pytest.mark.parametrize(
    ("unit", "value", "millis"),
    [
        ("s", 1_700_000_000, 1_700_000_000_000), ("s", 1_700_000_000.1239, 1_700_000_000_123),
        ("s", 0, 0), ("s", 0.1236, 123), ("s", 253402300799.9995, 253402300799_999),
        ("ms", 1_700_000_000_123, 1_700_000_000_123),
        ("us", 1_700_000_000_123_999, 1_700_000_000_123),
        ("ns", 1_700_000_000_123_999_999, 1_700_000_000_123), ("ns", 1.5e18, 1_500_000_000_000),
        ("rfc3339", "2023-11-14T22:13:20.123999Z", 1_700_000_000_123),
        ("rfc3339", "1970-01-01T00:00:00Z", 0),
    ],
)  # fmt: skip
def test_units_of_time(unit: str, value: object, millis: int) -> None:
    event = read({**ODD, "at": value}, time_unit=unit)
    assert int(event.createdAt) == millis


@pytest.mark.parametrize(
    ("unit", "value", "reason"),
    [
        ("s", "1700000000", "wrong_type"), ("s", True, "wrong_type"), ("s", -1, "out_of_range"),
        ("s", 253402300800, "out_of_range"), ("ns", 253402300800 * 10**9, "out_of_range"),
        ("s", None, "wrong_type"), ("rfc3339", 5, "wrong_type"), ("rfc3339", "now", "wrong_type"),
        ("rfc3339", "1969-12-31T23:59:59Z", "out_of_range"),
        ("rfc3339", "9999-12-31T23:59:59-01:00", "out_of_range"),
    ],
)  # fmt: skip
def test_times_that_are_none(unit: str, value: object, reason: str) -> None:
    reject = read({**ODD, "at": value}, time_unit=unit)
    assert (reject.reason, reject.field) == (reason, "createdAt")
    assert reject.detail.startswith("createdAt (/at) must be")


def test_a_time_in_words_is_told_how_to_be_read() -> None:
    told = read({**ODD, "at": "2023-11-14T22:13:20Z"}, time_unit="ms").detail
    assert told.endswith("got a string; with time_unit=rfc3339 in the map such times are read")
    assert read({**ODD, "at": "yesterday"}, time_unit="ms").detail.endswith("got a string")


@pytest.mark.parametrize(
    ("changes", "reason", "detail"),
    [
        ({"org": None}, "missing_field", "accountId (/org/id) is missing"),
        ({"org": {"id": ""}}, "missing_field", "accountId (/org/id) is empty"),
        ({"org": {"id": 1.5}}, "wrong_type", "accountId (/org/id) must be a string, got a number"),
        ({"org": {"id": True}}, "wrong_type", "accountId (/org/id) must be a string, got a bool"),
        ({"org": {"id": "x" * 1025}}, "too_long", "accountId (/org/id) has 1025 characters"),
        ({"type": ["x"]}, "wrong_type", "action (/type) must be a string, got an array"),
        ({"context": {}}, "missing_field", "sessionId (/context/session/id) is missing"),
        ({"at": None}, "wrong_type", "createdAt (/at) must be a number, got null"),
        ({"x": [[[[[[[[1]]]]]]]]}, "too_deep", "more than 8 levels of nesting"),
        ({"x": "y" * 2400}, "too_long", "2"),
    ],
)  # fmt: skip
def test_what_is_missing_or_wrong_is_named(changes: Any, reason: str, detail: str) -> None:
    reject = read({**ODD, **changes})
    assert (reject.reason, reject.detail[: len(detail)]) == (reason, detail)


def test_an_integer_is_an_id_where_the_map_points_only() -> None:
    assert read({**ODD, "org": {"id": 12345678901234567890}}).accountId == "12345678901234567890"
    event_map = compile_map({"account_id": "/n"})
    assert event_map.read_event(event_line(n=7), 1, RULES).accountId == "7"
    reject = event_map.read_event(event_line(n=7, userId=8), 1, RULES)
    assert (reject.reason, reject.field) == ("wrong_type", "userId")
    body = b"\n".join([event_line(n=7), event_line(n="x")])
    rows, _ = run(decoder(event_map), [body])
    assert [row[2][0] for row in rows] == ["7", "x"]


def test_a_lenient_source_may_lack_the_session() -> None:
    lenient = EventRules(line_bytes_max=2400, depth_max=8, lenient_session=True)
    for context in ({}, {"session": {"id": None}}, {"session": {"id": ""}}, None):
        assert read({**ODD, "context": context}, lenient).sessionId is None
        assert isinstance(read({**ODD, "context": context}), LineReject)
    assert isinstance(read({**ODD, "context": {"session": {"id": 1.5}}}, lenient), LineReject)


@pytest.mark.parametrize(
    ("settings_", "error"),
    [
        ({"account": "/x"}, "map.account: one of account_id, user_id"),
        ({"account_id": "x"}, "map.account_id: a JSON pointer starts with a slash"),
        ({"account_id": ""}, "map.account_id: a JSON pointer"),
        ({"account_id": "/a~x"}, "map.account_id: in a JSON pointer ~ is written ~0"),
        ({"account_id": "="}, "map.account_id: 1 to 1024 characters"),
        ({"action": "=" + "x" * 1025}, "map.action: 1 to 1024 characters"),
        ({"created_at": "=5"}, "map.created_at: a time cannot be a constant"),
        ({"time_unit": "h"}, "map.time_unit: one of s, ms, us, ns, rfc3339"),
    ],
)
def test_maps_that_are_refused(settings_: dict[str, str], error: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compile_map(settings_)
    assert str(caught.value).startswith(error)


_IDS = st.sampled_from(["a", "", "x" * 1025, 7, 10**30, 1.5, True, None, [], {"id": "deep"}])
_TIMES = st.sampled_from([
    0,
    1.5,
    1_700_000_000,
    10**15,
    -1,
    "2023-11-14T22:13:20Z",
    "x",
    None,
    True,
])


@st.composite
def _odd_lines(draw: st.DrawFn) -> bytes:
    value = json.loads(json.dumps(ODD))
    for _ in range(draw(st.integers(0, 2))):
        draw(st.sampled_from([
            lambda: value["org"].update(id=draw(_IDS)),
            lambda: value.update(at=draw(_TIMES)),
            lambda: value.update(context=draw(_IDS)),
            lambda: value["context"].update(session=draw(_IDS)) if isinstance(
                value["context"], dict) else None,
            lambda: value.update(type=draw(_IDS)),
            lambda: value.pop(draw(st.sampled_from(["org", "at", "type"])), None),
            lambda: value.setdefault("org", {}),
        ]))() if "org" in value else None  # fmt: skip
    text = json.dumps(value).encode()
    return text[:-1] + draw(
        st.sampled_from([b"}", b',"type":"again"}', b',"org":{}}', b',"x":1e999}'])
    )


@settings(max_examples=300, deadline=None)
@given(st.lists(_odd_lines(), min_size=1, max_size=6), st.sampled_from(["s", "rfc3339"]),
       st.booleans())  # fmt: skip
def test_chunks_and_lines_agree(odd: list[bytes], unit: str, lenient: bool) -> None:
    event_map = compile_map({**MAP, "time_unit": unit})
    body = b"\n".join(odd)
    fast = run(decoder(event_map, lenient=lenient), [body])
    slow = ByText(
        LIMITS, rejects_max=99, is_plain=True, lenient_session=lenient, event_map=event_map
    )
    assert run(slow, [body]) == fast
    assert len(fast[0]) + len(fast[1]) == len(odd)


@settings(max_examples=200, deadline=None)
@given(lines(), st.booleans())
def test_an_empty_map_takes_what_contract_3_1_takes(line: bytes, lenient: bool) -> None:
    line = line.replace(b"\n", b" ")
    if not line.strip(b" \t\r"):
        return
    rules = EventRules(2400, 8, lenient)
    ours, reference = compile_map({}).read_event(line, 1, rules), decode_line(line, 1, rules)
    if isinstance(reference, LineReject):
        assert isinstance(ours, LineReject)
        assert (ours.reason, ours.field) == (reference.reason, reference.field)
    else:
        assert isinstance(ours, Event)
        assert msgspec.structs.astuple(ours) == msgspec.structs.astuple(reference)


@settings(max_examples=200, deadline=None)
@given(bodies(), st.booleans())
def test_lines_without_a_map_are_those_of_the_natero_door(
    body: tuple[bytes, list[bytes]], lenient: bool
) -> None:
    """But for a body that is one value, which may span lines and be an array here."""
    rules = EventRules(2400, 8, lenient)
    marked = event_line() + b"\n" + body[0].removeprefix(b"\xef\xbb\xbf") + b"\n" + event_line()
    expected = decoded([marked], rules)
    rows, rejects = run(decoder(None, lenient=lenient), [marked])
    assert rows == expected.accepted
    assert rejects == expected.rejects


def test_arrays_and_objects_of_events() -> None:
    good, pretty = event_line(), json.dumps(json.loads(event_line()), indent=1).encode()
    for body, texts, refused in [
        (b"[" + good + b",{}," + good + b"]", [good, good], [2]),
        (b"[\n" + pretty + b",\n5,\n" + pretty + b"\n]", [pretty, pretty], [2]),
        (pretty, [pretty], []),
        (b"[" + good[:-1] + b',"x":"' + b"y" * 2400 + b'"},' + good + b"]", [good], [1]),
        (b"[]", [], []),
    ]:
        for pieces in sliced(body, rounds=3):
            rows, rejects = run(decoder(None), pieces)
            assert [text for _, text, _ in rows] == texts
            assert [reject.line_number for reject in rejects] == refused


def test_regular_events_take_the_fast_way() -> None:
    seen = []

    class Watched(HonestEventDecoder):
        def read_chunk(self, *chunk: Any) -> Any:
            found = super().read_chunk(*chunk)
            seen.append(found is not None)
            return found

    snake = event_line(sessionId=None, session_id="s")
    for line, event_map in [
        (json.dumps(ODD).encode(), compile_map(MAP)), (event_line(), None), (snake, None),
        (json.dumps({**ODD, "org": {"id": 5}}).encode(), compile_map(MAP)),
    ]:  # fmt: skip
        one = Watched(LIMITS, rejects_max=9, is_plain=True, event_map=event_map)
        seen.clear()
        assert len(run(one, [line + b"\n" + line])[0]) == 2
        assert seen
        assert all(seen)
