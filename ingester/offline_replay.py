"""Replay on a stopped folder: the small lane without doors, for as long as one command needs it.

Start-up is the server's own (`startup.py`), so what a crash has left is loaded and settled first;
then journal and loader run as they do in the server. Everything replayed is in the store when it
returns.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import trio

from . import startup
from .actors import journal, loader
from .config import Config
from .doors.admission import Admission, KeyRing
from .doors.bulk_lane import BulkLane, BulkUpload
from .doors.disk import DiskWatch
from .doors.replay import Replayer
from .doors.small_lane import JournalGate, JournalledGroup
from .errors import IngesterError, NotFound
from .reject_desk import StoreDesk
from .startup import Opened
from .store.control import ControlStore

__all__ = ["with_stopped_folder"]

T = TypeVar("T")


def with_stopped_folder(config: Config, work: Callable[[StoreDesk, ControlStore], T]) -> T:
    """What `work` returns; it runs in a thread of its own. Raises StoreBusy when a server runs."""
    data_dir = Path(config.store.data_dir)
    if not (data_dir / "open").is_dir():
        raise NotFound(f"{data_dir} holds no data; `ingester serve` makes it")
    opened = startup.open_all(config)
    try:
        return _alone(partial(trio.run, _run, config, opened, work))
    finally:
        startup.close(opened)


def _alone(run: Callable[[], T]) -> T:
    """Raise what `work` raised without the group that a nursery puts around it."""
    try:
        return run()
    except BaseExceptionGroup as group:
        if len(group.exceptions) == 1 and isinstance(group.exceptions[0], IngesterError):
            raise group.exceptions[0] from None
        raise


async def _run(config: Config, opened: Opened, work: Callable[[StoreDesk, ControlStore], T]) -> T:
    gate = JournalGate(backlog_bytes_max=config.journal.backlog_bytes_max)
    groups_send, groups = trio.open_memory_channel[JournalledGroup](float("inf"))
    admission = _admission(config, opened, gate)
    replayer = Replayer(
        admission, control=opened.control, store=opened.store, next_number=opened.numbers.next
    )
    async with trio.open_nursery() as core:
        core.start_soon(
            partial(journal.run, gate, groups_send, writer=opened.writer, turn=threading.Lock())
        )
        core.start_soon(
            partial(
                loader.run,
                groups,
                gate=gate,
                applied=opened.applied,
                store=opened.store,
                config=config.store,
                rejects=opened.rejects,
                counters=opened.loader_counters,
                dead_letters=opened.dead_letters,
            )
        )
        try:
            return await trio.to_thread.run_sync(
                work, StoreDesk(opened.store, replayer), opened.control
            )
        finally:
            gate.close()  # the journal ends, and after it the loader


def _admission(config: Config, opened: Opened, gate: JournalGate) -> Admission:
    data_dir = Path(config.store.data_dir)
    # Nobody takes uploads: a replay makes small requests only.
    uploads, _ = trio.open_memory_channel[BulkUpload](0)
    admission = Admission(
        config.intake,
        keys=KeyRing({}),
        quotas=opened.quotas,
        idempotency=opened.idempotency,
        disk=DiskWatch([data_dir / "journal", data_dir / "open"], config.store.disk_reserve_bytes),
        small=gate,
        bulk=BulkLane(uploads),
        applied=opened.applied,
        decode_turn=trio.CapacityLimiter(1),
        metrics=config.metrics,
    )
    admission.keys.take(opened.control.key_tables())
    return admission
