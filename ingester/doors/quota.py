"""Request quotas: a fixed UTC hour per credential; every authenticated request counts.

Counters live in memory and are handed to the control store once a second and at the end, so a
restart goes on where it was (a crash forgets at most the last second).
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["HourQuotas", "QuotaState"]

HOUR_S = 3600


class QuotaState:
    """Where one credential stands. `reset_s` is the epoch second at which the hour ends."""

    __slots__ = ("is_over", "limit", "remaining", "reset_s", "retry_after_s")

    def __init__(self, limit: int, used: int, now_s: float) -> None:
        self.limit = limit
        self.is_over = used > limit
        self.remaining = max(0, limit - used)
        self.reset_s = (int(now_s) // HOUR_S + 1) * HOUR_S
        self.retry_after_s = max(1, self.reset_s - int(now_s))

    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        return (
            (b"X-RateLimit-Limit", b"%d" % self.limit),
            (b"X-RateLimit-Remaining", b"%d" % self.remaining),
            (b"X-RateLimit-Reset", b"%d" % self.reset_s),
        )


class HourQuotas:
    """Requests of this hour by credential; only limited credentials are counted."""

    def __init__(self, hour: int = 0, counts: Mapping[str, int] | None = None) -> None:
        self._hour = hour
        self._counts = dict(counts or {})
        self.is_changed = False
        self.refused_count = 0

    def count(self, credential: str, limit: int, now_s: float) -> QuotaState:
        """Count one request and tell where the credential stands."""
        used = self._used(credential, now_s) + 1
        self._counts[credential] = used
        self.is_changed = True
        state = QuotaState(limit, used, now_s)
        self.refused_count += state.is_over
        return state

    def told(self, credential: str, limit: int, now_s: float) -> QuotaState:
        """Where the credential stands, for a request that was refused before its key counted."""
        return QuotaState(limit, self._used(credential, now_s), now_s)

    def _used(self, credential: str, now_s: float) -> int:
        hour = int(now_s) // HOUR_S
        if hour != self._hour:
            self._hour = hour
            self._counts.clear()
        return self._counts.get(credential, 0)

    def take_changes(self) -> tuple[int, dict[str, int]]:
        """The hour and its counters, for the control store."""
        self.is_changed = False
        return self._hour, dict(self._counts)
