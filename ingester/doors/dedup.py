"""De-duplication by a field of the event: which ids a source has had, and which are on their way.

A source with `dedup_field` (contract 3.4) stores a row once per id within `dedup_hours`, across
lanes and restarts. The truth is `dedup_keys` in the parts, written with the rows, and the journal;
this is their summary in memory, rebuilt before the doors open. A part that is sealed must leave its
`dedup_keys` readable until the longest window has passed.

1. An id counts once it is durable. Until then it is *claimed* by its request: nobody stores it
   beside that one, nobody takes it for stored, and when that request fails a waiter takes over.
2. An id is a repeat when its row was received less than `dedup_hours` from this one, before or
   after (clocks are set back). A repeat stores nothing, hence does not make the window longer.
3. Ids count among rows of one table, source and field (`dedup_scope`). What was stored under
   another field, or while the setting was off, does not count.
4. A small request claims all of its ids or none: nobody waits while others may wait for them. Only
   an upload holds some while it waits, and only for small requests, which wait for nothing but the
   journal; of the uploads of one scope one is under way at a time. So no two wait for each other.

Marks of `DedupIds`: the receive time of a durable row, in microseconds; below zero, the token of a
claim. What became of a claim is kept by its token, so that an upload of millions is committed or
rolled back in one step; the sweep writes it into the marks by and by.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from itertools import islice

import numpy as np
import trio

from ..errors import Overloaded
from ..messages import Source
from ..protocol.chunk_shape import Array
from ..protocol.dedup import DEDUP_TABLES, DIGEST_BYTES, dedup_field_of, dedup_scope
from ..protocol.dedup_ids import SHARDS, DedupIds

__all__ = ["SWEEP_SECONDS", "Claim", "DedupWindow", "DedupWindows", "claim_small"]

ReadIds = Callable[[str, int], Iterable[tuple[bytes, int]]]

_HOUR_US = 3_600_000_000
# How long a small request waits for ids that another one brings; an upload may take hours.
CLAIM_SECONDS_MAX = 5.0
_RETRY_AFTER_S = 5
# Looked up with the lock held, at about a microsecond each; the event loop may be waiting for it.
_AT_ONCE = 1024
# Claims of more are settled by their token. Each such token is kept for up to two sweeps.
_EAGER_MAX = 256
# A whole sweep takes so long: what has expired is gone from memory not much later.
SWEEP_SECONDS = 600
_VOID = 0  # a mark older than any window


class DedupWindow:
    """The ids of one scope. Safe from two threads: the event loop and the decode turn."""

    def __init__(self, scope: str, field: str, hours: int) -> None:
        self.scope = scope
        self.field_name = field
        self.field = dedup_field_of(field)
        self.lifetime_us = hours * _HOUR_US
        # How far back what the parts hold is here as well.
        self.loaded_hours = 0
        self.repeat_count = 0
        self._ids = DedupIds()
        self._lock = threading.Lock()
        # What became of claims: under way, or durable since. One that is not here came to nothing.
        self._tokens: dict[int, Claim | int] = {}
        self._last_token = 0
        self._upload_turn = trio.Semaphore(1, max_value=1)
        self._swept = 0
        # Settled before this sweep began, and since: after the sweep nothing refers to the former.
        self._passing: list[int] = []
        self._settled: list[int] = []

    @property
    def id_count(self) -> int:
        """Records, of expired and failed ones too until they are swept."""
        return self._ids.count

    def restore(self, ids: Iterable[tuple[bytes, int]]) -> None:
        """Durable ids and when their rows were received."""
        rest = iter(ids)
        while some := list(islice(rest, _AT_ONCE)):
            with self._lock:
                for digest, received_at_us in some:
                    mark = self._ids.get_or_add(digest, received_at_us)
                    if mark is None or mark >= received_at_us:
                        continue
                    # Not over a claim, under way or durable since: that row is the newer one.
                    if mark >= 0 or mark not in self._tokens:
                        self._ids.put(digest, received_at_us)

    def claim(self, received_at_us: int) -> Claim:
        """An empty claim of a small request; end it with `settle`."""
        return self._new_claim(received_at_us, is_upload=False)

    async def claim_upload(self, received_at_us: int, *, seconds_max: float) -> Claim:
        """Wait until no other upload is under way. Raises Overloaded after `seconds_max`."""
        try:
            self._upload_turn.acquire_nowait()
        except trio.WouldBlock:
            with trio.move_on_after(seconds_max) as scope:
                await self._upload_turn.acquire()
            if scope.cancelled_caught:
                raise Overloaded(
                    "another upload to this source is under way; repeats are left out of one"
                    " at a time",
                    retry_after_s=_RETRY_AFTER_S,
                ) from None
        return self._new_claim(received_at_us, is_upload=True)

    def _new_claim(self, received_at_us: int, *, is_upload: bool) -> Claim:
        self._last_token -= 1
        claim = Claim(self, self._last_token, received_at_us, is_upload=is_upload)
        self._tokens[claim.token] = claim
        return claim

    def _take(
        self, claim: Claim, digests: Sequence[bytes | None], start: int, repeats: bytearray
    ) -> tuple[int, Claim | None]:
        """`_AT_ONCE` ids from `start` on; how far it came, and whose id stopped it."""
        ids, tokens, token = self._ids, self._tokens, claim.token
        received_at_us, lifetime_us = claim.received_at_us, self.lifetime_us
        end = min(start + _AT_ONCE, len(digests))
        with self._lock:
            for place in range(start, end):
                digest = digests[place]
                if digest is None:
                    continue
                mark = ids.get_or_add(digest, token)
                if mark is not None:
                    if mark < 0 and mark != token:
                        known = tokens.get(mark, _VOID)
                        if isinstance(known, Claim):
                            return place, known
                        mark = known
                    if mark == token or abs(received_at_us - mark) < lifetime_us:
                        repeats[place] = 1
                        continue
                    ids.put(digest, token)
                claim.fresh += digest
        return end, None

    def _end(self, claim: Claim, *, is_durable: bool) -> None:
        """Called on the event loop."""
        with self._lock:
            if not is_durable:
                del self._tokens[claim.token]
            elif claim.is_upload or len(claim.fresh) > _EAGER_MAX * DIGEST_BYTES:
                self._tokens[claim.token] = claim.received_at_us
                self._settled.append(claim.token)
            else:
                fresh = bytes(claim.fresh)
                for start in range(0, len(fresh), DIGEST_BYTES):
                    self._ids.put(fresh[start : start + DIGEST_BYTES], claim.received_at_us)
                del self._tokens[claim.token]
        if is_durable:
            self.repeat_count += claim.repeat_count
        if claim.is_upload:
            self._upload_turn.release()

    def sweep(self, shard_count: int, now_us: int) -> None:
        """Forget what has expired in the next so many of `SHARDS`."""

        def renew(marks: Array) -> Array:
            return self._renewed(marks, now_us)

        for _ in range(shard_count):
            with self._lock:
                self._ids.sweep(self._swept, renew)
            self._swept = (self._swept + 1) % SHARDS
            if not self._swept:
                with self._lock:
                    for token in self._passing:
                        del self._tokens[token]
                    self._passing, self._settled = self._settled, []

    def _renewed(self, marks: Array, now_us: int) -> Array:
        """Write what became of claims into `marks`; which of them stay."""
        for token in np.unique(marks[marks < 0]).tolist():
            known = self._tokens.get(token, _VOID)
            if not isinstance(known, Claim):
                marks[marks == token] = known
        kept: Array = (marks < 0) | (np.abs(now_us - marks) < self.lifetime_us)
        return kept

    def statistics(self) -> dict[str, int]:
        return {
            "ids": self._ids.count,
            "claims": sum(isinstance(known, Claim) for known in self._tokens.values()),
            "repeats_total": self.repeat_count,
        }


class Claim:
    """The ids that one request brings. Ended once, by `settle`, on the event loop.

    `fresh`: digests claimed, one behind the other, until they are taken.
    """

    __slots__ = (
        "_ended",
        "_is_ended",
        "fresh",
        "is_upload",
        "received_at_us",
        "repeat_count",
        "token",
        "window",
    )

    def __init__(
        self, window: DedupWindow, token: int, received_at_us: int, *, is_upload: bool
    ) -> None:
        self.window = window
        self.token = token
        self.received_at_us = received_at_us
        self.is_upload = is_upload
        self.fresh = bytearray()
        self.repeat_count = 0
        self._is_ended = False
        self._ended: trio.Event | None = None

    def take(
        self, digests: Sequence[bytes | None], repeats: bytearray, start: int = 0
    ) -> tuple[int, Claim | None]:
        """Claim `digests` from `start` on; those that are there already are marked in `repeats`.

        Returns how far it came and, when that is not the end, whose id comes next.
        """
        blocker = None
        while start < len(digests) and blocker is None:
            start, blocker = self.window._take(self, digests, start, repeats)
        return start, blocker

    def take_fresh(self) -> bytes:
        """What was claimed since the last call, to be stored."""
        fresh, self.fresh = bytes(self.fresh), bytearray()
        return fresh

    def settle(self, *, is_durable: bool) -> None:
        """The request is stored, or nothing of it is."""
        assert not self._is_ended
        self._is_ended = True
        self.window._end(self, is_durable=is_durable)
        if self._ended is not None:
            self._ended.set()

    async def wait_ended(self) -> None:
        if self._is_ended:
            await trio.lowlevel.checkpoint()
            return
        if self._ended is None:
            self._ended = trio.Event()
        await self._ended.wait()


async def claim_small(
    window: DedupWindow,
    lines: Sequence[bytes],
    received_at_us: int,
    *,
    turn: trio.CapacityLimiter | None,
) -> tuple[Claim, list[int]]:
    """Claim the ids of a small request; the places of lines that are repeats.

    With a `turn` that happens in a thread. When it returns nothing has been waited for since the
    look: who journals the request at once journals what is true. Raises Overloaded when somebody
    else brings one of the ids and is not done in `CLAIM_SECONDS_MAX`.
    """
    deadline = trio.current_time() + CLAIM_SECONDS_MAX
    digests: list[bytes | None] = []
    while True:
        repeats = bytearray(len(lines))
        claim = window.claim(received_at_us)

        def take(claim: Claim = claim, repeats: bytearray = repeats) -> Claim | None:
            if not digests:
                digests.extend(map(window.field.digest, lines))
            return claim.take(digests, repeats)[1]

        try:
            if turn is None:
                blocker = take()
            else:
                blocker = await trio.to_thread.run_sync(take, limiter=turn)
        except BaseException:
            claim.settle(is_durable=False)
            raise
        if blocker is None:
            places = np.frombuffer(repeats, np.uint8).nonzero()[0].tolist() if 1 in repeats else []
            claim.repeat_count = len(places)
            return claim, places
        claim.settle(is_durable=False)
        with trio.move_on_at(deadline) as scope:
            await blocker.wait_ended()
        if scope.cancelled_caught:
            raise Overloaded(
                "another request that is under way brings an event with the same id",
                retry_after_s=_RETRY_AFTER_S,
            )


class DedupWindows:
    """All windows of a process, by scope. They are never thrown away: a request may hold one.

    `read(scope, hours)` gives the ids that the store holds.
    """

    def __init__(self, read: ReadIds = lambda *_: ()) -> None:
        self._read = read
        self._by_source: dict[tuple[str, str, str], DedupWindow] = {}
        self._sweep_left = 0.0

    def window_of(self, source: Source | None, table: str) -> DedupWindow | None:
        """What the requests of `source` for `table` are held against; None without the setting."""
        if source is None or source.dedup_field is None:
            return None
        key = (table, source.name, source.dedup_field)
        window = self._by_source.get(key)
        if window is None:
            window = DedupWindow(dedup_scope(*key), source.dedup_field, source.dedup_hours)
            window = self._by_source.setdefault(key, window)
        return window

    def prepare(self, sources: Iterable[Source]) -> None:
        """Blocks. Before requests are held against new settings: what the store has had under them
        counts. Raises StoreError; then the next call tries again.
        """
        for source in sources:
            for table in DEDUP_TABLES:
                window = self.window_of(source, table)
                if window is None:
                    continue
                hours = source.dedup_hours
                window.lifetime_us = hours * _HOUR_US
                if hours > window.loaded_hours:
                    window.restore(self._read(window.scope, hours))
                window.loaded_hours = hours

    def sweep(self, seconds: float, now_us: int) -> None:
        """What is due after so many seconds."""
        if not self._by_source:
            return
        self._sweep_left += min(SHARDS, SHARDS * seconds / SWEEP_SECONDS)
        shard_count = int(self._sweep_left)
        self._sweep_left -= shard_count
        for window in self._by_source.values():
            window.sweep(shard_count, now_us)

    def statistics(self) -> dict[str, int]:
        found = [window.statistics() for window in self._by_source.values()]
        return {
            name: sum(each[name] for each in found) for name in ("ids", "claims", "repeats_total")
        }
