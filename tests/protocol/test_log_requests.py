"""Small bodies at once: the shortcut and the streaming decoder come to the same."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingester.errors import BodyTooLarge, MalformedBody
from ingester.protocol.body_decoder import BodyLimits
from ingester.protocol.log_requests import (
    LogRows,
    maybe_one_log,
    read_honest_logs,
    read_log_door,
)
from ingester.protocol.log_times import DAY_US
from ingester.protocol.log_values import JSON_NAMES, LEVELS, read_log
from ingester.protocol.logs import read_accepted_logs

from .log_bodies import NOW_US, TIGHT, Decoded, bodies, honest, log_door
from .plain_logs import Log


def as_decoded(found: LogRows) -> Decoded:
    logs = [Log(LEVELS[row.level], row.message, row.time_us) for row in found.rows]
    assert found.rejected_count == len(found.rejects) == sum(found.reasons.values())
    rows = list(zip(found.line_numbers, found.texts, logs, strict=True))
    return Decoded(rows, list(found.rejects))


@settings(max_examples=500, deadline=None)
@given(bodies())
def test_both_ways_agree(made: tuple[bytes, list[bytes], list[bytes] | None]) -> None:
    body = made[0]
    try:
        found = as_decoded(read_log_door(body, TIGHT, received_at_us=NOW_US, is_plain=True))
    except (MalformedBody, BodyTooLarge) as error:
        found = Decoded([], [], f"{error.status_hint} {error}")
    assert found == log_door([body])
    try:
        found = as_decoded(
            read_honest_logs(body, TIGHT, received_at_us=NOW_US, rejects_max=99, is_plain=True)
        )
    except BodyTooLarge as error:
        found = Decoded([], [], f"413 {error}")
    assert found == honest([body])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(bodies(), st.integers(-2 * DAY_US, 2 * DAY_US)), min_size=1, max_size=6))
def test_logs_of_many_requests_are_read_as_each_alone(
    made: list[tuple[tuple[bytes, list[bytes], list[bytes] | None], int]],
) -> None:
    found = [
        (maybe_one_log(body[0], TIGHT.value_bytes_max, TIGHT.depth_max), NOW_US + shift)
        for body, shift in made
    ]
    logs = [(text, at_us) for text, at_us in found if text is not None]
    each = [read_log(text, at_us, at_us + DAY_US, JSON_NAMES) for text, at_us in logs]
    if logs:
        texts, times = zip(*logs, strict=True)
        assert read_accepted_logs(texts, times) == each


def test_a_time_after_the_first_arrival_and_a_number_beyond_every_type() -> None:
    later_us = NOW_US + 400 * DAY_US
    log = b'{"msg":"x","ts":%d}' % (later_us // 1000)
    rows = read_accepted_logs([log, log], [NOW_US, later_us])
    assert [row.time_us for row in rows] == [NOW_US, later_us], "of its own day, no other's"
    huge = b'{"level":1e400,"message":"m"}'
    assert maybe_one_log(huge, TIGHT.value_bytes_max, TIGHT.depth_max)
    rows = read_accepted_logs([huge, log], [NOW_US, later_us])
    assert [(row.message, row.time_us) for row in rows] == [("m", NOW_US), ("x", later_us)]


def test_bodies_of_more_than_one_turn_and_forms() -> None:
    body = b'{"message":"m"}\n' * 40_000
    found = read_log_door(body, BodyLimits(), received_at_us=NOW_US, is_plain=True)
    assert list(found.line_numbers) == list(range(1, 40_001))
    found = read_log_door(
        b"levelname=ERROR&msg=x", TIGHT, received_at_us=NOW_US, is_plain=True, is_form=True
    )
    assert found.texts == [b'{"levelname":"ERROR","msg":"x"}']
    assert repr(found) == "LogRows(1 logs, 0 rejects)"
    with pytest.raises(MalformedBody, match="empty"):
        read_log_door(b"", TIGHT, received_at_us=NOW_US, is_plain=True)
    nothing = read_honest_logs(b"", TIGHT, received_at_us=NOW_US, rejects_max=9, is_plain=True)
    assert (len(nothing.rows), nothing.rejected_count) == (0, 0)
