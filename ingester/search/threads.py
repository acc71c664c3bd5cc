"""Threads of the searches: few, niced, and given back when nobody waits any more.

Not trio's own: a nice value cannot be taken back without privilege, and those threads also carry
the work that must not wait. DuckDB runs a statement in the thread that asks (`threads = 1`), so
the nice value holds for all of it.

1. At most `threads_max` calls at once; at most `waiting_max` wait for a turn, others are told to
   come again (503).
2. A call that is under way when its task is cancelled is stopped and waited for.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

import trio

from ..errors import Overloaded
from .reading import Stop

__all__ = ["SearchThreads"]

# Weight 110 beside the 1,024 of the threads that take data (sched(7)).
_NICE = 10
_NICE_MAX = 19

_RETRY_AFTER_S = 2

T = TypeVar("T")


class _Call(Generic[T]):
    """One call and its outcome."""

    def __init__(self, function: Callable[[Stop], T]) -> None:
        self.function = function
        self.stop = Stop()
        self.done = trio.Event()
        self.token = trio.lowlevel.current_trio_token()
        self.result: T | None = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            if not self.stop.is_wanted:
                self.result = self.function(self.stop)
        except BaseException as error:
            self.error = error
        with contextlib.suppress(trio.RunFinishedError):
            self.token.run_sync_soon(self.done.set)


class SearchThreads:
    """Started when first needed; `close` ends them."""

    def __init__(self, name: str, *, threads_max: int, waiting_max: int) -> None:
        self._name = name
        self._waiting_max = waiting_max
        self._limiter = trio.CapacityLimiter(threads_max)
        self._calls: SimpleQueue[_Call[Any] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._run_count = self._cancelled_count = 0

    async def run(self, function: Callable[[Stop], T]) -> T:
        """What `function` returns. Raises Overloaded when too many wait."""
        if self._limiter.statistics().tasks_waiting >= self._waiting_max:
            raise Overloaded("too many searches wait; try again shortly", _RETRY_AFTER_S)
        async with self._limiter:
            if len(self._threads) < self._limiter.total_tokens:
                self._start()
            call = _Call(function)
            self._calls.put(call)
            try:
                await call.done.wait()
            finally:
                self._run_count += 1
                if not call.done.is_set():  # the client has left
                    self._cancelled_count += 1
                    call.stop.ask()
                    with trio.CancelScope(shield=True):
                        await call.done.wait()
        if call.error is not None:
            raise call.error
        return call.result  # type: ignore[return-value]

    def statistics(self) -> dict[str, int]:
        found = self._limiter.statistics()
        return {
            "running": int(found.borrowed_tokens),
            "waiting": found.tasks_waiting,
            "runs_total": self._run_count,
            "cancelled_total": self._cancelled_count,
        }

    def close(self) -> None:
        for _ in self._threads:
            self._calls.put(None)
        self._threads.clear()

    def _start(self) -> None:
        thread = threading.Thread(target=self._work, name=self._name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self) -> None:
        with contextlib.suppress(OSError, AttributeError):
            # From where the process is: it may have been started with a nice value itself.
            nice = min(_NICE_MAX, os.getpriority(os.PRIO_PROCESS, 0) + _NICE)
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice)
        while (call := self._calls.get()) is not None:
            call.run()
            del call  # its result may be large
