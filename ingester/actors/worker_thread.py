"""Worker thread: one thread for one actor that makes thousands of blocking calls a second.

Why not `trio.to_thread.run_sync`: a call there costs 47–62 µs of CPU and as long to begin, of which
most is spent on what a call every 0.4 ms does not need (a thread from a cache, a copied context,
a limiter). Here it is 35–41 µs (measured 2026-11-21, nothing else running).

1. One call at a time: `submit`, then `result`, both from the trio thread.
2. A call that was submitted is waited for, also when its task is cancelled.
3. What a call raises is raised by `result`.
4. A nice value holds for all of the thread's calls: it cannot be taken back without privilege.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from types import TracebackType
from typing import Any

import trio

__all__ = ["WorkerThread"]

_NICE_MAX = 19


class WorkerThread:
    """Use as a context manager; leaving it ends the thread behind the call under way."""

    def __init__(self, name: str, *, nice: int = 0) -> None:
        self._nice = nice
        self._calls: SimpleQueue[Callable[[], Any] | None] = SimpleQueue()
        self._token = trio.lowlevel.current_trio_token()
        self._task: trio.lowlevel.Task | None = None
        self._is_finished = False
        self._result: Any = None
        self._error: BaseException | None = None
        self._thread = Thread(target=self._work, name=name, daemon=True)

    def __enter__(self) -> WorkerThread:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._calls.put(None)
        self._thread.join()

    def submit(self, call: Callable[[], Any]) -> None:
        """Begin `call`; does not wait."""
        self._is_finished = False
        self._calls.put(call)

    async def result(self) -> Any:
        """What the submitted call returned."""
        if not self._is_finished:
            self._task = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(_abort_never)
        result, error = self._result, self._error
        self._result = self._error = None
        if error is not None:
            raise error
        return result

    def _work(self) -> None:
        if self._nice:
            with contextlib.suppress(OSError):
                # From where the process is: it may have been started with a nice value itself.
                nice = min(_NICE_MAX, os.getpriority(os.PRIO_PROCESS, 0) + self._nice)
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice)
        while (call := self._calls.get()) is not None:
            result: Any = None
            error: BaseException | None = None
            try:
                result = call()
            except BaseException as raised:
                error = raised
            with contextlib.suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._finish, result, error)

    def _finish(self, result: Any, error: BaseException | None) -> None:
        """In the trio thread."""
        self._result, self._error, self._is_finished = result, error, True
        task, self._task = self._task, None
        if task is not None:
            trio.lowlevel.reschedule(task)


def _abort_never(_: object) -> trio.lowlevel.Abort:
    return trio.lowlevel.Abort.FAILED
