"""Sealer actor: seals rotated parts, joins small sealed files, and removes what is past its time.

1. One thing at a time, in a thread of its own, niced. Behind each piece of work (some 16,000 rows)
   it rests `_REST_FACTOR` times as long as that took while requests come; while uploads run or the
   loader is behind it waits up to `_PAUSE_S_MAX`. Both are divided by how many parts wait: it is
   slow under load and never stands still.
2. What retention is to remove is told in the log `NOTICE_S` before it goes, and to whoever asks
   (`ingester retention`) at any time: a setting that was a mistake can be taken back.
3. An open part whose rows are past their time, or that alone is larger than the store may be, is
   rotated and sealed first: only sealed files are removed.
4. It never fails a request: whatever goes wrong is logged and tried again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Literal

import structlog
import trio
from msgspec import Struct

from ..config import RETENTION_TABLES
from ..errors import StoreBusy, StoreError, StoreFailed
from ..store.control.sealed_files import SealedFile
from ..store.database import StoreBroken
from ..store.niced import niced
from ..store.rejects import RejectBudget
from ..store.retention import Keeping, due, next_purges, purge_sentence
from ..store.sealing import PartNotWhole, Sealer, joinable
from ..store.store import Store

__all__ = ["NOTICE_S", "Load", "SealerCounters", "SealingStopped", "run"]

_log = structlog.get_logger()

_ROUND_S = 1.0
_PURGE_LOOK_S = 10.0
_FAILED_WAIT_S = 15.0
_PAUSE_S_MAX = 1.0
_PAUSE_STEP_S = 0.02
# While requests come, so many times what a piece took passes before the next.
_REST_FACTOR = 3.0
_NICE = 10
# A part is not rotated for its size while it has less than this share of what the store may have.
_ROTATED_SHARE = 4
NOTICE_S = 60.0


# `some`: requests come; `busy`: uploads run, or the loader is behind.
Load = Literal["idle", "some", "busy"]


class SealingStopped(StoreBusy):
    """The server stops."""


class SealerCounters(Struct):
    """What was done since the start, and what comes next."""

    parts_waiting: int = 0
    parts_stuck: int = 0
    sealed_parts: int = 0
    sealed_rows: int = 0
    joined_files: int = 0
    last_sealed_at: float = 0.0
    paused_seconds: float = 0.0
    failure_count: int = 0
    purged_files: int = 0
    purged_rows: int = 0
    purged_bytes: int = 0
    next_purge_at: float = 0.0
    next_purge_rows: int = 0
    next_purge_bytes: int = 0

    def statistics(self) -> dict[str, int | float]:
        return {
            "parts_waiting": self.parts_waiting,
            "parts_stuck": self.parts_stuck,
            "sealed_parts_total": self.sealed_parts,
            "sealed_rows_total": self.sealed_rows,
            "joined_files_total": self.joined_files,
            "last_sealed_timestamp_seconds": self.last_sealed_at,
            "paused_seconds_total": round(self.paused_seconds, 3),
            "failures_total": self.failure_count,
            "purged_files_total": self.purged_files,
            "purged_rows_total": self.purged_rows,
            "purged_bytes_total": self.purged_bytes,
            "next_purge_timestamp_seconds": self.next_purge_at,
            "next_purge_rows": self.next_purge_rows,
            "next_purge_bytes": self.next_purge_bytes,
        }


class _Pauses:
    """Called in the sealing thread between pieces."""

    def __init__(
        self, load: Callable[[], Load], has_room: Callable[[], bool], counters: SealerCounters
    ) -> None:
        self._load = load
        self._has_room = has_room
        self._counters = counters
        self._ended_at = time.monotonic()
        self.stop = threading.Event()

    def begin(self) -> None:
        self.stop.clear()
        self._ended_at = time.monotonic()

    def __call__(self) -> None:
        """Raises SealingStopped, StoreBusy."""
        began = time.monotonic()
        waiting = max(1, self._counters.parts_waiting)
        rests_until = began + min(_PAUSE_S_MAX, _REST_FACTOR * (began - self._ended_at)) / waiting
        waits_until = began + _PAUSE_S_MAX / waiting
        while not self.stop.is_set():
            load = self._load()
            until = {"idle": began, "some": rests_until, "busy": waits_until}[load]
            left_s = until - time.monotonic()
            if left_s <= 0:
                break
            self.stop.wait(min(left_s, _PAUSE_STEP_S))
        self._ended_at = time.monotonic()
        self._counters.paused_seconds += self._ended_at - began
        if self.stop.is_set():
            raise SealingStopped("the server stops")
        if not self._has_room():
            raise StoreBusy("the disk is nearly full: nothing is sealed until there is room")


async def run(
    *,
    store: Store,
    rejects: RejectBudget,
    keeping: Callable[[], Keeping],
    load: Callable[[], Load],
    has_room: Callable[[], bool],
    counters: SealerCounters,
    now: Callable[[], float] = time.time,
) -> None:
    """Look once a second. Ends by cancellation. `keeping` blocks."""
    pauses = _Pauses(load, has_room, counters)
    sealer = Sealer(store, pause=pauses)
    notices = _Notices()
    looked_at = float("-inf")
    while True:
        await trio.sleep(_ROUND_S)
        try:
            await _in_thread(pauses, partial(_seal_or_join, store, sealer, counters, now))
            if trio.current_time() - looked_at >= _PURGE_LOOK_S:
                looked_at = trio.current_time()
                kept = await trio.to_thread.run_sync(keeping)
                work = partial(_purge, store, kept, notices, rejects, counters, now)
                await _in_thread(pauses, work)
        except StoreFailed:
            raise
        except SealingStopped:
            await trio.lowlevel.checkpoint()
        except StoreError as error:
            counters.failure_count += 1
            if isinstance(error, PartNotWhole):
                _log.error("rows cannot be sealed; run `ingester check`", reason=str(error))
                continue
            _log.warning("sealing put off", reason=str(error))
            if isinstance(error, StoreBroken):
                await _recover(store, error)
            await trio.sleep(_FAILED_WAIT_S)


async def _in_thread(pauses: _Pauses, call: Callable[[], None]) -> None:
    """A niced thread, waited for also when it is not wanted any more; then it ends soon."""
    failed: list[StoreError] = []

    def work() -> None:
        try:
            niced(call, nice=_NICE, name="sealer")
        except StoreError as error:  # a nursery would make a group of it
            failed.append(error)

    pauses.begin()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_stop_when_cancelled, pauses)
        await trio.to_thread.run_sync(work)
        nursery.cancel_scope.cancel()
    if failed:
        raise failed[0]


async def _stop_when_cancelled(pauses: _Pauses) -> None:
    try:
        await trio.sleep_forever()
    finally:
        pauses.stop.set()


async def _recover(store: Store, error: StoreBroken) -> None:
    """Raises StoreFailed when there is no hope, which ends the process."""
    try:
        await trio.to_thread.run_sync(store.recover, error.generation)
    except StoreBusy as busy:
        _log.warning("store not reopened, trying again", reason=str(busy))


def _seal_or_join(
    store: Store, sealer: Sealer, counters: SealerCounters, now: Callable[[], float]
) -> None:
    """One part, or else files that are worth joining; then remove what nobody reads any more."""
    store.remove_unread()
    counters.parts_waiting = len(store.parts.parts) - 1
    counters.parts_stuck = len(sealer.stuck)
    part = sealer.next_part()
    if part is not None:
        began = time.monotonic()
        counters.sealed_rows += sealer.seal(part)
        counters.sealed_parts += 1
        counters.last_sealed_at = now()
        counters.parts_waiting = len(store.parts.parts) - 1
        seconds = round(time.monotonic() - began, 1)
        _log.info("part sealed", part=part.number, seconds=seconds)
    else:
        today = time.strftime("%Y-%m-%d", time.gmtime(now()))
        sound = [f for f in store.sealed.all_files() if f.name not in sealer.damaged]
        files = joinable(sound, today)
        if not files:
            return
        joined = sealer.join(files)
        counters.joined_files += len(files)
        _log.info("sealed files joined", files=len(files), file=joined.name)
    store.remove_unread()


class _Notices:
    """When each file was first found to be due."""

    def __init__(self) -> None:
        self._told_at: dict[str, float] = {}

    def ripe(self, files: list[SealedFile], now: float) -> tuple[list[SealedFile], bool]:
        """Those told of long enough ago, and whether there are new ones."""
        told_at = {file.name: self._told_at.get(file.name, now) for file in files}
        is_news = not told_at.keys() <= self._told_at.keys()
        self._told_at = told_at
        return [file for file in files if now - told_at[file.name] >= NOTICE_S], is_news


def _purge(
    store: Store,
    keeping: Keeping,
    notices: _Notices,
    rejects: RejectBudget,
    counters: SealerCounters,
    now: Callable[[], float],
) -> None:
    files = store.sealed.all_files()
    stored_bytes = store.stored_bytes()
    coming = next_purges(files, keeping, stored_bytes=stored_bytes, now=now())
    counters.next_purge_at = min(
        (datetime.fromisoformat(purge.at).timestamp() for purge in coming), default=0.0
    )
    counters.next_purge_rows = sum(item.rows for purge in coming for item in purge.items)
    counters.next_purge_bytes = sum(item.bytes for purge in coming for item in purge.items)
    found = [file for _, file in due(files, keeping, stored_bytes=stored_bytes, now=now())]
    ripe, is_news = notices.ripe(found, now())
    if is_news:
        for purge in coming:
            _log.warning(purge_sentence(purge), notice_seconds=NOTICE_S)
    if ripe:
        store.publish_sealed(dropped=ripe)
        rejects.give_back(sum(file.line_bytes for file in ripe))
        counters.purged_files += len(ripe)
        counters.purged_rows += sum(file.row_count for file in ripe)
        counters.purged_bytes += sum(file.byte_count for file in ripe)
        _log.warning(
            "rows removed: their time is over, or the store was too large",
            files=[file.name for file in ripe][:20],
            file_count=len(ripe),
            rows=sum(file.row_count for file in ripe),
            bytes=sum(file.byte_count for file in ripe),
        )
        store.remove_unread()
    _maybe_rotate(store, keeping, found, stored_bytes, now())


def _maybe_rotate(
    store: Store, keeping: Keeping, found: list[SealedFile], stored_bytes: int, now: float
) -> None:
    """So that rows of the open part can go, when nothing else can."""
    newest = store.parts.newest
    if not newest.has_rows or len(store.parts.parts) > 1:
        return
    days = [keeping.days[table] for table in RETENTION_TABLES if keeping.days.get(table)]
    is_old = bool(days) and now - newest.created_at > min(days) * 86_400
    newest_bytes = newest.file_bytes() + newest.wal_bytes() + newest.upload_bytes
    is_large = (
        0 < keeping.bytes_max < stored_bytes and newest_bytes > keeping.bytes_max // _ROTATED_SHARE
    )
    if is_old or (is_large and not found):
        store.rotate()
        _log.info("rotated so that rows can be removed", part=store.parts.newest.number)
