"""The small lane's gate: where a door waits until its request is safe in the journal.

The journal actor takes what has gathered as one group, writes and syncs it, and settles everybody
in it at once. The gate also keeps the backlog: bytes journalled and not yet in the store, which
bound what waits for the loader.

The last eighth of the backlog is for those who have the least in it: else whoever asks most often
has all of what the loader makes free, and another may never come to it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio
from msgspec import Struct

from ..errors import Overloaded
from ..flow import Doorbell
from ..protocol.requests import SmallRequest

__all__ = ["RETRY_AFTER_S", "JournalGate", "JournalGroup", "JournalledGroup"]

# What a client is told when its request could not be written.
RETRY_AFTER_S = 2

# Of the backlog: from here on it is counted by credential, and from there on shared.
_COUNTED_FROM, _SHARED_FROM = 1 / 2, 7 / 8

# What the objects of one decoded request and one row cost in memory beside their bytes
# (an estimate, not a measurement).
_REQUEST_OVERHEAD_BYTES = 1024
_ROW_OVERHEAD_BYTES = 400


class JournalledGroup(Struct, frozen=True):
    """Requests that are safe in the journal, in sequence: `requests[i]` is `first_seq + i`."""

    first_seq: int
    requests: Sequence[SmallRequest]
    byte_count: int
    row_count: int

    def __repr__(self) -> str:
        return f"JournalledGroup({len(self.requests)} requests from {self.first_seq})"


class JournalGroup:
    """What is written and synced together. Settled once, with `failure` or without."""

    def __init__(self) -> None:
        self.payloads: list[bytes] = []
        self.requests: list[SmallRequest] = []
        self.notices: list[Callable[[str | None], None]] = []
        self.byte_count = 0
        self.row_count = 0
        self.first_seq = 0
        self.done = trio.Event()
        self.failure: str | None = None

    def settle(self) -> None:
        """Tell everybody in it."""
        self.done.set()
        for notice in self.notices:
            notice(self.failure)


class JournalGate:
    """The doors' side: `append` returns when the request is safe on disk."""

    def __init__(self, *, backlog_bytes_max: int) -> None:
        self.backlog_bytes_max = backlog_bytes_max
        self.backlog_bytes = 0
        self._shares: dict[str, float] = {}
        self._group = JournalGroup()
        self._bell = Doorbell()
        self._is_closed = False
        self.group_count = 0
        self.request_count = 0
        self.failure_count = 0

    @property
    def is_full(self) -> bool:
        return self.backlog_bytes >= self.backlog_bytes_max

    def is_full_for(self, credential: str) -> bool:
        """Whether there is no room, or only such as is kept for those who take less."""
        if self.backlog_bytes < _SHARED_FROM * self.backlog_bytes_max:
            return False
        if self.is_full:
            return True
        shares = self._shares
        return shares.get(credential, 0) > sum(shares.values()) / (len(shares) + 1)

    async def append(
        self,
        payload: bytes,
        request: SmallRequest,
        notice: Callable[[str | None], None] | None = None,
    ) -> int:
        """Wait until `request` is in the journal; its sequence. Raises Overloaded.

        `notice` is as in `append_nowait`: it is called also when who waits here was cancelled.
        """
        group, position = self._add(payload, request)
        if notice is not None:
            group.notices.append(notice)
        await group.done.wait()
        if group.failure is not None:
            raise Overloaded(group.failure, retry_after_s=RETRY_AFTER_S)
        return group.first_seq + position

    def append_nowait(
        self, payload: bytes, request: SmallRequest, notice: Callable[[str | None], None]
    ) -> None:
        """Like `append`; `notice(failure)` is called when the request is in the journal (None), or
        could not be written. It must not wait, nor raise.
        """
        group, _ = self._add(payload, request)
        group.notices.append(notice)

    def _add(self, payload: bytes, request: SmallRequest) -> tuple[JournalGroup, int]:
        if self._is_closed:  # the console outlives the doors by moments
            raise Overloaded("the server is shutting down", retry_after_s=RETRY_AFTER_S)
        group = self._group
        position = len(group.payloads)
        group.payloads.append(payload)
        group.requests.append(request)
        size = len(payload) + request.bytes_raw + _REQUEST_OVERHEAD_BYTES
        row_count = request.row_count
        size += _ROW_OVERHEAD_BYTES * row_count
        group.byte_count += size
        group.row_count += row_count
        self.backlog_bytes += size
        if self.backlog_bytes > _COUNTED_FROM * self.backlog_bytes_max:
            credential = request.entry.credential
            self._shares[credential] = self._shares.get(credential, 0) + size
        if position == 0:
            self._bell.ring()
        return group, position

    def applied(self, byte_count: int) -> None:
        """The loader has stored this much, of each its part as far as anybody knows."""
        before, self.backlog_bytes = self.backlog_bytes, self.backlog_bytes - byte_count
        if self._shares:
            left = self.backlog_bytes / before if before else 0
            shares = {name: left * size for name, size in self._shares.items()}
            self._shares = {name: size for name, size in shares.items() if size >= 1}

    def close(self) -> None:
        """No more requests; the actor ends when what waits is written."""
        self._is_closed = True
        self._bell.ring()

    def statistics(self) -> dict[str, int]:
        return {
            "groups_total": self.group_count,
            "requests_total": self.request_count,
            "failures_total": self.failure_count,
            "backlog_bytes": self.backlog_bytes,
        }

    async def take(self) -> JournalGroup | None:
        """Wait for the next group; None when closed and empty."""
        while not self._group.payloads:
            if self._is_closed:
                return None
            await self._bell.wait()
        return self.take_nowait()

    def take_nowait(self) -> JournalGroup | None:
        """What has gathered; None when nothing has."""
        if not self._group.payloads:
            return None
        group, self._group = self._group, JournalGroup()
        return group
