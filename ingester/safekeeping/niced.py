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

__all__ = ["niced"]

# Weight 36 beside the 1,024 of the threads that take data (sched(7)).
_NICE = 15

T = TypeVar("T")


def niced(call: Callable[[], T]) -> T:
    """What `call` returns or raises."""
    result: list[T] = []
    raised: list[BaseException] = []

    def work() -> None:
        with suppress(OSError, AttributeError):
            thread = threading.get_native_id()
            os.setpriority(os.PRIO_PROCESS, thread, min(19, os.getpriority(0, 0) + _NICE))
        try:
            result.append(call())
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=work, name="safekeeping")
    thread.start()
    thread.join()
    if raised:
        raise raised[0]
    return result[0]
