"""Rollup actor: takes committed batches into the hourly and daily sums, behind its cursor.

Commits ring a bell; the truth is the ledger behind the cursor. Steps follow each other as long as
rows wait, else after a pause, so that many small commits make one step. Merges, checkpoints of the
file and the end of old buckets come when nothing waits.

1. Two threads: a nice one, and one that is not, for when the rollups lag. Beside uploads that come
   without a break a nice thread would get no processor, and lag without bound.
2. Intake never waits for a step; a step that fails is tried again, it has done nothing.
3. With half of the disk reserve gone no step is made: rows come first.
4. While several uploads are under way steps wait, until they lag by `_CROWDED_LAG_S_MAX`: beside 64
   uploads they made these take 29 s instead of 19, and the process 150 MB larger (2026-11-21).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TypeVar

import structlog
import trio

from ..config import StoreConfig
from ..errors import StoreBusy, StoreError, StoreFailed
from ..flow import Doorbell
from ..store.allocator import give_back
from ..store.database import StoreBroken
from ..store.rollups import Rollups, Step
from ..store.store import Store
from .worker_thread import WorkerThread

__all__ = ["run"]

_log = structlog.get_logger()

T = TypeVar("T")

# Between steps that leave nothing behind: the statements of one cost some 40 ms, however few rows.
_PAUSE_S = 0.9
# Many members in a day make each step slower; the pause grows with it, to half of a processor.
_PAUSE_S_MAX = 5.0
# So many rows behind are a second of uploads: from there on the processor is shared evenly.
_LATE_ROWS = 262_144
# Weight 110 beside the 1,024 of the threads that take data (sched(7)).
_NICE = 10
_ROUND_S = 5.0
_PURGE_EVERY_S = 3600.0
_CHECKPOINT_EVERY_S = 60.0
_BUSY_WAIT_S = 1.0
_CROWDED_LAG_S_MAX = 60.0
_CROWDED_ROUND_S = 0.2
# A step of so many rows leaves memory behind that is worth giving back.
_LARGE_STEP_ROWS = 65_536
# What is wrong with data or statement is so again.
_FAILED_WAIT_S = 15.0


async def run(
    *,
    rollups: Rollups,
    store: Store,
    config: Callable[[], StoreConfig],
    has_room: Callable[[], bool] = lambda: True,
    is_crowded: Callable[[], bool] = lambda: False,
) -> None:
    """Ends by cancellation. Raises StoreFailed when the store is lost. `is_crowded` tells whether
    several uploads are under way.
    """
    bell = Doorbell()

    def must_wait() -> bool:
        return is_crowded() and rollups.lag_seconds() < _CROWDED_LAG_S_MAX

    with (
        _rung_by_commits(store, rollups, bell),
        WorkerThread("rollups", nice=_NICE) as nice,
        WorkerThread("rollups-late") as late,
    ):
        purged_at = checkpointed_at = trio.current_time() - _PURGE_EVERY_S
        # What was committed before the start; it waits from now on, even if nothing else comes.
        rollups.note_commit()
        bell.ring()
        while True:
            with trio.move_on_after(_ROUND_S):
                await bell.wait()
            if not has_room():
                await trio.sleep(_ROUND_S)
                continue
            try:
                pause_s = await _catch_up(rollups, nice, late, must_wait, is_crowded)
                now = trio.current_time()
                if now - checkpointed_at > _CHECKPOINT_EVERY_S:
                    await _call(nice, lambda: rollups.maybe_checkpoint(bytes_min=1))
                    checkpointed_at = now
                days = config().rollup_retention_days
                if days and now - purged_at > _PURGE_EVERY_S:
                    purged_at = now
                    await _purge(rollups, nice, days)
            except StoreFailed:
                raise
            except StoreError as error:
                pause_s = await _after_error(store, error)
            await trio.sleep(pause_s)


async def _wait_out(must_wait: Callable[[], bool], thread: WorkerThread) -> None:
    """What the uploads have left in memory goes before the steps need theirs."""
    # How far it lags is no event.
    while must_wait():  # noqa: ASYNC110
        await trio.sleep(_CROWDED_ROUND_S)
    await _call(thread, give_back)


async def _catch_up(
    rollups: Rollups,
    nice: WorkerThread,
    late: WorkerThread,
    must_wait: Callable[[], bool],
    is_crowded: Callable[[], bool],
) -> float:
    """Steps until nothing waits, and merges in between; how long to pause then. Steps are small
    from the first crowd on: what it has taken of the memory does not all come back.
    """
    step = Step(0, 0)
    is_small = False
    while True:
        is_small = is_small or is_crowded()
        if must_wait():
            await _wait_out(must_wait, late)
        began = trio.current_time()
        thread = late if step.waiting_row_count > _LATE_ROWS else nice
        step = await _call(thread, partial(rollups.step, is_small=is_small))
        took_s = trio.current_time() - began
        if step.row_count >= _LARGE_STEP_ROWS:
            # Not by the nice one: it holds locks of the allocators, for which all others would
            # wait as long as it gets no processor.
            await _call(late, give_back)
        # Also in the midst of a long backlog: a start replays the whole WAL.
        await _call(nice, rollups.maybe_checkpoint)
        if step.waiting_row_count:
            continue
        if not await _call(nice, rollups.maybe_merge):
            return min(max(_PAUSE_S, took_s), _PAUSE_S_MAX)


async def _purge(rollups: Rollups, thread: WorkerThread, days: int) -> None:
    count = await _call(thread, lambda: rollups.purge(days))
    if count:
        _log.info("old rollups removed", days=days, rows=count)


async def _after_error(store: Store, error: StoreError) -> float:
    """How long to wait before it is tried again."""
    if isinstance(error, StoreBroken):
        _log.error("rollups found the store broken, it is reopened", reason=str(error))
        with suppress(StoreBusy):
            await trio.to_thread.run_sync(store.recover, error.generation)
        return _BUSY_WAIT_S
    if isinstance(error, StoreBusy):
        _log.warning("rollups put off", reason=str(error))
        return _BUSY_WAIT_S
    _log.error("rollups lag: a step failed", reason=str(error))
    return _FAILED_WAIT_S


async def _call(thread: WorkerThread, function: Callable[[], T]) -> T:
    await trio.lowlevel.checkpoint()
    thread.submit(function)
    result: T = await thread.result()
    return result


@contextmanager
def _rung_by_commits(store: Store, rollups: Rollups, bell: Doorbell) -> Iterator[None]:
    token = trio.lowlevel.current_trio_token()

    def ring() -> None:
        rollups.note_commit()
        with suppress(trio.RunFinishedError):
            token.run_sync_soon(bell.ring, idempotent=True)

    store.listen(ring)
    try:
        yield
    finally:
        store.unlisten(ring)
