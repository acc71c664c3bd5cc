"""Niced: one blocking call in a thread of its own that yields the processor to others.

A thread of a pool would stay nice for whoever has it next: a nice value cannot be taken back
without privilege.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

__all__ = ["niced"]

T = TypeVar("T")


def niced(call: Callable[[], T], *, nice: int, name: str) -> T:
    """What `call` returns or raises; waits for it."""
    result: list[T] = []
    raised: list[BaseException] = []

    def work() -> None:
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice)
        try:
            result.append(call())
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=work, name=name)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]
    return result[0]
