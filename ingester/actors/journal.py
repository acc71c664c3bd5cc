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

import math
import os
import time
from collections.abc import Sequence
from functools import partial
from threading import Lock

import trio

from ..doors.disk import DiskWatch
from ..doors.small_lane import JournalGate, JournalGroup, JournalledGroup
from ..errors import JournalFailed
from ..flow import Mark
from ..journal.writer import JournalWriter
from .worker_thread import WorkerThread

__all__ = ["clean", "run"]

CLEAN_EVERY_S = 30.0
LOOK_EVERY_S = 1.0


async def run(
    gate: JournalGate,
    groups: trio.MemorySendChannel[JournalledGroup],
    *,
    writer: JournalWriter,
    turn: Lock,
) -> None:
    """Write groups in order. Owns `groups`; returns when the gate is closed and empty.

    `turn` is shared with `clean`: the writer is used by one thread at a time.
    """
    async with groups:
        with WorkerThread("journal") as thread:
            await _write_groups(gate, groups, writer, turn, thread)


async def _write_groups(
    gate: JournalGate,
    groups: trio.MemorySendChannel[JournalledGroup],
    writer: JournalWriter,
    turn: Lock,
    thread: WorkerThread,
) -> None:
    acknowledge_early = os.environ.get("INGESTER_FAULT") == "ack_before_journal"
    written: JournalGroup | None = None
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
            thread.submit(partial(_append, writer, turn, group.payloads))
        if written is not None:
            _settle(written, gate, groups)
        written = group
        if group is None:
            continue
        try:
            group.first_seq, _ = await thread.result()
        except JournalFailed as error:
            group.failure = f"the journal cannot be written: {error}"


def _append(writer: JournalWriter, turn: Lock, payloads: Sequence[bytes]) -> tuple[int, int]:
    with turn:
        return writer.append(payloads)


def _settle(
    group: JournalGroup, gate: JournalGate, groups: trio.MemorySendChannel[JournalledGroup]
) -> None:
    """Tell everybody in it, and the loader."""
    if group.failure is not None:
        gate.failure_count += 1
        gate.applied(group.byte_count)
        group.settle()
        return
    gate.group_count += 1
    gate.request_count += len(group.requests)
    group.settle()
    groups.send_nowait(
        JournalledGroup(group.first_seq, group.requests, group.byte_count, group.row_count)
    )


async def clean(*, writer: JournalWriter, applied: Mark, disk: DiskWatch, turn: Lock) -> None:
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
            await trio.to_thread.run_sync(_delete_applied, writer, turn, applied.value, now)


def _delete_applied(writer: JournalWriter, turn: Lock, applied_seq: int, now: float) -> None:
    with turn:
        writer.delete_applied(applied_seq, now=now)
