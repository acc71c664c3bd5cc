"""Failed attempts: growing waits by address, bounded tables, nobody else affected."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from ingester.doors import failed_attempts
from ingester.doors.failed_attempts import FailedAttempts


async def test_waits_grow_to_a_bound_and_are_forgotten(autojump_clock: MockClock) -> None:
    attempts = FailedAttempts()
    waits = [attempts.note("192.0.2.1") for _ in range(2000)]
    assert waits[:5] == [0, 0, 0, pytest.approx(0.1), pytest.approx(0.2)]
    assert waits[-1] == 2.0
    assert attempts.note("192.0.2.2") == 0
    await trio.sleep(61)
    assert attempts.note("192.0.2.1") == 0


async def test_addresses_of_one_ipv6_network_count_together() -> None:
    attempts = FailedAttempts()
    waits = [attempts.note(f"2001:db8:0:1::{n:x}") for n in range(1, 6)]
    assert waits[-1] > 0
    assert attempts.note("2001:db8:0:2::1") == 0
    assert attempts.note("local") == 0


async def test_the_table_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failed_attempts, "_ADDRESSES_MAX", 10)
    attempts = FailedAttempts()
    for n in range(1000):
        attempts.note(f"192.0.{n // 256}.{n % 256}")
    assert len(attempts._failures) == 10


async def test_over_the_bound_of_waiting_ones_the_answer_is_given_at_once(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    monkeypatch.setattr(failed_attempts, "_WAITING_MAX", 2)
    attempts = FailedAttempts()
    for _ in range(10):
        attempts.note("192.0.2.1")
    ended: list[float] = []

    async def attempt() -> None:
        await attempts.slow_down("192.0.2.1")
        ended.append(trio.current_time())

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(attempt)
    assert [moment - began for moment in ended] == [0, 0, 0, 2.0, 2.0]
    assert attempts.statistics() == {"failed_total": 15, "waiting": 0}


async def test_a_cancelled_wait_gives_its_place_back() -> None:
    attempts = FailedAttempts()
    for _ in range(10):
        attempts.note("192.0.2.1")
    with trio.move_on_after(0):
        await attempts.slow_down("192.0.2.1")
    assert attempts.waiting_count == 0
