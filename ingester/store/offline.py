"""Reading a stopped server's folder, for commands.

Opens the store as the server would, under the folder's lock. What the journal holds beyond the
store is not loaded here; the next start does that.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..config import StoreConfig
from ..errors import NotFound
from .control import ControlStore
from .lock import FolderLock
from .retention import Keeping, Retention, retention_of
from .store import Store

__all__ = ["opened_store", "retention"]


@contextmanager
def opened_store(data_dir: Path, config: StoreConfig) -> Iterator[Store]:
    """The store under the folder's lock. Raises NotFound, StoreBusy when a server has it."""
    if not (data_dir / "open").is_dir():
        raise NotFound(f"{data_dir} holds no data; `ingester serve` makes it")
    lock = FolderLock(data_dir)
    lock.acquire()
    try:
        store = Store(data_dir, config)
        store.open()
        try:
            yield store
        finally:
            store.close()
    finally:
        lock.release()


def retention(data_dir: Path, config: StoreConfig, *, idempotency_hours: int) -> Retention:
    """What is kept, and what the next start will remove first."""
    control = ControlStore.open(data_dir / "control.sqlite")
    try:
        sources = control.key_tables().sources.values()
        hours = [source.dedup_hours for source in sources]
    finally:
        control.close()
    keeping = Keeping.of(config, idempotency_hours=idempotency_hours, dedup_hours=hours)
    with opened_store(data_dir, config) as store:
        return retention_of(
            store.sealed.all_files(), keeping, stored_bytes=store.stored_bytes(), now=time.time()
        )
