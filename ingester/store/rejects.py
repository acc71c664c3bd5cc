"""How much of refused lines is kept: `rejects_bytes_max` in all, counted beyond that."""

from __future__ import annotations

from collections.abc import Sequence

from ..messages import LineReject

__all__ = ["RejectBudget"]


class RejectBudget:
    """How many bytes of refused lines are kept in all (`rejects_bytes_max`)."""

    def __init__(self, bytes_max: int, kept_bytes: int) -> None:
        self.bytes_max = bytes_max
        self.kept_bytes = kept_bytes
        self.dropped_count = 0

    def take(self, rejects: Sequence[LineReject]) -> list[LineReject]:
        """Those that may still be kept."""
        kept: list[LineReject] = []
        for reject in rejects:
            if self.kept_bytes + len(reject.line) > self.bytes_max:
                self.dropped_count += 1
                continue
            self.kept_bytes += len(reject.line)
            kept.append(reject)
        return kept
