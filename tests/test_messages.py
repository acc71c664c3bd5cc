"""Request numbers never repeat; what travels between rooms shows no payload."""

from __future__ import annotations

import pytest

from ingester import messages
from ingester.messages import (
    REJECT_REASONS,
    LineReject,
    RequestNumbers,
    natero_url,
    request_id_text,
)


def test_the_reasons_are_those_of_the_contract() -> None:
    assert " ".join(REJECT_REASONS) == (
        "invalid_json invalid_utf8 not_an_object several_values missing_field wrong_type "
        "out_of_range too_long too_deep future_timestamp wrong_encoding"
    )


def test_request_numbers_rise_strictly_within_63_bits() -> None:
    numbers = RequestNumbers()
    made = [numbers.next() for _ in range(5000)]
    assert made == sorted(set(made))
    assert made[0] > 0
    assert made[-1] < 1 << 63


@pytest.mark.parametrize("now_s", [0, 1_600_000_000, 1_704_067_200, 1_800_000_000])
def test_request_numbers_rise_also_when_the_clock_is_set_back(
    monkeypatch: pytest.MonkeyPatch, now_s: int
) -> None:
    numbers = RequestNumbers()
    numbers.advance(1 << 60)
    numbers.advance(5)
    monkeypatch.setattr(messages.time, "time_ns", lambda: now_s * 1_000_000_000)
    assert [numbers.next() for _ in range(3)] == [(1 << 60) + n for n in (1, 2, 3)]


@pytest.mark.parametrize("now_s", [0, 1_600_000_000, 1_704_067_200])
def test_a_clock_before_the_first_day_still_numbers_from_one(
    monkeypatch: pytest.MonkeyPatch, now_s: int
) -> None:
    monkeypatch.setattr(messages.time, "time_ns", lambda: now_s * 1_000_000_000)
    assert RequestNumbers().next() >= 1


def test_request_ids_are_sixteen_hex_digits() -> None:
    assert request_id_text(0xABC) == "0000000000000abc"
    assert request_id_text((1 << 63) - 1) == "7fffffffffffffff"


def test_a_pair_is_posted_to_below_v1() -> None:
    assert (
        natero_url("https://a/", "x", "y")
        == natero_url("https://a", "x", "y")
        == "https://a/v1/x/y"
    )


def test_a_reject_shows_no_line() -> None:
    shown = repr(LineReject(3, "invalid_json", "detail", b"secret"))
    assert shown == "LineReject(line 3, invalid_json, 6 bytes)"
