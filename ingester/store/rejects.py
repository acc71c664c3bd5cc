"""How much of refused lines is kept: `rejects_bytes_max` in all, counted beyond that."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from ..messages import LineReject

__all__ = ["RejectBudget"]


class RejectBudget:
    """How many bytes of refused lines are kept in all (`rejects_bytes_max`). Used by the loader
    and by every bulk worker's thread.
    """

    def __init__(self, bytes_max: int, kept_bytes: int) -> None:
        self._lock = threading.Lock()
        self.bytes_max = bytes_max
        self.kept_bytes = kept_bytes
        self.dropped_count = 0

    def take(
        self, rejects: Sequence[LineReject], *, bytes_max: int | None = None
    ) -> list[LineReject]:
        """Those that may still be kept, at most `bytes_max` of lines at a time."""
        kept: list[LineReject] = []
        taken_bytes = 0
        with self._lock:
            for reject in rejects:
                size = len(reject.line)
                is_over = self.kept_bytes + size > self.bytes_max
                if is_over or (bytes_max is not None and taken_bytes + size > bytes_max):
                    self.dropped_count += 1
                    continue
                taken_bytes += size
                self.kept_bytes += size
                kept.append(reject)
        return kept

    def give_back(self, byte_count: int) -> None:
        """What was taken for a request that was not stored after all."""
        with self._lock:
            self.kept_bytes -= byte_count
            assert self.kept_bytes >= 0
