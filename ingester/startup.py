"""Start-up: lock the folder, open the stores, load what the journal holds beyond the store.

Everything here blocks and runs before a listener is bound, in this order, each step standing on
the one before: lock ► control store ► open parts and ledger ► replay ► checkpoint ► idempotency
keys ► journal writer. When it returns, every acknowledged request is in the store.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import structlog
from msgspec import Struct

from .actors.loader import LoaderCounters, load_requests
from .config import Config
from .doors.idempotency import IdempotencyKeys
from .doors.quota import HOUR_S, HourQuotas
from .errors import StoreError
from .flow import Mark
from .journal.recovery import Recovery, recover
from .journal.writer import JournalWriter
from .messages import RequestNumbers
from .protocol.requests import SmallRequest, decode_entry, entry_from_bytes
from .store.control import ControlStore, SourceKeys
from .store.lock import FolderLock
from .store.reader import kept_reject_bytes, read_keys
from .store.rejects import RejectBudget
from .store.store import Store

__all__ = ["Opened", "close", "open_all"]

_log = structlog.get_logger()

FIRST_SOURCE = "default"
# Replay loads in transactions of this many records or bytes.
_REPLAY_RECORDS = 65_536
_REPLAY_BYTES = 16 * 1024 * 1024


class Opened(Struct):
    """What start-up hands to the topology."""

    lock: FolderLock
    control: ControlStore
    store: Store
    writer: JournalWriter
    numbers: RequestNumbers
    idempotency: IdempotencyKeys
    quotas: HourQuotas
    rejects: RejectBudget
    loader_counters: LoaderCounters
    applied: Mark
    dead_letters: Path
    first_run: SourceKeys | None
    replayed_count: int
    problems: list[str]


def open_all(config: Config) -> Opened:
    """Raises StoreBusy when the folder is in use, StoreFailed when it cannot be opened."""
    data_dir = Path(config.store.data_dir)
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = FolderLock(data_dir)
    lock.acquire()
    is_new = not (data_dir / "control.sqlite").exists()
    control = ControlStore.open(data_dir / "control.sqlite")
    first_run = control.create_source(FIRST_SOURCE) if is_new else None
    store = Store(data_dir, config.store)
    store.open()
    rejects = RejectBudget(config.intake.rejects_bytes_max, kept_reject_bytes(store))
    counters = LoaderCounters()
    dead_letters = data_dir / "dead-letter"
    journal_dir = data_dir / "journal"
    journal_dir.mkdir(mode=0o700, exist_ok=True)
    recovery = recover(journal_dir, after_seq=store.ledger.applied_seq)
    replayed_count = 0
    for first_seq, requests in _batches(recovery):
        for request in requests:
            request.rejects = rejects.take(request.rejects)
        load_requests(store, first_seq, requests, dead_letters, counters)
        replayed_count += len(requests)
    if replayed_count:
        _log.info("journal replayed", requests=replayed_count)
    for problem in recovery.report.problems:
        _log.error("journal damaged", problem=problem)
    _checkpoint(store)
    numbers = RequestNumbers()
    numbers.advance(store.ledger.request_number_max)
    idempotency = IdempotencyKeys(
        keys_max=config.intake.idempotency_keys_max, hours=config.intake.idempotency_hours
    )
    idempotency.restore(
        read_keys(
            store,
            keys_max=config.intake.idempotency_keys_max,
            hours=config.intake.idempotency_hours,
        )
    )
    hour = int(time.time()) // HOUR_S
    writer = JournalWriter.open(journal_dir, config.journal, next_seq=recovery.next_seq)
    return Opened(
        lock=lock,
        control=control,
        store=store,
        writer=writer,
        numbers=numbers,
        idempotency=idempotency,
        quotas=HourQuotas(hour, control.hour_counts(hour)),
        rejects=rejects,
        loader_counters=counters,
        applied=Mark(store.ledger.applied_seq),
        dead_letters=dead_letters,
        first_run=first_run,
        replayed_count=replayed_count,
        problems=list(recovery.report.problems),
    )


def close(opened: Opened) -> None:
    """Checkpoint and let go, after every actor has ended."""
    _checkpoint(opened.store)
    opened.writer.delete_applied(opened.store.ledger.applied_seq, now=time.time())
    opened.writer.close()
    opened.store.close()
    opened.control.close()
    opened.lock.release()


def _batches(recovery: Recovery) -> Iterator[tuple[int, list[SmallRequest]]]:
    """Runs of consecutive records. A gap (damage, reported) starts a new run."""
    first_seq = byte_count = 0
    requests: list[SmallRequest] = []
    for sequence, payload in recovery:
        is_next = sequence == first_seq + len(requests)
        if requests and (
            not is_next or len(requests) >= _REPLAY_RECORDS or byte_count >= _REPLAY_BYTES
        ):
            yield first_seq, requests
            requests, byte_count = [], 0
        if not requests:
            first_seq = sequence
        request = decode_entry(entry_from_bytes(payload))
        requests.append(request)
        byte_count += request.bytes_raw
    if requests:
        yield first_seq, requests


def _checkpoint(store: Store) -> None:
    """Not worth failing over: the WAL holds everything."""
    try:
        store.checkpoint()
    except StoreError as error:
        _log.warning("checkpoint failed", reason=str(error))
