"""Maintenance actor: checkpoints, rotation, quota and usage counters, the end of ids, by the clock.

Checkpoints are ours to time: one inside a commit stalls it, and one that fails takes open uploads
with it, so they wait for a moment without any. They run when the WAL passed `checkpoint_bytes`,
after `checkpoint_seconds` with something to do, and after trouble (a rollback on a full disk gives
its space back only with the next checkpoint). When uploads leave no such moment and the WAL has
grown to several times its size, one runs beside them: a start replays the whole WAL, and it may
fill the disk. A rotated part does not wait for uploads to others.

A checkpoint needs room itself: none is tried while less is free than the WAL holds, unless there is
space to give back.
"""

from __future__ import annotations

from math import inf

import structlog
import trio

from ..config import StoreConfig
from ..doors.dedup import DedupWindows
from ..doors.disk import DiskWatch
from ..doors.quota import HourQuotas
from ..doors.receive import now_us
from ..doors.usage import UsageCounters
from ..errors import StoreBusy, StoreError, StoreFailed
from ..flow import Doorbell
from ..store.control import ControlStore
from ..store.database import StoreBroken
from ..store.store import Store

__all__ = ["run", "save_quotas", "save_usage"]

_log = structlog.get_logger()

_ROUND_S = 1.0
# Usage changes with every request; a save is a sync beside the journal's.
_USAGE_S = 5.0
# A WAL of so many times `checkpoint_bytes` does not wait for uploads to end.
_OVERDUE_FACTOR = 8
# After a failed checkpoint; each one costs the uploads that are open.
_FAILED_WAIT_S = 15.0


async def run(
    *,
    store: Store,
    control: ControlStore,
    quotas: HourQuotas,
    usage: UsageCounters,
    disk: DiskWatch,
    dedup: DedupWindows,
    trouble: Doorbell,
    config: StoreConfig,
) -> None:
    """Look once a second, or when `trouble` rings. Ends by cancellation."""
    limiter = trio.CapacityLimiter(1)
    checkpointed_at = usage_saved_at = swept_at = trio.current_time()
    not_before = -inf
    is_wanted = False
    while True:
        with trio.move_on_after(_ROUND_S) as round_scope:
            await trouble.wait()
        is_wanted = is_wanted or not round_scope.cancelled_caught
        now = trio.current_time()
        await save_quotas(control, quotas)
        if now - usage_saved_at >= _USAGE_S:
            await save_usage(control, usage)
            usage_saved_at = now
        dedup.sweep(now - swept_at, now_us())
        swept_at = now
        wal_bytes = store.wal_bytes()
        is_due = wal_bytes > config.checkpoint_bytes or (
            (wal_bytes > 0 or store.is_space_owed)
            and now - checkpointed_at > config.checkpoint_seconds
        )
        disk.look()
        has_room = disk.free_bytes >= wal_bytes or store.is_space_owed
        if (is_due or is_wanted) and has_room and now >= not_before:
            is_overdue = wal_bytes > _OVERDUE_FACTOR * config.checkpoint_bytes
            try:
                if await _checkpoint(store, limiter, beside_writers=is_overdue):
                    checkpointed_at, is_wanted = now, False
            except StoreFailed:
                raise
            except StoreError as error:
                _log.warning("checkpoint put off", reason=str(error))
                not_before = now + _FAILED_WAIT_S
        await _maybe_rotate(store, limiter, has_room=has_room and now >= not_before)


async def _checkpoint(store: Store, limiter: trio.CapacityLimiter, *, beside_writers: bool) -> bool:
    """False when writers are in the way. Raises StoreError; a broken store was reopened."""
    try:
        return await trio.to_thread.run_sync(
            lambda: store.checkpoint(beside_writers=beside_writers), limiter=limiter
        )
    except StoreBroken as error:
        _log.error("checkpoint failed, the store is reopened", reason=str(error))
        await _recover(store, error, limiter)
        raise


async def _maybe_rotate(store: Store, limiter: trio.CapacityLimiter, *, has_room: bool) -> None:
    try:
        if await trio.to_thread.run_sync(store.maybe_rotate, limiter=limiter):
            _log.info("rotated to a new part", part=store.parts.newest.number)
        if has_room:
            await trio.to_thread.run_sync(store.checkpoint_rotated, limiter=limiter)
    except StoreError as error:
        _log.warning("rotation put off", reason=str(error))
        if isinstance(error, StoreBroken):
            await _recover(store, error, limiter)
        elif isinstance(error, StoreFailed):
            raise


async def _recover(store: Store, error: StoreBroken, limiter: trio.CapacityLimiter) -> None:
    """Raises StoreFailed when there is no hope, which ends the process."""
    try:
        await trio.to_thread.run_sync(store.recover, error.generation, limiter=limiter)
    except StoreBusy as busy:
        _log.warning("store not reopened, trying again", reason=str(busy))


async def save_quotas(control: ControlStore, quotas: HourQuotas) -> None:
    if not quotas.is_changed:
        return
    hour, counts = quotas.take_changes()
    is_saved = False
    try:
        await trio.to_thread.run_sync(control.store_hour_counts, hour, counts)
        is_saved = True
    except StoreError as error:
        _log.warning("quota counters not stored, trying again", reason=str(error))
    finally:
        # Also when who asked for it went away before it began.
        quotas.is_changed |= not is_saved


async def save_usage(control: ControlStore, usage: UsageCounters) -> None:
    if not usage.is_changed:
        return
    taken = usage.take_changes()
    is_saved = False
    try:
        await trio.to_thread.run_sync(control.store_usage, taken.hour, taken.changes, taken.refused)
        is_saved = True
    except StoreError as error:
        _log.warning("usage not stored, trying again", reason=str(error))
    finally:
        if not is_saved:
            usage.give_back(taken)
