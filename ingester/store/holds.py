"""Holds: who may still read what was replaced, so that it goes when nobody does.

Files and parts are let go in *epochs*. Whoever enters belongs to the epoch of that moment; what is
retired then may be read by those of its epoch and of older ones, and by nobody who comes later,
because what replaced it was published first.
"""

from __future__ import annotations

import threading

__all__ = ["Holds"]


class Holds:
    """Counts readers by epoch. Safe from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._epoch = 0
        self._reader_counts: dict[int, int] = {}

    def enter(self) -> int:
        """A reader begins; its epoch, to `leave` with."""
        with self._lock:
            self._reader_counts[self._epoch] = self._reader_counts.get(self._epoch, 0) + 1
            return self._epoch

    def leave(self, epoch: int) -> None:
        with self._lock:
            left = self._reader_counts[epoch] - 1
            if left:
                self._reader_counts[epoch] = left
            else:
                del self._reader_counts[epoch]

    def retire(self) -> int:
        """Something was replaced; the last epoch whose readers may have it."""
        with self._lock:
            self._epoch += 1
            return self._epoch - 1

    def are_over(self, epoch: int) -> bool:
        """Whether all readers of this epoch and of older ones have left."""
        with self._lock:
            return all(entered > epoch for entered in self._reader_counts)

    @property
    def reader_count(self) -> int:
        with self._lock:
            return sum(self._reader_counts.values())
