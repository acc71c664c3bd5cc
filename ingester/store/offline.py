"""Reading a stopped server's folder, for commands.

Opens the store as the server would, under the folder's lock. What the journal holds beyond the
store is not loaded here; the next start does that.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..config import StoreConfig
from ..errors import NotFound
from .lock import FolderLock
from .store import Store

__all__ = ["opened_store"]


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
