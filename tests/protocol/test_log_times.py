"""Times: the column way and the way of one value agree, and with the calendar."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingester.protocol.log_time_columns import read_times
from ingester.protocol.log_times import NO_TIME, read_time, rfc3339_us

LATEST_US = 1_795_262_400_000_000

_DIGITS = st.text("0123456789", min_size=1, max_size=10)
_TEXTS = st.builds(
    "{:04}-{:02}-{:02}{}{:02}:{:02}:{:02}{}{}".format,
    st.integers(1998, 2027) | st.integers(0, 9999),
    st.integers(0, 13),
    st.integers(0, 32),
    st.sampled_from("TTTt x"),
    st.integers(0, 25),
    st.integers(0, 61),
    st.integers(0, 61),
    st.just("") | st.builds("{}{}".format, st.sampled_from("..,"), _DIGITS),
    st.sampled_from(["Z", "Z", "z", "", "+02:00", "-23:59", "+24:00", "+0200", "Q", "+2:000"]),
)
_VALUES = st.one_of(
    _TEXTS,
    st.integers(0, 10**20),
    st.integers(-(10**20), 10**20),
    st.floats(),
    st.floats(9e8, 2e9),
    st.sampled_from([
        True,
        None,
        "",
        "x",
        "1763720000.25",
        "1763720000123",
        [],
        {},
        2**64,
        "é" * 24,
    ]),
)


@settings(max_examples=1000, deadline=None)
@given(
    st.one_of(
        st.lists(_TEXTS, max_size=6),
        st.lists(st.integers(0, 2 * 10**18), max_size=6),
        st.lists(st.floats(), max_size=6),
        st.lists(st.floats(9e8, 2e18), max_size=6),
        st.lists(_VALUES, max_size=6),
    )
)
def test_both_ways_agree(values: list[Any]) -> None:
    found = read_times(values, LATEST_US)
    assert found.tolist() == [read_time(value, LATEST_US) for value in values]


@given(st.datetimes(datetime(1600, 1, 1), datetime(9999, 12, 31)))
def test_rfc_3339_is_the_calendars(moment: datetime) -> None:
    expected = (moment - datetime(1970, 1, 1)) // (datetime.resolution)
    text = moment.isoformat(timespec="microseconds")
    assert rfc3339_us(text + "Z") == rfc3339_us(text) == expected
    assert rfc3339_us(text + "+01:30") == expected - 5_400_000_000
    if moment.year < 2000 or expected > LATEST_US:
        assert read_times([text + "Z"], LATEST_US).tolist() == [NO_TIME]
    else:
        assert read_times([text + "Z"] * 2, LATEST_US).tolist() == [expected] * 2


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("2026-02-28T23:59:60Z", "2026-03-01T00:00:00"),
        ("2024-02-29T00:00:00.1234567Z", "2024-02-29T00:00:00.123456"),
        ("2026-01-01T00:30:00+01:00", "2025-12-31T23:30:00"),
        (1763720000.123, "2025-11-21T10:13:20.123"),
        ("1763720000.123", "2025-11-21T10:13:20.123"),
        (1763720000123456789, "2025-11-21T10:13:20.123456"),
    ],
)
def test_known_times(value: Any, text: str) -> None:
    moment = datetime.fromisoformat(text).replace(tzinfo=UTC)
    assert read_time(value, LATEST_US) == round(moment.timestamp() * 1000) * 1000 + (
        moment.microsecond % 1000
    )


def test_the_window_is_closed_at_both_ends() -> None:
    edges = [946_684_799, 946_684_800, LATEST_US // 10**6, LATEST_US // 10**6 + 1]
    for scale in (1, 10**3, 10**6, 10**9):
        values = [edge * scale for edge in edges]
        found = [946_684_800_000_000, LATEST_US]
        assert read_times(values, LATEST_US).tolist() == [NO_TIME, *found, NO_TIME]
    assert read_time(LATEST_US * 1000 + 999, LATEST_US) == LATEST_US
    assert read_time(LATEST_US + 1, LATEST_US) == NO_TIME
