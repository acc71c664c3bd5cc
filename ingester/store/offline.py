"""Reading a stopped server's folder: `query`, `check` and `rejects` from the command line.

Opens the store as the server would, under the folder's lock. What the journal holds beyond the
store is not loaded here (`check` says so); the next start does that.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..config import StoreConfig
from ..errors import NotFound
from .lock import FolderLock
from .reader import Rows, check_parts, select
from .store import Store

__all__ = ["check", "opened_store", "query"]


@contextmanager
def opened_store(data_dir: Path, config: StoreConfig) -> Iterator[Store]:
    """The store under the folder's lock. Raises StoreBusy when a server runs."""
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


def query(data_dir: Path, config: StoreConfig, sql: str) -> Rows:
    with opened_store(data_dir, config) as store:
        return select(store, sql, seconds_max=config.query_seconds_max)


def check(data_dir: Path, config: StoreConfig) -> list[str]:
    """Problems in plain sentences; empty when all is well."""
    with opened_store(data_dir, config) as store:
        return check_parts(store)
