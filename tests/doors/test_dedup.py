"""Windows of ids: what is a repeat, who waits for whom, what fails and what is forgotten."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from ingester.doors import dedup
from ingester.doors.dedup import SWEEP_SECONDS, Claim, DedupWindow, DedupWindows, claim_small
from ingester.errors import Overloaded
from ingester.messages import Source
from ingester.protocol.dedup import DedupField
from ingester.protocol.dedup_ids import SHARDS

HOUR_US = 3_600_000_000
NOW = 1_700_000_000_000_000


def window_of(**settings: object) -> DedupWindow:
    window = DedupWindows().window_of(source(**settings), "events")
    assert window is not None
    return window


def source(**settings: object) -> Source:
    return Source(**{"source_id": 1, "name": "shop", "dedup_field": "id", **settings})  # type: ignore[arg-type]


def lines(*ids: int | None) -> list[bytes]:
    return [b"{}" if i is None else b'{"id":"%d"}' % i for i in ids]


def digests(*ids: int | None) -> list[bytes | None]:
    return [DedupField("id").digest(line) for line in lines(*ids)]


async def small(
    window: DedupWindow,
    *ids: int | None,
    at_us: int = NOW,
    turn: trio.CapacityLimiter | None = None,
) -> tuple[Claim, list[int]]:
    return await claim_small(window, lines(*ids), at_us, turn=turn)


async def store(window: DedupWindow, *ids: int | None, at_us: int = NOW) -> list[int]:
    """A small request that ends well; the places left out."""
    claim, places = await small(window, *ids, at_us=at_us)
    claim.settle(is_durable=True)
    return places


def sweep(window: DedupWindow, now_us: int = NOW, rounds: int = 1) -> None:
    for _ in range(rounds):
        window.sweep(SHARDS, now_us)


@pytest.mark.parametrize("turn", [None, 1])
async def test_repeats_within_a_request_and_of_stored_ones_are_left_out(turn: int | None) -> None:
    window, limiter = window_of(), None if turn is None else trio.CapacityLimiter(turn)
    claim, places = await small(window, 1, 2, 1, None, None, 3, 3, turn=limiter)
    assert places == [2, 6]
    assert bytes(claim.fresh) == b"".join(d for d in digests(1, 2, 3) if d)
    claim.settle(is_durable=True)
    assert await store(window, 4, 3, None, 2, 1) == [1, 3, 4]
    assert window.statistics() == {"ids": 4, "claims": 0, "repeats_total": 5}


@pytest.mark.parametrize("count", [1, 3, 257, 5000])
async def test_what_was_not_stored_may_come_again(count: int) -> None:
    window = window_of()
    ids = range(count)
    for _ in range(3):
        claim, places = await small(window, *ids)
        assert not places
        claim.settle(is_durable=False)
    assert await store(window, *ids) == []
    assert await store(window, *ids) == list(ids)
    sweep(window, rounds=3)
    assert await store(window, *ids) == list(ids)
    assert window.id_count == count


@pytest.mark.parametrize("count", [1, 300])
@pytest.mark.parametrize("is_swept", [False, True])
async def test_the_window_is_exact_to_the_microsecond(count: int, is_swept: bool) -> None:
    window = window_of(dedup_hours=2)
    ids = range(count)
    assert await store(window, *ids) == []
    for at_us in (NOW + 2 * HOUR_US - 1, NOW - 2 * HOUR_US + 1):
        if is_swept:
            sweep(window, at_us, 2)
        assert await store(window, *ids, at_us=at_us) == list(ids)
    if is_swept:
        sweep(window, NOW + 2 * HOUR_US)
        assert window.id_count == 0
    # It counts from the row that was stored, not from its repeats.
    assert await store(window, *ids, at_us=NOW + 2 * HOUR_US) == []
    assert await store(window, *ids, at_us=NOW + 2 * HOUR_US + 1) == list(ids)


async def test_a_clock_that_was_far_ahead_does_not_hold_ids_for_ever() -> None:
    window = window_of()
    await store(window, 1, at_us=NOW + 9000 * HOUR_US)
    assert await store(window, 1) == []


async def test_who_meets_an_id_on_its_way_waits_and_then_leaves_it_out() -> None:
    window = window_of()
    claim, _ = await small(window, 1, 2)
    found: list[list[int]] = []

    async def other(*ids: int) -> None:
        found.append(await store(window, *ids))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other, 3, 1)
        nursery.start_soon(other, 4, 2)
        await wait_all_tasks_blocked()
        assert not found
        # Who waits holds nothing.
        assert await store(window, 3, 4) == []
        claim.settle(is_durable=True)
    assert found == [[0, 1], [0, 1]]


async def test_when_the_first_fails_exactly_one_of_those_who_wait_stores_the_row() -> None:
    window = window_of()
    claim, _ = await small(window, 1)
    found: list[list[int]] = []

    async def other() -> None:
        claim, places = await small(window, 1)
        await trio.lowlevel.checkpoint()
        claim.settle(is_durable=True)
        found.append(places)

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(other)
        await wait_all_tasks_blocked()
        claim.settle(is_durable=False)
    assert sorted(found) == [[], [0], [0], [0]]


async def test_nobody_waits_for_ever_nor_longer_than_said(autojump_clock: MockClock) -> None:
    window = window_of()
    upload = await window.claim_upload(NOW, seconds_max=0)
    assert upload.take(digests(1, 2), bytearray(2)) == (2, None)
    began = trio.current_time()
    with pytest.raises(Overloaded, match="same id"):
        await small(window, 3, 2)
    assert trio.current_time() - began == dedup.CLAIM_SECONDS_MAX
    with pytest.raises(Overloaded, match="another upload"):
        await window.claim_upload(NOW, seconds_max=30)
    assert trio.current_time() - began == dedup.CLAIM_SECONDS_MAX + 30
    assert await store(window, 3) == []
    upload.settle(is_durable=True)
    assert await store(window, 2) == [0]
    (await window.claim_upload(NOW, seconds_max=0)).settle(is_durable=False)


async def test_who_gives_up_waiting_leaves_nothing_behind() -> None:
    window = window_of()
    claim, _ = await small(window, 1)
    upload = await window.claim_upload(NOW, seconds_max=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(small, window, 1, 2)
        nursery.start_soon(partial(window.claim_upload, NOW, seconds_max=9))
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    claim.settle(is_durable=False)
    upload.settle(is_durable=False)
    assert window.statistics()["claims"] == 0
    (await window.claim_upload(NOW, seconds_max=0)).settle(is_durable=True)
    assert await store(window, 1, 2) == []


@pytest.mark.parametrize("is_durable", [True, False])
@pytest.mark.parametrize("sweeps_before", [0, 1])
async def test_an_upload_of_many_is_settled_as_a_whole(
    is_durable: bool, sweeps_before: int
) -> None:
    window = window_of()
    upload = await window.claim_upload(NOW, seconds_max=0)
    ids = range(3000)
    repeats = bytearray(3000)
    assert upload.take(digests(*ids[:2000], *ids[:1000]), repeats) == (3000, None)
    assert repeats.count(1) == 1000
    assert repeats.index(1) == 2000
    assert len(upload.take_fresh()) == 2000 * 16
    assert upload.take_fresh() == b""
    sweep(window, rounds=sweeps_before)
    upload.settle(is_durable=is_durable)
    for rounds in (0, 1, 2):
        sweep(window, rounds=rounds)
        claim, places = await small(window, *ids[:2001])
        claim.settle(is_durable=False)
        assert places == (list(ids[:2000]) if is_durable else [])
    sweep(window, rounds=2)
    assert window._tokens == {}
    assert window.id_count == (2000 if is_durable else 0)


async def test_an_upload_settled_in_the_middle_of_a_sweep_is_not_forgotten_at_its_end() -> None:
    window = window_of()
    upload = await window.claim_upload(NOW, seconds_max=0)
    upload.take(digests(*range(500)), bytearray(500))
    window.sweep(SHARDS // 2, NOW)
    upload.settle(is_durable=True)
    window.sweep(SHARDS - SHARDS // 2, NOW)
    assert await store(window, *range(500)) == list(range(500))


async def test_an_upload_goes_on_where_a_small_request_was_in_its_way() -> None:
    window = window_of()
    await store(window, 0)
    claim, _ = await small(window, 5)
    upload = await window.claim_upload(NOW, seconds_max=0)
    wanted = digests(*range(10), 3, None)
    repeats = bytearray(12)
    assert upload.take(wanted, repeats) == (5, claim)
    claim.settle(is_durable=True)
    assert upload.take(wanted, repeats, 5) == (12, None)
    assert [place for place, found in enumerate(repeats) if found] == [0, 5, 10]
    upload.settle(is_durable=True)


def test_windows_are_apart_by_table_source_and_field() -> None:
    windows = DedupWindows()
    assert windows.window_of(None, "logs") is None
    assert windows.window_of(source(dedup_field=None), "logs") is None
    found = {
        windows.window_of(source(**settings), table)
        for table in ("events", "logs")
        for settings in ({}, {"name": "other"}, {"dedup_field": "/a/id"}, {"dedup_hours": 3})
    }
    assert {window.scope for window in found if window} == {
        f"{table}:{rest}"
        for table in ("events", "logs")
        for rest in ("shop:id", "other:id", "shop:/a/id")
    }
    assert len(found) == 6


async def test_settings_that_change_while_running_see_what_the_store_holds() -> None:
    """Without a setting, then for an hour, then for longer, for less, and longer again."""
    asked: list[tuple[str, int]] = []
    old = [(digest, NOW - 5 * HOUR_US) for digest in digests(1, 2, 3) if digest]

    def read(scope: str, hours: int) -> list[tuple[bytes, int]]:
        asked.append((scope, hours))
        return old if hours > 5 and scope.startswith("events") else []

    windows = DedupWindows(read)
    windows.prepare([source(dedup_field=None)])
    assert not asked
    for hours, found in ((1, []), (24, [0]), (2, []), (24, [0]), (24, [0])):
        asked.clear()
        windows.prepare([source(dedup_hours=hours)])
        window = windows.window_of(source(dedup_hours=hours), "events")
        assert window is not None
        sweep(window)
        claim, places = await small(window, 1)
        assert places == found
        # What is on its way is newer than what the store may still say of it.
        window.restore(old)
        claim.settle(is_durable=False)
    assert not asked, "what is in memory is not read again"


async def test_a_store_that_cannot_be_read_is_asked_again() -> None:
    attempts = [0]

    def read(scope: str, hours: int) -> list[tuple[bytes, int]]:
        attempts[0] += 1
        if attempts[0] == 1:
            raise Overloaded("busy")
        return [(digest, NOW) for digest in digests(1) if digest]

    windows = DedupWindows(read)
    with pytest.raises(Overloaded):
        windows.prepare([source()])
    windows.prepare([source()])
    window = windows.window_of(source(), "logs")
    assert window is not None
    assert await store(window, 1) == [0]


def test_a_whole_sweep_takes_as_long_as_said() -> None:
    windows = DedupWindows()
    windows.sweep(1.0, NOW)
    window = windows.window_of(source(dedup_hours=1), "events")
    assert window is not None
    window.restore((digest, NOW) for digest in digests(*range(20_000)) if digest)
    for _ in range(SWEEP_SECONDS - 1):
        windows.sweep(1.0, NOW + HOUR_US)
    assert 0 < window.id_count < 400
    windows.sweep(1.001, NOW + HOUR_US)
    assert window.id_count == 0
    windows.sweep(1e9, NOW + HOUR_US)  # a machine that slept


@pytest.mark.parametrize("is_durable", [True, False])
async def test_threads_and_the_event_loop_claim_every_id_once(is_durable: bool) -> None:
    """Small ones beside an upload that is decoded in a thread, as in the server."""
    window = window_of()
    turn = trio.CapacityLimiter(1)
    stored: list[int] = []
    lock = threading.Lock()

    def note(ids: Sequence[int], places: Sequence[int]) -> None:
        left_out = set(places)
        with lock:
            stored.extend(i for place, i in enumerate(ids) if place not in left_out)

    async def send(ids: Sequence[int], with_turn: bool) -> None:
        claim, places = await small(window, *ids, turn=turn if with_turn else None)
        await trio.lowlevel.checkpoint()
        note(ids, places)
        claim.settle(is_durable=True)

    async def upload(ids: range) -> None:
        claim = await window.claim_upload(NOW, seconds_max=10)
        repeats, place = bytearray(len(ids)), 0
        wanted = digests(*ids)
        while place < len(ids):
            place, blocker = await trio.to_thread.run_sync(
                claim.take, wanted, repeats, place, limiter=turn
            )
            if blocker is not None:
                await blocker.wait_ended()
        if is_durable:
            note(ids, [n for n, found in enumerate(repeats) if found])
        claim.settle(is_durable=is_durable)

    with trio.fail_after(15):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(upload, range(0, 6000))
            nursery.start_soon(upload, range(3000, 9000))
            for start in range(0, 9000, 100):
                nursery.start_soon(send, range(start, start + 150), start % 1000 == 0)
    wanted = range(0, 9050)
    assert sorted(stored) == list(wanted)
    assert await store(window, *wanted) == list(wanted)
