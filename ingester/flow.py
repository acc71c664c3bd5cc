"""Backpressure and wake-ups: byte budgets, doorbells, a rising mark that tasks wait for, and how
long they wait.

1. A `ByteBudget` is reserved whole and never grown (partial holders would deadlock), but it may
   shrink; waiters are served in order.
2. A `Doorbell` may be lost or rung for nothing: whoever waits looks at the truth afterwards.
3. A `Mark` only rises; `wait_reached(n)` returns once it is at least n.
4. `WaitClock.seconds` only rises, and counts those who still wait.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from heapq import heapify, heappop, heappush
from itertools import count
from typing import TypeVar

import trio

__all__ = ["ByteBudget", "Doorbell", "Mark", "Reservation", "WaitClock", "send_counted"]

T = TypeVar("T")


class WaitClock:
    """Seconds that tasks have waited at one place, summed over the tasks."""

    def __init__(self) -> None:
        # Of those who wait the moment they began is taken off already.
        self._settled_s = 0.0
        self._waiting_count = 0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        self._settled_s -= time.monotonic()
        self._waiting_count += 1
        try:
            yield
        finally:
            self._waiting_count -= 1
            self._settled_s += time.monotonic()

    @property
    def seconds(self) -> float:
        if not self._waiting_count:
            return max(0.0, self._settled_s)
        return max(0.0, self._settled_s + self._waiting_count * time.monotonic())


async def send_counted(channel: trio.MemorySendChannel[T], value: T, waits: WaitClock) -> None:
    """`channel.send(value)`; the time that it had no room is counted."""
    await trio.lowlevel.checkpoint_if_cancelled()
    try:
        channel.send_nowait(value)
    except trio.WouldBlock:
        with waits.waiting():
            await channel.send(value)
    else:
        # As trio's own: what was sent is not taken back by a cancellation.
        await trio.lowlevel.cancel_shielded_checkpoint()


class ByteBudget:
    """A bound on bytes held at once."""

    def __init__(self, total_bytes: int) -> None:
        self.total_bytes = total_bytes
        self.used_bytes = 0
        self.waits = WaitClock()
        self._waiters: deque[tuple[int, trio.Event]] = deque()

    def reserve_nowait(self, byte_count: int) -> bool:
        if self._waiters or self.used_bytes + byte_count > self.total_bytes:
            return False
        self.used_bytes += byte_count
        return True

    async def reserve(self, byte_count: int) -> int:
        """Wait for room. Asks for at most the whole budget; returns what was reserved."""
        byte_count = min(byte_count, self.total_bytes)
        if self.reserve_nowait(byte_count):
            return byte_count
        entry = (byte_count, trio.Event())
        self._waiters.append(entry)
        try:
            with self.waits.waiting():
                await entry[1].wait()
        except BaseException:
            if entry[1].is_set():
                self.release(byte_count)
            else:
                self._waiters.remove(entry)
                self._serve()
            raise
        return byte_count

    @property
    def is_waited_for(self) -> bool:
        return bool(self._waiters)

    def release(self, byte_count: int) -> None:
        self.used_bytes -= byte_count
        assert self.used_bytes >= 0
        self._serve()

    @contextmanager
    def reserved(self, byte_count: int) -> Iterator[Reservation]:
        """Hand back what `reserve` or `reserve_nowait` took, however the block ends."""
        reservation = Reservation(self, byte_count)
        try:
            yield reservation
        finally:
            reservation.shrink(0)

    def _serve(self) -> None:
        while self._waiters and self.used_bytes + self._waiters[0][0] <= self.total_bytes:
            byte_count, event = self._waiters.popleft()
            self.used_bytes += byte_count
            event.set()

    def statistics(self) -> dict[str, int]:
        return {
            "used_bytes": self.used_bytes,
            "total_bytes": self.total_bytes,
            "waiting": len(self._waiters),
        }


class Reservation:
    """What one holder has of a budget."""

    __slots__ = ("_budget", "byte_count")

    def __init__(self, budget: ByteBudget, byte_count: int) -> None:
        self._budget = budget
        self.byte_count = byte_count

    def shrink(self, byte_count: int) -> None:
        """Hand back all but `byte_count`; nothing when that is more than what is held."""
        excess = self.byte_count - byte_count
        if excess > 0:
            self.byte_count = byte_count
            self._budget.release(excess)


class Doorbell:
    """A wake-up for one listener."""

    def __init__(self) -> None:
        self._event = trio.Event()

    def ring(self) -> None:
        self._event.set()

    async def wait(self) -> None:
        await self._event.wait()
        self._event = trio.Event()


class Mark:
    """A number that only rises."""

    def __init__(self, value: int = 0) -> None:
        self.value = value
        self._waiters: list[tuple[int, int, trio.Event]] = []
        self._order = count()

    def rise(self, value: int) -> None:
        self.value = max(self.value, value)
        while self._waiters and self._waiters[0][0] <= self.value:
            heappop(self._waiters)[2].set()

    async def wait_reached(self, value: int) -> None:
        if value <= self.value:
            await trio.lowlevel.checkpoint()
            return
        waiter = (value, next(self._order), trio.Event())
        heappush(self._waiters, waiter)
        try:
            await waiter[2].wait()
        finally:
            if not waiter[2].is_set():
                self._waiters.remove(waiter)
                heapify(self._waiters)
