"""The copy of a DuckDB file before a newer release changes its tables.

Why: a migration cannot be taken back, and who upgrades may want to. `control.sqlite` has the same
by SQLite's means (`control/file.py`). Every other file that we write is never changed by a release
other than the one that made it, so there is nothing to copy: it is read as it is, or refused.

1. The file is checkpointed at its old version and detached first, so that the copy is all of it and
   no descriptor of ours drops DuckDB's lock.
2. The copy has its name, `<file>.v<version>.bak`, when it is whole and synced. One that is there
   already is from a migration that did not end: the file is the same still, and it is written anew.
3. Without room for the copy nothing is migrated: StoreBusy, and the file is as it was.

Refuses to remove any copy: only the user knows when the way back is not needed any more.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pyarrow.parquet as pq

from ..errors import StoreBusy, StoreFailed
from .database import Cursor
from .metadata_copy import keep_metadata
from .syncing import sync_path

__all__ = [
    "BACKUP_NAME",
    "PARQUET_METADATA",
    "attached_again",
    "maybe_newer_parquet",
    "refuse_newer",
]

# What may lie beside a file of ours.
BACKUP_NAME = r"\.v\d+\.bak(\.partial)?"

# In the footer of every Parquet file of ours: rises when a reader must know more than columns.
_FORMAT_KEY = "ingester.format"
_FORMAT = 1
PARQUET_METADATA = {_FORMAT_KEY: str(_FORMAT)}


def refuse_newer(path: Path, version: int, known: int) -> None:
    """Raises StoreFailed when `path` was written by a newer release."""
    if version > known:
        raise StoreFailed(
            f"{path.name} has schema version {version}, this release knows up to {known}: start the"
            " newer release that wrote it, or put back the copies made before the upgrade"
            f" ({path.name}.v{known}.bak and those of the other files, all of them)"
        )


def maybe_newer_parquet(metadata: pq.FileMetaData) -> str | None:
    """Why a Parquet file cannot be trusted to mean what we read in it."""
    # The first files had no format.
    told = (metadata.metadata or {}).get(_FORMAT_KEY.encode(), b"1").decode("ascii", "replace")
    if told.isdecimal() and int(told) <= _FORMAT:
        return None
    return f"it has format {told}, this release knows up to {_FORMAT}: a newer release wrote it"


def attached_again(
    cursor: Cursor, name: str, path: Path, version: int, attach: Callable[[], None]
) -> Path:
    """Copy the file attached as `name`, which has `version`; it is attached again by `attach`.

    Where the copy lies. Raises StoreBusy.
    """
    keep_metadata(cursor, name, path)
    cursor.execute(f"CHECKPOINT {name}")
    cursor.execute(f"DETACH {name}")
    copy = path.with_name(f"{path.name}.v{version}.bak")
    partial = copy.with_name(f"{copy.name}.partial")
    try:
        _copy(path, partial)
        partial.replace(copy)
        sync_path(copy.parent)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise StoreBusy(
            f"{path.name} cannot be copied before its upgrade ({error.strerror or error}); nothing"
            " was changed"
        ) from error
    finally:
        attach()
    return copy


def _copy(path: Path, target: Path) -> None:
    flags = os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC
    with open(path, "rb") as source, open(os.open(target, flags, 0o600), "wb") as file:
        shutil.copyfileobj(source, file, 1024 * 1024)
        file.flush()
        os.fsync(file.fileno())
