"""Backpressure and wake-ups: nothing over the bound, nobody forgotten, nobody out of turn."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from ingester.flow import ByteBudget, Doorbell, Mark, WaitClock, send_counted


class Holder:
    """A task that reserves, holds until told, and notes the order of service."""

    def __init__(self, budget: ByteBudget, byte_count: int, served: list[int], name: int) -> None:
        self.budget = budget
        self.byte_count = byte_count
        self.served = served
        self.name = name
        self.scope = trio.CancelScope()
        self.leave = trio.Event()
        self.ended = False

    async def run(self) -> None:
        with self.scope:
            reserved = await self.budget.reserve(self.byte_count)
            with self.budget.reserved(reserved):
                self.served.append(self.name)
                await self.leave.wait()
        self.ended = True


async def test_a_budget_is_taken_and_given_back() -> None:
    budget = ByteBudget(10)
    assert budget.reserve_nowait(10)
    assert not budget.reserve_nowait(1)
    assert budget.statistics() == {"used_bytes": 10, "total_bytes": 10, "waiting": 0}
    with budget.reserved(10):
        assert budget.used_bytes == 10
    assert budget.used_bytes == 0


async def test_more_than_the_whole_budget_asks_for_all_of_it() -> None:
    budget = ByteBudget(10)
    assert await budget.reserve(25) == 10
    assert budget.used_bytes == 10


async def test_a_reservation_is_handed_back_when_its_block_raises() -> None:
    budget = ByteBudget(10)
    assert budget.reserve_nowait(4)
    with pytest.raises(KeyError), budget.reserved(4):
        raise KeyError
    assert budget.used_bytes == 0


async def test_giving_back_more_than_was_taken_is_a_bug() -> None:
    budget = ByteBudget(10)
    assert budget.reserve_nowait(4)
    with pytest.raises(AssertionError):
        budget.release(5)


async def test_a_reservation_may_shrink_and_never_grow() -> None:
    budget = ByteBudget(10)
    assert budget.reserve_nowait(8)
    with budget.reserved(8) as reservation:
        reservation.shrink(3)
        assert budget.used_bytes == 3
        reservation.shrink(5)
        assert budget.used_bytes == 3
    assert budget.used_bytes == 0


async def test_waiters_are_served_in_order_and_a_small_one_does_not_overtake() -> None:
    budget = ByteBudget(10)
    served: list[int] = []
    async with trio.open_nursery() as nursery:
        holders = [Holder(budget, size, served, i) for i, size in enumerate([6, 8, 3, 8])]
        for holder in holders:
            nursery.start_soon(holder.run)
            await wait_all_tasks_blocked()
        assert served == [0]
        assert budget.statistics()["waiting"] == 3
        assert not budget.reserve_nowait(1), "there is room, but others wait for it"
        holders[0].leave.set()
        await wait_all_tasks_blocked()
        assert served == [0, 1]
        holders[1].leave.set()
        await wait_all_tasks_blocked()
        assert served == [0, 1, 2]
        holders[2].leave.set()
        await wait_all_tasks_blocked()
        assert served == [0, 1, 2, 3]
        holders[3].leave.set()
    assert budget.used_bytes == 0


async def test_a_waiter_that_leaves_the_head_of_the_line_lets_the_next_in() -> None:
    budget = ByteBudget(10)
    served: list[int] = []
    async with trio.open_nursery() as nursery:
        holders = [Holder(budget, size, served, i) for i, size in enumerate([6, 8, 4])]
        for holder in holders:
            nursery.start_soon(holder.run)
            await wait_all_tasks_blocked()
        holders[1].scope.cancel()
        await wait_all_tasks_blocked()
        assert served == [0, 2]
        assert budget.used_bytes == 10
        nursery.cancel_scope.cancel()
    assert budget.used_bytes == 0


async def test_a_waiter_cancelled_in_the_moment_it_is_served_loses_nothing() -> None:
    budget = ByteBudget(10)
    served: list[int] = []
    async with trio.open_nursery() as nursery:
        holder = Holder(budget, 6, served, 1)
        assert budget.reserve_nowait(10)
        nursery.start_soon(holder.run)
        await wait_all_tasks_blocked()
        budget.release(10)
        holder.scope.cancel()  # it is served and not yet running
    assert budget.used_bytes == 0
    assert budget.reserve_nowait(10)


async def test_an_interrupt_in_the_moment_of_service_loses_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    budget = ByteBudget(10)
    assert budget.reserve_nowait(10)
    real_wait = trio.Event.wait

    async def wait(event: trio.Event) -> None:
        await real_wait(event)
        raise KeyboardInterrupt

    async def reserve() -> None:
        with pytest.raises(KeyboardInterrupt):
            await budget.reserve(4)

    monkeypatch.setattr(trio.Event, "wait", wait)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reserve)
        await wait_all_tasks_blocked()
        budget.release(10)
    assert budget.used_bytes == 0


_STEPS = st.lists(
    st.tuples(st.sampled_from(["start", "leave", "cancel"]), st.integers(0, 12)), max_size=30
)


@settings(max_examples=60, deadline=None)
@given(_STEPS)
def test_any_course_of_events_keeps_the_bound_and_the_order(steps: list[tuple[str, int]]) -> None:
    async def main() -> None:
        budget = ByteBudget(10)
        served: list[int] = []
        holders: list[Holder] = []
        async with trio.open_nursery() as nursery:
            for what, value in steps:
                if what == "start":
                    holders.append(Holder(budget, value, served, len(holders)))
                    nursery.start_soon(holders[-1].run)
                elif holders:
                    holder = holders[value % len(holders)]
                    if what == "leave":
                        holder.leave.set()
                    else:
                        holder.scope.cancel()
                await wait_all_tasks_blocked()
                inside = [h for h in holders if h.name in served and not h.ended]
                held = sum(min(h.byte_count, 10) for h in inside)
                assert budget.used_bytes == held <= 10
                waiting = [h for h in holders if h.name not in served and not h.ended]
                assert not waiting or max(served, default=-1) < waiting[0].name, "out of turn"
                assert budget.statistics()["waiting"] == len(waiting)
                if waiting:
                    assert held + min(waiting[0].byte_count, 10) > 10, "a lost wake-up"
            nursery.cancel_scope.cancel()
        assert budget.used_bytes == 0

    trio.run(main)


async def test_a_bell_rung_before_the_wait_is_heard_and_rings_add_up_to_one() -> None:
    bell = Doorbell()
    bell.ring()
    bell.ring()
    with trio.fail_after(1):
        await bell.wait()
    with trio.move_on_after(0) as scope:
        await bell.wait()
    assert scope.cancelled_caught


async def test_no_ring_is_lost_by_a_listener_that_looks_again() -> None:
    bell = Doorbell()
    work: list[int] = []
    done: list[int] = []

    async def listen() -> None:
        while len(done) < 100:
            while not work:
                await bell.wait()
            done.append(work.pop())

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            for number in range(100):
                work.append(number)
                bell.ring()
                if number % 3 == 0:
                    await trio.lowlevel.checkpoint()
    assert sorted(done) == list(range(100))


async def test_a_cancelled_listener_leaves_the_bell_usable() -> None:
    bell = Doorbell()
    with trio.move_on_after(0):
        await bell.wait()
    bell.ring()
    with trio.fail_after(1):
        await bell.wait()


def waiter(mark: Mark, value: int, reached: list[int]) -> Callable[[], Awaitable[None]]:
    async def wait() -> None:
        await mark.wait_reached(value)
        reached.append(value)

    return wait


async def test_a_mark_wakes_those_it_has_reached_and_only_rises() -> None:
    mark = Mark(5)
    reached: list[int] = []
    async with trio.open_nursery() as nursery:
        for value in (9, 5, 7, 7, 12, 3):
            nursery.start_soon(waiter(mark, value, reached))
        await wait_all_tasks_blocked()
        assert sorted(reached) == [3, 5]
        mark.rise(6)
        mark.rise(2)
        assert mark.value == 6
        await wait_all_tasks_blocked()
        assert sorted(reached) == [3, 5]
        mark.rise(9)
        await wait_all_tasks_blocked()
        assert sorted(reached) == [3, 5, 7, 7, 9]
        mark.rise(100)
    assert sorted(reached) == [3, 5, 7, 7, 9, 12]


async def test_those_who_gave_up_waiting_for_a_mark_are_not_kept() -> None:
    """A mark that never rises that far (a store that stands still) must not gather them."""
    mark = Mark()
    for value in range(1, 50):
        with trio.move_on_after(0):
            await mark.wait_reached(value)
    assert not mark._waiters
    reached: list[int] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(waiter(mark, 3, reached))
        nursery.start_soon(waiter(mark, 2, reached))
        await wait_all_tasks_blocked()
        with trio.move_on_after(0):
            await mark.wait_reached(1)
        mark.rise(2)
        await wait_all_tasks_blocked()
        assert reached == [2]
        mark.rise(3)


async def test_the_time_without_room_is_counted_for_every_waiter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr("ingester.flow.time.monotonic", lambda: now[0])
    waits = WaitClock()
    send, receive = trio.open_memory_channel[int](1)
    await send_counted(send, 1, waits)
    now[0] += 5
    assert waits.seconds == 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_counted, send, 2, waits)
        nursery.start_soon(send_counted, send, 3, waits)
        await wait_all_tasks_blocked()
        now[0] += 2
        assert waits.seconds == 4
        assert await receive.receive() == 1
        await wait_all_tasks_blocked()
        now[0] += 1
        assert waits.seconds == 5
        assert {await receive.receive(), await receive.receive()} == {2, 3}
    now[0] += 9
    assert waits.seconds == 5


async def test_what_was_sent_is_not_taken_back_by_a_cancellation() -> None:
    send, receive = trio.open_memory_channel[int](1)
    waits = WaitClock()
    with trio.CancelScope() as scope:
        scope.cancel()
        await send_counted(send, 1, waits)
    assert scope.cancelled_caught
    with pytest.raises(trio.WouldBlock):
        receive.receive_nowait()
    sent = []

    async def sender() -> None:
        await send_counted(send, 2, waits)
        sent.append(2)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(sender)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert sent == [2]
    assert receive.receive_nowait() == 2


async def test_waiting_for_bytes_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("ingester.flow.time.monotonic", lambda: now[0])
    budget = ByteBudget(10)
    assert budget.reserve_nowait(10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(budget.reserve, 4)
        await wait_all_tasks_blocked()
        now[0] += 3
        assert budget.waits.seconds == 3
        budget.release(10)
    assert budget.waits.seconds == 3
