"""The clock of watching: wall time for what is shown and scheduled, monotonic time for waits.

The wall clock may be set by an hour or a day, and the server may have been down: both leave a
**gap**, a span of wall time in which nothing could arrive. What judges time asks whether it lies
in one.

1. A jump forward of more than `_JUMP_S` beyond the monotonic clock is a gap; so is the time from
   when watching was last alive, or ever, to its start.
2. A jump backward takes times back that were judged already: `went_back_to` tells so until it is
   taken.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from msgspec import Struct

__all__ = ["Clock", "Gap", "Timeline"]

_JUMP_S = 5.0
# Of gaps that are older than any bucket that may still be judged.
_GAPS_MAX = 100


class Clock(Struct, frozen=True):
    """Two clocks; tests give their own."""

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic


class Gap(Struct, frozen=True):
    """From when until when (epoch seconds) nothing could arrive."""

    start: float
    end: float


class Timeline:
    """What a run of watching knows of time. `alive_at`: when the run before was last alive."""

    def __init__(self, clock: Clock, alive_at: float | None) -> None:
        self._clock = clock
        self._wall = clock.wall()
        self._monotonic = clock.monotonic()
        self.gaps: tuple[Gap, ...] = ()
        self.went_back_to: float | None = None
        if alive_at is None or alive_at < self._wall:
            self.gaps = (Gap(alive_at or 0.0, self._wall),)
        elif alive_at - self._wall > _JUMP_S:
            self.went_back_to = self._wall

    def look(self) -> float:
        """The wall time now; notes a jump since the last look."""
        wall, monotonic = self._clock.wall(), self._clock.monotonic()
        expected = self._wall + (monotonic - self._monotonic)
        if wall - expected > _JUMP_S:
            self.gaps = (*self.gaps, Gap(expected, wall))[-_GAPS_MAX:]
        elif expected - wall > _JUMP_S:
            self.went_back_to = wall
            # The time behind it passes again, and now something can arrive in it.
            self.gaps = tuple(
                Gap(gap.start, min(gap.end, wall)) for gap in self.gaps if gap.start < wall
            )
        self._wall, self._monotonic = wall, monotonic
        return wall

    def take_back(self) -> float | None:
        """Where the clock was set back to since the last call."""
        found, self.went_back_to = self.went_back_to, None
        return found

    def is_gap(self, start: float, end: float) -> bool:
        """Whether all of a span lies in a gap."""
        return any(gap.start <= start and end <= gap.end for gap in self.gaps)

    def touches_gap(self, start: float, end: float) -> bool:
        return any(gap.start < end and start < gap.end for gap in self.gaps)
