"""One line at a time: the exact reason, field and column of every refusal (contract 3.1, 3.5)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingester.messages import REJECT_REASONS, LineReject
from ingester.protocol.event_lines import (
    EventRules,
    decode_line,
    lone_surrogate_at,
    too_long,
    wrong_encoding,
)
from ingester.protocol.ndjson import EXCERPT_BYTES_MAX

from .lines import GOOD, event_line, nested

RULES = EventRules()
LENIENT = EventRules(lenient_session=True)


def refusal(line: bytes, rules: EventRules = RULES) -> LineReject:
    outcome = decode_line(line, 7, rules)
    assert isinstance(outcome, LineReject)
    assert outcome.line_number == 7
    assert outcome.line == line[:EXCERPT_BYTES_MAX]
    assert outcome.reason in REJECT_REASONS
    return outcome


def accepted(line: bytes, rules: EventRules = RULES) -> Any:
    outcome = decode_line(line, 1, rules)
    assert not isinstance(outcome, LineReject), outcome.detail
    return outcome


GOOD_BYTES = event_line()
END = len(GOOD_BYTES)
TIME_RANGE = "createdAt must be epoch milliseconds from 0 to 253402300799999"
SECOND = "a second value on the line; one event per line"
AN_ARRAY = "an array, not an object; one event per line, without brackets"
HALF = "half of a surrogate pair in an escape"

# (line, reason, field, column, detail)
REFUSALS: list[tuple[bytes, str, str | None, int, str]] = [
    # Grammar; the column is that of the first byte that cannot be.
    (b"x", "invalid_json", None, 1, "invalid character"),
    (b"nope", "invalid_json", None, 2, "invalid character"),
    (b'{"a" 1}', "invalid_json", None, 6, "expected ':'"),
    (b'{"a":1 2}', "invalid_json", None, 8, "expected ',' or '}'"),
    (b'{"a":1,}', "invalid_json", None, 8, "trailing comma in object"),
    (b"{a:1}", "invalid_json", None, 2, "object keys must be strings"),
    (b'{"a":"\x01"}', "invalid_json", None, 7, "invalid character"),
    (b'{"a":01}', "invalid_json", None, 7, "invalid number"),
    (b'{"a":"\\q"}', "invalid_json", None, 8, "invalid escaped character"),
    (b'{"a":NaN}', "invalid_json", None, 6, "invalid character"),
    (b'{"a":1', "invalid_json", None, 7, "the line ends inside the value"),
    (b'{"a":"b', "invalid_json", None, 8, "the line ends inside the value"),
    (b"[1, 2", "invalid_json", None, 6, "the line ends inside the value"),
    (b"[1 2]", "invalid_json", None, 4, "expected ',' or ']'"),
    (b"\xef\xbb\xbf{}", "invalid_json", None, 1, "invalid character"),
    (GOOD_BYTES + b",", "invalid_json", None, END + 1, "trailing characters"),
    (GOOD_BYTES + b"}", "invalid_json", None, END + 1, "trailing characters"),
    (GOOD_BYTES + b" truly", "invalid_json", None, END + 2, "trailing characters"),
    (GOOD_BYTES + b'{"a', "invalid_json", None, END + 1, "trailing characters"),
    (b"  x", "invalid_json", None, 3, "invalid character"),
    # Several values.
    (GOOD_BYTES + GOOD_BYTES, "several_values", None, END + 1, SECOND),
    (GOOD_BYTES + b"  \t" + GOOD_BYTES, "several_values", None, END + 4, SECOND),
    (GOOD_BYTES + b"{}", "several_values", None, END + 1, SECOND),
    (GOOD_BYTES + b"[]", "several_values", None, END + 1, SECOND),
    (GOOD_BYTES + b" 5", "several_values", None, END + 2, SECOND),
    (GOOD_BYTES + b" null x", "several_values", None, END + 2, SECOND),
    (b"{}{}", "several_values", None, 3, SECOND),
    (b"1 2", "several_values", None, 3, SECOND),
    (b"[1][2]", "several_values", None, 4, SECOND),
    (b'"a" "b"', "several_values", None, 5, SECOND),
    (b"{} 1e400", "several_values", None, 4, SECOND),
    # UTF-8.
    (b'{"a":"\xff"}', "invalid_utf8", None, 7, "byte 0xff is not UTF-8"),
    (b'{"a":"\xc3', "invalid_utf8", None, 7, "byte 0xc3 is not UTF-8"),
    (b'{"a":"\xed\xa0\x80"}', "invalid_utf8", None, 7, "byte 0xed is not UTF-8"),
    (b"\x80", "invalid_utf8", None, 1, "byte 0x80 is not UTF-8"),
    (b'{"a":"\\ud800"}', "invalid_utf8", None, 7, HALF),
    (b'{"a":"\\uDC00"}', "invalid_utf8", None, 7, HALF),
    (b'{"\\ud800":1}', "invalid_utf8", None, 3, HALF),
    (b'"\\ud800"', "invalid_utf8", None, 2, HALF),
    (b'{"a":"\\ud83d\\ude00\\ud83d"}', "invalid_utf8", None, 19, HALF),
    (b'{"a":"\\ud83d x \\ude00"}', "invalid_utf8", None, 7, HALF),
    (b'{"a":"\\ud83d\\ud83d\\ude00"}', "invalid_utf8", None, 7, HALF),
    (event_line()[:-1] + b',"x":"\\ude00\\ud83d"}', "invalid_utf8", None, END + 6, HALF),
    (event_line(accountId="\ud800"), "invalid_utf8", None, 16, HALF),
    # Other kinds of value.
    (b"[]", "not_an_object", None, 0, AN_ARRAY),
    (
        b"[" + GOOD_BYTES + b"]",
        "not_an_object",
        None,
        0,
        AN_ARRAY,
    ),
    (b" [1e400]", "not_an_object", None, 0, AN_ARRAY),
    (b'"text"', "not_an_object", None, 0, "a string, not an object"),
    (b"1", "not_an_object", None, 0, "a number, not an object"),
    (b"-1e400", "not_an_object", None, 0, "a number, not an object"),
    (b"9" * 5000, "not_an_object", None, 0, "a number, not an object"),
    (b"true", "not_an_object", None, 0, "a boolean, not an object"),
    (b"\tfalse ", "not_an_object", None, 0, "a boolean, not an object"),
    (b"null", "not_an_object", None, 0, "null, not an object"),
    # Properties, in the order accountId userId createdAt action sessionId.
    (b"{}", "missing_field", "accountId", 0, "accountId is missing"),
    *(
        (event_line(**{name: None}), "missing_field", name, 0, f"{name} is missing")
        for name in GOOD
    ),
    *(
        (event_line(**{name: ""}), "missing_field", name, 0, f"{name} is empty")
        for name in GOOD
        if name != "createdAt"
    ),
    *(
        (event_line(**{name: value}), "wrong_type", name, 0, f"{name} must be a string, got {kind}")
        for name in ("accountId", "userId", "action", "sessionId")
        for value, kind in [
            (5, "a number"),
            (1.5, "a number"),
            (True, "a boolean"),
            ([], "an array"),
            ({}, "an object"),
        ]
    ),
    (
        event_line(userId="x").replace(b'"x"', b"null"),
        "wrong_type",
        "userId",
        0,
        "userId must be a string, got null",
    ),
    *(
        (
            event_line(**{name: "x" * 1025}),
            "too_long",
            name,
            0,
            f"{name} has 1025 characters, at most 1024 are taken",
        )
        for name in ("accountId", "userId", "action", "sessionId")
    ),
    *(
        (
            event_line(createdAt=value),
            "wrong_type",
            "createdAt",
            0,
            f"createdAt must be a number, got {kind}",
        )
        for value, kind in [
            ("1700000000123", "a string"),
            (True, "a boolean"),
            ([1], "an array"),
            ({}, "an object"),
        ]
    ),
    *(
        (
            event_line(createdAt=77).replace(b"77", text),
            "out_of_range",
            "createdAt",
            0,
            TIME_RANGE,
        )
        for text in [
            b"-1", b"-0.001", b"253402300800000", b"1e15", b"1e400", b"-1e400", b"9" * 400,
            b"9" * 5000, b"-" + b"9" * 5000,
        ]
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "reason", "field", "column", "detail"), REFUSALS, ids=range(len(REFUSALS))
)
def test_refusals_name_reason_field_and_column(
    line: bytes, reason: str, field: str | None, column: int, detail: str
) -> None:
    found = refusal(line)
    assert (found.reason, found.field, found.column, found.detail) == (
        reason,
        field,
        column,
        detail,
    )


def test_blanks_before_a_line_move_its_columns() -> None:
    assert refusal(b' \t{"a" 1} ').column == 8
    assert refusal(b'  {"a":"\\ud800"}').column == 9
    assert refusal(b"  " + nested(129)).column == refusal(nested(129)).column + 2


def test_a_line_over_the_limit_says_how_long_it_is() -> None:
    rules = EventRules(line_bytes_max=len(GOOD_BYTES) - 1)
    found = refusal(GOOD_BYTES, rules)
    assert (found.reason, found.column, found.field) == ("too_long", 0, None)
    assert found.detail == f"{len(GOOD_BYTES)} bytes, at most {len(GOOD_BYTES) - 1} are taken"
    assert found == too_long(GOOD_BYTES, len(GOOD_BYTES), 7, rules)
    accepted(GOOD_BYTES, EventRules(line_bytes_max=len(GOOD_BYTES)))


@pytest.mark.parametrize("kind", [b"[]", b"{}"])
@pytest.mark.parametrize("depth_max", [1, 2, 8, 128, 512])
def test_depth_counts_from_the_event_itself(kind: bytes, depth_max: int) -> None:
    rules = EventRules(depth_max=depth_max)
    accepted(nested(depth_max, kind), rules)
    line = nested(depth_max + 1, kind)
    found = refusal(line, rules)
    assert (found.reason, found.field) == ("too_deep", None)
    assert found.detail == f"more than {depth_max} levels of nesting"
    before = line[: found.column - 1]
    assert line[found.column - 1 : found.column] in b"[{"
    assert before.count(b"[") + before.count(b"{") == depth_max


def test_brackets_in_strings_and_side_by_side_are_not_depth() -> None:
    rules = EventRules(depth_max=2)
    accepted(event_line(x="[[[{{{", y=[], z={}, w='\\"[[[', v="\\\\", u=[]), rules)
    accepted(event_line(x="{" * 1000, **{"[[[[[": 1}), rules)
    assert refusal(event_line(x="\\", y=[[]]), rules).reason == "too_deep"


def test_depth_beyond_what_the_decoder_can_walk_is_too_deep_as_well() -> None:
    rules = EventRules(depth_max=100_000)
    for line in (nested(50_000), b"[" * 50_000 + b"]" * 50_000):
        assert refusal(line, rules).reason == "too_deep"
    assert refusal(GOOD_BYTES + b"[" * 50_000, rules).reason == "invalid_json"


@pytest.mark.parametrize(
    "tail",
    [
        b'"' + b'\\"' * 400_000,
        b'"' + b"\\\\" * 400_000 + b"\\",
        b'"' * 900_001,
        b'"x",' * 200_000,
        b"\\" * 900_001,
        b'"\\ud83d\\ude00' * 60_000,
        b'"\\ud83d' * 100_000,
    ],
    ids=["escaped quotes", "backslashes", "quotes", "strings", "bare", "pairs", "halves"],
)
def test_megabyte_lines_made_to_hurt_take_a_moment(tail: bytes) -> None:
    """Brackets enough to ask for the depth, then a string that is never closed: the time a step
    takes must not grow with the square of the line (hours for a megabyte).
    """
    assert refusal(b'{"a":' + b"[]," * 200 + tail).reason in ("invalid_json", "invalid_utf8")


def test_all_spellings_are_the_same_properties_and_camel_case_wins() -> None:
    snake = b'{"account_id":"a","user_id":"u","created_at":5,"action":"x","session_id":"s"}'
    event = accepted(snake)
    assert (event.accountId, event.userId, event.createdAt) == ("a", "u", 5.0)
    assert (event.action, event.sessionId) == ("x", "s")
    for camel, other in [
        ("accountId", "account_id"),
        ("userId", "user_id"),
        ("sessionId", "session_id"),
    ]:
        assert getattr(accepted(event_line(**{other: "other"})), camel) == GOOD[camel]
        assert getattr(accepted(event_line(**{other: 5})), camel) == GOOD[camel]
        found = refusal(event_line(**{camel: "", other: "good"}))
        assert (found.reason, found.field) == ("missing_field", camel)
    assert accepted(event_line(created_at=5)).createdAt == GOOD["createdAt"]
    # The name of the property is told in its main spelling.
    assert refusal(snake.replace(b'"u"', b"5")).field == "userId"


def test_the_last_of_duplicate_keys_counts() -> None:
    line = event_line()
    assert accepted(line[:-1] + b',"accountId":"last"}').accountId == "last"
    assert accepted(b'{"accountId":5,' + line[1:]).accountId == "acme"
    assert accepted(b'{"createdAt":"x",' + line[1:]).createdAt == GOOD["createdAt"]
    found = refusal(line[:-1] + b',"userId":null}')
    assert (found.reason, found.field) == ("wrong_type", "userId")


def test_keys_may_be_written_with_escapes() -> None:
    assert accepted(event_line().replace(b"action", b"\\u0061ction")).action == "feature"


def test_names_of_1024_characters_are_taken_whatever_their_bytes() -> None:
    for character in ("x", "é", "😀"):
        name = character * 1024
        assert accepted(event_line(accountId=name)).accountId == name
        assert accepted(json.dumps({**GOOD, "accountId": name}, ensure_ascii=False).encode())
        assert refusal(event_line(accountId=name + character)).reason == "too_long"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"0", 0.0),
        (b"-0", 0.0),
        (b"0.0", 0.0),
        (b"1e-400", 0.0),
        (b"1.5e3", 1500.0),
        (b"1700000000123.75", 1700000000123.75),
        (b"253402300799999", 253402300799999.0),
        (b"253402300799999.9", 253402300799999.9),
        (b"2.534023007999990e14", 253402300799999.0),
    ],
)
def test_created_at_within_its_bounds(text: bytes, value: float) -> None:
    for rules in (RULES, LENIENT):
        assert accepted(event_line(createdAt=77).replace(b"77", text), rules).createdAt == value


def test_a_lenient_source_needs_no_session() -> None:
    for line in (
        event_line(sessionId=None),
        event_line(sessionId=""),
        event_line(sessionId="s").replace(b'"s"', b"null"),
        event_line(sessionId=None, session_id=""),
        event_line(sessionId="", session_id="s"),
    ):
        assert accepted(line, LENIENT).sessionId is None
        assert refusal(line).field == "sessionId"
    assert accepted(event_line(), LENIENT).sessionId == "s-1"
    assert accepted(event_line(sessionId=None, session_id="s"), LENIENT).sessionId == "s"
    for value, reason in [(5, "wrong_type"), (False, "wrong_type"), ([], "wrong_type")]:
        assert refusal(event_line(sessionId=value), LENIENT).reason == reason
    assert refusal(event_line(sessionId="x" * 1025), LENIENT).reason == "too_long"
    assert refusal(event_line(accountId=None), LENIENT).reason == "missing_field"


def test_what_is_no_column_may_be_any_json() -> None:
    for text in (b"1e400", b"-" + b"9" * 5000, b'"\\u0000"', b'"\\ud83d\\ude00"', b"[1e999,{}]"):
        accepted(GOOD_BYTES[:-1] + b',"x":' + text + b"}")
        accepted(GOOD_BYTES[:-1] + b',"x":' + text + b"}", LENIENT)
    accepted(GOOD_BYTES[:-1] + b',"\\u0000":1,"":2,"":3}')


def test_wrong_encoding_names_the_encoding_that_was_meant() -> None:
    for head, name in [(b"\x1f\x8b\x08", "gzip"), (b"\x28\xb5\x2f\xfd\x04", "zstd")]:
        found = wrong_encoding(head)
        assert (found.line_number, found.reason, found.line) == (1, "wrong_encoding", head)
        assert found.detail == (
            f"the body looks like {name}; send it with Content-Encoding: {name}"
        )


_ESCAPES = st.sampled_from([
    "\\ud83d",
    "\\uDE00",
    "\\udfff",
    "\\ud800",
    "\\u0041",
    "\\\\",
    "\\n",
    "ud800",
    "x",
    "\\ue000",
])


@given(st.lists(_ESCAPES, max_size=12))
def test_half_pairs_are_found_as_the_standard_library_reads_them(parts: list[str]) -> None:
    text = '"' + "".join(parts) + '"'
    column = lone_surrogate_at(text.encode())
    value = json.loads(text)
    assert bool(column) == any("\ud800" <= character <= "\udfff" for character in value)
    if column:
        assert text[column - 1 : column + 2].lower() == "\\ud"
        prefix = json.loads(text[: column - 1] + '"')
        assert not any("\ud800" <= character <= "\udfff" for character in prefix)


def test_repr_shows_no_payload() -> None:
    assert "acme" not in repr(accepted(event_line(sessionId=None), LENIENT))
    assert repr(refusal(b"secret")) == "LineReject(line 7, invalid_json, 6 bytes)"
