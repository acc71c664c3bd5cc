"""Start-up: lock the folder, open the stores, load what the journal holds beyond the store.

Everything here blocks and runs before a listener is bound, in this order, each step standing on
the one before: lock ► control store ► open parts and ledger ► replay ► checkpoint ► idempotency
keys ► journal writer. When it returns, every acknowledged request is in the store; when it raises,
what it opened is closed again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import structlog
from msgspec import Struct

from .actors.loader import LoaderCounters, load_requests
from .config import Config
from .doors.dedup import DedupWindows
from .doors.idempotency import IdempotencyKeys
from .doors.quota import HOUR_S, HourQuotas
from .errors import StoreBusy, StoreError, StoreFailed
from .flow import Mark
from .journal.recovery import Recovery, recover
from .journal.writer import JournalWriter
from .messages import RequestNumbers
from .protocol.requests import (
    JournalEntry,
    SmallRequest,
    decode_entry,
    decode_single_events,
    entry_from_bytes,
    is_single_event,
)
from .store.control import ControlStore, Invitation, SourceKeys
from .store.database import StoreBroken, StoreOutOfMemory
from .store.increments import Increments
from .store.lock import FolderLock
from .store.reader import kept_reject_bytes, read_dedup_keys, read_keys
from .store.rejects import RejectBudget
from .store.rollups import Rollups
from .store.store import Store

__all__ = ["Opened", "close", "open_all"]

_log = structlog.get_logger()

FIRST_SOURCE = "default"
# Replay loads in transactions of this many records or bytes.
_REPLAY_RECORDS = 32_768
_REPLAY_BYTES = 16 * 1024 * 1024
# A decoder call holds the interpreter lock.
_SINGLES_AT_ONCE = 1000
# A batch that the store cannot take is tried so often again; halving takes 16.
_REPLAY_TRIES = 20
_REPLAY_WAIT_S = 0.2

# The sequence of the first, and consecutive requests.
_Replayed = tuple[int, list[SmallRequest]]


class Opened(Struct):
    """What start-up hands to the topology."""

    lock: FolderLock
    control: ControlStore
    store: Store
    increments: Increments
    rollups: Rollups
    writer: JournalWriter
    numbers: RequestNumbers
    idempotency: IdempotencyKeys
    dedup: DedupWindows
    quotas: HourQuotas
    rejects: RejectBudget
    loader_counters: LoaderCounters
    applied: Mark
    dead_letters: Path
    first_run: SourceKeys | None
    setup: Invitation | None
    replayed_count: int
    problems: list[str]


def open_all(config: Config) -> Opened:
    """Raises StoreBusy when the folder is in use or has no room, StoreFailed when it cannot be
    opened.
    """
    data_dir = Path(config.store.data_dir)
    with ExitStack() as undo, _named_errors(data_dir):
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = FolderLock(data_dir)
        lock.acquire()
        undo.callback(lock.release)
        control = ControlStore.open(data_dir / "control.sqlite")
        undo.callback(control.close)
        # Not "the file is new": a first start may have ended between the two.
        first_run = None if control.list_sources() else control.create_source(FIRST_SOURCE)
        setup = control.ensure_admin()
        store = Store(data_dir, config.store, control)
        store.open()
        undo.callback(store.close)
        opened = _open_rest(config, data_dir, lock, control, store, first_run, setup)
        undo.pop_all()
        return opened


@contextmanager
def _named_errors(data_dir: Path) -> Iterator[None]:
    """A disk that fails ends a start; what is there stays as it is."""
    try:
        yield
    except OSError as error:
        where = error.filename or data_dir
        raise StoreFailed(f"cannot start: {where}: {error.strerror or error}") from error


def _open_rest(
    config: Config,
    data_dir: Path,
    lock: FolderLock,
    control: ControlStore,
    store: Store,
    first_run: SourceKeys | None,
    setup: Invitation | None,
) -> Opened:
    if store.missing_parts or store.kept_files or store.sealed.lost or store.doubled_parts:
        _log.error(
            "rows are lost, or not read; `ingester check` tells which, `ingester check --repair`"
            " brings back what can be",
            missing_parts=store.missing_parts,
            parts_put_back_too_late=store.doubled_parts,
            upload_files_kept=len(store.kept_files),
        )
    rejects = RejectBudget(config.intake.rejects_bytes_max, kept_reject_bytes(store))
    counters = LoaderCounters()
    dead_letters = data_dir / "dead-letter"
    journal_dir = data_dir / "journal"
    journal_dir.mkdir(mode=0o700, exist_ok=True)
    recovery = recover(journal_dir, after_seq=store.ledger.applied_seq)
    replayed_count = 0
    for first_seq, requests in _one_ahead(_batches(recovery)):
        for request in requests:
            if request.rejects:
                request.rejects = rejects.take(request.rejects)
        _replay(store, first_seq, requests, dead_letters, counters)
        replayed_count += len(requests)
    # What is loaded from now on is new, also if a lost journal began anew at lower sequences.
    store.evaluated_seq = 0
    if replayed_count:
        _log.info("journal replayed", requests=replayed_count)
    for problem in recovery.report.problems:
        _log.error("journal damaged", problem=problem)
    _checkpoint(store)
    store.trim()
    numbers = RequestNumbers()
    numbers.advance(store.ledger.request_number_max)
    keys_max, hours = config.intake.idempotency_keys_max, config.intake.idempotency_hours
    idempotency = IdempotencyKeys(keys_max=keys_max, hours=hours)
    idempotency.restore(read_keys(store, keys_max=keys_max, hours=hours))
    hour = int(time.time()) // HOUR_S
    quotas = HourQuotas(hour, control.hour_counts(hour))
    rollups = Rollups(store)
    return Opened(
        lock=lock,
        control=control,
        store=store,
        increments=_open_increments(store, data_dir, rollups),
        rollups=rollups,
        writer=JournalWriter.open(
            journal_dir,
            config.journal,
            next_seq=recovery.next_seq,
            newest_used=recovery.newest_used,
        ),
        numbers=numbers,
        idempotency=idempotency,
        dedup=DedupWindows(partial(read_dedup_keys, store)),
        quotas=quotas,
        rejects=rejects,
        loader_counters=counters,
        applied=Mark(store.ledger.applied_seq),
        dead_letters=dead_letters,
        first_run=first_run,
        setup=setup,
        replayed_count=replayed_count,
        problems=list(recovery.report.problems),
    )


def _replay(
    store: Store,
    first_seq: int,
    requests: list[SmallRequest],
    dead_letters: Path,
    counters: LoaderCounters,
) -> None:
    """Load once more what the loader would have loaded, with its patience but bounded."""
    requests_max = len(requests)
    for tries_left in range(_REPLAY_TRIES, -1, -1):
        try:
            load_requests(store, first_seq, requests, dead_letters, counters, requests_max)
            return
        except StoreBusy as error:
            if not tries_left:
                raise
            _log.warning("records not replayed, trying again", reason=str(error))
            if isinstance(error, StoreOutOfMemory):
                requests_max = max(1, requests_max // 2)
            elif isinstance(error, StoreBroken):
                store.recover(error.generation)
            else:
                time.sleep(_REPLAY_WAIT_S)


def _open_increments(store: Store, data_dir: Path, rollups: Rollups) -> Increments:
    increments = Increments(store, data_dir / "export", rollups)
    increments.open()
    return increments


def close(opened: Opened) -> None:
    """Checkpoint and let go, after every actor has ended."""
    with ExitStack() as closing:
        closing.callback(opened.lock.release)
        closing.callback(opened.control.close)
        closing.callback(_close_store, opened.store)
        closing.callback(opened.increments.close)
        closing.callback(opened.writer.close)
        _checkpoint(opened.store)
        _checkpoint_rollups(opened.rollups)
        opened.writer.delete_applied(opened.store.ledger.applied_seq, now=time.time())


def _checkpoint_rollups(rollups: Rollups) -> None:
    try:
        rollups.maybe_checkpoint(bytes_min=1)
    except StoreError as error:
        _log.warning("checkpoint of the rollups failed", reason=str(error))


def _close_store(store: Store) -> None:
    try:
        store.close()
    except StoreError as error:
        _log.warning("store not closed", reason=str(error))


def _one_ahead(batches: Iterator[_Replayed]) -> Iterator[_Replayed]:
    """The next batch is read and decoded while DuckDB, which needs no interpreter, loads one."""
    with ThreadPoolExecutor(1, "replay") as reader:
        upcoming = reader.submit(next, batches, None)
        while (batch := upcoming.result()) is not None:
            upcoming = reader.submit(next, batches, None)
            yield batch


def _batches(recovery: Recovery) -> Iterator[_Replayed]:
    """Runs of consecutive records. A gap (damage, reported) starts a new run."""
    run = _Run(0)
    for sequence, payload in recovery:
        if run.next_seq and (sequence != run.next_seq or run.is_full):
            yield run.first_seq, run.requests()
            run.next_seq = 0
        if not run.next_seq:
            run = _Run(sequence)
        run.add(sequence, payload)
    if run.next_seq:
        yield run.first_seq, run.requests()


class _Run:
    """Consecutive records. Single events wait to be decoded together."""

    def __init__(self, first_seq: int) -> None:
        self.first_seq = first_seq
        self.next_seq = 0
        self._byte_count = 0
        self._requests: list[SmallRequest] = []
        self._singles: list[JournalEntry] = []

    @property
    def is_full(self) -> bool:
        count = self.next_seq - self.first_seq
        return count >= _REPLAY_RECORDS or self._byte_count >= _REPLAY_BYTES

    def add(self, sequence: int, payload: bytes) -> None:
        """Raises StoreFailed when it cannot be read."""
        try:
            entry = entry_from_bytes(payload)
            if is_single_event(entry):
                self._singles.append(entry)
                self._byte_count += len(entry.body)
                if len(self._singles) == _SINGLES_AT_ONCE:
                    self._decode_singles()
            else:
                self._decode_singles()
                request = decode_entry(entry)
                self._requests.append(request)
                self._byte_count += request.bytes_raw
        except Exception as error:
            raise _of_another_release(sequence, error) from error
        self.next_seq = sequence + 1

    def requests(self) -> list[SmallRequest]:
        """All of them. Raises StoreFailed when one cannot be read."""
        try:
            self._decode_singles()
        except Exception as error:
            raise _of_another_release(self.next_seq - 1, error) from error
        return self._requests

    def _decode_singles(self) -> None:
        if self._singles:
            self._requests += decode_single_events(self._singles)
            self._singles = []


def _of_another_release(sequence: int, error: Exception) -> StoreFailed:
    """A record was decoded before it was acknowledged: only another release cannot read it."""
    return StoreFailed(
        f"journal record {sequence} cannot be read ({type(error).__name__}): was it written by "
        "a newer version? Start that one once; nothing was changed"
    )


def _checkpoint(store: Store) -> None:
    """Not worth failing over: the WAL holds everything."""
    try:
        store.checkpoint()
    except StoreBroken as error:
        _log.warning("checkpoint failed", reason=str(error))
        store.recover(error.generation)
    except StoreError as error:
        _log.warning("checkpoint failed", reason=str(error))
