"""One answer for one key: first, repeat, takeover, forgetting."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from ingester.doors.idempotency import Claim, IdempotencyKeys, Remembered, is_well_formed
from ingester.messages import RequestRecord

HOUR_US = 3_600_000_000
NOW = 1_700_000_000_000_000


def record(
    number: int = 1, *, key: str = "k", at_us: int = NOW, door: str = "natero"
) -> RequestRecord:
    return RequestRecord(
        request_number=number,
        received_at_us=NOW,
        door="natero",
        source="shop",
        credential="source:1",
        accepted=3,
        rejected=2,
        bytes_in=0,
        bytes_raw=0,
        encoding="identity",
        idempotency_key=key,
        fingerprint=b"f" * 16,
    )


async def claim(keys: IdempotencyKeys, key: str = "k", now_us: int = NOW) -> Claim:
    found = await keys.join("natero", "source:1", key, now_us)
    assert isinstance(found, Claim)
    return found


async def first_of(keys: IdempotencyKeys, key: str = "k", now_us: int = NOW) -> Remembered:
    found = await keys.join("natero", "source:1", key, now_us)
    assert isinstance(found, Remembered)
    return found


async def test_a_repeat_gets_the_first_answer() -> None:
    keys = IdempotencyKeys(keys_max=10, hours=24)
    with await claim(keys) as first:
        first.settle(record(7), 42)
    assert await first_of(keys) == Remembered(7, 3, 2, b"f" * 16, NOW, 42)
    assert keys.statistics() == {"keys": 1, "in_flight": 0, "repeats_total": 1}


async def test_a_key_counts_for_its_door_and_credential_only() -> None:
    keys = IdempotencyKeys(keys_max=10, hours=24)
    with await claim(keys) as first:
        first.settle(record())
    for door, credential, key in [
        ("other", "source:1", "k"),
        ("natero", "source:2", "k"),
        ("natero", "source:1", "K"),
        ("natero", "source:1k", ""),
    ]:
        found = await keys.join(door, credential, key, NOW)
        assert isinstance(found, Claim)
        with found:
            pass


async def test_a_repeat_in_flight_waits_and_then_gets_the_answer() -> None:
    keys = IdempotencyKeys(keys_max=10, hours=24)
    answers: list[Remembered] = []

    async def repeat() -> None:
        answers.append(await first_of(keys))

    async with trio.open_nursery() as nursery:
        with await claim(keys) as first:
            for _ in range(3):
                nursery.start_soon(repeat)
            await wait_all_tasks_blocked()
            assert not answers
            first.settle(record(7))
            await wait_all_tasks_blocked()
            assert not answers, "the answer counts once the first request is done"
    assert [answer.request_number for answer in answers] == [7, 7, 7]
    assert keys.repeat_count == 3


async def test_when_the_first_fails_exactly_one_waiter_takes_over() -> None:
    keys = IdempotencyKeys(keys_max=10, hours=24)
    claims = 0
    answers = []

    async def repeat(number: int) -> None:
        nonlocal claims
        found = await keys.join("natero", "source:1", "k", NOW)
        if isinstance(found, Remembered):
            answers.append(found.request_number)
            return
        with found:
            claims += 1
            await trio.lowlevel.checkpoint()
            if claims == 2:  # the first to take over fails as well
                found.settle(record(number))

    async with trio.open_nursery() as nursery:
        with await claim(keys):  # and never settled
            for number in range(4):
                nursery.start_soon(repeat, number)
            await wait_all_tasks_blocked()
    assert claims == 2
    assert len(answers) == 2
    assert len(set(answers)) == 1
    assert keys.statistics()["in_flight"] == 0


async def test_a_waiter_that_goes_away_changes_nothing() -> None:
    keys = IdempotencyKeys(keys_max=10, hours=24)
    with await claim(keys) as first:
        with trio.move_on_after(0) as scope:
            await keys.join("natero", "source:1", "k", NOW)
        assert scope.cancelled_caught
        first.settle(record())
    assert (await first_of(keys)).request_number == 1


async def test_a_cancelled_first_lets_the_next_one_in() -> None:
    keys = IdempotencyKeys(keys_max=10, hours=24)
    with trio.move_on_after(0):
        with await claim(keys):
            await trio.sleep_forever()
    with await claim(keys):
        pass


async def test_a_key_is_forgotten_after_its_hours() -> None:
    keys = IdempotencyKeys(keys_max=10, hours=24)
    with await claim(keys) as first:
        first.settle(record())
    await first_of(keys, now_us=NOW + 24 * HOUR_US - 1)
    with await claim(keys, now_us=NOW + 24 * HOUR_US):
        assert keys.statistics() == {"keys": 0, "in_flight": 1, "repeats_total": 1}


async def test_the_oldest_keys_make_room_for_new_ones() -> None:
    keys = IdempotencyKeys(keys_max=2, hours=24)
    for name in "abc":
        with await claim(keys, name) as first:
            first.settle(record())
    with await claim(keys, "a"):
        pass
    await first_of(keys, "b")
    await first_of(keys, "c")
    assert keys.statistics()["keys"] == 2


async def test_no_keys_kept_means_no_repeats() -> None:
    keys = IdempotencyKeys(keys_max=0, hours=24)
    for _ in range(2):
        with await claim(keys) as first:
            first.settle(record())
    assert keys.statistics() == {"keys": 0, "in_flight": 0, "repeats_total": 0}


async def test_keys_come_back_after_a_restart_newest_last() -> None:
    keys = IdempotencyKeys(keys_max=2, hours=24)
    keys.restore([record(n, key=name) for n, name in enumerate("abc")])
    assert (await first_of(keys, "c")) == Remembered(2, 3, 2, b"f" * 16, NOW, 0)
    assert (await first_of(keys, "b")).request_number == 1
    with await claim(keys, "a"):
        pass


@pytest.mark.parametrize(
    ("key", "good"),
    [
        (b"k", True),
        (b"!~" * 64, True),
        (b"x" * 128, True),
        (b"x" * 129, False),
        (b"", False),
        (b"a b", False),
        (b"a\tb", False),
        (b"a\x7f", False),
        (b"caf\xc3\xa9", False),
        (b"a\x00", False),
    ],
)
def test_keys_are_1_to_128_visible_ascii_characters(key: bytes, good: bool) -> None:
    assert is_well_formed(key) is good
