"""`restore`: a backup back into a data folder that a server can start on unaided.

1. The folder is new or empty; the digest of every file is compared before its content counts.
2. Everything is made under `.restoring/` and moved up when it is whole, `open/` last. An
   interrupted restore leaves that folder only, and may be run again.
3. Rows are counted: each table of each part, and all of them, against `backup.json`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from ..errors import StoreError
from ..store.lock import FolderLock
from ..store.rebuilt_part import RebuiltFile, RebuiltPart
from ..store.schema import SCHEMA_VERSION
from ..store.syncing import sync_path
from ..store.upload_files import row_count, table_of
from .copies import Pace, copy_file, digest_of
from .manifest import MANIFEST_NAME, Backup, BackupFailed, BackupFile, BackupPart, read_manifest

__all__ = ["restore"]

_STAGING = ".restoring"
# What `FolderLock` makes.
_HARMLESS = frozenset({"lock", _STAGING, "lost+found"})
# A server that starts on what has been moved so far must find nothing rather than a part of it.
_LAST = ("uploads", "sealed", "journal", "open")


def restore(directory: Path, data_dir: Path, pace: Pace) -> Backup:
    """What was restored. Raises BackupFailed, StoreBusy."""
    backup = read_manifest(directory)
    if backup is None:
        raise BackupFailed(
            f"{directory} holds no complete backup: there is no {MANIFEST_NAME} in it"
        )
    newest = max((part.schema_version for part in backup.parts), default=0)
    if newest > SCHEMA_VERSION:
        raise BackupFailed(
            f"the backup was made by release {backup.release}, whose parts this one cannot read"
        )
    try:
        if data_dir.exists():
            _refuse_unless_empty(data_dir)
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = FolderLock(data_dir)
        lock.acquire()
        try:
            _refuse_unless_empty(data_dir)
            return _restore(backup, directory, data_dir, pace)
        finally:
            lock.release()
    except OSError as error:
        raise BackupFailed(f"{error.filename or data_dir}: {error.strerror or error}") from error


def _refuse_unless_empty(data_dir: Path) -> None:
    if not data_dir.is_dir():
        raise BackupFailed(f"{data_dir} is no folder")
    found = sorted(path.name for path in data_dir.iterdir() if path.name not in _HARMLESS)
    if found:
        raise BackupFailed(
            f"{data_dir} is not empty ({found[0]} is in it); name a new folder with --data-dir"
        )


def _restore(backup: Backup, directory: Path, data_dir: Path, pace: Pace) -> Backup:
    staging = data_dir / _STAGING
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(mode=0o700)
    files = {file.path: file for file in backup.files}
    for file in backup.files:
        if file.restored_as:
            _copied(file, directory, staging / file.restored_as, pace)
        else:
            _refuse_unless_whole(file, *digest_of(_there(file, directory), pace))
    (staging / "open").mkdir(mode=0o700)
    (staging / "journal").mkdir(mode=0o700, exist_ok=True)
    for part in backup.parts:
        path = staging / "open" / f"{part.number:06d}.duckdb"
        _rebuild(part, directory, RebuiltPart(path, part.number, part.created_at), files)
    if backup.rollups is not None:
        rollups = RebuiltFile(staging / "rollups.duckdb")
        _rebuild(backup.rollups, directory, rollups, files)
    _refuse_unless_counted(backup, staging)
    for folder in (staging, *staging.rglob("*")):
        if folder.is_dir():
            sync_path(folder)
    names = [path.name for path in staging.iterdir() if path.name not in _LAST]
    for name in (*names, *_LAST):
        if (staging / name).exists():
            os.rename(staging / name, data_dir / name)
            sync_path(data_dir)
    shutil.rmtree(staging)
    return backup


def _there(file: BackupFile, directory: Path) -> Path:
    path = directory / file.path
    if not path.is_file():
        raise BackupFailed(f"{path} is missing from the backup; nothing was restored")
    return path


def _copied(file: BackupFile, directory: Path, target: Path, pace: Pace) -> None:
    _refuse_unless_whole(file, *copy_file(_there(file, directory), target, pace))


def _refuse_unless_whole(file: BackupFile, size: int, digest: str) -> None:
    if size != file.bytes or digest != file.sha256:
        raise BackupFailed(
            f"{file.path} in the backup is damaged: its checksum is not that of {MANIFEST_NAME};"
            " nothing was restored"
        )


def _rebuild(
    part: BackupPart, directory: Path, rebuilt: RebuiltFile, files: Mapping[str, BackupFile]
) -> None:
    name = f"part {part.number}" if part.number else "the rollups"
    try:
        with rebuilt:
            for statement in part.ddl.values():
                rebuilt.create_table(statement)
            for table, names in part.files.items():
                unknown = [name for name in names if name not in files]
                if unknown:
                    raise BackupFailed(f"{unknown[0]} has no checksum in {MANIFEST_NAME}")
                rebuilt.insert_files(table, [directory / name for name in names])
            for table, expected in part.rows.items():
                if (found := rebuilt.count(table)) != expected:
                    raise BackupFailed(
                        f"{table} of {name} has {found} rows, not {expected}; nothing was restored"
                    )
            rebuilt.finish()
    except StoreError as error:
        raise BackupFailed(f"{name} cannot be made: {error}") from error


def _refuse_unless_counted(backup: Backup, staging: Path) -> None:
    """The rows of all that was put back are as many as the backup says."""
    found = dict.fromkeys(backup.rows, 0)
    for part in backup.parts:
        for table, count in part.rows.items():
            if table in found:
                found[table] += count
    for file in backup.files:
        if file.kind in ("upload", "sealed"):
            path = Path(file.restored_as)
            table = table_of(path.name) if file.kind == "upload" else path.parts[1]
            if table in found:
                found[table] += row_count(staging / path)
    for table, expected in backup.rows.items():
        if found[table] != expected:
            raise BackupFailed(
                f"{found[table]} rows of {table} were put back, not {expected}; nothing was"
                " restored"
            )
