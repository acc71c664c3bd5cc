"""Free disk space, looked at before anything is taken (design: before ENOSPC, not after it).

A full disk is worse than a refusal: a rollback after ENOSPC leaves the file full, and a checkpoint
needs room. So the doors refuse, and a running upload aborts, while free space is below a reserve.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from pathlib import Path

from ..errors import Overloaded

__all__ = ["DiskWatch"]

_GIB = 1024**3
# A statvfs is cheap beside a request: looking every 50 ms is free and soon enough, as the
# small lane cannot write more than about 20 MB in that time.
_LOOK_EVERY_S = 0.05


class DiskWatch:
    """Free bytes of the file systems under `directories` against the reserve.

    `reserve_bytes` 0 asks for the automatic one: max(1 GiB, 5 %), but at most a quarter of the
    file system, so that a small disk can be used at all.
    """

    def __init__(self, directories: Sequence[Path], reserve_bytes: int) -> None:
        self._directories = directories
        self._reserve_bytes = reserve_bytes
        self._looked_at = -math.inf
        self._is_full = False
        self._is_half_gone = False
        self.free_bytes = 0
        self.reserve_bytes = 0
        self.refused_count = 0

    @property
    def is_full(self) -> bool:
        now = time.monotonic()
        if now - self._looked_at >= _LOOK_EVERY_S:
            self.look()
        return self._is_full

    @property
    def is_half_gone(self) -> bool:
        """Half of the reserve is used up: nothing that can wait may write."""
        return self.is_full and self._is_half_gone

    def refuse_if_full(self) -> None:
        """Raises Overloaded below the reserve."""
        if self.is_full:
            self.refused_count += 1
            raise Overloaded("the disk is nearly full; nothing was stored", retry_after_s=5)

    def statistics(self) -> dict[str, int]:
        return {
            "free_bytes": self.free_bytes,
            "reserve_bytes": self.reserve_bytes,
            "is_full": int(self._is_full),
            "refused_total": self.refused_count,
        }

    def look(self) -> None:
        """Measure now. `is_full` does so when it was a while ago."""
        self._looked_at = time.monotonic()
        is_full = is_half_gone = False
        free_bytes, most = -1, 0
        for directory in self._directories:
            status = os.statvfs(directory)
            free = status.f_bavail * status.f_frsize
            total = status.f_blocks * status.f_frsize
            reserve = self._reserve_bytes or min(max(_GIB, total // 20), total // 4)
            most = max(most, reserve)
            is_full = is_full or free < reserve
            is_half_gone = is_half_gone or free < reserve // 2
            free_bytes = free if free_bytes < 0 else min(free_bytes, free)
        self.free_bytes, self.reserve_bytes = free_bytes, most
        self._is_full, self._is_half_gone = is_full, is_half_gone
