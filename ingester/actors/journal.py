"""Journal actor: group commit. What waits is written and synced as one group, then acknowledged.

While one group is at the disk the next one gathers, so the group grows with the load and a sync is
shared by everybody who came meanwhile. It goes to the disk before the last one is told, so that
answers are sent while it is written. A request that was cancelled (client gone) stays in its group:
it is stored, nobody is told.

What has been synced goes on to the loader. That channel is bounded in bytes, not in groups: the
door refuses (503) while `backlog_bytes` is over its limit, so nothing here ever waits for the
loader, and an acknowledgement never does.
"""

from __future__ import annotations

import os
import time
from functools import partial

import trio

from ..doors.small_lane import JournalGate, JournalGroup, JournalledGroup
from ..errors import JournalFailed
from ..flow import Mark
from ..journal.writer import JournalWriter
from .worker_thread import WorkerThread

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
    acknowledge_early = os.environ.get("INGESTER_FAULT") == "ack_before_journal"
    written: JournalGroup | None = None
    async with groups:
        with WorkerThread("journal") as thread:
            while True:
                group = gate.take_nowait()
                if group is None and written is None:
                    group = await gate.take()
                    if group is None:
                        return
                if group is not None:
                    if acknowledge_early:  # a fault for the tests: their harness must notice it
                        group.settle()
                        group.notices.clear()
                        await trio.sleep(0.2)
                    thread.submit(partial(writer.append, group.payloads))
                if written is not None:
                    _settle(written, gate, groups)
                written = group
                if group is None:
                    continue
                try:
                    group.first_seq, _ = await thread.result()
                except JournalFailed as error:
                    group.failure = f"the journal cannot be written: {error}"
                if time.monotonic() - cleaned_at > CLEAN_EVERY_S:
                    cleaned_at = time.monotonic()
                    _settle(group, gate, groups)
                    written = None
                    thread.submit(partial(_clean, writer, applied.value))
                    await thread.result()


def _settle(
    group: JournalGroup, gate: JournalGate, groups: trio.MemorySendChannel[JournalledGroup]
) -> None:
    """Tell everybody in it, and the loader."""
    if group.failure is not None:
        gate.failure_count += 1
        gate.backlog_bytes -= group.byte_count
        group.settle()
        return
    gate.group_count += 1
    gate.request_count += len(group.requests)
    group.settle()
    groups.send_nowait(JournalledGroup(group.first_seq, group.requests, group.byte_count))


def _clean(writer: JournalWriter, applied_seq: int) -> None:
    """Unlink segments that are in the store and past their retention."""
    writer.delete_applied(applied_seq, now=time.time())
