"""Chunks of logs: what is remembered between rows and chunks changes no row."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from bench.log_corpus import log_blocks
from ingester.protocol.body_decoder import BodyLimits
from ingester.protocol.log_chunk import LogReader, open_rows
from ingester.protocol.log_times import NO_TIME
from ingester.protocol.log_values import NO_LEVEL, level_code
from ingester.protocol.logs import HonestLogDecoder

from .log_bodies import by_text, honest

ROOMY = BodyLimits()
# What a third of the lines are turned into: other layouts, names, kinds, dates; what is no JSON.
_CHANGES = [
    (b"2026-01-01T", b"2026-01-01 "), (b"2026-01-01", b"2024-02-29"),
    (b"2026-01-01", b"2025-02-29"),
    (b"2026-01-01T", b"2026-13-01T"), (b"2026-01-01T0", b"2026-01-01T9"), (b"Z\"", b"+02:30\""),
    (b"Z\"", b"-02:30\""), (b"Z\"", b"+24:00\""), (b"Z\"", b"\""), (b"Z\"", b"z\""),
    (b"0Z\"", b"0123Z\""), (b":0", b":60"), (b"\"timestamp\"", b"\"Time\""), (b".", b","),
    (b"\"level\"", b"\"Level\""), (b"\"msg\"", b"\"MSG\""), (b"\"time\":1", b"\"time\":9"),
    (b"\"time\":1", b"\"time\":1.1"), (b"\"ts\":", b"\"ts\":-"), (b"\"level\":", b"\"level\":1"),
    (b"\"message\":", b"\"message\":null,\"msg\":"),
    (b"\"msg\":", b"\"message\":{\"a\": 1},\"x\":"),
    (b"\"level\":", b"\"level\":true,\"x\":"), (b"{", b"{\"error\":[1],"), (b"}", b""),
]  # fmt: skip
LATEST_US = 1_795_262_400_000_000


def lines_of(*logs: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(log).encode() + b"\n" for log in logs)


def levels_of(values: list[Any]) -> list[int]:
    reader = LogReader()
    logs = reader.decode(lines_of(*({"level": value} for value in values)), len(values))
    assert logs is not None
    found: list[int] = reader.levels(logs).tolist()
    return found


@pytest.mark.parametrize(
    "values",
    [
        [1, True, 1.0, 0, False, 0.0, "1", "0"],
        [True, 1, False, 0],
        ["info", ["info"], {"info": 1}, "info"],
        [None, "", "x" * 100, "INFO", " info ", 30, 30.0, 30.5, 10**30, -1],
    ],
)
def test_levels_seen_before_are_what_they_were(values: list[Any]) -> None:
    for given in (values, values[::-1], values):
        assert levels_of(given) == [level_code(value) for value in given]


def test_levels_remembered_are_bounded() -> None:
    values = [f"level-{n}" for n in range(3000)] + list(range(2, 3000))
    assert levels_of(values) == [level_code(value) for value in values]
    assert levels_of(["error"]) == [level_code("error")]


def test_a_message_that_is_no_text_leaves_the_others_alone() -> None:
    logs: list[dict[str, Any]] = [
        {"message": "a"}, {"message": {"text": "b"}}, {"message": None, "msg": "c"},
        {"message": "", "msg": "d"}, {"message": [], "msg": "e"}, {"message": 0, "msg": "f"},
        {"message": False, "msg": "g"}, {"msg": 5}, {"msg": ""}, {"message": "h", "msg": 7},
    ]  # fmt: skip
    first, second = lines_of({"message": "text"}, *logs), lines_of(*logs[::-1], {"msg": "text"})
    whole = honest([first, second], ROOMY)
    assert whole == honest([first, second], ROOMY, decoder=by_text(HonestLogDecoder))
    messages = [log.message for _, _, log in whole.rows]
    assert messages[:9] == ["text", "a", '{"text":"b"}', "c", "d", "e", "0", "false", "5"]


def test_only_what_is_open_is_looked_at_again() -> None:
    reader = LogReader()
    sound = {"level": "info", "message": "m", "timestamp": "2026-11-21T10:00:00Z"}
    logs = [sound, {**sound, "level": "?"}, {**sound, "message": ""}, {**sound, "timestamp": "?"}]
    decoded = reader.decode(lines_of(*logs, sound), 5)
    assert decoded is not None
    levels, messages = reader.levels(decoded), reader.messages(decoded)
    times = reader.times(decoded, LATEST_US)
    assert open_rows(levels, messages, times) == [1, 2, 3]
    assert levels.tolist()[1] == NO_LEVEL
    assert times.tolist()[3] == NO_TIME


def test_thousands_of_rows_of_many_layouts_come_to_what_each_is_by_itself() -> None:
    lines = b"".join(log_blocks(1500)).splitlines()
    draw = random.Random(20261121)
    for place in range(0, len(lines), 3):
        old, new = draw.choice(_CHANGES)
        lines[place] = lines[place].replace(old, new, 1)
    body = b"\n".join(lines)
    whole = honest([body], ROOMY)
    assert whole == honest([body], ROOMY, decoder=by_text(HonestLogDecoder))
    assert len(whole.rows) + len(whole.rejects) == len(lines)
    assert len(whole.rejects) < len(lines) / 10


def test_values_on_other_lines_than_their_own_are_not_trusted() -> None:
    assert LogReader().decode(b"{}{}\n{}\n", 2) is None
    assert LogReader().decode(b'{"level":1e400}\n', 1) is None
