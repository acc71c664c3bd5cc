"""Maintenance actor: checkpoints, rotation, quota counters, by the clock.

Checkpoints are ours to time: one inside a commit stalls it, and one is refused while an upload's
transaction is open. They run when the WAL passed `checkpoint_bytes`, after `checkpoint_seconds`
with something to do, and after trouble (a rollback on a full disk gives its space back only with
the next checkpoint). They need room themselves: none is tried while less is free than the WAL
holds.
"""

from __future__ import annotations

import time

import structlog
import trio

from ..config import StoreConfig
from ..doors.disk import DiskWatch
from ..doors.quota import HourQuotas
from ..errors import StoreBusy, StoreError
from ..flow import Doorbell
from ..store.control import ControlStore
from ..store.database import StoreBroken
from ..store.store import Store

__all__ = ["run", "save_quotas"]

_log = structlog.get_logger()

_ROUND_S = 1.0


async def run(
    *,
    store: Store,
    control: ControlStore,
    quotas: HourQuotas,
    disk: DiskWatch,
    trouble: Doorbell,
    config: StoreConfig,
) -> None:
    """Look once a second, or when `trouble` rings. Ends by cancellation."""
    limiter = trio.CapacityLimiter(1)
    checkpointed_at = time.monotonic()
    is_wanted = False
    while True:
        with trio.move_on_after(_ROUND_S) as round_scope:
            await trouble.wait()
        is_wanted = is_wanted or not round_scope.cancelled_caught
        now = time.monotonic()
        await save_quotas(control, quotas)
        wal_bytes = sum(part.wal_bytes() for part in store.parts.parts)
        is_due = wal_bytes > config.checkpoint_bytes or (
            wal_bytes > 0 and now - checkpointed_at > config.checkpoint_seconds
        )
        has_room = disk.free_bytes > wal_bytes
        if (is_due or is_wanted) and has_room and await _checkpoint(store, limiter):
            checkpointed_at, is_wanted = now, False
        await _maybe_rotate(store, limiter)


async def _checkpoint(store: Store, limiter: trio.CapacityLimiter) -> bool:
    try:
        return await trio.to_thread.run_sync(store.checkpoint, limiter=limiter)
    except StoreBroken as error:
        _log.error("checkpoint failed, the store is reopened", reason=str(error))
        try:
            await trio.to_thread.run_sync(store.recover, error.generation, limiter=limiter)
        except StoreBusy as busy:
            _log.warning("store not reopened, trying again", reason=str(busy))
    except StoreError as error:
        _log.warning("checkpoint put off", reason=str(error))
    return False


async def _maybe_rotate(store: Store, limiter: trio.CapacityLimiter) -> None:
    try:
        if await trio.to_thread.run_sync(store.maybe_rotate, limiter=limiter):
            _log.info("rotated to a new part", part=store.parts.newest.number)
    except StoreError as error:
        _log.warning("rotation put off", reason=str(error))


async def save_quotas(control: ControlStore, quotas: HourQuotas) -> None:
    if not quotas.is_changed:
        return
    hour, counts = quotas.take_changes()
    try:
        await trio.to_thread.run_sync(control.store_hour_counts, hour, counts)
    except StoreError as error:
        quotas.is_changed = True
        _log.warning("quota counters not stored, trying again", reason=str(error))
