"""Readiness: which sockets have something to read, from one edge-triggered epoll and one task.

Why not `trio.lowlevel.wait_readable` per connection: it arms the descriptor anew for every wait
(one `epoll_ctl` a request) and always wakes a task. Here a socket is registered once, and its
owner is called, so that a small request is taken without waking anything (`connection.py`).

1. A callback runs in the task of `run`, never waits, and never raises.
2. Edge-triggered: a callback is told once that bytes came. Its owner remembers that until a read
   came back short, or with nothing.
3. A descriptor is removed before it is closed, so a number used again is never mistaken.
"""

from __future__ import annotations

import select
from collections.abc import Callable

import trio

__all__ = ["Readiness"]

# The other side sends no more, or the connection broke: reading never blocks again.
_ENDED = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
_EVENTS = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET
# Callbacks before other tasks have their turn.
_EVENTS_MAX = 256


class Readiness:
    """Tells owners of sockets when to read. `run` must be running for anything to be told."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._owners: dict[int, Callable[[bool], None]] = {}

    def add(self, fileno: int, owner: Callable[[bool], None]) -> None:
        """Call `owner(has_ended)` whenever bytes came; also for those that are here already."""
        self._epoll.register(fileno, _EVENTS)
        self._owners[fileno] = owner

    def remove(self, fileno: int) -> None:
        if self._owners.pop(fileno, None) is not None and not self._epoll.closed:
            self._epoll.unregister(fileno)

    async def run(self) -> None:
        """Tell owners until cancelled."""
        epoll, owners = self._epoll, self._owners
        with epoll:
            while True:
                await trio.lowlevel.wait_readable(epoll.fileno())
                for fileno, events in epoll.poll(0, _EVENTS_MAX):
                    owner = owners.get(fileno)
                    if owner is not None:  # else it closed within this round
                        owner(bool(events & _ENDED))
