"""A call in a thread of its own, of low priority: what is kept safe must not slow what comes in.

A nice value cannot be taken back without privilege, so no thread of a pool is made nice. DuckDB
runs a statement in the thread that asks (`threads = 1`).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

__all__ = ["niced", "start_niced"]

# Weight 36 beside the 1,024 of the threads that take data (sched(7)).
_NICE = 15

T = TypeVar("T")


def start_niced(work: Callable[[], None]) -> threading.Thread:
    """`work` must not raise."""

    def run() -> None:
        with suppress(OSError, AttributeError):
            thread = threading.get_native_id()
            nice = min(19, os.getpriority(os.PRIO_PROCESS, 0) + _NICE)
            os.setpriority(os.PRIO_PROCESS, thread, nice)
        work()

    thread = threading.Thread(target=run, name="safekeeping", daemon=True)
    thread.start()
    return thread


def niced(call: Callable[[], T]) -> T:
    """What `call` returns or raises."""
    result: list[T] = []
    raised: list[BaseException] = []

    def work() -> None:
        try:
            result.append(call())
        except BaseException as error:
            raised.append(error)

    start_niced(work).join()
    if raised:
        raise raised[0]
    return result[0]
