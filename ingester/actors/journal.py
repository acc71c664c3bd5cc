"""Journal actor: group commit. What waits is written and synced as one group, then acknowledged.

While one group is at the disk the next one gathers, so the group grows with the load and a sync is
shared by everybody who came meanwhile. A request that was cancelled (client gone) stays in its
group: it is stored, nobody is told.

What has been synced goes on to the loader. That channel is bounded in bytes, not in groups: the
door refuses (503) while `backlog_bytes` is over its limit, so nothing here ever waits for the
loader, and an acknowledgement never does.
"""

from __future__ import annotations

import math
import os
import time
from functools import partial

import trio

from ..doors.disk import DiskWatch
from ..doors.small_lane import JournalGate, JournalledGroup
from ..errors import JournalFailed
from ..flow import Mark
from ..journal.writer import JournalWriter

__all__ = ["clean", "run"]

CLEAN_EVERY_S = 30.0
LOOK_EVERY_S = 1.0


async def run(
    gate: JournalGate,
    groups: trio.MemorySendChannel[JournalledGroup],
    *,
    writer: JournalWriter,
    limiter: trio.CapacityLimiter,
) -> None:
    """Write groups in order. Owns `groups`; returns when the gate is closed and empty.

    `limiter` holds one place and is shared with `clean`: the writer is used by one thread at a
    time.
    """
    acknowledge_early = os.environ.get("INGESTER_FAULT") == "ack_before_journal"
    with groups:  # not `async with`: the cancellation that follows a failure would hide it
        while (group := await gate.take()) is not None:
            if acknowledge_early:  # a fault for the tests: their harness must notice it
                group.done.set()
                await trio.sleep(0.2)
            try:
                group.first_seq, _ = await trio.to_thread.run_sync(
                    writer.append, group.payloads, limiter=limiter
                )
            except JournalFailed as error:
                group.failure = f"the journal cannot be written: {error}"
                gate.failure_count += 1
                gate.backlog_bytes -= group.byte_count
                group.done.set()
                continue
            gate.group_count += 1
            gate.request_count += len(group.requests)
            group.done.set()
            groups.send_nowait(JournalledGroup(group.first_seq, group.requests, group.byte_count))


async def clean(
    *, writer: JournalWriter, applied: Mark, disk: DiskWatch, limiter: trio.CapacityLimiter
) -> None:
    """Unlink segments that are in the store and past their retention, by the clock.

    While the disk is full they go as soon as they are in the store: the retention is a
    convenience, and the door refuses until there is room. Ends by cancellation.
    """
    cleaned_at = trio.current_time()
    while True:
        await trio.sleep(LOOK_EVERY_S)
        is_full = disk.is_full
        if is_full or trio.current_time() - cleaned_at >= CLEAN_EVERY_S:
            cleaned_at = trio.current_time()
            now = math.inf if is_full else time.time()
            await trio.to_thread.run_sync(
                partial(writer.delete_applied, applied.value, now=now), limiter=limiter
            )
