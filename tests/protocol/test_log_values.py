"""One log: level, message and time as contract 3.2 says, value by value."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings

from ingester.protocol.log_times import DAY_US
from ingester.protocol.log_values import JSON_NAMES, LEVELS, LogRow, level_code, read_log

from .plain_logs import json_values, log_of, parsed

NOW_US = 1_795_262_400_000_000  # 2026-11-21T12:00:00Z


def read(value: Any) -> LogRow:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return read_log(text, NOW_US, NOW_US + DAY_US, JSON_NAMES)


def level_of(value: Any) -> str:
    return LEVELS[read(value).level]


@settings(max_examples=1500, deadline=None)
@given(json_values())
def test_every_value_is_read_as_the_contract_says(text: bytes) -> None:
    row = read(text)
    assert (LEVELS[row.level], row.message, row.time_us) == log_of(parsed(text), NOW_US)


@pytest.mark.parametrize(
    ("given_level", "level"),
    [
        *((name, name) for name in LEVELS),
        *((name.upper(), name) for name in LEVELS),
        ("warn", "warning"), ("err", "error"), ("crit", "critical"), ("fatal", "critical"),
        ("emerg", "emergency"), ("panic", "emergency"), ("information", "info"),
        ("Informational", "info"), ("DBG", "debug"), ("verbose", "trace"), (" INFO ", "info"),
        (0, "emergency"), (1, "alert"), (2, "critical"), (3, "error"), (4, "warning"),
        (5, "notice"), (6, "info"), (7, "debug"), ("4", "warning"), (3.0, "error"),
        (10, "trace"), (19, "trace"), (20, "debug"), (30, "info"), (35, "info"), (40, "warning"),
        (50, "error"), (59.9, "error"), (60, "critical"), ("50", "error"),
    ],
)  # fmt: skip
def test_levels_by_name_and_number(given_level: Any, level: str) -> None:
    assert level_of({"level": given_level}) == level
    assert level_of({"severity": given_level, "error": "no guess where a level is given"}) == level
    assert level_of({"LEVEL": given_level}) == level


@pytest.mark.parametrize(
    "value", [8, 9, 9.5, 61, -1, 3.5, True, None, "", "loud", "8", [], {}, ["error"], "x" * 9999]
)
def test_a_level_that_is_none_is_ignored(value: Any) -> None:
    assert level_of({"level": value}) == "info"
    assert level_of({"level": value, "severity": "alert"}) == "alert"
    assert level_of({"level": value, "error": "boom"}) == "error"
    assert level_code(value) == 255


def test_a_guess_takes_the_most_severe_field_that_holds_something() -> None:
    order = ["debug", "info", "notice", "warn", "err", "fatal", "alert", "emergency"]
    names = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"]
    payload: dict[str, Any] = {"x": 1}
    for field, level in zip(order, names, strict=True):
        payload[field] = "y"
        assert level_of(payload) == level
        for nothing in (None, False, 0, 0.0, "", [], {}):
            assert level_of({field: nothing, "debug": 1}) == "debug"
    assert level_of({"nested": {"error": "not at the top"}}) == "info"
    assert level_of({"Exception": {"type": "E"}, "info": "x"}) == "error"
    assert level_of({"error": None, "ERROR": "x"}) == "error"


def test_exact_names_come_before_other_spellings() -> None:
    assert level_of({"LEVEL": "error", "severity": "debug"}) == "debug"
    assert level_of({"LEVEL": "error", "level": "loud"}) == "error"
    assert read({"MESSAGE": "upper", "msg": "exact"}).message == "exact"
    assert read({"MSG": "a", "Message": "b"}).message == "b"


def test_messages() -> None:
    assert read({"message": "m", "msg": "n"}).message == "m"
    for nothing in (None, "", [], {}):
        assert read({"message": nothing, "msg": "n"}).message == "n"
    assert read({"message": 0}).message == "0"
    assert read({"message": False}).message == "false"
    assert read({"message": {"b": 1, "a": [1, "é"]}}).message == '{"b":1,"a":[1,"é"]}'
    assert read({"b": 1.0, "a": "é😀"}).message == '{"b":1.0,"a":"é😀"}'
    assert read(b'{ "b" : 1E5 , "b" : "\\u00e9\\u0041\\/\\n\\u0001" }').message == (
        '{"b":1E5,"b":"éA/\\n\\u0001"}'
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'"plain \\u00e9"', "plain é"), (b'""', ""), (b"1.50", "1.50"), (b"null", "null"),
        (b"true", "true"), (b"[1, 2]", "[1,2]"), (b"[ ]", "[]"), (b"1e400", "1e400"),
    ],
)  # fmt: skip
def test_a_payload_that_is_no_object_is_its_message(text: bytes, message: str) -> None:
    assert read(text) == LogRow(LEVELS.index("info"), message, NOW_US)


def test_times_come_from_the_first_field_that_reads_as_one() -> None:
    second = NOW_US // 10**6 - 100
    for name in ("timestamp", "time", "ts", "@timestamp", "date", "TS"):
        for value in (second, second * 10**3, second * 10**6, second * 10**9, str(second)):
            assert read({name: value}).time_us == second * 10**6, (name, value)
    both = {"timestamp": "yesterday", "time": True, "ts": [], "@timestamp": second, "date": 0}
    assert read(both).time_us == second * 10**6
    assert read({"time": second + 1, "timestamp": second}).time_us == second * 10**6
    assert read({"created_at": second}).time_us == NOW_US


def test_what_syslog_ng_and_journald_send_lands_sensibly() -> None:
    sent = {"PRIORITY": "err", "MESSAGE": "disk", "HOST": "a", "DATE": "Nov 21 10:00:00"}
    assert read(sent) == LogRow(LEVELS.index("error"), "disk", NOW_US)
    assert level_of({"PRIORITY": "4", "MESSAGE": "x"}) == "warning"
    assert level_of({"priority": 1, "title": "a ticket"}) == "info"


def test_repr_shows_no_payload() -> None:
    assert repr(read({"message": "secret"})) == "LogRow(info)"
