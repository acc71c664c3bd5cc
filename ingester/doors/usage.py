"""Usage counters: requests, rows and refusals by credential, counted where requests end.

Counting is a few increments in memory; the hour and the time of last use are put on when the
counters are taken (some seconds later), so no request asks for the time. What was counted since the
last save is lost with a kill.

1. At most `_NOTES_MAX` refused requests per credential are held between two saves.
2. A note of a refused request holds no key: its path is masked here.
"""

from __future__ import annotations

import time
from collections import deque

from msgspec import Struct

from ingester.store.control import RefusedRequest, UsageChange

__all__ = ["UsageChanges", "UsageCounters", "masked_path"]

HOUR_S = 3600

_NOTES_MAX = 100
_REASON_CHARACTERS_MAX = 200
_PATH_CHARACTERS_MAX = 200
# A path segment this long may be a key; no route of ours has one.
_KEY_CHARACTERS_MIN = 16
_MASK = "***"


class UsageChanges(Struct, frozen=True):
    """What came since the last save, for `ControlStore.store_usage`."""

    hour: int
    changes: list[UsageChange]
    refused: list[RefusedRequest]


class _Count:
    __slots__ = ("accepted", "address", "refused", "rejected", "requests")

    def __init__(self) -> None:
        self.requests = self.accepted = self.rejected = self.refused = 0
        self.address = ""


class UsageCounters:
    """What every credential did since the last save."""

    def __init__(self) -> None:
        self._counts: dict[str, _Count] = {}
        self._notes: dict[str, deque[RefusedRequest]] = {}

    @property
    def is_changed(self) -> bool:
        return bool(self._counts or self._notes)

    def count(
        self, credential: str, *, accepted: int = 0, rejected: int = 0, address: str = ""
    ) -> None:
        """An answered request that was not refused. `address` "" where it is not known."""
        try:
            count = self._counts[credential]
        except KeyError:
            count = self._counts[credential] = _Count()
        count.requests += 1
        count.accepted += accepted
        count.rejected += rejected
        if address:
            count.address = address

    def refuse(self, credential: str, *, status: int, reason: str, address: str, path: str) -> None:
        """A refused request (4xx); `credential` "" when it had no valid key."""
        if credential:
            self.count(credential, address=address)
            self._counts[credential].refused += 1
        note = RefusedRequest(
            credential=credential,
            time=time.time(),
            status=status,
            reason=reason[:_REASON_CHARACTERS_MAX],
            address=address,
            path=masked_path(path),
        )
        self._notes.setdefault(credential, deque(maxlen=_NOTES_MAX)).append(note)

    def take_changes(self) -> UsageChanges:
        """Everything counted so far; the counters start again."""
        counts, notes = self._counts, self._notes
        self._counts, self._notes = {}, {}
        now_s = time.time()
        return UsageChanges(
            int(now_s) // HOUR_S,
            [
                UsageChange(
                    credential=credential,
                    requests=count.requests,
                    accepted=count.accepted,
                    rejected=count.rejected,
                    refused=count.refused,
                    last_used_at=now_s,
                    last_address=count.address,
                )
                for credential, count in counts.items()
            ],
            [note for kept in notes.values() for note in kept],
        )

    def give_back(self, taken: UsageChanges) -> None:
        """Changes that could not be saved; the next save has them (under its own hour)."""
        for change in taken.changes:
            count = self._counts.setdefault(change.credential, _Count())
            count.requests += change.requests
            count.accepted += change.accepted
            count.rejected += change.rejected
            count.refused += change.refused
            count.address = count.address or change.last_address
        newer, self._notes = self._notes, {}
        for note in [*taken.refused, *(note for kept in newer.values() for note in kept)]:
            self._notes.setdefault(note.credential, deque(maxlen=_NOTES_MAX)).append(note)


def masked_path(path: str) -> str:
    """The path without what may be a key: both segments of a pair, and any long one."""
    parts = path.split("/")
    start = parts.index("v1") + 1 if parts[1:2] == ["v1"] or parts[1:3] == ["test", "v1"] else None
    masked = [
        _MASK
        if (start is not None and number >= start and part)
        or len(part) >= _KEY_CHARACTERS_MIN
        or part.startswith(("ingl_", "ingm_", "inga_"))
        else part
        for number, part in enumerate(parts)
    ]
    return "/".join(masked)[:_PATH_CHARACTERS_MAX]
