"""The data folder's lock: one process at a time.

A file of its own, held with `flock`. DuckDB's and SQLite's own locks are POSIX locks, which
vanish as soon as any descriptor of the file is closed in the process.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from ..errors import StoreBusy

__all__ = ["FolderLock"]


class FolderLock:
    """Held from `acquire` to `release`; the kernel lets go when the process ends."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / "lock"
        self._descriptor = -1

    def acquire(self) -> None:
        """Raises StoreBusy when another process holds it."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(descriptor, 100).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise StoreBusy(f"{self._path.parent} is in use by process {holder or '?'}") from None
        with suppress(OSError):  # a full disk is no reason not to start: the lock is held
            os.ftruncate(descriptor, 0)
            os.write(descriptor, str(os.getpid()).encode())
        self._descriptor = descriptor

    def release(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
