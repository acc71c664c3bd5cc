"""Journal actor: group commit. What waits is written and synced as one group, then acknowledged.

While one group is at the disk the next one gathers, so the group grows with the load and a sync is
shared by everybody who came meanwhile. A request that was cancelled (client gone) stays in its
group: it is stored, nobody is told.

What has been synced goes on to the loader. That channel is bounded in bytes, not in groups: the
door refuses (503) while `backlog_bytes` is over its limit, so nothing here ever waits for the
loader, and an acknowledgement never does.
"""

from __future__ import annotations

import os
import time

import trio

from ..doors.small_lane import JournalGate, JournalledGroup
from ..errors import JournalFailed
from ..flow import Mark
from ..journal.writer import JournalWriter

__all__ = ["run"]

CLEAN_EVERY_S = 30.0


async def run(
    gate: JournalGate,
    groups: trio.MemorySendChannel[JournalledGroup],
    *,
    writer: JournalWriter,
    applied: Mark,
) -> None:
    """Write groups in order. Owns `groups`; returns when the gate is closed and empty."""
    cleaned_at = time.monotonic()
    limiter = trio.CapacityLimiter(1)
    acknowledge_early = os.environ.get("INGESTER_FAULT") == "ack_before_journal"
    async with groups:
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
            if time.monotonic() - cleaned_at > CLEAN_EVERY_S:
                # Here, because the writer is used by one thread at a time.
                cleaned_at = time.monotonic()
                await trio.to_thread.run_sync(_clean, writer, applied.value, limiter=limiter)


def _clean(writer: JournalWriter, applied_seq: int) -> None:
    """Unlink segments that are in the store and past their retention."""
    writer.delete_applied(applied_seq, now=time.time())
